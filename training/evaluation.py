"""Evaluate a finished training run: three systems, one table, a few examples and a report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
import transformers
from tqdm.auto import tqdm
from transformers import PretrainedConfig

from crosstask.configuration_crosstask import get_max_positions
from crosstask.data.readers import read_rows
from crosstask.data.readers.files import name_source
from crosstask.eval.report.learning_curve import draw_learning_curve
from crosstask.eval.report.page import write_html
from crosstask.eval.report.results import Evaluation, SystemResult, get_means, list_results, write_results
from crosstask.eval.report.tables import format_evaluation
from crosstask.eval.run import list_rows, score
from crosstask.eval.scoring.languages import describe_language_limits
from crosstask.eval.systems.checkpoints import get_model_config
from crosstask.eval.systems.crosstask import CrossTask
from crosstask.eval.systems.lead import Lead
from crosstask.eval.systems.seq2seq import Seq2Seq
from crosstask.training.arguments import Recipe, StageArguments
from crosstask.training.record import list_sources
from crosstask.utils.errors import DataError
from crosstask.utils.files import write_text
from crosstask.utils.hub_names import get_public_name, is_hub_id

EXAMPLE_COUNT = 3
EXAMPLE_WIDTH = 600  # characters of an example's passage that are printed


def evaluate(recipe: Recipe) -> None:
    """
    Evaluate a run on the test rows of its joint stage, or the validation rows if it has no test rows.

    The systems are lead-3, a baseline (see [`make_baseline`]) and the run's cross-task model. Writes
    `metrics.json`, `results.json`, `rows.parquet`, `report.html` and `learning_curve.png` to the run's
    folder.

    Args:
        recipe ([`Recipe`]): The recipe of a run with finished stages.

    Raises:
        DataError: If there are neither test nor validation rows.
    """
    split, rows = read_evaluation_rows(recipe.stages["fuse"].stage)
    training = recipe.stages["fuse"].training
    settings: dict[str, Any] = {
        "device": str(training.device),
        "batch_size": training.per_device_eval_batch_size,
    }
    model = CrossTask(recipe.output_dir / "crosstask", **settings)
    model.name = "cross-task"
    # The model writes with the settings that are saved with it, as in the pipeline; so does the baseline.
    baseline = make_baseline(recipe, settings | model.lengths)
    systems = (Lead(3), baseline, model)
    outputs = {}
    for system in systems:
        with tqdm(total=len(rows), desc=system.name, unit=" rows", leave=False) as bar:
            outputs[system.name] = system.write(rows, bar.update)
    results, _ = score(rows, outputs)

    logs = read_logs(recipe.output_dir)
    data = get_public_name(recipe.stages["fuse"].stage.data)
    evaluation = Evaluation(
        title=f"{recipe.output_dir.resolve().name} on {data}",
        rows=rows,
        systems=results,
        baseline=baseline.name,
        notes=[
            *(f"{name}: {note}" for name, output in outputs.items() for note in output.notes),
            *describe_language_limits([row["passage"] for row in rows]),
            "`crosstask-eval` adds BERTScore, entailment, ablations and further systems.",
        ],
        history=logs or None,
        settings={
            "data": data,
            "split": split,
            "systems": {system.name: system.settings for system in systems},
            "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        },
    )
    write_results(evaluation, recipe.output_dir)
    write_html(evaluation, recipe.output_dir / "report.html")
    metrics = {
        "data": data,
        "split": split,
        "rows": len(rows),
        "passages": len({row["passage"] for row in rows}),
        "systems": get_means(evaluation),
        "results": list_results(evaluation, "cross-task"),
        "level": evaluation.level,
        "table": format_evaluation(evaluation),
        "examples": select_examples(rows, results["cross-task"]),
        "local": sorted(name for name in list_sources(recipe.values) if not is_hub_id(name)),
    }
    write_text(recipe.output_dir / "metrics.json", json.dumps(metrics, indent=1))
    draw_learning_curve(logs, recipe.output_dir / "learning_curve.png")


def read_evaluation_rows(stage: StageArguments) -> tuple[str, list[dict[str, Any]]]:
    """
    Return the name of the split that a run is evaluated on, "test" or "validation", and its rows.

    Raises:
        DataError: If there is neither split.
    """
    splits = read_rows(
        stage.data,
        "fuse",
        **stage.get_reader_kwargs(),
        shares=stage.data_shares,
        rejects=[],  # the stage has reported them
    )
    split = "test" if "test" in splits else "validation"
    if split not in splits:
        raise DataError(
            f"{name_source(stage.data)}: expected test or validation rows to evaluate on, found train only"
        )
    return split, list_rows(splits[split])


def make_baseline(recipe: Recipe, settings: Mapping[str, Any]) -> CrossTask | Seq2Seq:
    """
    Return the system that a run's model has to beat: the cross-task model that the run started from, or else
    the summarizer alone.

    Args:
        recipe ([`Recipe`]): The recipe of the run.
        settings (`dict`): Arguments of the system.
    """
    if recipe.run.model is not None:
        system = CrossTask(recipe.run.model, **settings)
        system.name = "before training"
        return system
    folder = recipe.output_dir / "summarizer"
    checkpoint = str(folder) if folder.exists() else str(recipe.run.summarizer)
    limit = limit_source_length(get_model_config(checkpoint), recipe.run.max_source_length)
    # A summarizer that was not trained in the run may have penalties in its settings.
    penalties: dict[str, Any] = {"length_penalty": 1.0, "no_repeat_ngram_size": 0}
    summarizer = Seq2Seq(checkpoint, prefix="", max_source_length=limit, **penalties, **settings)
    summarizer.name = "summarizer alone"
    return summarizer


def limit_source_length(config: PretrainedConfig, max_source_length: int) -> int:
    """Return `max_source_length`, or the number of positions of a summarizer's encoder if that is smaller."""
    return int(min(max_source_length, get_max_positions(config, "encoder")))


