"""Train a cross-task model: `python train.py CONFIG.yaml [--key value ...]`, or `crosstask-train`.

Three stages, each a folder of the run, each skipped where finished and resumed where interrupted:

    summarize   a summarizer learns summaries of passages          -> summarizer/
    answer      a question answerer learns answers from passages   -> question_answerer/
    fuse        both, joined by the fusion, learn question-prompted
                summaries and whether a summary carries the answer -> crosstask/
"""

import argparse
import sys

from accelerate import PartialState

from crosstask.data.schema import STAGES
from crosstask.hub.cards import write_card
from crosstask.hub.publish import prepare_push, push
from crosstask.training.arguments import RunArguments, StageArguments, read_recipe
from crosstask.training.evaluation import evaluate, show
from crosstask.training.stages import Stage, _say
from crosstask.training.trainer import NonFiniteLossError
from crosstask.utils.errors import ConfigError, DataError, HubError
from crosstask.utils.recipes import claim_folder, lock_folder

USER_ERRORS = (ConfigError, DataError, HubError, NonFiniteLossError)
# Keys that change what a run shows or how fast it is, not what it learns: free to differ on a restart.
FREE_KEYS = {
    "dataloader_num_workers",
    "dataloader_persistent_workers",
    "dataloader_pin_memory",
    "datasets",
    "disable_tqdm",
    "hub_model_id",
    "hub_private_repo",
    "hub_revision",
    "language",
    "license",
    "log_level",
    "logging_steps",
    "logging_strategy",
    "push_to_hub",
    "report_to",
    "run_name",
    "save_total_limit",
}


def main(argv=None):
    """Entry point; `argv` defaults to the command line. A user's mistake ends it with one sentence."""
    parser = argparse.ArgumentParser(
        prog="crosstask-train",
        description="Train a cross-task model from a recipe.",
        epilog="Any key of the recipe can be given as --key value, or --STAGE.key value for one stage "
        f"({', '.join(STAGES)}): those of RunArguments ({_key_list(RunArguments)}), of StageArguments "
        f"({_key_list(StageArguments)}), and all of transformers' Seq2SeqTrainingArguments.",
    )
    parser.add_argument("config", help="the recipe, a YAML file; see configs/")
    arguments, overrides = parser.parse_known_args(argv)
    try:
        run(read_recipe(arguments.config, overrides))
    except USER_ERRORS as error:
        sys.exit(f"crosstask-train: error: {error}")


def _key_list(kind):
    return ", ".join(kind.__dataclass_fields__)


def run(recipe):
    """Train what is not trained yet, evaluate, and show the result. Takes a [`Recipe`]."""
    folder = recipe.output_dir
    for stage in recipe.stages.values():
        stage.training.device  # noqa: B018  (transformers joins the group of processes when asked for it)
    state = PartialState()
    if state.is_main_process:
        lock = lock_folder(folder)
        claim_folder(folder, recipe.values, FREE_KEYS)
    try:
        if recipe.run.push_to_hub and state.is_main_process:
            prepare_push(recipe)
        state.wait_for_everyone()
        stages = []
        stages += [Stage(name, recipe, stages) for name in recipe.stages]
        for stage in stages:
            stage.check_data()
        trained = [stage.name for stage in stages if stage.train()]
        state.wait_for_everyone()
        if state.is_main_process:
            if not trained:
                _say(f"Nothing to train: all stages in {folder} are finished.")
            if trained or not (folder / "metrics.json").exists():
                evaluate(recipe)
                write_card(folder)
            show(recipe)
            if recipe.run.push_to_hub:
                _say(f"\nPublished: {push(recipe)}")
        state.wait_for_everyone()
    finally:
        if state.is_main_process:
            lock.release()


if __name__ == "__main__":
    main()
