"""Models that others trained, as the making of data uses them: loaded safely, and run in batches."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from accelerate import PartialState
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PretrainedConfig,
)

from crosstask.utils.errors import DataError

# RuntimeError: weights of other shapes than the configuration says. ImportError and TypeError: what
# transformers 4 says where the tokenizer's files are not there.
LOAD_ERRORS = (
    ImportError,
    OSError,
    RuntimeError,
    SafetensorError,
    StrictDataclassError,
    TypeError,
    ValueError,
)
DTYPES = ("auto", "float32", "bfloat16", "float16")


def load_checkpoint(auto_class, model, dtype, device, role: str):
    """Load a model, in evaluation mode, and its tokenizer.

    Args:
        auto_class: `AutoModelForSeq2SeqLM` or another class of that kind.
        model: A Hub id, a folder, or a pair (model, tokenizer) that is loaded already and stays on its
            device and in its dtype.
        dtype: One of `DTYPES`; "auto" is the checkpoint's own.
        device: Where to, as torch names it; None is this process' accelerator, or the CPU.
        role: What errors call the model, e.g. "teacher".

    Raises:
        DataError: If there is no such checkpoint, it is of another kind than `auto_class`, its weights
            are not whole or not in safetensors, or its tokenizer cannot pad.
    """
    if isinstance(model, tuple):
        model, tokenizer = model
        check_kind(auto_class, model.config, role)
        _check_tokenizer(tokenizer, model.config.name_or_path, role)
        return model.eval(), tokenizer
    if dtype not in DTYPES:
        raise DataError(f"{role}: dtype is {dtype!r}, expected one of {', '.join(DTYPES)}")
    name = str(model)
    try:
        # Asked outright: where a checkpoint has code of its own, the default would wait for an answer.
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
        check_kind(auto_class, config, role)
        model, info = auto_class.from_pretrained(
            name,
            config=config,
            dtype=dtype,
            use_safetensors=True,  # a pickle could run code of whoever made it
            trust_remote_code=False,
            output_loading_info=True,
        )
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except DataError:
        raise
    except LOAD_ERRORS as error:
        raise DataError(f"{role}: {name} cannot be loaded: {_said(error)}") from error
    # What transformers makes up at random, that is: positions by a formula, Pegasus' say, are not stored.
    missing = sorted(key for key in info["missing_keys"] if not _is_formula(model, key))
    if missing:
        raise DataError(
            f"{role}: {name} has no weights {missing[0]} (one of {len(missing)} that are missing), expected "
            f"a whole {type(model).__name__}"
        )
    if auto_class is AutoModelForCausalLM and tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token  # few have one, and what it is does not matter
    _check_tokenizer(tokenizer, name, role)
    try:
        return model.to(PartialState().device if device is None else device).eval(), tokenizer
    except (AssertionError, RuntimeError) as error:  # no such device, none of its kind, or no room on it
        raise DataError(f"{role}: {name} cannot be moved to device {device!r}: {_said(error)}") from error


def _is_formula(model, key: str) -> bool:
    return "Sinusoidal" in type(model.get_submodule(key.rpartition(".")[0])).__name__


def check_kind(auto_class, config: PretrainedConfig, role: str) -> None:
    """Raise a `DataError` unless a checkpoint of this configuration was saved as what is wanted."""
    architecture = (config.architectures or [type(config).__name__])[0]
    fits = type(config) in auto_class._model_mapping.keys()
    # A classifier of BART's would load as a summarizer, and a bare encoder as a judge, with random weights.
    others = ("Generation", "Model", "LM")
    if auto_class is AutoModelForSeq2SeqLM:
        fits = fits and config.is_encoder_decoder
        others = ("Classification", "QuestionAnswering", "EncoderModel")
    elif auto_class is AutoModelForCausalLM:  # the class has BERT's and BART's decoders, too
        fits = fits and not config.is_encoder_decoder
        others = ("Classification", "QuestionAnswering", "MaskedLM", "PreTraining", "BertModel")
    fits = fits and not architecture.endswith(others)
    if not fits:
        where = f" ({config.name_or_path})" if config.name_or_path else ""
        raise DataError(f"{role}: got a {architecture}{where}, expected a model of {auto_class.__name__}")


def _check_tokenizer(tokenizer, name: str, role: str) -> None:
    # Where there are no files for it, transformers 5 makes one up that knows no word (T5's has "▁").
    if len(tokenizer.get_vocab().keys() - set(tokenizer.all_special_tokens)) < 2:
        raise DataError(f"{role}: {name}: expected a tokenizer beside the model, found none")
    if tokenizer.pad_token is None:
        raise DataError(f"{role}: {name}: expected a tokenizer with a padding token")
    # Texts are encoded before they are batched by length: transformers 4 would advise against it.
    getattr(tokenizer, "deprecation_warnings", {})["Asking-to-pad-a-fast-tokenizer"] = True


def _said(error: BaseException) -> str:
    """The first line of what an error says: the whole of it may be a page."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def check_counts(role: str, **counts: int | None) -> None:
    """Raise a `DataError` unless every count is a positive integer, or None."""
    for name, value in counts.items():
        if value is not None and (type(value) is not int or value < 1):
            raise DataError(f"{role}: {name} is {value!r}, expected a positive integer")


def get_max_positions(model, side: str | None = None) -> float:
    """How many positions a model has embeddings for, in tokens; infinite where it needs none.

    Args:
        model: A loaded model.
        side: "encoder" or "decoder" of a sequence-to-sequence model; None for any other.
    """
    config = model.config.get_text_config(**({side: True} if side else {}))
    for name in (f"max_{side}_position_embeddings", "max_position_embeddings"):
        if getattr(config, name, None) is not None:
            # RoBERTa and its kin number positions from the one after the padding's: 514 are 512.
            table = getattr(getattr(model.base_model, "embeddings", None), "position_embeddings", None)
            padding = getattr(table, "padding_idx", None)
            return getattr(config, name) - (0 if padding is None else padding + 1)
    return float("inf")


def batch_by_length(encoded: Mapping[Any, Mapping[str, Collection]], batch_size: int) -> Iterator[list]:
    """Yield the keys in batches of like length, the longest first, so that a batch that does not fit
    into memory fails at once. Ties go by key: the order in which the keys came does not matter.

    Args:
        encoded: `input_ids` and the like by key; keys can be compared.
        batch_size: Keys a batch.
    """
    keys = sorted(encoded, key=lambda key: (len(encoded[key]["input_ids"]), key), reverse=True)
    for start in range(0, len(keys), batch_size):
        yield keys[start : start + batch_size]


def non_finite_error(model, role: str) -> DataError:
    """The error for a model that overflowed."""
    dtype = str(model.dtype).removeprefix("torch.")
    name = model.config.name_or_path or type(model).__name__
    return DataError(f"{role}: {name} gives numbers that are not finite in {dtype}, expected dtype float32")
