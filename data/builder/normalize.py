"""Normalization of text: by default only broken encodings and white space are mended.

The further steps are those of the report that this project goes back to: lower case, ASCII, URLs without
their protocols, contractions written out.
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

# Real text stays as its author typed it: what `ftfy` does to quotes, ligatures, full-width letters and HTML
# entities is off, and NFC, unlike NFKC, only picks one of several spellings of the same characters.
_FIXES = ftfy.TextFixerConfig(
    unescape_html=False,
    fix_latin_ligatures=False,
    fix_character_width=False,
    uncurl_quotes=False,
    normalization="NFC",
    explain=False,
)

# What NFKD leaves without an ASCII letter, or turns into other numbers ("1½" into "11/2", "10²" into "102").
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

# A protocol behind the beginning of another one stays: to take it out would put a new one together.
_PROTOCOL = re.compile(r"(?<!\w)(?<!tp:)(?<!tps:)(?<!tp:/)(?<!tps:/)(?:(?:https?|ftp)://)+", re.IGNORECASE)
# The punctuation that ends a sentence or a bracket behind a URL is not the URL's.
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
# Only these words end in "is" where they end in 's: "the mayor's" may be the mayor's own. A 'd ("had" or
# "would") and "ain't" are left alone, since only their context tells what they stand for.
_CONTRACTION = re.compile(
    r"\b(?:(?P<irregular>can't|won't|shan't|let's|y'all|i'm)"
    r"|(?:do|does|did|is|are|was|were|has|have|had|could|would|should|might|must|need)(?P<negated>n't)"
    r"|(?:it|he|she|that|what|who|where|there|here|how|when|why)'s(?=(?P<has> been| got)?\b)"
    r")\b|(?<=\w)(?P<verb>'re|'ve|'ll)\b".replace("'", "['’ʼ]"),
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Normalization:
    """The steps of `normalize`; the defaults leave real text alone."""

    fix_encoding: bool = field(
        default=True,
        metadata={"help": "Mend text that was decoded wrongly (â€™ for ’) and drop control characters."},
    )
    whitespace: bool = field(
        default=True,
        metadata={"help": "One space for any white space, line breaks among it, and none at the ends."},
    )
    lowercase: bool = field(default=False, metadata={"help": "Write everything in lower case."})
    ascii: bool = field(
        default=False,
        metadata={"help": "Fold accents (é to e) and typographic signs, then drop what is not ASCII."},
    )
    urls: str = field(
        default="keep",
        metadata={"help": "keep, protocol (http://, https:// and ftp:// go) or remove (whole URLs go)."},
    )
    contractions: bool = field(
        default=False, metadata={"help": "Write out English contractions: don't becomes do not."}
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
        """Make it of a mapping, e.g. `{"lowercase": True, "urls": "protocol"}` from a YAML file.

        Args:
            values: Fields to their values; None for the defaults.

        Raises:
            DataError: If it is no mapping, or a key or a value is not one of those described.
        """
        values = {} if values is None else values
        if not isinstance(values, Mapping):
            steps = ", ".join(step.name for step in fields(cls))
            raise DataError(f"normalize is {values!r}, expected a mapping with some of {steps}")
        check_keys("normalize key", values, [step.name for step in fields(cls)])
        return cls(**values)


def normalize(text: str, how: Normalization) -> str:
    """Normalize a text; to do it again changes nothing.

    Args:
        text: Any text.
        how: Which steps to take.

    Returns:
        The normalized text, which may be empty.
    """
    # One step can make work for another: a dropped character may join the halves of a URL's protocol. Every
    # step takes away what it works on, so that this ends, mostly after the one round that finds nothing.
    while (result := _once(text, how)) != text:
        text = result
    return text


def _once(text: str, how: Normalization) -> str:
    if how.fix_encoding:
        text = ftfy.fix_text(text, _FIXES)
    if how.urls == "protocol":
        text = _PROTOCOL.sub("", text)
    elif how.urls == "remove":
        text = _URL.sub("", text)
    if how.contractions:
        text = _CONTRACTION.sub(_expand, text)
    if how.lowercase:
        text = text.lower()
    if how.ascii and not text.isascii():
        text = unicodedata.normalize("NFKD", text.translate(_ASCII)).translate(_ASCII)
        text = text.encode("ascii", "ignore").decode("ascii")
    return " ".join(text.split()) if how.whitespace else text


def _expand(match: re.Match[str]) -> str:
    """The words of a contraction, in its case: "Don't" gives "Do not", "DON'T" gives "DO NOT"."""
    short = re.sub("[’ʼ]", "'", match[0])
    if match["irregular"]:
        long = _IRREGULAR[short.lower()]
        if short[-1].isupper():
            return long.upper()
        return short[0] + long[1:]  # both begin with the same letter
    suffix = short if match["verb"] else short[-3:] if match["negated"] else short[-2:]
    word = "has" if match["has"] else _SUFFIXES[suffix.lower()]
    return f"{short.removesuffix(suffix)} {word.upper() if suffix[-1].isupper() else word}"
