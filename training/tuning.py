"""What of a model a stage trains: all of it, an adapter of peft's on top of it, or its last layers."""

import re
from importlib.util import find_spec

from peft import get_peft_config, get_peft_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.utils import ModulesToSaveWrapper
from torch import nn
from transformers import BitsAndBytesConfig

from crosstask.adapters_crosstask import NO_LAYER
from crosstask.utils.errors import ConfigError

QUANTIZATIONS = ("int8", "nf4")
FUSION = (
    "answerability_head",
    "gated_cross_attention",
)  # the modules of a cross-task model that neither of its parts has
_TASK = "SEQ_2_SEQ_LM"


def make_adapter_config(stage):
    """
    The adapter that a stage trains, as a `peft.PeftConfig`; None where it trains none.

    Args:
        stage ([`StageArguments`]): Its `peft` has peft's own keys, and its `lora_...` the usual ones of LoRA.
    """
    settings = dict(stage.peft or {})
    kind = str(settings.get("peft_type", "LORA")).upper()
    if stage.lora_r and kind != "LORA":
        raise ConfigError(f"lora_r: expected 0 beside peft, whose peft_type is {kind}")
    if stage.lora_r:
        settings = {
            "r": stage.lora_r,
            "lora_alpha": stage.lora_alpha,
            "lora_dropout": stage.lora_dropout,
        } | settings
    elif not settings:
        return None
    if kind not in PEFT_TYPE_TO_CONFIG_MAPPING:
        known = ", ".join(sorted(PEFT_TYPE_TO_CONFIG_MAPPING))
        raise ConfigError(f"peft: unknown peft_type {kind!r}, expected one of {known}")
    if kind == "LORA":
        settings.setdefault("target_modules", stage.lora_target_modules)
    try:
        config = get_peft_config(settings | {"peft_type": kind, "task_type": _TASK})
    except (TypeError, ValueError) as error:
        raise ConfigError(f"peft: {str(error).splitlines()[0]}") from error
    if not getattr(config, "target_modules", None):
        raise ConfigError(f"peft: target_modules: expected the names of the layers that {kind} adapts")
    return config


def make_quantization_config(stage):
    """
    How a stage quantizes the weights under its adapter, for `from_pretrained`; None where it does not. int8
    is that of LLM.int8() (Dettmers et al., 2022, https://arxiv.org/abs/2208.07339), nf4 the four bits of
    QLoRA (Dettmers et al., 2023, https://arxiv.org/abs/2305.14314).
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


def add_adapter(model, config, new_fusion):
    """
    A model with an adapter to train, everything else frozen.

    Args:
        model (`PreTrainedModel`): Of the summarizer, the question answerer, or both.
        config (`peft.PeftConfig`): As of [`adapter_config`].
        new_fusion (`bool`): Whether its fusion has not been trained: it is then, whole. One that has been
            gets LoRA on all its linear layers; with other methods it is trained further, whole. Of a shared
            base, the question encoder's own updates, small as they are, are always trained whole.

    Raises:
        ConfigError: where the adapter cannot be made for this model.
    """
    fusion = [name for name in FUSION if getattr(model, name, None) is not None]
    shared = ["question_encoder"] if getattr(model.config, "share_base", False) else []
    named = isinstance(config.target_modules, str)  # a pattern, which says all that it wants
    whole = []
    if fusion and not named and not new_fusion and config.peft_type == "LORA":
        layers = [
            name
            for name, module in model.named_modules()
            if name.split(".")[0] in fusion and isinstance(module, nn.Linear)
        ]
        config.target_modules = {*config.target_modules, *layers}
        whole = shared
    elif fusion and (new_fusion or not named):
        whole = [*fusion, *shared]
        if hasattr(config, "exclude_modules"):  # BART's layers have the names of the fusion's
            config.exclude_modules = _excluded(whole, config.exclude_modules)
    there = {part for name, _ in model.named_modules() for part in (name, name.split(".")[-1])}
    if unknown := {*(config.modules_to_save or ())} - there:
        raise ConfigError(f"peft: modules_to_save: {min(unknown)!r} is no module of the model")
    config.modules_to_save = [*(config.modules_to_save or ()), *whole] or None
    targets = config.target_modules if named else sorted(config.target_modules)
    try:
        return get_peft_model(model, config)
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # as one setting or another has it
        if NO_LAYER.search(str(error)):
            raise ConfigError(
                f"lora_target_modules, or peft: target_modules: none of {targets} is a layer of the model"
            ) from error
        raise ConfigError(f"peft: {str(error).splitlines()[0]}") from error


def _excluded(modules, others):
    """A pattern of all layers in some modules, and of what else is not to be adapted."""
    own = rf"({'|'.join(modules)})\..*"
    if not others:
        return own
    if not isinstance(others, str):
        others = rf"(.*\.)?({'|'.join(map(re.escape, others))})"
    return f"{own}|{others}"


def merge_adapter(model):
    """
    The model of a `PeftModel` with its adapter's updates in its own weights. As `merge_and_unload`, which for
    other methods than LoRA takes a module that was trained whole for a single layer.
    """
    for name, module in list(model.base_model.model.named_modules()):
        if isinstance(module, ModulesToSaveWrapper):
            parent, _, child = name.rpartition(".")
            trained = module.modules_to_save[module.active_adapters[0]]
            setattr(model.base_model.model.get_submodule(parent), child, trained)
    return model.merge_and_unload()


def freeze_all_but_last(model, decoder_layers):
    """
    Freeze all but the last layers of the decoder, and the fusion, where there is one.

    Args:
        decoder_layers (`int`): How many.
    """
    decoder = model.get_decoder()
    layers = next(child for child in decoder.children() if isinstance(child, nn.ModuleList))
    fusion = [getattr(model, name) for name in FUSION if getattr(model, name, None) is not None]
    if not (0 if fusion else 1) <= decoder_layers <= len(layers):
        raise ConfigError(
            f"trainable.decoder_layers: expected {0 if fusion else 1} to {len(layers)}, which the model has, "
            f"got {decoder_layers}"
        )
    model.requires_grad_(False)
    for module in (*layers[len(layers) - decoder_layers :], *fusion):
        module.requires_grad_(True)
    return model
