"""The columns of a row, the columns that each training stage reads, and the checks of a single row."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Any

from datasets import ClassLabel, Features, Value

from crosstask.processing_crosstask import to_label
from crosstask.utils.errors import DataError, suggest

FEATURES = Features(
    {
        "id": Value("string"),
        "source": Value("string"),
        "passage": Value("string"),
        "question": Value("string"),  # "" asks for a generic summary
        "answer": Value("string"),  # "" if the passage gives no answer
        "summary": Value("string"),  # "" if the row has no summary
        # 1 if the summary carries the answer, 0 if it does not; null if the row is not labeled
        "answerable": ClassLabel(names=["no", "yes"]),
    }
)
TEXT_COLUMNS = tuple(name for name in FEATURES if name != "answerable")

# The target of a question answerer for a passage without the answer. It is the word that the SQuAD 2.0
# templates of Flan use (https://arxiv.org/abs/2301.13688), so a Flan-T5 knows it already.
NO_ANSWER = "unanswerable"

# The stages of a training run, in order.
STAGES = ("summarize", "answer", "fuse")
# "build" and "ask" are no training stages: these are the columns that `crosstask-build` and `crosstask-ask`
# start from. The answer may be empty in "build"; a summary or label that is there already is read, too.
STAGE_COLUMNS = {
    "summarize": ("passage", "summary"),
    "answer": ("passage", "question", "answer"),
    "fuse": ("passage", "question", "answer", "summary", "answerable"),
    "build": ("passage", "question", "answer"),
    "ask": ("passage", "question"),
}
# Columns of stage "fuse" that the user's rows may lack: all answers, or all labels, are then unknown.
OPTIONAL_COLUMNS = ("answer", "answerable")
_NON_EMPTY_COLUMNS = {
    "summarize": ("passage", "summary"),
    "answer": ("passage", "question"),
    "fuse": ("passage", "question", "summary"),
    "build": ("passage", "question"),
    "ask": ("passage", "question"),
}


def hash_texts(*texts: str) -> int:
    """Return a hash of 64 bits of one or more texts; unlike `hash`, it is the same in every process.

    Among ten million texts, two distinct ones collide with a probability of 1 in 400,000 (the birthday
    bound).
    """
    key = "\0".join(texts).encode("utf-8", "surrogatepass")  # the separator: no valid text has a NUL
    return int.from_bytes(blake2b(key, digest_size=8).digest(), "big")


def check_stage(stage: str) -> None:
    """Raise a `DataError` unless `stage` is a key of `STAGE_COLUMNS`."""
    if stage not in STAGE_COLUMNS:
        raise DataError(f"stage {stage!r} is unknown: expected one of {', '.join(STAGE_COLUMNS)}")


def check_keys(kind: str, keys: Iterable[str], known: Iterable[str]) -> None:
    """Raise a `DataError` for the first of `keys` that is not among the `known` ones.

    Args:
        kind (`str`):
            What the message calls a key, such as `"column"`.
        keys (`Iterable[str]`):
            The keys to check.
        known (`Iterable[str]`):
            The keys that are allowed.
    """
    known = list(known)
    for key in keys:
        if key not in known:
            raise DataError(f"{kind} {key!r} is unknown: expected {', '.join(known)}{suggest(key, known)}")


def check_row(row: Mapping[str, Any], stage: str, has_answers: bool = True) -> str | None:
    """Check a row with all columns of `FEATURES`.

    Args:
        row (`Mapping`):
            The row. Its label may be in any form that [`to_label`] reads.
        stage (`str`):
            A key of `STAGE_COLUMNS`.
        has_answers (`bool`, *optional*, defaults to `True`):
            Whether the source has a column of answers. If it has none, an empty answer may have the label 1.

    Returns:
        `str` or `None`: Why the stage cannot use the row: a text that it needs is empty, the label is
        unknown, or the label is 1 and the answer is empty. `None` if it can.

    Raises:
        DataError: If a text column is not a string or not valid Unicode. The message does not name the row.
    """
    for column in TEXT_COLUMNS:
        _check_text(column, row.get(column))
    label = row.get("answerable")
    try:
        is_answerable = to_label(label) == 1
    except ValueError:
        return f"answerable is {reprlib.repr(label)}, expected 0, 1, 'no', 'yes' or null"
    if is_answerable and has_answers and not row["answer"].strip():
        return f"answerable is {label!r} with an empty answer, expected an answer or the label 0"
    empty = [column for column in _NON_EMPTY_COLUMNS[stage] if not row[column].strip()]
    return f"empty {empty[0]}" if empty else None


def _check_text(column: str, value: Any) -> None:
    if not isinstance(value, str):
        raise DataError(f"{column} is {reprlib.repr(value)}, expected a string")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:  # JSON can spell half of a surrogate pair, Arrow cannot
        raise DataError(f"{column} holds {value[error.start]!r}, expected Unicode text") from None
