"""Where in a passage its answer is, and how scores depend on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from crosstask.data.answers import compile_phrase

BINS = 10


def find_depths(rows: Sequence[Mapping[str, Any]]) -> list[float | None]:
    """
    Return for each row how deep in its passage the answer is.

    Args:
        rows (`Sequence[Mapping]`): Rows with `passage` and `answer`.

    Returns:
        `list`: The start of the answer's first occurrence as a share of the passage's characters, from 0 to
        below 1; `None` without an answer, or if it does not occur as it is.
    """
    depths: list[float | None] = []
    for row in rows:
        match = compile_phrase(row["answer"]).search(row["passage"]) if row["answer"].strip() else None
        depths.append(None if match is None else match.start() / len(row["passage"]))
    return depths


def average_by_depth(
    depths: Sequence[float | None], scores: Sequence[float | None]
) -> list[dict[str, float]]:
    """
    Return the mean score of the rows in each tenth of depth.

    Args:
        depths (`list`): The result of [`find_depths`].
        scores (`list`): One score per row; rows without a score are left out.

    Returns:
        `list[dict]`: For each tenth that has rows, its middle `depth`, the `mean` and the number of `rows`.
    """
    bins: dict[int, list[float]] = {}
    for depth, score in zip(depths, scores, strict=True):
        if depth is not None and score is not None:
            bins.setdefault(int(depth * BINS), []).append(score)
    return [
        {"depth": (number + 0.5) / BINS, "mean": sum(values) / len(values), "rows": len(values)}
        for number, values in sorted(bins.items())
    ]
