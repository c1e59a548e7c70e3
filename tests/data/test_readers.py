import csv
import json
import logging
import sys
import tracemalloc
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from broken import CSV_KINDS, JSONL_KINDS, good_row, write_broken_csv, write_broken_jsonl
from datasets import ClassLabel, Dataset, DatasetDict, Features, IterableDatasetDict
from hypothesis import given, settings
from hypothesis import strategies as st

from crosstask.data import files, papers
from crosstask.data.readers import iter_rows, read_rows, write_rejects
from crosstask.data.schema import FEATURES, STAGE_COLUMNS, DataError

SAMPLE = Path(__file__).resolve().parents[3] / "shared" / "data" / "squad_v2" / "sample-v2.0.json"
needs_sample = pytest.mark.skipif(not SAMPLE.exists(), reason=f"no SQuAD sample at {SAMPLE}")
needs_aclsum = pytest.mark.skipif(find_spec("aclsum") is None, reason="aclsum is not installed")


def joint(number, **changes):
    row = {
        "id": f"r{number}",
        "source": "made up",
        "passage": f"Passage {number}: the mill of town {number} opened in {1800 + number}.",
        "question": f"When did the mill of town {number} open?",
        "answer": str(1800 + number),
        "summary": f"Town {number} has a mill since {1800 + number}.",
        "answerable": 1,
    }
    return {**row, **changes}


def squad_record(number, texts):
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


def squad_document(qas, context="The mill of Normandy."):
    return {
        "version": "v2.0",
        "data": [{"title": "t", "paragraphs": [{"context": context, "qas": qas}]}],
    }


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def all_rows(splits):
    return [row for split in splits.values() for row in split]


def failure(*args, **kwargs):
    with pytest.raises(DataError) as error:
        read_rows(*args, **kwargs)
    message = str(error.value)
    assert "\n" not in message
    return message


