import random
import time

import numpy as np
import pytest

from crosstask.eval.scoring.bootstrap import Estimate, estimate_means


def make_scores(rows=60, passages=12, seed=0, undefined=0.1):
    """Return scores of three systems on two metrics, some undefined, and the passage of each row."""
    draw = random.Random(seed)
    names = [f"passage {draw.randrange(passages)}" for _ in range(rows)]
    scores = {
        system: {
            metric: [None if draw.random() < undefined else draw.random() + shift for _ in range(rows)]
            for metric in ("rouge1", "recall")
        }
        for system, shift in (("base", 0), ("same", 0.02), ("better", 0.5))
    }
    return scores, names


def estimate_with_loops(scores, passages, baseline, resamples, seed):
    """Compute the estimates with loops over passages and rows."""
    unique = sorted(set(passages))
    drawn = np.random.default_rng(seed).integers(len(unique), size=(resamples, len(unique)))

    def mean(values):
        values = [value for value in values if value is not None]
        return sum(values) / len(values) if values else None

    def resampled(values):
        by_passage = {
            name: [v for v, passage in zip(values, passages, strict=True) if passage == name]
            for name in unique
        }
        return [mean([v for index in draw for v in by_passage[unique[index]]]) for draw in drawn]

    means = {
        (system, metric): resampled(values)
        for system, metrics in scores.items()
        for metric, values in metrics.items()
    }
    estimates = {}
    for (system, metric), values in means.items():
        low, high = np.percentile([value for value in values if value is not None], [2.5, 97.5])
        pairs = zip(values, means[baseline, metric], strict=True)
        differences = [a - b for a, b in pairs if a is not None and b is not None]
        smaller = min(sum(d <= 0 for d in differences), sum(d >= 0 for d in differences))
        p = min(1, 2 * (smaller + 1) / (len(differences) + 1)) if system != baseline else None
        estimates[system, metric] = (mean(scores[system][metric]), low, high, p)
    return estimates


@pytest.mark.parametrize("undefined", [0, 0.1, 0.9])
def test_estimates_agree_with_loops(undefined):
    scores, passages = make_scores(undefined=undefined)
    expected = estimate_with_loops(scores, passages, "base", resamples=200, seed=3)
    estimates = estimate_means(scores, passages, "base", resamples=200, seed=3)
    for (system, metric), (mean, low, high, p) in expected.items():
        estimate = estimates[system][metric]
        assert (estimate.mean, estimate.low, estimate.high) == pytest.approx((mean, low, high))
        assert estimate.p == p
        assert estimate.rows == sum(value is not None for value in scores[system][metric])


def test_the_order_of_rows_and_systems_does_not_change_a_digit():
    scores, passages = make_scores(rows=500, passages=80)
    expected = estimate_means(scores, passages, "base")
    order = list(range(len(passages)))
    random.Random(1).shuffle(order)
    shuffled = {
        system: {metric: [values[i] for i in order] for metric, values in reversed(metrics.items())}
        for system, metrics in reversed(scores.items())
    }
    assert estimate_means(shuffled, [passages[i] for i in order], "base") == expected
    assert estimate_means({"base": scores["base"]}, passages, "base")["base"] == expected["base"]


