import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from crosstask.configuration_crosstask import IGNORE_INDEX
from crosstask.data.answers import answer_recall
from crosstask.eval.report.page import write_html
from crosstask.eval.report.results import Evaluation, SystemResult, get_means, list_results, write_results
from crosstask.eval.report.tables import format_evaluation

ROW = {"id": "1", "source": "", "passage": "x", "question": "?", "answer": "", "summary": "", "answerable": 0}


def make_one_row_evaluation(**scores):
    """Return an evaluation of two systems on one row."""
    return Evaluation("one", [ROW], {name: SystemResult([""], scores) for name in "ab"}, baseline="a")


def test_results_json_has_means_intervals_p_values_and_figures(evaluation, tmp_path):
    write_results(evaluation, tmp_path)
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert results["rows"] == len(evaluation.rows)
    assert results["passages"] == len({row["passage"] for row in evaluation.rows})
    assert results["order"] == ["lead-3", "lead-1", "lead-2", "cross-task"]
    recall = results["systems"]["cross-task"]["metrics"]["answer_recall"]
    answers = [row["answer"] for row in evaluation.rows]
    assert recall["mean"] == pytest.approx(answer_recall(evaluation.systems["cross-task"].summaries, answers))
    assert recall["low"] < recall["mean"] < recall["high"] and 0 < recall["p"] <= 1
    assert recall["rows"] < len(evaluation.rows)  # some rows have no answer
    assert results["systems"]["lead-3"]["metrics"]["rouge1"]["p"] is None
    assert results["systems"]["cross-task"]["figures"]["ece"] is None
    assert results["systems"]["cross-task"]["reliability"][1]["count"] == 120
    assert results["systems"]["lead-1"]["figures"] == {}


