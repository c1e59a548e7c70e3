"""One base for both parts: the question encoder as the summarizer's encoder, run with updates of its own."""

import os
from contextlib import ExitStack, contextmanager

import torch
from torch import nn
from transformers.utils import find_adapter_config_file

from .fusion_crosstask import get_thread_name
from .loading_crosstask import get_text_encoder, load_task_model, select_hub_kwargs

ADAPTER_PREFIX = "base_model.model."  # of the names in an adapter's weights
# Of LoRA's initializations those that leave the base as it is; PiSSA and others take the updates out of it.
_ON_THE_BASE = (True, False, "gaussian", "orthogonal", "eva")


class SharedEncoder(nn.Module):
    """
    A question encoder that has the summarizer's encoder for its base. Where a linear layer of it computes
    W x, this one has W x + U D x, with D of shape `(rank, in)` and U of shape `(out, rank)` of its own
    (Hu et al., 2021, "LoRA", https://arxiv.org/abs/2106.09685, section 4.1).
    """

    def __init__(self, encoder, ranks):
        """For the summarizer's encoder, with the rank of the update of each layer that has one."""
        super().__init__()
        self.config = encoder.config
        self.updates = nn.ModuleDict()
        for name, rank in ranks.items():
            layer = encoder.get_submodule(name)
            down = nn.Linear(layer.in_features, rank, bias=False)
            self.updates[_key(name)] = nn.Sequential(down, nn.Linear(rank, layer.out_features, bias=False))

    @torch.no_grad()
    def set_updates(self, updates):
        """Take over `{layer: (D, U)}`, of the ranks that this was made for."""
        for name, matrices in updates.items():
            for layer, matrix in zip(self.updates[_key(name)], matrices, strict=True):
                layer.weight.copy_(matrix)

    def forward(self, get_encoder, **inputs):
        """
        The output of the summarizer's encoder for these inputs, with the updates. (A function gives the
        encoder, for a module among the inputs would be moved to this one's device by accelerate.)
        """
        encoder = get_encoder()
        with self._updated(encoder):
            return encoder(**inputs)

    @contextmanager
    def _updated(self, encoder):
        caller = get_thread_name()

        def add(update):
            def hook(_, args, output):
                if get_thread_name() != caller:  # of another call of the same model, in a server for instance
                    return None
                first = update[0].weight
                change = update(args[0].to(first.device, first.dtype))
                return output + change.to(output.device, output.dtype)

            return hook

        with ExitStack() as stack:
            for name, update in self.updates.items():
                layer = encoder.get_submodule(name.replace("-", "."))
                stack.callback(layer.register_forward_hook(add(update)).remove)
            # A checkpointed layer is computed again in the backward pass, when no hook is there any more.
            for module in encoder.modules():
                if getattr(module, "gradient_checkpointing", False):
                    module.gradient_checkpointing = False
                    stack.callback(setattr, module, "gradient_checkpointing", True)
            yield


def _key(layer):
    return layer.replace(".", "-")  # a dot would part modules


def load_shared_base(summarizer, question_answerer, model_kwargs=None):
    """
    Load two LoRA adapters of one base.

    Args:
        summarizer, question_answerer (`str`, `os.PathLike`, `PeftModel` or `PreTrainedModel`): Adapters; or
            one and the same checkpoint, which needs no updates.
        model_kwargs (`dict`, *optional*): Arguments of `from_pretrained`.

    Returns:
        `(summarizer, updates)`: the summarizer with its adapter merged, and for the name of each layer of its
        encoder that an adapter changes the matrices `(D, U)` that make the question answerer's of it.

    Raises:
        ValueError: where the two have different bases, or an adapter does more to an encoder than LoRA on
            its linear layers.
    """
    _check_one_base(summarizer, question_answerer, model_kwargs)
    merged = load_task_model(summarizer, model_kwargs)
    encoder = get_text_encoder(merged)
    layers = dict(encoder.named_modules())
    # Back from the summarizer's weights to the base's, and on to the question answerer's.
    updates = {}
    for part, sign in ((question_answerer, 1), (summarizer, -1)):
        pairs, others = _lora_of(part, model_kwargs)
        for layer, (down, up) in pairs:
            if (name := get_name_in_encoder(layer)) in layers:
                updates.setdefault(name, []).append((down, sign * up))
            else:
                others.append(layer)
        # The summarizer's decoder is merged, and the question answerer's is not needed.
        for name in others:
            if _is_of(encoder, name, merged):
                raise unsupported_adapter(_called(part), name)
    joined = {
        name: (torch.cat([down for down, _ in pairs]), torch.cat([up for _, up in pairs], dim=1))
        for name, pairs in updates.items()
    }
    return merged, joined


