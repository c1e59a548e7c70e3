"""Reading rows: from the embedded generator, ACLSum, SQuAD 2.0, files, folders and the Hub.

A source gives its splits as parts of raw records; here they become rows of one schema, every one of
which is kept or rejected with a reason, and the splits that a source lacks are carved by passage.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict

from crosstask.data import squad
from crosstask.data.files import SPLIT_NAMES, Part, Record, read_file, read_folder, read_hub
from crosstask.data.papers import read_papers
from crosstask.data.schema import (
    FEATURES,
    REJECT,
    STAGE_COLUMNS,
    TEXT_COLUMNS,
    DataError,
    check_keys,
    check_row,
    check_stage,
)

logger = logging.getLogger(__name__)

SPLITS = ("train", "validation", "test")
BRIEFS_PASSAGES = {"train": 4000, "validation": 200, "test": 300}
BRIEFS_OPTIONS = ("passages", "seed", "questions", "matching")

# 1.0 is 1 to a dict: tables whose labels have gaps often hold floats.
_LABELS = {"no": 0, "yes": 1, 0: 0, 1: 1, None: None}


def read_rows(
    data: str | os.PathLike[str],
    stage: str,
    *,
    config_name: str | None = None,
    columns: Mapping[str, str] | None = None,
    options: Mapping[str, Any] | None = None,
    rejects: list[dict[str, Any]] | None = None,
) -> DatasetDict:
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
            - the path to a .jsonl, .csv or .parquet file, to SQuAD's official .json (stage "answer"
              only, as are records with the columns of `rajpurkar/squad_v2`), or to a folder;
            - the id of a data set on the Hub.
        stage: "summarize", "answer" or "fuse".
        config_name: The configuration of a data set folder or Hub data set, e.g. "3.0.0".
        columns: Names in the schema to names in the file, e.g. `{"passage": "article"}`; columns
            that are not named keep their names, and those outside the schema are dropped.
        options: For "briefs" only: `passages` (a split to its number; 4000, 200 and 300), and
            `seed`, `questions` and `matching` as `crosstask.data.briefs.generate` takes them.
        rejects: A list to which rejected rows are appended as dicts of `source`, `line` or `index`
            (the line from 1 in JSONL and CSV, elsewhere the position from 0), `id` and `reason`.
            Where it is None a warning tells their number.

    Returns:
        The splits, among train, validation and test, each with `FEATURES` and at least one row.

    Raises:
        DataError: If a source or row is not as described; it names the file and the line or row.
    """
    check_stage(stage)
    check_keys("column", columns or (), FEATURES)
    check_keys("option", options or (), BRIEFS_OPTIONS)
    parts, complete = _find_parts(data, stage, config_name, columns, options)
    rejected: list[dict[str, Any]] = []
    splits = {}
    try:
        for split, part in parts.items():
            rows = _keep_rows(_make_rows(part, stage, columns or {}), part, stage, rejected)
            # Not `Dataset.from_generator`: its cache knows neither of changed files nor of rejects.
            table = {name: [row[name] for row in rows] for name in FEATURES}
            splits[split] = Dataset.from_dict(table, features=FEATURES.copy())
    finally:  # an error may come of the rejects, so they are told in any case
        if rejects is not None:
            rejects.extend(rejected)
        elif rejected:
            _warn(data, rejected)
    return DatasetDict(splits) if complete else _complete(splits, data)


def split_by_passage(dataset: Dataset, validation: float = 0.05, test: float = 0.05) -> DatasetDict:
    """Part a data set so that all rows of a passage lie in one split.

    A passage's place is a hash of its text, in [0, 1): the order of the rows does not matter. Where
    hashes leave a split empty it gets the nearest passage in their order, so that the fewest
    passages needed are as many as there are splits.

    Args:
        dataset: Rows with a column `passage`.
        validation: Share of the passages for validation, in [0, 1); 0 for no such split.
        test: Share of the passages for test, likewise.

    Returns:
        The splits train, validation and test, those of share 0 left out, rows in their order.

    Raises:
        ValueError: If a share is negative or none is left for train.
        DataError: If there are fewer distinct passages than splits.
    """
    if min(validation, test) < 0 or validation + test >= 1:
        shares = f"validation={validation} and test={test}"
        raise ValueError(f"{shares}: expected shares from 0 with a sum below 1")
    passages = dataset["passage"][:]
    ranked = sorted((_place(passage), passage) for passage in set(passages))
    wanted = [split for split, share in (("test", test), ("validation", validation)) if share]
    if len(ranked) <= len(wanted):
        names = ", ".join(["train", *reversed(wanted)])
        raise DataError(
            f"found {len(ranked)} distinct passages, expected at least {len(wanted) + 1} to have a "
            f"split each for {names}"
        )
    ends = {"test": test, "validation": test + validation}
    split_of, start = {}, 0
    for left, split in enumerate(wanted):
        end = sum(place < ends[split] for place, _ in ranked)
        # At least one passage here, and one for each of the splits that are still to come.
        end = min(max(end, start + 1), len(ranked) - len(wanted) + left)
        split_of.update({passage: split for _, passage in ranked[start:end]})
        start = end
    indices: dict[str, list[int]] = {split: [] for split in SPLITS if split in ["train", *wanted]}
    for index, passage in enumerate(passages):
        indices[split_of.get(passage, "train")].append(index)
    return DatasetDict({split: dataset.select(rows) for split, rows in indices.items()})


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


