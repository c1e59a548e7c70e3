"""
First step of a build: read the rows of a source, normalize them, and write them into shards by passage.

All rows of a passage are in one shard. Memory holds a few bytes per row and distinct passage but no text, so
a source may be larger than memory.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from tqdm.auto import tqdm

from crosstask.data.builder.normalize import normalize
from crosstask.data.readers import iter_rows
from crosstask.data.readers.files import name_source
from crosstask.data.schema import hash_texts
from crosstask.utils.errors import DataError
from crosstask.utils.files import write_text

if TYPE_CHECKING:
    from crosstask.data.build import BuildArguments

_SPLITS = (None, "train", "validation", "test")  # None: the source has a single split, to be divided later


def get_rows_path(work: Path, shard: int) -> Path:
    """Return the path of the rows of a shard before annotation."""
    return work / f"rows-{shard:05d}.jsonl"


def read_into_shards(arguments: BuildArguments, work: Path) -> dict[str, Any]:
    """
    Read the source into the shards in `work`. If an earlier run has done so, only return its counts.

    Args:
        arguments ([`BuildArguments`]):
            The source and how to read it.
        work (`Path`):
            Folder of the shards, of `rejects.jsonl` and of `counts.json`.

    Returns:
        `dict`: `read`, the number of rows read, which is the sum of `rows` (accepted) and `rejected`;
        `answers`, the accepted rows with an answer; `shortened`, those of which normalization has dropped
        more than a tenth of the passage; distinct `passages`; `shards`; and `rows_per_shard`, a
        list.

    Raises:
        DataError: If the source cannot be read, or if all of its rows, or more than half for one reason, are
            rejected.
    """
    path = work / "counts.json"  # written last: it exists only if all rows were read
    if not path.exists():
        shutil.rmtree(work, ignore_errors=True)  # left by a run that was killed while reading
        work.mkdir(parents=True)
        write_text(path, json.dumps(_read(arguments, work)))
    return json.loads(path.read_text(encoding="utf-8"))


def count_rows(arguments: BuildArguments) -> dict[str, Any]:
    """Return the counts of [`read_into_shards`] without writing anything."""
    return _read(arguments, None)


def _read(arguments: BuildArguments, work: Path | None) -> dict[str, Any]:
    counts: Counter[str] = Counter()
    drop_reasons: Counter[str] = Counter()  # of the rows that the readers accepted
    rows_per_shard: list[int] = []
    # Hash of a passage to 4 * its shard + the index of its split. One integer per passage saves memory.
    assignments: dict[int, int] = {}
    with ExitStack() as stack:
        rejects = stack.enter_context(open(work / "rejects.jsonl", "w", encoding="utf-8")) if work else None
        writer = stack.enter_context(_ShardWriter(work))
        bar = stack.enter_context(tqdm(desc="reading", unit=" rows", mininterval=1))

        def reject(entry: dict[str, Any]) -> None:
            counts["rejected"] += 1
            bar.update()
            if rejects:
                rejects.write(json.dumps(entry) + "\n")

        def drop(location: dict[str, Any], row: dict[str, Any], reason: str) -> None:
            drop_reasons[reason] += 1
            reject({**location, "id": row["id"], "reason": reason})

        for split, location, row, is_shortened in _iter_normalized_rows(arguments, reject, drop):
            passage, split_index = hash_texts(row["passage"]), _SPLITS.index(split)
            next_shard = len(assignments) // arguments.shard_size
            assignment = assignments.setdefault(passage, 4 * next_shard + split_index)
            if assignment % 4 != split_index:
                drop(location, row, f"its passage is also in split {_SPLITS[assignment % 4]}")
                continue
            shard = assignment // 4
            rows_per_shard += [0] * (shard + 1 - len(rows_per_shard))
            rows_per_shard[shard] += 1
            counts["rows"] += 1
            counts["answers"] += bool(row["answer"])
            counts["shortened"] += is_shortened
            writer.write(shard, {**row, "split": split, "location": location})
            bar.update()
    row_count, data = counts["rows"] + counts["rejected"], name_source(arguments.data)
    place = f" (listed in {work / 'rejects.jsonl'})" if work else ""
    for reason, count in drop_reasons.most_common(1):
        if 2 * count > row_count:
            if reason == "empty summary":
                reason += ", which `teacher: none` takes from the column summary of the data"
            raise DataError(
                f"{data}: {count} of {row_count} rows are rejected for one reason, {reason}, expected at "
                f"most half of the rows{place}"
            )
    if not counts["rows"]:
        raise DataError(f"{data}: all {row_count} rows are rejected, expected at least one usable row{place}")
    return {
        "read": row_count,
        **{name: counts[name] for name in ("rows", "rejected", "answers", "shortened")},
        "passages": len(assignments),
        "shards": len(rows_per_shard),
        "rows_per_shard": rows_per_shard,
    }


def _iter_normalized_rows(
    arguments: BuildArguments,
    reject: Callable[[dict[str, Any]], None],
    drop: Callable[[dict[str, Any], dict[str, Any], str], None],
) -> Iterator[tuple[str | None, dict[str, Any], dict[str, Any], bool]]:
    """
    Yield the split of each row, its location in the source, its texts, and whether its passage is shortened.

    A passage is shortened if normalization has dropped more than a tenth of its characters, without spaces.
    Rows without a text that is needed are rejected.
    """
    # The questions about a passage mostly follow each other, and a passage may be as long as a book.
    cached_normalize = lru_cache(maxsize=64)(partial(normalize, steps=arguments.normalization))
    required = ("passage", "question", "summary") if arguments.teacher is None else ("passage", "question")
    for split, location, row in iter_rows(
        arguments.data,
        "build",
        **arguments.get_reader_kwargs(),
        extractive=arguments.extractive,
        reject=reject,
    ):
        length = len("".join(row["passage"].split()))
        has_answer = bool(row["answer"].strip())
        row |= {name: cached_normalize(row[name]) for name in ("passage", "question", "answer", "summary")}
        empty = next((name for name in required if not row[name]), None)
        if empty:
            drop(location, row, f"empty {empty}")
        elif has_answer and not row["answer"]:  # an empty answer would say that the passage has none
            drop(location, row, "`normalize` leaves nothing of the answer")
        else:
            yield split, location, row, len("".join(row["passage"].split())) < 0.9 * length


class _ShardWriter:
    """
    Append rows to the files of their shards, or to nothing if the folder is `None`.

    Consecutive rows mostly belong to one shard, so only one file is open at a time.
    """

    def __init__(self, work: Path | None):
        self.work = work
        self.shard: int | None = None
        self.file: TextIO | None = None

    def __enter__(self) -> _ShardWriter:
        return self

    def __exit__(self, *_: object) -> None:
        if self.file:
            self.file.close()

    def write(self, shard: int, row: dict[str, Any]) -> None:
        if not self.work:
            return
        if self.file is None or shard != self.shard:
            self.__exit__()
            self.shard, self.file = shard, open(get_rows_path(self.work, shard), "a", encoding="utf-8")
        self.file.write(json.dumps(row) + "\n")
