"""A user's mistake ends the training with one sentence that names it, and leaves nothing half finished."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_run
import torch
import yaml
from safetensors.torch import load_file
from tiny_run import TINY_T5
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertModel,
    Seq2SeqTrainingArguments,
    T5Config,
    T5ForConditionalGeneration,
)

from crosstask import train
from crosstask.data.briefs import generate
from crosstask.data.tokenizer import train_tokenizer
from crosstask.training import stages
from crosstask.training.loading import find_last_checkpoint

RECIPE = tiny_run.RECIPE | {"save_steps": 1, "generation_max_length": 8, "use_cpu": True}
# One row per passage, with what all stages need.
ROWS = {row["passage"]: row for row in generate("fuse", passages=12) if row["answerable"]}
ROWS = [row | {"id": f"r{number}"} for number, row in enumerate(ROWS.values())]


@pytest.fixture
def start(tmp_path):
    """Return a function that runs `RECIPE` with some values changed, in `tmp_path / "run"`."""

    def start(*flags, **values):
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump({**RECIPE, "output_dir": str(tmp_path / "run"), **values}))
        train.main([str(path), *map(str, flags)])

    return start


@pytest.fixture
def get_error(start):
    """Return a function that starts a failing run and returns its one-sentence error."""

    def get_error(*flags, **values):
        with pytest.raises(SystemExit) as error:
            start(*flags, **values)
        sentence = error.value.code
        assert isinstance(sentence, str) and sentence.startswith("crosstask-train: error: ")
        assert "\n" not in sentence and "Traceback" not in sentence and len(sentence) < 600
        return sentence

    return get_error


@pytest.fixture
def write_rows(tmp_path):
    """Return a function that writes `ROWS`, one of them changed, and returns the keys that read them."""

    def write_rows(index=None, drop=(), **changes):
        rows = [dict(row) for row in ROWS]
        if index is not None:
            rows[index] = {k: v for k, v in {**rows[index], **changes}.items() if k not in drop}
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return {"data": str(path), "data_options": None}

    return write_rows


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Return a folder with the checkpoints of a tiny T5 and a tiny BERT, with and without a tokenizer."""
    folder = tmp_path_factory.mktemp("parts")
    tokenizer = train_tokenizer((row["passage"] for row in ROWS), 300)
    shape = {name: value for name, value in TINY_T5.items() if name != "model_type"}
    t5 = T5ForConditionalGeneration(T5Config(vocab_size=300, decoder_start_token_id=0, **shape))
    bert = BertModel(
        BertConfig(
            vocab_size=400,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=4,
            intermediate_size=32,
        )
    )
    for name, model in (("t5", t5), ("bert", bert)):
        model.save_pretrained(folder / f"{name}_without_tokenizer")
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return folder


def summarizer(folder):
    return {"summarizer": str(folder), "summarizer_config": None}


def answerer(folder):
    return {"question_answerer": str(folder), "question_answerer_config": None}


# The recipe


def test_an_unknown_key_is_named_with_the_closest_known_key(get_error):
    assert "recipe.yaml: unknown key 'fusion_head'; did you mean 'fusion" in get_error(fusion_head=1)
    assert "unknown key 'lerning_rate'; did you mean 'learning_rate'" in get_error("--lerning_rate", 1)


def test_reentrant_checkpointing_of_contrasts_is_refused_before_the_first_stage(
    get_error, tmp_path, monkeypatch
):
    monkeypatch.setattr(Seq2SeqTrainingArguments, "world_size", 2)
    settings = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": True}}
    sentence = get_error(contrastive_weight=0.3, **settings)
    assert "fuse: gradient_checkpointing_kwargs: expected use_reentrant to be False beside contra" in sentence
    assert not (tmp_path / "run" / "summarizer").exists()


def test_a_recipe_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(SystemExit, match="missing.yaml: cannot be read .*No such file"):
        train.main([str(tmp_path / "missing.yaml")])
    with pytest.raises(SystemExit, match="cannot be read .*directory"):
        train.main([str(tmp_path)])
    (tmp_path / "broken.yaml").write_text("data: [1,\nb: }")
    with pytest.raises(SystemExit, match="broken.yaml, line 2: not valid YAML"):
        train.main([str(tmp_path / "broken.yaml")])


