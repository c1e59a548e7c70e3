import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from reader_helpers import read_leniently

PAPERS = {
    "10": {
        "QUESTION": "Does it?",
        "CONTEXTS": ["A.", "B."],
        "LONG_ANSWER": "It does.",
        "final_decision": "yes",
    },
    "11": {"QUESTION": "Is it?", "CONTEXTS": ["C."], "LONG_ANSWER": "It is not.", "final_decision": "no"},
}


def test_the_official_json_and_the_columns_of_the_hub_give_the_same_rows(tmp_path):
    official = tmp_path / "ori_pqal.json"
    official.write_text(json.dumps(PAPERS))
    records = [
        {
            "pubid": int(pmid),
            "question": paper["QUESTION"],
            "context": {"contexts": paper["CONTEXTS"], "labels": [], "meshes": []},
            "long_answer": paper["LONG_ANSWER"],
            "final_decision": paper["final_decision"],
        }
        for pmid, paper in PAPERS.items()
    ]
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "hub.parquet")
    for path in (official, tmp_path / "hub.parquet"):
        rows, rejects = read_leniently(path)
        assert not rejects and rows[0] == {
            "id": "10",
            "source": path.name,
            "passage": "A. B.",
            "question": "Does it?",
            "answer": "It does.",
            "summary": "It does.",
            "answerable": 1,
        }
        summaries = [row["summary"] for row in read_leniently(path, "summarize")[0]]
        assert summaries == ["It does.", "It is not."]


@pytest.mark.parametrize(
    ("paper", "problem"),
    [
        ({"QUESTION": "?"}, "11: expected a paper of PubMedQA with QUESTION"),
        ("text", "11: expected a paper of PubMedQA"),
        ({**PAPERS["11"], "CONTEXTS": "C."}, "expected a paper of PubMedQA with context.contexts"),
        ({**PAPERS["11"], "LONG_ANSWER": None}, "answerable is 1 with an empty answer"),
        ({**PAPERS["11"], "CONTEXTS": []}, "empty passage"),
    ],
)
def test_a_malformed_paper_is_a_reject(tmp_path, paper, problem):
    path = tmp_path / "ori_pqal.json"
    path.write_text(json.dumps({**PAPERS, "11": paper}))
    rows, rejects = read_leniently(path)
    assert [row["id"] for row in rows] == ["10"]
    assert [reject["index"] for reject in rejects] == [1]
    assert rejects[0]["reason"].startswith(problem)
