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

from datasets import ClassLabel, Dataset, IterableDataset, load_dataset, load_from_disk

from crosstask.data.readers.corpus import Part
from crosstask.data.readers.formats import (
    BATCH_SIZE,
    NumberedRecords,
    find_json_records,
    read_batches,
    read_csv,
    read_jsonl,
    read_parquet,
)
from crosstask.data.readers.opening import read_text, split_name
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
# A split within a longer name, where `datasets` finds it, too.
_SPLIT_IN_NAME = re.compile(rf"(?<![a-z])({'|'.join(SPLIT_NAMES)})(?![a-z])")
UNTYPED_SUFFIXES = (".csv", ".tsv")
SUFFIXES = (".jsonl", ".ndjson", ".json", *UNTYPED_SUFFIXES, ".parquet")


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
        parts = {split_name(path)[0]: read_file(path)}
    else:
        parts = read_hub(data, config_name, streaming)
    return _rename_splits(parts, data), False


def _looks_like_a_path(data: str) -> bool:
    # A Hub id has at most one slash and may end in a version, e.g. "owner/corpus-v1.1".
    return bool(re.match(r"[./~]", data) or re.search(r"\.[A-Za-z]\w*$|/.*/|\\", data))


def _rename_splits(parts: dict[str, Part], data: Any) -> dict[str, Part]:
    """Return the parts under the names in `SPLITS`, in their order; one part of another name is "train"."""
    if len(parts) == 1:
        return {_find_split(name) or "train": part for name, part in parts.items()}
    names = ", ".join(parts)
    renamed: dict[str, Part] = {}
    for name, part in parts.items():
        split = _find_split(name)
        if split in renamed:
            raise DataError(f"{data}: has the splits {names}, expected one {split} split")
        if split is not None:
            renamed[split] = part
    if not renamed:
        raise DataError(f"{data}: has the splits {names}, expected {', '.join(SPLITS)}")
    if ignored := [name for name in parts if not _find_split(name)]:
        logger.warning("%s: ignored the splits %s", data, ", ".join(ignored))
    return {split: renamed[split] for split in SPLITS if split in renamed}


def _find_split(name: str) -> str | None:
    """Return the split with this name or of the file with this stem, e.g. "test-00000-of-00002"."""
    return SPLIT_NAMES.get(re.sub(r"-\d+(-of-\d+)?$", "", name.lower()))


def read_file(path: Path) -> Part:
    """Return the part of one file; its suffix tells the format.

    Args:
        path (`Path`):
            A file of records with a suffix of `SUFFIXES`, or the official .json of a corpus. All but .parquet
            may be compressed, with a second suffix: .gz, .bz2, .xz or .zip.

    Returns:
        [`Part`]: The part. The file is read, and its errors are raised, while the records are iterated. A
        .json file is read at once.

    Raises:
        DataError: If the file is missing or of another format.
    """
    if not path.exists():
        raise DataError(f"{path}: file not found")
    stem, suffix = split_name(path)
    if not _is_readable(path):
        raise DataError(f"{path}: expected a file that ends in {', '.join(SUFFIXES)}")
    unit = "line"
    if suffix in (".jsonl", ".ndjson"):
        records = read_jsonl(path)
    elif suffix == ".json":
        records, unit = _read_json(path)
    elif suffix == ".parquet":
        records, unit = read_parquet(path), "index"
    else:
        records = read_csv(path, delimiter="," if suffix == ".csv" else "\t")
    return Part(str(path), records, path.name, stem, unit, is_typed=suffix not in UNTYPED_SUFFIXES)


def _is_readable(path: Path) -> bool:
    suffix = split_name(path)[1]
    return suffix in SUFFIXES and (suffix != ".parquet" or path.suffix.lower() == ".parquet")


def _read_json(path: Path) -> tuple[NumberedRecords, str]:
    """Return the records of a .json file, which may be JSON Lines, and the unit of their numbers."""
    formats = {corpus.title: corpus.json_format for corpus in CORPORA if corpus.json_format}
    forms = [f"that of {title} ({json_format.description})" for title, json_format in formats.items()]
    expected = f"a list of records, {' or '.join(forms)}"
    try:
        document = json.loads(read_text(path))
    except DataError:
        raise
    except (ValueError, RecursionError) as error:
        if isinstance(error, json.JSONDecodeError) and error.msg == "Extra data":
            if "\n" not in error.doc[: error.pos].strip():  # the first line is one object
                return read_jsonl(path), "line"
        raise DataError(
            f"{path}: expected JSON in UTF-8, {expected}, got {first_line(error)} (a file with one object "
            "per line must end in .jsonl)"
        ) from None
    for json_format in formats.values():
        if json_format.matches(document):
            return enumerate(json_format.flatten(document)), "index"
    records = find_json_records(document)
    if records is None:
        raise DataError(f"{path}: expected JSON of a known form, {expected}")
    return records, "index"


