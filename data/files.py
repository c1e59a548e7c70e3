"""Records of local files and of data sets, each with its number and under its own column names.

Text files are parsed here line by line, so that an error can name the line; everything else goes
through `datasets`.
"""

from __future__ import annotations

import csv
import json
import reprlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow.parquet
from datasets import ClassLabel, Dataset, DatasetDict, load_dataset, load_from_disk

from crosstask.data import squad
from crosstask.data.schema import FEATURES, DataError

Record = dict[str, Any]

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
        records: (number, record) pairs; the number is a line from 1 or an index from 0.
        source: The `source` of rows that have none.
        stem: What the ids of rows without one begin with.
        unit: What the number counts, "line" or "index".
        untyped: True where numbers and null are text, as in CSV.
        is_rows: True where the records already are rows of the stage that was asked for, with the
            key `REJECT` where one is not to be kept.
    """

    name: str
    records: Iterable[tuple[int, Record]]
    source: str
    stem: str
    unit: str = "line"
    untyped: bool = False
    is_rows: bool = False


def read_file(path: Path) -> Part:
    """Read one file; its suffix says how.

    Args:
        path: A .jsonl, .csv or .parquet file of records, or SQuAD's official .json.

    Returns:
        The part; JSONL and CSV are read as its records are iterated, and their errors come then.

    Raises:
        DataError: If the file is missing, of another kind or malformed.
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


def read_hub(name: str, config_name: str | None = None) -> dict[str, Part]:
    """Read a data set of the Hub; arguments of `datasets.load_dataset`, parts by split name.

    Raises:
        DataError: If it does not exist, cannot be reached or cannot be read.
    """
    return _load(load_dataset, name, config_name)


def read_jsonl(path: Path) -> Iterator[tuple[int, Record]]:
    """Yield (line number, object) of a JSON Lines file; blank lines are no rows.

    Raises:
        DataError: If the file cannot be opened or a line is not a JSON object in UTF-8.
    """
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            got = _said(error)
            if isinstance(error, json.JSONDecodeError):  # whose own "line 1" would mislead
                got = f"{error.msg} at column {error.colno}"
            raise DataError(f"{where}: expected a JSON object, got {got}") from None
        if not isinstance(record, dict):
            raise DataError(f"{where}: expected a JSON object, got {reprlib.repr(record)}")
        yield number, record


def _read_csv(path: Path) -> Iterator[tuple[int, Record]]:
    csv.field_size_limit(2**31 - 1)  # the module's 128 KiB are less than a long passage
    reader = csv.reader(_lines(path), strict=True)
    line = 1
    try:
        header = next(reader, [])
        if len(set(header)) < len(header):
            raise DataError(f"{path}, line 1: expected each column once, got {', '.join(header)}")
        line = reader.line_num + 1
        for fields in reader:
            if fields and len(fields) != len(header):
                counts = f"expected {len(header)} fields, got {len(fields)}"
                raise DataError(f"{path}, line {line}: {counts}")
            if fields:
                yield line, dict(zip(header, fields, strict=True))
            line = reader.line_num + 1  # a quoted field may span lines: a row's first is named
    except csv.Error as error:
        raise DataError(f"{path}, line {line}: expected CSV, got {_said(error)}") from None


def _read_parquet(path: Path) -> Iterator[tuple[int, Record]]:
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            dataset = Dataset(file.read())
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path}: expected a Parquet file, got {_said(error)}") from None
    return _records(dataset)


def _read_squad(path: Path) -> Iterator[tuple[int, Record]]:
    with _open(path) as file:
        try:
            document = json.loads(file.read().decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{path}: expected SQuAD's JSON in UTF-8, got {_said(error)} (one object a line "
                "belongs in a .jsonl file)"
            ) from None
    return enumerate(squad.flatten(document, str(path)))


_READERS: dict[str, Callable[[Path], Iterator[tuple[int, Record]]]] = {
    ".jsonl": read_jsonl,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
    ".json": _read_squad,
}


def _load(load: Callable[..., Any], name: str, *arguments: Any) -> dict[str, Part]:
    try:
        loaded = load(name, *arguments)
    except Exception as error:  # whatever its many backends raise, the user gets one sentence
        reason = _said(error.__cause__ or error)
        raise DataError(f"{name}: cannot be read as a data set: {reason}") from error
    splits = loaded if isinstance(loaded, DatasetDict) else {"train": loaded}
    return {
        split: Part(f"{name}, split {split}", _records(dataset), name, split, "index")
        for split, dataset in splits.items()
    }


def _records(dataset: Dataset) -> Iterator[tuple[int, Record]]:
    label = dataset.features.get("answerable")
    names: dict[int, str] = {}
    if isinstance(label, ClassLabel) and set(label.names) == set(FEATURES["answerable"].names):
        # Another data set may number the same two names the other way round: names are safe.
        names = dict(enumerate(label.names))
    # Arrow's own values: no column that is dropped anyway gets decoded, no saved format matters.
    batches = dataset.with_format("arrow").iter(batch_size=1000)
    for index, record in enumerate(chain.from_iterable(batch.to_pylist() for batch in batches)):
        if names:
            record["answerable"] = names.get(record["answerable"])
        yield index, record


def _lines(path: Path) -> Iterator[str]:
    # Each line is decoded by itself, so that an error of encoding names it like any other.
    with _open(path) as file:
        for number, line in enumerate(file, start=1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise DataError(f"{path}, line {number}: expected UTF-8, got {error}") from None
            yield text


def _open(path: Path) -> BinaryIO:
    try:
        return open(path, "rb")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None


def _said(error: BaseException) -> str:
    """The first line of what an error says: the whole of it may be a page."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
