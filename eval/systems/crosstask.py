"""The cross-task model as a system, whole or with what it knows of the question taken away."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import partial

import torch
from transformers import AutoModelForSeq2SeqLM

from crosstask.configuration_crosstask import CrossTaskConfig
from crosstask.data.builder.teacher import generation_settings
from crosstask.eval.systems.base import Generative, Outputs, Tick, finite, places_of
from crosstask.processing_crosstask import CrossTaskProcessor, QuestionTooLongError
from crosstask.utils.errors import DataError
from crosstask.utils.pretrained import check_counts, load_checkpoint, non_finite_error


class CrossTask(Generative):
    """The cross-task model: its summary under the question, and how sure it is of it and of the reference.

    Args:
        model: Hub id or folder of a [`CrossTaskForConditionalGeneration`] with its processor.
        ablation: None; "zeroed", where the question encoder gives zeros; or "swapped", where every question
            is another passage's (`swap_questions`), in the summary as in both probabilities.
        num_beams, min_new_tokens, max_new_tokens: As of [`Seq2Seq`].
        answerability_rerank, num_return_sequences: The best of so many candidates from the beams, by
            likelihood and answerability; both or none.
        dtype, device, batch_size: Likewise.

    A question that leaves no room for its passage gets an empty summary and probabilities of 0.

    Raises:
        DataError: If there is no such checkpoint, it is of another kind, a value is out of range, or there
            are no questions to swap.
    """

    kind = "crosstask"
    ablations = (None, "zeroed", "swapped")

    def __init__(
        self,
        model: str,
        ablation: str | None = None,
        num_beams: int | None = 1,
        min_new_tokens: int | None = None,
        max_new_tokens: int | None = 128,
        answerability_rerank: float | None = None,
        num_return_sequences: int = 1,
        dtype: str = "auto",
        device: str | None = None,
        batch_size: int = 16,
    ):
        if ablation not in self.ablations:
            raise DataError(f"crosstask: ablation is {ablation!r}, expected None, 'zeroed' or 'swapped'")
        check_counts("crosstask", num_beams=num_beams, max_new_tokens=max_new_tokens, batch_size=batch_size)
        lengths = {"num_beams": num_beams, "min_new_tokens": min_new_tokens, "max_new_tokens": max_new_tokens}
        ranking = {} if answerability_rerank is None else {"answerability_rerank": answerability_rerank}
        if (num_return_sequences > 1) != bool(ranking):
            raise DataError(
                "crosstask: expected num_return_sequences above 1 with answerability_rerank, and else 1"
            )
        if ranking:
            ranking["num_return_sequences"] = num_return_sequences
        super().__init__(AutoModelForSeq2SeqLM, model, ablation=ablation, dtype=dtype, **lengths, **ranking)
        if not isinstance(self.config, CrossTaskConfig):
            raise DataError(
                f"crosstask: {model} is a checkpoint of {self.config.model_type}, expected one of crosstask"
            )
        self.ablation, self.lengths, self.ranking = ablation, list(lengths.values()), ranking
        self.dtype, self.device, self.batch_size = dtype, device, batch_size
        self.name = "cross-task" + (f", question {ablation}" if ablation else "")

    def write(self, rows: Sequence[Mapping], tick: Tick = None) -> Outputs:
        """Summaries and probabilities of rows. `tick` is called after each batch with how many rows it
        was for."""
        model, _ = load_checkpoint(AutoModelForSeq2SeqLM, self.checkpoint, self.dtype, self.device, self.kind)
        processor = CrossTaskProcessor.from_pretrained(self.checkpoint)
        settings = generation_settings(model, *self.lengths, role=self.kind)
        settings["logits_processor"] = [finite(model, self.kind)]
        if self.ablation == "swapped":
            rows = [row | {"question": q} for row, q in zip(rows, swap_questions(rows), strict=True)]
        outputs = Outputs([""] * len(rows), [0.0] * len(rows), [0.0] * len(rows))
        encode = partial(_encode, processor)
        for inputs, places in self.batches(rows, encode, tick):
            texts, own = self._generate(model, processor, inputs, settings)
            for text, probability, indices in zip(texts, own, places, strict=True):
                for index in indices:
                    outputs.summaries[index], outputs.own[index] = text, probability
            self._judge(model, processor, rows, sum(places, []), outputs.probabilities)
        return outputs

    @torch.inference_mode()
    def _generate(self, model, processor, inputs: list[dict], settings) -> tuple[list[str], list[float]]:
        batch = self._batch(model, processor, inputs)
        output = model.generate(**batch, **settings, **self.ranking, return_dict_in_generate=True)
        if not output.answerability.isfinite().all():
            raise non_finite_error(model, self.kind)
        best = slice(None, None, self.ranking.get("num_return_sequences", 1))
        texts = processor.batch_decode(output.sequences[best], skip_special_tokens=True)
        return [text.strip() for text in texts], output.answerability[best].tolist()

    @torch.inference_mode()
    def _judge(self, model, processor, rows, indices: list[int], probabilities: list[float]) -> None:
        """Set the probabilities of the references of these rows, each distinct one judged once."""
        names = ("question", "passage", "summary")
        places = places_of(tuple(rows[index][name] for name in names) for index in indices)
        keys = list(places)
        for start in range(0, len(keys), self.batch_size):
            chosen = keys[start : start + self.batch_size]
            inputs = [dict(processor(**dict(zip(names, key, strict=True)))) for key in chosen]
            logits = model(**self._batch(model, processor, inputs)).answerability_logits.float()
            if not logits.isfinite().all():
                raise non_finite_error(model, self.kind)
            for key, probability in zip(chosen, logits.softmax(-1)[:, 1].tolist(), strict=True):
                for place in places[key]:
                    probabilities[indices[place]] = probability

    def _batch(self, model, processor, inputs: list[dict]) -> dict[str, torch.Tensor]:
        batch = dict(processor.pad(inputs).to(model.device))
        if self.ablation == "zeroed":
            ids = batch.pop("question_input_ids", batch["input_ids"])
            hidden_size = model.question_encoder.config.hidden_size
            zeros = torch.zeros(*ids.shape, hidden_size, dtype=model.dtype, device=model.device)
            batch["question_encoder_outputs"] = (zeros,)
        return batch


def swap_questions(rows: Sequence[Mapping]) -> list[str]:
    """For each row a question that its passage does not have: another passage's.

    The distinct questions stand in a circle by the hash of their text, and each row takes the first after
    its own that is none of its passage's; where its passage has all of them, as in corpora that ask every
    passage the same, the next. So it depends on which rows there are, not on their order.

    Raises:
        DataError: If the rows have one question only.
    """
    asked: dict[str, set[str]] = {}
    for row in rows:
        asked.setdefault(row["passage"], set()).add(row["question"])
    circle = sorted(set().union(*asked.values()), key=lambda text: hashlib.sha256(text.encode()).digest())
    if len(circle) == 1:
        raise DataError(f"crosstask: every row asks {circle[0]!r}, expected another question to swap it for")
    place = {question: index for index, question in enumerate(circle)}

    def swapped(question: str, own: set[str]) -> str:
        after = [circle[(place[question] + step) % len(circle)] for step in range(1, len(own) + 1)]
        return next((other for other in after if other not in own), after[0])

    return [swapped(row["question"], asked[row["passage"]]) for row in rows]


def _encode(processor, question: str, passage: str) -> dict | None:
    try:
        return dict(processor(question=question, passage=passage))
    except QuestionTooLongError:
        return None
