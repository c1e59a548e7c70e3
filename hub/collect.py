"""Collect the files of each kind of publication: models, adapters, data sets, evaluations and metrics."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import DatasetCard

from crosstask.hub.adapters import ADAPTER_CONFIG_NAME, ADAPTER_WEIGHTS_NAME, join_adapters
from crosstask.hub.cards import (
    list_card_images,
    make_eval_results_file,
    make_model_card,
    read_local_names,
    read_run_recipe,
    select_examples,
)
from crosstask.hub.evaluation_dataset import has_private_rows, write_evaluation_dataset
from crosstask.hub.metric_space import write_metric_space
from crosstask.loading_crosstask import format_checksums
from crosstask.training.arguments import STAGE_FOLDERS
from crosstask.utils.errors import ConfigError, DataError
from crosstask.utils.files import (
    ADAPTER_FILES,
    CENTROIDS_NAME,
    MODEL_FILES,
    QUESTION_TOKENIZER_FILES,
    TOKENIZER_FILES,
    list_model_files,
)
from crosstask.utils.hub_names import PRIVATE, check_datasets, check_license, is_hub_id

Files = dict[str, Path | str]  # a local file, or its text, by path in the repository


class Kind(NamedTuple):
    """
    A kind of publication.

    Attributes:
        repo_type (`str`): Type of its repository on the Hub.
        source (`str`): What it is made from, for `--help`.
        collect (`Callable`): `collect(source, repo_id, stack, **options)` returns the files, and the
            patterns of files of an earlier publication that they replace. Temporary folders are closed with
            `stack`.
    """

    repo_type: str
    source: str
    collect: Callable[..., tuple[Files, tuple[str, ...]]]


def collect_model(
    source: str | os.PathLike,
    repo_id: str,
    stack: ExitStack,
    *,
    base: Sequence[str] | None = None,
    include_private_texts: bool = False,
    **options: Any,
) -> tuple[Files, tuple[str, ...]]:
    """Collect weights, checksums, configuration, code, tokenizer, card and metrics of a run's model."""
    run_dir = _check_finished_run(source)
    if not include_private_texts:
        datasets = options.get("datasets") or read_run_recipe(run_dir)[""].get("datasets")
        check_tokenizer(run_dir, datasets, (run_dir / "tokenizer").exists())
    for name in base or ():
        if not is_hub_id(name):
            raise ConfigError(f"--base: expected the Hub id of a model, got {name!r}")
    folder = run_dir / STAGE_FOLDERS["fuse"]
    files: Files = {**list_model_files(folder)}
    files["config.json"] = _remove_local_names(folder / "config.json")
    files |= _make_checksums(folder, files)
    files |= _describe_run(run_dir, repo_id, base_models=base, **options)
    return files, (*MODEL_FILES, *TOKENIZER_FILES, *QUESTION_TOKENIZER_FILES)


