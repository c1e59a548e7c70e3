"""Recipes: file and flags mean the same, the most particular value wins, a mistake is one clear sentence."""

import math
from pathlib import Path

import pytest
import torch
import yaml
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from crosstask.training.arguments import read_recipe
from crosstask.utils.errors import ConfigError

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture(autouse=True)
def no_deepspeed_stays():
    """transformers remembers a DeepSpeed configuration, even a half-read one, until it is collected."""
    yield
    unset_hf_deepspeed_config()


SHAPE = {"model_type": "t5"}
BASE = {"data": "briefs", "summarizer_config": SHAPE, "question_answerer_config": SHAPE}
HUB = {"summarizer": "google/flan-t5-base", "question_answerer": "google/flan-t5-base"}
PRETRAINED = {**HUB, "summarizer_config": None, "question_answerer_config": None}


@pytest.fixture
def read(tmp_path):
    """Read a recipe of `BASE` with some values changed, and flags."""

    def read(*flags, **values):
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump({**BASE, "output_dir": "runs/x", **values}), encoding="utf-8")
        return read_recipe(path, [str(flag) for flag in flags])

    return read


@pytest.fixture
def read_text(tmp_path):
    def read_text(text, *flags):
        path = tmp_path / "recipe.yaml"
        path.write_text(text, encoding="utf-8")
        return read_recipe(path, flags)

    return read_text


def value_of(recipe, name, stage="fuse"):
    for part in (recipe.run, recipe.stages[stage].stage, recipe.stages[stage].training):
        if hasattr(part, name):
            return getattr(part, name)
    raise AssertionError(name)


