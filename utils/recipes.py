"""Recipe files and flags, read into dataclasses: whatever is wrong in them is told in one sentence."""

import argparse
import contextlib
import difflib
import io
import json
import math
import re
from dataclasses import fields
from pathlib import Path
from typing import get_args, get_origin, get_type_hints

import yaml
from filelock import FileLock, Timeout
from transformers import HfArgumentParser

from crosstask.utils.errors import ConfigError
from crosstask.utils.files import write_text

TOKENS = ("hub_token", "push_to_hub_token")  # never in a recipe: it is written into the run's folder


def read_yaml(path):
    """The mapping of a YAML file."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise ConfigError(f"{path}: cannot be read ({reason}), expected a YAML file") from error
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}, line {mark.line + 1}" if mark else path
        problem = getattr(error, "problem", None) or getattr(error, "reason", "unreadable")
        raise ConfigError(f"{where}: not valid YAML ({problem})") from error
    return as_mapping(values, path)


def read_values(path, overrides, kind, needed):
    """
    The values of a recipe that has no stages.

    Args:
        path (`str` or `os.PathLike`): A YAML file whose keys are fields of `kind`.
        overrides (`list[str]`): Flags, `--key value`; they win over the file.
        kind (`type`): A dataclass.
        needed (`dict[str, type]`): Keys that must be there, and what their values must be.
    """
    values, flags = read_yaml(path), dict(read_flags(overrides))
    for source, table in ((path, values), ("command line", flags)):
        check_keys(table, get_field_names(kind), source)
    values |= flags
    for name, wanted in needed.items():
        if not isinstance(values.get(name), wanted):
            raise ConfigError(f"{path}: {name}: expected a {wanted.__name__}, got {values.get(name)!r}")
    return values


def command_line(prog, description, kind):
    """The parser of a command that takes a recipe and, as flags, the fields of the dataclass `kind`."""
    keys = "\n".join(
        f"  {name:18}{entry.metadata['help']}" for name, entry in kind.__dataclass_fields__.items()
    )
    parser = argparse.ArgumentParser(
        prog=prog,
        description=description,
        epilog=f"Any key of the recipe can be given as --key value:\n{keys}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config", help="the recipe, a YAML file; see configs/")
    return parser


def as_mapping(value, where):
    """`value`, if it is a mapping; an empty one where nothing was said."""
    if value is None:  # a file or stage of nothing but comments
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: expected a mapping of keys to values, got {type(value).__name__}")
    return value


def read_flags(flags):
    """`--key value ...` as pairs; several values make a list, none makes a switch."""
    pairs = []
    for word in flags:
        if word.startswith("--"):
            key, equals, value = word[2:].partition("=")
            pairs.append((key, [value] if equals else []))
        elif not pairs:
            raise ConfigError(f"command line: expected --key before {word!r}")
        else:
            pairs[-1][1].append(word)
    for key, words in pairs:
        key = key.replace("-", "_")
        values = [_flag_value(key, word) for word in words] or [True]
        yield key, values[0] if len(values) == 1 else values


def _flag_value(key, word):
    """As it would be read in the file, but text with colons or braces needs no quotes beside the shell's."""
    try:
        value = yaml.safe_load(word)
    except yaml.YAMLError:
        return word
    is_text = key == "prompt" or (isinstance(value, dict) and not word.startswith("{"))
    return word if is_text else value


def check_keys(table, known, where):
    """Refuse a key that is not known, and name the nearest one that is."""
    for key in table:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else "see the README for the keys there are"
            raise ConfigError(f"{where}: unknown key {key!r}; {hint}")
        if key in TOKENS:
            raise ConfigError(f"{where}: {key}: a recipe holds no tokens; log in with `hf auth login`")


def parse(kind, table, where):
    """Through `HfArgumentParser`, so that a value means the same in the file and as a flag."""
    hints = get_type_hints(kind)
    words, lists = [], {}
    for key, value in table.items():
        if isinstance(value, list):
            if not any(get_origin(hint) is list for hint in (hints[key], *get_args(hints[key]))):
                raise ConfigError(f"{where}: {key}: expected one value, got {value}")
            # All are lists of texts; the parser takes no list for `report_to` and its like.
            lists[key] = [_word(item) for item in value]
        elif value is not None:
            words.append(f"--{key}={_word(value)}")  # one word, as the value may begin with a dash
    parser = HfArgumentParser(kind, allow_abbrev=False)
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            values = vars(parser.parse_args(words))
        return kind(**values | lists)
    except SystemExit as error:
        reason = complaint.getvalue().strip().splitlines()[-1].partition("error: ")[2]
        reason = re.sub(r"^argument --(\w+)\S*:", r"\1:", reason)
        raise ConfigError(f"{where}: {reason}") from error
    except (ImportError, OSError, TypeError, ValueError) as error:
        # A dataclass's own check, or transformers' of its arguments.
        raise ConfigError(f"{where}: {' '.join(str(error).split())}") from error


def _word(value):
    """A value as a word of the command line."""
    if value is False:
        return "no"  # what YAML makes of `eval_strategy: no`; the parser knows it for false as well
    return json.dumps(value, default=str) if isinstance(value, dict) else str(value)


def get_field_names(kind):
    """The keys that a dataclass takes."""
    return {f.name for f in fields(kind) if f.init}


def parse_mapping(value, name):
    """A mapping that came through the argument parser as JSON."""
    if value is None or isinstance(value, dict):
        return value
    try:
        value = json.loads(value)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise ConfigError(f"{name}: expected a mapping of keys to values")
    return value


def check_minimum(minimum, arguments, *names):
    """Refuse arguments of these names that are below a minimum, or no finite numbers."""
    for name in names:
        value = getattr(arguments, name)
        if value is not None and not minimum <= value < math.inf:
            finite = "" if math.isfinite(value) else "a finite number of "
            raise ConfigError(f"{name}: expected {finite}{minimum} or more, got {value}")


def lock_folder(folder):
    """Make an output folder and take its lock, which holds until `release()` or the end of the process."""
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise ConfigError(f"output_dir: {folder} is in use by another process") from error
    except OSError as error:
        raise ConfigError(f"output_dir: {folder} cannot be written to ({error.strerror})") from error
    return lock


def claim_folder(folder, values, free_keys):
    """
    Write a recipe into its output folder; refuse a folder that belongs to another one.

    Args:
        folder (`Path`): The output folder.
        values (`dict`): Keys to values by stage; under "" those at the top.
        free_keys (`set[str]`): Keys that may differ from what the folder was begun with.
    """
    path = folder / "recipe.yaml"
    mine = json.loads(json.dumps(values, default=str))
    if path.exists():
        try:
            theirs = dict(yaml.safe_load(path.read_text(encoding="utf-8")))
        except (OSError, TypeError, ValueError, yaml.YAMLError) as error:
            raise ConfigError(
                f"output_dir: {path} is not the record of a recipe; delete it to go on"
            ) from error
        for stage in mine | theirs:
            here, there = mine.get(stage) or {}, theirs.get(stage) or {}
            for key in sorted((here | there).keys() - free_keys - {"output_dir"}):
                if here.get(key) != there.get(key):
                    name = f"{stage}.{key}" if stage else key
                    raise ConfigError(
                        f"output_dir: {folder} holds a run of another recipe ({name} is "
                        f"{there.get(key)!r} there and {here.get(key)!r} here); choose another output_dir, "
                        "or delete that folder"
                    )
    write_text(path, yaml.safe_dump(mine, sort_keys=False))
