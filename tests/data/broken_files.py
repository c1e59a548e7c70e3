"""Files with deliberately malformed rows, for the tests of readers and builder."""

import csv
import io
import json
import random


def make_good_row(number):
    return {
        "id": f"good{number}",
        "passage": f"The mill of town {number % 40} opened in {1800 + number % 40}, “as planned”.",
        "question": f"When did the mill of town {number % 40} open ({number})?",
        "answer": str(1800 + number % 40),
    }


def _change(**changes):
    return lambda row: json.dumps({**row, **changes}).encode()


def _remove(column):
    return lambda row: json.dumps({name: row[name] for name in row if name != column}).encode()


# Each function turns a good row into a malformed line. "answer not in the passage" is only a fault with
# `extractive`.
JSONL_KINDS = {
    "truncated": lambda row: json.dumps(row).encode()[:40],
    "not JSON": lambda row: b"id: 1, passage: the mill",
    "not UTF-8": lambda row: json.dumps(row).encode().replace(b"mill", b"m\xff\xfel"),
    "raw NUL bytes": lambda row: json.dumps(row).encode().replace(b"mill", b"mi\x00l"),
    "raw control character": lambda row: json.dumps(row).encode().replace(b"mill", b"mi\x07l"),
    "NUL escape": _change(passage="The mill\0 opened."),
    "lone surrogate": _change(question="When \ud83d?"),
    "lone surrogate in the id": lambda row: json.dumps({**row, "id": row["id"] + "\ud83d"}).encode(),
    "a list": lambda row: json.dumps(list(row.values())).encode(),
    "null": lambda row: b"null",
    "nested without end": lambda row: b"[" * 20_000,
    "a number of 5,000 digits": lambda row: b'{"id": ' + b"9" * 5000 + b"}",
    "no passage": _remove("passage"),
    "no question": _remove("question"),
    "passage is a list": _change(passage=["The mill"]),
    "question is a number": _change(question=7),
    "answer is an object": _change(answer={"text": "1800"}),
    "id is a list": _change(id=["a"]),
    "empty passage": _change(passage=" \n"),
    "null question": _change(question=None),
    "label out of range": _change(answerable=2),
    "label without an answer": _change(answerable=1, answer=""),
    "repeated row": lambda row: json.dumps(make_good_row(0)).encode(),
    "answer not in the passage": _change(answer="nowhere to be found"),
    "10 MB passage": _change(passage="The mill opened in 1800. " * 400_000),
}
CSV_KINDS = {
    "ragged, short": lambda row: b"lonely\n",
    "ragged, long": lambda row: _line(row)[:-1] + b",more,and more\n",
    "open quote": lambda row: b'"' + row["id"].encode() + b",the mill\n",
    "text behind a quote": lambda row: b'"' + row["id"].encode() + b'"mill,p,q,1800\n',
    "not UTF-8": lambda row: _line(row).replace(b"mill", b"m\xff\xfel"),
    "NUL byte": lambda row: _line(row).replace(b"mill", b"mi\x00l"),
    "empty passage": lambda row: _line({**row, "passage": ""}),
    "empty question": lambda row: _line({**row, "question": "  "}),
    "repeated row": lambda row: _line(make_good_row(0)),
    "answer not in the passage": lambda row: _line({**row, "answer": "nowhere to be found"}),
}


def write_broken_jsonl(path, broken=1000, good=200, seed=0):
    """Write a file with good rows and malformed ones of all kinds, in random order after a good first line.

    Returns:
        The good rows in their order, and the kind of each malformed line by its number.
    """
    kinds = [kind for kind in JSONL_KINDS if kind != "10 MB passage"]
    lines = [kinds[n % len(kinds)] for n in range(broken - 1)] + ["10 MB passage"] + [None] * good
    return _write(path, lines, seed, JSONL_KINDS, lambda row: json.dumps(row).encode(), b"")


def write_broken_csv(path, broken=500, good=200, seed=0):
    """Write the same as CSV; see `write_broken_jsonl`."""
    lines = [list(CSV_KINDS)[n % len(CSV_KINDS)] for n in range(broken)] + [None] * good
    return _write(path, lines, seed, CSV_KINDS, _line, b"id,passage,question,answer\n")


def _write(path, lines, seed, kinds, write, header):
    random.Random(seed).shuffle(lines)
    lines.insert(0, None)  # "good0", the id that the duplicates repeat
    rows, faults = [], {}
    with open(path, "wb") as file:
        file.write(header)
        for number, kind in enumerate(lines, start=1 + bool(header)):
            if kind is None:
                rows.append(make_good_row(len(rows)))
                line = write(rows[-1])
            else:
                faults[number] = kind
                line = kinds[kind]({**make_good_row(number), "id": f"bad{number}"})
            file.write(line.rstrip(b"\n") + b"\n")
    return rows, faults


def _line(row):
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(row.values())
    return text.getvalue().encode()
