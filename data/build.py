"""
Build a cross-task data set: `crosstask-build CONFIG.yaml [--key value ...]`.

The build has three steps. Each step writes what the next one reads, so a run that was
killed continues where it stopped:

    read      Read and normalize the rows of the source, and group them by passage into shards.
              -> work/counts.json, work/rejects.jsonl, work/rows-00000.jsonl, ...
    annotate  Write the summaries of a shard with the teacher, and score them with the judge.
              -> work/scored-00000.jsonl, ...
    finish    Divide the rows into splits, label them, and describe the result.
              -> data/*.parquet, rejects.jsonl, stats.json, lengths.png, labels.png, README.md, build.json
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env
from tqdm.auto import tqdm

from crosstask.data.builder.annotate import Annotator, annotate_shard, annotate_with_ray, get_scored_path
from crosstask.data.builder.finish import finish
from crosstask.data.builder.judge import check_template
from crosstask.data.builder.normalize import Normalization
from crosstask.data.builder.shards import count_rows, read_into_shards
from crosstask.data.readers.arguments import SourceArguments
from crosstask.data.readers.files import Source, list_paths, name_source
from crosstask.utils.errors import ConfigError, DataError
from crosstask.utils.hub_names import find_checkpoint
from crosstask.utils.interrupts import end_on_signal
from crosstask.utils.output_folder import RECORD_NAME, claim_folder, lock_folder
from crosstask.utils.recipes import check_minimum, make_arguments, make_parser, read_values

MODES = ("passage", "question")
ENGINES = ("local", "ray")
# Keys that may differ when a build is started again, because they do not change the scored shards.
FREE_KEYS = {"threshold", "validation", "test", "engine", "ray_actors", "dry_run"}

SOURCE_NAME = "source.yaml"  # size and modification time of the source's files, beside recipe.yaml


@dataclass
class BuildArguments(SourceArguments):
    """The keys of a recipe for a data set."""

    data: str | list[str] = field(
        metadata={
            "help": "Source of the rows: briefs, aclsum, a file, several files or a pattern, a folder, or "
            "the Hub id of a data set."
        }
    )
    output_dir: str = field(metadata={"help": "Folder of the data set."})
    extractive: bool = field(
        default=False, metadata={"help": "Reject rows whose answer is not in their passage."}
    )
    normalize: dict | None = field(
        default=None,
        metadata={
            "help": "Normalization steps: {fix_encoding: true, whitespace: true, lowercase: false, "
            "ascii: false, urls: keep, contractions: false}."
        },
    )
    teacher: str | None = field(
        default="facebook/bart-large-cnn",
        metadata={
            "help": "Sequence-to-sequence model that writes the summaries; none keeps the source's summaries."
        },
    )
    mode: str = field(
        default="passage",
        metadata={"help": "passage: one summary per passage. question: the teacher also reads the question."},
    )
    candidates: int = field(
        default=4, metadata={"help": "Summaries sampled per question in mode question; the best one is kept."}
    )
    hard_negatives: bool = field(
        default=False, metadata={"help": "In mode question, also keep the worst summary if its label is 0."}
    )
    wrong_values: float = field(
        default=0.25,
        metadata={
            "help": "Share of the rows labeled 1 that are repeated with a wrong value in the place of the "
            "answer, if the judge labels them 0."
        },
    )
    faithful: bool = field(
        default=True,
        metadata={
            "help": "Label a row 0 if, by the judge, the passage contradicts the summary; this needs a judge "
            "with a class contradiction."
        },
    )
    prefix: str | None = field(
        default=None, metadata={"help": "Text before each passage; by default the teacher's prefix."}
    )
    num_beams: int | None = field(default=None, metadata={"help": "Beams; by default the teacher's number."})
    min_new_tokens: int | None = field(
        default=None, metadata={"help": "Minimum tokens of a summary; by default the teacher's minimum."}
    )
    max_new_tokens: int = field(default=142, metadata={"help": "Maximum tokens of a summary."})
    max_source_length: int | None = field(
        default=None,
        metadata={"help": "Maximum tokens of an input of the teacher; by default the teacher's maximum."},
    )
    judge: str | None = field(
        default="FacebookAI/roberta-large-mnli",
        metadata={"help": "Classifier with a class entailment that gives the labels; none keeps the labels."},
    )
    hypothesis: str = field(
        default="{answer}",
        metadata={"help": "What the summary should entail: a template with {question} and {answer}."},
    )
    threshold: float = field(default=0.5, metadata={"help": "The label is 1 if P(entailment) is above this."})
    dtype: str = field(
        default="auto", metadata={"help": "Dtype of both models: auto, float32, bfloat16, ..."}
    )
    batch_size: int = field(default=16, metadata={"help": "Inputs per batch of the teacher."})
    shard_size: int = field(
        default=256, metadata={"help": "Passages per shard; a killed run loses at most one shard of work."}
    )
    validation: float | None = field(
        default=None,
        metadata={
            "help": "Share of the passages for validation if the source has one split; by default 0.05, "
            "but at least 10 passages or a fifth."
        },
    )
    test: float | None = field(default=None, metadata={"help": "Share of the passages for test, likewise."})
    seed: int = field(default=0, metadata={"help": "Seed of the sampling of candidates."})
    engine: str = field(default="local", metadata={"help": f"One of {', '.join(ENGINES)}."})
    ray_actors: int = field(default=1, metadata={"help": "Copies of the two models on a Ray cluster."})
    dry_run: bool = field(default=False, metadata={"help": "Print the amount of work and stop."})

    def __post_init__(self) -> None:
        self.normalization = Normalization.from_mapping(self.normalize)
        for name, known in (("mode", MODES), ("engine", ENGINES)):
            if getattr(self, name) not in known:
                raise ConfigError(f"{name}: expected one of {', '.join(known)}, got {getattr(self, name)!r}")
        check_minimum(1, self, "candidates", "batch_size", "shard_size", "ray_actors")
        check_minimum(1, self, "num_beams", "max_new_tokens", "max_source_length")
        check_minimum(0, self, "min_new_tokens")
        for name in ("threshold", "validation", "test"):
            if not 0 <= (getattr(self, name) or 0) < 1:
                raise ConfigError(f"{name}: expected at least 0 and below 1, got {getattr(self, name)}")
        if not 0 <= self.wrong_values <= 1:
            raise ConfigError(f"wrong_values: expected a share from 0 to 1, got {self.wrong_values}")
        if (self.validation or 0) + (self.test or 0) >= 1:
            raise ConfigError(
                "validation and test: expected a sum below 1, so that passages are left for train"
            )
        if self.hard_negatives and (self.mode != "question" or self.candidates < 2):
            raise ConfigError("hard_negatives: expected mode question and at least 2 candidates")
        self.teacher, self.judge = (None if name == "none" else name for name in (self.teacher, self.judge))
        if self.mode == "question" and None in (self.teacher, self.judge):
            raise ConfigError("mode: question needs a teacher and a judge")
        check_template(self.hypothesis)


def main(argv: Sequence[str] | None = None) -> None:
    """
    Run the command.

    Args:
        argv (`Sequence[str]`, *optional*):
            Arguments; by default those of the command line. A user's mistake ends the process with one
            sentence.
    """
    parser = make_parser("crosstask-build", __doc__.strip(), BuildArguments)
    options, flags = parser.parse_known_args(argv)
    try:
        with end_on_signal("crosstask-build"):
            run(*read_build_recipe(options.config, flags))
    except (ConfigError, DataError) as error:
        sys.exit(f"crosstask-build: error: {error}")


def read_build_recipe(
    path: str | os.PathLike[str], flags: Iterable[str] = ()
) -> tuple[BuildArguments, dict[str, Any]]:
    """
    Read the recipe of a data set.

    Args:
        path (`str` or `os.PathLike`):
            A YAML file whose keys are fields of [`BuildArguments`].
        flags (`Iterable[str]`, *optional*):
            `--key value` of the command line; flags override the file.

    Returns:
        `tuple`: The [`BuildArguments`], and a `dict` of the values that file and flags set.

    Raises:
        ConfigError: If a key or a value is wrong. The message is one sentence with the file and the key.
    """
    values = read_values(path, flags, BuildArguments)
    for name in ("teacher", "judge"):
        if name in values and values[name] is None:  # null would mean the default
            values[name] = "none"
    return make_arguments(BuildArguments, values, path), values


def run(arguments: BuildArguments, values: Mapping[str, Any]) -> None:
    """
    Run the steps of a build that are not complete.

    Args:
        arguments ([`BuildArguments`]):
            The recipe.
        values (`Mapping[str, Any]`):
            The values that file and flags set, as returned by [`read_build_recipe`].
    """
    _check_checkpoints(arguments)
    if arguments.dry_run:
        return _print_work(arguments, count_rows(arguments))
    folder = Path(arguments.output_dir)
    work = folder / "work"
    state = _start_processes()
    if state.is_main_process:
        lock = lock_folder(folder)
    try:
        if state.is_main_process:
            _claim_folder(arguments, values, folder, work)
            _print_work(arguments, read_into_shards(arguments, work))
        state.wait_for_everyone()
        counts = read_into_shards(arguments, work)
        _annotate(arguments, work, counts, state)
        state.wait_for_everyone()
        if state.is_main_process:
            print(finish(arguments, folder, counts))
        state.wait_for_everyone()
    finally:
        if state.is_main_process:
            lock.release()


def _check_checkpoints(arguments: BuildArguments) -> None:
    """Raise an error for a path without a model before the rows are read, which may take long."""
    for role in ("teacher", "judge"):
        if (name := getattr(arguments, role)) is not None:
            try:
                find_checkpoint(name)
            except ConfigError as error:
                raise ConfigError(f"{role}: {error}") from None


def _claim_folder(arguments: BuildArguments, values: Mapping[str, Any], folder: Path, work: Path) -> None:
    """Record the recipe and the source in the folder, which has to be theirs if a shard is annotated."""

    def claim() -> None:
        claim_folder(folder, {"": values}, FREE_KEYS)
        claim_folder(folder, {"": _get_file_stats(arguments.data)}, set(), name=SOURCE_NAME)

    try:
        claim()
    except ConfigError:
        if any(work.glob("scored-*.jsonl")):
            raise
        # Nothing but rows were read, for example as the teacher could not be loaded: accept another recipe.
        shutil.rmtree(work, ignore_errors=True)
        for name in (RECORD_NAME, SOURCE_NAME):
            (folder / name).unlink(missing_ok=True)
        claim()


def _start_processes() -> PartialState:
    """Join the group of processes that `accelerate launch` has started; without it, this process is alone."""
    # accelerate needs `cpu=True` to group processes on CPUs.
    on_cpus = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.cuda.is_available()
    # The main process may read for longer than 30 minutes, which is how long the others wait by default.
    return PartialState(cpu=on_cpus and "LOCAL_RANK" in os.environ, timeout=timedelta(days=7))


def _annotate(arguments: BuildArguments, work: Path, counts: Mapping[str, Any], state: PartialState) -> None:
    """Annotate the shards of this process that are not complete."""
    shards = [shard for shard in range(counts["shards"]) if not get_scored_path(work, shard).exists()]
    if arguments.engine == "ray":
        shards = shards if state.is_main_process else []
    else:
        # Divide by the number of the shard: processes that start late see fewer incomplete shards.
        shards = [shard for shard in shards if shard % state.num_processes == state.process_index]
    if not shards:
        return
    rows = {shard: counts["rows_per_shard"][shard] for shard in shards}
    with tqdm(
        total=sum(rows.values()), desc="annotating", unit=" rows", disable=not state.is_main_process
    ) as bar:
        if arguments.engine == "ray":
            for shard in annotate_with_ray(arguments, work, shards):
                bar.update(rows[shard])
            return
        annotator = Annotator(arguments)
        for shard in shards:
            annotate_shard(annotator, work, shard)
            bar.update(rows[shard])


def _get_file_stats(data: Source) -> dict[str, list[int]]:
    """Return size and modification time of the files of a local source. A build refuses a changed source."""
    files = list_paths(data)
    if not files:
        path = Path(name_source(data)).expanduser()
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return {p.name: [p.stat().st_size, p.stat().st_mtime_ns] for p in files if p.is_file()}


def _print_work(arguments: BuildArguments, counts: Mapping[str, Any]) -> None:
    """Print the numbers of rows, and of texts to write and to judge."""
    summaries, pairs = f"{counts['passages']} summaries, one per passage", counts["answers"]
    if arguments.mode == "question":
        summaries = f"{arguments.candidates} candidates for each of {counts['rows']} questions"
        pairs *= arguments.candidates
    if arguments.teacher is None:
        summaries = "no summaries, as those of the source are kept"
    if arguments.judge is None:
        pairs = 0
    print(
        f"{counts['read']} rows read = {counts['rows']} accepted + {counts['rejected']} rejected\n"
        f"{counts['passages']} distinct passages in {counts['shards']} shards; to write: {summaries}; "
        f"to judge: at most {pairs} pairs of summary and answer"
    )
    if counts["shortened"]:
        print(
            f"Of {counts['shortened']} of {counts['rows']} rows, `normalize` drops more than a tenth of the "
            "passage; without the key `ascii`, it keeps the letters of all scripts"
        )


if __name__ == "__main__":
    main()
