"""Test the last step of a build: labels, splits, rejects and the files of the data set."""

import json

import pytest
from datasets import load_dataset

from crosstask.data.build import BuildArguments
from crosstask.data.builder.annotate import get_scored_path
from crosstask.data.builder.finish import SPLIT_BY_HASH, SPLIT_BY_SOURCE, finish
from crosstask.utils.errors import DataError


def make_row(number, **values):
    row = {
        "id": f"r{number}",
        "source": "test",
        "passage": f"Bridge {number} opened.",
        "question": "What opened?",
        "answer": f"Bridge {number}",
        "summary": "It opened.",
        "answerable": None,
        "split": None,
        "entailment": 0.6,
        "negative": False,
    }
    return {"row": row | values}


@pytest.fixture
def run_finish(tmp_path):
    """Return a function that finishes a build with the given lines of a single scored shard."""

    def run(lines, read=None, **values):
        work = tmp_path / "set" / "work"
        work.mkdir(parents=True, exist_ok=True)
        first_reject = {"source": "rows.jsonl", "line": 1, "id": "x", "reason": "empty passage"}
        (work / "rejects.jsonl").write_text(json.dumps(first_reject) + "\n")
        get_scored_path(work, 0).write_text("".join(json.dumps(line) + "\n" for line in lines))
        arguments = BuildArguments(
            data="rows.jsonl", output_dir=str(tmp_path / "set"), teacher="none", judge="none", **values
        )
        counts = {"read": read or len(lines) + 1, "shards": 1, "shortened": 0}
        return finish(arguments, tmp_path / "set", counts)

    return run


def load_rows(folder):
    return {row["id"]: row for split in load_dataset(str(folder)).values() for row in split}


def test_the_label_comes_from_the_entailment_or_else_from_the_source(run_finish, tmp_path):
    lines = [
        make_row(0),
        make_row(1, entailment=0.5),
        make_row(2, entailment=None, answerable=1),
        make_row(3, entailment=None),
        make_row(4, answer="", entailment=None, answerable=None),
    ]
    run_finish(lines)
    rows = load_rows(tmp_path / "set")
    assert [rows[f"r{number}"]["answerable"] for number in range(5)] == [1, 0, 1, None, 0]


def test_a_hard_negative_with_label_1_is_left_out(run_finish, tmp_path):
    lines = [make_row(number) for number in range(3)]
    lines.append(make_row(0, id="r0-negative", entailment=0.4, negative=True))
    lines.append(make_row(1, id="r1-negative", entailment=0.55, negative=True))
    run_finish(lines, read=4)
    assert set(load_rows(tmp_path / "set")) == {"r0", "r1", "r2", "r0-negative"}


def test_the_splits_of_the_source_are_kept(run_finish, tmp_path):
    run_finish([make_row(0, split="train"), make_row(1, split="test")])
    splits = load_dataset(str(tmp_path / "set"))
    assert {name: split["id"] for name, split in splits.items()} == {"train": ["r0"], "test": ["r1"]}
    assert SPLIT_BY_SOURCE in (tmp_path / "set" / "README.md").read_text()


def test_a_source_with_one_split_is_divided_by_passage(run_finish, tmp_path):
    run_finish([make_row(number) for number in range(20)], validation=0.2, test=0.2)
    splits = load_dataset(str(tmp_path / "set"))
    assert set(splits) == {"train", "validation", "test"} and sum(splits.num_rows.values()) == 20
    assert SPLIT_BY_HASH in (tmp_path / "set" / "README.md").read_text()


def test_the_rejects_of_both_steps_are_written(run_finish, tmp_path):
    reject = {"source": "rows.jsonl", "line": 9, "id": "y", "reason": "the teacher wrote nothing"}
    message = run_finish([*(make_row(number) for number in range(3)), {"reject": reject}])
    assert message == f"5 rows read = 3 rows written + 2 rejected, in {tmp_path / 'set'}"
    rejects = [json.loads(line) for line in (tmp_path / "set" / "rejects.jsonl").read_text().splitlines()]
    assert [entry["id"] for entry in rejects] == ["x", "y"]


def test_a_finished_data_set_is_rewritten_only_for_other_settings(run_finish, tmp_path):
    lines = [make_row(number) for number in range(3)]
    message = run_finish(lines)
    assert run_finish(lines) == f"Nothing to do: {message}"
    assert run_finish(lines, threshold=0.7) == message
    assert {row["answerable"] for row in load_rows(tmp_path / "set").values()} == {0}
    names = {path.name for path in (tmp_path / "set").iterdir()} - {"work"}
    assert names == {
        "README.md",
        "build.json",
        "data",
        "labels.png",
        "lengths.png",
        "rejects.jsonl",
        "stats.json",
    }


def test_too_few_passages_for_the_splits_are_an_error(run_finish):
    with pytest.raises(DataError, match="2 distinct passages"):
        run_finish([make_row(0), make_row(1)])


def test_a_build_whose_teacher_writes_nothing_is_an_error(run_finish, tmp_path):
    rejects = [
        {"reject": {"source": "rows.jsonl", "line": n, "id": f"y{n}", "reason": "the teacher wrote nothing"}}
        for n in range(4)
    ]
    with pytest.raises(DataError, match="4 of 7 rows are rejected for one reason, the teacher wrote nothing"):
        run_finish([*(make_row(number) for number in range(3)), *rejects])
    assert len((tmp_path / "set" / "rejects.jsonl").read_text().splitlines()) == 5
    assert not (tmp_path / "set" / "build.json").exists()
