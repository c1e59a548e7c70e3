"""Read the records of one JSON, JSONL, CSV or Parquet file, each with its number; see `excel` for Excel.

JSONL and CSV are parsed here, line by line, so that a message can name the line, and so that one malformed
line costs that line only.
"""

from __future__ import annotations

import csv
import json
import logging
import re
import reprlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pyarrow.parquet

from crosstask.data.readers.corpus import Record, Reject
from crosstask.data.readers.opening import check_text, read_lines, split_name
from crosstask.utils.errors import DataError, first_line
from crosstask.utils.logs import warn_once

logger = logging.getLogger(__name__)

NumberedRecords = Iterator[tuple[int, Record | Reject]]

BATCH_SIZE = 100  # rows of a table that are converted to Python objects at a time: passages may be long
MAX_CSV_LINES = 10_000  # per record: if there are more, a quote was not closed
SAMPLE_LINES = 100  # the first lines of a CSV file, which show whether spaces precede its quotes
# Spreadsheets write semicolons where the comma is the decimal sign.
_DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar"}


def read_jsonl(path: Path, encoding: str | None = None) -> NumberedRecords:
    """Yield the objects of a JSON Lines file with their line numbers from 1; blank lines are skipped.

    Args:
        path (`Path`):
            The file.
        encoding (`str`, *optional*):
            See [`read_lines`].

    Raises:
        DataError: If the file cannot be read.
    """
    for number, line in enumerate(read_lines(path, encoding), start=1):
        if line.strip():
            yield number, _parse_json_object(line, encoding)


def _parse_json_object(line: str, encoding: str | None) -> Record | Reject:
    try:
        record = json.loads(check_text(line.rstrip("\r\n"), encoding))  # an error at its end is in this line
    except UnicodeError as error:
        return Reject(str(error), is_malformed=True)
    except json.JSONDecodeError as error:  # its message would say "line 1"
        problem = error.msg.removesuffix(" at")
        reason = f"expected a JSON object, got {problem} at column {error.colno}"
        return Reject(reason, is_malformed=True)
    except (ValueError, RecursionError) as error:  # a number of too many digits, too deep a nesting
        return Reject(f"expected a JSON object, got {first_line(error)}", is_malformed=True)
    return _check_object(record)


def _check_object(record: Any) -> Record | Reject:
    if not isinstance(record, dict):
        return Reject(f"expected a JSON object, got {reprlib.repr(record)}", is_malformed=True)
    return record


def find_json_records(document: Any) -> NumberedRecords | None:
    """Return the records of a JSON document with their indices from 0, or `None` if it has another form.

    Args:
        document (`Any`):
            A list of records, such a list as the value of `data`, or what `DataFrame.to_json` and
            `Dataset.to_dict` write, in each of their forms: `{"passage": {"0": ..., "1": ...}}`,
            `{"0": {"passage": ...}}`, `{"passage": [...]}` or `{"columns": ["passage"], "data": [[...]]}`.
    """
    if isinstance(document, dict) and isinstance(document.get("data"), list):
        names, values = document.get("columns"), document["data"]
        if document.keys() - {"index"} == {"columns", "data"} and isinstance(names, list):
            if all(isinstance(row, list) and len(row) == len(names) for row in values):
                return enumerate(dict(zip(names, row, strict=True)) for row in values)
        elif values and all(isinstance(record, dict) for record in values):
            document = values
    if isinstance(document, list):
        return enumerate(map(_check_object, document))
    columns = list(document.values()) if isinstance(document, dict) else []
    if columns and all(isinstance(column, dict) for column in columns):
        if all(index.isdecimal() for index in document):  # records by their indices
            return enumerate(columns)
        indices = list(columns[0])
        if not indices or not all(index.isdecimal() for index in indices):
            return None
        if any(list(column) != indices for column in columns):
            return None
        columns = [list(column.values()) for column in columns]
    elif not columns or not all(isinstance(column, list) for column in columns):
        return None
    if len({len(column) for column in columns}) > 1:
        return None
    return enumerate(dict(zip(document, values, strict=True)) for values in zip(*columns, strict=True))


