"""How well the probability that a summary carries the answer tells, and how far it can be taken at its
word."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from crosstask.data.answers import to_paired_lists

IGNORED_LABEL = -100


def answerability_figures(
    probabilities: Iterable[float], labels: Iterable[int | None], bins: int = 10
) -> dict[str, float | list | None]:
    """Figures of P(summary carries the answer) against the labels, by scikit-learn where it has them.

    Args:
        probabilities: P(class 1), one a row, 0 to 1.
        labels: 1 or 0, one a row; rows labelled -100 or None are left out.
        bins: How many bins of equal width, at least 1, `ece` and `reliability` sort the rows into.

    Returns:
        All 0 to 1, and None where not defined, as everything is without a labelled row:

        - `accuracy` of saying yes where the probability is above 0.5 (at 0.5 it is a no, as the arg max
          of two equal logits is), and `f1` of the yes (None where there is none, said or labelled);
        - `auroc`, the area under the ROC curve (None unless both classes are there), and
          `average_precision` (None unless a row is labelled 1);
        - `brier`, the mean of (probability - label)²;
        - `ece`, the expected calibration error: Σ over the bins of (rows in it / rows) · |mean
          probability - share of yes|. Source: Naeini et al. 2015, "Obtaining Well Calibrated
          Probabilities Using Bayesian Binning", https://ojs.aaai.org/index.php/AAAI/article/view/9602;
        - `reliability`, the bins as a list of dicts with `from` and `to` (a probability on an edge
          belongs to the bin below), the mean `probability`, the share of `yes` and the `count` of rows;
          the two means are None in an empty bin.

    Raises:
        ValueError: If there are not as many probabilities as labels, if a probability is NaN or
            outside 0 to 1 (in a row that is left out, too: the model is at fault there as well),
            if a label is none of 0, 1, -100 and None, or if `bins` is below 1.
    """
    if bins < 1:
        raise ValueError(f"bins is {bins}, expected at least 1.")
    probabilities, labels = _labelled(probabilities, labels)
    names = ("accuracy", "f1", "auroc", "average_precision", "brier")
    figures = dict.fromkeys(names) | _calibration(probabilities, labels, bins)
    if len(labels):
        # Here, since scikit-learn is dear to import.
        from sklearn.metrics import (
            accuracy_score,
            average_precision_score,
            brier_score_loss,
            f1_score,
            roc_auc_score,
        )

        said = probabilities > 0.5
        figures["accuracy"] = float(accuracy_score(labels, said))
        figures["brier"] = float(brier_score_loss(labels, probabilities, pos_label=1))
        if said.any() or labels.any():
            figures["f1"] = float(f1_score(labels, said))
        if labels.any():
            figures["average_precision"] = float(average_precision_score(labels, probabilities))
        if 0 < labels.sum() < len(labels):
            figures["auroc"] = float(roc_auc_score(labels, probabilities))
    return figures


def _labelled(probabilities, labels) -> tuple[np.ndarray, np.ndarray]:
    """The rows that have a label, checked."""
    kept = []
    rows = zip(*to_paired_lists(probabilities=probabilities, labels=labels), strict=True)
    for row, (probability, label) in enumerate(rows):
        if not 0 <= probability <= 1:  # NaN fails this too
            raise ValueError(f"The probability in row {row} is {float(probability)}, expected 0 to 1.")
        if label is None or label == IGNORED_LABEL:
            continue
        if label not in (0, 1):
            raise ValueError(f"The label in row {row} is {label!r}, expected 0, 1, -100 or None.")
        kept.append((float(probability), int(label)))
    probabilities, labels = zip(*kept, strict=True) if kept else ((), ())
    return np.array(probabilities, dtype=float), np.array(labels, dtype=int)


def _calibration(probabilities, labels, bins):
    edges = np.arange(bins + 1) / bins
    places = np.searchsorted(edges[1:-1], probabilities)
    reliability, error = [], 0.0
    for index in range(bins):
        here = places == index
        line = {"from": float(edges[index]), "to": float(edges[index + 1]), "probability": None, "yes": None}
        if here.any():
            line |= {"probability": float(probabilities[here].mean()), "yes": float(labels[here].mean())}
            error += float(here.mean()) * abs(line["probability"] - line["yes"])
        reliability.append(line | {"count": int(here.sum())})
    return {"ece": error if len(labels) else None, "reliability": reliability}
