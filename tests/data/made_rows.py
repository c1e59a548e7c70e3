"""Rows, files of them, and what reading them gives."""

import json
from importlib.util import find_spec

import pytest

from crosstask.data.readers import iter_rows, read_rows
from crosstask.utils.errors import DataError

needs_aclsum = pytest.mark.skipif(find_spec("aclsum") is None, reason="aclsum is not installed")


def joint(number, **changes):
    row = {
        "id": f"r{number}",
        "source": "made up",
        "passage": f"Passage {number}: the mill of town {number} opened in {1800 + number}.",
        "question": f"When did the mill of town {number} open?",
        "answer": str(1800 + number),
        "summary": f"Town {number} has a mill since {1800 + number}.",
        "answerable": 1,
    }
    return {**row, **changes}


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def all_rows(splits):
    return [row for split in splits.values() for row in split]


def failure(*args, **kwargs):
    with pytest.raises(DataError) as error:
        read_rows(*args, **kwargs)
    message = str(error.value)
    assert "\n" not in message
    return message


def read_leniently(data, stage="build", **how):
    rejects = []
    return [row for _, _, row in iter_rows(data, stage, reject=rejects.append, **how)], rejects
