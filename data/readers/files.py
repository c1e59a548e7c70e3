"""Find the parts of a source: a corpus that is read by its name, a file, a folder, or data on the Hub."""

from __future__ import annotations

import glob
import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from datasets import ClassLabel, Dataset, IterableDataset, load_dataset, load_from_disk

from crosstask.data.readers.corpus import Part
from crosstask.data.readers.excel import read_excel
from crosstask.data.readers.formats import (
    BATCH_SIZE,
    NumberedRecords,
    find_json_records,
    read_batches,
    read_csv,
    read_jsonl,
    read_parquet,
)
from crosstask.data.readers.opening import DEFAULT_TEXT_FORMAT, TextFormat, read_text, split_name
from crosstask.data.readers.registry import CORPORA
from crosstask.data.splits import SPLITS
from crosstask.utils.errors import DataError, first_line
from crosstask.utils.hub_names import is_path

logger = logging.getLogger(__name__)

Source = str | os.PathLike[str] | list[Any]

# The names that files and data sets give to the splits.
SPLIT_NAMES = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}
# A split within the longer name of a file, where `datasets` finds it, too.
_SPLIT_IN_NAME = re.compile(rf"(?<![a-z])({'|'.join(SPLIT_NAMES)})(?![a-z])")
UNTYPED_SUFFIXES = (".csv", ".tsv")
BINARY_SUFFIXES = (".parquet", ".xlsx")  # not read if they are compressed
SUFFIXES = (".jsonl", ".ndjson", ".json", *UNTYPED_SUFFIXES, *BINARY_SUFFIXES)