def read_logs(run_dir: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the logs of a run's trainers by stage; empty if the run has no `history.json`."""
    path = run_dir / "history.json"
    history = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return {stage: entry["log"] for stage, entry in history.items()}


def select_examples(rows: Sequence[Mapping[str, Any]], result: SystemResult) -> list[dict[str, Any]]:
    """
    Return the first rows with an answer, at most one per passage, with the summaries of a system.

    Args:
        rows (`list[dict]`): Rows of the schema.
        result ([`SystemResult`]): The summaries of these rows and their probabilities.

    Returns:
        `list[dict]` with `passage`, `question`, `answer`, `summary` and `answerability` (`None` if the model
        has learned from no label); at most three.
    """
    examples: dict[str, dict[str, Any]] = {}
    probabilities: Sequence[float | None] = result.summary_probabilities or [None] * len(rows)
    for row, summary, probability in zip(rows, result.summaries, probabilities, strict=True):
        if row["answer"] and row["answerable"] != 0:
            example = {name: row[name] for name in ("passage", "question", "answer")}
            example |= {"summary": summary, "answerability": probability}
            examples.setdefault(row["passage"], example)
    return list(examples.values())[:EXAMPLE_COUNT]


def print_results(recipe: Recipe) -> None:
    """Print the table and the examples of a finished run, and the lines that load its model."""
    metrics = json.loads((recipe.output_dir / "metrics.json").read_text(encoding="utf-8"))
    print(f"\n{metrics['table']}")
    for example in metrics["examples"]:
        print(f"\npassage:       {shorten(example['passage'], EXAMPLE_WIDTH, placeholder=' ...')}")
        print(f"question:      {example['question']}")
        print(f"summary:       {example['summary']}")
        if example["answerability"] is not None:
            print(f"answerability: {example['answerability']:.3f}")
    folder = recipe.output_dir / "crosstask"
    print("\nLoad the model with")
    print("    from crosstask import CrossTaskForConditionalGeneration")
    print(f'    model = CrossTaskForConditionalGeneration.from_pretrained("{folder}")')
