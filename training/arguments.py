"""Define the keys of a training recipe, and read them from a YAML file and from command-line flags."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import Seq2SeqTrainingArguments

from crosstask.configuration_crosstask import FUSIONS, PROMPT, SUMMARY_LOSS_ON, CrossTaskConfig
from crosstask.data.readers.arguments import SourceArguments
from crosstask.data.schema import STAGES
from crosstask.training.tuning import QUANTIZATIONS, make_adapter_config, make_quantization_config
from crosstask.utils.errors import ConfigError
from crosstask.utils.recipes import (
    COMMAND_LINE,
    check_keys,
    check_mapping,
    check_minimum,
    convert_values,
    get_field_types,
    make_arguments,
    read_flags,
    read_yaml,
)

# The folder of the run that each stage saves its model to.
STAGE_FOLDERS = {"summarize": "summarizer", "answer": "question_answerer", "fuse": "crosstask"}
# Fields of RunArguments that set the architecture of the fusion: a trained model keeps its own.
SHAPE_KEYS = (
    "fusion",
    "fusion_num_heads",
    "fusion_dim",
    "fusion_ffn_dim",
    "fusion_dropout",
    "fusion_activation",
    "fusion_likelihood",
    "share_base",
)
# Fields of RunArguments that are arguments of CrossTaskConfig.
READING_KEYS = ("prompt", "max_source_length", "max_segments", "stride")  # of the processor, too
MODEL_KEYS = (*SHAPE_KEYS, "answerability_weight", "summary_loss_on", *READING_KEYS)
# Fields of RunArguments that choose the two models to start from.
PART_KEYS = ("summarizer", "summarizer_config", "question_answerer", "question_answerer_config")
# Fields of StageArguments that only the stage "fuse" reads.
JOINT_KEYS = (
    "answerability_precision",
    "contrastive_weight",
    "fusion_learning_rate",
    "own_summary_steps",
    "wrong_values",
)


@dataclass
class RunArguments:
    """The arguments of a whole run; their keys stand at the top level of the recipe."""

    output_dir: str = field(metadata={"help": "Folder of the run."})
    model: str | None = field(
        default=None,
        metadata={
            "help": "Hub id or folder of a cross-task model to train further, instead of two parts to fuse; "
            "the only stage is then fuse."
        },
    )
    summarizer: str | None = field(
        default=None, metadata={"help": "Hub id or folder of the sequence-to-sequence model to start from."}
    )
    summarizer_config: dict | None = field(
        default=None,
        metadata={
            "help": "Instead of summarizer: the configuration of a model to train from scratch, a mapping "
            "with model_type (t5, bart, ...)."
        },
    )
    question_answerer: str | None = field(
        default=None,
        metadata={
            "help": "Hub id or folder of the question answerer to start from, a sequence-to-sequence model "
            "or a text encoder."
        },
    )
    question_answerer_config: dict | None = field(
        default=None,
        metadata={
            "help": "Instead of question_answerer: the configuration of a model to train from scratch."
        },
    )
    vocab_size: int = field(
        default=8192,
        metadata={"help": "Vocabulary size of the tokenizer that is trained for models from scratch."},
    )
    stages: list[str] = field(
        default_factory=lambda: list(STAGES),
        metadata={
            "help": f"Stages to run, some of {', '.join(STAGES)}. Leave answer out to fuse the question "
            "answerer as it is."
        },
    )
    fusion: str = field(
        default="classifier", metadata={"help": f"Kind of fusion, one of {', '.join(FUSIONS)}."}
    )
    fusion_num_heads: int = field(default=8, metadata={"help": "Number of attention heads of the fusion."})
    fusion_dim: int | None = field(
        default=None,
        metadata={"help": "Width of the fusion; defaults to the hidden size of the question encoder."},
    )
    fusion_ffn_dim: int | None = field(
        default=None,
        metadata={"help": "Width of the fusion's feed-forward layer; defaults to 4 x fusion_dim."},
    )
    fusion_dropout: float = field(default=0.1, metadata={"help": "Dropout probability in the fusion."})
    fusion_activation: str = field(
        default="gelu",
        metadata={
            "help": "Activation function of the fusion, as transformers names it: gelu, relu, silu, ..."
        },
    )
    fusion_likelihood: bool = field(
        default=True,
        metadata={
            "help": "Predict the answerability from the probabilities of the summary's tokens as well, so "
            "that a copied value differs from an invented one."
        },
    )
    share_base: bool = field(
        default=False,
        metadata={
            "help": "Keep the checkpoint in memory once if both parts start from the same one; each part is "
            "then trained with LoRA."
        },
    )
    answerability_weight: float = field(default=1.0, metadata={"help": "Weight of the answerability loss."})
    summary_loss_on: str = field(
        default="all",
        metadata={"help": f"Rows that the summary loss is taken on, one of {', '.join(SUMMARY_LOSS_ON)}."},
    )
    prompt: str = field(
        default=PROMPT, metadata={"help": "Template of the first segment of the input, with {question}."}
    )
    max_source_length: int = field(default=1024, metadata={"help": "Maximum length of the input in tokens."})
    max_segments: int = field(
        default=1,
        metadata={
            "help": "Maximum number of segments of max_source_length tokens that a passage is cut into, each "
            "with the question in front; the stages summarize and answer read one."
        },
    )
    stride: int = field(
        default=0,
        metadata={"help": "Number of passage tokens that a segment has in common with the one before."},
    )
    license: str | None = field(
        default=None,
        metadata={"help": "For the model card: the Hub's name of the license, such as apache-2.0."},
    )
    language: list[str] | None = field(
        default=None, metadata={"help": "For the model card: ISO 639 codes of the languages of the texts."}
    )
    datasets: list[str] | None = field(
        default=None,
        metadata={"help": "For the model card: Hub ids of the data sets, if data is a local file."},
    )
    push_to_hub: bool = field(
        default=False, metadata={"help": "Publish the finished model with its card in one commit."}
    )
    hub_model_id: str | None = field(default=None, metadata={"help": "Repository to publish to, user/name."})
    hub_private_repo: bool = field(
        default=False, metadata={"help": "Make the repository private if it is created."}
    )
    hub_revision: str | None = field(default=None, metadata={"help": "Branch to publish to."})

    def __post_init__(self):
        if not self.output_dir:
            raise ConfigError("output_dir: expected the folder of the run")
        if "fuse" not in self.stages or not set(self.stages) <= set(STAGES):
            raise ConfigError(
                f"stages: expected fuse, and optionally summarize and answer, got {self.stages}"
            )
        self.stages = [stage for stage in STAGES if stage in self.stages]  # the order in which they run
        if self.model is None:
            self._check_parts()
        else:
            self._check_trained_model()
        self._check_model_settings()

    def _check_parts(self):
        for name, stage in (("summarizer", "summarize"), ("question_answerer", "answer")):
            shape = getattr(self, f"{name}_config")
            if (getattr(self, name) is None) == (shape is None):
                raise ConfigError(f"{name}: expected exactly one of {name} and {name}_config")
            if shape is not None and stage not in self.stages:
                raise ConfigError(
                    f"stages: expected {stage!r} among them, as {name}_config is a model from scratch"
                )
        if self.share_base and (self.summarizer is None or self.summarizer != self.question_answerer):
            parts = [part or "one from scratch" for part in (self.summarizer, self.question_answerer)]
            raise ConfigError(
                "share_base: expected summarizer and question_answerer to be one checkpoint, got "
                f"{' and '.join(parts)}"
            )

    @property
    def trains_tokenizer(self) -> bool:
        """Whether a part is trained from scratch, and with it its tokenizer."""
        return self.model is None and (self.summarizer is None or self.question_answerer is None)

    def _check_trained_model(self):
        if self.stages != ["fuse"]:
            raise ConfigError(f"stages: expected [fuse], as model has both parts already, got {self.stages}")
        for name in PART_KEYS:
            if getattr(self, name) is not None:
                raise ConfigError(f"{name}: expected either model or its parts, got both")

    def _check_model_settings(self):
        """Refuse what the last stage would refuse, before the first stage is trained."""
        check_minimum(1, self, "vocab_size", "max_source_length")
        check_minimum(1, self, "fusion_num_heads", "fusion_dim", "fusion_ffn_dim")
        check_minimum(0, self, "answerability_weight")
        try:
            self.prompt.format(question="")
        except (AttributeError, LookupError, ValueError) as error:
            expected = "a template with no braces other than {question}"
            raise ConfigError(f"prompt: expected {expected}, got {self.prompt!r}") from error
        CrossTaskConfig(**{name: getattr(self, name) for name in MODEL_KEYS})


@dataclass
class StageArguments(SourceArguments):
    """
    The arguments that may differ between stages; their keys stand at the top level of the recipe for all
    stages, or under the name of a stage.
    """

    data: str | list[str] = field(
        default="",
        metadata={
            "help": "Source of the rows: briefs, aclsum, a file, several files or a pattern, a folder, or "
            "the Hub id of a data set."
        },
    )
    data_shares: dict[str, float] | None = field(
        default=None,
        metadata={
            "help": "Shares of the passages that are split off for validation and test if the data has one "
            "split: {validation: 0.1, test: 0.1}. By default 0.05 each, but at least 10 passages or a fifth."
        },
    )
    lora_r: int = field(default=0, metadata={"help": "Rank of LoRA; 0 trains all weights."})
    lora_alpha: float = field(default=32, metadata={"help": "Numerator of LoRA's scaling factor alpha / r."})
    lora_dropout: float = field(
        default=0.05, metadata={"help": "Dropout probability of the input of LoRA's update."}
    )
    lora_target_modules: list[str] = field(
        default_factory=lambda: ["q", "v"], metadata={"help": "Names of the linear layers that LoRA adapts."}
    )
    peft: dict | None = field(
        default=None,
        metadata={
            "help": "Settings of peft, with peft's key names: another adapter, such as {peft_type: IA3, "
            "...}, or further settings of LoRA beside lora_r, such as {use_dora: true}."
        },
    )
    quantization: str | None = field(
        default=None,
        metadata={
            "help": "How bitsandbytes quantizes the weights under an adapter, one of "
            f"{', '.join(QUANTIZATIONS)}."
        },
    )
    trainable: dict | None = field(
        default=None,
        metadata={"help": "Train only the fusion and the last n layers of the decoder: {decoder_layers: n}."},
    )
    fusion_learning_rate: float | None = field(
        default=None,
        metadata={
            "help": "Learning rate of the fusion in the stage fuse, where it starts untrained; defaults to "
            "learning_rate."
        },
    )
    contrastive_weight: float = field(
        default=0.0,
        metadata={
            "help": "Weight of the contrastive loss in the stage fuse, which makes a summary more likely "
            "under its question than under another question about the passage; 0 halves the time of a step."
        },
    )
    wrong_values: float = field(
        default=0.25,
        metadata={
            "help": "Share of the training rows labeled 1 that the stage fuse repeats with a wrong value in "
            "the place of the answer, labeled 0; none with summary_loss_on: all, which would teach to write "
            "them."
        },
    )
    own_summary_steps: int = field(
        default=4,
        metadata={
            "help": "In every so many steps of the stage fuse, the model also judges summaries of the batch "
            "that it writes itself, which are right if they have the words of the answer; 0 for none."
        },
    )
    answerability_precision: float = field(
        default=0.95,
        metadata={
            "help": "Share of right summaries, on validation rows, among those that min_answerability: auto "
            "accepts."
        },
    )
    early_stopping_patience: int | None = field(
        default=None,
        metadata={"help": "Number of evaluations without a better metric after which a stage ends."},
    )

    def __post_init__(self):
        if not self.data:
            raise ConfigError("data: expected the source of the rows (briefs, a path or a Hub id)")
        check_minimum(0, self, "lora_r", *JOINT_KEYS)
        for name in ("wrong_values", "answerability_precision"):
            if getattr(self, name) > 1:
                raise ConfigError(f"{name}: expected a share of at most 1, got {getattr(self, name)}")
        if not 0 <= self.lora_dropout < 1:
            raise ConfigError(f"lora_dropout: expected at least 0 and below 1, got {self.lora_dropout}")


RUN_TYPES = get_field_types(RunArguments)
# Without transformers' settings of the Hub: the run publishes its last model, a stage publishes nothing.
STAGE_TYPES = get_field_types(StageArguments) | {
    name: annotation
    for name, annotation in get_field_types(Seq2SeqTrainingArguments).items()
    if name != "output_dir" and "hub" not in name
}


@dataclass
class StageRecipe:
    """The arguments of one stage: those of this library, and those of transformers' trainer."""

    stage: StageArguments
    training: Seq2SeqTrainingArguments


