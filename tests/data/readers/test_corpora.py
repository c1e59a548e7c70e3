import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict

from crosstask.data.readers import files, iter_rows, read_rows
from crosstask.data.readers.corpora import ABOUT, CORPORA, PLOT, SOURCES, recognize, source_of
from crosstask.utils.errors import DataError

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.exists(), reason=f"no real data at {DATA}")

PUBMED = {
    "10": {
        "QUESTION": "Does it?",
        "CONTEXTS": ["A.", "B."],
        "LONG_ANSWER": "It does.",
        "final_decision": "yes",
    },
    "11": {"QUESTION": "Is it?", "CONTEXTS": ["C."], "LONG_ANSWER": "It is not.", "final_decision": "no"},
}


def write_jsonl(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def read(data, stage, **how):
    """The rows and the rejects, read with leniency."""
    rejects = []
    return [row for _, _, row in iter_rows(data, stage, reject=rejects.append, **how)], rejects


def meeting(number, **changes):
    turns = [{"speaker": "A", "content": f"Hello {number} ."}, {"speaker": "B", "content": "Bye ."}]
    queries = [{"query": "Who left?", "answer": "B.", "relevant_text_span": [["0", "1"]]}]
    general = [{"query": "Summarize the whole meeting.", "answer": f"They met {number}."}]
    made = {"topic_list": [], "general_query_list": general, "specific_query_list": queries}
    return {**made, "meeting_transcripts": turns, **changes}


def story(number, **changes):
    def ask(n, text):
        responses = [{"response_text": f"{n}{k}", "uid": "u", "worker_id": "w"} for k in "ab"]
        return {"question_text": text, "question_number": n, "responses": responses}

    metadata = {"passage_id": f"s{number}", "uid": "x", "license": "…"}
    questions = [ask(1, PLOT), ask(2, "Who is he?")]
    return {"metadata": metadata, "document": f"Story {number}.", "questions": questions, **changes}


@pytest.mark.parametrize(
    ("key", "passage", "summary", "config_name"),
    [("cnn_dailymail", "article", "highlights", "3.0.0"), ("xsum", "document", "summary", None)],
)
@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet", "hub"])
def test_news_are_known_by_their_columns(tmp_path, monkeypatch, key, passage, summary, config_name, suffix):
    records = [{passage: f"p{n}", summary: f"s{n}", "id": f"i{n}"} for n in range(4)]
    data = tmp_path / f"news.{suffix}"
    if suffix == "jsonl":
        write_jsonl(data, records)
    elif suffix == "csv":
        Dataset.from_list(records).to_csv(data, index=False)
    elif suffix == "parquet":
        pq.write_table(pa.Table.from_pylist(records), data)
    else:
        data = SOURCES[key].hub_id
        parts = {split: Dataset.from_list(records[:2]) for split in ("train", "validation", "test")}
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(files, "load_dataset", lambda *_: DatasetDict(parts))
    splits = read_rows(data, "summarize", config_name=config_name)
    rows = [row for split in splits.values() for row in split]
    assert sorted({(row["id"], row["passage"], row["summary"]) for row in rows}) == [
        (f"i{n}", f"p{n}", f"s{n}") for n in range(2 if suffix == "hub" else 4)
    ]
    assert {(row["question"], row["answer"], row["answerable"]) for row in rows} == {("", "", None)}
    for stage in ("answer", "fuse", "build"):
        if (key, stage) == ("xsum", "fuse"):
            continue
        with pytest.raises(
            DataError, match="serve stage summarize (and fuse )?only.*needs the columns passage, question"
        ):
            read_rows(data, stage, config_name=config_name)


def test_xsum_s_summaries_say_what_an_article_is_about(tmp_path):
    path = write_jsonl(tmp_path / "xsum.jsonl", [{"document": "d", "summary": "s", "id": "i"}])
    rows, rejects = read(path, "fuse")
    kept = {name: rows[0][name] for name in ("passage", "question", "answer", "summary", "answerable")}
    assert not rejects and len(rows) == 1
    assert kept == {"passage": "d", "question": ABOUT, "answer": "", "summary": "s", "answerable": None}
    # Questions of one's own are not overwritten: the column of passages is to be named.
    own = {"document": "d", "summary": "s", "question": "q", "answer": "a", "answerable": 1}
    with pytest.raises(DataError, match="passage"):
        read(write_jsonl(tmp_path / "own.jsonl", [own]), "fuse")


def test_the_hub_is_streamed_where_rows_are_iterated(tmp_path, monkeypatch):
    asked = []

    def load(*arguments, **how):
        asked.append((arguments, how))
        records = [{"article": f"a{n}", "highlights": "h", "id": f"i{n}"} for n in range(3)]
        parts = {split: Dataset.from_list(records) for split in ("train", "validation", "test")}
        return {split: part.to_iterable_dataset() for split, part in parts.items()}

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(files, "load_dataset", load)
    rows = list(iter_rows("abisee/cnn_dailymail", "summarize", config_name="3.0.0", reject=pytest.fail))
    assert asked == [(("abisee/cnn_dailymail", "3.0.0"), {"streaming": True})]
    assert Counter(split for split, _, _ in rows) == {"train": 3, "validation": 3, "test": 3}
    assert rows[0][2]["passage"] == "a0" and rows[0][2]["source"] == "abisee/cnn_dailymail"


def test_qmsum(tmp_path):
    path = write_jsonl(tmp_path / "train.jsonl", [meeting(1), meeting(2)])
    rows, rejects = read(path, "fuse")
    assert not rejects and [row["id"] for row in rows] == [
        "train:1-g1",
        "train:1-s1",
        "train:2-g1",
        "train:2-s1",
    ]
    assert rows[1] == {
        "id": "train:1-s1",
        "source": "train.jsonl",
        "passage": "A: Hello 1 .\nB: Bye .",
        "question": "Who left?",
        "answer": "B.",
        "summary": "B.",
        "answerable": 1,
    }
    assert read(path, "build")[0] == rows
    answers, _ = read(path, "answer")
    assert answers[1] == {**rows[1], "summary": "", "answerable": None}
    summaries, _ = read(path, "summarize")
    assert [(row["question"], row["answer"], row["summary"]) for row in summaries] == [
        ("", "", "They met 1."),
        ("", "", "They met 2."),
    ]


def test_squality_keeps_every_reference(tmp_path):
    path = write_jsonl(tmp_path / "dev.jsonl", [story(1)])
    rows, rejects = read(path, "fuse")
    assert not rejects
    assert [(row["id"], row["question"], row["answer"], row["summary"]) for row in rows] == [
        ("s1-q1-r1", PLOT, "1a", "1a"),
        ("s1-q1-r2", PLOT, "1b", "1b"),
        ("s1-q2-r1", "Who is he?", "2a", "2a"),
        ("s1-q2-r2", "Who is he?", "2b", "2b"),
    ]
    summaries, _ = read(path, "summarize")
    assert [(row["id"], row["question"]) for row in summaries] == [("s1-q1-r1", ""), ("s1-q1-r2", "")]


def test_pubmedqa_in_its_file_and_with_the_columns_of_the_hub(tmp_path):
    official = tmp_path / "ori_pqal.json"
    official.write_text(json.dumps(PUBMED))
    records = [
        {
            "pubid": int(pmid),
            "question": paper["QUESTION"],
            "context": {"contexts": paper["CONTEXTS"], "labels": [], "meshes": []},
            "long_answer": paper["LONG_ANSWER"],
            "final_decision": paper["final_decision"],
        }
        for pmid, paper in PUBMED.items()
    ]
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "hub.parquet")
    for path in (official, tmp_path / "hub.parquet"):
        rows, rejects = read(path, "build")
        assert not rejects and rows[0] == {
            "id": "10",
            "source": path.name,
            "passage": "A. B.",
            "question": "Does it?",
            "answer": "It does.",
            "summary": "It does.",
            "answerable": 1,
        }
        assert [row["summary"] for row in read(path, "summarize")[0]] == ["It does.", "It is not."]


