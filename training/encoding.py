"""Encode the rows of a stage: reject those that do not fit the model, and count what is cut."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from datasets import Dataset, DatasetDict

from crosstask.data.schema import NO_ANSWER
from crosstask.processing_crosstask import TRUNCATED, CrossTaskProcessor, QuestionTooLongError
from crosstask.utils.errors import DataError

BATCH_SIZE = 1000  # questions that are tokenized at once
# What is cut, by the keys of the processor. The names are those of the record, with a text for the log.
_TRUNCATED_NAMES = {
    "input_ids": ("truncated_inputs", "inputs"),
    "question_input_ids": ("truncated_question_inputs", "inputs of the question encoder"),
    "labels": ("truncated_summaries", "summaries"),
}


def reject_long_questions(
    rows: Mapping[str, Dataset], processor: CrossTaskProcessor, data: str
) -> tuple[DatasetDict, list[dict[str, Any]]]:
    """
    Reject the rows whose question leaves no room for the passage.

    Args:
        rows (`Mapping[str, Dataset]`): The rows by split.
        processor ([`CrossTaskProcessor`]): The processor, with the limits of the model.
        data (`str`): The name of the data, for errors.

    Returns:
        `tuple[DatasetDict, list[dict]]`: The rows that fit, and one dict per rejected row with its `source`,
        `split`, `index` in the split, `id` and `reason`.

    Raises:
        DataError: If more than half of the rows of a split are rejected.
    """
    fitting, rejects = {}, []
    for split, dataset in rows.items():
        questions = dataset["question"][:]
        reasons = {}
        for start in range(0, len(questions), BATCH_SIZE):
            for error in processor.find_long_questions(questions[start : start + BATCH_SIZE]):
                reasons[start + error.index] = f"the question {error.reason}"
        for index, reason in reasons.items():
            row = dataset[index]
            reject = {"source": row["source"], "split": split, "index": index, "id": row["id"]}
            rejects.append(reject | {"reason": reason})
        if 2 * len(reasons) > len(questions):
            first, count = rejects[-len(reasons)], len(reasons)
            raise DataError(
                f"{data}: {count} of {len(questions)} {split} rows are rejected, expected half at most; "
                f"row {first['id']}: {first['reason']}"
            )
        remaining = [index for index in range(len(questions)) if index not in reasons]
        fitting[split] = dataset.select(remaining) if reasons else dataset
    return DatasetDict(fitting), rejects


def encode_batch(
    batch: Mapping[str, list], stage: str, processor: CrossTaskProcessor, data: str
) -> dict[str, list]:
    """
    Encode a batch of rows as the inputs and labels of a stage, with columns that say what was cut.

    Args:
        batch (`dict[str, list]`): The columns of the rows.
        stage (`str`): "summarize", "answer" or "fuse".
        processor ([`CrossTaskProcessor`]): The processor of the model.
        data (`str`): The name of the data, for errors.

    Raises:
        DataError: If a question leaves no room for its passage.
    """
    if stage == "summarize":
        inputs = {name: batch[name] for name in ("passage", "summary")}
    elif stage == "answer":
        inputs = {name: batch[name] for name in ("question", "passage")}
        inputs["summary"] = [answer or NO_ANSWER for answer in batch["answer"]]
    else:
        inputs = {name: batch[name] for name in ("question", "passage", "summary", "answerable")}
    try:
        return dict(processor(**inputs, return_truncated=True))
    except QuestionTooLongError as error:
        row_id = batch["id"][error.index]
        raise DataError(f"{data}: row {row_id}: the question {error.reason}") from error


def count_truncated(encoded: Dataset) -> dict[str, int]:
    """
    Count the rows of encoded data, and what was cut.

    Args:
        encoded (`Dataset`): Rows that the processor encoded with `return_truncated=True`.

    Returns:
        `dict[str, int]`: `rows`, and for what was encoded `truncated_inputs`, `truncated_question_inputs` and
        `truncated_summaries`.
    """
    counts = {"rows": len(encoded)}
    for key, (name, _) in _TRUNCATED_NAMES.items():
        if f"{key}{TRUNCATED}" in encoded.column_names:
            counts[name] = sum(encoded[f"{key}{TRUNCATED}"][:])
    return counts


def describe_truncated(counts: Mapping[str, int], processor: CrossTaskProcessor) -> str:
    """Return a line about what was cut, e.g. "of 80 rows, 3 inputs are cut at 512 tokens"; "" for nothing."""
    limits = processor.get_limits()
    parts = [
        f"{counts[name]} {text} are cut at {limits[key]} tokens"
        for key, (name, text) in _TRUNCATED_NAMES.items()
        if counts.get(name)
    ]
    return f"of {counts['rows']} rows, {', '.join(parts)}" if parts else ""