def test_parquet_has_a_line_for_each_row_and_system(evaluation, tmp_path):
    write_results(evaluation, tmp_path)
    table = pq.read_table(tmp_path / "rows.parquet")
    lines, systems = table.to_pylist(), list(evaluation.systems)
    assert len(lines) == len(evaluation.rows) * len(systems)
    for index, line in enumerate(lines):
        row, system = evaluation.rows[index // len(systems)], systems[index % len(systems)]
        result = evaluation.systems[system]
        assert (line["id"], line["passage"], line["system"]) == (row["id"], row["passage"], system)
        assert line["reference"] == row["summary"]
        assert line["answerable"] == (None if row["answerable"] == IGNORE_INDEX else row["answerable"])
        assert line["summary"] == result.summaries[index // len(systems)]
        assert line["answer_recall"] == result.scores["answer_recall"][index // len(systems)]
        assert (line["reference_probability"] is None) == (system != "cross-task")
        assert (line["summary_probability"] is None) == (system != "cross-task")


def test_the_same_evaluation_gives_the_same_bytes(make_evaluation, tmp_path):
    """Also in another process with other hashes of strings."""
    script = (
        "import runpy, sys; from crosstask.eval.report.results import write_results\n"
        "write_results(runpy.run_path(sys.argv[1])['build_evaluation'](4), sys.argv[2])"
    )
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir(), there.mkdir()
    write_results(make_evaluation(4), here)
    fixtures = Path(__file__).parents[2] / "evaluation_fixtures.py"
    environment = os.environ | {"PYTHONHASHSEED": "7"}
    subprocess.run([sys.executable, "-c", script, fixtures, there], check=True, env=environment)
    for name in ("results.json", "rows.parquet"):
        assert (here / name).read_bytes() == (there / name).read_bytes()
    assert sorted(path.name for path in here.iterdir()) == ["results.json", "rows.parquet"]


def test_folders_of_the_machine_are_removed(tmp_path):
    settings = {"data": tmp_path / "test.jsonl", "argv": ["--model", f"{tmp_path}/runs/it", r"C:\me\x.yaml"]}
    settings |= {"id": "google/flan-t5-base", "url": "https://example.org/a/b", "either": "and/or"}
    evaluation = replace(
        make_one_row_evaluation(),
        settings=settings,
        notes=[f"no file '{tmp_path}/judge'"],
        title=str(tmp_path),
    )
    assert evaluation.settings == {
        **{"data": "test.jsonl", "argv": ["--model", "it", "x.yaml"], "id": "google/flan-t5-base"},
        **{"url": "https://example.org/a/b", "either": "and/or"},
    }
    assert evaluation.notes == ["no file 'judge'"]
    assert "/" not in evaluation.title


def test_numbers_of_numpy_and_other_objects_are_written_as_json(tmp_path):
    bins = [{"probability": np.float32(0.5), "yes": np.float64(1), "count": np.int64(1)}]
    scores = {"rouge1": np.array([0.5], np.float32)}
    system = SystemResult([""], scores, {"ece": np.float32(0.25)}, bins, np.array([0.5]), np.array([1]))
    write_results(Evaluation("title", [ROW], {"a": system}, settings={"dtype": torch.float16}), tmp_path)
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert results["settings"] == {"dtype": "torch.float16"}
    assert results["systems"]["a"]["figures"] == {"ece": 0.25}
    assert results["systems"]["a"]["reliability"] == [{"probability": 0.5, "yes": 1.0, "count": 1}]
    assert pq.read_table(tmp_path / "rows.parquet").to_pylist()[0]["summary_probability"] == 1


def test_lower_is_better_for_errors():
    systems = {
        name: SystemResult([""] * 10, {}, {"brier": brier, "auroc": auroc})
        for name, brier, auroc in (("a", 0.1, 0.6), ("b", 0.2, 0.6))
    }
    rows = [{**ROW, "passage": str(number)} for number in range(10)]
    evaluation = Evaluation("title", rows, systems)
    assert evaluation.get_best("brier") == ["a"] and evaluation.get_best("auroc") == ["a", "b"]


def test_no_better_than_chance_is_not_the_best():
    systems = {
        name: SystemResult([""] * 10, {}, {"auroc": auroc}) for name, auroc in (("a", 0.4), ("b", 0.5))
    }
    rows = [{**ROW, "passage": str(number)} for number in range(10)]
    assert Evaluation("title", rows, systems).get_best("auroc") == []


@pytest.mark.parametrize("passages", [2, 9, 10])
def test_a_small_test_has_no_marks_and_no_decimals(tmp_path, passages):
    scores = {"a": [1.0] * 60, "b": [0.25] * 60}
    systems = {
        name: SystemResult([""] * 60, {"answer_recall": values}, {"auroc": 1.0})
        for name, values in scores.items()
    }
    rows = [{**ROW, "passage": str(number % passages)} for number in range(60)]
    evaluation = Evaluation("title", rows, systems, baseline="b")
    text = format_evaluation(evaluation)
    write_results(evaluation, tmp_path)
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    is_small = passages < 10
    assert ("1.000" not in text and "±" not in text and "*" not in text and ">" not in text) == is_small
    assert (f"too small to compare systems: it has {passages} passages" in text) == is_small
    assert (results["systems"]["a"]["metrics"]["answer_recall"]["p"] is None) == is_small
    write_html(evaluation, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = page.replace("Intervals, p-values and the best values are left out.", "")
    assert ("interval" not in page and "is the best of a line" not in page) == is_small
    assert results["systems"]["a"]["metrics"]["answer_recall"]["mean"] == 1.0


@pytest.mark.parametrize("rows", [0, 1, 1001])
@pytest.mark.parametrize("score", [None, 0.0])
def test_no_rows_one_row_and_many_identical_rows(rows, score, tmp_path):
    system = SystemResult([""] * rows, {"rouge1": [score] * rows}, {"auroc": None})
    evaluation = Evaluation("edge", [ROW] * rows, {"a": system, "b": system}, baseline="a")
    write_results(evaluation, tmp_path)
    assert pq.read_table(tmp_path / "rows.parquet").num_rows == 2 * rows
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    mean = score if rows else None
    assert results["systems"]["b"]["metrics"]["rouge1"] == {
        **{"mean": mean, "low": None, "high": None, "p": None, "rows": 0 if mean is None else rows}
    }
    assert ("  0.0" in format_evaluation(evaluation)) == (mean is not None)
    assert len(list_results(evaluation, "a")) == (mean is not None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"baseline": "c"}, "'c' is none of the systems: a, b"),
        ({"rows": [ROW, ROW]}, "a: there are 1 values of summaries, expected one for each of 2 rows"),
        ({"systems": {"a": SystemResult([""], {"m": []})}}, "a: there are 0 values of m"),
        (
            {"systems": {"a": SystemResult([""], {}, summary_probabilities=[])}},
            "0 values of summary_probabilities",
        ),
        ({"systems": {"a": SystemResult([""], {"passage": [1.0]})}}, "cannot be named 'passage'"),
    ],
)
def test_errors_name_what_is_wrong(change, message):
    with pytest.raises(ValueError, match=message):
        replace(make_one_row_evaluation(), **change)
    with pytest.raises(ValueError, match="'c' is none of the systems: a, b"):
        list_results(make_one_row_evaluation(), "c")


def test_means_and_results_name_the_figures_of_answerability(evaluation):
    means = get_means(evaluation)
    assert list(means) == list(evaluation.systems)
    assert means["cross-task"]["answer_recall"] == evaluation.estimates["cross-task"]["answer_recall"].mean
    assert means["cross-task"]["answerability_auroc"] == evaluation.systems["cross-task"].figures["auroc"]
    assert "answerability_auroc" not in means["lead-3"]
    results = {result["metric"]: result["value"] for result in list_results(evaluation, "cross-task")}
    assert results == {name: value for name, value in means["cross-task"].items() if value is not None}
