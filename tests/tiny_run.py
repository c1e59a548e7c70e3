"""Recipes of training runs that take a second or two, for tests of what a run writes."""

import os
import sys

import yaml

TINY_T5 = {"model_type": "t5", "d_model": 16, "d_kv": 4, "d_ff": 32, "num_layers": 1, "num_heads": 4}
RECIPE = {
    "data": "briefs",
    "data_options": {"passages": {"train": 24, "validation": 4, "test": 4}},
    "summarizer_config": TINY_T5,
    "question_answerer_config": TINY_T5,
    "vocab_size": 400,
    "max_source_length": 256,
    "fusion_num_heads": 4,
    "per_device_train_batch_size": 8,
    "per_device_eval_batch_size": 8,
    "learning_rate": 1e-3,
    "logging_steps": 1,
    "save_steps": 2,
    "save_total_limit": 2,
    "generation_max_length": 12,
    "max_steps": 2,
    "disable_tqdm": True,
    "seed": 0,
}
# Removes the keys that a recipe with `model` must not have.
WITHOUT_PARTS = {"summarizer_config": None, "question_answerer_config": None, "fusion_num_heads": None}
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def write_recipe(folder, name="recipe.yaml", **values):
    """Write `RECIPE` with some values changed, for a run in `folder / "run"`, and return its path."""
    path = folder / name
    path.write_text(yaml.safe_dump(RECIPE | {"output_dir": str(folder / "run")} | values))
    return path


def make_command(recipe, *flags):
    """Return the command line that trains a recipe in a separate process."""
    return [sys.executable, "-m", "crosstask.train", str(recipe), *flags]
