"""Publish on the Hub: `crosstask-publish KIND SOURCE --repo user/name [--key value ...]`.

Kinds:
    model: The model of a training run, with its code and its card.
    adapter: The adapter and the fusion of a training run without the base model, with a router's centroids if
        they were saved beside it.
    dataset: A data set that `crosstask-build` has built.
    evaluation: The rows of an evaluation, and the summaries and scores of each system.
    metric: A metric for `evaluate.load`.

Each publication is one commit, so that a reader of the Hub never sees half of it.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import ModelCard
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from crosstask.hub.cards import check_metadata
from crosstask.hub.collect import KINDS, check_tokenizer
from crosstask.hub.commit import check_datasets_exist, commit, create_repository
from crosstask.hub.privacy import check_public, check_rows
from crosstask.utils.errors import ConfigError, DataError, HubError
from crosstask.utils.hub_names import PRIVATE
from crosstask.utils.interrupts import end_on_signal

if TYPE_CHECKING:
    from crosstask.training.arguments import Recipe


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command; `argv` defaults to the command line. A user's mistake ends it with one sentence."""
    options = vars(_make_parser().parse_args(argv))
    kind, source, repo_id = options.pop("kind"), options.pop("source"), options.pop("repo")
    try:
        with end_on_signal("crosstask-publish", "nothing was published, unless the Hub shows a new commit"):
            print(publish(kind, source, repo_id, **options))
    except (ConfigError, DataError, HubError) as error:
        sys.exit(f"crosstask-publish: error: {error}")


def _make_parser():
    parser = argparse.ArgumentParser(
        prog="crosstask-publish",
        description="Publish on the Hub, with a card, in one commit. Log in with `hf auth login`, or set "
        "HF_TOKEN.",
    )
    kinds = parser.add_subparsers(dest="kind", required=True, metavar=f"{{{','.join(KINDS)}}}")
    for name, kind in KINDS.items():
        command = kinds.add_parser(name)
        command.add_argument("source", help=kind.source)
        command.add_argument("--repo", required=True, help="repository to publish to: user/name")
        command.add_argument(
            "--private", action="store_true", help="make the repository private if it is created"
        )
        command.add_argument("--revision", help="branch to commit to, created if it does not exist")
        command.add_argument("--pr", action="store_true", help="open a pull request instead")
        if name != "metric":
            command.add_argument("--license", help="the Hub's name of the license, such as apache-2.0")
        if name in ("model", "evaluation"):
            command.add_argument(
                "--include_private_texts",
                action="store_true",
                help="publish the texts of rows that are not on the Hub: the test rows of an evaluation, and "
                "the words that a tokenizer was trained on",
            )
        if name == "evaluation":
            command.add_argument("--dataset", help="Hub id of a data set that has the rows, or private")
        if name in ("model", "adapter"):
            command.add_argument("--language", action="append", help="ISO 639 code, such as en")
            command.add_argument(
                "--dataset",
                action="append",
                dest="datasets",
                help="Hub id of a data set of the training, or private",
            )
            command.add_argument(
                "--example",
                action="append",
                dest="examples",
                help="id of a test row that the card may show, with its passage",
            )
            command.add_argument(
                "--base",
                action="append",
                help="Hub id of a model that the run was trained from, if it used a local copy",
            )
            command.add_argument("--evaluation", help="Hub id of the published rows of its evaluation")
    return parser


def publish(
    kind: str,
    source: str | os.PathLike,
    repo_id: str,
    *,
    private: bool = False,
    revision: str | None = None,
    pr: bool = False,
    **options: Any,
) -> str:
    """
    Publish a result of one of this library's commands in one commit.

    Args:
        kind (`str`): `"model"`, `"adapter"`, `"dataset"`, `"evaluation"` or `"metric"`.
        source (`str` or `os.PathLike`): Folder of the training run, data set or report; for a metric, its
            name.
        repo_id (`str`): `"user/name"`.
        private (`bool`): Make the repository private if it is created.
        revision (`str`, *optional*, defaults to the main branch): Branch to commit to, created if it does not
            exist.
        pr (`bool`): Open a pull request instead.
        options: Metadata for the card: `license` (for all kinds but a metric); for a model or adapter also
            `language` and `datasets` (lists, which default to those in the run's recipe; "private" stands
            for data that are not on the Hub), `evaluation` (Hub id of the published rows of the evaluation),
            `examples` (ids of test rows that the card may show) and `base` (Hub ids of the models that the
            run was trained from); for an evaluation `dataset` (Hub id of a data set that has its rows, or
            "private"); for a model and an evaluation `include_private_texts` (publish the texts of private
            rows: the words of a tokenizer trained on them, and test rows).

    Returns:
        `str`: The URL of the commit or of the pull request.

    Raises:
        ConfigError, DataError: If metadata or files are missing or invalid.
        HubError: If the Hub cannot be reached or refuses; then nothing was published.
    """
    _check_repo_id(repo_id, "--repo")
    for name in ("base", "examples"):  # one or several
        if isinstance(options.get(name), str):
            options[name] = [options[name]]
    with ExitStack() as stack:
        files, replaces = KINDS[kind].collect(source, repo_id, stack, **options)
        check_public(files, *([] if kind == "metric" else [Path(source)]))
        if kind in ("model", "adapter"):
            check_rows(files, source)
            check_datasets_exist(ModelCard(str(files["README.md"])).data.to_dict().get("datasets", ()))
        return commit(
            files,
            repo_id,
            repo_type=KINDS[kind].repo_type,
            message=f"Publish {kind} with crosstask",
            replaces=replaces,
            private=private,
            revision=revision,
            create_pr=pr,
        )


def prepare_push(recipe: Recipe) -> None:
    """Create a recipe's repository before the training, and refuse what could not be published after it."""
    run = recipe.run
    repo_id = _check_repo_id(run.hub_model_id, "hub_model_id")
    check_metadata(recipe.values, recipe.output_dir, run.license, run.datasets, run.language)
    check_tokenizer(recipe.output_dir, run.datasets, run.trains_tokenizer)
    check_datasets_exist([name for name in run.datasets or () if name != PRIVATE])
    create_repository(repo_id, repo_type="model", private=run.hub_private_repo)


def push(recipe: Recipe) -> str:
    """Publish the model of a finished run as its recipe asks; return the URL of the commit."""
    run = recipe.run
    repo_id = _check_repo_id(run.hub_model_id, "hub_model_id")
    private, revision = run.hub_private_repo, run.hub_revision
    return publish("model", recipe.output_dir, repo_id, private=private, revision=revision)


def _check_repo_id(repo_id: str | None, where: str) -> str:
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ConfigError(f"{where}: expected user/name, got {repo_id!r}") from error
    if repo_id is None or repo_id.count("/") != 1:
        raise ConfigError(f"{where}: expected user/name, got {repo_id!r}")
    return repo_id


if __name__ == "__main__":
    main()