@dataclass
class Recipe:
    """
    A complete recipe of a run.

    Args:
        run ([`RunArguments`]): The arguments of the whole run.
        stages (`dict[str, StageRecipe]`): The arguments of each stage, in the order in which they run.
        output_dir (`Path`): The folder of the run.
        values (`dict[str, dict]`): The values that the file and the flags set, without defaults, for the
            record: under "" those at the top level, under each stage all that apply to it.
    """

    run: RunArguments
    stages: dict[str, StageRecipe]
    output_dir: Path
    values: dict[str, dict[str, Any]]


def read_recipe(path: str | os.PathLike, flags: Iterable[str] = ()) -> Recipe:
    """
    Read a recipe. Values for one stage override those for all stages, and flags override the file.

    Args:
        path (`str` or `os.PathLike`): A YAML file. Keys at its top level are fields of [`RunArguments`],
            [`StageArguments`] and transformers' `Seq2SeqTrainingArguments`; under `summarize`, `answer` and
            `fuse`, fields of the latter two that apply to one stage only.
        flags (`Iterable[str]`): `--key value` or `--stage.key value`.

    Raises:
        ConfigError: If a value is wrong; the sentence names the file or flag, the key and what was expected.
    """
    file, flags = _read_file(path), _group_flags(flags)
    top = file[""] | flags[""]
    if top.get("model") is not None:
        top.setdefault("stages", ["fuse"])
        for name in SHAPE_KEYS:
            if top.get(name) is not None:
                raise ConfigError(f"{path}: {name}: expected none beside model, which has a fusion already")
    run = make_arguments(RunArguments, {key: top[key] for key in top if key in RUN_TYPES}, path)
    output_dir = Path(run.output_dir)
    stages, values = {}, {"": top}
    for stage in run.stages:
        merged = file[""] | file[stage] | flags[""] | flags[stage]
        values[stage] = {key: merged[key] for key in merged if key in STAGE_TYPES}
        checkpoints = str(output_dir / "checkpoints" / stage)
        stages[stage] = _make_stage(values[stage] | {"output_dir": checkpoints}, f"{path}: {stage}")
        try:
            _check_stage(stage, stages[stage], run)
        except ConfigError as error:
            raise ConfigError(f"{path}: {stage}: {error}") from error
    return Recipe(run, stages, output_dir, values)


