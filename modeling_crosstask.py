"""The cross-task model: a summarizer and a question encoder, joined by cross-attention."""

import copy
import inspect
import os
import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForSeq2SeqLM,
    EncoderDecoderCache,
    GenerationMixin,
    PreTrainedModel,
)
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput

from .adapters_crosstask import CrossTaskAdapterMixin
from .configuration_crosstask import IGNORE_INDEX, CrossTaskConfig
from .fusion_crosstask import AnswerabilityHead, GatedCrossAttention, capture_input, register_capture_hooks
from .generation_crosstask import (
    CACHE_ARGUMENT,
    UNKNOWN_TOKEN,
    CrossTaskGenerationMixin,
    drop_question_key_values,
    get_predicted_ids,
    get_summary_mask,
)
from .loading_crosstask import (
    MODEL_TAGS,
    CheckpointMixin,
    get_lm_head,
    get_text_encoder,
    load_task_model,
    mark_initialized,
)
from .sharing_crosstask import SharedEncoder, load_shared_base


@dataclass
class CrossTaskOutput(Seq2SeqLMOutput):
    """
    Output of [`CrossTaskForConditionalGeneration`]: all of `Seq2SeqLMOutput`, and

    Args:
        loss (`torch.FloatTensor` of shape `(1,)`, *optional*):
            `summary_loss + config.answerability_weight * answerability_loss`, of those that there are.
        summary_loss (`torch.FloatTensor` of shape `(1,)`, *optional*):
            Mean cross-entropy in nats per summary token; 0 where no row takes part.
        answerability_loss (`torch.FloatTensor` of shape `(1,)`, *optional*):
            Mean cross-entropy in nats per labelled row; 0 where no row is labelled.
        answerability_logits (`torch.FloatTensor` of shape `(batch_size, 2)`, *optional*):
            Scores of "the summary does not / does carry the answer", before the softmax.
        question_encoder_last_hidden_state, question_encoder_hidden_states, \
question_encoder_attentions:
            Of the question encoder, shaped as any encoder's.
        fusion_attentions (`torch.FloatTensor` of shape \
`(batch_size, num_heads, question_length, summary_length)`, *optional*):
            Attention of the question encoder's positions to the summary's, with `output_attentions`. With
            `fusion="gated"` that of the summary's positions to the question encoder's,
            `(batch_size, num_heads, summary_length, question_length)`.
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
    A summarizer and a question encoder, joined by cross-attention: it writes the summary of a passage
    under a question, and says how probable it is that the summary carries the answer.

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
    # What a part does not support it refuses itself, when it is built.
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _no_split_modules = ["AnswerabilityHead", "GatedCrossAttention"]
    # Attributes that hold the fusion. `gated_cross_attention` is `None` without `fusion="gated"`.
    fusion_modules = ("answerability_head", "gated_cross_attention")
    # The loss has two normalizers (summary tokens, labelled rows), so one count cannot scale it:
    # `Trainer` is to average over micro-batches itself (`CrossTaskTrainer` counts both).
    accepts_loss_kwargs = False

    def __init__(self, config, summarizer=None, question_encoder=None):
        """From a [`CrossTaskConfig`] with both parts; a part that is given itself is not built anew."""
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
        # One object, so that what changes the part (resized embeddings, say) is saved with the whole.
        config.summarizer = summarizer.config
        sizes = question_encoder.config.hidden_size, get_lm_head(summarizer).weight.shape[-1]
        self.answerability_head = AnswerabilityHead(config, *sizes)
        self.gated_cross_attention = GatedCrossAttention(config, *sizes) if config.fusion == "gated" else None
        self.generation_config = copy.deepcopy(summarizer.generation_config)
        # T5's feed-forward output overflows in float16; it names the modules to keep in float32, and
        # transformers 4 looks for such names in the outermost model only.
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
    def from_tasks(cls, summarizer, question_answerer, *, model_kwargs=None, **config_kwargs):
        r"""
        Compose a model from two that were trained for their tasks. The fusion is new and untrained.

        Args:
            summarizer (`str`, `os.PathLike` or `PreTrainedModel`):
                Hub id, folder or loaded sequence-to-sequence model.
            question_answerer (`str`, `os.PathLike` or `PreTrainedModel`):
                Likewise; of a sequence-to-sequence model its encoder is taken, anything else has to
                be a text encoder (BERT, RoBERTa, ...).
            model_kwargs (`dict`, *optional*):
                Arguments for both `from_pretrained` calls (`dtype`, `revision`, `token`, ...).
            config_kwargs:
                Arguments of [`CrossTaskConfig`]. With `share_base=True` the two have to be LoRA adapters of
                one base checkpoint, or that checkpoint itself.

        A PEFT adapter, as a folder, Hub id or loaded `PeftModel`, is merged into its base model. Loaded
        models are copied, so that later training does not change them.

        Returns:
            [`CrossTaskForConditionalGeneration`] in evaluation mode, in the summarizer's dtype.

        Raises:
            ValueError: where the summarizer is not a sequence-to-sequence model, or the base to be shared is
                none that both have.
        """
        if "quantization_config" in (model_kwargs or {}):
            raise ValueError(
                "`model_kwargs`: parts are composed in full precision; save the model, and load it with the "
                "`quantization_config`."
            )
        answerer, updates = None, {}
        if config_kwargs.get("share_base"):
            summarizer, updates = load_shared_base(summarizer, question_answerer, model_kwargs)
            config_kwargs["question_encoder_updates"] = {
                name: len(down) for name, (down, _) in updates.items()
            }
        else:
            summarizer = load_task_model(summarizer, model_kwargs)
            answerer = mark_initialized(load_task_model(question_answerer, model_kwargs))
        mark_initialized(summarizer)
        config = CrossTaskConfig(summarizer.config, getattr(answerer, "config", None), **config_kwargs)
        if not summarizer.can_generate():
            raise ValueError(
                "`summarizer` has to be a sequence-to-sequence model with a language-model head, "
                f"got a {type(summarizer).__name__}."
            )
        if config.share_base:
            model = cls(config, summarizer=summarizer)
            model.question_encoder.to(summarizer.dtype).set_updates(updates)
        else:
            model = cls(config, summarizer=summarizer, question_encoder=get_text_encoder(answerer))
        for part in filter(None, (model.answerability_head, model.gated_cross_attention)):
            part.to(summarizer.dtype)
        return model.eval()

    def _init_weights(self, module):
        """Only the fusion's: each part has its own. Linear weights are normal(0, 1 / fan-in), as T5's."""
        # transformers 5 sets the flag on each tensor that came from a checkpoint.
        parameters = [p for p in module.parameters(False) if not getattr(p, "_is_hf_initialized", False)]
        if isinstance(module, nn.LayerNorm):
            for parameter in parameters:
                parameter.data.fill_(1.0 if parameter is module.weight else 0.0)
        elif isinstance(module, nn.Linear):
            for parameter in parameters:
                if parameter is module.weight:
                    parameter.data.normal_(0.0, module.in_features**-0.5)
                else:
                    parameter.data.zero_()
        elif isinstance(module, GatedCrossAttention):
            for parameter in parameters:  # the gates, closed
                parameter.data.zero_()

    def _get_dtype_plan(self, dtype):
        # transformers 5 finds T5's `wo` in BERT's `word_embeddings` too; 4 looks for whole names only.
        return {rf"\b{name}\b": kept for name, kept in super()._get_dtype_plan(dtype).items()}

    def _save_pipeline_code(self, save_directory):
        """Copy the pipeline's files beside the model's own, which transformers copies by itself."""
        from .pipeline_crosstask import QuestionSummarizationPipeline
        from .sentences_crosstask import split_sentences

        for definition in (QuestionSummarizationPipeline, split_sentences):
            source = inspect.getfile(definition)
            target = os.path.join(save_directory, os.path.basename(source))
            if os.path.realpath(source) != os.path.realpath(target):
                shutil.copyfile(source, target)

    def fusion_parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters of the fusion, i.e. of the modules in `fusion_modules` that the model has."""
        for name in self.fusion_modules:
            if (module := getattr(self, name)) is not None:
                yield from module.parameters()

    # What generation and `Trainer` ask of any sequence-to-sequence model is the summarizer's.
    def get_encoder(self, *args, **kwargs):
        return self.summarizer.get_encoder(*args, **kwargs)

    def get_decoder(self):
        return self.summarizer.get_decoder()

    def get_input_embeddings(self):
        return self.summarizer.get_input_embeddings()

    def set_input_embeddings(self, value):
        self.summarizer.set_input_embeddings(value)

    def get_output_embeddings(self):
        return self.summarizer.get_output_embeddings()

    def set_output_embeddings(self, new_embeddings):
        self.summarizer.set_output_embeddings(new_embeddings)

    def prepare_decoder_input_ids_from_labels(self, labels):
        shift = getattr(self.summarizer, "prepare_decoder_input_ids_from_labels", None)
        # M2M100 and Blenderbot, say, keep theirs to themselves.
        return shift_tokens_right(labels, self.config) if shift is None else shift(labels)

    def prepare_inputs_for_generation(self, *args, **kwargs):
        return self.summarizer.prepare_inputs_for_generation(*args, **kwargs)

    def _prepare_cache_for_generation(self, *args, **kwargs):
        return self.summarizer._prepare_cache_for_generation(*args, **kwargs)

    def _validate_model_kwargs(self, model_kwargs):
        self.summarizer._validate_model_kwargs(drop_question_key_values(model_kwargs))

    def resize_token_embeddings(self, *args, **kwargs):
        """
        Resize the summarizer's embeddings, and the question encoder's with them where it reads the
        same vocabulary. Arguments and result as of [`PreTrainedModel.resize_token_embeddings`].
        """
        shared = self.config.shares_vocabulary
        embeddings = self.summarizer.resize_token_embeddings(*args, **kwargs)
        if shared:
            resized = embeddings
            if not self.config.share_base:
                resized = self.question_encoder.resize_token_embeddings(*args, **kwargs)
            # The encoder of a sequence-to-sequence model has a configuration of its own.
            self.config.question_encoder.vocab_size = resized.num_embeddings
        register_capture_hooks(get_lm_head(self.summarizer))  # which may be a new one
        return embeddings

    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        question_input_ids=None,
        question_attention_mask=None,
        decoder_input_ids=None,
        decoder_attention_mask=None,
        encoder_outputs=None,
        question_encoder_outputs=None,
        decoder_question_key_values=None,
        decoder_question_mask=None,
        past_key_values=None,
        inputs_embeds=None,
        decoder_inputs_embeds=None,
        labels=None,
        answerable=None,
        use_cache=None,
        output_attentions=None,
        output_hidden_states=None,
        return_dict=None,
        cache=None,
        **kwargs,
    ):
        r"""
        Args, all optional, in the shapes that every sequence-to-sequence model has:
            input_ids, attention_mask (`torch.LongTensor`, `(batch_size, sequence_length)`):
                The prompted question and the passage, in the summarizer's vocabulary, and its mask: 1 for
                tokens, 0 for padding, ones where not given.
            question_input_ids, question_attention_mask (`torch.LongTensor`, `(batch_size, question_length)`):
                The same text in the question encoder's vocabulary. Only needed where it has one of its own;
                otherwise it reads `input_ids`.
            decoder_input_ids, decoder_attention_mask (`torch.LongTensor`, `(batch_size, summary_length)`):
                The summary, shifted right, and its mask. Made from `labels` where not given.
            encoder_outputs, question_encoder_outputs (`tuple` or `BaseModelOutput`):
                Outputs of the encoders, so that they need not run.
            decoder_question_key_values, decoder_question_mask:
                With `fusion="gated"`, keys and values of the question encoder's output as
                `model.gated_cross_attention.question_key_values` gives them, and its mask (`(batch_size, question_length)`, ones where not
                given), so that neither is computed in each step of decoding.
            past_key_values, cache (`Cache`):
                Keys and values of former decoding steps: one thing by two names, of which the latter is that
                of transformers from 5.24 on. The answerability is not computed then, for the fusion reads the
                whole summary.
            inputs_embeds, decoder_inputs_embeds (`torch.FloatTensor`, `(batch_size, length, hidden_size)`):
                Instead of the summarizer's ids.
            labels (`torch.LongTensor`, `(batch_size, summary_length)`):
                Summary tokens; -100 is ignored.
            answerable (`torch.LongTensor`, `(batch_size,)`):
                1 where the summary carries the answer, 0 where not; -100 is ignored. With
                `config.summary_loss_on="answerable"` only rows of 1 have a summary loss; where
                `answerable` is not given at all, every row has.
            use_cache, output_attentions, output_hidden_states, return_dict (`bool`):
                As everywhere in transformers; attentions of the encoders and the decoder need the `"eager"`
                attention implementation.

        Returns:
            [`CrossTaskOutput`], or a tuple of its values where `return_dict=False`.
        """
        return_dict = return_dict if return_dict is not None else self.config.return_dict
        wanted = {
            "output_attentions": _first(output_attentions, self.config.output_attentions),
            "output_hidden_states": _first(output_hidden_states, self.config.output_hidden_states),
            "return_dict": True,
        }
        if labels is not None and decoder_input_ids is None and decoder_inputs_embeds is None:
            decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
            use_cache = use_cache if use_cache is not None else False
        if isinstance(encoder_outputs, (tuple, list)):
            encoder_outputs = BaseModelOutput(*encoder_outputs)
        question, question_mask = None, None
        if cache is not None and past_key_values is not None:
            raise ValueError("`cache` and `past_key_values` are one thing: give one of them.")
        cache = _first(cache, past_key_values)
        whole = cache is None or not _has_begun(cache)
        if decoder_question_key_values is None and (whole or self.gated_cross_attention is not None):
            question, question_mask = self._encode_question(
                input_ids,
                attention_mask,
                question_input_ids,
                question_attention_mask,
                question_encoder_outputs,
                **wanted,
            )
        if question is None and answerable is not None:
            raise ValueError(
                "`answerable` needs the question encoder: give `input_ids`, `question_input_ids` or "
                "`question_encoder_outputs`, and neither a cache nor `decoder_question_key_values`."
            )
        if decoder_question_key_values is None and self.gated_cross_attention is not None:
            if question is None:
                raise ValueError(
                    "`fusion='gated'` writes with the question encoder: give `input_ids`, "
                    "`question_input_ids`, `question_encoder_outputs` or `decoder_question_key_values`."
                )
            decoder_question_key_values, decoder_question_mask = (
                self.gated_cross_attention.question_key_values(question[0]),
                question_mask,
            )
        judged = whole and question is not None
        gate_attentions = []
        with self._heard(
            judged,
            decoder_question_key_values,
            decoder_question_mask,
            gate_attentions if wanted["output_attentions"] else None,
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
                **wanted,
                **({} if cache is None else {CACHE_ARGUMENT: cache}),
                **kwargs,
            )
        fused = (None, None)
        if judged:
            if decoder_input_ids is None:  # `decoder_inputs_embeds`: every position counts
                decoder_input_ids = torch.full(
                    captured[0].shape[:2], UNKNOWN_TOKEN, device=captured[0].device
                )
            targets = (
                labels if labels is not None else get_predicted_ids(decoder_input_ids, decoder_attention_mask)
            )
            fused = self.answerability_head(
                question[0],
                question_mask,
                captured[0],
                get_summary_mask(targets, self.config),
                wanted["output_attentions"],
            )
        loss, summary_loss, answerability_loss = compute_joint_loss(
            self.config, summary.logits, labels, fused[0], answerable
        )
        output = CrossTaskOutput(
            **{name: value for name, value in summary.items() if name != "loss"},
            loss=loss,
            summary_loss=summary_loss,
            answerability_loss=answerability_loss,
            answerability_logits=fused[0],
            question_encoder_last_hidden_state=None if question is None else question[0],
            question_encoder_hidden_states=getattr(question, "hidden_states", None),
            question_encoder_attentions=getattr(question, "attentions", None),
            fusion_attentions=gate_attentions[0] if gate_attentions else fused[1],
        )
        return output if return_dict else output.to_tuple()

    def _heard(self, judged, question_key_values, mask, attentions=None, pass_on=None):
        """
        A context in which the states that the LM head reads are caught, if anybody is to judge them, and
        changed by the gate, if there is one, whose attentions are appended to a list.
        """
        if self.gated_cross_attention is None:
            return capture_input(get_lm_head(self.summarizer), pass_on) if judged else nullcontext()

        def change(states):
            states, attention = self.gated_cross_attention(
                states, question_key_values, mask, attentions is not None
            )
            if attentions is not None:
                attentions.append(attention)
            return states

        return capture_input(get_lm_head(self.summarizer), pass_on, change)

    def _encode_question(self, input_ids, attention_mask, question_ids, question_mask, outputs, **wanted):
        """The question encoder's output and its boolean mask, or (None, None) without its input."""
        if question_ids is None and outputs is None:
            if input_ids is None:
                return None, None
            if not self.config.shares_vocabulary:
                raise ValueError(
                    "The question encoder has a vocabulary of its own: `question_input_ids` are "
                    "needed beside `input_ids` (give the processor a `question_tokenizer`)."
                )
            question_ids = input_ids
        shared = question_ids is None and self.config.shares_vocabulary
        if question_mask is None and (shared or question_ids is input_ids):
            question_mask = attention_mask
        if outputs is None:
            # Some encoders would warn of padding without a mask, or build one that hides token 0.
            if question_mask is None:
                question_mask = torch.ones_like(question_ids)
            given = (self.get_encoder,) if self.config.share_base else ()
            outputs = self.question_encoder(
                *given, input_ids=question_ids, attention_mask=question_mask, **wanted
            )
        elif isinstance(outputs, (tuple, list)):
            outputs = BaseModelOutput(*outputs)
        inputs, questions = len(_first(input_ids, attention_mask, outputs[0])), len(outputs[0])
        if inputs != questions:
            raise ValueError(f"The batch sizes differ: {inputs} inputs and {questions} questions.")
        if question_mask is None:
            question_mask = torch.ones(outputs[0].shape[:2], device=outputs[0].device)
        return outputs, question_mask.bool()


