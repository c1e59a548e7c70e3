"""The cross-task model: a summarizer and a question encoder, joined by cross-attention."""

from __future__ import annotations

import inspect
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForSeq2SeqLM,
    Cache,
    EncoderDecoderCache,
    GenerationMixin,
    PreTrainedModel,
)
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput

from .adapters_crosstask import CrossTaskAdapterMixin
from .configuration_crosstask import (
    IGNORE_INDEX,
    CrossTaskConfig,
    get_max_positions,
    log_dropped_settings,
    make_generation_config,
    set_vocab_size,
)
from .fusion_crosstask import (
    AnswerabilityHead,
    GatedCrossAttention,
    capture_input,
    encode_segments,
    init_fusion_weights,
    register_capture_hooks,
)
from .generation_crosstask import (
    CACHE_ARGUMENT,
    UNKNOWN_TOKEN,
    CrossTaskGenerationMixin,
    EncoderOutput,
    drop_question_arguments,
    flatten_segments,
    get_predicted_ids,
)
from .loading_crosstask import (
    MODEL_TAGS,
    CheckpointMixin,
    get_lm_head,
    get_text_encoder,
    load_task_model,
    mark_initialized,
)
from .sharing_crosstask import (
    SharedEncoder,
    check_config_kwargs,
    check_part,
    check_table_sizes,
    compare_vocabularies,
    load_shared_base,
    load_task_tokenizer,
)


@dataclass
class CrossTaskOutput(Seq2SeqLMOutput):
    """
    Output of [`CrossTaskForConditionalGeneration`], with all fields of `Seq2SeqLMOutput` and the following.

    Args:
        loss (`torch.FloatTensor` of shape `(1,)`, *optional*):
            `summary_loss + config.answerability_weight * answerability_loss`, or the one of them that exists.
        summary_loss (`torch.FloatTensor` of shape `(1,)`, *optional*):
            Mean cross-entropy per summary token, in nats. 0 if no row has a summary loss.
        answerability_loss (`torch.FloatTensor` of shape `(1,)`, *optional*):
            Mean cross-entropy per labeled row, in nats. 0 if no row is labeled.
        answerability_logits (`torch.FloatTensor` of shape `(batch_size, 2)`, *optional*):
            Scores before the softmax: the summary does not carry the answer, the summary carries it.
        question_encoder_last_hidden_state, question_encoder_hidden_states, \
question_encoder_attentions:
            Outputs of the question encoder, with the shapes of any encoder.
        fusion_attentions (`torch.FloatTensor`, *optional*):
            Attention probabilities of the fusion, with `output_attentions`. From the question to the summary,
            of shape `(batch_size, num_heads, question_length, summary_length)`. With `fusion="gated"`, from
            the summary to the question, of shape `(batch_size, num_heads, summary_length, question_length)`.
    """

    summary_loss: torch.FloatTensor | None = None
    answerability_loss: torch.FloatTensor | None = None
    answerability_logits: torch.FloatTensor | None = None
    question_encoder_last_hidden_state: torch.FloatTensor | None = None
    question_encoder_hidden_states: tuple[torch.FloatTensor, ...] | None = None
    question_encoder_attentions: tuple[torch.FloatTensor, ...] | None = None
    fusion_attentions: torch.FloatTensor | None = None


