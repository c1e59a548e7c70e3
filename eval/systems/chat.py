"""A chat model as a system: any causal language model, asked for the summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from transformers import AutoModelForCausalLM

from crosstask.eval.systems.base import Generative, Outputs, Tick, finite
from crosstask.utils.errors import DataError
from crosstask.utils.pretrained import check_counts, get_max_positions, load_checkpoint

PROMPT = (
    "Summarize the passage in a few sentences so that the summary answers the question. Write the summary "
    "only.\n\nQuestion: {question}\n\nPassage: {passage}"
)
PROMPT_WITHOUT_QUESTION = (
    "Summarize the passage in a few sentences. Write the summary only.\n\nPassage: {passage}"
)
SOURCE_LENGTH = 8192  # tokens, of a model that sets no limit


class ChatLM(Generative):
    """Any causal language model, asked in a chat: what many would pick today. It decodes greedily.

    The prompt is `PROMPT`, or the one without a question where a row's is blank, as the user's turn of
    the tokenizer's chat template; where it has none, it is text that ends in "Summary:". Only the passage
    is cut, at its end; a question that leaves no room for one gets an empty summary.

    Args:
        model: Hub id or folder.
        max_source_length: Limit of the prompt in tokens; None is what the tokenizer and the model's
            positions allow beside the summary, 8192 where neither has a limit.
        max_new_tokens: Longest summary in tokens.
        dtype: "auto" (the checkpoint's own), "float32", "bfloat16" or "float16".
        device: Where to, as torch names it; None is this process' accelerator, or the CPU.
        batch_size: Prompts a batch.

    Raises:
        DataError: If there is no such checkpoint, it is of another kind, or a value is out of range.
    """

    kind = "chat"

    def __init__(
        self,
        model: str,
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

    def write(self, rows: Sequence[Mapping], tick: Tick = None) -> Outputs:
        """Summaries of rows. `tick` is called after each batch with how many rows it was for."""
        model, tokenizer = load_checkpoint(
            AutoModelForCausalLM, self.checkpoint, self.dtype, self.device, self.kind
        )
        summaries = [""] * len(rows)
        encode = partial(self._encode, tokenizer, self._limit(model, tokenizer))
        for inputs, places in self.batches(rows, encode, tick):
            for text, indices in zip(self._generate(model, tokenizer, inputs), places, strict=True):
                for index in indices:
                    summaries[index] = text
        return Outputs(summaries)

    def _limit(self, model, tokenizer) -> int:
        most = get_max_positions(model) - self.max_new_tokens
        default = min(most, tokenizer.model_max_length - self.max_new_tokens)
        default = default if default < 1e6 else SOURCE_LENGTH  # 1e30 is transformers' "no limit"
        limit = self.max_source_length or default
        if not 0 < limit <= most:
            raise DataError(
                f"chat: {limit} tokens of prompt and {self.max_new_tokens} of summary are more than "
                f"{self.checkpoint} has positions for, expected a lower max_source_length or max_new_tokens"
            )
        return limit

    def _encode(self, tokenizer, limit: int, question: str, passage: str) -> dict | None:
        """The prompt, with as much of the passage as there is room for; None where there is none."""
        ids = self._prompt(tokenizer, question, passage)
        if len(ids) <= limit:
            return {"input_ids": ids}
        passage_ids = tokenizer(passage, add_special_tokens=False)["input_ids"]
        room = limit - len(self._prompt(tokenizer, question, ""))
        while room > 0 and len(ids) > limit:  # a cut word may be more tokens than it was
            ids = self._prompt(tokenizer, question, tokenizer.decode(passage_ids[:room]))
            room -= max(len(ids) - limit, 1)
        return {"input_ids": ids} if len(ids) <= limit else None

    @staticmethod
    def _prompt(tokenizer, question: str, passage: str) -> list[int]:
        prompt = PROMPT if question.strip() else PROMPT_WITHOUT_QUESTION
        # The passage last: it may hold the other's placeholder.
        text = prompt.replace("{question}", question.strip()).replace("{passage}", passage.strip())
        if tokenizer.chat_template is None:
            return tokenizer(f"{text}\n\nSummary:", add_special_tokens=True)["input_ids"]
        turns = [{"role": "user", "content": text}]
        # A model that thinks aloud would not come to its summary; other templates do not read the switch.
        text = tokenizer.apply_chat_template(
            turns, add_generation_prompt=True, tokenize=False, enable_thinking=False
        )
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    @torch.inference_mode()
    def _generate(self, model, tokenizer, prompts: list[dict]) -> list[str]:
        inputs = tokenizer.pad(prompts, padding_side="left", return_tensors="pt").to(model.device)
        ids = model.generate(
            **inputs,
            max_new_tokens=self.max_new_tokens,
            num_beams=1,
            do_sample=False,
            temperature=1.0,  # of a checkpoint that samples by default; transformers would warn of these
            top_k=50,
            top_p=1.0,
            pad_token_id=tokenizer.pad_token_id,
            logits_processor=[finite(model, self.kind)],
        )
        texts = tokenizer.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return [text.strip() for text in texts]
