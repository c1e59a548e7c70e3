"""Write what a model cannot do, for its card."""

from __future__ import annotations

from typing import Any


def write_limitations(run: Any) -> str:
    """Return the section on what a run's model cannot do; `run` is that of [`~hub.cards.make_model_card`]."""
    recall = {result["metric"]: result["value"] for result in run.metrics["results"]}.get("answer_recall")
    missing = (
        "" if recall is None else f" In the evaluation, {1 - recall:.1%} of the answers' words are missing."
    )
    length, segments = run.config["max_source_length"], run.config.get("max_segments", 1)
    limit = f"{length} tokens" if segments == 1 else f"{segments} segments of {length} tokens"
    rest = "of a longer one, the pipeline reads the sentences that fit best to the question"
    if segments > 1:
        rest = "the rest of a longer one is not read"
    probability = (
        "The probability was learned from the labels of the training data and from the answers' words in "
        "summaries, and was not measured on other kinds of texts."
    )
    if not run.config.get("answerability_trained", True):
        probability = "No training row had a label: the model gives no probability that it answers."
    lines = [
        f"- A summary may lack the answer, or state something that the passage does not.{missing}",
        f"- {probability}",
        f"- It reads at most {limit} of a passage: {rest}.{_describe_cut(run)}",
        "- Errors and biases of the models from which it was trained may remain.",
    ]
    if any(values["data"] == "briefs" for stage, values in run.recipe.items() if stage):
        lines.insert(
            0,
            "- It was trained on briefs, short generated English news, and is not suitable for real texts.",
        )
    return "\n".join(lines)


def _describe_cut(run):
    """Return a sentence that counts the inputs that were cut in the joint stage, or nothing."""
    lengths = run.history.get("fuse", {}).get("lengths", {})
    counts = {split: values.get("truncated_inputs", 0) for split, values in lengths.items()}
    cut = [
        f"{count:,} of {lengths[split]['rows']:,} {split} rows" for split, count in counts.items() if count
    ]
    return f" {', '.join(cut)} were cut." if cut else ""
