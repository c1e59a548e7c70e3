"""Check the results of the quickstart's evaluation: `check_evaluation.py FOLDER`."""

import json
import sys
from pathlib import Path

folder = Path(sys.argv[1])
systems = json.loads((folder / "results.json").read_text())["systems"]
means = {
    name: {metric: estimate["mean"] for metric, estimate in system["metrics"].items()}
    for name, system in systems.items()
}
recall = {name: metrics["answer_recall"] for name, metrics in means.items()}
assert recall["questions swapped"] < recall["cross-task"] / 2, recall
assert all(metrics["bertscore"] is not None for metrics in means.values()), means
assert (folder / "report.html").stat().st_size > 100_000
print(f"answer recall {recall['cross-task']:.3f}, with swapped questions {recall['questions swapped']:.3f}")
