"""Write summaries with a sequence-to-sequence model, as target summaries of a data set."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from transformers import AutoModelForSeq2SeqLM, PreTrainedModel, PreTrainedTokenizerBase

from crosstask.configuration_crosstask import PROMPT, get_max_positions
from crosstask.processing_crosstask import TRUNCATED, CrossTaskProcessor, QuestionTooLongError
from crosstask.utils.errors import DataError
from crosstask.utils.pretrained import (
    batch_by_length,
    check_counts,
    load_checkpoint,
    make_non_finite_error,
)

DEFAULT_SOURCE_LENGTH = 1024  # tokens, for models without a limit; as in "Cross Task Collaboration in LLMs"


class Teacher:
    """
    Write summaries of passages, or candidate summaries for pairs of a question and a passage.

    The result of a call depends only on its texts, not on their order or on earlier calls.

    Args:
        model (`str`, `os.PathLike` or `tuple`):
            Hub id or folder of a sequence-to-sequence model, or a pair (model, tokenizer).
        dtype (`str`, *optional*, defaults to `"auto"`):
            `"auto"` (the dtype of the checkpoint), `"float32"`, `"bfloat16"` or `"float16"`. Ignored for a
            pair.
        device (`str`, *optional*):
            Device of the model. Defaults to the accelerator of this process, or the CPU. Ignored for a pair.
        batch_size (`int`, *optional*, defaults to 16):
            Inputs per batch. The decoder processes `num_beams` or `n` times as many sequences.
        max_source_length (`int`, *optional*):
            Maximum number of input tokens; the end of a longer passage is cut off. Defaults to the lower
            limit of tokenizer and model, or to 1024 if neither has a limit.
        num_beams (`int`, *optional*, defaults to 4):
            Number of beams; 1 is greedy search. If this or one of the next four arguments is `None`, the
            generation config of the checkpoint applies.
        min_new_tokens (`int`, *optional*):
            Minimum length of a summary in tokens. A minimum in the generation config that is not below
            `max_new_tokens` is ignored, because no summary could end.
        max_new_tokens (`int`, *optional*, defaults to 142):
            Maximum length of a summary in tokens. The decoder may have fewer positions.
        length_penalty (`float`, *optional*):
            Exponent of the length by which the log-likelihood of a beam is divided.
        no_repeat_ngram_size (`int`, *optional*):
            Length in tokens of the n-grams that occur at most once in a summary.
        top_p (`float`, *optional*, defaults to 0.95):
            Probability mass from which candidates are sampled (nucleus sampling,
            https://arxiv.org/abs/1904.09751).
        prefix (`str`, *optional*):
            Text before a passage without a question. Defaults to the prefix of the checkpoint (T5:
            "summarize: ").
        prompt (`str`, *optional*):
            Template of the question before a passage, see [`CrossTaskProcessor`].
        seed (`int`, *optional*, defaults to 0):
            Seed of the sampling.

    Attributes:
        truncated (`int`): Number of distinct inputs that were cut, summed over all calls.
        generation_kwargs (`dict`): Arguments of `generate` for summaries. Lengths include the start token.

    Raises:
        DataError: If the model is not a sequence-to-sequence model or cannot be loaded, or a value is out of
        range.
    """

    def __init__(
        self,
        model: str | os.PathLike | tuple[PreTrainedModel, PreTrainedTokenizerBase],
        *,
        dtype: str = "auto",
        device: str | None = None,
        batch_size: int = 16,
        max_source_length: int | None = None,
        num_beams: int | None = 4,
        min_new_tokens: int | None = None,
        max_new_tokens: int | None = 142,
        length_penalty: float | None = None,
        no_repeat_ngram_size: int | None = None,
        top_p: float = 0.95,
        prefix: str | None = None,
        prompt: str = PROMPT,
        seed: int = 0,
    ):
        check_counts(
            "teacher",
            batch_size=batch_size,
            max_source_length=max_source_length,
            num_beams=num_beams,
            max_new_tokens=max_new_tokens,
        )
        if not 0 < top_p <= 1:
            raise DataError(f"teacher: top_p is {top_p!r}, expected a number above 0 and up to 1")
        if "{question}" not in prompt:
            raise DataError(f"teacher: prompt is {prompt!r}, expected a text with {{question}}")
        self.model, self.tokenizer = load_checkpoint(AutoModelForSeq2SeqLM, model, dtype, device, "teacher")
        self.batch_size, self.top_p, self.seed = batch_size, top_p, seed
        if prefix is None:
            task_params = getattr(self.model.config, "task_specific_params", None) or {}
            prefix = task_params.get("summarization", {}).get("prefix", "")
        self.prefix = prefix
        self.max_source_length = self._get_source_length(max_source_length)
        self._processor = CrossTaskProcessor(self.tokenizer, None, prompt, self.max_source_length)
        self.truncated = 0
        self.generation_kwargs = get_generation_kwargs(
            self.model, num_beams, min_new_tokens, max_new_tokens, length_penalty, no_repeat_ngram_size
        )

    def summarize(self, passages: Iterable[str], update: Callable[[int], object] | None = None) -> list[str]:
        """
        Summarize passages. Each distinct passage is summarized once.

        Args:
            passages (`Iterable[str]`):
                The passages.
            update (`Callable[[int], object]`, *optional*):
                Called after each batch with the number of passages that it completes.

        Returns:
            `list[str]`: One summary per passage, in order.

        Raises:
            DataError: If the scores of the model are not finite.
        """
        passages = list(passages)
        encoded = {text: self._encode(passage=self.prefix + text) for text in dict.fromkeys(passages)}
        return [summary for [summary] in self._write(passages, encoded, 1, update)]

    def write_candidates(
        self, pairs: Iterable[tuple[str, str]], n: int, update: Callable[[int], object] | None = None
    ) -> list[list[str]]:
        """
        Write candidate summaries for pairs of a question and a passage; the model reads both.

        Args:
            pairs (`Iterable[tuple[str, str]]`):
                Pairs (question, passage). Each distinct pair is processed once.
            n (`int`):
                Candidates per pair. One candidate is the result of the beam search; several candidates are
                sampled and may be equal.
            update (`Callable[[int], object]`, *optional*):
                Called after each batch with the number of pairs that it completes.

        Returns:
            `list[list[str]]`: `n` candidates per pair, in the order of the pairs. A pair whose question
            leaves no room for its passage has none.

        Raises:
            DataError: If `n` is not positive, or the scores of the model are not finite.
        """
        check_counts("teacher", candidates=n)
        pairs = [(question, passage) for question, passage in pairs]
        encoded = {}
        for question, passage in dict.fromkeys(pairs):
            try:
                encoded[question, passage] = self._encode(question=question, passage=passage)
            except QuestionTooLongError:
                continue
        return self._write(pairs, encoded, n, update)

    def _write(self, keys: list, encoded: Mapping, n: int, update: Callable | None) -> list[list[str]]:
        """Write `n` texts per key from the encoded input of the key; a key without an input gets none."""
        counts = Counter(keys)
        texts_by_key: dict[Any, list[str]] = {}
        kwargs = self.generation_kwargs
        if n > 1:
            kwargs = kwargs | _NO_BEAM_SEARCH
            kwargs |= {"do_sample": True, "top_k": 0, "top_p": self.top_p, "num_return_sequences": n}
        for batch in batch_by_length(encoded, self.batch_size):
            # The seed depends only on the texts of the batch, so another process samples the same candidates.
            seed = hashlib.sha256(json.dumps([self.seed, n, batch]).encode()).digest()[:8]
            texts = self._generate([encoded[key] for key in batch], kwargs, int.from_bytes(seed, "big"))
            texts_by_key |= {key: texts[i * n : (i + 1) * n] for i, key in enumerate(batch)}
            if update:
                update(sum(counts.pop(key) for key in batch))
        if update and counts:  # keys without an input
            update(counts.total())
        return [texts_by_key.get(key, []) for key in keys]

    @torch.inference_mode()
    def _generate(self, rows: list[Mapping], kwargs: Mapping[str, Any], seed: int) -> list[str]:
        device = self.model.device
        # Tensor cores are fastest with lengths that are multiples of 8.
        inputs = self._processor.pad(rows, pad_to_multiple_of=8).to(device)
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            # mypy takes `generate` of a `PreTrainedModel` for a submodule.
            ids = self.model.generate(  # type: ignore[operator]
                **inputs, **kwargs, logits_processor=[self._check_scores]
            )
        return [text.strip() for text in self.tokenizer.batch_decode(ids, skip_special_tokens=True)]

    def _check_scores(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        # A beam search does not stop at NaN scores but returns noise.
        if scores.isnan().any():
            raise make_non_finite_error(self.model, "teacher")
        return scores

    def _encode(self, passage: str, question: str | None = None) -> dict[str, list[int]]:
        encoded = dict(self._processor(question=question, passage=passage, return_truncated=True))
        self.truncated += encoded.pop(f"input_ids{TRUNCATED}")
        return encoded

    def _get_source_length(self, max_source_length: int | None) -> int:
        max_positions = get_max_positions(self.model, "encoder")
        if max_source_length is None:
            limit = min(self.tokenizer.model_max_length, max_positions)
            return limit if limit < 1e6 else DEFAULT_SOURCE_LENGTH  # transformers uses 1e30 for "no limit"
        if max_source_length > max_positions:
            raise DataError(
                f"teacher: max_source_length is {max_source_length}, expected at most {max_positions}, the "
                f"number of positions of {self.model.config.name_or_path or 'the model'}"
            )
        return max_source_length


# Without beam search, transformers warns of other values of these arguments.
_NO_BEAM_SEARCH = {"num_beams": 1, "early_stopping": False, "length_penalty": 1.0}


def get_generation_kwargs(
    model: PreTrainedModel,
    num_beams: int | None,
    min_new_tokens: int | None,
    max_new_tokens: int | None,
    length_penalty: float | None = None,
    no_repeat_ngram_size: int | None = None,
    role: str = "teacher",
) -> dict[str, Any]:
    """
    Return the arguments of `generate` for writing a summary.

    They are separate arguments, because transformers 4 replaces each default value of a `GenerationConfig`
    with the value of the checkpoint. They are total lengths, because transformers warns of new-token lengths
    if the checkpoint has total lengths.

    Args:
        model (`PreTrainedModel`):
            The model; its generation config provides the values that are `None`.
        num_beams, min_new_tokens, max_new_tokens, length_penalty, no_repeat_ngram_size:
            Same as for [`Teacher`].
        role (`str`, *optional*, defaults to `"teacher"`):
            Name of the model in error messages.

    Raises:
        DataError: If `min_new_tokens` is not an integer below the maximum length.
    """
    config = model.generation_config
    max_length = max_new_tokens or config.max_new_tokens or (config.max_length or 20) - 1
    max_length = min(max_length, get_max_positions(model, "decoder"))
    if min_new_tokens is None:
        min_length = config.min_new_tokens or max((config.min_length or 0) - 1, 0)
        min_length = min_length if min_length < max_length else 0
    elif type(min_new_tokens) is not int or not 0 <= min_new_tokens < max_length:
        raise DataError(
            f"{role}: min_new_tokens is {min_new_tokens!r}, expected an integer below {max_length}"
        )
    else:
        min_length = min_new_tokens
    kwargs: dict[str, Any] = {
        "max_length": max_length + 1,  # with the start token
        "min_length": min_length + 1,
        "max_new_tokens": None,
        "min_new_tokens": None,
        "num_beams": num_beams or config.num_beams or 1,
        "do_sample": False,
        # Without sampling, transformers warns of other values in the generation config.
        "temperature": 1.0,
        "top_k": 50,
        "top_p": 1.0,
    }
    penalties = {"length_penalty": length_penalty, "no_repeat_ngram_size": no_repeat_ngram_size}
    kwargs |= {name: value for name, value in penalties.items() if value is not None}
    return kwargs if kwargs["num_beams"] > 1 else kwargs | _NO_BEAM_SEARCH
