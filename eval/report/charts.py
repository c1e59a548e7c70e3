"""Charts of an evaluation, small enough for a phone."""

from __future__ import annotations

from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from crosstask.eval.report.results import Evaluation
from crosstask.eval.report.tables import format_name
from crosstask.eval.scoring.bootstrap import Estimate, estimate_means
from crosstask.eval.scoring.depth import average_by_depth, find_depths
from crosstask.utils.plots import COLORS, new_figure

BINS = 20
WIDTH = 5  # inches
MAX_LABEL_LENGTH = 26  # characters of a system's name that fit beside a chart
MARKERS = "os^Dv<>P"


def draw_score_distribution(evaluation: Evaluation, metric: str) -> Figure:
    """Draw the distribution of a metric's scores: one strip per system, darker where it has more rows.

    The mean and its interval are drawn on the strip. The axis is 0 to 1, or wider if a score is outside of
    that. Strips are used instead of box plots because many scores are either 0 or 1.
    """
    names = [name for name, system in evaluation.systems.items() if metric in system.scores]
    scores = [[s for s in evaluation.systems[name].scores[metric] if s is not None] for name in names]
    figure, axes = _new_figure(1.1 + 0.34 * len(names))
    values = np.concatenate(scores)
    if len(values):
        low, high = min(0.0, values.min()), max(1.0, values.max())
        edges = np.linspace(low, high, BINS + 1)
        shares = np.array([np.histogram(s, edges)[0] / max(1, len(s)) for s in scores])
        # Colors scale with the square root of a bin's share, so that bins with few rows remain visible.
        axes.pcolormesh(
            edges, np.arange(len(names) + 1) - 0.5, shares, cmap="Blues", norm=PowerNorm(0.5, 0, 1)
        )
        axes.hlines(np.arange(1, len(names)) - 0.5, low, high, color="white", linewidth=3)
        for height, name in enumerate(names):
            estimate = evaluation.estimates[name][metric]
            if estimate.mean is not None:
                error = _get_error_bar(estimate)
                style: dict[str, Any] = {"fmt": "D", "color": COLORS[1], "markersize": 5, "capsize": 3}
                axes.errorbar(estimate.mean, height, xerr=error, clip_on=False, **style)
        axes.set_xlim(low, high)
    axes.set_yticks(range(len(names)), map(_make_label, names))
    axes.set_ylim(len(names) - 0.5, -0.5)  # the first system is at the top
    axes.set_xlabel(format_name(metric))
    return figure


def draw_reliability_diagram(evaluation: Evaluation) -> Figure:
    """Draw the share of label 1 against the predicted probability, and below it the number of rows per bin.

    Source: Niculescu-Mizil & Caruana 2005, "Predicting Good Probabilities With Supervised Learning",
    https://doi.org/10.1145/1102351.1102430.
    """
    figure = new_figure(WIDTH, 5.2)
    axes, count_axes = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    systems = {name: system.reliability for name, system in evaluation.systems.items() if system.reliability}
    axes.plot((0, 1), (0, 1), color="0.6", linestyle="--", linewidth=1, label="as it should be")
    width = 0.05 / len(systems)
    styles = zip(systems.items(), cycle(COLORS), cycle(MARKERS))
    for number, ((name, bins), color, marker) in enumerate(styles):
        bins = [bin for bin in bins if bin["count"]]
        probabilities = np.array([bin["probability"] for bin in bins])
        shares = [bin["yes"] for bin in bins]
        style: dict[str, Any] = {"color": color, "marker": marker, "markersize": 5}
        axes.plot(probabilities, shares, label=_make_label(name), **style)
        shifted = probabilities + width * (number - (len(systems) - 1) / 2)
        count_axes.bar(shifted, [bin["count"] for bin in bins], width, color=color)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), ylabel="share that carries the answer")
    axes.legend(frameon=False)
    count_axes.set(xlabel="P(the summary carries the answer)", ylabel="rows")
    for part in (axes, count_axes):
        part.spines[["top", "right"]].set_visible(False)
    return figure


