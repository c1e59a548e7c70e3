"""How well a system judges its own summaries and wrong values."""

import numpy as np
import pytest

from crosstask.eval.scoring.judgment import compute_risk_coverage, judge_own_summaries, judge_wrong_values

ROWS = [
    {"passage": "P", "question": "Who?", "answer": "Ann", "summary": "Ann.", "answerable": 1},
    {"passage": "P", "question": "When?", "answer": "May 3", "summary": "On May 3.", "answerable": 1},
    {"passage": "P", "question": "Why?", "answer": "", "summary": "Ann.", "answerable": 0},
    {"passage": "P", "question": "Where?", "answer": "", "summary": "Ann.", "answerable": 0},
    {"passage": "Q", "question": "How?", "answer": "", "summary": "Ann.", "answerable": -100},
]


def test_own_summaries_are_judged_by_the_answer():
    summaries = ["Ann won.", "In June.", "By luck.", "In Rome.", "Somehow."]
    figures, reliability, curve = judge_own_summaries(ROWS, summaries, [0.9, 0.4, 0.6, 0.1, 0.99])
    assert figures["own_auroc"] == 1.0 and figures["own_accuracy"] == 0.75
    assert figures["own_unanswerable_passed"] == 0.5
    assert sum(bin["count"] for bin in reliability) == 4  # the last row has no label
    assert [point["risk"] for point in curve] == pytest.approx([0, 1 / 2, 2 / 3, 3 / 4])
    assert figures["own_aurc"] == pytest.approx(np.mean([0, 1 / 2, 2 / 3, 3 / 4]))


def test_without_labels_there_are_no_figures():
    rows = [{**row, "answer": "", "answerable": -100} for row in ROWS]
    assert judge_own_summaries(rows, [""] * 5, [0.5] * 5) == ({}, [], [])


def test_a_judgment_that_ignores_the_summary_has_the_same_risk_everywhere():
    rng = np.random.default_rng(0)
    labels = (rng.random(20_000) < 0.7).astype(int)
    curve = compute_risk_coverage([0.5] * len(labels), labels)
    assert np.mean([point["risk"] for point in curve]) == pytest.approx(0.3, abs=0.02)
    assert curve[-1] == {"coverage": 1.0, "risk": pytest.approx(1 - labels.mean())}


def test_wrong_values_are_compared_with_the_references_they_come_from():
    figures = judge_wrong_values([0.9, 0.2, 0.8], [0.1, None, 0.85])
    assert figures == {"wrong_auroc": pytest.approx(3 / 4), "wrong_passed": 0.5}
    assert judge_wrong_values([0.9], [None]) == {}
