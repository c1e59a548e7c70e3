"""What a built data set holds: lengths, labels and how often the summary carries the answer.

Counted in one pass, in memory that hardly grows with the rows: every figure comes from a histogram
of integers, besides 8 bytes a row that tell its question and an entry a distinct passage.
"""

from __future__ import annotations

import json
import math
import os
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from crosstask.data.answers import answer_recall
from crosstask.data.schema import digest
from crosstask.utils.files import write_text
from crosstask.utils.plots import COLORS, new_figure, save_png

TEXTS = ("passage", "question", "answer", "summary")
LABELS = {1: "yes", 0: "no", None: "unknown"}
ENTAILMENT_BINS = 20

_BATCH = 256  # rows whose texts are tokenized together
_LENGTH_BINS = 40
_RATIO_STEP = 10_000  # ratios are counted in steps of 1/10,000, so that their histogram stays small


def describe(
    splits: Mapping[str, Iterable[Mapping[str, Any]]],
    count_tokens: Callable[[list[str]], list[int]] | None = None,
    *,
    threshold: float = 0.5,
) -> dict[str, Any]:
    """Count what the splits of a built data set hold, in one pass over their rows.

    The order of the rows changes nothing, not even a last digit. Empty and blank texts are not
    counted. Medians and percentiles are interpolated as `numpy.percentile` does by default.

    Args:
        splits: Rows of each split, read once and one after the other: the columns of
            `data.schema.FEATURES` with the label as 0, 1 or None, and `entailment`, P(entailment
            of the answer by the summary), 0 to 1, or None or absent where it is not known.
        count_tokens: Gives the number of tokens of each text of a list, e.g.
            `lambda texts: [len(ids) for ids in tokenizer(texts).input_ids]`. Words between white
            space are counted if None.
        threshold: The entailment above which the summary is said to carry the answer.

    Returns:
        `unit` ("tokens", or "words" without `count_tokens`), `threshold`, `edges` (of the bins of each
        `histogram`, by text and "compression": the same for all splits, each bin without its upper
        edge, up to the maximum or, where that is over twice as large, the 99th percentile), `splits`
        (name to figures) and `all` (the figures of all rows). Figures are:

        - `rows`; `passages` and `questions`: distinct ones, a question being another one on another
          passage, "" being none; `questions_per_passage`: their mean;
        - `tokens`: for each of "passage", "question", "answer" and "summary", its `count`, `mean`,
          `median`, `p95`, `max` and `histogram`. Distinct passages count once, the rest once a row;
        - `compression`: the same of summary tokens / passage tokens, to four decimals, over the rows
          with a summary;
        - `labels`: how many are "yes", "no" and "unknown"; `yes`: the share of yes among the known;
        - `with_answer`: the share of the rows with a question that have an answer;
        - `carried`: of the rows with an answer, the share whose answer the summary carries `by_label`
          (where it is known), `by_entailment` (where it is known, above the threshold) and
          `by_recall` (mean share of the answer's words, see `data.answers.answer_recall`);
        - `entailment`: how many rows fall into each of 20 bins of equal width from 0 to 1.

        A figure of no rows is None.

    Raises:
        ValueError: If an entailment is NaN or not from 0 to 1, or a label none of 0, 1 and None; it
            names the split and the row.
    """
    lengths: dict[int, int] = {}  # digest of a passage to its tokens
    tallies = {
        name: _tally(name, rows, lengths, count_tokens or _count_words, threshold)
        for name, rows in splits.items()
    }
    total, questions = defaultdict(Counter), array("Q")
    for counts, digests in tallies.values():
        questions += digests
        for key, counter in counts.items():
            total[key] += counter
    total["passage"] = Counter(lengths.values())  # one that two splits share is still one

    edges = {column: _edges(total[column]) for column in TEXTS}
    edges["compression"] = [edge / _RATIO_STEP for edge in _edges(total["compression"])]
    return {
        "unit": "tokens" if count_tokens else "words",
        "threshold": threshold,
        "edges": edges,
        "splits": {name: _figures(*tally, edges) for name, tally in tallies.items()},
        "all": _figures(total, questions, edges),
    }


