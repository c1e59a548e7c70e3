"""Sentences are taken as ROUGE, sumy and the question want them, of whatever text."""

import itertools
import random
import subprocess
import sys
import time

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer

from crosstask.eval.systems.extractive import Lead, LexRank, Oracle, lead
from crosstask.sentences_crosstask import split_sentences
from crosstask.utils.errors import DataError

pytest.importorskip("sumy")

PASSAGE = (
    "The town council met on Monday to discuss the bridge. Many people came to the meeting. "
    "The bridge was built in 1901 and is closed to heavy traffic. A new bridge would cost ten million. "
    "Children sang a song in the hall. The council will vote on the new bridge in May. "
    "Heavy traffic now goes through the town. The song was about a cat."
)
QUESTION = "What did the children sing about?"
SYSTEMS = [Lead(), Oracle(), LexRank(), LexRank(question=True)]
ODD = [
    "",
    " \n\n ",
    "One sentence.",
    "no stop at all",
    "... !!! ???",
    "Same here. Same here. SAME HERE. Same here. Same here.",
    "Two words. Other things.",
    "桥在五月三日开放。雨下了两天。",
    "Мост открылся в мае. Дождь шёл два дня. Река поднялась на метр. Мэр спал.",
    "🎉 🎊. 🎉🎉! 🐈?",
    "The of and. A the is. To be or not.",
]


def row(passage, question=QUESTION, summary="", **more):
    return {"passage": passage, "question": question, "summary": summary} | more


def rouge(summary, reference):
    scores = RougeScorer(["rouge1", "rouge2"], use_stemmer=True).score(reference, summary)
    return scores["rouge1"].fmeasure + scores["rouge2"].fmeasure


def texts(seed, count):
    """Passages of few words, so that sentences share many, and references made of the same."""
    draw = random.Random(seed)
    words = "dogs dog ran runs in the park parks a cat sat on mat".split()
    for _ in range(count):
        sentences = [" ".join(draw.choices(words, k=draw.randint(2, 9))) for _ in range(7)]
        yield "! ".join(map(str.capitalize, sentences)), " ".join(draw.choices(words, k=draw.randint(1, 25)))


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.name)
@pytest.mark.parametrize("passage", ODD)
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_any_text_has_a_summary_of_its_own_sentences(system, passage):
    for question, summary in itertools.product((QUESTION, "", "雨?"), ("", "The cat.", passage)):
        [written] = system.write([row(passage, question, summary)]).summaries
        assert written == written.strip()
        assert bool(written) == bool(passage.strip())
        assert set(split_sentences(written)) <= set(split_sentences(passage))
        assert len(split_sentences(written)) <= 3


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.name)
def test_rows_keep_their_order_and_each_distinct_input_is_done_once(system, monkeypatch):
    passages = [PASSAGE, "A cat sat. It rained. The river rose. The mayor slept.", "One."]
    rows = [row(p, q, s) for p in passages for q in (QUESTION, "Why?") for s in ("A cat.", "The river rose.")]
    alone = [system.write([one]).summaries[0] for one in rows]
    calls = {"read": 0, "take": 0}

    def counted(function, name):
        def call(*args):
            calls[name] += 1
            return function(*args)

        return call

    for name in calls:
        monkeypatch.setattr(system, name, counted(getattr(system, name), name))
    order = random.Random(0).choices(range(len(rows)), k=60)
    ticks = []
    outputs = system.write([rows[index] for index in order], ticks.append)
    assert outputs.summaries == [alone[index] for index in order]
    assert outputs.probabilities is outputs.own is None
    assert sum(ticks) == 60
    assert calls["read"] == 3
    assert calls["take"] == len({tuple(rows[index][name] for name in system.fields) for index in order})
    assert system.write([]).summaries == []


def test_lead_is_that_of_the_scores():
    assert Lead(2).write([row(PASSAGE)]).summaries == [lead(PASSAGE, 2)]
    assert (Lead(2).name, Lead(2).settings) == ("lead-2", {"kind": "lead", "k": 2})


def test_sentences_and_lead_agree():
    for passage in (PASSAGE, *ODD, "Mr. Smith came.\n\nA heading\n\nHe left the U.S. He slept."):
        sentences = split_sentences(passage)
        assert "".join("".join(sentences).split()) == "".join(passage.split())
        for k in (1, 2, 3):
            assert "".join(lead(passage, k).split()) == "".join("".join(sentences[:k]).split())


def test_the_oracle_is_the_greedy_search_with_rouge_score_in_its_loop():
    for passage, reference in texts(seed=0, count=40):
        sentences = split_sentences(passage)
        assert len(sentences) == 7
        picked, best = [], 0.0
        for _ in range(3):
            tries = [sorted([*picked, i]) for i in range(7) if i not in picked]
            scores = [rouge(" ".join(sentences[i] for i in one), reference) for one in tries]
            if max(scores) <= best + 1e-12:
                break
            best = max(scores)
            picked = tries[int(np.argmax(np.round(scores, 12)))]
        [written] = Oracle().write([row(passage, summary=reference)]).summaries
        assert rouge(written, reference) == pytest.approx(best)
        assert rouge(written, reference) >= max(rouge(one, reference) for one in sentences) - 1e-9


