"""Numbers of a spreadsheet are read as their cells show them."""

import pytest
from reader_helpers import make_row, read_leniently

from crosstask.data.readers.number_formats import show_number


@pytest.mark.parametrize(
    ("value", "number_format", "expected"),
    [
        (4500, '"$"#,##0', "$4,500"),
        (4500, "$#,##0.00", "$4,500.00"),
        (-4500, '"$"#,##0', "-$4,500"),
        (-4500, '"$"#,##0_);\\("$"#,##0\\)', "($4,500)"),
        (-4500, '"$"#,##0_);[Red]\\("$"#,##0\\)', "($4,500)"),
        (4500, '_("$"* #,##0.00_);_("$"* \\(#,##0.00\\);_("$"* "-"??_);_(@_)', "$4,500.00"),
        (0, '_("$"* #,##0.00_);_("$"* \\(#,##0.00\\);_("$"* "-"??_);_(@_)', None),
        (1234567.5, '#,##0.00\\ "€"', "1,234,567.50 €"),
        (12, "[$€-407]#,##0", "€12"),
        (12, "[$CHF-807]\\ 0.00", "CHF 12.00"),
        (0.05, "0%", "5%"),
        (0.07125, "0.00%", "7.13%"),
        (0.125, "0.00", "0.13"),
        (-0.001, "0.0", "0.0"),
        (7, "000", "007"),
        (1e30, "#,##0.00", "1" + 10 * ",000" + ".00"),
        (5, '0" km"', "5 km"),
        (5, '0.0"0"', "5.00"),
        (4500, "0.00E+00", None),
        (4500, "#,##0,", None),
        (4500, "#,##0.0#", None),
        (0.5, "# ?/?", None),
        (5, "[>9]0.0", None),
    ],
)
def test_numbers_are_shown_as_excel_shows_them(value, number_format, expected):
    assert show_number(value, number_format) == expected


def test_answers_of_excel_are_read_as_their_cells_show_them(tmp_path, caplog):
    openpyxl = pytest.importorskip("openpyxl")
    cells = [(4500, '"$"#,##0'), (0.05, "0%"), (1500, "0.00E+00"), (45, "0"), (7.5, "General"), (12, "0")]
    rows = [make_row(n, answer=value) for n, (value, _) in enumerate(cells)]
    workbook = openpyxl.Workbook()
    workbook.active.append(list(rows[0]))
    for number, row in enumerate(rows, start=2):
        workbook.active.append(list(row.values()))
        workbook.active[f"E{number}"].number_format = cells[number - 2][1]
        workbook.active[f"G{number}"].number_format = "0.00"  # the label
    path = tmp_path / "rows.xlsx"
    workbook.save(path)
    read, rejects = read_leniently(path, "fuse")
    assert [row["answer"] for row in read] == ["$4,500", "5%", "1500", "45", "7.5", "12"] and not rejects
    assert {row["answerable"] for row in read} == {1}
    assert (
        f"{path}: 8 numbers are read as their cells show them in English, such as $4,500 in E2" in caplog.text
    )
    reading = "are read without their formats, which are not understood, such as 0.00E+00 in E4"
    assert f"{path}: 1 numbers {reading}" in caplog.text
