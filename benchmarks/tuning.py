"""Measure memory, time, disk space, trainable weights and quality of each tuning method.

    python benchmarks/tuning.py shapes --folder runs/tuning
    python benchmarks/tuning.py inference --folder runs/tuning
    python benchmarks/tuning.py quality --folder runs/tuning
    python benchmarks/tuning.py table

- `shapes`: Both parts have the shape of Flan-T5-base or -large (Hub: google/flan-t5-base, -large) and random
  weights. A separate process for each method takes optimizer steps of AdamW on one row, with 256 input and 48
  output tokens, in full precision except for int8.
- `inference`: Loads the model and generates 48 tokens for 4 such rows, compared with the plain T5.
- `quality`: Adapts the quickstart's model to briefs about farms, as configs/briefs_lora.yaml does, but with
this
  method, at the better of two learning rates by validation loss (int8: that of LoRA). With a shared base,
  both parts start from the quickstart's summarizer instead, because the trained model has two bases.

The results are appended to benchmarks/results/tuning.jsonl; `table` prints the latest.

Memory is the process's resident memory (VmRSS, sampled every 10 ms) minus that with all libraries loaded.
On a CPU, an int8 model is loaded in full precision and then quantized, so the peak of loading is recorded
too.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForSeq2SeqLM, BitsAndBytesConfig, T5Config, T5ForConditionalGeneration

from crosstask import CrossTaskForConditionalGeneration
from crosstask.training.arguments import StageArguments
from crosstask.training.tuning import add_adapter, freeze_all_but_last, make_adapter_config

RESULTS = Path(__file__).parent / "results" / "tuning.jsonl"
SHAPES = {
    "base": {"d_model": 768, "d_ff": 2048, "num_layers": 12, "num_heads": 12},
    "large": {"d_model": 1024, "d_ff": 2816, "num_layers": 24, "num_heads": 16},
}
COMMON = {"d_kv": 64, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "vocab_size": 32128}
# The recipe's settings of each method, and the model that it starts from.
METHODS = {
    "full": ({}, "whole"),
    "LoRA": ({"lora_r": 16}, "whole"),
    "LoRA, int8 base": ({"lora_r": 16, "quantization": "int8"}, "whole"),
    "LoRA, shared base": ({"lora_r": 16}, "shared"),
    "last 2 layers": ({"trainable": {"decoder_layers": 2}}, "whole"),
}
LEARNING_RATES = {"full": (3e-4, 1e-3), "last 2 layers": (1e-3, 3e-3)}
LEARNING_RATES |= {"LoRA": (3e-3, 6e-3), "LoRA, int8 base": (3e-3,), "LoRA, shared base": (3e-3, 6e-3)}
SOURCE_LENGTH, TARGET_LENGTH = 256, 48


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("task", choices=["shapes", "inference", "quality", "table", "measure"])
    parser.add_argument("--folder", type=Path, help="folder for checkpoints and runs")
    parser.add_argument("--sizes", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS), metavar="NAME")
    parser.add_argument("--model", default="runs/quickstart/crosstask", help="trained model for quality")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--job", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.task == "measure":
        torch.set_num_threads(arguments.threads)
        print(json.dumps(measure(arguments.folder, **json.loads(arguments.job))))
    elif arguments.task == "table":
        print_table(read_results())
    elif arguments.task == "quality":
        compare_quality(arguments)
    else:
        for size in arguments.sizes:
            save_models(arguments.folder / size, size)
            names = arguments.methods if arguments.task == "shapes" else ["plain", "shared", "whole"]
            for name in names:
                job = {"what": arguments.task, "size": size, "method": name}
                append_result(job | measure_in_process(arguments, job))


def measure_in_process(arguments: argparse.Namespace, job: dict[str, str]) -> dict[str, Any]:
    """Measure in a separate process, so that its memory contains nothing else."""
    command = [sys.executable, __file__, "measure", "--folder", str(arguments.folder)]
    command += ["--job", json.dumps(job), "--threads", str(arguments.threads)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(output.splitlines()[-1]) | {"threads": arguments.threads}


def append_result(result: dict[str, Any]) -> None:
    print(json.dumps(result), flush=True)
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(result) + "\n")


def read_results() -> dict[tuple[str, str, str], dict[str, Any]]:
    """Return the latest result of each task, size and method."""
    results = {}
    for line in RESULTS.read_text(encoding="utf-8").splitlines():
        result = json.loads(line)
        results[result["what"], result["size"], result["method"]] = result
    return results


# Memory and time


def save_models(folder: Path, size: str) -> None:
    """Save a T5 (`plain`), two fused ones (`whole`), and one with an adapter for each part (`shared`)."""
    if (folder / "whole").exists():
        return
    torch.manual_seed(0)
    config = T5Config(**COMMON | SHAPES[size], decoder_start_token_id=0)
    plain = T5ForConditionalGeneration(config)
    # The LM head of Flan-T5 is not tied to the embeddings, but a T5Config of transformers 5 ties it.
    plain.lm_head.weight = torch.nn.Parameter(torch.randn_like(plain.lm_head.weight))
    plain.save_pretrained(folder / "plain")
    for name in ("summarizer", "answerer"):
        plain = T5ForConditionalGeneration.from_pretrained(folder / "plain")
        adapter = LoraConfig(r=16, target_modules=["q", "v"], init_lora_weights=False)
        get_peft_model(plain, adapter).save_pretrained(folder / name)
    parts = folder / "summarizer", folder / "answerer"
    fusion = {"fusion_num_heads": 8}
    shared = CrossTaskForConditionalGeneration.from_tasks(*parts, share_base=True, **fusion)
    shared.save_pretrained(folder / "shared")
    CrossTaskForConditionalGeneration.from_tasks(*parts, **fusion).save_pretrained(folder / "whole")


def measure(folder: Path, what: str, size: str, method: str) -> dict[str, float]:
    if what == "inference":
        return measure_inference(folder / size / method)
    return measure_training(folder / size, *METHODS[method])


def measure_training(folder: Path, settings: dict[str, Any], start: str) -> dict[str, float]:
    quantization = BitsAndBytesConfig(load_in_8bit=True) if settings.get("quantization") else None
    kwargs = {"dtype": torch.float32, "quantization_config": quantization}
    before = read_memory()
    with record_peak(before) as loading:
        model = CrossTaskForConditionalGeneration.from_pretrained(folder / start, **kwargs)
        model = prepare_tuning(model, settings).train()
    with record_peak(before) as training:
        trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trainable, lr=1e-4)
        batch = make_inputs(1) | {"answerable": torch.ones(1, dtype=torch.long)}
        batch["labels"] = torch.randint(5, 32000, (1, TARGET_LENGTH))
        seconds = []
        for _ in range(4):
            start_time = time.perf_counter()
            model(**batch).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            seconds.append(time.perf_counter() - start_time)
    lora = sum(weight.numel() for name, weight in model.named_parameters() if "lora_" in name)
    count = sum(weight.numel() for weight in trainable)
    # bitsandbytes stores an int8 weight in a tensor with the same number of elements.
    total = sum(parameter.numel() for parameter in model.parameters())
    return {
        "trainable": count,
        "LoRA weights": lora,
        "weights": total,
        "share": count / total,
        "peak GB while loading": loading["peak"] / 1e9,
        "peak GB": training["peak"] / 1e9,
        "step s": statistics.median(seconds[1:]),
        "checkpoint MB": get_checkpoint_size(model, count == total) / 1e6,
    }


def prepare_tuning(model: torch.nn.Module, settings: dict[str, Any]) -> torch.nn.Module:
    if settings.get("trainable"):
        return freeze_all_but_last(model, **settings["trainable"])
    config = make_adapter_config(StageArguments(data="none", **settings))
    return model if config is None else add_adapter(model, config, new_fusion=False)


def get_checkpoint_size(model: torch.nn.Module, trains_all: bool) -> int:
    """Return the bytes of the weights in a checkpoint of the training."""
    if trains_all or not hasattr(model, "peft_config"):
        return sum(weight.numel() * weight.element_size() for weight in model.parameters())
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return sum(file.stat().st_size for file in Path(folder).glob("*.safetensors"))


def measure_inference(folder: Path) -> dict[str, float]:
    with record_peak(read_memory()) as memory:
        model = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32).eval()
        start = time.perf_counter()
        length = {"max_new_tokens": TARGET_LENGTH, "min_new_tokens": TARGET_LENGTH}
        model.generate(**make_inputs(4), **length, do_sample=False, return_dict_in_generate=True)
        seconds = time.perf_counter() - start
    weights = sum(weight.numel() for weight in model.parameters())
    return {"peak GB": memory["peak"] / 1e9, "generate s": seconds, "weights": weights}


def make_inputs(count: int) -> dict[str, torch.Tensor]:
    ids = torch.randint(5, 32000, (count, SOURCE_LENGTH), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def read_memory() -> int:
    """Return the resident memory of this process in bytes."""
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmRSS"))


@contextmanager
def record_peak(before: int) -> Iterator[dict[str, int]]:
    """Record the peak of the memory within the block, minus `before`, under the key "peak"."""
    memory, done = {"peak": 0}, threading.Event()

    def watch():
        while not done.wait(0.01):
            memory["peak"] = max(memory["peak"], read_memory() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield memory
    finally:
        done.set()
        watcher.join()


# Quality


def compare_quality(arguments: argparse.Namespace) -> None:
    for method in arguments.methods:
        runs = {rate: train_and_evaluate(arguments, method, rate) for rate in LEARNING_RATES[method]}
        rate = min(runs, key=lambda rate: runs[rate]["validation loss"])
        result = {"what": "quality", "size": "quickstart", "method": method, "learning rate": rate}
        append_result(result | runs[rate] | {"threads": arguments.threads})


def train_and_evaluate(arguments: argparse.Namespace, method: str, rate: float) -> dict[str, float]:
    """Run the recipe with a method and a learning rate; a shared base needs two more stages."""
    root = Path(__file__).parents[1]
    recipe = yaml.safe_load((root / "configs" / "briefs_lora.yaml").read_text(encoding="utf-8"))
    settings, start = METHODS[method]
    folder = arguments.folder / f"{method} {rate:g}".replace(", ", " ").replace(" ", "_")
    recipe |= {"model": arguments.model, "output_dir": str(folder), "learning_rate": rate}
    recipe |= {"eval_strategy": "steps", "eval_steps": recipe["max_steps"]}
    if "lora_r" not in settings:
        recipe = {key: value for key, value in recipe.items() if not key.startswith("lora_")}
    recipe |= {name: value for name, value in settings.items() if name != "lora_r"}
    if start == "shared":
        part = str(Path(arguments.model).parent / "summarizer")
        recipe |= {"summarizer": part, "question_answerer": part, "share_base": True, "fusion_num_heads": 4}
        recipe |= {"model": None, "fusion_dropout": 0.0}
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(recipe, file)
        file.flush()
        command = [sys.executable, str(root / "train.py"), file.name, "--disable_tqdm", "true"]
        environment = os.environ | {"OMP_NUM_THREADS": str(arguments.threads)}
        subprocess.run(command, check=True, capture_output=True, env=environment)
    history = json.loads((folder / "history.json").read_text(encoding="utf-8"))
    system = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["systems"]["cross-task"]
    return {
        "validation loss": next(
            entry["eval_loss"] for entry in history["fuse"]["log"] if "eval_loss" in entry
        ),
        "answer_recall": system["answer_recall"],
        "rougeL": system["rougeL"],
        "auroc": system["answerability_auroc"],
        "training s": sum(stage["seconds"] for stage in history.values()),
    }


def print_table(results: dict[tuple[str, str, str], dict[str, Any]]) -> None:
    for size in SHAPES:
        print(f"\n{size}: trainable, share of all weights, peak memory, step, checkpoint")
        full = results.get(("shapes", size, "full"))
        for method in METHODS:
            result = results.get(("shapes", size, method))
            if result and full:
                ratios = [result[name] / full[name] for name in ("peak GB", "step s")]
                print(
                    f"| {method} | {result['trainable'] / 1e6:.1f} M | {result['share']:.2%} | "
                    f"{result['peak GB']:.1f} GB ({ratios[0]:.2f}) | {ratios[1]:.2f} | "
                    f"{result['checkpoint MB']:,.0f} MB |"
                )
        plain = results.get(("inference", size, "plain"))
        for name in ("plain", "shared", "whole"):
            result = results.get(("inference", size, name))
            if result and plain:
                ratio = result["peak GB"] / plain["peak GB"]
                print(f"| load and generate: {name} | {result['peak GB']:.2f} GB | {ratio:.2f} |")
    for method in METHODS:
        if result := results.get(("quality", "quickstart", method)):
            scores = f"{result['answer_recall']:.3f} | {result['rougeL']:.3f} | {result['auroc']:.3f}"
            print(f"| {method} | {result['learning rate']:g} | {scores} |")


if __name__ == "__main__":
    main()
