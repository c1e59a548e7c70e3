"""Turn the records of a part into rows of a stage; every record becomes rows or a reject.

[`make_rows`] shows the entire path of a record. Its steps follow below in their order.
"""

from __future__ import annotations

import json
import logging
import re
import shlex
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import yaml

from crosstask.configuration_crosstask import IGNORE_INDEX
from crosstask.data.readers.corpus import Corpus, Part, Record, Reject, Row
from crosstask.data.readers.registry import recognize
from crosstask.data.readers.values import Values
from crosstask.data.schema import (
    FEATURES,
    OPTIONAL_COLUMNS,
    STAGE_COLUMNS,
    TEXT_COLUMNS,
    check_row,
    hash_texts,
)
from crosstask.processing_crosstask import to_label
from crosstask.sentences_crosstask import normalize_text
from crosstask.utils.errors import DataError
from crosstask.utils.logs import warn_once

logger = logging.getLogger(__name__)

# If none of the first 1,000 records has the columns of the stage, that is an error even for a lenient reader.
LOOK_AHEAD = 1000
# is_impossible of SQuAD, unanswerable, no_answer, not_entailment, ... without what joins the words.
_INVERTED_NAME = re.compile(r"impossible|unanswer|noanswer|notanswer|notentail|notsupported")


@dataclass(frozen=True)
class Lenience:
    """The settings of a reader that rejects malformed records instead of raising an error.

    Attributes:
        extractive (`bool`): Whether to reject a row with an answer that is not in its passage, in any corpus.
        max_passage_chars (`int`): The longest passage that is not rejected.
    """

    extractive: bool = False
    max_passage_chars: int = 1_000_000


class _MisfitError(DataError):
    """A record without the columns of the stage."""


def make_rows(
    part: Part,
    stage: str,
    columns: Mapping[str, str],
    reject: Callable[[dict[str, Any]], None],
    lenience: Lenience | None = None,
) -> Iterator[tuple[dict[str, Any], Row]]:
    """Yield `(location, row)` for the rows of a part.

    The location is a dict of `source` and `line`, `row` or `index` of the row's record, as in a reject.

    A row that repeats the id of an earlier one gets another id, such as "p7-2", and a warning says so: many
    files have one id per passage. To detect repetitions, two hashes are kept per row.

    Args:
        part ([`Part`]):
            The part.
        stage (`str`):
            A key of `STAGE_COLUMNS`.
        columns (`Mapping[str, str]`):
            Names in the schema to names in the records. If empty, corpora are recognized by their columns.
        reject (`Callable[[dict], None]`):
            Called with each rejected row as a dict of its location, `id` and `reason`.
        lenience ([`Lenience`], *optional*):
            If given, malformed records are rejected; otherwise they are errors.

    Raises:
        DataError: If the part is empty, no record has the columns of the stage, or more than half of the rows
            are rejected for one reason (see [`Reject`]); without `lenience` also if a record is malformed or
            no row is left.
    """
    repeats = _Repeats(stage)
    values = Values(part)
    losses = _Losses(part)
    is_any_left = False
    for file, number, row, corpus in _convert_records(part, stage, columns):
        location = {"source": file.name, file.unit: number}
        default_id = f"{file.stem}:{number}"
        if not isinstance(row, Reject):
            is_joint = (corpus is None or corpus.is_joint) and _is_joint(row, stage)
            has_answers = "answer" in row
            row = _fill_columns(values.clean(row, file.is_typed), file, default_id)
            row = _check(row, stage, is_joint, has_answers, lenience, corpus) or _reduce_to_stage(row, stage)
        if not isinstance(row, Reject):
            row = repeats.check(row, is_joint)
        losses.count(row, f"{file.unit} {number}")
        if not isinstance(row, Reject):
            is_any_left = True
            yield location, row
            continue
        if row.is_malformed and lenience is None:
            raise DataError(f"{_describe_place(file, number, row.id)}: {row.reason}")
        row_id = row.id if isinstance(row.id, str) and row.id else default_id
        reject({**location, "id": row_id, "reason": row.reason})
    losses.check(needs_labels=lenience is None and stage == "fuse")
    if not is_any_left and lenience is None:
        raise DataError(f"{part.name}: no row is left for stage {stage}, expected at least one")
    values.report()
    if repeats.example:
        old, new = repeats.example
        warn_once(
            logger,
            f"{part.name}: {repeats.count} rows repeat the id of an earlier row and get ids of their own, "
            f"such as {new!r} for {old!r}",
        )


