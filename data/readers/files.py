"""Records of local files and of data sets, each with its number and under its own column names.

Text files are parsed here line by line, so that an error can name the line; everything else goes
through `datasets`.
"""

from __future__ import annotations

import csv
import json
import reprlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow.parquet
from datasets import ClassLabel, Dataset, Features, IterableDataset, load_dataset, load_from_disk

from crosstask.data.readers import corpora, squad
from crosstask.data.schema import FEATURES
from crosstask.utils.errors import DataError

Record = dict[str, Any]

BATCH = 100  # rows of a table that are in memory as Python's values at a time: passages may be long
MAX_CSV_LINES = 10_000  # of one record: where there are more, a quote was not closed

# The names under which other people's files and data sets have our splits.
SPLIT_NAMES = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}


@dataclass
class Part:
    """One split of a source as it lies there.

    Attributes:
        name: What messages call it.
        records: (number, record) pairs; the number is a line from 1 or an index from 0. A text in a record's
            place says why there is none: whoever reads decides whether that is an error or a reject.
        source: The `source` of rows that have none.
        stem: What the ids of rows without one begin with.
        unit: What the number counts, "line" or "index".
        untyped: True where numbers and null are text, as in CSV.
        is_rows: True where the records already are rows of the stage that was asked for, with the
            key `REJECT` where one is not to be kept.
    """

    name: str
    records: Iterable[tuple[int, Record | str]]
    source: str
    stem: str
    unit: str = "line"
    untyped: bool = False
    is_rows: bool = False


def read_file(path: Path) -> Part:
    """Read one file; its suffix says how.

    Args:
        path: A .jsonl, .csv or .parquet file of records, or the official .json of SQuAD or PubMedQA.

    Returns:
        The part. All but .json is read as its records are iterated, a piece at a time, and its errors come
        then.

    Raises:
        DataError: If the file is missing or of another kind.
    """
    if not path.exists():
        raise DataError(f"{path}: file not found")
    if path.suffix not in _READERS:
        raise DataError(f"{path}: expected a file that ends in {', '.join(_READERS)}")
    unit = "line" if path.suffix in (".jsonl", ".csv") else "index"
    records = _READERS[path.suffix](path)
    return Part(str(path), records, path.name, path.stem, unit, untyped=path.suffix == ".csv")


def read_folder(folder: Path, config_name: str | None = None) -> dict[str, Part]:
    """Read a folder that `save_to_disk` wrote, that holds one file a split, or that
    `datasets.load_dataset` understands.

    Args:
        folder: The folder.
        config_name: Which configuration of a data set folder; None for the only one.

    Returns:
        The parts by the names that the folder gives its splits.

    Raises:
        DataError: If the folder is none of these, or has two files for one split.
    """
    if (folder / "dataset_dict.json").exists() or (folder / "state.json").exists():
        return _load(load_from_disk, str(folder))
    files = [path for path in sorted(folder.iterdir()) if path.suffix in _READERS]
    # Sharded, nested or configured data sets have other names, and `datasets` knows them all.
    ours = bool(files) and all(path.stem in SPLIT_NAMES for path in files)
    if config_name is not None or not ours:
        return _load(load_dataset, str(folder), config_name)
    parts: dict[str, Part] = {}
    for path in files:
        split = SPLIT_NAMES[path.stem]
        if split in parts:
            raise DataError(
                f"{folder}: {Path(parts[split].name).name} and {path.name} are both the {split} "
                "split, expected one file a split"
            )
        parts[split] = read_file(path)
    return parts


def read_hub(name: str, config_name: str | None = None, streaming: bool = False) -> dict[str, Part]:
    """Read a data set of the Hub; arguments of `datasets.load_dataset`, parts by split name.

    Raises:
        DataError: If it does not exist, cannot be reached or cannot be read.
    """
    load = partial(load_dataset, streaming=True) if streaming else load_dataset
    return _load(load, name, config_name)


def read_jsonl(path: Path) -> Iterator[tuple[int, Record | str]]:
    """Yield (line number, object) of a JSON Lines file, with a reason where a line holds no object.

    Blank lines are no rows.

    Raises:
        DataError: If the file cannot be read.
    """
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(_decoded(line))
        except (ValueError, RecursionError) as error:
            got = _said(error)
            if isinstance(error, json.JSONDecodeError):  # whose own "line 1" would mislead
                got = f"{error.msg} at column {error.colno}"
            expected = "UTF-8" if isinstance(error, UnicodeError) else "a JSON object"
            yield number, f"expected {expected}, got {got}"
            continue
        if not isinstance(record, dict):
            record = f"expected a JSON object, got {reprlib.repr(record)}"
        yield number, record


def _read_csv(path: Path) -> Iterator[tuple[int, Record | str]]:
    csv.field_size_limit(2**31 - 1)  # the module's 128 KiB are less than a long passage
    records = _csv_records(_lines(path))
    _, header = next(records, (1, []))
    if isinstance(header, str):
        raise DataError(f"{path}, line 1: {header}")
    if len(set(header)) < len(header):
        raise DataError(f"{path}, line 1: expected each column once, got {', '.join(header)}")
    for line, fields in records:
        if isinstance(fields, str):
            yield line, fields
        elif fields and len(fields) != len(header):
            yield line, f"expected {len(header)} fields, got {len(fields)}"
        elif fields:
            yield line, dict(zip(header, fields, strict=True))


