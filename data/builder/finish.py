"""The last step of making a data set: splits and labels of the scored rows, and what tells of them."""

import json
import os
import shutil
from collections import Counter
from dataclasses import asdict
from itertools import chain

import pyarrow.parquet
from datasets import Features, Value
from transformers import AutoTokenizer

from crosstask.data.builder.annotate import scored_path
from crosstask.data.builder.card import BuildFacts, write_data_card
from crosstask.data.builder.figures import describe, write_statistics
from crosstask.data.readers.corpora import SOURCES, source_of
from crosstask.data.schema import FEATURES
from crosstask.data.splits import SPLITS, ends_of_splits, place_of, split_at
from crosstask.utils.files import write_text

# The probability stays beside the label, so that another threshold needs no other judging.
SCORED_FEATURES = Features({**FEATURES, "entailment": Value("float32")})


def finish(arguments, folder, plan):
    """
    Make the data set's files of the scored shards, or leave them where they are made already.

    Args:
        arguments ([`BuildArguments`]): Of these, what may be moved without scoring again: `threshold`,
            `validation` and `test`.
        folder (`Path`): The data set's; its shards lie in `work/`.
        plan (`dict`): As `read_into_shards` returns it.

    Returns:
        `str`: What there is to tell: the sum of the rows, and where the files are.

    Raises:
        DataError: If there are fewer passages than splits.
    """
    record = folder / "build.json"  # written last, so that what it tells of is whole
    wanted = {name: getattr(arguments, name) for name in ("threshold", "validation", "test")}
    if record.exists():
        done = json.loads(record.read_text(encoding="utf-8"))
        if done["made_with"] == wanted:
            return f"Nothing to do: {done['told']}"
        record.unlink()
    rows, rejects = _write_rows(arguments, folder, plan), _write_rejects(folder, plan)
    splits = {split: _read(folder / "data", split) for split in SPLITS if rows[split]}
    statistics = describe(splits, _counter(arguments.teacher), threshold=arguments.threshold)
    write_statistics(statistics, folder)
    write_data_card(folder, _facts(arguments, folder, plan, rows, rejects, statistics))
    added = f" + {rows['negatives']} hard negatives" if arguments.hard_negatives else ""
    told = (
        f"{plan['read']} rows read{added} = {sum(rows[split] for split in SPLITS)} rows out + "
        f"{sum(rejects.values())} rejected, in {folder}"
    )
    write_text(record, json.dumps({"made_with": wanted, "told": told}, indent=1))
    return told


def _counter(teacher):
    """What counts the tokens of texts: the teacher's tokenizer. Without a teacher, words are counted."""
    if teacher is None:
        return None
    tokenizer = AutoTokenizer.from_pretrained(teacher)
    return lambda texts: [
        len(ids) for ids in tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    ]


def _facts(arguments, folder, plan, rows, rejects, statistics):
    teacher = judge = None
    told = [
        line for shard in range(plan["shards"]) for line in _lines(folder / "work", shard) if "cut" in line
    ]
    if arguments.teacher:
        teacher = {name: getattr(arguments, name) for name in ("mode", "candidates", "hard_negatives")}
        teacher |= {"name": arguments.teacher, "generation": told[0]["generation"]}
    if arguments.judge:
        judge = {"name": arguments.judge, "template": arguments.hypothesis}
    carved = "Parted by a hash of the passage: all rows of a passage lie in one split."
    return BuildFacts(
        name=folder.resolve().name,
        features=SCORED_FEATURES,
        statistics=statistics,
        sources=[_source(arguments.data)],
        rows_in=plan["read"],
        rejects=rejects,
        rows_added=rows["negatives"],
        language=["en"] if source_of(arguments.data) else [],  # all corpora that are known here are English
        normalization=_steps(arguments.normalize),
        splitting=carved if rows["carved"] else "The source's own; no passage lies in two splits.",
        teacher=teacher,
        cut_inputs=sum(line["cut"] for line in told),
        max_input_tokens=told[0]["limit"] if teacher else None,
        judge=judge,
        seed=arguments.seed if arguments.mode == "question" else None,
    )


def _steps(normalization):
    """Those that are on, by their names in a recipe."""
    steps = asdict(normalization).items()
    return [
        name if value is True else f"{name}: {value}" for name, value in steps if value not in (False, "keep")
    ]


def _source(data):
    known = SOURCES.get(source_of(data))
    if known is None:
        return {"name": data}
    return {
        "name": known.title,
        "id": known.hub_id,
        **{k: getattr(known, k) for k in ("licence", "citation", "url")},
    }


def _write_rows(arguments, folder, plan):
    """Write `data/<split>-<shard>.parquet`; returns the rows by split, and those that are hard negatives."""
    work, temporary, counts = folder / "work", folder / "data.tmp", Counter()
    shutil.rmtree(temporary, ignore_errors=True)  # of a run that was killed here
    temporary.mkdir()
    places = {place_of(row["passage"]) for row in _rows(work, plan) if row["split"] is None}
    counts["carved"] = len(places)
    ends = ends_of_splits(places, arguments.validation, arguments.test) if places else None
    schema = SCORED_FEATURES.arrow_schema  # with the types that `datasets` looks for
    for shard in range(plan["shards"]):
        rows = {split: [] for split in SPLITS}
        for row in _rows_of(work, shard):
            label = _label(row, arguments)
            if row["negative"] and label:
                counts["negatives left out"] += 1
                continue
            counts["negatives"] += row["negative"]
            split = row["split"] or split_at(place_of(row["passage"]), ends)
            rows[split].append({**{name: row[name] for name in SCORED_FEATURES}, "answerable": label})
        for split, kept in rows.items():
            counts[split] += len(kept)
            if kept:
                path = temporary / f"{split}-{shard:05d}.parquet"
                pyarrow.parquet.write_table(pyarrow.Table.from_pylist(kept, schema), path)
    shutil.rmtree(folder / "data", ignore_errors=True)
    os.replace(temporary, folder / "data")
    return counts


def _label(row, arguments):
    if not row["answer"]:
        return 0
    if row["entailment"] is None:  # nobody judged: what the source says of its own summary
        return row["answerable"]
    return int(row["entailment"] > arguments.threshold)


def _write_rejects(folder, plan):
    """Gather the rejects of both steps in `rejects.jsonl`; returns how many there are of each reason."""
    reasons, path = Counter(), folder / "rejects.jsonl"
    temporary = path.with_name(f"{path.name}.tmp")
    with open(temporary, "w", encoding="utf-8") as file:
        with open(folder / "work" / "rejects.jsonl", encoding="utf-8") as read:
            entries = chain(map(json.loads, read), _rejects(folder / "work", plan))
            for entry in entries:
                reasons[entry["reason"]] += 1
                file.write(json.dumps(entry) + "\n")
    os.replace(temporary, path)
    return dict(reasons)


def _lines(work, shard):
    with open(scored_path(work, shard), encoding="utf-8") as file:
        yield from map(json.loads, file)


def _rows_of(work, shard):
    return (line["row"] for line in _lines(work, shard) if "row" in line)


def _rows(work, plan):
    return chain.from_iterable(_rows_of(work, shard) for shard in range(plan["shards"]))


def _rejects(work, plan):
    for shard in range(plan["shards"]):
        yield from (line["reject"] for line in _lines(work, shard) if "reject" in line)


def _read(folder, split):
    """The rows of a split as they were written, a file at a time."""
    for path in sorted(folder.glob(f"{split}-*.parquet")):
        yield from pyarrow.parquet.read_table(path).to_pylist()