def test_95_of_100_intervals_contain_the_true_mean_of_correlated_rows():
    """The rows of a passage differ much less than the passages."""
    draw, hits, row_hits, trials = np.random.default_rng(0), 0, 0, 300
    for trial in range(trials):
        scores = (draw.normal(size=(40, 1)) + 0.2 * draw.normal(size=(40, 4))).ravel().tolist()
        passages = [str(row // 4) for row in range(160)]
        estimate = estimate_means({"a": {"m": scores}}, passages, resamples=400, seed=trial)["a"]["m"]
        hits += estimate.low <= 0 <= estimate.high
        row = estimate_means({"a": {"m": scores}}, [str(i) for i in range(160)], resamples=400)["a"]["m"]
        row_hits += row.low <= 0 <= row.high
    assert 0.90 < hits / trials < 0.98
    assert row_hits / trials < 0.80  # resampling rows gives intervals that are too narrow


def test_1_of_20_equal_systems_differs_at_p_0_05():
    draw, rejected, trials = np.random.default_rng(1), 0, 400
    passages = [str(row) for row in range(60)]
    for trial in range(trials):
        hard = draw.normal(size=60)
        scores = {name: {"m": (hard + 0.3 * draw.normal(size=60)).tolist()} for name in ("a", "b")}
        rejected += estimate_means(scores, passages, "a", resamples=400, seed=trial)["b"]["m"].p < 0.05
    assert 0.02 < rejected / trials < 0.09


def test_pairing_detects_a_difference_much_smaller_than_the_spread():
    draw = np.random.default_rng(0)
    hard = draw.normal(size=200)
    scores = {"a": {"m": hard.tolist()}, "b": {"m": (hard + 0.05 + 0.1 * draw.normal(size=200)).tolist()}}
    estimates = estimate_means(scores, [str(row) for row in range(200)], "a")
    assert (
        estimates["b"]["m"].low < estimates["a"]["m"].mean < estimates["b"]["m"].high
    )  # the intervals overlap
    assert estimates["b"]["m"].p < 0.01


def test_identical_systems_do_not_differ():
    scores, passages = make_scores()
    estimates = estimate_means({"a": scores["base"], "b": scores["base"]}, passages, "a")
    assert [estimates["b"][metric].p for metric in ("rouge1", "recall")] == [1, 1]
    assert [estimates["a"][metric].p for metric in ("rouge1", "recall")] == [None, None]


def test_a_thousand_identical_rows_of_two_passages():
    rows = ["x", "y"] * 500
    estimates = estimate_means({"a": {"m": [0.3] * 1000}, "b": {"m": [0.4] * 1000}}, rows, "a")
    assert estimates["a"]["m"] == Estimate(
        pytest.approx(0.3), pytest.approx(0.3), pytest.approx(0.3), None, 1000
    )
    assert estimates["b"]["m"].p == pytest.approx(2 / 1001)


@pytest.mark.parametrize(
    ("values", "passages", "expected"),
    [
        ([0.5], ["x"], Estimate(0.5, None, None, None, 1)),
        ([0.5] * 1000, ["x"] * 1000, Estimate(0.5, None, None, None, 1000)),
        ([0.25, None, 0.75], ["x", "y", "x"], Estimate(0.5, None, None, None, 2)),
        ([None, None], ["x", "y"], Estimate(None, None, None, None, 0)),
        ([], [], Estimate(None, None, None, None, 0)),
    ],
    ids=["one row", "one passage", "one passage with values", "all undefined", "no rows"],
)
def test_fewer_than_two_passages_have_no_interval(values, passages, expected):
    estimates = estimate_means({"a": {"m": values}, "b": {"m": values}}, passages, "a")
    assert estimates["a"]["m"] == estimates["b"]["m"] == expected


def test_without_a_baseline_value_there_is_no_p_value():
    estimates = estimate_means({"a": {}, "b": {"m": [0.1, 0.2]}}, ["x", "y"], "a")
    assert estimates["a"] == {} and estimates["b"]["m"].p is None and estimates["b"]["m"].low is not None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"baseline": "c"}, "'c' is none of the systems: a"),
        ({"resamples": 0}, "resamples of at least 1 .*, got 0 and 0.95"),
        ({"level": 95}, "level between 0 and 1, got .* and 95"),
        ({"scores": {"a": {"m": [1.0]}}}, "1 scores for m of a, expected one for 2 rows"),
        ({"scores": {"a": {"m": [None, float("nan")]}}}, "m of a is nan in row 1"),
    ],
)
def test_errors_name_what_is_wrong(arguments, message):
    with pytest.raises(ValueError, match=message):
        estimate_means(**{"scores": {"a": {"m": [1.0, 0.5]}}, "passages": ["x", "y"]} | arguments)


def test_estimating_is_fast():
    draw = np.random.default_rng(0)
    passages = [f"passage {row}" for row in range(2000)]
    scores = {
        f"s{system}": {f"m{metric}": draw.random(2000).tolist() for metric in range(10)}
        for system in range(10)
    }
    start = time.process_time()
    estimate_means(scores, passages, "s0")
    assert time.process_time() - start < 4  # 1 s on an idle machine
