"""Read rows from files, folders, the Hub, known corpora and the built-in generator.

The path of a row, in the order of the calls:

1. `files.find_parts` opens the source and returns one `Part` per split, whose records are read one at a time
   (`opening` decompresses and decodes text files; `formats` parses JSON, JSONL, CSV and Parquet). A `Reject`
   stands in for a record that cannot be parsed.
2. `rows.make_rows` converts each record to rows: by the `make_rows` of the `Corpus` that has its columns, or
   by the user's names for the columns. `registry.CORPORA` lists the corpora, one file each.
3. `schema.check_row` checks each row, and repeated rows and ids are detected. A row that fails is rejected;
   without lenience, a malformed one raises a `DataError` that names the file and the line or row. It is an
   error, too, if most rows are rejected for one reason.
4. `read_rows` collects the rows of each part in a `Dataset` (or streams them), and splits train by passage if
   the source has no validation or test split. `iter_rows` yields them one at a time.
"""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import combinations
from typing import Any

from datasets import Dataset, DatasetDict, IterableDataset, IterableDatasetDict, concatenate_datasets

from crosstask.data.readers.briefs import OPTIONS
from crosstask.data.readers.corpus import Part, Row
from crosstask.data.readers.files import Source, find_parts, name_source
from crosstask.data.readers.rows import Lenience, count_reasons, is_inverted, make_rows
from crosstask.data.schema import FEATURES, TEXT_COLUMNS, check_keys, check_stage
from crosstask.data.splits import SPLITS, assign_split, hash_passage, split_by_passage
from crosstask.utils.errors import DataError
from crosstask.utils.files import replace_file
from crosstask.utils.logs import warn_once

logger = logging.getLogger(__name__)

# Characters of text per chunk of a table: a column of Arrow strings holds up to 2 GiB per chunk, and a
# character takes up to 4 bytes. Larger splits have several chunks.
MAX_CHUNK_CHARS = 2**28


