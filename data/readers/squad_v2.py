"""SQuAD 2.0: questions about paragraphs of Wikipedia, a third of them without an answer.

It is read from the flat columns of `rajpurkar/squad_v2` and from the official JSON.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from crosstask.data.readers.corpus import Corpus, JsonFormat, Record, Reject, Row
from crosstask.data.schema import STAGES
from crosstask.utils.errors import DataError


def _make_rows(record: Record, stage: str, default_id: str) -> Iterator[Row | Reject]:
    """
    Yield a row with the first answer, or an empty one if the question is impossible, and with the summary and
    label that somebody added. Reject a question that has no answer but is not marked as impossible.
    """
    added = {name: record[name] for name in ("summary", "answerable") if name in record}
    first_answer = _get_first_answer(record["answers"])
    is_impossible = record.get("is_impossible")  # the columns of the Hub do not have it
    if is_impossible is False and not first_answer:
        yield Reject("no answer, but the question is not marked as impossible", record.get("id"))
        return
    yield {
        "id": record.get("id"),
        "passage": record["context"],
        "question": record["question"],
        "answer": "" if is_impossible else first_answer,
        **added,
    }


def _get_first_answer(answers: Any) -> str:
    """Return the first answer, or "", of {"text": [...]} (the Hub) or [{"text": ...}] (official JSON)."""
    try:
        texts = answers["text"] if isinstance(answers, dict) else [answer["text"] for answer in answers]
        first_answer = next(iter(texts), "")
        if isinstance(texts, str) or not isinstance(first_answer, str):
            raise TypeError
    except (TypeError, KeyError):
        expected = "{'text': [...], 'answer_start': [...]}"
        raise DataError(f"answers is {reprlib.repr(answers)}, expected {expected}") from None
    return first_answer


def _matches(document: Any) -> bool:
    if not isinstance(document, dict) or not isinstance(document.get("data"), list):
        return False
    articles = document["data"]
    return not articles or any(isinstance(article, dict) and "paragraphs" in article for article in articles)


def _flatten(document: Any) -> Iterator[Record | Reject]:
    """Yield one record per question of {"data": [{"paragraphs": [{"context", "qas": [...]}]}]}."""
    for article_number, article in enumerate(document["data"]):
        place = f"data[{article_number}]"
        try:
            paragraphs = _get(article, "paragraphs", list, place)
        except DataError as error:
            yield Reject(str(error), is_malformed=True)
            continue
        for number, paragraph in enumerate(paragraphs):
            yield from _flatten_paragraph(paragraph, f"{place}.paragraphs[{number}]")


def _flatten_paragraph(paragraph: Any, place: str) -> Iterator[Record | Reject]:
    try:
        context = _get(paragraph, "context", str, place)
        questions = _get(paragraph, "qas", list, place)
    except DataError as error:
        yield Reject(str(error), is_malformed=True)
        return
    for number, question in enumerate(questions):
        question_place = f"{place}.qas[{number}]"
        try:
            yield {
                "id": _get(question, "id", str, question_place),
                "context": context,
                "question": _get(question, "question", str, question_place),
                "answers": _get(question, "answers", list, question_place),
                "is_impossible": question.get("is_impossible"),  # SQuAD 1.1 does not have it
            }
        except DataError as error:
            yield Reject(str(error), is_malformed=True)


def _get(parent: Any, key: str, kind: type, place: str) -> Any:
    value = parent.get(key) if isinstance(parent, dict) else None
    if not isinstance(value, kind):
        expected = "a string" if kind is str else "a list"
        raise DataError(f"{place}: expected an object of SQuAD 2.0 with {key!r} being {expected}")
    return value


SQUAD_V2 = Corpus(
    name="squad_v2",
    title="SQuAD 2.0",
    hub_id="rajpurkar/squad_v2",
    license="cc-by-sa-4.0",
    url="https://rajpurkar.github.io/SQuAD-explorer/",
    citation="Rajpurkar et al. 2018, Know What You Don't Know: Unanswerable Questions for SQuAD, "
    "https://arxiv.org/abs/1806.03822",
    columns=("id", "context", "question", "answers"),
    official_files=r"(train|dev|sample)-v2\.0\.json",
    json_format=JsonFormat(
        "an object with 'data' being a list of articles with 'paragraphs'", _matches, _flatten
    ),
    stages=("answer",),
    expected="a question of SQuAD",
    make_rows=_make_rows,
    is_extractive=True,
)

# Such rows serve all stages. They are no published corpus, so they have no files of their own.
SQUAD_V2_SUMMARIES = replace(
    SQUAD_V2,
    name="squad_v2_summaries",
    title="SQuAD 2.0 with summaries",
    hub_id=None,
    columns=("context", "question", "answers", "summary"),
    official_files=None,
    json_format=None,
    stages=STAGES,
    is_joint=True,
)