def _first(*values):
    """The first value that is not None."""
    return next((value for value in values if value is not None), None)


def _has_begun(cache):
    """Whether a cache has decoding steps. A static one's length is a tensor, on which no graph can branch."""
    if isinstance(cache, EncoderDecoderCache):
        return cache.is_updated.get(0, False)
    return cache.get_seq_length() > 0


def compute_joint_loss(config, logits, labels, answerability_logits, answerable):
    """
    Args:
        logits (`torch.FloatTensor` of shape `(batch_size, summary_length, vocab_size)`)
        labels (`torch.LongTensor` of shape `(batch_size, summary_length)`, *optional*): -100 is ignored.
        answerability_logits (`torch.FloatTensor` of shape `(batch_size, 2)`, *optional*)
        answerable (`torch.LongTensor` of shape `(batch_size,)`, *optional*): 1, 0, or -100, which is ignored.

    Returns:
        `(loss, summary_loss, answerability_loss)`: means in nats per token and per row, and
        `summary_loss + config.answerability_weight * answerability_loss` of those that there are; `None`
        where there is nothing to compare with.
    """
    summary_loss = answerability_loss = None
    if answerable is not None:
        check_answerable(answerable, len(answerability_logits))
        answerable = answerable.to(answerability_logits.device, torch.long)
        answerability_loss = _cross_entropy(answerability_logits, answerable)
    if labels is not None:
        labels = labels.to(logits.device)
        if config.summary_loss_on == "answerable" and answerable is not None:
            left_out = answerable.to(labels.device) != 1
            labels = labels.masked_fill(left_out[:, None], IGNORE_INDEX)
        summary_loss = _cross_entropy(logits.flatten(0, 1), labels.flatten())
    if answerability_loss is None:
        return summary_loss, summary_loss, None
    loss = config.answerability_weight * answerability_loss
    if summary_loss is not None:
        loss = summary_loss + loss.to(summary_loss.device)
    return loss, summary_loss, answerability_loss