# Files of rows


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize("stage", STAGE_COLUMNS)
def test_a_file_of_each_kind_gives_the_same_rows(tmp_path, suffix, stage):
    rows = [joint(n) for n in range(8)]
    rows += [joint(8, answerable=None), joint(9, answer="", answerable=0, question='Zoë,\n"who"?')]
    path = tmp_path / f"rows.{suffix}"
    if suffix == "jsonl":
        write_jsonl(path, rows)
    elif suffix == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        with open(path, "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    splits = read_rows(path, stage)
    assert set(splits) == {"train", "validation", "test"}
    assert all(split.features == FEATURES for split in splits.values())
    got = {row["id"]: row for row in all_rows(splits)}
    if stage == "fuse":
        assert got == {row["id"]: row for row in rows}
    if stage == "build":
        assert got == {row["id"]: row for row in rows}
    if stage == "answer":
        assert got["r1"] == {**rows[1], "summary": "", "answerable": None}
        assert got["r9"] == {**rows[9], "summary": "", "answerable": 0}
    if stage == "summarize":
        assert got["r1"] == {**rows[1], "question": "", "answer": "", "answerable": None}
        assert set(got) == {f"r{n}" for n in range(9)}


def test_missing_and_null_columns_get_their_defaults(tmp_path):
    rows = [{"passage": f"p{n}", "summary": f"s{n}", "id": None, "extra": n} for n in range(3)]
    got = all_rows(read_rows(write_jsonl(tmp_path / "news.jsonl", rows), "summarize"))
    expected = {"source": "news.jsonl", "question": "", "answer": "", "answerable": None}
    assert sorted(got, key=lambda row: row["id"]) == [
        {"id": f"news:{n + 1}", "passage": f"p{n}", "summary": f"s{n}", **expected} for n in range(3)
    ]


def test_columns_are_renamed_and_extra_ones_dropped(tmp_path):
    rows = [{"id": n, "article": f"a{n}", "highlights": f"h{n}", "passage": "no"} for n in range(3)]
    names = {"passage": "article", "summary": "highlights"}
    got = all_rows(read_rows(write_jsonl(tmp_path / "cnn.jsonl", rows), "summarize", columns=names))
    assert {(row["id"], row["passage"], row["summary"]) for row in got} == {
        (str(n), f"a{n}", f"h{n}") for n in range(3)
    }
    assert list(got[0]) == list(FEATURES)


def test_labels_may_be_names_booleans_or_floats(tmp_path):
    labels = ["yes", "no", True, False, 1.0, None]
    rows = [joint(n, answerable=label) for n, label in enumerate(labels)]
    got = {
        row["id"]: row["answerable"]
        for row in all_rows(read_rows(write_jsonl(tmp_path / "r.jsonl", rows), "fuse"))
    }
    assert [got[f"r{n}"] for n in range(6)] == [1, 0, 1, 0, 1, None]


def test_joint_rows_serve_summarize_once_per_summary(tmp_path):
    rows = [joint(n, id=f"{n}-{q}", question=f"q{q}") for n in range(4) for q in range(3)]
    rows.append(joint(9, answerable=0))
    rejects = []
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    got = all_rows(read_rows(path, "summarize", rejects=rejects))
    assert sorted(row["id"] for row in got) == ["0-0", "1-0", "2-0", "3-0"]
    assert {row["question"] for row in got} == {""}
    reasons = Counter(reject["reason"] for reject in rejects)
    assert reasons["same passage and summary as an earlier row"] == 8
    assert len(got) + len(rejects) == len(rows)
    assert rejects[-1]["line"] == 13 and rejects[-1]["reason"].startswith("labelled no")


def test_joint_rows_serve_answer_once_per_question_and_answer(tmp_path):
    rows = [joint(n, id=f"{n}-{s}", summary=f"s{s}", answerable=s) for n in range(4) for s in range(2)]
    rejects = []
    got = all_rows(read_rows(write_jsonl(tmp_path / "rows.jsonl", rows), "answer", rejects=rejects))
    assert sorted(row["id"] for row in got) == ["0-0", "1-0", "2-0", "3-0"]
    assert {(row["summary"], row["answerable"]) for row in got} == {("", None)}
    assert {reject["reason"] for reject in rejects} == {
        "same passage and question and answer as an earlier row"
    }


def test_repetitions_in_a_file_of_one_stage_are_its_own(tmp_path):
    rows = [{"passage": f"p{n % 3}", "summary": "s"} for n in range(6)]
    assert len(all_rows(read_rows(write_jsonl(tmp_path / "r.jsonl", rows), "summarize"))) == 6


# Rejects


def test_rejects_tell_place_id_and_reason(tmp_path, caplog):
    rows = [joint(n) for n in range(4)]
    rows[1:1] = [joint(7, passage=" "), joint(8, question=""), joint(9, summary=None), joint(0)]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    rejects = []
    with caplog.at_level(logging.WARNING):
        splits = read_rows(path, "fuse", rejects=rejects)
    assert not caplog.records
    assert sorted(row["id"] for row in all_rows(splits)) == ["r0", "r1", "r2", "r3"]
    assert rejects == [
        {"source": path, "line": 2, "id": "r7", "reason": "empty passage"},
        {"source": path, "line": 3, "id": "r8", "reason": "empty question"},
        {"source": path, "line": 4, "id": "r9", "reason": "empty summary"},
        {"source": path, "line": 5, "id": "r0", "reason": "duplicate id"},
    ]


def test_rejects_that_nobody_asked_for_are_warned_of(tmp_path, caplog):
    rows = [joint(n) for n in range(3)] + [joint(7, passage=""), joint(8, passage="")]
    with caplog.at_level(logging.WARNING):
        read_rows(write_jsonl(tmp_path / "rows.jsonl", rows), "fuse")
    assert "rejected 2 rows: 2 empty passage" in caplog.text


def test_rejects_are_told_even_where_no_row_is_left(tmp_path):
    rejects = []
    path = write_jsonl(tmp_path / "rows.jsonl", [joint(1, passage="")])
    assert "no row is left for stage fuse" in failure(path, "fuse", rejects=rejects)
    assert [reject["id"] for reject in rejects] == ["r1"]


def test_a_table_counts_from_zero(tmp_path):
    rows = [joint(0, passage="")] + [joint(n) for n in range(1, 4)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    rejects = []
    read_rows(tmp_path / "rows.parquet", "fuse", rejects=rejects)
    assert [reject["index"] for reject in rejects] == [0]


def test_write_rejects_replaces_the_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "new" / "rejects.jsonl"
    write_rejects([{"id": "old", "reason": "x"}] * 3, path)
    rejects = [{"source": "f", "line": 1, "id": "ü", "reason": "empty passage"}]
    write_rejects(rejects, path)
    assert [json.loads(line) for line in path.read_text().splitlines()] == rejects
    assert list(path.parent.iterdir()) == [path]


def test_write_rejects_keeps_the_old_file_where_it_fails(tmp_path):
    path = tmp_path / "rejects.jsonl"
    write_rejects([{"id": "old"}], path)
    with pytest.raises(TypeError):
        write_rejects([{"id": "new"}, {"id": object()}], path)
    assert json.loads(path.read_text()) == {"id": "old"}


# Errors in files


@pytest.mark.parametrize("name", ["gone.jsonl", "gone.csv", "gone.parquet", "gone.json"])
def test_file_not_found(tmp_path, name):
    assert failure(str(tmp_path / name), "fuse") == f"{tmp_path / name}: file not found"


@pytest.mark.parametrize("data", ["rows.jsonl", "./corpus", "/nowhere", "~/nowhere-at-all", "a/b/c"])
def test_what_looks_like_a_path_is_not_asked_of_the_hub(data, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(files, "load_dataset", lambda *_: pytest.fail("the Hub was asked"))
    assert "file not found" in failure(data, "fuse")


def test_a_file_of_another_kind(tmp_path):
    (tmp_path / "rows.txt").write_text("hello")
    message = failure(tmp_path / "rows.txt", "fuse")
    assert "rows.txt: expected a file that ends in .jsonl, .csv, .parquet, .json" in message


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv"])
def test_an_empty_file(tmp_path, name):
    (tmp_path / name).write_text("")
    assert "is empty: expected rows with the columns passage, summary" in failure(
        tmp_path / name, "summarize"
    )


def test_a_header_without_rows_and_a_table_without_rows_are_empty(tmp_path):
    (tmp_path / "rows.csv").write_text("passage,summary\n")
    assert "is empty" in failure(tmp_path / "rows.csv", "summarize")
    pq.write_table(pa.table({"passage": pa.array([], pa.string())}), tmp_path / "rows.parquet")
    assert "is empty" in failure(tmp_path / "rows.parquet", "summarize")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b'{"passage": "cut', "Invalid control character at at column 17"),
        (b"[1, 2]", "expected a JSON object, got [1, 2]"),
        (b'{"passage": "\xff"}', "expected UTF-8"),
        (b"[" * 100_000, "expected a JSON object"),
    ],
)
def test_malformed_jsonl_names_the_line(tmp_path, line, told):
    good = b'{"passage": "p", "summary": "s"}\n\n'
    (tmp_path / "rows.jsonl").write_bytes(good + line + b"\n")
    message = failure(tmp_path / "rows.jsonl", "summarize")
    assert f"{tmp_path / 'rows.jsonl'}, line 3: " in message and told in message


