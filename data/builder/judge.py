"""Judge whether a summary carries an answer: score how probably it entails the answer with an NLI model."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from string import Formatter
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from crosstask.configuration_crosstask import get_max_positions
from crosstask.utils.errors import DataError
from crosstask.utils.pretrained import (
    batch_by_length,
    check_counts,
    load_checkpoint,
    make_non_finite_error,
)

TEMPLATE_FIELDS = ("question", "answer")


class Judge:
    """
    Score with a classifier of natural-language inference (NLI) whether a premise entails a hypothesis.

    The summary is the premise. The hypothesis is a template that contains the answer, the question or both.

    Args:
        model (`str`, `os.PathLike` or `tuple`):
            Hub id or folder of a sequence classifier with an entailment class, or a pair (model, tokenizer).
        hypothesis (`str`, *optional*, defaults to `"{answer}"`):
            Template of the hypothesis, with {answer}, {question} or both.
        dtype (`str`, *optional*, defaults to `"auto"`):
            `"auto"` (the dtype of the checkpoint), `"float32"`, `"bfloat16"` or `"float16"`. Ignored for a
            pair.
        device (`str`, *optional*):
            Device of the model. Defaults to the accelerator of this process, or the CPU. Ignored for a pair.
        batch_size (`int`, *optional*, defaults to 64):
            Pairs per batch.
        max_length (`int`, *optional*, defaults to 512):
            Maximum number of tokens of a pair; tokenizer and model may have a lower limit. The end of a
            longer premise is cut off. The hypothesis is cut only if it would fill the limit alone.

    Attributes:
        entailment_index (`int`): Index of the entailment class.
        contradiction_index (`int`, *optional*): Index of the contradiction class, if there is one.
        truncated (`int`): Number of distinct pairs that were cut, summed over all calls.

    Raises:
        DataError: If the model is not a sequence classifier, has no entailment class or cannot be loaded, or
        if the
            template or a value is wrong.
    """

    def __init__(
        self,
        model: str | os.PathLike | tuple[PreTrainedModel, PreTrainedTokenizerBase],
        *,
        hypothesis: str = "{answer}",
        dtype: str = "auto",
        device: str | None = None,
        batch_size: int = 64,
        max_length: int = 512,
    ):
        check_counts("judge", batch_size=batch_size, max_length=max_length)
        check_template(hypothesis)
        self.model, self.tokenizer = load_checkpoint(
            AutoModelForSequenceClassification, model, dtype, device, "judge"
        )
        self.entailment_index = find_entailment_index(self.model.config.id2label or {})
        self.contradiction_index = find_contradiction_index(self.model.config.id2label or {})
        self.hypothesis, self.batch_size = hypothesis, batch_size
        self.max_length = min(max_length, self.tokenizer.model_max_length, get_max_positions(self.model))
        self.truncated = 0

    def make_hypotheses(self, questions: Iterable[str], answers: Iterable[str]) -> list[str]:
        """Fill the template with each question and its answer."""
        return [
            self.hypothesis.format(question=question, answer=answer)
            for question, answer in zip(questions, answers, strict=True)
        ]

    def score(
        self,
        premises: Iterable[str],
        hypotheses: Iterable[str],
        update: Callable[[int], object] | None = None,
        index: int | None = None,
    ) -> list[float]:
        """
        Return the probability that each premise entails its hypothesis, or that of another class.

        Each distinct pair is scored once, and the scores do not depend on the order of the pairs.

        Args:
            premises (`Iterable[str]`):
                The summaries.
            hypotheses (`Iterable[str]`):
                One hypothesis per premise.
            update (`Callable[[int], object]`, *optional*):
                Called after each batch with the number of pairs that it completes.
            index (`int`, *optional*):
                Index of the class; defaults to the entailment class.

        Returns:
            `list[float]`: Probabilities by a softmax over all classes, in order. They are rounded to 6
            decimals, because further digits of float32 differ between machines.

        Raises:
            DataError: If the logits of the model are not finite.
        """
        index = self.entailment_index if index is None else index
        pairs = list(zip(premises, hypotheses, strict=True))
        counts = Counter(pairs)
        scores: dict[tuple[str, str], float] = {}
        encoded = {pair: self._encode(*pair) for pair in counts}
        for batch in batch_by_length(encoded, self.batch_size):
            scores |= zip(batch, self._score_batch([encoded[pair] for pair in batch], index), strict=True)
            if update:
                update(sum(counts[pair] for pair in batch))
        return [scores[pair] for pair in pairs]

    @torch.inference_mode()
    def _score_batch(self, rows: list[dict[str, list[int]]], index: int) -> list[float]:
        # Tensor cores are fastest with lengths that are multiples of 8, but a length above the limit may have
        # no position embeddings.
        multiple = None if self.max_length % 8 else 8
        inputs = self.tokenizer.pad(rows, return_tensors="pt", pad_to_multiple_of=multiple)
        logits = self.model(**inputs.to(self.model.device)).logits.float()
        if not logits.isfinite().all():
            raise make_non_finite_error(self.model, "judge")
        return [round(p, 6) for p in logits.softmax(-1)[:, index].tolist()]

    def _encode(self, premise: str, hypothesis: str) -> dict[str, list[int]]:
        # A special token that is spelled out in a text must stay text: BART counts the `</s>` of its input.
        options = {"add_special_tokens": False, "split_special_tokens": True, "verbose": False}
        lengths = [len(self.tokenizer(text, **options)["input_ids"]) for text in (premise, hypothesis)]
        max_text_length = self.max_length - self.tokenizer.num_special_tokens_to_add(pair=True)
        self.truncated += sum(lengths) > max_text_length
        encoded = self.tokenizer(
            [premise],  # a list, because the tokenizer ignores an empty hypothesis beside a plain string
            [hypothesis],
            truncation="only_first" if lengths[1] < max_text_length else "longest_first",
            max_length=self.max_length,
            split_special_tokens=True,
        )
        return {name: values[0] for name, values in encoded.items()}


def check_template(template: str) -> None:
    """
    Check the template of a hypothesis.

    Raises:
        DataError: If the template does not contain {answer} or {question}, or contains another field.
    """
    expected = "expected a text with {answer}, {question} or both (write {{ or }} for a brace)"
    try:
        fields = [field[1:] for field in Formatter().parse(template) if field[1] is not None]
    except (TypeError, ValueError) as error:
        raise DataError(f"hypothesis: {template!r}: {error}; {expected}") from None
    for name, spec, conversion in fields:
        if name not in TEMPLATE_FIELDS or spec or conversion:
            raise DataError(f"hypothesis: {template!r} has the field {name!r}, {expected}")
    if not fields:
        raise DataError(f"hypothesis: {template!r} has no field, {expected}")


def find_entailment_index(id2label: Mapping[Any, str]) -> int:
    """
    Return the index of the class that is named entailment, in any case and with or without other words.

    Raises:
        DataError: If there is no such class or more than one, or if it is the only class.
    """
    matches = _find_indices(id2label, "entailment")
    if len(matches) != 1 or len(id2label) < 2:
        labels = ", ".join(map(str, id2label.values()))
        raise DataError(f"judge: expected one label of several to be 'entailment', got {labels}")
    return matches[0]


def find_contradiction_index(id2label: Mapping[Any, str]) -> int | None:
    """Return the index of the class that is named contradiction; `None` if there is not exactly one."""
    matches = _find_indices(id2label, "contradiction")
    return matches[0] if len(matches) == 1 else None


def _find_indices(id2label: Mapping[Any, str], name: str) -> list[Any]:
    """Return the classes with a name; those with further words only if none has the name alone."""
    words = {index: re.findall("[a-z]+", str(label).lower()) for index, label in id2label.items()}
    exact = [index for index in words if words[index] == [name]]
    # Also accept "NLI entailment", but neither "not_entailment" nor "non-entailment".
    partial = [i for i in words if name in words[i] and not {"no", "non", "not"} & set(words[i])]
    return exact or partial
