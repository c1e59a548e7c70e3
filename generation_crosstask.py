"""Decoding: generation with the question, the answerability of what was written, and ranking by both."""

from dataclasses import fields

import torch
import torch.nn.functional as F
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput

from .configuration_crosstask import IGNORE_INDEX, check_weight
from .fusion_crosstask import capture_output

# What a summarizer calls its keys and values of former steps, as argument and in what it returns.
CACHE_ARGUMENT = (
    "cache" if "cache" in {field.name for field in fields(Seq2SeqLMOutput)} else "past_key_values"
)
UNKNOWN_TOKEN = -1  # a target that is no token: what follows the last decoder input
_QUESTION = ("question_input_ids", "question_attention_mask", "question_encoder_outputs")
# Of what `generate` can return, what has other rows than the returned sequences.
_BY_STEP = ("output_scores", "output_logits", "output_attentions", "output_hidden_states")
_RANKED = (
    "sequences",
    "beam_indices",
    "answerability",
    "summary_log_probs",
    "rerank_scores",
    "fusion_attentions",
)


def drop_question_key_values(model_kwargs):
    """Arguments of a decoding step without those that only a gated cross-task model has."""
    return {k: v for k, v in model_kwargs.items() if not k.startswith("decoder_question_")}


class CrossTaskGenerationMixin:
    """`generate` of a cross-task model, and the judgement of summaries."""

    @torch.no_grad()
    def generate(
        self,
        inputs=None,
        generation_config=None,
        answerability_rerank=None,
        output_fusion_attentions=False,
        **kwargs,
    ):
        r"""
        All that [`GenerationMixin.generate`] does, with its arguments. With
        `return_dict_in_generate=True` the output also has `answerability`
        (`torch.FloatTensor` of shape `(batch_size * num_return_sequences,)`): the probability that the
        returned sequence carries the answer. Without, the question encoder does not run.
        With `fusion="gated"` it runs, once, since it takes part in writing.

        Args:
            answerability_rerank (`float`, *optional*):
                A weight of 0 or more. The `num_return_sequences` candidates of each input, from beams or
                sampling, are returned in the order of `log p / length + answerability_rerank * log
                P(answerable)`, the best first, where p is the model's own probability of the whole summary
                without processors or temperature, and length its number of tokens, the end included. With
                `return_dict_in_generate=True` the output also has `summary_log_probs` (`log p / length`, in
                nats) and `rerank_scores` (the sum), shaped as `answerability`, and no cache.
            output_fusion_attentions (`bool`, defaults to `False`):
                With `return_dict_in_generate=True` the output also has `fusion_attentions` of what is
                returned, as [`CrossTaskOutput`] has them. No other attention is computed for it.
            question_input_ids, question_attention_mask, question_encoder_outputs:
                As in [`~CrossTaskForConditionalGeneration.forward`].
        """
        if getattr(generation_config, "is_assistant", False):
            # A draft, which the model that asked for it checks: no question came along, nor is one needed.
            return self.summarizer.generate(inputs, generation_config, **kwargs)
        question = {name: kwargs.pop(name, None) for name in _QUESTION}
        # `Seq2SeqTrainer` hands over whole batches, labels included.
        kwargs = {k: v for k, v in kwargs.items() if k not in ("labels", "answerable")}
        input_ids = inputs if inputs is not None else kwargs.get("input_ids")
        if kwargs.get("attention_mask") is None and input_ids is not None:
            kwargs["attention_mask"] = infer_attention_mask(input_ids, self.config)
        whole = True
        if answerability_rerank is not None:
            whole = self._check_rerank(answerability_rerank, generation_config, kwargs)
            kwargs["return_dict_in_generate"] = True
        if self.gated_cross_attention is not None:
            outputs, mask = self._encode_question(
                input_ids, kwargs.get("attention_mask"), *question.values(), return_dict=True
            )
            if outputs is not None:
                question_key_values = self.gated_cross_attention.question_key_values(outputs[0])
                kwargs |= {"decoder_question_key_values": question_key_values, "decoder_question_mask": mask}
                question = {"question_encoder_outputs": outputs, "question_attention_mask": mask}
        # A reference to the states themselves: generation repeats them in place for its beams.
        given = kwargs.get("encoder_outputs")
        given = None if given is None else given[0]
        with capture_output(self.get_encoder()) as captured:
            output = super().generate(inputs, generation_config, **kwargs)
        if isinstance(output, torch.Tensor):
            return output
        if answerability_rerank is not None:
            # A cache has the rows of the last step. (Nothing can be taken out of a `ModelOutput`.)
            output = type(output)(**{k: v for k, v in output.items() if k != CACHE_ARGUMENT})
        scores = self._judge(
            input_ids,
            kwargs.get("attention_mask"),
            output.sequences,
            encoder_outputs=(captured[0] if given is None else given,),
            likelihood=answerability_rerank is not None,
            output_attentions=output_fusion_attentions,
            **question,
        )
        output["answerability"] = scores["answerability"].exp()
        if output_fusion_attentions:
            output["fusion_attentions"] = scores["fusion_attentions"]
        if answerability_rerank is not None:
            ranks = scores["summary_log_probs"] + answerability_rerank * scores["answerability"]
            output |= {"summary_log_probs": scores["summary_log_probs"], "rerank_scores": ranks}
            self._rank(output, scores["inputs"])
        return output if whole else output.sequences

    def get_summary_mask(self, targets):
        """
        Mark the positions whose decoder state predicts a token of the summary; see the function of this name.
        """
        return get_summary_mask(targets, self.config)

    def _get_candidate_generator(self, model_kwargs, **kwargs):
        # An assistant has no use for this model's question: it is another model, if not a plain summarizer.
        return super()._get_candidate_generator(model_kwargs=drop_question_key_values(model_kwargs), **kwargs)

    def _check_rerank(self, weight, generation_config, kwargs):
        """Refuse what cannot be ranked; returns whether the caller wants more than the sequences."""
        generation_config = generation_config or self.generation_config

        def setting(name):
            value = kwargs.get(name)
            return getattr(generation_config, name, None) if value is None else value

        check_weight("answerability_rerank", weight)
        if (setting("num_return_sequences") or 1) < 2:
            raise ValueError("`answerability_rerank` ranks `num_return_sequences` of 2 or more, got 1.")
        if refused := [name for name in _BY_STEP if setting(name)]:
            raise ValueError(
                f"`answerability_rerank` cannot rank `{refused[0]}`, which are of steps before it."
            )
        return bool(setting("return_dict_in_generate"))

    def _rank(self, output, batch_size):
        """Sort what is returned, within each input, by descending `rerank_scores`."""
        ranks = output["rerank_scores"].unflatten(0, (batch_size, -1))
        order = ranks.sort(dim=1, descending=True, stable=True).indices
        order = (order + torch.arange(batch_size, device=order.device)[:, None] * order.shape[1]).flatten()
        for name in {*_RANKED} & output.keys():
            output[name] = output[name][order.to(output[name].device)]

    def score_answerability(
        self,
        input_ids,
        attention_mask=None,
        summary_ids=None,
        question_input_ids=None,
        question_attention_mask=None,
        encoder_outputs=None,
        question_encoder_outputs=None,
    ):
        r"""
        Probability that each summary carries the answer to its question.

        Args:
            summary_ids (`torch.LongTensor` of shape `(batch_size * n, summary_length)`):
                n summaries an input, as `generate` returns them: leading start token, padding after the end.
            input_ids, attention_mask, question_input_ids, question_attention_mask, encoder_outputs, \
question_encoder_outputs:
                As in [`~CrossTaskForConditionalGeneration.forward`]; a missing `attention_mask` is derived
                from the padding token, as in `generate`.

        Returns:
            `torch.FloatTensor` of shape `(batch_size * n,)`, in the order of `summary_ids`.
        """
        scores = self._judge(
            input_ids,
            attention_mask,
            summary_ids,
            question_input_ids,
            question_attention_mask,
            question_encoder_outputs,
            encoder_outputs,
        )
        return scores["answerability"].exp()

    @torch.no_grad()
    def _judge(
        self,
        input_ids,
        attention_mask,
        summary_ids,
        question_input_ids=None,
        question_attention_mask=None,
        question_encoder_outputs=None,
        encoder_outputs=None,
        likelihood=False,
        output_attentions=False,
    ):
        """
        Log-probabilities of summaries to carry the answer (`answerability`), with `likelihood` their own a
        token (`summary_log_probs`), with `output_attentions` the `fusion_attentions`; and how many `inputs`
        they are of.
        """
        if summary_ids is None or summary_ids.dim() != 2 or summary_ids.shape[1] < 2:
            raise ValueError(
                "`summary_ids` are needed as `generate` returns them: a batch, and a start token before each."
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
            raise ValueError("`input_ids`, or what the question encoder reads or gives, are needed.")
        if encoder_outputs is None:
            encoder_outputs = self.get_encoder()(
                input_ids=input_ids, attention_mask=attention_mask, return_dict=True
            )
        batch_size = len(question[0])
        if len(summary_ids) % batch_size:
            raise ValueError(
                f"`summary_ids`: {len(summary_ids)} rows are no multiple of {batch_size} inputs."
            )

        def each(tensor):
            repeats = len(summary_ids) // batch_size
            return None if tensor is None else tensor.repeat_interleave(repeats, dim=0)

        # One pass of the decoder over all summaries. The LM head, as dear as several layers, is left
        # with a single position where nobody reads its logits.
        question_key_values = (
            None
            if self.gated_cross_attention is None
            else each(self.gated_cross_attention.question_key_values(question[0]))
        )
        gate_attentions = []
        with self._heard(
            True,
            question_key_values,
            each(question_mask),
            gate_attentions if output_attentions else None,
            pass_on=None if likelihood else 1,
        ) as captured:
            summary = self.summarizer(
                attention_mask=each(attention_mask),
                encoder_outputs=BaseModelOutput(each(encoder_outputs[0])),
                decoder_input_ids=summary_ids[:, :-1],
                use_cache=False,
                return_dict=True,
            )
        kept = get_summary_mask(summary_ids[:, 1:], self.config)
        logits, attentions = self.answerability_head(
            each(question[0]),
            each(question_mask),
            captured[0],
            kept,
            output_attentions and self.gated_cross_attention is None,
        )
        scores = {"answerability": logits.float().log_softmax(-1)[:, 1], "inputs": batch_size}
        if output_attentions:
            scores["fusion_attentions"] = gate_attentions[0] if gate_attentions else attentions
        if likelihood:
            labels = summary_ids[:, 1:].masked_fill(~kept, IGNORE_INDEX)
            scores["summary_log_probs"] = sum_log_probs(summary.logits, labels) / kept.sum(1)
        return scores


def sum_log_probs(logits, labels):
    """
    Log-probabilities of whole summaries, in nats, of shape `(batch_size,)`: sums over the labels that are not
    -100, of `(batch_size, summary_length, vocab_size)` logits and `(batch_size, summary_length)` labels.
    """
    labels = labels.to(logits.device)
    chosen = logits.float().log_softmax(-1).gather(-1, labels.clamp(min=0)[..., None]).squeeze(-1)
    return (chosen * (labels != IGNORE_INDEX)).sum(1)


def infer_attention_mask(input_ids, config):
    """
    For `(batch_size, length)` inputs without one, in that shape: by the rule of `generate`, which
    transformers 5 gave up.
    """
    pad = to_token_id_tensor(config.pad_token_id, input_ids.device)
    if torch.isin(pad, to_token_id_tensor(config.eos_token_id, input_ids.device)).any():
        return torch.ones_like(input_ids)
    return (~torch.isin(input_ids, pad)).long()


def get_predicted_ids(decoder_input_ids, decoder_attention_mask=None):
    """
    What each decoder position predicts: the next input, `UNKNOWN` after the last, -100 where padded.
    Shapes: `(batch_size, summary_length)` in and out.
    """
    targets = F.pad(decoder_input_ids[:, 1:], (0, 1), value=UNKNOWN_TOKEN)
    if decoder_attention_mask is not None:
        targets = targets.masked_fill(decoder_attention_mask == 0, IGNORE_INDEX)
    return targets


def get_summary_mask(targets, config):
    """
    True at the positions whose state predicts a token of the summary: up to the first end of sequence,
    included, without padding. `targets` is `(batch_size, summary_length)`, and so is the result.
    """
    is_eos = torch.isin(targets, to_token_id_tensor(config.eos_token_id, targets.device))
    is_pad = torch.isin(targets, to_token_id_tensor(config.pad_token_id, targets.device)) & ~is_eos
    ended = is_eos.cumsum(1) - is_eos.long() > 0
    mask = ~(ended | is_pad | (targets == IGNORE_INDEX))
    # An empty summary still has a first position; without any, the attention would be NaN.
    mask[:, 0] |= ~mask.any(1)
    return mask


def to_token_id_tensor(value, device):
    """A tensor of the one, several or no token ids that a configuration gives."""
    value = [] if value is None else value
    return torch.tensor(value, dtype=torch.long, device=device).reshape(-1)
