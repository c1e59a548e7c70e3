"""Configuration of the cross-task model: its two parts and the fusion between them."""

from __future__ import annotations

import copy
import math
from numbers import Real
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSeq2SeqLM,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.activations import ACT2FN
from transformers.utils import logging

logger = logging.get_logger(__name__)

FUSIONS = ("classifier", "gated")
SUMMARY_LOSS_ON = ("all", "answerable")
PROMPT = "question: {question} passage:"
IGNORE_INDEX = -100  # the label that losses ignore, everywhere in transformers
DEFAULT_MAX_LENGTH = 128  # tokens of a generated summary, including the start token
# The generation settings that belong to a family's tokens: special ones, the first token of a summary (a
# language for mBART and NLLB), and tokens that must never be generated (padding for Marian).
TOKEN_SETTINGS = (
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "decoder_start_token_id",
    "forced_bos_token_id",
    "bad_words_ids",
    "suppress_tokens",
    "begin_suppress_tokens",
)
# Sequence-to-sequence models that cannot be a summarizer here, with the reason.
UNSUPPORTED_SUMMARIZERS = {
    "fsmt": "it reads one vocabulary and writes another",
    "prophetnet": "its decoder predicts several future tokens at once",
    "xlm-prophetnet": "its decoder predicts several future tokens at once",
}
FORMAT_VERSION = 1  # of a checkpoint; to be raised by changes that older code cannot read
# A checkpoint's pipelines, in the format `pipeline()` reads from config.json.
PIPELINES = {
    "question-summarization": {
        "impl": "pipeline_crosstask.QuestionSummarizationPipeline",
        "pt": ["AutoModelForSeq2SeqLM"],
    }
}


