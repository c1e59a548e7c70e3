"""Generation under a question, the answerability of summaries, and reranking of candidates."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import GenerationConfig, PretrainedConfig
from transformers.modeling_outputs import BaseModelOutput, ModelOutput, Seq2SeqLMOutput

from .configuration_crosstask import IGNORE_INDEX, check_weight, get_max_lengths
from .fusion_crosstask import capture_output, compute_likelihood, encode_segments, sum_log_probs

# transformers 5.24 renamed `past_key_values` to `cache`, in arguments and in outputs.
CACHE_ARGUMENT = (
    "cache" if "cache" in {field.name for field in fields(Seq2SeqLMOutput)} else "past_key_values"
)
UNKNOWN_TOKEN = -1  # the target of the last decoder input: a token, but not known which
QUESTION_ARGUMENTS = ("question_input_ids", "question_attention_mask", "question_encoder_outputs")
# Outputs of `generate` by decoding step, with rows that are not those of the returned sequences.
STEP_OUTPUTS = ("output_scores", "output_logits", "output_attentions", "output_hidden_states")
# Outputs of `generate` with one row per returned sequence.
SEQUENCE_OUTPUTS = (
    "sequences",
    "beam_indices",
    "answerability",
    "summary_log_probs",
    "rerank_scores",
    "fusion_attentions",
)


@dataclass
class EncoderOutput(BaseModelOutput):
    """The output of an encoder. Switch Transformers and NLLB-MoE read `router_logits` from it."""

    router_logits: tuple[torch.FloatTensor, ...] | None = None


class CrossTaskGenerationMixin:
    """`generate` of a cross-task model, and the answerability of summaries that exist already."""

    @torch.no_grad()
    def generate(
        self,
        inputs: torch.Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        *args: Any,
        answerability_rerank: float | None = None,
        output_fusion_attentions: bool = False,
        **kwargs: Any,
    ) -> ModelOutput | torch.Tensor:
        r"""
        Generate summaries. Same arguments as `GenerationMixin.generate`, and the following. `max_new_tokens`
        or `max_length` of a call replaces both settings of the model.

        Args:
            answerability_rerank (`float`, *optional*):
                A weight of 0 or more. Sorts the `num_return_sequences` candidates of each input by
                `log p / length + answerability_rerank * log P(answerable)`, the best first. p is the
                probability of the summary under the model, without logits processors or temperature, and
                length its number of tokens, including the end of sequence.
            output_fusion_attentions (`bool`, *optional*, defaults to `False`):
                Whether to return the attentions of the fusion for the returned sequences. No other attentions
                are computed for that.
            question_input_ids, question_attention_mask, question_encoder_outputs:
                See [`~CrossTaskForConditionalGeneration.forward`]. The code that `custom_generate` names gets
                all arguments, a function gets the first two.

        Returns:
            `torch.LongTensor` or `ModelOutput`: Same as `GenerationMixin.generate`. With
            `return_dict_in_generate=True`, the output also has

            - `answerability` (`torch.FloatTensor` of shape `(batch_size * num_return_sequences,)`):
              probabilities that the returned sequences carry the answer; absent if the inputs have no
              question, e.g. `inputs_embeds` alone,
            - `fusion_attentions` with `output_fusion_attentions`, see [`CrossTaskOutput`],
            - `summary_log_probs` and `rerank_scores` with `answerability_rerank`, both shaped like
              `answerability`: `log p / length` in nats, and the scores of the order. There is no cache then.

            Without `return_dict_in_generate`, the question encoder only runs with `fusion="gated"`.

        Raises:
            ValueError: If `answerability_rerank` is not a weight, if there is a single candidate, if outputs
                of decoding steps are requested along with it, or if the question is missing where it is
                needed, or if an input has more tokens than the model has positions. No step has run then.
        """
        if getattr(generation_config, "is_assistant", False):
            # This model drafts for another one, which checks the drafts and passes no question.
            return self.summarizer.generate(inputs, generation_config, *args, **kwargs)
        if isinstance(kwargs.get("custom_generate"), str):
            # Code from a folder or the Hub replaces this method, and may call it again.
            options = {"answerability_rerank": answerability_rerank}
            options["output_fusion_attentions"] = output_fusion_attentions or None
            kwargs |= {name: value for name, value in options.items() if value is not None}
            return super().generate(inputs, generation_config, *args, **kwargs)
        question = {name: kwargs.pop(name, None) for name in QUESTION_ARGUMENTS}
        for name in ("labels", "answerable"):  # `Seq2SeqTrainer` passes all columns of a batch
            kwargs.pop(name, None)
        _replace_length(kwargs)
        inputs = self._add_start_token(inputs, generation_config, kwargs, question)
        input_ids = inputs if inputs is not None else kwargs.get("input_ids")
        rerank = answerability_rerank is not None
        return_dict = bool(self._get_setting("return_dict_in_generate", generation_config, kwargs))
        if rerank:
            self._check_rerank(answerability_rerank, generation_config, kwargs)
            kwargs["return_dict_in_generate"] = True
        needs_question = return_dict or rerank or self.gated_cross_attention is not None
        self._check_lengths(input_ids, question["question_input_ids"], needs_question)
        if needs_question and (input_ids is not None or _has_encoded_inputs(kwargs)):
            question = self._prepare_question(kwargs, input_ids, question)
        has_question = _has_question(input_ids, question)
        if not has_question and (rerank or (return_dict and output_fusion_attentions)):
            raise ValueError(
                "`answerability_rerank` and `output_fusion_attentions` need the question: give `input_ids`, "
                "`question_input_ids` or `question_encoder_outputs`."
            )
        if input_ids is not None and input_ids.dim() == 3:  # the steps of `generate` know no segments
            if kwargs.get("encoder_outputs") is None:
                kwargs["encoder_outputs"] = self._encode_source(input_ids, kwargs["attention_mask"])
            kwargs["attention_mask"] = flatten_segments(kwargs["attention_mask"])
            inputs = kwargs["input_ids"] = None
        encoder_outputs = kwargs.get("encoder_outputs")
        # Take the tensor out now: generation replaces it within `encoder_outputs` by one with a row per beam.
        encoder_states = None if encoder_outputs is None else encoder_outputs[0]
        with capture_output(self.get_encoder()) as captured:
            output = super().generate(inputs, generation_config, *args, **kwargs)
        if isinstance(output, torch.Tensor) or not has_question:
            return output
        if encoder_states is None and captured:
            encoder_states = captured[0]  # nothing is captured if custom code has called `generate` again
        if rerank:
            # The rows of a cache are the beams of the last step. A `ModelOutput` cannot delete a field.
            output = type(output)(**{name: x for name, x in output.items() if name != CACHE_ARGUMENT})
        scores = self._score_summaries(
            input_ids,
            kwargs.get("attention_mask"),
            output.sequences,
            encoder_outputs=None if encoder_states is None else (encoder_states,),
            return_log_probs=rerank,
            output_attentions=output_fusion_attentions,
            **question,
        )
        _add_scores(output, *scores, answerability_rerank)
        if rerank:
            sort_candidates(output, batch_size=len(question["question_encoder_outputs"][0]))
        return output if return_dict else output.sequences

    def score_answerability(
        self,
        input_ids: torch.Tensor | None,
        attention_mask: torch.Tensor | None = None,
        summary_ids: torch.Tensor | None = None,
        question_input_ids: torch.Tensor | None = None,
        question_attention_mask: torch.Tensor | None = None,
        encoder_outputs: BaseModelOutput | tuple | None = None,
        question_encoder_outputs: BaseModelOutput | tuple | None = None,
    ) -> torch.Tensor:
        r"""
        Return the probability that each summary carries the answer to its question.

        Args:
            summary_ids (`torch.LongTensor` of shape `(batch_size * n, summary_length)`):
                n summaries per input, as `generate` returns them: a start token first, padding at the end.
            input_ids, attention_mask, question_input_ids, question_attention_mask, encoder_outputs, \
