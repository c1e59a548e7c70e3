"""Test the first step of a build: rows are normalized, and grouped by passage into shards."""

import json

import pytest

from crosstask.data.build import BuildArguments
from crosstask.data.builder.shards import count_rows, get_rows_path, read_into_shards
from crosstask.utils.errors import DataError


def make_row(row_id, passage, answer="bridge"):
    return {"id": row_id, "passage": passage, "question": "What?", "answer": answer}


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def make_arguments(path, **values):
    return BuildArguments(data=str(path), output_dir="set", shard_size=2, **values)


def read_lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_all_rows_of_a_passage_are_in_one_shard(tmp_path):
    rows = [make_row(f"r{n}", f"Bridge {n % 5}.", "" if n == 0 else "bridge") for n in range(10)]
    arguments = make_arguments(write_rows(tmp_path / "rows.jsonl", rows))
    counts = read_into_shards(arguments, tmp_path / "work")
    assert counts == {
        "read": 10,
        "rows": 10,
        "rejected": 0,
        "answers": 9,
        "passages": 5,
        "shortened": 0,
        "shards": 3,
        "rows_per_shard": [4, 4, 2],
    }
    shards = [read_lines(get_rows_path(tmp_path / "work", shard)) for shard in range(3)]
    assert [len(shard) for shard in shards] == counts["rows_per_shard"]
    passages = [{row["passage"] for row in shard} for shard in shards]
    assert passages == [{"Bridge 0.", "Bridge 1."}, {"Bridge 2.", "Bridge 3."}, {"Bridge 4."}]


