import json
import logging
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from broken_files import JSONL_KINDS, make_good_row
from datasets import IterableDatasetDict
from hypothesis import given, settings
from hypothesis import strategies as st
from reader_helpers import get_error, make_row, needs_aclsum, read_leniently, write_jsonl

from crosstask.data import readers
from crosstask.data.readers import iter_rows, read_rows, write_rejects
from crosstask.data.schema import FEATURES, STAGE_COLUMNS
from crosstask.utils.errors import DataError


def test_a_warning_counts_the_rejects_if_no_list_is_given(tmp_path, caplog):
    rows = [make_row(n) for n in range(3)] + [
        make_row(7, passage=""),
        make_row(8, passage=""),
    ]
    with caplog.at_level(logging.WARNING):
        read_rows(write_jsonl(tmp_path / "rows.jsonl", rows), "fuse")
    assert "rejected 2 rows: 2 empty passage" in caplog.text


def test_reasons_that_differ_in_values_count_as_one(tmp_path, caplog):
    rows = [make_row(n) for n in range(6)] + [make_row(n, answerable=f"maybe {n}") for n in range(6, 9)]
    rows.append(make_row(9, passage=""))
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    with caplog.at_level(logging.WARNING):
        read_rows(path, "fuse")
    counts = "3 such as: answerable is 'maybe 6', expected 0, 1, 'no', 'yes' or null; 1 empty passage"
    assert f"rejected 4 rows: {counts}" in caplog.text


def test_rejects_are_returned_even_if_no_row_is_left(tmp_path):
    rejects = []
    path = write_jsonl(tmp_path / "rows.jsonl", [make_row(1, passage="")])
    assert "1 of 1 rows are rejected for one reason, empty passage" in get_error(
        path, "fuse", rejects=rejects
    )
    assert [reject["id"] for reject in rejects] == ["r1"]


def test_write_rejects_replaces_the_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "new" / "rejects.jsonl"
    write_rejects([{"id": "old", "reason": "x"}] * 3, path)
    rejects = [{"source": "f", "line": 1, "id": "ü", "reason": "empty passage"}]
    write_rejects(rejects, path)
    assert [json.loads(line) for line in path.read_text().splitlines()] == rejects
    assert list(path.parent.iterdir()) == [path]


def test_write_rejects_leaves_the_old_file_if_it_fails(tmp_path):
    path = tmp_path / "rejects.jsonl"
    write_rejects([{"id": "old"}], path)
    with pytest.raises(TypeError):
        write_rejects([{"id": "new"}, {"id": object()}], path)
    assert json.loads(path.read_text()) == {"id": "old"}


def test_unknown_arguments_suggest_the_nearest(tmp_path):
    path = write_jsonl(tmp_path / "r.jsonl", [make_row(0)])
    assert "'fusing' is unknown" in get_error(path, "fusing")
    assert "did you mean 'summary'" in get_error(path, "fuse", columns={"sumary": "x"})
    assert "did you mean 'seed'" in get_error("briefs", "fuse", options={"sed": 1})
    assert '`options` are for "briefs", got seed' in get_error(path, "fuse", options={"seed": 1})
    assert "expected no `columns`" in get_error("briefs", "fuse", columns={"summary": "x"})


def test_too_few_passages_are_an_error_with_the_number_that_is_needed(tmp_path):
    path = write_jsonl(tmp_path / "r.jsonl", [make_row(1, id="a"), make_row(1, id="b"), make_row(2)])
    assert f"{path}: found 2 distinct passages, expected at least 3" in get_error(path, "fuse")
    (tmp_path / "two").mkdir()
    for name in ("train", "test"):
        write_jsonl(tmp_path / "two" / f"{name}.jsonl", [make_row(1)])
    assert "found 1 distinct passages, expected at least 2" in get_error(tmp_path / "two", "fuse")


@pytest.mark.parametrize("held_out", ["validation", "test"])
def test_validation_is_carved_from_train_if_there_are_two_splits(tmp_path, held_out):
    write_jsonl(tmp_path / "train.jsonl", [make_row(n) for n in range(40)])
    write_jsonl(tmp_path / f"{held_out}.jsonl", [make_row(n) for n in range(50, 53)])
    splits = read_rows(tmp_path, "fuse")
    assert splits["test"]["id"][:] == ["r50", "r51", "r52"]
    assert len(splits["validation"]) and len(splits["train"]) + len(splits["validation"]) == 40


def test_iter_rows_yields_the_split_of_the_source(tmp_path):
    for name in ("train", "dev"):
        write_jsonl(tmp_path / f"{name}.jsonl", [make_row(1), make_row(2)])
    splits = [split for split, _, _ in iter_rows(tmp_path, "build", reject=pytest.fail)]
    assert splits == ["train", "train", "validation", "validation"]
    splits = [split for split, _, _ in iter_rows(tmp_path / "dev.jsonl", "build", reject=pytest.fail)]
    assert splits == ["validation", "validation"]
    write_jsonl(tmp_path / "rows.jsonl", [make_row(1), make_row(2)])
    splits = [split for split, _, _ in iter_rows(tmp_path / "rows.jsonl", "build", reject=pytest.fail)]
    assert splits == [None, None]