question_encoder_outputs:
                See [`~CrossTaskForConditionalGeneration.forward`]. `attention_mask` defaults to the
                positions that are not padding.

        Returns:
            `torch.FloatTensor` of shape `(batch_size * n,)`, in the order of `summary_ids`.

        Raises:
            ValueError: If `summary_ids` are missing or do not fit the inputs, or if there is no question.
        """
        log_answerability, _, _ = self._score_summaries(
            input_ids,
            attention_mask,
            summary_ids,
            question_input_ids,
            question_attention_mask,
            question_encoder_outputs,
            encoder_outputs,
        )
        return log_answerability.exp()

    def get_summary_mask(self, targets: torch.Tensor) -> torch.Tensor:
        """Same as the function [`get_summary_mask`], with the model's configuration."""
        return get_summary_mask(targets, self.config)

    @torch.no_grad()
    def _score_summaries(
        self,
        input_ids,
        attention_mask,
        summary_ids,
        question_input_ids=None,
        question_attention_mask=None,
        question_encoder_outputs=None,
        encoder_outputs=None,
        return_log_probs=False,
        output_attentions=False,
    ):
        """
        Score summaries by one pass of the decoder.

        Returns:
            `tuple`: `(log_answerability, log_probs, fusion_attentions)`: log-probabilities that the summaries
            carry the answer, their mean log-probabilities per token (or `None` without `return_log_probs`),
            and the attentions of the fusion (or `None` without `output_attentions`).
        """
        if summary_ids is None or summary_ids.dim() != 2 or summary_ids.shape[1] < 2:
            raise ValueError(
                "`summary_ids` have to be a batch as `generate` returns it, each row with a start token "
                "first."
            )
        if attention_mask is None and input_ids is not None:
            attention_mask = infer_attention_mask(input_ids, self.config)
        question, question_mask = self._encode_question(
            input_ids,
            attention_mask,
            question_input_ids,
            question_attention_mask,
            question_encoder_outputs,
            return_dict=True,
        )
        if question is None:
            raise ValueError(
                "`input_ids`, `question_input_ids` or `question_encoder_outputs` are needed for the question."
            )
        if encoder_outputs is None:
            encoder_outputs = self._encode_source(input_ids, attention_mask)
        attention_mask = flatten_segments(attention_mask)
        repeats, remainder = divmod(len(summary_ids), len(question[0]))
        if remainder:
            raise ValueError(
                f"`summary_ids`: expected n rows for each of the {len(question[0])} inputs, got "
                f"{len(summary_ids)}."
            )
        question_key_values = None
        if self.gated_cross_attention is not None:
            question_key_values = self.gated_cross_attention.project_question(question[0])
        tensors = (encoder_outputs[0], attention_mask, question[0], question_mask, question_key_values)
        tensors = (None if x is None else x.repeat_interleave(repeats, dim=0) for x in tensors)
        return self._run_decoder(summary_ids, *tensors, return_log_probs, output_attentions)

    def _encode_source(self, input_ids, attention_mask, **kwargs):
        """Run the summarizer's encoder, on each segment if the inputs have segments."""
        kwargs |= {"input_ids": input_ids, "attention_mask": attention_mask, "return_dict": True}
        if input_ids.dim() == 3:
            return EncoderOutput(**encode_segments(self.get_encoder(), **kwargs))
        return self.get_encoder()(**kwargs)

    def _run_decoder(
        self,
        summary_ids,
        encoder_states,
        attention_mask,
        question_states,
        question_mask,
        question_key_values,
        return_log_probs,
        output_attentions,
    ):
        """Return what `_score_summaries` does, from inputs with one row per summary."""
        gate_attentions = [] if output_attentions else None
        # The LM head costs as much as several layers: where nothing reads the probabilities of the tokens, it
        # reads one position only.
        needs_logits = return_log_probs or self.config.fusion_likelihood
        logits_to_keep = None if needs_logits else 1
        with self._capture_decoder_states(
            question_key_values, question_mask, gate_attentions, logits_to_keep
        ) as captured:
            summary_logits = self.summarizer(
                attention_mask=attention_mask,
                encoder_outputs=EncoderOutput(encoder_states),
                decoder_input_ids=summary_ids[:, :-1],
                use_cache=False,
                return_dict=True,
            ).logits
        targets = summary_ids[:, 1:]
        logits, fusion_attentions = self._judge_summary(
            question_states,
            question_mask,
            captured[0],
            targets,
            summary_logits,
            output_attentions and not gate_attentions,
        )
        if gate_attentions:
            fusion_attentions = gate_attentions[0]
        log_probs = None
        if return_log_probs:
            summary_mask = self.get_summary_mask(targets)
            labels = targets.masked_fill(~summary_mask, IGNORE_INDEX)
            log_probs = sum_log_probs(summary_logits, labels) / summary_mask.sum(1)
        return logits.float().log_softmax(-1)[:, 1], log_probs, fusion_attentions

    def _judge_summary(
        self, question_states, question_mask, decoder_states, targets, summary_logits, output_attentions
    ):
        """Return logits and attentions of the answerability head for the summaries `targets`."""
        logits, attentions = self.answerability_head(
            question_states,
            question_mask,
            decoder_states,
            get_summary_mask(targets, self.config),
            output_attentions,
            compute_likelihood(summary_logits, targets) if self.config.fusion_likelihood else None,
        )
        return logits / self.config.answerability_temperature, attentions

    def _add_start_token(self, inputs, generation_config, kwargs, question):
        """
        Return `inputs`, or what `GenerationMixin.generate` creates if there are none: a start token per row.
        Add an attention mask to the `kwargs`.
        """
        input_ids = inputs if inputs is not None else kwargs.get("input_ids")
        if input_ids is not None:
            if kwargs.get("attention_mask") is None:
                kwargs["attention_mask"] = infer_attention_mask(input_ids, self.config)
            return inputs
        start_token = self._get_setting("bos_token_id", generation_config, kwargs)
        # Without a start token, transformers raises an error.
        if _has_encoded_inputs(kwargs) or start_token is None:
            return None
        tensors = (x for x in (*kwargs.values(), *question.values()) if isinstance(x, torch.Tensor))
        batch_size = next((len(tensor) for tensor in tensors), 1)
        inputs = torch.full((batch_size, 1), start_token, device=self.device)
        if kwargs.get("attention_mask") is None:
            kwargs["attention_mask"] = torch.ones_like(inputs)
        return inputs

    def _check_lengths(self, input_ids, question_ids, needs_question):
        """Raise an error if an encoder has fewer positions than tokens; its own would be an `IndexError`."""
        limits = get_max_lengths(self)
        if self.config.shares_vocabulary and question_ids is None:
            question_ids = input_ids
        inputs = {
            "max_source_length": input_ids,
            "max_question_length": question_ids if needs_question else None,
        }
        for name, ids in inputs.items():
            if ids is None or ids.shape[-1] <= limits[name]:
                continue
            encoder = "summarizer" if name == "max_source_length" else "question encoder"
            part = getattr(self, encoder.replace(" ", "_"))
            tables = (name for name, module in part.named_modules() if isinstance(module, nn.Embedding))
            # Rotary positions have no table, and go on beyond the number in the configuration.
            if any("position" in name.rpartition(".")[2] for name in tables):
                raise ValueError(
                    f"The inputs have {ids.shape[-1]} tokens, the {encoder} has {limits[name]} positions; "
                    "call `processor.limit_lengths(model)`, and encode them again."
                )

    def _prepare_question(self, kwargs, input_ids, question):
        """
        Encode the question once, and return its encoding. With `fusion="gated"` add it to the `kwargs` of
        all decoding steps. With a function as `custom_generate` add the question itself, for its steps.
        """
        if callable(kwargs.get("custom_generate")):
            names = ("question_input_ids", "question_attention_mask")
            kwargs |= {name: question[name] for name in names if question[name] is not None}
        outputs, mask = self._encode_question(
            input_ids, kwargs.get("attention_mask"), *question.values(), return_dict=True
        )
        if self.gated_cross_attention is not None and kwargs.get("decoder_question_key_values") is None:
            kwargs["decoder_question_key_values"] = self._project_question(outputs)
            kwargs["decoder_question_mask"] = mask
        if outputs is None:
            return question
        states = [(kwargs.get("encoder_outputs") or [None])[0], kwargs.get("inputs_embeds"), outputs[0]]
        batch_size = len(next(x for x in states if x is not None))
        if batch_size != len(outputs[0]):
            raise ValueError(f"The batch sizes differ: {batch_size} inputs and {len(outputs[0])} questions.")
        return {"question_encoder_outputs": outputs, "question_attention_mask": mask}

    def _get_candidate_generator(self, model_kwargs, **kwargs):
        # An assistant is another model, with which this model's question has nothing to do.
        return super()._get_candidate_generator(model_kwargs=drop_question_arguments(model_kwargs), **kwargs)

    def _get_setting(self, name, generation_config, kwargs):
        """Return a setting of a call of `generate`."""
        values = (kwargs.get(name), getattr(generation_config, name, None))
        value = next((value for value in values if value is not None), None)
        return getattr(self.generation_config, name, None) if value is None else value

    def _check_rerank(self, weight, generation_config, kwargs):
        """Check the settings of a reranked generation."""
        check_weight("answerability_rerank", weight)
        num_return_sequences = self._get_setting("num_return_sequences", generation_config, kwargs)
        if num_return_sequences is None:
            num_return_sequences = 1  # the default of `generate`
        if num_return_sequences < 2:
            raise ValueError(
                "`answerability_rerank` needs `num_return_sequences` of at least 2, got "
                f"{num_return_sequences}."
            )
        for name in STEP_OUTPUTS:
            if self._get_setting(name, generation_config, kwargs):
                raise ValueError(
                    f"`answerability_rerank` cannot be used with `{name}`, which has one entry per decoding "
                    "step."
                )