def test_negative_numbers_reach_the_recipe_from_the_command_line(get_error):
    flags = ["--weight_decay", "-1e-3", "--fuse.max_steps", "-1", "--lora_r", "-1"]
    assert "lora_r: expected 0 or more, got -1" in get_error(*flags)


# The data


def test_a_malformed_line_is_named(get_error, write_rows, tmp_path):
    values = write_rows()
    with open(values["data"], "a") as file:
        file.write("{bad\n")
    assert f"rows.jsonl, line {len(ROWS) + 1}: expected a JSON object" in get_error(**values)
    assert not (tmp_path / "run" / "summarizer").exists()


def test_a_missing_column_is_named_with_the_present_and_the_needed_ones(get_error, write_rows):
    sentence = get_error(**write_rows(7, drop=["summary"]))
    assert "rows.jsonl, line 8, row 'r7': the column 'summary' is missing" in sentence
    assert "there are id, source, passage, question, answer, answerable" in sentence
    assert "needs passage, summary" in sentence


def test_a_row_with_an_unknown_label_is_rejected_and_training_continues(start, write_rows, tmp_path):
    start("--max_steps", 1, **write_rows(5, answerable=3))
    for stage in ("summarize", "fuse"):
        reject = json.loads((tmp_path / "run" / f"rejects_{stage}.jsonl").read_text())
        assert (reject["line"], reject["id"]) == (6, "r5")
        assert reject["reason"].startswith("answerable is 3, expected 0, 1")


def test_rows_without_labels_are_counted(start, write_rows, tmp_path, capsys):
    rows = write_rows(0)
    path = Path(rows["data"])
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for number, line in enumerate(lines):
        if number % 3:
            del line["answerable"]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    start("--max_steps", 1, **rows)
    assert re.search(r"fuse: \d+ of \d+ training rows have no label", capsys.readouterr().out)


def test_labels_that_are_all_the_same_are_said(start, write_rows, capsys):
    rows = write_rows(0)
    path = Path(rows["data"])
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines = [line | {"answerable": 1 if line["answer"] else None} for line in lines]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    start("--max_steps", 1, "--own_summary_steps", 0, **rows)
    assert "fuse: all training rows with a label have the label 1" in capsys.readouterr().out


def test_a_row_with_an_empty_passage_is_rejected_and_training_continues(start, write_rows, tmp_path, capsys):
    start("--max_steps", 1, **write_rows(3, passage=" "))
    printed = capsys.readouterr().out
    for stage in ("summarize", "answer", "fuse"):
        path = tmp_path / "run" / f"rejects_{stage}.jsonl"
        assert json.loads(path.read_text()) == {
            "source": str(tmp_path / "rows.jsonl"),
            "line": 4,
            "id": "r3",
            "reason": "empty passage",
        }
        assert f"{stage}: 1 rows rejected (1 of them: empty passage), with their reasons in {path}" in printed
    assert (tmp_path / "run" / "crosstask" / "model.safetensors").exists()


def test_rejected_rows_are_written_even_if_no_row_is_left(get_error, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"passage": "", "summary": "x"}) + "\n")
    assert "1 of 1 rows are rejected for one reason, empty passage" in get_error(
        data=str(path), data_options=None
    )
    assert json.loads((tmp_path / "run" / "rejects_summarize.jsonl").read_text())["reason"] == "empty passage"


def test_a_question_that_leaves_no_room_is_rejected_before_a_stage_trains(
    start, write_rows, tmp_path, capsys
):
    start("--max_steps", 1, "--wrong_values", 0, **write_rows(5, question="why " * 400))
    printed = capsys.readouterr().out
    history = json.loads((tmp_path / "run" / "history.json").read_text())
    for stage in ("answer", "fuse"):
        path = tmp_path / "run" / f"rejects_{stage}.jsonl"
        reject = json.loads(path.read_text())
        assert reject["id"] == "r5" and "no room is left for the passage" in reject["reason"]
        assert "the question takes " in reject["reason"] and "`max_source_length` is 256" in reject["reason"]
        line = f"{stage}: 1 rows rejected (1 of them: {reject['reason']}), with their reasons in {path}"
        assert printed.index(line) < printed.index("summarize: training")
        counts = history[stage]["lengths"]
        assert sum(split["rejected"] for split in counts.values()) == 1
        assert sum(split["rows"] for split in counts.values()) == 11 if stage == "fuse" else 10
    assert not (tmp_path / "run" / "rejects_summarize.jsonl").exists()


