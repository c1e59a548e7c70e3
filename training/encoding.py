"""Encode the rows of a stage: reject those that do not fit the model, and count what is cut."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from accelerate import PartialState
from datasets import Dataset, DatasetDict
from transformers import Seq2SeqTrainingArguments

from crosstask.data.schema import NO_ANSWER
from crosstask.processing_crosstask import TRUNCATED, CrossTaskProcessor, QuestionTooLongError
from crosstask.utils.errors import DataError

UNKNOWN_ROWS = 1000  # rows whose unknown tokens are counted
WARN_SHARE, REFUSE_SHARE = 0.1, 0.8  # of unknown tokens
BATCH_SIZE = 1000  # questions that are tokenized at once
# What is cut, by the keys of the processor. The names are those of the record, with a text for the log.
_TRUNCATED_NAMES = {
    "input_ids": ("truncated_inputs", "inputs"),
    "question_input_ids": ("truncated_question_inputs", "inputs of the question encoder"),
    "labels": ("truncated_summaries", "summaries"),
}


def describe_unlabeled(rows: Dataset, summary_loss_on: str) -> str | None:
    """
    Return a sentence that counts the rows without a label, or `None` if all have one.

    Args:
        rows (`Dataset`): The training rows.
        summary_loss_on (`str`): "all" or "answerable", with which the summaries of these rows have no loss.
    """
    count = sum(label is None for label in rows["answerable"])
    if not count:
        return None
    learner = "answerability does not learn"
    if summary_loss_on == "answerable":
        learner = "with summary_loss_on: answerable, neither summaries nor answerability learn"
    return f"{count} of {len(rows)} training rows have no label: {learner} from them"


def describe_single_label(rows: Dataset, has_own_summaries: bool) -> str | None:
    """
    Return a sentence that says that all labels are the same, from which no judgment is learned, or `None`.

    Args:
        rows (`Dataset`): The training rows, with those of wrong values.
        has_own_summaries (`bool`): Whether the model also judges the summaries that it writes itself.
            Some of them are wrong, so that they have both labels.
    """
    labels = {label for label in rows["answerable"] if label is not None}
    if has_own_summaries or len(labels) != 1:
        return None
    [label] = labels
    return (
        f"all training rows with a label have the label {label}: the answerability of every summary will be "
        f"close to {label}, whether it is right or wrong; expected rows with the label {1 - label}, too"
    )


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


def check_labels(
    rows: Mapping[str, Dataset], summary_loss_on: str, training: Seq2SeqTrainingArguments, data: str
) -> None:
    """
    Check that the joint stage has the labels of answerability that its loss and its best checkpoint need.

    Args:
        rows (`Mapping[str, Dataset]`): The rows by split.
        summary_loss_on (`str`): "all" or "answerable".
        training (`Seq2SeqTrainingArguments`): The arguments of the stage's trainer.
        data (`str`): The name of the data, for errors.

    Raises:
        DataError: If there is no label of a kind that is needed.
    """
    if summary_loss_on == "answerable" and 1 not in rows["train"]["answerable"][:]:
        raise DataError(
            f"{data}: expected training rows with answerable 1, as summary_loss_on is answerable, found none"
            "; with summary_loss_on: all, rows without a label are learned from"
        )
    metric = training.metric_for_best_model or ""
    if "auroc" in metric and "validation" in rows and not {0, 1} <= set(rows["validation"]["answerable"][:]):
        raise DataError(
            f"{data}: expected validation rows with answerable 0 and with 1, as metric_for_best_model is "
            f"{metric}, found labels of one kind at most"
        )


def check_tokenizer(rows: Dataset, processor: CrossTaskProcessor, stage: str) -> None:
    """
    Count how many tokens of the training texts are unknown, for instance of another script.

    The first `UNKNOWN_ROWS` rows are counted. A share above `WARN_SHARE` is said, in the log.

    Args:
        rows (`Dataset`): The training rows.
        processor ([`CrossTaskProcessor`]): The processor of the stage's model.
        stage (`str`): The name of the stage, for the log.

    Raises:
        DataError: If the share is above `REFUSE_SHARE`.
    """
    texts = [text for name in ("passage", "summary") for text in rows[:UNKNOWN_ROWS][name] if text]
    for tokenizer in filter(None, (processor.tokenizer, processor.question_tokenizer)):
        unknown, count = tokenizer.unk_token_id, 0
        if unknown is None or not texts:
            continue
        encoded = tokenizer(texts, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
        count = sum(ids.count(unknown) for ids in encoded)
        share = count / max(sum(map(len, encoded)), 1)
        name = tokenizer.name_or_path or type(tokenizer).__name__
        sentence = f"{stage}: the tokenizer {name} knows no token for {share:.0%} of the training texts"
        if share > REFUSE_SHARE:
            raise DataError(f"{sentence}, expected {REFUSE_SHARE:.0%} at most: it is of other languages")
        if share > WARN_SHARE and PartialState().is_main_process:
            print(f"{sentence}; models read them as {tokenizer.unk_token}", flush=True)


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
        inputs: dict[str, Any] = {name: batch[name] for name in ("passage", "summary")}
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
    parts = [
        f"{counts[name]} {text} are cut at {processor.describe_limit(key)}"
        for key, (name, text) in _TRUNCATED_NAMES.items()
        if counts.get(name)
    ]
    return f"of {counts['rows']} rows, {', '.join(parts)}" if parts else ""
