"""Turn the values of a record into the texts of a row: numbers, and the spellings of a missing value."""

from __future__ import annotations

import logging
import math
import re
from decimal import Decimal
from typing import Any

from crosstask.data.readers.corpus import Part, Row
from crosstask.data.schema import TEXT_COLUMNS
from crosstask.utils.logs import warn_once

logger = logging.getLogger(__name__)

# What str() and SQL write for a missing value, and what may be such a word or an answer; both in lower case.
_MISSING_WORDS = frozenset({"nan", "nat", "null", "<na>", "#n/a"})
_DOUBTFUL_WORDS = frozenset({"none", "na", "n/a"})


class Values:
    """Turn the values of a part into texts, and count the answers that spell a missing value.

    Attributes:
        missing (`int`): The number of answers that were read as empty.
        doubtful (`int`): The number of answers that may stand for a missing value, but were read as answers.
    """

    def __init__(self, part: Part):
        self.part = part
        self.missing = 0
        self.doubtful = 0

    def clean(self, row: Row, is_typed: bool) -> Row:
        """Return the columns of a row that have a value, with numbers as texts where texts are expected."""
        row = {column: value for column, value in row.items() if not _is_missing(value)}
        passage = row.get("passage")
        for column in row.keys() & {"id", "source", "answer"}:
            row[column] = _write_number(row[column], passage if column == "answer" else "", is_typed)
        for column in row.keys() & set(TEXT_COLUMNS):
            word = row[column].strip().casefold() if isinstance(row[column], str) else ""
            if word not in _MISSING_WORDS and (column != "answer" or word not in _DOUBTFUL_WORDS):
                continue
            if column == "answer" and isinstance(passage, str):
                if re.search(rf"(?<!\w){re.escape(word)}(?!\w)", passage.casefold()):
                    continue
            self.doubtful += word in _DOUBTFUL_WORDS
            if word in _MISSING_WORDS:
                self.missing += column == "answer"
                del row[column]
        return row

    def report(self) -> None:
        """Warn of answers that spell a missing value and are not in their passages."""
        cases = (
            (self.missing, _MISSING_WORDS, "read as empty"),
            (self.doubtful, _DOUBTFUL_WORDS, "read as answers"),
        )
        for count, words, reading in cases:
            if count:
                warn_once(
                    logger,
                    f"{self.part.name}: {reading}: {count} answers that are not in their passages and may "
                    f"stand for a missing value ({', '.join(sorted(words))})",
                )


def _write_number(value: Any, passage: Any, is_typed: bool) -> Any:
    """Return a number as text, and any other value unchanged.

    pandas turns all integers of a column into floats if one value is missing. So 3.0 is written as "3",
    unless "3.0" or "3,0" is in the passage. Without types, the text "3.0" (or "3,0") is such a number, too.
    """
    numbers = (int, float, Decimal)
    if isinstance(value, bool) or not isinstance(value, numbers if is_typed else (*numbers, str)):
        return value
    text = f"{value:.1f}" if isinstance(value, float) and value.is_integer() else str(value)
    if not re.fullmatch(r"-?\d+[.,]0", text):
        return text
    is_in_passage = isinstance(passage, str) and (f"{text[:-2]}.0" in passage or f"{text[:-2]},0" in passage)
    return text if is_in_passage else text[:-2]


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
