"""Recipes: file and flags mean the same, the most specific value wins, a mistake is one clear sentence."""

import dataclasses
import inspect
import math
from pathlib import Path

import pytest
import torch
import yaml
from tiny_run import write_recipe
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from crosstask import CrossTaskConfig
from crosstask.training.arguments import MODEL_KEYS, RunArguments, read_recipe
from crosstask.utils.errors import ConfigError

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture(autouse=True)
def reset_deepspeed():
    """transformers keeps a DeepSpeed configuration in a global, even one that failed to load."""
    yield
    unset_hf_deepspeed_config()


SHAPE = {"model_type": "t5"}
BASE = {"data": "briefs", "summarizer_config": SHAPE, "question_answerer_config": SHAPE}
HUB = {"summarizer": "google/flan-t5-base", "question_answerer": "google/flan-t5-base"}
PRETRAINED = {**HUB, "summarizer_config": None, "question_answerer_config": None}


@pytest.fixture
def read(tmp_path):
    """Return a function that reads a recipe: `BASE` with some values changed, and flags."""

    def read(*flags, **values):
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump({**BASE, "output_dir": "runs/x", **values}), encoding="utf-8")
        return read_recipe(path, [str(flag) for flag in flags])

    return read


@pytest.fixture
def read_text(tmp_path):
    """Return a function that reads a recipe from the text of a file."""

    def read_text(text, *flags):
        path = tmp_path / "recipe.yaml"
        path.write_text(text, encoding="utf-8")
        return read_recipe(path, flags)

    return read_text


def get_value(recipe, name, stage="fuse"):
    """Return the value of a key, whichever dataclass it belongs to."""
    for part in (recipe.run, recipe.stages[stage].stage, recipe.stages[stage].training):
        if hasattr(part, name):
            return getattr(part, name)
    raise AssertionError(name)


# Key, value in the file, words on the command line, and the value that both mean.
SAME = {
    "text of a float": ("learning_rate", "1e-3", ["1e-3"], 1e-3),
    "float": ("learning_rate", 0.5, ["0.5"], 0.5),
    "negative float": ("max_grad_norm", -1.0, ["-1"], -1.0),
    "negative with exponent": ("max_grad_norm", -1e-05, ["-1e-5"], -1e-5),
    "negative integer": ("max_steps", -1, ["-1"], -1),
    "true": ("dataloader_drop_last", True, ["true"], True),
    "false": ("dataloader_pin_memory", False, ["false"], False),
    "false as no": ("dataloader_pin_memory", "no", ["no"], False),
    "a choice that YAML takes for false": ("eval_strategy", False, ["no"], "no"),
    "list": ("lora_target_modules", ["k", "wo"], ["k", "wo"], ["k", "wo"]),
    "list of one": ("lora_target_modules", "k", ["k"], ["k"]),
    "list in brackets": ("lora_target_modules", ["k", "wo"], ["[k, wo]"], ["k", "wo"]),
    "mapping": ("data_options", {"seed": 3}, ["{seed: 3}"], {"seed": 3}),
    "mapping of transformers": ("lr_scheduler_kwargs", {"a": 0.5}, ["{a: 0.5}"], {"a": 0.5}),
    "version": ("data_config_name", "3.0.0", ["3.0.0"], "3.0.0"),
    "null": ("fusion_dim", None, ["null"], None),
    "path with a space": ("data", "my data/a.jsonl", ["my data/a.jsonl"], "my data/a.jsonl"),
    "url": ("run_name", "a: b", ["a: b"], "a: b"),
    "equals signs": ("optim_args", "a=1,b=2", ["a=1,b=2"], "a=1,b=2"),
    "prompt": ("prompt", "q: {question} p:", ["q: {question} p:"], "q: {question} p:"),
    "prompt like a mapping": ("prompt", "{question}", ["{question}"], "{question}"),
    "prompt like a pair": ("prompt", "Q: {question}", ["Q: {question}"], "Q: {question}"),
    "prompt with a dash": ("prompt", "- {question}", ["- {question}"], "- {question}"),
    "prompt in Unicode": ("prompt", "¿{question}? …\n", ["¿{question}? …\n"], "¿{question}? …\n"),
}


