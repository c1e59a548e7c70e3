"""Score a model's summaries with a metric of this library, loaded by `evaluate`, and with one of your own."""

import evaluate
from transformers import pipeline

import crosstask  # noqa: F401  (registers the model and the pipeline)
from crosstask.data.briefs import generate

rows = [row for row in generate("fuse", "test", 10) if row["answer"]]
summarize = pipeline("question-summarization", model="runs/quickstart/crosstask")
inputs = [{"question": row["question"], "passage": row["passage"]} for row in rows]
summaries = [result["summary"] for result in summarize(inputs, batch_size=16)]

answer_recall = evaluate.load("eval/metrics/answer_recall")
print(answer_recall.compute(predictions=summaries, references=[row["answer"] for row in rows]))


def compression(summary: str, passage: str) -> float:
    """Return the number of words of the summary per word of the passage."""
    return len(summary.split()) / len(passage.split())


ratios = [compression(summary, row["passage"]) for summary, row in zip(summaries, rows, strict=True)]
print({"compression": sum(ratios) / len(ratios)})
