"""What the two parts share: a tokenizer, and a base that the question encoder runs with low-rank updates."""

from __future__ import annotations

import difflib
import inspect
import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from transformers import AutoTokenizer, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_outputs import BaseModelOutput
from transformers.utils import find_adapter_config_file

from .configuration_crosstask import CrossTaskConfig, get_vocab_size
from .fusion_crosstask import get_thread_name
from .loading_crosstask import get_text_encoder, load_task_model, select_hub_kwargs

# Arguments of `PretrainedConfig` that are no attributes of every configuration.
_CONFIG_KEYS = {"attn_implementation", "output_attentions", "tie_word_embeddings", "use_cache"}
_CONFIG_KEYS |= {f"{name}_token_id" for name in ("bos", "eos", "pad", "decoder_start")}

ADAPTER_PREFIX = "base_model.model."  # of all names in an adapter's weights
# Initializations of LoRA that leave the base model unchanged. Others, such as PiSSA, subtract the initial
# update from its weights.
_INITIALIZATIONS = (True, False, "gaussian", "orthogonal", "eva")


class SharedEncoder(nn.Module):
    r"""
    A question encoder that runs the summarizer's encoder with low-rank updates of its linear layers.

    Where a layer of the summarizer's encoder computes W x, this one computes W x + U D x, with D of shape
    `(rank, in_features)` and U of shape `(out_features, rank)` (Hu et al., 2021, "LoRA",
    https://arxiv.org/abs/2106.09685, section 4.1).

    How it works: the encoder stays a module of the summarizer, so that its weights are in memory and in the
    checkpoint once. `forward` adds the updates with forward hooks, which it removes at the end. Hooks act
    only in the thread that called `forward`, because another thread, of a server for instance, may run the
    summarizer at the same time.

    Args:
        encoder (`PreTrainedModel`):
            The summarizer's encoder.
        ranks (`dict[str, int]`):
            The rank of each layer's update, by the layer's name in the encoder.
    """

    def __init__(self, encoder: PreTrainedModel, ranks: Mapping[str, int]):
        super().__init__()
        self.config = encoder.config
        self.updates = nn.ModuleDict()
        for name, rank in ranks.items():
            layer = encoder.get_submodule(name)
            down = nn.Linear(layer.in_features, rank, bias=False)
            up = nn.Linear(rank, layer.out_features, bias=False)
            self.updates[_to_key(name)] = nn.Sequential(down, up)

    @torch.no_grad()
    def set_updates(self, updates: Mapping[str, tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Set the matrices `(D, U)` of each layer, by its name. Their ranks have to fit the encoder's."""
        for name, matrices in updates.items():
            for linear, matrix in zip(self.updates[_to_key(name)], matrices, strict=True):
                linear.weight.copy_(matrix)

    def forward(self, get_encoder: Callable[[], PreTrainedModel], **inputs: Any) -> BaseModelOutput:
        """
        Run the summarizer's encoder with the updates.

        Args:
            get_encoder (`Callable`):
                Function that returns the summarizer's encoder. (accelerate would move an encoder among the
                inputs to the device of this module.)
            inputs: Arguments of the encoder.

        Returns:
            The encoder's output.
        """
        encoder = get_encoder()
        with self._add_updates(encoder):
            return encoder(**inputs)

    @contextmanager
    def _add_updates(self, encoder):
        caller = get_thread_name()

        def make_hook(update):
            def hook(_, args, output):
                if get_thread_name() != caller:
                    return None
                weight = update[0].weight
                change = update(args[0].to(weight.device, weight.dtype))
                return output + change.to(output.device, output.dtype)

            return hook

        with ExitStack() as stack:
            for key, update in self.updates.items():
                layer = encoder.get_submodule(_to_name(key))
                stack.callback(layer.register_forward_hook(make_hook(update)).remove)
            # Gradient checkpointing would run the layers again in the backward pass, without the hooks.
            for module in encoder.modules():
                if getattr(module, "gradient_checkpointing", False):
                    module.gradient_checkpointing = False
                    stack.callback(setattr, module, "gradient_checkpointing", True)
            yield


def _to_key(name):
    return name.replace(".", "-")  # the key of a ModuleDict must not have dots


def _to_name(key):
    return key.replace("-", ".")


# Loading two adapters of one base model.


def load_task_tokenizer(
    model: str | os.PathLike | nn.Module, model_kwargs: Mapping[str, Any] | None = None
) -> PreTrainedTokenizerBase | None:
    """
    Load the tokenizer beside a summarizer or a question answerer, or that of an adapter's base model.

    Args:
        model, model_kwargs: Same as in [`load_task_model`].

    Returns:
        The tokenizer, or `None` if there is none, as for a model that was not loaded from a checkpoint.
    """
    kwargs = select_hub_kwargs(model_kwargs or {})
    is_loaded = not isinstance(model, (str, os.PathLike))
    name = model.config.name_or_path if is_loaded else model
    trust = not is_loaded and bool((model_kwargs or {}).get("trust_remote_code"))
    for _ in range(2):
        if not name:
            return None
        try:
            tokenizer = AutoTokenizer.from_pretrained(name, **kwargs | {"trust_remote_code": trust})
        except (OSError, ValueError, KeyError, ImportError):
            tokenizer = None
        # Without files, transformers 5 creates a tokenizer of special tokens (T5's also has "▁").
        if tokenizer is not None and set(tokenizer.get_vocab()) - {*tokenizer.all_special_tokens, "▁"}:
            return tokenizer
        adapter = find_adapter_config_file(name, **kwargs)
        if adapter is None:
            return None
        with open(adapter, encoding="utf-8") as file:
            name, trust = json.load(file).get("base_model_name_or_path"), False
    return None


def compare_vocabularies(
    summarizer: PreTrainedTokenizerBase | None, question_answerer: PreTrainedTokenizerBase | None
) -> bool | None:
    """Return whether two tokenizers give each token the same id, or `None` if one of them is missing."""
    if summarizer is None or question_answerer is None:
        return None
    return summarizer.get_vocab() == question_answerer.get_vocab()


def check_part(config: PretrainedConfig, name: str) -> None:
    """Raise a `ValueError` if `config`, of the part called `name`, is that of a cross-task model."""
    if config.model_type == CrossTaskConfig.model_type:
        raise ValueError(
            f"`{name}` is a cross-task model already, expected a model of one task; load it with "
            "`from_pretrained` to train it further."
        )


def check_config_kwargs(kwargs: Mapping[str, Any]) -> None:
    """
    Raise a `TypeError` if a name is not an argument of [`CrossTaskConfig`], which takes and keeps any name.

    `dtype` is refused as well: a composed model has the dtype of its parts.
    """
    known = {
        *inspect.signature(CrossTaskConfig.__init__).parameters,
        *vars(PretrainedConfig()),
        *_CONFIG_KEYS,
    }
    known -= {"self", "kwargs", "summarizer", "question_encoder", "dtype", "torch_dtype"}
    for name in kwargs:
        if name not in known:
            matches = difflib.get_close_matches(name, sorted(known), n=1)
            hint = (
                f"did you mean `{matches[0]}`?"
                if matches
                else "`model_kwargs` has those of `from_pretrained`."
            )
            raise TypeError(f"`{name}` is not an argument of CrossTaskConfig; {hint}")


def check_table_sizes(config: CrossTaskConfig, tokenizers: Sequence[PreTrainedTokenizerBase | None]) -> None:
    """
    Raise a `ValueError` unless the embeddings of both parts have a row for each token that they read.

    Special tokens may lie beyond the table, as `<mask>` of bart-large-cnn does: no text contains them.

    Args:
        config ([`CrossTaskConfig`]): The configuration of the composed model.
        tokenizers (`list[PreTrainedTokenizerBase | None]`): Those of summarizer and question answerer.
    """
    readers = [(config.summarizer, tokenizers[0], "summarizer")]
    readers.append((config.question_encoder, tokenizers[not config.shares_vocabulary], "question encoder"))
    for part, tokenizer, role in readers:
        if tokenizer is None:
            continue
        ids = set(tokenizer.get_vocab().values()) - set(tokenizer.all_special_ids)
        size = get_vocab_size(part)
        if ids and max(ids) >= size:
            raise ValueError(
                f"the {role}'s embeddings have {size} rows, and its tokenizer ids up to {max(ids)}; resize "
                "the embeddings, or take the tokenizer that it was trained with."
            )


def load_shared_base(
    summarizer: str | os.PathLike | nn.Module,
    question_answerer: str | os.PathLike | nn.Module,
    model_kwargs: Mapping[str, Any] | None = None,
) -> tuple[PreTrainedModel, dict[str, tuple[torch.Tensor, torch.Tensor]]]:
    """
    Load a summarizer, and the low-rank updates that turn its encoder into the question answerer's.

    Args:
        summarizer, question_answerer (`str`, `os.PathLike`, `PeftModel` or `PreTrainedModel`):
            Two LoRA adapters of one base model, or that base model itself, which needs no updates.
        model_kwargs (`dict`, *optional*):
            Arguments of `from_pretrained`.

    Returns:
        `(summarizer, updates)`: the summarizer with its adapter merged, and the matrices `(D, U)` of each
        updated layer of its encoder, see [`SharedEncoder`].

    Raises:
        ValueError: if the base models differ, or an adapter changes an encoder by more than plain LoRA on its
            linear layers.
    """
    _check_one_base(summarizer, question_answerer, model_kwargs)
    model = load_task_model(summarizer, model_kwargs)
    encoder = get_text_encoder(model)
    encoder_layers = {name for name, _ in encoder.named_modules()}
    # Subtracting the summarizer's update leads back to the base model; the question answerer's is added.
    updates: dict[str, list] = {}
    for task_model, sign in ((question_answerer, 1), (summarizer, -1)):
        pairs, other_weights = _read_adapters(task_model, model_kwargs)
        for layer, (down, up) in pairs:
            if (name := get_name_in_encoder(layer)) in encoder_layers:
                updates.setdefault(name, []).append((down, sign * up))
            else:
                other_weights.append(layer)
        # Weights outside the encoder do not matter: the summarizer's are merged, the answerer's not used.
        for name in other_weights:
            if _shares_weights(encoder, name, model):
                raise unsupported_adapter(_describe(task_model), name)
    joined = {
        name: (torch.cat([down for down, _ in pairs]), torch.cat([up for _, up in pairs], dim=1))
        for name, pairs in updates.items()
    }
    return model, joined


def _read_adapters(task_model, model_kwargs):
    """
    Read the active adapters of a task model.

    Returns:
        `(pairs, other_weights)`: a list of `(layer, (D, U))`, and a list of the names of all other weights.
        Both are empty for a model without adapters.
    """
    hub_kwargs = select_hub_kwargs(model_kwargs or {})
    adapters = []
    if hasattr(task_model, "merge_and_unload"):  # a loaded PeftModel
        from peft import get_peft_model_state_dict

        for name in task_model.active_adapters:
            # peft would add embeddings that no adapter changed.
            weights = get_peft_model_state_dict(task_model, adapter_name=name, save_embedding_layers=False)
            adapters.append((task_model.peft_config[name], weights))
    elif not isinstance(task_model, nn.Module) and find_adapter_config_file(task_model, **hub_kwargs):
        from peft import PeftConfig, load_peft_weights

        config = PeftConfig.from_pretrained(task_model, **hub_kwargs)
        adapters.append((config, load_peft_weights(task_model, device="cpu", **hub_kwargs)))
    pairs, other_weights = [], []
    for config, weights in adapters:
        adapter_pairs, others = read_lora_matrices(config.to_dict(), weights, _describe(task_model))
        pairs += adapter_pairs.items()
        other_weights += others
    return pairs, other_weights


def read_lora_matrices(
    config: Mapping[str, Any], weights: Mapping[str, torch.Tensor], adapter: str | os.PathLike
) -> tuple[dict[str, tuple[torch.Tensor, torch.Tensor]], dict[str, torch.Tensor]]:
    """
    Read the matrices of a LoRA adapter.

    Args:
        config (`dict`): The content of `adapter_config.json`.
        weights (`dict[str, torch.Tensor]`): The content of `adapter_model.safetensors`.
        adapter (`str` or `os.PathLike`): What an error calls the adapter.

    Returns:
        `(pairs, other_weights)`: the matrices `(D, U)` by the name of each adapted linear layer, with U
        multiplied by the scale, which is alpha / r, or alpha / sqrt(r) with `use_rslora`; and all other
        weights by their names without [`ADAPTER_PREFIX`] (biases, embeddings, modules that were trained in
        full).

    Raises:
        ValueError: if the adapter is not a sum of low-rank products, its ranks or scales differ between
            layers, or its initialization changed the base model (PiSSA, OLoRA).
    """
    unsupported = [key for key in ("use_dora", "rank_pattern", "alpha_pattern") if config.get(key)]
    if config.get("init_lora_weights", True) not in _INITIALIZATIONS:
        unsupported.append("init_lora_weights")
    if config["peft_type"] != "LORA" or unsupported:
        raise unsupported_adapter(adapter, unsupported[0] if unsupported else config["peft_type"])
    rank = config["r"]
    scale = config["lora_alpha"] / (rank**0.5 if config.get("use_rslora") else rank)
    pairs, other_weights = {}, {}
    for key, weight in weights.items():
        name = key.removeprefix(ADAPTER_PREFIX)
        layer, _, matrix = name.rpartition(".lora_")
        if matrix == "A.weight":
            pairs[layer] = weight, scale * weights[key.replace(".lora_A.", ".lora_B.")]
        elif matrix != "B.weight":
            other_weights[name] = weight
    return pairs, other_weights


def unsupported_adapter(adapter: str | os.PathLike, reason: str) -> ValueError:
    """Return the error for an adapter with something other than plain LoRA, which would be lost."""
    return ValueError(f"{adapter} is an adapter with {reason}, expected plain LoRA.")


def get_name_in_encoder(layer: str) -> str | None:
    """Return a layer's name within the encoder, e.g. `"block.0"` for `"model.encoder.block.0"`, or `None`."""
    _, separator, name = f".{layer}".partition(".encoder.")
    return name if separator else None


def _shares_weights(encoder, name, model):
    """Return whether the module of `model` that has the weight `name` shares weights with `encoder`."""
    modules = dict(model.named_modules())
    while name not in modules:
        name = name.rpartition(".")[0]
    encoder_weights = {id(weight) for weight in encoder.parameters()}
    return any(id(weight) in encoder_weights for weight in modules[name].parameters())


def _check_one_base(summarizer, question_answerer, model_kwargs):
    """Raise a ValueError if the two have different base models."""
    task_models = summarizer, question_answerer
    if any(isinstance(task_model, nn.Module) for task_model in task_models):
        # A loaded model may have no name, or other weights than the checkpoint of that name.
        encoders = [
            get_text_encoder(load_task_model(task_model, model_kwargs, merge=False))
            for task_model in task_models
        ]
        if not _have_equal_weights(*encoders):
            raise ValueError(
                f"`share_base` needs two adapters of one base model, got one of {_describe(summarizer)} and "
                f"one of {_describe(question_answerer)}, whose encoders differ in weights or dtype."
            )
        return
    bases = [_get_base_name(task_model, model_kwargs) for task_model in task_models]
    if bases[0] != bases[1]:
        raise ValueError(
            f"`share_base` needs two adapters of one base model, got one of {bases[0]} and one of {bases[1]}."
        )


def _have_equal_weights(model, other):
    weights, other_weights = model.state_dict(), other.state_dict()
    return weights.keys() == other_weights.keys() and all(
        weight.dtype == other_weights[name].dtype
        and torch.equal(weight, other_weights[name].to(weight.device))
        for name, weight in weights.items()
    )


def _get_base_name(task_model, model_kwargs):
    """Return the base model of an adapter, or a checkpoint itself: a Hub id, or the real path of a folder."""
    hub_kwargs = select_hub_kwargs(model_kwargs or {})
    if find_adapter_config_file(task_model, **hub_kwargs) is not None:
        from peft import PeftConfig

        task_model = PeftConfig.from_pretrained(task_model, **hub_kwargs).base_model_name_or_path
    return os.path.realpath(task_model) if task_model and os.path.isdir(task_model) else str(task_model)


def _describe(task_model):
    return f"a loaded {type(task_model).__name__}" if isinstance(task_model, nn.Module) else str(task_model)
