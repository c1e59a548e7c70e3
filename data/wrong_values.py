"""Make summaries that state a wrong value: what a judge of answerability has to tell from right ones."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from random import Random
from typing import Any

from datasets import Dataset

from crosstask.data.answers import compile_phrase, normalize_answer
from crosstask.data.schema import hash_texts

WRONG_SUFFIX = "-wrong"  # of the id of a row that repeats another one with a wrong value
_OWN_PASSAGE_SHARE = 0.25  # of the wrong values: answers to other questions about the same passage
_ATTEMPTS = 10  # draws from the candidates before a row is left out
_DIGIT = re.compile(r"\d")


class WrongValues:
    """
    Replace the answer in summaries by another value of its kind.

    A value is of the same kind if it answers the same question about another passage. If no other passage has
    that question, it is of the same kind if it has the same shape: digits or none, a capital or none, and the
    same number of words. One in four wrong values answers another question about the same passage.

    A draw depends on the seed and on the row, not on the order of the rows.

    Args:
        rows (`Iterable[Mapping]`):
            Rows of the schema, whose answers are the candidates. Rows without an answer give none.
        seed (`int`, *optional*, defaults to 0):
            The seed of the draws.
    """

    def __init__(self, rows: Iterable[Mapping[str, Any]], seed: int = 0):
        self.seed = seed
        by_question: dict[str, set[str]] = defaultdict(set)
        by_passage: dict[int, set[str]] = defaultdict(set)
        by_shape: dict[tuple[bool, bool, int], set[str]] = defaultdict(set)
        # Passages are keys by their hash: their texts may be larger than memory.
        self._answers: dict[int, set[str]] = defaultdict(set)
        for row in rows:
            answer = row["answer"].strip()
            if answer:
                by_question[_normalize_question(row["question"])].add(answer)
                by_passage[hash_texts(row["passage"])].add(answer)
                by_shape[_get_shape(answer)].add(answer)
                self._answers[_hash_question(row)].add(normalize_answer(answer))
        # Sorted, so that a draw does not depend on the order of the rows.
        self._by_question = {key: sorted(values) for key, values in by_question.items()}
        self._by_passage = {key: sorted(values) for key, values in by_passage.items()}
        self._by_shape = {key: sorted(values) for key, values in by_shape.items()}

    def replace(self, row: Mapping[str, Any]) -> str | None:
        """
        Return the summary of a row with a wrong value in the place of the answer.

        Args:
            row (`Mapping`): A row of the schema.

        Returns:
            `str` or `None`: The changed summary; `None` if the summary does not have the answer as a phrase,
            or if the rows have no other value of its kind.
        """
        answer = row["answer"].strip()
        if not answer or not compile_phrase(answer).search(row["summary"]):
            return None
        random = Random(f"{self.seed} {hash_texts(row['passage'], row['question'], answer)}")
        value = self._draw(random, row, answer)
        if value is None:
            return None

        def fill(match: re.Match) -> str:
            starts_sentence = match.start() == 0 and match[0][:1].isupper()
            return value[:1].upper() + value[1:] if starts_sentence else value

        return compile_phrase(answer).sub(fill, row["summary"])

    def _draw(self, random: Random, row: Mapping[str, Any], answer: str) -> str | None:
        """Return another value, or `None`."""
        same_kind = self._by_question.get(_normalize_question(row["question"]), [])
        if len(same_kind) < 2:
            same_kind = self._by_shape.get(_get_shape(answer), [])
        in_passage = self._by_passage.get(hash_texts(row["passage"]), [])
        right = self._answers.get(_hash_question(row), set()) | {normalize_answer(answer)}
        for _ in range(_ATTEMPTS):
            pool = in_passage if random.random() < _OWN_PASSAGE_SHARE else same_kind
            value = random.choice(pool) if pool else ""
            normalized = normalize_answer(value)
            # A value that contains the answer, or is a part of it, may be right.
            if normalized and not any(normalized in text or text in normalized for text in right):
                return value
        return None


def make_wrong_rows(
    rows: Dataset | Sequence[Mapping[str, Any]], share: float, seed: int = 0
) -> list[dict[str, Any]]:
    """
    Repeat some of the rows labeled 1 with a wrong value in the summary, labeled 0.

    Args:
        rows (`Dataset` or `Sequence[Mapping]`): Rows of the schema, which are read twice.
        share (`float`): The share of the rows labeled 1 that are repeated, 0 to 1. Rows whose summary does
            not have the answer as a phrase are left out.
        seed (`int`, *optional*, defaults to 0): The seed of the draws.

    Returns:
        `list[dict]`: The new rows, with "-wrong" at the end of their ids.
    """
    values = WrongValues(rows, seed)
    wrong_rows = []
    for row in rows:
        key = hash_texts("wrong", str(seed), row["id"], row["passage"], row["question"], row["summary"])
        if row["answerable"] != 1 or key / 2**64 >= share:
            continue
        summary = values.replace(row)
        if summary is not None:
            wrong_rows.append({**row, "id": row["id"] + WRONG_SUFFIX, "summary": summary, "answerable": 0})
    return wrong_rows


def _hash_question(row: Mapping[str, Any]) -> int:
    return hash_texts(row["passage"], row["question"])


def _normalize_question(question: str) -> str:
    return " ".join(question.casefold().split())


def _get_shape(answer: str) -> tuple[bool, bool, int]:
    """Return whether an answer has digits and a capital, and its number of words."""
    return bool(_DIGIT.search(answer)), answer != answer.lower(), len(answer.split())
