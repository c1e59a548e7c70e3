"""Reading rows: from the embedded generator, known corpora, files, folders and the Hub.

A source gives its splits as parts of raw records, of which `crosstask.data.readers.rows` makes rows; here the
sources are found, and the splits that one lacks are carved by passage.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, IterableDataset, IterableDatasetDict

from crosstask.data.readers.aclsum import read_papers
from crosstask.data.readers.files import SPLIT_NAMES, Part, read_file, read_folder, read_hub
from crosstask.data.readers.rows import Lenience, make_rows
from crosstask.data.schema import FEATURES, check_keys, check_stage
from crosstask.data.splits import SPLITS, split_by_passage, split_of
from crosstask.utils.errors import DataError

logger = logging.getLogger(__name__)

BRIEFS_PASSAGES = {"train": 4000, "validation": 200, "test": 300}
BRIEFS_OPTIONS = ("passages", "seed", "questions", "matching", "domain")


def read_rows(
    data: str | os.PathLike[str],
    stage: str,
    *,
    config_name: str | None = None,
    columns: Mapping[str, str] | None = None,
    options: Mapping[str, Any] | None = None,
    rejects: list[dict[str, Any]] | None = None,
    streaming: bool = False,
) -> DatasetDict | IterableDatasetDict:
    """Read the rows of a training stage.

    The splits are those of the source (val, valid and dev are validation too), completed without
    ever parting the rows of one passage: a source of one split is parted into three; one that lacks
    validation has it carved from train; one that lacks test, as SQuAD 2.0 does, has its validation
    serve as test and a new validation carved from train. Nothing is carved for the built-in
    sources, nor where there is no train.

    Columns that a stage does not need (see `STAGE_COLUMNS`) get their defaults: `id` is
    "<file stem>:<line>", `source` the file's name, a text "", a label null; a null text is read as
    "". A joint source, with all columns of stage "fuse", serves the other stages too: "summarize"
    takes its distinct summaries that are not labelled 0, "answer" its distinct questions and
    answers. In stage "answer" the label says whether there is no answer: 0 there, else null.

    Args:
        data: One of
            - "briefs", the embedded generator, or "aclsum", the papers of the package `aclsum`
              (a folder of that name is "./briefs");
            - the path to a .jsonl, .csv or .parquet file, to the official .json of SQuAD or PubMedQA, or to
              a folder;
            - the id of a data set on the Hub.
            Where no `columns` are given, records of the corpora of `crosstask.data.readers.corpora` are known by
            their columns; each serves some of the stages, SQuAD "answer" only.
        stage: "summarize", "answer" or "fuse"; "build" is for the making of data sets.
        config_name: The configuration of a data set folder or Hub data set, e.g. "3.0.0".
        columns: Names in the schema to names in the file, e.g. `{"passage": "article"}`; columns
            that are not named keep their names, and those outside the schema are dropped.
        options: For "briefs" only: `passages` (a split to its number; 4000, 200 and 300), and
            `seed`, `questions`, `matching` and `domain` as `crosstask.data.briefs.generate` takes them.
        rejects: A list to which rejected rows are appended as dicts of `source`, `line` or `index`
            (the line from 1 in JSONL and CSV, elsewhere the position from 0), `id` and `reason`.
            Where it is None a warning tells their number.
        streaming: Read while iterating, in memory that does not grow with the number of rows. What is carved
            goes by the hash of its passage alone (`split_of`), so that of few passages a split may have
            none; each split reads the source anew.

    Returns:
        The splits, among train, validation and test, each with `FEATURES` and, where it is no stream, at
        least one row.

    Raises:
        DataError: If a source or row is not as described; it names the file and the line or row.
    """
    _check(stage, columns, options)
    where = {"config_name": config_name, "columns": columns, "options": options}
    if streaming:
        if rejects is not None:
            raise ValueError("rejects: a stream is read anew for each split and epoch, expected None")
        return _stream(data, stage, where)
    parts, complete = _find_parts(data, stage, **where)
    rejected: list[dict[str, Any]] = []
    splits = {}
    try:
        for split, part in parts.items():
            rows = [row for _, row in make_rows(part, stage, columns or {}, rejected.append)]
            # Not `Dataset.from_generator`: its cache knows neither of changed files nor of rejects.
            table = {name: [row[name] for row in rows] for name in FEATURES}
            splits[split] = Dataset.from_dict(table, features=FEATURES.copy())
    finally:  # an error may come of the rejects, so they are told in any case
        if rejects is not None:
            rejects.extend(rejected)
        elif rejected:
            _warn(data, Counter(reject["reason"] for reject in rejected))
    return DatasetDict(splits) if complete else _complete(splits, data)


def iter_rows(
    data: str | os.PathLike[str],
    stage: str,
    *,
    config_name: str | None = None,
    columns: Mapping[str, str] | None = None,
    options: Mapping[str, Any] | None = None,
    reject: Callable[[dict[str, Any]], None],
    extractive: bool = False,
    max_passage_chars: int = 1_000_000,
) -> Iterator[tuple[str | None, dict[str, Any], dict[str, Any]]]:
    """Yield the rows of a source one at a time, whatever is wrong with some of its records.

    Unlike `read_rows` this takes a malformed record for a reject and not for an error: a line that is cut
    off or not UTF-8, a wrong type, a missing column, a label out of range, a ragged CSV row … So every record
    is either yielded or rejected; one of a corpus of many questions a record gives many rows, each yielded or
    rejected by itself. A row with a NUL character is rejected too. The memory does not grow with the number
    of rows but for 8 bytes of each, which tell repeated ids (in one split): files are read piece by piece,
    data sets of the Hub as a stream; only an official .json is read as a whole.

    Args:
        data: As for `read_rows`.
        stage: A stage of the training, or "build", see `STAGE_COLUMNS`.
        config_name: As for `read_rows`.
        columns: As for `read_rows`.
        options: As for `read_rows`.
        reject: Called once with each rejected record or row, as `read_rows` describes it.
        extractive: Reject rows whose answer is not in the passage (in any case and white space). SQuAD's are
            checked in any case, since each answer there was marked in the passage.
        max_passage_chars: Reject rows with longer passages.

    Yields:
        (split, place, row): the split as the source has it, or None where it has but one, which is then to
        be carved, see `split_of`; and where the row was, as in its reject.

    Raises:
        DataError: At once if the source is not found; while iterating if it cannot be read, is empty, or
            none of its first 1,000 records has the columns of the stage.
    """
    _check(stage, columns, options)
    parts, complete = _find_parts(data, stage, config_name, columns, options, streaming=True)
    lenience = Lenience(extractive, max_passage_chars)

    def rows() -> Iterator[tuple[str | None, dict[str, Any], dict[str, Any]]]:
        for split, part in parts.items():
            carved = len(parts) == 1 and not complete
            for number, row in make_rows(part, stage, columns or {}, reject, lenience):
                yield None if carved else split, {"source": part.name, part.unit: number}, row

    return rows()


def write_rejects(rejects: list[dict[str, Any]], path: str | os.PathLike[str]) -> None:
    """Write rejected rows as JSON Lines, whole or not at all.

    Args:
        rejects: What `read_rows` appended.
        path: The file; its folder is made where it is missing, and an older file is replaced.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")
    with open(temporary, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(reject) + "\n" for reject in rejects)
    os.replace(temporary, path)


