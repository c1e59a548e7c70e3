"""
Normalize texts. By default, only encoding errors and white space are repaired.

The optional steps are those of "Cross Task Collaboration in LLMs": lower case, ASCII, URLs without their
protocols, and expanded contractions.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import ftfy

from crosstask.data.schema import check_keys
from crosstask.utils.errors import DataError

URLS = ("keep", "protocol", "remove")

# Correct text should stay as its author typed it. Therefore `ftfy` leaves quotes, ligatures, full-width
# letters and HTML entities alone, and normalizes to NFC, which unlike NFKC keeps all characters and only
# unifies their encoding.
_FTFY_CONFIG = ftfy.TextFixerConfig(
    unescape_html=False,
    fix_latin_ligatures=False,
    fix_character_width=False,
    uncurl_quotes=False,
    normalization="NFC",
    explain=False,
)

# Characters for which NFKD gives no ASCII, or a different number ("11/2" for "1½", "102" for "10²").
_ASCII = str.maketrans(
    {
        **dict.fromkeys("‘’‚‛′ʼ", "'"),
        **dict.fromkeys("“”„‟″«»", '"'),
        **dict.fromkeys("‐‑‒–—―−", "-"),
        **dict.fromkeys("\x85\u1680\u2028\u2029", " "),
        **{"ß": "ss", "ẞ": "SS", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ø": "o", "Ø": "O"},
        **{"ł": "l", "Ł": "L", "đ": "d", "Đ": "D", "ð": "d", "Ð": "D", "þ": "th", "Þ": "Th", "ı": "i"},
        **{"½": " 1/2", "¼": " 1/4", "¾": " 3/4", "⁄": "/", "²": "^2", "³": "^3", "×": "x"},
    }
)

# A protocol inside another protocol is kept, because its removal could join the outer parts to a new
# protocol.
_PROTOCOL = re.compile(r"(?<!\w)(?<!tp:)(?<!tps:)(?<!tp:/)(?<!tps:/)(?:(?:https?|ftp)://)+", re.IGNORECASE)
# Punctuation or a closing bracket at the end of a URL belongs to the sentence.
_URL = re.compile(r"""(?<!\w)(?:(?:https?|ftp)://|www\.)\S*[^\s.,;:!?)\]}>'"’”»]""", re.IGNORECASE)

_IRREGULAR = {
    "can't": "cannot",
    "won't": "will not",
    "shan't": "shall not",
    "let's": "let us",
    "y'all": "you all",
    "i'm": "i am",
}
_SUFFIXES = {"n't": "not", "'re": "are", "'ve": "have", "'ll": "will", "'s": "is"}
# An 's is expanded only after these words; after others, as in "the mayor's", it may mark a possessive. 'd
# ("had" or "would") and "ain't" are not expanded, because their meaning depends on the context.
_CONTRACTION = re.compile(
    r"\b(?:(?P<irregular>can't|won't|shan't|let's|y'all|i'm)"
    r"|(?:do|does|did|is|are|was|were|has|have|had|could|would|should|might|must|need)(?P<negated>n't)"
    r"|(?:it|he|she|that|what|who|where|there|here|how|when|why)'s(?=(?P<has> been| got)?\b)"
    r")\b|(?<=\w)(?P<verb>'re|'ve|'ll)\b".replace("'", "['’ʼ]"),
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Normalization:
    """The steps of [`normalize`]. The defaults do not change correct text, except for its white space."""

    fix_encoding: bool = field(
        default=True,
        metadata={"help": "Repair wrongly decoded text (â€™ for ’) and drop control characters."},
    )
    whitespace: bool = field(
        default=True,
        metadata={"help": "Replace white space and line breaks by single spaces, and strip the ends."},
    )
    lowercase: bool = field(default=False, metadata={"help": "Convert to lower case."})
    ascii: bool = field(
        default=False,
        metadata={"help": "Replace accented letters (é by e) and typographic signs, then drop non-ASCII."},
    )
    urls: str = field(
        default="keep",
        metadata={"help": "keep, protocol (drop http://, https:// and ftp://) or remove (drop whole URLs)."},
    )
    contractions: bool = field(
        default=False, metadata={"help": "Expand English contractions: don't becomes do not."}
    )

    def __post_init__(self) -> None:
        for step in fields(self):
            value = getattr(self, step.name)
            if step.name == "urls":
                if value not in URLS:
                    raise DataError(f"normalize: urls is {value!r}, expected one of {', '.join(URLS)}")
            elif not isinstance(value, bool):
                raise DataError(f"normalize: {step.name} is {value!r}, expected true or false")

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any] | None) -> Normalization:
        """
        Create the steps from a mapping, e.g. `{"lowercase": True, "urls": "protocol"}` from a YAML file.

        Args:
            values (`Mapping[str, Any]`, *optional*):
                Values by field name. Fields that are missing have their defaults.

        Raises:
            DataError: If `values` is not a mapping, or a key or a value is unknown.
        """
        values = {} if values is None else values
        names = [step.name for step in fields(cls)]
        if not isinstance(values, Mapping):
            raise DataError(f"normalize is {values!r}, expected a mapping with some of {', '.join(names)}")
        check_keys("normalize key", values, names)
        return cls(**values)


def normalize(text: str, steps: Normalization) -> str:
    """
    Normalize a text. Normalizing the result again does not change it.

    Args:
        text (`str`):
            Any text.
        steps ([`Normalization`]):
            The steps to apply.

    Returns:
        `str`: The normalized text, which may be empty.
    """
    # One step can create input for another: dropping a character may join the halves of a URL's protocol.
    # Each round removes what the steps look for, so the loop ends, mostly after the round that finds nothing.
    while (result := _apply_once(text, steps)) != text:
        text = result
    return text


def _apply_once(text: str, steps: Normalization) -> str:
    if steps.fix_encoding:
        text = ftfy.fix_text(text, _FTFY_CONFIG)
    if steps.urls == "protocol":
        text = _PROTOCOL.sub("", text)
    elif steps.urls == "remove":
        text = _URL.sub("", text)
    if steps.contractions:
        text = _CONTRACTION.sub(_expand, text)
    if steps.lowercase:
        text = text.lower()
    if steps.ascii and not text.isascii():
        text = unicodedata.normalize("NFKD", text.translate(_ASCII)).translate(_ASCII)
        text = text.encode("ascii", "ignore").decode("ascii")
    return " ".join(text.split()) if steps.whitespace else text


def _expand(match: re.Match[str]) -> str:
    """Expand a contraction and keep its case: "Don't" becomes "Do not", "DON'T" becomes "DO NOT"."""
    contraction = re.sub("[’ʼ]", "'", match[0])
    if match["irregular"]:
        expansion = _IRREGULAR[contraction.lower()]
        if contraction[-1].isupper():
            return expansion.upper()
        return contraction[0] + expansion[1:]  # both begin with the same letter
    suffix = contraction if match["verb"] else contraction[-3:] if match["negated"] else contraction[-2:]
    word = "has" if match["has"] else _SUFFIXES[suffix.lower()]
    return f"{contraction.removesuffix(suffix)} {word.upper() if suffix[-1].isupper() else word}"