def _convert_records(
    part: Part, stage: str, columns: Mapping[str, str]
) -> Iterator[tuple[Part, int, Row | Reject, Corpus | None]]:
    """Yield `(file, number, row, corpus)` for the rows of each record; `None` stands for the user's columns.

    The corpus of the first record that gives rows is taken for all records.
    """
    corpus, is_corpus_known = part.corpus, part.corpus is not None
    first_misfit = None
    number, record_count, misfit_count = None, 0, 0
    for file, number, record in _list_records(part):
        if isinstance(record, Reject):
            yield file, number, record, corpus
            continue
        record_count += 1
        rows: list[Row | Reject]
        try:
            candidate = corpus if is_corpus_known else _choose_corpus(record, stage, columns)
            if candidate is None:
                renamed = _rename_columns(record, stage, columns)
                if not is_corpus_known:
                    _report_missing_columns(part, stage, renamed, record, columns)
                rows = [renamed]
            else:
                rows = candidate.convert(
                    record, "answer" if stage == "ask" else stage, default_id=f"{file.stem}:{number}"
                )
            corpus, is_corpus_known = candidate, True
        except DataError as error:
            if isinstance(error, _MisfitError):
                misfit_count += 1
                first_misfit = first_misfit or f"{_describe_place(file, number, record.get('id'))}: {error}"
                if misfit_count == record_count == LOOK_AHEAD:
                    break
            rows = [Reject(str(error), record.get("id"), is_malformed=True)]
        for row in rows:
            yield file, number, row, corpus
    if number is None:
        raise DataError(f"{part.name} is empty: expected rows with the columns {_list_columns(stage)}")
    if first_misfit and misfit_count == record_count:
        raise DataError(first_misfit)


def _report_missing_columns(
    part: Part, stage: str, row: Row, record: Record, columns: Mapping[str, str]
) -> None:
    """Warn that a file has no answers or no labels, and name a column that may have them."""
    missing = [name for name in OPTIONAL_COLUMNS if stage == "fuse" and name not in row]
    if missing:
        setting, is_similar = _suggest_columns(_get_names(columns), missing, record, stage)
        hint = f"; did you mean {setting}?" if is_similar else ""
        warn_once(
            logger, f"{part.name}: has no column {' and no column '.join(missing)}, read as empty{hint}"
        )


def _list_records(part: Part) -> Iterator[tuple[Part, int, Record | Reject]]:
    for file in part.files or [part]:
        for number, record in file.records:
            yield file, number, record


def _choose_corpus(record: Record, stage: str, columns: Mapping[str, str]) -> Corpus | None:
    corpus = None if columns else recognize(record)
    if corpus is not None and not corpus.serves(stage):
        needed = [name for name in STAGE_COLUMNS[stage] if stage != "fuse" or name not in OPTIONAL_COLUMNS]
        setting, is_similar = _suggest_columns(_get_names({}), needed, record, stage)
        raise _MisfitError(
            f"records of {corpus.title} can be used for stage {' and '.join(corpus.stages)} only; stage "
            f"{stage} needs the columns {_list_columns(stage)}; there are {', '.join(record)}"
            f"{f'; did you mean {setting}' if is_similar else ''}"
        )
    return corpus


