import pytest
from reader_helpers import read_leniently, write_jsonl

from crosstask.data.readers.xsum import QUESTION
from crosstask.utils.errors import DataError


def test_every_summary_gets_the_same_question(tmp_path):
    path = write_jsonl(tmp_path / "xsum.jsonl", [{"document": "d", "summary": "s", "id": "i"}])
    rows, rejects = read_leniently(path, "fuse")
    assert not rejects and rows == [
        {
            "id": "i",
            "source": "xsum.jsonl",
            "passage": "d",
            "question": QUESTION,
            "answer": "",
            "summary": "s",
            "answerable": None,
        }
    ]


def test_a_file_with_questions_is_not_taken_for_xsum(tmp_path):
    record = {"document": "d", "summary": "s", "question": "q", "answer": "a", "answerable": 1}
    with pytest.raises(DataError, match="the column 'passage' is missing"):
        read_leniently(write_jsonl(tmp_path / "rows.jsonl", [record]), "fuse")
