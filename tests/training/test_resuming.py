"""Test what a stage restores from the checkpoint of a run that was killed."""

import json
import logging

import pytest
import torch
from tiny_run import write_recipe
from transformers import EarlyStoppingCallback

from crosstask.training.arguments import read_recipe
from crosstask.training.stages import Stage


def test_patience_of_early_stopping_is_restored(tmp_path):
    settings = {"early_stopping_patience": 5, "load_best_model_at_end": True, "learning_rate": 0.0}
    settings |= {"eval_strategy": "steps", "eval_steps": 1, "save_steps": 1, "max_steps": 3}
    recipe = read_recipe(write_recipe(tmp_path, **settings))

    def train(checkpoint=None):
        stages = []
        stages += [Stage(name, recipe, stages) for name in recipe.stages]
        trainer = stages[0].make_trainer(*stages[0].make_model(), stages[0].rows)
        trainer.train(resume_from_checkpoint=checkpoint)
        callbacks = trainer.callback_handler.callbacks
        return next(callback for callback in callbacks if isinstance(callback, EarlyStoppingCallback))

    assert train().early_stopping_patience_counter == 2  # the first evaluation of three was the best
    checkpoint = recipe.output_dir / "checkpoints" / "summarize" / "checkpoint-2"
    if not checkpoint.exists():
        checkpoint = checkpoint.with_name("checkpoint-3")
    state = json.loads((checkpoint / "trainer_state.json").read_text())
    counter = state["stateful_callbacks"]["EarlyStoppingCallback"]["attributes"]
    before = counter["early_stopping_patience_counter"]
    step = state["global_step"]
    assert train(str(checkpoint)).early_stopping_patience_counter == before + 3 - step


@pytest.mark.parametrize("max_steps", [2, 3, 4])  # in the first epoch, at its end and in the second one
def test_a_run_that_was_killed_after_its_last_step_takes_no_further_step(tmp_path, max_steps):
    recipe = read_recipe(write_recipe(tmp_path, max_steps=max_steps, save_steps=1))

    def train(checkpoint=None):
        stage = Stage("summarize", recipe, [])
        stage.stages.append(stage)
        trainer = stage.make_trainer(*stage.make_model(), stage.rows)
        trainer.train(resume_from_checkpoint=checkpoint)
        return trainer

    expected = train()
    steps_per_epoch = len(expected.get_train_dataloader())
    assert steps_per_epoch == 3
    found = train(str(recipe.output_dir / "checkpoints" / "summarize" / f"checkpoint-{max_steps}"))
    assert found.state.global_step == max_steps == found.args.max_steps
    for name, value in expected.model.state_dict().items():
        assert torch.equal(value, found.model.state_dict()[name]), name


@pytest.mark.parametrize("name", ["summarize", "fuse"])
def test_tied_weights_are_not_missing_in_a_checkpoint(tmp_path, caplog, monkeypatch, name):
    recipe = read_recipe(write_recipe(tmp_path, save_steps=1, max_steps=1))
    stages = []
    stages += [Stage(stage, recipe, stages) for stage in recipe.stages]
    if name == "fuse":
        for stage in stages[:-1]:
            stage.train()
    stage = stages[-1] if name == "fuse" else stages[0]
    trainer = stage.make_trainer(*stage.make_model(), stage.rows)
    trainer.train()
    trainer.args.max_steps = 2
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    trainer.train(resume_from_checkpoint=True)
    assert trainer.state.global_step == 2
    assert "missing keys" not in caplog.text
    trainer._issue_warnings_after_load(trainer.model.load_state_dict({}, strict=False))
    assert "missing keys" in caplog.text