def read_rows(
    data: Source,
    stage: str,
    *,
    config_name: str | None = None,
    columns: Mapping[str, str] | None = None,
    options: Mapping[str, Any] | None = None,
    delimiter: str | None = None,
    encoding: str | None = None,
    shares: Mapping[str, float] | None = None,
    rejects: list[dict[str, Any]] | None = None,
    streaming: bool = False,
) -> DatasetDict | IterableDatasetDict:
    """Read the rows of a training stage.

    The splits are those of the source; "val", "valid" and "dev" are read as "validation". Missing splits are
    carved from train by passage, so that no passage is in two splits:

    - A source with one split is divided into train, validation and test, by `shares`. If it is a held-out
      split by its name ("test.csv", "my_dev.jsonl"), all of its rows are test rows.
    - A source with train and one other split (SQuAD 2.0 has train and validation) uses that split as test,
      and validation is carved from train.
    - Nothing is carved from "briefs" and "aclsum", or if there is no train split.

    Columns that the stage does not need (see `STAGE_COLUMNS`) get defaults: `id` is "<file stem>:<line>",
    `source` the name of the file, texts are "", and the label is null. Stage "fuse" needs no column `answer`
    and no column `answerable`. A null or NaN text is read as "", and a number as id or answer as text. Rows
    that repeat an id get ids of their own. Labels are read in the spellings of [`to_label`], and those of a
    `ClassLabel` column by the names of its classes. A row with another label is rejected.

    Rows with all columns of stage "fuse" serve the other stages, too: "summarize" takes the distinct
    summaries that are not labeled 0, and "answer" takes the distinct questions and answers. In stage "answer"
    the label is 0 if there is no answer, and null otherwise.

    Args:
        data (`str`, `os.PathLike` or a list of them):
            One of the following, or several files as a list or a pattern such as "rows_*.csv":

            - "briefs", the built-in generator, or "aclsum", the papers of the package `aclsum` (write
              "./briefs" for a folder of that name);
            - the path of a folder, of a .jsonl, .ndjson, .json, .csv, .tsv, .xlsx or .parquet file, or of the
              official .json of SQuAD or PubMedQA. Text files may be compressed (.gz, .bz2, .xz, .zip), and in
              UTF-16 with a byte order mark. A CSV file may be separated by semicolons, tabs or vertical bars.
              An .xlsx file is read with `openpyxl` (`pip install "crosstask[excel]"`);
            - the id of a data set on the Hub.

            Without `columns`, the records of the corpora in `crosstask.data.readers.registry` are recognized
            by their columns. A corpus serves some stages only, SQuAD just "answer", unless somebody added a
            column `summary` to it.
        stage (`str`):
            "summarize", "answer" or "fuse", "build" to build a data set, or "ask" for passages and questions.
        config_name (`str`, *optional*):
            The configuration of a data set folder or data set on the Hub, such as "3.0.0".
        columns (`Mapping[str, str]`, *optional*):
            Names in the schema to names in the file, such as `{"passage": "article"}`. Columns that are not
            named keep their names; columns that the schema does not have are dropped.
        options (`Mapping[str, Any]`, *optional*):
            For "briefs" only: `passages` (the number of passages by split; 4000, 200 and 300), and `seed`,
            `questions`, `matching`, `domain` and `words` of `crosstask.data.briefs.generate`.
        delimiter (`str`, *optional*):
            The character between two fields of a CSV file; by default, the header tells it.
        encoding (`str`, *optional*):
            The encoding of text files without a byte order mark, such as "cp1252"; UTF-8 by default.
        shares (`Mapping[str, float]`, *optional*):
            The shares of the passages that are carved from train, such as `{"validation": 0.1, "test": 0.2}`.
            By default each is 0.05, but at least 10 passages, or a fifth of the passages if 10 are more.
        rejects (`list`, *optional*):
            Rejected rows are appended to this list, as dicts of `source`, `line`, `row` or `index`, `id` and
            `reason`. A line of JSONL or CSV and a row of .xlsx count from 1, an index from 0. Without the
            list, a warning tells how many rows were rejected.
        streaming (`bool`, *optional*, defaults to `False`):
            Whether to read while iterating, in memory that does not grow with the number of rows. Each split
            reads the source anew. Splits are carved by the hash of the passage alone (see `assign_split`), so
            a split of a source with few passages may be empty.

    Returns:
        `DatasetDict` or `IterableDatasetDict`: The splits, among train, validation and test, with the columns
        `FEATURES`. Without `streaming` each split has at least one row.

    Raises:
        DataError: If the source or a row is malformed. The message names the file and the line or row, and
            arguments as recipes do: `data_columns` is `columns`.
    """
    _check_arguments(stage, columns, options, shares)
    source: dict[str, Any] = {"config_name": config_name, "columns": columns, "options": options}
    source |= {"delimiter": delimiter, "encoding": encoding}
    if streaming:
        if rejects is not None:
            raise ValueError(
                "rejects: cannot be collected with streaming, which reads the source again in each epoch"
            )
        return _stream_rows(data, stage, source, shares)
    parts, is_complete = find_parts(data, stage, **source)
    rejected: list[dict[str, Any]] = []
    try:
        tables = {split: _to_dataset(part, stage, columns, rejected.append) for split, part in parts.items()}
    finally:  # the rejects may explain an error
        if rejects is not None:
            rejects.extend(rejected)
        elif rejected:
            _warn_of_rejects(data, Counter(reject["reason"] for reject in rejected))
    part_names, carved_shares = _plan_splits(parts, is_complete, shares)
    if len(parts) > 1:
        _warn_of_shared_passages(data, tables)
    if carved_shares is None:
        return DatasetDict({split: tables[name] for split, name in part_names.items()})
    try:
        carved = split_by_passage(tables["train"], **carved_shares)
    except DataError as error:
        raise DataError(f"{name_source(data)}: {error}") from None
    return DatasetDict(
        {split: carved[split] if name == "train" else tables[name] for split, name in part_names.items()}
    )


