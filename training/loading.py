"""Load checkpoints and create configurations for training, with errors that name the key of the recipe."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate import PartialState
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
)
from transformers.integrations import get_available_reporting_integrations

from crosstask import CrossTaskConfig
from crosstask.eval.systems.checkpoints import get_adapter_base
from crosstask.loading_crosstask import prepare_tokenizer
from crosstask.training.arguments import Recipe
from crosstask.utils.errors import ConfigError, first_line, suggest
from crosstask.utils.hub_names import find_checkpoint

# One of these is in the folder of each model or adapter.
MODEL_FILES = ("config.json", "adapter_config.json")


def load_pretrained(auto_class: Any, name: str | os.PathLike, key: str, **kwargs: Any) -> Any:
    """
    Call `auto_class.from_pretrained`.

    Args:
        auto_class (`type`): The class to load, such as `AutoModelForSeq2SeqLM`.
        name (`str` or `os.PathLike`): Hub id or folder.
        key (`str`): The recipe's key that names it.
        kwargs: Arguments of `from_pretrained`.

    Raises:
        ConfigError: If it cannot be loaded.
    """
    try:
        return auto_class.from_pretrained(name, **kwargs)
    # RuntimeError: the shapes of the weights differ from those in the configuration.
    except (ImportError, OSError, RuntimeError, SafetensorError, StrictDataclassError, ValueError) as error:
        raise ConfigError(f"{key}: {name}: {describe_missing_package(error)}") from error


def describe_missing_package(error: Exception) -> str:
    """Describe in one sentence which package a tokenizer needs, or what else is wrong with it."""
    text = str(error).lower()
    if "tiktoken" in text:  # without sentencepiece, transformers 5 reads its files as those of tiktoken
        text += " sentencepiece"
    for package in ("sentencepiece", "tiktoken", "sacremoses"):
        if package in text and importlib.util.find_spec(package) is None:
            extra = '"crosstask[tokenizers]"' if package == "sentencepiece" else package
            command = f"pip install {extra}"
            return f"its tokenizer needs the package {package}, which is not installed; expected `{command}`"
    return first_line(error)


def load_tokenizer(name: str | os.PathLike, key: str) -> PreTrainedTokenizerBase:
    """
    Load the tokenizer of a checkpoint; see [`load_pretrained`].

    Raises:
        ConfigError: If it cannot be loaded, the checkpoint has no tokenizer, or that has no padding token.
    """
    tokenizer = load_pretrained(AutoTokenizer, name, key)
    # Without files, transformers 5 creates a tokenizer with no tokens but special ones (T5's also has "▁").
    if len(tokenizer.get_vocab().keys() - set(tokenizer.all_special_tokens)) < 2:
        raise ConfigError(f"{key}: {name}: expected a tokenizer beside the model, found none")
    try:
        prepare_tokenizer(tokenizer, "tokenizer")
    except ValueError as error:
        raise ConfigError(f"{key}: {name}: {error}") from error
    return tokenizer


def configure_generation(model: PreTrainedModel, training: Seq2SeqTrainingArguments) -> None:
    """
    Set the generation settings of a model to those that a stage is validated with, which are saved with it.

    Args:
        model (`PreTrainedModel`): The model that the stage trains.
        training (`Seq2SeqTrainingArguments`): Its `generation_config`, `generation_max_length` and
            `generation_num_beams` replace settings of the model, if they are set.

    Raises:
        ConfigError: If the file of the `generation_config` cannot be loaded.
    """
    config = model.generation_config
    if training.generation_config is not None:
        try:
            source: Any = training.generation_config
            settings = Seq2SeqTrainer.load_generation_config(source).to_diff_dict()
        except (OSError, ValueError) as error:
            raise ConfigError(f"generation_config: {first_line(error)}") from error
        settings = {name: value for name, value in settings.items() if value is not None}
        if "max_new_tokens" in settings:
            config.max_length = None
        config.update(**settings)
        training.generation_config = None  # or the trainer replaces all settings, and loses the token ids
    if training.generation_max_length is not None:
        config.max_length, config.max_new_tokens = training.generation_max_length, None
    if training.generation_num_beams is not None:
        config.num_beams = training.generation_num_beams


def load_part(
    checkpoint: str | os.PathLike, key: str, stage: str
) -> tuple[PreTrainedTokenizerBase, PretrainedConfig]:
    """
    Load the tokenizer and the configuration of a summarizer or question answerer.

    Args:
        checkpoint (`str` or `os.PathLike`): Hub id or folder; for the stage "fuse" also that of an adapter,
            for which the configuration is that of its base model.
        key (`str`): The recipe's key that names it.
        stage (`str`): The stage that needs it. The first two train sequence-to-sequence models.

    Raises:
        ConfigError: If it cannot be loaded, is a cross-task model, or is not a sequence-to-sequence
            model where one is needed.
        DataError: If the configuration of an adapter cannot be loaded.
    """
    tokenizer = load_tokenizer(checkpoint, key)
    base = get_adapter_base(checkpoint) if stage == "fuse" else None
    config = load_pretrained(AutoConfig, base or checkpoint, key)
    if config.model_type == CrossTaskConfig.model_type:
        raise ConfigError(
            f"{key}: {checkpoint} is a cross-task model already, expected a model of one task; name it as "
            "model to train it further"
        )
    if stage != "fuse" and not config.is_encoder_decoder:
        hint = "expected a model such as T5 or BART"
        if stage == "answer":
            hint = "leave 'answer' out of stages to fuse it as it is"
        raise ConfigError(f"{key}: {checkpoint} is not a sequence-to-sequence model; {hint}")
    return tokenizer, config


def make_config(
    settings: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, key: str
) -> PretrainedConfig:
    """
    Create the configuration of a sequence-to-sequence model that is trained from scratch.

    Args:
        settings (`dict`): Keys of the configuration, with `model_type`. Sizes and ids of the vocabulary
            default to those of the tokenizer.
        tokenizer (`PreTrainedTokenizerBase`): The tokenizer of the model.
        key (`str`): The recipe's key that holds the settings.

    Raises:
        ConfigError: If a key or value is wrong, or the model is not a sequence-to-sequence model.
    """
    if "model_type" not in settings:
        raise ConfigError(f"{key}: expected model_type among its keys, got {', '.join(settings)}")
    model_type = settings["model_type"]
    if model_type not in CONFIG_MAPPING:
        hint = suggest(model_type, CONFIG_MAPPING) or ", expected t5 or bart"
        raise ConfigError(f"{key}: unknown model_type {model_type!r}{hint}")
    vocabulary = {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "decoder_start_token_id": tokenizer.pad_token_id,
    }
    try:
        config = AutoConfig.for_model(**{**vocabulary, **settings})
    except (StrictDataclassError, TypeError, ValueError) as error:
        raise ConfigError(f"{key}: {' '.join(str(error).split())}") from error
    known = CONFIG_MAPPING[model_type]().to_dict().keys() | config.attribute_map.keys()
    for name in settings.keys() - known:
        raise ConfigError(f"{key}: unknown key {name!r} for a {model_type}{suggest(name, known)}")
    if not config.is_encoder_decoder:
        raise ConfigError(
            f"{key}: {model_type} is not a sequence-to-sequence model; expected one such as t5 or bart"
        )
    return config


def find_last_checkpoint(folder: Path) -> str | None:
    """
    Return the newest complete checkpoint of an interrupted stage, or `None` if there is none.

    Newer, incomplete checkpoints are deleted: `trainer_state.json` is written last, so it is missing or
    unreadable if the process was killed while it wrote the checkpoint.
    """
    checkpoints = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    for checkpoint in reversed(checkpoints):
        try:
            json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
            return str(checkpoint)
        except (OSError, ValueError):
            if PartialState().is_main_process:
                shutil.rmtree(checkpoint)
    return None


def check_machine(recipe: Recipe) -> None:
    """
    Refuse models and trackers that this machine lacks, and let the folders of runs stand for their models.

    Raises:
        ConfigError: The sentence names the key.
    """
    for name in ("model", "summarizer", "question_answerer"):
        if getattr(recipe.run, name) is not None:
            try:
                setattr(recipe.run, name, find_checkpoint(getattr(recipe.run, name)))
            except ConfigError as error:
                raise ConfigError(f"{name}: {error}") from None
            folder = Path(getattr(recipe.run, name))
            if folder.is_dir() and not any((folder / file).exists() for file in MODEL_FILES):
                raise ConfigError(f"{name}: {folder}: the folder has no config.json, expected a model")
    trackers = {"all", "none", *get_available_reporting_integrations()}
    for stage in recipe.stages.values():
        for name in stage.training.report_to or ():
            if name not in trackers:
                raise ConfigError(f"report_to: {name} is not installed, expected none or a tracker that is")