def _get_names(columns: Mapping[str, str]) -> dict[str, str]:
    """Return the user's name of each column of the schema."""
    return {name: columns.get(name, name) for name in FEATURES}


def _rename_columns(record: Record, stage: str, columns: Mapping[str, str]) -> Row:
    """Return the row of a record of no known corpus, under the names of the schema.

    It gets all columns of stage "fuse" that the record has; see [`_is_joint`] for the other stages.
    """
    names = _get_names(columns)
    is_optional = {name: stage == "fuse" and name in OPTIONAL_COLUMNS for name in STAGE_COLUMNS[stage]}
    needed = [names[name] for name, optional in is_optional.items() if not optional or name in columns]
    extra = ("id", "source", "summary", "answerable") if stage == "build" else ("id", "source")
    missing = [
        name
        for name in (*needed, *(columns[name] for name in extra if name in columns))
        if name not in record
    ]
    if missing:
        wanted = [name for name, column in names.items() if column in missing]
        setting, is_similar = _suggest_columns(names, wanted, record, stage)
        raise _MisfitError(
            f"the column {missing[0]!r} is missing: there are {', '.join(record)}; stage {stage} needs "
            f"{', '.join(needed)}; {'did you mean' if is_similar else 'name yours with'} {setting}"
        )
    is_joint = stage not in ("build", "ask") and all(
        names[name] in record for name in ("passage", "question", "summary")
    )
    used = (*extra, *STAGE_COLUMNS["fuse" if is_joint else stage])
    return {name: record[names[name]] for name in used if names[name] in record}


def _suggest_columns(
    names: Mapping[str, str], wanted: Collection[str], record: Record, stage: str
) -> tuple[str, bool]:
    """Return the setting that names columns, and whether it has one that a record has under a similar name.

    Args:
        names (`Mapping[str, str]`): The user's name of each column of the schema, as in [`_get_names`].
        wanted (`Collection[str]`): The columns of the schema to name. Those that the user has named stay.
        record (`dict`): A record.
        stage (`str`): The stage, which decides where the setting is made.
    """
    # Lists and dicts are no texts and no labels.
    similar = {
        str(column).strip().casefold(): str(column)
        for column, value in record.items()
        if column not in names.values() and not isinstance(value, list | dict) and not is_inverted(column)
    }
    optional = OPTIONAL_COLUMNS if stage == "fuse" else ()
    missing = [
        name for name, column in names.items() if column not in record and name in (*wanted, *optional)
    ]
    # First those that differ in case only, so that "Answerable" is not taken for the answer.
    found = {name: similar.pop(key) for name in missing if (key := names[name].casefold()) in similar}
    for name in missing:
        if name not in found and (keys := get_close_matches(names[name].casefold(), similar, 1, cutoff=0.7)):
            found[name] = similar.pop(keys[0])
    pairs = []
    for name, column in names.items():
        if column in record and (name in wanted or name != column):
            pairs.append(f"{name}: {_quote(column)}")
        elif name in found or (name in wanted and column not in record):
            pairs.append(f"{name}: {_quote(found[name]) if name in found else '...'}")
    mapping = f"{{{', '.join(pairs)}}}"
    setting = f"--columns {shlex.quote(mapping)}" if stage == "ask" else f"data_columns: {mapping}"
    return setting, not found.keys().isdisjoint(wanted)


def is_inverted(column: Any) -> bool:
    """Return whether the name of a column says that its label 1 stands for a missing answer."""
    return bool(_INVERTED_NAME.search(re.sub(r"[\W_]+", "", str(column)).casefold()))


def _quote(column: str) -> str:
    """Return a name as it has to be written in YAML, in a mapping of one line."""
    is_plain = re.fullmatch(r"[^\W\d](?:[\w ./-]*\w)?", column) and yaml.safe_load(column) == column
    return column if is_plain else json.dumps(column, ensure_ascii=False)


