"""What each way of tuning takes and brings: memory, time, disk, trainable weights, and quality.

    python benchmarks/tuning.py shapes --folder runs/tuning
    python benchmarks/tuning.py inference --folder runs/tuning
    python benchmarks/tuning.py quality --folder runs/tuning
    python benchmarks/tuning.py table

`shapes`: Flan-T5-base's and -large's shapes (Hub: google/flan-t5-base, -large) with random weights, for both
parts; a process for each way of tuning, which takes optimizer steps of AdamW on one row, 256 tokens in and 48
out, in full precision but for int8. `inference`: loading the model and generating 48 tokens for 4
such rows, beside the plain T5. `quality`: the quickstart's model, adapted to the farms' briefs as
configs/briefs_lora.yaml does but with this way of tuning, at the learning rate of two that gives the least
loss of the validation rows (int8: at that of LoRA). A shared base starts from the quickstart's summarizer on
both sides instead, since its trained model has two bases. All lines go to benchmarks/results/tuning.jsonl;
`table` prints the newest.

Memory is what the process has in use (VmRSS, sampled every 10 ms), less what it had with all libraries
loaded. On a CPU a model of int8 is loaded in full precision and quantized then: the peak of its loading is
kept beside that of its training.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

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
# Ways of tuning: what the recipe says, and which model it starts from.
METHODS = {
    "full": ({}, "whole"),
    "LoRA": ({"lora_r": 16}, "whole"),
    "LoRA, int8 base": ({"lora_r": 16, "quantization": "int8"}, "whole"),
    "LoRA, shared base": ({"lora_r": 16}, "shared"),
    "last 2 layers": ({"trainable": {"decoder_layers": 2}}, "whole"),
}
RATES = {"full": (3e-4, 1e-3), "last 2 layers": (1e-3, 3e-3)}
RATES |= {"LoRA": (3e-3, 6e-3), "LoRA, int8 base": (3e-3,), "LoRA, shared base": (3e-3, 6e-3)}
SOURCE, TARGET = 256, 48


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=["shapes", "inference", "quality", "table", "measure"])
    parser.add_argument("--folder", type=Path, help="for checkpoints and runs")
    parser.add_argument("--sizes", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS), metavar="NAME")
    parser.add_argument("--model", default="runs/quickstart/crosstask", help="of quality")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--job", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.what == "measure":
        torch.set_num_threads(arguments.threads)
        print(json.dumps(measured(arguments.folder, **json.loads(arguments.job))))
    elif arguments.what == "table":
        table(lines())
    elif arguments.what == "quality":
        quality(arguments)
    else:
        for size in arguments.sizes:
            prepare(arguments.folder / size, size)
            names = arguments.methods if arguments.what == "shapes" else ["plain", "shared", "whole"]
            for name in names:
                job = {"what": arguments.what, "size": size, "method": name}
                keep(job | in_process(arguments, job))


def in_process(arguments, job):
    """Measure in a process of its own, whose memory is of this alone."""
    command = [
        sys.executable,
        __file__,
        "measure",
        "--folder",
        str(arguments.folder),
        "--job",
        json.dumps(job),
    ]
    command += ["--threads", str(arguments.threads)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(output.splitlines()[-1]) | {"threads": arguments.threads}


def keep(line):
    print(json.dumps(line), flush=True)
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def lines():
    """The newest of each kind."""
    found = {}
    for line in RESULTS.read_text(encoding="utf-8").splitlines():
        line = json.loads(line)
        found[line["what"], line["size"], line["method"]] = line
    return found


# Real shapes


def prepare(folder, size):
    """`plain`: a T5; `whole`: two of them fused; `shared`: one with an adapter for each part."""
    if (folder / "whole").exists():
        return
    torch.manual_seed(0)
    config = T5Config(**COMMON | SHAPES[size], decoder_start_token_id=0)
    plain = T5ForConditionalGeneration(config)
    # Flan-T5's LM head has weights of its own, which loading keeps; a T5Config of transformers 5 ties them.
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


def measured(folder, what, size, method):
    folder = folder / size
    if what == "inference":
        return inference(folder / method)
    settings, start = METHODS[method]
    quantization = BitsAndBytesConfig(load_in_8bit=True) if settings.get("quantization") else None
    kwargs = {"dtype": torch.float32, "quantization_config": quantization}
    before = in_use()
    with peak(before) as loading:
        model = CrossTaskForConditionalGeneration.from_pretrained(folder / start, **kwargs)
        model = tuned(model, settings).train()
    with peak(before) as training:
        trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trainable, lr=1e-4)
        batch = rows(1) | {"answerable": torch.ones(1, dtype=torch.long)}
        batch["labels"] = torch.randint(5, 32000, (1, TARGET))
        seconds = []
        for _ in range(4):
            began = time.perf_counter()
            model(**batch).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            seconds.append(time.perf_counter() - began)
    lora = sum(weight.numel() for name, weight in model.named_parameters() if "lora_" in name)
    count = sum(weight.numel() for weight in trainable)
    # bitsandbytes keeps a weight of int8 in as many elements as it has.
    whole = sum(parameter.numel() for parameter in model.parameters())
    return {
        "trainable": count,
        "of LoRA": lora,
        "weights": whole,
        "share": count / whole,
        "peak GB of loading": loading["peak"] / 1e9,
        "peak GB": training["peak"] / 1e9,
        "step s": statistics.median(seconds[1:]),
        "checkpoint MB": saved(model, count == whole) / 1e6,
    }


def tuned(model, settings):
    if settings.get("trainable"):
        return freeze_all_but_last(model, **settings["trainable"])
    config = make_adapter_config(StageArguments(data="none", **settings))
    return model if config is None else add_adapter(model, config, new_fusion=False)


def saved(model, whole):
    """Bytes of the weights that saving writes."""
    if whole or not hasattr(model, "peft_config"):
        return sum(weight.numel() * weight.element_size() for weight in model.parameters())
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return sum(file.stat().st_size for file in Path(folder).glob("*.safetensors"))


def inference(folder):
    with peak(in_use()) as memory:
        model = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32).eval()
        began = time.perf_counter()
        length = {"max_new_tokens": TARGET, "min_new_tokens": TARGET}
        model.generate(**rows(4), **length, do_sample=False, return_dict_in_generate=True)
        seconds = time.perf_counter() - began
    weights = sum(weight.numel() for weight in model.parameters())
    return {"peak GB": memory["peak"] / 1e9, "generate s": seconds, "weights": weights}


def rows(count):
    ids = torch.randint(5, 32000, (count, SOURCE), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def in_use():
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmRSS"))


@contextmanager
def peak(before):
    """The most memory in use within the block, beyond `before`."""
    found, done = {"peak": 0}, threading.Event()

    def watch():
        while not done.wait(0.01):
            found["peak"] = max(found["peak"], in_use() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield found
    finally:
        done.set()
        watcher.join()


# Quality


def quality(arguments):
    root = Path(__file__).parents[1]
    for method in arguments.methods:
        runs = {rate: adapted(arguments, root, method, rate) for rate in RATES[method]}
        rate = min(runs, key=lambda each: runs[each]["validation loss"])
        line = {"what": "quality", "size": "quickstart", "method": method, "learning rate": rate}
        keep(line | runs[rate] | {"threads": arguments.threads})


def adapted(arguments, root, method, rate):
    """One run of the recipe, or of what it says in two stages more for a base that both parts share."""
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
    log = json.loads((folder / "history.json").read_text(encoding="utf-8"))
    system = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["systems"]["cross-task"]
    return {
        "validation loss": next(each["eval_loss"] for each in log["fuse"]["log"] if "eval_loss" in each),
        "answer_recall": system["answer_recall"],
        "rougeL": system["rougeL"],
        "auroc": system["answerability_auroc"],
        "training s": sum(stage["seconds"] for stage in log.values()),
    }


# The table


def table(found):
    for size in SHAPES:
        print(f"\n{size}: trainable, share of all weights, peak memory, step, checkpoint")
        full = found.get(("shapes", size, "full"))
        for method in METHODS:
            line = found.get(("shapes", size, method))
            if line and full:
                ratios = [line[name] / full[name] for name in ("peak GB", "step s")]
                print(
                    f"| {method} | {line['trainable'] / 1e6:.1f} M | {line['share']:.2%} | "
                    f"{line['peak GB']:.1f} GB ({ratios[0]:.2f}) | {ratios[1]:.2f} | "
                    f"{line['checkpoint MB']:,.0f} MB |"
                )
        plain = found.get(("inference", size, "plain"))
        for name in ("plain", "shared", "whole"):
            line = found.get(("inference", size, name))
            if line and plain:
                ratio = line["peak GB"] / plain["peak GB"]
                print(f"| load and generate: {name} | {line['peak GB']:.2f} GB | {ratio:.2f} |")
    for method in METHODS:
        if line := found.get(("quality", "quickstart", method)):
            scores = f"{line['answer_recall']:.3f} | {line['rougeL']:.3f} | {line['auroc']:.3f}"
            print(f"| {method} | {line['learning rate']:g} | {scores} |")


if __name__ == "__main__":
    main()