class CrossTaskForConditionalGeneration(
    CrossTaskAdapterMixin, CheckpointMixin, CrossTaskGenerationMixin, PreTrainedModel, GenerationMixin
):
    """
    A summarizer and a question encoder, joined by cross-attention. The model writes the summary of a passage
    under a question, and predicts the probability that the summary carries the answer.

    Args:
        config ([`CrossTaskConfig`]): A configuration with both parts.
        summarizer (`PreTrainedModel`, *optional*): The summarizer. Defaults to a new one from `config`.
        question_encoder (`PreTrainedModel`, *optional*):
            The question encoder. Defaults to a new one from `config`.

    Example:

    ```python
    >>> from crosstask import CrossTaskForConditionalGeneration, CrossTaskProcessor

    >>> model = CrossTaskForConditionalGeneration.from_pretrained("runs/quickstart/crosstask")
    >>> processor = CrossTaskProcessor.from_pretrained("runs/quickstart/crosstask")
    >>> inputs = processor(question="Who won?", passage="...", return_tensors="pt")
    >>> output = model.generate(**inputs, return_dict_in_generate=True)
    >>> processor.batch_decode(output.sequences, skip_special_tokens=True), output.answerability
    ```
    """

    config_class = CrossTaskConfig
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    # The parts check these for themselves when they are built.
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _no_split_modules = ["AnswerabilityHead", "GatedCrossAttention"]
    # Attributes that hold the fusion. `gated_cross_attention` is `None` unless `config.fusion="gated"`.
    fusion_modules = ("answerability_head", "gated_cross_attention")
    # The loss is normalized by two numbers, those of summary tokens and of labeled rows, so `Trainer` cannot
    # scale it by one count: it has to average over micro-batches. `CrossTaskTrainer` counts both.
    accepts_loss_kwargs = False

    def __init__(
        self,
        config: CrossTaskConfig,
        summarizer: PreTrainedModel | None = None,
        question_encoder: PreTrainedModel | None = None,
    ):
        if config.summarizer is None or config.question_encoder is None:
            raise ValueError("`config` needs both `summarizer` and `question_encoder`.")
        super().__init__(config)
        self.model_tags = list(MODEL_TAGS)
        if summarizer is None:
            summarizer = AutoModelForSeq2SeqLM.from_config(config.summarizer)
        if config.share_base:
            question_encoder = SharedEncoder(summarizer.get_encoder(), config.question_encoder_updates)
        elif question_encoder is None:
            question_encoder = get_text_encoder(AutoModel.from_config(config.question_encoder))
        self.summarizer = summarizer
        self.question_encoder = question_encoder
        # The same object, so that later changes of the part, such as resized embeddings, are saved.
        config.summarizer = summarizer.config
        sizes = question_encoder.config.hidden_size, get_lm_head(summarizer).weight.shape[-1]
        self.answerability_head = AnswerabilityHead(config, *sizes)
        self.gated_cross_attention = GatedCrossAttention(config, *sizes) if config.fusion == "gated" else None
        self.generation_config = make_generation_config(summarizer)
        # Modules to keep in float32 under float16, such as T5's `wo`, whose output overflows. The parts list
        # them, but transformers 4 reads the list of the outermost model only.
        self._keep_in_fp32_modules = sorted(
            {
                name
                for module in self.modules()
                if isinstance(module, PreTrainedModel)
                for name in module._keep_in_fp32_modules or ()
            }
        )
        register_capture_hooks(get_lm_head(summarizer), summarizer.get_encoder())
        self.post_init()

    @classmethod
    def from_tasks(
        cls,
        summarizer: str | os.PathLike | PreTrainedModel,
        question_answerer: str | os.PathLike | PreTrainedModel,
        *,
        model_kwargs: dict[str, Any] | None = None,
        **config_kwargs: Any,
    ) -> CrossTaskForConditionalGeneration:
        r"""
        Compose a model from two models that were trained for their tasks. The fusion is new and untrained.

        By default the model writes up to 128 tokens by greedy search. Of the summarizer's generation settings
        it inherits the special tokens only, because lengths, beams and penalties were chosen for other texts;
        the log names those that are dropped.

        A PEFT adapter, as a folder, Hub id or loaded `PeftModel`, is merged into its base model. Loaded
        models are copied, so that training the result does not change them.

        Args:
            summarizer (`str`, `os.PathLike` or `PreTrainedModel`):
                Hub id, folder or loaded sequence-to-sequence model.
            question_answerer (`str`, `os.PathLike` or `PreTrainedModel`):
                Hub id, folder or loaded model: a sequence-to-sequence model, which contributes its encoder,
                or a text encoder (BERT, RoBERTa, ...).
            model_kwargs (`dict`, *optional*):
                Arguments for both calls of `from_pretrained` (`dtype`, `revision`, `token`, ...).
            config_kwargs:
                Arguments of [`CrossTaskConfig`]. `max_source_length` is lowered to the number of positions of
                the summarizer's encoder. `shares_vocabulary` defaults to whether the checkpoints'
                tokenizers give each token the same id. With `share_base=True` the two models have to be LoRA
                adapters of the same base checkpoint, or that checkpoint itself.

        Returns:
            [`CrossTaskForConditionalGeneration`] in evaluation mode. Parts of two dtypes are converted to the
            wider one, of float16 and bfloat16 to float32.

        Raises:
            ValueError: If the summarizer is not a sequence-to-sequence model that can be fused, if a
                part is a cross-task model, or if the two have no common base with `share_base=True`.
            TypeError: If a name is not an argument of [`CrossTaskConfig`].
        """
        if "quantization_config" in (model_kwargs or {}):
            raise ValueError(
                "`model_kwargs`: parts are composed in full precision; save the model, and load it with the "
                "`quantization_config`."
            )
        check_config_kwargs(config_kwargs)
        config_kwargs.setdefault("answerability_trained", False)
        config_kwargs.setdefault("fusion_likelihood", True)
        tokenizers = [load_task_tokenizer(part, model_kwargs) for part in (summarizer, question_answerer)]
        if config_kwargs.get("shares_vocabulary") is None:
            config_kwargs["shares_vocabulary"] = compare_vocabularies(*tokenizers)
        if config_kwargs.get("share_base"):
            summarizer, updates = load_shared_base(summarizer, question_answerer, model_kwargs)
            check_part(summarizer.config, "summarizer")
            config_kwargs["question_encoder_updates"] = {n: len(down) for n, (down, _) in updates.items()}
            config = CrossTaskConfig(summarizer.config, **config_kwargs)
            parts = {"summarizer": mark_initialized(summarizer)}
        else:
            summarizer = mark_initialized(load_task_model(summarizer, model_kwargs))
            question_answerer = mark_initialized(load_task_model(question_answerer, model_kwargs))
            check_part(summarizer.config, "summarizer")
            check_part(question_answerer.config, "question_answerer")
            config = CrossTaskConfig(summarizer.config, question_answerer.config, **config_kwargs)
            parts = {"summarizer": summarizer, "question_encoder": get_text_encoder(question_answerer)}
            dtype = torch.promote_types(*(part.dtype for part in parts.values()))
            for part in parts.values():
                if part.dtype != dtype:
                    part.to(dtype)
        check_table_sizes(config, tokenizers)
        if not summarizer.can_generate():
            raise ValueError(
                "`summarizer` has to be a sequence-to-sequence model with a language-model head, "
                f"got a {type(summarizer).__name__}."
            )
        positions = get_max_positions(summarizer, "encoder")
        config.max_source_length = int(min(config.max_source_length, positions))
        model = cls(config, **parts)
        log_dropped_settings(summarizer, "summarizer")
        if config.share_base:
            model.question_encoder.to(summarizer.dtype).set_updates(updates)
        for name in cls.fusion_modules:
            if (module := getattr(model, name)) is not None:
                module.to(summarizer.dtype)
        return model.eval()

    def _init_weights(self, module):
        # Of the fusion only: the parts initialize themselves.
        init_fusion_weights(module)

    def fusion_parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters of the fusion, i.e. of the modules in `fusion_modules` that the model has."""
        for name in self.fusion_modules:
            if (module := getattr(self, name)) is not None:
                yield from module.parameters()

    def _get_dtype_plan(self, dtype):
        # transformers 5 takes the names for patterns, and finds T5's `wo` in BERT's `word_embeddings`.
        return {rf"\b{name}\b": value for name, value in super()._get_dtype_plan(dtype).items()}

    def _save_pipeline_code(self, save_directory):
        """Copy the pipeline's files into a checkpoint. transformers copies those of the model only."""
        from .pipeline_crosstask import QuestionSummarizationPipeline
        from .sentences_crosstask import split_sentences

        for definition in (QuestionSummarizationPipeline, split_sentences):
            source = inspect.getfile(definition)
            target = os.path.join(save_directory, os.path.basename(source))
            if os.path.realpath(source) != os.path.realpath(target):
                shutil.copyfile(source, target)

    # What generation and `Trainer` read from a sequence-to-sequence model is the summarizer's.
    def get_encoder(self, *args: Any, **kwargs: Any) -> nn.Module:
        # A model without an encoder for a modality, such as "image", returns itself.
        encoder = self.summarizer.get_encoder(*args, **kwargs)
        return self if encoder is self.summarizer else encoder

    def get_decoder(self) -> nn.Module:
        return self.summarizer.get_decoder()

    def get_input_embeddings(self) -> nn.Module:
        return self.summarizer.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.summarizer.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.summarizer.get_output_embeddings()

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        self.summarizer.set_output_embeddings(new_embeddings)

    def prepare_decoder_input_ids_from_labels(self, labels: torch.Tensor) -> torch.Tensor:
        if hasattr(self.summarizer, "prepare_decoder_input_ids_from_labels"):
            return self.summarizer.prepare_decoder_input_ids_from_labels(labels)
        return shift_tokens_right(labels, self.config)  # M2M100 and Blenderbot have no such method

    def prepare_inputs_for_generation(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return self.summarizer.prepare_inputs_for_generation(*args, **kwargs)

    def _prepare_cache_for_generation(self, *args, **kwargs):
        return self.summarizer._prepare_cache_for_generation(*args, **kwargs)

    def _validate_model_kwargs(self, model_kwargs):
        self.summarizer._validate_model_kwargs(drop_question_arguments(model_kwargs))

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> nn.Embedding:
        """
        Resize the summarizer's embeddings, and those of a question encoder with the same vocabulary. Same
        arguments and result as `PreTrainedModel.resize_token_embeddings`.
        """
        shares_vocabulary = self.config.shares_vocabulary
        embeddings = _resize_embeddings(self.summarizer, *args, **kwargs)
        self.vocab_size = embeddings.num_embeddings
        set_vocab_size(self.config.summarizer, self.vocab_size)
        if shares_vocabulary:
            if not self.config.share_base:
                self.question_encoder.resize_token_embeddings(*args, **kwargs)
            set_vocab_size(self.config.question_encoder, self.vocab_size)
        register_capture_hooks(get_lm_head(self.summarizer))  # resizing may have replaced it
        return embeddings

    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.LongTensor | None = None,
        question_input_ids: torch.LongTensor | None = None,
        question_attention_mask: torch.LongTensor | None = None,
        decoder_input_ids: torch.LongTensor | None = None,
        decoder_attention_mask: torch.LongTensor | None = None,
        encoder_outputs: BaseModelOutput | tuple | None = None,
        question_encoder_outputs: BaseModelOutput | tuple | None = None,
        decoder_question_key_values: torch.FloatTensor | None = None,
        decoder_question_mask: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        decoder_inputs_embeds: torch.FloatTensor | None = None,
        labels: torch.LongTensor | None = None,
        answerable: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        cache: Cache | None = None,
        **kwargs: Any,
    ) -> CrossTaskOutput | tuple:
        r"""
        Run both parts and the fusion. All arguments are optional.

        Args:
            input_ids, attention_mask (`torch.LongTensor` of shape `(batch_size, sequence_length)`):
                The prompted question and the passage, in the summarizer's vocabulary, and its mask: 1 for
                tokens, 0 for padding. The mask defaults to ones. Both may have the shape
                `(batch_size, segments, sequence_length)`, see [`encode_segments`]; decoder, gated
                cross-attention and answerability head then read the states of all segments as one sequence.
            question_input_ids, question_attention_mask (`torch.LongTensor` of shape \
`(batch_size, question_length)`):
                The same text in the question encoder's vocabulary, and its mask, with or without segments.
                Only needed if that is another vocabulary, since the question encoder reads `input_ids`
                otherwise.
            decoder_input_ids, decoder_attention_mask (`torch.LongTensor` of shape \
`(batch_size, summary_length)`):
                The summary, shifted right, and its mask. Computed from `labels` by default.
            encoder_outputs, question_encoder_outputs (`tuple` or `BaseModelOutput`):
                Outputs of the encoders, which do not run then.
            decoder_question_key_values (`torch.FloatTensor`), \
decoder_question_mask (`torch.Tensor` of shape `(batch_size, question_length)`):
                With `fusion="gated"`, the result of [`~GatedCrossAttention.project_question`] and its mask,
                so that the question is not encoded in every decoding step. The mask defaults to ones.
            past_key_values, cache (`Cache`):
                Keys and values of earlier decoding steps. `cache` is the name from transformers 5.24 on; both
                work with every version. From the second step on the answerability is not computed, because
                the fusion reads the complete summary.
            inputs_embeds, decoder_inputs_embeds (`torch.FloatTensor` of shape \
`(batch_size, length, hidden_size)`):
                Embeddings that replace the summarizer's `input_ids` and `decoder_input_ids`.
            labels (`torch.LongTensor` of shape `(batch_size, summary_length)`):
                Summary tokens; -100 is ignored.
            answerable (`torch.LongTensor` of shape `(batch_size,)`):
                1 if the summary carries the answer, 0 if not; -100 is ignored. With
                `config.summary_loss_on="answerable"` only rows with 1 have a summary loss, or all rows if
                `answerable` is `None`.
            use_cache, output_attentions, output_hidden_states, return_dict (`bool`):
                Same as for every model of transformers. Attentions of encoders and decoder need the `"eager"`
                attention implementation.

        Returns:
            [`CrossTaskOutput`], or a tuple of its values with `return_dict=False`.

        Raises:
            ValueError: If the question is missing where it is needed, if the batch sizes differ, or if
                `answerable` has other values.
        """
        if cache is not None and past_key_values is not None:
            raise ValueError("`cache` and `past_key_values` are two names of one argument, got both.")
        cache = past_key_values if cache is None else cache
        flags = self._get_output_flags(output_attentions, output_hidden_states)
        if labels is not None and decoder_input_ids is None and decoder_inputs_embeds is None:
            decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
            use_cache = False if use_cache is None else use_cache
        if isinstance(encoder_outputs, (tuple, list)):
            encoder_outputs = EncoderOutput(*encoder_outputs)
        is_first_step = cache is None or not _has_steps(cache)
        question, question_mask = None, None
        if decoder_question_key_values is None and (is_first_step or self.gated_cross_attention is not None):
            question, question_mask = self._encode_question(
                input_ids,
                attention_mask,
                question_input_ids,
                question_attention_mask,
                question_encoder_outputs,
                **flags,
            )
        if question is None and answerable is not None:
            raise ValueError(
                "`answerable` needs the question encoder: give `input_ids`, `question_input_ids` or "
                "`question_encoder_outputs`, and neither a cache nor `decoder_question_key_values`."
            )
        if decoder_question_key_values is None and self.gated_cross_attention is not None:
            decoder_question_key_values = self._project_question(question)
            decoder_question_mask = question_mask
        if encoder_outputs is None and input_ids is not None and input_ids.dim() == 3:
            encoder_outputs = self._encode_source(input_ids, attention_mask, **flags)
        attention_mask = flatten_segments(attention_mask)
        gate_attentions: list | None = [] if flags["output_attentions"] else None
        with self._capture_decoder_states(
            decoder_question_key_values, decoder_question_mask, gate_attentions
        ) as captured:
            summary = self.summarizer(
                input_ids=input_ids if encoder_outputs is None else None,
                attention_mask=attention_mask,
                decoder_input_ids=decoder_input_ids,
                decoder_attention_mask=decoder_attention_mask,
                encoder_outputs=encoder_outputs,
                inputs_embeds=inputs_embeds if encoder_outputs is None else None,
                decoder_inputs_embeds=decoder_inputs_embeds,
                use_cache=use_cache,
                **flags,
                **({} if cache is None else {CACHE_ARGUMENT: cache}),
                **kwargs,
            )
        answerability_logits, fusion_attentions = None, None
        if is_first_step and question is not None:
            answerability_logits, fusion_attentions = self._classify_summary(
                question[0],
                question_mask,
                captured[0],
                summary.logits,
                labels,
                decoder_input_ids,
                decoder_attention_mask,
                flags["output_attentions"],
            )
        loss, summary_loss, answerability_loss = compute_joint_loss(
            self.config, summary.logits, labels, answerability_logits, answerable
        )
        output = CrossTaskOutput(
            **{name: value for name, value in summary.items() if name != "loss"},
            loss=loss,
            summary_loss=summary_loss,
            answerability_loss=answerability_loss,
            answerability_logits=answerability_logits,
            question_encoder_last_hidden_state=None if question is None else question[0],
            question_encoder_hidden_states=getattr(question, "hidden_states", None),
            question_encoder_attentions=getattr(question, "attentions", None),
            fusion_attentions=gate_attentions[0] if gate_attentions else fusion_attentions,
        )
        return_dict = self.config.return_dict if return_dict is None else return_dict
        return output if return_dict else output.to_tuple()

    def _get_output_flags(self, output_attentions, output_hidden_states):
        if output_attentions is None:
            output_attentions = self.config.output_attentions
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        return {
            "output_attentions": output_attentions,
            "output_hidden_states": output_hidden_states,
            "return_dict": True,
        }

    def _encode_question(self, input_ids, attention_mask, question_ids, question_mask, outputs, **flags):
        """
        Run the question encoder, unless its `outputs` are there already.

        Returns:
            `tuple`: `(outputs, question_mask)`, with a boolean mask; `(None, None)` without any question.
        """
        if question_ids is None and outputs is None:
            if input_ids is None:
                return None, None
            if not self.config.shares_vocabulary:
                raise ValueError(
                    "The question encoder has another vocabulary than the summarizer: `question_input_ids` "
                    "are needed beside `input_ids` (pass a `question_tokenizer` to the processor)."
                )
            question_ids = input_ids
        reads_input_ids = question_ids is input_ids or (
            question_ids is None and self.config.shares_vocabulary
        )
        if question_mask is None and reads_input_ids:
            question_mask = attention_mask
        if outputs is None:
            # Without a mask some encoders warn of padding, and some mask all tokens with id 0.
            if question_mask is None:
                question_mask = torch.ones_like(question_ids)
            encoder = self.question_encoder
            if self.config.share_base:
                encoder = partial(encoder, self.get_encoder)
            if question_ids.dim() == 3:
                encoder = partial(encode_segments, encoder)
            outputs = encoder(input_ids=question_ids, attention_mask=question_mask, **flags)
        elif isinstance(outputs, (tuple, list)):
            outputs = BaseModelOutput(*outputs)
        inputs = next(x for x in (input_ids, attention_mask, outputs[0]) if x is not None)
        if len(inputs) != len(outputs[0]):
            raise ValueError(f"The batch sizes differ: {len(inputs)} inputs and {len(outputs[0])} questions.")
        if question_mask is None:
            question_mask = torch.ones(outputs[0].shape[:2], device=outputs[0].device)
        return outputs, flatten_segments(question_mask).bool()

    def _project_question(self, question):
        if question is None:
            raise ValueError(
                "`fusion='gated'` writes with the question encoder: give `input_ids`, `question_input_ids`, "
                "`question_encoder_outputs` or `decoder_question_key_values`."
            )
        return self.gated_cross_attention.project_question(question[0])

    def _capture_decoder_states(
        self, question_key_values, question_mask, gate_attentions=None, logits_to_keep=None
    ):
        """
        Return a context manager that captures the states that the LM head reads, after the gated
        cross-attention if there is one, whose attentions are appended to the list `gate_attentions`.
        """
        if self.gated_cross_attention is None:
            return capture_input(get_lm_head(self.summarizer), logits_to_keep)

        def apply_gate(states):
            states, attentions = self.gated_cross_attention(
                states, question_key_values, question_mask, gate_attentions is not None
            )
            if gate_attentions is not None:
                gate_attentions.append(attentions)
            return states

        return capture_input(get_lm_head(self.summarizer), logits_to_keep, apply_gate)

    def _classify_summary(
        self,
        question_states,
        question_mask,
        decoder_states,
        summary_logits,
        labels,
        decoder_input_ids,
        decoder_attention_mask,
        output_attentions,
    ):
        """Return logits and attentions of the answerability head for the summary of a forward pass."""
        targets = labels
        if targets is None:
            if decoder_input_ids is None:  # with `decoder_inputs_embeds` the tokens are not known
                decoder_input_ids = torch.full(
                    decoder_states.shape[:2], UNKNOWN_TOKEN, device=decoder_states.device
                )
            targets = get_predicted_ids(decoder_input_ids, decoder_attention_mask)
        return self._judge_summary(
            question_states, question_mask, decoder_states, targets, summary_logits, output_attentions
        )