class CrossTaskConfig(PretrainedConfig):
    r"""
    Configuration of a [`CrossTaskForConditionalGeneration`].

    Args:
        summarizer (`PretrainedConfig` or `dict`, *optional*):
            Configuration of any sequence-to-sequence model of transformers (T5, BART, Pegasus, ...). It is
            copied.
        question_encoder (`PretrainedConfig` or `dict`, *optional*):
            Configuration of any text encoder of transformers (BERT, RoBERTa, ...), or of a
            sequence-to-sequence model, which contributes its encoder. It is copied.
        fusion (`str`, *optional*, defaults to `"classifier"`):
            How the two models are joined. `"classifier"`: the question encoder's output attends to the
            states of the summarizer's decoder, and a classifier predicts whether the summary carries the
            answer. `"gated"`: in addition, the decoder's states attend to the question encoder's output
            before the LM head reads them, so that the question encoder influences the summary. The gates of
            this attention are closed before training.
        fusion_num_heads (`int`, *optional*, defaults to 8):
            Number of attention heads in the fusion. Has to divide `fusion_dim`.
        fusion_dim (`int`, *optional*):
            Width of the fusion. Defaults to the question encoder's hidden size.
        fusion_ffn_dim (`int`, *optional*):
            Width of the fusion's feed-forward layer. Defaults to 4 times `fusion_dim`, the ratio of the
            original Transformer (Vaswani et al., 2017).
        fusion_dropout (`float`, *optional*, defaults to 0.1):
            Dropout probability in the fusion, at least 0 and below 1.
        fusion_activation (`str`, *optional*, defaults to `"gelu"`):
            Activation function of the fusion's feed-forward layer, by its name in
            `transformers.activations.ACT2FN`.
        fusion_likelihood (`bool`, *optional*, defaults to `False`):
            Whether the answerability is predicted from the probabilities of the summary's tokens as well.
            [`~CrossTaskForConditionalGeneration.from_tasks`] and recipes default to `True`; checkpoints
            without this key have no weights for it.
        answerability_weight (`float`, *optional*, defaults to 1.0):
            The weight α in the joint loss `summary_loss + α * answerability_loss`.
        summary_loss_on (`str`, *optional*, defaults to `"all"`):
            Rows with a summary loss: `"all"`, or `"answerable"` for those with `answerable=1` only.
        prompt (`str`, *optional*, defaults to `"question: {question} passage:"`):
            Template of the first segment of the input. The passage is the second segment.
        max_source_length (`int`, *optional*, defaults to 1024):
            Maximum length of the input in tokens, including the question and special tokens.
        max_segments (`int`, *optional*, defaults to 1):
            Maximum number of segments of `max_source_length` tokens that a longer passage is cut into, each
            with the question in front. Above 1, the model reads inputs of shape `(batch, segments, length)`.
        stride (`int`, *optional*, defaults to 0):
            Number of passage tokens that a segment has in common with the one before.
        share_base (`bool`, *optional*, defaults to `False`):
            Whether the question encoder is the summarizer's encoder with low-rank updates, so that weights
            that both models have in common are in memory once.
        shares_vocabulary (`bool`, *optional*):
            Whether the question encoder reads the summarizer's `input_ids`, so that it needs no
            `question_input_ids`. [`~CrossTaskForConditionalGeneration.from_tasks`] compares the tokenizers of
            its checkpoints. Without tokenizers it defaults to whether the vocabularies have the same size.
        answerability_trained (`bool`, *optional*, defaults to `True`):
            Whether the answerability head has learned from a label. It is `False` after
            [`~CrossTaskForConditionalGeneration.from_tasks`], until [`CrossTaskTrainer`] has trained on a
            labeled row; the pipeline then gives no answerability.
        answerability_temperature (`float`, *optional*, defaults to 1.0):
            The number above 0 that the logits of the answerability are divided by (Guo et al., 2017,
            https://arxiv.org/abs/1706.04599). Training fits it on the model's own summaries of the
            validation rows.
        answerability_threshold (`float`, *optional*):
            The answerability from which on a summary counts as answered with `min_answerability="auto"` of
            the pipeline. Training chooses it, see `answerability_precision` of the recipes.
        question_encoder_updates (`dict[str, int]`, *optional*):
            Ranks of these updates by the name of the linear layer within the encoder. Needs
            `share_base=True`.
        kwargs:
            Further arguments of `PretrainedConfig`. Token ids default to the summarizer's.

    Raises:
        ValueError: If a value is out of its range, or the summarizer is not a sequence-to-sequence model.
        TypeError: If a part is neither a configuration nor a dict.
    """

    model_type = "crosstask"
    sub_configs = {"summarizer": AutoConfig, "question_encoder": AutoConfig}
    pipelines_are_registered = False  # `import crosstask` sets it
    # `Trainer` gathers all outputs but these during evaluation, i.e. the two kinds of logits.
    keys_to_ignore_at_inference = [
        "summary_loss",
        "answerability_loss",
        "past_key_values",
        "cache",  # the name of `past_key_values` from transformers 5.24 on
        "decoder_hidden_states",
        "decoder_attentions",
        "cross_attentions",
        "encoder_last_hidden_state",
        "encoder_hidden_states",
        "encoder_attentions",
        "question_encoder_last_hidden_state",
        "question_encoder_hidden_states",
        "question_encoder_attentions",
        "fusion_attentions",
    ]

    def __init__(
        self,
        summarizer: PretrainedConfig | dict | None = None,
        question_encoder: PretrainedConfig | dict | None = None,
        fusion: str = "classifier",
        fusion_num_heads: int = 8,
        fusion_dim: int | None = None,
        fusion_ffn_dim: int | None = None,
        fusion_dropout: float = 0.1,
        fusion_activation: str = "gelu",
        fusion_likelihood: bool = False,
        answerability_weight: float = 1.0,
        summary_loss_on: str = "all",
        prompt: str = PROMPT,
        max_source_length: int = 1024,
        max_segments: int = 1,
        stride: int = 0,
        share_base: bool = False,
        shares_vocabulary: bool | None = None,
        answerability_trained: bool = True,
        answerability_temperature: float = 1.0,
        answerability_threshold: float | None = None,
        question_encoder_updates: dict[str, int] | None = None,
        **kwargs: Any,
    ):
        # The parts are set before the base class is initialized: it passes the attention implementation on
        # to them and, in transformers 5, checks the token ids against their vocabulary.
        self.summarizer = _copy_part(summarizer, "summarizer")
        if share_base and question_encoder is None:
            question_encoder = summarizer
        self.question_encoder = _copy_part(question_encoder, "question_encoder")
        if getattr(self.question_encoder, "model_type", None) == "encoder-decoder":
            self.question_encoder = self.question_encoder.encoder  # `AutoModel` does not load the composite
        if self.summarizer is not None:
            _check_summarizer(self.summarizer)
            for name in ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id"):
                kwargs.setdefault(name, _get_token_id(self.summarizer, name))
        if shares_vocabulary is None and None not in (self.summarizer, self.question_encoder):
            shares_vocabulary = get_vocab_size(self.summarizer) == get_vocab_size(self.question_encoder)
        self.shares_vocabulary = True if share_base else shares_vocabulary
        self.answerability_trained = answerability_trained
        self.answerability_temperature = answerability_temperature
        self.answerability_threshold = answerability_threshold
        kwargs["is_encoder_decoder"] = True
        self.format_version = _check_format_version(kwargs.pop("format_version", FORMAT_VERSION))
        kwargs.pop("custom_pipelines", None)  # config.json has it; here it is a property
        super().__init__(**kwargs)

        if fusion_dim is None and self.question_encoder is not None:
            # T5Gemma's configuration contains its encoder's configuration.
            fusion_dim = getattr(self.question_encoder, "encoder", self.question_encoder).hidden_size
        if fusion_ffn_dim is None and fusion_dim is not None:
            fusion_ffn_dim = 4 * fusion_dim
        self.fusion = fusion
        self.fusion_num_heads = fusion_num_heads
        self.fusion_dim = fusion_dim
        self.fusion_ffn_dim = fusion_ffn_dim
        self.fusion_dropout = fusion_dropout
        self.fusion_activation = fusion_activation
        self.fusion_likelihood = fusion_likelihood
        self.answerability_weight = answerability_weight
        self.summary_loss_on = summary_loss_on
        self.prompt = prompt
        self.max_source_length = max_source_length
        self.max_segments = max_segments
        self.stride = stride
        self.share_base = share_base
        self.question_encoder_updates = dict(question_encoder_updates or {})
        self._check_values()

    def _check_values(self):
        for name, choices in (("fusion", FUSIONS), ("summary_loss_on", SUMMARY_LOSS_ON)):
            if (value := getattr(self, name)) not in choices:
                raise ValueError(f"`{name}` has to be one of {choices}, got {value!r}.")
        for name in ("fusion_num_heads", "fusion_dim", "fusion_ffn_dim", "max_source_length"):
            value = getattr(self, name)
            if value is not None and not (type(value) is int and value >= 1):
                raise ValueError(f"`{name}` has to be an integer of 1 or more, got {value!r}.")
        check_segments(self.max_segments, self.stride, self.max_source_length)
        if self.fusion_dim is not None and self.fusion_dim % self.fusion_num_heads:
            raise ValueError(
                f"`fusion_num_heads` has to divide `fusion_dim`, got {self.fusion_num_heads} heads "
                f"for a width of {self.fusion_dim}."
            )
        if not (is_finite_number(self.fusion_dropout) and 0 <= self.fusion_dropout < 1):
            raise ValueError(
                f"`fusion_dropout` has to be at least 0 and below 1, got {self.fusion_dropout!r}."
            )
        if not isinstance(self.fusion_activation, str) or self.fusion_activation not in ACT2FN:
            raise ValueError(
                f"`fusion_activation` has to be one of {', '.join(sorted(ACT2FN))}, "
                f"got {self.fusion_activation!r}."
            )
        check_weight("answerability_weight", self.answerability_weight)
        for name in ("answerability_trained", "fusion_likelihood"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"`{name}` has to be a boolean, got {getattr(self, name)!r}.")
        temperature, threshold = self.answerability_temperature, self.answerability_threshold
        if not (is_finite_number(temperature) and temperature > 0):
            raise ValueError(
                f"`answerability_temperature` has to be a finite number above 0, got {temperature!r}."
            )
        if threshold is not None and not (is_finite_number(threshold) and 0 <= threshold <= 1):
            raise ValueError(f"`answerability_threshold` has to be between 0 and 1, got {threshold!r}.")
        if self.shares_vocabulary not in (None, False, True):
            raise ValueError(f"`shares_vocabulary` has to be a boolean, got {self.shares_vocabulary!r}.")
        if self.question_encoder_updates and not self.share_base:
            raise ValueError("`question_encoder_updates` needs `share_base=True`, got `share_base=False`.")
        if not isinstance(self.prompt, str) or "{question}" not in self.prompt:
            raise ValueError(f"`prompt` has to contain {{question}}, got {self.prompt!r}.")

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> PretrainedConfig:
        """Return the summarizer's text configuration, which generation and its caches read."""
        if self.summarizer is None:
            return self
        return self.summarizer.get_text_config(decoder=decoder, encoder=encoder)

    @property
    def custom_pipelines(self) -> dict[str, dict]:
        """
        `dict`: Pipelines for which `pipeline()` has to run the checkpoint's code. Empty if `import crosstask`
        has registered them, since `pipeline()` needs no `trust_remote_code` then.
        """
        # A copy, because `pipeline()` changes the dict.
        return {} if self.pipelines_are_registered else copy.deepcopy(PIPELINES)

    def to_dict(self) -> dict[str, Any]:
        """Same as `PretrainedConfig.to_dict`, with the pipelines and without local paths of the parts."""
        output = super().to_dict()
        output["custom_pipelines"] = copy.deepcopy(PIPELINES)
        for name in self.sub_configs:
            if output.get(name) is not None:
                output[name].pop("_name_or_path", None)
        return output

    # Properties that users and libraries expect in the configuration of every text model.
    @property
    def vocab_size(self) -> int:
        """`int`: Size of the summarizer's vocabulary, and of the question encoder's if they share one."""
        return self._get_text_setting("vocab_size")

    @vocab_size.setter
    def vocab_size(self, value: int):
        shared = self.question_encoder is not None and self.shares_vocabulary
        set_vocab_size(self.summarizer, value)
        if shared:
            set_vocab_size(self.question_encoder, value)

    @property
    def hidden_size(self) -> int:
        return self._get_text_setting("hidden_size")

    @property
    def num_attention_heads(self) -> int:
        return self._get_text_setting("num_attention_heads")

    @property
    def num_hidden_layers(self) -> int:
        return self._get_text_setting("num_hidden_layers")

    def _get_text_setting(self, name):
        if self.summarizer is None:
            raise AttributeError(f"`{name}` is a setting of the summarizer, and this configuration has none.")
        return getattr(self.get_text_config(decoder=True), name)


