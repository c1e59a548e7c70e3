"""Values of a recipe are converted to the types of a dataclass, in a file and on the command line alike."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal, Union

import pytest
import yaml

from crosstask.utils.errors import ConfigError
from crosstask.utils.recipes import (
    convert_value,
    get_field_types,
    make_arguments,
    make_parser,
    read_flags,
    read_values,
    read_yaml,
)


class Strategy(Enum):
    NO = "no"
    STEPS = "steps"


@dataclass
class Arguments:
    data: str = field(metadata={"help": "The rows."})
    systems: list[str | dict] = field(default_factory=list, metadata={"help": "What to compare."})
    rate: float | None = field(default=None, metadata={"help": "A rate."})
    steps: int = field(default=3, metadata={"help": "A number."})
    options: dict | None = field(default=None, metadata={"help": "A mapping."})
    derived: int = field(init=False, default=0, metadata={"help": "Not a key."})

    def __post_init__(self):
        if self.steps < 1:
            raise ValueError("steps: expected\n1 or more")


CONVERTED = [
    ("1e-4", float, 1e-4),
    (3, float, 3.0),
    ("5", int, 5),
    (True, bool, True),
    ("no", bool, False),
    (1, bool, True),
    ("3.0.0", str, "3.0.0"),
    (3.5, str, "3.5"),
    (False, str, "no"),
    (None, int, None),
    ({"a": [1]}, dict, {"a": [1]}),
    ({"a": 1}, dict[str, Any] | str | None, {"a": 1}),
    ({"passage": False, "id": 0}, dict[str, str] | None, {"passage": "no", "id": "0"}),
    ('{"a": 1}', dict | str | None, '{"a": 1}'),
    ("k", list[str], ["k"]),
    (["k", 1, False], list[str], ["k", "1", "no"]),
    ([], list[str], []),
    ("all", str | list[str] | None, "all"),
    (["all"], Union[str, list[str], None], ["all"]),  # noqa: UP007  (transformers 4.57)
    (["lead-3", {"kind": "oracle"}], list[str | dict], ["lead-3", {"kind": "oracle"}]),
    (False, Strategy | str, "no"),
    ("steps", Strategy | None, "steps"),
    (["steps"], str | list[Strategy], ["steps"]),
    (False, str | Literal[False] | None, False),
    (True, str | bool, True),
    ("all", str | bool, "all"),
    (object, Any, object),
]


@pytest.mark.parametrize(("value", "annotation", "expected"), CONVERTED, ids=str)
def test_a_value_is_converted_to_the_type_of_its_field(value, annotation, expected):
    converted = convert_value(value, annotation)
    assert converted == expected and type(converted) is type(expected)


REFUSED = [
    ("abc", float, "expected a number, got 'abc'"),
    (True, float, "expected a number, got True"),
    ([1, 2], float | None, "expected a number, got [1, 2]"),
    (1.5, int, "expected an integer, got 1.5"),
    (False, int, "expected an integer, got False"),
    ("maybe", bool | None, "expected true or false, got 'maybe'"),
    (2, bool, "expected true or false, got 2"),
    ({"a": 1}, str, "expected a string, got {'a': 1}"),
    (True, str, "expected a string, got True"),
    ("article", dict | None, "expected a mapping of keys to values, got 'article'"),
    ([], dict | str, "expected a mapping of keys to values or a string, got []"),
    ([None], list[str], "expected a list of strings, got [None]"),
    ([["a"]], list[str], "expected a list of strings, got [['a']]"),
    ({"a": 1}, list[str], "expected a list of strings, got {'a': 1}"),
    ("sometimes", Strategy | str, "expected one of no, steps, got 'sometimes'"),
    (3, Arguments, "expected Arguments, got 3"),
]


@pytest.mark.parametrize(("value", "annotation", "message"), REFUSED, ids=str)
def test_a_value_of_another_type_is_refused_with_what_was_expected(value, annotation, message):
    with pytest.raises(ValueError) as error:
        convert_value(value, annotation)
    assert str(error.value) == message


WORDS = [
    (["--options", "{a: 1}"], {"options": {"a": 1}}),
    (["--options", "a: 1"], {"options": {"a": 1}}),
    (["--options", "null"], {"options": None}),
    (["--data", "{question}"], {"data": "{question}"}),
    (["--data", "Q: {question}"], {"data": "Q: {question}"}),
    (["--data", "- {question}\n"], {"data": "- {question}\n"}),
    (["--data", "row #3"], {"data": "row #3"}),
    (["--data", "'no'"], {"data": "no"}),
    (["--data=a=b"], {"data": "a=b"}),
    (["--systems", "lead-3", "{kind: oracle}"], {"systems": ["lead-3", {"kind": "oracle"}]}),
    (["--systems", "[lead-3, oracle]"], {"systems": ["lead-3", "oracle"]}),
    (["--fuse.rate", "-1e-5", "--fast"], {"fuse.rate": "-1e-5", "fast": True}),
    (["--no-such-key", "a: b"], {"no_such_key": {"a": "b"}}),
]


@pytest.mark.parametrize(("words", "expected"), WORDS, ids=str)
def test_a_flag_reads_like_a_value_in_the_file(words, expected):
    assert dict(read_flags(words, get_field_types(Arguments))) == expected


def test_paths_at_home_are_expanded_at_any_depth(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "recipe.yaml").write_text(
        "data: ~/rows.csv\nsystems: [lead-3, {checkpoint: ~/a/b}]\noptions: {prompt: '~ 3', path: ~}"
    )
    values = read_values("~/recipe.yaml", ["--data=~/x y.csv", "--systems={a: ~/b}", "~/c"], Arguments)
    assert values["options"] == {"prompt": "~ 3", "path": None}
    assert values["data"] == f"{tmp_path}/x y.csv"
    assert values["systems"] == [{"a": f"{tmp_path}/b"}, f"{tmp_path}/c"]
    values = read_values("~/recipe.yaml", [], Arguments)
    assert values["data"] == f"{tmp_path}/rows.csv"
    assert values["systems"] == ["lead-3", {"checkpoint": f"{tmp_path}/a/b"}]


def test_flags_override_the_file(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({"data": 5, "rate": "1e-3", "steps": 2}))
    values = read_values(path, ["--steps", "7", "--systems", "oracle"], Arguments)
    assert values == {"data": "5", "rate": 1e-3, "steps": 7, "systems": ["oracle"]}
    assert make_arguments(Arguments, values, path) == Arguments("5", ["oracle"], 1e-3, 7)


def test_a_mistake_names_its_source_and_key(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("rate: fast")
    with pytest.raises(ConfigError, match="recipe.yaml: rate: expected a number, got 'fast'"):
        read_values(path, [], Arguments)
    path.write_text("rate: 1")
    with pytest.raises(ConfigError, match="^--steps: expected a value after it"):
        read_values(path, ["--steps"], Arguments)
    with pytest.raises(ConfigError, match="command line: unknown key 'derived'"):
        read_values(path, ["--derived", "1"], Arguments)
    with pytest.raises(ConfigError, match="recipe.yaml: data: expected a value"):
        make_arguments(Arguments, {"data": None}, path)
    with pytest.raises(ConfigError, match="^recipe.yaml: steps: expected 1 or more$"):
        make_arguments(Arguments, {"data": "a", "steps": 0}, "recipe.yaml")


def test_help_names_every_key(capsys):
    with pytest.raises(SystemExit) as end:
        make_parser("command", "Do it.", Arguments).parse_args(["--help"])
    printed = capsys.readouterr().out
    assert end.value.code == 0 and all(name in printed for name in get_field_types(Arguments))


@pytest.mark.parametrize(
    "text, key, line", [("a: 1\nb: 2\na: 3\n", "'a'", 3), ("c:\n  d: 1\n  d: 2\n", "'d'", 3)]
)
def test_a_key_given_twice_is_an_error(tmp_path, text, key, line):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(
        ConfigError, match=rf"recipe.yaml, line {line}: not valid YAML \(the key {key} is given twice\)"
    ):
        read_yaml(path)


def test_a_flag_without_a_value_is_named():
    with pytest.raises(ConfigError, match="^--output_dir: expected a value after it"):
        dict(read_flags(["--output_dir"], {"output_dir": str}))
    assert dict(read_flags(["--fast"], {"fast": bool})) == {"fast": True}


def test_a_value_in_the_place_of_the_recipe_is_named(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"passage": "It rained."}\n{"passage": "It snowed."}\n')
    with pytest.raises(
        ConfigError, match="rows.jsonl: expected a recipe, CONFIG.yaml, as the first argument"
    ):
        read_yaml(path)