def iter_rows(
    data: Source,
    stage: str,
    *,
    config_name: str | None = None,
    columns: Mapping[str, str] | None = None,
    options: Mapping[str, Any] | None = None,
    delimiter: str | None = None,
    encoding: str | None = None,
    reject: Callable[[dict[str, Any]], None],
    extractive: bool = False,
    max_passage_chars: int = 1_000_000,
) -> Iterator[tuple[str | None, dict[str, Any], Row]]:
    """Yield the rows of a source one at a time, and reject malformed records instead of raising an error.

    A malformed record is a line that is cut off or not UTF-8, a wrong type, a missing column, an unknown
    label, a ragged CSV row and the like. Every record is either yielded or rejected; the rows of a record
    with several questions are yielded or rejected one by one. Rows with a NUL character are rejected, too.

    To detect repetitions, two hashes are kept per row of a split. Files are read piece by piece, and data
    sets of the Hub are streamed; only an official .json is read at once.

    Args:
        data (`str`, `os.PathLike` or a list of them):
            As in [`read_rows`].
        stage (`str`):
            A key of `STAGE_COLUMNS`.
        config_name (`str`, *optional*):
            As in [`read_rows`].
        columns (`Mapping[str, str]`, *optional*):
            As in [`read_rows`].
        options (`Mapping[str, Any]`, *optional*):
            As in [`read_rows`].
        delimiter (`str`, *optional*):
            As in [`read_rows`].
        encoding (`str`, *optional*):
            As in [`read_rows`].
        reject (`Callable[[dict], None]`):
            Called once with each rejected record or row, in the form that [`read_rows`] describes.
        extractive (`bool`, *optional*, defaults to `False`):
            Whether to reject rows with an answer that is not in the passage (ignoring case and white space).
            SQuAD's rows are always checked, since each answer was marked in the passage.
        max_passage_chars (`int`, *optional*, defaults to 1,000,000):
            Rows with a longer passage are rejected.

    Yields:
        `tuple[str | None, dict, dict]`: The split as the source has it, or `None` if it has only one, which
        is then to be split (see `assign_split`); where the row was read, as in its reject; and the row.

    Raises:
        DataError: At once if the source is not found. While iterating, if it cannot be read, is empty, or
            none of its first 1,000 records has the columns of the stage; after the last row of a split if
            more than half of its rows were rejected for one reason.
    """
    _check_arguments(stage, columns, options)
    parts, is_complete = find_parts(
        data,
        stage,
        config_name=config_name,
        columns=columns,
        options=options,
        delimiter=delimiter,
        encoding=encoding,
        streaming=True,
    )
    lenience = Lenience(extractive, max_passage_chars)

    # An inner generator, so that a missing source is an error of the call and not of the first `next`.
    def generate_rows() -> Iterator[tuple[str | None, dict[str, Any], Row]]:
        for split, part in parts.items():
            is_only_split = list(parts) == ["train"] and not is_complete
            for location, row in make_rows(part, stage, columns or {}, reject, lenience):
                yield None if is_only_split else split, location, row

    return generate_rows()


def write_rejects(rejects: list[dict[str, Any]], path: str | os.PathLike[str]) -> None:
    """Write rejected rows as JSON Lines, atomically; see [`replace_file`].

    Args:
        rejects (`list[dict]`):
            The list that [`read_rows`] appended to.
        path (`str` or `os.PathLike`):
            The file. Its folder is created if it is missing.
    """
    with replace_file(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(reject) + "\n" for reject in rejects)


def _check_arguments(
    stage: str,
    columns: Mapping[str, str] | None,
    options: Mapping[str, Any] | None,
    shares: Mapping[str, float] | None = None,
) -> None:
    check_stage(stage)
    check_keys("`data_columns`: column", columns or (), FEATURES)
    if is_inverted(label := (columns or {}).get("answerable", "")):
        raise DataError(
            f"data_columns: answerable is {label!r}, which by its name is 1 where there is no answer; "
            "expected a column that is 1 where the summary carries the answer"
        )
    check_keys("`data_options`: option", options or (), OPTIONS)
    check_keys("`data_shares`: share", shares or (), ("validation", "test"))
    values = list((shares or {}).values())
    if not all(isinstance(share, (int, float)) and 0 <= share < 1 for share in values) or sum(values) >= 1:
        raise DataError(
            f"`data_shares`: expected numbers of at least 0 with a sum below 1, got {dict(shares or {})}"
        )