def set_vocab_size(config: PretrainedConfig, vocab_size: int) -> None:
    """
    Set the size of a part's vocabulary. T5Gemma has it in the configurations of both its stacks, too, and
    `EncoderDecoderModel` only there.
    """
    for stack in (config, getattr(config, "encoder", None), getattr(config, "decoder", None)):
        if hasattr(stack, "vocab_size"):
            stack.vocab_size = vocab_size


def get_max_positions(model: nn.Module | PretrainedConfig, side: str | None = None) -> float:
    """
    Return the number of positions that a model has embeddings for, in tokens; infinite if it needs none.

    Args:
        model (`PreTrainedModel` or `PretrainedConfig`): A model, or the configuration of one.
        side (`str`, *optional*): "encoder" or "decoder" of a sequence-to-sequence model.
    """
    if isinstance(model, PretrainedConfig):
        with torch.device("meta"):  # builds the modules, but no weights
            auto_class = AutoModelForSeq2SeqLM if model.is_encoder_decoder else AutoModel
            model = auto_class.from_config(model)
    config = model.config
    if side is not None:
        model = getattr(model, f"get_{side}", lambda: model)()
        config = getattr(model, "config", config)
    if not getattr(config, "position_biased_input", True):  # DeBERTa's positions are relative to each other
        return math.inf
    for name in (f"max_{side}_position_embeddings", "max_position_embeddings"):
        limit = getattr(config, name, None)
        if limit is not None and limit > 0:  # XLNet has -1
            return limit - _get_position_offset(model, limit)
    return math.inf


