"""Calibrate the answerability of a model on the summaries that it writes of validation rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from tqdm.auto import tqdm

from crosstask.data.summary_labels import SummaryLabeler
from crosstask.processing_crosstask import CrossTaskProcessor

MIN_ROWS = 50  # labeled summaries from which on a temperature is fitted
MAX_ROWS = 1000  # validation rows that the model writes summaries of
_TEMPERATURES = np.geomspace(0.1, 10, 401)
_MAX_LOGIT = 16.0  # float32 rounds the sigmoid of larger ones to 1


@dataclass
class Calibration:
    """
    What is fitted on summaries with labels.

    Args:
        temperature (`float`): The number that logits are to be divided by.
        threshold (`float`, *optional*): The lowest probability, computed with the temperature, from which on
            the summaries have the precision; `None` if no threshold has it.
        rows (`int`): The number of labeled summaries.
    """

    temperature: float
    threshold: float | None
    rows: int


def fit_calibration(
    probabilities: Sequence[float], labels: Sequence[int], precision: float
) -> Calibration | None:
    """
    Fit a temperature, and choose a threshold.

    The temperature has the highest likelihood (Guo et al. 2017, "On Calibration of Modern Neural Networks",
    https://arxiv.org/abs/1706.04599, section 4.2) of 401 values from 0.1 to 10. As in Platt scaling (Platt
    1999, "Probabilistic Outputs for Support Vector Machines", section 2.2), the targets are (n + 1) / (n + 2)
    for n rows labeled 1 and 1 / (m + 2) for m rows labeled 0, so that labels that are separated without an
    error do not give probabilities of 0 and 1.

    Args:
        probabilities (`list[float]`): The answerability of each summary.
        labels (`list[int]`): 1 or 0; -100 for unknown.
        precision (`float`): The share of summaries from the threshold on that are to be labeled 1.

    Returns:
        [`Calibration`], or `None` with fewer than 50 labeled summaries, or with labels of one kind.
    """
    known = np.array(labels) >= 0
    targets = np.array(labels)[known]
    if len(targets) < MIN_ROWS or len(set(targets.tolist())) < 2:
        return None
    p = np.array(probabilities, dtype=float)[known]
    with np.errstate(divide="ignore"):
        logits = np.clip(np.log(p) - np.log1p(-p), -_MAX_LOGIT, _MAX_LOGIT)
    positives, negatives = targets.sum(), (1 - targets).sum()
    smoothed = np.where(targets == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    scaled = logits / _TEMPERATURES[:, None]
    losses = (np.logaddexp(0, scaled) - smoothed * scaled).mean(1)
    temperature = float(_TEMPERATURES[losses.argmin()])
    calibrated = 1 / (1 + np.exp(-logits / temperature))
    return Calibration(temperature, _find_threshold(calibrated, targets, precision), len(targets))


def _find_threshold(probabilities: np.ndarray, targets: np.ndarray, precision: float) -> float | None:
    """Return the lowest probability from which on the share of targets of 1 is at least `precision`."""
    order = np.argsort(-probabilities, kind="stable")
    shares = np.cumsum(targets[order]) / np.arange(1, len(order) + 1)
    ordered = probabilities[order]
    is_last = np.append(ordered[1:] != ordered[:-1], True)  # of equal probabilities
    enough = np.flatnonzero((shares >= precision) & is_last)
    return float(ordered[enough[-1]]) if len(enough) else None


@torch.inference_mode()
def write_summaries(
    model: Any, processor: CrossTaskProcessor, rows: Sequence[Mapping[str, Any]], batch_size: int
) -> tuple[list[str], list[float]]:
    """
    Return the summaries that a model writes of rows, and their answerability.

    Args:
        model ([`CrossTaskForConditionalGeneration`]): The model, which writes with its own settings.
        processor ([`CrossTaskProcessor`]): Its processor.
        rows (`list[dict]`): Rows of the schema.
        batch_size (`int`): Rows per batch.
    """
    is_training = model.training
    model.eval()
    summaries, probabilities = [], []
    for start in tqdm(range(0, len(rows), batch_size), desc="calibrating", unit=" batches", leave=False):
        batch = rows[start : start + batch_size]
        questions, passages = ([row[name] for row in batch] for name in ("question", "passage"))
        inputs = processor(question=questions, passage=passages, return_tensors="pt", padding=True)
        output = model.generate(
            **inputs.to(model.device), num_return_sequences=1, return_dict_in_generate=True
        )
        texts = processor.batch_decode(output.sequences, skip_special_tokens=True)
        pairs = zip(texts, output.answerability.tolist(), strict=True)
        summaries += texts
        probabilities += [probability if text.strip() else 0.0 for text, probability in pairs]
    model.train(is_training)
    return summaries, probabilities


def calibrate(
    model: Any,
    processor: CrossTaskProcessor,
    rows: Dataset,
    precision: float,
    batch_size: int,
) -> str:
    """
    Set the temperature and the threshold in the configuration of a model.

    Args:
        model ([`CrossTaskForConditionalGeneration`]): The trained model.
        processor ([`CrossTaskProcessor`]): Its processor.
        rows (`Dataset`): Validation rows; of more than 1,000, every n-th is used.
        precision (`float`): See [`fit_calibration`].
        batch_size (`int`): Rows per batch.

    Returns:
        `str`: A line for the log, with the reason if nothing could be fitted.
    """
    selected = rows.select(range(0, len(rows), -(-len(rows) // MAX_ROWS))).to_list()
    labeler = SummaryLabeler(selected)
    if reason := labeler.describe_unusable():
        return f"answerability is not calibrated on the validation rows: {reason}"
    summaries, probabilities = write_summaries(model, processor, selected, batch_size)
    labels = labeler.label(range(len(selected)), summaries)
    calibration = fit_calibration(probabilities, labels, precision)
    if calibration is None:
        return (
            f"answerability is not calibrated: expected {MIN_ROWS} or more labeled summaries of validation "
            "rows, right ones and wrong ones"
        )
    model.config.answerability_temperature *= calibration.temperature
    model.config.answerability_threshold = calibration.threshold
    line = (
        f"answerability is calibrated on {calibration.rows} own summaries of validation rows: temperature "
        f"{calibration.temperature:.2f}"
    )
    if calibration.threshold is None:
        return f"{line}, no threshold has a precision of {precision}"
    return f"{line}, threshold {calibration.threshold:.3f} for a precision of {precision}"
