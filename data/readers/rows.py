"""From records to rows: whatever columns a source has become ours, and every row is kept or rejected."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from crosstask.data.readers import corpora
from crosstask.data.readers.files import Part, Record
from crosstask.data.schema import FEATURES, REJECT, STAGE_COLUMNS, TEXT_COLUMNS, check_row, digest
from crosstask.utils.errors import DataError

# So many records that lack a column, and none that has it, are the user's mistake and not the records'.
LOOK_AHEAD = 1000

# 1.0 is 1 to a dict: tables whose labels have gaps often hold floats.
_LABELS = {"no": 0, "yes": 1, 0: 0, 1: 1, None: None}

# Gives the rows of a record and whether they are joint ones; the place is for errors, the name for ids.
Maker = Callable[[Record, str, str], tuple[list[Record], bool]]


@dataclass(frozen=True)
class Lenience:
    """What is rejected where malformed records are rejects and no errors.

    Attributes:
        extractive: Reject a row whose answer is not in its passage; SQuAD's are checked in any case.
        max_passage_chars: Reject a row whose passage is longer.
    """

    extractive: bool = False
    max_passage_chars: int = 1_000_000


class _Misfit(DataError):
    """The columns of a record are not those of the stage."""


def make_rows(
    part: Part,
    stage: str,
    columns: Mapping[str, str],
    reject: Callable[[dict[str, Any]], None],
    lenience: Lenience | None = None,
) -> Iterator[tuple[int, Record]]:
    """Yield (line or index, row) of the rows of a part that serve a stage.

    Of all that was read only 8 bytes a row are remembered, which tell repeated ids.

    Args:
        part: Whose records to read.
        stage: A key of `STAGE_COLUMNS`.
        columns: Names in the schema to names in the records.
        reject: Called with each row that is not yielded, as a dict of `source`, `line` or `index`, `id`
            and `reason`.
        lenience: None for a malformed record to be an error.

    Raises:
        DataError: If there are no records, if none has the columns of the stage, or, where there is no
            lenience, if a record is malformed or no row is left.
    """
    ids: set[int] = set()
    contents: set[int] = set()
    kept = False
    for number, row, reason in _judge(part, stage, columns, lenience):
        row_id = digest(row["id"])
        if reason is None and row_id in ids:
            reason = "duplicate id"
        # Only what is drawn from joint rows has `content`: other sources' repetitions are theirs.
        content = row.pop("content", None)
        content = None if content is None else digest(*content)
        if reason is None and content in contents:
            reason = f"same {' and '.join(STAGE_COLUMNS[stage])} as an earlier row"
        if reason is not None:
            reject({"source": part.name, part.unit: number, "id": row["id"], "reason": reason})
            continue
        ids.add(row_id)
        if content is not None:
            contents.add(content)
        kept = True
        yield number, row
    if not kept and lenience is None:
        raise DataError(f"{part.name}: no row is left for stage {stage}, expected at least one")


def _judge(
    part: Part, stage: str, columns: Mapping[str, str], lenience: Lenience | None
) -> Iterator[tuple[int, Record, str | None]]:
    """Yield (number, row, reason to reject it or None)."""
    make = corpus = first_misfit = None
    records, misfits, number = 0, 0, -1
    for number, record in part.records:
        where, name = f"{part.name}, {part.unit} {number}", f"{part.stem}:{number}"
        try:
            if isinstance(record, str):
                raise DataError(f"{where}: {record}")
            records += 1
            if make is None:  # what the first record is that fits, all are taken for
                maker, corpus = _maker(part, stage, columns, record)
            rows, joint = maker(record, where, name)
            make = maker
        except DataError as error:
            if lenience is None:
                raise
            if isinstance(error, _Misfit):
                first_misfit = first_misfit or error
                misfits += 1
                if misfits == records == LOOK_AHEAD:
                    break
            row_id = record.get("id") if isinstance(record, dict) else None
            yield number, {"id": _id(row_id, name)}, _reason(error, where, row_id)
            continue
        for row in rows:
            row = _complete(row, part, name)
            if REJECT in row:
                yield number, {"id": _id(row["id"], name)}, row[REJECT]
                continue
            try:
                reason = check_row(row, stage, where)
            except DataError as error:
                if lenience is None:
                    raise
                yield number, {"id": _id(row["id"], name)}, _reason(error, where, row["id"])
                continue
            row["answerable"] = _LABELS[row["answerable"]]
            if joint and stage == "summarize" and row["answerable"] == 0:
                reason = reason or "labelled no: the summary lacks what it should say"
            if lenience is not None:
                reason = reason or _look(row, lenience, corpus == "squad_v2")
            yield number, row if part.is_rows else _shape(row, stage, joint), reason
    if number < 0:
        raise DataError(f"{part.name} is empty: expected rows with the columns {_listed(stage)}")
    if first_misfit and misfits == records:
        raise first_misfit


def _maker(part: Part, stage: str, columns: Mapping[str, str], first: Record) -> tuple[Maker, str | None]:
    """What makes rows of the records that are like the first one, and whose corpus they are."""
    if part.is_rows:
        return lambda record, where, name: ([record], False), None
    key = None if columns else corpora.recognize(first)
    if key is None:
        return _own(part, stage, columns), None
    served = corpora.CORPORA[key].stages
    if ("answer" if stage == "build" else stage) not in served:
        raise _Misfit(
            f"{part.name}: rows with the columns of {corpora.SOURCES[key].title} serve stage "
            f"{' and '.join(served)} only, and stage {stage} needs the columns {_listed(stage)}; there are "
            f"{', '.join(first)}"
        )
    return lambda record, where, name: (corpora.rows_of(key, record, stage, name, where), False), key


def _own(part: Part, stage: str, columns: Mapping[str, str]) -> Maker:
    """What makes a row of a record under the user's names for the columns."""
    names = {name: columns.get(name, name) for name in FEATURES}
    optional = ("id", "source", "summary", "answerable") if stage == "build" else ("id", "source")
    named = [name for name in optional if name in columns]
    needed = [names[name] for name in (*STAGE_COLUMNS[stage], *named)]

    def make(record: Record, where: str, name: str) -> tuple[list[Record], bool]:
        missing = [name for name in needed if name not in record]
        if missing:
            raise _Misfit(
                f"{where}: the column {missing[0]!r} is missing: there are {', '.join(record)}; "
                f"stage {stage} needs {', '.join(needed)}"
            )
        whole = all(names[name] in record for name in STAGE_COLUMNS["fuse"])
        joint = whole and stage in ("summarize", "answer")
        used = STAGE_COLUMNS["fuse" if joint else stage]
        row = {name: record.get(names[name]) for name in dict.fromkeys((*optional, *used))}
        if part.untyped and "answerable" in row:
            row["answerable"] = {"": None, "0": 0, "1": 1}.get(row["answerable"], row["answerable"])
        return [row], joint

    return make


