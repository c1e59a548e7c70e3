"""The first evaluation of a run: three systems, one table, three examples."""

import json
import shutil
from textwrap import shorten

from transformers import AutoTokenizer

from crosstask import CrossTaskForConditionalGeneration, CrossTaskProcessor
from crosstask.data.readers import read_rows
from crosstask.data.schema import DataError
from crosstask.eval.plots import learning_curve
from crosstask.eval.scores import answer_recall, answerability, lead, rouge, table
from crosstask.eval.systems import generate_summaries, score_summaries
from crosstask.hub import write_model_card
from crosstask.parts_crosstask import load_part
from crosstask.storage import write_text

EXAMPLES = 3
SHOWN = 600  # characters of a passage


def evaluate(recipe):
    """
    Compare lead-3, the summarizer alone and the cross-task model on the test rows of the joint stage, and
    write `metrics.json`, `learning_curve.png` and the model card into the run's folder.

    ROUGE is taken over the rows whose reference carries the answer (a summary that leaves it out is no
    target), answer recall over the rows with an answer, answerability over the labelled rows.

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
    passages, questions = ([row[name] for row in rows] for name in ("passage", "question"))
    settings = {
        "batch_size": training.per_device_eval_batch_size,
        "max_new_tokens": training.generation_max_length or 128,
        "num_beams": training.generation_num_beams or 1,
    }
    written = {"lead-3": [lead(passage, 3) for passage in passages]}

    device = training.device
    folder = recipe.output_dir / "summarizer"
    folder = folder if folder.exists() else recipe.run.summarizer
    summarizer = load_part(folder).eval().to(device)
    reader = CrossTaskProcessor(
        AutoTokenizer.from_pretrained(folder), max_source_length=recipe.run.max_source_length
    )
    written["summarizer alone"] = generate_summaries(summarizer, reader, passages, **settings)
    del summarizer

    model, processor = _load(recipe)
    model.to(device)
    written["cross-task"] = generate_summaries(model, processor, passages, questions, **settings)
    probabilities = score_summaries(model, processor, rows, batch_size=settings["batch_size"])

    systems = {name: _scores(summaries, rows) for name, summaries in written.items()}
    labels = [row["answerable"] for row in rows]
    for name, value in answerability(probabilities, labels).items():
        systems["cross-task"][f"answerability {name}"] = value
    examples = [
        {
            "passage": row["passage"],
            "question": row["question"],
            "answer": row["answer"],
            "summary": summary,
        }
        for row, summary in _first_of_each_passage(rows, written["cross-task"])
    ]
    for example in examples:
        inputs = processor(question=example["question"], passage=example["passage"], return_tensors="pt")
        output = model.generate(
            **inputs.to(model.device),
            max_new_tokens=settings["max_new_tokens"],
            num_beams=settings["num_beams"],
            return_dict_in_generate=True,
        )
        example["answerability"] = output.answerability.item()
    metrics = {"rows": len(rows), "passages": len(set(passages)), "systems": systems, "examples": examples}
    write_text(recipe.output_dir / "metrics.json", json.dumps(metrics, indent=1))

    history = recipe.output_dir / "history.json"
    history = json.loads(history.read_text(encoding="utf-8")) if history.exists() else {}
    curve = recipe.output_dir / "learning_curve.png"
    learning_curve({name: entry["log"] for name, entry in history.items()}, curve)
    final = recipe.output_dir / "crosstask"
    shutil.copyfile(curve, final / "learning_curve.png")
    write_model_card(final, recipe, metrics, history)


def show(recipe):
    """Print a finished run's table, its examples and the lines that load its model."""
    metrics = json.loads((recipe.output_dir / "metrics.json").read_text(encoding="utf-8"))
    print(f"\n{metrics['rows']} test rows on {metrics['passages']} passages:\n")
    print(table(metrics["systems"]))
    for example in metrics["examples"]:
        print(f"\npassage:       {shorten(example['passage'], SHOWN, placeholder=' ...')}")
        print(f"question:      {example['question']}")
        print(f"summary:       {example['summary']}")
        print(f"answerability: {example['answerability']:.3f}")
    folder = recipe.output_dir / "crosstask"
    print("\nLoad the model with")
    print("    from crosstask import CrossTaskForConditionalGeneration")
    print(f'    model = CrossTaskForConditionalGeneration.from_pretrained("{folder}")')


def _load(recipe):
    folder = recipe.output_dir / "crosstask"
    model = CrossTaskForConditionalGeneration.from_pretrained(folder).eval()
    return model, CrossTaskProcessor.from_pretrained(folder)


def _scores(summaries, rows):
    targets = [(s, row["summary"]) for s, row in zip(summaries, rows, strict=True) if row["answerable"] != 0]
    scores = rouge(*zip(*targets, strict=True)) if targets else {}
    return scores | {"answer recall": answer_recall(summaries, [row["answer"] for row in rows])}


def _first_of_each_passage(rows, summaries):
    """The first row with an answer of each of the first passages."""
    found = {}
    for row, summary in zip(rows, summaries, strict=True):
        if row["answer"] and row["answerable"] != 0:
            found.setdefault(row["passage"], (row, summary))
    return list(found.values())[:EXAMPLES]