# The same value in the file and as words of the command line.
SAME = {
    "text of a float": ("learning_rate", "1e-3", ["1e-3"], 1e-3),
    "float": ("learning_rate", 0.5, ["0.5"], 0.5),
    "negative float": ("weight_decay", -1.0, ["-1"], -1.0),
    "negative with exponent": ("weight_decay", -1e-05, ["-1e-5"], -1e-5),
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
        value = value_of(recipe, name)
        assert value == expected
        assert isinstance(value, type(expected))


def test_flags_may_have_hyphens_and_equals_signs_and_no_value(read):
    assert value_of(read("--learning-rate", "0.5"), "learning_rate") == 0.5
    assert value_of(read("--fuse.learning-rate=0.5"), "learning_rate") == 0.5
    assert value_of(read("--prompt=--{question}"), "prompt") == "--{question}"
    assert value_of(read("--dataloader_drop_last"), "dataloader_drop_last") is True


def test_flag_over_file_and_stage_over_all(read):
    def rates(*flags, **values):
        stages = read(*flags, **values).stages
        return [stages[name].training.learning_rate for name in ("summarize", "answer", "fuse")]

    assert rates(learning_rate=1.0) == [1, 1, 1]
    assert rates(learning_rate=1.0, fuse={"learning_rate": 2.0}) == [1, 1, 2]
    assert rates("--learning_rate", 3, learning_rate=1.0, fuse={"learning_rate": 2.0}) == [3, 3, 3]
    flags = ["--answer.learning_rate", 4, "--learning_rate", 3]
    assert rates(*flags, learning_rate=1.0, fuse={"learning_rate": 2.0}) == [3, 4, 3]
    assert rates("--learning_rate", 3, "--learning_rate", 5) == [5, 5, 5]


def test_null_in_a_stage_is_the_default_again(read):
    recipe = read(max_steps=5, data_options={"seed": 1}, fuse={"max_steps": None, "data_options": None})
    assert value_of(recipe, "max_steps") == -1 and value_of(recipe, "data_options") is None
    assert value_of(recipe, "max_steps", "answer") == 5
    assert list(read(stages=None).stages) == ["summarize", "answer", "fuse"]
    assert value_of(read(fuse=None), "data") == "briefs"


def test_arguments_of_transformers_keep_their_names_and_reporting_is_off(read):
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
    assert value_of(read(report_to="tensorboard"), "report_to") == ["tensorboard"]
    assert value_of(read(report_to=["tensorboard", "wandb"]), "report_to") == ["tensorboard", "wandb"]
    assert value_of(read("--report_to", "tensorboard", "wandb"), "report_to") == ["tensorboard", "wandb"]
    assert value_of(read(torch_compile=True), "torch_compile") is True


def test_accelerates_switch_to_the_cpu_is_followed(read, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert value_of(read(), "use_cpu") is True
    assert value_of(read(use_cpu=False), "use_cpu") is False


def test_what_was_said_is_kept_for_the_record(read):
    recipe = read("--fuse.seed", 3, answer={"max_steps": 7})
    assert recipe.values[""]["data"] == "briefs" and "seed" not in recipe.values[""]
    assert recipe.values["fuse"]["seed"] == 3 and recipe.values["answer"]["max_steps"] == 7
    assert recipe.output_dir == Path("runs/x")
    assert Path(value_of(recipe, "output_dir")) == Path("runs/x/checkpoints/fuse")


def test_stages_run_in_their_order_and_once(read):
    recipe = read(stages=["fuse", "answer", "fuse", "summarize"])
    assert recipe.run.stages == list(recipe.stages) == ["summarize", "answer", "fuse"]
    assert read("--stages", "fuse", **PRETRAINED).run.stages == ["fuse"]
    assert read("--stages", "fuse", "answer", **PRETRAINED).run.stages == ["answer", "fuse"]


def test_a_whole_model_has_one_stage(read):
    recipe = read(
        model="user/name", summarizer_config=None, question_answerer_config=None, prompt="{question}"
    )
    assert list(recipe.stages) == ["fuse"] and recipe.run.model == "user/name"


# What is wrong, and the words that the sentence has to have.
WRONG = {
    "unknown key": ({"sumarizer": "x"}, "recipe.yaml: unknown key 'sumarizer'.*'summarizer'"),
    "unknown key in a stage": (
        {"fuse": {"learning_rat": 1}},
        "recipe.yaml: fuse: .*did you mean 'learning_rate'",
    ),
    "unlike any key": ({"zzzzqqqq": 1}, "unknown key 'zzzzqqqq'; see the README"),
    "hyphens": ({"learning-rate": 1}, "'learning-rate'; did you mean 'learning_rate'"),
    "key of the run in a stage": ({"fuse": {"prompt": "x"}}, "fuse: prompt holds for the whole run"),
    "folder of the run in a stage": (
        {"fuse": {"output_dir": "x"}},
        "fuse: output_dir holds for the whole run",
    ),
    "stage is no mapping": ({"fuse": 0}, "recipe.yaml: fuse: expected a mapping.*int"),
    "no output_dir": ({"output_dir": None}, "output_dir: expected the folder"),
    "list as output_dir": ({"output_dir": ["a"]}, "output_dir: expected the folder"),
    "no data": ({"data": None}, "summarize: data: expected where the rows come from"),
    "no data for a stage": ({"data": None, "summarize": {"data": "briefs"}}, "answer: data: expected"),
    "rate": ({"learning_rate": "abc"}, "learning_rate: invalid float value: 'abc'"),
    "seed": ({"seed": "x"}, "seed: invalid int value: 'x'"),
    "float as integer": ({"max_steps": 1.5}, "max_steps: invalid int value: '1.5'"),
    "bool": ({"bf16": "maybe"}, "bf16: .*maybe"),
    "list for one": ({"learning_rate": [1, 2]}, r"learning_rate: expected one value, got \[1, 2\]"),
    "mapping for a number": ({"learning_rate": {"a": 1}}, "learning_rate: invalid float"),
    "choice": ({"eval_strategy": "sometimes"}, "eval_strategy: invalid choice: 'sometimes'"),
    "transformers' own check": ({"load_best_model_at_end": True}, "load_best_model_at_end requires"),
    "missing package or file": ({"deepspeed": "/nowhere.json"}, "deepspeed|nowhere"),
    "text for a mapping": ({"data_columns": "article"}, "data_columns: expected a mapping"),
    "list for a mapping": ({"summarizer_config": ["t5"]}, "summarizer_config: expected one value"),
    "text for a shape": ({"summarizer_config": "t5"}, "summarizer_config: expected a mapping"),
    "model and shape": ({"summarizer": "x"}, "exactly one of summarizer and summarizer_config"),
    "neither": ({"question_answerer_config": None}, "one of question_answerer and question_answerer_config"),
    "unknown stage": ({"stages": ["judge", "fuse"]}, "stages: expected some of summarize, answer, fuse"),
    "no fuse": ({"stages": ["summarize"]}, "stages: .* with fuse"),
    "no stages": ({"stages": []}, "stages: .* with fuse"),
    "untrained answerer": ({"stages": ["summarize", "fuse"]}, "question_answerer_config .*needs 'answer'"),
    "untrained summarizer": ({"stages": ["answer", "fuse"]}, "summarizer_config .*needs 'summarize'"),
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
        "recipe.yaml: summarize: contrastive_weight is of the joint stage, expected at the top or under fuse",
    ),
    "fusion's rate elsewhere": (
        {"answer": {"fusion_learning_rate": 1e-3}},
        "recipe.yaml: answer: fusion_learning_rate is of the joint stage",
    ),
    "dropout": ({"fusion_dropout": 1.0}, "fusion_dropout.*below 1"),
    "heads": ({"fusion_num_heads": 0}, "fusion_num_heads: expected 1 or more, got 0"),
    "heads and width": ({"fusion_num_heads": 3, "fusion_dim": 8}, "fusion_num_heads.*divide"),
    "length": ({"max_source_length": -3}, "max_source_length: expected 1 or more"),
    "vocabulary": ({"vocab_size": 0}, "vocab_size: expected 1 or more"),
    "prompt without a question": ({"prompt": "hello"}, "prompt.*{question}.*'hello'"),
    "prompt with another field": ({"prompt": "{question} {passage}"}, "prompt: .*no braces but {question}"),
    "prompt with half a field": ({"prompt": "{question} {"}, "prompt: .*no braces but {question}"),
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
    with pytest.raises(ConfigError, match=words) as caught:
        read(**values)
    assert "\n" not in str(caught.value) and "recipe.yaml" in str(caught.value)
    assert "secret" not in str(caught.value)


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
        "command line: summarize: contrastive_weight is of the joint stage",
    ),
    "no number": (["--answerability_weight", ".nan"], "answerability_weight: expected a finite number"),
    "no key": (["seed", "1"], "expected --key before 'seed'"),
    "one dash": (["-s", "1"], "expected --key before '-s'"),
    "nothing but dashes": (["--"], "unknown key ''"),
    "no value": (["--seed"], "seed: invalid int value"),
    "two values": (["--seed", "1", "2"], r"seed: expected one value, got \[1, 2\]"),
    "not YAML": (["--data_columns", "{passage: "], "data_columns: expected a mapping"),
    "of the run in a stage": (
        ["--fuse.stages", "fuse"],
        "command line: fuse: stages holds for the whole run",
    ),
    "token": (["--hub_token", "hf_secret"], "hub_token: a recipe holds no tokens"),
}


