"""Charts of an evaluation, small enough to be read on a phone."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from crosstask.eval.report.results import Evaluation, format_name
from crosstask.eval.scoring.bootstrap import Estimate, intervals
from crosstask.utils.plots import COLORS, new_figure

BINS = 20
_WIDTH = 5  # inches
_NAME = 26  # characters of a system's name that fit beside a chart
_MARKERS = "os^Dv<>P"


def score_distribution(evaluation: Evaluation, metric: str) -> Figure:
    """How a metric's scores spread: a strip a system, darker where more of its rows lie.

    The mean and its interval are drawn upon it. Scores that are all from 0 to 1 get that range, others
    their own. A strip rather than a box, as many scores are 0 or 1 and nothing between.
    """
    names = [name for name, system in evaluation.systems.items() if metric in system.scores]
    scores = [[s for s in evaluation.systems[name].scores[metric] if s is not None] for name in names]
    figure, axes = _new(1.1 + 0.34 * len(names))
    values = np.concatenate(scores)
    if len(values):
        low, high = min(0.0, values.min()), max(1.0, values.max())
        edges = np.linspace(low, high, BINS + 1)
        # Few rows are spread over many bins: by the square root of their share they still show.
        shares = np.array([np.histogram(s, edges)[0] / max(1, len(s)) for s in scores])
        axes.pcolormesh(
            edges, np.arange(len(names) + 1) - 0.5, shares, cmap="Blues", norm=PowerNorm(0.5, 0, 1)
        )
        axes.hlines(np.arange(1, len(names)) - 0.5, low, high, color="white", linewidth=3)
        for height, name in enumerate(names):
            estimate = evaluation.estimates[name][metric]
            if estimate.mean is not None:
                error = _error(estimate)
                style = {"fmt": "D", "color": COLORS[1], "markersize": 5, "capsize": 3, "clip_on": False}
                axes.errorbar(estimate.mean, height, xerr=error, **style)
        axes.set_xlim(low, high)
    axes.set_yticks(range(len(names)), map(_label, names))
    axes.set_ylim(len(names) - 0.5, -0.5)  # the first system is on top
    axes.set_xlabel(format_name(metric))
    return figure


def reliability_diagram(evaluation: Evaluation) -> Figure:
    """The share of yes against the probability of yes, with the number of rows of each bin beneath.

    Source: Niculescu-Mizil & Caruana 2005, "Predicting Good Probabilities With Supervised Learning",
    https://doi.org/10.1145/1102351.1102430.
    """
    figure = new_figure(_WIDTH, 5.2)
    axes, counts = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    judges = {name: system.reliability for name, system in evaluation.systems.items() if system.reliability}
    axes.plot((0, 1), (0, 1), color="0.6", linestyle="--", linewidth=1, label="as it should be")
    width = 0.05 / len(judges)
    for number, ((name, bins), color, marker) in enumerate(
        zip(judges.items(), cycle(COLORS), cycle(_MARKERS))
    ):
        bins = [bin for bin in bins if bin["count"]]
        confidence = np.array([bin["confidence"] for bin in bins])
        axes.plot(
            confidence,
            [bin["yes"] for bin in bins],
            color=color,
            marker=marker,
            markersize=5,
            label=_label(name),
        )
        shifted = confidence + width * (number - (len(judges) - 1) / 2)
        counts.bar(shifted, [bin["count"] for bin in bins], width, color=color)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), ylabel="share that carries the answer")
    axes.legend(frameon=False)
    counts.set(xlabel="P(the summary carries the answer)", ylabel="rows")
    for part in (axes, counts):
        part.spines[["top", "right"]].set_visible(False)
    return figure


def score_against_length(evaluation: Evaluation, metric: str) -> Figure:
    """The mean of a metric against the mean number of words of the summaries, both with intervals.

    A longer summary carries more answers by chance; what lies above its neighbours does better than that.
    """
    lengths = intervals(
        {
            name: {"words": [float(len(summary.split())) for summary in system.summaries]}
            for name, system in evaluation.systems.items()
        },
        evaluation.passages,
        resamples=evaluation.resamples,
        seed=evaluation.seed,
        level=evaluation.level,
    )
    figure, axes = _new(4.4)
    for (name, words), color, marker in zip(lengths.items(), cycle(COLORS), cycle(_MARKERS)):
        x, y = words["words"], evaluation.estimates[name].get(metric)
        if y is None or y.mean is None:
            continue
        axes.errorbar(
            *(x.mean, y.mean),
            **{"xerr": _error(x), "yerr": _error(y), "label": _label(name)},
            **{"fmt": marker, "color": color, "capsize": 2, "linewidth": 1, "clip_on": False},
        )
    axes.set(xlabel="words in the summary, mean", ylabel=f"{format_name(metric)}, mean")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
    return figure


def _new(height: float) -> tuple[Figure, Axes]:
    figure = new_figure(_WIDTH, height)
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _label(name: str) -> str:
    """A name that fits, whose dollar signs are no mathematics."""
    name = name if len(name) <= _NAME else f"{name[: _NAME - 1]}…"
    return name.replace("$", r"\$")


def _error(estimate: Estimate) -> Sequence[Sequence[float]] | None:
    """Below and above the mean, as matplotlib has it; rounding may put an end on the wrong side of it."""
    if estimate.low is None:
        return None
    return [[max(0, estimate.mean - estimate.low)], [max(0, estimate.high - estimate.mean)]]
