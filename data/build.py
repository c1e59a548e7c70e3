"""Make a cross-task data set: `crosstask-build CONFIG.yaml [--key value ...]`.

Three steps, each of which leaves on disk what the next one needs, so that a killed run goes on where it was:

    read      a source's rows, normalized, parted by passage into shards  -> work/rows-00000.jsonl
    annotate  per shard, summaries by a teacher, entailment by a judge    -> work/scored-00000.jsonl
    finish    splits, labels, statistics and the card                     -> data/*.parquet, README.md, ...
"""

import os
import sys
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env
from tqdm.auto import tqdm

from crosstask.data.builder.annotate import Annotator, annotate, annotate_with_ray, scored_path
from crosstask.data.builder.finish import finish
from crosstask.data.builder.judge import check_template
from crosstask.data.builder.normalize import Normalization
from crosstask.data.builder.shards import count, read_into_shards
from crosstask.utils.errors import ConfigError, DataError
from crosstask.utils.output_folder import claim_folder, lock_folder
from crosstask.utils.recipes import check_minimum, make_arguments, make_parser, read_values

MODES = ("passage", "question")
ENGINES = ("local", "ray")
# Keys that change only what is made of the scored rows, or who does the work: free to differ on a restart.
FREE_KEYS = {"threshold", "validation", "test", "engine", "ray_actors", "dry_run"}


@dataclass
class BuildArguments:
    """What a recipe of a data set may say."""

    data: str = field(metadata={"help": "The source: briefs, aclsum, a file or folder, or a Hub id."})
    output_dir: str = field(metadata={"help": "The folder of the data set."})
    data_config_name: str | None = field(
        default=None, metadata={"help": "Configuration of a Hub data set, such as 3.0.0."}
    )
    data_columns: dict | None = field(
        default=None, metadata={"help": "Mapping of row columns to the data's own: {passage: article}."}
    )
    data_options: dict | None = field(
        default=None, metadata={"help": "Mapping of options of the embedded briefs: passages, seed, ..."}
    )
    extractive: bool = field(
        default=False, metadata={"help": "Reject rows whose answer is not in their passage."}
    )
    normalize: dict | None = field(
        default=None,
        metadata={"help": "Mapping of the fields of crosstask.data.builder.normalize.Normalization."},
    )
    teacher: str | None = field(
        default="facebook/bart-large-cnn",
        metadata={"help": "Sequence-to-sequence model that writes the summaries; none keeps the source's."},
    )
    mode: str = field(
        default="passage",
        metadata={"help": "passage: one summary a passage. question: the teacher sees the question."},
    )
    candidates: int = field(
        default=4, metadata={"help": "Summaries drawn per question in mode question; the best one is kept."}
    )
    hard_negatives: bool = field(
        default=False, metadata={"help": "In mode question, also keep the worst one, where it is labelled 0."}
    )
    prefix: str | None = field(
        default=None, metadata={"help": "Text before each passage; the teacher's own where not given."}
    )
    num_beams: int | None = field(default=None, metadata={"help": "Beams; the teacher's own number."})
    min_new_tokens: int | None = field(
        default=None, metadata={"help": "Least length of a summary; the teacher's own."}
    )
    max_new_tokens: int = field(default=142, metadata={"help": "Most length of a summary."})
    max_source_length: int | None = field(
        default=None, metadata={"help": "Tokens of a passage that the teacher reads; all that it can."}
    )
    judge: str | None = field(
        default="FacebookAI/roberta-large-mnli",
        metadata={"help": "Classifier with a class entailment that gives the labels; none gives none."},
    )
    hypothesis: str = field(
        default="{answer}", metadata={"help": "What the summary is to entail; {question} and {answer}."}
    )
    threshold: float = field(default=0.5, metadata={"help": "Label 1 above this P(entailment)."})
    dtype: str = field(default="auto", metadata={"help": "Of both models: auto, float32, bfloat16, ..."})
    batch_size: int = field(default=16, metadata={"help": "Passages that the teacher reads at once."})
    shard_size: int = field(
        default=256, metadata={"help": "Passages of a shard, the unit of work that a kill can cost."}
    )
    validation: float = field(
        default=0.05, metadata={"help": "Share of the passages, where the source has a single split."}
    )
    test: float = field(default=0.05, metadata={"help": "Likewise."})
    seed: int = field(default=0, metadata={"help": "Of the drawn candidates."})
    engine: str = field(default="local", metadata={"help": f"One of {', '.join(ENGINES)}."})
    ray_actors: int = field(default=1, metadata={"help": "Copies of the two models under Ray."})
    dry_run: bool = field(default=False, metadata={"help": "Say what would be done, and stop."})

    def __post_init__(self):
        self.normalize = Normalization.from_mapping(self.normalize)
        for name, known in (("mode", MODES), ("engine", ENGINES)):
            if getattr(self, name) not in known:
                raise ConfigError(f"{name}: expected one of {', '.join(known)}, got {getattr(self, name)!r}")
        check_minimum(1, self, "candidates", "batch_size", "shard_size", "ray_actors")
        check_minimum(1, self, "num_beams", "max_new_tokens", "max_source_length")
        check_minimum(0, self, "min_new_tokens")
        for name in ("threshold", "validation", "test"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name}: expected at least 0 and below 1, got {getattr(self, name)}")
        if self.validation + self.test >= 1:
            raise ConfigError("validation: expected less than 1 together with test, for train to get rows")
        if self.hard_negatives and (self.mode != "question" or self.candidates < 2):
            raise ConfigError("hard_negatives: expected mode question and at least 2 candidates")
        self.teacher, self.judge = (None if name == "none" else name for name in (self.teacher, self.judge))
        if self.mode == "question" and None in (self.teacher, self.judge):
            raise ConfigError("mode: question needs a teacher and a judge")
        check_template(self.hypothesis)


