"""What a recipe may say: dataclasses, read from one YAML file and from flags alike."""

import contextlib
import difflib
import io
import json
import os
from dataclasses import dataclass, field, fields
from pathlib import Path

import yaml
from transformers import HfArgumentParser, Seq2SeqTrainingArguments

from crosstask.configuration_crosstask import FUSIONS, PROMPT, SUMMARY_LOSS_ON

STAGES = ("summarize", "answer", "fuse")


class ConfigError(ValueError):
    """A mistake in a recipe or on the command line."""


@dataclass
class RunArguments:
    """What holds for the whole run; goes to the top of the file."""

    summarizer: str | None = field(
        default=None, metadata={"help": "Hub id or folder of the sequence-to-sequence model to start from."}
    )
    summarizer_config: str | None = field(
        default=None,
        metadata={
            "help": "Instead: shape of one from scratch, as a mapping with model_type (t5, bart, ...)."
        },
    )
    question_answerer: str | None = field(
        default=None,
        metadata={"help": "Likewise, for the question answerer: sequence-to-sequence, or a text encoder."},
    )
    question_answerer_config: str | None = field(
        default=None, metadata={"help": "Instead: shape of one from scratch."}
    )
    vocab_size: int = field(
        default=8192, metadata={"help": "Tokens of the tokenizer that is trained for models from scratch."}
    )
    stages: list[str] = field(
        default_factory=lambda: list(STAGES),
        metadata={"help": "Stages to run. Leave 'answer' out to fuse the question answerer as it is."},
    )
    fusion: str = field(default="classifier", metadata={"help": f"One of {', '.join(FUSIONS)}."})
    fusion_num_heads: int = field(default=8, metadata={"help": "Attention heads of the fusion."})
    fusion_dim: int | None = field(
        default=None, metadata={"help": "Width of the fusion; the question encoder's where not given."}
    )
    fusion_ffn_dim: int | None = field(
        default=None, metadata={"help": "Width of its feed-forward layer; 4 x fusion_dim where not given."}
    )
    fusion_dropout: float = field(default=0.1, metadata={"help": "Dropout in the fusion."})
    answerability_weight: float = field(default=1.0, metadata={"help": "Weight of the answerability loss."})
    summary_loss_on: str = field(
        default="all", metadata={"help": f"Rows of the summary loss; one of {', '.join(SUMMARY_LOSS_ON)}."}
    )
    prompt: str = field(default=PROMPT, metadata={"help": "Template of the first segment of the input."})
    max_source_length: int = field(default=1024, metadata={"help": "Limit of the input in tokens."})

    def __post_init__(self):
        unknown = [stage for stage in self.stages if stage not in STAGES]
        if unknown or "fuse" not in self.stages:
            raise ConfigError(f"stages: expected some of {', '.join(STAGES)} with fuse, got {self.stages}")
        for name in ("summarizer", "question_answerer"):
            shape = getattr(self, f"{name}_config")
            if (getattr(self, name) is None) == (shape is None):
                raise ConfigError(f"{name}: expected exactly one of {name} and {name}_config")
            setattr(self, f"{name}_config", _mapping(shape, f"{name}_config"))
        if self.question_answerer is None and "answer" not in self.stages:
            raise ConfigError(
                "stages: question_answerer_config is a model from scratch, which needs 'answer'"
            )


@dataclass
class StageArguments:
    """What may differ from stage to stage; at the top for all, or under a stage's name for one."""

    data: str | None = field(
        default=None, metadata={"help": "Rows: briefs, aclsum, a file or folder, or a data set's Hub id."}
    )
    data_config_name: str | None = field(
        default=None, metadata={"help": "Configuration of a Hub data set, such as 3.0.0."}
    )
    data_columns: str | None = field(
        default=None, metadata={"help": "Mapping of row columns to the data's own: {passage: article}."}
    )
    data_options: str | None = field(
        default=None, metadata={"help": "Mapping of options of the embedded briefs: passages, seed, ..."}
    )
    lora_r: int = field(default=0, metadata={"help": "Rank of LoRA; 0 trains all weights."})
    lora_alpha: float = field(default=32, metadata={"help": "Scale of LoRA: updates count alpha / r."})
    lora_dropout: float = field(default=0.05, metadata={"help": "Dropout before LoRA's update."})
    lora_target_modules: list[str] = field(
        default_factory=lambda: ["q", "v"], metadata={"help": "Names of the linear layers that get LoRA."}
    )
    early_stopping_patience: int | None = field(
        default=None, metadata={"help": "Evaluations without a better metric after which a stage ends."}
    )

    def __post_init__(self):
        if self.data is None:
            raise ConfigError("data: expected where the rows come from (briefs, a path or a Hub id)")
        self.data_columns = _mapping(self.data_columns, "data_columns")
        self.data_options = _mapping(self.data_options, "data_options")
        if self.lora_r < 0:
            raise ConfigError(f"lora_r: expected 0 or more, got {self.lora_r}")


@dataclass
class StageRecipe:
    """One stage: its own arguments and those of transformers' trainer."""

    stage: StageArguments
    training: Seq2SeqTrainingArguments


@dataclass
class Recipe:
    """A whole run, resolved: `values` are what file and flags said, for the record."""

    run: RunArguments
    stages: dict[str, StageRecipe]
    output_dir: Path
    values: dict