@pytest.mark.parametrize(("name", "in_file", "words", "expected"), SAME.values(), ids=SAME)
def test_a_value_means_the_same_in_the_file_and_as_a_flag(read, name, in_file, words, expected):
    for recipe in (read(**{name: in_file}), read(f"--{name}", *words)):
        value = get_value(recipe, name)
        assert value == expected
        assert isinstance(value, type(expected))


def test_a_flag_may_have_hyphens_or_an_equals_sign_or_no_value(read):
    assert get_value(read("--learning-rate", "0.5"), "learning_rate") == 0.5
    assert get_value(read("--fuse.learning-rate=0.5"), "learning_rate") == 0.5
    assert get_value(read("--prompt=--{question}"), "prompt") == "--{question}"
    assert get_value(read("--dataloader_drop_last"), "dataloader_drop_last") is True


def test_a_flag_overrides_the_file_and_a_stage_overrides_the_top_level(read):
    def read_rates(*flags, **values):
        stages = read(*flags, **values).stages
        return [stages[name].training.learning_rate for name in ("summarize", "answer", "fuse")]

    assert read_rates(learning_rate=1.0) == [1, 1, 1]
    assert read_rates(learning_rate=1.0, fuse={"learning_rate": 2.0}) == [1, 1, 2]
    assert read_rates("--learning_rate", 3, learning_rate=1.0, fuse={"learning_rate": 2.0}) == [3, 3, 3]
    flags = ["--answer.learning_rate", 4, "--learning_rate", 3]
    assert read_rates(*flags, learning_rate=1.0, fuse={"learning_rate": 2.0}) == [3, 4, 3]
    assert read_rates("--learning_rate", 3, "--learning_rate", 5) == [5, 5, 5]


def test_null_in_a_stage_restores_the_default(read):
    recipe = read(max_steps=5, data_options={"seed": 1}, fuse={"max_steps": None, "data_options": None})
    assert get_value(recipe, "max_steps") == -1 and get_value(recipe, "data_options") is None
    assert get_value(recipe, "max_steps", "answer") == 5
    assert list(read(stages=None).stages) == ["summarize", "answer", "fuse"]
    assert get_value(read(fuse=None), "data") == "briefs"


def test_training_arguments_of_transformers_are_keys_and_reporting_is_off_by_default(read):
    recipe = read(
        gradient_accumulation_steps=4,
        lr_scheduler_type="cosine_with_restarts",
        lr_scheduler_kwargs={"num_cycles": 3},
        accelerator_config={"split_batches": True},
        label_names=["labels"],
        include_for_metrics=["loss"],
        use_cpu=True,
        bf16=True,
    )
    training = recipe.stages["summarize"].training
    assert training.gradient_accumulation_steps == 4 and training.bf16
    assert training.lr_scheduler_kwargs == {"num_cycles": 3}
    assert training.accelerator_config.split_batches
    assert training.label_names == ["labels"] and training.include_for_metrics == ["loss"]
    assert training.report_to == []
    assert get_value(read(report_to="tensorboard"), "report_to") == ["tensorboard"]
    assert get_value(read(report_to=["tensorboard", "wandb"]), "report_to") == ["tensorboard", "wandb"]
    assert get_value(read("--report_to", "tensorboard", "wandb"), "report_to") == ["tensorboard", "wandb"]
    assert get_value(read(torch_compile=True), "torch_compile") is True


