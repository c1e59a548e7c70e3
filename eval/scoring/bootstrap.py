"""Error bars: how far each mean may be off, and whether two systems differ, by resampling passages.

Questions on one passage share its text and often their summary, so their scores are no independent
draws: intervals over rows would be too narrow. A resample therefore draws whole passages.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Estimate:
    """A system's mean on a metric, in the metric's unit.

    Attributes:
        mean: Over the rows where the metric is defined; None if there is none.
        low: The lower end of the interval, None where fewer than two passages have a value.
        high: The upper end, None as `low` is.
        p: Two-sided p-value of the difference to the baseline, in (0, 1]; None for the baseline itself,
            without one, and where fewer than two passages have values.
        rows: How many rows the mean is over.
    """

    mean: float | None
    low: float | None
    high: float | None
    p: float | None
    rows: int


def intervals(
    scores: Mapping[str, Mapping[str, Sequence[float | None]]],
    passages: Sequence[str],
    baseline: str | None = None,
    *,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, dict[str, Estimate]]:
    """Mean, percentile interval and p-value of every system and metric, by a paired bootstrap.

    Each resample draws as many passages as there are, with replacement, and is the same for all
    systems and metrics, so that what makes a passage hard cancels in a difference. The p-value is twice
    the smaller of the shares of resamples in which the difference of the two means is at most and at
    least 0, with the observed sample counted as one more of either, so that it is never 0: below 0.05
    as the 95% interval of the difference leaves out 0. It is not corrected for the number of metrics
    and systems. Neither the order of the rows nor that of the systems changes anything, not even a
    last digit.

    Sources: percentile interval: Efron & Tibshirani 1993, "An Introduction to the Bootstrap", chapter
    13; paired resampling of systems: Koehn 2004, "Statistical Significance Tests for Machine
    Translation Evaluation", https://aclanthology.org/W04-3250; the added one: Davison & Hinkley 1997,
    "Bootstrap Methods and their Application", section 4.2.

    Args:
        scores: The scores of each system by metric, one a row, None where the metric is undefined.
        passages: The passage of each row. Rows of equal text are resampled together.
        baseline: The system that the others are compared with.
        resamples: How many resamples to draw, at least 1.
        seed: Of the random numbers.
        level: The share of resampled means that the interval holds, between 0 and 1.

    Returns:
        An `Estimate` for each system and metric of `scores`.

    Raises:
        ValueError: If a metric has not a score for each row, if a score is NaN or infinite, if
            `baseline` is no system, or if `resamples` or `level` is not as described.
    """
    if baseline is not None and baseline not in scores:
        raise ValueError(f"The baseline {baseline!r} is none of the systems: {', '.join(scores)}.")
    if resamples < 1 or not 0 < level < 1:
        raise ValueError(
            f"resamples is {resamples} and level {level}, expected at least 1, and between 0 and 1."
        )
    number = {passage: index for index, passage in enumerate(sorted(set(passages)))}
    codes = np.array([number[passage] for passage in passages], dtype=np.int64)
    weights = _draw(len(number), resamples, seed)

    means, found = {}, {}
    for system, metrics in scores.items():
        for metric, values in metrics.items():
            where = f"{metric} of {system}"
            means[system, metric], found[system, metric] = _resampled(values, codes, weights, where)
    tails = [50 * (1 - level), 50 * (1 + level)]
    estimates: dict[str, dict[str, Estimate]] = {system: {} for system in scores}
    for (system, metric), resampled in means.items():
        mean, rows = found[system, metric]
        low, high = (None, None) if resampled is None else map(float, np.nanpercentile(resampled, tails))
        against = means.get((baseline, metric)) if system != baseline else None
        estimates[system][metric] = Estimate(mean, low, high, _p_value(resampled, against), rows)
    return estimates


def _draw(passages: int, resamples: int, seed: int) -> np.ndarray:
    """How often each resample holds each passage, (resamples, passages)."""
    if not passages:
        return np.zeros((resamples, 0))
    drawn = np.random.default_rng(seed).integers(passages, size=(resamples, passages))
    drawn += passages * np.arange(resamples)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=resamples * passages)
    return counts.reshape(resamples, passages).astype(np.float64)


def _resampled(
    values: Sequence[float | None], codes: np.ndarray, weights: np.ndarray, where: str
) -> tuple[np.ndarray | None, tuple[float | None, int]]:
    """The mean of each resample, NaN where it has no value; and the mean and number of the values."""
    if len(values) != len(codes):
        raise ValueError(f"There are {len(values)} scores for {where}, expected one for {len(codes)} rows.")
    scores = np.array([math.nan if value is None else value for value in values], dtype=np.float64)
    defined = np.array([value is not None for value in values], dtype=bool)
    scores, codes = scores[defined], codes[defined]
    if not np.isfinite(scores).all():
        row = np.flatnonzero(defined)[~np.isfinite(scores)][0]
        raise ValueError(f"{where} is {values[row]} in row {row}, expected a finite number or None.")
    if not len(scores):
        return None, (None, 0)
    mean = math.fsum(scores) / len(scores), len(scores)
    if codes.min() == codes.max():
        return None, mean
    # Sorted within a passage, and summed by einsum rather than by BLAS, whose rounding depends on what
    # else is in the matrix: so that the order of rows and systems shows nowhere.
    order = np.lexsort((scores, codes))
    sums = np.bincount(codes[order], scores[order], minlength=weights.shape[1])
    counts = np.bincount(codes, minlength=weights.shape[1]).astype(np.float64)
    with np.errstate(invalid="ignore"):
        return np.einsum("rp,p->r", weights, sums) / np.einsum("rp,p->r", weights, counts), mean


def _p_value(resampled: np.ndarray | None, baseline: np.ndarray | None) -> float | None:
    if resampled is None or baseline is None:
        return None
    difference = resampled - baseline
    difference = difference[~np.isnan(difference)]
    if not len(difference):
        return None
    fewer = min((difference <= 0).sum(), (difference >= 0).sum())
    return min(1.0, 2 * (int(fewer) + 1) / (len(difference) + 1))
