"""Does a summary carry an answer? The probability that the one entails the other, by a model of
natural-language inference."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from string import Formatter

import torch
from transformers import AutoModelForSequenceClassification

from crosstask.utils.errors import DataError
from crosstask.utils.pretrained import (
    batch_by_length,
    check_counts,
    get_max_positions,
    load_checkpoint,
    non_finite_error,
)

ROLE = "judge"
FIELDS = ("question", "answer")


class Judge:
    """A classifier of natural-language inference: the summary is the premise, what is to be carried the
    hypothesis.

    Args:
        model: Hub id or folder of any sequence classifier with an entailment class, or a pair
            (model, tokenizer).
        hypothesis: Template of the hypothesis, with {answer}, {question} or both.
        dtype: "auto" (the checkpoint's own), "float32", "bfloat16" or "float16"; of no effect on a
            loaded pair, as is `device`.
        device: Where to, as torch names it; None is this process' accelerator, or the CPU.
        batch_size: Pairs a batch.
        max_length: Limit of a pair in tokens, or what the tokenizer and the model can take if that is
            less. The premise is cut at its end, and the hypothesis only where it would fill the limit.

    Attributes:
        entailment: Index of the entailment class.
        truncated: Distinct pairs that were cut, over all calls.

    Raises:
        DataError: If the model is of another kind, has no entailment class or cannot be loaded, or the
            template or a value is wrong.
    """

    def __init__(
        self,
        model,
        *,
        hypothesis: str = "{answer}",
        dtype: str = "auto",
        device: str | None = None,
        batch_size: int = 64,
        max_length: int = 512,
    ):
        check_counts(ROLE, batch_size=batch_size, max_length=max_length)
        check_template(hypothesis)
        self.model, self.tokenizer = load_checkpoint(
            AutoModelForSequenceClassification, model, dtype, device, ROLE
        )
        self.entailment = entailment_index(self.model.config.id2label)
        self.hypothesis, self.batch_size = hypothesis, batch_size
        self.max_length = min(max_length, self.tokenizer.model_max_length, get_max_positions(self.model))
        self.truncated = 0

    def hypotheses(self, questions: Iterable[str], answers: Iterable[str]) -> list[str]:
        """The filled template for each question and its answer."""
        return [
            self.hypothesis.format(question=question, answer=answer)
            for question, answer in zip(questions, answers, strict=True)
        ]

    def score(
        self,
        premises: Iterable[str],
        hypotheses: Iterable[str],
        tick: Callable[[int], None] | None = None,
    ) -> list[float]:
        """P(entailment) of each premise and its hypothesis, in their order. Each distinct pair is scored
        once, and the order of the pairs makes no difference.

        Args:
            premises: Texts, the summaries.
            hypotheses: Texts, one a premise.
            tick: Called after each batch with how many of the pairs it was for.

        Returns:
            Probabilities, the softmax over all classes. They are rounded to 6 decimals: what float32
            computes beyond differs between machines, and in a file it would pass for a difference.

        Raises:
            DataError: If the model's numbers overflow.
        """
        pairs = list(zip(premises, hypotheses, strict=True))
        counts, scores = Counter(pairs), {}
        encoded = {pair: self._encode(*pair) for pair in counts}
        for batch in batch_by_length(encoded, self.batch_size):
            scores |= zip(batch, self._entailment([encoded[pair] for pair in batch]), strict=True)
            if tick:
                tick(sum(counts[pair] for pair in batch))
        return [scores[pair] for pair in pairs]

    @torch.inference_mode()
    def _entailment(self, rows: list) -> list[float]:
        # Tensor cores like lengths of a multiple of 8, but past the limit there may be no positions.
        multiple = None if self.max_length % 8 else 8
        inputs = self.tokenizer.pad(rows, return_tensors="pt", pad_to_multiple_of=multiple)
        logits = self.model(**inputs.to(self.model.device)).logits.float()
        if not logits.isfinite().all():
            raise non_finite_error(self.model, ROLE)
        return [round(p, 6) for p in logits.softmax(-1)[:, self.entailment].tolist()]

    def _encode(self, premise: str, hypothesis: str) -> dict[str, list[int]]:
        # Text that spells a special token stays text: BART counts its `</s>`.
        plain = {"add_special_tokens": False, "split_special_tokens": True, "verbose": False}
        lengths = [len(self.tokenizer(text, **plain)["input_ids"]) for text in (premise, hypothesis)]
        room = self.max_length - self.tokenizer.num_special_tokens_to_add(pair=True)
        self.truncated += sum(lengths) > room
        encoded = self.tokenizer(
            [premise],  # as a list, for an empty hypothesis beside a bare text counts as none
            [hypothesis],
            truncation="only_first" if lengths[1] < room else "longest_first",
            max_length=self.max_length,
            split_special_tokens=True,
        )
        return {name: values[0] for name, values in encoded.items()}


def check_template(template: str) -> None:
    """Raise a `DataError` unless a template has {answer}, {question} or both, and no other field."""
    expected = "expected a text with {answer}, {question} or both (a brace itself is {{ or }})"
    try:
        fields = [field[1:] for field in Formatter().parse(template) if field[1] is not None]
    except (TypeError, ValueError) as error:
        raise DataError(f"hypothesis: {template!r}: {error}; {expected}") from None
    for name, spec, conversion in fields:
        if name not in FIELDS or spec or conversion:
            raise DataError(f"hypothesis: {template!r} has the field {name!r}, {expected}")
    if not fields:
        raise DataError(f"hypothesis: {template!r} has no field, {expected}")


def entailment_index(id2label: dict[int, str]) -> int:
    """The index of the class whose name says entailment, whatever its case and place.

    Raises:
        DataError: If there is no such class, more than one, or no other.
    """
    words = {index: re.findall("[a-z]+", str(label).lower()) for index, label in id2label.items()}
    exact = [index for index in words if words[index] == ["entailment"]]
    # "NLI entailment", but neither "not_entailment" nor "non-entailment".
    loose = [i for i in words if "entailment" in words[i] and not {"no", "non", "not"} & set(words[i])]
    found = exact or loose
    if len(found) != 1 or len(id2label) < 2:
        labels = ", ".join(map(str, id2label.values()))
        raise DataError(f"{ROLE}: expected one label of several to be 'entailment', got {labels}")
    return found[0]
