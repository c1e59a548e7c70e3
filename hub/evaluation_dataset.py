"""Write the rows of an evaluation, and the summaries and scores of its systems, as a data set for the Hub."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from datasets import Dataset, Features, List, Value
from huggingface_hub import DatasetCard, DatasetCardData

from crosstask.data.builder.card import get_size_category
from crosstask.data.readers.registry import CORPORA
from crosstask.data.schema import FEATURES
from crosstask.eval.report.tables import format_name, format_number
from crosstask.eval.run import collect_references
from crosstask.utils.errors import DataError, first_line
from crosstask.utils.files import write_text
from crosstask.utils.hub_names import get_public_name

ROWS_CONFIG = "rows"
_ROW_COLUMNS = ("id", "passage", "question", "answer", "summary", "answerable")
_SYSTEM_COLUMNS = ("id", "summary", "reference_probability", "summary_probability")
_TEXT_COLUMNS = ("id", "summary")
_INTRODUCTION = """# {title}

Test rows with all their references, and the summaries of {count} systems for each row. Use them to evaluate
another model on the same rows, or to verify the results below.

```python
from datasets import load_dataset

rows = load_dataset({repo_id!r}, {rows!r}, split="test")
outputs = load_dataset({repo_id!r}, {first!r}, split="test")
```

The configuration `{rows}` has these columns: `id`, `passage`, `question`, `answer` (empty if the passage
does not answer the question), `summary` (the row's reference), `answerable` (whether the reference contains
the answer; null if unknown) and `references` (all references of the row: ROUGE and BERTScore compare a
summary with each and take the best). `references` is empty for a row labeled "no", because its reference
leaves the answer out.

Every other configuration belongs to a system. Its columns are `id`, `summary`, the scores of the metrics
(null if undefined), and for systems that estimate probabilities `reference_probability` and
`summary_probability`: the probability that the answer is contained in the row's reference and in the
system's summary.

## Evaluate a model

This code needs `crosstask`. It scores a system of this data set:

```python
from crosstask.eval.systems.base import Outputs
from crosstask.data.answers import mean
from crosstask.eval.run import list_rows, score

summaries = outputs["summary"][:]  # replace them by those of your model, one per row
results, _ = score(list_rows(rows), {{"mine": Outputs(summaries)}})
means = {{metric: mean(values) for metric, values in results["mine"].scores.items()}}
print(means)
```

`score` also accepts an encoder for BERTScore and a judge for the entailment of answers. Alternatively, name
this data set in a recipe of `crosstask-eval`, with `data: {repo_id}`, `data_config_name: {rows}` and
`split: all`.
"""
_LIMITATIONS = """
## Limitations

- Metrics that compare words miss paraphrases, and no metric sees every error.
- The rows are for testing: results of a model that was trained on them mean nothing.
{notes}
To name this data set in a model's card, run `crosstask-publish model RUN_DIR --repo user/name --evaluation \
{repo_id}`."""


def has_private_rows(report_dir: str | os.PathLike) -> bool:
    """Return whether rows of an evaluation come from local files: a report names these without a folder."""
    return _is_private(_read_results(Path(report_dir)))


def _is_private(results: Mapping[str, Any]) -> bool:
    data = results["settings"].get("data", "")
    corpora = {corpus.name for corpus in CORPORA}
    return any(name not in corpora and "/" not in name for name in data.split(", "))


def write_evaluation_dataset(
    report_dir: str | os.PathLike,
    folder: str | os.PathLike,
    *,
    repo_id: str,
    license: str,
    data: str | None = None,
) -> None:
    """
    Write the rows and the systems of an evaluation as a data set with a card.

    Args:
        report_dir (`str` or `os.PathLike`): Folder of a report of `crosstask-eval` or of a training run, with
            `results.json` and `rows.parquet`.
        folder (`str` or `os.PathLike`): Folder of the data set; created if it does not exist.
        repo_id (`str`): The repository where it will be published, `"user/name"`.
        license (`str`): The Hub's name of the license of the rows.
        data (`str`, *optional*): A name for the source of the rows, instead of that in the report.

    Raises:
        DataError: If `results.json` or `rows.parquet` is missing, invalid or from another evaluation.
    """
    report_dir, folder = Path(report_dir), Path(folder)
    results, lines = _read_report(report_dir)
    if data is None and _is_private(results):
        data = "private data"
    if data is not None:
        if name := results["settings"].get("data"):  # the default of the title has it
            results["title"] = results["title"].replace(name, data)
        results["settings"]["data"] = data
    for settings in results["settings"].get("systems", {}).values():
        if "checkpoint" in settings:
            settings["checkpoint"] = get_public_name(settings["checkpoint"])
    configs = _name_configs(results["order"])
    _write_rows(
        [line for line in lines if line["system"] == results["order"][0]], folder / "data" / ROWS_CONFIG
    )
    for system, config in configs.items():
        system_lines = [line for line in lines if line["system"] == system]
        _write_system(system_lines, results["systems"][system]["metrics"], folder / "data" / config)
    write_text(folder / "results.json", json.dumps(results, indent=1) + "\n")
    write_text(folder / "README.md", _make_card(results, configs, repo_id, license))


