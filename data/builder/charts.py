"""Draw the statistics of a built data set: lengths of the texts, labels, entailment and compression."""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from crosstask.data.builder.stats import ENTAILMENT_BINS, TEXTS
from crosstask.utils.plots import COLORS, new_figure, save_png

_PLURALS = {"passage": "passages", "question": "questions", "answer": "answers", "summary": "summaries"}


def write_charts(statistics: Mapping[str, Any], folder: str | os.PathLike[str]) -> None:
    """
    Write `lengths.png` and `labels.png`. The same statistics give the same bytes.

    `lengths.png` (1500 by 1200 pixels) shows the lengths of passages, questions, answers and summaries.
    `labels.png` (2250 by 675 pixels) shows the shares of the labels, the judge's probabilities with the
    threshold, and the compression ratio. A tail that is longer than twice the 99th percentile is cut off, and
    the panel says so.

    Args:
        statistics (`Mapping[str, Any]`):
            Statistics as returned by [`compute_statistics`].
        folder (`str` or `os.PathLike`):
            Folder of the two files. Existing files are replaced.
    """
    _write_lengths(statistics, Path(folder) / "lengths.png")
    _write_labels(statistics, Path(folder) / "labels.png")


def _write_lengths(statistics: Mapping[str, Any], path: Path) -> None:
    figure = new_figure(10, 8)
    for axes, column in zip(figure.subplots(2, 2).flat, TEXTS, strict=True):
        axes.set_title(_PLURALS[column], loc="left")
        lengths = {name: split["tokens"][column] for name, split in statistics["splits"].items()}
        edges = [edge - 0.5 for edge in statistics["edges"][column]]  # center a bin of width 1 on its integer
        _draw_histograms(axes, lengths, edges, f"length ({statistics['unit']})", _PLURALS[column])
    save_png(figure, path)


def _write_labels(statistics: Mapping[str, Any], path: Path) -> None:
    splits, threshold, unit = (statistics[key] for key in ("splits", "threshold", "unit"))
    figure = new_figure(15, 4.5)
    labels, entailment, compression = figure.subplots(1, 3)

    labels.set_title("does the summary carry the answer?", loc="left")
    _draw_labels(labels, {name: split["labels"] for name, split in splits.items()})

    entailment.set_title("P(the summary entails the answer)", loc="left")
    histograms = {name: split["entailment"] for name, split in splits.items()}
    summaries = {name: {"count": sum(counts), "histogram": counts} for name, counts in histograms.items()}
    edges = [number / ENTAILMENT_BINS for number in range(ENTAILMENT_BINS + 1)]
    _draw_histograms(entailment, summaries, edges, "probability, by the judge", "judged rows")
    if entailment.patches:
        label = f"threshold {threshold:g}"
        entailment.axvline(threshold, color="0.2", linestyle="--", linewidth=1, label=label)
        _draw_legend(entailment)

    compression.set_title("compression", loc="left")
    ratios = {name: split["compression"] for name, split in splits.items()}
    xlabel = f"summary {unit} / passage {unit}"
    _draw_histograms(compression, ratios, statistics["edges"]["compression"], xlabel, "rows with a summary")
    save_png(figure, path)


def _draw_histograms(
    axes: Axes, summaries: Mapping[str, Mapping], edges: list, xlabel: str, unit: str
) -> None:
    """Draw one line per split, in percent of its count, so that small and large splits are comparable."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(f"share of the {unit} (%)")
    # Colors are assigned before empty splits are dropped, so that a split has the same color in all panels.
    colors = dict(zip(summaries, cycle(COLORS)))
    summaries = {name: summary for name, summary in summaries.items() if summary["count"]}
    if not summaries:
        _draw_placeholder(axes, f"no {unit}")
        return
    for name, summary in summaries.items():
        color = colors[name]
        shares = [100 * count / summary["count"] for count in summary["histogram"]]
        axes.stairs(shares, edges, color=color, linewidth=1.5, label=f"{name} ({summary['count']:,})")
        if len(summaries) == 1:
            axes.stairs(shares, edges, color=color, fill=True, alpha=0.15)
    axes.set_xlim(min(0, edges[0]), edges[-1])
    axes.set_ylim(bottom=0)
    num_hidden = sum(summary["count"] - sum(summary["histogram"]) for summary in summaries.values())
    if num_hidden:
        maximum = max(summary["max"] for summary in summaries.values())
        axes.set_xlabel(f"{xlabel}; not shown: {num_hidden:,} above, up to {maximum:,}")
    _draw_legend(axes)


def _draw_labels(axes: Axes, labels: Mapping[str, Mapping[str, int]]) -> None:
    """Draw one stacked bar per split with the share of each label; the first split is on top."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("share of the rows (%)")
    labels = {f"{name}\n({sum(counts.values()):,})": counts for name, counts in labels.items()}
    labels = {name: counts for name, counts in labels.items() if any(counts.values())}
    if not labels:
        _draw_placeholder(axes, "no rows")
        return
    left = np.zeros(len(labels))
    # Labels are gray, because the colors of the other panels stand for splits.
    for label, gray, ink in (("yes", "0.3", "white"), ("no", "0.65", "black"), ("unknown", "0.9", "black")):
        shares = np.array([100 * counts[label] / sum(counts.values()) for counts in labels.values()])
        if shares.any():
            bars = axes.barh(list(labels), shares, 0.6, left=left, color=gray, label=label)
            texts = [f"{share:.0f}%" if share >= 7 else "" for share in shares]
            axes.bar_label(bars, texts, label_type="center", color=ink)
        left += shares
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.set_xlim(0, 100)
    _draw_legend(axes)


def _draw_placeholder(axes: Axes, text: str) -> None:
    axes.set(xticks=[], yticks=[])
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", color="0.4")


def _draw_legend(axes: Axes) -> None:
    """Draw the legend below the panel, where it hides nothing."""
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3)
