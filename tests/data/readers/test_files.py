import csv

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features
from made_rows import all_rows, failure, joint, read_leniently, write_jsonl

from crosstask.data.readers import files, read_rows
from crosstask.data.schema import FEATURES, STAGE_COLUMNS


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize("stage", STAGE_COLUMNS)
def test_a_file_of_each_kind_gives_the_same_rows(tmp_path, suffix, stage):
    rows = [joint(n) for n in range(8)]
    rows += [joint(8, answerable=None), joint(9, answer="", answerable=0, question='Zoë,\n"who"?')]
    path = tmp_path / f"rows.{suffix}"
    if suffix == "jsonl":
        write_jsonl(path, rows)
    elif suffix == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        with open(path, "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    splits = read_rows(path, stage)
    assert set(splits) == {"train", "validation", "test"}
    assert all(split.features == FEATURES for split in splits.values())
    got = {row["id"]: row for row in all_rows(splits)}
    if stage == "fuse":
        assert got == {row["id"]: row for row in rows}
    if stage == "build":
        assert got == {row["id"]: row for row in rows}
    if stage == "answer":
        assert got["r1"] == {**rows[1], "summary": "", "answerable": None}
        assert got["r9"] == {**rows[9], "summary": "", "answerable": 0}
    if stage == "summarize":
        assert got["r1"] == {**rows[1], "question": "", "answer": "", "answerable": None}
        assert set(got) == {f"r{n}" for n in range(9)}


@pytest.mark.parametrize("name", ["gone.jsonl", "gone.csv", "gone.parquet", "gone.json"])
def test_file_not_found(tmp_path, name):
    assert failure(str(tmp_path / name), "fuse") == f"{tmp_path / name}: file not found"


@pytest.mark.parametrize("data", ["rows.jsonl", "./corpus", "/nowhere", "~/nowhere-at-all", "a/b/c"])
def test_what_looks_like_a_path_is_not_asked_of_the_hub(data, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(files, "load_dataset", lambda *_: pytest.fail("the Hub was asked"))
    assert "file not found" in failure(data, "fuse")


def test_a_file_of_another_kind(tmp_path):
    (tmp_path / "rows.txt").write_text("hello")
    message = failure(tmp_path / "rows.txt", "fuse")
    assert "rows.txt: expected a file that ends in .jsonl, .csv, .parquet, .json" in message


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv"])
def test_an_empty_file(tmp_path, name):
    (tmp_path / name).write_text("")
    assert "is empty: expected rows with the columns passage, summary" in failure(
        tmp_path / name, "summarize"
    )


def test_a_header_without_rows_and_a_table_without_rows_are_empty(tmp_path):
    (tmp_path / "rows.csv").write_text("passage,summary\n")
    assert "is empty" in failure(tmp_path / "rows.csv", "summarize")
    pq.write_table(pa.table({"passage": pa.array([], pa.string())}), tmp_path / "rows.parquet")
    assert "is empty" in failure(tmp_path / "rows.parquet", "summarize")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b'{"passage": "cut', "Invalid control character at at column 17"),
        (b"[1, 2]", "expected a JSON object, got [1, 2]"),
        (b'{"passage": "\xff"}', "expected UTF-8"),
        (b"[" * 100_000, "expected a JSON object"),
    ],
)
def test_malformed_jsonl_names_the_line(tmp_path, line, told):
    good = b'{"passage": "p", "summary": "s"}\n\n'
    (tmp_path / "rows.jsonl").write_bytes(good + line + b"\n")
    message = failure(tmp_path / "rows.jsonl", "summarize")
    assert f"{tmp_path / 'rows.jsonl'}, line 3: " in message and told in message


@pytest.mark.parametrize(
    ("text", "line", "told"),
    [
        (b'passage,summary\n"two\nlines",s\np\n', 4, "expected 2 fields, got 1"),
        (b"passage,summary\np,s,t\n", 2, "expected 2 fields, got 3"),
        (b'passage,summary\np,s\n"p"q,s\n', 3, "expected CSV"),
        (b'passage,summary\np,s\n"p,s\n', 3, "expected CSV"),
        (b"passage,summary\np,s\n\xff,s\n", 3, "expected UTF-8"),
        (b"passage,passage\np,s\n", 1, "expected each column once"),
    ],
)
def test_malformed_csv_names_the_line(tmp_path, text, line, told):
    (tmp_path / "rows.csv").write_bytes(text)
    message = failure(tmp_path / "rows.csv", "summarize")
    assert f"rows.csv, line {line}: " in message and told in message


def test_csv_with_a_byte_order_mark_and_a_long_passage(tmp_path):
    lines = ["passage,summary"] + [f"{str(n) * 200_000},s" for n in range(3)]
    (tmp_path / "rows.csv").write_text("\n".join(lines), encoding="utf-8-sig")
    assert len(all_rows(read_rows(tmp_path / "rows.csv", "summarize"))) == 3


def test_not_a_parquet_file(tmp_path):
    (tmp_path / "rows.parquet").write_text("this is no table")
    assert "rows.parquet: expected a Parquet file" in failure(tmp_path / "rows.parquet", "fuse")


def test_a_folder_with_a_file_a_split(tmp_path):
    write_jsonl(tmp_path / "train.jsonl", [joint(n) for n in range(3)])
    write_jsonl(tmp_path / "dev.jsonl", [joint(3)])
    pq.write_table(pa.Table.from_pylist([joint(4)]), tmp_path / "test.parquet")
    splits = read_rows(str(tmp_path), "fuse")
    assert {name: split["id"][:] for name, split in splits.items()} == {
        "train": ["r0", "r1", "r2"],
        "validation": ["r3"],
        "test": ["r4"],
    }
    (tmp_path / "dev.jsonl").write_text("{")
    assert f"{tmp_path / 'dev.jsonl'}, line 1: " in failure(tmp_path, "fuse")