def _replace_length(kwargs):
    """
    Unset the model's `max_length` if a call has `max_new_tokens`, and the reverse. transformers warns of both
    in every call, and prefers `max_new_tokens` even if that is the model's.
    """
    for name, other in (("max_new_tokens", "max_length"), ("max_length", "max_new_tokens")):
        if kwargs.get(name) is not None and kwargs.get(other) is None:
            kwargs[other] = None


def _has_encoded_inputs(kwargs):
    return any(kwargs.get(name) is not None for name in ("encoder_outputs", "inputs_embeds"))


def _has_question(input_ids, question):
    values = (input_ids, question["question_encoder_outputs"], question.get("question_input_ids"))
    return any(value is not None for value in values)


def _add_scores(output, log_answerability, log_probs, fusion_attentions, rerank_weight):
    """Add the result of `_score_summaries` to an output of `generate`."""
    output["answerability"] = log_answerability.exp()
    if fusion_attentions is not None:
        output["fusion_attentions"] = fusion_attentions
    if rerank_weight is not None:
        output["summary_log_probs"] = log_probs
        output["rerank_scores"] = log_probs + rerank_weight * log_answerability


def sort_candidates(output: ModelOutput, batch_size: int) -> None:
    """Sort the candidates of each input by descending `rerank_scores`, in place."""
    ranks = output["rerank_scores"].unflatten(0, (batch_size, -1))
    order = ranks.sort(dim=1, descending=True, stable=True).indices
    order = (order + torch.arange(batch_size, device=order.device)[:, None] * order.shape[1]).flatten()
    for name in SEQUENCE_OUTPUTS:
        if name in output:
            output[name] = output[name][order.to(output[name].device)]


