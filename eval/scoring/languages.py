"""Where the metrics of texts do not apply: passages in other languages and scripts than English."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from crosstask.sentences_crosstask import FUNCTION_WORDS, UNSPACED_LETTERS, split_words

# The share of words in `FUNCTION_WORDS` ("the", "and", "in", ...) is about 35% in English prose and 3% in
# German. A passage below 10% is not English; one of fewer than 10 words is not judged.
_MIN_SHARE_OF_ENGLISH = 0.1
_MIN_WORDS = 10
# A limit that fewer rows reach is not reported, because the share misjudges single passages, such as tables.
_MIN_SHARE_OF_ROWS = 0.02
_UNSPACED = re.compile(f"[{UNSPACED_LETTERS}]")
_THAI_AND_LAO = re.compile("[\u0e01-\u0eff]")
_LIMITS = {
    "not English": (
        "are not in English: BERTScore and entailment need an encoder and a judge for their language, and "
        "ROUGE, answer recall and LexRank ignore endings, articles and stop words of English only."
    ),
    "capitals": (
        "are in another language with capitals: faithfulness counts each capitalized word as a name, which "
        "every noun is in German."
    ),
    "no capitals": "are in a script without capitals: faithfulness compares their numbers only.",
    "no spaces": (
        "are in a script without spaces between words: ROUGE, answer recall, coverage, density and length "
        "count their characters, so these figures do not compare with those of other languages."
    ),
    "no sentence marks": (
        "are in Thai or Lao, which do not mark the ends of sentences: lead, oracle and LexRank select "
        "paragraphs, and rougeLsum compares paragraphs."
    ),
}


def describe_language_limits(passages: Iterable[str]) -> list[str]:
    """Return one sentence for each limit of the metrics that the languages of at least 2% of the rows reach.

    A passage belongs to the script of most of its letters.

    Args:
        passages (`Iterable[str]`): One passage per row.
    """
    rows = Counter(passages)
    counts: Counter[str] = Counter()
    for passage, count in rows.items():
        counts.update(dict.fromkeys(_find_limits(passage), count))
    return [
        f"{counts[name]:,} of {rows.total():,} rows {limit}"
        for name, limit in _LIMITS.items()
        if counts[name] > _MIN_SHARE_OF_ROWS * rows.total()
    ]


def _find_limits(passage: str) -> set[str]:
    """Return the keys of `_LIMITS` that apply to a passage."""
    letters = [letter for letter in passage if letter.isalpha()]
    if 2 * sum(letter.lower() != letter.upper() for letter in letters) >= len(letters):
        words = split_words(passage)
        share = sum(word in FUNCTION_WORDS for word in words) / max(len(words), 1)
        is_english = len(words) < _MIN_WORDS or share >= _MIN_SHARE_OF_ENGLISH
        return set() if is_english else {"not English", "capitals"}
    limits = {"not English", "no capitals"}
    if 2 * len(_UNSPACED.findall(passage)) > len(letters):
        limits.add("no spaces")
    if 2 * len(_THAI_AND_LAO.findall(passage)) > len(letters):
        limits.add("no sentence marks")
    return limits
