"""The results of an evaluation, and the files that record them."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from crosstask.configuration_crosstask import IGNORE_INDEX
from crosstask.eval.scoring.bootstrap import Estimate, estimate_means
from crosstask.utils.files import replace_file, write_text

# Metrics that describe a summary: neither more nor less is better.
DESCRIPTIVE = frozenset({"length", "coverage", "density", "compression"})
CHANCE = {
    "auroc": 0.5,
    "own_auroc": 0.5,
    "wrong_auroc": 0.5,
}  # a value up to this is not the best of anything
# With fewer passages than this, a report shows neither intervals nor p-values, one decimal instead of three,
# and no best value. The width of a percentile interval of the mean of n values is sqrt((n - 1) / n) times the
# ratio of the normal and the t quantile of what it should be: .82 at n = 10, and less below (Hesterberg 2015,
# "What Teachers Should Know About the Bootstrap", https://arxiv.org/abs/1411.5279).
MIN_PASSAGES = 10
LOWER_IS_BETTER = frozenset(
    {"brier", "ece", "own_brier", "own_ece", "own_aurc", "own_unanswerable_passed", "wrong_passed"}
)
COLUMNS = (
    *("id", "passage", "question", "answer", "answerable", "reference", "system", "summary"),
    *("reference_probability", "summary_probability"),
)

# Rows that are in memory at once while rows.parquet is written; each repeats its passage for every system.
_BATCH_SIZE = 1000
# An absolute path of POSIX or Windows that is not part of a URL.
_PATH = re.compile(r"(?<![\w.:/\\])(?:/[^\s/'\"<>]+){2,}/?|(?<!\w)[A-Za-z]:\\[^\s'\"<>]+")


@dataclass
class SystemResult:
    """The summaries of one system and their scores.

    Attributes:
        summaries (`Sequence[str]`): One per row; an empty summary is scored like any other.
        scores (`Mapping[str, Sequence[float]]`): The scores of each metric, one per row, None where undefined
            (e.g. answer recall of a row without an answer).
        figures (`Mapping[str, float]`, *optional*): Metrics of the judgment, which are not means over rows:
            `accuracy`, `f1`, `auroc`, `average_precision`, `brier` and `ece` of `reference_probabilities`,
            and those of [`~eval.scoring.judgment`] with the prefixes "own_" and "wrong_"; None where
            undefined.
        reliability (`Sequence[Mapping]`, *optional*): Bins of the probabilities of the system's own
            summaries, or of the references, each with its mean `probability`, the share of right ones `yes`,
            and the number of rows `count`; without empty bins.
        reference_probabilities (`Sequence[float]`, *optional*): P(the row's reference summary carries the
            answer), one per row.
        summary_probabilities (`Sequence[float]`, *optional*): P(the system's summary carries the answer), one
            per row.
        risk_coverage (`Sequence[Mapping]`, *optional*): Points of the risk-coverage curve of the system's own
            summaries, see [`~eval.scoring.judgment.compute_risk_coverage`].
    """

    summaries: Sequence[str]
    scores: Mapping[str, Sequence[float | None]]
    figures: Mapping[str, float | None] = field(default_factory=dict)
    reliability: Sequence[Mapping[str, float | None]] | None = None
    reference_probabilities: Sequence[float] | None = None
    summary_probabilities: Sequence[float] | None = None
    risk_coverage: Sequence[Mapping[str, float]] | None = None


@dataclass
class Evaluation:
    """The results of several systems on the same rows.

    Paths in `title`, `notes` and `settings` are reduced to the names of their files, so that no report
    contains folders of the machine.

    Attributes:
        title (`str`): A one-line title.
        rows (`Sequence[Mapping]`): Rows with the columns of `data.schema.FEATURES`. `summary` is the
            reference; `answerable` is 1 if it carries the answer, 0 if not, and -100 if that is unknown.
        systems (`Mapping[str, SystemResult]`): The systems by name, in the order of the report.
        baseline (`str`, *optional*): The system that the others are compared with; None for no p-values.
        notes (`Sequence[str]`, *optional*): Remarks for the reader, e.g. "entailment: no judge was given".
        history (`Mapping[str, Sequence[Mapping]]`, *optional*): The trainer's log by stage, see
            [`~eval.report.learning_curve.draw_learning_curve`].
        settings (`Mapping[str, Any]`, *optional*): What is needed to reproduce the figures: the command, the
            data, the systems' settings, versions. It is written as JSON.
        resamples (`int`, *optional*, defaults to 1000): Resamples of the bootstrap, see
            [`~eval.scoring.bootstrap.estimate_means`].
        seed (`int`, *optional*, defaults to 0): Seed of the bootstrap.
        level (`float`, *optional*, defaults to 0.95): Coverage of the intervals.

    Raises:
        ValueError: If a system does not have one summary, score or probability per row, if a metric has the
            name of a column of `rows.parquet`, or if the baseline is not a system.
    """

    title: str
    rows: Sequence[Mapping[str, Any]]
    systems: Mapping[str, SystemResult]
    baseline: str | None = None
    notes: Sequence[str] = ()
    history: Mapping[str, Sequence[Mapping]] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    resamples: int = 1000
    seed: int = 0
    level: float = 0.95

    def __post_init__(self):
        if self.baseline is not None and self.baseline not in self.systems:
            raise ValueError(
                f"The baseline {self.baseline!r} is none of the systems: {', '.join(self.systems)}."
            )
        for name, system in self.systems.items():
            columns = {
                "summaries": system.summaries,
                "reference_probabilities": system.reference_probabilities,
                "summary_probabilities": system.summary_probabilities,
                **system.scores,
            }
            for column, values in columns.items():
                if values is not None and len(values) != len(self.rows):
                    raise ValueError(
                        f"{name}: there are {len(values)} values of {column}, expected one for each of "
                        f"{len(self.rows)} rows."
                    )
            if reserved := sorted(set(system.scores) & set(COLUMNS)):
                raise ValueError(
                    f"{name}: a metric cannot be named {reserved[0]!r}, because a column of the rows is."
                )
        self.title = strip_folders(self.title)
        self.notes = strip_folders(list(self.notes))
        self.settings = strip_folders(dict(self.settings))

    @property
    def passages(self) -> list[str]:
        """The passage of each row."""
        return [row["passage"] for row in self.rows]

    @property
    def is_small(self) -> bool:
        """Whether there are too few passages for intervals and comparisons."""
        return len(set(self.passages)) < MIN_PASSAGES

    @property
    def remarks(self) -> list[str]:
        """The notes, after a warning if the test is too small."""
        if not self.is_small:
            return list(self.notes)
        warning = (
            f"The test is too small to compare systems: it has {len(set(self.passages))} passages, expected "
            f"{MIN_PASSAGES} or more. Intervals, p-values and the best values are left out."
        )
        return [warning, *self.notes]

    @property
    def metrics(self) -> list[str]:
        """The metrics that have one score per row, in order of first appearance."""
        return list(dict.fromkeys(name for system in self.systems.values() for name in system.scores))

    @property
    def figures(self) -> list[str]:
        """The metrics that are not means over rows and that a system has, in order of first appearance."""
        figures = [figure for system in self.systems.values() for figure in system.figures.items()]
        return list(dict.fromkeys(name for name, value in figures if value is not None))

    @cached_property
    def estimates(self) -> dict[str, dict[str, Estimate]]:
        """The mean of each system and metric with its interval and p-value."""
        estimates = estimate_means(
            {name: system.scores for name, system in self.systems.items()},
            self.passages,
            self.baseline,
            resamples=self.resamples,
            seed=self.seed,
            level=self.level,
        )
        if not self.is_small:
            return estimates
        return {
            name: {metric: replace(value, low=None, high=None, p=None) for metric, value in metrics.items()}
            for name, metrics in estimates.items()
        }

    def get_values(self, metric: str) -> dict[str, float]:
        """Return the mean or figure of each system that has one."""
        values = {
            name: self.estimates[name][metric].mean if metric in system.scores else system.figures.get(metric)
            for name, system in self.systems.items()
        }
        return {name: value for name, value in values.items() if value is not None}

    def get_digits(self, metric: str) -> int:
        """Return the number of decimals to show: 3, or 1 for counts and for a test that is too small."""
        return 1 if self.is_small or any(abs(value) >= 5 for value in self.get_values(metric).values()) else 3

    def get_best(self, metric: str) -> list[str]:
        """Return the systems with the best value; none for a descriptive metric or a single system."""
        values = self.get_values(metric)
        if metric in DESCRIPTIVE or len(values) < 2 or self.is_small:
            return []
        best = (min if metric in LOWER_IS_BETTER else max)(values.values())
        if best <= CHANCE.get(metric, -math.inf):
            return []
        return [name for name, value in values.items() if value == best]


def get_means(evaluation: Evaluation) -> dict[str, dict[str, float | None]]:
    """Return by system the mean of each metric, and each figure under `answerability_<figure>`."""
    return {
        name: {metric: evaluation.estimates[name][metric].mean for metric in result.scores}
        | _name_figures(result)
        for name, result in evaluation.systems.items()
    }


def list_results(evaluation: Evaluation, system: str) -> list[dict[str, Any]]:
    """Return the metrics of a system, and its figures under `answerability_<figure>`, that are defined.

    Returns:
        `list[dict]`: Dicts with `metric`, `value`, and the interval's `low` and `high`, which are None for
        figures.

    Raises:
        ValueError: If there is no such system.
    """
    if system not in evaluation.systems:
        raise ValueError(f"{system!r} is none of the systems: {', '.join(evaluation.systems)}.")
    results = [
        {"metric": metric, "value": estimate.mean, "low": estimate.low, "high": estimate.high}
        for metric, estimate in evaluation.estimates[system].items()
    ]
    results += [
        {"metric": figure, "value": value, "low": None, "high": None}
        for figure, value in _name_figures(evaluation.systems[system]).items()
    ]
    return [result for result in results if result["value"] is not None]


def _name_figures(result: SystemResult) -> dict[str, float | None]:
    """Return the figures under the names that they have beside other metrics."""
    return {f"answerability_{figure}": value for figure, value in result.figures.items()}


def write_results(evaluation: Evaluation, folder: str | os.PathLike[str]) -> None:
    """Write `results.json` and `rows.parquet`. The same evaluation gives the same bytes.

    `results.json` has `title`, the numbers of `rows` and `passages`, `bootstrap` (`resamples`, `seed`,
    `level`), `baseline`, `order` (the systems' names in their order), `notes`, `settings`, and `systems`.
    Each system has `metrics` (`mean`, `low`, `high`, `p`, `rows`, see [`~eval.scoring.bootstrap.Estimate`]),
    `figures` and `reliability`.

    `rows.parquet` has one line for each row and system: `id`, `passage`, `question`, `answer`, `answerable`
    (null if unknown), `reference` (the row's `summary`), `system`, `summary` (the system's), the
    probabilities that the reference (`reference_probability`) and the system's summary
    (`summary_probability`) carry the answer, and one column per metric. Missing values are null.

    Args:
        evaluation (`Evaluation`): What to write.
        folder (`str` or `os.PathLike`): The folder of the two files, which are replaced.

    Raises:
        OSError: If a file cannot be written.
    """
    folder = Path(folder)
    results = {
        "title": evaluation.title,
        "rows": len(evaluation.rows),
        "passages": len(set(evaluation.passages)),
        "bootstrap": {key: getattr(evaluation, key) for key in ("resamples", "seed", "level")},
        "baseline": evaluation.baseline,
        "order": list(evaluation.systems),
        "notes": evaluation.remarks,
        "settings": evaluation.settings,
        "systems": {
            name: {
                "metrics": {metric: asdict(value) for metric, value in evaluation.estimates[name].items()},
                "figures": strip_folders(system.figures),
                "reliability": strip_folders(system.reliability),
            }
            for name, system in evaluation.systems.items()
        },
    }
    text = json.dumps(results, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    write_text(folder / "results.json", text + "\n")

    kinds = dict.fromkeys(COLUMNS, pa.string()) | dict.fromkeys(evaluation.metrics, pa.float64())
    kinds |= {"answerable": pa.int8()}
    kinds |= {"reference_probability": pa.float64(), "summary_probability": pa.float64()}
    schema = pa.schema(list(kinds.items()))
    with (
        replace_file(folder / "rows.parquet") as temporary,
        pq.ParquetWriter(temporary, schema) as writer,
    ):
        for start in range(0, len(evaluation.rows), _BATCH_SIZE):
            indices = range(start, min(start + _BATCH_SIZE, len(evaluation.rows)))
            writer.write_table(pa.Table.from_pylist(list(_iter_lines(evaluation, indices)), schema))


def _iter_lines(evaluation: Evaluation, indices: Iterable[int]) -> Iterator[dict[str, Any]]:
    """Yield the lines of `rows.parquet` for some rows; a key that a line lacks becomes null."""
    for index in indices:
        row = evaluation.rows[index]
        for name, system in evaluation.systems.items():
            line = {key: row[key] for key in ("id", "passage", "question", "answer")}
            line |= {"reference": row["summary"], "system": name, "summary": system.summaries[index]}
            line |= {metric: values[index] for metric, values in system.scores.items()}
            if row["answerable"] != IGNORE_INDEX:
                line["answerable"] = row["answerable"]
            if system.reference_probabilities is not None:
                line["reference_probability"] = system.reference_probabilities[index]
            if system.summary_probabilities is not None:
                line["summary_probability"] = system.summary_probabilities[index]
            yield line


def strip_folders(value: Any) -> Any:
    """Convert a value to what JSON can represent, and reduce the absolute paths in it to their last part."""
    if isinstance(value, Path):
        return value.name if value.is_absolute() else value.as_posix()
    if isinstance(value, str):
        return _PATH.sub(lambda match: re.split(r"[/\\]", match[0].rstrip("/\\"))[-1], value)
    if isinstance(value, Mapping):
        return {key: strip_folders(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [strip_folders(item) for item in value]
    if value is None or isinstance(value, int | float):
        return value
    return value.item() if hasattr(value, "item") else str(value)  # a number of numpy or torch; a dtype