def write_statistics(statistics: Mapping[str, Any], folder: str | os.PathLike[str]) -> None:
    """Write `stats.json`, `lengths.png` and `labels.png`: the same statistics give the same bytes.

    `lengths.png` (1500 by 1200 pixels) has the lengths of passages, questions, answers and summaries;
    `labels.png` (2250 by 675) the balance of the labels, the judge's probabilities with the threshold,
    and the compression ratio. Where a tail is longer than twice the 99th percentile it is cut off,
    and the panel says so.

    Args:
        statistics: As `describe` gives them.
        folder: Where the three files go; those there are replaced.
    """
    folder = Path(folder)
    write_text(folder / "stats.json", json.dumps(statistics, indent=2, sort_keys=True) + "\n")
    splits, edges, unit = statistics["splits"], statistics["edges"], statistics["unit"]

    figure = new_figure(10, 8)
    for axes, column in zip(figure.subplots(2, 2).flat, TEXTS, strict=True):
        axes.set_title(_PLURALS[column], loc="left")
        lengths = {name: figures["tokens"][column] for name, figures in splits.items()}
        around = [edge - 0.5 for edge in edges[column]]  # a bar stands over its whole number
        _draw_histograms(axes, lengths, around, f"length ({unit})", _PLURALS[column])
    save_png(figure, folder / "lengths.png")

    figure = new_figure(15, 4.5)
    labels, entailment, compression = figure.subplots(1, 3)
    labels.set_title("does the summary carry the answer?", loc="left")
    _draw_labels(labels, {name: figures["labels"] for name, figures in splits.items()})
    entailment.set_title("P(the summary entails the answer)", loc="left")
    judged = {name: figures["entailment"] for name, figures in splits.items()}
    bins = {name: {"count": sum(counts), "histogram": counts} for name, counts in judged.items()}
    unit_interval = [number / ENTAILMENT_BINS for number in range(ENTAILMENT_BINS + 1)]
    _draw_histograms(entailment, bins, unit_interval, "probability, by the judge", "judged rows")
    if entailment.patches:
        text = f"threshold {statistics['threshold']:g}"
        entailment.axvline(statistics["threshold"], color="0.2", linestyle="--", linewidth=1, label=text)
        _legend(entailment)
    compression.set_title("compression", loc="left")
    ratios = {name: figures["compression"] for name, figures in splits.items()}
    _draw_histograms(
        compression, ratios, edges["compression"], f"summary {unit} / passage {unit}", "rows with a summary"
    )
    save_png(figure, folder / "labels.png")


_PLURALS = {"passage": "passages", "question": "questions", "answer": "answers", "summary": "summaries"}


def _count_words(texts: list[str]) -> list[int]:
    return [len(text.split()) for text in texts]


def _tally(
    split: str,
    rows: Iterable[Mapping[str, Any]],
    lengths: dict[int, int],
    count_tokens: Callable[[list[str]], list[int]],
    threshold: float,
) -> tuple[dict[str, Counter], array]:
    """The histograms of a split by name, and the digests of its questions; `lengths` grows."""
    counts, questions, seen = defaultdict(Counter), array("Q"), set()
    for row, key, tokens in _tokenized(rows, lengths, count_tokens):
        passage, question, answer, summary = (row[column] for column in TEXTS)
        label, entailment = row["answerable"], row.get("entailment")
        where = f"{split}, row {row.get('id')!r}"
        if label not in LABELS:
            raise ValueError(f"{where}: answerable is {label!r}, expected 0, 1 or None.")
        if entailment is not None and not 0 <= entailment <= 1:  # NaN fails this too
            raise ValueError(f"{where}: entailment is {entailment}, expected 0 to 1 or None.")
        counts["labels"][LABELS[label]] += 1
        if passage.strip():
            length = lengths.setdefault(key, tokens.get(passage))
            if key not in seen:
                seen.add(key)
                counts["passage"][length] += 1
            if summary.strip() and length:
                counts["compression"][round(_RATIO_STEP * tokens[summary] / length)] += 1
        for column in TEXTS[1:]:
            if row[column].strip():
                counts[column][tokens[row[column]]] += 1
        if question.strip():
            questions.append(digest(passage, question))
            counts["with_answer"][bool(answer.strip())] += 1
        if entailment is not None:
            counts["entailment"][min(int(entailment * ENTAILMENT_BINS), ENTAILMENT_BINS - 1)] += 1
        if answer.strip():
            if label is not None:
                counts["by_label"][label] += 1
            if entailment is not None:
                counts["by_entailment"][entailment > threshold] += 1
            recall = answer_recall([summary], [answer])
            if recall is not None:  # it is where the answer is nothing but articles and punctuation
                counts["by_recall"][recall] += 1
    return counts, questions


def _tokenized(
    rows: Iterable[Mapping[str, Any]],
    lengths: Mapping[int, int],
    count_tokens: Callable[[list[str]], list[int]],
) -> Iterator[tuple[Mapping[str, Any], int, dict[str, int]]]:
    """Each row with its passage's digest and the tokens of its texts, but of no known passage."""
    rows = iter(rows)
    while batch := list(islice(rows, _BATCH)):
        keys = [digest(row["passage"]) for row in batch]
        texts = {row["passage"] for row, key in zip(batch, keys, strict=True) if key not in lengths}
        texts = [*texts, *{row[column] for row in batch for column in TEXTS[1:]} - texts]
        tokens = dict(zip(texts, count_tokens(texts), strict=True))
        yield from ((row, key, tokens) for row, key in zip(batch, keys, strict=True))