def test_the_log_counts_rejects_by_their_most_common_reason(start, write_rows, tmp_path, capsys):
    rows = write_rows(0, passage=" ")
    path = Path(rows["data"])
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for number in (2, 5, 8):
        lines[number]["answerable"] = f"maybe {number}"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    start("--max_steps", 1, **rows)
    reason = "such as: answerable is 'maybe 2', expected 0, 1, 'no', 'yes' or null"
    assert f"fuse: 4 rows rejected (3 of them: {reason}), with their reasons in" in capsys.readouterr().out


def test_questions_that_leave_no_room_in_most_rows_end_the_run(get_error, write_rows, tmp_path):
    sentence = get_error("--max_source_length", 12, **write_rows(5))
    assert "rows are rejected, expected half at most; row r" in sentence and "is 12" in sentence
    assert not (tmp_path / "run" / "summarizer").exists()


def test_missing_data_is_named(get_error, tmp_path):
    missing = str(tmp_path / "rows.jsonl")
    assert "rows.jsonl: file not found" in get_error(data=missing, data_options=None)


def test_missing_rows_for_the_evaluation_are_named(get_error):
    sentence = get_error(data_options={"passages": {"train": 20, "validation": 0, "test": 0}})
    assert "briefs" in sentence and "expected test or validation rows" in sentence


# The models


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ({"d_model": 16}, "summarizer_config: expected model_type among its keys, got d_model"),
        ({"model_type": "bert"}, "summarizer_config: bert is not a sequence-to-sequence model"),
    ],
)
def test_a_configuration_that_is_no_summarizer_is_refused(get_error, shape, words):
    assert words in get_error(summarizer_config=shape)


def test_a_summarizer_without_a_decoder_is_refused(get_error, parts):
    sentence = get_error(**summarizer(parts / "bert"))
    assert "summarizer: " in sentence and "bert is not a sequence-to-sequence model; expected" in sentence
    sentence = get_error(
        **summarizer(parts / "bert"), **answerer(parts / "t5"), stages=["fuse"], output_dir=str(parts / "run")
    )
    assert "summarizer" in sentence and "sequence-to-sequence" in sentence and "bert" in sentence


def test_an_encoder_in_the_answer_stage_is_refused(get_error, parts):
    sentence = get_error("--stages", "answer", "fuse", **summarizer(parts / "t5"), **answerer(parts / "bert"))
    assert "question_answerer: " in sentence and "leave 'answer' out of stages" in sentence


def test_a_missing_model_is_named(get_error, parts):
    assert "summarizer: nobody/nothing: " in get_error(**summarizer("nobody/nothing"))


def test_lora_on_unknown_layers_is_refused(get_error, parts):
    values = {**summarizer(parts / "t5"), **answerer(parts / "t5"), "lora_r": 2}
    sentence = get_error(lora_target_modules=["nope"], **values)
    assert "summarize.lora_target_modules, or peft: target_modules: none of ['nope'] is a layer" in sentence


def test_lora_on_a_model_from_scratch_is_refused(get_error):
    assert "lora_r: expected 0, as a model from scratch has no trained weights" in get_error(lora_r=2)


def test_heads_that_do_not_divide_the_width_are_refused(get_error, parts):
    values = {**summarizer(parts / "t5"), **answerer(parts / "t5"), "stages": ["fuse"]}
    assert "`fusion_num_heads` has to divide `fusion_dim`, got 5" in get_error(fusion_num_heads=5, **values)


# The folder of the run


def test_the_folder_of_another_recipe_is_refused_and_not_changed(get_error, tmp_path):
    (tmp_path / "run" / "summarizer").mkdir(parents=True)  # a finished stage
    values = {name: value for name, value in RECIPE.items() if name != "seed"}
    (tmp_path / "run" / "recipe.yaml").write_text(yaml.safe_dump(values | {"seed": 1}))
    before = (tmp_path / "run" / "recipe.yaml").read_text()
    sentence = get_error()
    assert "run holds a run of another recipe (seed is 1 there and 0 here)" in sentence
    assert (tmp_path / "run" / "recipe.yaml").read_text() == before
    assert {path.name for path in (tmp_path / "run").iterdir()} <= {".lock", "recipe.yaml", "summarizer"}


