"""The adapters of a run made one, which fits the public checkpoints that its parts came from."""

import json
from collections import Counter
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from crosstask.sharing_crosstask import (
    ADAPTER_PREFIX,
    get_name_in_encoder,
    read_lora_matrices,
    unsupported_adapter,
)

ADAPTER_WEIGHTS_NAME = "adapter_model.safetensors"
ADAPTER_CONFIG_NAME = "adapter_config.json"


def join_adapters(fused, summarizer, question_answerer, folder):
    """
    Write one LoRA adapter that does what those of all stages do one after the other.

    The fusion stage starts from parts with their own adapters merged, so its adapter alone fits no checkpoint
    that others have. Updates add up, and a sum of low-rank products is one: s1 B1 A1 + s2 B2 A2 =
    [s1 B1, s2 B2] [A1; A2], of rank r1 + r2. (Hu et al. 2021, "LoRA", https://arxiv.org/abs/2106.09685,
    section 4.1, has the update s B A with s = alpha / r.)

    Args:
        fused (`Path`): The fusion stage's adapter.
        summarizer, question_answerer (`Path`, *optional*): The stages' adapters, None where a part was taken
            as it is.
        folder (`Path`): An existing folder for the result: LoRA weights, and the fusion itself.

    Raises:
        ValueError: where an adapter is no sum of low-rank products (IA3, DoRA), its ranks or scales differ
            from layer to layer, or it changes more than these (biases, embeddings); of the fusion stage's,
            whose weights are the last word, whole modules and biases are taken as they are.
    """
    found, kept = _pairs(fused)
    pairs = {module: [pair] for module, pair in found.items()}
    for part, source in (("summarizer", summarizer), ("question_encoder", question_answerer)):
        found, others = _pairs(source) if source else ({}, ())
        for module, pair in found.items():
            name = _in_whole(part, module)
            if name is not None:
                pairs.setdefault(name, []).append(pair)
        for name in others:
            # The answerer's decoder is left out, but not what it shares with the encoder.
            if part == "summarizer" or ".decoder." not in f".{name}":
                raise unsupported_adapter(source, name)
    for name in kept:
        # Beside a pair of an earlier stage, a weight of the same layer would have no layer of that name.
        if ".lora_" in name or name.rpartition(".")[0] in pairs:
            raise unsupported_adapter(fused, name)
    joined, ranks = {}, {}
    for module, found in pairs.items():
        joined[f"{ADAPTER_PREFIX}{module}.lora_A.weight"] = torch.cat([down for down, _ in found])
        joined[f"{ADAPTER_PREFIX}{module}.lora_B.weight"] = torch.cat([up for _, up in found], dim=1)
        ranks[module] = sum(len(down) for down, _ in found)
    usual = Counter(ranks.values()).most_common(1)[0][0]
    others = {module: rank for module, rank in ranks.items() if rank != usual}
    settings = json.loads((Path(fused) / ADAPTER_CONFIG_NAME).read_text(encoding="utf-8"))
    settings |= {"use_rslora": False}  # whose scale is in the matrices
    settings |= {"r": usual, "lora_alpha": usual, "rank_pattern": others, "alpha_pattern": others}
    settings["target_modules"] = sorted(ranks)
    folder = Path(folder)
    joined |= {f"{ADAPTER_PREFIX}{name}": weight for name, weight in kept.items()}
    save_file(
        {name: w.contiguous() for name, w in joined.items()}, folder / ADAPTER_WEIGHTS_NAME, {"format": "pt"}
    )
    (folder / ADAPTER_CONFIG_NAME).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _pairs(folder):
    folder = Path(folder)
    return read_lora_matrices(
        json.loads((folder / ADAPTER_CONFIG_NAME).read_text(encoding="utf-8")),
        load_file(folder / ADAPTER_WEIGHTS_NAME),
        folder,
    )


def _in_whole(part, module):
    """The name of a part's module in the whole model; None for the answerer's decoder, which is left out."""
    if part == "summarizer":
        return f"{part}.{module}"
    name = get_name_in_encoder(module)
    return None if name is None else f"{part}.{name}"
