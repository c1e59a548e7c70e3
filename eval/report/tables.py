"""The results of an evaluation as text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from crosstask.eval.report.results import Evaluation
from crosstask.eval.scoring.judgment import OWN, WRONG

TERMINAL_WIDTH = 120  # columns
# The kinds of summaries that a system judges, and the prefixes of their figures.
KINDS = {"own summaries": OWN, "references": "", "wrong values": WRONG}
SIGNIFICANCE_LEVEL = 0.05


def format_evaluation(evaluation: Evaluation) -> str:
    """Format the table of an evaluation for a terminal of 120 columns.

    Each mean is followed by half the width of its interval; ">" precedes the best value of a column, and "*"
    follows a value that differs from the baseline at p < 0.05. A legend explains the marks. Metrics are shown
    in order of first appearance, as many as fit. Figures that are not means over rows have a second table.

    Returns:
        `str`: The text, without a newline at its end.
    """
    metrics, lines = evaluation.metrics, []
    while metrics:
        cells = {name: _format_cells(evaluation, name, metrics) for name in evaluation.systems}
        text = format_table(cells)
        if len(metrics) == 1 or max(map(len, text.splitlines())) <= TERMINAL_WIDTH:
            lines.append(text)
            break
        metrics = metrics[:-1]
    if evaluation.figures:
        lines += ["", "Does it know which summaries carry the answer?", ""]
        lines.append(format_table(_format_figures(evaluation)))
    passages = len(set(evaluation.passages))
    lines += ["", f"{len(evaluation.rows):,} rows on {passages:,} passages.", *_make_legend(evaluation)]
    if hidden := evaluation.metrics[len(metrics) :]:
        lines.append(f"Not shown for want of room: {', '.join(map(format_name, hidden))}.")
    return "\n".join([*lines, *(f"Note: {note}" for note in evaluation.remarks)]).strip("\n")


def format_table(rows: Mapping[str, Mapping[str, str]]) -> str:
    """Format a plain, aligned table with one line per system and one column per metric.

    Args:
        rows (`Mapping[str, Mapping[str, str]]`): The cells of each system by metric. Columns are in order of
            first appearance; a metric that a system lacks is shown as "-".

    Returns:
        `str`: The table, without a newline at its end.
    """
    metrics = list(dict.fromkeys(metric for cells in rows.values() for metric in cells))
    lines = [["system", *map(format_name, metrics)]]
    lines += [[system, *(cells.get(metric, "-") for metric in metrics)] for system, cells in rows.items()]
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    lines = [[line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])] for line in lines]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join("  ".join(line).rstrip() for line in lines)


def format_name(key: str) -> str:
    """Format the key of a metric or setting for a reader: "answer_recall" becomes "answer recall"."""
    return key.replace("_", " ")


def format_number(value: float | None, digits: int = 3) -> str:
    """Format a number with `digits` decimals; None becomes "-"."""
    return "-" if value is None else f"{value:.{digits}f}"


def _format_cells(evaluation: Evaluation, name: str, metrics: Sequence[str]) -> dict[str, str]:
    """Format a system's means, each with half of its interval and its marks."""
    cells = {}
    for metric in metrics:
        estimate = evaluation.estimates[name].get(metric)
        if estimate is None or estimate.mean is None:
            cells[metric] = "- "
            continue
        digits = evaluation.get_digits(metric)
        text = format_number(estimate.mean, digits)
        if estimate.low is not None and estimate.high is not None:
            text += f" ±{format_number((estimate.high - estimate.low) / 2, digits)}"
        best_mark = ">" if name in evaluation.get_best(metric) else ""
        significant = estimate.p is not None and estimate.p < SIGNIFICANCE_LEVEL
        cells[metric] = best_mark + text + ("*" if significant else " ")
    return cells


def _format_figures(evaluation: Evaluation) -> dict[str, dict[str, str]]:
    """Return the cells of the table of figures: a line for each kind of summary that a system judges."""
    lines: dict[str, dict[str, str]] = {}
    for name, system in evaluation.systems.items():
        for kind, prefix in KINDS.items():
            figures = [figure for figure in system.figures if _get_prefix(figure) == prefix]
            cells = {
                figure.removeprefix(prefix): _format_figure(evaluation, name, figure) for figure in figures
            }
            if cells:
                lines[f"{name}, {kind}"] = cells
    return lines


def _get_prefix(figure: str) -> str:
    return next((prefix for prefix in (OWN, WRONG) if figure.startswith(prefix)), "")


def _format_figure(evaluation: Evaluation, name: str, figure: str) -> str:
    best_mark = ">" if name in evaluation.get_best(figure) else ""
    value = evaluation.systems[name].figures.get(figure)
    return best_mark + format_number(value, evaluation.get_digits(figure))


def _make_legend(evaluation: Evaluation) -> list[str]:
    """Return a line for each mark that the tables use."""
    estimates = [e for metrics in evaluation.estimates.values() for e in metrics.values()]
    lines = []
    if any(estimate.low is not None for estimate in estimates):
        lines.append(
            f"± half of the {100 * evaluation.level:g}% interval: {evaluation.resamples:,} resamples of the "
            f"passages, seed {evaluation.seed}."
        )
    if any(evaluation.get_best(metric) for metric in (*evaluation.metrics, *evaluation.figures)):
        lines.append("> the best of its column.")
    if any(estimate.p is not None for estimate in estimates):
        lines.append(
            f"* differs from {evaluation.baseline} at p < {SIGNIFICANCE_LEVEL}: paired, two-sided, not "
            "corrected for the number of comparisons."
        )
    return lines
