"""Split texts into sentences, find the evidence of a summary, and merge summaries."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise

# A period after one of these never ends a sentence.
_TITLES = frozenset(
    "mr mrs ms mx dr prof rev hon gen col maj capt lt sgt cpl adm gov sen rep st mt ft vs cf e.g i.e".split()
)
# A period after one of these, or after initials ("U.S.", "J."), ends a sentence only before one of `OPENERS`.
_ABBREVIATIONS = frozenset(
    "jr sr inc ltd co corp bros dept est no nos vol pp fig figs eq approx ca etc al ph.d jan feb "
    "mar apr jun jul aug sep sept oct nov dec".split()
)
_INITIALS = re.compile(r"[^\W\d_](?:\.[^\W\d_])*")
# Words that commonly begin a sentence.
OPENERS = frozenset(
    "a after although an and as at because before both but by despite during each for from he her "
    "here his how however i if in it its many most my no on one our several she since so some such "
    "that the their then there these they this those to under until we what when where which while "
    "who why with you your".split()
)

# Words without content. "not" and "before" are not among them, because they change what a sentence says.
_FUNCTION_WORDS = frozenset(
    "a am an and are as at be been being by did do does done for from had has have he her here him his how i "
    "if in into is it its just me my of on or our own shall she should so some such than that the their them "
    "then there these they this those to very was we were what when where which who why will with would you "
    "your".split()
)
_HALVES = re.compile(r"; |, (?:and|but|while) ")
_WORD = re.compile(r"\w+(?:[.,'’]\w+)*")
# Minimum share of the weight of a summary sentence's words that one more sentence of evidence has to add. On
# the 735 answerable test rows of briefs, with 7 sentences per passage, the evidence contains the answer in
# 99.7% of the rows with 2.2 sentences on average (at 0.1: 100% with 2.3 sentences; at 0.25: 93% with 2.0).
_MIN_SHARE = 0.15


def split_sentences(text: str) -> list[str]:
    """
    Split a text into sentences.

    A sentence ends at ".", "!", "?" or "…" before white space, possibly followed by closing quotes and
    brackets, and at an empty line. Titles ("Mr."), common English abbreviations, initials ("U.S.") and
    decimals ("4.2") do not end a sentence, nor does a mark before a lower-case word, unless the whole text is
    in lower case.

    Args:
        text (`str`): Any text. Text without white space between words is not split.

    Returns:
        `list[str]`: The sentences without white space around them, empty for a blank text.
    """
    return [text[start:end] for start, end in iter_sentence_spans(text)]


def iter_sentence_spans(text: str) -> Iterator[tuple[int, int]]:
    """Yield the start and end, in characters, of each sentence of [`split_sentences`]."""
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
    """Return whether `word` ends a sentence, judged by it and the next word (`following`)."""
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
    """
    Find the sentences of a passage that share the most words with a summary.

    For each sentence of the summary, select the sentence of the passage that covers the largest weight of its
    words, then the one that covers the largest weight of the remaining words, and so on, as long as that is
    at least 15% of the total weight. A word that m of n sentences contain has the weight log((n + 1) / m).
    Words that the passage lacks are ignored, and so are English function words, unless a sentence has no
    others.

    Args:
        summary (`str`): Any text.
        passage (`list[str]`): The passage's sentences, see [`split_sentences`].
        attention (`list[float]`, *optional*):
            The model's attention to each sentence, in any unit. It decides between sentences that cover the
            same weight; without it, the first is selected. If the summary shares no word with the passage,
            the sentence with the highest attention is selected.

    Returns:
        `list[int]`: Sorted indices of the selected sentences.
    """
    attention = [0.0] * len(passage) if attention is None else list(attention)
    sentence_words = [_get_words(sentence) for sentence in passage]
    counts = Counter(word for words in sentence_words for word in words)
    weights = {word: math.log((len(passage) + 1) / count) for word, count in counts.items()}

    def get_weight(words):
        return sum(weights[word] for word in sorted(words))  # the order of floats affects their sum

    selected = set()
    for sentence in split_sentences(summary):
        remaining = _get_content_words(sentence) & weights.keys()
        total, min_weight = get_weight(remaining), 0.0
        while remaining:
            scores = [
                (get_weight(remaining & words), value)
                for words, value in zip(sentence_words, attention, strict=True)
            ]
            best = max(scores)
            if best[0] < min_weight:
                break
            min_weight = _MIN_SHARE * total  # for all sentences but the first
            index = scores.index(best)
            selected.add(index)
            remaining -= sentence_words[index]
    if not selected and any(attention) and summary.strip():
        selected.add(attention.index(max(attention)))
    return sorted(selected)


def merge_summaries(summaries: Sequence[str], passage: Sequence[str]) -> str:
    """
    Merge summaries of one passage into one text, in the order of the passage and without repetition.

    Sentences are ordered by the first sentence of their evidence, see [`find_evidence`]; those without
    evidence come last. A sentence is dropped if another sentence has all of its content words (the first of
    several equal ones stays), and cut to its second half if another sentence has all content words of its
    first half.

    Args:
        summaries (`list[str]`): Any texts.
        passage (`list[str]`): The passage's sentences, see [`split_sentences`].
    """
    sentences = [sentence for summary in summaries for sentence in split_sentences(summary)]

    def is_covered(text, index):
        """Return whether a sentence other than the one at `index` has all content words of `text`."""
        words = _get_content_words(text)
        return any(words <= _get_content_words(other) for i, other in enumerate(sentences) if i != index)

    for index, sentence in enumerate(sentences):
        halves = _HALVES.split(sentence, maxsplit=1)
        if len(halves) == 2 and len(_get_content_words(halves[1])) > 1 and is_covered(halves[0], index):
            sentences[index] = halves[1][:1].upper() + halves[1][1:]
    for index in reversed(range(len(sentences))):  # from the end, so that the first of equal sentences stays
        if is_covered(sentences[index], index):
            sentences[index] = ""

    def get_position(sentence):
        return (find_evidence(sentence, passage) or [len(passage)])[0]

    return " ".join(sorted(filter(None, sentences), key=get_position))


def _get_content_words(text):
    words = _get_words(text)
    return words - _FUNCTION_WORDS or words


def _get_words(text):
    return frozenset(word.casefold() for word in _WORD.findall(text))
