import csv

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features
from reader_helpers import concatenate, get_error, make_row, read_leniently, write_jsonl

from crosstask.data.readers import read_rows
from crosstask.data.schema import FEATURES, STAGE_COLUMNS


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize("stage", STAGE_COLUMNS)
def test_every_format_gives_the_same_rows(tmp_path, suffix, stage):
    rows = [make_row(n) for n in range(8)]
    rows += [
        make_row(8, answerable=None),
        make_row(9, answer="", answerable=0, question='Zoë,\n"who"?'),
    ]
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
    rows_by_id = {row["id"]: row for row in concatenate(splits)}
    if stage == "fuse":
        assert rows_by_id == {row["id"]: row for row in rows}
    if stage == "build":
        assert rows_by_id == {row["id"]: row for row in rows}
    if stage == "answer":
        assert rows_by_id["r1"] == {**rows[1], "summary": "", "answerable": None}
        assert rows_by_id["r9"] == {**rows[9], "summary": "", "answerable": 0}
    if stage == "summarize":
        assert rows_by_id["r1"] == {**rows[1], "question": "", "answer": "", "answerable": None}
        assert set(rows_by_id) == {f"r{n}" for n in range(9)}


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv"])
def test_an_empty_file_is_an_error(tmp_path, name):
    (tmp_path / name).write_text("")
    assert "is empty: expected rows with the columns passage, summary" in get_error(
        tmp_path / name, "summarize"
    )


def test_a_csv_header_or_parquet_schema_without_rows_is_an_error(tmp_path):
    (tmp_path / "rows.csv").write_text("passage,summary\n")
    assert "is empty" in get_error(tmp_path / "rows.csv", "summarize")
    pq.write_table(pa.table({"passage": pa.array([], pa.string())}), tmp_path / "rows.parquet")
    assert "is empty" in get_error(tmp_path / "rows.parquet", "summarize")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b'{"passage": "cut', "Invalid control character at at column 17"),
        (b"[1, 2]", "expected a JSON object, got [1, 2]"),
        (b'{"passage": "\xff"}', "expected UTF-8"),
        (b"[" * 100_000, "expected a JSON object"),
    ],
)
def test_malformed_jsonl_names_the_line(tmp_path, line, problem):
    good = b'{"passage": "p", "summary": "s"}\n\n'
    (tmp_path / "rows.jsonl").write_bytes(good + line + b"\n")
    message = get_error(tmp_path / "rows.jsonl", "summarize")
    assert f"{tmp_path / 'rows.jsonl'}, line 3: " in message and problem in message


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        (b'passage,summary\n"two\nlines",s\np\n', 4, "expected 2 fields, got 1"),
        (b"passage,summary\np,s,t\n", 2, "expected 2 fields, got 3"),
        (b'passage,summary\np,s\n"p"q,s\n', 3, "expected CSV"),
        (b'passage,summary\np,s\n"p,s\n', 3, "expected CSV"),
        (b"passage,summary\np,s\n\xff,s\n", 3, "expected UTF-8"),
        (b"passage,passage\np,s\n", 1, "expected each column once"),
    ],
)
def test_malformed_csv_names_the_line(tmp_path, text, line, problem):
    (tmp_path / "rows.csv").write_bytes(text)
    message = get_error(tmp_path / "rows.csv", "summarize")
    assert f"rows.csv, line {line}: " in message and problem in message


def test_csv_may_have_a_byte_order_mark_and_long_passages(tmp_path):
    lines = ["passage,summary"] + [f"{str(n) * 200_000},s" for n in range(3)]
    (tmp_path / "rows.csv").write_text("\n".join(lines), encoding="utf-8-sig")
    assert len(concatenate(read_rows(tmp_path / "rows.csv", "summarize"))) == 3


def test_a_malformed_parquet_file_is_an_error(tmp_path):
    (tmp_path / "rows.parquet").write_text("this is no table")
    assert "rows.parquet: expected a Parquet file" in get_error(tmp_path / "rows.parquet", "fuse")


def test_a_class_label_column_is_read_by_name(tmp_path):
    reordered = Features({**FEATURES, "answerable": ClassLabel(names=["yes", "no"])})
    rows = [make_row(n, answerable=["yes", "no", None][n % 3]) for n in range(6)]
    Dataset.from_list(rows, features=reordered).to_parquet(tmp_path / "rows.parquet")
    rows_by_id = {
        row["id"]: row["answerable"] for row in concatenate(read_rows(tmp_path / "rows.parquet", "fuse"))
    }
    assert [rows_by_id[f"r{n}"] for n in range(3)] == [1, 0, None]


def test_an_unclosed_quote_costs_one_line(tmp_path):
    lines = ["id,passage,question,answer", '"x,p,q,a'] + [f"r{n},p{n},q,a" for n in range(30_000)]
    (tmp_path / "rows.csv").write_text("\n".join(lines))
    rows, rejects = read_leniently(tmp_path / "rows.csv")
    assert len(rows) == 30_000 and [reject["line"] for reject in rejects] == [2]
    assert "a quote that is still open after 10000 lines" in rejects[0]["reason"]


def test_the_end_of_a_malformed_quoted_field_is_no_row(tmp_path):
    (tmp_path / "rows.csv").write_text(
        'passage,question,answer\n"a\nb,"c,d\nx"y,q,e\np,q,"two\nlines"\np,r,\np,s,\n'
    )
    rows, rejects = read_leniently(tmp_path / "rows.csv")
    assert [row["answer"] for row in rows] == ["two\nlines", "", ""]
    assert [reject["line"] for reject in rejects] == [2, 3, 4]


def test_text_of_a_table_that_is_not_utf8_is_a_reject(tmp_path):
    texts = pa.array([b"p0", b"\xff", b"p2"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"passage": texts, "summary": ["s"] * 3}), tmp_path / "rows.parquet")
    rows, rejects = read_leniently(tmp_path / "rows.parquet", "summarize")
    assert [row["id"] for row in rows] == ["rows:0", "rows:2"]
    assert [(r["index"], r["reason"][:19]) for r in rejects] == [(1, "expected UTF-8, got")]
