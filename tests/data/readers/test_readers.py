import json
import logging
import sys
import tracemalloc
from types import ModuleType

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from broken import JSONL_KINDS, good_row
from datasets import Dataset, DatasetDict, IterableDatasetDict
from hypothesis import given, settings
from hypothesis import strategies as st
from made_rows import failure, joint, needs_aclsum, read_leniently, write_jsonl

from crosstask.data.readers import files, iter_rows, read_rows, write_rejects
from crosstask.data.schema import FEATURES, STAGE_COLUMNS
from crosstask.utils.errors import DataError


def test_rejects_that_nobody_asked_for_are_warned_of(tmp_path, caplog):
    rows = [joint(n) for n in range(3)] + [joint(7, passage=""), joint(8, passage="")]
    with caplog.at_level(logging.WARNING):
        read_rows(write_jsonl(tmp_path / "rows.jsonl", rows), "fuse")
    assert "rejected 2 rows: 2 empty passage" in caplog.text


def test_rejects_are_told_even_where_no_row_is_left(tmp_path):
    rejects = []
    path = write_jsonl(tmp_path / "rows.jsonl", [joint(1, passage="")])
    assert "no row is left for stage fuse" in failure(path, "fuse", rejects=rejects)
    assert [reject["id"] for reject in rejects] == ["r1"]


def test_write_rejects_replaces_the_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "new" / "rejects.jsonl"
    write_rejects([{"id": "old", "reason": "x"}] * 3, path)
    rejects = [{"source": "f", "line": 1, "id": "ü", "reason": "empty passage"}]
    write_rejects(rejects, path)
    assert [json.loads(line) for line in path.read_text().splitlines()] == rejects
    assert list(path.parent.iterdir()) == [path]


def test_write_rejects_keeps_the_old_file_where_it_fails(tmp_path):
    path = tmp_path / "rejects.jsonl"
    write_rejects([{"id": "old"}], path)
    with pytest.raises(TypeError):
        write_rejects([{"id": "new"}, {"id": object()}], path)
    assert json.loads(path.read_text()) == {"id": "old"}


def test_unknown_arguments_suggest_the_nearest(tmp_path):
    path = write_jsonl(tmp_path / "r.jsonl", [joint(0)])
    assert "'fusing' is unknown" in failure(path, "fusing")
    assert "did you mean 'summary'" in failure(path, "fuse", columns={"sumary": "x"})
    assert "did you mean 'seed'" in failure("briefs", "fuse", options={"sed": 1})
    assert '`options` are for "briefs", got seed' in failure(path, "fuse", options={"seed": 1})
    assert "expected no `columns`" in failure("briefs", "fuse", columns={"summary": "x"})


def test_splits_of_other_names(monkeypatch, tmp_path, caplog):
    def give(*names):
        rows = [joint(n) for n in range(4)]
        made = DatasetDict({name: Dataset.from_list(rows) for name in names})
        monkeypatch.setattr(files, "load_dataset", lambda *_: made)

    monkeypatch.chdir(tmp_path)
    give("everything")
    assert set(read_rows("a/b", "fuse")) == {"train", "validation", "test"}
    give("train", "dev", "test", "adversarial")
    assert set(read_rows("a/b", "fuse")) == {"train", "validation", "test"}
    assert "splits left unread: adversarial" in caplog.text
    give("one", "two")
    assert "has the splits one, two, expected train, validation, test" in failure("a/b", "fuse")
    give("train", "dev", "val")
    assert "expected one validation split" in failure("a/b", "fuse")


def test_too_few_passages_says_how_many_are_needed(tmp_path):
    path = write_jsonl(tmp_path / "r.jsonl", [joint(1, id="a"), joint(1, id="b"), joint(2)])
    assert f"{path}: found 2 distinct passages, expected at least 3" in failure(path, "fuse")
    (tmp_path / "two").mkdir()
    for name in ("train", "test"):
        write_jsonl(tmp_path / "two" / f"{name}.jsonl", [joint(1)])
    assert "found 1 distinct passages, expected at least 2" in failure(tmp_path / "two", "fuse")


@pytest.mark.parametrize("held_out", ["validation", "test"])
def test_a_source_of_two_splits_gets_its_validation_carved_from_train(tmp_path, held_out):
    write_jsonl(tmp_path / "train.jsonl", [joint(n) for n in range(40)])
    write_jsonl(tmp_path / f"{held_out}.jsonl", [joint(n) for n in range(50, 53)])
    splits = read_rows(tmp_path, "fuse")
    assert splits["test"]["id"][:] == ["r50", "r51", "r52"]
    assert len(splits["validation"]) and len(splits["train"]) + len(splits["validation"]) == 40


@pytest.fixture
def calls(monkeypatch):
    made = []

    def generate(task, split, passages, **how):
        made.append((task, split, passages, how))
        yield from (joint(n, id=f"{split}-{n}") for n in range(3))

    module = ModuleType("crosstask.data.briefs")
    module.generate = generate
    monkeypatch.setitem(sys.modules, "crosstask.data.briefs", module)
    return made


def test_briefs_are_asked_for_by_stage_split_and_number(calls):
    splits = read_rows("briefs", "fuse")
    assert [call[:3] for call in calls] == [
        ("fuse", "train", 4000),
        ("fuse", "validation", 200),
        ("fuse", "test", 300),
    ]
    assert splits["test"].to_list() == [joint(n, id=f"test-{n}") for n in range(3)]


def test_options_reach_the_generator(calls):
    options = {"passages": {"train": 5, "test": 0}, "seed": 3, "questions": 2, "matching": 0.5}
    assert set(read_rows("briefs", "fuse", options=options)) == {"train", "validation"}
    how = {"seed": 3, "questions": 2, "matching": 0.5}
    assert calls == [("fuse", "train", 5, how), ("fuse", "validation", 200, how)]


