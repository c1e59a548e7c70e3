"""
Compute the statistics of a built data set: lengths, labels, and how often the summary carries the answer.

The rows are read once. Every statistic is computed from a histogram of integers, so memory hardly grows with
the number of rows: 8 bytes per row for the hash of its question, and one entry per distinct passage.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np

from crosstask.data.answers import answer_recall
from crosstask.data.schema import hash_texts
from crosstask.sentences_crosstask import count_words

TEXTS = ("passage", "question", "answer", "summary")
LABELS = {1: "yes", 0: "no", None: "unknown"}
ENTAILMENT_BINS = 20

_BATCH_SIZE = 256  # rows whose texts are tokenized together
_LENGTH_BINS = 40
_RATIO_STEPS = 10_000  # ratios are counted in units of 1/10,000, which bounds the size of their histogram


def compute_statistics(
    splits: Mapping[str, Iterable[Mapping[str, Any]]],
    count_tokens: Callable[[list[str]], list[int]] | None = None,
    *,
    threshold: float = 0.5,
) -> dict[str, Any]:
    """
    Compute the statistics of the splits of a built data set in one pass over their rows.

    The result does not depend on the order of the rows, not even in the last digit. Empty and blank texts are
    not counted. Medians and percentiles are interpolated as `numpy.percentile` does by default.

    Args:
        splits (`Mapping[str, Iterable[Mapping]]`):
            Rows by split; each split is read once, one after the other. A row has the columns of
            `data.schema.FEATURES` with the label as 0, 1 or `None`, and optionally `entailment`, the
            probability that the summary entails the answer, from 0 to 1, or `None` if it is unknown.
        count_tokens (`Callable`, *optional*):
            Function that returns the number of tokens of each text in a list, e.g. `lambda texts: [len(ids)
            for ids in tokenizer(texts).input_ids]`. By default, words between white space are counted.
        threshold (`float`, *optional*, defaults to 0.5):
            The summary carries the answer by entailment if the probability is above this value.

    Returns:
        `dict`: The statistics, with the keys

        - `unit`: `"tokens"`, or `"words"` without `count_tokens`;
        - `threshold`;
        - `edges`: the edges of the bins of each `histogram`, by text and `"compression"`. They are the same
          for all splits. A bin excludes its upper edge. The last edge is above the maximum or, if the maximum
          is more than twice as large, above the 99th percentile;
        - `splits`: the statistics of each split by name;
        - `all`: the statistics of all rows.

        The statistics of a split are

        - `rows`, and the distinct `passages` and `questions`. The same question on two passages counts as two
          questions; an empty question is not counted;
        - `questions_per_passage`: the mean;
        - `tokens`: for each of `"passage"`, `"question"`, `"answer"` and `"summary"` the `count`, `mean`,
          `median`,
          `p95`, `max` and `histogram` of the lengths. Distinct passages count once, other texts once per row;
        - `compression`: the same for summary tokens / passage tokens, to four decimals, over the rows with a
          summary;
        - `labels`: the number of rows labeled `"yes"`, `"no"` and `"unknown"`;
        - `yes`: the share of yes among the known labels;
        - `with_answer`: the share of the rows with a question that have an answer;
        - `carried`: among the rows with an answer, the share whose summary carries it `by_label` (where the
          label is known) and `by_entailment` (where the entailment is known; above the threshold), and
          `by_recall` the mean share of the answer's words in the summary (see `data.answers.answer_recall`);
        - `entailment`: the number of rows in each of 20 bins of equal width from 0 to 1.

        A mean or share over no rows is `None`.

    Raises:
        ValueError: If an entailment is not a number from 0 to 1, or a label is not 0, 1 or `None`. The
        message
            names the split and the row.
    """
    lengths: dict[int, int] = {}  # number of tokens by hash of the passage
    counts_by_split = {
        name: _count_split(name, rows, lengths, count_tokens or _count_words, threshold)
        for name, rows in splits.items()
    }
    total: dict[str, Counter] = defaultdict(Counter)
    questions = array("Q")
    for counts, split_questions in counts_by_split.values():
        questions += split_questions
        for key, counter in counts.items():
            total[key] += counter
    total["passage"] = Counter(lengths.values())  # a passage in two splits counts once

    edges: dict[str, list] = {column: _get_edges(total[column]) for column in TEXTS}
    edges["compression"] = [edge / _RATIO_STEPS for edge in _get_edges(total["compression"])]
    return {
        "unit": "tokens" if count_tokens else "words",
        "threshold": threshold,
        "edges": edges,
        "splits": {name: _summarize(*counts, edges) for name, counts in counts_by_split.items()},
        "all": _summarize(total, questions, edges),
    }


def _count_words(texts: list[str]) -> list[int]:
    return [count_words(text) for text in texts]


def _count_split(
    split: str,
    rows: Iterable[Mapping[str, Any]],
    lengths: dict[int, int],
    count_tokens: Callable[[list[str]], list[int]],
    threshold: float,
) -> tuple[dict[str, Counter], array]:
    """Return the histograms of a split by name and the hashes of its questions; add passages to `lengths`."""
    counts: dict[str, Counter] = defaultdict(Counter)
    questions, seen_passages = array("Q"), set()
    for row, key, tokens in _iter_tokenized(rows, lengths, count_tokens):
        _check_row(row, split)
        passage, question, answer, summary = (row[column] for column in TEXTS)
        label, entailment = row["answerable"], row.get("entailment")
        counts["labels"][LABELS[label]] += 1
        if passage.strip():
            if key not in lengths:
                lengths[key] = tokens[passage]
            if key not in seen_passages:
                seen_passages.add(key)
                counts["passage"][lengths[key]] += 1
            if summary.strip() and lengths[key]:
                counts["compression"][round(_RATIO_STEPS * tokens[summary] / lengths[key])] += 1
        for column in TEXTS[1:]:
            if row[column].strip():
                counts[column][tokens[row[column]]] += 1
        if question.strip():
            questions.append(hash_texts(passage, question))
            counts["with_answer"][bool(answer.strip())] += 1
        if entailment is not None:
            counts["entailment"][min(int(entailment * ENTAILMENT_BINS), ENTAILMENT_BINS - 1)] += 1
        if answer.strip():
            if label is not None:
                counts["by_label"][label] += 1
            if entailment is not None:
                counts["by_entailment"][entailment > threshold] += 1
            recall = answer_recall([summary], [answer])
            if recall is not None:  # None for an answer that consists of articles and punctuation
                counts["by_recall"][recall] += 1
    return counts, questions


def _check_row(row: Mapping[str, Any], split: str) -> None:
    label, entailment = row["answerable"], row.get("entailment")
    where = f"{split}, row {row.get('id')!r}"
    if label not in LABELS:
        raise ValueError(f"{where}: answerable is {label!r}, expected 0, 1 or None")
    if entailment is not None and not 0 <= entailment <= 1:  # false for NaN, too
        raise ValueError(f"{where}: entailment is {entailment}, expected a number from 0 to 1 or None")


def _iter_tokenized(
    rows: Iterable[Mapping[str, Any]],
    lengths: Mapping[int, int],
    count_tokens: Callable[[list[str]], list[int]],
) -> Iterator[tuple[Mapping[str, Any], int, dict[str, int]]]:
    """Yield each row, the hash of its passage, and token counts by text, except of passages in `lengths`."""
    rows = iter(rows)
    while batch := list(islice(rows, _BATCH_SIZE)):
        keys = [hash_texts(row["passage"]) for row in batch]
        passages = {row["passage"] for row, key in zip(batch, keys, strict=True) if key not in lengths}
        texts = [*passages, *{row[column] for row in batch for column in TEXTS[1:]} - passages]
        tokens = dict(zip(texts, count_tokens(texts), strict=True))
        yield from ((row, key, tokens) for row, key in zip(batch, keys, strict=True))


def _summarize(counts: Mapping[str, Counter], questions: array, edges: Mapping[str, list]) -> dict[str, Any]:
    """Return the statistics of a split or of all rows, as `compute_statistics` documents them."""
    passages = counts["passage"].total()
    num_questions = int(np.unique(np.array(questions, dtype=np.uint64)).size)
    recalls = counts["by_recall"]
    recall_sum = math.fsum(value * count for value, count in recalls.items())
    known_labels = Counter({1: counts["labels"]["yes"], 0: counts["labels"]["no"]})
    return {
        "rows": counts["labels"].total(),
        "passages": passages,
        "questions": num_questions,
        "questions_per_passage": num_questions / passages if passages else None,
        "tokens": {column: _summarize_values(counts[column], edges[column]) for column in TEXTS},
        "compression": _summarize_values(counts["compression"], edges["compression"], _RATIO_STEPS),
        "labels": {label: counts["labels"][label] for label in LABELS.values()},
        "yes": _get_share(known_labels),
        "with_answer": _get_share(counts["with_answer"]),
        "carried": {
            "by_label": _get_share(counts["by_label"]),
            "by_entailment": _get_share(counts["by_entailment"]),
            "by_recall": recall_sum / recalls.total() if recalls else None,
        },
        "entailment": [counts["entailment"][number] for number in range(ENTAILMENT_BINS)],
    }


def _get_share(counter: Counter) -> float | None:
    return counter[1] / counter.total() if counter.total() else None


def _summarize_values(counter: Counter, edges: list, steps: int = 1) -> dict[str, Any]:
    """Return count, mean, median, 95th percentile, maximum and histogram of values in units of 1/`steps`."""
    if not counter:
        return {"count": 0, "mean": None, "median": None, "p95": None, "max": None, "histogram": []}
    width, histogram = round(edges[1] * steps), [0] * (len(edges) - 1)
    for value, count in counter.items():
        if value < width * len(histogram):
            histogram[value // width] += count
    return {
        "count": counter.total(),
        "mean": sum(value * count for value, count in counter.items()) / (counter.total() * steps),
        "median": _get_percentile(counter, 50) / steps,
        "p95": _get_percentile(counter, 95) / steps,
        "max": max(counter) / steps if steps > 1 else max(counter),
        "histogram": histogram,
    }


def _get_percentile(counter: Counter, percent: float) -> float:
    """Return what `numpy.percentile` returns for the values, each repeated as often as it was counted."""
    values = sorted(counter)
    cumulative = np.cumsum([counter[value] for value in values])
    rank = (counter.total() - 1) * percent / 100
    low, high = (
        values[np.searchsorted(cumulative, index, side="right")] for index in (int(rank), math.ceil(rank))
    )
    return low + (high - low) * (rank - int(rank))


def _get_edges(counter: Counter) -> list[int]:
    """Return the edges of at most 40 bins of equal width from 0 to the maximum or the 99th percentile."""
    if not counter:
        return [0, 1]
    top, maximum = math.ceil(_get_percentile(counter, 99)), max(counter)
    if maximum <= 2 * top:  # a short tail is shown rather than cut off
        top = maximum
    width = top // _LENGTH_BINS + 1
    return list(range(0, top + width + 1, width))
