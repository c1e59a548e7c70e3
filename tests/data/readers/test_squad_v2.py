import json
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict
from reader_helpers import (
    REAL_DATA,
    concatenate,
    get_error,
    needs_real_data,
    read_leniently,
    write_jsonl,
)

from crosstask.data.readers import files, read_rows
from crosstask.data.schema import STAGE_COLUMNS

SAMPLE = REAL_DATA / "squad_v2" / "sample-v2.0.json"


def make_record(number, texts):
    answers = {"text": texts, "answer_start": [0] * len(texts)}
    title = f"Town {number}"
    context = f"The mill of town {number}."
    return {
        "id": f"q{number}",
        "title": title,
        "context": context,
        "question": f"What {number}?",
        "answers": answers,
    }


def make_document(qas, context="The mill of Normandy."):
    return {
        "version": "v2.0",
        "data": [{"title": "t", "paragraphs": [{"context": context, "qas": qas}]}],
    }


def test_rows_have_the_id_and_the_first_answer_or_none_if_impossible(tmp_path):
    records = [make_record(1, ["first", "second"]), make_record(2, []), make_record(3, ["x"])]
    write_jsonl(tmp_path / "squad.jsonl", records)
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "squad.parquet")
    for name in ("squad.jsonl", "squad.parquet"):
        got = {row["id"]: row for row in concatenate(read_rows(tmp_path / name, "answer"))}
        assert got["q1"] == {
            "id": "q1",
            "source": name,
            "passage": "The mill of town 1.",
            "question": "What 1?",
            "answer": "first",
            "summary": "",
            "answerable": None,
        }
        assert (got["q2"]["answer"], got["q2"]["answerable"]) == ("", 0)


def test_the_validation_split_of_the_hub_serves_as_test(monkeypatch, tmp_path):
    splits = DatasetDict(
        train=Dataset.from_list([make_record(n, ["a"]) for n in range(30)]),
        validation=Dataset.from_list([make_record(n, []) for n in range(30, 35)]),
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(files, "load_dataset", lambda *_: splits)
    splits = read_rows("rajpurkar/squad_v2", "answer")
    assert splits["test"]["id"][:] == [f"q{n}" for n in range(30, 35)]
    assert set(splits["test"]["answerable"]) == {0}
    assert len(splits["train"]) + len(splits["validation"]) == 30


@pytest.mark.parametrize("stage", ["summarize", "fuse"])
def test_squad_serves_stage_answer_only(tmp_path, stage):
    path = write_jsonl(tmp_path / "squad.jsonl", [make_record(1, ["a"])])
    message = get_error(path, stage)
    assert "stage answer only" in message and ", ".join(STAGE_COLUMNS[stage]) in message


@pytest.mark.parametrize("has_id", [True, False])
@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_squad_with_summaries_serves_all_stages(tmp_path, suffix, has_id):
    records = [
        {**make_record(n, ["The mill"] if n % 2 else []), "summary": f"Mill {n // 2}.", "answerable": n % 2}
        for n in range(6)
    ]
    if not has_id:
        records = [{name: record[name] for name in record if name != "id"} for record in records]
    path = tmp_path / f"rows.{suffix}"
    write_jsonl(path, records) if suffix == "jsonl" else pq.write_table(pa.Table.from_pylist(records), path)
    for stage in ("fuse", "build"):
        rows, rejects = read_leniently(path, stage)
        assert not rejects and len({row["id"] for row in rows}) == 6
        assert [row["summary"] for row in rows] == [record["summary"] for record in records]
        assert [row["answer"] for row in rows] == ["", "The mill"] * 3
        assert [row["answerable"] for row in rows] == [0, 1] * 3
    rows, _ = read_leniently(path, "summarize")
    assert [row["summary"] for row in rows] == ["Mill 0.", "Mill 1.", "Mill 2."]
    rows, _ = read_leniently(path, "answer")
    assert [row["answerable"] for row in rows] == [0, None] * 3 and rows[0]["summary"] == ""
    assert len(read_leniently(path, "ask")[0]) == 6


def test_malformed_answers_name_line_and_row(tmp_path):
    good = [make_record(n, ["a"]) for n in range(3)]
    path = write_jsonl(tmp_path / "a.jsonl", [*good, {**good[0], "id": "bad", "answers": "a"}])
    assert f"{path}, line 4, row 'bad': answers is 'a', expected" in get_error(path, "answer")
    path = write_jsonl(tmp_path / "b.jsonl", [good[0], {"id": "x", "context": "c", "question": "q"}])
    assert f"{path}, line 2, row 'x': the column 'answers' is missing" in get_error(path, "answer")


def test_named_columns_take_precedence_over_squad(tmp_path):
    records = [{**make_record(n, ["a"]), "best": f"b{n}"} for n in range(3)]
    path = write_jsonl(tmp_path / "a.jsonl", records)
    columns = {"passage": "context", "answer": "best"}
    assert {row["answer"] for row in concatenate(read_rows(path, "answer", columns=columns))} == {
        "b0",
        "b1",
        "b2",
    }


def test_an_impossible_question_has_no_answer_even_if_some_are_listed(tmp_path):
    qas = [{"id": "q", "question": "?", "answers": [{"text": "a"}], "is_impossible": True}]
    document = make_document(qas)
    for n in range(2):
        document["data"] += make_document([{**qas[0], "id": f"q{n}"}], f"c{n}")["data"]
    (tmp_path / "dev.json").write_text(json.dumps(document))
    rows = concatenate(read_rows(tmp_path / "dev.json", "answer"))
    assert [(row["answer"], row["answerable"]) for row in rows] == [("", 0)] * 3


def test_a_question_without_answer_that_is_not_impossible_is_rejected(tmp_path):
    def qa(number, texts, impossible):
        answers = [{"text": text, "answer_start": 0} for text in texts]
        return {
            "id": f"q{number}",
            "question": "?",
            "answers": answers,
            "is_impossible": impossible,
        }

    document = make_document([qa(0, ["a"], False)])
    for number, arguments in enumerate([(["b"], False), ([], True), ([], False)], start=1):
        paragraphs = make_document([qa(number, *arguments)], f"c{number}")["data"][0]["paragraphs"]
        document["data"][0]["paragraphs"] += paragraphs
    path = tmp_path / "dev.json"
    path.write_text(json.dumps(document))
    rejects = []
    got = {row["id"]: row["answerable"] for row in concatenate(read_rows(path, "answer", rejects=rejects))}
    assert got == {"q0": None, "q1": None, "q2": 0}
    assert rejects == [
        {
            "source": str(path),
            "index": 3,
            "id": "q3",
            "reason": "no answer, but the question is not marked as impossible",
        }
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "expected JSON in UTF-8, a list of records, that of SQuAD 2.0"),
        ('{"id": 1\n{"id": 2}\n', "a file with one object per line must end in .jsonl"),
        ("[]", "is empty"),
        ('{"data": {}}', "with 'data' being a list"),
        (
            '{"data": [{"title": "t"}, {"paragraphs": []}]}',
            "data[0]: expected an object of SQuAD 2.0 with 'paragraphs'",
        ),
        (json.dumps(make_document([], None)), "data[0].paragraphs[0]: expected"),
        (json.dumps(make_document([{"id": "q"}])), "data[0].paragraphs[0].qas[0]: expected"),
        (json.dumps(make_document([])), "is empty"),
    ],
)
def test_malformed_json_says_where(tmp_path, text, problem):
    (tmp_path / "dev.json").write_text(text)
    message = get_error(tmp_path / "dev.json", "answer")
    assert str(tmp_path / "dev.json") in message and problem in message