def collect_adapter(
    source: str | os.PathLike,
    repo_id: str,
    stack: ExitStack,
    *,
    base: Sequence[str] | None = None,
    **options: Any,
) -> tuple[Files, tuple[str, ...]]:
    """Collect the weights of an adapter and of the fusion, their card, and a router's centroids if saved."""
    run_dir = _check_finished_run(source)
    if len(base or ()) > 1:
        raise ConfigError(f"--base: expected one base model for an adapter, got {', '.join(base or ())}")
    if not (run_dir / "adapter" / ADAPTER_CONFIG_NAME).exists():
        raise ConfigError(f"{run_dir}: has no adapter, expected a run whose fuse stage has lora_r or peft")
    recipe = read_run_recipe(run_dir)[""]
    if recipe.get("model") is not None:
        folder, bases = run_dir / "adapter", list(base or [recipe["model"]])
    elif base:
        raise ConfigError(
            f"--base: expected none, as {run_dir} was trained from two models: its adapter needs both"
        )
    else:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        bases = _join_stages(run_dir, recipe, folder)
    local_names = read_local_names(run_dir)
    for name in bases:
        if not is_hub_id(name) or (name in local_names and name not in (base or ())):
            remedy = "name it with --base user/name" if len(bases) == 1 else "train from its Hub id"
            raise ConfigError(
                f"{run_dir}: the adapter needs {name}, which is not on the Hub; publish that model and "
                f"{remedy}"
            )
    config = json.loads((folder / ADAPTER_CONFIG_NAME).read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = bases[0]
    files: Files = {
        ADAPTER_CONFIG_NAME: json.dumps(config, indent=2) + "\n",
        ADAPTER_WEIGHTS_NAME: folder / ADAPTER_WEIGHTS_NAME,
    }
    # The centroids were computed from passages only, so they also fit the joined adapter.
    if (run_dir / "adapter" / CENTROIDS_NAME).exists():
        files[CENTROIDS_NAME] = run_dir / "adapter" / CENTROIDS_NAME
    return files | _describe_run(run_dir, repo_id, bases=bases, **options), ADAPTER_FILES


def collect_dataset(
    source: str | os.PathLike, repo_id: str, stack: ExitStack, *, license: str | None = None
) -> tuple[Files, tuple[str, ...]]:
    """Collect rows, statistics and card of a data set that `crosstask-build` has built."""
    folder = Path(source)
    files: Files = {f"data/{file.name}": file for file in sorted((folder / "data").glob("*.parquet"))}
    if not files or not (folder / "README.md").exists():
        raise DataError(f"{folder}: expected a folder that crosstask-build has finished")
    card = DatasetCard.load(folder / "README.md")
    if license:
        check_license(license)
        card.data.license, card.data.license_name = license, None
    if card.data.license is None or getattr(card.data, "license_name", None) == "unknown":
        raise ConfigError(f"{folder}: its sources state no license, expected --license, such as cc-by-4.0")
    card.text = card.text.replace('load_dataset("path/or/id")', f'load_dataset("{repo_id}")')
    files |= {file.name: file for file in (*folder.glob("stats.json"), *sorted(folder.glob("*.png")))}
    return files | {"README.md": str(card)}, ("data/*.parquet", "*.png")


def collect_evaluation(
    source: str | os.PathLike,
    repo_id: str,
    stack: ExitStack,
    *,
    license: str | None = None,
    dataset: str | None = None,
    include_private_texts: bool = False,
) -> tuple[Files, tuple[str, ...]]:
    """Collect the rows of an evaluation, and the summaries and scores of each system."""
    if license is None:
        raise ConfigError(f"{source}: expected the license of its rows, for example --license cc-by-4.0")
    check_license(license)
    if dataset is not None:
        check_datasets([dataset])
    if not include_private_texts and (dataset == PRIVATE or (dataset is None and has_private_rows(source))):
        raise ConfigError(
            f"{source}: its rows, with their passages, come from files that are not on the Hub; expected "
            "--dataset user/name of a data set that has them, or --include_private_texts to publish them"
        )
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "evaluation"
    write_evaluation_dataset(source, folder, repo_id=repo_id, license=license, data=dataset)
    return _list_files(folder), ("data/*/*.parquet",)


def collect_metric(source: str, repo_id: str, stack: ExitStack) -> tuple[Files, tuple[str, ...]]:
    """Collect the files of a Space from which `evaluate.load` reads a metric without this library."""
    if "." in repo_id:
        raise ConfigError(f"--repo: {repo_id}: evaluate loads no metric with a dot in its name")
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "metric"
    write_metric_space(source, folder, repo_id=repo_id)
    return _list_files(folder), ("*.py",)


def check_tokenizer(
    run_dir: str | os.PathLike, datasets: str | Sequence[str] | None, is_trained: bool
) -> None:
    """
    Raise a `ConfigError` if a run trains its tokenizer on private rows, whose words are its tokens.

    Args:
        run_dir (`str` or `os.PathLike`): The run's folder, for the error message.
        datasets (`str` or `list[str]`, *optional*): Hub ids of its data sets, or "private".
        is_trained (`bool`): Whether the run trains a tokenizer.
    """
    if is_trained and PRIVATE in ([datasets] if isinstance(datasets, str) else datasets or ()):
        raise ConfigError(
            f"{run_dir}: its tokenizer is trained on the private rows and has their words as tokens, names "
            "and numbers among them; expected a run from a pretrained summarizer, or crosstask-publish with "
            "--include_private_texts"
        )


KINDS = {
    "model": Kind("model", "folder of a finished training run", collect_model),
    "adapter": Kind("model", "folder of a finished training run with an adapter", collect_adapter),
    "dataset": Kind("dataset", "folder of a finished crosstask-build", collect_dataset),
    "evaluation": Kind(
        "dataset", "folder of a crosstask-eval report or of a finished training run", collect_evaluation
    ),
    "metric": Kind("space", "name of a metric: answer_recall, rouge, ...", collect_metric),
}


def _check_finished_run(source: str | os.PathLike) -> Path:
    folder = Path(source)
    names = (
        *("crosstask/config.json", "crosstask/processor_config.json"),
        *("metrics.json", "history.json", "learning_curve.png", "recipe.yaml"),
    )
    for name in names:
        if not (folder / name).exists():
            raise ConfigError(f"{folder}: has no {name}, expected the folder of a finished training run")
    return folder


def _list_files(folder):
    return {file.relative_to(folder).as_posix(): file for file in folder.rglob("*") if file.is_file()}


def _remove_local_names(path):
    """Return the text of a configuration without the local folders that its parts were loaded from."""

    def clean(values):
        values = {key: value for key, value in values.items() if key != "_name_or_path" or is_hub_id(value)}
        return {key: clean(value) if isinstance(value, dict) else value for key, value in values.items()}

    config = clean(json.loads(path.read_text(encoding="utf-8")))
    return json.dumps(config, indent=2, sort_keys=True) + "\n"


def _make_checksums(folder, files):
    """Return the files of checksums for a model's weights; existing ones in its folder must be the same."""
    checksums = format_checksums(files)
    for name in files:
        if name.endswith(".sha256"):
            existing = files[name].read_text(encoding="utf-8")
            if _parse_checksums(existing) != _parse_checksums(checksums.get(name, "")):
                raise DataError(
                    f"{folder}: the weights differ from the checksums in {name}; save the run again, or "
                    f"delete {name} if the change was intended"
                )
    return checksums


def _parse_checksums(text):
    return {tuple(line.lower().replace("*", " ").split()) for line in text.splitlines() if line.strip()}


def _describe_run(
    run_dir, repo_id, *, evaluation=None, bases=None, base_models=None, examples=None, **metadata
):
    """Return the card of a run with its images, and the files with its metrics."""
    recipe = read_run_recipe(run_dir)[""]
    for name in ("license", "language", "datasets"):
        metadata[name] = metadata.get(name) or recipe.get(name)
    for name in ("language", "datasets"):  # a recipe may have one value instead of a list
        if isinstance(metadata[name], str):
            metadata[name] = [metadata[name]]
    card = make_model_card(
        run_dir,
        repo_id=repo_id,
        bases=bases,
        base_models=base_models,
        evaluation=evaluation,
        examples=examples,
        **metadata,
    )
    metrics = json.loads((run_dir / "metrics.json").read_text(encoding="utf-8"))
    del metrics["local"]  # local folders
    metrics["examples"] = select_examples(run_dir, metadata["datasets"], examples)
    if PRIVATE in (metadata["datasets"] or ()):
        del metrics["data"]
    files = {"README.md": card, "metrics.json": json.dumps(metrics, indent=1), **list_card_images(run_dir)}
    if evaluation:
        try:
            path, text = make_eval_results_file(run_dir, evaluation)
        except (
            ImportError
        ):  # huggingface_hub 0.x, which transformers 4 requires; the card has the results too
            return files
        files[path] = text
    return files


def _join_stages(run_dir, recipe, folder):
    """Write the joined adapter of a run's stages into `folder`; return the base models of both parts."""
    if recipe.get("share_base"):
        raise ConfigError(
            f"{run_dir}: its parts share a base, and two adapters of it cannot be joined; publish the model"
        )
    bases = [_get_base_model(run_dir, recipe, stage) for stage in ("summarize", "answer")]
    adapters = [
        part if (part / ADAPTER_CONFIG_NAME).exists() else None
        for part in (run_dir / STAGE_FOLDERS["summarize"], run_dir / STAGE_FOLDERS["answer"])
    ]
    try:
        join_adapters(run_dir / "adapter", *adapters, folder)
    except ValueError as error:
        raise ConfigError(f"{str(error).rstrip('.')}; publish the model") from error
    return bases


def _get_base_model(run_dir, recipe, stage):
    """Return the name of the checkpoint that a stage adapted, or that the run used without training it."""
    part = STAGE_FOLDERS[stage]
    trained = run_dir / part
    if recipe.get(part) is None or (trained.exists() and not (trained / ADAPTER_CONFIG_NAME).exists()):
        raise ConfigError(
            f"{run_dir}: stage {stage} trained all weights of its model, so the adapter alone does not work "
            "with a published checkpoint; publish the model, or set lora_r or peft for this stage"
        )
    return recipe[part]
