"""Write the numbers of a spreadsheet as their cells show them: the cell of a typed "$4,500" holds 4500."""

from __future__ import annotations

import logging
import re
from decimal import ROUND_HALF_UP, Context, Decimal
from pathlib import Path
from typing import Any

from crosstask.utils.logs import warn_once

logger = logging.getLogger(__name__)

_PLAIN_FORMATS = (None, "General", "@")
# What stands for a text ("$", \$, [$€-407]) or for nothing ([Red], or a width such as "_)").
_COLORS = "Black|Blue|Cyan|Green|Magenta|Red|White|Yellow"
_QUOTED = re.compile(rf'"([^"]*)"|\\(.)|\[\$([^\]-]*)[^\]]*\]|\[(?:{_COLORS})\]|[_*].')
_PLACEHOLDER = "\0"
_UNQUOTED = rf"[-+()% $€£¥₩₹₽₺{_PLACEHOLDER}]*"
_FORMAT = re.compile(rf"({_UNQUOTED})(#,##)?(0+)(?:\.(0+))?({_UNQUOTED})")


class NumberFormats:
    """Write the numbers of a sheet as texts, and count those that are not the stored number.

    Args:
        path (`Path`):
            The file, for the log.
    """

    def __init__(self, path: Path):
        self.path = path
        # The first example of each, and how many there are: a sheet may have millions.
        self.shown, self.shown_count = "", 0
        self.unknown, self.unknown_count = "", 0

    def write(self, cell: Any) -> Any:
        """Return the value of a cell of openpyxl: a text if its format changes a number."""
        value = cell.value
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or cell.number_format in _PLAIN_FORMATS:
            return value
        text = show_number(value, cell.number_format)
        if text is None:
            self.unknown = self.unknown or f"{cell.number_format} in {cell.coordinate}"
            self.unknown_count += 1
        elif text != str(value).removesuffix(".0"):
            self.shown = self.shown or f"{text} in {cell.coordinate}"
            self.shown_count += 1
            return text
        return value

    def report(self) -> None:
        """Warn of the numbers that were written as shown, and of those with an unknown format."""
        if self.shown:
            reading = "numbers are read as their cells show them in English, such as"
            warn_once(logger, f"{self.path}: {self.shown_count} {reading} {self.shown}")
        if self.unknown:
            reading = "numbers are read without their formats, which are not understood, such as"
            warn_once(logger, f"{self.path}: {self.unknown_count} {reading} {self.unknown}")


def show_number(value: int | float, number_format: str) -> str | None:
    r"""Return a number as an English Excel shows it, or `None` if the format is not understood.

    Args:
        value (`int` or `float`):
            The number.
        number_format (`str`):
            Zeros with or without thousands separators, decimals, a percent sign and literal texts, such as
            `"$"#,##0.00` or `0%`. It may have sections for positive numbers, negative numbers and zero.
    """
    sections = number_format.split(";")
    index = 1 if value < 0 else 2 if value == 0 else 0
    index = index if index < len(sections) else 0
    texts = ["".join(match.groups("")) for match in _QUOTED.finditer(sections[index])]
    match = _FORMAT.fullmatch(_QUOTED.sub(_PLACEHOLDER, sections[index]))
    if not match:
        return None
    before, separators, zeros, decimals, after = match.groups("")
    number = abs(Decimal(str(value))) * (100 if "%" in before + after else 1)
    exponent = Decimal(1).scaleb(-len(decimals))
    number = number.quantize(exponent, ROUND_HALF_UP, Context(prec=1000))  # enough digits for any float
    integer, *fraction = f"{number:{',' if separators else ''}f}".split(".")
    shown = before + ".".join([integer.zfill(len(zeros)), *fraction]) + after
    for text in texts:
        shown = shown.replace(_PLACEHOLDER, text, 1)
    sign = "-" if value < 0 and index == 0 and number else ""
    return sign + shown.strip()
