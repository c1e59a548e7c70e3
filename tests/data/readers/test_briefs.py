import sys
from types import ModuleType

import pytest
from reader_helpers import get_error, make_row

from crosstask.data.readers import read_rows


@pytest.fixture
def calls(monkeypatch):
    recorded = []

    def generate(task, split, passages, **arguments):
        recorded.append((task, split, passages, arguments))
        yield from (make_row(n, id=f"{split}-{n}") for n in range(3))

    module = ModuleType("crosstask.data.briefs")
    module.generate = generate
    monkeypatch.setitem(sys.modules, "crosstask.data.briefs", module)
    return recorded


def test_every_split_is_generated_for_the_stage(calls):
    splits = read_rows("briefs", "fuse")
    assert [call[:3] for call in calls] == [
        ("fuse", "train", 4000),
        ("fuse", "validation", 200),
        ("fuse", "test", 300),
    ]
    assert splits["test"].to_list() == [make_row(n, id=f"test-{n}") for n in range(3)]


def test_options_reach_the_generator(calls):
    options = {"passages": {"train": 5, "test": 0}, "seed": 3, "questions": 2, "matching": 0.5}
    assert set(read_rows("briefs", "fuse", options=options)) == {"train", "validation"}
    arguments = {"seed": 3, "questions": 2, "matching": 0.5}
    assert calls == [("fuse", "train", 5, arguments), ("fuse", "validation", 200, arguments)]


@pytest.mark.parametrize(
    ("passages", "problem"),
    [
        (500, "passages is 500, expected"),
        ({"train": -1}, "expected a number"),
        ({"train": "many"}, "expected a number"),
        ({"trian": 5}, "did you mean 'train'"),
    ],
)
def test_wrong_numbers_of_passages_are_errors(calls, passages, problem):
    assert problem in get_error("briefs", "fuse", options={"passages": passages})
