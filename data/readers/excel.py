"""Read the rows of an Excel file, with the texts, numbers, dates and errors that its cells hold."""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Iterable
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any

from crosstask.data.readers.corpus import Reject
from crosstask.data.readers.formats import NumberedRecords
from crosstask.data.readers.number_formats import NumberFormats
from crosstask.utils.errors import DataError, first_line
from crosstask.utils.logs import warn_once

logger = logging.getLogger(__name__)

MAX_CELL_LENGTH = 32_767  # in UTF-16 units; Excel and the libraries that write its files cut longer texts


def read_excel(path: Path) -> NumberedRecords:
    """Yield the rows of the first sheet of an .xlsx file with their numbers in the sheet, from 1.

    The first row with a value is the header. A formula has the value that was saved with it, a date is
    written in ISO 8601, a number as its cell shows it (see [`NumberFormats`]), and an error of Excel, such as
    #NAME?, is no value. What a cell may have lost is counted and logged.

    Raises:
        DataError: If `openpyxl` is not installed, the file cannot be read, or its header is malformed.
    """
    try:
        import openpyxl
    except ImportError:
        expected = 'expected `pip install "crosstask[excel]"`'
        raise DataError(f"{path}: needs the package openpyxl, which is not installed; {expected}") from None
    try:
        with open(path, "rb") as file:
            workbook = openpyxl.load_workbook(file, read_only=True, data_only=True)
            sheet, *others = workbook.worksheets
            if others:
                names = ", ".join(other.title for other in others)
                warn_once(logger, f"{path}: read the sheet {sheet.title}, ignored {names}")
            sheet.reset_dimensions()  # the size that some programs write is wrong
            yield from _read_sheet(sheet.iter_rows(), path)
    # openpyxl raises errors of many types for damaged files.
    except (OSError, KeyError, IndexError, TypeError, ValueError, SyntaxError, zipfile.BadZipFile) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: expected an .xlsx file, got {first_line(error)}") from None


def _read_sheet(rows: Iterable[tuple[Any, ...]], path: Path) -> NumberedRecords:
    header: list[str] | None = None
    reader = _Cells(path)
    for number, cells in enumerate(rows, start=1):
        values = [reader.read(cell) for cell in cells]
        if all(value is None or value == "" for value in values):
            continue
        if header is None:
            header = ["" if value is None else str(value).strip() for value in values]
            names = [name for name in header if name]
            if len(set(names)) < len(names):
                raise DataError(f"{path}, row {number}: expected each column once, got {', '.join(header)}")
            continue
        record: dict[str, Any] = dict.fromkeys(name for name in header if name)
        record |= {name: value for name, value in zip(header, values, strict=False) if name}
        if any(value is not None for value in values[len(header) :]):
            yield number, Reject(f"expected {len(header)} cells, got {len(values)}", is_malformed=True)
        else:
            yield number, record
    reader.report()


class _Cells:
    """Read the values of cells, and count those that are not what was typed.

    Args:
        path (`Path`):
            The file, for the log.
    """

    def __init__(self, path: Path):
        self.path = path
        self.numbers = NumberFormats(path)
        # The number of cells and the first example, by what is said about them.
        self.notes: dict[str, tuple[int, str]] = {}

    def read(self, cell: Any) -> Any:
        """Return the value of a cell of openpyxl, with dates and times as texts."""
        value = cell.value
        if cell.data_type == "e":
            self._note("cells hold an error of Excel and are read as empty", f"{value} in {cell.coordinate}")
            return None
        if isinstance(value, str):
            return self._read_text(cell)
        if isinstance(value, (date, time, timedelta)):
            text = _write_date(value)
            note = "dates and times are read in ISO 8601, whatever was typed"
            self._note(note, f"{text} in {cell.coordinate}")
            return text
        return self.numbers.write(cell)

    def _read_text(self, cell: Any) -> str:
        from openpyxl.utils.escape import unescape

        if 2 * len(cell.value) >= MAX_CELL_LENGTH:
            if len(cell.value.encode("utf-16-le")) // 2 >= MAX_CELL_LENGTH:
                note = f"texts have {MAX_CELL_LENGTH:,} characters, the most that a cell of Excel holds, and "
                self._note(f"{note}were probably cut", f"the one in {cell.coordinate}")
        # Excel and XlsxWriter write the carriage return of "\r\n" as "_x000D_".
        return unescape(cell.value) if "_x" in cell.value else cell.value

    def _note(self, note: str, example: str) -> None:
        count, first = self.notes.get(note, (0, example))
        self.notes[note] = count + 1, first

    def report(self) -> None:
        """Warn of the cells that are not what was typed."""
        self.numbers.report()
        for note, (count, example) in self.notes.items():
            warn_once(logger, f"{self.path}: {count} {note}, such as {example}")


def _write_date(value: date | time | timedelta) -> str:
    if isinstance(value, timedelta):  # a time of the format [h]:mm, which may have more than 24 hours
        minutes, seconds = divmod(round(value.total_seconds()), 60)
        return f"{minutes // 60:02}:{minutes % 60:02}:{seconds:02}"
    if isinstance(value, datetime) and value.time() == time():  # a date without a time
        return value.date().isoformat()
    return value.isoformat()
