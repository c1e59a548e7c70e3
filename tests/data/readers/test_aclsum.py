import sys
from collections import Counter

import pytest
from reader_helpers import get_error, needs_aclsum, write_jsonl

from crosstask.data.readers import aclsum, read_rows


def test_a_package_that_is_not_installed_is_an_error(monkeypatch):
    monkeypatch.setattr(aclsum, "find_spec", lambda _: None)
    assert "pip install aclsum" in get_error("aclsum", "fuse")


def install_fake_aclsum(folder, monkeypatch, lines):
    (folder / "dataset").mkdir()
    for name in ("train", "val", "test"):
        write_jsonl(folder / "dataset" / f"{name}.jsonl", lines)
    spec = type("Spec", (), {"submodule_search_locations": [str(folder)]})
    monkeypatch.setattr(aclsum, "find_spec", lambda _: spec)


def make_paper(number, **changes):
    sections = {"abstract": ["A .", "B ."], "introduction": ["C ."], "conclusion": ["D ."]}
    marks = {
        "challenge": {"abstract": [1, 0], "introduction": [1], "conclusion": [0]},
        "approach": {"abstract": [0, 1], "introduction": [0], "conclusion": [0]},
        "outcome": {"abstract": [0, 0], "introduction": [0], "conclusion": [1]},
    }
    summary = {"challenge": "Ch.", "approach": "Ap.", "outcome": "Ou."}
    return {
        "id": f"P{number}",
        "summary": summary,
        "sentences": sections,
        "highlights": marks,
        **changes,
    }


def test_the_rows_of_each_stage(tmp_path, monkeypatch):
    install_fake_aclsum(tmp_path, monkeypatch, [make_paper(0), make_paper(1)])
    rows = read_rows("aclsum", "summarize")["train"].to_list()
    assert [(r["passage"], r["question"], r["summary"]) for r in rows] == [
        ("A . B . C . D .", "", "Ch. Ap. Ou.")
    ] * 2
    rows = read_rows("aclsum", "answer")["train"].to_list()
    assert [(r["question"], r["answer"]) for r in rows[:3]] == [
        (aclsum.QUESTIONS["challenge"], "A . C ."),
        (aclsum.QUESTIONS["approach"], "B ."),
        (aclsum.QUESTIONS["outcome"], "D ."),
    ]
    rows = read_rows("aclsum", "fuse")["train"].to_list()
    aspect = {question: name for name, question in aclsum.QUESTIONS.items()}
    answers = {"challenge": "A . C .", "approach": "B .", "outcome": "D ."}
    assert all(row["answer"] == answers[aspect[row["question"]]] for row in rows)
    labeled = [(row["summary"], aspect[row["question"]], row["answerable"]) for row in rows]
    assert labeled[:2] == [("Ch.", "challenge", 1), ("Ch.", "approach", 0)]
    assert labeled[6:8] == [("Ch.", "challenge", 1), ("Ch.", "outcome", 0)]
    # Two papers have each wrong pair of aspects once.
    assert len({pair for pair in labeled if pair[2] == 0}) == 6


def test_an_aspect_without_highlights_is_rejected_instead_of_labeled_unanswerable(tmp_path, monkeypatch):
    paper = make_paper(1)
    paper["highlights"]["outcome"]["conclusion"] = [0]
    install_fake_aclsum(tmp_path, monkeypatch, [make_paper(0), paper])
    rejects = []
    splits = read_rows("aclsum", "answer", rejects=rejects)
    assert len(splits["train"]) == 5
    assert [(r["line"], r["id"], r["reason"]) for r in rejects] == [
        (2, "P1:outcome", "no highlighted sentence")
    ] * 3
    rejects.clear()
    assert len(read_rows("aclsum", "fuse", rejects=rejects)["train"]) == 10
    assert [reject["id"] for reject in rejects[:2]] == [
        "P1:challenge-outcome",
        "P1:outcome-outcome",
    ]


@pytest.mark.parametrize("changes", [{"summary": {}}, {"sentences": []}, {"highlights": None}])
def test_a_malformed_paper_is_an_error_that_names_the_line(tmp_path, monkeypatch, changes):
    install_fake_aclsum(tmp_path, monkeypatch, [make_paper(0), make_paper(1, **changes)])
    assert "train.jsonl, line 2, row 'P1': expected a paper of ACLSum" in get_error("aclsum", "fuse")


@needs_aclsum
@pytest.mark.parametrize(("stage", "rows_per_paper"), [("summarize", 1), ("answer", 3), ("fuse", 6)])
def test_the_papers_of_the_installed_package(stage, rows_per_paper):
    rejects = []
    splits = read_rows("aclsum", stage, rejects=rejects)
    sizes = {"train": 100, "validation": 50, "test": 100}
    assert {k: len(v) for k, v in splits.items()} == {k: n * rows_per_paper for k, n in sizes.items()}
    assert {k: len(set(v["passage"])) for k, v in splits.items()} == sizes
    assert not rejects
    assert "aclsum" not in sys.modules
    labels = {"fuse": {0: 300, 1: 300}}.get(stage, {None: 100 * rows_per_paper})
    assert Counter(splits["train"]["answerable"]) == labels
