import random
import time

import numpy as np
import pytest

from crosstask.eval.scoring.bootstrap import Estimate, intervals


def made_up(rows=60, passages=12, seed=0, undefined=0.1):
    """Scores of three systems on two metrics, with holes, and the passages they lie on."""
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


def naive(scores, passages, baseline, resamples, seed):
    """The same by loops over passages and rows."""
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
def test_agrees_with_loops(undefined):
    scores, passages = made_up(undefined=undefined)
    expected = naive(scores, passages, "base", resamples=200, seed=3)
    found = intervals(scores, passages, "base", resamples=200, seed=3)
    for (system, metric), (mean, low, high, p) in expected.items():
        estimate = found[system][metric]
        assert (estimate.mean, estimate.low, estimate.high) == pytest.approx((mean, low, high))
        assert estimate.p == p
        assert estimate.rows == sum(value is not None for value in scores[system][metric])


def test_the_order_of_rows_and_systems_changes_not_a_digit():
    scores, passages = made_up(rows=500, passages=80)
    expected = intervals(scores, passages, "base")
    order = list(range(len(passages)))
    random.Random(1).shuffle(order)
    shuffled = {
        system: {metric: [values[i] for i in order] for metric, values in reversed(metrics.items())}
        for system, metrics in reversed(scores.items())
    }
    assert intervals(shuffled, [passages[i] for i in order], "base") == expected
    assert intervals({"base": scores["base"]}, passages, "base")["base"] == expected["base"]


def test_95_of_100_intervals_hold_the_true_mean_where_rows_of_a_passage_are_alike():
    """Rows of a passage differ from each other by far less than passages do."""
    draw, hits, row_hits, trials = np.random.default_rng(0), 0, 0, 300
    for trial in range(trials):
        scores = (draw.normal(size=(40, 1)) + 0.2 * draw.normal(size=(40, 4))).ravel().tolist()
        passages = [str(row // 4) for row in range(160)]
        estimate = intervals({"it": {"m": scores}}, passages, resamples=400, seed=trial)["it"]["m"]
        hits += estimate.low <= 0 <= estimate.high
        row = intervals({"it": {"m": scores}}, [str(i) for i in range(160)], resamples=400)["it"]["m"]
        row_hits += row.low <= 0 <= row.high
    assert 0.90 < hits / trials < 0.98
    assert row_hits / trials < 0.80  # what resampling rows would have claimed


def test_1_in_20_equal_systems_differs_at_p_0_05():
    draw, rejected, trials = np.random.default_rng(1), 0, 400
    passages = [str(row) for row in range(60)]
    for trial in range(trials):
        hard = draw.normal(size=60)
        scores = {name: {"m": (hard + 0.3 * draw.normal(size=60)).tolist()} for name in ("a", "b")}
        rejected += intervals(scores, passages, "a", resamples=400, seed=trial)["b"]["m"].p < 0.05
    assert 0.02 < rejected / trials < 0.09


def test_pairing_finds_a_difference_far_smaller_than_the_spread():
    draw = np.random.default_rng(0)
    hard = draw.normal(size=200)
    scores = {"a": {"m": hard.tolist()}, "b": {"m": (hard + 0.05 + 0.1 * draw.normal(size=200)).tolist()}}
    found = intervals(scores, [str(row) for row in range(200)], "a")
    assert found["b"]["m"].low < found["a"]["m"].mean < found["b"]["m"].high  # they overlap, yet
    assert found["b"]["m"].p < 0.01


def test_identical_systems_do_not_differ():
    scores, passages = made_up()
    found = intervals({"a": scores["base"], "b": scores["base"]}, passages, "a")
    assert [found["b"][metric].p for metric in ("rouge1", "recall")] == [1, 1]
    assert [found["a"][metric].p for metric in ("rouge1", "recall")] == [None, None]


def test_a_thousand_identical_rows_of_two_passages():
    rows = ["x", "y"] * 500
    found = intervals({"a": {"m": [0.3] * 1000}, "b": {"m": [0.4] * 1000}}, rows, "a")
    assert found["a"]["m"] == Estimate(pytest.approx(0.3), pytest.approx(0.3), pytest.approx(0.3), None, 1000)
    assert found["b"]["m"].p == pytest.approx(2 / 1001)


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
def test_no_interval_of_fewer_than_two_passages(values, passages, expected):
    found = intervals({"a": {"m": values}, "b": {"m": values}}, passages, "a")
    assert found["a"]["m"] == found["b"]["m"] == expected


def test_a_metric_that_the_baseline_lacks_has_no_p_value():
    found = intervals({"a": {}, "b": {"m": [0.1, 0.2]}}, ["x", "y"], "a")
    assert found["a"] == {} and found["b"]["m"].p is None and found["b"]["m"].low is not None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"baseline": "c"}, "'c' is none of the systems: a"),
        ({"resamples": 0}, "resamples is 0"),
        ({"level": 95}, "level 95"),
        ({"scores": {"a": {"m": [1.0]}}}, "1 scores for m of a, expected one for 2 rows"),
        ({"scores": {"a": {"m": [None, float("nan")]}}}, "m of a is nan in row 1"),
    ],
)
def test_errors_name_what_is_wrong(arguments, message):
    with pytest.raises(ValueError, match=message):
        intervals(**{"scores": {"a": {"m": [1.0, 0.5]}}, "passages": ["x", "y"]} | arguments)


def test_is_fast():
    draw = np.random.default_rng(0)
    passages = [f"passage {row}" for row in range(2000)]
    scores = {
        f"s{system}": {f"m{metric}": draw.random(2000).tolist() for metric in range(10)}
        for system in range(10)
    }
    start = time.process_time()
    intervals(scores, passages, "s0")
    assert time.process_time() - start < 4  # 1 s where the machine has nothing else to do