def _complete(row: Record, part: Part, name: str) -> Record:
    """Give a row all columns: null says in many files what the schema says with an empty text."""
    empty = {**dict.fromkeys(TEXT_COLUMNS, ""), "source": part.source, "answerable": None}
    row = {**empty, **{column: value for column, value in row.items() if value is not None}}
    if type(row["id"]) is int:
        row["id"] = str(row["id"])
    return {**row, "id": name} if row["id"] == "" else row


def _look(row: Record, lenience: Lenience, extractive: bool) -> str | None:
    """What training on a row would stumble over, beyond what `check_row` says."""
    if len(row["passage"]) > lenience.max_passage_chars:
        limit = f"{lenience.max_passage_chars:,}"
        return f"passage of {len(row['passage']):,} characters, expected at most {limit}"
    # No text has a NUL: these are bytes of another kind, while other control characters can be dropped.
    for column in TEXT_COLUMNS:
        if "\0" in row[column]:
            return f"NUL character in {column}"
    if (extractive or lenience.extractive) and row["answer"] not in row["passage"]:
        answer, passage = (" ".join(row[name].split()).casefold() for name in ("answer", "passage"))
        if answer not in passage:
            return "answer not in the passage"
    return None


def _reason(error: DataError, where: str, row_id: Any) -> str:
    """What an error says without the place, which a reject tells by itself."""
    return str(error).removeprefix(f"{where}: ").removeprefix(f"{where}, row {row_id!r}: ")


def _id(row_id: Any, name: str) -> str:
    return row_id if isinstance(row_id, str) and row_id else name


def _shape(row: Record, stage: str, joint: bool) -> Record:
    """Reduce a row to what a stage reads, and say in `content` what must not repeat."""
    if stage == "summarize":
        row |= {"question": "", "answer": "", "answerable": None}
    if stage in ("answer", "build") and not row["answer"].strip():
        row |= {"answer": "", "answerable": 0}
    elif stage == "answer":
        row |= {"answerable": None}
    if stage == "answer":
        row |= {"summary": ""}
    return {**row, "content": tuple(row[name] for name in STAGE_COLUMNS[stage])} if joint else row


def _listed(stage: str) -> str:
    return ", ".join(STAGE_COLUMNS[stage])
