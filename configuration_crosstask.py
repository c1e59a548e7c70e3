"""Configuration of the cross-task model: two sub-configurations and the fusion between them."""

import copy
import math
from numbers import Real

from transformers import AutoConfig, PretrainedConfig
from transformers.activations import ACT2FN

FUSIONS = ("classifier", "gated")
SUMMARY_LOSS_ON = ("all", "answerable")
PROMPT = "question: {question} passage:"
IGNORE_INDEX = -100  # the label that a loss leaves out, as everywhere in transformers
FORMAT_VERSION = 1  # of a checkpoint; the next one is what this code could not read
# The pipelines that a checkpoint's own code has, as `pipeline()` looks for them.
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
            Configuration of any sequence-to-sequence model of transformers (T5, BART, Pegasus, ...).
            Copied, never changed.
        question_encoder (`PretrainedConfig` or `dict`, *optional*):
            Configuration of any text encoder of transformers (BERT, RoBERTa, ...), or of a
            sequence-to-sequence model, of which the encoder is taken. Copied, never changed.
        fusion (`str`, defaults to `"classifier"`):
            How the two models are joined. `"classifier"`: cross-attention from the question
            encoder's output to the summarizer decoder's states, classified into "does this summary
            carry the answer?". `"gated"`: before that, and before the LM head, the decoder's states
            attend to the question encoder's output, through gates that start closed, so that the
            question encoder takes part in writing.
        fusion_num_heads (`int`, defaults to 8):
            Attention heads of the fusion; has to divide `fusion_dim`.
        fusion_dim (`int`, *optional*):
            Width of the fusion. Defaults to the question encoder's hidden size.
        fusion_ffn_dim (`int`, *optional*):
            Width of the fusion's feed-forward layer. Defaults to 4 times `fusion_dim`, the ratio of
            the original Transformer (Vaswani et al., 2017).
        fusion_dropout (`float`, defaults to 0.1):
            Dropout inside the fusion, between 0 and 1.
        fusion_activation (`str`, defaults to `"gelu"`):
            Activation function of the fusion's feed-forward layers, a key of `transformers.activations.ACT2FN`.
        answerability_weight (`float`, defaults to 1.0):
            The weight α of the joint loss `summary_loss + α * answerability_loss`.
        summary_loss_on (`str`, defaults to `"all"`):
            `"all"` rows take part in the summary loss, or only the `"answerable"` ones (label 1).
        prompt (`str`, defaults to `"question: {question} passage:"`):
            Template of the first segment of the input; the passage is the second segment.
        max_source_length (`int`, defaults to 1024):
            Limit of the input in tokens, question and special tokens included.
        share_base (`bool`, defaults to `False`):
            Whether the question encoder is the summarizer's encoder, run with low-rank updates of its own,
            so that the base that both came from is in memory once.
        question_encoder_updates (`dict[str, int]`, *optional*):
            With `share_base`, the ranks of these updates by the name, within the encoder, of the linear
            layer that each belongs to.
        kwargs:
            Any other argument of `PretrainedConfig`. Token ids default to the summarizer's.

    Raises:
        ValueError: where a value is out of its range, or the summarizer is not a
            sequence-to-sequence model.
    """

    model_type = "crosstask"
    sub_configs = {"summarizer": AutoConfig, "question_encoder": AutoConfig}
    pipelines_are_registered = False  # of the class: whether the package is there to do it
    # What `Trainer` must not gather during evaluation: everything but the two kinds of logits.
    keys_to_ignore_at_inference = [
        "summary_loss",
        "answerability_loss",
        "past_key_values",
        "cache",  # the same, from transformers 5.24 on
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
        summarizer=None,
        question_encoder=None,
        fusion="classifier",
        fusion_num_heads=8,
        fusion_dim=None,
        fusion_ffn_dim=None,
        fusion_dropout=0.1,
        fusion_activation="gelu",
        answerability_weight=1.0,
        summary_loss_on="all",
        prompt=PROMPT,
        max_source_length=1024,
        share_base=False,
        question_encoder_updates=None,
        **kwargs,
    ):
        # The parts are set before the base class runs: it hands the attention implementation on to
        # them and, in transformers 5, validates the token ids against their vocabulary.
        self.summarizer = _own_copy(summarizer, "summarizer")
        if share_base and question_encoder is None:
            question_encoder = summarizer
        self.question_encoder = _own_copy(question_encoder, "question_encoder")
        if self.summarizer is not None:
            if not self.summarizer.is_encoder_decoder:
                raise ValueError(
                    "`summarizer` has to be a sequence-to-sequence model such as T5 or BART, "
                    f"got a configuration of model type {self.summarizer.model_type!r}."
                )
            for name in ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id"):
                kwargs.setdefault(name, _token_id(self.summarizer, name))
        kwargs["is_encoder_decoder"] = True
        self.format_version = kwargs.pop("format_version", FORMAT_VERSION)
        if type(self.format_version) is not int or self.format_version < 1:
            raise ValueError(f"`format_version` has to be an integer from 1, got {self.format_version!r}.")
        if self.format_version > FORMAT_VERSION:
            raise ValueError(
                f"The checkpoint is of format version {self.format_version}, and this crosstask reads "
                f"{FORMAT_VERSION}: upgrade it, or load the checkpoint with `trust_remote_code=True` where "
                "crosstask is not installed, by the code that it brings."
            )
        kwargs.pop("custom_pipelines", None)  # of the file; what holds is the property
        super().__init__(**kwargs)

        if fusion_dim is None and self.question_encoder is not None:
            fusion_dim = _encoder_hidden_size(self.question_encoder)
        if fusion_ffn_dim is None and fusion_dim is not None:
            fusion_ffn_dim = 4 * fusion_dim
        self.fusion = fusion
        self.fusion_num_heads = fusion_num_heads
        self.fusion_dim = fusion_dim
        self.fusion_ffn_dim = fusion_ffn_dim
        self.fusion_dropout = fusion_dropout
        self.fusion_activation = fusion_activation
        self.answerability_weight = answerability_weight
        self.summary_loss_on = summary_loss_on
        self.prompt = prompt
        self.max_source_length = max_source_length
        self.share_base = share_base
        self.question_encoder_updates = dict(question_encoder_updates or {})
        self._check()

    def _check(self):
        if self.fusion not in FUSIONS:
            raise ValueError(f"`fusion` has to be one of {FUSIONS}, got {self.fusion!r}.")
        if self.summary_loss_on not in SUMMARY_LOSS_ON:
            raise ValueError(
                f"`summary_loss_on` has to be one of {SUMMARY_LOSS_ON}, got {self.summary_loss_on!r}."
            )
        for name in ("fusion_num_heads", "fusion_dim", "fusion_ffn_dim", "max_source_length"):
            value = getattr(self, name)
            if value is not None and not (type(value) is int and value >= 1):
                raise ValueError(f"`{name}` has to be an integer of 1 or more, got {value!r}.")
        if self.fusion_dim is not None and self.fusion_dim % self.fusion_num_heads:
            raise ValueError(
                f"`fusion_num_heads` has to divide `fusion_dim`, got {self.fusion_num_heads} heads "
                f"for a width of {self.fusion_dim}."
            )
        if not (is_finite(self.fusion_dropout) and 0 <= self.fusion_dropout < 1):
            raise ValueError(
                f"`fusion_dropout` has to be at least 0 and below 1, got {self.fusion_dropout!r}."
            )
        if not isinstance(self.fusion_activation, str) or self.fusion_activation not in ACT2FN:
            raise ValueError(
                f"`fusion_activation` has to be one of {', '.join(sorted(ACT2FN))}, got {self.fusion_activation!r}."
            )
        check_weight("answerability_weight", self.answerability_weight)
        if self.question_encoder_updates and not self.share_base:
            raise ValueError("`question_encoder_updates` are of a shared base, and `share_base` is False.")
        if not isinstance(self.prompt, str) or "{question}" not in self.prompt:
            raise ValueError(f"`prompt` has to contain {{question}}, got {self.prompt!r}.")

    def get_text_config(self, decoder=None, encoder=None):
        """The summarizer's text configuration: what generation and its caches go by."""
        if self.summarizer is None:
            return self
        return self.summarizer.get_text_config(decoder=decoder, encoder=encoder)

    @property
    def custom_pipelines(self):
        """
        `dict`: the pipelines that need the checkpoint's own code; none where `import crosstask` has
        registered them, which needs no `trust_remote_code` then.
        """
        # A new one each time, for `pipeline()` changes what it gets.
        return {} if self.pipelines_are_registered else copy.deepcopy(PIPELINES)

    def to_dict(self):
        """As of any configuration, without the folders of one's machine that the parts came from."""
        output = super().to_dict()
        output["custom_pipelines"] = copy.deepcopy(PIPELINES)
        for name in self.sub_configs:
            if output.get(name) is not None:
                output[name].pop("_name_or_path", None)
        return output

    @property
    def shares_vocabulary(self):
        """
        `bool`: whether the question encoder can read the summarizer's `input_ids`, which is taken to
        be so where the two vocabularies are of one size.
        """
        return self.summarizer.vocab_size == self.question_encoder.vocab_size

    # The properties that users and libraries read off any text model's configuration.
    @property
    def vocab_size(self):
        return self._of_summarizer("vocab_size")

    @property
    def hidden_size(self):
        return self._of_summarizer("hidden_size")

    @property
    def num_attention_heads(self):
        return self._of_summarizer("num_attention_heads")

    @property
    def num_hidden_layers(self):
        return self._of_summarizer("num_hidden_layers")

    def _of_summarizer(self, name):
        if self.summarizer is None:
            raise AttributeError(f"`{name}` is the summarizer's, and this configuration has none.")
        return getattr(self.get_text_config(decoder=True), name)


