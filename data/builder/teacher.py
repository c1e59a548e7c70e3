"""Summaries by a model that was trained to write them, as targets for the rows of a data set."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from transformers import AutoModelForSeq2SeqLM

from crosstask.configuration_crosstask import PROMPT
from crosstask.processing_crosstask import CrossTaskProcessor, QuestionTooLongError
from crosstask.utils.errors import DataError
from crosstask.utils.pretrained import (
    batch_by_length,
    check_counts,
    get_max_positions,
    load_checkpoint,
    non_finite_error,
)

ROLE = "teacher"
DEFAULT_SOURCE_LENGTH = 1024  # of a model without a limit of its own; the prototype's


class Teacher:
    """A summarizer that writes summaries of passages, or candidates of one for a question.

    What it writes depends on the texts of a call alone: not on their order, nor on the calls before.

    Args:
        model: Hub id or folder of any sequence-to-sequence model, or a pair (model, tokenizer).
        dtype: "auto" (the checkpoint's own), "float32", "bfloat16" or "float16"; of no effect on a
            loaded pair, as is `device`.
        device: Where to, as torch names it; None is this process' accelerator, or the CPU.
        batch_size: Inputs a batch; the decoder sees `num_beams` or n times as many.
        max_source_length: Limit of the input in tokens; a passage is cut at its end. None is the
            tokenizer's limit and what the model has positions for, 1024 where neither has any.
        num_beams: Beams of the search; 1 is greedy. This and the following settings are the
            checkpoint's own where None.
        min_new_tokens: Shortest summary in tokens. One of the checkpoint's own that is not below
            `max_new_tokens` is dropped, for no summary could end.
        max_new_tokens: Longest summary in tokens, or as many as the decoder has positions for.
        length_penalty: Exponent of the length that divides the log-likelihood of a beam.
        no_repeat_ngram_size: Length in tokens of the n-grams that may occur once in a summary.
        top_p: Share of the probability mass that candidates are drawn from (nucleus sampling,
            https://arxiv.org/abs/1904.09751).
        prefix: What comes before a passage without a question; None is the checkpoint's own
            ("summarize: " of T5).
        prompt: Template of the question in front of a passage, as of [`CrossTaskProcessor`].
        seed: Of the sampling.

    Attributes:
        truncated: Distinct inputs that were cut, over all calls.
        settings: Arguments of `generate` for summaries, lengths with the start token included.

    Raises:
        DataError: If the model is of another kind or cannot be loaded, or a value is out of range.
    """

    def __init__(
        self,
        model,
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
            ROLE,
            batch_size=batch_size,
            max_source_length=max_source_length,
            num_beams=num_beams,
            max_new_tokens=max_new_tokens,
        )
        if not 0 < top_p <= 1:
            raise DataError(f"{ROLE}: top_p is {top_p!r}, expected a number above 0 and up to 1")
        if "{question}" not in prompt:
            raise DataError(f"{ROLE}: prompt is {prompt!r}, expected a text with {{question}}")
        self.model, self.tokenizer = load_checkpoint(AutoModelForSeq2SeqLM, model, dtype, device, ROLE)
        self.batch_size, self.top_p, self.seed = batch_size, top_p, seed
        task = (getattr(self.model.config, "task_specific_params", None) or {}).get("summarization", {})
        self.prefix = task.get("prefix", "") if prefix is None else prefix
        self.max_source_length = self._source_length(max_source_length)
        self._processor = CrossTaskProcessor(self.tokenizer, None, prompt, self.max_source_length)
        # Of an input that fills the limit, it tells whether there would have been more.
        self._longer = CrossTaskProcessor(self.tokenizer, None, prompt, self.max_source_length + 1)
        self.truncated = 0
        self.settings = generation_settings(
            self.model, num_beams, min_new_tokens, max_new_tokens, length_penalty, no_repeat_ngram_size
        )

    def summarize(self, passages: Iterable[str], tick: Callable[[int], None] | None = None) -> list[str]:
        """Summaries of passages, in their order. Each distinct passage is summarized once.

        Args:
            passages: Texts.
            tick: Called after each batch with how many of the passages it was for.

        Raises:
            DataError: If the model's numbers overflow.
        """
        passages = list(passages)
        encoded = {text: self._encode(passage=self.prefix + text) for text in dict.fromkeys(passages)}
        return [summary for [summary] in self._write(passages, encoded, 1, tick)]

    def candidates(
        self, pairs: Iterable[tuple[str, str]], n: int, tick: Callable[[int], None] | None = None
    ) -> list[list[str]]:
        """Summaries that were written with the question in sight.

        Args:
            pairs: (question, passage); each distinct one is read once.
            n: Candidates a pair. 1 is the best of the beam search; more are drawn at random, and may
                be alike.
            tick: Called after each batch with how many of the pairs it was for.

        Returns:
            n candidates a pair as they were drawn, in the order of the pairs; none for a pair whose
            question leaves no room for its passage.

        Raises:
            DataError: If n is out of range, or the model's numbers overflow.
        """
        check_counts(ROLE, candidates=n)
        pairs = [(question, passage) for question, passage in pairs]
        encoded = {}
        for question, passage in dict.fromkeys(pairs):
            try:
                encoded[question, passage] = self._encode(question=question, passage=passage)
            except QuestionTooLongError:
                continue
        return self._write(pairs, encoded, n, tick)

    def _write(self, keys: list, encoded: Mapping, n: int, tick) -> list[list[str]]:
        """n texts a key; `encoded` has the inputs by key, without those that get none."""
        counts, written = Counter(keys), {}
        settings = self.settings if n == 1 else self._sampling(n)
        for batch in batch_by_length(encoded, self.batch_size):
            # Of its own texts only, so that a batch is drawn alike in any process and after any restart.
            digest = hashlib.sha256(json.dumps([self.seed, n, batch]).encode()).digest()
            texts = self._generate([encoded[key] for key in batch], settings, digest)
            written |= {key: texts[i * n : (i + 1) * n] for i, key in enumerate(batch)}
            if tick:
                tick(sum(counts.pop(key) for key in batch))
        if tick and counts:  # those that are not encoded
            tick(counts.total())
        return [written.get(key, []) for key in keys]

    @torch.inference_mode()
    def _generate(self, rows: list[Mapping], settings: Mapping[str, Any], digest: bytes) -> list[str]:
        device = self.model.device
        # Tensor cores like lengths of a multiple of 8, but past the limit there may be no positions.
        multiple = None if self.max_source_length % 8 else 8
        inputs = self._processor.pad(rows, pad_to_multiple_of=multiple).to(device)
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(int.from_bytes(digest[:8], "big"))
            ids = self.model.generate(**inputs, **settings, logits_processor=[self._check_scores])
        return [text.strip() for text in self.tokenizer.batch_decode(ids, skip_special_tokens=True)]

    def _check_scores(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        # A beam search would go on, and write noise.
        if scores.isnan().any():
            raise non_finite_error(self.model, ROLE)
        return scores

    def _encode(self, **texts: str) -> dict[str, list[int]]:
        encoded = dict(self._processor(**texts))
        if len(encoded["input_ids"]) == self.max_source_length:
            self.truncated += len(self._longer(**texts)["input_ids"]) > self.max_source_length
        return encoded

    def _source_length(self, wanted: int | None) -> int:
        most = get_max_positions(self.model, "encoder")
        if wanted is None:
            limit = min(self.tokenizer.model_max_length, most)
            return limit if limit < 1e6 else DEFAULT_SOURCE_LENGTH  # 1e30 is transformers' "no limit"
        if wanted > most:
            raise DataError(
                f"{ROLE}: max_source_length is {wanted}, expected {most} or less, which is what "
                f"{self.model.config.name_or_path or 'the model'} has positions for"
            )
        return wanted

    def _sampling(self, n: int) -> dict[str, Any]:
        sampling = {"do_sample": True, "top_k": 0, "top_p": self.top_p}
        return self.settings | _ONE_BEAM | sampling | {"num_return_sequences": n}


def generation_settings(
    model, num_beams, shortest, longest, length_penalty=None, no_repeat_ngram_size=None, role=ROLE
) -> dict[str, Any]:
    """Arguments of `generate` for a summary, as a [`Teacher`] takes them. They are given one by one, for
    transformers 4 overrules a `GenerationConfig` by the checkpoint's wherever a value is the default;
    and as lengths with the start token, for both versions warn where the checkpoint has those and new
    tokens are given."""
    own = model.generation_config
    longest = longest or own.max_new_tokens or (own.max_length or 20) - 1
    longest = min(longest, get_max_positions(model, "decoder"))
    if shortest is None:
        shortest = own.min_new_tokens or max((own.min_length or 0) - 1, 0)
        shortest = shortest if shortest < longest else 0
    elif type(shortest) is not int or not 0 <= shortest < longest:
        raise DataError(f"{role}: min_new_tokens is {shortest!r}, expected an integer below {longest}")
    settings = {
        "max_length": longest + 1,
        "min_length": shortest + 1,
        "max_new_tokens": None,
        "min_new_tokens": None,
        "num_beams": num_beams or own.num_beams or 1,
        "do_sample": False,
        # Of a checkpoint that samples by default; transformers would warn of them.
        "temperature": 1.0,
        "top_k": 50,
        "top_p": 1.0,
    }
    wanted = {"length_penalty": length_penalty, "no_repeat_ngram_size": no_repeat_ngram_size}
    settings |= {name: value for name, value in wanted.items() if value is not None}
    return settings if settings["num_beams"] > 1 else settings | _ONE_BEAM


# Neither means anything without beams, and transformers says so in a warning.
_ONE_BEAM = {"num_beams": 1, "early_stopping": False, "length_penalty": 1.0}
