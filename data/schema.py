"""The one schema of the rows, and what makes a single row fit for a stage of the training."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Any

from datasets import ClassLabel, Features, Value

from crosstask.utils.errors import DataError

FEATURES = Features(
    {
        "id": Value("string"),
        "source": Value("string"),
        "passage": Value("string"),
        "question": Value("string"),  # "" asks for a generic summary
        "answer": Value("string"),  # "" where the passage gives no answer
        "summary": Value("string"),  # "" where the row has none
        # 1 where the summary carries the answer; null, which the model ignores, where unknown
        "answerable": ClassLabel(names=["no", "yes"]),
    }
)
TEXT_COLUMNS = tuple(name for name in FEATURES if name != "answerable")

# What a question answerer is trained to give where the passage has no answer: the word that the
# SQuAD 2.0 templates of Flan use (https://arxiv.org/abs/2301.13688), so a Flan-T5 knows it already.
NO_ANSWER = "unanswerable"

# The stages of a training, in their order.
STAGES = ("summarize", "answer", "fuse")
STAGE_COLUMNS = {
    "summarize": ("passage", "summary"),
    "answer": ("passage", "question", "answer"),
    "fuse": ("passage", "question", "answer", "summary", "answerable"),
    # No stage of the training: what the making of a data set begins with. The answer may be empty, and a
    # summary or label that is there already is kept.
    "build": ("passage", "question", "answer"),
}
_NEVER_EMPTY = {
    "summarize": ("passage", "summary"),
    "answer": ("passage", "question"),
    "fuse": ("passage", "question", "summary"),
    "build": ("passage", "question"),
}

# The key under which a source that makes rows says why one is to be rejected.
REJECT = "reject"

_LABELS = (0, 1, "no", "yes", None)


def digest(*texts: str) -> int:
    """Eight bytes that tell texts apart, the same on every machine, unlike `hash`: of ten million two are
    mistaken for each other once in 400,000 runs. Texts hold no NUL, which parts them here."""
    key = "\0".join(texts).encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(key, digest_size=8).digest(), "big")


def check_stage(stage: str) -> None:
    """Raise a `DataError` unless `stage` is a key of `STAGE_COLUMNS`."""
    if stage not in STAGE_COLUMNS:
        raise DataError(f"stage {stage!r} is unknown: expected one of {', '.join(STAGE_COLUMNS)}")


def check_keys(what: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Raise a `DataError` that suggests the nearest known key for the first unknown one."""
    known = list(known)
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise DataError(f"{what} {key!r} is unknown: expected {', '.join(known)}{hint}")


def check_row(row: Mapping[str, Any], stage: str, where: str | None = None) -> str | None:
    """Say why a row is of no use to a stage, if it is not.

    Args:
        row: A row with all columns of `FEATURES`; its label may be 0, 1, "no", "yes" or None.
        stage: A key of `STAGE_COLUMNS`.
        where: The place that an error names, e.g. "rows.jsonl, line 3"; the row's `source` if None.

    Returns:
        The reason to reject the row (an empty text that the stage needs), or None to keep it.

    Raises:
        DataError: If the row is wrong rather than poor: a column of the wrong type, text that is
            not Unicode, a label out of range, a label 1 without an answer, an unknown stage.
    """
    check_stage(stage)
    where = f"{row.get('source') if where is None else where}, row {row.get('id')!r}"
    for column in TEXT_COLUMNS:
        _check_text(row.get(column), column, where)
    label = row.get("answerable")
    if label not in _LABELS:
        got = reprlib.repr(label)
        raise DataError(f"{where}: answerable is {got}, expected 0, 1, 'no', 'yes' or null")
    if label in (1, "yes") and not row["answer"].strip():
        got = f"{label!r} with an empty answer"
        raise DataError(f"{where}: answerable is {got}, expected an answer or the label 0")
    empty = [column for column in _NEVER_EMPTY[stage] if not row[column].strip()]
    return f"empty {empty[0]}" if empty else None


def _check_text(value: Any, column: str, where: str) -> None:
    if not isinstance(value, str):
        raise DataError(f"{where}: {column} is {reprlib.repr(value)}, expected a string")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:  # JSON can spell half a surrogate pair, Arrow cannot
        got = repr(value[error.start])
        raise DataError(f"{where}: {column} holds {got}, expected Unicode text") from None
