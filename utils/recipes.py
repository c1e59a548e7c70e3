"""Read recipes: turn a YAML file and command-line flags into dataclasses with checked, typed values."""

from __future__ import annotations

import argparse
import math
import os
import re
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping
from dataclasses import MISSING, Field, fields
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml
from transformers.hf_argparser import string_to_bool

from crosstask.utils.errors import ConfigError, suggest

TOKEN_KEYS = ("hub_token", "push_to_hub_token")  # refused, because a recipe is copied into the output folder
COMMAND_LINE = "command line"  # where errors say that a flag is wrong
TYPE_NAMES: dict[Any, str] = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "a string",
    list: "a list",
    dict: "a mapping of keys to values",
}
T = TypeVar("T")
_RECIPE_SUFFIXES = (".yaml", ".yml", ".json", "")


def make_parser(
    prog: str, description: str, *argument_classes: type, note: str = ""
) -> argparse.ArgumentParser:
    """
    Return the parser of a command that takes a recipe; it leaves the flags to [`read_flags`].

    Args:
        prog (`str`): The name of the command.
        description (`str`): What the command does, for `--help`.
        argument_classes (`type`): Dataclasses whose fields are the keys that `--help` lists.
        note (`str`, *optional*): What `--help` adds about flags.
    """
    keys = [
        f"  {field.name:25} {_get_help(field)}{_describe_default(field)}"
        for arguments_class in argument_classes
        for field in fields(arguments_class)
    ]
    parser = argparse.ArgumentParser(
        prog=prog,
        usage="%(prog)s config [--key value ...]",
        description=description,
        epilog="\n".join([f"Any key of the recipe can be set with --key value{note}:", *keys]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("config", help="the recipe, a YAML file; see configs/")
    return parser


def _get_help(field: Field) -> str:
    text = field.metadata["help"]
    return text if text.endswith("...") else text.removesuffix(".")


def _describe_default(field: Field) -> str:
    """Return the default of a field in parentheses; nothing if there is none, or if the help has it."""
    default = field.default_factory() if field.default_factory is not MISSING else field.default
    if default is MISSING or default is None or default == "":
        return " (required)" if default is MISSING else ""
    text = yaml.safe_dump(default, default_flow_style=True).partition("\n...")[0].strip()
    return f" (default: {text})"


def read_values(path: str | os.PathLike, flags: Iterable[str], arguments_class: type) -> dict[str, Any]:
    """
    Read the recipe of a command that has no stages.

    Args:
        path (`str` or `os.PathLike`): A YAML file. Its keys are fields of `arguments_class`.
        flags (`Iterable[str]`): `--key value`; flags override the file.
        arguments_class (`type`): A dataclass.

    Returns:
        `dict[str, Any]`: The values that the file and the flags set, in the types of the fields.
    """
    types = get_field_types(arguments_class)
    values = convert_values(read_yaml(path), types, path)
    return values | convert_values(dict(read_flags(flags, types)), types, COMMAND_LINE)


def make_arguments(arguments_class: type[T], values: Mapping[str, Any], where: str | os.PathLike) -> T:
    """
    Create a dataclass of arguments; a value of `None` means the field's default.

    Raises:
        ConfigError: If a required field is missing, or the dataclass refuses a value. The sentence begins
            with `where`.
    """
    values = {key: value for key, value in values.items() if value is not None}
    for field in fields(arguments_class):  # type: ignore[arg-type]
        if field.default is MISSING and field.default_factory is MISSING and field.name not in values:
            raise ConfigError(f"{where}: {field.name}: expected a value, as this key has no default")
    try:
        return arguments_class(**values)
    except (ImportError, OSError, TypeError, ValueError) as error:
        raise ConfigError(f"{where}: {' '.join(str(error).split())}") from error


def read_yaml(path: str | os.PathLike) -> dict:
    """Read the mapping in a YAML file; an empty file is an empty mapping. `~/` begins a path at home."""
    if Path(path).suffix.lower() not in _RECIPE_SUFFIXES:  # the value of a key, for example --data rows.csv
        raise ConfigError(f"{path}: expected a recipe, CONFIG.yaml, as the first argument, before any --key")
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise ConfigError(f"{path}: cannot be read ({reason}), expected a YAML file") from error
    try:
        values = yaml.load(text, _UniqueKeyLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}, line {mark.line + 1}" if mark else path
        problem = getattr(error, "problem", None) or getattr(error, "reason", "unreadable")
        raise ConfigError(f"{where}: not valid YAML ({problem})") from error
    return check_mapping(_expand_home(values), path)


class _UniqueKeyLoader(yaml.SafeLoader):
    """Load YAML, and refuse a key that a mapping has twice; YAML itself would take the second value."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"the key {key!r} is given twice", problem_mark=key_node.start_mark
                )
            seen.add(key if isinstance(key, Hashable) else None)
        return super().construct_mapping(node, deep)


def _expand_home(value: Any) -> Any:
    """Replace the `~` of paths such as `~/runs` in all strings of a value, at any depth."""
    if isinstance(value, dict):
        return {key: _expand_home(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_expand_home(item) for item in value]
    return os.path.expanduser(value) if isinstance(value, str) and re.match(r"~\w*/\S", value) else value


def check_mapping(value: Any, where: str | os.PathLike) -> dict:
    """Return `value` if it is a mapping, and an empty mapping for `None`, e.g. a file of only comments."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: expected a mapping of keys to values, got {type(value).__name__}")
    return value


def read_flags(flags: Iterable[str], types: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """
    Read flags, each of which reads like a value in the file.

    Args:
        flags (`Iterable[str]`): `--key value`, `--key value value` for a list, `--key` for true; the key may
            have a prefix, as in `--stage.key`, and hyphens for underscores.
        types (`Mapping[str, Any]`): Annotations of the keys.

    Yields:
        `tuple[str, Any]`: The key, with its prefix, and the value.
    """
    pairs = []
    for word in flags:
        if word.startswith("--"):
            key, equals, value = word[2:].partition("=")
            pairs.append((key.replace("-", "_"), [value] if equals else []))
        elif not pairs:
            raise ConfigError(f"{COMMAND_LINE}: expected --key before {word!r}")
        else:
            pairs[-1][1].append(word)
    for key, words in pairs:
        annotation = types.get(key.rpartition(".")[2], Any)
        if not words and not _takes_true(annotation):
            raise ConfigError(f"--{key}: expected a value after it")
        values = [_read_word(word, annotation) for word in words] or [True]
        yield key, values[0] if len(values) == 1 else values


def _takes_true(annotation: Any) -> bool:
    try:
        convert_value(True, annotation)
    except ValueError:
        return False
    return True


def _read_word(word: str, annotation: Any) -> Any:
    """Read a word as YAML. Text needs no quotes for YAML's sake, e.g. `{question}` and `a: b`."""
    try:
        value = yaml.safe_load(word)
    except yaml.YAMLError:
        return word
    if isinstance(value, str):
        return _expand_home(value if word[0] in "'\"" else word)
    try:
        convert_value(value, annotation)
    except ValueError:
        return word
    return _expand_home(value)


def check_keys(values: Mapping[str, Any], known: Collection[str], where: str | os.PathLike) -> None:
    """Raise a `ConfigError` if a key is not in `known`, or is one for a secret token."""
    for key in values:
        if key in TOKEN_KEYS:
            raise ConfigError(f"{where}: {key}: a recipe holds no tokens; log in with `hf auth login`")
        if key not in known:
            hint = suggest(key, known) or "; see --help for the known keys"
            raise ConfigError(f"{where}: unknown key {key!r}{hint}")


def get_field_types(arguments_class: type) -> dict[str, Any]:
    """Return the annotations of the fields that the constructor of a dataclass takes, by name."""
    annotations = get_type_hints(arguments_class)
    return {field.name: annotations[field.name] for field in fields(arguments_class) if field.init}


def convert_values(
    values: Mapping[str, Any], types: Mapping[str, Any], where: str | os.PathLike
) -> dict[str, Any]:
    """Check the keys of `values` and convert its values to `types`; a `ConfigError` begins with `where`."""
    check_keys(values, types, where)
    converted = {}
    for key, value in values.items():
        try:
            converted[key] = convert_value(value, types[key])
        except ValueError as error:
            raise ConfigError(f"{where}: {key}: {error}") from error
    return converted


def convert_value(value: Any, annotation: Any) -> Any:
    """
    Convert a value that YAML has read to the type of a dataclass field.

    YAML's types are not always those that the user meant: it reads `1e-4` as text, and `no` as `False`, even
    where `no` is a string such as the name of an evaluation strategy. A list may be written as its only item.

    Args:
        value: `None`, a string, a number, a boolean, a list or a mapping. `None` stays `None`.
        annotation: The annotation of the field, e.g. `float | None` or `list[str]`. A member of an `Enum` is
            represented by its value; a mapping is converted inside if its annotation names a type, such as
            `dict[str, str]`.

    Raises:
        ValueError: If the value is none of what the annotation allows.
    """
    if value is None:
        return None
    is_union = get_origin(annotation) in (Union, UnionType)
    types = [type_ for type_ in get_args(annotation) if type_ is not NoneType] if is_union else [annotation]
    if any(_is_enum(type_) for type_ in types):
        types = [type_ for type_ in types if type_ is not str]  # only the choices of the Enum are valid
    # The type that the value already has comes first; a list and text, to which others convert, come last.
    types.sort(key=lambda t: (not _has_type(value, t), get_origin(t) is list, t is str))
    for type_ in types:
        try:
            return _convert(value, type_)
        except (TypeError, ValueError, argparse.ArgumentTypeError):
            continue
    raise ValueError(f"expected {' or '.join(map(_describe_type, types))}, got {value!r}")


def _has_type(value: Any, type_: Any) -> bool:
    type_ = get_origin(type_) or type_
    return type_ is not Any and isinstance(type_, type) and isinstance(value, type_)


def _is_enum(type_: Any) -> bool:
    return isinstance(type_, type) and issubclass(type_, Enum)


def _convert(value: Any, type_: Any) -> Any:
    origin = get_origin(type_) or type_
    if origin is Any:
        return value
    if origin is dict and isinstance(value, dict):
        item_type = (*get_args(type_), Any, Any)[1]
        return {key: convert_value(item, item_type) for key, item in value.items()}
    if origin is list:
        items = value if isinstance(value, list) else [value]
        if None in items:
            raise ValueError
        return [convert_value(item, *get_args(type_)) for item in items]
    if isinstance(value, (dict, list)):
        raise TypeError
    if origin is Literal:
        if not any(value is choice for choice in get_args(type_)):
            raise ValueError
        return value
    if type_ is bool:
        return string_to_bool(str(value))
    text = "no" if value is False else str(value)
    if _is_enum(type_):
        return type_(text).value
    if type_ in (int, float) or (type_ is str and value is not True):
        return type_(text)
    raise TypeError


def _describe_type(type_: Any) -> str:
    if _is_enum(type_):
        return f"one of {', '.join(member.value for member in type_)}"
    if get_args(type_) == (str,):
        return "a list of strings"
    origin = get_origin(type_) or type_
    return TYPE_NAMES.get(origin, getattr(origin, "__name__", str(origin)))


def check_minimum(minimum: float, arguments: object, *names: str) -> None:
    """Raise a `ConfigError` if one of the fields `names` of `arguments` is below a minimum or not finite."""
    for name in names:
        value = getattr(arguments, name)
        if value is not None and not minimum <= value < math.inf:
            finite = "" if math.isfinite(value) else "a finite number of "
            raise ConfigError(f"{name}: expected {finite}{minimum} or more, got {value}")