@pytest.mark.parametrize(
    ("text", "line", "told"),
    [
        (b'passage,summary\n"two\nlines",s\np\n', 4, "expected 2 fields, got 1"),
        (b"passage,summary\np,s,t\n", 2, "expected 2 fields, got 3"),
        (b'passage,summary\np,s\n"p"q,s\n', 3, "expected CSV"),
        (b'passage,summary\np,s\n"p,s\n', 3, "expected CSV"),
        (b"passage,summary\np,s\n\xff,s\n", 3, "expected UTF-8"),
        (b"passage,passage\np,s\n", 1, "expected each column once"),
    ],
)
def test_malformed_csv_names_the_line(tmp_path, text, line, told):
    (tmp_path / "rows.csv").write_bytes(text)
    message = failure(tmp_path / "rows.csv", "summarize")
    assert f"rows.csv, line {line}: " in message and told in message


def test_csv_with_a_byte_order_mark_and_a_long_passage(tmp_path):
    lines = ["passage,summary"] + [f"{str(n) * 200_000},s" for n in range(3)]
    (tmp_path / "rows.csv").write_text("\n".join(lines), encoding="utf-8-sig")
    assert len(all_rows(read_rows(tmp_path / "rows.csv", "summarize"))) == 3


def test_not_a_parquet_file(tmp_path):
    (tmp_path / "rows.parquet").write_text("this is no table")
    assert "rows.parquet: expected a Parquet file" in failure(tmp_path / "rows.parquet", "fuse")


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_a_missing_column_lists_those_there_and_those_needed(tmp_path, suffix):
    path = tmp_path / f"rows.{suffix}"
    if suffix == "jsonl":
        write_jsonl(path, [{"passage": "p", "text": "t"}])
    elif suffix == "csv":
        path.write_text("passage,text\np,t\n")
    else:
        pq.write_table(pa.table({"passage": ["p"], "text": ["t"]}), path)
    message = failure(path, "summarize")
    for told in (
        str(path),
        "'summary' is missing",
        "there are passage, text",
        "needs passage, summary",
    ):
        assert told in message


def test_a_column_missing_from_one_line_names_it(tmp_path):
    path = write_jsonl(tmp_path / "r.jsonl", [{"passage": "p", "summary": "s"}, {"passage": "p"}])
    assert f"{path}, line 2: the column 'summary' is missing" in failure(path, "summarize")


@pytest.mark.parametrize("columns", [{"passage": "artcle"}, {"id": "artcle"}])
def test_a_missing_renamed_column_is_named_as_in_the_file(tmp_path, columns):
    path = write_jsonl(tmp_path / "r.jsonl", [{"article": "p", "passage": "q", "summary": "s"}])
    assert "'artcle' is missing: there are article" in failure(path, "summarize", columns=columns)


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_a_label_out_of_range_names_file_line_row_and_value(tmp_path, suffix):
    path = tmp_path / f"rows.{suffix}"
    rows = [joint(0), joint(1, answerable=7)]
    if suffix == "jsonl":
        write_jsonl(path, rows)
    else:
        path.write_text("\n".join(",".join(map(str, row)) for row in (rows[0], *(r.values() for r in rows))))
    message = failure(path, "fuse")
    assert f"{path}, line {2 if suffix == 'jsonl' else 3}, row 'r1': answerable is " in message
    assert "7" in message and "expected 0, 1" in message


