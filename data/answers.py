"""How SQuAD compares answers: whether a text carries an answer, row by row."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Iterable
from statistics import fmean

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


def mean(values: Iterable[float | None]) -> float | None:
    """The mean of the rows that have a value, whatever their order; None where none has."""
    values = [value for value in values if value is not None]
    return fmean(values) if values else None  # an exact sum: one of floats would depend on the order


def to_paired_lists(**columns: Iterable) -> list[list]:
    """The columns as lists, or a ValueError if two of them are not of the same length."""
    lists = {name: list(column) for name, column in columns.items()}
    (first, a), *others = lists.items()
    for name, b in others:
        if len(a) != len(b):
            raise ValueError(f"There are {len(a)} {first} but {len(b)} {name}, expected as many.")
    return list(lists.values())


def normalize_answer(text: str) -> str:
    """Bring an answer to the form in which SQuAD compares answers.

    Lower-cases, deletes ASCII punctuation, drops the articles *a*, *an* and *the*, and leaves one
    space between words. Numbers lose their punctuation too ("4.2" becomes "42"), and a text of
    nothing but articles and punctuation becomes empty.

    Source: the steps of SQuAD's official evaluation script; Rajpurkar et al. 2016, "SQuAD: 100,000+
    Questions for Machine Comprehension of Text", https://arxiv.org/abs/1606.05250.

    Args:
        text: Any text; what is not English keeps its words.

    Returns:
        The normalized text, possibly empty.
    """
    without_punctuation = text.lower().translate(_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", without_punctuation).split())


def answer_recall_rows(summaries: Iterable[str], answers: Iterable[str]) -> list[float | None]:
    """The share of each answer's words that its summary carries.

    Both are normalized with `normalize_answer` and compared as multisets of words: a word that the
    answer has twice counts fully only where the summary has it twice. It is the recall half of
    SQuAD's token F1 (Rajpurkar et al. 2016), since a summary is rightly longer than the answer.

    Args:
        summaries: One summary a row.
        answers: One answer a row.

    Returns:
        0 to 1 for each row; None where the answer is empty once normalized.

    Raises:
        ValueError: If there are not as many summaries as answers.
    """

    def recall(summary, answer):
        wanted = Counter(answer.split())
        return (wanted & Counter(summary.split())).total() / wanted.total()

    return _of_answers(recall, summaries, answers)


def answer_exact_rows(summaries: Iterable[str], answers: Iterable[str]) -> list[float | None]:
    """Whether each summary carries its answer word for word: its words in a row, in their order, both
    normalized with `normalize_answer`.

    Args and errors are those of `answer_recall_rows`; the values are 0.0 or 1.0.
    """
    return _of_answers(lambda summary, answer: float(f" {answer} " in f" {summary} "), summaries, answers)


def _of_answers(score, summaries, answers):
    normalized = (
        (normalize_answer(summary), normalize_answer(answer))
        for summary, answer in zip(*to_paired_lists(summaries=summaries, answers=answers), strict=True)
    )
    return [score(summary, answer) if answer else None for summary, answer in normalized]


def answer_recall(summaries: Iterable[str], answers: Iterable[str]) -> float | None:
    """Mean share of the answer's tokens that the summary carries.

    Both are normalized with `normalize_answer` and compared as multisets of words: a word that the
    answer has twice counts fully only where the summary has it twice. It is the recall half of
    SQuAD's token F1 (Rajpurkar et al. 2016), since a summary is rightly longer than the answer.

    Args:
        summaries: One summary a row.
        answers: One answer a row; rows whose answer is empty once normalized are left out.

    Returns:
        The mean over the rows with an answer, 0 to 1, or None if no row has one.

    Raises:
        ValueError: If there are not as many summaries as answers.
    """
    return mean(answer_recall_rows(summaries, answers))