def read_lora_matrices(settings, weights, name):
    """
    The matrices of a LoRA adapter.

    Args:
        settings (`dict`): Its `adapter_config.json`.
        weights (`dict[str, torch.Tensor]`): As saved.
        name: What an error calls it.

    Returns:
        `(pairs, others)`: for the name of each adapted linear layer `(D, U)` with the scale in U, alpha / r,
        or alpha / sqrt(r) where it is rank-stabilized; and by their names, without [`ADAPTER_PREFIX`], the
        weights that no such pair has: biases, those of embeddings, and of modules trained whole.

    Raises:
        ValueError: where it is no sum of low-rank products, its ranks or scales differ by layer, or it
            changed its base as it began (PiSSA, OLoRA).
    """
    kinds = [key for key in ("use_dora", "rank_pattern", "alpha_pattern") if settings.get(key)]
    if settings.get("init_lora_weights", True) not in _ON_THE_BASE:
        kinds.append("init_lora_weights")
    if settings["peft_type"] != "LORA" or kinds:
        raise unsupported_adapter(name, kinds[0] if kinds else settings["peft_type"])
    scale = settings["lora_alpha"] / (settings["r"] ** 0.5 if settings.get("use_rslora") else settings["r"])
    pairs, others = {}, {}
    for key, weight in weights.items():
        own = key.removeprefix(ADAPTER_PREFIX)
        module, _, matrix = own.rpartition(".lora_")
        if matrix == "A.weight":
            pairs[module] = weight, scale * weights[key.replace(".lora_A.", ".lora_B.")]
        elif matrix != "B.weight":
            others[own] = weight
    return pairs, others


def unsupported_adapter(name, what):
    """The error for an adapter of which something would be lost."""
    return ValueError(f"{name} is an adapter with {what}, expected plain LoRA.")


def get_name_in_encoder(layer):
    """The name within its encoder of a layer of a sequence-to-sequence model; None of one elsewhere."""
    _, encoder, rest = f".{layer}".partition(".encoder.")
    return rest if encoder else None


def _lora_of(part, model_kwargs):
    """
    `(layer, (D, U))` of each layer that the adapters of a part change, and the names of their other weights;
    none of a checkpoint without one.
    """
    given = select_hub_kwargs(model_kwargs or {})
    if hasattr(part, "merge_and_unload"):
        from peft import get_peft_model_state_dict

        adapters = [
            (
                part.peft_config[name],
                # Embeddings that no adapter changed are the base's, which has been compared.
                get_peft_model_state_dict(part, adapter_name=name, save_embedding_layers=False),
            )
            for name in part.active_adapters
        ]
    elif not isinstance(part, nn.Module) and find_adapter_config_file(part, **given) is not None:
        from peft import PeftConfig, load_peft_weights

        weights = load_peft_weights(part, device="cpu", **given)
        adapters = [(PeftConfig.from_pretrained(part, **given), weights)]
    else:
        adapters = []
    layers, names = [], []
    for settings, weights in adapters:
        pairs, others = read_lora_matrices(settings.to_dict(), weights, _called(part))
        layers += pairs.items()
        names += others
    return layers, names


def _is_of(encoder, name, model):
    """Whether the module with that weight has some of the encoder's, as tied embeddings elsewhere do."""
    modules = dict(model.named_modules())
    while name not in modules:
        name = name.rpartition(".")[0]
    own = {id(weight) for weight in encoder.parameters()}
    return any(id(weight) in own for weight in modules[name].parameters())


def _check_one_base(summarizer, question_answerer, model_kwargs):
    parts = summarizer, question_answerer
    if any(isinstance(part, nn.Module) for part in parts):
        # The name that a loaded model has may be empty, or of weights that were changed since.
        encoders = [
            get_text_encoder(load_task_model(part, model_kwargs, merge=False)).state_dict() for part in parts
        ]
        if not _same(*encoders):
            names = " and one of ".join(_called(part) for part in parts)
            raise ValueError(
                f"`share_base` needs two adapters of one base, got one of {names}, whose encoders differ in "
                "weights or dtype."
            )
        return
    bases = [_base_of(part, model_kwargs) for part in parts]
    if bases[0] != bases[1]:
        raise ValueError(
            f"`share_base` needs two adapters of one base, got one of {bases[0]} and one of {bases[1]}."
        )


def _same(weights, others):
    return weights.keys() == others.keys() and all(
        weight.dtype == others[name].dtype and torch.equal(weight, others[name].to(weight.device))
        for name, weight in weights.items()
    )


def _base_of(part, model_kwargs):
    """The name of the checkpoint that an adapter sits on, or of a checkpoint itself; one for each folder."""
    given = select_hub_kwargs(model_kwargs or {})
    if find_adapter_config_file(part, **given) is not None:
        from peft import PeftConfig

        part = PeftConfig.from_pretrained(part, **given).base_model_name_or_path
    return os.path.realpath(part) if part and os.path.isdir(part) else str(part)


def _called(part):
    return f"a loaded {type(part).__name__}" if isinstance(part, nn.Module) else str(part)