def _read_report(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    results = _read_results(folder)
    try:
        lines = pq.read_table(folder / "rows.parquet").to_pylist()
    except (OSError, ValueError) as error:
        raise _make_report_error(folder, error) from error
    if not lines or {line["system"] for line in lines} != set(results["order"]):
        raise DataError(f"{folder}: expected results.json and rows.parquet of one evaluation, got two")
    return results, lines


def _read_results(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / "results.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _make_report_error(folder, error) from error


def _make_report_error(folder: Path, error: Exception) -> DataError:
    return DataError(
        f"{folder}: expected the folder of an evaluation, with results.json and rows.parquet "
        f"({first_line(error)})"
    )


def _name_configs(systems: Sequence[str]) -> dict[str, str]:
    """Return a unique name of a configuration for each system; it has letters, digits, "-", "_" and "."."""
    configs: dict[str, str] = {}
    for system in systems:
        stem = re.sub(r"[^\w.-]+", "-", system, flags=re.ASCII).strip("-.") or "system"
        config, number = stem, 2
        while config in (ROWS_CONFIG, *configs.values()):
            config, number = f"{stem}-{number}", number + 1
        configs[system] = config
    return configs


def _write_rows(lines: Sequence[Mapping[str, Any]], folder: Path) -> None:
    rows = [{name: {**line, "summary": line["reference"]}[name] for name in _ROW_COLUMNS} for line in lines]
    for row, references in zip(rows, collect_references(rows), strict=True):
        row["references"] = references
    features = {name: FEATURES[name] for name in _ROW_COLUMNS} | {"references": List(Value("string"))}
    _write_parquet(rows, features, folder)


def _write_system(lines: Sequence[Mapping[str, Any]], metrics: Iterable[str], folder: Path) -> None:
    """Write a system's summaries and scores, without columns in which it has no values."""
    columns = [
        name
        for name in (*_SYSTEM_COLUMNS, *metrics)
        if name in _TEXT_COLUMNS or any(line[name] is not None for line in lines)
    ]
    features = {name: Value("string" if name in _TEXT_COLUMNS else "float64") for name in columns}
    _write_parquet([{name: line[name] for name in columns} for line in lines], features, folder)


def _write_parquet(rows: list[dict[str, Any]], features: Mapping[str, Any], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    dataset = Dataset.from_list(rows, features=Features(features))
    dataset.to_parquet(folder / "test-00000-of-00001.parquet")


def _make_card(results: Mapping[str, Any], configs: Mapping[str, str], repo_id: str, license: str) -> str:
    names = (ROWS_CONFIG, *configs.values())
    metadata = DatasetCardData(
        pretty_name=results["title"],
        license=license,
        task_categories=["summarization", "question-answering"],
        size_categories=[get_size_category(results["rows"])],
        tags=["crosstask", "question-prompted-summarization", "evaluation"],
        configs=[
            {
                "config_name": name,
                "data_files": [{"split": "test", "path": f"data/{name}/*.parquet"}],
                **({"default": True} if name == ROWS_CONFIG else {}),
            }
            for name in names
        ],
    )
    introduction = _INTRODUCTION.format(
        title=results["title"], count=len(configs), repo_id=repo_id, rows=ROWS_CONFIG, first=names[1]
    )
    notes = "".join(f"- {note}\n" for note in results["notes"])
    limitations = _LIMITATIONS.format(notes=notes, repo_id=repo_id)
    lines = [introduction, *_write_results(results, configs), *_write_settings(results, configs), limitations]
    card = "\n".join([f"---\n{metadata.to_yaml()}\n---\n", *lines]) + "\n"
    DatasetCard(card)  # raises an error if the Hub could not read the metadata
    return card


def _write_results(results: Mapping[str, Any], configs: Mapping[str, str]) -> list[str]:
    """Return the lines of the section with the mean scores, and with the metrics of the probabilities."""
    systems, bootstrap = results["systems"], results["bootstrap"]
    metrics = list(dict.fromkeys(metric for system in configs for metric in systems[system]["metrics"]))
    figures = list(dict.fromkeys(figure for system in configs for figure in systems[system]["figures"]))
    lines = [
        "## Results",
        "",
        f"Means over {results['rows']:,} rows on {results['passages']:,} passages, with "
        f"{100 * bootstrap['level']:g}% intervals ({bootstrap['resamples']:,} bootstrap resamples of the "
        f"passages, seed {bootstrap['seed']}). `results.json` has them with all digits.",
        "",
        *_write_table(
            ["system", *map(format_name, metrics)],
            [
                [config, *(_format_mean(systems[system]["metrics"].get(metric)) for metric in metrics)]
                for system, config in configs.items()
            ],
        ),
    ]
    if figures:
        lines += [
            "",
            "Probabilities that the row's reference contains the answer, compared with the labels:",
            "",
        ]
        lines += _write_table(
            ["system", *map(format_name, figures)],
            [
                [config, *(format_number(systems[system]["figures"].get(figure)) for figure in figures)]
                for system, config in configs.items()
                if systems[system]["figures"]
            ],
        )
    return lines


def _format_mean(estimate: Mapping[str, Any] | None) -> str:
    if estimate is None or estimate["mean"] is None:
        return "-"
    if estimate["low"] is None:
        return format_number(estimate["mean"])
    mean, low, high = (format_number(estimate[name]) for name in ("mean", "low", "high"))
    return f"{mean} ({low} to {high})"


def _write_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def _write_settings(results: Mapping[str, Any], configs: Mapping[str, str]) -> list[str]:
    """Return the lines of the section with the settings of each system, the data and the versions."""
    record = results["settings"]
    lines = ["", "## How the summaries were generated", ""]
    for system, config in configs.items():
        settings = record.get("systems", {}).get(system, {})
        settings = ", ".join(f"{key} {value}" for key, value in settings.items() if value is not None)
        lines.append(f"- `{config}`: {settings}")
    versions = ", ".join(f"{name} {value}" for name, value in record.get("versions", {}).items())
    return [*lines, "", f"Rows of {record.get('data', '?')}, {record.get('split', '?')}. {versions}".rstrip()]
