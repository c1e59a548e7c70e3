"""Measure the peak memory of reading, normalizing and sharding a source for several numbers of rows.

    python benchmarks/build_memory.py

The rows are random, with four questions per passage and about 120 words per passage. Each size is read by a
separate process.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path
from random import Random

from crosstask.data.build import BuildArguments
from crosstask.data.builder.shards import read_into_shards


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000, 50_000, 200_000])
    parser.add_argument("--output", help="also write the results to this JSON file")
    arguments = parser.parse_args()
    results = {}
    for count in arguments.rows:
        with tempfile.TemporaryDirectory() as folder, multiprocessing.get_context("spawn").Pool(1) as pool:
            results[count] = pool.apply(measure, (count, Path(folder)))
            print(f"{count} rows: {results[count]}")
    smallest, largest = min(results), max(results)
    growth = results[largest]["peak MB"] - results[smallest]["peak MB"]
    slope = {"bytes per row": round(growth * 2**20 / max(largest - smallest, 1))}
    print(f"slope: {slope}")
    if arguments.output:
        Path(arguments.output).write_text(json.dumps({**results, "slope": slope}, indent=1), encoding="utf-8")


def measure(count: int, folder: Path) -> dict[str, int]:
    """Read `count` rows; return the peak resident memory of this process and the rows per second."""
    path = folder / "rows.jsonl"
    write_rows(path, count)
    start = time.perf_counter()
    plan = read_into_shards(BuildArguments(data=str(path), output_dir=str(folder)), folder / "work")
    seconds = time.perf_counter() - start
    assert plan["rows"] == count, plan
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"peak MB": round(peak), "rows/s": round(count / seconds)}


def write_rows(path: Path, count: int) -> None:
    random = Random(0)
    words = ["".join(random.choices("abcdefghijklmnoprstuvwy", k=random.randint(2, 10))) for _ in range(5000)]
    with open(path, "w", encoding="utf-8") as file:
        for number in range(count):
            if number % 4 == 0:
                passage = " ".join(random.choices(words, k=120))
            row = {"id": f"row-{number}", "passage": passage, "question": f"What is {number}?"}
            file.write(json.dumps({**row, "answer": passage[:20]}) + "\n")


if __name__ == "__main__":
    main()