@pytest.mark.parametrize(
    ("good", "bad", "told"),
    [
        (meeting(1), meeting(2, meeting_transcripts=None), "expected a meeting of QMSum"),
        (meeting(1), meeting(2, meeting_transcripts=[{"speaker": "A", "content": 3}]), "expected a meeting"),
        (meeting(1), meeting(2, general_query_list=["?"]), "expected a meeting of QMSum"),
        (meeting(1), meeting(2, general_query_list=[]), "has no question for stage summarize"),
        (story(1), story(2, metadata={}), "expected a story of SQuALITY"),
        (story(1), story(2, questions=[{"question_text": "?"}]), "has no question for stage summarize"),
        (story(1), {"metadata": {}, "document": "x"}, "the column 'questions' is missing"),
    ],
)
def test_a_record_of_another_form_is_an_error_or_a_reject(tmp_path, good, bad, told):
    path = write_jsonl(tmp_path / "rows.jsonl", [good, bad])
    with pytest.raises(DataError, match=f"rows.jsonl, line 2: {told}"):
        read_rows(path, "summarize")
    rows, rejects = read(path, "summarize")
    assert rows and len(rejects) == 1
    assert rejects[0]["line"] == 2 and rejects[0]["reason"].startswith(told)


@pytest.mark.parametrize(
    ("paper", "told"),
    [
        ({"QUESTION": "?"}, "11: expected a paper of PubMedQA with QUESTION"),
        ("text", "11: expected a paper of PubMedQA"),
        ({**PUBMED["11"], "CONTEXTS": "C."}, "expected a paper of PubMedQA with context.contexts"),
        ({**PUBMED["11"], "LONG_ANSWER": None}, "answerable is 1 with an empty answer"),
        ({**PUBMED["11"], "CONTEXTS": []}, "empty passage"),
    ],
)
def test_a_paper_of_another_form(tmp_path, paper, told):
    path = tmp_path / "ori_pqal.json"
    path.write_text(json.dumps({**PUBMED, "11": paper}))
    rows, rejects = read(path, "build")
    assert [row["id"] for row in rows] == ["10"]
    assert len(rejects) == 1 and rejects[0]["index"] == 1 and rejects[0]["reason"].startswith(told)


