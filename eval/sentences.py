"""Sentences: where they end, and the lead baseline that takes the first of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice, pairwise

# A full stop after one of these never ends a sentence …
_TITLES = frozenset(
    "mr mrs ms mx dr prof rev hon gen col maj capt lt sgt cpl adm gov sen rep st mt ft vs cf e.g i.e".split()
)
# … and after one of these, or after initials ("U.S.", "J."), it does so only before a word that
# commonly begins a sentence.
_ABBREVIATIONS = frozenset(
    "jr sr inc ltd co corp bros dept est no nos vol pp fig figs eq approx ca etc al ph.d jan feb "
    "mar apr jun jul aug sep sept oct nov dec".split()
)
_INITIALS = re.compile(r"[^\W\d_](?:\.[^\W\d_])*")
OPENERS = frozenset(
    "a after although an and as at because before both but by despite during each for from he her "
    "here his how however i if in it its many most my no on one our several she since so some such "
    "that the their then there these they this those to under until we what when where which while "
    "who why with you your".split()
)


def sentences_of(text: str) -> list[str]:
    """Cut a text into its sentences.

    Sentences end at ".", "!" or "?" (closing quotes and brackets may follow) before white space,
    and at an empty line. Titles ("Mr."), common English abbreviations, initials ("U.S.") and
    decimals ("4.2") do not end one, nor does a mark before a lower-case word, unless the whole
    text is in lower case.

    Args:
        text: Any text; where words are not parted by white space, a line without it is one sentence.

    Returns:
        The sentences as they stand there, without white space around them; none of a blank text.
    """
    return [text[start:end] for start, end in _spans(text)]


def lead(passage: str, sentences: int = 3) -> str:
    """The lead baseline: the first sentences of the passage, as `sentences_of` finds them.

    Source of the baseline: See et al. 2017, "Get To The Point: Summarization with
    Pointer-Generator Networks", https://arxiv.org/abs/1704.04368 (lead-3).

    Args:
        passage: The text to take from.
        sentences: How many sentences to take, at least 1.

    Returns:
        The beginning of the passage, as it stands there but for white space around it; the whole
        passage where it has no more sentences than asked for.

    Raises:
        ValueError: If `sentences` is below 1.
    """
    if sentences < 1:
        raise ValueError(f"sentences is {sentences}, expected at least 1.")
    spans = list(islice(_spans(passage), sentences))
    return passage[spans[0][0] : spans[-1][1]] if spans else ""


def _spans(text: str) -> Iterator[tuple[int, int]]:
    """Where each sentence begins and ends, in characters."""
    cased = text != text.lower()
    words = list(re.finditer(r"\S+", text))
    start = words[0].start() if words else 0
    for word, following in pairwise(words):
        gap = text[word.end() : following.start()]
        if gap.count("\n") > 1 or _ends_sentence(word[0], following[0], cased):
            yield start, word.end()
            start = following.start()
    if words:
        yield start, words[-1].end()


def _ends_sentence(word: str, following: str, cased: bool) -> bool:
    """Whether a sentence ends with `word` where `following` is the next word."""
    word = word.strip("\"'“”‘’«»()[]")
    following = following.lstrip("\"'“‘«([").rstrip(",")
    if not word.endswith((".", "!", "?", "…")) or (cased and following[:1].islower()):
        return False
    stem = word[:-1].lower()
    if not word.endswith(".") or (stem not in _TITLES | _ABBREVIATIONS and not _INITIALS.fullmatch(stem)):
        return True
    return stem not in _TITLES and following.lower() in OPENERS