def test_wrong_types_and_label_one_without_answer(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", [joint(0), joint(1, passage=12)])
    assert f"{path}, line 2, row 'r1': passage is 12, expected a string" in failure(path, "fuse")
    path = write_jsonl(tmp_path / "b.jsonl", [joint(0, answer=None)])
    assert "line 1, row 'r0': answerable is 1 with an empty answer" in failure(path, "fuse")


def test_columns_that_the_stage_does_not_read_may_be_anything(tmp_path):
    rows = [{"passage": f"p{n}", "summary": "s", "answer": n, "question": None} for n in range(3)]
    splits = read_rows(write_jsonl(tmp_path / "r.jsonl", rows), "summarize")
    assert {row["answer"] for row in all_rows(splits)} == {""}


def test_unknown_arguments_suggest_the_nearest(tmp_path):
    path = write_jsonl(tmp_path / "r.jsonl", [joint(0)])
    assert "'fusing' is unknown" in failure(path, "fusing")
    assert "did you mean 'summary'" in failure(path, "fuse", columns={"sumary": "x"})
    assert "did you mean 'seed'" in failure("briefs", "fuse", options={"sed": 1})
    assert '`options` are for "briefs", got seed' in failure(path, "fuse", options={"seed": 1})
    assert "expected no `columns`" in failure("briefs", "fuse", columns={"summary": "x"})


# Folders and the Hub


def test_a_folder_with_a_file_a_split(tmp_path):
    write_jsonl(tmp_path / "train.jsonl", [joint(n) for n in range(3)])
    write_jsonl(tmp_path / "dev.jsonl", [joint(3)])
    pq.write_table(pa.Table.from_pylist([joint(4)]), tmp_path / "test.parquet")
    splits = read_rows(str(tmp_path), "fuse")
    assert {name: split["id"][:] for name, split in splits.items()} == {
        "train": ["r0", "r1", "r2"],
        "validation": ["r3"],
        "test": ["r4"],
    }
    (tmp_path / "dev.jsonl").write_text("{")
    assert f"{tmp_path / 'dev.jsonl'}, line 1: " in failure(tmp_path, "fuse")


def test_a_folder_with_two_files_for_a_split(tmp_path):
    for name in ("train.jsonl", "val.jsonl", "dev.jsonl"):
        write_jsonl(tmp_path / name, [joint(0)])
    assert "dev.jsonl and val.jsonl are both the validation split" in failure(tmp_path, "fuse")


def test_a_folder_that_datasets_understands(tmp_path):
    (tmp_path / "data").mkdir()
    for split, first in (("train", 0), ("test", 8)):
        for shard in range(2):
            rows = [joint(first + 2 * shard + n) for n in range(2)]
            name = f"{split}-0000{shard}-of-00002.parquet"
            pq.write_table(pa.Table.from_pylist(rows), tmp_path / "data" / name)
    splits = read_rows(tmp_path, "fuse")
    assert splits["test"]["id"][:] == ["r8", "r9", "r10", "r11"]
    assert len(splits["train"]) + len(splits["validation"]) == 4


@pytest.mark.parametrize(("content", "told"), [(None, "data"), ("not json\n", "JSON parse error")])
def test_a_folder_that_nobody_understands(tmp_path, content, told):
    if content:
        (tmp_path / "train-part.jsonl").write_text(content)
    message = failure(tmp_path, "fuse")
    assert f"{tmp_path}: cannot be read as a data set: " in message and told in message


def test_what_save_to_disk_wrote_reads_back(tmp_path):
    rows = {"train": [joint(n) for n in range(5)], "validation": [joint(5)], "test": [joint(6)]}
    written = DatasetDict({k: Dataset.from_list(v, features=FEATURES) for k, v in rows.items()})
    written.save_to_disk(tmp_path / "all")
    assert {k: v.to_list() for k, v in read_rows(tmp_path / "all", "fuse").items()} == rows
    written["train"].with_format("numpy", columns=["id"]).save_to_disk(tmp_path / "one")
    splits = read_rows(tmp_path / "one", "fuse")
    assert sorted(row["id"] for row in all_rows(splits)) == ["r0", "r1", "r2", "r3", "r4"]
    (tmp_path / "one" / "state.json").write_text("{")
    assert "cannot be read as a data set" in failure(tmp_path / "one", "fuse")


def test_labels_of_a_data_set_are_taken_by_name(tmp_path):
    other = Features({**FEATURES, "answerable": ClassLabel(names=["yes", "no"])})
    rows = [joint(n, answerable=["yes", "no", None][n % 3]) for n in range(6)]
    Dataset.from_list(rows, features=other).to_parquet(tmp_path / "rows.parquet")
    got = {row["id"]: row["answerable"] for row in all_rows(read_rows(tmp_path / "rows.parquet", "fuse"))}
    assert [got[f"r{n}"] for n in range(3)] == [1, 0, None]


@pytest.mark.parametrize("name", ["abisee/cnn_dailymail", "xsum", "owner/corpus-v1.1"])
def test_any_other_string_is_a_hub_id(monkeypatch, tmp_path, name):
    def load(*arguments):
        assert arguments == (name, "3.0.0")
        parts = DatasetDict()
        for split in ("train", "validation", "test"):
            articles = [{"article": f"{split} {n}", "highlights": "h"} for n in range(2)]
            parts[split] = Dataset.from_list(articles)
        return parts

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(files, "load_dataset", load)
    names = {"passage": "article", "summary": "highlights"}
    splits = read_rows(name, "summarize", config_name="3.0.0", columns=names)
    assert {k: len(v) for k, v in splits.items()} == {"train": 2, "validation": 2, "test": 2}
    assert splits["train"][1]["id"] == "train:1" and splits["train"][1]["source"] == name


def test_a_hub_failure_is_one_sentence(monkeypatch, tmp_path):
    def load(*_):
        raise ConnectionError("Couldn't reach 'nobody/nothing' on the Hub\nand a page of more")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(files, "load_dataset", load)
    message = failure("nobody/nothing", "fuse")
    reason = "Couldn't reach 'nobody/nothing' on the Hub"
    assert message == f"nobody/nothing: cannot be read as a data set: {reason}"


def test_splits_of_other_names(monkeypatch, tmp_path, caplog):
    def give(*names):
        rows = [joint(n) for n in range(4)]
        made = DatasetDict({name: Dataset.from_list(rows) for name in names})
        monkeypatch.setattr(files, "load_dataset", lambda *_: made)

    monkeypatch.chdir(tmp_path)
    give("everything")
    assert set(read_rows("a/b", "fuse")) == {"train", "validation", "test"}
    give("train", "dev", "test", "adversarial")
    assert set(read_rows("a/b", "fuse")) == {"train", "validation", "test"}
    assert "splits left unread: adversarial" in caplog.text
    give("one", "two")
    assert "has the splits one, two, expected train, validation, test" in failure("a/b", "fuse")
    give("train", "dev", "val")
    assert "expected one validation split" in failure("a/b", "fuse")


# Splits


def test_too_few_passages_says_how_many_are_needed(tmp_path):
    path = write_jsonl(tmp_path / "r.jsonl", [joint(1, id="a"), joint(1, id="b"), joint(2)])
    assert f"{path}: found 2 distinct passages, expected at least 3" in failure(path, "fuse")
    (tmp_path / "two").mkdir()
    for name in ("train", "test"):
        write_jsonl(tmp_path / "two" / f"{name}.jsonl", [joint(1)])
    assert "found 1 distinct passages, expected at least 2" in failure(tmp_path / "two", "fuse")


@pytest.mark.parametrize("held_out", ["validation", "test"])
def test_a_source_of_two_splits_gets_its_validation_carved_from_train(tmp_path, held_out):
    write_jsonl(tmp_path / "train.jsonl", [joint(n) for n in range(40)])
    write_jsonl(tmp_path / f"{held_out}.jsonl", [joint(n) for n in range(50, 53)])
    splits = read_rows(tmp_path, "fuse")
    assert splits["test"]["id"][:] == ["r50", "r51", "r52"]
    assert len(splits["validation"]) and len(splits["train"]) + len(splits["validation"]) == 40


# SQuAD 2.0


def test_flat_squad_keeps_ids_first_answers_and_impossible_questions(tmp_path):
    records = [squad_record(1, ["first", "second"]), squad_record(2, []), squad_record(3, ["x"])]
    write_jsonl(tmp_path / "squad.jsonl", records)
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "squad.parquet")
    for name in ("squad.jsonl", "squad.parquet"):
        got = {row["id"]: row for row in all_rows(read_rows(tmp_path / name, "answer"))}
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