def _resize_embeddings(summarizer, *args, **kwargs):
    """Resize the embeddings of a summarizer. `EncoderDecoderModel` leaves it to its two stacks."""
    if summarizer.config.model_type != "encoder-decoder":
        return summarizer.resize_token_embeddings(*args, **kwargs)
    summarizer.decoder.resize_token_embeddings(*args, **kwargs)
    return summarizer.encoder.resize_token_embeddings(*args, **kwargs)


def _has_steps(cache):
    """
    Return whether decoding has begun in a cache.

    The length of a static cache is a tensor, which a compiled graph cannot branch on, so `is_updated` is read
    if there is one.
    """
    if isinstance(cache, EncoderDecoderCache):
        return cache.is_updated.get(0, False)
    return cache.get_seq_length() > 0


def compute_joint_loss(
    config: CrossTaskConfig,
    logits: torch.Tensor,
    labels: torch.Tensor | None,
    answerability_logits: torch.Tensor | None,
    answerable: torch.Tensor | None,
) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
    """
    Compute `summary_loss + config.answerability_weight * answerability_loss`.

    Args:
        config ([`CrossTaskConfig`]): Supplies `answerability_weight` and `summary_loss_on`.
        logits (`torch.FloatTensor` of shape `(batch_size, summary_length, vocab_size)`): Of the summary.
        labels (`torch.LongTensor` of shape `(batch_size, summary_length)`, *optional*): -100 is ignored.
        answerability_logits (`torch.FloatTensor` of shape `(batch_size, 2)`, *optional*)
        answerable (`torch.LongTensor` of shape `(batch_size,)`, *optional*): 1 or 0; -100 is ignored.

    Returns:
        `tuple`: `(loss, summary_loss, answerability_loss)`: the weighted sum, the mean in nats per token and
        the mean in nats per row. A loss without labels is `None`, and the sum has the other term only.

    Raises:
        ValueError: If `answerable` has another shape or other values.
    """
    summary_loss = answerability_loss = None
    if answerable is not None:
        check_answerable(answerable, len(answerability_logits))
        answerable = answerable.to(answerability_logits.device, torch.long)
        answerability_loss = _compute_cross_entropy(answerability_logits, answerable)
    if labels is not None:
        labels = labels.to(logits.device)
        if config.summary_loss_on == "answerable" and answerable is not None:
            has_no_loss = answerable.to(labels.device) != 1
            labels = labels.masked_fill(has_no_loss[:, None], IGNORE_INDEX)
        summary_loss = _compute_cross_entropy(logits.flatten(0, 1), labels.flatten())
    if answerability_loss is None:
        return summary_loss, summary_loss, None
    loss = config.answerability_weight * answerability_loss
    if summary_loss is not None:
        loss = summary_loss + loss.to(summary_loss.device)
    return loss, summary_loss, answerability_loss


