"""What an evaluation found, and the forms it is handed on in: files, a table, and the Hub's metadata."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from huggingface_hub import EvalResult

from crosstask.eval.scoring.bootstrap import Estimate, intervals
from crosstask.eval.scoring.scores import table
from crosstask.utils.files import write_text

WIDTH = 120  # columns of a terminal
SIGNIFICANT = 0.05
# Of these, neither more nor less is better; of those, less is.
DESCRIPTIVE = frozenset({"length", "coverage", "density", "compression"})
LOWER_IS_BETTER = frozenset({"brier", "ece"})
COLUMNS = (
    *("id", "passage", "question", "answer", "answerable", "reference", "system", "summary"),
    *("probability", "own_probability"),
)

_BATCH = 1000  # rows whose lines are in memory together: each repeats its passage for every system

# An absolute path, of POSIX or Windows, that is no part of a URL.
_PATH = re.compile(r"(?<![\w.:/\\])(?:/[^\s/'\"<>]+){2,}/?|(?<!\w)[A-Za-z]:\\[^\s'\"<>]+")


@dataclass
class SystemResult:
    """What one system wrote, and how good it was.

    Attributes:
        summaries: One a row; an empty one is a summary like any other.
        scores: The scores of each metric, one a row, None where it is undefined (as answer recall is
            without an answer).
        figures: Metrics that are no means of rows (accuracy, f1, auroc, average_precision, brier, ece),
            None where undefined.
        reliability: Bins of `probabilities`, each with its mean probability `confidence`, the share of
            yes among the labels `yes`, and the number of rows `count`. An empty bin may be left out.
        probabilities: P(the row's reference summary carries the answer), one a row: what `figures` are
            about.
        own: P(the system's own summary carries the answer), one a row.
    """

    summaries: Sequence[str]
    scores: Mapping[str, Sequence[float | None]]
    figures: Mapping[str, float | None] = field(default_factory=dict)
    reliability: Sequence[Mapping[str, float | None]] | None = None
    probabilities: Sequence[float] | None = None
    own: Sequence[float] | None = None


@dataclass
class Evaluation:
    """Systems that summarized the same rows.

    Attributes:
        title: What was evaluated, in a line.
        rows: With the columns of `data.schema.FEATURES`; `summary` is the reference, `answerable` the
            label whether that carries the answer: 0, 1, or None where unknown.
        systems: The systems by name, in the order in which they are shown.
        baseline: The system that p-values compare the others with; None for no p-values.
        notes: What a reader has to know, such as "entailment: no judge was given".
        history: Stage to what the `Trainer` logged there, as `eval.report.learning_curve` takes it.
        made: How the figures came about: the command, versions, the data's name, settings. What goes
            into a JSON file.
        resamples: Of the bootstrap; see `eval.scoring.bootstrap.intervals`, as for the next two.
        seed: Of the bootstrap.
        level: Of its intervals.

    Folders of the machine in `title`, `notes` and `made` are cut off, so that no file tells of them.

    Raises:
        ValueError: If a system has not one summary, score or probability for each row, if a metric is
            named like a column of `rows.parquet`, or if the baseline is no system.
    """

    title: str
    rows: Sequence[Mapping[str, Any]]
    systems: Mapping[str, SystemResult]
    baseline: str | None = None
    notes: Sequence[str] = ()
    history: Mapping[str, Sequence[Mapping]] | None = None
    made: Mapping[str, Any] = field(default_factory=dict)
    resamples: int = 1000
    seed: int = 0
    level: float = 0.95

    def __post_init__(self):
        if self.baseline is not None and self.baseline not in self.systems:
            raise ValueError(
                f"The baseline {self.baseline!r} is none of the systems: {', '.join(self.systems)}."
            )
        for name, system in self.systems.items():
            columns = {"summaries": system.summaries, **system.scores}
            columns |= {"probabilities": system.probabilities, "own": system.own}
            for column, values in columns.items():
                if values is not None and len(values) != len(self.rows):
                    raise ValueError(
                        f"{name}: there are {len(values)} values of {column}, expected one for each of "
                        f"{len(self.rows)} rows."
                    )
            if taken := sorted(set(system.scores) & set(COLUMNS)):
                raise ValueError(
                    f"{name}: a metric cannot be named {taken[0]!r}, as a column of the rows is."
                )
        self.title, self.notes, self.made = map(
            without_folders, (self.title, list(self.notes), dict(self.made))
        )

    @property
    def passages(self) -> list[str]:
        """The passage of each row."""
        return [row["passage"] for row in self.rows]

    @property
    def metrics(self) -> list[str]:
        """The metrics with a value for each row, in the order in which they are first met."""
        return list(dict.fromkeys(name for system in self.systems.values() for name in system.scores))

    @property
    def figures(self) -> list[str]:
        """The other metrics, in the order in which they are first met."""
        return list(dict.fromkeys(name for system in self.systems.values() for name in system.figures))

    @cached_property
    def estimates(self) -> dict[str, dict[str, Estimate]]:
        """The means of each system and metric with their intervals and p-values."""
        return intervals(
            {name: system.scores for name, system in self.systems.items()},
            self.passages,
            self.baseline,
            resamples=self.resamples,
            seed=self.seed,
            level=self.level,
        )

    def values(self, metric: str) -> dict[str, float]:
        """The mean or figure of each system that has one."""
        values = {
            name: self.estimates[name][metric].mean if metric in system.scores else system.figures.get(metric)
            for name, system in self.systems.items()
        }
        return {name: value for name, value in values.items() if value is not None}

    def digits(self, metric: str) -> int:
        """How many decimals tell the systems apart: 3, or 1 of what is counted rather than a share."""
        return 1 if any(abs(value) >= 5 for value in self.values(metric).values()) else 3

    def best(self, metric: str) -> list[str]:
        """The systems with the best mean or figure; none where there is no better and worse, or no rival."""
        values = self.values(metric)
        if metric in DESCRIPTIVE or len(values) < 2:
            return []
        best = (min if metric in LOWER_IS_BETTER else max)(values.values())
        return [name for name, value in values.items() if value == best]


def write_results(evaluation: Evaluation, folder: str | os.PathLike[str]) -> None:
    """Write `results.json` and `rows.parquet`: the same evaluation gives the same bytes.

    `results.json` has `title`, `rows` and `passages` (how many), `bootstrap` (`resamples`, `seed`,
    `level`), `baseline`, `order` (of the systems), `notes`, `made`, and `systems`: for each its
    `metrics` (`mean`, `low`, `high`, `p`, `rows`, see `eval.scoring.bootstrap.Estimate`), `figures` and
    `reliability`.

    `rows.parquet` has a line for each row and system, row by row: `id`, `passage`, `question`, `answer`,
    `answerable`, `reference` (the row's `summary`), `system`, `summary` (the system's), `probability`
    (of the reference) and `own_probability` (of the system's summary) to carry the answer, and a column
    for each metric. What a system lacks is null.

    Args:
        evaluation: What to write.
        folder: Where the two files go; those there are replaced.

    Raises:
        OSError: If a file cannot be written.
    """
    folder = Path(folder)
    found = {
        "title": evaluation.title,
        "rows": len(evaluation.rows),
        "passages": len(set(evaluation.passages)),
        "bootstrap": {key: getattr(evaluation, key) for key in ("resamples", "seed", "level")},
        "baseline": evaluation.baseline,
        "order": list(evaluation.systems),
        "notes": evaluation.notes,
        "made": evaluation.made,
        "systems": {
            name: {
                "metrics": {metric: asdict(value) for metric, value in evaluation.estimates[name].items()},
                "figures": without_folders(system.figures),
                "reliability": without_folders(system.reliability),
            }
            for name, system in evaluation.systems.items()
        },
    }
    text = json.dumps(found, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    write_text(folder / "results.json", text + "\n")

    schema, temporary = _schema(evaluation), folder / "rows.parquet.tmp"
    with pq.ParquetWriter(temporary, schema) as writer:
        for start in range(0, len(evaluation.rows), _BATCH):
            indices = range(start, min(start + _BATCH, len(evaluation.rows)))
            writer.write_table(pa.Table.from_pylist(list(_lines(evaluation, indices)), schema))
    os.replace(temporary, folder / "rows.parquet")


def show(evaluation: Evaluation) -> str:
    """The table of an evaluation, for a terminal of 120 columns.

    Each mean is followed by half the width of its interval, with ">" before the best of a column and
    "*" behind what differs from the baseline at p < 0.05; lines beneath say so. Metrics are those first
    met, as many as there is room for. Metrics that are no means of rows have a table of their own.

    Returns:
        The text, without a newline at its end.
    """
    metrics, lines = evaluation.metrics, []
    while metrics:
        cells = {name: _cells(evaluation, name, metrics) for name in evaluation.systems}
        text = table(
            {name: {format_name(key): cell for key, cell in row.items()} for name, row in cells.items()}
        )
        if len(metrics) == 1 or max(map(len, text.splitlines())) <= WIDTH:
            lines.append(text)
            break
        metrics = metrics[:-1]
    if evaluation.figures:
        judges = {
            name: {format_name(metric): _figure(evaluation, name, metric) for metric in evaluation.figures}
            for name, system in evaluation.systems.items()
            if system.figures
        }
        lines += ["", "Does it know whether the reference summary carries the answer?", "", table(judges)]
    passages = len(set(evaluation.passages))
    lines += ["", f"{len(evaluation.rows):,} rows on {passages:,} passages.", *_legend(evaluation)]
    if left_out := evaluation.metrics[len(metrics) :]:
        lines.append(f"Not shown for want of room: {', '.join(map(format_name, left_out))}.")
    return "\n".join([*lines, *(f"Note: {note}" for note in evaluation.notes)]).strip("\n")


def means(evaluation: Evaluation) -> dict[str, dict[str, float | None]]:
    """The mean of each metric, and each figure, by system."""
    return {
        name: {metric: evaluation.estimates[name][metric].mean for metric in result.scores}
        | {f"answerability_{figure}": value for figure, value in result.figures.items()}
        for name, result in evaluation.systems.items()
    }


def measured(evaluation: Evaluation, system: str) -> list[dict[str, Any]]:
    """What is defined of a system's metrics and figures: `metric`, `value`, and of means `low` and `high`.

    Raises:
        ValueError: If there is no such system.
    """
    if system not in evaluation.systems:
        raise ValueError(f"{system!r} is none of the systems: {', '.join(evaluation.systems)}.")
    values = [(metric, e.mean, e.low, e.high) for metric, e in evaluation.estimates[system].items()]
    values += [(metric, value, None, None) for metric, value in evaluation.systems[system].figures.items()]
    names = ("metric", "value", "low", "high")
    return [dict(zip(names, value, strict=True)) for value in values if value[1] is not None]


def eval_results(
    results: Iterable[Mapping[str, Any]],
    dataset: str,
    *,
    level: float,
    dataset_name: str | None = None,
    split: str | None = None,
    revision: str | None = None,
) -> list[EvalResult]:
    """A system's metrics as a model card's metadata has them ("model-index").

    Give them to `ModelCardData(model_name=…, eval_results=…)`.

    Args:
        results: As [`measured`] gives them.
        dataset: The id of the data set on the Hub, or its type.
        level: Of the intervals.
        dataset_name: What the card calls the data set; its id if None.
        split: The split of the data set.
        revision: The commit of the data set.

    Returns:
        One result for each; `metric_args` has the interval and its level where there is one.
    """
    return [
        EvalResult(
            task_type="summarization",
            task_name="Question-prompted summarization",
            dataset_type=dataset,
            dataset_name=dataset_name or dataset,
            dataset_split=split,
            dataset_revision=revision,
            metric_type=result["metric"],
            metric_name=format_name(result["metric"]),
            metric_value=result["value"],
            metric_args=None
            if result["low"] is None
            else {"level": level, "low": result["low"], "high": result["high"]},
        )
        for result in results
    ]


def eval_results_yaml(
    results: Iterable[Mapping[str, Any]], dataset: str, *, level: float, revision: str | None = None
) -> str:
    """The text of a model's `.eval_results/*.yaml`, which the Hub shows on its page and in leaderboards.

    Each metric is a task of the data set, as https://huggingface.co/docs/hub/eval-results has it; the Hub
    reads those that the data set's `eval.yaml` names. The date is left to the commit.

    Args:
        results: As [`measured`] gives them.
        dataset: The id of the data set on the Hub.
        level: Of the intervals.
        revision: The commit of the data set.

    Raises:
        ImportError: If the installed huggingface_hub is too old to know such files.
    """
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    entries = [
        EvalResultEntry(
            dataset_id=dataset,
            dataset_revision=revision,
            task_id=result["metric"],
            value=result["value"],
            notes=None
            if result["low"] is None
            else f"{100 * level:g}% interval {result['low']:.4g} to {result['high']:.4g}",
        )
        for result in results
    ]
    return yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False, allow_unicode=True)


def format_name(key: str) -> str:
    """Return the name of a metric or setting with spaces in place of underscores."""
    return key.replace("_", " ")


def number(value: float | None, digits: int = 3) -> str:
    """The value with so many decimals; "-" for None."""
    return "-" if value is None else f"{value:.{digits}f}"


def _schema(evaluation: Evaluation) -> pa.Schema:
    kinds = dict.fromkeys(COLUMNS, pa.string()) | dict.fromkeys(evaluation.metrics, pa.float64())
    kinds |= {"answerable": pa.int8(), "probability": pa.float64(), "own_probability": pa.float64()}
    return pa.schema(list(kinds.items()))


def _lines(evaluation: Evaluation, indices: Iterable[int]) -> Iterator[dict[str, Any]]:
    """The lines of `rows.parquet` for some rows; what is missing in one is null."""
    for index in indices:
        row = evaluation.rows[index]
        for name, system in evaluation.systems.items():
            line = {key: row[key] for key in ("id", "passage", "question", "answer", "answerable")}
            line |= {"reference": row["summary"], "system": name, "summary": system.summaries[index]}
            line |= {metric: values[index] for metric, values in system.scores.items()}
            if system.probabilities is not None:
                line["probability"] = system.probabilities[index]
            if system.own is not None:
                line["own_probability"] = system.own[index]
            yield line


def _cells(evaluation: Evaluation, name: str, metrics: Sequence[str]) -> dict[str, str]:
    """The columns of a system: its means, each with half of its interval and its marks."""
    cells = {}
    for metric in metrics:
        estimate = evaluation.estimates[name].get(metric)
        if estimate is None or estimate.mean is None:
            cells[metric] = "- "
            continue
        digits = evaluation.digits(metric)
        text = number(estimate.mean, digits)
        if estimate.low is not None:
            text += f" ±{number((estimate.high - estimate.low) / 2, digits)}"
        best = ">" if name in evaluation.best(metric) else ""
        star = "*" if estimate.p is not None and estimate.p < SIGNIFICANT else " "
        cells[metric] = best + text + star
    return cells


def _figure(evaluation: Evaluation, name: str, metric: str) -> str:
    best = ">" if name in evaluation.best(metric) else ""
    return best + number(evaluation.systems[name].figures.get(metric))


def _legend(evaluation: Evaluation) -> list[str]:
    estimates = [e for metrics in evaluation.estimates.values() for e in metrics.values()]
    lines = []
    if any(estimate.low is not None for estimate in estimates):
        lines.append(
            f"± half of the {100 * evaluation.level:g}% interval: {evaluation.resamples:,} resamples of the "
            f"passages, seed {evaluation.seed}."
        )
    if any(evaluation.best(metric) for metric in (*evaluation.metrics, *evaluation.figures)):
        lines.append("> the best of its column.")
    if any(estimate.p is not None for estimate in estimates):
        lines.append(
            f"* differs from {evaluation.baseline} at p < {SIGNIFICANT}: paired, two-sided, not corrected "
            "for the number of comparisons."
        )
    return lines


def without_folders(value: Any) -> Any:
    """The value as JSON has it, without the folders that a path lies in, which are nobody's business."""
    if isinstance(value, Path):
        return value.name if value.is_absolute() else value.as_posix()
    if isinstance(value, str):
        return _PATH.sub(lambda found: re.split(r"[/\\]", found[0].rstrip("/\\"))[-1], value)
    if isinstance(value, Mapping):
        return {key: without_folders(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_folders(item) for item in value]
    if value is None or isinstance(value, int | float):
        return value
    return value.item() if hasattr(value, "item") else str(value)  # of numpy and torch; a dtype, a device