def _get_position_offset(model, num_embeddings):
    """Return the number of position embeddings before that of the first token."""
    # RoBERTa counts positions from the id after that of the padding token: of 514 embeddings, it uses 512.
    for name, module in model.named_modules():
        is_position = "position" in name.rpartition(".")[2] and isinstance(module, nn.Embedding)
        if is_position and module.padding_idx is not None and module.num_embeddings == num_embeddings:
            return module.padding_idx + 1
    return 0


def get_max_lengths(model: nn.Module | PretrainedConfig) -> dict[str, float]:
    """
    Return how many tokens a cross-task model, or any sequence-to-sequence model, can read and write.

    Args:
        model (`PreTrainedModel` or `PretrainedConfig`): A model, or the configuration of one.

    Returns:
        `dict[str, float]`: By the names of the processor's limits, `max_source_length` (of the summarizer's
        encoder), `max_question_length` (of the question encoder; infinite if there is none) and
        `max_summary_length` (of the decoder). A model without position embeddings has no limit: infinity.
    """
    summarizer = getattr(model, "summarizer", model)
    question_encoder = getattr(model, "question_encoder", None)
    lengths = {
        "max_source_length": get_max_positions(summarizer, "encoder"),
        "max_question_length": math.inf,
        "max_summary_length": get_max_positions(summarizer, "decoder"),
    }
    if question_encoder is not None:
        config = model if isinstance(model, PretrainedConfig) else model.config
        is_seq2seq = config.question_encoder.is_encoder_decoder
        lengths["max_question_length"] = (
            lengths["max_source_length"]
            if config.share_base
            else get_max_positions(question_encoder, "encoder" if is_seq2seq else None)
        )
    return lengths