@pytest.mark.parametrize("data", ["briefs", pytest.param("aclsum", marks=needs_aclsum)])
def test_the_built_in_sources_serve_stage_build(data):
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
    lines = [json.dumps({**make_good_row(n), "id": f"g{n}"}).encode() for n in range(60 - 24)]
    kinds = [kind for kind in JSONL_KINDS if kind != "10 MB passage"]
    lines += [JSONL_KINDS[kind]({**make_good_row(n), "id": kind}) for n, kind in enumerate(kinds)]
    path.write_bytes(b"\n".join(lines[n] for n in order) + b"\n")
    rows, rejects = read_leniently(path, extractive=True)
    # "good0", which is a duplicate in other tests, is the only row with its id here.
    assert {row["id"] for row in rows} == {f"g{n}" for n in range(36)} | {"good0"}
    assert len(rows) + len(rejects) == 60


@pytest.mark.parametrize("stage", STAGE_COLUMNS)
@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_a_stream_has_the_rows_of_the_table(tmp_path, stage, suffix):
    rows = [make_row(n % 400, id=f"r{n}") for n in range(800)] + [make_row(0, id="x", passage="")]
    path = tmp_path / f"rows.{suffix}"
    write_jsonl(path, rows) if suffix == "jsonl" else pq.write_table(pa.Table.from_pylist(rows), path)
    table, stream = read_rows(path, stage), read_rows(path, stage, streaming=True)
    assert isinstance(stream, IterableDatasetDict) and list(stream) == list(table)
    for split in table:
        assert stream[split].features == FEATURES
        assert list(stream[split]) == list(stream[split]) == table[split].to_list()


def test_a_stream_carves_what_is_missing(tmp_path):
    for name, first in (("train", 0), ("dev", 200)):
        write_jsonl(tmp_path / f"{name}.jsonl", [make_row(n) for n in range(first, first + 200)])
    table, stream = read_rows(tmp_path, "fuse"), read_rows(tmp_path, "fuse", streaming=True)
    assert {split: list(rows) for split, rows in stream.items()} == {
        split: rows.to_list() for split, rows in table.items()
    }
    write_jsonl(tmp_path / "test.jsonl", [make_row(500)])
    stream = read_rows(tmp_path, "fuse", streaming=True)
    assert {split: sum(1 for _ in rows) for split, rows in stream.items()} == {
        "train": 200,
        "validation": 200,
        "test": 1,
    }


def test_a_stream_is_as_strict_as_the_table_and_warns(tmp_path, caplog):
    path = write_jsonl(
        tmp_path / "rows.jsonl",
        [make_row(1), make_row(2, question=""), make_row(3, passage=4)],
    )
    stream = read_rows(path, "fuse", streaming=True)["train"]
    with pytest.raises(DataError, match="line 3, row 'r3': passage is 4"):
        list(stream)
    path = write_jsonl(tmp_path / "rows.jsonl", [make_row(1), make_row(2, question="")])
    list(read_rows(path, "fuse", streaming=True)["train"])
    assert "rejected 1 rows: 1 empty question" in caplog.text
    with pytest.raises(ValueError, match="rejects"):
        read_rows(path, "fuse", streaming=True, rejects=[])


def test_memory_does_not_grow_with_the_rows(tmp_path):
    def measure_peak(number):
        with open(tmp_path / "rows.jsonl", "w") as file:
            for n in range(number):
                file.write(
                    json.dumps({"id": n, "passage": "p" * 2000, "question": "q", "answer": "a"}) + "\n"
                )
        tracemalloc.start()
        assert sum(1 for _ in iter_rows(tmp_path / "rows.jsonl", "build", reject=pytest.fail)) == number
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return peak_bytes

    measure_peak(10)  # fills caches and imports modules
    # 4,500 more rows are 9 MB of text; 8 bytes per row stay, as an integer in a set.
    assert measure_peak(5000) - measure_peak(500) < 4500 * 200


def test_a_split_may_have_more_text_than_one_arrow_array_holds(tmp_path, monkeypatch):
    rows = [make_row(n) for n in range(30)]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    expected = {split: table.to_list() for split, table in read_rows(path, "fuse").items()}
    monkeypatch.setattr(readers, "MAX_CHUNK_CHARS", 500)
    splits = read_rows(path, "fuse")
    assert {split: table.to_list() for split, table in splits.items()} == expected
    column = splits["train"].data.column("passage")
    assert column.num_chunks > 5 and column.type == "string"
    assert all(sum(len(text.as_py()) for text in chunk) <= 500 for chunk in column.chunks)
    assert splits["train"].features == FEATURES
    lengths = splits["train"].map(lambda batch: {"n": [len(t) for t in batch["passage"]]}, batched=True)["n"]
    assert lengths[:] == [len(row["passage"]) for row in expected["train"]]
