import json
import random
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from datasets import load_dataset

import crosstask
from crosstask.configuration_crosstask import IGNORE_INDEX
from crosstask.data.briefs import generate
from crosstask.eval.run import list_rows, main, read_eval_recipe, score, score_summaries, write_summaries
from crosstask.eval.scoring.answerability import answerability_figures
from crosstask.eval.scoring.judgment import judge_own_summaries, judge_wrong_values
from crosstask.eval.systems import make_system
from crosstask.eval.systems.base import Outputs


@pytest.fixture(scope="module")
def rows():
    return list(generate("fuse", "test", 12))


@pytest.fixture
def evaluate(tmp_path, rows, capsys):
    """Return a function that runs the command on rows, and returns the report's folder and the output."""

    def evaluate(rows=rows, folder="report", **flags):
        data = tmp_path / "rows"
        data.mkdir(exist_ok=True)
        (data / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        for split in ("train", "validation"):
            (data / f"{split}.jsonl").write_text(json.dumps({**rows[0], "passage": split}) + "\n")
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text("systems: [lead-1, lead-3, oracle]\nbaseline: lead-1\nresamples: 50\n")
        values = {"data": data, "output_dir": tmp_path / folder, **flags}
        main([str(recipe), *(f"--{name}={value}" for name, value in values.items())])
        return tmp_path / folder, capsys.readouterr().out

    return evaluate


class CountingSystem:
    """A system that counts the calls of `write`."""

    name = "counting"

    def __init__(self, **settings):
        self.settings, self.calls = {"kind": "counting", **settings}, 0

    def write(self, rows, update=None):
        self.calls += 1
        return Outputs([row["answer"] for row in rows], [0.5] * len(rows), [0.25] * len(rows))


def test_the_report_has_all_its_files(evaluate, rows):
    folder, output = evaluate()
    assert {"results.json", "rows.parquet", "report.html", "cache"} <= {
        path.name for path in folder.iterdir()
    }
    assert "lead-3" in output and "answer recall" in output and str(folder / "report.html") in output
    assert "Entailment of the answer: not computed" in output and "BERTScore: not computed" in output
    parquet = load_dataset("parquet", data_files=str(folder / "rows.parquet"), cache_dir=str(folder / "hf"))
    assert len(parquet["train"]) == 3 * len(rows)


def test_results_are_reproducible_and_do_not_depend_on_the_order_of_rows(evaluate, rows):
    first, _ = evaluate()
    second, _ = evaluate(folder="second")
    assert (first / "results.json").read_bytes() == (second / "results.json").read_bytes()
    shuffled = random.Random(0).sample(rows, len(rows))
    reordered, _ = evaluate(shuffled, folder="reordered")
    assert (first / "results.json").read_bytes() == (reordered / "results.json").read_bytes()


def test_summaries_are_cached_by_settings_and_rows(tmp_path, rows):
    system = CountingSystem(beams=1)
    first = write_summaries(system, rows, tmp_path)
    assert write_summaries(system, rows, tmp_path) == first and system.calls == 1
    write_summaries(system, rows[:-1], tmp_path)
    assert system.calls == 2
    changed = CountingSystem(beams=2)
    write_summaries(changed, rows, tmp_path)
    assert changed.calls == 1


def test_references_are_all_summaries_of_a_question_that_are_not_labeled_0():
    row = {"passage": "p", "question": "q", "answer": "cat", "answerable": 1}
    rows = [
        {**row, "summary": "a cat sat"},
        {**row, "summary": "the dog ran"},
        {**row, "summary": "other words", "answerable": 0},
    ]
    results, _ = score(rows, {"system": Outputs(["the dog ran"] * 3)})
    assert results["system"].scores["rouge1"] == [1.0, 1.0, None]
    assert results["system"].scores["answer_recall"] == [0.0] * 3


def test_probabilities_give_figures(rows):
    labels = [row["answerable"] for row in rows]
    outputs = Outputs([""] * len(rows), [0.9 if label else 0.1 for label in labels], [0.5] * len(rows))
    result = score(rows, {"system": outputs})[0]["system"]
    assert result.figures["accuracy"] == result.figures["auroc"] == 1.0
    # The summaries are empty, and therefore all wrong; they are judged with a probability of 0.5.
    assert [bin["count"] for bin in result.reliability] == [len(labels)]
    assert result.figures["own_ece"] == 0.5 and result.figures["own_auroc"] is None
    assert list(result.figures)[0].startswith("own_")


def test_labels_are_converted_when_rows_are_listed():
    rows = list_rows({"id": "1", "answerable": label} for label in (1, 0, None, True, "no", -100))
    assert [row["answerable"] for row in rows] == [1, 0, IGNORE_INDEX, 1, 0, IGNORE_INDEX]


@pytest.mark.parametrize("flag", ["eval/run.py", "-m crosstask.eval"])
def test_the_command_runs_as_a_file_and_as_a_module(flag):
    root = Path(crosstask.__file__).parent
    command = [sys.executable, *flag.split(), "--help"]
    help_text = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    assert "usage: crosstask-eval" in help_text and "bertscore_model" in help_text


@pytest.mark.parametrize("count", [1, 1000])
def test_one_row_and_a_thousand_identical_rows(evaluate, rows, count):
    folder, _ = evaluate([{**rows[0], "id": str(number)} for number in range(count)])
    figures = json.loads((folder / "results.json").read_text())["systems"]["lead-3"]["metrics"]
    assert figures["rouge1"]["low"] is None  # there is only one passage


def test_texts_without_answers_and_in_other_scripts(evaluate):
    texts = ["Le maire a ouvert le pont. 🌉🌉", "市长开了桥。", "🎉", "x"]
    rows = [
        {"id": str(n), "source": "s", "passage": text, "question": "?", "answer": "", "summary": "🌉"}
        | {"answerable": 0}
        for n, text in enumerate(texts)
    ]
    folder, _ = evaluate(rows)
    assert json.loads((folder / "results.json").read_text())["systems"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"baseline": "lead-2"}, "baseline: expected one of lead-1, lead-3, oracle, got 'lead-2'"),
        ({"split": "nowhere"}, "split: "),
        ({"jugde": "x"}, "unknown key 'jugde'; did you mean 'judge'"),
        ({"resamples": 0}, "resamples: expected 1 or more"),
        ({"run_dir": "/nowhere"}, "run_dir: "),
        ({"data": "missing.jsonl"}, "missing.jsonl: file not found"),
        ({"judge": "missing/judge"}, "missing/judge"),
        ({"systems": "[lead-3, lead-3]"}, "systems: expected each name once"),
        ({"systems": "[laed-3]"}, "'lead'"),
    ],
)
def test_a_mistake_ends_the_command_with_one_sentence(evaluate, flags, message):
    with pytest.raises(SystemExit, match="crosstask-eval: error: ") as error:
        evaluate(**flags)
    assert message in str(error.value) and len(str(error.value).splitlines()) == 1