def make_generation_config(model: PreTrainedModel) -> GenerationConfig:
    """
    Return the generation settings of a model that is composed from `model`, or trained further from it.

    Those that belong to the family's tokens stay. Lengths, beams and penalties do not, because they were
    chosen for other texts: the 56 to 142 tokens of `facebook/bart-large-cnn` are for news.

    Args:
        model (`PreTrainedModel`): A sequence-to-sequence model.
    """
    settings = _get_token_settings(model.generation_config)
    max_length = min(DEFAULT_MAX_LENGTH, get_max_positions(model, "decoder"))
    return GenerationConfig(**settings, max_length=max_length)


def _get_token_settings(config):
    """Return the generation settings that belong to the tokens of a family."""
    settings = {name: getattr(config, name, None) for name in TOKEN_SETTINGS}
    # BART's family ends a summary of the maximum length with this token. Its value is 2 by default, which is
    # another token in vocabularies that were not trained with fairseq.
    if config.forced_eos_token_id == config.eos_token_id:
        settings["forced_eos_token_id"] = config.eos_token_id
    return {name: value for name, value in settings.items() if value is not None}


def log_dropped_settings(model: PreTrainedModel, role: str) -> None:
    """
    Log the generation settings of `model` that [`make_generation_config`] drops.

    Args:
        model (`PreTrainedModel`): A sequence-to-sequence model.
        role (`str`): Name of the model in the log.
    """
    defaults = GenerationConfig().to_dict()
    # transformers 5 keeps unset values as `None`, and applies these while it generates.
    defaults |= getattr(GenerationConfig, "_get_default_generation_params", dict)()
    settings = model.generation_config.to_dict()
    inherited = {*_get_token_settings(model.generation_config), "transformers_version"}
    dropped = ", ".join(
        f"{name}={value!r}"
        for name, value in settings.items()
        if name not in inherited
        and not name.startswith("_")
        and value not in (None, False, defaults.get(name))
    )
    if dropped:
        logger.warning("Generation settings of the %s are not inherited: %s", role, dropped)