def find_parts(
    data: Source,
    stage: str,
    *,
    config_name: str | None = None,
    columns: Mapping[str, str] | None = None,
    options: Mapping[str, Any] | None = None,
    delimiter: str | None = None,
    encoding: str | None = None,
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
        raise DataError(f'{name_source(data)}: `options` are for "briefs", got {", ".join(options)}')
    text_format = TextFormat(delimiter, encoding)
    for corpus in CORPORA:
        if corpus.read_splits and data == corpus.name:
            if columns:
                raise DataError(f"{data}: expected no `columns`, since its columns are known")
            return corpus.read_splits(stage, options or {}), True
    if paths := list_paths(data):
        return _read_files(name_source(data), _group_by_split(name_source(data), paths), text_format), False
    assert not isinstance(data, list)
    path = Path(data).expanduser()
    if path.is_dir():
        parts = read_folder(path, config_name, text_format)
    elif path.exists() or isinstance(data, os.PathLike) or _looks_like_a_path(data):
        parts = {_find_split_of_file(path) or "train": read_file(path, text_format)}
    else:
        parts = read_hub(data, config_name, streaming)
    return _rename_splits(parts, data), False


def name_source(data: Source) -> str:
    """Return a source as messages name it."""
    return ", ".join(map(str, data)) if isinstance(data, list) else str(data)


def explain_held_out(data: Source) -> str:
    """Return the part of an error that says which name makes all rows of a source held-out ones, or ""."""
    paths = list_paths(data)
    folder = None
    if not paths and not isinstance(data, list):
        path = Path(data).expanduser()
        folder = path if path.is_dir() else None
        paths = _find_files(path) if folder else [path] if path.is_file() else []
    for path in paths:
        split = _find_split_of_file(path, folder)
        if split not in (None, "train"):
            name = path.relative_to(folder) if folder else path.name
            return f"; the name {name} means the split {split}, so rename it to train on its rows"
    return ""


def list_paths(data: Source) -> list[Path]:
    """Return the files of a list of paths and patterns, or of one pattern; none for any other source."""
    if not isinstance(data, list):
        if not re.search(r"[*?\[]", str(data)) or Path(data).expanduser().exists():
            return []
        data = [data]
    paths: list[Path] = []
    for item in data:
        path = Path(item).expanduser()
        matches = [path] if path.exists() else sorted(map(Path, glob.glob(str(path), recursive=True)))
        if not matches:
            raise DataError(
                f"{item}: no such file, expected the path of a file or a pattern such as rows_*.csv"
            )
        paths += [match for match in matches if match not in paths]
    return paths


def _looks_like_a_path(data: str) -> bool:
    # A Hub id may end in a version, e.g. "owner/corpus-v1.1", but not in a suffix.
    return is_path(data) or bool(re.search(r"\.[A-Za-z]\w*$", data))


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


def _find_split_of_file(path: Path, folder: Path | None = None) -> str | None:
    """Return the only split in the name of a file, e.g. "test" of my_test.csv, or `None`.

    If its name has none, the name of a subfolder of `folder` may be a split, e.g. "test" of test/part.csv.
    """
    stem = split_name(path)[0].lower()
    splits = {SPLIT_NAMES[name] for name in _SPLIT_IN_NAME.findall(stem)}
    if split := _find_split(stem) or (splits.pop() if len(splits) == 1 else None):
        return split
    parents = path.relative_to(folder).parts[:-1] if folder else ()
    return next(filter(None, map(_find_split, parents)), None)


def read_file(path: Path, text_format: TextFormat = DEFAULT_TEXT_FORMAT) -> Part:
    """Return the part of one file; its suffix tells the format.

    Args:
        path (`Path`):
            A file of records with a suffix of `SUFFIXES`, or the official .json of a corpus. A text file may
            be compressed, with a second suffix: .gz, .bz2, .xz or .zip.
        text_format ([`TextFormat`], *optional*):
            How a text file is written.

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
        records = read_jsonl(path, text_format.encoding)
    elif suffix == ".json":
        records, unit = _read_json(path, text_format.encoding)
    elif suffix == ".parquet":
        records, unit = read_parquet(path), "index"
    elif suffix == ".xlsx":
        records, unit = read_excel(path), "row"
    else:
        records = read_csv(path, text_format.delimiter, text_format.encoding)
    return Part(str(path), records, path.name, stem, unit, is_typed=suffix not in UNTYPED_SUFFIXES)


def _is_readable(path: Path) -> bool:
    suffix = split_name(path)[1]
    return suffix in SUFFIXES and (suffix not in BINARY_SUFFIXES or path.suffix.lower() == suffix)


def _read_json(path: Path, encoding: str | None) -> tuple[NumberedRecords, str]:
    """Return the records of a .json file, which may be JSON Lines, and the unit of their numbers."""
    formats = {corpus.title: corpus.json_format for corpus in CORPORA if corpus.json_format}
    forms = [f"that of {title} ({json_format.description})" for title, json_format in formats.items()]
    expected = f"a list of records, {' or '.join(forms)}"
    try:
        document = json.loads(read_text(path, encoding))
    except DataError:
        raise
    except UnicodeError as error:
        raise DataError(f"{path}: {error}") from None
    except (ValueError, RecursionError) as error:
        if isinstance(error, json.JSONDecodeError) and error.msg == "Extra data":
            if "\n" not in error.doc[: error.pos].strip():  # the first line is one object
                return read_jsonl(path, encoding), "line"
        raise DataError(
            f"{path}: expected JSON in {encoding or 'UTF-8'}, {expected}, got {first_line(error)} (a file "
            "with one object per line must end in .jsonl)"
        ) from None
    for json_format in formats.values():
        if json_format.matches(document):
            return enumerate(json_format.flatten(document)), "index"
    records = find_json_records(document)
    if records is None:
        keys = (
            f"; got the keys {', '.join(list(document)[:5])}"
            if document and isinstance(document, dict)
            else ""
        )
        raise DataError(f"{path}: expected JSON of a known form, {expected}{keys}")
    return records, "index"


def read_folder(
    folder: Path, config_name: str | None = None, text_format: TextFormat = DEFAULT_TEXT_FORMAT
) -> dict[str, Part]:
    """Return the parts of a folder, under the names that it gives its splits.

    Args:
        folder (`Path`):
            A folder that `save_to_disk` wrote; that has files or subfolders named after the splits
            ("train.jsonl", "my_dev.jsonl", "data/train-00000-of-00002.parquet", "test/part.csv") or files
            that are named after no split; or that `datasets.load_dataset` understands.
        config_name (`str`, *optional*):
            The configuration of a data set folder that has several.
        text_format ([`TextFormat`], *optional*):
            How its text files are written.

    Raises:
        DataError: If the folder is none of these, or has two files for one split, or some without a split.
    """
    if (folder / "dataset_dict.json").exists() or (folder / "state.json").exists():
        return _load(load_from_disk, str(folder))
    paths = _find_files(folder)
    files_by_split = _group_by_split(folder, paths, folder)
    card = folder / "README.md"
    has_configs = card.exists() and "\nconfigs:" in card.read_text(encoding="utf-8", errors="replace")
    is_plain = all(len(files) == 1 and files[0].parent == folder for files in files_by_split.values())
    names_no_split = not any(_find_split_of_file(path, folder) for path in paths)
    if config_name is not None or not paths or (has_configs and (names_no_split or not is_plain)):
        if any(split_name(path)[1] in UNTYPED_SUFFIXES for path in paths):
            logger.warning("%s: `datasets` guesses the types of its CSV files, so that 007 becomes 7", folder)
        return _load(load_dataset, str(folder), config_name)
    _warn_of_ignored(folder, paths)
    return _read_files(str(folder), files_by_split, text_format)


def _warn_of_ignored(folder: Path, paths: list[Path]) -> None:
    """Log what lies beside the files that are read, except for hidden files, texts without suffix and .md."""
    if ignored := [str(path.relative_to(folder)) for path in _list_ignored(folder, paths)]:
        logger.warning("%s: ignored %s", folder, ", ".join(ignored))


def _list_ignored(folder: Path, paths: list[Path]) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path in paths or _is_hidden(path):
            continue
        if path.is_dir() and any(path in read.parents for read in paths):
            yield from _list_ignored(path, paths)
        elif path.is_dir() or path.suffix not in ("", ".md"):
            yield path


def _find_files(folder: Path) -> list[Path]:
    """Return the files of a folder that are read: at its top, in its subfolder "data", or anywhere in it."""
    if paths := _list_files(folder) or _list_files(folder / "data"):
        return paths
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and _is_readable(path)
        and not any(map(_is_hidden, (path, *path.relative_to(folder).parents)))
    ]


def _list_files(folder: Path) -> list[Path]:
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    return [path for path in paths if path.is_file() and _is_readable(path) and not _is_hidden(path)]


def _is_hidden(path: Path) -> bool:
    """Return whether a file or folder is hidden, or the lock that Office puts beside an open file."""
    return path.name.startswith((".", "~$"))


def _group_by_split(
    source: str | os.PathLike[str], paths: list[Path], folder: Path | None = None
) -> dict[str, list[Path]]:
    """Return the files of each split; files without a split in their names are all "train".

    Raises:
        DataError: If two files are one split, or if only some of the files have a split in their names.
    """
    groups: dict[str, list[Path]] = {}
    for path in paths:
        groups.setdefault(_find_split_of_file(path, folder) or "", []).append(path)
    unnamed = groups.pop("", [])
    for split, files in groups.items():
        for path in files:
            same = [other for other in files if other.parent == path.parent and other != path]
            if split_name(path)[0].lower() in SPLIT_NAMES and same:
                names = f"{path.name} and {same[0].name}"
                raise DataError(f"{source}: {names} are both the {split} split, expected one file per split")
    if unnamed and groups:
        names = ", ".join(path.name for path in unnamed)
        raise DataError(
            f"{source}: {names} belong to no split, expected all files or none to be named after one, such "
            "as train.csv and test.csv"
        )
    return groups or ({"train": unnamed} if unnamed else {})


def _read_files(
    source: str, files_by_split: Mapping[str, list[Path]], text_format: TextFormat
) -> dict[str, Part]:
    """Return the part of each split, in the order of `SPLITS`; a split may lie in several files."""
    parts = {}
    for split in SPLITS:
        files = [read_file(path, text_format) for path in files_by_split.get(split, [])]
        if len(files) == 1:
            parts[split] = files[0]
        elif files:
            parts[split] = Part(f"{source}, split {split}", files=files)
    return parts


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
