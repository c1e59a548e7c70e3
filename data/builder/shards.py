"""The first step of making a data set: a source's rows, normalized, in shards of whole passages.

Nothing is held in memory but some bytes a distinct passage and row, so a source may be larger than it.
"""

import json
import shutil
from collections import Counter
from contextlib import ExitStack
from functools import lru_cache, partial

from tqdm.auto import tqdm

from crosstask.data.builder.normalize import normalize
from crosstask.data.readers import iter_rows
from crosstask.data.schema import digest
from crosstask.utils.errors import DataError
from crosstask.utils.files import write_text

TEXTS = ("passage", "question", "answer", "summary")
# What `iter_rows` may say of a row's split; None where it is for us to carve.
_SPLITS = (None, "train", "validation", "test")


def rows_path(work, shard):
    """The file of a shard's rows as they were read."""
    return work / f"rows-{shard:05d}.jsonl"


def read_into_shards(arguments, work):
    """
    Read the source into `work`, or return what was found when that was done before.

    Args:
        arguments ([`BuildArguments`]): What to read.
        work (`Path`): The folder of the shards and of `rejects.jsonl`.

    Returns:
        `dict`: the plan: rows `read`, `rows` kept and `rejected`, those with `answers`, distinct `passages`,
        `shards`, and `rows_of_shard`.

    Raises:
        DataError: If the source cannot be read, or no row of it can be used.
    """
    path = work / "plan.json"
    if not path.exists():
        shutil.rmtree(work, ignore_errors=True)  # of a run that was killed while reading
        work.mkdir(parents=True)
        write_text(path, json.dumps(_read(arguments, work)))
    return json.loads(path.read_text(encoding="utf-8"))


def count(arguments):
    """The plan, with nothing written."""
    return _read(arguments, None)


def _read(arguments, work):
    counts, rows_of_shard = Counter(), []
    # A passage's questions mostly follow each other, and it may be a whole book.
    normalized = lru_cache(maxsize=64)(partial(normalize, how=arguments.normalize))
    homes = {}  # digest of a passage -> its shard and split, in one number
    with ExitStack() as stack:
        rejects = stack.enter_context(open(work / "rejects.jsonl", "w", encoding="utf-8")) if work else None
        files = stack.enter_context(_Files(work))
        bar = stack.enter_context(tqdm(desc="reading", unit=" rows", mininterval=1))

        def reject(entry):
            counts["rejected"] += 1
            bar.update()
            if rejects:
                rejects.write(json.dumps(entry) + "\n")

        for split, place, row in iter_rows(
            arguments.data,
            "build",
            config_name=arguments.data_config_name,
            columns=arguments.data_columns,
            options=arguments.data_options,
            extractive=arguments.extractive,
            reject=reject,
        ):
            row |= {name: normalized(row[name]) for name in TEXTS}
            code = _SPLITS.index(split)
            key = digest(row["passage"])
            home = homes.get(key, 4 * (len(homes) // arguments.shard_size) + code)
            reason = _unfit(row, arguments)
            if home % 4 != code:
                reason = reason or f"its passage is in split {_SPLITS[home % 4]} too, which is kept"
            if reason:
                reject({**place, "id": row["id"], "reason": reason})
                continue
            homes[key] = home
            shard = home // 4
            rows_of_shard += [0] * (shard + 1 - len(rows_of_shard))
            rows_of_shard[shard] += 1
            counts["rows"] += 1
            counts["answers"] += bool(row["answer"])
            files.write(shard, {**row, "split": split, "place": place})
            bar.update()
    if not counts["rows"]:
        raise DataError(
            f"{arguments.data}: all {counts['rejected']} rows were rejected, expected some to keep"
        )
    return {
        "read": counts["rows"] + counts["rejected"],
        **{name: counts[name] for name in ("rows", "rejected", "answers")},
        "passages": len(homes),
        "shards": len(rows_of_shard),
        "rows_of_shard": rows_of_shard,
    }


def _unfit(row, arguments):
    """Why a row cannot be used once it is normalized, if so."""
    needed = ("passage", "question", "summary") if arguments.teacher is None else ("passage", "question")
    return next((f"empty {name}" for name in needed if not row[name]), None)


class _Files:
    """Appends rows to the files of their shards. A source tells most passages' rows in one go, so one file
    is open at a time; without a folder nothing is written."""

    def __init__(self, work):
        self.work, self.shard, self.file = work, None, None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.file:
            self.file.close()

    def write(self, shard, row):
        if not self.work:
            return
        if shard != self.shard:
            self.__exit__()
            self.shard, self.file = shard, open(rows_path(self.work, shard), "a", encoding="utf-8")
        self.file.write(json.dumps(row) + "\n")
