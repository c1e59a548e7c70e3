import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict
from reader_helpers import REAL_DATA, needs_real_data, read_leniently, write_jsonl

from crosstask.data.readers import files, read_rows
from crosstask.data.readers.registry import CORPORA, find_corpus, recognize
from crosstask.data.schema import STAGES
from crosstask.utils.errors import DataError

NEWS = [
    ("abisee/cnn_dailymail", "article", "highlights", "3.0.0", ("summarize",)),
    ("EdinburghNLP/xsum", "document", "summary", None, ("summarize", "fuse")),
]


@pytest.mark.parametrize(("hub_id", "passage", "summary", "config_name", "stages"), NEWS)
@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet", "hub"])
def test_news_are_recognized_in_every_format(
    tmp_path, monkeypatch, hub_id, passage, summary, config_name, stages, suffix
):
    records = [{passage: f"p{n}", summary: f"s{n}", "id": f"i{n}"} for n in range(4)]
    data = tmp_path / f"news.{suffix}"
    if suffix == "jsonl":
        write_jsonl(data, records)
    elif suffix == "csv":
        Dataset.from_list(records).to_csv(data, index=False)
    elif suffix == "parquet":
        pq.write_table(pa.Table.from_pylist(records), data)
    else:
        data = hub_id
        loaded = {split: Dataset.from_list(records[:2]) for split in ("train", "validation", "test")}
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(files, "load_dataset", lambda *_: DatasetDict(loaded))
    splits = read_rows(data, "summarize", config_name=config_name)
    rows = [row for split in splits.values() for row in split]
    assert sorted({(row["id"], row["passage"], row["summary"]) for row in rows}) == [
        (f"i{n}", f"p{n}", f"s{n}") for n in range(2 if suffix == "hub" else 4)
    ]
    assert {(row["question"], row["answer"], row["answerable"]) for row in rows} == {("", "", None)}
    served = f"can be used for stage {' and '.join(stages)} only.*needs the columns passage, question"
    for stage in {"answer", "fuse", "build"} - set(stages):
        with pytest.raises(DataError, match=served):
            read_rows(data, stage, config_name=config_name)


def test_rows_with_the_columns_of_the_schema_are_of_no_corpus():
    assert recognize(["passage", "article", "highlights"]) is None
    assert recognize(["text"]) is None
    assert recognize([]) is None


def test_columns_that_the_user_names_are_of_no_corpus(tmp_path):
    records = [{"article": f"a{n}", "highlights": "h", "text": "t"} for n in range(3)]
    path = write_jsonl(tmp_path / "x.jsonl", records)
    rows, _ = read_leniently(path, "summarize", columns={"passage": "text", "summary": "highlights"})
    assert {row["passage"] for row in rows} == {"t"}


def test_every_corpus_has_what_a_data_card_says():
    for corpus in CORPORA:
        assert all((corpus.title, corpus.license, corpus.url, corpus.citation, corpus.expected))
        assert find_corpus(corpus.hub_id or corpus.name) is corpus
        assert set(corpus.stages) <= set(STAGES)
        assert bool(corpus.columns) != bool(corpus.read_splits)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("rajpurkar/squad_v2", "squad_v2"),
        ("qiaojin/PubMedQA", "pubmedqa"),
        ("sample-v2.0.json", "squad_v2"),
        ("/data/ori_pqal_500.json", "pubmedqa"),
        ("data/qmsum/train.jsonl", "qmsum"),
        ("xsum", "xsum"),
        ("aclsum", "aclsum"),
        ("train.jsonl", None),
        ("tickets/my-xsum-like.csv", None),
    ],
)
def test_a_corpus_is_found_by_a_name(name, expected):
    corpus = find_corpus(name)
    assert (corpus and corpus.name) == expected


@pytest.mark.parametrize("document", [{"data": {}}, "text", {"a": {"b": 1}}, {}, {"a": 1}])
def test_json_of_no_known_form_names_the_known_ones(tmp_path, document):
    path = tmp_path / "x.json"
    path.write_text(json.dumps(document))
    with pytest.raises(DataError) as error:
        read_rows(path, "answer")
    assert str(error.value) == (
        f"{path}: expected JSON of a known form, a list of records, that of SQuAD 2.0 (an object with 'data' "
        "being a list of articles with 'paragraphs') or that of PubMedQA (an object of papers with QUESTION)"
        + (f"; got the keys {', '.join(document)}" if document and document != "text" else "")
    )


# The numbers of rows are those of the stages summarize, answer, fuse and build.
@needs_real_data
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
            with pytest.raises(DataError, match="can be used for stage answer only"):
                read_leniently(REAL_DATA / file, stage)
            continue
        rows, rejects = read_leniently(REAL_DATA / file, stage)
        assert (len(rows), len({row["passage"] for row in rows}), len(rejects)) == (count, passages, 0)
        labels = {"fuse": {1}, "build": {0, None} if "squad" in file else {1}}
        assert {row["answerable"] for row in rows} <= labels.get(stage, {0, None})
