import numpy as np
import pytest
from extractive_texts import PASSAGE, generate_texts, make_row
from rouge_score.rouge_scorer import RougeScorer

from crosstask.eval.systems.lead import get_lead
from crosstask.eval.systems.oracle import Oracle
from crosstask.sentences_crosstask import split_sentences


def compute_rouge(summary, reference):
    """Return ROUGE-1 F1 + ROUGE-2 F1."""
    scores = RougeScorer(["rouge1", "rouge2"], use_stemmer=True).score(reference, summary)
    return scores["rouge1"].fmeasure + scores["rouge2"].fmeasure


def test_the_search_agrees_with_one_that_calls_rouge_score():
    for passage, reference in generate_texts(seed=0, count=40):
        sentences = split_sentences(passage)
        assert len(sentences) == 7
        selected, best = [], 0.0
        for _ in range(3):
            candidates = [sorted([*selected, i]) for i in range(7) if i not in selected]
            scores = [
                compute_rouge(" ".join(sentences[i] for i in candidate), reference)
                for candidate in candidates
            ]
            if max(scores) <= best + 1e-12:
                break
            best = max(scores)
            selected = candidates[int(np.argmax(np.round(scores, 12)))]
        [summary] = Oracle().write([make_row(passage, summary=reference)]).summaries
        assert compute_rouge(summary, reference) == pytest.approx(best)
        assert (
            compute_rouge(summary, reference)
            >= max(compute_rouge(sentence, reference) for sentence in sentences) - 1e-9
        )


def test_the_oracle_selects_the_sentences_of_the_reference():
    reference = "The council will vote on the new bridge in May. The song was about a cat."
    [summary] = Oracle().write([make_row(PASSAGE, summary=reference)]).summaries
    assert summary == reference
    assert compute_rouge(summary, reference) > compute_rouge(get_lead(PASSAGE), reference)
    assert Oracle(1).write([make_row(PASSAGE, summary=reference)]).summaries == [
        reference.split(" The song")[0]
    ]
    assert Oracle().write([make_row(PASSAGE, summary="雨")]).summaries == [get_lead(PASSAGE)]
