"""Test scores by the depth of the answer."""

import pytest

from crosstask.eval.scoring.depth import average_by_depth, find_depths

ROWS = [
    {"passage": "Rome fell. It rained.", "answer": "Rome"},
    {"passage": "It rained in Rome. Rome", "answer": "rome"},
    {"passage": "It rained in Rom.", "answer": "Rome"},
    {"passage": "It rained.", "answer": ""},
    {"passage": "東京で雨が降った。", "answer": "雨"},
]


def test_depth_is_that_of_the_first_occurrence():
    assert find_depths(ROWS) == [0.0, 13 / 23, None, None, 3 / 9]


def test_means_by_depth():
    depths = [0.0, 0.05, 0.95, None, 0.949]
    points = average_by_depth(depths, [1.0, 0.0, 0.5, 1.0, None])
    assert points == [
        {"depth": pytest.approx(0.05), "mean": 0.5, "rows": 2},
        {"depth": pytest.approx(0.95), "mean": 0.5, "rows": 1},
    ]
