"""What a stage ran on, for the record: versions, hardware, the commit of the code; nothing of the user's."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

PACKAGES = ("crosstask", "torch", "transformers", "datasets", "peft", "accelerate")
NAME_KEYS = ("model", "summarizer", "question_answerer", "data")  # keys whose values may be folders


def describe_environment(processes=1):
    """
    Args:
        processes (`int`): How many of them train.

    Returns:
        `dict`: `versions` (by package, Python's among them), `hardware` (a line) and `commit`: of the code's
        git checkout, with "+changes" where files differ from it, None where it is no checkout.
    """
    versions = {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES}
    if torch.cuda.is_available():
        device = f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    else:
        device = f"{os.cpu_count()} CPU cores ({platform.machine()})"
    hardware = f"{device}, {processes} process{'es' if processes > 1 else ''}"
    return {
        "versions": versions,
        "hardware": hardware,
        "commit": _commit(Path(__file__).resolve().parents[1]),
    }


def _version(package):
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit(folder):
    def git(*arguments):
        done = subprocess.run(["git", "-C", folder, *arguments], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != folder:
            return None  # installed into a folder of somebody's repository
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def list_names(values):
    """The names of models and data that a recipe has, by stage as in `recipe.yaml`."""
    return {table[key] for table in values.values() for key in NAME_KEYS if isinstance(table.get(key), str)}
