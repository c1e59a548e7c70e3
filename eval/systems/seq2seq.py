"""Any sequence-to-sequence model as a summarizer."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from accelerate import PartialState
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from crosstask.configuration_crosstask import PROMPT
from crosstask.data.builder.teacher import Teacher
from crosstask.eval.systems.base import Generative, Outputs, Update, describe_lengths
from crosstask.eval.systems.checkpoints import get_adapter_base, load_error
from crosstask.loading_crosstask import load_task_model
from crosstask.utils.pretrained import LOAD_ERRORS, check_counts


class Seq2Seq(Generative):
    """Any sequence-to-sequence model as a summarizer, with or without the question in its input.

    Without the question, each distinct passage is summarized once, after the prefix that the checkpoint names
    ("summarize: " for T5). With it, the input is that of [`CrossTaskProcessor`]; a question that leaves no
    room for the passage gets an empty summary. [`Teacher`] generates the text.

    Args:
        model (`str` or `os.PathLike`): Hub id or folder of a model, or of a PEFT adapter with a tokenizer.
        question (`bool`, *optional*, defaults to `False`): Whether the question is in the input.
        prefix (`str`, *optional*): Text in front of a passage without a question; by default the
            checkpoint's.
        prompt (`str`, *optional*): Template of the question in front of a passage.
        max_source_length (`int`, *optional*): Limit of the input in tokens; by default the tokenizer's or the
            model's, or 1024 if neither has one.
        num_beams (`int`, *optional*, defaults to 1): Beams of the search; 1 is greedy search. This and the
            following settings are the checkpoint's if they are None.
        min_new_tokens (`int`, *optional*): Shortest summary in tokens.
        max_new_tokens (`int`, *optional*, defaults to 128): Longest summary in tokens.
        length_penalty (`float`, *optional*): Exponent of the length that divides a beam's log-likelihood.
        no_repeat_ngram_size (`int`, *optional*): Length of the n-grams that may occur once in a summary.
        dtype (`str`, *optional*, defaults to `"auto"`): "auto" (the checkpoint's), "float32", "bfloat16" or
            "float16".
        device (`str`, *optional*): A torch device; by default this process's accelerator, or the CPU.
        batch_size (`int`, *optional*, defaults to 16): Inputs per batch.

    Raises:
        DataError: If there is no such checkpoint, if it is of another kind, or if a value is out of range.
    """

    kind = "seq2seq"

    def __init__(
        self,
        model: str | os.PathLike,
        question: bool = False,
        prefix: str | None = None,
        prompt: str = PROMPT,
        max_source_length: int | None = None,
        num_beams: int | None = 1,
        min_new_tokens: int | None = None,
        max_new_tokens: int | None = 128,
        length_penalty: float | None = None,
        no_repeat_ngram_size: int | None = None,
        dtype: str = "auto",
        device: str | None = None,
        batch_size: int = 16,
    ):
        check_counts("seq2seq", num_beams=num_beams, max_new_tokens=max_new_tokens, batch_size=batch_size)
        self.teacher_settings: dict[str, Any] = {
            "prompt": prompt,
            "prefix": prefix,
            "max_source_length": max_source_length,
            "num_beams": num_beams,
            "min_new_tokens": min_new_tokens,
            "max_new_tokens": max_new_tokens,
            "length_penalty": length_penalty,
            "no_repeat_ngram_size": no_repeat_ngram_size,
            "dtype": dtype,
        }
        super().__init__(AutoModelForSeq2SeqLM, model, question=question, **self.teacher_settings)
        self.question, self.device, self.batch_size = question, device, batch_size
        self.name += " + question" if question else ""

    def write(self, rows: Sequence[Mapping], update: Update = None) -> Outputs:
        model = self.checkpoint if get_adapter_base(self.checkpoint) is None else self._load_adapted_model()
        teacher = Teacher(model, device=self.device, batch_size=self.batch_size, **self.teacher_settings)
        if not self.question:
            summaries = teacher.summarize([row["passage"] for row in rows], update)
            inputs = {row["passage"] for row in rows}
            return Outputs(summaries, notes=describe_lengths(len(inputs), teacher.truncated))
        pairs = [(row["question"], row["passage"]) for row in rows]
        # A question that leaves no room for its passage has no candidate.
        candidates = teacher.write_candidates(pairs, 1, update)
        unread = len({pair for pair, texts in zip(pairs, candidates, strict=True) if not texts})
        notes = describe_lengths(len(set(pairs)), teacher.truncated, unread)
        return Outputs([(texts or [""])[0] for texts in candidates], notes=notes)

    def _load_adapted_model(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Load the base model with the adapter merged into it, and the adapter's tokenizer."""
        try:
            model = load_task_model(self.checkpoint)
            tokenizer = AutoTokenizer.from_pretrained(self.checkpoint)
        except LOAD_ERRORS as error:
            raise load_error(self.checkpoint, error) from error
        model.to(PartialState().device if self.device is None else self.device)  # type: ignore[arg-type]
        return model, tokenizer
