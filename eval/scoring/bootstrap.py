"""Confidence intervals and p-values of mean scores, by a bootstrap over passages.

The questions about one passage share its text and often their summary, so their scores are not independent:
intervals from resampled rows would be too narrow. A resample therefore draws passages with all their rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Estimate:
    """The mean of a system's scores on a metric, in the unit of the metric.

    Attributes:
        mean (`float`, *optional*): Mean over the rows that have a score; None if there are none.
        low (`float`, *optional*): Lower end of the interval; None if fewer than two passages have a score.
        high (`float`, *optional*): Upper end of the interval, likewise.
        p (`float`, *optional*): Two-sided p-value of the difference to the baseline, in (0, 1]; None for the
            baseline itself, without a baseline, and if fewer than two passages have a score.
        rows (`int`): The number of rows that have a score.
    """

    mean: float | None
    low: float | None
    high: float | None
    p: float | None
    rows: int


def estimate_means(
    scores: Mapping[str, Mapping[str, Sequence[float | None]]],
    passages: Sequence[str],
    baseline: str | None = None,
    *,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, dict[str, Estimate]]:
    """Estimate the mean of each system and metric, with percentile intervals and paired p-values.

    Each resample draws as many passages as there are, with replacement. It is the same for all systems and
    metrics, so the difficulty of a passage cancels in a difference. The p-value is twice the smaller share of
    resamples in which the difference of the two means is at most 0 or at least 0. The observed sample counts
    as one more resample of either kind, so p is never 0; p < 0.05 if the 95% interval of the difference
    excludes 0. It is not corrected for the number of metrics and systems. The order of rows and systems does
    not change the result, not even in the last digit.

    Sources: percentile interval: Efron & Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13;
    paired resampling of systems: Koehn 2004, "Statistical Significance Tests for Machine Translation
    Evaluation", https://aclanthology.org/W04-3250; counting the observed sample: Davison & Hinkley 1997,
    "Bootstrap Methods and their Application", section 4.2.

    Args:
        scores (`Mapping`): The scores of each system by metric, one per row, None where undefined.
        passages (`Sequence[str]`): The passage of each row. Rows with equal text are resampled together.
        baseline (`str`, *optional*): The system that the others are compared with.
        resamples (`int`, *optional*, defaults to 1000): The number of resamples, at least 1.
        seed (`int`, *optional*, defaults to 0): Seed of the random numbers.
        level (`float`, *optional*, defaults to 0.95): Coverage of the interval, between 0 and 1.

    Returns:
        `dict[str, dict[str, Estimate]]`: An estimate for each system and metric of `scores`.

    Raises:
        ValueError: If a metric does not have one score per row, if a score is NaN or infinite, if `baseline`
            is not a system, or if `resamples` or `level` is out of range.
    """
    if baseline is not None and baseline not in scores:
        raise ValueError(f"The baseline {baseline!r} is none of the systems: {', '.join(scores)}.")
    if resamples < 1 or not 0 < level < 1:
        raise ValueError(
            f"resamples is {resamples} and level {level}, expected at least 1, and between 0 and 1."
        )
    numbers = {passage: number for number, passage in enumerate(sorted(set(passages)))}
    passage_numbers = np.array([numbers[passage] for passage in passages], dtype=np.int64)
    weights = _draw_weights(len(numbers), resamples, seed)

    observed, resampled = {}, {}
    for system, metrics in scores.items():
        for metric, values in metrics.items():
            key = system, metric
            defined, in_passages = _select_defined(values, passage_numbers, f"{metric} of {system}")
            observed[key] = (math.fsum(defined) / len(defined) if len(defined) else None), len(defined)
            resampled[key] = _resample_means(defined, in_passages, weights)
    percentiles = [50 * (1 - level), 50 * (1 + level)]
    estimates: dict[str, dict[str, Estimate]] = {system: {} for system in scores}
    for (system, metric), means in resampled.items():
        mean, rows = observed[system, metric]
        low, high = (None, None) if means is None else map(float, np.nanpercentile(means, percentiles))
        baseline_means = None
        if baseline is not None and system != baseline:
            baseline_means = resampled.get((baseline, metric))
        estimates[system][metric] = Estimate(mean, low, high, _compute_p_value(means, baseline_means), rows)
    return estimates


def _draw_weights(passages: int, resamples: int, seed: int) -> np.ndarray:
    """Return how often each resample contains each passage, (resamples, passages)."""
    if not passages:
        return np.zeros((resamples, 0))
    draws = np.random.default_rng(seed).integers(passages, size=(resamples, passages))
    draws += passages * np.arange(resamples)[:, None]
    counts = np.bincount(draws.ravel(), minlength=resamples * passages)
    return counts.reshape(resamples, passages).astype(np.float64)


def _select_defined(
    values: Sequence[float | None], passage_numbers: np.ndarray, where: str
) -> tuple[np.ndarray, np.ndarray]:
    """Check the scores, and return those that are defined with the numbers of their passages."""
    if len(values) != len(passage_numbers):
        raise ValueError(
            f"There are {len(values)} scores for {where}, expected one for {len(passage_numbers)} rows."
        )
    scores = np.array([math.nan if value is None else value for value in values], dtype=np.float64)
    defined = np.array([value is not None for value in values], dtype=bool)
    if invalid := np.flatnonzero(defined & ~np.isfinite(scores)).tolist():
        row = invalid[0]
        raise ValueError(f"{where} is {values[row]} in row {row}, expected a finite number or None.")
    return scores[defined], passage_numbers[defined]


def _resample_means(
    scores: np.ndarray, passage_numbers: np.ndarray, weights: np.ndarray
) -> np.ndarray | None:
    """Return the mean of each resample, NaN if it has no score; None for fewer than two passages."""
    if len(np.unique(passage_numbers)) < 2:
        return None
    # Sorted within each passage, and summed by einsum instead of BLAS, whose rounding depends on the other
    # entries of the matrix, so that the order of rows and systems does not change a digit.
    order = np.lexsort((scores, passage_numbers))
    sums = np.bincount(passage_numbers[order], scores[order], minlength=weights.shape[1])
    counts = np.bincount(passage_numbers, minlength=weights.shape[1]).astype(np.float64)
    with np.errstate(invalid="ignore"):
        return np.einsum("rp,p->r", weights, sums) / np.einsum("rp,p->r", weights, counts)


def _compute_p_value(means: np.ndarray | None, baseline_means: np.ndarray | None) -> float | None:
    if means is None or baseline_means is None:
        return None
    differences = means - baseline_means
    differences = differences[~np.isnan(differences)]
    if not len(differences):
        return None
    smaller = min((differences <= 0).sum(), (differences >= 0).sum())
    return min(1.0, 2 * (int(smaller) + 1) / (len(differences) + 1))