def test_the_rows_are_normalized(tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", [make_row("a", "The  BRIDGE."), make_row("b", "The bridge.")])
    counts = read_into_shards(make_arguments(path, normalize={"lowercase": True}), tmp_path / "work")
    assert counts["passages"] == 1
    rows = read_lines(get_rows_path(tmp_path / "work", 0))
    assert [row["passage"] for row in rows] == ["the bridge.", "the bridge."]


def test_a_passage_of_two_splits_stays_in_the_first(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for split, numbers in (("train", range(8)), ("test", range(7, 10))):
        rows = [make_row(f"{split}{n}", f"A bridge, {n}.") for n in numbers]
        write_rows(source / f"{split}.jsonl", rows)
    counts = read_into_shards(make_arguments(source), tmp_path / "work")
    assert (counts["rows"], counts["rejected"]) == (10, 1)
    [reject] = read_lines(tmp_path / "work" / "rejects.jsonl")
    assert reject["id"] == "test7" and reject["reason"] == "its passage is also in split train"
    rows = [row for shard in range(5) for row in read_lines(get_rows_path(tmp_path / "work", shard))]
    assert {row["id"]: row["split"] for row in rows}["train7"] == "train"


def test_a_finished_step_is_not_repeated(tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", [make_row("a", "The bridge.")])
    counts = read_into_shards(make_arguments(path), tmp_path / "work")
    path.unlink()
    assert read_into_shards(make_arguments(path), tmp_path / "work") == counts


def test_counting_writes_nothing(tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", [make_row("a", "The bridge."), make_row("b", " ")])
    counts = count_rows(make_arguments(path))
    assert (counts["read"], counts["rows"], counts["rejected"]) == (2, 1, 1)
    assert list(tmp_path.iterdir()) == [path]


def test_a_source_without_usable_rows_is_an_error(tmp_path):
    path = write_rows(
        tmp_path / "rows.jsonl", [make_row("a", " "), make_row("b", "The bridge.") | {"question": ""}]
    )
    with pytest.raises(
        DataError, match=r"all 2 rows are rejected, expected at least one usable row \(listed in .*rejects"
    ):
        read_into_shards(make_arguments(path), tmp_path / "work")


def test_most_rows_rejected_for_one_reason_are_an_error(tmp_path):
    rows = [
        make_row(f"r{n}", f"Bridge {n}.") | {"answerable": "TRUE" if n < 5 else "sure"} for n in range(20)
    ]
    path = write_rows(tmp_path / "rows.jsonl", rows)
    reason = r"15 of 20 rows are rejected for one reason, answerable is 'sure', expected .* \(line 6\)"
    with pytest.raises(DataError, match=reason):
        read_into_shards(make_arguments(path), tmp_path / "work")
    assert not (tmp_path / "work" / "counts.json").exists()
    assert len(read_lines(tmp_path / "work" / "rejects.jsonl")) == 15


def test_most_rows_dropped_by_the_builder_are_an_error(tmp_path):
    rows = [make_row(f"r{n}", f"Bridge {n}.") | {"summary": "A bridge." if n < 2 else ""} for n in range(5)]
    arguments = make_arguments(write_rows(tmp_path / "rows.jsonl", rows), teacher=None)
    reason = (
        "3 of 5 rows are rejected for one reason, empty summary, which `teacher: none` takes from the column"
    )
    with pytest.raises(DataError, match=reason) as error:
        read_into_shards(arguments, tmp_path / "work")
    assert str(tmp_path / "work" / "rejects.jsonl") in str(error.value)
    source = tmp_path / "source"
    source.mkdir()
    for split, numbers in (("train", range(2)), ("test", [0, 1, 0, 1])):
        rows = [make_row(f"{split}{n}-{k}", f"Bridge {n}.") for k, n in enumerate(numbers)]
        write_rows(source / f"{split}.jsonl", rows)
    with pytest.raises(
        DataError, match="4 of 6 rows .* reason, its passage is also in split train, expected"
    ):
        count_rows(make_arguments(source))


def test_rows_that_are_left_out_on_request_may_be_most(tmp_path):
    rows = [make_row(f"r{n}", f"Bridge {n}.", "tower" if n else "bridge") for n in range(5)]
    counts = count_rows(make_arguments(write_rows(tmp_path / "rows.jsonl", rows), extractive=True))
    assert (counts["rows"], counts["rejected"]) == (1, 4)


def test_questions_of_a_passage_may_share_its_id(tmp_path):
    rows = [make_row("p1", "The bridge.") | {"question": f"What {n}?"} for n in range(3)]
    counts = read_into_shards(make_arguments(write_rows(tmp_path / "rows.jsonl", rows)), tmp_path / "work")
    assert (counts["rows"], counts["rejected"]) == (3, 0)
    assert [row["id"] for row in read_lines(get_rows_path(tmp_path / "work", 0))] == ["p1", "p1-2", "p1-3"]


def test_rows_that_lose_much_of_their_passage_are_counted(tmp_path):
    texts = ["The bridge opened in 1893.", "橋は1893年に開通しました。", "Die Brücke ist für alle offen."]
    rows = [make_row(f"r{n}", text) | {"answer": "1893"} for n, text in enumerate(texts)]
    path = write_rows(tmp_path / "rows.jsonl", rows)
    for ascii_only, shortened in ((True, 1), (False, 0)):
        arguments = make_arguments(path, normalize={"ascii": ascii_only})
        assert count_rows(arguments)["shortened"] == shortened


def test_an_answer_of_which_normalization_leaves_nothing_is_rejected(tmp_path):
    rows = [
        make_row(f"r{n}", f"Bridge {n} is the 橋.", "橋" if n == 1 else "bridge" * (n != 2)) for n in range(6)
    ]
    path = write_rows(tmp_path / "rows.jsonl", rows)
    counts = read_into_shards(make_arguments(path, normalize={"ascii": True}), tmp_path / "work")
    assert (counts["rows"], counts["rejected"], counts["answers"]) == (5, 1, 4)
    [reject] = read_lines(tmp_path / "work" / "rejects.jsonl")
    assert reject["id"] == "r1" and reject["reason"] == "`normalize` leaves nothing of the answer"