def drop_question_arguments(model_kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a decoding step that models other than a cross-task model know, too."""
    prefixes = ("decoder_question_", "question_")
    return {name: value for name, value in model_kwargs.items() if not name.startswith(prefixes)}


def flatten_segments(mask: torch.Tensor | None) -> torch.Tensor | None:
    """Return a mask of segments, of shape `(batch_size, segments, length)`, as that of one input."""
    return mask.flatten(1) if mask is not None and mask.dim() == 3 else mask


def infer_attention_mask(input_ids: torch.Tensor, config: PretrainedConfig) -> torch.Tensor:
    """
    Return an attention mask of the shape of `input_ids`: 0 for padding, 1 elsewhere. All ones if the
    padding token also ends sequences. `generate` of transformers 4 has the same rule, that of 5 has none.
    """
    pad = to_token_id_tensor(config.pad_token_id, input_ids.device)
    if torch.isin(pad, to_token_id_tensor(config.eos_token_id, input_ids.device)).any():
        return torch.ones_like(input_ids)
    return (~torch.isin(input_ids, pad)).long()


def get_predicted_ids(
    decoder_input_ids: torch.Tensor, decoder_attention_mask: torch.Tensor | None = None
) -> torch.Tensor:
    """
    Return the target of each decoder position: the next input, `UNKNOWN_TOKEN` after the last one, -100 where
    `decoder_attention_mask` is 0. All shapes are `(batch_size, summary_length)`.
    """
    targets = F.pad(decoder_input_ids[:, 1:], (0, 1), value=UNKNOWN_TOKEN)
    if decoder_attention_mask is not None:
        targets = targets.masked_fill(decoder_attention_mask == 0, IGNORE_INDEX)
    return targets


def get_summary_mask(targets: torch.Tensor, config: PretrainedConfig) -> torch.Tensor:
    """
    Mark the decoder positions that predict a token of the summary: up to and including the first end of
    sequence, without padding.

    Args:
        targets (`torch.LongTensor` of shape `(batch_size, summary_length)`):
            The token that each position predicts; -100 for none.
        config ([`CrossTaskConfig`]): Supplies `eos_token_id` and `pad_token_id`.

    Returns:
        `torch.BoolTensor` of shape `(batch_size, summary_length)`.
    """
    is_eos = torch.isin(targets, to_token_id_tensor(config.eos_token_id, targets.device))
    is_pad = torch.isin(targets, to_token_id_tensor(config.pad_token_id, targets.device)) & ~is_eos
    is_after_end = is_eos.cumsum(1) - is_eos.long() > 0
    mask = ~(is_after_end | is_pad | (targets == IGNORE_INDEX))
    # An empty summary has its first position, because attention to no position at all would be NaN.
    mask[:, 0] |= ~mask.any(1)
    return mask


def to_token_id_tensor(value: int | list[int] | None, device: torch.device | str) -> torch.Tensor:
    """Return the token ids of a setting, which is one id, several or `None`, as a tensor of one dimension."""
    value = [] if value is None else value
    return torch.tensor(value, dtype=torch.long, device=device).reshape(-1)