def read_csv(path: Path, delimiter: str | None = None, encoding: str | None = None) -> NumberedRecords:
    """Yield the records of a CSV file with a header, each with the number of its first line.

    Without `delimiter`, it is the tab for .tsv and the comma for other files. If the header is a single
    column by it, but several by another delimiter, the other one is taken and a warning names it. If fields
    of the first lines begin with a space and a quote, spaces at the beginnings of fields are dropped.

    Args:
        path (`Path`):
            The file.
        delimiter (`str`, *optional*):
            The character between two fields.
        encoding (`str`, *optional*):
            See [`read_lines`].

    Raises:
        DataError: If the file cannot be read, or its header is malformed.
    """
    csv.field_size_limit(2**31 - 1)  # the default of 128 KiB is less than a long passage
    lines = read_lines(path, encoding)
    header_number, header_line = next(
        # "sep=;" tells Excel how to read the file.
        (entry for entry in enumerate(lines, 1) if not re.fullmatch(r"\s*|sep=.\s*", entry[1])),
        (1, ""),
    )
    if "\r" in header_line.rstrip("\r\n"):
        raise DataError(
            f"{path}: expected lines that end in LF or CR LF, got CR alone (old Macintosh format)"
        )
    if delimiter is None:
        delimiter = "\t" if split_name(path)[1] == ".tsv" else ","
        if (detected := _detect_delimiter(header_line, delimiter)) != delimiter:
            warn_once(logger, f"{path}: the columns are separated by {_DELIMITERS[detected]}s")
            delimiter = detected
    elif (detected := _detect_delimiter(header_line, delimiter)) != delimiter:
        problem = f"the header has no `data_delimiter` {delimiter!r}; it has {_DELIMITERS[detected]}s"
        raise DataError(f"{path}, line {header_number}: {problem}")
    sample = [header_line, *islice(lines, SAMPLE_LINES)]
    # Python's module `csv` would take a quote behind a space as a part of the text.
    options = {"delimiter": delimiter, "skipinitialspace": _has_spaces_before_quotes(sample, delimiter)}
    records = _parse_csv(chain(sample, lines), options, header_number, encoding)
    _, header, _ = next(records, (1, [], []))
    if isinstance(header, Reject):
        raise DataError(f"{path}, line {header_number}: {header.reason}")
    header = [name.strip() for name in header]  # "" is the index of pandas, or an empty column of Excel
    names = [name for name in header if name]
    if len(set(names)) < len(names):
        raise DataError(f"{path}, line {header_number}: expected each column once, got {', '.join(header)}")
    for line, fields in _restore_swallowed(records, delimiter, len(header), path):
        if isinstance(fields, Reject):
            yield line, fields
        elif fields and len(fields) != len(header):
            yield line, Reject(f"expected {len(header)} fields, got {len(fields)}", is_malformed=True)
        elif fields:
            yield line, {name: value for name, value in zip(header, fields, strict=True) if name}


def _restore_swallowed(
    records: Iterable[tuple[int, list[str] | Reject, list[str]]], delimiter: str, width: int, path: Path
) -> Iterator[tuple[int, list[str] | Reject]]:
    """Yield `(line, fields)` of records whose quotes may be plain characters.

    In a file without quoting, a field that begins with a quote swallows all rows up to one that ends with a
    quote. Each line of such a record has as many fields as a row. Between tabs, the lines are rows, since
    text has no tabs. Between other characters, a text of several lines can look the same, so it is a warning.
    """
    suspects = []
    for first_line_number, fields, lines in records:
        if len(lines) == 1 or any(line.count(delimiter) != width - 1 for line in lines):
            yield first_line_number, fields
        elif delimiter == "\t":
            for number, line in enumerate(lines, first_line_number):
                yield number, line.rstrip("\r\n").split("\t")
        else:
            if width > 2:  # of two columns, every text with one comma per line would be a suspect
                suspects.append(first_line_number)
            yield first_line_number, fields
    if suspects:
        logger.warning(
            "%s: %d quoted fields span lines that look like rows of their own, the first at line %d; if they "
            "are rows, a quote is not closed in its line",
            path,
            len(suspects),
            suspects[0],
        )


def _detect_delimiter(line: str, delimiter: str) -> str:
    """Return the delimiter by which a header has the most columns, if it has only one by `delimiter`."""
    counts = {}
    for candidate in (delimiter, *_DELIMITERS):
        try:
            counts[candidate] = len(next(csv.reader([line], delimiter=candidate), []))
        except csv.Error:
            counts[candidate] = 0
    best = max(counts, key=lambda candidate: counts[candidate])
    return delimiter if counts[delimiter] > 1 or counts[best] < 2 else best


