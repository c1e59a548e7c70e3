"""Publish on the Hub: `crosstask-publish KIND SOURCE --repo user/name [--key value ...]`.

model        a training run's model, with its code and its card
adapter      a training run's adapter and fusion alone, for those who have the model they sit on; with the
             centroids that a router has saved beside them
dataset      what `crosstask-build` made
evaluation   the rows of an evaluation (a report's, or a run's own) and what each system wrote for them
metric       a module for `evaluate.load`

Each is one commit: a reader of the Hub never sees half of one.
"""

import argparse
import json
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import yaml
from huggingface_hub import DatasetCard
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from crosstask.hub.adapters import ADAPTER_CONFIG_NAME, ADAPTER_WEIGHTS_NAME, join_adapters
from crosstask.hub.cards import card_files, check_facts, eval_results_file, local_names, model_card
from crosstask.hub.commit import check_public, commit, create
from crosstask.hub.evaluation_dataset import write_evaluation_dataset
from crosstask.hub.metric_space import write_metric_space
from crosstask.training.arguments import STAGE_FOLDERS
from crosstask.utils.errors import ConfigError, DataError, HubError
from crosstask.utils.files import (
    ADAPTER_FILES,
    CENTROIDS_NAME,
    MODEL_FILES,
    QUESTION_TOKENIZER_FILES,
    TOKENIZER_FILES,
    list_model_files,
)
from crosstask.utils.hub_names import check_license, is_hub_id

KINDS = {
    "model": "model",
    "adapter": "model",
    "dataset": "dataset",
    "evaluation": "dataset",
    "metric": "space",
}


def main(argv=None):
    """Entry point; `argv` defaults to the command line. A user's mistake ends it with one sentence."""
    parser = argparse.ArgumentParser(
        prog="crosstask-publish",
        description="Publish on the Hub, with a card, in one commit. The token is that of `hf auth login` or "
        "HF_TOKEN.",
    )
    kinds = parser.add_subparsers(dest="kind", required=True, metavar=f"{{{','.join(KINDS)}}}")
    for kind, (source, _) in _COLLECTORS.items():
        command = kinds.add_parser(kind)
        command.add_argument("source", help=source)
        command.add_argument("--repo", required=True, help="where to: user/name")
        command.add_argument("--private", action="store_true", help="make a new repository private")
        command.add_argument("--revision", help="branch to commit to, made where there is none")
        command.add_argument("--pr", action="store_true", help="open a pull request instead")
        if kind != "metric":
            command.add_argument("--license", help="the Hub's name of the licence, such as apache-2.0")
        if kind in ("model", "adapter"):
            command.add_argument("--language", action="append", help="ISO 639 code, such as en")
            command.add_argument(
                "--dataset",
                action="append",
                dest="datasets",
                help="Hub id of a data set that it was trained on",
            )
            command.add_argument("--evaluation", help="Hub id of the published rows of its evaluation")
        if kind == "adapter":
            command.add_argument(
                "--base", help="Hub id of the model that it sits on, where the run had a folder"
            )
    options = vars(parser.parse_args(argv))
    kind, source, repo_id = options.pop("kind"), options.pop("source"), options.pop("repo")
    try:
        print(publish(kind, source, repo_id, **options))
    except (ConfigError, DataError, HubError) as error:
        sys.exit(f"crosstask-publish: error: {error}")


def publish(kind, source, repo_id, *, private=False, revision=None, pr=False, **facts):
    """
    Publish what a command of this library made, in one commit.

    Args:
        kind (`str`): `"model"`, `"adapter"`, `"dataset"`, `"evaluation"` or `"metric"`.
        source (`str` or `os.PathLike`): Folder of the training run, data set or report; a metric's name.
        repo_id (`str`): `"user/name"`.
        private (`bool`): Make a new repository private; an error where a public one is there.
        revision (`str`, *optional*): Branch to commit to, made where there is none.
        pr (`bool`): Open a pull request instead.
        facts: What only the publisher knows, for the card: `license` (but of a metric), and of a model or
            adapter `language` and `datasets` (lists), `evaluation` (Hub id of a published evaluation) and, of
            an adapter, `base` (Hub id of the model that it sits on). A run's recipe may have said the first
            three already.

    Returns:
        `str`: the address of the commit or the pull request.

    Raises:
        ConfigError, DataError: where something is missing that the card or the folder should have.
        HubError: where the Hub could not be reached or refused; nothing was published then.
    """
    _check_repo_id(repo_id, "--repo")
    _, collect = _COLLECTORS[kind]
    with ExitStack() as stack:
        files, replaces = collect(source, repo_id, stack, **facts)
        check_public(files, *([Path(source)] if kind != "metric" else []))
        return commit(
            files,
            repo_id,
            repo_type=KINDS[kind],
            message=f"Publish {kind} with crosstask",
            replaces=replaces,
            private=private,
            revision=revision,
            create_pr=pr,
        )


