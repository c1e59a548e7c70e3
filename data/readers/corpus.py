"""The types that all readers share: `Part`, `Reject` and `Corpus`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from crosstask.data.schema import STAGES
from crosstask.utils.errors import DataError

Record = Mapping[str, Any]  # what a file or data set has, under the names of its columns
Row = dict[str, Any]  # what a stage reads, under the names of `crosstask.data.schema.FEATURES`


@dataclass(frozen=True)
class Reject:
    """A record or row that is not used; it takes the place of the record or row.

    Attributes:
        reason (`str`): Why it is not used, without the place.
        id (`Any`): The id of the record or row, if it has one.
        is_malformed (`bool`): Whether it breaks the format. `read_rows` raises an error for it, `iter_rows`
            rejects it. What is well-formed but of no use (an empty passage, a repeated row) is always
            rejected.
        is_expected (`bool`): Whether the stage or the user asks to leave such rows out, e.g. repeated rows.
            Most rows of a source may go for such a reason, but not for another one.
    """

    reason: str
    id: Any = None
    is_malformed: bool = False
    is_expected: bool = False


@dataclass
class Part:
    """One split of a source, before its records become rows.

    Attributes:
        name (`str`): What messages call it, such as the path of its file.
        records (`Iterable[tuple[int, Record | Reject]]`): Each record with its number.
        source (`str`): The value of `source` for rows that have none.
        stem (`str`): The ids of rows that have none are `"<stem>:<number>"`.
        unit (`str`): What the number counts: "line" or "row" (from 1), or "index" (from 0).
        corpus ([`Corpus`], *optional*): The corpus of the records. If `None`, the columns tell it.
        is_typed (`bool`): Whether the records tell numbers from text; those of CSV do not.
        files (`list[Part]`, *optional*): The parts of the files, if the split lies in several ones. They have
            the records.
    """

    name: str
    records: Iterable[tuple[int, Record | Reject]] = ()
    source: str = ""
    stem: str = ""
    unit: str = "line"
    corpus: Corpus | None = None
    is_typed: bool = True
    files: list[Part] = field(default_factory=list)


@dataclass(frozen=True)
class JsonFormat:
    """The official JSON file of a corpus: one document, which is flattened to records.

    Attributes:
        description (`str`): The form of the document, for an error message.
        matches (`Callable[[Any], bool]`): Whether a parsed document has this form.
        flatten (`Callable[[Any], Iterator[Record | Reject]]`): Yields the records that the data set on the
            Hub has, and a malformed `Reject` for each piece of the document that gives none.
    """

    description: str
    matches: Callable[[Any], bool]
    flatten: Callable[[Any], Iterator[Record | Reject]]


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Everything about a corpus: what a data card says about it, how it is recognized, and how it is read.

    Attributes:
        name (`str`): Its short name; a path or id with a component of this name is taken to be this corpus.
        title (`str`): Its name in a data card.
        license (`str`): Its license, by the Hub's identifier; "unknown" if its authors state none.
        url (`str`): Its home page.
        citation (`str`): The paper.
        expected (`str`): What a record should have been, for an error message: "expected ...".
        make_rows (`Callable[[Record, str, str], Iterable[Row | Reject]]`): Takes a record, a stage and the id
            for rows without one, and yields the rows. A row may lack columns and may have columns that the
            stage does not read. `KeyError`, `TypeError`, `AttributeError` and `ValueError` mean that the
            record is malformed.
        hub_id (`str`, *optional*): The id of its authors' data set on the Hub.
        stages (`tuple[str, ...]`): The training stages that it serves. One that serves "answer" also serves
            "build" and "ask".
        columns (`tuple[str, ...]`): The columns by which its records are recognized; every record has them.
        excluded_columns (`tuple[str, ...]`): Records with any of these columns are not recognized.
        official_files (`str`, *optional*): A regular expression for the lower-cased names of its official
            files, used by [`find_corpus`].
        json_format ([`JsonFormat`], *optional*): Its official JSON, if it has one.
        is_extractive (`bool`): Whether each answer was marked in its passage. `iter_rows` then rejects rows
            with an answer that is not in the passage.
        is_joint (`bool`): Whether `make_rows` yields the rows of stage "fuse" for all stages, which then take
            the distinct ones of what they need.
        read_splits (`Callable[[str, Mapping[str, Any]], dict[str, Part]]`, *optional*): Takes a stage and the
            options of `read_rows`, and returns the parts by split. Only for a corpus that is read by its
            name.
    """

    name: str
    title: str
    license: str
    url: str
    citation: str
    expected: str
    make_rows: Callable[[Record, str, str], Iterable[Row | Reject]]
    hub_id: str | None = None
    stages: tuple[str, ...] = STAGES
    columns: tuple[str, ...] = ()
    excluded_columns: tuple[str, ...] = ()
    official_files: str | None = None
    json_format: JsonFormat | None = None
    is_extractive: bool = False
    is_joint: bool = False
    read_splits: Callable[[str, Mapping[str, Any]], dict[str, Part]] | None = None

    def recognizes(self, columns: set[str]) -> bool:
        """Return whether records with these columns are of this corpus."""
        return (
            bool(self.columns) and columns >= set(self.columns) and columns.isdisjoint(self.excluded_columns)
        )

    def serves(self, stage: str) -> bool:
        """Return whether the corpus has rows for a stage."""
        return ("answer" if stage in ("build", "ask") else stage) in self.stages

    def convert(self, record: Record, stage: str, default_id: str) -> list[Row | Reject]:
        """Return the rows of a record, at least one.

        Raises:
            DataError: If the record is malformed or has nothing for the stage. The message does not name the
                place.
        """
        missing = [column for column in self.columns if column not in record]
        if missing:
            raise DataError(
                f"the column {missing[0]!r} is missing: there are {', '.join(record)}; {self.title} has "
                f"{', '.join(self.columns)}"
            )
        try:
            rows = list(self.make_rows(record, stage, default_id))
        except DataError:
            raise
        except (KeyError, TypeError, AttributeError, ValueError):
            raise DataError(f"expected {self.expected}") from None
        if not rows:
            raise DataError(f"has no question for stage {stage}, expected at least one")
        return rows


def make_answered_row(row_id: Any, passage: str, question: str, text: str) -> Row:
    """Return the row of a human-written text that is both the answer and the summary for the question."""
    return {
        "id": row_id,
        "passage": passage,
        "question": question,
        "answer": text,
        "summary": text,
        "answerable": 1,
    }
