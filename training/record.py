"""Describe what a stage ran on: versions, hardware and the commit of the code, but nothing private."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("crosstask", "torch", "transformers", "peft", "datasets", "accelerate", "huggingface_hub")
SOURCE_KEYS = ("model", "summarizer", "question_answerer", "data")  # keys of models and data in a recipe


def describe_environment(processes: int = 1) -> dict[str, Any]:
    """
    Return the versions, the hardware and the commit that a stage is trained with.

    Args:
        processes (`int`, *optional*, defaults to 1): Number of processes that train.

    Returns:
        `dict` with `versions` (of Python and packages; `None` for a package that is not installed),
        `hardware` (one line), and `commit` (the commit of the code, with "+changes" if files differ from it;
        `None` if the code is not the root of a git checkout).
    """
    versions = {"python": platform.python_version()} | {name: _get_version(name) for name in PACKAGES}
    if torch.cuda.is_available():
        device = f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    else:
        device = f"{os.cpu_count()} CPU cores ({platform.machine()})"
    return {
        "versions": versions,
        "hardware": f"{device}, {processes} process{'es' if processes > 1 else ''}",
        "commit": _get_commit(Path(__file__).resolve().parents[1]),
    }


def _get_version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _get_commit(folder: Path) -> str | None:
    def git(*arguments: str) -> str:
        process = subprocess.run(
            ["git", "-C", folder, *arguments], capture_output=True, text=True, check=True
        )
        return process.stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != folder:
            return None  # installed inside somebody else's repository
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def list_sources(values: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """
    Return the names of all models and data in a recipe.

    Args:
        values (`dict[str, dict]`): Keys and values by stage, as in `recipe.yaml`.
    """
    names = [table.get(key) for table in values.values() for key in SOURCE_KEYS]
    return {item for name in names if name for item in ([name] if isinstance(name, str) else name)}