def read_recipe(path, overrides=()):
    """
    Read a recipe.

    Args:
        path (`str` or `os.PathLike`): A YAML file. Keys at its top are fields of [`RunArguments`],
            [`StageArguments`] and transformers' `Seq2SeqTrainingArguments`; under `summarize`, `answer` and
            `fuse` stand those of the latter two that hold for one stage only.
        overrides (`list[str]`): Flags, `--key value` or `--stage.key value`; they win over the file.

    Returns:
        [`Recipe`]

    Raises:
        ConfigError: one sentence with the file, the key and what was expected.
    """
    shared, by_stage = _read_yaml(path)
    values = {"": shared, **by_stage}
    flags = {"": {}, **{stage: {} for stage in STAGES}}
    for key, value in _read_flags(overrides):
        stage, _, name = key.rpartition(".")
        if stage not in flags:
            raise ConfigError(f"--{key}: expected one of {', '.join(STAGES)} before the dot")
        flags[stage][name] = value
    run_keys = _names(RunArguments)
    stage_keys = _names(StageArguments) | _names(Seq2SeqTrainingArguments)
    for source, tables in ((path, values), ("command line", flags)):
        for stage, table in tables.items():
            _check_keys(table, stage_keys if stage else run_keys | stage_keys, f"{source}: {stage}")

    merged = values[""] | flags[""]
    if "output_dir" not in merged:
        raise ConfigError(f"{path}: output_dir: expected the folder of the run")
    run = _parse(RunArguments, {k: v for k, v in merged.items() if k in run_keys}, path)
    stages, resolved = {}, {"": merged}
    for stage in run.stages:
        # The most particular wins, and flags win over the file.
        table = values[""] | values[stage] | flags[""] | flags[stage]
        resolved[stage] = {k: v for k, v in table.items() if k in stage_keys}
        table = _defaults() | resolved[stage]
        table["output_dir"] = str(Path(merged["output_dir"], "checkpoints", stage))
        stage_table = {k: v for k, v in table.items() if k in _names(StageArguments)}
        training_table = {k: v for k, v in table.items() if k not in stage_table}
        stages[stage] = StageRecipe(
            _parse(StageArguments, stage_table, f"{path}: {stage}"),
            _parse(Seq2SeqTrainingArguments, training_table, f"{path}: {stage}"),
        )
    return Recipe(run, stages, Path(merged["output_dir"]), resolved)


def _defaults():
    """Where transformers' own default would surprise: no reporting, and `accelerate launch --cpu` means it."""
    use_cpu = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
    return {"report_to": "none"} | ({"use_cpu": True} if use_cpu else {})


def _read_yaml(path):
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise ConfigError(f"{path}: cannot be read ({reason}), expected a YAML file") from error
    try:
        values = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "unreadable"
        raise ConfigError(f"{path}:{line}: not valid YAML ({problem})") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected a mapping of keys to values, got {type(values).__name__}")
    by_stage = {stage: values.pop(stage, None) or {} for stage in STAGES}
    for stage, table in by_stage.items():
        if not isinstance(table, dict):
            raise ConfigError(f"{path}: {stage}: expected a mapping, got {type(table).__name__}")
    return values, by_stage


def _read_flags(flags):
    """`--key value ...` as pairs; several values make a list, none makes a switch."""
    pairs = []
    for word in flags:
        if word.startswith("--"):
            key, equals, value = word[2:].partition("=")
            pairs.append((key, [value] if equals else []))
        elif not pairs:
            raise ConfigError(f"command line: expected --key before {word!r}")
        else:
            pairs[-1][1].append(word)
    for key, words in pairs:
        try:
            words = [yaml.safe_load(word) for word in words] or [True]
        except yaml.YAMLError as error:
            raise ConfigError(f"--{key}: {words} is not a valid YAML value") from error
        yield key.replace("-", "_"), words[0] if len(words) == 1 else words


def _check_keys(table, known, where):
    for key in table:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else "see the README for the keys there are"
            raise ConfigError(f"{where.rstrip(': ')}: unknown key {key!r}; {hint}")


def _parse(kind, table, where):
    """Through `HfArgumentParser`, so that a value means the same in the file and as a flag."""
    words = []
    for key, value in table.items():
        if value is None:
            continue
        items = value if isinstance(value, list) else [value]
        words += [f"--{key}", *(json.dumps(v) if isinstance(v, dict) else str(v) for v in items)]
    parser = HfArgumentParser(kind, allow_abbrev=False)
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return parser.parse_args_into_dataclasses(words, look_for_args_file=False)[0]
    except SystemExit as error:
        reason = complaint.getvalue().strip().splitlines()[-1].partition("error: ")[2]
        raise ConfigError(f"{where}: {reason}") from error
    except ValueError as error:  # a dataclass's own check, or transformers' of its arguments
        raise ConfigError(f"{where}: {error}") from error


def _names(kind):
    return {f.name for f in fields(kind) if f.init}


def _mapping(value, name):
    """A mapping that came through the argument parser as JSON."""
    if value is None or isinstance(value, dict):
        return value
    try:
        value = json.loads(value)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise ConfigError(f"{name}: expected a mapping of keys to values")
    return value
