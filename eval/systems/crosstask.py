"""The cross-task model as a system, complete or without the information of the question."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from transformers import AutoModelForSeq2SeqLM, GenerationConfig

from crosstask.configuration_crosstask import DEFAULT_MAX_LENGTH, CrossTaskConfig
from crosstask.data.builder.teacher import get_generation_kwargs
from crosstask.data.wrong_values import WrongValues
from crosstask.eval.systems.base import (
    Generative,
    Outputs,
    Update,
    describe_lengths,
    group_indices,
    make_nan_check,
)
from crosstask.processing_crosstask import LONG_PASSAGES, TRUNCATED, CrossTaskProcessor, QuestionTooLongError
from crosstask.utils.errors import DataError
from crosstask.utils.pretrained import check_counts, load_checkpoint, make_non_finite_error


class CrossTask(Generative):
    """The cross-task model: its summaries, and how probable it is that a summary carries the answer.

    It predicts this probability for its summaries and for the references. A question that leaves no room for
    its passage gets an empty summary and probabilities of 0.

    Args:
        model (`str` or `os.PathLike`): Hub id or folder of a [`CrossTaskForConditionalGeneration`] with its
            processor.
        ablation (`str`, *optional*): "zeroed" replaces the output of the question encoder with zeros;
            "swapped" replaces each question with one of another passage ([`swap_questions`]), for the summary
            and for both probabilities.
        num_beams (`int`, *optional*): Beams of the search; 1 is greedy search. This and the next two settings
            default to those that are saved with the checkpoint, as in the pipeline.
        min_new_tokens (`int`, *optional*): Shortest summary in tokens.
        max_new_tokens (`int`, *optional*): Longest summary in tokens.
        answerability_rerank (`float`, *optional*): Weight of answerability against likelihood when the best
            of `num_return_sequences` beams is chosen.
        num_return_sequences (`int`, *optional*, defaults to 1): Candidates for `answerability_rerank`; above
            1 with it, and 1 without.
        long_passages (`str`, *optional*): What to read of a passage that is too long: "segments", "select" or
            "truncate", with the default of the pipeline.
        dtype (`str`, *optional*, defaults to `"auto"`): "auto" (the checkpoint's), "float32", "bfloat16" or
            "float16".
        device (`str`, *optional*): A torch device; by default this process's accelerator, or the CPU.
        batch_size (`int`, *optional*, defaults to 16): Inputs per batch.

    Raises:
        DataError: If there is no such checkpoint, if it is of another kind, if a value is out of range, or if
            there are no questions to swap.
    """

    kind = "crosstask"
    ablations = (None, "zeroed", "swapped")

    def __init__(
        self,
        model: str | os.PathLike,
        ablation: str | None = None,
        num_beams: int | None = None,
        min_new_tokens: int | None = None,
        max_new_tokens: int | None = None,
        answerability_rerank: float | None = None,
        num_return_sequences: int = 1,
        long_passages: str | None = None,
        dtype: str = "auto",
        device: str | None = None,
        batch_size: int = 16,
    ):
        if long_passages not in (None, *LONG_PASSAGES):
            expected = ", ".join(LONG_PASSAGES)
            raise DataError(f"crosstask: long_passages is {long_passages!r}, expected one of {expected}")
        if ablation not in self.ablations:
            raise DataError(f"crosstask: ablation is {ablation!r}, expected None, 'zeroed' or 'swapped'")
        check_counts("crosstask", num_beams=num_beams, max_new_tokens=max_new_tokens, batch_size=batch_size)
        lengths: dict[str, Any] = {
            "num_beams": num_beams,
            "min_new_tokens": min_new_tokens,
            "max_new_tokens": max_new_tokens,
        }
        reranking: dict[str, Any] = (
            {} if answerability_rerank is None else {"answerability_rerank": answerability_rerank}
        )
        if (num_return_sequences > 1) != bool(reranking):
            raise DataError(
                "crosstask: expected num_return_sequences of 2 or more with answerability_rerank, and 1 "
                "without it"
            )
        if reranking:
            reranking["num_return_sequences"] = num_return_sequences
        settings = {"ablation": ablation, "dtype": dtype, **lengths, **reranking}
        settings |= {} if long_passages is None else {"long_passages": long_passages}
        super().__init__(AutoModelForSeq2SeqLM, model, **settings)
        if not isinstance(self.config, CrossTaskConfig):
            raise DataError(
                f"crosstask: {model} is a checkpoint of {self.config.model_type}, expected one of crosstask"
            )
        saved = load_generation_settings(self.checkpoint)
        lengths |= {name: value for name, value in saved.items() if lengths.get(name) is None}
        if min_new_tokens is None and lengths["min_new_tokens"] >= lengths["max_new_tokens"]:
            lengths["min_new_tokens"] = 0
        self.settings |= lengths  # for the record, the values instead of `None`
        self.ablation, self.lengths, self.reranking = ablation, lengths, reranking
        self.dtype, self.device, self.batch_size = dtype, device, batch_size
        self.long_passages = long_passages
        self.name = "cross-task" + (f", question {ablation}" if ablation else "")
        self.name += f", {long_passages}" if long_passages else ""

    def write(self, rows: Sequence[Mapping], update: Update = None) -> Outputs:
        model, _ = load_checkpoint(AutoModelForSeq2SeqLM, self.checkpoint, self.dtype, self.device, self.kind)
        processor = CrossTaskProcessor.from_pretrained(self.checkpoint)
        processor.limit_lengths(model)
        try:
            mode = processor.check_long_passages(self.long_passages)
        except ValueError as error:
            raise DataError(f"crosstask: {self.checkpoint}: {error}") from error
        encode = partial(_encode, processor, mode)
        settings = get_generation_kwargs(model, **self.lengths, role=self.kind)
        settings["logits_processor"] = [make_nan_check(model, self.kind)]
        if self.ablation == "swapped":
            questions = swap_questions(rows)
            rows = [{**row, "question": question} for row, question in zip(rows, questions, strict=True)]
        summaries = [""] * len(rows)
        summary_probabilities, reference_probabilities = [0.0] * len(rows), [0.0] * len(rows)
        truncated, unread, truncated_references = 0, len(rows), 0
        for inputs, groups in self.iter_batches(rows, encode, update):
            texts, probabilities = self._generate(model, processor, inputs, settings)
            for encoded, text, probability, indices in zip(inputs, texts, probabilities, groups, strict=True):
                truncated += len(indices) * _is_truncated(encoded)
                unread -= len(indices)
                for index in indices:
                    summaries[index], summary_probabilities[index] = text, probability
            indices = sum(groups, [])
            references, count = self._score_references(model, processor, mode, [rows[i] for i in indices])
            truncated_references += count
            for index, probability in zip(indices, references, strict=True):
                reference_probabilities[index] = probability
        notes = describe_lengths(len(rows), truncated, unread, truncated_references, mode == "select")
        if not model.config.answerability_trained:
            notes.append("answerability: not computed, because the model has learned from no label")
            return Outputs(summaries, notes=notes)
        wrong_probabilities = self._score_wrong_values(model, processor, mode, rows, reference_probabilities)
        return Outputs(summaries, reference_probabilities, summary_probabilities, wrong_probabilities, notes)

    @torch.inference_mode()
    def _generate(
        self, model, processor, inputs: list[dict], settings: Mapping
    ) -> tuple[list[str], list[float]]:
        """Return the summary of each input, and its probability to carry the answer."""
        batch = self._make_batch(model, processor, inputs)
        settings = {**settings, "num_return_sequences": 1, **self.reranking}
        output = model.generate(**batch, **settings, return_dict_in_generate=True)
        if not output.answerability.isfinite().all():
            raise make_non_finite_error(model, self.kind)
        best = slice(None, None, self.reranking.get("num_return_sequences", 1))
        texts = processor.batch_decode(output.sequences[best], skip_special_tokens=True)
        texts = [text.strip() for text in texts]
        pairs = zip(texts, output.answerability[best].tolist(), strict=True)
        return texts, [probability if text else 0.0 for text, probability in pairs]  # as in the pipeline

    @torch.inference_mode()
    def _score_references(self, model, processor, mode: str, rows: list[Mapping]) -> tuple[list[float], int]:
        """
        Return P(the reference carries the answer) for each row, and how many references were cut. Each
        distinct row is scored once.
        """
        names = ("question", "passage", "summary")
        probabilities = [0.0] * len(rows)
        truncated, groups = 0, group_indices(tuple(row[name] for name in names) for row in rows)
        keys = list(groups)
        for start in range(0, len(keys), self.batch_size):
            batch_keys = keys[start : start + self.batch_size]
            inputs = [processor.encode_long(*key, long_passages=mode)[0] for key in batch_keys]
            logits = model(**self._make_batch(model, processor, inputs)).answerability_logits.float()
            if not logits.isfinite().all():
                raise make_non_finite_error(model, self.kind)
            for key, encoded, probability in zip(
                batch_keys, inputs, logits.softmax(-1)[:, 1].tolist(), strict=True
            ):
                truncated += len(groups[key]) * encoded[f"labels{TRUNCATED}"]
                for index in groups[key]:
                    probabilities[index] = probability
        return probabilities, truncated

    def _score_wrong_values(
        self, model, processor, mode, rows, reference_probabilities
    ) -> list[float | None]:
        """Return P(the reference with a wrong value carries the answer); `None` where there is none."""
        values = WrongValues(rows)
        probabilities: list[float | None] = [None] * len(rows)
        wrong_rows = {}
        for index, row in enumerate(rows):
            # A row that could not be read has a probability of 0.
            if row["answerable"] == 1 and reference_probabilities[index]:
                if (summary := values.replace(row)) is not None:
                    wrong_rows[index] = {**row, "summary": summary}
        scored, _ = self._score_references(model, processor, mode, list(wrong_rows.values()))
        for index, probability in zip(wrong_rows, scored, strict=True):
            probabilities[index] = probability
        return probabilities

    def _make_batch(self, model, processor, inputs: list[dict]) -> dict[str, torch.Tensor]:
        """Pad the inputs; for "zeroed", replace the question encoder's output with zeros."""
        batch = dict(processor.pad(inputs).to(model.device))
        if self.ablation == "zeroed":
            ids = batch.pop("question_input_ids", batch["input_ids"])
            hidden_size = model.question_encoder.config.hidden_size
            zeros = torch.zeros(*ids.flatten(1).shape, hidden_size, dtype=model.dtype, device=model.device)
            batch["question_encoder_outputs"] = (zeros,)
        return batch


def load_generation_settings(checkpoint: str) -> dict[str, int]:
    """
    Return `num_beams`, `min_new_tokens` and `max_new_tokens` of the generation settings of a checkpoint.

    Args:
        checkpoint (`str`): Hub id or folder.
    """
    try:
        config = GenerationConfig.from_pretrained(checkpoint)
    except OSError:  # it has no such settings
        config = GenerationConfig()
    # The lengths without "new" include the start token.
    return {
        "num_beams": config.num_beams or 1,
        "min_new_tokens": config.min_new_tokens or max((config.min_length or 0) - 1, 0),
        "max_new_tokens": config.max_new_tokens or (config.max_length or DEFAULT_MAX_LENGTH) - 1,
    }


def swap_questions(rows: Sequence[Mapping]) -> list[str]:
    """Return for each row a question that is asked about another passage.

    The distinct questions are arranged in a circle, sorted by the hash of their text. Each row gets the next
    question in the circle that is not asked about its passage; if all are, as in corpora that ask the same
    questions about every passage, the next one. The result depends on the set of rows, not on their order.

    Raises:
        DataError: If the rows have only one distinct question.
    """
    asked: dict[str, set[str]] = {}
    for row in rows:
        asked.setdefault(row["passage"], set()).add(row["question"])
    circle = sorted(set().union(*asked.values()), key=lambda text: hashlib.sha256(text.encode()).digest())
    if len(circle) == 1:
        raise DataError(f"crosstask: every row asks {circle[0]!r}, expected another question to swap it for")
    positions = {question: index for index, question in enumerate(circle)}

    def swap(question: str, excluded: set[str]) -> str:
        start = positions[question]
        successors = [circle[(start + step) % len(circle)] for step in range(1, len(excluded) + 1)]
        return next((successor for successor in successors if successor not in excluded), successors[0])

    return [swap(row["question"], asked[row["passage"]]) for row in rows]


def _encode(processor, long_passages: str, question: str, passage: str) -> dict | None:
    try:
        return processor.encode_long(question, passage, long_passages=long_passages)[0]
    except QuestionTooLongError:
        return None


def _is_truncated(encoded: dict) -> bool:
    return any(value for key, value in encoded.items() if key.endswith(TRUNCATED))