def _warn_of_shared_passages(data: Source, tables: Mapping[str, Dataset]) -> None:
    """Warn of passages that are in two splits of a source: a figure of such a test is too high."""
    passages = {split: set(map(hash_passage, table["passage"])) for split, table in tables.items()}
    for first, second in combinations(passages, 2):
        if common := len(passages[first] & passages[second]):
            count = len(passages[second])
            warn_once(
                logger, f"{name_source(data)}: {common} of {count} passages of {second} are in {first}, too"
            )


def _to_dataset(
    part: Part, stage: str, columns: Mapping[str, str] | None, reject: Callable[[dict[str, Any]], None]
) -> Dataset:
    # Not `Dataset.from_generator`: its cache would miss changed files and skip the rejects.
    chunks: list[Dataset] = []
    rows: list[Row] = []
    char_count = 0
    for _, row in make_rows(part, stage, columns or {}, reject):
        row_chars = sum(len(row[name]) for name in TEXT_COLUMNS)
        if rows and char_count + row_chars > MAX_CHUNK_CHARS:
            chunks.append(_to_chunk(rows))
            rows, char_count = [], 0
        rows.append(row)
        char_count += row_chars
    return concatenate_datasets([*chunks, _to_chunk(rows)])


def _to_chunk(rows: list[Row]) -> Dataset:
    return Dataset.from_dict(
        {name: [row[name] for row in rows] for name in FEATURES}, features=FEATURES.copy()
    )


def _plan_splits(
    parts: Mapping[str, Part], is_complete: bool, shares: Mapping[str, float] | None
) -> tuple[dict[str, str], dict[str, float] | None]:
    """Return the part of each split, and the shares with which the part "train" is split.

    The shares are keyword arguments of `split_by_passage`; they are `None` if no split is carved.
    """
    if not is_complete and len(parts) == 1 and "train" not in parts:  # held-out rows alone
        return dict.fromkeys(["test"], next(iter(parts))), None
    if is_complete or "train" not in parts or len(parts) > 2:
        return {split: split for split in parts}, None
    shares = dict(shares or {})
    if len(parts) == 1:
        splits = [split for split in SPLITS if shares.get(split) != 0]
        return dict.fromkeys(splits, "train"), shares
    held_out = next(split for split in parts if split != "train")
    carved = {} if shares.get("validation") == 0 else {"validation": "train"}
    return {"train": "train", **carved, "test": held_out}, {**shares, "test": 0.0}


def _stream_rows(
    data: Source, stage: str, source: dict[str, Any], shares: Mapping[str, float] | None
) -> IterableDatasetDict:
    parts, is_complete = find_parts(data, stage, **source, streaming=True)
    part_names, carved_shares = _plan_splits(parts, is_complete, shares)
    streams = {}
    for split, name in part_names.items():
        arguments: dict[str, Any] = {
            "data": data,
            "stage": stage,
            "source": source,
            "part_name": name,
            "split": split,
        }
        arguments["shares"] = carved_shares if name == "train" else None
        streams[split] = IterableDataset.from_generator(
            _generate_split, features=FEATURES.copy(), gen_kwargs=arguments
        )
    return IterableDatasetDict(streams)


def _generate_split(
    data: Source,
    stage: str,
    source: dict[str, Any],
    part_name: str,
    split: str,
    shares: dict[str, float] | None,
) -> Iterator[Row]:
    """Yield the rows of one split of a stream; at the end, warn of the rows that were rejected."""
    parts, _ = find_parts(data, stage, **source, streaming=True)
    reasons: Counter[str] = Counter()
    columns = source["columns"] or {}
    for _, row in make_rows(
        parts[part_name], stage, columns, lambda reject: reasons.update([reject["reason"]])
    ):
        if shares is None or assign_split(row["passage"], **shares) == split:
            yield row
    if reasons:
        _warn_of_rejects(data, reasons)


def _warn_of_rejects(data: Source, reasons: Counter[str]) -> None:
    counts = "; ".join(f"{count} {reason}" for count, reason in count_reasons(reasons.elements()))
    logger.warning("%s: rejected %d rows: %s", name_source(data), reasons.total(), counts)
