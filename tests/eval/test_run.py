import json
import random

import pytest
from datasets import load_dataset

from crosstask.data.briefs import generate
from crosstask.eval.run import main, read_eval_recipe, score, write_cached
from crosstask.eval.systems import make_system
from crosstask.eval.systems.base import Outputs


@pytest.fixture(scope="module")
def rows():
    return list(generate("fuse", "test", 12))


@pytest.fixture
def evaluate(tmp_path, rows, capsys):
    """Run the command on rows; returns the folder and what was printed."""

    def evaluate(rows=rows, folder="report", **flags):
        data = tmp_path / "rows"
        data.mkdir(exist_ok=True)
        (data / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        for split in ("train", "validation"):
            (data / f"{split}.jsonl").write_text(json.dumps({**rows[0], "passage": split}) + "\n")
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text("systems: [lead-1, lead-3, oracle]\nbaseline: lead-1\nresamples: 50\n")
        given = {"data": data, "output_dir": tmp_path / folder, **flags}
        main([str(recipe), *(f"--{name}={value}" for name, value in given.items())])
        return tmp_path / folder, capsys.readouterr().out

    return evaluate


class Loud:
    """A system that counts how often it writes."""

    name = "loud"

    def __init__(self, **settings):
        self.settings, self.calls = {"kind": "loud", **settings}, 0

    def write(self, rows, tick=None):
        self.calls += 1
        return Outputs([row["answer"] for row in rows], [0.5] * len(rows), [0.25] * len(rows))


def test_the_report_has_all_its_files(evaluate, rows):
    folder, told = evaluate()
    assert {"results.json", "rows.parquet", "report.html", "cache"} <= {
        path.name for path in folder.iterdir()
    }
    assert "lead-3" in told and "answer recall" in told and str(folder / "report.html") in told
    assert "Entailment of the answer: absent" in told and "BERTScore: absent" in told
    parquet = load_dataset("parquet", data_files=str(folder / "rows.parquet"), cache_dir=str(folder / "hf"))
    assert len(parquet["train"]) == 3 * len(rows)


def test_twice_gives_the_same_bytes_in_any_order(evaluate, rows):
    first, _ = evaluate()
    again, _ = evaluate(folder="again")
    assert (first / "results.json").read_bytes() == (again / "results.json").read_bytes()
    shuffled = random.Random(0).sample(rows, len(rows))
    other, _ = evaluate(shuffled, folder="other")
    assert (first / "results.json").read_bytes() == (other / "results.json").read_bytes()


def test_what_was_written_is_kept_by_content(tmp_path, rows):
    system = Loud(beams=1)
    first = write_cached(system, rows, tmp_path)
    assert write_cached(system, rows, tmp_path) == first and system.calls == 1
    write_cached(system, rows[:-1], tmp_path)
    assert system.calls == 2
    changed = Loud(beams=2)
    write_cached(changed, rows, tmp_path)
    assert changed.calls == 1


def test_references_are_those_of_the_question_that_carry_its_answer():
    row = {"passage": "p", "question": "q", "answer": "cat", "answerable": 1}
    rows = [
        {**row, "summary": "a cat sat"},
        {**row, "summary": "the dog ran"},
        {**row, "summary": "no word of it", "answerable": 0},
    ]
    results, _ = score(rows, {"loud": Outputs(["the dog ran"] * 3)})
    assert results["loud"].scores["rouge1"] == [1.0, 1.0, None]
    assert results["loud"].scores["answer_recall"] == [0.0] * 3


def test_probabilities_become_figures(rows):
    labels = [row["answerable"] for row in rows]
    outputs = Outputs([""] * len(rows), [0.9 if label else 0.1 for label in labels], [0.5] * len(rows))
    result = score(rows, {"sure": outputs})[0]["sure"]
    assert result.figures["accuracy"] == result.figures["auroc"] == 1.0
    assert [filled["count"] for filled in result.reliability] == [labels.count(0), labels.count(1)]


@pytest.mark.parametrize("number", [1, 1000])
def test_one_row_and_a_thousand_alike(evaluate, rows, number):
    folder, _ = evaluate([{**rows[0], "id": str(n)} for n in range(number)])
    figures = json.loads((folder / "results.json").read_text())["systems"]["lead-3"]["metrics"]
    assert figures["rouge1"]["low"] is None  # of one passage nobody knows how others would differ


def test_empty_and_foreign_texts(evaluate):
    texts = ["Le maire a ouvert le pont. 🌉🌉", "市长开了桥。", "🎉", "x"]
    rows = [
        {"id": str(n), "source": "s", "passage": text, "question": "?", "answer": "", "summary": "🌉"}
        | {"answerable": 0}
        for n, text in enumerate(texts)
    ]
    folder, _ = evaluate(rows)
    assert json.loads((folder / "results.json").read_text())["systems"]


@pytest.mark.parametrize(
    ("flags", "told"),
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
def test_mistakes_end_in_one_sentence(evaluate, flags, told):
    with pytest.raises(SystemExit, match="crosstask-eval: error: ") as caught:
        evaluate(**flags)
    assert told in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_recipes_are_read():
    from pathlib import Path

    for path in (Path(__file__).parents[2] / "configs").glob("eval_*.yaml"):
        arguments = read_eval_recipe(path)
        assert arguments.baseline
        for spec in arguments.systems:
            if isinstance(spec, str) or "model" not in spec:
                assert make_system(spec).settings