def test_the_oracle_beats_the_lead_and_finds_the_reference():
    reference = "The council will vote on the new bridge in May. The song was about a cat."
    [written] = Oracle().write([row(PASSAGE, summary=reference)]).summaries
    assert written == reference
    assert rouge(written, reference) > rouge(lead(PASSAGE), reference)
    assert Oracle(1).write([row(PASSAGE, summary=reference)]).summaries == [reference.split(" The song")[0]]
    assert Oracle().write([row(PASSAGE, summary="雨")]).summaries == [lead(PASSAGE)]


def test_lexrank_is_that_of_sumy():
    from sumy.models.dom import ObjectDocumentModel, Paragraph, Sentence
    from sumy.nlp.stemmers import Stemmer
    from sumy.summarizers.lex_rank import LexRankSummarizer
    from sumy.utils import get_stop_words

    class Words:
        def to_words(self, text):
            return text.replace(".", "").split()

    theirs = LexRankSummarizer(Stemmer("english"))
    theirs.stop_words = get_stop_words("english")
    document = ObjectDocumentModel([Paragraph([Sentence(s, Words()) for s in split_sentences(PASSAGE)])])
    for k in (1, 2, 3, 5):
        expected = " ".join(map(str, theirs(document, k)))
        assert LexRank(k).write([row(PASSAGE)]).summaries == [expected]
    ours = LexRank()
    _, stems, cosines = ours.read(PASSAGE)
    assert stems == [theirs._to_words_set(sentence) for sentence in document.sentences]
    tf, idf = theirs._compute_tf(stems), theirs._compute_idf(stems)
    for i, j in itertools.product(range(len(stems)), repeat=2):
        cosine = theirs.cosine_similarity(stems[i], stems[j], tf[i], tf[j], idf)
        assert cosines[i, j] == pytest.approx(cosine)
    matrix = theirs._create_matrix(stems, 0.1, tf, idf)
    assert ours._summarizer.centrality(cosines) == pytest.approx(theirs.power_method(matrix, 0.1))


def test_the_question_draws_its_sentences():
    [plain] = LexRank(1).write([row(PASSAGE)]).summaries
    assert "bridge" in plain
    rows = [row(PASSAGE, q) for q in ("Which song did children sing?", "How much does a new bridge cost?")]
    first, second = LexRank(1, question=True).write(rows).summaries
    assert first == "Children sang a song in the hall."
    assert second == "A new bridge would cost ten million."


def test_the_biased_walk_is_the_stationary_one_of_the_formula():
    system = LexRank(question=True, d=0.6)
    passage, _ = next(texts(seed=1, count=1))  # its sentences share so many words that no two link alike
    _, stems, cosines = system.read(passage)
    question = system._summarizer.stems("Which dogs ran in the park?")
    scores = system._biased(stems, cosines, question)
    assert scores.sum() == pytest.approx(1)
    links = np.where(cosines > 0.1, cosines, 0)
    relevance = np.zeros(len(stems))
    for index, sentence in enumerate(stems):
        for word in set(question):
            sf = sum(word in other for other in stems)
            idf = np.log((len(stems) + 1) / (0.5 + sf))
            relevance[index] += np.log(sentence.count(word) + 1) * np.log(question.count(word) + 1) * idf
    walk = 0.6 * relevance / relevance.sum() + 0.4 * (links / links.sum(0)) @ scores
    assert scores == pytest.approx(walk)


def test_a_sentence_that_is_repeated_is_taken_once():
    passage = "The bridge is closed. Rain fell. The bridge is closed. THE BRIDGE IS CLOSED. A cat sat there."
    for system in (LexRank(), LexRank(question=True)):
        [written] = system.write([row(passage, "Is the bridge closed?")]).summaries
        assert written.lower().count("the bridge is closed.") == 1


def test_a_transcript_of_a_thousand_sentences_takes_no_minute():
    words = [f"word{i}" for i in range(600)]
    draw = random.Random(0)
    passage = " ".join(" ".join(draw.choices(words, k=12)).capitalize() + "." for _ in range(1000))
    rows = [row(passage, " ".join(draw.choices(words, k=8)), passage[:900]) for _ in range(5)]
    start = time.monotonic()
    for system in SYSTEMS:
        system.write(rows)
    assert time.monotonic() - start < 10


@pytest.mark.parametrize("kind", [Lead, Oracle, LexRank])
@pytest.mark.parametrize("k", [0, -1, 1.5, "3", True])
def test_a_number_of_sentences_is_needed(kind, k):
    with pytest.raises(DataError, match="expected a positive integer"):
        kind(k)


@pytest.mark.parametrize("d", [0, 1.5, "a", None, True])
def test_the_weight_of_the_question_is_a_share(d):
    with pytest.raises(DataError, match="d is .*, expected a number above 0 and up to 1"):
        LexRank(question=True, d=d)


def test_without_sumy_the_error_says_what_to_install():
    code = "import sys; sys.modules['sumy'] = None; from crosstask.eval.systems.extractive import LexRank; LexRank()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert 'needs the package sumy, which `pip install "crosstask[eval]"` has' in done.stderr
