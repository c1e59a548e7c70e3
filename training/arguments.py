"""What a training recipe may say: dataclasses, read from one YAML file and from flags alike."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from transformers import Seq2SeqTrainingArguments

from crosstask.configuration_crosstask import FUSIONS, PROMPT, SUMMARY_LOSS_ON, CrossTaskConfig
from crosstask.data.schema import STAGES
from crosstask.training.tuning import QUANTIZATIONS, make_adapter_config, make_quantization_config
from crosstask.utils.errors import ConfigError
from crosstask.utils.recipes import (
    TOKENS,
    as_mapping,
    check_keys,
    check_minimum,
    get_field_names,
    parse,
    parse_mapping,
    read_flags,
    read_yaml,
)

STAGE_FOLDERS = {"summarize": "summarizer", "answer": "question_answerer", "fuse": "crosstask"}  # of the run
# Fields of RunArguments that are arguments of CrossTaskConfig.
MODEL_KEYS = ("fusion", "fusion_num_heads", "fusion_dim", "fusion_ffn_dim", "fusion_dropout")
MODEL_KEYS += ("fusion_activation", "share_base", "answerability_weight", "summary_loss_on", "prompt")
MODEL_KEYS += ("max_source_length",)
SHAPE_KEYS = MODEL_KEYS[:7]  # of them those that make a fusion what it is
JOINT_KEYS = ("contrastive_weight", "fusion_learning_rate")  # of StageArguments what only fuse reads
TRAINABLE = ("decoder_layers",)
PARTS = ("summarizer", "summarizer_config", "question_answerer", "question_answerer_config")


@dataclass
class RunArguments:
    """What holds for the whole run; goes to the top of the file."""

    model: str | None = field(
        default=None,
        metadata={
            "help": "Hub id or folder of a cross-task model to train further, instead of its two parts; the "
            "only stage is fuse then."
        },
    )
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
    fusion_activation: str = field(
        default="gelu",
        metadata={"help": "Activation function of the fusion, as transformers names it: gelu, relu, silu, ..."},
    )
    share_base: bool = field(
        default=False,
        metadata={
            "help": "Keep the checkpoint that both parts start from, which has to be one, in memory once, "
            "with LoRA for each."
        },
    )
    answerability_weight: float = field(default=1.0, metadata={"help": "Weight of the answerability loss."})
    summary_loss_on: str = field(
        default="all", metadata={"help": f"Rows of the summary loss; one of {', '.join(SUMMARY_LOSS_ON)}."}
    )
    prompt: str = field(default=PROMPT, metadata={"help": "Template of the first segment of the input."})
    max_source_length: int = field(default=1024, metadata={"help": "Limit of the input in tokens."})
    license: str | None = field(
        default=None, metadata={"help": "For the card: the Hub's name of the licence, such as apache-2.0."}
    )
    language: list[str] | None = field(
        default=None, metadata={"help": "For the card: ISO 639 codes of the texts' languages."}
    )
    datasets: list[str] | None = field(
        default=None, metadata={"help": "For the card: Hub ids of the data sets, where data is a file."}
    )
    push_to_hub: bool = field(
        default=False, metadata={"help": "Publish the finished model, in one commit, with its card."}
    )
    hub_model_id: str | None = field(default=None, metadata={"help": "Where to: user/name."})
    hub_private_repo: bool = field(default=False, metadata={"help": "Make a new repository private."})
    hub_revision: str | None = field(default=None, metadata={"help": "Branch to publish on."})

    def __post_init__(self):
        unknown = [stage for stage in self.stages if stage not in STAGES]
        if unknown or "fuse" not in self.stages:
            raise ConfigError(f"stages: expected some of {', '.join(STAGES)} with fuse, got {self.stages}")
        self.stages = [stage for stage in STAGES if stage in self.stages]  # the order in which they run
        if self.model is None:
            self._check_parts()
        else:
            self._check_whole()
        self._check_model()

    def _check_parts(self):
        for name, stage in (("summarizer", "summarize"), ("question_answerer", "answer")):
            shape = getattr(self, f"{name}_config")
            if (getattr(self, name) is None) == (shape is None):
                raise ConfigError(f"{name}: expected exactly one of {name} and {name}_config")
            setattr(self, f"{name}_config", parse_mapping(shape, f"{name}_config"))
            if shape is not None and stage not in self.stages:
                raise ConfigError(f"stages: {name}_config is a model from scratch, which needs {stage!r}")
        if self.share_base and (self.summarizer is None or self.summarizer != self.question_answerer):
            parts = (self.summarizer or "one from scratch", self.question_answerer or "one from scratch")
            raise ConfigError(
                "share_base: expected summarizer and question_answerer to be one checkpoint, got "
                f"{parts[0]} and {parts[1]}"
            )

    def _check_whole(self):
        if self.stages != ["fuse"]:
            raise ConfigError(f"stages: expected [fuse], as model is a whole model, got {self.stages}")
        for name in PARTS:
            if getattr(self, name) is not None:
                raise ConfigError(f"{name}: expected either model or its parts, got both")

    def _check_model(self):
        """What the last stage would refuse, before the first one is trained."""
        check_minimum(1, self, "vocab_size", "max_source_length")
        check_minimum(1, self, "fusion_num_heads", "fusion_dim", "fusion_ffn_dim")
        check_minimum(0, self, "answerability_weight")
        try:
            self.prompt.format(question="")
        except (AttributeError, LookupError, ValueError) as error:
            problem = "expected a template with no braces but {question}"
            raise ConfigError(f"prompt: {problem}, got {self.prompt!r}") from error
        CrossTaskConfig(**{name: getattr(self, name) for name in MODEL_KEYS})


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
    peft: str | None = field(
        default=None,
        metadata={
            "help": "Mapping in peft's own keys: of another adapter, as {peft_type: IA3, ...}, or beside "
            "lora_r what else LoRA has, as {use_dora: true}."
        },
    )
    quantization: str | None = field(
        default=None,
        metadata={
            "help": f"Of the weights under an adapter, by bitsandbytes; one of {', '.join(QUANTIZATIONS)}."
        },
    )
    trainable: str | None = field(
        default=None,
        metadata={"help": "Train only these, and the fusion: {decoder_layers: n}, the last n."},
    )
    fusion_learning_rate: float | None = field(
        default=None,
        metadata={"help": "Of the joint stage's fusion, which is new; learning_rate where not given."},
    )
    contrastive_weight: float = field(
        default=0.0,
        metadata={
            "help": "Of the joint stage's loss that wants a summary to be more likely under its question "
            "than under another one on the passage; with 0 a step takes half the time."
        },
    )
    early_stopping_patience: int | None = field(
        default=None, metadata={"help": "Evaluations without a better metric after which a stage ends."}
    )

    def __post_init__(self):
        if self.data is None:
            raise ConfigError("data: expected where the rows come from (briefs, a path or a Hub id)")
        self.data_columns = parse_mapping(self.data_columns, "data_columns")
        self.data_options = parse_mapping(self.data_options, "data_options")
        self.peft = parse_mapping(self.peft, "peft")
        self.trainable = parse_mapping(self.trainable, "trainable")
        check_minimum(0, self, "lora_r", *JOINT_KEYS)
        if not 0 <= self.lora_dropout < 1:
            raise ConfigError(f"lora_dropout: expected at least 0 and below 1, got {self.lora_dropout}")


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
    shared = read_yaml(path)
    values = {stage: as_mapping(shared.pop(stage, None), f"{path}: {stage}") for stage in STAGES}
    values = {"": shared, **values}
    flags = {"": {}, **{stage: {} for stage in STAGES}}
    for key, value in read_flags(overrides):
        stage, _, name = key.rpartition(".")
        if stage not in flags:
            raise ConfigError(f"--{key}: expected one of {', '.join(STAGES)} before the dot")
        flags[stage][name] = value
    run_keys = get_field_names(RunArguments) | {"output_dir"}
    stage_keys = get_field_names(StageArguments) | get_field_names(Seq2SeqTrainingArguments)
    # What is published is the run's last model: a trainer of one stage pushes nothing by itself.
    stage_keys -= {"output_dir", *(key for key in stage_keys - set(TOKENS) if "hub" in key)}
    for source, tables in ((path, values), ("command line", flags)):
        for stage, table in tables.items():
            where = f"{source}: {stage}" if stage else source
            if stage and (misplaced := sorted(run_keys & table.keys())):
                raise ConfigError(f"{where}: {misplaced[0]} holds for the whole run, expected at the top")
            if stage not in ("", "fuse") and (misplaced := sorted(table.keys() & {*JOINT_KEYS})):
                raise ConfigError(
                    f"{where}: {misplaced[0]} is of the joint stage, expected at the top or under fuse"
                )
            check_keys(table, stage_keys if stage else run_keys | stage_keys, where)

    merged = values[""] | flags[""]
    output_dir = merged.get("output_dir")
    if output_dir in (None, "") or isinstance(output_dir, (dict, list)):
        raise ConfigError(f"{path}: output_dir: expected the folder of the run")
    output_dir = Path(str(output_dir))
    if merged.get("model") is not None:
        merged.setdefault("stages", ["fuse"])
        if shape := [name for name in SHAPE_KEYS if merged.get(name) is not None]:
            raise ConfigError(f"{path}: {shape[0]}: expected none beside model, whose fusion has its own")
    run = parse(RunArguments, {k: v for k, v in merged.items() if k in get_field_names(RunArguments)}, path)
    stages, resolved = {}, {"": merged}
    for stage in run.stages:
        # The most particular wins, and flags win over the file.
        table = values[""] | values[stage] | flags[""] | flags[stage]
        resolved[stage] = {k: v for k, v in table.items() if k in stage_keys}
        table = _defaults() | resolved[stage]
        table["output_dir"] = str(output_dir / "checkpoints" / stage)
        stage_table = {k: v for k, v in table.items() if k in get_field_names(StageArguments)}
        training_table = {k: v for k, v in table.items() if k not in stage_table}
        where = f"{path}: {stage}"
        stages[stage] = StageRecipe(
            parse(StageArguments, stage_table, where),
            parse(Seq2SeqTrainingArguments, training_table, where),
        )
        try:
            _check_stage(stage, stages[stage], run)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from error
    return Recipe(run, stages, output_dir, resolved)


def _check_stage(name, recipe, run):
    """What would fail only once the stage trains, or after it."""
    check_minimum(1, recipe.training, "per_device_train_batch_size", "per_device_eval_batch_size")
    check_minimum(1, recipe.training, "gradient_accumulation_steps", "generation_num_beams")
    check_minimum(0, recipe.training, "dataloader_num_workers")
    if recipe.stage.early_stopping_patience is not None and not recipe.training.load_best_model_at_end:
        raise ConfigError("early_stopping_patience: expected load_best_model_at_end beside it")
    scratch = {"summarize": run.summarizer_config, "answer": run.question_answerer_config}.get(name)
    stage = recipe.stage
    adapted = [key for key in ("lora_r", "peft", "trainable") if getattr(stage, key)]
    if len(adapted) > 1 and "trainable" in adapted:
        raise ConfigError(f"trainable: expected none beside {adapted[0]}, which freezes all but an adapter")
    if adapted and scratch is not None:
        expected = 0 if adapted[0] == "lora_r" else "none"
        raise ConfigError(
            f"{adapted[0]}: expected {expected}, as a model from scratch has no weights to keep"
        )
    if stage.trainable is not None:
        check_keys(stage.trainable, TRAINABLE, "trainable")
        if type(layers := stage.trainable.get("decoder_layers")) is not int or layers < 0:
            raise ConfigError(f"trainable.decoder_layers: expected a whole number from 0, got {layers!r}")
    config = make_adapter_config(stage)
    if make_quantization_config(stage) is not None and config is None:
        raise ConfigError(
            "quantization: expected lora_r or peft beside it, as such weights cannot be trained"
        )
    if run.share_base and name != "fuse" and (config is None or config.peft_type != "LORA"):
        raise ConfigError("lora_r: expected 1 or more, as share_base keeps the base as it is")


def _defaults():
    """Where transformers' own would surprise: no reporting, and `accelerate launch --cpu` means it."""
    use_cpu = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
    return {"report_to": "none"} | ({"use_cpu": True} if use_cpu else {})
