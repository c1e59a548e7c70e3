"""Any causal language model as a summarizer, prompted in a chat."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from crosstask.configuration_crosstask import get_max_positions
from crosstask.eval.systems.base import Generative, Outputs, Update, describe_lengths, make_nan_check
from crosstask.utils.errors import DataError
from crosstask.utils.pretrained import check_counts, load_checkpoint

PROMPT = (
    "Summarize the passage in a few sentences so that the summary answers the question. Write the summary "
    "only.\n\nQuestion: {question}\n\nPassage: {passage}"
)
PROMPT_WITHOUT_QUESTION = (
    "Summarize the passage in a few sentences. Write the summary only.\n\nPassage: {passage}"
)
DEFAULT_SOURCE_LENGTH = 8192  # tokens, if neither the tokenizer nor the model has a limit


class ChatLM(Generative):
    """Any causal language model, prompted in a chat and decoded greedily.

    The user's turn is `PROMPT`, or `PROMPT_WITHOUT_QUESTION` if a row's question is blank, formatted with the
    tokenizer's chat template. Without a template, the prompt is plain text that ends in "Summary:". Only the
    passage is truncated, at its end; a question that leaves no room for the passage gets an empty summary.

    Args:
        model (`str` or `os.PathLike`): Hub id or folder.
        max_source_length (`int`, *optional*): Limit of the prompt in tokens; by default what the tokenizer
            and the model's positions allow beside the summary, or 8192 if neither has a limit.
        max_new_tokens (`int`, *optional*, defaults to 128): Longest summary in tokens.
        dtype (`str`, *optional*, defaults to `"auto"`): "auto" (the checkpoint's), "float32", "bfloat16" or
            "float16".
        device (`str`, *optional*): A torch device; by default this process's accelerator, or the CPU.
        batch_size (`int`, *optional*, defaults to 8): Prompts per batch.

    Raises:
        DataError: If there is no such checkpoint, if it is of another kind, or if a value is out of range.
    """

    kind = "chat"

    def __init__(
        self,
        model: str | os.PathLike,
        max_source_length: int | None = None,
        max_new_tokens: int = 128,
        dtype: str = "auto",
        device: str | None = None,
        batch_size: int = 8,
    ):
        check_counts(
            "chat", max_source_length=max_source_length, max_new_tokens=max_new_tokens, batch_size=batch_size
        )
        super().__init__(
            AutoModelForCausalLM,
            model,
            max_source_length=max_source_length,
            max_new_tokens=max_new_tokens,
            dtype=dtype,
            prompts=[PROMPT, PROMPT_WITHOUT_QUESTION],
        )
        self.max_source_length, self.max_new_tokens = max_source_length, max_new_tokens
        self.dtype, self.device, self.batch_size = dtype, device, batch_size

    def write(self, rows: Sequence[Mapping], update: Update = None) -> Outputs:
        model, tokenizer = load_checkpoint(
            AutoModelForCausalLM, self.checkpoint, self.dtype, self.device, self.kind
        )
        summaries = [""] * len(rows)
        encode = partial(encode_prompt, tokenizer, self._get_limit(model, tokenizer))
        truncated, unread = 0, len(rows)
        for inputs, groups in self.iter_batches(rows, encode, update):
            flags = [prompt.pop("is_truncated") for prompt in inputs]
            texts = self._generate(model, tokenizer, inputs)
            for text, is_truncated, indices in zip(texts, flags, groups, strict=True):
                truncated += len(indices) * is_truncated
                unread -= len(indices)
                for index in indices:
                    summaries[index] = text
        return Outputs(summaries, notes=describe_lengths(len(rows), truncated, unread))

    def _get_limit(self, model, tokenizer) -> int:
        """Return the limit of the prompt in tokens."""
        limit_of_positions = get_max_positions(model) - self.max_new_tokens
        default = min(limit_of_positions, tokenizer.model_max_length - self.max_new_tokens)
        default = default if default < 1e6 else DEFAULT_SOURCE_LENGTH  # a tokenizer without a limit has 1e30
        limit = self.max_source_length or default
        if not 0 < limit <= limit_of_positions:
            raise DataError(
                f"chat: {limit} tokens of prompt and {self.max_new_tokens} of summary are more than "
                f"{self.checkpoint} has positions for, expected a lower max_source_length or max_new_tokens"
            )
        return limit

    @torch.inference_mode()
    def _generate(self, model, tokenizer, prompts: list[dict]) -> list[str]:
        inputs = tokenizer.pad(prompts, padding_side="left", return_tensors="pt").to(model.device)
        ids = model.generate(
            **inputs,
            max_new_tokens=self.max_new_tokens,
            num_beams=1,
            do_sample=False,
            # The defaults of these three: if the checkpoint's generation config sets them for sampling,
            # transformers would warn that greedy search ignores them.
            temperature=1.0,
            top_k=50,
            top_p=1.0,
            pad_token_id=tokenizer.pad_token_id,
            logits_processor=[make_nan_check(model, self.kind)],
        )
        texts = tokenizer.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return [text.strip() for text in texts]


def encode_prompt(tokenizer, limit: int, question: str, passage: str) -> dict[str, Any] | None:
    """Return the token ids of a prompt, its passage truncated to `limit` tokens in all.

    Returns:
        A dict with `input_ids` and `is_truncated`, or None if the question leaves no room for the passage.
    """
    ids = tokenize_prompt(tokenizer, question, passage)
    if len(ids) <= limit:
        return {"input_ids": ids, "is_truncated": False}
    passage_ids = tokenizer(passage, add_special_tokens=False)["input_ids"]
    room = limit - len(tokenize_prompt(tokenizer, question, ""))
    while room > 0 and len(ids) > limit:  # a truncated word can be more tokens than before
        ids = tokenize_prompt(tokenizer, question, tokenizer.decode(passage_ids[:room]))
        room -= max(len(ids) - limit, 1)
    return {"input_ids": ids, "is_truncated": True} if len(ids) <= limit else None


def tokenize_prompt(tokenizer, question: str, passage: str) -> list[int]:
    """Return the token ids of the prompt for a question, which may be blank, and a passage."""
    prompt = PROMPT if question.strip() else PROMPT_WITHOUT_QUESTION
    # The passage comes last, because it may contain "{question}".
    text = prompt.replace("{question}", question.strip()).replace("{passage}", passage.strip())
    if tokenizer.chat_template is None:
        return tokenizer(f"{text}\n\nSummary:", add_special_tokens=True)["input_ids"]
    turns = [{"role": "user", "content": text}]
    # A model that writes its reasoning first would use up the summary's tokens. Templates without this switch
    # ignore it.
    text = tokenizer.apply_chat_template(
        turns, add_generation_prompt=True, tokenize=False, enable_thinking=False
    )
    return tokenizer(text, add_special_tokens=False)["input_ids"]
