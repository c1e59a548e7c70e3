"""Protect the output of a command: one process at a time, and one recipe for all restarts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Set
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from crosstask.utils.errors import ConfigError
from crosstask.utils.files import write_text

RECORD_NAME = "recipe.yaml"  # in an output folder: the recipe that it belongs to


def lock_folder(folder: Path) -> FileLock:
    """
    Create an output folder and lock it until `release()` is called on the lock or the process ends.

    Raises:
        ConfigError: If another process holds the lock, or the folder cannot be written to.
    """
    return _lock(folder / ".lock", f"output_dir: {folder}")


def lock_file(path: Path) -> FileLock:
    """
    Lock an output file, which need not exist, as [`lock_folder`] does a folder.

    Raises:
        ConfigError: If another process holds the lock, or the file's folder cannot be written to.
    """
    return _lock(path.with_name(f".{path.name}.lock"), f"-o: {path}")


def _lock(path: Path, place: str) -> FileLock:
    lock = FileLock(path, timeout=0)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise ConfigError(f"{place} is in use by another process") from error
    except OSError as error:
        raise ConfigError(f"{place} cannot be written to ({error.strerror})") from error
    return lock


def claim_folder(
    folder: Path,
    values: Mapping[str, Mapping[str, Any]],
    free_keys: Set[str],
    new_stages: Set[str] = frozenset(),
    speed_keys: Set[str] = frozenset(),
    growing_stages: Set[str] = frozenset(),
    growing_keys: Set[str] = frozenset(),
    name: str = RECORD_NAME,
) -> None:
    """
    Record a recipe in its output folder, and refuse a folder of a different recipe.

    The record is a recipe itself: the values at the top level, and under each stage those that differ.

    Args:
        folder (`Path`): The output folder.
        values (`dict[str, dict]`): The values of the recipe by stage; those at the top level under "".
        free_keys (`set[str]`): Keys that may change when the command is started again.
        new_stages (`set[str]`, *optional*): Stages that have not begun.
        speed_keys (`set[str]`, *optional*): Keys that may change for the stages that have not begun. They are
            compared by stage, so that those at the top level may change if all stages that apply them may.
        growing_stages (`set[str]`, *optional*): Stages that can train longer.
        growing_keys (`set[str]`, *optional*): Keys whose numbers may become larger for these stages.
        name (`str`, *optional*, defaults to `"recipe.yaml"`): The name of the record.

    Raises:
        ConfigError: If another key differs from the recorded recipe, or the record cannot be read.
    """
    path = folder / name
    new = json.loads(json.dumps(values, default=str))
    stages = [stage for stage in new if stage]
    finished = f"its model is finished: set model: {folder / 'crosstask'} and another output_dir to go on"
    record = {**new[""], **{stage: _get_differences(new[stage], new[""]) for stage in stages}}
    if path.exists():
        recorded = read_record(path, stages)
        for stage in ("", *stages):
            keys = free_keys | speed_keys if stage == "" or stage in new_stages else free_keys
            growing = growing_keys if stage == "" or stage in growing_stages else frozenset()
            _compare(
                folder,
                stage,
                {**new[""], **new[stage]},
                recorded[stage],
                keys,
                growing,
                _make_hints(new_stages, speed_keys) | _make_hints(growing_stages, growing_keys, finished),
            )
    write_text(path, yaml.safe_dump(record, sort_keys=False, allow_unicode=True))


def read_record(path: Path, stages: Iterable[str]) -> dict[str, dict[str, Any]]:
    """
    Return the values of a recorded recipe by stage; those at the top level under "".

    Args:
        path (`Path`): The record that [`claim_folder`] has written.
        stages (`Iterable[str]`): The names of stages; those that the record lacks have the values of the top
            level.

    Raises:
        ConfigError: If it cannot be read.
    """
    try:
        top = dict(yaml.safe_load(path.read_text(encoding="utf-8")))
        sections = {stage: dict(top.pop(stage, None) or {}) for stage in stages}
    except (OSError, TypeError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(
            f"output_dir: {path} is not the record of a recipe; delete it to continue"
        ) from error
    return {"": top, **{stage: top | section for stage, section in sections.items()}}


def _get_differences(values: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in top or top[key] != value}


def _make_hints(stages: Set[str], keys: Set[str], none_left: str | None = None) -> dict[str, str]:
    """Return what to do if one of the keys differs: to change it for `stages` only, if there are any."""
    hint = f"set it under {' and '.join(sorted(stages))} only" if stages else none_left
    return {} if hint is None else dict.fromkeys(keys, hint)


def _compare(
    folder: Path,
    stage: str,
    new: dict,
    recorded: dict,
    free_keys: Set[str],
    growing_keys: Set[str],
    hints: Mapping[str, str],
) -> None:
    for key in sorted((new | recorded).keys() - free_keys - {"output_dir"}):
        before, after = recorded.get(key), new.get(key)
        if before == after:
            continue
        if key in growing_keys and isinstance(before, (int, float)) and isinstance(after, (int, float)):
            if after > before > 0:
                continue
        name = f"{stage}.{key}" if stage else key
        hint = hints.get(key, "choose another output_dir, or delete that folder")
        raise ConfigError(
            f"output_dir: {folder} holds a run of another recipe ({name} is {before!r} there and {after!r} "
            f"here); {hint}"
        )
