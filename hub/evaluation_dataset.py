"""An evaluation as a data set of the Hub: its rows, for others to try their models on, and its systems."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from datasets import Dataset, Features, List, Value
from huggingface_hub import DatasetCard, DatasetCardData

from crosstask.data.builder.card import size_category
from crosstask.data.schema import FEATURES
from crosstask.eval.report.results import format_name, number
from crosstask.eval.run import references_of
from crosstask.utils.errors import DataError
from crosstask.utils.files import write_text

ROWS = "rows"  # the configuration that has them
_ROW_COLUMNS = ("id", "passage", "question", "answer", "summary", "answerable")
_OF_SYSTEM = ("id", "summary", "probability", "own_probability")
_INTRODUCTION = """# {title}

Test rows with all references, and what {count} systems wrote for them, row by row: for trying another model
on the very same rows, and for checking the figures below.

```python
from datasets import load_dataset

rows = load_dataset({repo_id!r}, {rows!r}, split="test")
theirs = load_dataset({repo_id!r}, {first!r}, split="test")
```

`{rows}` has for each row `id`, `passage`, `question`, `answer` (empty where the passage gives none),
`summary` (its own reference), `answerable` (whether that carries the answer; null where unknown) and
`references`: all summaries that ROUGE and BERTScore compare with, of which the best counts. A row labelled
"no" has none, since its summary leaves the answer out. Every other configuration is a system's: `id`,
`summary`, the score of each metric (null where undefined) and, of systems that judge, the probability that
the answer is carried by the row's own reference (`probability`) and by the system's summary
(`own_probability`).

## Score a model

With `crosstask` installed, here for a system of this data set:

```python
from crosstask.eval.systems.base import Outputs
from crosstask.data.answers import mean
from crosstask.eval.run import score

summaries = theirs["summary"][:]  # or your model's, one a row
results, _ = score(rows.to_list(), {{"mine": Outputs(summaries)}})
means = {{metric: mean(values) for metric, values in results["mine"].scores.items()}}
print(means)
```

`score` also takes an encoder for BERTScore and a judge for entailment. Or name this data set in a recipe of
`crosstask-eval`: `data: {repo_id}` with `data_config_name: {rows}` and `split: all`.
"""


def write_evaluation_dataset(
    report_dir: str | os.PathLike[str], folder: str | os.PathLike[str], *, repo_id: str, license: str
) -> None:
    """Write the folder of a data set from what an evaluation found.

    Args:
        report_dir: Of a report of `crosstask-eval`, or of a training run, which ends with an evaluation:
            with `results.json` and `rows.parquet`.
        folder: Where to; made if it is not there.
        repo_id: Where it will be published, "user/name".
        license: The Hub's name of the rows' licence.

    Raises:
        DataError: If the report is not whole.
    """
    report_dir, folder = Path(report_dir), Path(folder)
    results, lines = _read(report_dir)
    names = _configurations(results["order"])
    by_system = {name: [line for line in lines if line["system"] == name] for name in names}
    first = by_system[results["order"][0]]
    rows = [{**line, "summary": line["reference"]} for line in first]
    rows = [{name: row[name] for name in _ROW_COLUMNS} for row in rows]
    for row, references in zip(rows, references_of(rows), strict=True):
        row["references"] = references
    features = Features(
        {name: FEATURES[name] for name in _ROW_COLUMNS} | {"references": List(Value("string"))}
    )
    _write(rows, Features(features), folder / "data" / ROWS)
    for system, name in names.items():
        _write(*_system(by_system[system], results["systems"][system]), folder / "data" / name)
    write_text(folder / "results.json", (report_dir / "results.json").read_text(encoding="utf-8"))
    data = DatasetCardData(
        pretty_name=results["title"],
        license=license,
        task_categories=["summarization", "question-answering"],
        size_categories=[size_category(len(rows))],
        tags=["crosstask", "question-prompted-summarization", "evaluation"],
        configs=[
            {
                "config_name": name,
                "data_files": [{"split": "test", "path": f"data/{name}/*.parquet"}],
                **({"default": True} if name == ROWS else {}),
            }
            for name in (ROWS, *names.values())
        ],
    )
    told = {"title": results["title"], "count": len(names), "repo_id": repo_id, "rows": ROWS}
    text = "\n".join(
        [
            _INTRODUCTION.format(**told, first=next(iter(names.values()))),
            *_figures(results, names),
            *_settings(results, names),
            *_notes(results, repo_id),
        ]
    )
    card = f"---\n{data.to_yaml()}\n---\n\n{text}\n"
    DatasetCard(card)  # fails on metadata that the Hub would not read
    write_text(folder / "README.md", card)


def _read(folder: Path) -> tuple[Mapping[str, Any], list[dict[str, Any]]]:
    try:
        results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        lines = pq.read_table(folder / "rows.parquet").to_pylist()
    except (OSError, ValueError) as error:
        raise DataError(
            f"{folder}: expected the folder of an evaluation, with results.json and rows.parquet "
            f"({str(error).splitlines()[0]})"
        ) from error
    if not lines or {line["system"] for line in lines} != set(results["order"]):
        raise DataError(f"{folder}: results.json and rows.parquet are not of one evaluation")
    return results, lines


def _configurations(systems: Sequence[str]) -> dict[str, str]:
    """A configuration's name for each system: letters, digits, "-", "_" and ".", each once."""
    names: dict[str, str] = {}
    for system in systems:
        stem = re.sub(r"[^\w.-]+", "-", system, flags=re.ASCII).strip("-.") or "system"
        name, number = stem, 2
        while name in (ROWS, *names.values()):
            name, number = f"{stem}-{number}", number + 1
        names[system] = name
    return names