def _is_joint(row: Row, stage: str) -> bool:
    """Return whether a row is made for "fuse" but read for "summarize" or "answer".

    Rows of "fuse" repeat the summary for each question and the question for each summary.
    """
    return stage in ("summarize", "answer") and row.keys() >= {"passage", "question", "summary"}


def _fill_columns(row: Row, part: Part, default_id: str) -> Row:
    """Give a row all columns of the schema; a missing text is read as an empty one."""
    row = {**dict.fromkeys(TEXT_COLUMNS, ""), "source": part.source, "answerable": None, **row}
    if row["id"] == "":
        row["id"] = default_id
    return row


def _check(
    row: Row,
    stage: str,
    is_joint: bool,
    has_answers: bool,
    lenience: Lenience | None,
    corpus: Corpus | None,
) -> Reject | None:
    try:
        reason = check_row(row, stage, has_answers)
    except DataError as error:
        return Reject(str(error), row["id"], is_malformed=True)
    if reason is not None and not reason.startswith("empty "):  # the label cannot be read
        return Reject(reason, row["id"])
    if is_joint and stage == "summarize" and to_label(row["answerable"]) == 0:
        return Reject("labeled no: the summary lacks the answer", row["id"], is_expected=True)
    if is_joint and stage == "answer" and not row["question"].strip():  # asks for a generic summary
        return Reject("empty question", row["id"], is_expected=True)
    if reason is None and lenience is not None:
        return _check_leniently(row, lenience, corpus)
    return None if reason is None else Reject(reason, row["id"])


def _check_leniently(row: Row, lenience: Lenience, corpus: Corpus | None) -> Reject | None:
    """Return a reject if a row that `check_row` accepts would harm a data set."""
    if len(row["passage"]) > lenience.max_passage_chars:
        limit = f"{lenience.max_passage_chars:,}"
        reason = f"passage of {len(row['passage']):,} characters, expected at most {limit}"
        return Reject(reason, row["id"])
    # A NUL means that these bytes are no text; other control characters can be dropped.
    for column in TEXT_COLUMNS:
        if "\0" in row[column]:
            return Reject(f"NUL character in {column}", row["id"])
    is_extractive = lenience.extractive or (corpus is not None and corpus.is_extractive)
    if is_extractive and row["answer"] not in row["passage"]:
        answer, passage = (
            " ".join(normalize_text(row[name]).split()).casefold() for name in ("answer", "passage")
        )
        if answer not in passage:
            return Reject("answer not in the passage", row["id"], is_expected=lenience.extractive)
    return None


def _reduce_to_stage(row: Row, stage: str) -> Row:
    """
    Bring a checked row into the form of its stage: label 0 for an empty answer, no label where the stage
    needs none, and "" in columns that it does not read.
    """
    label = to_label(row["answerable"])
    row["answerable"] = None if label == IGNORE_INDEX else label
    if stage == "summarize":
        row |= {"question": "", "answer": "", "answerable": None}
    elif stage in ("answer", "build") and not row["answer"].strip():
        row |= {"answer": "", "answerable": 0}
    elif stage == "answer":
        row["answerable"] = None
    if stage == "answer":
        row["summary"] = ""
    return row


