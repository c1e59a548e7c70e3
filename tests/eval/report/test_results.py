import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from huggingface_hub import ModelCard, ModelCardData, parse_eval_result_entries

from crosstask.data.answers import answer_recall
from crosstask.eval.report.results import (
    Evaluation,
    SystemResult,
    eval_results,
    eval_results_yaml,
    measured,
    show,
    write_results,
)

ROW = {"id": "1", "source": "", "passage": "x", "question": "?", "answer": "", "summary": "", "answerable": 0}


def one_row(**scores):
    return Evaluation("one", [ROW], {name: SystemResult([""], scores) for name in "ab"}, baseline="a")


def test_results_json_has_means_intervals_p_values_and_figures(evaluation, tmp_path):
    write_results(evaluation, tmp_path)
    found = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert found["rows"] == len(evaluation.rows)
    assert found["passages"] == len({row["passage"] for row in evaluation.rows})
    assert found["order"] == ["lead-3", "lead-1", "lead-2", "cross-task"]
    recall = found["systems"]["cross-task"]["metrics"]["answer_recall"]
    answers = [row["answer"] for row in evaluation.rows]
    assert recall["mean"] == pytest.approx(answer_recall(evaluation.systems["cross-task"].summaries, answers))
    assert recall["low"] < recall["mean"] < recall["high"] and 0 < recall["p"] <= 1
    assert recall["rows"] < len(evaluation.rows)  # some rows have no answer
    assert found["systems"]["lead-3"]["metrics"]["rouge1"]["p"] is None
    assert found["systems"]["cross-task"]["figures"]["ece"] is None
    assert found["systems"]["cross-task"]["reliability"][1]["count"] == 120
    assert found["systems"]["lead-1"]["figures"] == {}