def _figures(counts: Mapping[str, Counter], questions: array, edges: Mapping[str, list]) -> dict[str, Any]:
    """The figures of a split or of all rows, as `describe` documents them."""
    passages = counts["passage"].total()
    distinct = int(np.unique(np.array(questions, dtype=np.uint64)).size)
    recalls = counts["by_recall"]
    recall = math.fsum(value * count for value, count in recalls.items())
    known = Counter({1: counts["labels"]["yes"], 0: counts["labels"]["no"]})
    return {
        "rows": counts["labels"].total(),
        "passages": passages,
        "questions": distinct,
        "questions_per_passage": distinct / passages if passages else None,
        "tokens": {column: _spread(counts[column], edges[column]) for column in TEXTS},
        "compression": _spread(counts["compression"], edges["compression"], _RATIO_STEP),
        "labels": {label: counts["labels"][label] for label in LABELS.values()},
        "yes": _share(known),
        "with_answer": _share(counts["with_answer"]),
        "carried": {
            "by_label": _share(counts["by_label"]),
            "by_entailment": _share(counts["by_entailment"]),
            "by_recall": recall / recalls.total() if recalls else None,
        },
        "entailment": [counts["entailment"][number] for number in range(ENTAILMENT_BINS)],
    }


def _share(counter: Counter) -> float | None:
    return counter[1] / counter.total() if counter.total() else None


def _spread(counter: Counter, edges: list, step: int = 1) -> dict[str, Any]:
    """Count, mean, median, 95th percentile, maximum and histogram of values in units of 1/`step`."""
    if not counter:
        return {"count": 0, "mean": None, "median": None, "p95": None, "max": None, "histogram": []}
    width, histogram = round(edges[1] * step), [0] * (len(edges) - 1)
    for value, weight in counter.items():
        if value < width * len(histogram):
            histogram[value // width] += weight
    return {
        "count": counter.total(),
        "mean": sum(value * weight for value, weight in counter.items()) / (counter.total() * step),
        "median": _percentile(counter, 50) / step,
        "p95": _percentile(counter, 95) / step,
        "max": max(counter) / step if step > 1 else max(counter),
        "histogram": histogram,
    }


def _percentile(counter: Counter, percent: float) -> float:
    """What `numpy.percentile` gives for the values, each as often as it was counted."""
    values = sorted(counter)
    upto = np.cumsum([counter[value] for value in values])
    at = (counter.total() - 1) * percent / 100
    low, high = (values[np.searchsorted(upto, whole, side="right")] for whole in (int(at), math.ceil(at)))
    return low + (high - low) * (at - int(at))


def _edges(counter: Counter) -> list[int]:
    """Edges of at most 40 bins of one whole width, from 0 to the largest value or the 99th percentile."""
    if not counter:
        return [0, 1]
    top, tail = math.ceil(_percentile(counter, 99)), max(counter)
    if tail <= 2 * top:  # cutting so little off would tell less than it hides
        top = tail
    width = top // _LENGTH_BINS + 1
    return list(range(0, top + width + 1, width))


def _draw_histograms(
    axes: Axes, spreads: Mapping[str, Mapping], edges: list, xlabel: str, counted: str
) -> None:
    """A line a split, in per cent of what the split counts, so that small splits show beside large ones."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(f"share of the {counted} (%)")
    colors = dict(zip(spreads, cycle(COLORS)))  # a split that counts nothing here keeps its colour
    spreads = {name: spread for name, spread in spreads.items() if spread["count"]}
    if not spreads:
        _draw_nothing(axes, f"no {counted}")
        return
    for name, spread in spreads.items():
        color = colors[name]
        shares = [100 * count / spread["count"] for count in spread["histogram"]]
        axes.stairs(shares, edges, color=color, linewidth=1.5, label=f"{name} ({spread['count']:,})")
        if len(spreads) == 1:
            axes.stairs(shares, edges, color=color, fill=True, alpha=0.15)
    axes.set_xlim(min(0, edges[0]), edges[-1])
    axes.set_ylim(bottom=0)
    cut = sum(spread["count"] - sum(spread["histogram"]) for spread in spreads.values())
    if cut:
        longest = max(spread["max"] for spread in spreads.values())
        axes.set_xlabel(f"{xlabel}; not shown: {cut:,} above, up to {longest:,}")
    _legend(axes)


def _draw_labels(axes: Axes, labels: Mapping[str, Mapping[str, int]]) -> None:
    """A stacked bar a split, with the share of each label; the first split is on top."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("share of the rows (%)")
    labels = {f"{name}\n({sum(counts.values()):,})": counts for name, counts in labels.items()}
    labels = {name: counts for name, counts in labels.items() if any(counts.values())}
    if not labels:
        _draw_nothing(axes, "no rows")
        return
    left = np.zeros(len(labels))
    # Greys, as the colours beside it tell the splits.
    for label, grey, ink in (("yes", "0.3", "white"), ("no", "0.65", "black"), ("unknown", "0.9", "black")):
        shares = np.array([100 * counts[label] / sum(counts.values()) for counts in labels.values()])
        if shares.any():
            bars = axes.barh(list(labels), shares, 0.6, left=left, color=grey, label=label)
            texts = [f"{share:.0f}%" if share >= 7 else "" for share in shares]
            axes.bar_label(bars, texts, label_type="center", color=ink)
        left += shares
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.set_xlim(0, 100)
    _legend(axes)


def _draw_nothing(axes: Axes, why: str) -> None:
    axes.set(xticks=[], yticks=[])
    axes.text(0.5, 0.5, why, transform=axes.transAxes, ha="center", color="0.4")


def _legend(axes: Axes) -> None:
    """Below the panel, where it hides nothing."""
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3)