def test_squad_of_the_hub_has_its_validation_for_test(monkeypatch, tmp_path):
    made = DatasetDict(
        train=Dataset.from_list([squad_record(n, ["a"]) for n in range(30)]),
        validation=Dataset.from_list([squad_record(n, []) for n in range(30, 35)]),
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(files, "load_dataset", lambda *_: made)
    splits = read_rows("rajpurkar/squad_v2", "answer")
    assert splits["test"]["id"][:] == [f"q{n}" for n in range(30, 35)]
    assert set(splits["test"]["answerable"]) == {0}
    assert len(splits["train"]) + len(splits["validation"]) == 30


@pytest.mark.parametrize("stage", ["summarize", "fuse"])
def test_squad_serves_stage_answer_only(tmp_path, stage):
    path = write_jsonl(tmp_path / "squad.jsonl", [squad_record(1, ["a"])])
    message = failure(path, stage)
    assert "stage answer only" in message and ", ".join(STAGE_COLUMNS[stage]) in message


def test_squad_rows_of_bad_answers(tmp_path):
    good = [squad_record(n, ["a"]) for n in range(3)]
    path = write_jsonl(tmp_path / "a.jsonl", [*good, {**good[0], "id": "bad", "answers": "a"}])
    assert f"{path}, line 4, row 'bad': answers is 'a', expected" in failure(path, "answer")
    path = write_jsonl(tmp_path / "b.jsonl", [good[0], {"id": "x", "context": "c", "question": "q"}])
    assert f"{path}, line 2: the column 'answers' is missing" in failure(path, "answer")


def test_columns_make_rows_of_what_would_be_squad(tmp_path):
    records = [{**squad_record(n, ["a"]), "best": f"b{n}"} for n in range(3)]
    path = write_jsonl(tmp_path / "a.jsonl", records)
    columns = {"passage": "context", "answer": "best"}
    assert {row["answer"] for row in all_rows(read_rows(path, "answer", columns=columns))} == {
        "b0",
        "b1",
        "b2",
    }


def test_an_impossible_question_has_no_answer_whatever_is_listed(tmp_path):
    qas = [{"id": "q", "question": "?", "answers": [{"text": "a"}], "is_impossible": True}]
    document = squad_document(qas)
    for n in range(2):
        document["data"] += squad_document([{**qas[0], "id": f"q{n}"}], f"c{n}")["data"]
    (tmp_path / "dev.json").write_text(json.dumps(document))
    rows = all_rows(read_rows(tmp_path / "dev.json", "answer"))
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

    document = squad_document([qa(0, ["a"], False)])
    for number, arguments in enumerate([(["b"], False), ([], True), ([], False)], start=1):
        paragraphs = squad_document([qa(number, *arguments)], f"c{number}")["data"][0]["paragraphs"]
        document["data"][0]["paragraphs"] += paragraphs
    path = tmp_path / "dev.json"
    path.write_text(json.dumps(document))
    rejects = []
    got = {row["id"]: row["answerable"] for row in all_rows(read_rows(path, "answer", rejects=rejects))}
    assert got == {"q0": None, "q1": None, "q2": 0}
    assert rejects == [
        {"source": str(path), "index": 3, "id": "q3", "reason": "no answer, yet not impossible"}
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "expected SQuAD's JSON"),
        ('{"id": 1}\n{"id": 2}\n', "belongs in a .jsonl file"),
        ("[]", "whose 'data' is a list"),
        ('{"data": {}}', "whose 'data' is a list"),
        (
            '{"data": [{"title": "t"}]}',
            "data[0]: expected an object of SQuAD 2.0 whose 'paragraphs'",
        ),
        (json.dumps(squad_document([], None)), "data[0].paragraphs[0]: expected"),
        (json.dumps(squad_document([{"id": "q"}])), "data[0].paragraphs[0].qas[0]: expected"),
        (json.dumps(squad_document([])), "is empty"),
    ],
)
def test_malformed_squad_json_says_where(tmp_path, text, told):
    (tmp_path / "dev.json").write_text(text)
    message = failure(tmp_path / "dev.json", "answer")
    assert str(tmp_path / "dev.json") in message and told in message


@needs_sample
def test_the_squad_sample():
    rejects = []
    splits = read_rows(SAMPLE, "answer", rejects=rejects)
    rows = all_rows(splits)
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


# ACLSum


def test_aclsum_that_is_not_installed(monkeypatch):
    monkeypatch.setattr(papers, "find_spec", lambda _: None)
    assert "pip install aclsum" in failure("aclsum", "fuse")


def fake_aclsum(folder, monkeypatch, lines):
    (folder / "dataset").mkdir()
    for name in ("train", "val", "test"):
        write_jsonl(folder / "dataset" / f"{name}.jsonl", lines)
    spec = type("Spec", (), {"submodule_search_locations": [str(folder)]})
    monkeypatch.setattr(papers, "find_spec", lambda _: spec)


def paper(number, **changes):
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


