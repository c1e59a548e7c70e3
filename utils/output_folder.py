"""Protect the output folder of a command: one process at a time, and one recipe for all restarts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from crosstask.utils.errors import ConfigError
from crosstask.utils.files import write_text


def lock_folder(folder: Path) -> FileLock:
    """
    Create an output folder and lock it until `release()` is called on the lock or the process ends.

    Raises:
        ConfigError: If another process holds the lock, or the folder cannot be written to.
    """
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise ConfigError(f"output_dir: {folder} is in use by another process") from error
    except OSError as error:
        raise ConfigError(f"output_dir: {folder} cannot be written to ({error.strerror})") from error
    return lock


def claim_folder(
    folder: Path,
    values: Mapping[str, Mapping[str, Any]],
    free_keys: Set[str],
    new_stages: Set[str] = frozenset(),
    speed_keys: Set[str] = frozenset(),
) -> None:
    """
    Record a recipe in `recipe.yaml` of its output folder, and refuse a folder of a different recipe.

    Args:
        folder (`Path`): The output folder.
        values (`dict[str, dict]`): The values of the recipe by stage; those at the top level under "".
        free_keys (`set[str]`): Keys that may change when the command is started again.
        new_stages (`set[str]`, *optional*): Stages that have not begun.
        speed_keys (`set[str]`, *optional*): Keys that may change for the stages that have not begun. They are
            compared by stage, so that those at the top level may change if all stages that apply them may.

    Raises:
        ConfigError: If another key differs from the recorded recipe, or the record cannot be read.
    """
    path = folder / "recipe.yaml"
    new = json.loads(json.dumps(values, default=str))
    if path.exists():
        try:
            recorded = dict(yaml.safe_load(path.read_text(encoding="utf-8")))
        except (OSError, TypeError, ValueError, yaml.YAMLError) as error:
            raise ConfigError(
                f"output_dir: {path} is not the record of a recipe; delete it to continue"
            ) from error
        for stage in new | recorded:
            keys = free_keys | speed_keys if stage == "" or stage in new_stages else free_keys
            hints = dict.fromkeys(speed_keys, f"set it under {' and '.join(sorted(new_stages))} only")
            _compare(
                folder,
                stage,
                new.get(stage) or {},
                recorded.get(stage) or {},
                keys,
                hints if new_stages else {},
            )
    write_text(path, yaml.safe_dump(new, sort_keys=False))


def _compare(
    folder: Path, stage: str, new: dict, recorded: dict, free_keys: Set[str], hints: Mapping[str, str]
) -> None:
    for key in sorted((new | recorded).keys() - free_keys - {"output_dir"}):
        if new.get(key) != recorded.get(key):
            name = f"{stage}.{key}" if stage else key
            hint = hints.get(key, "choose another output_dir, or delete that folder")
            raise ConfigError(
                f"output_dir: {folder} holds a run of another recipe ({name} is {recorded.get(key)!r} there "
                f"and {new.get(key)!r} here); {hint}"
            )