def test_a_recipe_may_be_corrected_before_a_stage_has_begun(get_error, start, write_rows):
    assert "file not found" in get_error(data="gone.csv", data_options=None)
    start("--max_steps", 1, **write_rows(0))


def test_a_folder_in_use_by_another_process_is_refused(get_error, tmp_path):
    (tmp_path / "run").mkdir()
    code = "import filelock, sys\nwith filelock.FileLock(sys.argv[1]): print(1, flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(tmp_path / "run" / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        assert "run is in use by another process" in get_error()
        process.stdin.close()
    assert not (tmp_path / "run" / "recipe.yaml").exists()


# The training


def has_finite_weights(folder):
    return all(torch.isfinite(value).all() for value in load_file(folder / "model.safetensors").values())


@pytest.fixture
def poison_loss(monkeypatch):
    """Return a function that makes the loss of one step NaN, as an overflow could."""

    def poison_loss(step):
        count = iter(range(1, 100))
        original = stages.CrossTaskTrainer._compute_mean_losses

        def means(self, inputs, outputs):
            value = original(self, inputs, outputs)
            return value * float("nan") if self.model.training and next(count) == step else value

        monkeypatch.setattr(stages.CrossTaskTrainer, "_compute_mean_losses", means)

    return poison_loss


def test_a_loss_that_is_nan_ends_the_run_at_its_step(get_error, poison_loss, tmp_path):
    poison_loss(3)
    sentence = get_error(max_steps=4)
    last = tmp_path / "run" / "checkpoints" / "summarize" / "checkpoint-2"
    assert "summarize: the loss is nan at step 3" in sentence
    assert f"(last good checkpoint: {last})" in sentence
    assert has_finite_weights(last) and not (tmp_path / "run" / "summarizer").exists()


def test_a_loss_that_is_nan_at_the_first_step_leaves_no_checkpoint(get_error, poison_loss, tmp_path):
    poison_loss(1)
    assert "the loss is nan at step 1" in (sentence := get_error())
    assert "(last good checkpoint: none)" in sentence
    assert not list((tmp_path / "run").rglob("checkpoint-*"))


def test_a_diverging_run_ends_with_its_step(get_error):
    sentence = get_error("--learning_rate", "1e30", "--max_steps", 4)
    assert "summarize: " in sentence and " step " in sentence
    assert "a lower learning rate" in sentence


def test_an_unknown_model_type_is_named(get_error):
    assert "summarizer_config: unknown model_type 't6'" in get_error(summarizer_config={"model_type": "t6"})


def test_an_unknown_key_of_a_configuration_is_named(get_error):
    assert "'d_modell'" in get_error("--max_steps", 1, summarizer_config={**TINY_T5, "d_modell": 8})


def test_a_wrong_value_of_a_configuration_is_named(get_error):
    assert "d_model" in get_error(summarizer_config={**TINY_T5, "d_model": "big"})


@pytest.mark.parametrize("side", ["summarizer", "question_answerer"])
def test_a_model_without_tokenizer_files_is_refused(get_error, parts, side):
    kinds = {"summarizer": parts / "t5", "question_answerer": parts / "bert"}
    kinds[side] = f"{kinds[side]}_without_tokenizer"
    values = {**summarizer(kinds["summarizer"]), **answerer(kinds["question_answerer"])}
    sentence = get_error("--max_steps", 1, "--stages", "fuse", **values)
    assert f"{side}: " in sentence and "tokenizer" in sentence


@pytest.mark.parametrize("key", ["summarizer", "question_answerer"])
def test_a_tokenizer_without_a_padding_token_is_refused(get_error, parts, tmp_path, key):
    folder = shutil.copytree(parts / "t5", tmp_path / "t5")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(folder)
    sentence = get_error(**{key: str(folder), f"{key}_config": None})
    assert f"{key}: {folder}: `tokenizer` has no padding token; set its `pad_token`" in sentence


