"""Last step of a build: write the splits with their labels, the statistics, the rejects and the card."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet
from datasets import Features, Value
from transformers import AutoTokenizer

from crosstask.data.builder.annotate import get_scored_path
from crosstask.data.builder.card import BuildReport, write_data_card
from crosstask.data.builder.charts import write_charts
from crosstask.data.builder.normalize import Normalization
from crosstask.data.builder.stats import compute_statistics
from crosstask.data.readers.files import name_source
from crosstask.data.readers.registry import find_corpus
from crosstask.data.schema import FEATURES
from crosstask.data.splits import SPLITS, compute_split_ends, find_split, hash_passage
from crosstask.utils.errors import DataError
from crosstask.utils.files import replace_file, write_text

if TYPE_CHECKING:
    from crosstask.data.build import BuildArguments

# With the probability beside the label, another threshold can be applied without scoring again.
SCORED_FEATURES = Features({**FEATURES, "entailment": Value("float32"), "contradiction": Value("float32")})
CONTRADICTION_THRESHOLD = 0.5  # a passage contradicts a summary if the judge finds it more likely than not
SPLIT_BY_HASH = "A hash of the passage determines the split, so all rows about a passage are in one split."
SPLIT_BY_SOURCE = "The splits are those of the source. No passage is in two splits."


def finish(arguments: BuildArguments, folder: Path, counts: Mapping[str, Any]) -> str:
    """
    Write the files of the data set from the scored shards, unless they are complete.

    Args:
        arguments ([`BuildArguments`]):
            The recipe. `threshold`, `validation` and `test` may differ from an earlier run without scoring
            again.
        folder (`Path`):
            Folder of the data set. Its shards are in `work/`.
        counts (`Mapping[str, Any]`):
            Counts as returned by [`read_into_shards`].

    Returns:
        `str`: A message with the number of rows and the folder.

    Raises:
        DataError: If there are fewer passages than splits, or most rows were rejected for one reason.
    """
    path = folder / "build.json"  # written last: it exists only if the other files are complete
    settings = {name: getattr(arguments, name) for name in ("threshold", "validation", "test")}
    if path.exists():
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["settings"] == settings:
            return f"Nothing to do: {record['message']}"
        path.unlink()
    rejects = _write_rejects(folder, counts)
    _check_rejects(arguments, folder, counts)
    rows = _write_rows(arguments, folder, counts)
    splits = {split: _iter_split(folder / "data", split) for split in SPLITS if rows[split]}
    count_tokens = _make_token_counter(arguments.teacher) if arguments.teacher else None
    statistics = compute_statistics(splits, count_tokens, threshold=arguments.threshold)
    write_text(folder / "stats.json", json.dumps(statistics, indent=2, sort_keys=True) + "\n")
    write_charts(statistics, folder)
    write_data_card(folder, _make_report(arguments, folder, counts, rows, rejects, statistics))
    added = f" + {rows['negatives']} negatives" if rows["negatives"] or arguments.hard_negatives else ""
    message = (
        f"{counts['read']} rows read{added} = {sum(rows[split] for split in SPLITS)} rows written + "
        f"{sum(rejects.values())} rejected, in {folder}"
    )
    write_text(path, json.dumps({"settings": settings, "message": message}, indent=1))
    return message


def _write_rows(arguments: BuildArguments, folder: Path, counts: Mapping[str, Any]) -> Counter[str]:
    """
    Write `data/<split>-<shard>.parquet`.

    Returns:
        `Counter`: The rows of each split, `negatives` among them, and `passages_to_split`.
    """
    work, temporary = folder / "work", folder / "data.tmp"
    rows: Counter[str] = Counter()
    shutil.rmtree(temporary, ignore_errors=True)  # left by a run that was killed while writing
    temporary.mkdir()
    all_rows = chain.from_iterable(_iter_entries(work, shard, "row") for shard in range(counts["shards"]))
    positions = {hash_passage(row["passage"]) for row in all_rows if row["split"] is None}
    rows["passages_to_split"] = len(positions)
    ends = compute_split_ends(positions, arguments.validation, arguments.test) if positions else {}
    schema = SCORED_FEATURES.arrow_schema  # has the types of the columns as `datasets` reads them
    for shard in range(counts["shards"]):
        rows_by_split: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
        for row in _iter_entries(work, shard, "row"):
            label = _get_label(row, arguments.threshold)
            if row["negative"] and label:
                continue
            rows["negatives"] += row["negative"]
            split = row["split"] or find_split(hash_passage(row["passage"]), ends)
            columns = {name: row.get(name) for name in SCORED_FEATURES}
            rows_by_split[split].append({**columns, "answerable": label})
        for split, split_rows in rows_by_split.items():
            rows[split] += len(split_rows)
            if split_rows:
                table = pyarrow.Table.from_pylist(split_rows, schema)
                pyarrow.parquet.write_table(table, temporary / f"{split}-{shard:05d}.parquet")
    shutil.rmtree(folder / "data", ignore_errors=True)
    os.replace(temporary, folder / "data")
    return rows


def _get_label(row: Mapping[str, Any], threshold: float) -> int | None:
    if not row["answer"]:
        return 0
    if row["entailment"] is None:  # not judged: keep the label of the source
        return row["answerable"]
    # A summary that has the answer by luck, and says what the passage denies, does not carry it.
    is_contradicted = (row.get("contradiction") or 0) > CONTRADICTION_THRESHOLD
    return int(row["entailment"] > threshold and not is_contradicted)


def _write_rejects(folder: Path, counts: Mapping[str, Any]) -> dict[str, int]:
    """Write the rejects of the first two steps to `rejects.jsonl`, and return how many have each reason."""
    work = folder / "work"
    reasons: Counter[str] = Counter()
    with (
        replace_file(folder / "rejects.jsonl") as temporary,
        open(temporary, "w", encoding="utf-8") as file,
        open(work / "rejects.jsonl", encoding="utf-8") as first_step,
    ):
        second_step = chain.from_iterable(
            _iter_entries(work, shard, "reject") for shard in range(counts["shards"])
        )
        for entry in chain(map(json.loads, first_step), second_step):
            reasons[entry["reason"]] += 1
            file.write(json.dumps(entry) + "\n")
    return dict(reasons)


def _check_rejects(arguments: BuildArguments, folder: Path, counts: Mapping[str, Any]) -> None:
    """Raise a `DataError` if the second step has rejected most rows for one reason, as the first one does."""
    shards = range(counts["shards"])
    reasons = Counter(
        entry["reason"] for shard in shards for entry in _iter_entries(folder / "work", shard, "reject")
    )
    kept = sum(
        not row["negative"] for shard in shards for row in _iter_entries(folder / "work", shard, "row")
    )
    total = kept + reasons.total()
    for reason, count in reasons.most_common(1):
        if 2 * count > total:
            raise DataError(
                f"{arguments.teacher}: {count} of {total} rows are rejected for one reason, {reason}, "
                f"expected at most half of the rows (listed in {folder / 'rejects.jsonl'})"
            )


def _iter_entries(work: Path, shard: int, key: str) -> Iterator[dict[str, Any]]:
    """Yield the values under a key ("row", "reject" or "teacher") from the lines of a scored shard."""
    with open(get_scored_path(work, shard), encoding="utf-8") as file:
        yield from (line[key] for line in map(json.loads, file) if key in line)


def _iter_split(data: Path, split: str) -> Iterator[dict[str, Any]]:
    """Yield the written rows of a split; memory holds one file at a time."""
    for path in sorted(data.glob(f"{split}-*.parquet")):
        yield from pyarrow.parquet.read_table(path).to_pylist()


def _make_token_counter(teacher: str) -> Callable[[list[str]], list[int]]:
    tokenizer = AutoTokenizer.from_pretrained(teacher)
    return lambda texts: [
        len(ids) for ids in tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    ]


def _make_report(
    arguments: BuildArguments,
    folder: Path,
    counts: Mapping[str, Any],
    rows: Counter[str],
    rejects: dict[str, int],
    statistics: dict[str, Any],
) -> BuildReport:
    entries = [
        entry
        for shard in range(counts["shards"])
        for entry in _iter_entries(folder / "work", shard, "teacher")
    ]
    teacher = judge = None
    if arguments.teacher:
        teacher = {name: getattr(arguments, name) for name in ("mode", "candidates", "hard_negatives")}
        teacher |= {"name": arguments.teacher, "generation": entries[0]["generation"]}
    if arguments.judge:
        settings = {name: getattr(arguments, name) for name in ("faithful", "wrong_values")}
        judge = {"name": arguments.judge, "template": arguments.hypothesis, **settings}
    corpus = find_corpus(name_source(arguments.data))
    source: dict[str, str | None] = {"name": name_source(arguments.data)}
    if corpus:
        source = {"name": corpus.title, "id": corpus.hub_id}
        source |= {name: getattr(corpus, name) for name in ("license", "citation", "url")}
    return BuildReport(
        name=folder.resolve().name,
        features=SCORED_FEATURES,
        statistics=statistics,
        sources=[source],
        rows_read=counts["read"],
        rejects=rejects,
        rows_added=rows["negatives"],
        rows_shortened=counts["shortened"],
        language=["en"] if corpus else [],  # all corpora with a reader are English
        normalization=_list_steps(arguments.normalization),
        splitting=SPLIT_BY_HASH if rows["passages_to_split"] else SPLIT_BY_SOURCE,
        teacher=teacher,
        truncated_inputs=sum(entry["truncated"] for entry in entries),
        max_source_length=entries[0]["max_source_length"] if teacher else None,
        judge=judge,
        seed=arguments.seed if arguments.mode == "question" else None,
    )


def _list_steps(normalization: Normalization) -> list[str]:
    """List the active normalization steps by their keys in a recipe."""
    steps = asdict(normalization).items()
    return [
        name if value is True else f"{name}: {value}" for name, value in steps if value not in (False, "keep")
    ]
