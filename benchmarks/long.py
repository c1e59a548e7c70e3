"""Measure the time and the memory of long inputs: segments against attention over the whole input.

    python benchmarks/long.py --output benchmarks/results/long.json

The models have the shapes of Flan-T5-small and Flan-T5-base and random weights; a measurement is `generate`
of 32 tokens for one input, with answerability, in segments of 512 tokens. Each measurement runs in a process
of its own, which gives the peak of its memory. Times are medians, and ratios are of one run of this command.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import resource
import statistics
import time
from pathlib import Path

import torch
import transformers
from transformers import T5Config

from crosstask import CrossTaskConfig, CrossTaskForConditionalGeneration

SEGMENT = 512  # tokens
NEW_TOKENS = 32
SHAPES = {
    "small": {"d_model": 512, "d_kv": 64, "d_ff": 1024, "num_layers": 8, "num_heads": 6},
    "base": {"d_model": 768, "d_kv": 64, "d_ff": 2048, "num_layers": 12, "num_heads": 12},
}
LENGTHS = (2048, 4096, 8192, 16384)
FULL_LENGTH = 8192  # attention over more takes minutes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--turns", type=int, default=3, help="measurements of each length (default 3)")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch (default 2)")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    results = {
        "machine": f"{platform.machine()}, {arguments.threads} threads, torch {torch.__version__}, "
        f"transformers {transformers.__version__}",
    }
    turns, threads = arguments.turns, arguments.threads
    small = {length: run("small", length, True, turns, threads) for length in LENGTHS}
    results["Flan-T5-small's shape, segments"] = small
    full = run("small", FULL_LENGTH, False, 1, threads)
    results[f"Flan-T5-small's shape, {FULL_LENGTH} tokens at once"] = full
    results["Flan-T5-base's shape, segments"] = {LENGTHS[-1]: run("base", LENGTHS[-1], True, 1, threads)}
    first, last = LENGTHS[0], LENGTHS[-1]
    time_ratio = small[last]["seconds"] / last * first / small[first]["seconds"]
    memory = (small[last]["megabytes"] - small[first]["megabytes"]) / (last - first) * 1000
    results |= {
        f"time per token at {last} tokens / at {first}": round(time_ratio, 2),
        f"time at once / in segments, {FULL_LENGTH} tokens": round(
            full["seconds"] / small[FULL_LENGTH]["seconds"], 1
        ),
        "megabytes per 1000 tokens": round(memory, 1),
    }
    for name, value in results.items():
        print(f"{name}: {value}", flush=True)
    if arguments.output:
        arguments.output.write_text(json.dumps(results, indent=1), encoding="utf-8")


def run(shape: str, length: int, in_segments: bool, turns: int, threads: int) -> dict[str, float]:
    """Measure in a new process; see [`measure`]."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, (shape, length, in_segments, turns, threads))


def measure(shape: str, length: int, in_segments: bool, turns: int, threads: int) -> dict[str, float]:
    """Return the median seconds of a call of `generate`, and the peak memory of the process in megabytes."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    part = T5Config(
        vocab_size=32128,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        decoder_start_token_id=0,
        **SHAPES[shape],
    )
    model = CrossTaskForConditionalGeneration(CrossTaskConfig(part, part, fusion_num_heads=8)).eval()
    ids = torch.randint(2, 32000, (1, length))
    if in_segments:
        ids = ids.reshape(1, -1, SEGMENT)
    settings = {"min_new_tokens": NEW_TOKENS, "max_new_tokens": NEW_TOKENS, "return_dict_in_generate": True}
    seconds = []
    for _ in range(turns):
        start = time.perf_counter()
        model.generate(ids, **settings)
        seconds.append(time.perf_counter() - start)
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": round(statistics.median(seconds), 2), "megabytes": round(megabytes)}


if __name__ == "__main__":
    main()