def _find_parts(
    data: str | os.PathLike[str],
    stage: str,
    config_name: str | None,
    columns: Mapping[str, str] | None,
    options: Mapping[str, Any] | None,
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
        parts = read_hub(data, config_name)
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
    try:
        return {
            split: Part(
                f"briefs, split {split}",
                enumerate(generate(stage, split, passages=passages[split], **how)),
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


def _keep_rows(
    judged: Iterable[tuple[int, Record, str | None]],
    part: Part,
    stage: str,
    rejects: list[dict[str, Any]],
) -> list[Record]:
    rows, ids, contents = [], set(), set()
    for number, row, reason in judged:
        if reason is None and row["id"] in ids:
            reason = "duplicate id"
        # Only what is drawn from joint rows has `content`: other sources' repetitions are theirs.
        content = row.pop("content", None)
        if reason is None and content is not None and content in contents:
            reason = f"same {' and '.join(STAGE_COLUMNS[stage])} as an earlier row"
        if reason is not None:
            place = {"source": part.name, part.unit: number}
            rejects.append({**place, "id": row["id"], "reason": reason})
            continue
        ids.add(row["id"])
        contents.add(content)
        rows.append(row)
    if not rows:
        raise DataError(f"{part.name}: no row is left for stage {stage}, expected at least one")
    return rows


def _make_rows(
    part: Part, stage: str, columns: Mapping[str, str]
) -> Iterator[tuple[int, Record, str | None]]:
    """Yield (number, row, reason to reject it or None)."""
    records = iter(part.records)
    first = next(records, None)
    needed = ", ".join(STAGE_COLUMNS[stage])
    if first is None:
        raise DataError(f"{part.name} is empty: expected rows with the columns {needed}")
    make, joint = _maker(part, stage, columns, first[1])
    for number, record in chain([first], records):
        where = f"{part.name}, {part.unit} {number}"
        row = make(record, where)
        if row["id"] in ("", None):
            row["id"] = f"{part.stem}:{number}"
        reason = row.pop(REJECT, None) or check_row(row, stage, where)
        row["answerable"] = _LABELS[row["answerable"]]
        if joint and stage == "summarize" and row["answerable"] == 0:
            reason = reason or "labelled no: the summary lacks what it should say"
        yield number, row if part.is_rows else _shape(row, stage, joint), reason


def _maker(
    part: Part, stage: str, columns: Mapping[str, str], first: Record
) -> tuple[Callable[[Record, str], Record], bool]:
    """What makes a row of a record and its place, and whether the rows are joint ones."""
    empty = {**dict.fromkeys(TEXT_COLUMNS, ""), "source": part.source, "answerable": None}
    if part.is_rows:
        return lambda record, where: {**empty, **record}, False
    from_squad = not columns and squad.is_squad(first)
    if from_squad:
        if stage != "answer":
            raise DataError(
                f"{part.name}: SQuAD's rows serve stage answer only, and stage {stage} needs the "
                f"columns {', '.join(STAGE_COLUMNS[stage])}; there are {', '.join(first)}"
            )
        needed = squad.COLUMNS
    else:
        named = [name for name in ("id", "source") if name in columns]
        needed = tuple(columns.get(name, name) for name in (*STAGE_COLUMNS[stage], *named))
    names = {name: columns.get(name, name) for name in FEATURES}
    joint = stage != "fuse" and all(names[name] in first for name in STAGE_COLUMNS["fuse"])
    used = ("id", "source", *STAGE_COLUMNS["fuse" if joint else stage])

    def make(record: Record, where: str) -> Record:
        missing = [name for name in needed if name not in record]
        if missing:
            raise DataError(
                f"{where}: the column {missing[0]!r} is missing: there are {', '.join(record)}; "
                f"stage {stage} needs {', '.join(needed)}"
            )
        if from_squad:
            return squad.to_row(record, part.source, where)
        row = {name: record.get(names[name]) for name in used}
        # Null says in many files what the schema says with an empty text or a default.
        row = {**empty, **{name: value for name, value in row.items() if value is not None}}
        if type(row["id"]) is int:
            row["id"] = str(row["id"])
        if part.untyped:
            row["answerable"] = {"": None, "0": 0, "1": 1}.get(row["answerable"], row["answerable"])
        return row

    return make, joint


def _shape(row: Record, stage: str, joint: bool) -> Record:
    """Reduce a row to what a stage reads, and say in `content` what must not repeat."""
    if stage == "summarize":
        row |= {"question": "", "answer": "", "answerable": None}
    if stage == "answer":
        answer = row["answer"] if row["answer"].strip() else ""
        row |= {"answer": answer, "summary": "", "answerable": None if answer else 0}
    return {**row, "content": tuple(row[name] for name in STAGE_COLUMNS[stage])} if joint else row


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


def _place(passage: str) -> float:
    """A passage's place in [0, 1): the same on every machine, unlike `hash`."""
    return int.from_bytes(blake2b(passage.encode("utf-8"), digest_size=8).digest(), "big") / 2**64


def _warn(data: Any, rejected: list[dict[str, Any]]) -> None:
    reasons = Counter(reject["reason"] for reject in rejected)
    told = "; ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    logger.warning("%s: rejected %d rows: %s", data, len(rejected), told)
