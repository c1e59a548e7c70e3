"""Peak memory of reading, normalizing and sharding a source, by its rows:

    python benchmarks/build_memory.py

Rows are made up, four questions a passage of some 120 words, and each size is read by a process of its own.
"""

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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000, 50_000, 200_000])
    parser.add_argument("--output", help="also write the figures to this JSON file")
    arguments = parser.parse_args()
    figures = {}
    for rows in arguments.rows:
        with tempfile.TemporaryDirectory() as folder, multiprocessing.get_context("spawn").Pool(1) as pool:
            figures[rows] = pool.apply(measure, (rows, folder))
            print(f"{rows} rows: {figures[rows]}")
    least, most = min(figures), max(figures)
    growth = figures[most]["peak MB"] - figures[least]["peak MB"]
    slope = {"bytes a row": round(growth * 2**20 / (most - least))}
    print(f"slope: {slope}")
    if arguments.output:
        Path(arguments.output).write_text(json.dumps({**figures, "slope": slope}, indent=1), encoding="utf-8")


def measure(rows, folder):
    """Read so many rows; peak resident memory of the process, and rows per second."""
    path = Path(folder) / "rows.jsonl"
    write(path, rows)
    start = time.perf_counter()
    plan = read_into_shards(BuildArguments(data=str(path), output_dir=folder), Path(folder) / "work")
    seconds = time.perf_counter() - start
    assert plan["rows"] == rows, plan
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"peak MB": round(peak), "rows/s": round(rows / seconds)}


def write(path, rows):
    random = Random(0)
    words = ["".join(random.choices("abcdefghijklmnoprstuvwy", k=random.randint(2, 10))) for _ in range(5000)]
    with open(path, "w", encoding="utf-8") as file:
        for number in range(rows):
            if number % 4 == 0:
                passage = " ".join(random.choices(words, k=120))
            row = {"id": f"row-{number}", "passage": passage, "question": f"What is {number}?"}
            file.write(json.dumps({**row, "answer": passage[:20]}) + "\n")


if __name__ == "__main__":
    main()