def is_finite(value):
    """Whether something is a finite real number, which a boolean is not."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def check_weight(name, value):
    """Refuse what no sum can be weighted with."""
    if not (is_finite(value) and value >= 0):
        raise ValueError(f"`{name}` has to be a finite number of 0 or more, got {value!r}.")


def _own_copy(config, name):
    """A configuration of its own for each part: composing may change it (see the class)."""
    if config is None or isinstance(config, PretrainedConfig):
        return copy.deepcopy(config)
    if isinstance(config, dict):
        if "model_type" not in config:
            raise ValueError(f"`{name}` needs the key 'model_type', got {sorted(config)}.")
        return AutoConfig.for_model(**copy.deepcopy(config))
    raise TypeError(f"`{name}` has to be a configuration or a dict, got {type(config).__name__}.")


def _encoder_hidden_size(config):
    """Hidden size of the (text) encoder; T5Gemma keeps it in a configuration of the encoder's own."""
    return getattr(config, "encoder", config).hidden_size


def _token_id(config, name):
    """A token id of a part; some models (T5Gemma) keep theirs in the decoder's configuration."""
    token_id = getattr(config, name, None)
    if token_id is None:
        token_id = getattr(config.get_text_config(decoder=True), name, None)
    if token_id is None and name == "decoder_start_token_id":
        token_id = _token_id(config, "bos_token_id")
    return token_id