def draw_risk_coverage(evaluation: Evaluation) -> Figure:
    """Draw the share of wrong summaries among those that are accepted, against the share that is accepted.

    Source: Geifman & El-Yaniv 2017, "Selective Classification for Deep Neural Networks",
    https://arxiv.org/abs/1705.08500.
    """
    figure, axes = _new_figure(3.4)
    systems = {n: system.risk_coverage for n, system in evaluation.systems.items() if system.risk_coverage}
    for (name, points), color in zip(systems.items(), cycle(COLORS)):
        coverage, risk = ([point[key] for point in points] for key in ("coverage", "risk"))
        axes.plot(coverage, risk, color=color, label=_make_label(name))
    axes.set(xlim=(0, 1.01), xlabel="share of summaries accepted", ylabel="share of these that is wrong")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    return figure


def draw_score_by_depth(evaluation: Evaluation, metric: str) -> Figure:
    """Draw the mean of a metric by the depth of the answer in the passage, in tenths."""
    figure, axes = _new_figure(3.4)
    depths = find_depths(evaluation.rows)
    styles = zip(evaluation.systems.items(), cycle(COLORS), cycle(MARKERS))
    for (name, system), color, marker in styles:
        points = average_by_depth(depths, system.scores.get(metric, [None] * len(depths)))
        style: dict[str, Any] = {"color": color, "marker": marker, "markersize": 4}
        x, y = ([point[key] for point in points] for key in ("depth", "mean"))
        axes.plot(x, y, label=_make_label(name), clip_on=False, **style)
    axes.set(xlim=(0, 1), xlabel="depth of the answer in the passage", ylabel=f"{format_name(metric)}, mean")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    return figure


def draw_score_against_length(evaluation: Evaluation, metric: str) -> Figure:
    """Draw the mean of a metric against the mean number of words in the summaries, both with intervals.

    A longer summary carries more answers by chance, so systems should be compared at similar lengths.
    """
    lengths = estimate_means(
        {
            name: {"words": [float(len(summary.split())) for summary in system.summaries]}
            for name, system in evaluation.systems.items()
        },
        evaluation.passages,
        resamples=evaluation.resamples,
        seed=evaluation.seed,
        level=evaluation.level,
    )
    figure, axes = _new_figure(4.4)
    for (name, estimates), color, marker in zip(lengths.items(), cycle(COLORS), cycle(MARKERS)):
        x, y = estimates["words"], evaluation.estimates[name].get(metric)
        if x.mean is None or y is None or y.mean is None:
            continue
        style: dict[str, Any] = {
            "fmt": marker,
            "color": color,
            "capsize": 2,
            "linewidth": 1,
            "clip_on": False,
        }
        errors: dict[str, Any] = {"yerr": _get_error_bar(y)}  # none of either if the test is small
        errors["xerr"] = None if evaluation.is_small else _get_error_bar(x)
        axes.errorbar(x.mean, y.mean, label=_make_label(name), **errors, **style)
    axes.set(xlabel="words in the summary, mean", ylabel=f"{format_name(metric)}, mean")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
    return figure


def _new_figure(height: float) -> tuple[Figure, Axes]:
    """Return an empty chart, `height` inches high, without a frame at the top and right."""
    figure = new_figure(WIDTH, height)
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _make_label(name: str) -> str:
    """Shorten a system's name, and escape the dollar signs that matplotlib would read as mathematics."""
    name = name if len(name) <= MAX_LABEL_LENGTH else f"{name[: MAX_LABEL_LENGTH - 1]}…"
    return name.replace("$", r"\$")


def _get_error_bar(estimate: Estimate) -> list[list[float]] | None:
    """Return the distances of the interval's ends from the mean, as matplotlib expects them.

    They are at least 0: by rounding, an end can be on the wrong side of the mean.
    """
    if estimate.mean is None or estimate.low is None or estimate.high is None:
        return None
    return [[max(0, estimate.mean - estimate.low)], [max(0, estimate.high - estimate.mean)]]
