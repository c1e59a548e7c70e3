"""Read the records of one JSONL, CSV or Parquet file, each with its number.

Text files are parsed here, line by line, so that a message can name the line, and so that one malformed line
costs that line only.
"""

from __future__ import annotations

import csv
import json
import reprlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow.parquet
from datasets import ClassLabel, Features

from crosstask.data.readers.corpus import Record, Reject
from crosstask.data.schema import FEATURES
from crosstask.utils.errors import DataError, first_line

NumberedRecords = Iterator[tuple[int, Record | Reject]]

BATCH_SIZE = 100  # rows of a table that are converted to Python objects at a time: passages may be long
MAX_CSV_LINES = 10_000  # per record: if there are more, a quote was not closed


def read_jsonl(path: Path) -> NumberedRecords:
    """Yield the objects of a JSON Lines file with their line numbers from 1; blank lines are skipped.

    Raises:
        DataError: If the file cannot be read.
    """
    for number, line in enumerate(_read_lines(path), start=1):
        if line.strip():
            yield number, _parse_json_object(line)


def _parse_json_object(line: str) -> Record | Reject:
    try:
        record = json.loads(_check_utf8(line))
    except UnicodeError as error:
        return Reject(f"expected UTF-8, got {first_line(error)}", is_malformed=True)
    except json.JSONDecodeError as error:  # its message would say "line 1"
        reason = f"expected a JSON object, got {error.msg} at column {error.colno}"
        return Reject(reason, is_malformed=True)
    except (ValueError, RecursionError) as error:  # a number of too many digits, too deep a nesting
        return Reject(f"expected a JSON object, got {first_line(error)}", is_malformed=True)
    if not isinstance(record, dict):
        return Reject(f"expected a JSON object, got {reprlib.repr(record)}", is_malformed=True)
    return record


def read_csv(path: Path) -> NumberedRecords:
    """Yield the records of a CSV file with a header, each with the number of its first line.

    Raises:
        DataError: If the file cannot be read, or its header is malformed.
    """
    csv.field_size_limit(2**31 - 1)  # the default of 128 KiB is less than a long passage
    records = _parse_csv(_read_lines(path))
    _, header = next(records, (1, []))
    if isinstance(header, Reject):
        raise DataError(f"{path}, line 1: {header.reason}")
    if len(set(header)) < len(header):
        raise DataError(f"{path}, line 1: expected each column once, got {', '.join(header)}")
    for line, fields in records:
        if isinstance(fields, Reject):
            yield line, fields
        elif fields and len(fields) != len(header):
            yield line, Reject(f"expected {len(header)} fields, got {len(fields)}", is_malformed=True)
        elif fields:
            yield line, dict(zip(header, fields, strict=True))


def _parse_csv(lines: Iterator[str]) -> Iterator[tuple[int, list[str] | Reject]]:
    """Yield the fields of each record with the number of its first line; a quoted field may span lines.

    After a malformed record, parsing continues at that record's second line, so that an unclosed quote does
    not swallow the good records behind it.
    """
    pushed_back: deque[str] = deque()
    line_number = 1
    while True:
        consumed: list[str] = []
        starts_with_pushed_back = bool(pushed_back)
        try:
            reader = csv.reader(_consume(pushed_back, lines, consumed), strict=True)
            fields = next(reader)
            # The end of a quoted field with a malformed beginning can look like a record.
            if starts_with_pushed_back and "".join(consumed).count('"') % 2:
                raise csv.Error("the end of a quoted field")
            _check_utf8("".join(fields))
            result: list[str] | Reject = fields
        except StopIteration:
            return
        except UnicodeError as error:
            result = Reject(f"expected UTF-8, got {error}", is_malformed=True)
        except csv.Error as error:
            result = Reject(f"expected CSV, got {first_line(error)}", is_malformed=True)
            pushed_back.extendleft(reversed(consumed[1:]))
            del consumed[1:]
        yield line_number, result
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
            features = Features.from_arrow_schema(file.schema_arrow)
            yield from read_batches(file.iter_batches(batch_size=BATCH_SIZE), features)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path}: expected a Parquet file, got {first_line(error)}") from None


def read_batches(batches: Iterable[Any], features: Mapping[str, Any]) -> NumberedRecords:
    """Yield the rows of Arrow tables or record batches with their indices from 0.

    A `ClassLabel` column `answerable` with the names "no" and "yes" is read by name, since it may number them
    the other way round than `FEATURES`.
    """
    label = features.get("answerable")
    names: list[str] = []
    if isinstance(label, ClassLabel) and set(label.names) == set(FEATURES["answerable"].names):
        names = label.names
    for index, record in enumerate(chain.from_iterable(map(_to_records, batches))):
        if names and not isinstance(record, Reject) and record["answerable"] is not None:
            record["answerable"] = names[record["answerable"]]
        yield index, record


def _to_records(batch: Any) -> Iterable[Any]:
    """Convert a batch to records, row by row if a text in it is not UTF-8."""
    try:
        return batch.to_pylist()
    except UnicodeDecodeError as error:
        if len(batch) == 1:
            return [Reject(f"expected UTF-8, got {error}", is_malformed=True)]
        return chain.from_iterable(_to_records(batch.slice(row, 1)) for row in range(len(batch)))


def _read_lines(path: Path) -> Iterator[str]:
    # Bytes that are not UTF-8 become surrogates here; `_check_utf8` detects them, line by line.
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="\n") as file:
            yield from file
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None


def _check_utf8(text: str) -> str:
    """Return the text; raise a `UnicodeError` if it holds surrogates of bytes that are not UTF-8."""
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("utf-8")
