"""Metrics of answerability: the accuracy and the calibration of P(the summary carries the answer)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from crosstask.data.answers import to_paired_lists

# As in configuration_crosstask, which imports transformers: a metric's Space does without it.
IGNORE_INDEX = -100


def answerability_figures(
    probabilities: Iterable[float], labels: Iterable[int], bins: int = 10
) -> dict[str, Any]:
    """Compare probabilities that a summary carries the answer with the labels.

    scikit-learn computes everything that it has a function for.

    Args:
        probabilities (`Iterable[float]`): P(class 1), one per row, 0 to 1.
        labels (`Iterable[int]`): 1 or 0, one per row; rows labeled -100 are ignored.
        bins (`int`, *optional*, defaults to 10): The number of bins of equal width for `ece` and
            `reliability`, at least 1.

    Returns:
        `dict`: Figures from 0 to 1, each None if it is undefined, as all are without a labeled row:

        - `accuracy`: the share of correct predictions. The prediction is 1 if the probability is above 0.5;
          at 0.5 it is 0, as for the arg max of two equal logits.
        - `f1`: F1 of class 1; undefined if it is neither predicted nor labeled.
        - `auroc`: the area under the ROC curve; undefined unless both classes occur.
        - `average_precision`: undefined unless a row is labeled 1.
        - `brier`: the mean of (probability - label)².
        - `ece`: the expected calibration error, Σ over the bins of (rows in the bin / rows) · |mean
          probability - share of label 1|. Source: Naeini et al. 2015, "Obtaining Well Calibrated
          Probabilities Using Bayesian Binning", https://ojs.aaai.org/index.php/AAAI/article/view/9602.
        - `reliability`: a list of the bins, each a dict with `from` and `to` (a probability on an edge
          belongs to the lower bin), the mean `probability`, the share of label 1 `yes`, and the number of
          rows `count`. `probability` and `yes` are None for an empty bin.

    Raises:
        ValueError: If the numbers of probabilities and labels differ; if a probability is NaN or outside 0 to
            1, even in a row that is ignored, because the model is wrong there too; if a label is not 0, 1 or
            -100; or if `bins` is below 1.
    """
    if bins < 1:
        raise ValueError(f"bins is {bins}, expected at least 1.")
    probabilities, labels = _select_labeled(probabilities, labels)
    undefined = ("accuracy", "f1", "auroc", "average_precision", "brier")
    figures = dict.fromkeys(undefined) | _compute_calibration(probabilities, labels, bins)
    if len(labels):
        # Imported here because scikit-learn takes long to import.
        from sklearn.metrics import (
            accuracy_score,
            average_precision_score,
            brier_score_loss,
            f1_score,
            roc_auc_score,
        )

        predictions = probabilities > 0.5
        figures["accuracy"] = float(accuracy_score(labels, predictions))
        figures["brier"] = float(brier_score_loss(labels, probabilities, pos_label=1))
        if predictions.any() or labels.any():
            figures["f1"] = float(f1_score(labels, predictions))
        if labels.any():
            figures["average_precision"] = float(average_precision_score(labels, probabilities))
        if 0 < labels.sum() < len(labels):
            figures["auroc"] = float(roc_auc_score(labels, probabilities))
    return figures


def _select_labeled(probabilities: Iterable[float], labels: Iterable[int]) -> tuple[np.ndarray, np.ndarray]:
    """Check both columns, and return the probabilities and labels of the labeled rows."""
    labeled = []
    rows = zip(*to_paired_lists(probabilities=probabilities, labels=labels), strict=True)
    for index, (probability, label) in enumerate(rows):
        if not 0 <= probability <= 1:  # also true for NaN
            raise ValueError(f"The probability in row {index} is {float(probability)}, expected 0 to 1.")
        if label not in (0, 1, IGNORE_INDEX):
            raise ValueError(f"The label in row {index} is {label!r}, expected 0, 1 or {IGNORE_INDEX}.")
        if label != IGNORE_INDEX:
            labeled.append((float(probability), int(label)))
    columns = zip(*labeled, strict=True) if labeled else ((), ())
    selected_probabilities, selected_labels = columns
    return np.array(selected_probabilities, dtype=float), np.array(selected_labels, dtype=int)


def _compute_calibration(probabilities: np.ndarray, labels: np.ndarray, bins: int) -> dict[str, Any]:
    """Return `ece` and `reliability`."""
    edges = np.arange(bins + 1) / bins
    bin_indices = np.searchsorted(edges[1:-1], probabilities)
    reliability, error = [], 0.0
    for index in range(bins):
        in_bin = bin_indices == index
        probability, yes = None, None
        if in_bin.any():
            probability, yes = float(probabilities[in_bin].mean()), float(labels[in_bin].mean())
            error += float(in_bin.mean()) * abs(probability - yes)
        line = {"from": float(edges[index]), "to": float(edges[index + 1]), "count": int(in_bin.sum())}
        reliability.append({**line, "probability": probability, "yes": yes})
    return {"ece": error if len(labels) else None, "reliability": reliability}
