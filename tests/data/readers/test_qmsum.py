import pytest
from reader_helpers import get_error, read_leniently, write_jsonl


def make_meeting(number, **changes):
    meeting = {
        "topic_list": [],
        "general_query_list": [{"query": "Summarize the meeting.", "answer": f"They met {number}."}],
        "specific_query_list": [
            {"query": "Who left?", "answer": "B.", "relevant_text_span": [["0", "1"]]},
        ],
        "meeting_transcripts": [
            {"speaker": "A", "content": f"Hello {number} ."},
            {"speaker": "B", "content": "Bye ."},
        ],
    }
    return {**meeting, **changes}


def test_a_meeting_gives_one_row_per_query(tmp_path):
    path = write_jsonl(tmp_path / "train.jsonl", [make_meeting(1), make_meeting(2)])
    rows, rejects = read_leniently(path, "fuse")
    assert not rejects
    assert [row["id"] for row in rows] == ["train:1-g1", "train:1-s1", "train:2-g1", "train:2-s1"]
    assert rows[1] == {
        "id": "train:1-s1",
        "source": "train.jsonl",
        "passage": "A: Hello 1 .\nB: Bye .",
        "question": "Who left?",
        "answer": "B.",
        "summary": "B.",
        "answerable": 1,
    }
    assert read_leniently(path, "build")[0] == rows
    answers, _ = read_leniently(path, "answer")
    assert answers[1] == {**rows[1], "summary": "", "answerable": None}


def test_only_general_queries_serve_summarize(tmp_path):
    path = write_jsonl(tmp_path / "train.jsonl", [make_meeting(1), make_meeting(2)])
    rows, _ = read_leniently(path, "summarize")
    assert [(row["question"], row["answer"], row["summary"]) for row in rows] == [
        ("", "", "They met 1."),
        ("", "", "They met 2."),
    ]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"meeting_transcripts": None}, "expected a meeting of QMSum"),
        ({"meeting_transcripts": [{"speaker": "A", "content": 3}]}, "expected a meeting of QMSum"),
        ({"general_query_list": ["?"]}, "expected a meeting of QMSum"),
        ({"general_query_list": []}, "has no question for stage summarize"),
    ],
)
def test_a_malformed_meeting_is_an_error_or_a_reject(tmp_path, changes, problem):
    path = write_jsonl(tmp_path / "rows.jsonl", [make_meeting(1), make_meeting(2, **changes)])
    assert f"rows.jsonl, line 2: {problem}" in get_error(path, "summarize")
    rows, rejects = read_leniently(path, "summarize")
    assert rows and [reject["line"] for reject in rejects] == [2]
    assert rejects[0]["reason"].startswith(problem)