def test_aclsum_rows(tmp_path, monkeypatch):
    fake_aclsum(tmp_path, monkeypatch, [paper(0), paper(1)])
    rows = read_rows("aclsum", "summarize")["train"].to_list()
    assert [(r["passage"], r["question"], r["summary"]) for r in rows] == [
        ("A . B . C . D .", "", "Ch. Ap. Ou.")
    ] * 2
    rows = read_rows("aclsum", "answer")["train"].to_list()
    assert [(r["question"], r["answer"]) for r in rows[:3]] == [
        (papers.QUESTIONS["challenge"], "A . C ."),
        (papers.QUESTIONS["approach"], "B ."),
        (papers.QUESTIONS["outcome"], "D ."),
    ]
    rows = read_rows("aclsum", "fuse")["train"].to_list()
    aspect = {question: name for name, question in papers.QUESTIONS.items()}
    answers = {"challenge": "A . C .", "approach": "B .", "outcome": "D ."}
    assert all(row["answer"] == answers[aspect[row["question"]]] for row in rows)
    told = [(row["summary"], aspect[row["question"]], row["answerable"]) for row in rows]
    assert told[:2] == [("Ch.", "challenge", 1), ("Ch.", "approach", 0)]
    assert told[6:8] == [("Ch.", "challenge", 1), ("Ch.", "outcome", 0)]
    # Two papers hold every wrong pair of aspects once.
    assert len({pair for pair in told if pair[2] == 0}) == 6


def test_aclsum_without_highlights_is_rejected_not_taught_as_unanswerable(tmp_path, monkeypatch):
    bare = paper(1)
    bare["highlights"]["outcome"]["conclusion"] = [0]
    fake_aclsum(tmp_path, monkeypatch, [paper(0), bare])
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


@pytest.mark.parametrize("broken", [{"summary": {}}, {"sentences": []}, {"highlights": None}])
def test_aclsum_of_another_form_names_the_line(tmp_path, monkeypatch, broken):
    fake_aclsum(tmp_path, monkeypatch, [paper(0), paper(1, **broken)])
    assert "train.jsonl, line 2: expected a paper of aclsum" in failure("aclsum", "fuse")


@needs_aclsum
@pytest.mark.parametrize(("stage", "rows_per_paper"), [("summarize", 1), ("answer", 3), ("fuse", 6)])
def test_the_papers_of_aclsum(stage, rows_per_paper):
    rejects = []
    splits = read_rows("aclsum", stage, rejects=rejects)
    sizes = {"train": 100, "validation": 50, "test": 100}
    assert {k: len(v) for k, v in splits.items()} == {k: n * rows_per_paper for k, n in sizes.items()}
    assert {k: len(set(v["passage"])) for k, v in splits.items()} == sizes
    assert not rejects
    assert "aclsum" not in sys.modules
    labels = {"fuse": {0: 300, 1: 300}}.get(stage, {None: 100 * rows_per_paper})
    assert Counter(splits["train"]["answerable"]) == labels


# The generator


@pytest.fixture
def calls(monkeypatch):
    made = []

    def generate(task, split, passages, **how):
        made.append((task, split, passages, how))
        yield from (joint(n, id=f"{split}-{n}") for n in range(3))

    module = ModuleType("crosstask.data.briefs")
    module.generate = generate
    monkeypatch.setitem(sys.modules, "crosstask.data.briefs", module)
    return made


def test_briefs_are_asked_for_by_stage_split_and_number(calls):
    splits = read_rows("briefs", "fuse")
    assert [call[:3] for call in calls] == [
        ("fuse", "train", 4000),
        ("fuse", "validation", 200),
        ("fuse", "test", 300),
    ]
    assert splits["test"].to_list() == [joint(n, id=f"test-{n}") for n in range(3)]


def test_options_reach_the_generator(calls):
    options = {"passages": {"train": 5, "test": 0}, "seed": 3, "questions": 2, "matching": 0.5}
    assert set(read_rows("briefs", "fuse", options=options)) == {"train", "validation"}
    how = {"seed": 3, "questions": 2, "matching": 0.5}
    assert calls == [("fuse", "train", 5, how), ("fuse", "validation", 200, how)]


@pytest.mark.parametrize(
    ("passages", "told"),
    [
        (500, "passages is 500, expected"),
        ({"train": -1}, "expected a number"),
        ({"train": "many"}, "expected a number"),
        ({"trian": 5}, "did you mean 'train'"),
    ],
)
def test_wrong_numbers_of_passages(calls, passages, told):
    assert told in failure("briefs", "fuse", options={"passages": passages})


# Rows one at a time: what is broken is a reject


def read_leniently(data, stage="build", **how):
    rejects = []
    return [row for _, _, row in iter_rows(data, stage, reject=rejects.append, **how)], rejects


@pytest.mark.parametrize("seed", range(3))
def test_a_thousand_broken_lines(tmp_path, seed):
    path = tmp_path / "rows.jsonl"
    good, faults = write_broken_jsonl(path, seed=seed)
    assert len(faults) == 1000 and len(set(faults.values())) == len(JSONL_KINDS) >= 20
    rows, rejects = read_leniently(path, extractive=True)
    assert [(row["id"], row["passage"]) for row in rows] == [(row["id"], row["passage"]) for row in good]
    assert {reject["line"]: True for reject in rejects} == dict.fromkeys(faults, True)
    assert len(rows) + len(rejects) == len(path.read_bytes().splitlines())
    told = {faults[reject["line"]]: reject["reason"] for reject in rejects}
    assert all(told.values()) and all("\n" not in reason for reason in told.values())
    assert all(str(path) not in reason and len(reason) < 300 for reason in told.values())
    for kind, reason in {
        "not UTF-8": "expected UTF-8, got",
        "no passage": "the column 'passage' is missing: there are id, question, answer; ",
        "label out of range": "answerable is 2, expected 0, 1",
        "duplicate id": "duplicate id",
        "answer not in the passage": "answer not in the passage",
        "10 MB passage": "passage of 10,000,000 characters, expected at most 1,000,000",
        "NUL escape": "NUL character in passage",
        "null question": "empty question",
        "a list": "expected a JSON object, got [",
        "passage is a list": "passage is ['The mill'], expected a string",
    }.items():
        assert told[kind].startswith(reason)
    write_rejects(rejects, tmp_path / "rejects.jsonl")
    assert [json.loads(line) for line in open(tmp_path / "rejects.jsonl")] == rejects
    # Without `extractive` an answer may be anything.
    free, rest = read_leniently(path)
    others = list(faults.values()).count("answer not in the passage")
    assert len(free) == len(good) + others and len(free) + len(rest) == len(rows) + len(rejects)


