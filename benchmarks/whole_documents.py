"""Measure how much of what readers ask lies beyond the beginning of a document.

    python benchmarks/whole_documents.py --data QMSUM/val.jsonl
    python benchmarks/whole_documents.py --data SQUALITY/dev.jsonl

LexRank with the question and the extractive oracle read the whole documents of QMSum or SQuALITY, and their
first 1,024 words. ROUGE-1 / 2 / L F1, on the first `--rows` queries.
"""

from __future__ import annotations

import argparse

from crosstask.data.answers import mean
from crosstask.data.readers import read_rows
from crosstask.eval.run import collect_references, list_rows
from crosstask.eval.scoring.text_scores import rouge_rows
from crosstask.eval.systems.lexrank import LexRank
from crosstask.eval.systems.oracle import Oracle

WORDS = 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", required=True, help="file of QMSum or SQuALITY")
    parser.add_argument("--rows", type=int, default=100, help="number of queries (default 100)")
    arguments = parser.parse_args()
    splits = read_rows(arguments.data, "fuse", rejects=[])
    rows = [row for split in splits.values() for row in list_rows(split)][: arguments.rows]
    words = mean([len(row["passage"].split()) for row in rows])
    documents = len({row["passage"] for row in rows})
    print(f"{len(rows)} queries, {documents} documents, {words:.0f} words on average")
    for system in (LexRank(question=True), Oracle()):
        for name, limit in (("whole", None), (f"first {WORDS} words", WORDS)):
            cut = [{**row, "passage": " ".join(row["passage"].split()[:limit])} for row in rows]
            if limit is None:
                cut = rows
            scores = rouge_rows(system.write(cut).summaries, collect_references(rows))
            cells = " / ".join(f"{mean(scores[metric]):.3f}" for metric in ("rouge1", "rouge2", "rougeL"))
            print(f"{system.name}, {name}: {cells}", flush=True)


if __name__ == "__main__":
    main()