def _csv_records(source: Iterator[str]) -> Iterator[tuple[int, list[str] | str]]:
    """Yield (first line, fields or what is wrong with them): a quoted field may span lines.

    After a malformed record reading goes on at its second line, so that a quote which nobody closes does not
    swallow the good rows behind it.
    """
    again: deque[str] = deque()
    line = 1
    while True:
        taken: list[str] = []
        first_is_again = bool(again)
        try:
            fields: list[str] | str = next(csv.reader(_taking(again, source, taken), strict=True))
            # The end of a quoted field whose beginning was malformed can look like a row of its own.
            if first_is_again and "".join(taken).count('"') % 2:
                raise csv.Error("the end of a quoted field")
            _decoded("".join(fields))
        except StopIteration:
            return
        except UnicodeError as error:
            fields = f"expected UTF-8, got {error}"
        except csv.Error as error:
            fields = f"expected CSV, got {_said(error)}"
            again.extendleft(reversed(taken[1:]))
            del taken[1:]
        yield line, fields
        line += len(taken)


def _taking(again: deque[str], source: Iterator[str], taken: list[str]) -> Iterator[str]:
    for line in chain(iter(lambda: again.popleft() if again else None, None), source):
        taken.append(line)
        if len(taken) > MAX_CSV_LINES:
            raise csv.Error(f"a quote that is still open after {MAX_CSV_LINES} lines")
        yield line


def _read_parquet(path: Path) -> Iterator[tuple[int, Record | str]]:
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = _label_names(Features.from_arrow_schema(file.schema_arrow))
            yield from _records(file.iter_batches(batch_size=BATCH), names)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path}: expected a Parquet file, got {_said(error)}") from None


def _read_json(path: Path) -> Iterator[tuple[int, Record | str]]:
    try:
        document = json.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path}: expected SQuAD's JSON in UTF-8, got {_said(error)} (one object a line belongs in a "
            ".jsonl file)"
        ) from None
    if corpora.is_pubmedqa(document):
        return enumerate(corpora.flatten_pubmedqa(document))
    return enumerate(squad.flatten(document, str(path)))


_READERS: dict[str, Callable[[Path], Iterator[tuple[int, Record | str]]]] = {
    ".jsonl": read_jsonl,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
    ".json": _read_json,
}


def _load(load: Callable[..., Any], name: str, *arguments: Any) -> dict[str, Part]:
    try:
        loaded = load(name, *arguments)
    except Exception as error:  # whatever its many backends raise, the user gets one sentence
        reason = _said(error.__cause__ or error)
        raise DataError(f"{name}: cannot be read as a data set: {reason}") from error
    splits = loaded if isinstance(loaded, dict) else {"train": loaded}
    return {
        split: Part(f"{name}, split {split}", _table(dataset, name), name, split, "index")
        for split, dataset in splits.items()
    }


def _table(dataset: Dataset | IterableDataset, name: str) -> Iterator[tuple[int, Record | str]]:
    # Arrow's own values: no column that is dropped anyway gets decoded, no saved format matters.
    batches = dataset.with_format("arrow").iter(batch_size=BATCH)
    try:
        yield from _records(batches, _label_names(dataset.features or {}))
    except Exception as error:  # a stream raises here what `_load` would have raised
        reason = _said(error.__cause__ or error)
        raise DataError(f"{name}: cannot be read as a data set: {reason}") from error


def _label_names(features: Mapping[str, Any]) -> dict[int, str]:
    """The names of a data set's own labels, which may number the same two the other way round."""
    label = features.get("answerable")
    if isinstance(label, ClassLabel) and set(label.names) == set(FEATURES["answerable"].names):
        return dict(enumerate(label.names))
    return {}


def _records(batches: Iterable[Any], labels: dict[int, str]) -> Iterator[tuple[int, Record | str]]:
    index = 0
    for batch in batches:
        for record in _values(batch):
            if labels and isinstance(record, dict):
                record["answerable"] = labels.get(record["answerable"])
            yield index, record
            index += 1


def _values(batch: Any) -> Iterable[Record | str]:
    try:
        return batch.to_pylist()
    except UnicodeDecodeError as error:
        if len(batch) == 1:
            return [f"expected UTF-8, got {error}"]
        return chain.from_iterable(_values(batch.slice(row, 1)) for row in range(len(batch)))


def _lines(path: Path) -> Iterator[str]:
    # What is not UTF-8 is escaped, and found by `_decoded`, so that one bad line costs that line only.
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="\n") as file:
            yield from file
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None


def _decoded(text: str) -> str:
    """Raise a `UnicodeError` where a text has escaped bytes that are not UTF-8."""
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("utf-8")


def _said(error: BaseException) -> str:
    """The first line of what an error says: the whole of it may be a page."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
