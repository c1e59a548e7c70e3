import pytest
from reader_helpers import get_error, read_leniently, write_jsonl

from crosstask.data.readers.squality import PLOT_QUESTION


def make_story(number, **changes):
    def ask(question_number, text):
        responses = [
            {"response_text": f"{question_number}{letter}", "uid": "u", "worker_id": "w"} for letter in "ab"
        ]
        return {"question_text": text, "question_number": question_number, "responses": responses}

    story = {
        "metadata": {"passage_id": f"s{number}", "uid": "x", "license": "…"},
        "document": f"Story {number}.",
        "questions": [ask(1, PLOT_QUESTION), ask(2, "Who is he?")],
    }
    return {**story, **changes}


def test_a_story_gives_one_row_per_response(tmp_path):
    path = write_jsonl(tmp_path / "dev.jsonl", [make_story(1)])
    rows, rejects = read_leniently(path, "fuse")
    assert not rejects
    assert [(row["id"], row["question"], row["answer"], row["summary"]) for row in rows] == [
        ("s1-q1-r1", PLOT_QUESTION, "1a", "1a"),
        ("s1-q1-r2", PLOT_QUESTION, "1b", "1b"),
        ("s1-q2-r1", "Who is he?", "2a", "2a"),
        ("s1-q2-r2", "Who is he?", "2b", "2b"),
    ]


def test_only_the_plot_serves_summarize(tmp_path):
    rows, _ = read_leniently(write_jsonl(tmp_path / "dev.jsonl", [make_story(1)]), "summarize")
    assert [(row["id"], row["question"]) for row in rows] == [("s1-q1-r1", ""), ("s1-q1-r2", "")]


@pytest.mark.parametrize(
    ("story", "problem"),
    [
        (make_story(2, metadata={}), "expected a story of SQuALITY"),
        (make_story(2, questions=[{"question_text": "?"}]), "has no question for stage summarize"),
        ({"metadata": {}, "document": "x"}, "the column 'questions' is missing"),
    ],
)
def test_a_malformed_story_is_an_error_or_a_reject(tmp_path, story, problem):
    path = write_jsonl(tmp_path / "rows.jsonl", [make_story(1), story])
    assert f"rows.jsonl, line 2: {problem}" in get_error(path, "summarize")
    rows, rejects = read_leniently(path, "summarize")
    assert rows and [reject["line"] for reject in rejects] == [2]
    assert rejects[0]["reason"].startswith(problem)