def _check(stage: str, columns: Mapping[str, str] | None, options: Mapping[str, Any] | None) -> None:
    check_stage(stage)
    check_keys("column", columns or (), FEATURES)
    check_keys("option", options or (), BRIEFS_OPTIONS)


def _stream(data: Any, stage: str, where: dict[str, Any]) -> IterableDatasetDict:
    """The splits as streams: which part each is of, and the shares by which it is carved from there."""
    parts, complete = _find_parts(data, stage, **where, streaming=True)
    plan: dict[str, tuple[str, dict[str, float] | None]] = {split: (split, None) for split in parts}
    if list(parts) == ["train"] and not complete:
        plan = dict.fromkeys(SPLITS, ("train", {}))
    elif "train" in parts and len(parts) == 2 and not complete:
        held_out = "test" if "test" in parts else "validation"
        plan = dict.fromkeys(("train", "validation"), ("train", {"test": 0.0})) | {"test": (held_out, None)}
    return IterableDatasetDict(
        {
            split: IterableDataset.from_generator(
                _rows_of_split,
                features=FEATURES.copy(),
                gen_kwargs={"data": data, "stage": stage, "split": split, "of": plan[split], "where": where},
            )
            for split in plan
        }
    )


def _rows_of_split(
    data: Any, stage: str, split: str, of: tuple[str, dict[str, float] | None], where: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    part, shares = of
    parts, _ = _find_parts(data, stage, **where, streaming=True)
    reasons: Counter[str] = Counter()
    rows = make_rows(parts[part], stage, where["columns"] or {}, lambda row: reasons.update([row["reason"]]))
    for _, row in rows:
        if shares is None or split_of(row["passage"], **shares) == split:
            yield row
    if reasons:
        _warn(data, reasons)


def _find_parts(
    data: str | os.PathLike[str],
    stage: str,
    config_name: str | None,
    columns: Mapping[str, str] | None,
    options: Mapping[str, Any] | None,
    streaming: bool = False,
) -> tuple[dict[str, Part], bool]:
    """The parts by split, and whether they are complete as they are."""
    if data in ("briefs", "aclsum"):
        if columns:
            raise DataError(f"{data}: its columns are the schema's, expected no `columns`")
        if data == "briefs":
            return _briefs(stage, options or {}), True
        _no_options(data, options)
        return read_papers(stage), True
    _no_options(data, options)
    path = Path(data).expanduser()
    if path.is_dir():
        parts = read_folder(path, config_name)
    elif path.exists() or isinstance(data, os.PathLike) or _looks_like_a_path(data):
        return {"train": read_file(path)}, False
    else:
        parts = read_hub(data, config_name, streaming)
    return _known_splits(parts, data), False


def _no_options(data: Any, options: Mapping[str, Any] | None) -> None:
    if options:
        raise DataError(f'{data}: `options` are for "briefs", got {", ".join(options)}')


def _looks_like_a_path(data: str) -> bool:
    # A Hub id has at most one slash and may end in a version, e.g. "owner/corpus-v1.1".
    return bool(re.match(r"[./~]", data) or re.search(r"\.[A-Za-z]\w*$|/.*/|\\", data))


def _known_splits(parts: dict[str, Part], data: Any) -> dict[str, Part]:
    if len(parts) == 1:
        return {"train": next(iter(parts.values()))}
    known = {SPLIT_NAMES[name]: part for name, part in parts.items() if name in SPLIT_NAMES}
    ignored = [name for name in parts if name not in SPLIT_NAMES]
    if not known:
        raise DataError(f"{data}: has the splits {', '.join(parts)}, expected {', '.join(SPLITS)}")
    if len(known) + len(ignored) < len(parts):
        raise DataError(f"{data}: has the splits {', '.join(parts)}, expected one validation split")
    if ignored:
        logger.warning("%s: splits left unread: %s", data, ", ".join(ignored))
    return {split: known[split] for split in SPLITS if split in known}


def _briefs(stage: str, options: Mapping[str, Any]) -> dict[str, Part]:
    from crosstask.data.briefs import generate

    asked = options.get("passages", {})
    if not isinstance(asked, Mapping) or not all(type(n) is int and n >= 0 for n in asked.values()):
        raise DataError(f"briefs: passages is {asked!r}, expected a number for a split or for each")
    check_keys("split", asked, SPLITS)
    passages = {**BRIEFS_PASSAGES, **asked}
    how = {name: value for name, value in options.items() if name != "passages"}
    task = "answer" if stage == "build" else stage  # a data set that is made gets summaries of its own
    try:
        return {
            split: Part(
                f"briefs, split {split}",
                enumerate(generate(task, split, passages=passages[split], **how)),
                source="briefs",
                stem=f"briefs-{split}",
                unit="index",
                is_rows=True,
            )
            for split in SPLITS
            if passages[split]
        }
    except (TypeError, ValueError) as error:
        raise DataError(f"briefs: {error}") from error


def _complete(splits: dict[str, Dataset], data: Any) -> DatasetDict:
    """Carve by passage what a source lacks."""
    try:
        if list(splits) == ["train"]:
            return split_by_passage(splits["train"])
        if "train" in splits and len(splits) == 2:
            held_out = splits["test"] if "test" in splits else splits["validation"]
            return DatasetDict({**split_by_passage(splits["train"], test=0), "test": held_out})
    except DataError as error:
        raise DataError(f"{data}: {error}") from None
    return DatasetDict(splits)


def _warn(data: Any, reasons: Counter[str]) -> None:
    told = "; ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    logger.warning("%s: rejected %d rows: %s", data, reasons.total(), told)
