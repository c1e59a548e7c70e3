"""Check the results of the quickstart: `check_quickstart.py RUN`."""

import json
import sys
from pathlib import Path

systems = json.loads(Path(sys.argv[1], "metrics.json").read_text())["systems"]
recall = {name: scores["answer_recall"] for name, scores in systems.items()}
auroc = systems["cross-task"]["answerability_auroc"]
assert recall["cross-task"] >= 0.95, recall
assert recall["summarizer alone"] <= recall["cross-task"] - 0.2, recall
assert auroc >= 0.97, auroc
print(f"answer recall {recall['cross-task']:.3f} >= 0.95, AUROC {auroc:.3f} >= 0.97")
