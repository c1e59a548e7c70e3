"""Compare answers as SQuAD does: how much of the answer a text carries, row by row."""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from statistics import fmean
from typing import Any

from crosstask.sentences_crosstask import UNSPACED_CHARACTER, normalize_text

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_NON_ASCII_MARK = re.compile(r"[^\x00-\x7f\w\s]")
_UNSPACED_CHARACTER = re.compile(UNSPACED_CHARACTER)
# A number with its sign and the marks between its digits. A "-" after a letter or digit is no sign.
_NUMBER = re.compile(r"(?:(?<!\w)-)?\d+(?:[.,'٫٬]\d+)*")
_NUMBER_MARK = re.compile(r"[.,'٫٬]")
# Characters of scripts with spaces between words, where an answer must not be part of a longer word: "3" does
# not match in "1893", but 1958年 matches in は1958年に.
_SPACED_CHARACTER = "[0-9A-Za-zÀ-ɏͰ-ӿ]"


def mean(values: Iterable[float | None]) -> float | None:
    """Return the mean of the values that are not `None`, or `None` if there are none."""
    numbers = [value for value in values if value is not None]
    return fmean(numbers) if numbers else None  # `fmean` sums exactly, so the order of rows does not matter


def to_paired_lists(**columns: Iterable[Any]) -> list[list[Any]]:
    """Return the columns as lists; raise a `ValueError` if they differ in length."""
    lists = {name: list(column) for name, column in columns.items()}
    (first, first_list), *rest = lists.items()
    for name, values in rest:
        if len(first_list) != len(values):
            raise ValueError(
                f"expected as many {name} as {first}: got {len(first_list)} {first} and {len(values)} {name}"
            )
    return list(lists.values())


def compile_phrase(answer: str) -> re.Pattern:
    """
    Return a pattern that matches an answer in a text, regardless of case, but not within a longer word.

    Args:
        answer (`str`): The answer, not blank. The pattern has it as its only group.
    """
    return re.compile(
        rf"(?<!{_SPACED_CHARACTER})({re.escape(answer.strip())})(?!{_SPACED_CHARACTER})", re.IGNORECASE
    )


def normalize_answer(text: str) -> str:
    """Normalize a text for comparing answers, with the steps of SQuAD's official evaluation script.

    The text is lower-cased, ASCII punctuation and the articles *a*, *an* and *the* are removed, and words are
    separated by one space. Punctuation within numbers is removed, too ("4.2" becomes "42").

    Text that is not ASCII is first brought into one form ([`~sentences_crosstask.normalize_text`]), so that
    typographic quotes and minus signs are punctuation of ASCII, and digits of all scripts are equal. Other
    punctuation ("—", "،", "।", "、") becomes a space. In scripts without spaces between words, each character
    becomes a word, as in the evaluation of MLQA for Chinese (Lewis et al. 2020,
    https://arxiv.org/abs/1910.07475).

    Source: Rajpurkar et al. 2016, "SQuAD: 100,000+ Questions for Machine Comprehension of Text",
    https://arxiv.org/abs/1606.05250.

    Args:
        text (`str`):
            Any text. Articles of other languages than English are left as they are.

    Returns:
        `str`: The normalized text, which is empty if there is nothing but articles and punctuation.
    """
    text = normalize_text(text).casefold()
    if not text.isascii():
        text = _NON_ASCII_MARK.sub(_replace_punctuation, text)
        text = _UNSPACED_CHARACTER.sub(r" \g<0> ", text)
    return " ".join(_ARTICLES.sub(" ", text.translate(_PUNCTUATION)).split())


def _replace_punctuation(mark: re.Match) -> str:
    return " " if unicodedata.category(mark[0]).startswith("P") else mark[0]


def carries_answer(summary: str, answer: str) -> bool:
    """
    Return whether a summary has all words of an answer, and all its numbers with their values.

    [`answer_recall_rows`] compares "$1.5 million" and "$15 million" as equal, because SQuAD's rules remove
    the punctuation within numbers and the sign. Here, they differ. "1,500", "1.500" and "1500" are equal, and
    so are "1.5", "1,5" and "1.50".

    Args:
        summary (`str`): Any text.
        answer (`str`): An answer; without any word, no summary carries it.
    """
    if answer_recall_rows([summary], [answer]) != [1.0]:
        return False
    return not Counter(_list_numbers(answer)) - Counter(_list_numbers(summary))


def _list_numbers(text: str) -> list[str]:
    """Return the numbers in a text, each in one spelling."""
    numbers = []
    for number in _NUMBER.findall(normalize_text(text)):
        first, *groups = _NUMBER_MARK.split(number)
        if len(groups) == 1 and len(groups[0]) != 3:  # a decimal fraction
            fraction = groups[0].rstrip("0")
            number = f"{first}.{fraction}" if fraction else first
        elif all(len(group) == 3 for group in groups):  # thousands
            number = "".join([first, *groups])
        numbers.append(number)
    return numbers


def answer_recall_rows(summaries: Iterable[str], answers: Iterable[str]) -> list[float | None]:
    """Compute the share of the answer's words that the summary carries, for each row.

    Both texts are normalized with [`normalize_answer`] and compared as multisets of words: a word that occurs
    twice in the answer counts fully only if the summary has it twice. This is the recall part of SQuAD's
    token F1 (Rajpurkar et al. 2016); precision would be out of place, since a summary may be longer than the
    answer.

    Args:
        summaries (`Iterable[str]`):
            One summary per row.
        answers (`Iterable[str]`):
            One answer per row.

    Returns:
        `list[float | None]`: 0 to 1 for each row, `None` if the normalized answer is empty.

    Raises:
        ValueError: If the numbers of summaries and answers differ.
    """

    def recall(summary: str, answer: str) -> float:
        words = Counter(answer.split())
        return (words & Counter(summary.split())).total() / words.total()

    return _score_rows(recall, summaries, answers)


def answer_exact_rows(summaries: Iterable[str], answers: Iterable[str]) -> list[float | None]:
    """Compute whether the summary carries the answer word for word, for each row.

    Both texts are normalized with [`normalize_answer`]; the words of the answer must follow each other in the
    summary in the same order.

    Args:
        summaries (`Iterable[str]`):
            One summary per row.
        answers (`Iterable[str]`):
            One answer per row.

    Returns:
        `list[float | None]`: 0.0 or 1.0 for each row, `None` if the normalized answer is empty.

    Raises:
        ValueError: If the numbers of summaries and answers differ.
    """
    return _score_rows(lambda summary, answer: float(f" {answer} " in f" {summary} "), summaries, answers)


def _score_rows(
    score: Callable[[str, str], float], summaries: Iterable[str], answers: Iterable[str]
) -> list[float | None]:
    """Score the normalized texts of the rows with an answer."""
    normalized = (
        (normalize_answer(summary), normalize_answer(answer))
        for summary, answer in zip(*to_paired_lists(summaries=summaries, answers=answers), strict=True)
    )
    return [score(summary, answer) if answer else None for summary, answer in normalized]


def answer_recall(summaries: Iterable[str], answers: Iterable[str]) -> float | None:
    """Compute the mean of [`answer_recall_rows`] over the rows with an answer.

    Args:
        summaries (`Iterable[str]`):
            One summary per row.
        answers (`Iterable[str]`):
            One answer per row.

    Returns:
        `float` or `None`: 0 to 1, or `None` if no row has an answer.

    Raises:
        ValueError: If the numbers of summaries and answers differ.
    """
    return mean(answer_recall_rows(summaries, answers))