@pytest.mark.parametrize("seed", range(3))
def test_broken_lines_of_csv(tmp_path, seed):
    path = tmp_path / "rows.csv"
    good, faults = write_broken_csv(path, seed=seed)
    assert set(faults.values()) == set(CSV_KINDS)
    rows, rejects = read_leniently(path, extractive=True)
    assert [row["id"] for row in rows] == [row["id"] for row in good]
    assert [reject["line"] for reject in rejects] == sorted(faults)
    assert all(reject["reason"] for reject in rejects)


def test_a_quote_that_nobody_closes_costs_one_line(tmp_path):
    lines = ["id,passage,question,answer", '"x,p,q,a'] + [f"r{n},p{n},q,a" for n in range(30_000)]
    (tmp_path / "rows.csv").write_text("\n".join(lines))
    rows, rejects = read_leniently(tmp_path / "rows.csv")
    assert len(rows) == 30_000 and [reject["line"] for reject in rejects] == [2]
    assert "a quote that is still open after 10000 lines" in rejects[0]["reason"]


def test_the_end_of_a_broken_quoted_field_is_no_row(tmp_path):
    (tmp_path / "rows.csv").write_text('passage,question,answer\n"a\nb,"c,d\nx"y,q,e\np,q,"two\nlines"\n')
    rows, rejects = read_leniently(tmp_path / "rows.csv")
    assert [row["answer"] for row in rows] == ["two\nlines"]
    assert [reject["line"] for reject in rejects] == [2, 3, 4]


def test_a_broken_question_of_squad_is_a_reject(tmp_path):
    def qa(number, **changes):
        answers = [{"text": "the  Mill", "answer_start": 0}]
        return {"id": f"q{number}", "question": "?", "answers": answers, "is_impossible": False, **changes}

    broken = [qa(1, question=None), qa(2, answers="x"), qa(3, answers=[{"text": "a river"}]), qa(0)]
    document = squad_document([qa(0), *broken, qa(4, answers=[{"text": None}]), "text"])
    document["data"] += [{"title": "t"}, {"paragraphs": [{"qas": []}]}]
    (tmp_path / "dev.json").write_text(json.dumps(document))
    rows, rejects = read_leniently(tmp_path / "dev.json")
    assert [(row["id"], row["answer"], row["answerable"]) for row in rows] == [("q0", "the  Mill", None)]
    assert [(reject["index"], reject["reason"].split(":")[0]) for reject in rejects] == [
        (1, "data[0].paragraphs[0].qas[1]"),
        (2, "data[0].paragraphs[0].qas[2]"),
        (3, "answer not in the passage"),
        (4, "duplicate id"),
        (5, "answers is [{'text'"),
        (6, "data[0].paragraphs[0].qas[6]"),
        (7, "data[1]"),
        (8, "data[2].paragraphs[0]"),
    ]


def test_a_broken_record_of_flat_squad_is_a_reject(tmp_path):
    broken = [{**squad_record(1, ["a"]), "answers": {"text": text}} for text in ("The mill", [3], None)]
    unsaid = {**squad_record(1, []), "id": ["q1"], "is_impossible": False}
    path = write_jsonl(tmp_path / "rows.jsonl", [*broken, squad_record(2, ["the MILL"]), unsaid])
    rows, rejects = read_leniently(path)
    assert [row["id"] for row in rows] == ["q2"]
    assert [(reject["id"], reject["reason"][:21]) for reject in rejects] == [
        ("q1", "answers is {'text': '"),
        ("q1", "answers is {'text': ["),
        ("q1", "answers is {'text': N"),
        ("rows:5", "no answer, yet not im"),
    ]


def test_text_of_a_table_that_is_not_utf8_is_a_reject(tmp_path):
    texts = pa.array([b"p0", b"\xff", b"p2"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"passage": texts, "summary": ["s"] * 3}), tmp_path / "rows.parquet")
    rows, rejects = read_leniently(tmp_path / "rows.parquet", "summarize")
    assert [row["id"] for row in rows] == ["rows:0", "rows:2"]
    assert [(r["index"], r["reason"][:19]) for r in rejects] == [(1, "expected UTF-8, got")]