@needs_real_data
def test_the_squad_sample():
    rejects = []
    splits = read_rows(SAMPLE, "answer", rejects=rejects)
    rows = concatenate(splits)
    assert len(rows) == 626 and not rejects
    assert len({row["id"] for row in rows}) == 626
    assert len({row["passage"] for row in rows}) == 87
    assert Counter(row["answerable"] for row in rows) == {0: 333, None: 293}
    assert all((row["answer"] == "") == (row["answerable"] == 0) for row in rows)
    assert all(row["answer"] in row["passage"] for row in rows)
    normandy = next(row for row in rows if row["id"] == "56ddde6b9a695914005b9628")
    assert (normandy["question"], normandy["answer"]) == (
        "In what country is Normandy located?",
        "France",
    )


def test_a_malformed_question_of_the_json_is_a_reject(tmp_path):
    def qa(number, **changes):
        answers = [{"text": "the  Mill", "answer_start": 0}]
        return {"id": f"q{number}", "question": "?", "answers": answers, "is_impossible": False, **changes}

    broken = [qa(1, question=None), qa(2, answers="x"), qa(3, answers=[{"text": "a river"}]), qa(0)]
    document = make_document([qa(0), *broken, qa(4, answers=[{"text": None}]), "text"])
    document["data"] += [{"title": "t"}, {"paragraphs": [{"qas": []}]}]
    (tmp_path / "dev.json").write_text(json.dumps(document))
    rows, rejects = read_leniently(tmp_path / "dev.json")
    assert [(row["id"], row["answer"], row["answerable"]) for row in rows] == [("q0", "the  Mill", None)]
    assert [(reject["index"], reject["reason"].split(":")[0]) for reject in rejects] == [
        (1, "data[0].paragraphs[0].qas[1]"),
        (2, "data[0].paragraphs[0].qas[2]"),
        (3, "answer not in the passage"),
        (4, "same id and texts as an earlier row"),
        (5, "answers is [{'text'"),
        (6, "data[0].paragraphs[0].qas[6]"),
        (7, "data[1]"),
        (8, "data[2].paragraphs[0]"),
    ]


def test_a_malformed_record_is_a_reject(tmp_path):
    broken = [{**make_record(1, ["a"]), "answers": {"text": text}} for text in ("The mill", [3], None)]
    contradictory = {**make_record(1, []), "id": ["q1"], "is_impossible": False}
    good = [make_record(n, ["the MILL"]) for n in (2, 3)]
    path = write_jsonl(tmp_path / "rows.jsonl", [*broken, *good, contradictory])
    rows, rejects = read_leniently(path)
    assert [row["id"] for row in rows] == ["q2", "q3"]
    assert [(reject["id"], reject["reason"][:21]) for reject in rejects] == [
        ("q1", "answers is {'text': '"),
        ("q1", "answers is {'text': ["),
        ("q1", "answers is {'text': N"),
        ("rows:6", "no answer, but the qu"),
    ]
