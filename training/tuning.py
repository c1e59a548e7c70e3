"""Choose what a stage trains: all weights, a PEFT adapter, or the last decoder layers."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from accelerate import PartialState
from peft import PeftConfig, PeftModel, get_peft_config, get_peft_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from torch import nn
from transformers import BitsAndBytesConfig, PreTrainedModel, Seq2SeqTrainingArguments

from crosstask.adapters_crosstask import NO_TARGET_LAYER
from crosstask.utils.errors import ConfigError, first_line
from crosstask.utils.logs import warn_once

if TYPE_CHECKING:
    from crosstask.training.arguments import StageArguments

logger = logging.getLogger(__name__)
QUANTIZATIONS = ("int8", "nf4")


def make_adapter_config(stage: StageArguments) -> PeftConfig | None:
    """
    Return the configuration of the adapter that a stage trains, or `None` if it trains none.

    Args:
        stage ([`StageArguments`]): `peft` has the keys of a `PeftConfig`, `lora_...` are those of LoRA.

    Raises:
        ConfigError: If the method is unknown, a key or value is wrong, or `target_modules` is missing.
    """
    settings = dict(stage.peft or {})
    peft_type = str(settings.get("peft_type", "LORA")).upper()
    if stage.lora_r and peft_type != "LORA":
        raise ConfigError(f"lora_r: expected 0 beside peft, whose peft_type is {peft_type}")
    if stage.lora_r:
        lora = {"r": stage.lora_r, "lora_alpha": stage.lora_alpha, "lora_dropout": stage.lora_dropout}
        settings = lora | settings
    elif not settings:
        return None
    if peft_type not in PEFT_TYPE_TO_CONFIG_MAPPING:
        known = ", ".join(sorted(PEFT_TYPE_TO_CONFIG_MAPPING))
        raise ConfigError(f"peft: unknown peft_type {peft_type!r}, expected one of {known}")
    if peft_type == "LORA":
        settings = {"target_modules": stage.lora_target_modules} | settings
    try:
        config = get_peft_config(settings | {"peft_type": peft_type, "task_type": "SEQ_2_SEQ_LM"})
    except (TypeError, ValueError) as error:
        raise ConfigError(f"peft: {first_line(error)}") from error
    if not getattr(config, "target_modules", None):
        raise ConfigError(f"peft: target_modules: expected the names of the layers that {peft_type} adapts")
    return config


def make_quantization_config(stage: StageArguments) -> BitsAndBytesConfig | None:
    """
    Return the `quantization_config` of the weights under an adapter, or `None` for full precision.

    "int8" is LLM.int8() (Dettmers et al., 2022, https://arxiv.org/abs/2208.07339), "nf4" the 4-bit
    NormalFloat of QLoRA (Dettmers et al., 2023, https://arxiv.org/abs/2305.14314).

    Raises:
        ConfigError: If the name is unknown or bitsandbytes is not installed.
    """
    if stage.quantization is None:
        return None
    if stage.quantization not in QUANTIZATIONS:
        expected = " or ".join(QUANTIZATIONS)
        raise ConfigError(f"quantization: expected {expected}, got {stage.quantization!r}")
    if find_spec("bitsandbytes") is None:
        raise ConfigError('quantization: needs bitsandbytes: pip install "crosstask[quantization]"')
    if stage.quantization == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")


def cast_float16(model: nn.Module) -> None:
    """
    Convert the weights of a model to float32 in place if some are float16, with a line in the log.

    Adam's epsilon and small updates are 0 in float16, and activations overflow. The exponent of bfloat16 is
    that of float32, so a model in bfloat16 stays as it is.
    """
    if all(weight.dtype != torch.float16 for weight in model.parameters()):
        return
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.dtype in (torch.float16, torch.bfloat16):
            tensor.data = tensor.data.float()
    for module in model.modules():
        if isinstance(module, PreTrainedModel):
            module.config.dtype = torch.float32
    if PartialState().is_main_process:
        warn_once(logger, "The float16 weights of the model are trained in float32, as float16 overflows.")


def add_adapter(model: PreTrainedModel, config: Any, new_fusion: bool) -> PeftModel:
    """
    Add an adapter to a model and freeze everything else.

    All weights of a new fusion are trained. A trained fusion gets LoRA on all its linear layers; with other
    methods all its weights are trained further. With a shared base, all low-rank updates of the question
    encoder are trained too. If `target_modules` is a pattern, only a new fusion is trained beside it.

    Args:
        model (`PreTrainedModel`): A cross-task model, or a summarizer or question answerer.
        config (`PeftConfig`): The result of [`make_adapter_config`]; it is changed.
        new_fusion (`bool`): Whether the fusion has not been trained.

    Raises:
        ConfigError: If the model has no layer that `target_modules` names, or peft refuses a setting.
    """
    fusion = get_fusion_modules(model)
    shared = ["question_encoder"] if getattr(model.config, "share_base", False) else []
    is_pattern = isinstance(config.target_modules, str)
    fully_trained = []
    if fusion and not is_pattern and not new_fusion and config.peft_type == "LORA":
        linear_layers = [
            name
            for name, module in model.named_modules()
            if name.split(".")[0] in fusion and isinstance(module, nn.Linear)
        ]
        config.target_modules = {*config.target_modules, *linear_layers}
        fully_trained = shared
    elif fusion and (new_fusion or not is_pattern):
        fully_trained = [*fusion, *shared]
        if hasattr(config, "exclude_modules"):  # layers of BART and of the fusion have the same names
            config.exclude_modules = _make_exclusion_pattern(fully_trained, config.exclude_modules)
    _check_modules_to_save(model, config)
    config.modules_to_save = [*(config.modules_to_save or ()), *fully_trained] or None
    targets = config.target_modules if is_pattern else sorted(config.target_modules)
    try:
        return get_peft_model(model, config)
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # each setting fails in its own way
        if NO_TARGET_LAYER.search(str(error)):
            raise ConfigError(
                f"lora_target_modules, or peft: target_modules: none of {targets} is a layer of the model"
            ) from error
        raise ConfigError(f"peft: {first_line(error)}") from error


def get_fusion_modules(model: PreTrainedModel) -> list[str]:
    """Return the names of the fusion modules that a model has; a plain summarizer has none."""
    names = getattr(model, "fusion_modules", ())
    return [name for name in names if getattr(model, name) is not None]


def _check_modules_to_save(model: PreTrainedModel, config: Any) -> None:
    names = [name for name, _ in model.named_modules()]
    known = {*names, *(name.split(".")[-1] for name in names)}
    if unknown := {*(config.modules_to_save or ())} - known:
        raise ConfigError(f"peft: modules_to_save: {min(unknown)!r} is not a module of the model")


def _make_exclusion_pattern(modules: Iterable[str], excluded: str | Iterable[str] | None) -> str:
    """Return a pattern of all layers in `modules` and of the layers that are excluded already."""
    pattern = rf"({'|'.join(modules)})\..*"
    if not excluded:
        return pattern
    if not isinstance(excluded, str):
        excluded = rf"(.*\.)?({'|'.join(map(re.escape, excluded))})"
    return f"{pattern}|{excluded}"


def freeze_all_but_last(model: PreTrainedModel, decoder_layers: int) -> PreTrainedModel:
    """
    Freeze a model except for the last layers of its decoder and its fusion, if it has one.

    Args:
        model (`PreTrainedModel`): A cross-task model, or a summarizer or question answerer.
        decoder_layers (`int`): Number of decoder layers to train; at least 1 without a fusion.

    Raises:
        ConfigError: If the model does not have that many decoder layers.
    """
    decoder = model.get_decoder()
    layers = next(child for child in decoder.children() if isinstance(child, nn.ModuleList))
    fusion = [getattr(model, name) for name in get_fusion_modules(model)]
    minimum = 0 if fusion else 1
    if not minimum <= decoder_layers <= len(layers):
        raise ConfigError(
            f"trainable.decoder_layers: expected {minimum} to {len(layers)}, the layers of the model, "
            f"got {decoder_layers}"
        )
    model.requires_grad_(False)
    for module in (*layers[len(layers) - decoder_layers :], *fusion):
        module.requires_grad_(True)
    return model


def disable_reentrant_checkpointing(args: Seq2SeqTrainingArguments) -> None:
    """
    Make gradient checkpointing, if it is on, non-reentrant unless `args` ask for the reentrant kind.

    The contrastive loss, and that of own summaries, run two forward passes before the backward pass. With
    several processes the reentrant kind, the default of transformers 4, then reports each gradient to DDP
    twice, and DDP fails.

    Raises:
        ValueError: If there are several processes and `args` ask for the reentrant kind.
    """
    if not args.gradient_checkpointing:
        return
    kwargs: Any = args.gradient_checkpointing_kwargs or {}
    settings = {"use_reentrant": False, **kwargs}
    if settings["use_reentrant"] and args.world_size > 1:
        raise ValueError(
            "gradient_checkpointing_kwargs: expected use_reentrant to be False beside contrastive_weight and "
            f"own_summary_steps, as there are {args.world_size} processes, got {settings['use_reentrant']}"
        )
    # transformers 5 renames the first to the second.
    for name in ("gradient_checkpointing_kwargs", "activation_checkpointing_kwargs"):
        if hasattr(args, name):
            setattr(args, name, settings)
