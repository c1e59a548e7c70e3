"""Rows, files of rows, and what reading them gives, for the tests of the readers."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from crosstask.data.readers import iter_rows, read_rows
from crosstask.utils.errors import DataError

# Samples of real corpora; a clone of the repository alone does not have them.
REAL_DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
needs_real_data = pytest.mark.skipif(not REAL_DATA.exists(), reason=f"no real data at {REAL_DATA}")
needs_aclsum = pytest.mark.skipif(find_spec("aclsum") is None, reason="aclsum is not installed")


def make_row(number, **changes):
    """Return a row with all columns of the schema."""
    row = {
        "id": f"r{number}",
        "source": "invented",
        "passage": f"Passage {number}: the mill of town {number} opened in {1800 + number}.",
        "question": f"When did the mill of town {number} open?",
        "answer": str(1800 + number),
        "summary": f"Town {number} has a mill since {1800 + number}.",
        "answerable": 1,
    }
    return {**row, **changes}


def write_jsonl(path, records):
    """Write records as JSON Lines and return the path as a string."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return str(path)


def concatenate(splits):
    """Return the rows of all splits in one list."""
    return [row for rows in splits.values() for row in rows]


def get_error(*args, **kwargs):
    """Return the message of the `DataError` that `read_rows` raises; it is one line."""
    with pytest.raises(DataError) as error:
        read_rows(*args, **kwargs)
    message = str(error.value)
    assert "\n" not in message
    return message


def read_leniently(data, stage="build", **arguments):
    """Return the rows and the rejects of `iter_rows`."""
    rejects = []
    rows = [row for _, _, row in iter_rows(data, stage, reject=rejects.append, **arguments)]
    return rows, rejects
