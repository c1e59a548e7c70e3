"""
Train a cross-task model: `python train.py CONFIG.yaml [--key value ...]`, or `crosstask-train`.

A run has up to three stages. Each saves its model to a folder of the run; a finished stage is skipped, and an
interrupted one is resumed.

    summarize   train a summarizer on passages and their summaries     -> summarizer/
    answer      train a question answerer on passages with questions   -> question_answerer/
    fuse        fuse the two, and train the result on question-prompted
                summaries and on whether they carry the answer         -> crosstask/
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from accelerate import PartialState

from crosstask.data.schema import STAGES
from crosstask.hub.cards import write_card
from crosstask.hub.publish import prepare_push, push
from crosstask.training.arguments import (
    STAGE_FOLDERS,
    Recipe,
    RunArguments,
    StageArguments,
    read_recipe,
)
from crosstask.training.evaluation import evaluate, print_results
from crosstask.training.loading import check_machine, find_last_checkpoint
from crosstask.training.record import describe_environment
from crosstask.training.stages import GROWING_KEYS, Stage, print_once
from crosstask.training.trainer import NonFiniteLossError
from crosstask.utils.errors import ConfigError, DataError, HubError
from crosstask.utils.interrupts import end_on_signal
from crosstask.utils.output_folder import RECORD_NAME, claim_folder, lock_folder
from crosstask.utils.recipes import make_parser

# Keys that may change when a run is started again: they change what it shows and how fast it is, but not what
# it learns.
FREE_KEYS = {
    "dataloader_num_workers",
    "dataloader_persistent_workers",
    "dataloader_pin_memory",
    "datasets",
    "disable_tqdm",
    "eval_delay",
    "eval_on_start",
    "eval_steps",
    "eval_strategy",
    "hub_model_id",
    "hub_private_repo",
    "hub_revision",
    "language",
    "license",
    "log_level",
    "logging_first_step",
    "logging_steps",
    "logging_strategy",
    "push_to_hub",
    "report_to",
    "run_name",
    "save_steps",
    "save_strategy",
    "save_total_limit",
}

# Keys that may change for a stage that has not begun, for instance after it ran out of memory.
SPEED_KEYS = {
    "activation_checkpointing",  # the name of `gradient_checkpointing` from transformers 5.23 on
    "activation_checkpointing_kwargs",
    "auto_find_batch_size",
    "bf16",
    "bf16_full_eval",
    "eval_accumulation_steps",
    "fp16",
    "fp16_full_eval",
    "gradient_accumulation_steps",
    "gradient_checkpointing",
    "gradient_checkpointing_kwargs",
    "per_device_eval_batch_size",
    "per_device_train_batch_size",
    "tf32",
    "torch_compile",
    "torch_empty_cache_steps",
    "use_cpu",
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command; `argv` defaults to the command line. A user's mistake ends it with one sentence."""
    parser = make_parser(
        "crosstask-train",
        "Train a cross-task model from a recipe.",
        RunArguments,
        StageArguments,
        note=", or with --STAGE.key value for one stage\n"
        f"({', '.join(STAGES)}). The keys are all of transformers' Seq2SeqTrainingArguments, and",
    )
    parser.add_argument(
        "--env",
        action=PrintEnvironment,
        nargs=0,
        help="print the versions and the hardware that a bug report should contain, and exit",
    )
    options, flags = parser.parse_known_args(argv)
    try:
        with end_on_signal("crosstask-train"):
            run(read_recipe(options.config, flags))
    except (ConfigError, DataError, HubError, NonFiniteLossError) as error:
        sys.exit(f"crosstask-train: error: {error}")


class PrintEnvironment(argparse.Action):
    """Print versions and hardware, and exit. An action, so that no recipe is required beside it."""

    def __call__(self, parser, namespace, values, option_string=None):
        environment = describe_environment()
        for name, version in environment["versions"].items():
            print(f"{name}: {version or 'not installed'}")
        print(f"commit: {environment['commit'] or 'not a git checkout'}")
        print(f"hardware: {environment['hardware']}")
        parser.exit()


def find_new_stages(recipe: Recipe) -> set[str]:
    """Return the stages that have neither a checkpoint nor a model yet."""
    return {
        name
        for name, stage in recipe.stages.items()
        if not (recipe.output_dir / STAGE_FOLDERS[name]).exists()
        and find_last_checkpoint(Path(str(stage.training.output_dir))) is None
    }


def find_growing_stages(recipe: Recipe) -> set[str]:
    """Return the stages that can train longer: they have no model yet, or a checkpoint beside it."""
    return {
        name
        for name, stage in recipe.stages.items()
        if not (recipe.output_dir / STAGE_FOLDERS[name]).exists()
        or find_last_checkpoint(Path(str(stage.training.output_dir))) is not None
    }


def run(recipe: Recipe) -> None:
    """Train the stages that are not finished, evaluate the model, and show the result."""
    folder = recipe.output_dir
    check_machine(recipe)
    for stage_recipe in recipe.stages.values():
        stage_recipe.training.device  # noqa: B018  (its first use joins the group of processes)
    state = PartialState()
    if state.is_main_process:
        lock = lock_folder(folder)
        growing = find_growing_stages(recipe)
        new = find_new_stages(recipe)
        if new == set(recipe.stages) and not any((folder / name).exists() for name in STAGE_FOLDERS.values()):
            (folder / RECORD_NAME).unlink(missing_ok=True)  # nothing has begun: accept another recipe
        claim_folder(folder, recipe.values, FREE_KEYS, new, SPEED_KEYS, growing, set(GROWING_KEYS))
    try:
        if recipe.run.push_to_hub and state.is_main_process:
            prepare_push(recipe)
        state.wait_for_everyone()
        stages: list[Stage] = []
        stages += [Stage(name, recipe, stages) for name in recipe.stages]
        for stage in stages:
            stage.check_data()
        for stage in stages:
            stage.check_lengths()
        trained = [stage.name for stage in stages if stage.train()]
        state.wait_for_everyone()
        if state.is_main_process:
            if not trained:
                print_once(f"Nothing to train: all stages in {folder} are finished.")
            if trained or not (folder / "metrics.json").exists():
                evaluate(recipe)
                write_card(folder)
            print_results(recipe)
            if recipe.run.push_to_hub:
                print_once(f"\nPublished: {push(recipe)}")
        state.wait_for_everyone()
    finally:
        if state.is_main_process:
            lock.release()


if __name__ == "__main__":
    main()