def prepare_push(recipe):
    """Refuse before a training what could not be published after it, and make the repository."""
    run = recipe.run
    _check_repo_id(run.hub_model_id, "hub_model_id")
    check_facts(recipe.values, recipe.output_dir, run.license, run.datasets, run.language)
    create(run.hub_model_id, repo_type="model", private=run.hub_private_repo)


def push(recipe):
    """Publish the model of a finished run whose recipe asks for it; returns the commit's address."""
    run = recipe.run
    target = {"private": run.hub_private_repo, "revision": run.hub_revision}
    return publish("model", recipe.output_dir, run.hub_model_id, **target)


def _model(run_dir, repo_id, _, *, evaluation=None, **facts):
    """Weights, configuration, code, tokenizer, card and figures of a training run."""
    run_dir = _finished_run(run_dir)
    folder = run_dir / "crosstask"
    files = list_model_files(folder)
    files["config.json"] = _without_origin(folder / "config.json")
    files |= _told(run_dir, repo_id, evaluation, facts)
    return files, (*MODEL_FILES, *TOKENIZER_FILES, *QUESTION_TOKENIZER_FILES)


def _adapter(run_dir, repo_id, stack, *, base=None, evaluation=None, **facts):
    """The weights of an adapter and a fusion, the names of what they sit on, and its centroids if any."""
    run_dir = _finished_run(run_dir)
    folder = run_dir / "adapter"
    if not (folder / ADAPTER_CONFIG_NAME).exists():
        raise ConfigError(f"{run_dir}: has no adapter, expected a run whose fuse stage has lora_r or peft")
    values = yaml.safe_load((run_dir / "recipe.yaml").read_text(encoding="utf-8"))[""]
    if values.get("model") is not None:
        bases = [base or values["model"]]
    elif base is not None:
        raise ConfigError(
            f"--base: expected none, as {run_dir} was not trained from a whole model: its adapter sits on two"
        )
    else:
        if values.get("share_base"):
            raise ConfigError(f"{run_dir}: two adapters of one base are no adapter of it; publish the model")
        bases = [_public_part(run_dir, values, stage) for stage in ("summarize", "answer")]
        parts = [
            part if (part / ADAPTER_CONFIG_NAME).exists() else None
            for part in (run_dir / STAGE_FOLDERS["summarize"], run_dir / STAGE_FOLDERS["answer"])
        ]
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        try:
            join_adapters(run_dir / "adapter", *parts, folder)
        except ValueError as error:
            raise ConfigError(f"{str(error).rstrip('.')}; publish the model") from error
    local = local_names(run_dir)
    for name in bases:
        if not is_hub_id(name) or (name in local and name != base):
            then = "name it with --base user/name" if len(bases) == 1 else "train from its Hub id"
            raise ConfigError(
                f"{run_dir}: the adapter sits on {name}, which others do not have; publish that model and "
                f"{then}"
            )
    settings = json.loads((folder / ADAPTER_CONFIG_NAME).read_text(encoding="utf-8"))
    settings["base_model_name_or_path"] = bases[0]
    files = {
        ADAPTER_CONFIG_NAME: json.dumps(settings, indent=2) + "\n",
        ADAPTER_WEIGHTS_NAME: folder / ADAPTER_WEIGHTS_NAME,
    }
    if (run_dir / "adapter" / CENTROIDS_NAME).exists():  # which are of passages, whatever weights are joined
        files[CENTROIDS_NAME] = run_dir / "adapter" / CENTROIDS_NAME
    return files | _told(run_dir, repo_id, evaluation, facts | {"bases": bases}), ADAPTER_FILES


def _public_part(run_dir, values, stage):
    """The checkpoint that others have of a part which a run adapted or took as it was."""
    side = STAGE_FOLDERS[stage]
    trained = run_dir / side
    if values.get(side) is None or (trained.exists() and not (trained / ADAPTER_CONFIG_NAME).exists()):
        raise ConfigError(
            f"{run_dir}: stage {stage} trained all weights of its model, so that an adapter alone would fit "
            "nothing that others have; publish the model, or set lora_r or peft for this stage"
        )
    return values[side]