class _Repeats:
    """Detect repeated rows, and repeated ids of different rows.

    Repetitions in rows that were made for the stage are the source's decision, so they stay unless the id is
    the same, too.

    Attributes:
        count (`int`): The number of rows that repeat an id and got another one.
        example (`tuple[str, str]`, *optional*): The first id that was repeated, and what it was replaced by.
    """

    def __init__(self, stage: str):
        self.columns = STAGE_COLUMNS[stage]
        self.contents: set[int] = set()
        self.content_by_id: dict[int, int] = {}
        self.last_numbers: dict[int, int] = {}  # the number at the end of the latest id, by the repeated id
        self.count = 0
        self.example: tuple[str, str] | None = None

    def check(self, row: Row, is_joint: bool) -> Row | Reject:
        """Return the row, with an id that no earlier row has, or a reject if it repeats an earlier row."""
        if is_joint:
            content = hash_texts(*(row[name] for name in self.columns))
            if content in self.contents:
                reason = f"same {' and '.join(self.columns)} as an earlier row"
                return Reject(reason, row["id"], is_expected=True)
            self.contents.add(content)
        row_id = hash_texts(row["id"])
        content = hash_texts(*(str(row[name]) for name in FEATURES))
        if row_id not in self.content_by_id:
            self.content_by_id[row_id] = content
            return row
        # The set also holds the rows that repeat an id; their hashes include the id.
        if content == self.content_by_id[row_id] or content in self.contents:
            return Reject("same id and texts as an earlier row", row["id"], is_expected=True)
        self.contents.add(content)
        new_id, number = row["id"], self.last_numbers.get(row_id, 1)
        while hash_texts(new_id) in self.content_by_id:
            number += 1
            new_id = f"{row['id']}-{number}"
        self.last_numbers[row_id] = number
        self.count += 1
        self.content_by_id[hash_texts(new_id)] = content
        self.example = self.example or (row["id"], new_id)
        return {**row, "id": new_id}


class _Losses:
    """Count the rows of a part and its rejects, and stop if most rows are rejected for one reason.

    Rows that are expected to be rejected do not count. If most other rows go, the reader has most likely
    misunderstood the source, and the few rows that are left are no fair sample of it.
    """

    def __init__(self, part: Part):
        self.part = part
        self.row_count = 0
        self.has_labels = False
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, str] = {}

    def count(self, row: Row | Reject, place: str) -> None:
        if isinstance(row, Reject) and row.is_expected:
            return
        self.row_count += 1
        self.has_labels |= not isinstance(row, Reject) and row["answerable"] is not None
        if isinstance(row, Reject):
            kind = _get_kind(row.reason)
            self.counts[kind] += 1
            self.examples.setdefault(kind, f"{row.reason} ({place})")

    def check(self, needs_labels: bool) -> None:
        """Raise a `DataError` if most rows are rejected for one reason, or all labels are unknown."""
        unknown_label = next((kind for kind in self.counts if kind.startswith("answerable is, ")), None)
        if needs_labels and unknown_label and not self.has_labels:
            raise DataError(f"{self.part.name}: no label can be read: {self.examples[unknown_label]}")
        for kind, count in self.counts.most_common(1):
            if 2 * count > self.row_count:
                raise DataError(
                    f"{self.part.name}: {count} of {self.row_count} rows are rejected for one reason, "
                    f"{self.examples[kind]}, expected at most half of the rows"
                )


def _get_kind(reason: str) -> str:
    """Return a reason without what varies between rows: values and numbers."""
    kind = re.sub(r"\b(is|of|got|holds) .*?(?=, expected| with |: there|$)", r"\1", reason)
    return re.sub(r"\d+", "", kind)


def count_reasons(reasons: Iterable[str]) -> list[tuple[int, str]]:
    """Count the reasons of rejected rows, the most common first.

    Returns:
        `list[tuple[int, str]]`: Counts and reasons. Reasons that differ in values or numbers only are counted
        as one, "such as" the first of them.
    """
    by_kind: dict[str, Counter[str]] = {}
    for reason in reasons:
        by_kind.setdefault(_get_kind(reason), Counter())[reason] += 1
    counts = []
    for spellings in by_kind.values():
        first = next(iter(spellings))
        counts.append((spellings.total(), first if len(spellings) == 1 else f"such as: {first}"))
    return sorted(counts, key=lambda pair: -pair[0])


def _describe_place(part: Part, number: int, row_id: Any) -> str:
    place = f"{part.name}, {part.unit} {number}"
    return place if row_id is None else f"{place}, row {row_id!r}"


def _list_columns(stage: str) -> str:
    return ", ".join(STAGE_COLUMNS[stage])