def main(argv=None):
    """Entry point; `argv` defaults to the command line. A user's mistake ends it with one sentence."""
    parser = make_parser("crosstask-build", "Make a cross-task data set from a recipe.", BuildArguments)
    given, overrides = parser.parse_known_args(argv)
    try:
        run(*read_build_recipe(given.config, overrides))
    except (ConfigError, DataError) as error:
        sys.exit(f"crosstask-build: error: {error}")


def read_build_recipe(path, overrides=()):
    """
    Read the recipe of a data set.

    Args:
        path (`str` or `os.PathLike`): A YAML file whose keys are fields of [`BuildArguments`].
        overrides (`list[str]`): Flags, `--key value`; they win over the file.

    Returns:
        [`BuildArguments`], and the `dict` of what file and flags said.

    Raises:
        ConfigError: one sentence with the file, the key and what was expected.
    """
    values = read_values(path, overrides, BuildArguments)
    for name in ("teacher", "judge"):
        if name in values and values[name] is None:  # null would mean the default
            values[name] = "none"
    return make_arguments(BuildArguments, values, path), values


def run(arguments, values):
    """Do what is not done yet. Takes what [`read_build_recipe`] returns."""
    if arguments.dry_run:
        return _say_plan(arguments, count(arguments))
    folder = Path(arguments.output_dir)
    state = _join()
    if state.is_main_process:
        lock = lock_folder(folder)
    try:
        if state.is_main_process:
            if not (folder / "work" / "plan.json").exists():  # nothing has been made of another recipe yet
                (folder / "recipe.yaml").unlink(missing_ok=True)
            claim_folder(folder, {"": values, "files": _files(arguments.data)}, FREE_KEYS)
            plan = read_into_shards(arguments, folder / "work")
            _say_plan(arguments, plan)
        state.wait_for_everyone()
        plan = read_into_shards(arguments, folder / "work")
        _annotate(arguments, folder / "work", plan, state)
        state.wait_for_everyone()
        if state.is_main_process:
            print(finish(arguments, folder, plan))
        state.wait_for_everyone()
    finally:
        if state.is_main_process:
            lock.release()


def _join():
    """The group of processes, which are one each to accelerate unless it is told that they are on CPUs."""
    on_cpus = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.cuda.is_available()
    # The first process may read for longer than the half hour that the others wait by default.
    return PartialState(cpu=on_cpus and "LOCAL_RANK" in os.environ, timeout=timedelta(days=7))


def _annotate(arguments, work, plan, state):
    pending = [shard for shard in range(plan["shards"]) if not scored_path(work, shard).exists()]
    if arguments.engine == "ray":
        mine = pending if state.is_main_process else []
    else:
        # By the shard's number, not its place among the pending: processes may start one after the other.
        mine = [shard for shard in pending if shard % state.num_processes == state.process_index]
    if not mine:
        return
    rows = {shard: plan["rows_of_shard"][shard] for shard in mine}
    with tqdm(
        total=sum(rows.values()), desc="annotating", unit=" rows", disable=not state.is_main_process
    ) as bar:
        if arguments.engine == "ray":
            for shard in annotate_with_ray(arguments, work, mine):
                bar.update(rows[shard])
            return
        annotator = Annotator(arguments)
        for shard in mine:
            annotate(annotator, work, shard)
            bar.update(rows[shard])


def _files(data):
    """Size and time of change of a local source: a changed one is another recipe."""
    path = Path(data).expanduser()
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return {p.name: [p.stat().st_size, p.stat().st_mtime_ns] for p in files if p.is_file()}


def _say_plan(arguments, plan):
    summaries = {
        "passage": f"{plan['passages']} summaries, one a passage",
        "question": f"{arguments.candidates} candidates for each of {plan['rows']} questions",
    }[arguments.mode]
    if arguments.teacher is None:
        summaries = "no summaries, as the source's are kept"
    pairs = plan["answers"] * (arguments.candidates if arguments.mode == "question" else 1)
    print(
        f"{plan['read']} rows read = {plan['rows']} kept + {plan['rejected']} rejected\n"
        f"{plan['passages']} distinct passages in {plan['shards']} shards; to make: {summaries}; "
        f"to judge: at most {0 if arguments.judge is None else pairs} pairs of summary and answer"
    )


if __name__ == "__main__":
    main()