def _told(run_dir, repo_id, evaluation, facts):
    """What tells of a run: its card with pictures, and its figures."""
    said = yaml.safe_load((run_dir / "recipe.yaml").read_text(encoding="utf-8"))[""]
    facts |= {name: facts.get(name) or said.get(name) for name in ("license", "language", "datasets")}
    for name in ("language", "datasets"):  # a list of one may be said without brackets
        facts[name] = [facts[name]] if isinstance(facts[name], str) else facts[name]
    card = model_card(run_dir, repo_id=repo_id, evaluation=evaluation, **facts)
    metrics = json.loads((run_dir / "metrics.json").read_text(encoding="utf-8"))
    del metrics["local"]  # folders of the author's
    told = {"README.md": card, "metrics.json": json.dumps(metrics, indent=1), **card_files(run_dir)}
    if evaluation:
        try:
            path, text = eval_results_file(run_dir, evaluation)
        except ImportError:  # huggingface_hub 0.x, which transformers 4 needs: the card tells it all the same
            return told
        told[path] = text
    return told


def _dataset(folder, repo_id, _, *, license=None):
    """A built data set: rows, statistics and card."""
    folder = Path(folder)
    files = {f"data/{name}": file for name, file in _matching(folder / "data", ("*.parquet",)).items()}
    if not files or not (folder / "README.md").exists():
        raise DataError(f"{folder}: expected a folder that crosstask-build has finished")
    card = DatasetCard.load(folder / "README.md")
    if license:
        check_license(license)
        card.data.license, card.data.license_name = license, None
    if card.data.license is None or getattr(card.data, "license_name", None) == "unknown":
        raise ConfigError(f"{folder}: its sources state no licence, expected --license, such as cc-by-4.0")
    card.text = card.text.replace('load_dataset("path/or/id")', f'load_dataset("{repo_id}")')
    files |= _matching(folder, ("stats.json", "*.png"))
    return files | {"README.md": str(card)}, ("data/*.parquet", "*.png")


def _evaluation(report_dir, repo_id, stack, *, license=None):
    """The rows of an evaluation, and each system's summaries and scores."""
    if license is None:
        raise ConfigError(f"{report_dir}: expected the licence of its rows, --license cc-by-4.0 for one")
    check_license(license)
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "evaluation"
    write_evaluation_dataset(report_dir, folder, repo_id=repo_id, license=license)
    return _all(folder), ("data/*/*.parquet",)


def _metric(name, repo_id, stack):
    """A metric as a Space that `evaluate.load` reads, without this library."""
    if "." in repo_id:
        raise ConfigError(f"--repo: {repo_id}: evaluate loads no metric with a dot in its name")
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "metric"
    write_metric_space(name, folder, repo_id=repo_id)
    return _all(folder), ("*.py",)


_COLLECTORS = {
    "model": ("folder of a finished training run", _model),
    "adapter": ("folder of a finished training run with an adapter", _adapter),
    "dataset": ("folder of a finished crosstask-build", _dataset),
    "evaluation": ("folder of a crosstask-eval report or a finished training run", _evaluation),
    "metric": ("name of a metric: answer_recall, rouge, ...", _metric),
}


def _finished_run(folder):
    folder = Path(folder)
    needed = ("crosstask/config.json", "crosstask/processor_config.json")
    needed += ("metrics.json", "history.json", "learning_curve.png", "recipe.yaml")
    for name in needed:
        if not (folder / name).exists():
            raise ConfigError(f"{folder}: has no {name}, expected the folder of a finished training run")
    return folder


def _matching(folder, patterns):
    return {
        file.name: file for pattern in patterns for file in sorted(folder.glob(pattern)) if file.is_file()
    }


def _all(folder):
    return {file.relative_to(folder).as_posix(): file for file in folder.rglob("*") if file.is_file()}


def _without_origin(path):
    """A configuration without the folders that its parts were loaded from."""

    def cleaned(table):
        kept = {key: value for key, value in table.items() if key != "_name_or_path" or is_hub_id(value)}
        return {key: cleaned(value) if isinstance(value, dict) else value for key, value in kept.items()}

    config = cleaned(json.loads(path.read_text(encoding="utf-8")))
    return json.dumps(config, indent=2, sort_keys=True) + "\n"


def _check_repo_id(repo_id, where):
    try:
        validate_repo_id(repo_id)
        owner_and_name = repo_id is not None and repo_id.count("/") == 1
    except HFValidationError:
        owner_and_name = False
    if not owner_and_name:
        raise ConfigError(f"{where}: expected user/name, got {repo_id!r}")


if __name__ == "__main__":
    main()