def test_the_environment_variable_of_accelerate_selects_the_cpu(read, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert get_value(read(), "use_cpu") is True
    assert get_value(read(use_cpu=False), "use_cpu") is False


def test_the_record_has_the_values_that_were_set_in_their_types(read):
    recipe = read("--fuse.seed", 3, "--language", "en", answer={"max_steps": 7}, learning_rate="1e-3")
    assert recipe.values[""]["data"] == "briefs" and "seed" not in recipe.values[""]
    assert recipe.values["fuse"]["seed"] == 3 and recipe.values["answer"]["max_steps"] == 7
    assert recipe.values["answer"]["learning_rate"] == 1e-3 and recipe.values[""]["language"] == ["en"]
    assert recipe.output_dir == Path("runs/x")
    assert Path(recipe.stages["fuse"].training.output_dir) == Path("runs/x/checkpoints/fuse")


def test_stages_run_once_and_in_their_fixed_order(read):
    recipe = read(stages=["fuse", "answer", "fuse", "summarize"])
    assert recipe.run.stages == list(recipe.stages) == ["summarize", "answer", "fuse"]
    assert read("--stages", "fuse", **PRETRAINED).run.stages == ["fuse"]
    assert read("--stages", "fuse", "answer", **PRETRAINED).run.stages == ["answer", "fuse"]


def test_a_trained_model_has_one_stage(read):
    recipe = read(
        model="user/name", summarizer_config=None, question_answerer_config=None, prompt="{question}"
    )
    assert list(recipe.stages) == ["fuse"] and recipe.run.model == "user/name"


# Values of the file, and a pattern that the error message has to match.
WRONG = {
    "unknown key": ({"sumarizer": "x"}, "recipe.yaml: unknown key 'sumarizer'.*'summarizer'"),
    "unknown key in a stage": (
        {"fuse": {"learning_rat": 1}},
        "recipe.yaml: fuse: .*did you mean 'learning_rate'",
    ),
    "unlike any key": ({"zzzzqqqq": 1}, "unknown key 'zzzzqqqq'; see --help"),
    "hyphens": ({"learning-rate": 1}, "'learning-rate'; did you mean 'learning_rate'"),
    "key of the run in a stage": (
        {"fuse": {"prompt": "x"}},
        "fuse: prompt belongs at the top level, as it applies to the whole run",
    ),
    "folder of the run in a stage": (
        {"fuse": {"output_dir": "x"}},
        "fuse: output_dir belongs at the top level, as it applies to the whole run",
    ),
    "stage is no mapping": ({"fuse": 0}, "recipe.yaml: fuse: expected a mapping.*int"),
    "no output_dir": ({"output_dir": None}, "recipe.yaml: output_dir: expected a value"),
    "list as output_dir": ({"output_dir": ["a"]}, r"output_dir: expected a string, got \['a'\]"),
    "empty output_dir": ({"output_dir": ""}, "output_dir: expected the folder of the run"),
    "no data": ({"data": None}, "summarize: data: expected the source of the rows"),
    "no data for a stage": ({"data": None, "summarize": {"data": "briefs"}}, "answer: data: expected"),
    "rate": ({"learning_rate": "abc"}, "recipe.yaml: learning_rate: expected a number, got 'abc'"),
    "seed": ({"seed": "x"}, "seed: expected an integer, got 'x'"),
    "float as integer": ({"max_steps": 1.5}, "max_steps: expected an integer, got 1.5"),
    "no step": ({"max_steps": 0}, "max_steps: expected 1 or more, or none for num_train_epochs, got 0"),
    "negative steps": (
        {"max_steps": -5},
        "max_steps: expected 1 or more, or none for num_train_epochs, got -5",
    ),
    "no epoch": (
        {"max_steps": -1, "num_train_epochs": 0},
        "num_train_epochs: expected a number above 0, got 0",
    ),
    "negative rate": ({"learning_rate": -1}, "learning_rate: expected 0 or more, got -1"),
    "rate that is no number": (
        {"learning_rate": "nan"},
        "learning_rate: expected a finite number of 0 or more",
    ),
    "negative decay": ({"weight_decay": -0.1}, "weight_decay: expected 0 or more, got -0.1"),
    "negative epsilon": ({"adam_epsilon": -1e-8}, "adam_epsilon: expected 0 or more, got -1e-08"),
    "evaluation in no part": (
        {"eval_accumulation_steps": 0},
        "eval_accumulation_steps: expected 1 or more, got 0",
    ),
    "beta": ({"adam_beta1": 1.5}, "adam_beta1: expected at least 0 and below 1, got 1.5"),
    "logging at negative steps": ({"logging_steps": -1}, "logging_steps: expected 0 or more, got -1"),
    "saving at negative steps": ({"save_steps": -1}, "save_steps: expected 0 or more, got -1"),
    "rank": ({"lora_rank": 8}, "unknown key 'lora_rank'; did you mean 'lora_r'"),
    "rank of a stage": ({"fuse": {"lora_rank": 8}}, "fuse: unknown key 'lora_rank'; did you mean 'lora_r'"),
    "bool": ({"bf16": "maybe"}, "bf16: expected true or false, got 'maybe'"),
    "list for a number": ({"learning_rate": [1, 2]}, r"learning_rate: expected a number, got \[1, 2\]"),
    "mapping for a number": ({"learning_rate": {"a": 1}}, "learning_rate: expected a number, got {'a': 1}"),
    "choice": ({"eval_strategy": "sometimes"}, "eval_strategy: expected one of no, .*, got 'sometimes'"),
    "transformers' own check": ({"load_best_model_at_end": True}, "load_best_model_at_end requires"),
    "missing package or file": ({"deepspeed": "/nowhere.json"}, "deepspeed|nowhere"),
    "text for a mapping": (
        {"data_columns": "article"},
        "data_columns: expected a mapping of keys to values, got 'article'",
    ),
    "mapping in a stage": (
        {"fuse": {"peft": "lora"}},
        "recipe.yaml: fuse: peft: expected a mapping of keys to values, got 'lora'",
    ),
    "list for a mapping": (
        {"summarizer_config": ["t5"]},
        r"summarizer_config: expected a mapping of keys to values, got \['t5'\]",
    ),
    "text for a shape": ({"summarizer_config": "t5"}, "summarizer_config: expected a mapping"),
    "mapping for text": ({"data": {"a": 1}}, "data: expected a string or a list of strings, got {'a': 1}"),
    "model and shape": ({"summarizer": "x"}, "exactly one of summarizer and summarizer_config"),
    "neither": ({"question_answerer_config": None}, "one of question_answerer and question_answerer_config"),
    "unknown stage": ({"stages": ["judge", "fuse"]}, "stages: expected fuse, and optionally summarize"),
    "no fuse": ({"stages": ["summarize"]}, "stages: expected fuse, and"),
    "no stages": ({"stages": []}, "stages: expected fuse, and"),
    "untrained answerer": (
        {"stages": ["summarize", "fuse"]},
        "stages: expected 'answer' among them, as question_answerer_config",
    ),
    "untrained summarizer": (
        {"stages": ["answer", "fuse"]},
        "stages: expected 'summarize' among them, as summarizer_config",
    ),
    "fusion": ({"fusion": "gate"}, "fusion.*classifier.*'gate'"),
    "summary_loss_on": ({"summary_loss_on": "none"}, "summary_loss_on.*answerable.*'none'"),
    "weight": ({"answerability_weight": -1}, "answerability_weight.*0 or more"),
    "weight that is no number": (
        {"answerability_weight": math.nan},
        "answerability_weight: expected a finite number of 0 or more, got nan",
    ),
    "contrastive weight": ({"contrastive_weight": -0.1}, "contrastive_weight: expected 0 or more, got -0.1"),
    "contrastive weight that is no number": (
        {"fuse": {"contrastive_weight": math.nan}},
        "fuse: contrastive_weight: expected a finite number of 0 or more, got nan",
    ),
    "contrastive weight without end": (
        {"contrastive_weight": math.inf},
        "finite number of 0 or more, got inf",
    ),
    "fusion's rate": ({"fusion_learning_rate": -1}, "fusion_learning_rate: expected 0 or more, got -1.0"),
    "fusion's rate that is no number": (
        {"fuse": {"fusion_learning_rate": math.nan}},
        "fusion_learning_rate: expected a finite number of 0 or more, got nan",
    ),
    "contrastive weight elsewhere": (
        {"summarize": {"contrastive_weight": 0.3}},
        "summarize: contrastive_weight belongs at the top level or under fuse, as it applies to",
    ),
    "fusion's rate elsewhere": (
        {"answer": {"fusion_learning_rate": 1e-3}},
        "recipe.yaml: answer: fusion_learning_rate belongs at the top level or under fuse",
    ),
    "dropout": ({"fusion_dropout": 1.0}, "fusion_dropout.*below 1"),
    "heads": ({"fusion_num_heads": 0}, "fusion_num_heads: expected 1 or more, got 0"),
    "heads and width": ({"fusion_num_heads": 3, "fusion_dim": 8}, "fusion_num_heads.*divide"),
    "length": ({"max_source_length": -3}, "max_source_length: expected 1 or more"),
    "vocabulary": ({"vocab_size": 0}, "vocab_size: expected 1 or more"),
    "prompt without a question": ({"prompt": "hello"}, "prompt.*{question}.*'hello'"),
    "prompt with another field": (
        {"prompt": "{question} {passage}"},
        "prompt: .*no braces other than {question}",
    ),
    "prompt with half a field": ({"prompt": "{question} {"}, "prompt: .*no braces other than {question}"),
    "LoRA's rank": ({"lora_r": -1}, "lora_r: expected 0 or more"),
    "LoRA's dropout": ({"lora_dropout": 1.5}, "lora_dropout: expected at least 0 and below 1"),
    "LoRA of nothing": ({"lora_r": 2}, "summarize: lora_r: expected 0, as a model from scratch"),
    "batch": ({"per_device_train_batch_size": 0}, "per_device_train_batch_size: expected 1 or more"),
    "workers": ({"dataloader_num_workers": -1}, "dataloader_num_workers: expected 0 or more"),
    "patience": ({"early_stopping_patience": 2}, "early_stopping_patience: expected load_best_model_at_end"),
    "model and shapes": ({"model": "user/name"}, "summarizer_config: expected either model or its parts"),
    "model and stages": ({"model": "user/name", "stages": ["answer", "fuse"]}, r"stages: expected \[fuse\]"),
    "model and heads": (
        {"model": "user/name", "fusion_num_heads": 2},
        "fusion_num_heads: expected none beside",
    ),
    "token": ({"hub_token": "hf_secret"}, "hub_token: a recipe holds no tokens"),
}


@pytest.mark.parametrize(("values", "words"), WRONG.values(), ids=WRONG)
def test_a_mistake_is_one_sentence_that_names_file_and_key(read, values, words):
    with pytest.raises(ConfigError, match=words) as error:
        read(**values)
    assert "\n" not in str(error.value) and "recipe.yaml" in str(error.value)
    assert "secret" not in str(error.value)


WRONG_FLAGS = {
    "unknown": (
        ["--learning_rat", "1"],
        "command line: unknown key 'learning_rat'; did you mean 'learning_rate'",
    ),
    "unknown in a stage": (["--fuse.learning_rat", "1"], "command line: fuse: unknown key"),
    "unknown stage": (
        ["--fus.seed", "1"],
        "--fus.seed: expected one of summarize, answer, fuse before the dot",
    ),
    "two dots": (["--fuse.a.seed", "1"], "--fuse.a.seed: expected one of"),
    "of the joint stage in another": (
        ["--summarize.contrastive_weight", "0.3"],
        "command line: summarize: contrastive_weight belongs at the top level or under fuse",
    ),
    "no number": (["--answerability_weight", ".nan"], "answerability_weight: expected a finite number"),
    "no key": (["seed", "1"], "expected --key before 'seed'"),
    "one dash": (["-s", "1"], "expected --key before '-s'"),
    "nothing but dashes": (["--"], "unknown key ''"),
    "no value": (["--seed"], "--seed: expected a value after it"),
    "two values": (["--seed", "1", "2"], r"seed: expected an integer, got \[1, 2\]"),
    "not YAML": (["--data_columns", "{passage: "], "data_columns: expected a mapping"),
    "of the run in a stage": (
        ["--fuse.stages", "fuse"],
        "command line: fuse: stages belongs at the top level, as it applies to the whole run",
    ),
    "token": (["--hub_token", "hf_secret"], "hub_token: a recipe holds no tokens"),
}


@pytest.mark.parametrize(("flags", "words"), WRONG_FLAGS.values(), ids=WRONG_FLAGS)
def test_a_mistake_in_a_flag_is_one_sentence(read, flags, words):
    with pytest.raises(ConfigError, match=words) as error:
        read(*flags)
    assert "\n" not in str(error.value) and "secret" not in str(error.value)


MALFORMED = {
    "brackets": ("data: a\nseed: [1, 2\nfuse: b\n", "recipe.yaml, line 3: not valid YAML"),
    "tab": ("data: b\n\tseed: 1\n", "recipe.yaml, line 2: not valid YAML"),
    "tag": ("data: !!python/object/apply:os.getcwd []\n", "recipe.yaml, line 1: not valid YAML"),
    "control character": ("\x00data: 1", "recipe.yaml: not valid YAML"),
    "a key that is no text": ("data: briefs\n1: 2\n", "recipe.yaml: unknown key 1;"),
    "list": ("- a\n- b\n", "recipe.yaml: expected a mapping of keys to values, got list"),
    "text": ("hello", "recipe.yaml: expected a mapping of keys to values, got str"),
    "false": ("false", "recipe.yaml: expected a mapping of keys to values, got bool"),
    "empty": ("# nothing\n", "recipe.yaml: output_dir: expected a value"),
}


@pytest.mark.parametrize(("text", "words"), MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_file_is_named_with_its_line(read_text, text, words):
    with pytest.raises(ConfigError, match=words) as error:
        read_text(text)
    assert "\n" not in str(error.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ConfigError, match="missing.yaml: cannot be read .*No such file"):
        read_recipe(tmp_path / "missing.yaml")
    with pytest.raises(ConfigError, match="cannot be read .*directory"):
        read_recipe(tmp_path)
    (tmp_path / "latin.yaml").write_bytes("prompt: é".encode("latin-1"))
    with pytest.raises(ConfigError, match="latin.yaml: cannot be read .*not UTF-8"):
        read_recipe(tmp_path / "latin.yaml")


def test_lora_of_the_joint_stage_alone_may_start_from_scratch(read):
    assert get_value(read(fuse={"lora_r": 2}), "lora_r") == 2
    assert get_value(read(lora_r=2, **PRETRAINED), "lora_r", "summarize") == 2


@pytest.mark.parametrize(("name", "value"), [("contrastive_weight", 0.3), ("fusion_learning_rate", 0.01)])
def test_keys_of_the_joint_stage_may_stand_at_the_top_level(read, name, value):
    for recipe in (read(**{name: value}), read(fuse={name: value}), read(f"--{name}", value)):
        assert get_value(recipe, name) == value
    assert get_value(read(f"--fuse.{name}", value), name) == value


def read_config(path):
    """Read a recipe of `configs`; transformers refuses bf16 on a machine that does not support it."""
    return read_recipe(path, [] if torch.cuda.is_available() else ["--bf16", "false"])


# Recipes of data sets and evaluations belong to other commands.
TRAINING = [path for path in sorted(CONFIGS.glob("*.yaml")) if not path.stem.startswith(("build_", "eval_"))]


@pytest.mark.parametrize("path", TRAINING, ids=lambda path: path.stem)
def test_every_training_recipe_in_configs_is_valid(path):
    recipe = read_config(path)
    stages = ["summarize", "answer", "fuse"] if recipe.run.model is None else ["fuse"]
    assert list(recipe.stages) == stages
    assert recipe.output_dir == Path("runs", path.stem)


def test_the_recipe_of_the_paper_has_the_numbers_of_the_paper():
    recipe = read_config(CONFIGS / "paper.yaml")
    run, stages = recipe.run, recipe.stages
    assert [stages[name].training.num_train_epochs for name in ("summarize", "answer", "fuse")] == [5, 10, 10]
    assert run.summarizer == run.question_answerer == "google/flan-t5-large"
    assert run.fusion == "classifier" and run.answerability_weight == 1.0
    assert run.summary_loss_on == "all" and run.max_source_length == 1024
    assert stages["summarize"].stage.data == "abisee/cnn_dailymail"
    assert stages["summarize"].stage.data_config_name == "3.0.0"
    assert stages["answer"].stage.data == "rajpurkar/squad_v2"
    for stage in stages.values():
        training, lora = stage.training, stage.stage
        assert training.learning_rate == 1e-4 and training.per_device_train_batch_size == 8
        assert training.gradient_accumulation_steps == 1 and training.max_steps == -1
        assert (training.adam_beta1, training.adam_beta2, training.weight_decay) == (0.9, 0.999, 0)
        assert (lora.lora_r, lora.lora_alpha, lora.lora_dropout) == (16, 32, 0.05)
        assert lora.lora_target_modules == ["q", "v"]
    assert yaml.safe_load((CONFIGS / "paper.yaml").read_text(encoding="utf-8"))["bf16"] is True


def test_defaults_equal_those_of_the_configuration():
    parameters = inspect.signature(CrossTaskConfig).parameters
    fields = {field.name: field.default for field in dataclasses.fields(RunArguments)}
    for key in set(MODEL_KEYS) - {"fusion_likelihood"}:
        assert fields[key] == parameters[key].default, key
    # Checkpoints from before this key have no weights for it; new models, as of `from_tasks`, have.
    assert fields["fusion_likelihood"] and not parameters["fusion_likelihood"].default


@pytest.mark.parametrize("language", ["[no]", "no", "[nb, no]"])
def test_no_is_norwegian(read, tmp_path, language):
    read()
    path = tmp_path / "recipe.yaml"
    text = path.read_text(encoding="utf-8")
    path.write_text(f"{text}\nlanguage: {language}\ndata_columns: {{passage: no}}\n", encoding="utf-8")
    recipe = read_recipe(path)
    assert recipe.run.language == (["nb", "no"] if "nb" in language else ["no"])
    assert recipe.stages["fuse"].stage.data_columns == {"passage": "no"}
    assert read("--language", "no").run.language == ["no"]


def test_paths_begin_at_home(read, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    recipe = read("--output_dir=~/run", **PRETRAINED | {"summarizer": "~/a", "data": "~/rows.csv"})
    assert recipe.output_dir == tmp_path / "run"
    assert recipe.run.summarizer == f"{tmp_path}/a"
    assert recipe.stages["fuse"].stage.data == f"{tmp_path}/rows.csv"
    assert Path(recipe.stages["fuse"].training.output_dir) == tmp_path / "run" / "checkpoints" / "fuse"


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("seed", -1, "seed: expected 0 or more, got -1"),
        ("data_seed", -1, "data_seed: expected 0 or more, got -1"),
        ("eval_do_concat_batches", False, "eval_do_concat_batches: expected true, as metrics"),
        ("batch_eval_metrics", True, "batch_eval_metrics: expected false, as metrics"),
        ("save_only_model", True, "save_only_model: expected false, as a run that is killed resumes"),
    ],
)
def test_settings_with_which_a_run_would_fail_are_refused(tmp_path, key, value, expected):
    with pytest.raises(ConfigError, match=expected):
        read_recipe(write_recipe(tmp_path, **{key: value}))


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU has these")
@pytest.mark.parametrize(
    "name, remedy", [("bf16", "use_cpu: true"), ("fp16", "fp16: false"), ("tf32", "tf32: false")]
)
def test_a_precision_that_the_machine_lacks_names_its_key(read, name, remedy):
    with pytest.raises(ConfigError, match=f"{name}: this machine has no GPU.*{remedy}"):
        read(**{name: True})
