"""Load pretrained checkpoints safely, check them, and batch inputs for them."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from accelerate import PartialState
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from crosstask.utils.errors import ConfigError, DataError, first_line
from crosstask.utils.hub_names import find_checkpoint

# What `from_pretrained` raises for an unusable checkpoint. RuntimeError: weights whose shapes differ from the
# configuration. ImportError and TypeError: missing tokenizer files in transformers 4.
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


def load_checkpoint(
    auto_class: type,
    checkpoint: str | os.PathLike | tuple[PreTrainedModel, PreTrainedTokenizerBase],
    dtype: str,
    device: str | torch.device | None,
    role: str,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """
    Load a model in evaluation mode, and its tokenizer.

    Args:
        auto_class (`type`): `AutoModelForSeq2SeqLM` or another of transformers' Auto classes for models.
        checkpoint (`str`, `os.PathLike` or `tuple`): A Hub id, a folder, or a loaded model with its
            tokenizer, which keeps its device and dtype.
        dtype (`str`): One of `DTYPES`; "auto" is the dtype of the checkpoint.
        device (`str` or `torch.device`, *optional*): Defaults to the accelerator of this process, or the CPU.
        role (`str`): What error messages call the model, e.g. "teacher".

    Raises:
        DataError: If the checkpoint does not exist, is not of a class that `auto_class` loads, has missing
            weights or none in safetensors, or has no usable tokenizer; or if the device is not available.
    """
    if isinstance(checkpoint, tuple):
        model, tokenizer = checkpoint
        check_architecture(auto_class, model.config, role)
        _check_tokenizer(tokenizer, model.config.name_or_path or type(model).__name__, role)
        return model.eval(), tokenizer
    if dtype not in DTYPES:
        raise DataError(f"{role}: dtype is {dtype!r}, expected one of {', '.join(DTYPES)}")
    try:
        name = find_checkpoint(checkpoint)
    except ConfigError as error:
        raise DataError(f"{role}: {error}") from None
    model, tokenizer = _load(auto_class, name, dtype, role)
    if auto_class is AutoModelForCausalLM and tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token  # few causal models have one; any works, as it is masked
    _check_tokenizer(tokenizer, name, role)
    try:
        model.to(PartialState().device if device is None else device)  # type: ignore[arg-type]
    except (AssertionError, RuntimeError) as error:  # torch was built without it, or it is absent or full
        raise DataError(
            f"{role}: {name} cannot be moved to device {device!r}: {first_line(error)}"
        ) from error
    return model.eval(), tokenizer


def _load(
    auto_class: Any, name: str, dtype: str, role: str
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    try:
        # Explicitly False: with the default, transformers asks on the terminal about a checkpoint with code.
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
        check_architecture(auto_class, config, role)
        model, info = auto_class.from_pretrained(
            name,
            config=config,
            dtype=dtype,
            use_safetensors=True,  # unpickling could run the code of a stranger
            trust_remote_code=False,
            output_loading_info=True,
        )
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except DataError:
        raise
    except LOAD_ERRORS as error:
        raise DataError(f"{role}: {name} cannot be loaded: {first_line(error)}") from error
    missing = sorted(key for key in info["missing_keys"] if not _is_computed(model, key))
    if missing:
        raise DataError(
            f"{role}: {name} lacks {len(missing)} weights ({missing[0]} for one), expected all weights of "
            f"{type(model).__name__}"
        )
    return model, tokenizer


def _is_computed(model: PreTrainedModel, key: str) -> bool:
    """Return whether a weight is computed by a formula instead of stored, as Pegasus' positions are."""
    return "Sinusoidal" in type(model.get_submodule(key.rpartition(".")[0])).__name__


def check_architecture(auto_class: Any, config: PretrainedConfig, role: str) -> None:
    """
    Raise a `DataError` unless the checkpoint with `config` was saved from a class that `auto_class` loads.

    Otherwise transformers would load, for example, a classifier as a summarizer, with random weights for what
    the checkpoint lacks.
    """
    architecture = (config.architectures or [type(config).__name__])[0]
    fits = type(config) in auto_class._model_mapping.keys()
    # Endings of the names of classes that share a configuration with those that `auto_class` loads.
    other_heads: tuple[str, ...] = ("Generation", "Model", "LM")
    if auto_class is AutoModelForSeq2SeqLM:
        fits = fits and config.is_encoder_decoder
        other_heads = ("Classification", "QuestionAnswering", "EncoderModel")
    elif auto_class is AutoModelForCausalLM:  # it loads the decoders of BERT and BART, too
        fits = fits and not config.is_encoder_decoder
        other_heads = ("Classification", "QuestionAnswering", "MaskedLM", "PreTraining", "BertModel")
    if not fits or architecture.endswith(other_heads):
        where = f" ({config.name_or_path})" if config.name_or_path else ""
        raise DataError(f"{role}: got a {architecture}{where}, expected a model of {auto_class.__name__}")


def _check_tokenizer(tokenizer: PreTrainedTokenizerBase, name: str, role: str) -> None:
    # If its files are missing, transformers 5 returns a tokenizer without words (of T5, with only "▁").
    if len(tokenizer.get_vocab().keys() - set(tokenizer.all_special_tokens)) < 2:
        raise DataError(f"{role}: {name}: expected a tokenizer beside the model, found none")
    if tokenizer.pad_token is None:
        raise DataError(f"{role}: {name}: expected a tokenizer with a padding token")
    # transformers 4 warns against encoding before padding, which batches by length need.
    getattr(tokenizer, "deprecation_warnings", {})["Asking-to-pad-a-fast-tokenizer"] = True


def check_counts(role: str, **counts: int | None) -> None:
    """Raise a `DataError` unless every value in `counts` is a positive integer or `None`."""
    for name, value in counts.items():
        if value is not None and (type(value) is not int or value < 1):
            raise DataError(f"{role}: {name} is {value!r}, expected a positive integer")


def batch_by_length(encoded: Mapping[Any, Mapping[str, Collection]], batch_size: int) -> Iterator[list]:
    """
    Yield the keys of `encoded` in batches of similar length, the longest first.

    A batch that does not fit into memory therefore fails at once. Equal lengths are ordered by key, so that
    the order of `encoded` has no influence.

    Args:
        encoded (`Mapping`): What a tokenizer returned for a text, with `input_ids`, by a sortable key.
        batch_size (`int`): Keys per batch.
    """
    keys = sorted(encoded, key=lambda key: (len(encoded[key]["input_ids"]), key), reverse=True)
    for start in range(0, len(keys), batch_size):
        yield keys[start : start + batch_size]


def make_non_finite_error(model: PreTrainedModel, role: str) -> DataError:
    """Return the error for a model that returned infinite or undefined numbers, e.g. after an overflow."""
    dtype = str(model.dtype).removeprefix("torch.")
    name = model.config.name_or_path or type(model).__name__
    return DataError(f"{role}: {name} returns numbers that are not finite in {dtype}, expected dtype float32")
