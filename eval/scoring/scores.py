"""Scores: does the summary carry the answer, how close is it to a reference, and does the model
know? Means over all rows, and the table that shows them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from crosstask.data.answers import mean
from crosstask.eval.scoring.calibration import answerability_figures
from crosstask.eval.scoring.rows import rouge_rows

ROUGE_TYPES = ("rouge1", "rouge2", "rougeL")


def rouge(predictions: Iterable[str], references: Iterable[str]) -> dict[str, float | None]:
    """Mean ROUGE F1 of predictions against one reference each.

    Computed by the `rouge_score` package with Porter stemming. Its tokenizer keeps only a-z and
    0-9, so text in another script scores 0. Source: Lin 2004, "ROUGE: A Package for Automatic
    Evaluation of Summaries", https://aclanthology.org/W04-1013.

    Args:
        predictions: One text a row; an empty one scores 0.
        references: One text a row; rows whose reference is empty or blank are left out.

    Returns:
        `rouge1`, `rouge2` and `rougeL`, each 0 to 1, each None when no row is left.

    Raises:
        ValueError: If there are not as many predictions as references.
    """
    scores = rouge_rows(predictions, references, types=ROUGE_TYPES)
    return {name: mean(rows) for name, rows in scores.items()}


def answerability(probabilities: Iterable[float], labels: Iterable[int | None]) -> dict[str, float | None]:
    """How well P(summary carries the answer) tells the rows that do from those that do not.

    Args:
        probabilities: P(class 1), one a row, 0 to 1.
        labels: 1 or 0, one a row; rows labelled -100 or None are left out.

    Returns:
        `accuracy`, 0 to 1, of saying yes where the probability is above 0.5 (at 0.5 it is a no, as
        the arg max of two equal logits is), None when no row is left; and `auroc`, 0 to 1, the area
        under the ROC curve by scikit-learn's `roc_auc_score`, None unless both classes are there.

    Raises:
        ValueError: If there are not as many probabilities as labels, if a probability is NaN or
            outside 0 to 1 (in a row that is left out, too: the model is at fault there as well),
            or if a label is none of 0, 1, -100 and None.
    """
    figures = answerability_figures(probabilities, labels)
    return {name: figures[name] for name in ("accuracy", "auroc")}


def table(rows: Mapping[str, Mapping[str, float | str | None]], markdown: bool = False) -> str:
    """Lay out scores with a line for each system and a column for each metric.

    Args:
        rows: The metrics of each system by name, as numbers or as text that stands as it is. Columns
            come in the order in which the metrics are first met; a metric that a system lacks shows as
            None does.
        markdown: Whether to write a Markdown table instead of plain, aligned text.

    Returns:
        The table, three decimals a number and "-" for None, without a newline at its end.
    """
    metrics = list(dict.fromkeys(metric for scores in rows.values() for metric in scores))
    lines = [["system", *metrics]]
    for system, scores in rows.items():
        values = [scores.get(metric) for metric in metrics]
        lines.append([system, *map(_cell, values)])
    if markdown:
        lines = [[cell.replace("|", r"\|") for cell in line] for line in lines]

    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    aligned = [[line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])] for line in lines]
    rule = ["-" * width for width in widths]
    if not markdown:
        return "\n".join("  ".join(line).rstrip() for line in [aligned[0], rule, *aligned[1:]])
    rule[1:] = [dashes[:-1] + ":" for dashes in rule[1:]]  # numbers are aligned right
    return "\n".join(f"| {' | '.join(line)} |" for line in [aligned[0], rule, *aligned[1:]])


def _cell(value: float | str | None) -> str:
    return value if isinstance(value, str) else "-" if value is None else f"{value:.3f}"
