"""The extractive systems and all metrics of texts on the same 240 paragraphs in five languages (XQuAD)."""

import json
from functools import cache
from pathlib import Path

import pytest

import crosstask
from crosstask.data.answers import answer_recall, mean
from crosstask.eval.run import score, score_summaries
from crosstask.eval.scoring.text_scores import ROUGE_TYPES, rouge_rows
from crosstask.eval.systems import make_system
from crosstask.eval.systems.base import Outputs
from crosstask.sentences_crosstask import iter_sentence_spans

FOLDER = Path(crosstask.__file__).parents[1] / "shared" / "data" / "xquad"
LANGUAGES = ("en", "de", "zh", "hi", "ar")
pytestmark = pytest.mark.skipif(not FOLDER.exists(), reason=f"{FOLDER.name} is not there")


@cache
def read_rows(language):
    """Return one row per question, with the sentence of the answer as the summary."""
    articles = json.loads((FOLDER / f"xquad.{language}.json").read_text(encoding="utf-8"))["data"]
    rows = []
    for paragraph in (paragraph for article in articles for paragraph in article["paragraphs"]):
        passage, sentences = paragraph["context"], list(iter_sentence_spans(paragraph["context"]))
        for question in paragraph["qas"]:
            answer = question["answers"][0]
            start, end = answer["answer_start"], answer["answer_start"] + len(answer["text"])
            spans = [span for span in sentences if span[0] < end and span[1] > start]
            row = {"question": question["question"], "passage": passage, "answer": answer["text"]}
            rows.append(row | {"answerable": 1, "summary": passage[spans[0][0] : spans[-1][1]]})
    return rows


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_systems_find_the_answers_in_every_language(language):
    pytest.importorskip("sumy")
    rows, recall, rouge = read_rows(language), {}, {}
    for kind, system in {
        "oracle": make_system("oracle"),
        "lead": make_system("lead-3"),
        "lexrank": make_system({"kind": "lexrank", "question": True}),
    }.items():
        summaries = system.write(rows).summaries
        recall[kind] = answer_recall(summaries, [row["answer"] for row in rows])
        references = [row["summary"] for row in rows]
        rouge[kind] = mean(rouge_rows(summaries[::10], references[::10], types=["rouge1"])["rouge1"])
    assert recall["oracle"] == pytest.approx(1, abs=0.02) and rouge["oracle"] == pytest.approx(1, abs=0.01)
    assert 0.7 < recall["lead"] < 0.85 and 0.9 < recall["lexrank"] < 1
    assert 0.35 < rouge["lead"] < rouge["lexrank"] < 0.6


def test_the_paragraphs_have_about_as_many_sentences_in_every_language():
    passages = {language: {row["passage"] for row in read_rows(language)} for language in LANGUAGES}
    counts = {
        language: mean(len(list(iter_sentence_spans(passage))) for passage in texts)
        for language, texts in passages.items()
    }
    assert all(4.8 < count < 5.5 for count in counts.values()), counts


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_text_agrees_with_itself_in_every_metric(language, minilm):
    pytest.importorskip("bert_score")
    rows = [row | {"answer": row["passage"], "summary": row["passage"]} for row in read_rows(language)[::150]]
    scores = score_summaries([row["passage"] for row in rows], rows, bertscore={"model": str(minilm)})
    for name in (*ROUGE_TYPES, "answer_recall", "answer_exact", "coverage", "bertscore"):
        assert scores[name] == [1] * len(rows), name
    assert set(scores["faithfulness"]) <= {1, None} and 1 in scores["faithfulness"]
    assert all(length > 20 for length in scores["length"] + scores["density"])


def test_the_report_says_where_metrics_do_not_apply():
    rows = read_rows("zh")[:5]
    _, notes = score(rows, {"a": Outputs([row["summary"] for row in rows])})
    assert any(note.startswith("5 of 5 rows are in a script without spaces") for note in notes)
    rows = read_rows("en")[::20]
    _, notes = score(rows, {"a": Outputs([row["summary"] for row in rows])})
    assert not any("rows are" in note for note in notes)