def test_only_what_no_record_has_is_an_error_of_the_user(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", [{"text": "t"}, joint(1), {"passage": "p"}])
    rows, rejects = read_leniently(path, "fuse")
    assert [row["id"] for row in rows] == ["r1"] and [reject["line"] for reject in rejects] == [1, 3]
    path = write_jsonl(tmp_path / "rows.jsonl", [{"text": "t"}] * 5000)
    rejects = []
    with pytest.raises(DataError, match="line 1: the column 'passage' is missing: there are text; stage"):
        list(iter_rows(path, "build", reject=rejects.append))
    assert len(rejects) < 1000
    with pytest.raises(DataError, match="is empty"):
        write_jsonl(tmp_path / "rows.jsonl", [])
        list(iter_rows(path, "build", reject=rejects.append))
    for arguments in [(tmp_path / "gone.jsonl", "build"), (path, "built"), (tmp_path / "x.txt", "build")]:
        with pytest.raises(DataError):  # at once, and not when the first row is asked for
            iter_rows(*arguments, reject=rejects.append)


def test_no_row_left_is_no_error_where_broken_ones_are_rejects(tmp_path):
    rows, rejects = read_leniently(write_jsonl(tmp_path / "r.jsonl", [joint(1, passage="")]))
    assert rows == [] and len(rejects) == 1


def test_a_made_data_set_may_name_its_columns(tmp_path):
    records = [{"text": f"p{n}", "q": "?", "a": "", "tldr": "s", "answer": "x"} for n in range(3)]
    path = write_jsonl(tmp_path / "r.jsonl", records)
    names = {"passage": "text", "question": "q", "answer": "a"}
    rows, _ = read_leniently(path, columns=names)
    assert {(row["answer"], row["summary"], row["answerable"]) for row in rows} == {("", "", 0)}
    rows, _ = read_leniently(path, columns={**names, "summary": "tldr"})
    assert {row["summary"] for row in rows} == {"s"}
    with pytest.raises(DataError, match="'tl;dr' is missing"):
        read_leniently(path, columns={**names, "summary": "tl;dr"})


def test_splits_that_a_source_has_are_told(tmp_path):
    for name in ("train", "dev"):
        write_jsonl(tmp_path / f"{name}.jsonl", [joint(1), joint(2)])
    told = [split for split, _, _ in iter_rows(tmp_path, "build", reject=pytest.fail)]
    assert told == ["train", "train", "validation", "validation"]
    told = [split for split, _, _ in iter_rows(tmp_path / "dev.jsonl", "build", reject=pytest.fail)]
    assert told == [None, None]


@pytest.mark.parametrize("data", ["briefs", pytest.param("aclsum", marks=needs_aclsum)])
def test_the_built_in_sources_serve_the_making_of_data_sets(data):
    options = {"passages": {"train": 5, "validation": 0, "test": 0}} if data == "briefs" else None
    rows = list(iter_rows(data, "build", options=options, reject=pytest.fail))
    assert rows and {split for split, _, _ in rows} <= {"train", "validation", "test"}
    answers = read_rows(data, "answer", options=options)["train"].to_list()
    rows = [row for split, _, row in rows if split == "train"]
    for row, answer in zip(rows, answers, strict=True):
        assert {**row, "summary": ""} == answer
        assert bool(row["summary"]) == (data == "aclsum")


@settings(max_examples=25, deadline=None)
@given(order=st.permutations(range(60)))
def test_the_order_of_lines_does_not_change_the_set_of_rows(tmp_path_factory, order):
    path = tmp_path_factory.mktemp("order") / "rows.jsonl"
    lines = [json.dumps({**good_row(n), "id": f"g{n}"}).encode() for n in range(60 - 24)]
    kinds = [kind for kind in JSONL_KINDS if kind != "10 MB passage"]
    lines += [JSONL_KINDS[kind]({**good_row(n), "id": kind}) for n, kind in enumerate(kinds)]
    path.write_bytes(b"\n".join(lines[n] for n in order) + b"\n")
    rows, rejects = read_leniently(path, extractive=True)
    # "good0", which is a duplicate elsewhere, is the only one of its id here.
    assert {row["id"] for row in rows} == {f"g{n}" for n in range(36)} | {"good0"}
    assert len(rows) + len(rejects) == 60


# Streams


@pytest.mark.parametrize("stage", STAGE_COLUMNS)
@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_a_stream_has_the_rows_of_the_table(tmp_path, stage, suffix):
    rows = [joint(n % 400, id=f"r{n}") for n in range(800)] + [joint(0, id="x", passage="")]
    path = tmp_path / f"rows.{suffix}"
    write_jsonl(path, rows) if suffix == "jsonl" else pq.write_table(pa.Table.from_pylist(rows), path)
    table, stream = read_rows(path, stage), read_rows(path, stage, streaming=True)
    assert isinstance(stream, IterableDatasetDict) and list(stream) == list(table)
    for split in table:
        assert stream[split].features == FEATURES
        assert list(stream[split]) == list(stream[split]) == table[split].to_list()


def test_a_stream_carves_what_is_missing(tmp_path):
    for name, first in (("train", 0), ("dev", 200)):
        write_jsonl(tmp_path / f"{name}.jsonl", [joint(n) for n in range(first, first + 200)])
    table, stream = read_rows(tmp_path, "fuse"), read_rows(tmp_path, "fuse", streaming=True)
    assert {split: list(rows) for split, rows in stream.items()} == {
        split: rows.to_list() for split, rows in table.items()
    }
    write_jsonl(tmp_path / "test.jsonl", [joint(500)])
    stream = read_rows(tmp_path, "fuse", streaming=True)
    assert {split: sum(1 for _ in rows) for split, rows in stream.items()} == {
        "train": 200,
        "validation": 200,
        "test": 1,
    }


def test_a_stream_is_as_strict_as_the_table_and_warns(tmp_path, caplog):
    path = write_jsonl(tmp_path / "rows.jsonl", [joint(1), joint(2, question=""), joint(3, passage=4)])
    stream = read_rows(path, "fuse", streaming=True)["train"]
    with pytest.raises(DataError, match="line 3, row 'r3': passage is 4"):
        list(stream)
    path = write_jsonl(tmp_path / "rows.jsonl", [joint(1), joint(2, question="")])
    list(read_rows(path, "fuse", streaming=True)["train"])
    assert "rejected 1 rows: 1 empty question" in caplog.text
    with pytest.raises(ValueError, match="rejects"):
        read_rows(path, "fuse", streaming=True, rejects=[])


def test_what_is_held_in_memory_does_not_grow_with_the_rows(tmp_path):
    def peak(number):
        with open(tmp_path / "rows.jsonl", "w") as file:
            for n in range(number):
                file.write(
                    json.dumps({"id": n, "passage": "p" * 2000, "question": "q", "answer": "a"}) + "\n"
                )
        tracemalloc.start()
        assert sum(1 for _ in iter_rows(tmp_path / "rows.jsonl", "build", reject=pytest.fail)) == number
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(10)  # what is imported and cached once
    # 4,500 more rows are 9 MB of text, and 8 bytes of each are kept, in an int in a set.
    assert peak(5000) - peak(500) < 4500 * 200
