"""Find the parts of a source: a corpus that is read by its name, a file, a folder, or data on the Hub."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from datasets import Dataset, IterableDataset, load_dataset, load_from_disk

from crosstask.data.readers.corpus import Part
from crosstask.data.readers.formats import (
    BATCH_SIZE,
    NumberedRecords,
    read_batches,
    read_csv,
    read_jsonl,
    read_parquet,
)
from crosstask.data.readers.registry import CORPORA
from crosstask.data.splits import SPLITS
from crosstask.utils.errors import DataError, first_line

logger = logging.getLogger(__name__)

# The names that files and data sets give to the splits.
SPLIT_NAMES = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}


def find_parts(
    data: str | os.PathLike[str],
    stage: str,
    *,
    config_name: str | None = None,
    columns: Mapping[str, str] | None = None,
    options: Mapping[str, Any] | None = None,
    streaming: bool = False,
) -> tuple[dict[str, Part], bool]:
    """Find the parts of a source by split; the arguments are those of `read_rows`.

    Returns:
        `tuple[dict[str, Part], bool]`: The parts, and whether the source has all of its splits, so that none
        is to be carved from another.

    Raises:
        DataError: If the source is missing, cannot be read, or does not take the arguments.
    """
    if options and data != "briefs":
        raise DataError(f'{data}: `options` are for "briefs", got {", ".join(options)}')
    for corpus in CORPORA:
        if corpus.read_splits and data == corpus.name:
            if columns:
                raise DataError(f"{data}: expected no `columns`, since its columns are known")
            return corpus.read_splits(stage, options or {}), True
    path = Path(data).expanduser()
    if path.is_dir():
        parts = read_folder(path, config_name)
    elif path.exists() or isinstance(data, os.PathLike) or _looks_like_a_path(data):
        parts = {"train": read_file(path)}
    else:
        parts = read_hub(data, config_name, streaming)
    return _rename_splits(parts, data), False


def _looks_like_a_path(data: str) -> bool:
    # A Hub id has at most one slash and may end in a version, e.g. "owner/corpus-v1.1".
    return bool(re.match(r"[./~]", data) or re.search(r"\.[A-Za-z]\w*$|/.*/|\\", data))


def _rename_splits(parts: dict[str, Part], data: Any) -> dict[str, Part]:
    """Return the parts under the names in `SPLITS`, in their order; a single part is "train"."""
    if len(parts) == 1:
        return {"train": next(iter(parts.values()))}
    names = ", ".join(parts)
    renamed: dict[str, Part] = {}
    for name, part in parts.items():
        split = SPLIT_NAMES.get(name)
        if split in renamed:
            raise DataError(f"{data}: has the splits {names}, expected one {split} split")
        if split is not None:
            renamed[split] = part
    if not renamed:
        raise DataError(f"{data}: has the splits {names}, expected {', '.join(SPLITS)}")
    if ignored := [name for name in parts if name not in SPLIT_NAMES]:
        logger.warning("%s: ignored the splits %s", data, ", ".join(ignored))
    return {split: renamed[split] for split in SPLITS if split in renamed}


def read_file(path: Path) -> Part:
    """Return the part of one file; its suffix tells the format.

    Args:
        path (`Path`):
            A .jsonl, .csv or .parquet file of records, or the official .json of a corpus.

    Returns:
        [`Part`]: The part. The file is read, and its errors are raised, while the records are iterated. A
        .json file is read at once.

    Raises:
        DataError: If the file is missing or of another format.
    """
    if not path.exists():
        raise DataError(f"{path}: file not found")
    if path.suffix not in _READERS:
        raise DataError(f"{path}: expected a file that ends in {', '.join(_READERS)}")
    unit = "line" if path.suffix in (".jsonl", ".csv") else "index"
    return Part(str(path), _READERS[path.suffix](path), path.name, path.stem, unit)


def _read_official_json(path: Path) -> NumberedRecords:
    formats = {corpus.title: corpus.json_format for corpus in CORPORA if corpus.json_format}
    expected = " or ".join(f"that of {title} ({form.description})" for title, form in formats.items())
    try:
        document = json.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path}: expected JSON in UTF-8, {expected}, got {first_line(error)} (a file with one object "
            "per line must end in .jsonl)"
        ) from None
    for json_format in formats.values():
        if json_format.matches(document):
            return enumerate(json_format.flatten(document))
    raise DataError(f"{path}: expected JSON of a known form, {expected}")


_READERS: dict[str, Callable[[Path], NumberedRecords]] = {
    ".jsonl": read_jsonl,
    ".csv": read_csv,
    ".parquet": read_parquet,
    ".json": _read_official_json,
}


def read_folder(folder: Path, config_name: str | None = None) -> dict[str, Part]:
    """Return the parts of a folder, under the names that it gives its splits.

    Args:
        folder (`Path`):
            A folder that `save_to_disk` wrote, that has one file per split ("train.jsonl", "dev.jsonl"), or
            that `datasets.load_dataset` understands.
        config_name (`str`, *optional*):
            The configuration of a data set folder that has several.

    Raises:
        DataError: If the folder is none of these, or has two files for one split.
    """
    if (folder / "dataset_dict.json").exists() or (folder / "state.json").exists():
        return _load(load_from_disk, str(folder))
    paths = [path for path in sorted(folder.iterdir()) if path.suffix in _READERS]
    # Sharded, nested or configured data sets have other file names, and `datasets` knows them all.
    has_one_file_per_split = bool(paths) and all(path.stem in SPLIT_NAMES for path in paths)
    if config_name is not None or not has_one_file_per_split:
        return _load(load_dataset, str(folder), config_name)
    path_by_split: dict[str, Path] = {}
    for path in paths:
        split = SPLIT_NAMES[path.stem]
        if split in path_by_split:
            names = f"{path_by_split[split].name} and {path.name}"
            raise DataError(f"{folder}: {names} are both the {split} split, expected one file per split")
        path_by_split[split] = path
    return {split: read_file(path) for split, path in path_by_split.items()}


def read_hub(name: str, config_name: str | None = None, streaming: bool = False) -> dict[str, Part]:
    """Return the parts of a data set on the Hub by split; the arguments are those of `datasets.load_dataset`.

    Raises:
        DataError: If it does not exist, cannot be reached or cannot be read.
    """
    load = partial(load_dataset, streaming=True) if streaming else load_dataset
    return _load(load, name, config_name)


def _load(load: Callable[..., Any], name: str, *arguments: Any) -> dict[str, Part]:
    try:
        loaded = load(name, *arguments)
    except Exception as error:  # the backends of `datasets` raise errors of many types
        raise _loading_error(name, error) from error
    splits = loaded if isinstance(loaded, dict) else {"train": loaded}
    return {
        split: Part(f"{name}, split {split}", _read_dataset(dataset, name), name, split, "index")
        for split, dataset in splits.items()
    }


def _read_dataset(dataset: Dataset | IterableDataset, name: str) -> NumberedRecords:
    # As Arrow tables, whatever format was saved, and without decoding columns that are dropped anyway.
    batches = dataset.with_format("arrow").iter(batch_size=BATCH_SIZE)
    try:
        yield from read_batches(batches, dataset.features or {})
    except Exception as error:  # a stream raises here what `load_dataset` would have raised
        raise _loading_error(name, error) from error


def _loading_error(name: str, error: Exception) -> DataError:
    reason = first_line(error.__cause__ or error)
    return DataError(f"{name}: cannot be read as a data set: {reason}")
