"""SQuAD 2.0, in its official JSON and in the flat columns of `rajpurkar/squad_v2`.

Source: Rajpurkar et al. 2018, "Know What You Don't Know: Unanswerable Questions for SQuAD",
https://arxiv.org/abs/1806.03822.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from crosstask.data.schema import REJECT, DataError

COLUMNS = ("id", "context", "question", "answers")


def is_squad(columns: Iterable[str]) -> bool:
    """Whether records with these columns are SQuAD's rather than rows of ours."""
    columns = set(columns)
    return columns.issuperset(COLUMNS) and "passage" not in columns


def flatten(document: Any, name: str) -> Iterator[dict[str, Any]]:
    """Yield one flat record a question of the official format.

    Args:
        document: The parsed JSON: {"data": [{"paragraphs": [{"context", "qas": [...]}]}]}.
        name: What errors call the file.

    Raises:
        DataError: If a part is missing or of another type; it says which.
    """
    for article_at, article in _items(document, "data", name):
        for paragraph_at, paragraph in _items(article, "paragraphs", article_at):
            context = _get(paragraph, "context", str, paragraph_at)
            for qa_at, qa in _items(paragraph, "qas", paragraph_at):
                yield {
                    "id": _get(qa, "id", str, qa_at),
                    "context": context,
                    "question": _get(qa, "question", str, qa_at),
                    "answers": _get(qa, "answers", list, qa_at),
                    "is_impossible": qa.get("is_impossible"),  # SQuAD 1.1 does not say
                }


def to_row(record: Mapping[str, Any], source: str, where: str) -> dict[str, Any]:
    """Turn a flat record into a row: its first answer, or none and label 0 where impossible.

    Args:
        record: Columns `COLUMNS`; `answers` as {"text": [...]} or [{"text": ...}].
        source: The row's `source`.
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
    except (TypeError, KeyError):
        raise DataError(
            f"{where}, row {record['id']!r}: answers is {reprlib.repr(answers)}, expected "
            "{'text': [...], 'answer_start': [...]}"
        ) from None
    impossible = record.get("is_impossible")
    row = {
        "id": record["id"],
        "source": source,
        "passage": record["context"],
        "question": record["question"],
        "answer": "" if impossible else answer,
        "summary": "",
        "answerable": None,
    }
    if impossible is False and not answer:
        row[REJECT] = "no answer, yet not impossible"
    return row


def _items(parent: Any, key: str, at: str) -> Iterator[tuple[str, Any]]:
    for number, item in enumerate(_get(parent, key, list, at)):
        yield f"{at}{': ' if key == 'data' else '.'}{key}[{number}]", item


def _get(parent: Any, key: str, kind: type, at: str) -> Any:
    value = parent.get(key) if isinstance(parent, dict) else None
    if not isinstance(value, kind):
        expected = {"str": "a string", "list": "a list"}[kind.__name__]
        raise DataError(f"{at}: expected an object of SQuAD 2.0 whose {key!r} is {expected}")
    return value