@pytest.mark.parametrize("stages", [["summarize", "answer", "fuse"], ["fuse"]])
@pytest.mark.parametrize("key", ["summarizer", "question_answerer"])
def test_a_cross_task_model_as_a_part_is_refused(get_error, parts, trained_run, key, stages):
    values = summarizer(parts / "t5") | answerer(parts / "t5") | {key: str(trained_run[1])}
    sentence = get_error(**values, stages=stages)
    assert f"{key}: {trained_run[1] / 'crosstask'} is a cross-task model already" in sentence
    assert "name it as model to train it further" in sentence


def test_a_missing_question_answerer_is_named(get_error, parts):
    values = {**summarizer(parts / "t5"), **answerer("nobody/nothing"), "stages": ["answer", "fuse"]}
    assert "error: question_answerer: nobody/nothing" in get_error(**values)


@pytest.mark.parametrize("damage", ["truncated", "other shape"])
def test_weights_that_cannot_be_loaded_are_named(get_error, parts, tmp_path, damage):
    folder = shutil.copytree(parts / "t5", tmp_path / "damaged")
    if damage == "truncated":
        path = folder / "model.safetensors"
        path.write_bytes(path.read_bytes()[:5000])
    else:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"d_ff": 64}))
    assert f"summarizer: {folder}: " in get_error(**summarizer(folder))


def test_missing_rows_for_the_training_are_named(get_error):
    sentence = get_error(data_options={"passages": {"train": 0, "validation": 4, "test": 4}})
    assert "briefs" in sentence and "train" in sentence


def test_evaluation_without_validation_rows_is_refused(get_error):
    values = {"data_options": {"passages": {"train": 20, "validation": 0, "test": 4}}}
    assert "eval_strategy" in get_error(eval_strategy="steps", eval_steps=1, **values)


def test_an_unknown_metric_for_the_best_model_is_named(get_error):
    values = {"eval_strategy": "steps", "eval_steps": 1, "load_best_model_at_end": True}
    assert "foo" in get_error(metric_for_best_model="foo", **values)


def test_a_file_in_place_of_the_folder_of_the_run_is_named(get_error, tmp_path):
    (tmp_path / "run").write_text("a file")
    assert "output_dir: " in get_error()


@pytest.mark.parametrize("text", [": : :\n- x", "hello"])
def test_a_damaged_record_of_the_recipe_is_named(get_error, tmp_path, text):
    (tmp_path / "run" / "summarizer").mkdir(parents=True)
    (tmp_path / "run" / "recipe.yaml").write_text(text)
    assert "recipe.yaml" in get_error().split("error: ")[1]


def test_the_last_checkpoint_of_a_diverging_run_is_finite(get_error, tmp_path):
    get_error("--learning_rate", "1e30", "--max_steps", 4)
    checkpoint = find_last_checkpoint(tmp_path / "run" / "checkpoints" / "summarize")
    assert checkpoint is None or has_finite_weights(tmp_path / checkpoint)


def test_missing_data_of_a_later_stage_ends_the_run_before_the_first_stage(get_error, parts, tmp_path):
    values = {**summarizer(parts / "t5"), **answerer(parts / "t5"), "fuse": {"data": "./gone.jsonl"}}
    get_error(**{**values, "fuse": {"data": "./gone.jsonl", "data_options": None}})
    assert not (tmp_path / "run" / "summarizer").exists()


@pytest.mark.parametrize("key", ["summarizer", "question_answerer"])
def test_a_folder_that_does_not_exist_is_said_at_once(get_error, tmp_path, key):
    sentence = get_error(**{key: str(tmp_path / "gone"), f"{key}_config": None})
    assert f"{key}: {tmp_path / 'gone'}: no such folder" in sentence


@pytest.mark.parametrize("key", ["summarizer", "question_answerer"])
def test_a_folder_without_a_model_is_said_before_its_tokenizer_is_tried(get_error, tmp_path, key):
    folder = tmp_path / "empty"
    folder.mkdir()
    sentence = get_error(**{key: str(folder), f"{key}_config": None})
    assert f"{key}: {folder}: the folder has no config.json, expected a model" in sentence


def test_a_tracker_that_is_not_installed_is_named_before_training(get_error):
    assert "report_to: swanlab is not installed" in get_error(report_to="swanlab")