def read_folder(folder: Path, config_name: str | None = None) -> dict[str, Part]:
    """Return the parts of a folder, under the names that it gives its splits.

    Args:
        folder (`Path`):
            A folder that `save_to_disk` wrote, that has one file per split ("train.jsonl", "dev.jsonl"),
            numbered files ("data/train-00000-of-00002.parquet"), or files that are named after no split, or
            that `datasets.load_dataset` understands.
        config_name (`str`, *optional*):
            The configuration of a data set folder that has several.

    Raises:
        DataError: If the folder is none of these, or has two files for one split, or some without a split.
    """
    if (folder / "dataset_dict.json").exists() or (folder / "state.json").exists():
        return _load(load_from_disk, str(folder))
    paths = _list_files(folder) or _list_files(folder / "data")
    if len(paths) == 1 and not any(path.is_dir() for path in folder.iterdir()):
        path_by_split = {split_name(paths[0])[0]: paths}
    else:
        path_by_split = _group_by_split(folder, paths)
    # Nested or configured data sets have other layouts, and `datasets` knows them all.
    if config_name is not None or not path_by_split:
        return _load(load_dataset, str(folder), config_name)
    _warn_of_ignored(folder, [path for files in path_by_split.values() for path in files])
    return {
        split: read_file(paths[0]) if len(paths) == 1 else _read_numbered_files(folder, split, paths)
        for split, paths in path_by_split.items()
    }


def _warn_of_ignored(folder: Path, read: list[Path]) -> None:
    """Log what lies beside the files that are read, except for hidden files, texts without suffix and .md."""
    ignored = [
        path.name
        for path in sorted(folder.iterdir())
        if path.parent == read[0].parent
        and path not in read
        and not path.name.startswith(".")
        and (path.is_dir() or path.suffix not in ("", ".md"))
    ]
    if ignored:
        logger.warning("%s: ignored %s", folder, ", ".join(ignored))


def _list_files(folder: Path) -> list[Path]:
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    return [path for path in paths if path.is_file() and _is_readable(path)]


def _group_by_split(folder: Path, paths: list[Path]) -> dict[str, list[Path]]:
    """
    Return the files of each split, or none if `datasets` has to find them: by the configurations of a card,
    in subfolders, or by longer names ("my_train.csv"). Files without a split in their names are all "train".

    Raises:
        DataError: If two files are one split, or if only some of the files have a split in their names.
    """
    groups: dict[str, list[Path]] = {}
    unnamed = []
    for path in paths:
        stem = split_name(path)[0]
        split = _find_split(stem)
        if split is None:
            unnamed.append(path)
            continue
        files = groups.setdefault(split, [])
        if files and stem.lower() in SPLIT_NAMES:
            names = f"{files[0].name} and {path.name}"
            raise DataError(f"{folder}: {names} are both the {split} split, expected one file per split")
        files.append(path)
    card = folder / "README.md"
    is_numbered = any(len(files) > 1 or files[0].parent != folder for files in groups.values())
    has_configs = card.exists() and "\nconfigs:" in card.read_text(encoding="utf-8", errors="replace")
    has_subfolders = any(path.is_dir() for path in folder.iterdir())
    if has_configs and (is_numbered or unnamed) or (has_subfolders and not groups):
        return {}
    # `datasets` would ignore the files of no split without a word.
    without_split = [path.name for path in unnamed if not _SPLIT_IN_NAME.search(split_name(path)[0].lower())]
    if without_split and (groups or len(without_split) < len(unnamed)):
        raise DataError(
            f"{folder}: {', '.join(without_split)} belong to no split, expected all files or none to be "
            "named after one, such as train.csv and test.csv"
        )
    return groups or ({"train": unnamed} if without_split else {})


def _read_numbered_files(folder: Path, split: str, paths: list[Path]) -> Part:
    """Return the part of a split that lies in several files; its records are numbered across the files."""
    parts = (read_file(path) for path in paths)
    records = enumerate(record for part in parts for _, record in part.records)
    is_typed = not any(split_name(path)[1] in UNTYPED_SUFFIXES for path in paths)
    return Part(f"{folder}, split {split}", records, str(folder), split, "index", is_typed=is_typed)


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
        features = dataset.features or {}
        yield from read_batches(
            batches, {column: kind.names for column, kind in features.items() if isinstance(kind, ClassLabel)}
        )
    except Exception as error:  # a stream raises here what `load_dataset` would have raised
        raise _loading_error(name, error) from error


def _loading_error(name: str, error: Exception) -> DataError:
    reason = first_line(error.__cause__ or error)
    return DataError(f"{name}: cannot be read as a data set: {reason}")
