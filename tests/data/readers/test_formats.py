import csv
import json

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features
from reader_helpers import concatenate, get_error, make_row, read_leniently, write_jsonl

from crosstask.data.readers import iter_rows, read_rows
from crosstask.data.schema import FEATURES, STAGE_COLUMNS
from crosstask.utils.errors import DataError


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
        (b'{"passage": "cut', "got Unterminated string starting at column 13"),
        (b'{"passage": "a", "question": "b"', "got Expecting ',' delimiter at column 33"),
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


FRAME = pd.DataFrame(
    {
        "passage": [f"The mill {n}, opened in {n}; or so." for n in range(6)],
        "question": [f"When {n}?" for n in range(6)],
        "answer": [1893.0, float("nan"), 1895.5, 0.0, 5.0, 6.0],
        "summary": [f"A mill {n}." for n in range(6)],
        "answerable": [1.0, 0.0, float("nan"), 1.0, None, 1.0],
    },
    index=pd.Index([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], name="id"),
)
WRITERS = {
    "rows.json": lambda frame, path: frame.reset_index().to_json(path, orient="records"),
    "columns.json": lambda frame, path: frame.reset_index().to_json(path),
    "lists.json": lambda frame, path: path.write_text(json.dumps(frame.reset_index().to_dict("list"))),
    "lines.json": lambda frame, path: frame.reset_index().to_json(path, orient="records", lines=True),
    "nan.jsonl": lambda frame, path: path.write_text(
        "".join(json.dumps(record) + "\n" for record in frame.reset_index().to_dict("records"))
    ),
    "rows.ndjson": lambda frame, path: frame.reset_index().to_json(path, orient="records", lines=True),
    "rows.parquet": lambda frame, path: frame.reset_index().to_parquet(path),
    "ROWS.PARQUET": lambda frame, path: frame.reset_index().to_parquet(path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_numbers_and_nan_of_pandas_are_ids_answers_and_labels(tmp_path, name):
    WRITERS[name](FRAME, tmp_path / name)
    rows, rejects = read_leniently(tmp_path / name, "fuse")
    assert not rejects
    assert [row["id"] for row in rows] == ["1", "2", "3", "4", "5", "6"]
    assert [row["answer"] for row in rows] == ["1893", "", "1895.5", "0", "5", "6"]
    assert [row["answerable"] for row in rows] == [1, 0, None, 1, None, 1]


CSV_WRITERS = {
    "rows.csv": {},
    "ROWS.CSV": {"na_rep": "NaN"},
    "rows.csv.gz": {"index": False},
    "rows.tsv": {"sep": "\t"},
    "semicolons.csv": {"sep": ";", "decimal": ",", "encoding": "utf-8-sig", "lineterminator": "\r\n"},
    "tabs.csv": {"sep": "\t", "encoding": "utf-16"},
    "bars.csv": {"sep": "|", "na_rep": "<NA>"},
    "commas.tsv": {},
}


@pytest.mark.parametrize("name", CSV_WRITERS)
def test_csv_of_pandas_is_read(tmp_path, name):
    FRAME.assign(answer=["1893", None, "None", "0", "NA", "six"]).reset_index(drop=True).to_csv(
        tmp_path / name, **CSV_WRITERS[name]
    )
    rows, rejects = read_leniently(tmp_path / name, "fuse")
    assert not rejects
    assert [row["passage"] for row in rows] == list(FRAME["passage"])
    assert [row["answer"] for row in rows] == ["1893", "", "None", "0", "NA", "six"]
    assert [row["answerable"] for row in rows] == [1, 0, None, 1, None, 1]


@pytest.mark.parametrize(
    ("no", "yes", "missing"),
    [
        ("FALSE", "TRUE", ""),
        ("False", "True", "nan"),
        ("No", "Yes", "NA"),
        (" 0", " 1", " "),
        ("0,0", "1,0", ""),
    ],
)
def test_labels_of_spreadsheets_are_read(tmp_path, no, yes, missing):
    lines = ["passage;question;answer;summary;answerable;;"]
    lines += [f"p{n};q;a;s;{label};;" for n, label in enumerate((no, yes, missing, yes))]
    (tmp_path / "rows.csv").write_text("\r\n".join(lines), encoding="utf-8")
    rows, rejects = read_leniently(tmp_path / "rows.csv", "fuse")
    assert not rejects and [row["answerable"] for row in rows] == [0, 1, None, 1]


def test_other_separators_are_named_once_in_the_log(tmp_path, caplog):
    (tmp_path / "rows.csv").write_text("passage;summary\n" + "".join(f"p{n};s\n" for n in range(3)))
    (tmp_path / "commas.csv").write_text("passage,summary;\n" + "".join(f"p{n},s\n" for n in range(3)))
    for _ in range(2):
        read_leniently(tmp_path / "rows.csv", "summarize")
    assert caplog.messages == [f"{tmp_path / 'rows.csv'}: the columns are separated by semicolons"]
    with pytest.raises(DataError, match="'summary' is missing: there are passage, summary;; stage"):
        read_leniently(tmp_path / "commas.csv", "summarize")


@pytest.mark.parametrize("separator", [";", "\t"])
def test_malformed_lines_keep_their_numbers_with_other_separators(tmp_path, separator):
    lines = ["passage,summary", 'two "lines",s', '"a\nb",s', "p", "p,s", "p,s"]
    (tmp_path / "rows.csv").write_text("\n".join(lines).replace(",", separator))
    rows, rejects = read_leniently(tmp_path / "rows.csv", "summarize")
    assert len(rows) == 4 and [reject["line"] for reject in rejects] == [5]


def test_a_json_list_names_the_index_of_what_is_malformed(tmp_path):
    rows = [make_row(n) for n in range(4)]
    (tmp_path / "rows.json").write_text(json.dumps([rows[0], "text", rows[1], rows[2], {"id": "x"}, rows[3]]))
    rows_read, rejects = read_leniently(tmp_path / "rows.json", "fuse")
    assert rows_read == rows
    assert [(reject["index"], reject["reason"].split(":")[0]) for reject in rejects] == [
        (1, "expected a JSON object, got 'text'"),
        (4, "the column 'passage' is missing"),
    ]
    assert "rows.json, index 1: expected a JSON object" in get_error(tmp_path / "rows.json", "fuse")


def test_json_lines_in_a_json_file_name_the_line(tmp_path):
    lines = [json.dumps(make_row(0)), json.dumps(make_row(1)), '{"passage": "cut']
    (tmp_path / "rows.json").write_text("\n".join(lines))
    assert "rows.json, line 3: expected a JSON object" in get_error(tmp_path / "rows.json", "fuse")


NAMES = [
    (["answerable", "unanswerable"], [1, 0]),
    (["unanswerable", "answerable"], [0, 1]),
    (["True", "False"], [1, 0]),
    (["entailment", "not_entailment"], [1, 0]),
    (["entailment", "neutral", "contradiction"], [1, 0, 0]),
    (["yes", "no"], [1, 0]),
    (["no", "yes"], [0, 1]),
    (["1", "0"], [1, 0]),
]


def write_classes(path, names, column):
    """Write a folder or a Parquet file with one row per class and one without, -1 among them."""
    labels = [*range(len(names)), None, -1]
    rows = [make_row(n) for n in range(len(labels))]
    columns = {name: [row[name] for row in rows] for name in FEATURES if name != "answerable"}
    features = Features({**FEATURES, column: ClassLabel(names=names)})
    if column != "answerable":
        del features["answerable"]
    dataset = Dataset.from_dict({**columns, column: labels}, features=features)
    dataset.to_parquet(path) if path.suffix else dataset.save_to_disk(path)


@pytest.mark.parametrize(("names", "expected"), NAMES)
@pytest.mark.parametrize("name", ["rows.parquet", "folder"])
@pytest.mark.parametrize("column", ["answerable", "label"])
def test_classes_of_other_names_are_read_by_name(tmp_path, names, expected, name, column):
    write_classes(tmp_path / name, names, column)
    rows, rejects = read_leniently(tmp_path / name, "fuse", columns={"answerable": column})
    assert not rejects and [row["answerable"] for row in rows] == [*expected, None, None]


@pytest.mark.parametrize("name", ["rows.parquet", "folder"])
def test_classes_of_unknown_names_are_an_error(tmp_path, name):
    write_classes(tmp_path / name, ["LABEL_0", "LABEL_1"], "label")
    message = get_error(tmp_path / name, "fuse", columns={"answerable": "label"})
    reason = "answerable is 'LABEL_0', expected 0, 1, 'no', 'yes' or null (index 0)"
    assert f"{tmp_path / name}" in message and f"no label can be read: {reason}" in message


def test_classes_are_known_even_if_the_type_of_the_column_was_changed(tmp_path):
    write_classes(tmp_path / "rows.parquet", ["yes", "no"], "answerable")
    table = pq.read_table(tmp_path / "rows.parquet")
    schema = table.schema.set(table.schema.get_field_index("answerable"), pa.field("answerable", pa.int8()))
    pq.write_table(table.cast(schema), tmp_path / "rows.parquet")
    rows, _ = read_leniently(tmp_path / "rows.parquet", "fuse")
    assert [row["answerable"] for row in rows] == [1, 0, None, None]


def test_columns_that_nobody_reads_may_have_any_arrow_type(tmp_path):
    rows = [make_row(n) for n in range(3)]
    table = pa.Table.from_pylist(rows)
    maps = pa.array([[("a", 1)], [], None], pa.map_(pa.string(), pa.int64()))
    table = table.append_column("map", maps).append_column("kind", pa.array(["x"] * 3).dictionary_encode())
    pq.write_table(table, tmp_path / "rows.parquet")
    assert read_leniently(tmp_path / "rows.parquet", "fuse") == (rows, [])


def test_csv_may_begin_with_blank_lines_and_a_separator_for_excel(tmp_path):
    (tmp_path / "rows.csv").write_text("\n\r\nsep=;\r\npassage;summary\np,1;s\np\np;s\n")
    rows, rejects = read_leniently(tmp_path / "rows.csv", "summarize")
    assert [(row["id"], row["passage"]) for row in rows] == [("rows:5", "p,1"), ("rows:7", "p")]
    assert rejects[0]["line"] == 6 and rejects[0]["reason"] == "expected 2 fields, got 1"
    (tmp_path / "rows.csv").write_text("\npassage,passage\np,s\n")
    assert "rows.csv, line 2: expected each column once" in get_error(tmp_path / "rows.csv", "summarize")


@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv", "semicolons.csv", "rows.json", "rows.parquet"])
def test_integers_that_pandas_wrote_as_floats_are_integers(tmp_path, name):
    rows = [make_row(n, id=float(n), answer=1800.0 + n) for n in range(4)]
    rows[2] |= {"passage": "It opened with 1802.0 (in German 1802,0) wheels."}
    rows[3] |= {"answer": None, "answerable": 0}
    frame = pd.DataFrame(rows)
    if name == "rows.json":
        frame.to_json(tmp_path / name, orient="records")
    elif name == "rows.parquet":
        frame.to_parquet(tmp_path / name)
    else:
        separators = {"rows.csv": (",", "."), "rows.tsv": ("\t", "."), "semicolons.csv": (";", ",")}
        sep, decimal = separators[name]
        frame.to_csv(tmp_path / name, index=False, sep=sep, decimal=decimal)
    rows, _ = read_leniently(tmp_path / name, "fuse")
    assert [row["id"] for row in rows] == ["0", "1", "2", "3"]
    kept = "1802,0" if name == "semicolons.csv" else "1802.0"
    assert [row["answer"] for row in rows] == ["1800", "1801", kept, ""]


UNQUOTED = [
    ["p0", "q0", "s0"],
    ['"Hello', "q1", "s1"],
    ["p2", "q2", "s2"],
    ['she said "bye"', "q3", "s3"],
    ["p4", "q4", "s4"],
]


def test_quotes_between_tabs_are_text_if_they_would_swallow_rows(tmp_path):
    lines = ["\t".join(row) for row in [["passage", "question", "summary"], *UNQUOTED]]
    lines[2] = lines[2].replace('"Hello', '"Hello', 1)
    lines[4] = lines[4].replace('she said "bye"', 'bye"')
    (tmp_path / "rows.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    rows, rejects = read_leniently(tmp_path / "rows.tsv", "fuse")
    assert [row["question"] for row in rows] == ["q0", "q1", "q2", "q3", "q4"] and not rejects
    assert [row["passage"] for row in rows][1:4:2] == ['"Hello', 'bye"']


def test_a_warning_names_a_quote_that_swallows_lines_like_rows(tmp_path, caplog):
    text = 'passage,question,summary\n"Hello,q1,s1\np2,q2,s2\nbye",q3,s3\np4,q4,s4\n'
    (tmp_path / "rows.csv").write_text(text, encoding="utf-8")
    rows, _ = read_leniently(tmp_path / "rows.csv", "fuse")
    assert len(rows) == 2
    assert "1 quoted fields span lines that look like rows of their own, the first at line 2" in caplog.text


def test_quoted_texts_of_several_lines_are_read_without_a_warning(tmp_path, caplog):
    for suffix, delimiter in ((".csv", ","), (".tsv", "\t")):
        with open(tmp_path / f"rows{suffix}", "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter=delimiter)
            writer.writerow(["passage", "question", "summary"])
            writer.writerows([[f"Line {n}.\nA, b.\nLast, and, final.", "q", "s"] for n in range(20)])
        rows, rejects = read_leniently(tmp_path / f"rows{suffix}", "fuse")
        assert len(rows) == 20 and not rejects
    assert "look like rows" not in caplog.text


@pytest.mark.parametrize("delimiter", [",", ";"])
def test_spaces_before_quotes_are_no_text(tmp_path, delimiter):
    lines = [
        "passage, question, answer, summary, answerable",
        '"Town 0. It cost 45, they say.", "How much?", "45", "It cost 45, ""or so"".", 1',
        '"Town 1.", "Why?", "", "Two\nlines.", 0',
    ]
    text = "\n".join([*lines, "a\rb, c"]).replace(",", delimiter)
    (tmp_path / "rows.csv").write_bytes(text.encode())
    rows, rejects = read_leniently(tmp_path / "rows.csv", "fuse")
    assert [row["answerable"] for row in rows] == [1, 0] and [reject["line"] for reject in rejects] == [5]
    assert [row["question"] for row in rows] == ["How much?", "Why?"]
    assert rows[0]["answer"] == "45" and rows[1]["summary"] == "Two\nlines."
    assert rows[0]["summary"] == f'It cost 45{delimiter} "or so".'


def test_spaces_of_other_csv_files_are_text(tmp_path):
    text = 'passage,question,summary\n"a, ""b"", c", q ,  s "t"\n'
    (tmp_path / "rows.csv").write_text(text, encoding="utf-8")
    [row], _ = read_leniently(tmp_path / "rows.csv", "fuse")
    assert (row["passage"], row["question"], row["summary"]) == ('a, "b", c', " q ", '  s "t"')


def test_a_delimiter_that_the_header_does_not_have_is_named(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("\npassage;question;summary\nIt rained, and rained.;What?;It rained.\n")
    sentence = get_error(path, "fuse", delimiter=",")
    assert sentence == f"{path}, line 2: the header has no `data_delimiter` ','; it has semicolons"
    path.write_text("passage~question\na~b\n")  # a delimiter that is not detected
    assert "the column 'passage' is missing" in get_error(path, "ask", delimiter=",")


def test_the_delimiter_and_the_encoding_can_be_given(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes("passage;question;summary\nGrün, grün;wo?;Köln\n".encode("cp1252"))
    message = get_error(path, "fuse")
    assert "rows.csv, line 2: expected UTF-8, got" in message and "data_encoding" in message
    [row] = [row for _, _, row in iter_rows(path, "fuse", encoding="cp1252", reject=print)]
    assert (row["passage"], row["summary"]) == ("Grün, grün", "Köln")
    path.write_text("passage~question~summary\na,b~c~d\n", encoding="utf-8")
    [row] = [row for _, _, row in iter_rows(path, "fuse", delimiter="~", reject=print)]
    assert row["passage"] == "a,b"
    assert "`data_delimiter`: expected one character" in get_error(path, "fuse", delimiter=";;")
    assert "`data_encoding`: expected one that Python knows" in get_error(path, "fuse", encoding="windows")


def test_lines_of_an_old_macintosh_are_an_error(tmp_path):
    (tmp_path / "rows.csv").write_bytes(b"passage,question,summary\rp,q,s\rp,q,s\r")
    assert "rows.csv: expected lines that end in LF or CR LF" in get_error(tmp_path / "rows.csv", "fuse")


@pytest.mark.parametrize("orient", ["split", "records", "index", "columns", "table", "values", "data"])
def test_every_form_of_json_that_pandas_writes_is_read_or_refused(tmp_path, orient):
    rows = [{"passage": f"p{n}", "question": "q", "summary": "s"} for n in range(3)]
    documents = {
        "split": {"columns": list(rows[0]), "index": [0, 1, 2], "data": [list(row.values()) for row in rows]},
        "records": rows,
        "index": {str(n): row for n, row in enumerate(rows)},
        "columns": {name: {str(n): row[name] for n, row in enumerate(rows)} for name in rows[0]},
        "table": {"schema": {"fields": []}, "data": rows},
        "values": [list(row.values()) for row in rows],
        "data": {"data": rows},
    }
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(documents[orient]), encoding="utf-8")
    if orient == "values":
        assert "expected a JSON object, got ['p0'" in get_error(path, "fuse")
    else:
        read, _ = read_leniently(path, "fuse")
        assert [row["passage"] for row in read] == ["p0", "p1", "p2"]
