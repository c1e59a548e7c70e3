"""SQuAD 2.0, in its official JSON and in the flat columns of `rajpurkar/squad_v2`.

Source: Rajpurkar et al. 2018, "Know What You Don't Know: Unanswerable Questions for SQuAD",
https://arxiv.org/abs/1806.03822.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Mapping
from typing import Any

from crosstask.data.schema import REJECT
from crosstask.utils.errors import DataError

COLUMNS = ("id", "context", "question", "answers")


def flatten(document: Any, name: str) -> Iterator[dict[str, Any] | str]:
    """Yield one flat record a question of the official format, or why there is none.

    Args:
        document: The parsed JSON: {"data": [{"paragraphs": [{"context", "qas": [...]}]}]}.
        name: What an error calls the file.

    Yields:
        The record, or for a part of which something is missing or of another type a text that says which.

    Raises:
        DataError: If the document is none of SQuAD.
    """
    for number, article in enumerate(_get(document, "data", list, name)):
        at = f"data[{number}]"
        try:
            paragraphs = _get(article, "paragraphs", list, at)
        except DataError as error:
            yield str(error)
            continue
        for number, paragraph in enumerate(paragraphs):
            yield from _questions(paragraph, f"{at}.paragraphs[{number}]")


def _questions(paragraph: Any, at: str) -> Iterator[dict[str, Any] | str]:
    try:
        context = _get(paragraph, "context", str, at)
        qas = _get(paragraph, "qas", list, at)
    except DataError as error:
        yield str(error)
        return
    for number, qa in enumerate(qas):
        qa_at = f"{at}.qas[{number}]"
        try:
            yield {
                "id": _get(qa, "id", str, qa_at),
                "context": context,
                "question": _get(qa, "question", str, qa_at),
                "answers": _get(qa, "answers", list, qa_at),
                "is_impossible": qa.get("is_impossible"),  # SQuAD 1.1 does not say
            }
        except DataError as error:
            yield str(error)


def to_row(record: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Turn a flat record into a row: its first answer, or none and label 0 where impossible.

    Args:
        record: Columns `COLUMNS`; `answers` as {"text": [...]} or [{"text": ...}].
        where: The place that an error names.

    Returns:
        The row, with a reason under `REJECT` where it contradicts itself.

    Raises:
        DataError: If `answers` has neither form.
    """
    answers = record["answers"]
    try:
        texts = answers["text"] if isinstance(answers, dict) else [a["text"] for a in answers]
        answer = next(iter(texts), "")
        if isinstance(texts, str) or not isinstance(answer, str):
            raise TypeError
    except (TypeError, KeyError):
        raise DataError(
            f"{where}, row {record['id']!r}: answers is {reprlib.repr(answers)}, expected "
            "{'text': [...], 'answer_start': [...]}"
        ) from None
    impossible = record.get("is_impossible")
    row = {
        "id": record["id"],
        "passage": record["context"],
        "question": record["question"],
        "answer": "" if impossible else answer,
    }
    if impossible is False and not answer:
        row[REJECT] = "no answer, yet not impossible"
    return row


def _get(parent: Any, key: str, kind: type, at: str) -> Any:
    value = parent.get(key) if isinstance(parent, dict) else None
    if not isinstance(value, kind):
        expected = {"str": "a string", "list": "a list"}[kind.__name__]
        raise DataError(f"{at}: expected an object of SQuAD 2.0 whose {key!r} is {expected}")
    return value
