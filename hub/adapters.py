"""Join the LoRA adapters of all stages into one that fits the public checkpoints of both parts."""

from __future__ import annotations

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


def join_adapters(fused: Path, summarizer: Path | None, question_answerer: Path | None, folder: Path) -> None:
    """
    Write one LoRA adapter that has the effect of the adapters of all stages, applied one after the other.

    The fusion stage starts from parts whose adapters are merged, so its adapter alone does not work with a
    published checkpoint. LoRA updates add up, and a sum of low-rank products is a low-rank product:
    s1 B1 A1 + s2 B2 A2 = [s1 B1, s2 B2] [A1; A2], of rank r1 + r2. (Hu et al. 2021, "LoRA",
    https://arxiv.org/abs/2106.09685, section 4.1, defines the update s B A with s = alpha / r.)

    peft's `add_weighted_adapter(combination_type="cat")` computes the same sum, but only for adapters of one
    loaded model, and it drops modules that were trained in full; this function needs no base model.

    Args:
        fused (`Path`): Folder of the fusion stage's adapter.
        summarizer (`Path`, *optional*): Folder of the summarizer's adapter; None if that part was not
            trained.
        question_answerer (`Path`, *optional*): Folder of the question answerer's adapter, likewise.
        folder (`Path`): An existing folder, where the adapter's weights and configuration are written.

    Raises:
        ValueError: If an adapter is not a sum of low-rank products (IA3, DoRA), if its ranks or scales differ
            between layers, or if it changes other weights too (biases, embeddings). Biases and full modules
            of the fusion stage are allowed and copied, because no later stage changes them.
    """
    pairs, other_weights = _read_adapter(fused)
    pairs = {module: [pair] for module, pair in pairs.items()}
    for part, source in (("summarizer", summarizer), ("question_encoder", question_answerer)):
        if source is not None:
            _add_part(pairs, part, source)
    for name in other_weights:
        # PEFT cannot store a full weight beside the LoRA matrices that an earlier stage has for its layer.
        if ".lora_" in name or name.rpartition(".")[0] in pairs:
            raise unsupported_adapter(fused, name)
    weights, ranks = {}, {}
    for module, matrices in pairs.items():
        weights[f"{module}.lora_A.weight"] = torch.cat([down for down, _ in matrices])
        weights[f"{module}.lora_B.weight"] = torch.cat([up for _, up in matrices], dim=1)
        ranks[module] = sum(len(down) for down, _ in matrices)
    weights |= other_weights
    save_file(
        {f"{ADAPTER_PREFIX}{name}": weight.contiguous() for name, weight in weights.items()},
        folder / ADAPTER_WEIGHTS_NAME,
        {"format": "pt"},
    )
    config = json.loads((fused / ADAPTER_CONFIG_NAME).read_text(encoding="utf-8"))
    config |= _lora_config(ranks)
    (folder / ADAPTER_CONFIG_NAME).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _add_part(pairs: dict[str, list], part: str, source: Path) -> None:
    """Append the LoRA matrices of a part's adapter to `pairs`, under the names of the composed model."""
    part_pairs, other_weights = _read_adapter(source)
    for module, pair in part_pairs.items():
        # Only the encoder of the question answerer is used.
        name = module if part == "summarizer" else get_name_in_encoder(module)
        if name is not None:
            pairs.setdefault(f"{part}.{name}", []).append(pair)
    for name in other_weights:
        # A weight outside the decoder may be shared with the encoder.
        if part == "summarizer" or ".decoder." not in f".{name}":
            raise unsupported_adapter(source, name)


def _lora_config(ranks: dict[str, int]) -> dict:
    """Return the `adapter_config.json` entries for these ranks; the matrices hold the scale, so alpha = r."""
    rank = Counter(ranks.values()).most_common(1)[0][0]
    exceptions = {module: value for module, value in ranks.items() if value != rank}
    return {
        "r": rank,
        "lora_alpha": rank,
        "rank_pattern": exceptions,
        "alpha_pattern": exceptions,
        "use_rslora": False,
        "target_modules": sorted(ranks),
    }


def _read_adapter(folder: Path) -> tuple[dict, dict]:
    """Return an adapter's LoRA matrices by module, and its other weights by name."""
    config = json.loads((folder / ADAPTER_CONFIG_NAME).read_text(encoding="utf-8"))
    return read_lora_matrices(config, load_file(folder / ADAPTER_WEIGHTS_NAME), folder)
