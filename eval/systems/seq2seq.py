"""Any seq2seq model as a plain summarizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from accelerate import PartialState
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from crosstask.configuration_crosstask import PROMPT
from crosstask.data.builder.teacher import Teacher
from crosstask.eval.systems.base import Generative, Outputs, Tick, _config, _not_loaded
from crosstask.loading_crosstask import load_task_model
from crosstask.utils.pretrained import LOAD_ERRORS, check_counts


class Seq2Seq(Generative):
    """Any sequence-to-sequence model as a plain summarizer, with or without the question in its input.

    Without, each distinct passage is summarized once, after the prefix that the checkpoint names
    ("summarize: " of T5). With it, the input is that of [`CrossTaskProcessor`], and a question that leaves
    no room for its passage gets an empty summary.

    Args:
        model: Hub id or folder, of an adapter too.
        question: Whether the question is in the input.
        prefix, prompt, max_source_length, num_beams, min_new_tokens, max_new_tokens, length_penalty, \
no_repeat_ngram_size, dtype, device, batch_size:
            As of [`Teacher`], which does the writing.

    Raises:
        DataError: If there is no such checkpoint, it is of another kind, or a value is out of range.
    """

    kind = "seq2seq"

    def __init__(
        self,
        model: str,
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
        self._teacher = {
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
        super().__init__(AutoModelForSeq2SeqLM, model, question=question, **self._teacher)
        self.question, self.device, self.batch_size = question, device, batch_size
        self.name += " + question" if question else ""

    def write(self, rows: Sequence[Mapping], tick: Tick = None) -> Outputs:
        """Summaries of rows. `tick` is called after each batch with how many rows it was for."""
        model, is_adapter = self.checkpoint, _config(self.checkpoint)[1] is not None
        if is_adapter:
            try:
                model = load_task_model(model), AutoTokenizer.from_pretrained(model)
            except LOAD_ERRORS as error:
                raise _not_loaded(model, error) from error
            model[0].to(PartialState().device if self.device is None else self.device)
        teacher = Teacher(model, device=self.device, batch_size=self.batch_size, **self._teacher)
        if not self.question:
            return Outputs(teacher.summarize([row["passage"] for row in rows], tick))
        pairs = [(row["question"], row["passage"]) for row in rows]
        return Outputs([(texts or [""])[0] for texts in teacher.candidates(pairs, 1, tick)])
