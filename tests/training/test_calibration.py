"""The temperature and the threshold that are fitted on a model's own summaries of validation rows."""

from types import SimpleNamespace

import numpy as np
import pytest
from datasets import Dataset
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit
from transformers import pipeline

from crosstask import CrossTaskConfig
from crosstask.data.briefs import generate
from crosstask.eval.scoring.answerability import answerability_figures
from crosstask.training.calibration import calibrate, fit_calibration, write_summaries


def draw(temperature, count=20_000, seed=0):
    """Return overconfident probabilities: their logits are `temperature` times too large."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, count)
    labels = (rng.random(count) < expit(logits)).astype(int)
    return expit(logits * temperature), labels


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_a_scaling_of_the_logits(temperature):
    probabilities, labels = draw(temperature)
    calibration = fit_calibration(probabilities, labels, precision=0.9)
    assert calibration.temperature == pytest.approx(temperature, rel=0.05) and calibration.rows == 20_000
    scaled = expit(logit(probabilities) / calibration.temperature)
    assert answerability_figures(scaled, labels)["ece"] < 0.01


def test_the_temperature_has_the_highest_likelihood_with_the_targets_of_platt():
    probabilities, labels = draw(2.0, count=200)
    positives = labels.sum()
    targets = np.where(labels == 1, (positives + 1) / (positives + 2), 1 / (len(labels) - positives + 2))

    def loss(log_temperature):
        scaled = logit(probabilities) / np.exp(log_temperature)
        return np.mean(np.logaddexp(0, scaled) - targets * scaled)

    expected = np.exp(minimize_scalar(loss, bounds=(-2, 2), method="bounded").x)
    assert fit_calibration(probabilities, labels, 0.9).temperature == pytest.approx(expected, rel=0.01)


def test_the_threshold_is_the_lowest_with_the_precision():
    probabilities, labels = draw(1.0, count=500)
    calibration = fit_calibration(probabilities, labels, precision=0.9)
    scaled = expit(logit(probabilities) / calibration.temperature)
    shares = {t: labels[scaled >= t].mean() for t in sorted(scaled)}
    assert calibration.threshold == pytest.approx(min(t for t, share in shares.items() if share >= 0.9))


def test_summaries_that_are_told_apart_without_an_error_do_not_become_certain():
    calibration = fit_calibration([0.99] * 50 + [0.01] * 50, [1] * 50 + [0] * 50, precision=0.95)
    assert expit(logit(0.99) / calibration.temperature) == pytest.approx(51 / 52, abs=0.01)


def test_extreme_probabilities_are_finite():
    calibration = fit_calibration([1.0] * 40 + [0.0] * 40, [1] * 39 + [0] * 41, precision=0.95)
    assert 0.1 <= calibration.temperature <= 10 and calibration.threshold > 0.5


@pytest.mark.parametrize(
    "labels", [[1] * 100, [0] * 100, [1, 0] * 24, [-100] * 100], ids=["right", "wrong", "few", "unknown"]
)
def test_nothing_is_fitted_on_one_kind_of_labels_or_few_rows(labels):
    assert fit_calibration([0.5] * len(labels), labels, 0.9) is None


def test_rows_without_a_label_change_nothing():
    probabilities, labels = draw(2.0, count=300)
    expected = fit_calibration(probabilities, labels, 0.9)
    padded = fit_calibration([*probabilities, 0.3], [*labels, -100], 0.9)
    assert padded == expected


def test_a_precision_that_no_threshold_has():
    assert fit_calibration([0.9] * 50 + [0.8] * 50, [0] * 50 + [1] * 50, 0.95).threshold is None


# --- The model ------------------------------------------------------------------------------------


def make_rows(count):
    return [
        {
            "passage": f"Ann paid ${n}.",
            "question": "How much?",
            "answer": f"${n}",
            "summary": f"She paid ${n}.",
            "answerable": 1,
        }
        for n in range(count)
    ]


@pytest.fixture
def model():
    return SimpleNamespace(config=CrossTaskConfig(answerability_temperature=2.0))


def calibrate_with(monkeypatch, model, rows, summaries, probabilities):
    written = (summaries, probabilities)
    monkeypatch.setattr("crosstask.training.calibration.write_summaries", lambda *args: written)
    return calibrate(model, None, Dataset.from_list(rows), 0.9, 8)


def test_the_configuration_gets_temperature_and_threshold(monkeypatch, model):
    rows = make_rows(80)
    summaries = [row["summary"] if n % 4 else "She paid nothing." for n, row in enumerate(rows)]
    probabilities = [0.9 if n % 4 else 0.6 - 0.001 * n for n in range(80)]
    line = calibrate_with(monkeypatch, model, rows, summaries, probabilities)
    expected = fit_calibration(probabilities, [int(bool(n % 4)) for n in range(80)], 0.9)
    # The model divides by the product: its logits were divided by 2 already.
    assert model.config.answerability_temperature == pytest.approx(2 * expected.temperature)
    assert model.config.answerability_threshold == expected.threshold
    assert "calibrated on 80 own summaries" in line and "for a precision of 0.9" in line


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"answer": "a sum"}, "0% of the references labeled 1"),
        ({"answerable": None}, "no row with an answer is labeled 1"),
        ({"answer": ""}, "the rows have no answers"),
        ({}, "right ones and wrong ones"),
    ],
)
def test_what_cannot_be_calibrated_is_left_as_it_is(monkeypatch, model, change, words):
    rows = [row | change for row in make_rows(80)]
    line = calibrate_with(monkeypatch, model, rows, [row["summary"] for row in rows], [0.9] * 80)
    assert "answerability is not calibrated" in line and words in line
    assert model.config.answerability_temperature == 2.0 and model.config.answerability_threshold is None


def test_summaries_are_those_of_the_pipeline(trained_run):
    folder = trained_run[1] / "crosstask"
    pipe = pipeline("question-summarization", model=str(folder), device="cpu")
    rows = list(generate("fuse", split="test", passages=3))
    summaries, probabilities = write_summaries(pipe.model, pipe.processor, rows, batch_size=4)
    results = [pipe(question=row["question"], passage=row["passage"]) for row in rows]
    assert [summary.strip() for summary in summaries] == [result["summary"] for result in results]
    pairs = [(p, r["answerability"]) for p, r in zip(probabilities, results, strict=True) if r["summary"]]
    assert all(one == pytest.approx(other, abs=1e-4) for one, other in pairs)


def test_of_many_rows_every_nth_is_written(monkeypatch, model):
    written = []

    def write(model, processor, rows, batch_size):
        written.extend(rows)
        return [row["summary"] for row in rows], [0.9] * len(rows)

    monkeypatch.setattr("crosstask.training.calibration.write_summaries", write)
    calibrate(model, None, Dataset.from_list(make_rows(2500)), 0.9, 8)
    assert [row["answer"] for row in written] == [f"${n}" for n in range(0, 2500, 3)]
