"""Measure how well a model judges what it writes itself, and wrong values, on briefs.

    python benchmarks/judgment.py runs/quickstart/crosstask

Prints one line of JSON per domain, with the figures of a report (see docs/evaluate.md): "own_" for the
model's own summaries of all test rows, "wrong_" for references with a wrong value. `own_answered_auroc` is
the AUROC on questions with an answer alone, and `right_passed` the share of right summaries that are judged
.5 or more. The table in docs/results.md was measured with variants of the quickstart's joint stage.
"""

from __future__ import annotations

import argparse
import json

from crosstask.data.briefs import DOMAINS
from crosstask.data.readers import read_rows
from crosstask.data.summary_labels import SummaryLabeler
from crosstask.eval.run import list_rows, score
from crosstask.eval.scoring.answerability import answerability_figures
from crosstask.eval.scoring.judgment import OWN, WRONG
from crosstask.eval.systems.crosstask import CrossTask


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", help="folder or Hub id of a cross-task model")
    parser.add_argument("--passages", type=int, default=250, help="test passages (default 250)")
    arguments = parser.parse_args()
    for domain in DOMAINS:
        counts = {"train": 0, "validation": 0, "test": arguments.passages}
        rows = list_rows(read_rows("briefs", "fuse", options={"passages": counts, "domain": domain})["test"])
        outputs = CrossTask(arguments.model, batch_size=64).write(rows)
        result = score(rows, {"model": outputs})[0]["model"]
        labels = SummaryLabeler(rows).label(range(len(rows)), outputs.summaries)
        judged = list(zip(rows, outputs.summary_probabilities or [], labels, strict=True))
        answered = [(p, label) for row, p, label in judged if row["answer"]]
        right = [p for _, p, label in judged if label == 1]
        figures = {
            name: value
            for name, value in result.figures.items()
            if name.startswith((OWN, WRONG)) and value is not None
        }
        figures["own_answered_auroc"] = answerability_figures(*zip(*answered, strict=True))["auroc"]
        figures["right_passed"] = sum(p >= 0.5 for p in right) / max(len(right), 1)
        print(json.dumps({"domain": domain} | {name: round(value, 4) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
