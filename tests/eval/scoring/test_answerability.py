import math

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import accuracy_score, average_precision_score, brier_score_loss, f1_score, roc_auc_score

from crosstask.eval.scoring.answerability import answerability_figures


def test_figures_by_hand():
    figures = answerability_figures([0.9, 0.7, 0.6, 0.2], [1, 1, 0, 0], bins=2)
    reliability = figures.pop("reliability")
    assert figures == pytest.approx(
        {
            "accuracy": 0.75,
            "f1": 0.8,
            "auroc": 1,
            "average_precision": 1,
            "brier": (0.01 + 0.09 + 0.36 + 0.04) / 4,
            "ece": 0.75 * abs(2.2 / 3 - 2 / 3) + 0.25 * 0.2,
        }
    )
    low, high = reliability
    assert low == {"from": 0, "to": 0.5, "probability": 0.2, "yes": 0, "count": 1}
    assert high["probability"] == pytest.approx(2.2 / 3) and high["yes"] == pytest.approx(2 / 3)


def test_figures_agree_with_scikit_learn():
    random = np.random.default_rng(0)
    probabilities = random.random(500)
    labels = (random.random(500) < probabilities**2).astype(int)
    figures = answerability_figures(probabilities, labels)
    assert figures["accuracy"] == accuracy_score(labels, probabilities > 0.5)
    assert figures["auroc"] == roc_auc_score(labels, probabilities)
    assert figures["f1"] == pytest.approx(f1_score(labels, probabilities > 0.5))
    assert figures["average_precision"] == pytest.approx(average_precision_score(labels, probabilities))
    assert figures["brier"] == pytest.approx(brier_score_loss(labels, probabilities))
    yes, predicted = calibration_curve(labels, probabilities, n_bins=10)
    assert [line["yes"] for line in figures["reliability"]] == pytest.approx(yes.tolist())
    assert [line["probability"] for line in figures["reliability"]] == pytest.approx(predicted.tolist())
    shares = np.array([line["count"] for line in figures["reliability"]]) / 500
    assert figures["ece"] == pytest.approx(float((shares * abs(yes - predicted)).sum()))


def test_undefined_figures_are_none():
    figures = answerability_figures([0.9], [-100])
    assert sum(line["count"] for line in figures.pop("reliability")) == 0
    assert set(figures.values()) == {None}
    no = answerability_figures([0.1, 0.2], [0, 0])
    assert (no["accuracy"], no["f1"], no["auroc"], no["average_precision"]) == (1, None, None, None)
    yes = answerability_figures([0.9], [1])
    assert (yes["f1"], yes["auroc"], yes["average_precision"]) == (1, None, 1)


def test_perfect_and_constant_probabilities():
    perfect = answerability_figures([0, 1, 1], [0, 1, 1])
    assert (perfect["brier"], perfect["ece"], perfect["auroc"]) == (0, 0, 1)
    constant = answerability_figures([0.5] * 1000, [0, 1] * 500)
    assert (constant["brier"], constant["ece"], constant["auroc"]) == (0.25, 0, 0.5)


@given(
    rows=st.lists(st.tuples(st.floats(0, 1), st.sampled_from([0, 1])), min_size=1, max_size=12),
    bins=st.integers(1, 20),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_probability_is_in_one_bin(rows, bins):
    figures = answerability_figures(*zip(*rows, strict=True), bins=bins)
    reliability = figures["reliability"]
    assert sum(line["count"] for line in reliability) == len(rows) and len(reliability) == bins
    assert 0 <= figures["ece"] <= 1
    for line in reliability:
        if line["count"]:
            assert line["from"] - 1e-9 <= line["probability"] <= line["to"] + 1e-9


def test_the_number_of_bins_must_be_positive():
    with pytest.raises(ValueError, match="bins is 0, expected at least 1"):
        answerability_figures([0.5], [1], bins=0)


def test_accuracy_and_auroc_by_hand():
    # Two of four predictions are correct; of the four pairs of a 1 and a 0, three are in order.
    figures = answerability_figures([0.9, 0.4, 0.6, 0.1], [1, 1, 0, 0])
    assert (figures["accuracy"], figures["auroc"]) == (0.5, 0.75)


def test_ties_agree_with_scikit_learn():
    probabilities = [0.1, 0.35, 0.35, 0.8, 0.62, 0.55, 0.2, 0.97]
    labels = [0, 1, 0, 1, 0, 1, 1, 1]
    figures = answerability_figures(probabilities, labels)
    assert figures["accuracy"] == accuracy_score(labels, [p > 0.5 for p in probabilities])
    assert figures["auroc"] == roc_auc_score(labels, probabilities)


def test_rows_without_a_label_are_ignored():
    figures = answerability_figures([0.9, 0.9, 0.2], [1, -100, 0])
    assert figures["accuracy"] == figures["auroc"] == 1
    figures = answerability_figures([0.9, 0.9], [-100, -100])
    assert figures["accuracy"] is figures["auroc"] is None


def test_one_class_has_no_auroc():
    figures = answerability_figures([0.9, 0.4], [1, 1])
    assert (figures["accuracy"], figures["auroc"]) == (0.5, None)


def test_a_probability_of_one_half_predicts_no():
    assert answerability_figures([0.5, 0.5], [0, 1])["accuracy"] == 0.5
    assert answerability_figures([0.5], [0])["accuracy"] == 1


def test_tensors_give_floats():
    figures = answerability_figures(torch.tensor([0.9, 0.2]), torch.tensor([1, 0]))
    assert figures["accuracy"] == figures["auroc"] == 1
    assert type(figures["accuracy"]) is float and type(figures["auroc"]) is float


@pytest.mark.parametrize("label", [1, -100])
def test_nan_is_refused_in_every_row(label):
    with pytest.raises(ValueError, match="row 1 is nan"):
        answerability_figures([0.5, math.nan], [0, label])


@pytest.mark.parametrize("probability", [-0.1, 1.1, math.inf])
def test_values_outside_0_to_1_are_refused(probability):
    with pytest.raises(ValueError, match="expected 0 to 1"):
        answerability_figures([probability], [1])


@pytest.mark.parametrize("label", [None, 2, -1, 0.5, math.nan, "1"])
def test_other_labels_are_refused(label):
    with pytest.raises(ValueError, match="label in row 0 is .*, expected 0, 1 or -100"):
        answerability_figures([0.5], [label])


def test_lengths_must_match():
    with pytest.raises(ValueError, match="got 0 probabilities and 1 labels"):
        answerability_figures([], [1])
