"""Measure how much memory the encoding of the rows adds to the peak of a training run.

    python benchmarks/encoding_memory.py [--megabytes 115] [--rows 50] [--output FILE]

A separate process writes a file of generated joint rows, reads it for the three stages as `train.py`
does, and encodes the training rows of each stage. The peak is `VmHWM` of `/proc/self/status`, so this runs
on Linux only.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from itertools import islice
from pathlib import Path
from random import Random

import yaml

from crosstask import CrossTaskProcessor
from crosstask.data.tokenizer import train_tokenizer
from crosstask.training.arguments import read_recipe
from crosstask.training.stages import Stage

PART = {"model_type": "t5", "d_model": 16, "d_kv": 4, "d_ff": 32, "num_layers": 1, "num_heads": 4}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=115, help="size of the file of rows")
    parser.add_argument("--rows", type=int, help="encode only this many rows of each stage")
    parser.add_argument("--output", help="also write the figures to this JSON file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), arguments.megabytes, arguments.rows)
    print(json.dumps(figures, indent=1))
    if arguments.output:
        Path(arguments.output).write_text(json.dumps(figures, indent=1), encoding="utf-8")


def measure(folder: Path, megabytes: int, count: int | None = None) -> dict[str, float]:
    """Return the peak memory of this process before and after the encoding, and the seconds that it took."""
    write_rows(folder / "rows.jsonl", megabytes)
    values = {"data": str(folder / "rows.jsonl"), "output_dir": str(folder / "run"), "use_cpu": True}
    values |= {"summarizer_config": PART, "question_answerer_config": PART, "max_steps": 1}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(values))
    recipe = read_recipe(folder / "recipe.yaml")
    stages: list[Stage] = []
    stages += [Stage(name, recipe, stages) for name in recipe.stages]
    for stage in stages:
        stage.check_data()  # reads the rows
    texts = islice(stages[0].rows["train"]["passage"], 1000)
    processor = CrossTaskProcessor(train_tokenizer(texts, 8192), max_source_length=1024)
    peak_before, start = read_peak(), time.perf_counter()
    encoded = 0
    for stage in stages:
        rows = stage.rows["train"]
        encoded += len(stage.encode(rows if count is None else rows.select(range(count)), processor))
    seconds, peak_after = time.perf_counter() - start, read_peak()
    return {
        "encoded rows": encoded,
        "seconds": round(seconds, 1),
        "peak before MB": round(peak_before),
        "peak after MB": round(peak_after),
        "difference MB": round(peak_after - peak_before),
    }


def write_rows(path: Path, megabytes: int) -> None:
    """Write joint rows until the file has this size: four questions on each passage of some 120 words."""
    random = Random(0)
    words = ["".join(random.choices("abcdefghijklmnoprstuvwy", k=random.randint(2, 10))) for _ in range(5000)]
    with open(path, "w", encoding="utf-8") as file:
        number = 0
        while file.tell() < megabytes * 1e6:
            if number % 4 == 0:
                passage = " ".join(random.choices(words, k=120))
            start = random.randrange(0, 100, 10)
            row = {"id": f"row-{number}", "passage": passage, "question": f"What is {number}?"}
            row |= {"answer": passage[start : start + 20].strip(), "summary": passage[start : start + 120]}
            file.write(json.dumps(row | {"answerable": 1}) + "\n")
            number += 1


def read_peak() -> float:
    """Return the largest resident memory that this process has had so far, in MB."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024  # the kernel counts in kB of 1,024 bytes


if __name__ == "__main__":
    main()