def test_parquet_has_a_line_for_each_row_and_system(evaluation, tmp_path):
    write_results(evaluation, tmp_path)
    table = pq.read_table(tmp_path / "rows.parquet")
    lines, systems = table.to_pylist(), list(evaluation.systems)
    assert len(lines) == len(evaluation.rows) * len(systems)
    for index, line in enumerate(lines):
        row, system = evaluation.rows[index // len(systems)], systems[index % len(systems)]
        result = evaluation.systems[system]
        assert (line["id"], line["passage"], line["system"]) == (row["id"], row["passage"], system)
        assert (line["reference"], line["answerable"]) == (row["summary"], row["answerable"])
        assert line["summary"] == result.summaries[index // len(systems)]
        assert line["answer_recall"] == result.scores["answer_recall"][index // len(systems)]
        assert (line["probability"] is None) == (line["own_probability"] is None) == (system != "cross-task")


def test_the_same_evaluation_gives_the_same_bytes(make_evaluation, tmp_path):
    """In another process, where strings hash otherwise, too."""
    script = (
        "import runpy, sys; from crosstask.eval.report.results import write_results\n"
        "write_results(runpy.run_path(sys.argv[1])['made_up'](4), sys.argv[2])"
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


def test_no_file_tells_of_the_machines_folders(tmp_path):
    made = {"data": tmp_path / "test.jsonl", "argv": ["--model", f"{tmp_path}/runs/it", r"C:\me\x.yaml"]}
    made |= {"id": "google/flan-t5-base", "url": "https://example.org/a/b", "either": "and/or"}
    evaluation = replace(one_row(), made=made, notes=[f"no file '{tmp_path}/judge'"], title=str(tmp_path))
    assert evaluation.made == {
        **{"data": "test.jsonl", "argv": ["--model", "it", "x.yaml"], "id": "google/flan-t5-base"},
        **{"url": "https://example.org/a/b", "either": "and/or"},
    }
    assert evaluation.notes == ["no file 'judge'"]
    assert "/" not in evaluation.title


def test_show_marks_the_best_and_what_differs(evaluation):
    text = show(evaluation)
    head, rule, baseline, shorter, *_ = text.splitlines()
    assert re.split(r"\s{2,}", head) == ["system", "rouge1", "rougeL", "answer recall", "length"]
    assert "*" not in baseline and baseline.startswith("lead-3") and "±" in baseline
    assert "*" in shorter
    line = next(line for line in text.splitlines() if line.startswith("cross-task"))
    assert line.count(">") == 3  # the references match themselves; no length is best
    assert "> the best of its column." in text and "* differs from lead-3 at p < 0.05" in text
    assert "accuracy" in text and "Note: entailment: no judge was given" in text


def test_show_fits_a_terminal_and_names_what_it_leaves_out(evaluation):
    systems = {
        f"a system of a rather long name, number {number}": SystemResult(
            result.summaries, {f"{name}_{copy}": v for copy in range(4) for name, v in result.scores.items()}
        )
        for number, result in enumerate(evaluation.systems.values())
    }
    text = show(replace(evaluation, systems=systems, baseline=None, notes=[]))
    *table, last = text.splitlines()
    assert max(map(len, table)) <= 120
    assert last.startswith("Not shown for want of room: ") and last.endswith("length 3.")
    assert "differs from" not in text


def test_takes_numbers_of_numpy_and_objects_by_their_names(tmp_path):
    bins = [{"confidence": np.float32(0.5), "yes": np.float64(1), "count": np.int64(1)}]
    scores = {"rouge1": np.array([0.5], np.float32)}
    system = SystemResult([""], scores, {"ece": np.float32(0.25)}, bins, np.array([0.5]), np.array([1]))
    write_results(Evaluation("it", [ROW], {"a": system}, made={"dtype": torch.float16}), tmp_path)
    found = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert found["made"] == {"dtype": "torch.float16"}
    assert found["systems"]["a"]["figures"] == {"ece": 0.25}
    assert found["systems"]["a"]["reliability"] == [{"confidence": 0.5, "yes": 1.0, "count": 1}]
    assert pq.read_table(tmp_path / "rows.parquet").to_pylist()[0]["own_probability"] == 1


def test_lower_is_better_for_errors():
    systems = {
        name: SystemResult([""], {}, {"brier": brier, "auroc": 0.5})
        for name, brier in (("a", 0.1), ("b", 0.2))
    }
    evaluation = Evaluation("it", [ROW], systems)
    assert evaluation.best("brier") == ["a"] and evaluation.best("auroc") == ["a", "b"]


@pytest.mark.parametrize("rows", [0, 1, 1001])
@pytest.mark.parametrize("score", [None, 0.0])
def test_one_row_no_rows_and_a_thousand_identical_ones(rows, score, tmp_path):
    system = SystemResult([""] * rows, {"rouge1": [score] * rows}, {"auroc": None})
    evaluation = Evaluation("edge", [ROW] * rows, {"a": system, "b": system}, baseline="a")
    write_results(evaluation, tmp_path)
    assert pq.read_table(tmp_path / "rows.parquet").num_rows == 2 * rows
    found = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    mean = score if rows else None
    assert found["systems"]["b"]["metrics"]["rouge1"] == {
        **{"mean": mean, "low": None, "high": None, "p": None, "rows": 0 if mean is None else rows}
    }
    assert ("0.000" in show(evaluation)) == (mean is not None)
    assert len(measured(evaluation, "a")) == (mean is not None)


def test_eval_results_go_into_a_model_card_and_come_back(evaluation):
    found = measured(evaluation, "cross-task")
    results = eval_results(found, "someone/briefs", level=0.95, dataset_name="Briefs", split="test")
    metrics = [result.metric_type for result in results]
    assert metrics == ["rouge1", "rougeL", "answer_recall", "length", "accuracy", "auroc", "brier"]
    card = f"---\n{ModelCardData(model_name='it', eval_results=results).to_yaml()}\n---\n"
    read = ModelCard(card).data.eval_results
    estimate = evaluation.estimates["cross-task"]["rouge1"]
    assert (read[0].metric_value, read[0].dataset_split) == (estimate.mean, "test")
    assert read[0].metric_args == {"level": 0.95, "low": estimate.low, "high": estimate.high}
    assert read[4].metric_args is None


def test_eval_results_files_are_what_the_hub_reads(evaluation):
    found = measured(evaluation, "cross-task")
    text = eval_results_yaml(found, "someone/briefs", level=evaluation.level, revision="abc")
    entries = parse_eval_result_entries(yaml.safe_load(text))
    assert [entry.task_id for entry in entries][:2] == ["rouge1", "rougeL"]
    assert entries[0].value == evaluation.estimates["cross-task"]["rouge1"].mean
    assert (entries[0].dataset_id, entries[0].dataset_revision) == ("someone/briefs", "abc")
    assert entries[0].notes.startswith("95% interval 1 to 1") and entries[-1].notes is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"baseline": "c"}, "'c' is none of the systems: a, b"),
        ({"rows": [ROW, ROW]}, "a: there are 1 values of summaries, expected one for each of 2 rows"),
        ({"systems": {"a": SystemResult([""], {"m": []})}}, "a: there are 0 values of m"),
        ({"systems": {"a": SystemResult([""], {}, own=[])}}, "0 values of own"),
        ({"systems": {"a": SystemResult([""], {"passage": [1.0]})}}, "cannot be named 'passage'"),
    ],
)
def test_errors_name_what_is_wrong(change, message):
    with pytest.raises(ValueError, match=message):
        replace(one_row(), **change)
    with pytest.raises(ValueError, match="'c' is none of the systems: a, b"):
        measured(one_row(), "c")
