"""The results of a system as metadata of a model repository on the Hub."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import yaml
from huggingface_hub import EvalResult

from crosstask.eval.report.tables import format_name


def make_eval_results(
    results: Iterable[Mapping[str, Any]],
    dataset: str,
    *,
    level: float,
    dataset_name: str | None = None,
    split: str | None = None,
    revision: str | None = None,
) -> list[EvalResult]:
    """Return a system's results for the metadata of a model card ("model-index").

    Pass them to `ModelCardData(model_name=…, eval_results=…)`.

    Args:
        results (`Iterable[Mapping]`): Results from [`~eval.report.results.list_results`].
        dataset (`str`): The id of the data set on the Hub, or its type.
        level (`float`): Coverage of the intervals.
        dataset_name (`str`, *optional*): The name of the data set for readers; by default `dataset`.
        split (`str`, *optional*): The split of the data set.
        revision (`str`, *optional*): The commit of the data set.

    Returns:
        `list[EvalResult]`: One entry per result; `metric_args` has `level`, `low` and `high` if there is an
        interval.
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


def dump_eval_results(
    results: Iterable[Mapping[str, Any]], dataset: str, *, level: float, revision: str | None = None
) -> str:
    """Return the text of a model's `.eval_results/*.yaml`, which the Hub shows on the model's page.

    Each metric is a task of the data set, see https://huggingface.co/docs/hub/eval-results; the Hub reads the
    tasks that the data set's `eval.yaml` names. There is no date, because the commit has one.

    Args:
        results (`Iterable[Mapping]`): Results from [`~eval.report.results.list_results`].
        dataset (`str`): The id of the data set on the Hub.
        level (`float`): Coverage of the intervals.
        revision (`str`, *optional*): The commit of the data set.

    Raises:
        ImportError: If the installed huggingface_hub does not know these files.
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