def test_a_folder_with_two_files_for_a_split(tmp_path):
    for name in ("train.jsonl", "val.jsonl", "dev.jsonl"):
        write_jsonl(tmp_path / name, [joint(0)])
    assert "dev.jsonl and val.jsonl are both the validation split" in failure(tmp_path, "fuse")


def test_a_folder_that_datasets_understands(tmp_path):
    (tmp_path / "data").mkdir()
    for split, first in (("train", 0), ("test", 8)):
        for shard in range(2):
            rows = [joint(first + 2 * shard + n) for n in range(2)]
            name = f"{split}-0000{shard}-of-00002.parquet"
            pq.write_table(pa.Table.from_pylist(rows), tmp_path / "data" / name)
    splits = read_rows(tmp_path, "fuse")
    assert splits["test"]["id"][:] == ["r8", "r9", "r10", "r11"]
    assert len(splits["train"]) + len(splits["validation"]) == 4


@pytest.mark.parametrize(("content", "told"), [(None, "data"), ("not json\n", "JSON parse error")])
def test_a_folder_that_nobody_understands(tmp_path, content, told):
    if content:
        (tmp_path / "train-part.jsonl").write_text(content)
    message = failure(tmp_path, "fuse")
    assert f"{tmp_path}: cannot be read as a data set: " in message and told in message


def test_what_save_to_disk_wrote_reads_back(tmp_path):
    rows = {"train": [joint(n) for n in range(5)], "validation": [joint(5)], "test": [joint(6)]}
    written = DatasetDict({k: Dataset.from_list(v, features=FEATURES) for k, v in rows.items()})
    written.save_to_disk(tmp_path / "all")
    assert {k: v.to_list() for k, v in read_rows(tmp_path / "all", "fuse").items()} == rows
    written["train"].with_format("numpy", columns=["id"]).save_to_disk(tmp_path / "one")
    splits = read_rows(tmp_path / "one", "fuse")
    assert sorted(row["id"] for row in all_rows(splits)) == ["r0", "r1", "r2", "r3", "r4"]
    (tmp_path / "one" / "state.json").write_text("{")
    assert "cannot be read as a data set" in failure(tmp_path / "one", "fuse")


def test_labels_of_a_data_set_are_taken_by_name(tmp_path):
    other = Features({**FEATURES, "answerable": ClassLabel(names=["yes", "no"])})
    rows = [joint(n, answerable=["yes", "no", None][n % 3]) for n in range(6)]
    Dataset.from_list(rows, features=other).to_parquet(tmp_path / "rows.parquet")
    got = {row["id"]: row["answerable"] for row in all_rows(read_rows(tmp_path / "rows.parquet", "fuse"))}
    assert [got[f"r{n}"] for n in range(3)] == [1, 0, None]


@pytest.mark.parametrize("name", ["abisee/cnn_dailymail", "xsum", "owner/corpus-v1.1"])
def test_any_other_string_is_a_hub_id(monkeypatch, tmp_path, name):
    def load(*arguments):
        assert arguments == (name, "3.0.0")
        parts = DatasetDict()
        for split in ("train", "validation", "test"):
            articles = [{"article": f"{split} {n}", "highlights": "h"} for n in range(2)]
            parts[split] = Dataset.from_list(articles)
        return parts

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(files, "load_dataset", load)
    names = {"passage": "article", "summary": "highlights"}
    splits = read_rows(name, "summarize", config_name="3.0.0", columns=names)
    assert {k: len(v) for k, v in splits.items()} == {"train": 2, "validation": 2, "test": 2}
    assert splits["train"][1]["id"] == "train:1" and splits["train"][1]["source"] == name


def test_a_hub_failure_is_one_sentence(monkeypatch, tmp_path):
    def load(*_):
        raise ConnectionError("Couldn't reach 'nobody/nothing' on the Hub\nand a page of more")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(files, "load_dataset", load)
    message = failure("nobody/nothing", "fuse")
    reason = "Couldn't reach 'nobody/nothing' on the Hub"
    assert message == f"nobody/nothing: cannot be read as a data set: {reason}"


def test_a_quote_that_nobody_closes_costs_one_line(tmp_path):
    lines = ["id,passage,question,answer", '"x,p,q,a'] + [f"r{n},p{n},q,a" for n in range(30_000)]
    (tmp_path / "rows.csv").write_text("\n".join(lines))
    rows, rejects = read_leniently(tmp_path / "rows.csv")
    assert len(rows) == 30_000 and [reject["line"] for reject in rejects] == [2]
    assert "a quote that is still open after 10000 lines" in rejects[0]["reason"]


def test_the_end_of_a_broken_quoted_field_is_no_row(tmp_path):
    (tmp_path / "rows.csv").write_text('passage,question,answer\n"a\nb,"c,d\nx"y,q,e\np,q,"two\nlines"\n')
    rows, rejects = read_leniently(tmp_path / "rows.csv")
    assert [row["answer"] for row in rows] == ["two\nlines"]
    assert [reject["line"] for reject in rejects] == [2, 3, 4]


def test_text_of_a_table_that_is_not_utf8_is_a_reject(tmp_path):
    texts = pa.array([b"p0", b"\xff", b"p2"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"passage": texts, "summary": ["s"] * 3}), tmp_path / "rows.parquet")
    rows, rejects = read_leniently(tmp_path / "rows.parquet", "summarize")
    assert [row["id"] for row in rows] == ["rows:0", "rows:2"]
    assert [(r["index"], r["reason"][:19]) for r in rejects] == [(1, "expected UTF-8, got")]
