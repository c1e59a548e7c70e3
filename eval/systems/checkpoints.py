"""Identify a checkpoint without loading its weights: its configuration, its base model, its revision."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from transformers import AutoConfig, PretrainedConfig
from transformers.utils import CONFIG_NAME, cached_file, extract_commit_hash, find_adapter_config_file

from crosstask.processing_crosstask import QUESTION_TOKENIZER
from crosstask.utils.errors import DataError, first_line
from crosstask.utils.files import hash_file
from crosstask.utils.pretrained import LOAD_ERRORS

# Suffixes of the files that determine a model's outputs; cards, pictures and training state do not.
_SUFFIXES = (".json", ".safetensors", ".model", ".txt", ".jinja")


def get_adapter_base(checkpoint: str | os.PathLike) -> str | None:
    """Return the name of the base model if `checkpoint` is a PEFT adapter, else None.

    Raises:
        DataError: If the adapter's configuration cannot be loaded.
    """
    try:
        if find_adapter_config_file(str(checkpoint)) is None:
            return None
        from peft import PeftConfig

        return PeftConfig.from_pretrained(str(checkpoint)).base_model_name_or_path
    except LOAD_ERRORS as error:
        raise load_error(checkpoint, error) from error


def get_model_config(checkpoint: str | os.PathLike) -> PretrainedConfig:
    """Return the configuration of a checkpoint's model; for an adapter, that of its base model.

    Raises:
        DataError: If the configuration cannot be loaded.
    """
    base = get_adapter_base(checkpoint)
    if base is not None:
        return get_model_config(base)
    try:
        # By default, transformers would ask on the terminal whether to run a checkpoint's code.
        return AutoConfig.from_pretrained(checkpoint, trust_remote_code=False)
    except LOAD_ERRORS as error:
        raise load_error(checkpoint, error) from error


def get_revision(checkpoint: str | os.PathLike) -> str:
    """Return a string that changes when the content of a checkpoint changes.

    It is the commit of a Hub id, or a digest of the configurations, tokenizers and weights of a folder,
    which takes about a second per gigabyte. An adapter's revision includes that of its base model.

    Args:
        checkpoint (`str` or `os.PathLike`): A Hub id or a folder that [`get_model_config`] can read.
    """
    base, folder = get_adapter_base(checkpoint), Path(checkpoint)
    if folder.is_dir():
        files = [path for path in folder.iterdir() if path.suffix in _SUFFIXES and path.is_file()]
        digest = hashlib.sha256()
        for path in sorted([*files, *(folder / QUESTION_TOKENIZER).glob("*.json")]):
            digest.update(f"{path.relative_to(folder).as_posix()}\0{hash_file(path)}\n".encode())
        revision = digest.hexdigest()[:16]
    else:  # the file is in a folder of the Hub's cache that is named after the commit
        name = str(checkpoint)
        file = cached_file(name, CONFIG_NAME) if base is None else find_adapter_config_file(name)
        revision = str(extract_commit_hash(file, None))
    return revision if base is None else f"{revision}+{get_revision(base)}"


def load_error(checkpoint: str | os.PathLike, error: Exception) -> DataError:
    """Return the error for a checkpoint that cannot be loaded because of `error`."""
    return DataError(f"{checkpoint} cannot be loaded: {first_line(error)}")
