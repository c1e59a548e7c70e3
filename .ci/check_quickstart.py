"""Check the results of the quickstart: `check_quickstart.py RUN`."""

import json
import sys
from pathlib import Path

systems = json.loads(Path(sys.argv[1], "metrics.json").read_text())["systems"]
recall = {name: scores["answer_recall"] for name, scores in systems.items()}
auroc = systems["cross-task"]["answerability_auroc"]
own = {name: systems["cross-task"][f"answerability_own_{name}"] for name in ("auroc", "unanswerable_passed")}
wrong = systems["cross-task"]["answerability_wrong_auroc"]
assert recall["cross-task"] >= 0.95, recall
assert recall["summarizer alone"] <= recall["cross-task"] - 0.2, recall
assert auroc >= 0.97, auroc
assert own["auroc"] >= 0.93 and own["unanswerable_passed"] <= 0.1, own
assert wrong >= 0.97, wrong
print(f"answer recall {recall['cross-task']:.3f} >= 0.95, AUROC {auroc:.3f} >= 0.97")
print(f"own summaries: AUROC {own['auroc']:.3f} >= 0.93, wrong values: AUROC {wrong:.3f} >= 0.97")