@pytest.mark.parametrize(("flags", "words"), WRONG_FLAGS.values(), ids=WRONG_FLAGS)
def test_a_mistake_in_a_flag_is_one_sentence(read, flags, words):
    with pytest.raises(ConfigError, match=words) as caught:
        read(*flags)
    assert "\n" not in str(caught.value) and "secret" not in str(caught.value)


MALFORMED = {
    "brackets": ("data: a\nseed: [1, 2\nfuse: b\n", "recipe.yaml, line 3: not valid YAML"),
    "tab": ("data: b\n\tseed: 1\n", "recipe.yaml, line 2: not valid YAML"),
    "tag": ("data: !!python/object/apply:os.getcwd []\n", "recipe.yaml, line 1: not valid YAML"),
    "control character": ("\x00data: 1", "recipe.yaml: not valid YAML"),
    "a key that is no text": ("data: briefs\n1: 2\n", "recipe.yaml: unknown key 1;"),
    "list": ("- a\n- b\n", "recipe.yaml: expected a mapping of keys to values, got list"),
    "text": ("hello", "recipe.yaml: expected a mapping of keys to values, got str"),
    "false": ("false", "recipe.yaml: expected a mapping of keys to values, got bool"),
    "empty": ("# nothing\n", "recipe.yaml: output_dir: expected the folder of the run"),
}


@pytest.mark.parametrize(("text", "words"), MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_file_is_named_with_its_line(read_text, text, words):
    with pytest.raises(ConfigError, match=words) as caught:
        read_text(text)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ConfigError, match="missing.yaml: cannot be read .*No such file"):
        read_recipe(tmp_path / "missing.yaml")
    with pytest.raises(ConfigError, match="cannot be read .*directory"):
        read_recipe(tmp_path)
    (tmp_path / "latin.yaml").write_bytes("prompt: é".encode("latin-1"))
    with pytest.raises(ConfigError, match="latin.yaml: cannot be read .*not UTF-8"):
        read_recipe(tmp_path / "latin.yaml")


def test_lora_of_the_joint_stage_alone_may_start_from_scratch(read):
    assert value_of(read(fuse={"lora_r": 2}), "lora_r") == 2
    assert value_of(read(lora_r=2, **PRETRAINED), "lora_r", "summarize") == 2


@pytest.mark.parametrize(("name", "value"), [("contrastive_weight", 0.3), ("fusion_learning_rate", 0.01)])
def test_what_the_joint_stage_reads_may_stand_at_the_top(read, name, value):
    for recipe in (read(**{name: value}), read(fuse={name: value}), read(f"--{name}", value)):
        assert value_of(recipe, name) == value
    assert value_of(read(f"--fuse.{name}", value), name) == value


def on_any_machine(path):
    """A recipe of the library; transformers refuses bf16 where nothing computes in it."""
    return read_recipe(path, [] if torch.cuda.is_available() else ["--bf16", "false"])


# The recipes of data sets and evaluations are other commands'.
TRAINING = [path for path in sorted(CONFIGS.glob("*.yaml")) if not path.stem.startswith(("build_", "eval_"))]


@pytest.mark.parametrize("path", TRAINING, ids=lambda path: path.stem)
def test_every_recipe_of_the_library_parses(path):
    recipe = on_any_machine(path)
    whole = recipe.run.model is not None
    assert list(recipe.stages) == (["fuse"] if whole else ["summarize", "answer", "fuse"])
    assert recipe.output_dir == Path("runs", path.stem)


def test_the_papers_recipe_has_the_papers_numbers():
    recipe = on_any_machine(CONFIGS / "paper.yaml")
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