def _read_file(path: str | os.PathLike) -> dict[str, dict[str, Any]]:
    """Return the values of a file by stage; those at the top level under ""."""
    top = read_yaml(path)
    values = {stage: check_mapping(top.pop(stage, None), f"{path}: {stage}") for stage in STAGES}
    return _convert({"": top, **values}, path)


def _group_flags(flags: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return the values of flags by stage; those without a stage under ""."""
    values: dict[str, dict] = {stage: {} for stage in ("", *STAGES)}
    for key, value in read_flags(flags, RUN_TYPES | STAGE_TYPES):
        stage, _, name = key.rpartition(".")
        if stage not in values:
            raise ConfigError(f"--{key}: expected one of {', '.join(STAGES)} before the dot")
        values[stage][name] = value
    return _convert(values, COMMAND_LINE)


def _convert(values: Mapping[str, dict], source: str | os.PathLike) -> dict[str, dict[str, Any]]:
    """Check the keys of a file or of flags, and convert their values to the types of the fields."""
    converted = {"": convert_values(values[""], RUN_TYPES | STAGE_TYPES, source)}
    for stage in STAGES:
        where = f"{source}: {stage}"
        for key in values[stage]:
            if key in RUN_TYPES:
                raise ConfigError(f"{where}: {key} belongs at the top level, as it applies to the whole run")
            if key in JOINT_KEYS and stage != "fuse":
                raise ConfigError(
                    f"{where}: {key} belongs at the top level or under fuse, as it applies to the stage fuse "
                    "only"
                )
        converted[stage] = convert_values(values[stage], STAGE_TYPES, where)
    return converted


def _make_stage(values: Mapping[str, Any], where: str) -> StageRecipe:
    stage_types = get_field_types(StageArguments)
    # transformers would report to every tracker that is installed, and would not notice that
    # `accelerate launch --cpu` asks for the CPU.
    defaults: dict[str, Any] = {"report_to": "none"}
    if os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes"):
        defaults["use_cpu"] = True
    for name in ("bf16", "fp16", "tf32"):
        if values.get(name) and not torch.cuda.is_available() and not values.get("use_cpu"):
            device = f"{where}: {name}: this machine has no GPU"
            if name != "bf16":
                raise ConfigError(f"{device}, expected {name}: false")
            raise ConfigError(f"{device}; set use_cpu: true to train in bfloat16 on the CPU, or bf16: false")
    training_values = {key: value for key, value in values.items() if key not in stage_types}
    return StageRecipe(
        make_arguments(StageArguments, {k: v for k, v in values.items() if k in stage_types}, where),
        make_arguments(Seq2SeqTrainingArguments, defaults | training_values, where),
    )


def _check_stage(name: str, recipe: StageRecipe, run: RunArguments) -> None:
    """Refuse values that would fail only while the stage trains, or after it."""
    check_minimum(1, recipe.training, "per_device_train_batch_size", "per_device_eval_batch_size")
    check_minimum(1, recipe.training, "gradient_accumulation_steps", "generation_num_beams")
    check_minimum(1, recipe.training, "eval_accumulation_steps")
    check_minimum(2, recipe.training, "generation_max_length")  # a start token and a token of the summary
    check_minimum(0, recipe.training, "dataloader_num_workers", "seed")
    _check_trainer_settings(recipe.training)
    stage = recipe.stage
    if stage.early_stopping_patience is not None and not recipe.training.load_best_model_at_end:
        raise ConfigError("early_stopping_patience: expected load_best_model_at_end beside it")
    _check_trained_weights(name, stage, run)
    config = make_adapter_config(stage)
    if make_quantization_config(stage) is not None and config is None:
        raise ConfigError("quantization: expected lora_r or peft beside it, as quantized weights are frozen")
    if run.share_base and name != "fuse" and (config is None or config.peft_type != "LORA"):
        raise ConfigError("lora_r: expected 1 or more, as share_base freezes the base")


def _check_trainer_settings(training: Seq2SeqTrainingArguments) -> None:
    """Refuse settings of transformers' trainer with which a run would fail or not end as it should."""
    for name, expected, reason in (
        ("batch_eval_metrics", False, "metrics such as the AUROC need all rows at once"),
        ("eval_do_concat_batches", True, "metrics such as the AUROC need all rows at once"),
        ("save_only_model", False, "a run that is killed resumes with the state of its optimizer"),
    ):
        if getattr(training, name) is not expected:
            raise ConfigError(f"{name}: expected {str(expected).lower()}, as {reason}")
    # transformers takes any negative number for "none", and trains nothing in 0 epochs.
    if training.max_steps < 1 and training.max_steps != -1:
        raise ConfigError(
            f"max_steps: expected 1 or more, or none for num_train_epochs, got {training.max_steps}"
        )
    if training.max_steps == -1 and not 0 < training.num_train_epochs < math.inf:
        raise ConfigError(f"num_train_epochs: expected a number above 0, got {training.num_train_epochs}")
    check_minimum(0, training, "learning_rate", "weight_decay", "adam_epsilon", "data_seed")
    check_minimum(0, training, "logging_steps", "eval_steps", "save_steps")
    for name in ("adam_beta1", "adam_beta2", "label_smoothing_factor"):
        if not 0 <= getattr(training, name) < 1:
            raise ConfigError(f"{name}: expected at least 0 and below 1, got {getattr(training, name)}")


def _check_trained_weights(name: str, stage: StageArguments, run: RunArguments) -> None:
    """Check the keys that train some of the weights only: `lora_r`, `peft` and `trainable`."""
    keys = [key for key in ("lora_r", "peft", "trainable") if getattr(stage, key)]
    if len(keys) > 1 and "trainable" in keys:
        raise ConfigError(f"trainable: expected none beside {keys[0]}, which freezes all but an adapter")
    from_scratch = {"summarize": run.summarizer_config, "answer": run.question_answerer_config}
    if keys and from_scratch.get(name) is not None:
        expected = 0 if keys[0] == "lora_r" else "none"
        raise ConfigError(
            f"{keys[0]}: expected {expected}, as a model from scratch has no trained weights to freeze"
        )
    if stage.trainable is not None:
        check_keys(stage.trainable, ["decoder_layers"], "trainable")
        layers = stage.trainable.get("decoder_layers")
        if type(layers) is not int or layers < 0:
            raise ConfigError(f"trainable.decoder_layers: expected an integer of 0 or more, got {layers!r}")
