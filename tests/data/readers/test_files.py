import csv

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict
from reader_helpers import concatenate, get_error, make_row, write_jsonl

from crosstask.data.readers import files, read_rows
from crosstask.data.schema import FEATURES
from crosstask.utils.errors import DataError

SHARDED = {"train": 0, "validation": 4, "test": 8}


@pytest.mark.parametrize("name", ["gone.jsonl", "gone.csv", "gone.parquet", "gone.json"])
def test_a_missing_file_is_an_error(tmp_path, name):
    assert get_error(str(tmp_path / name), "fuse") == f"{tmp_path / name}: file not found"


@pytest.mark.parametrize("data", ["rows.jsonl", "./corpus", "/nowhere", "~/nowhere-at-all", "a/b/c"])
def test_what_looks_like_a_path_is_not_looked_up_on_the_hub(data, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(files, "load_dataset", lambda *_: pytest.fail("the Hub was asked"))
    assert "file not found" in get_error(data, "fuse")


def test_a_file_of_an_unknown_format_is_an_error(tmp_path):
    (tmp_path / "rows.txt").write_text("hello")
    message = get_error(tmp_path / "rows.txt", "fuse")
    assert "rows.txt: expected a file that ends in .jsonl, .ndjson, .json, .csv, .tsv, .parquet" in message


def test_a_folder_may_have_one_file_per_split(tmp_path):
    write_jsonl(tmp_path / "train.jsonl", [make_row(n) for n in range(3)])
    write_jsonl(tmp_path / "dev.jsonl", [make_row(3)])
    pq.write_table(pa.Table.from_pylist([make_row(4)]), tmp_path / "test.parquet")
    splits = read_rows(str(tmp_path), "fuse")
    assert {name: split["id"][:] for name, split in splits.items()} == {
        "train": ["r0", "r1", "r2"],
        "validation": ["r3"],
        "test": ["r4"],
    }
    (tmp_path / "dev.jsonl").write_text("{")
    assert f"{tmp_path / 'dev.jsonl'}, line 1: " in get_error(tmp_path, "fuse")


def test_a_folder_with_two_files_for_one_split_is_an_error(tmp_path):
    for name in ("train.jsonl", "val.jsonl", "dev.jsonl"):
        write_jsonl(tmp_path / name, [make_row(0)])
    assert "dev.jsonl and val.jsonl are both the validation split" in get_error(tmp_path, "fuse")


def test_a_folder_may_have_the_layout_of_datasets(tmp_path):
    (tmp_path / "data").mkdir()
    for split, first in (("train", 0), ("test", 8)):
        for shard in range(2):
            rows = [make_row(first + 2 * shard + n) for n in range(2)]
            name = f"{split}-0000{shard}-of-00002.parquet"
            pq.write_table(pa.Table.from_pylist(rows), tmp_path / "data" / name)
    splits = read_rows(tmp_path, "fuse")
    assert splits["test"]["id"][:] == ["r8", "r9", "r10", "r11"]
    assert len(splits["train"]) + len(splits["validation"]) == 4


def test_a_folder_without_data_is_an_error(tmp_path):
    (tmp_path / "rows.docx").write_text("x")
    assert f"{tmp_path}: cannot be read as a data set: " in get_error(tmp_path, "fuse")


def test_a_folder_of_save_to_disk_is_read(tmp_path):
    rows = {
        "train": [make_row(n) for n in range(5)],
        "validation": [make_row(5)],
        "test": [make_row(6)],
    }
    written = DatasetDict({k: Dataset.from_list(v, features=FEATURES) for k, v in rows.items()})
    written.save_to_disk(tmp_path / "all")
    assert {k: v.to_list() for k, v in read_rows(tmp_path / "all", "fuse").items()} == rows
    written["train"].with_format("numpy", columns=["id"]).save_to_disk(tmp_path / "one")
    splits = read_rows(tmp_path / "one", "fuse")
    assert sorted(row["id"] for row in concatenate(splits)) == ["r0", "r1", "r2", "r3", "r4"]
    (tmp_path / "one" / "state.json").write_text("{")
    assert "cannot be read as a data set" in get_error(tmp_path / "one", "fuse")


@pytest.mark.parametrize("name", ["abisee/cnn_dailymail", "xsum", "owner/corpus-v1.1"])
def test_any_other_string_is_the_id_of_a_data_set_on_the_hub(monkeypatch, tmp_path, name):
    def load(*arguments):
        assert arguments == (name, "3.0.0")
        splits = DatasetDict()
        for split in ("train", "validation", "test"):
            articles = [{"article": f"{split} {n}", "highlights": "h"} for n in range(2)]
            splits[split] = Dataset.from_list(articles)
        return splits

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(files, "load_dataset", load)
    names = {"passage": "article", "summary": "highlights"}
    splits = read_rows(name, "summarize", config_name="3.0.0", columns=names)
    assert {k: len(v) for k, v in splits.items()} == {"train": 2, "validation": 2, "test": 2}
    assert splits["train"][1]["id"] == "train:1" and splits["train"][1]["source"] == name


def test_an_error_of_the_hub_is_one_sentence(monkeypatch, tmp_path):
    def load(*_):
        raise ConnectionError("Couldn't reach 'nobody/nothing' on the Hub\nand a page of more")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(files, "load_dataset", load)
    message = get_error("nobody/nothing", "fuse")
    reason = "Couldn't reach 'nobody/nothing' on the Hub"
    assert message == f"nobody/nothing: cannot be read as a data set: {reason}"


def test_splits_may_have_other_names(monkeypatch, tmp_path, caplog):
    def provide(*names):
        rows = [make_row(n) for n in range(4)]
        splits = DatasetDict({name: Dataset.from_list(rows) for name in names})
        monkeypatch.setattr(files, "load_dataset", lambda *_: splits)

    monkeypatch.chdir(tmp_path)
    provide("everything")
    assert set(read_rows("a/b", "fuse")) == {"train", "validation", "test"}
    provide("train", "dev", "test", "adversarial")
    assert set(read_rows("a/b", "fuse")) == {"train", "validation", "test"}
    assert "ignored the splits adversarial" in caplog.text
    provide("one", "two")
    assert "has the splits one, two, expected train, validation, test" in get_error("a/b", "fuse")
    provide("train", "dev", "val")
    assert "expected one validation split" in get_error("a/b", "fuse")


@pytest.mark.parametrize("name", ["test.jsonl", "TEST.jsonl", "dev.jsonl", "test-00000-of-00001.jsonl"])
@pytest.mark.parametrize("is_in_a_folder", [False, True])
def test_held_out_rows_alone_are_not_split(tmp_path, name, is_in_a_folder):
    rows = [make_row(n) for n in range(20)]
    write_jsonl(tmp_path / name, rows)
    data = tmp_path if is_in_a_folder else tmp_path / name
    splits = read_rows(data, "fuse")
    assert list(splits) == ["test"] and splits["test"].to_list() == rows
    stream = read_rows(data, "fuse", streaming=True)
    assert list(stream) == ["test"] and list(stream["test"]) == rows


@pytest.mark.parametrize(
    ("name", "split"),
    [("unit-test-questions.jsonl", "test"), ("my_dev_notes.jsonl", "validation"), ("rows.jsonl", None)],
)
def test_a_name_that_means_a_split_explains_why_no_rows_are_left_to_train_on(tmp_path, name, split):
    write_jsonl(tmp_path / name, [make_row(n) for n in range(20)])
    expected = ""
    if split:
        expected = f"; the name {name} means the split {split}, so rename it to train on its rows"
    for data in (str(tmp_path / name), tmp_path, [tmp_path / name], str(tmp_path / "*")):
        assert ("train" in read_rows(data, "fuse")) == (split is None)
        assert files.explain_held_out(data) == expected
    assert files.explain_held_out("owner/test") == ""


def test_a_single_test_split_of_the_hub_is_not_split(tmp_path, monkeypatch):
    rows = [make_row(n) for n in range(5)]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(files, "load_dataset", lambda *_: DatasetDict(test=Dataset.from_list(rows)))
    splits = read_rows("owner/benchmark", "fuse")
    assert list(splits) == ["test"] and len(splits["test"]) == 5


def test_a_path_may_begin_at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_jsonl(tmp_path / "rows.jsonl", [make_row(n) for n in range(5)])
    assert len(read_rows("~/rows.jsonl", "fuse")) == 3


def test_a_folder_may_have_files_of_any_suffix_per_split(tmp_path):
    frames = {split: pd.DataFrame([make_row(n) for n in range(2)]) for split in ("train", "val", "test")}
    frames["train"].to_csv(tmp_path / "Train.CSV", sep=";", index=False)
    frames["val"].to_json(tmp_path / "val.json", orient="records")
    frames["test"].to_csv(tmp_path / "test.tsv.gz", sep="\t", index=False)
    splits = read_rows(tmp_path, "fuse")
    assert {name: len(split) for name, split in splits.items()} == {"train": 2, "validation": 2, "test": 2}


def test_a_folder_may_have_one_file_of_any_name(tmp_path):
    pd.DataFrame([make_row(n) for n in range(5)]).to_csv(tmp_path / "Mappe1.csv", sep=";", index=False)
    (tmp_path / "notes.txt").write_text("from the office")
    splits = read_rows(tmp_path, "fuse")
    assert sum(map(len, splits.values())) == 5 and len(splits) == 3


def test_numbered_files_of_a_folder_may_have_columns_that_datasets_does_not_know(tmp_path):
    rows = {split: [make_row(n) for n in range(first, first + 4)] for split, first in SHARDED.items()}
    (tmp_path / "data").mkdir()
    for split, split_rows in rows.items():
        for shard in range(2):
            table = pa.Table.from_pylist(split_rows[2 * shard : 2 * shard + 2])
            table = table.append_column("map", pa.array([[("a", 1)]] * 2, pa.map_(pa.string(), pa.int64())))
            pq.write_table(table, tmp_path / "data" / f"{split}-0000{shard}.parquet")
    assert {split: table.to_list() for split, table in read_rows(tmp_path, "fuse").items()} == rows


def test_a_card_with_configurations_is_followed(tmp_path, monkeypatch):
    (tmp_path / "README.md").write_text("---\nconfigs:\n- config_name: a\n---\n")
    (tmp_path / "data").mkdir()
    write_jsonl(tmp_path / "data" / "train-0.jsonl", [make_row(0)])
    rows = Dataset.from_list([make_row(n) for n in range(3)])
    monkeypatch.setattr(files, "load_dataset", lambda *_: DatasetDict(test=rows))
    assert len(read_rows(tmp_path, "fuse")["test"]) == 3


def test_a_malformed_line_of_numbered_files_names_its_file(tmp_path):
    write_jsonl(tmp_path / "train-0.jsonl", [make_row(0), make_row(1)])
    (tmp_path / "train-1.jsonl").write_text("not json\n")
    message = get_error(tmp_path, "fuse")
    assert f"{tmp_path / 'train-1.jsonl'}, line 1: expected a JSON object, got Expecting value" in message


def write_rows(path, count, start=0):
    """Write rows with distinct passages to a .csv or .jsonl file."""
    rows = [make_row(start + number, passage=f"Passage {start + number}.") for number in range(count)]
    if path.suffix == ".jsonl":
        write_jsonl(path, rows)
        return
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


@pytest.mark.parametrize("names", [("a.csv", "b.jsonl"), ("a.csv", "b.csv"), ("rows.jsonl", "more.jsonl")])
def test_all_files_of_a_folder_without_splits_are_read(tmp_path, names):
    for index, name in enumerate(names):
        write_rows(tmp_path / name, 20, start=20 * index)
    rows = read_rows(tmp_path, "fuse")
    assert sum(map(len, rows.values())) == 40


@pytest.mark.parametrize("other", ["rows.csv", "held_out.csv", "extra.jsonl"])
@pytest.mark.parametrize("name", ["test.csv", "train.csv", "my_train.csv"])
def test_a_file_of_no_split_beside_a_split_is_refused(tmp_path, name, other):
    write_rows(tmp_path / name, 20)
    write_rows(tmp_path / other, 10, start=20)
    with pytest.raises(DataError, match=f"{other} belong to no split, expected all files or none"):
        read_rows(tmp_path, "fuse")


def test_what_lies_beside_the_files_of_a_folder_is_named(tmp_path, caplog):
    write_rows(tmp_path / "train.csv", 30)
    for name in ("test.xls", "README.md", "LICENSE", ".hidden.txt"):
        (tmp_path / name).write_text("x", encoding="utf-8")
    (tmp_path / "more").mkdir()
    read_rows(tmp_path, "fuse")
    assert f"{tmp_path}: ignored more, test.xls" in caplog.text
    assert "README" not in caplog.text and "hidden" not in caplog.text


@pytest.mark.parametrize("place", [".", "data", "de"])
def test_hidden_files_and_locks_are_not_read(tmp_path, caplog, place):
    (tmp_path / place / ".ipynb_checkpoints").mkdir(parents=True)
    write_rows(tmp_path / place / "train.jsonl", 30)
    for name in (".ipynb_checkpoints/train-checkpoint.jsonl", "~$train.xlsx", ".train.jsonl"):
        (tmp_path / place / name).write_text("x", encoding="utf-8")
    assert sum(map(len, read_rows(tmp_path, "fuse").values())) == 30
    assert "ignored" not in caplog.text


@pytest.mark.parametrize("place", ["data", "de/train"])
def test_what_lies_beside_the_files_of_a_subfolder_is_named(tmp_path, caplog, place):
    (tmp_path / place / "sub").mkdir(parents=True)
    write_rows(tmp_path / place / "rows.jsonl", 30)
    for name in (f"{place}/old.xls", f"{place}/README.md", f"{place}/sub/x.txt", "top.txt"):
        (tmp_path / name).write_text("x", encoding="utf-8")
    (tmp_path / "extra").mkdir()
    assert sum(map(len, read_rows(tmp_path, "fuse").values())) == 30
    ignored = ", ".join(sorted([f"{place}/old.xls", f"{place}/sub", "extra", "top.txt"]))
    assert f"{tmp_path}: ignored {ignored}" in caplog.text


def test_files_of_longer_names_keep_their_texts(tmp_path, caplog):
    for start, name in enumerate(("my_train.csv", "my_test.csv")):
        rows = [make_row(n, id=f"00{n}", answer="1.50", passage=f"{start} {n} 1.50 TRUE") for n in range(10)]
        rows[0] |= {"answer": "NA", "passage": f"{start} of the NA"}
        rows[1] |= {"answer": "2024-05-03", "passage": f"{start} on 2024-05-03"}
        with open(tmp_path / name, "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    splits = read_rows(tmp_path, "fuse")
    assert len(splits["test"]) == 10
    assert splits["test"]["id"][:3] == ["000", "001", "002"]
    assert splits["test"]["answer"][:3] == ["NA", "2024-05-03", "1.50"]


@pytest.mark.parametrize("layout", ["folders", "config"])
def test_csv_files_in_subfolders_keep_their_texts(tmp_path, layout):
    for split in ("train", "test"):
        path = tmp_path / (split if layout == "folders" else f"de/{split}") / "rows.csv"
        path.parent.mkdir(parents=True)
        lines = [f"00{n},{split} 1.50,{n}?,1.50,1.50,TRUE" for n in range(10)]
        header = "id,passage,question,answer,summary,answerable"
        path.write_text("\n".join([header, *lines]), encoding="utf-8")
    rows = read_rows(tmp_path, "fuse", shares={"validation": 0})["test"]
    assert rows["id"][:2] == ["000", "001"]
    assert set(rows["answer"]) == {"1.50"} and set(rows["answerable"]) == {1}


def test_several_files_and_patterns_are_one_source(tmp_path, monkeypatch):
    for start, name in enumerate(("may.csv", "june.jsonl", "july.csv")):
        write_rows(tmp_path / name, 20, start=20 * start)
    monkeypatch.chdir(tmp_path)
    assert sum(map(len, read_rows(["may.csv", tmp_path / "june.jsonl"], "fuse").values())) == 40
    assert sum(map(len, read_rows("*.csv", "fuse").values())) == 40
    assert sum(map(len, read_rows(["ju*", "july.csv"], "fuse").values())) == 40  # each file once
    assert "rows_*.csv: no such file" in get_error("rows_*.csv", "fuse")
    assert "gone.csv: no such file" in get_error(["may.csv", "gone.csv"], "fuse")
    (tmp_path / "july.csv").write_text("passage,question,summary\np,q\n", encoding="utf-8")
    assert get_error("*.csv", "fuse").startswith("july.csv, line 2: expected 3 fields, got 2")


def test_several_files_may_be_named_after_splits(tmp_path):
    write_rows(tmp_path / "a_train.csv", 20)
    write_rows(tmp_path / "b_train.jsonl", 20, start=20)
    write_rows(tmp_path / "my_test.csv", 5, start=40)
    splits = read_rows(tmp_path / "*", "fuse")
    assert len(splits["train"]) + len(splits["validation"]) == 40 and len(splits["test"]) == 5
    assert splits["train"].to_list() == read_rows(tmp_path, "fuse")["train"].to_list()


def test_a_pattern_may_be_the_name_of_a_file(tmp_path):
    write_rows(tmp_path / "rows[1].csv", 20)
    assert sum(map(len, read_rows(tmp_path / "rows[1].csv", "fuse").values())) == 20