def _has_spaces_before_quotes(lines: Iterable[str], delimiter: str) -> bool:
    """Return whether fields begin with a space and a quote, as people write them: `"a", "b"`."""
    lines = (line.replace("\r", "") for line in lines)  # a CR within a line would be an error
    return any(
        re.match(' +"', field) for fields in csv.reader(lines, delimiter=delimiter) for field in fields
    )


def _parse_csv(
    lines: Iterator[str], options: Mapping[str, Any], line_number: int, encoding: str | None
) -> Iterator[tuple[int, list[str] | Reject, list[str]]]:
    """Yield each record: the number of its first line, its fields and its lines.

    A quoted field may span lines. The options are those of `csv.reader`.

    After a malformed record, parsing continues at that record's second line, so that an unclosed quote does
    not swallow the good records behind it.
    """
    pushed_back: deque[str] = deque()
    while True:
        consumed: list[str] = []
        starts_with_pushed_back = bool(pushed_back)
        try:
            reader = csv.reader(_consume(pushed_back, lines, consumed), strict=True, **options)
            fields = next(reader)
            # The end of a quoted field with a malformed beginning can look like a record.
            if starts_with_pushed_back and "".join(consumed).count('"') % 2:
                raise csv.Error("the end of a quoted field")
            check_text("".join(fields), encoding)
            result: list[str] | Reject = fields
        except StopIteration:
            return
        except UnicodeError as error:
            result = Reject(str(error), is_malformed=True)
        except csv.Error as error:
            result = Reject(f"expected CSV, got {first_line(error)}", is_malformed=True)
            pushed_back.extendleft(reversed(consumed[1:]))
            del consumed[1:]
        yield line_number, result, consumed
        line_number += len(consumed)


def _consume(pushed_back: deque[str], lines: Iterator[str], consumed: list[str]) -> Iterator[str]:
    """Yield lines for one record, those that were pushed back first, and note them in `consumed`."""
    for line in chain(iter(lambda: pushed_back.popleft() if pushed_back else None, None), lines):
        consumed.append(line)
        if len(consumed) > MAX_CSV_LINES:
            raise csv.Error(f"a quote that is still open after {MAX_CSV_LINES} lines")
        yield line


def read_parquet(path: Path) -> NumberedRecords:
    """Yield the rows of a Parquet file with their indices from 0.

    Raises:
        DataError: If the file cannot be read as Parquet.
    """
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            # Not `Features.from_arrow_schema`: it fails on types that `datasets` does not have, such as maps,
            # even in columns that nobody reads.
            metadata = json.loads((file.schema_arrow.metadata or {}).get(b"huggingface", b"{}"))
            features = metadata.get("info", {}).get("features", {})
            class_names = {
                column: feature["names"]
                for column, feature in features.items()
                if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
            }
            yield from read_batches(file.iter_batches(batch_size=BATCH_SIZE), class_names)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path}: expected a Parquet file, got {first_line(error)}") from None


def read_batches(batches: Iterable[Any], class_names: Mapping[str, list[str]]) -> NumberedRecords:
    """Yield the rows of Arrow tables or record batches with their indices from 0.

    Args:
        batches (`Iterable`):
            The tables or record batches.
        class_names (`Mapping[str, list[str]]`):
            The names of the classes of each `ClassLabel` column. Its numbers are replaced by the names, since
            data sets number the same names differently; -1 stands for no class.
    """
    for index, record in enumerate(chain.from_iterable(map(_to_records, batches))):
        if not isinstance(record, Reject):
            for column, names in class_names.items():
                value = record.get(column)
                if isinstance(value, int) and -1 <= value < len(names):
                    record[column] = None if value == -1 else names[value]
        yield index, record


def _to_records(batch: Any) -> Iterable[Any]:
    """Convert a batch to records, row by row if a text in it is not UTF-8."""
    try:
        return batch.to_pylist()
    except UnicodeDecodeError as error:
        if len(batch) == 1:
            return [Reject(f"expected UTF-8, got {error}", is_malformed=True)]
        return chain.from_iterable(_to_records(batch.slice(row, 1)) for row in range(len(batch)))
