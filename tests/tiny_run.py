"""A training run on tiny shapes, of which several files of tests have need."""

import os
import sys

import yaml

TINY = {"model_type": "t5", "d_model": 16, "d_kv": 4, "d_ff": 32, "num_layers": 1, "num_heads": 4}
RECIPE = {
    "data": "briefs",
    "data_options": {"passages": {"train": 24, "validation": 4, "test": 4}},
    "summarizer_config": TINY,
    "question_answerer_config": TINY,
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
# Left out by a run that trains a whole model further.
WHOLE = {"summarizer_config": None, "question_answerer_config": None, "fusion_num_heads": None}
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def write(folder, name="recipe.yaml", **values):
    """Write the recipe, with other values, whose run goes to `folder / "run"`; returns its path."""
    path = folder / name
    path.write_text(yaml.safe_dump(RECIPE | {"output_dir": str(folder / "run")} | values))
    return path


def command(recipe, *flags):
    """The command line that trains it in a process of its own."""
    return [sys.executable, "-m", "crosstask.train", str(recipe), *flags]