def get_vocab_size(config: PretrainedConfig) -> int:
    """Return the size of the vocabulary that a part reads."""
    return (config.encoder if config.model_type == "encoder-decoder" else config).vocab_size


def is_finite_number(value: Any) -> bool:
    """Return whether `value` is a finite real number. Booleans are not numbers here."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def check_weight(name: str, value: Any) -> None:
    """Raise a `ValueError` unless `value` is a finite number of 0 or more, as the weight `name` has to be."""
    if not (is_finite_number(value) and value >= 0):
        raise ValueError(f"`{name}` has to be a finite number of 0 or more, got {value!r}.")


def check_segments(max_segments: Any, stride: Any, max_source_length: int) -> None:
    """Raise a `ValueError` unless the values describe segments of at most `max_source_length` tokens."""
    if type(max_segments) is not int or max_segments < 1:
        raise ValueError(f"`max_segments` has to be an integer of 1 or more, got {max_segments!r}.")
    if type(stride) is not int or not 0 <= stride < max_source_length:
        raise ValueError(
            f"`stride` has to be an integer from 0 to below `max_source_length` ({max_source_length}), got "
            f"{stride!r}."
        )


def _check_summarizer(config):
    """Raise a `ValueError` unless `config` is that of a sequence-to-sequence model that can be fused."""
    if not config.is_encoder_decoder:
        raise ValueError(
            "`summarizer` has to be a sequence-to-sequence model such as T5 or BART, "
            f"got a configuration of model type {config.model_type!r}."
        )
    reason = UNSUPPORTED_SUMMARIZERS.get(config.model_type)
    if config.model_type == "encoder-decoder" and config.encoder.vocab_size != config.decoder.vocab_size:
        reason = (
            f"it reads a vocabulary of {config.encoder.vocab_size} and writes one of "
            f"{config.decoder.vocab_size}"
        )
    if reason is not None:
        raise ValueError(
            f"`summarizer`: a {config.model_type!r} cannot be fused, because {reason}; expected another "
            "sequence-to-sequence model, such as T5, BART or Pegasus."
        )


def _check_format_version(version):
    if type(version) is not int or version < 1:
        raise ValueError(f"`format_version` has to be an integer from 1, got {version!r}.")
    if version > FORMAT_VERSION:
        raise ValueError(
            f"The checkpoint is of format version {version}, and this crosstask reads {FORMAT_VERSION}: "
            "upgrade it, or load the checkpoint by its own code, with `trust_remote_code=True` and without "
            "crosstask installed."
        )
    return version


def _copy_part(config, name):
    """Copy the configuration of a part, since composing a model may change it."""
    if config is None or isinstance(config, PretrainedConfig):
        return copy.deepcopy(config)
    if isinstance(config, dict):
        if "model_type" not in config:
            raise ValueError(f"`{name}` needs the key 'model_type', got {sorted(config)}.")
        return AutoConfig.for_model(**copy.deepcopy(config))
    raise TypeError(f"`{name}` has to be a configuration or a dict, got {type(config).__name__}.")


def _get_token_id(config, name):
    """Return a token id of a part. T5Gemma has its token ids in the decoder's configuration."""
    token_id = getattr(config, name, None)
    if token_id is None:
        token_id = getattr(config.get_text_config(decoder=True), name, None)
    if token_id is None and name == "decoder_start_token_id":
        token_id = _get_token_id(config, "bos_token_id")
    return token_id
