"""Excel files: sheets, dates, errors, escaped characters, and texts that a cell does not hold."""

import sys
from datetime import date, time, timedelta

import pytest
from reader_helpers import get_error, make_row, read_leniently


def test_excel_files_are_read(tmp_path, caplog):
    openpyxl = pytest.importorskip("openpyxl")
    workbook = openpyxl.Workbook()
    sheet = workbook.active
    workbook.create_sheet("notes").append(["x"])
    sheet.append([])
    sheet.append(["id", "passage", " question ", "answer", "summary", "answerable", None])
    sheet.append([1.0, "Grüße", "Wann?", date(2024, 5, 3), "Am 3. Mai.", True])
    sheet.append([2, "p 7", "q", 7, "s", "vielleicht"])
    sheet.append([3, "p 8", "q", 8.0, "s", "no"])
    sheet.append([4, None, "q", None, "s", None])
    path = tmp_path / "Rows.XLSX"
    workbook.save(path)
    rows, rejects = read_leniently(path, "fuse")
    assert [(row["id"], row["answer"], row["answerable"]) for row in rows] == [
        ("1", "2024-05-03", 1),
        ("3", "8", 0),
    ]
    assert [(reject["row"], reject["id"]) for reject in rejects] == [(4, "2"), (6, "4")]
    assert "read the sheet Sheet, ignored notes" in caplog.text
    (tmp_path / "bad.xlsx").write_text("no workbook")
    assert "bad.xlsx: expected an .xlsx file" in get_error(tmp_path / "bad.xlsx", "fuse")


def test_excel_files_name_the_extra_that_reads_them(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    (tmp_path / "rows.xlsx").write_bytes(b"")
    assert 'expected `pip install "crosstask[excel]"`' in get_error(tmp_path / "rows.xlsx", "fuse")


def write_sheet(path, rows, errors=()):
    openpyxl = pytest.importorskip("openpyxl")
    workbook = openpyxl.Workbook()
    workbook.active.append(list(rows[0]))
    for row in rows:
        workbook.active.append(list(row.values()))
    for coordinate in errors:
        workbook.active[coordinate].data_type = "e"
    workbook.save(path)
    return path


def test_an_error_of_excel_is_no_text(tmp_path, caplog):
    # Excel takes a text that begins with "-" or "=" for a formula, which it cannot compute.
    rows = [make_row(n) for n in range(4)]
    rows[1] |= {"summary": "#NAME?"}
    rows[2] |= {"passage": "#REF!"}
    rows[3] |= {"summary": "#NAME? is what Excel says."}
    path = write_sheet(tmp_path / "rows.xlsx", rows, errors=["F3", "C4"])
    read, rejects = read_leniently(path, "fuse")
    assert [row["summary"] for row in read] == [rows[0]["summary"], rows[3]["summary"]]
    assert [(reject["row"], reject["reason"]) for reject in rejects] == [
        (3, "empty summary"),
        (4, "empty passage"),
    ]
    assert "2 cells hold an error of Excel and are read as empty, such as #NAME? in F3" in caplog.text


def test_escaped_characters_of_excel_are_characters(tmp_path):
    row = make_row(0) | {"passage": "One._x000D_\nTwo.", "summary": "_x005F_x000D_ and file_x1"}
    [read], _ = read_leniently(write_sheet(tmp_path / "rows.xlsx", [row]), "fuse")
    assert read["passage"] == "One.\r\nTwo."
    assert read["summary"] == "_x000D_ and file_x1"


def test_texts_that_fill_a_cell_are_logged_as_cut(tmp_path, caplog):
    lengths = (32_766, 40_000, 32_767)
    rows = [make_row(n) | {"passage": "x" * length} for n, length in enumerate(lengths)]
    rows.append(make_row(3) | {"passage": "\N{GRINNING FACE}" * 16_384})
    rows.append(make_row(4) | {"passage": "ß" * 20_000})
    read_leniently(write_sheet(tmp_path / "rows.xlsx", rows), "fuse")
    assert "3 texts have 32,767 characters, the most that a cell of Excel holds, and were" in caplog.text
    assert "such as the one in C3" in caplog.text


def test_dates_and_times_are_texts_and_logged(tmp_path, caplog):
    values = [time(4, 30), date(2026, 5, 3), timedelta(hours=30, minutes=5)]
    rows = [make_row(n) | {"answer": value} for n, value in enumerate(values)]
    read, rejects = read_leniently(write_sheet(tmp_path / "rows.xlsx", rows), "fuse")
    assert [row["answer"] for row in read] == ["04:30:00", "2026-05-03", "30:05:00"] and not rejects
    assert "3 dates and times are read in ISO 8601, whatever was typed, such as 04:30:00 in E2" in caplog.text