def test_the_recipes_of_the_repository_are_valid():
    for path in (Path(__file__).parents[2] / "configs").glob("eval_*.yaml"):
        arguments = read_eval_recipe(path)
        assert arguments.baseline
        for spec in arguments.systems:
            if isinstance(spec, str) or "model" not in spec:
                assert make_system(spec).settings


def test_the_documentation_lists_all_metrics(rows, monkeypatch):
    for function in ("entailment_rows", "bertscore_rows"):  # these run a model
        monkeypatch.setattr(f"crosstask.eval.run.{function}", lambda *args, **kwargs: defaultdict(list))
    scores = score_summaries([""] * len(rows), rows, bertscore={"model": "x"}, judge=object())
    figures = answerability_figures([0.5], [1]).keys() - {"reliability"}
    section = (Path(crosstask.__file__).parent / "docs" / "evaluate.md").read_text(encoding="utf-8")
    section = section.split("\n## Metrics\n")[1].split("\n## ")[0]
    keys = [
        key
        for line in section.splitlines()
        if line.startswith("| `")
        for key in re.findall("`(.+?)`", line.split("|")[1])
    ]
    labeled = [{"passage": "P", "question": "Who?", "answer": "Ann", "summary": "Ann.", "answerable": 1}]
    own = judge_own_summaries(labeled, ["Ann."], [0.5])[0].keys()
    wrong = judge_wrong_values([0.5], [0.5]).keys()
    assert len(keys) == len(set(keys)) and set(keys) == scores.keys() | figures | own | wrong