def _system(lines: Sequence[Mapping[str, Any]], found: Mapping[str, Any]):
    """The rows of a system's configuration, and their types; without columns that it has no values for."""
    columns = [*_OF_SYSTEM, *found["metrics"]]
    columns = [
        name for name in columns if name in _OF_SYSTEM[:2] or any(line[name] is not None for line in lines)
    ]
    kinds = {name: Value("string" if name in _OF_SYSTEM[:2] else "float64") for name in columns}
    return [{name: line[name] for name in columns} for line in lines], Features(kinds)


def _write(rows: Sequence[Mapping[str, Any]], features: Features, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    Dataset.from_list(list(rows), features=features).to_parquet(folder / "test-00000-of-00001.parquet")


def _figures(results: Mapping[str, Any], names: Mapping[str, str]) -> list[str]:
    systems, bootstrap = results["systems"], results["bootstrap"]
    metrics = list(dict.fromkeys(metric for system in names for metric in systems[system]["metrics"]))
    figures = list(dict.fromkeys(figure for system in names for figure in systems[system]["figures"]))
    means = [
        [name, *(_mean(systems[system], metric) for metric in metrics)] for system, name in names.items()
    ]
    lines = [
        "## Figures",
        "",
        f"Means over {results['rows']:,} rows on {results['passages']:,} passages, with "
        f"{100 * bootstrap['level']:g}% intervals ({bootstrap['resamples']:,} bootstrap resamples of the "
        f"passages, seed {bootstrap['seed']}); `results.json` has every digit.",
        "",
        *_table(["system", *map(format_name, metrics)], means),
    ]
    if figures:
        values = [
            [name, *(number(systems[system]["figures"].get(figure)) for figure in figures)]
            for system, name in names.items()
            if systems[system]["figures"]
        ]
        lines += ["", "Does it know whether the row's own reference carries the answer?", ""]
        lines += _table(["system", *map(format_name, figures)], values)
    return lines


def _mean(system: Mapping[str, Any], metric: str) -> str:
    found = system["metrics"].get(metric)
    if found is None or found["mean"] is None:
        return "-"
    interval = "" if found["low"] is None else f" ({number(found['low'])} to {number(found['high'])})"
    return number(found["mean"]) + interval


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def _settings(results: Mapping[str, Any], names: Mapping[str, str]) -> list[str]:
    made = results["made"]
    lines = ["", "## How the summaries were made", ""]
    for system, name in names.items():
        settings = made.get("systems", {}).get(system, {})
        said = ", ".join(f"{key} {value}" for key, value in settings.items() if value is not None)
        lines.append(f"- `{name}`: {said}")
    versions = ", ".join(f"{name} {value}" for name, value in made.get("versions", {}).items())
    return [*lines, "", f"Rows of {made.get('data', '?')}, {made.get('split', '?')}. {versions}".rstrip()]


def _notes(results: Mapping[str, Any], repo_id: str) -> list[str]:
    return [
        "",
        "## Limits",
        "",
        "- Metrics of words do not see paraphrases, and none of them sees every error.",
        "- The rows are for testing: a model that was trained on them has no figures here.",
        *(f"- {note}" for note in results["notes"]),
        "",
        "A model's card can name this data set: "
        f"`crosstask-publish model RUN_DIR --repo user/name --evaluation {repo_id}`.",
    ]