@pytest.mark.parametrize(
    ("passages", "told"),
    [
        (500, "passages is 500, expected"),
        ({"train": -1}, "expected a number"),
        ({"train": "many"}, "expected a number"),
        ({"trian": 5}, "did you mean 'train'"),
    ],
)
def test_wrong_numbers_of_passages(calls, passages, told):
    assert told in failure("briefs", "fuse", options={"passages": passages})


def test_splits_that_a_source_has_are_told(tmp_path):
    for name in ("train", "dev"):
        write_jsonl(tmp_path / f"{name}.jsonl", [joint(1), joint(2)])
    told = [split for split, _, _ in iter_rows(tmp_path, "build", reject=pytest.fail)]
    assert told == ["train", "train", "validation", "validation"]
    told = [split for split, _, _ in iter_rows(tmp_path / "dev.jsonl", "build", reject=pytest.fail)]
    assert told == [None, None]


@pytest.mark.parametrize("data", ["briefs", pytest.param("aclsum", marks=needs_aclsum)])
def test_the_built_in_sources_serve_the_making_of_data_sets(data):
    options = {"passages": {"train": 5, "validation": 0, "test": 0}} if data == "briefs" else None
    rows = list(iter_rows(data, "build", options=options, reject=pytest.fail))
    assert rows and {split for split, _, _ in rows} <= {"train", "validation", "test"}
    answers = read_rows(data, "answer", options=options)["train"].to_list()
    rows = [row for split, _, row in rows if split == "train"]
    for row, answer in zip(rows, answers, strict=True):
        assert {**row, "summary": ""} == answer
        assert bool(row["summary"]) == (data == "aclsum")


@settings(max_examples=25, deadline=None)
@given(order=st.permutations(range(60)))
def test_the_order_of_lines_does_not_change_the_set_of_rows(tmp_path_factory, order):
    path = tmp_path_factory.mktemp("order") / "rows.jsonl"
    lines = [json.dumps({**good_row(n), "id": f"g{n}"}).encode() for n in range(60 - 24)]
    kinds = [kind for kind in JSONL_KINDS if kind != "10 MB passage"]
    lines += [JSONL_KINDS[kind]({**good_row(n), "id": kind}) for n, kind in enumerate(kinds)]
    path.write_bytes(b"\n".join(lines[n] for n in order) + b"\n")
    rows, rejects = read_leniently(path, extractive=True)
    # "good0", which is a duplicate elsewhere, is the only one of its id here.
    assert {row["id"] for row in rows} == {f"g{n}" for n in range(36)} | {"good0"}
    assert len(rows) + len(rejects) == 60


@pytest.mark.parametrize("stage", STAGE_COLUMNS)
@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_a_stream_has_the_rows_of_the_table(tmp_path, stage, suffix):
    rows = [joint(n % 400, id=f"r{n}") for n in range(800)] + [joint(0, id="x", passage="")]
    path = tmp_path / f"rows.{suffix}"
    write_jsonl(path, rows) if suffix == "jsonl" else pq.write_table(pa.Table.from_pylist(rows), path)
    table, stream = read_rows(path, stage), read_rows(path, stage, streaming=True)
    assert isinstance(stream, IterableDatasetDict) and list(stream) == list(table)
    for split in table:
        assert stream[split].features == FEATURES
        assert list(stream[split]) == list(stream[split]) == table[split].to_list()


def test_a_stream_carves_what_is_missing(tmp_path):
    for name, first in (("train", 0), ("dev", 200)):
        write_jsonl(tmp_path / f"{name}.jsonl", [joint(n) for n in range(first, first + 200)])
    table, stream = read_rows(tmp_path, "fuse"), read_rows(tmp_path, "fuse", streaming=True)
    assert {split: list(rows) for split, rows in stream.items()} == {
        split: rows.to_list() for split, rows in table.items()
    }
    write_jsonl(tmp_path / "test.jsonl", [joint(500)])
    stream = read_rows(tmp_path, "fuse", streaming=True)
    assert {split: sum(1 for _ in rows) for split, rows in stream.items()} == {
        "train": 200,
        "validation": 200,
        "test": 1,
    }


def test_a_stream_is_as_strict_as_the_table_and_warns(tmp_path, caplog):
    path = write_jsonl(tmp_path / "rows.jsonl", [joint(1), joint(2, question=""), joint(3, passage=4)])
    stream = read_rows(path, "fuse", streaming=True)["train"]
    with pytest.raises(DataError, match="line 3, row 'r3': passage is 4"):
        list(stream)
    path = write_jsonl(tmp_path / "rows.jsonl", [joint(1), joint(2, question="")])
    list(read_rows(path, "fuse", streaming=True)["train"])
    assert "rejected 1 rows: 1 empty question" in caplog.text
    with pytest.raises(ValueError, match="rejects"):
        read_rows(path, "fuse", streaming=True, rejects=[])


def test_what_is_held_in_memory_does_not_grow_with_the_rows(tmp_path):
    def peak(number):
        with open(tmp_path / "rows.jsonl", "w") as file:
            for n in range(number):
                file.write(
                    json.dumps({"id": n, "passage": "p" * 2000, "question": "q", "answer": "a"}) + "\n"
                )
        tracemalloc.start()
        assert sum(1 for _ in iter_rows(tmp_path / "rows.jsonl", "build", reject=pytest.fail)) == number
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(10)  # what is imported and cached once
    # 4,500 more rows are 9 MB of text, and 8 bytes of each are kept, in an int in a set.
    assert peak(5000) - peak(500) < 4500 * 200
