"""The evaluation that a training run ends with: three systems, one table, three examples, one page."""

import json
from textwrap import shorten

import torch
import transformers
from tqdm.auto import tqdm

from crosstask.data.readers import read_rows
from crosstask.eval.report.learning_curve import learning_curve
from crosstask.eval.report.page import write_html
from crosstask.eval.report.results import Evaluation, means, measured, write_results
from crosstask.eval.report.results import show as show_table
from crosstask.eval.run import score
from crosstask.eval.systems.base import config_of
from crosstask.eval.systems.crosstask import CrossTask
from crosstask.eval.systems.extractive import Lead
from crosstask.eval.systems.seq2seq import Seq2Seq
from crosstask.training.record import list_names
from crosstask.utils.errors import DataError
from crosstask.utils.files import write_text
from crosstask.utils.hub_names import get_public_name, is_hub_id

EXAMPLES = 3
SHOWN = 600  # characters of a passage


def evaluate(recipe):
    """
    Compare lead-3, the summarizer alone and the cross-task model on the test rows of the joint stage, and
    write `metrics.json`, `results.json`, `rows.parquet`, `report.html`, and
    `learning_curve.png` into the run's folder.

    Args:
        recipe ([`Recipe`]): Of a run whose stages are finished.
    """
    stage, training = recipe.stages["fuse"].stage, recipe.stages["fuse"].training
    splits = read_rows(
        stage.data,
        "fuse",
        config_name=stage.data_config_name,
        columns=stage.data_columns,
        options=stage.data_options,
        rejects=[],  # told when the stage read them
    )
    held_out = splits.get("test", splits.get("validation"))
    if held_out is None:
        raise DataError(f"{stage.data}: expected test or validation rows to evaluate on, found train only")
    rows = held_out.to_list()
    settings = {
        "max_new_tokens": training.generation_max_length or 128,
        "num_beams": training.generation_num_beams or 1,
    }
    where = {"device": str(training.device), "batch_size": training.per_device_eval_batch_size}
    baseline = _baseline(recipe, settings | where)
    model = CrossTask(recipe.output_dir / "crosstask", **settings, **where)
    model.name = "cross-task"
    written = {}
    systems = (Lead(3), baseline, model)
    for system in systems:
        with tqdm(total=len(rows), desc=system.name, unit=" rows", leave=False) as bar:
            written[system.name] = system.write(rows, bar.update)

    history = recipe.output_dir / "history.json"
    history = json.loads(history.read_text(encoding="utf-8")) if history.exists() else {}
    logs = {name: entry["log"] for name, entry in history.items()}
    results, _ = score(rows, written)
    data, split = get_public_name(str(stage.data)), "test" if "test" in splits else "validation"
    evaluation = Evaluation(
        title=f"{recipe.output_dir.resolve().name} on {data}",
        rows=rows,
        systems=results,
        baseline=baseline.name,
        notes=["`crosstask-eval` adds BERTScore, entailment, ablations and further systems."],
        history=logs or None,
        made={
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
        "systems": means(evaluation),
        "results": measured(evaluation, "cross-task"),
        "level": evaluation.level,
        "table": show_table(evaluation),
        "examples": _examples(rows, results["cross-task"]),
        "local": sorted(name for name in list_names(recipe.values) if not is_hub_id(name)),
    }
    write_text(recipe.output_dir / "metrics.json", json.dumps(metrics, indent=1))

    curve = recipe.output_dir / "learning_curve.png"
    learning_curve(logs, curve)


def show(recipe):
    """Print a finished run's table, its examples and the lines that load its model."""
    metrics = json.loads((recipe.output_dir / "metrics.json").read_text(encoding="utf-8"))
    print(f"\n{metrics['table']}")
    for example in metrics["examples"]:
        print(f"\npassage:       {shorten(example['passage'], SHOWN, placeholder=' ...')}")
        print(f"question:      {example['question']}")
        print(f"summary:       {example['summary']}")
        print(f"answerability: {example['answerability']:.3f}")
    folder = recipe.output_dir / "crosstask"
    print("\nLoad the model with")
    print("    from crosstask import CrossTaskForConditionalGeneration")
    print(f'    model = CrossTaskForConditionalGeneration.from_pretrained("{folder}")')


def _baseline(recipe, settings):
    """What the run's model has to be better than: its summarizer, or the whole model that it started from."""
    if recipe.run.model is not None:
        system = CrossTask(recipe.run.model, **settings)
        system.name = "before training"
        return system
    folder = recipe.output_dir / "summarizer"
    folder = folder if folder.exists() else recipe.run.summarizer
    limit = _limit(config_of(str(folder)), recipe.run.max_source_length)
    system = Seq2Seq(folder, prefix="", max_source_length=limit, **settings)
    system.name = "summarizer alone"
    return system


def _limit(config, wanted):
    """The recipe's limit of the input, or the summarizer's where it has fewer positions, in tokens."""
    for name in ("max_encoder_position_embeddings", "max_position_embeddings"):
        if getattr(config, name, None):
            return min(wanted, getattr(config, name))
    return wanted


def _examples(rows, result):
    """The first row with an answer of each of the first passages, with what was written for it."""
    found = {}
    for row, summary, own in zip(rows, result.summaries, result.own, strict=True):
        if row["answer"] and row["answerable"] != 0:
            example = {name: row[name] for name in ("passage", "question", "answer")}
            found.setdefault(row["passage"], {**example, "summary": summary, "answerability": own})
    return list(found.values())[:EXAMPLES]