def _compute_cross_entropy(logits, labels):
    """Return the mean over all labels but -100, in float32; 0, with gradients of 0, if there are none."""
    loss = F.cross_entropy(logits.float(), labels, ignore_index=IGNORE_INDEX, reduction="sum")
    return loss / (labels != IGNORE_INDEX).sum().clamp(min=1)


def check_answerable(answerable: torch.Tensor, batch_size: int) -> None:
    """
    Raise a `ValueError` unless `answerable` has `batch_size` values of 0, 1 or -100. The loss function would
    raise an obscure error for some other tensors, and none for the rest.
    """
    is_valid = answerable.shape == (batch_size,) and not answerable.is_floating_point()
    # A compiled graph cannot branch on values.
    if is_valid and not torch.compiler.is_compiling():
        is_valid = ((answerable == 0) | (answerable == 1) | (answerable == IGNORE_INDEX)).all()
    if not is_valid:
        raise ValueError(
            f"`answerable` has to be 1, 0 or {IGNORE_INDEX} for each of the {batch_size} rows, "
            f"got {answerable}."
        )


def shift_tokens_right(labels: torch.Tensor, config: CrossTaskConfig) -> torch.Tensor:
    """
    Return the decoder inputs for labels: the start token, and all labels but the last. -100 becomes padding.
    The sequence-to-sequence models of transformers do the same.

    Args:
        labels (`torch.LongTensor` of shape `(batch_size, summary_length)`)
        config ([`CrossTaskConfig`]): Supplies `decoder_start_token_id` and `pad_token_id`.

    Returns:
        `torch.LongTensor` of the same shape.

    Raises:
        ValueError: If the configuration lacks one of the two token ids.
    """
    if config.decoder_start_token_id is None or config.pad_token_id is None:
        raise ValueError(
            "`labels` need `decoder_input_ids`, or `decoder_start_token_id` and `pad_token_id` in the "
            "configuration."
        )
    decoder_input_ids = F.pad(labels[:, :-1], (1, 0), value=config.decoder_start_token_id)
    return decoder_input_ids.masked_fill(decoder_input_ids == IGNORE_INDEX, config.pad_token_id)