def test_rows_of_ours_and_named_columns_are_no_corpus(tmp_path):
    assert recognize(["passage", "article", "highlights"]) is None
    assert recognize(["text"]) is None
    path = write_jsonl(
        tmp_path / "x.jsonl", [{"article": f"a{n}", "highlights": "h", "text": "t"} for n in range(3)]
    )
    named = {"passage": "text", "summary": "highlights"}
    assert {row["passage"] for row in read(path, "summarize", columns=named)[0]} == {"t"}


def test_every_corpus_has_its_source():
    assert set(CORPORA) < set(SOURCES)
    for key, source in SOURCES.items():
        assert all((source.title, source.licence, source.url, source.citation))
        assert source_of(source.hub_id or key) == key


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("rajpurkar/squad_v2", "squad_v2"),
        ("qiaojin/PubMedQA", "pubmedqa"),
        ("sample-v2.0.json", "squad_v2"),
        ("/data/ori_pqal_500.json", "pubmedqa"),
        ("../shared/data/qmsum/train.jsonl", "qmsum"),
        ("xsum", "xsum"),
        ("aclsum", "aclsum"),
        ("train.jsonl", None),
        ("tickets/my-xsum-like.csv", None),
    ],
)
def test_the_source_of_a_name(name, key):
    assert source_of(name) == key


# The counts are of the stages summarize, answer, fuse and build.
@needs_data
@pytest.mark.parametrize(
    ("file", "passages", "counts"),
    [
        ("qmsum/train.jsonl", 162, (162, 1257, 1257, 1257)),
        ("qmsum/val.jsonl", 35, (35, 272, 272, 272)),
        ("squality/train.jsonl", 50, (200, 1000, 1000, 1000)),
        ("squality/dev.jsonl", 25, (100, 500, 500, 500)),
        ("pubmedqa/ori_pqal_500.json", 500, (500, 500, 500, 500)),
        ("squad_v2/sample-v2.0.json", 87, (None, 626, None, 626)),
    ],
)
def test_the_real_files(file, passages, counts):
    for stage, count in zip(("summarize", "answer", "fuse", "build"), counts, strict=True):
        if count is None:
            with pytest.raises(DataError, match="serve stage answer only"):
                read(DATA / file, stage)
            continue
        rows, rejects = read(DATA / file, stage)
        assert (len(rows), len({row["passage"] for row in rows}), len(rejects)) == (count, passages, 0)
        labels = {"fuse": {1}, "build": {0, None} if "squad" in file else {1}}
        assert {row["answerable"] for row in rows} <= labels.get(stage, {0, None})