def _cross_entropy(logits, labels):
    """Mean over the labels that count, in float32; 0 (with a graph) where none does."""
    loss = F.cross_entropy(logits.float(), labels, ignore_index=IGNORE_INDEX, reduction="sum")
    return loss / (labels != IGNORE_INDEX).sum().clamp(min=1)


def check_answerable(answerable, batch_size):
    """Refuse what is no batch of 0, 1 or -100, which the loss would do from deep inside, or not at all."""
    correct = answerable.shape == (batch_size,) and not answerable.is_floating_point()
    # A compiled graph cannot branch on values.
    if correct and not torch.compiler.is_compiling():
        correct = ((answerable == 0) | (answerable == 1) | (answerable == IGNORE_INDEX)).all()
    if not correct:
        raise ValueError(
            f"`answerable` has to be 1, 0 or {IGNORE_INDEX} for each of the {batch_size} rows, got {answerable}."
        )


def shift_tokens_right(labels, config):
    """
    The decoder's inputs of labels, -100 or padding where there is none, as transformers makes them: the start
    token before, the last token off. Shapes: `(batch_size, summary_length)` in and out.
    """
    if config.decoder_start_token_id is None or config.pad_token_id is None:
        raise ValueError(
            "`labels` need `decoder_start_token_id` and `pad_token_id` in the configuration, or "
            "`decoder_input_ids` beside them."
        )
    shifted = F.pad(labels[:, :-1], (1, 0), value=config.decoder_start_token_id)
    return shifted.masked_fill(shifted == IGNORE_INDEX, config.pad_token_id)
