import json
import logging
import shlex
from collections import Counter
from decimal import Decimal

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from broken_files import CSV_KINDS, JSONL_KINDS, write_broken_csv, write_broken_jsonl
from reader_helpers import concatenate, get_error, make_row, read_leniently, write_jsonl

from crosstask.data.readers import iter_rows, read_rows, write_rejects
from crosstask.data.schema import FEATURES
from crosstask.utils.errors import DataError


def test_missing_and_null_columns_get_their_defaults(tmp_path):
    rows = [{"passage": f"p{n}", "summary": f"s{n}", "id": None, "extra": n} for n in range(3)]
    rows_read = concatenate(read_rows(write_jsonl(tmp_path / "news.jsonl", rows), "summarize"))
    expected = {"source": "news.jsonl", "question": "", "answer": "", "answerable": None}
    assert sorted(rows_read, key=lambda row: row["id"]) == [
        {"id": f"news:{n + 1}", "passage": f"p{n}", "summary": f"s{n}", **expected} for n in range(3)
    ]


def test_columns_are_renamed_and_extra_ones_dropped(tmp_path):
    rows = [{"id": n, "article": f"a{n}", "highlights": f"h{n}", "passage": "no"} for n in range(3)]
    names = {"passage": "article", "summary": "highlights"}
    rows_read = concatenate(read_rows(write_jsonl(tmp_path / "cnn.jsonl", rows), "summarize", columns=names))
    assert {(row["id"], row["passage"], row["summary"]) for row in rows_read} == {
        (str(n), f"a{n}", f"h{n}") for n in range(3)
    }
    assert list(rows_read[0]) == list(FEATURES)


def test_labels_may_have_several_forms(tmp_path):
    labels = ["yes", "no", True, False, 1.0, None, "1", "0", ""]
    rows = [make_row(n, answerable=label) for n, label in enumerate(labels)]
    rows_read = {
        row["id"]: row["answerable"]
        for row in concatenate(read_rows(write_jsonl(tmp_path / "r.jsonl", rows), "fuse"))
    }
    assert [rows_read[f"r{n}"] for n in range(9)] == [1, 0, 1, 0, 1, None, 1, 0, None]


def test_joint_rows_serve_summarize_once_per_summary(tmp_path):
    rows = [make_row(n, id=f"{n}-{q}", question=f"q{q}") for n in range(4) for q in range(3)]
    rows.append(make_row(9, answerable=0))
    rejects = []
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    rows_read = concatenate(read_rows(path, "summarize", rejects=rejects))
    assert sorted(row["id"] for row in rows_read) == ["0-0", "1-0", "2-0", "3-0"]
    assert {row["question"] for row in rows_read} == {""}
    reasons = Counter(reject["reason"] for reject in rejects)
    assert reasons["same passage and summary as an earlier row"] == 8
    assert len(rows_read) + len(rejects) == len(rows)
    assert rejects[-1]["line"] == 13 and rejects[-1]["reason"].startswith("labeled no")


def test_joint_rows_serve_answer_once_per_question_and_answer(tmp_path):
    rows = [make_row(n, id=f"{n}-{s}", summary=f"s{s}", answerable=s) for n in range(4) for s in range(2)]
    rejects = []
    rows_read = concatenate(read_rows(write_jsonl(tmp_path / "rows.jsonl", rows), "answer", rejects=rejects))
    assert sorted(row["id"] for row in rows_read) == ["0-0", "1-0", "2-0", "3-0"]
    assert {(row["summary"], row["answerable"]) for row in rows_read} == {("", None)}
    assert {reject["reason"] for reject in rejects} == {
        "same passage and question and answer as an earlier row"
    }


def test_repetitions_in_rows_of_one_stage_stay(tmp_path):
    rows = [{"passage": f"p{n % 3}", "summary": "s"} for n in range(6)]
    assert len(concatenate(read_rows(write_jsonl(tmp_path / "r.jsonl", rows), "summarize"))) == 6


def test_a_reject_has_place_id_and_reason(tmp_path, caplog):
    rows = [make_row(n) for n in range(4)]
    rows[1:1] = [
        make_row(7, passage=" "),
        make_row(8, question=""),
        make_row(9, summary=None),
        make_row(0),
    ]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    rejects = []
    with caplog.at_level(logging.WARNING):
        splits = read_rows(path, "fuse", rejects=rejects)
    assert not caplog.records
    assert sorted(row["id"] for row in concatenate(splits)) == ["r0", "r1", "r2", "r3"]
    assert rejects == [
        {"source": path, "line": 2, "id": "r7", "reason": "empty passage"},
        {"source": path, "line": 3, "id": "r8", "reason": "empty question"},
        {"source": path, "line": 4, "id": "r9", "reason": "empty summary"},
        {"source": path, "line": 5, "id": "r0", "reason": "same id and texts as an earlier row"},
    ]


def test_a_table_counts_from_zero(tmp_path):
    rows = [make_row(0, passage="")] + [make_row(n) for n in range(1, 4)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    rejects = []
    read_rows(tmp_path / "rows.parquet", "fuse", rejects=rejects)
    assert [reject["index"] for reject in rejects] == [0]


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_a_missing_column_names_the_present_and_the_needed_ones(tmp_path, suffix):
    path = tmp_path / f"rows.{suffix}"
    if suffix == "jsonl":
        write_jsonl(path, [{"passage": "p", "text": "t"}])
    elif suffix == "csv":
        path.write_text("passage,text\np,t\n")
    else:
        pq.write_table(pa.table({"passage": ["p"], "text": ["t"]}), path)
    message = get_error(path, "summarize")
    for part in (
        str(path),
        "'summary' is missing",
        "there are passage, text",
        "needs passage, summary",
    ):
        assert part in message


def test_a_column_missing_from_one_line_names_the_line(tmp_path):
    path = write_jsonl(tmp_path / "r.jsonl", [{"passage": "p", "summary": "s"}, {"passage": "p"}])
    assert f"{path}, line 2: the column 'summary' is missing" in get_error(path, "summarize")


@pytest.mark.parametrize("columns", [{"passage": "artcle"}, {"id": "artcle"}])
def test_a_missing_renamed_column_is_named_as_in_the_file(tmp_path, columns):
    path = write_jsonl(tmp_path / "r.jsonl", [{"article": "p", "passage": "q", "summary": "s"}])
    assert "'artcle' is missing: there are article" in get_error(path, "summarize", columns=columns)


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_one_unknown_label_is_a_reject_with_file_line_row_and_value(tmp_path, suffix):
    path = tmp_path / f"rows.{suffix}"
    rows = [make_row(0), make_row(1, answerable=7), *(make_row(n, passage=f"p{n}") for n in range(2, 5))]
    if suffix == "jsonl":
        write_jsonl(path, rows)
    else:
        path.write_text("\n".join(",".join(map(str, row)) for row in (rows[0], *(r.values() for r in rows))))
    rejects = []
    splits = read_rows(path, "fuse", rejects=rejects)
    assert sum(map(len, splits.values())) == 4
    [reject] = rejects
    assert (reject["source"], reject["line"], reject["id"]) == (path.as_posix(), 2 + (suffix == "csv"), "r1")
    assert reject["reason"].startswith("answerable is ") and "7" in reject["reason"]


def test_wrong_types_and_only_labels_1_without_an_answer_are_errors(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", [make_row(0), make_row(1, passage=12)])
    assert f"{path}, line 2, row 'r1': passage is 12, expected a string" in get_error(path, "fuse")
    path = write_jsonl(tmp_path / "b.jsonl", [make_row(0, answer=None)])
    assert "answerable is 1 with an empty answer, expected an answer or the label 0 (line 1)" in get_error(
        path, "fuse"
    )


def test_columns_that_the_stage_does_not_read_may_have_any_value(tmp_path):
    rows = [{"passage": f"p{n}", "summary": "s", "answer": n, "question": None} for n in range(3)]
    splits = read_rows(write_jsonl(tmp_path / "r.jsonl", rows), "summarize")
    assert {row["answer"] for row in concatenate(splits)} == {""}


@pytest.mark.parametrize("seed", range(3))
def test_each_of_a_thousand_malformed_lines_is_a_reject(tmp_path, seed):
    path = tmp_path / "rows.jsonl"
    good, faults = write_broken_jsonl(path, seed=seed)
    assert len(faults) == 1000 and len(set(faults.values())) == len(JSONL_KINDS) >= 20
    rows, rejects = read_leniently(path, extractive=True)
    assert [(row["id"], row["passage"]) for row in rows] == [(row["id"], row["passage"]) for row in good]
    assert {reject["line"]: True for reject in rejects} == dict.fromkeys(faults, True)
    assert len(rows) + len(rejects) == len(path.read_bytes().splitlines())
    reasons = {faults[reject["line"]]: reject["reason"] for reject in rejects}
    assert all(reasons.values()) and all("\n" not in reason for reason in reasons.values())
    assert all(str(path) not in reason and len(reason) < 300 for reason in reasons.values())
    for kind, reason in {
        "not UTF-8": "expected UTF-8, got",
        "no passage": "the column 'passage' is missing: there are id, question, answer; ",
        "label out of range": "answerable is 2, expected 0, 1",
        "repeated row": "same id and texts as an earlier row",
        "answer not in the passage": "answer not in the passage",
        "10 MB passage": "passage of 10,000,000 characters, expected at most 1,000,000",
        "NUL escape": "NUL character in passage",
        "null question": "empty question",
        "a list": "expected a JSON object, got [",
        "passage is a list": "passage is ['The mill'], expected a string",
    }.items():
        assert reasons[kind].startswith(reason)
    write_rejects(rejects, tmp_path / "rejects.jsonl")
    assert [json.loads(line) for line in open(tmp_path / "rejects.jsonl")] == rejects
    # Without `extractive` any answer is accepted.
    more_rows, fewer_rejects = read_leniently(path)
    accepted = list(faults.values()).count("answer not in the passage")
    assert len(more_rows) == len(good) + accepted
    assert len(more_rows) + len(fewer_rejects) == len(rows) + len(rejects)


@pytest.mark.parametrize("seed", range(3))
def test_each_malformed_line_of_csv_is_a_reject(tmp_path, seed):
    path = tmp_path / "rows.csv"
    good, faults = write_broken_csv(path, seed=seed)
    assert set(faults.values()) == set(CSV_KINDS)
    rows, rejects = read_leniently(path, extractive=True)
    assert [row["id"] for row in rows] == [row["id"] for row in good]
    assert [reject["line"] for reject in rejects] == sorted(faults)
    assert all(reject["reason"] for reject in rejects)


def test_a_column_that_no_record_has_is_an_error_even_for_a_lenient_reader(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", [{"text": "t"}, make_row(1), {"passage": "p"}])
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
        with pytest.raises(DataError):  # at once, before the first row is read
            iter_rows(*arguments, reject=rejects.append)


def test_no_row_left_is_no_error_for_a_lenient_reader_if_the_reasons_differ(tmp_path):
    rows = [make_row(1, passage=""), make_row(2, question="")]
    rows, rejects = read_leniently(write_jsonl(tmp_path / "r.jsonl", rows))
    assert rows == [] and len(rejects) == 2


def test_the_columns_of_a_build_may_be_named(tmp_path):
    records = [{"text": f"p{n}", "q": "?", "a": "", "tldr": "s", "answer": "x"} for n in range(3)]
    path = write_jsonl(tmp_path / "r.jsonl", records)
    names = {"passage": "text", "question": "q", "answer": "a"}
    rows, _ = read_leniently(path, columns=names)
    assert {(row["answer"], row["summary"], row["answerable"]) for row in rows} == {("", "", 0)}
    rows, _ = read_leniently(path, columns={**names, "summary": "tldr"})
    assert {row["summary"] for row in rows} == {"s"}
    with pytest.raises(DataError, match="'tl;dr' is missing"):
        read_leniently(path, columns={**names, "summary": "tl;dr"})


def test_rows_that_share_an_id_get_ids_of_their_own(tmp_path, caplog):
    rows = [make_row(p, id=f"p{p}", question=f"q{q}?", summary=f"s{q}") for p in range(3) for q in range(3)]
    rows.insert(4, make_row(7, id="p0-2"))
    path = write_jsonl(tmp_path / "rows.jsonl", [*rows, rows[5], rows[1]])
    for stage in ("fuse", "answer", "summarize"):
        caplog.clear()
        rejects = []
        splits = read_rows(path, stage, rejects=rejects)
        ids = {(row["id"], row["question"] or row["summary"]) for row in concatenate(splits)}
        column = "summary" if stage == "summarize" else "question"
        expected = ["p0", "p0-2", "p0-3", "p1", "p0-2-2", "p1-2", "p1-3", "p2", "p2-2", "p2-3"]
        assert ids == {(i, row[column]) for i, row in zip(expected, rows, strict=True)}
        assert len(rejects) == 2
        assert caplog.messages == [
            f"{path}: 7 rows repeat the id of an earlier row and get ids of their own, "
            "such as 'p0-2' for 'p0'"
        ] * (stage == "fuse")
    rows_read, _ = read_leniently(path, "build")
    assert [row["id"] for row in rows_read] == expected


def test_an_id_that_all_rows_share_takes_no_longer(tmp_path):
    rows = [{"id": "en", "passage": f"p{n}", "summary": "s"} for n in range(20_000)]
    rows_read, _ = read_leniently(write_jsonl(tmp_path / "rows.jsonl", rows), "summarize")
    assert [row["id"] for row in rows_read] == ["en", *(f"en-{n}" for n in range(2, 20_001))]


@pytest.mark.parametrize("read", [read_rows, read_leniently])
def test_most_rows_without_a_text_are_an_error(tmp_path, read):
    rows = [make_row(n, summary="" if n % 3 else "s") for n in range(12)]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    with pytest.raises(DataError) as error:
        read(path, "fuse")
    assert str(error.value) == (
        f"{path}: 8 of 12 rows are rejected for one reason, empty summary (line 2), expected at most half of "
        "the rows"
    )
    rows = [make_row(n, summary="" if n % 2 else "s") for n in range(12)]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    read(path, "fuse")


def test_reasons_that_differ_in_values_only_are_one_reason(tmp_path):
    rows = [make_row(n, answerable=f"{n} of 5") for n in range(3)] + [make_row(3), make_row(4)]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    with pytest.raises(
        DataError, match="3 of 5 rows are rejected for one reason, answerable is '0 of 5', exp"
    ):
        read_leniently(path, "fuse")


def test_decimal_numbers_are_text(tmp_path):
    rows = [
        make_row(n) | {"answer": Decimal("4.50"), "passage": f"It cost 4.50 on day {n}."} for n in range(9)
    ]
    pd.DataFrame(rows).to_parquet(tmp_path / "rows.parquet")
    assert {row["answer"] for row in concatenate(read_rows(tmp_path / "rows.parquet", "answer"))} == {"4.50"}


def test_booleans_and_infinite_numbers_are_no_text(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", [make_row(0, answer=True), make_row(1)])
    assert "row 'r0': answer is True, expected a string" in get_error(path, "fuse")


def test_rows_that_are_not_for_the_stage_may_be_most(tmp_path):
    rows = [make_row(n, answerable=int(n % 3 == 0)) for n in range(12)]
    rows += [make_row(n, question="", summary="Mills.") for n in range(12, 40)]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    counts = {stage: len(read_leniently(path, stage)[1]) for stage in ("summarize", "answer")}
    assert counts == {"summarize": 8, "answer": 28}
    with pytest.raises(DataError, match="28 of 40 rows are rejected for one reason, empty question"):
        read_leniently(path, "fuse")


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_words_for_a_missing_value_are_empty_unless_the_passage_has_them(tmp_path, suffix, caplog):
    words = ["nan", "NULL", "<NA>", "None", "N/A", "NaN", "none"]
    passages = ["a", "banana", "b", "c", "d", "the value NaN stands for", "None of them came"]
    rows = [
        make_row(n, answer=word, passage=passage, answerable=None)
        for n, (word, passage) in enumerate(zip(words, passages, strict=True))
    ]
    path = tmp_path / f"rows{suffix}"
    write_table(path, rows)
    read, _ = read_leniently(path, "fuse")
    assert [row["answer"] for row in read] == ["", "", "", "None", "N/A", "NaN", "none"]
    assert "read as empty: 3 answers that are not in their passages" in caplog.text
    assert "read as answers: 2 answers that are not in their passages" in caplog.text


def write_table(path, rows):
    """Write rows to a file; its suffix tells the format."""
    table = pd.DataFrame(rows)
    if path.suffix == ".csv":
        table.to_csv(path, index=False)
    elif path.suffix == ".parquet":
        table.to_parquet(path)
    else:
        table.to_json(path, orient="records", lines=True)


def test_a_decimal_with_the_other_sign_in_the_passage_stays(tmp_path):
    rows = [
        make_row(0, answer="10.0", passage="Es waren 10,0 Grad."),
        make_row(1, answer="10,0", passage="x"),
    ]
    write_table(tmp_path / "rows.csv", rows)
    read, _ = read_leniently(tmp_path / "rows.csv", "fuse")
    assert [row["answer"] for row in read] == ["10.0", "10"]


@pytest.mark.parametrize("missing", [("answer",), ("answerable",), ("answer", "answerable")])
def test_columns_of_answers_and_labels_may_be_missing(tmp_path, missing, caplog):
    rows = [{k: v for k, v in make_row(n).items() if k not in missing} for n in range(4)]
    read, rejects = read_leniently(write_jsonl(tmp_path / "rows.jsonl", rows), "fuse")
    assert len(read) == 4 and not rejects
    assert {row["answer"] for row in read} == (
        {""} if "answer" in missing else {"1800", "1801", "1802", "1803"}
    )
    assert {row["answerable"] for row in read} == ({None} if "answerable" in missing else {1})
    assert f"has no column {' and no column '.join(missing)}, read as empty" in caplog.text


def test_rows_without_answers_and_labels_serve_summaries_once(tmp_path):
    rows = [{"passage": f"p{n // 2}", "question": f"q{n}", "summary": f"s{n // 2}"} for n in range(8)]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    assert len(concatenate(read_rows(path, "summarize"))) == 4
    assert "the column 'answer' is missing" in get_error(path, "answer")


def test_columns_in_other_case_are_hinted_at(tmp_path):
    rows = [{"Passage": f"p{n}", " question": "q", "Summary": "s"} for n in range(4)]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    assert (
        '; did you mean data_columns: {passage: Passage, question: " question", summary: Summary}'
        in get_error(path, "fuse")
    )


@pytest.mark.parametrize(
    ("stage", "columns", "hint"),
    [
        ("fuse", {}, "name yours with data_columns: {passage: ..., question: ..., summary: ...}"),
        ("ask", {}, "name yours with --columns '{passage: ..., question: ...}'"),
        ("ask", {"passage": "txt"}, "did you mean --columns '{passage: text, question: ...}'"),
        # What the user has named already stays.
        ("ask", {"passage": "text"}, "name yours with --columns '{passage: text, question: ...}'"),
        ("ask", {"passage": "text", "question": "Frage"}, "--columns '{passage: text, question: frage}'"),
    ],
)
def test_an_error_says_how_to_name_columns(tmp_path, stage, columns, hint):
    path = write_jsonl(tmp_path / "rows.jsonl", [{"text": "p", "frage": "q"}])
    assert get_error(path, stage, columns=columns).endswith(hint)


def test_a_hint_names_answers_and_labels_too(tmp_path):
    rows = [{"Passage": f"p{n}", "question": "q", "Summary": "s", "Answerable": 1} for n in range(4)]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    assert get_error(path, "fuse").endswith(
        "; did you mean data_columns: {passage: Passage, summary: Summary, answerable: Answerable}"
    )
    path = write_jsonl(tmp_path / "rows.jsonl", [row | {"Answer": "a"} for row in rows])
    assert "answer: Answer, summary: Summary, answerable: Answerable}" in get_error(path, "fuse")


@pytest.mark.parametrize("column", ["is_impossible", "Unanswerable", "not answerable", "no_answer"])
def test_a_column_of_inverted_labels_is_refused_and_not_hinted_at(tmp_path, caplog, column):
    rows = [{"passage": f"p{n}", "question": "q", "answer": "a", "summary": "s", column: 0} for n in range(9)]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    assert len(read_leniently(path, "fuse")[0]) == 9
    assert "has no column answerable, read as empty" in caplog.text and "did you mean" not in caplog.text
    expected = "which by its name is 1 where there is no answer"
    assert expected in get_error(path, "fuse", columns={"answerable": column})
    with pytest.raises(DataError, match=expected):
        read_leniently(path, "fuse", columns={"answerable": column})


@pytest.mark.parametrize(
    "column", [" passage", "Passage, long", "passage: 1", "Passagé", "passage #", "'passage"]
)
def test_a_hint_can_be_pasted(tmp_path, column):
    rows = [{column: f"p{n}", "question": "q", "summary": f"s{n}"} for n in range(9)]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    for stage, key in (("ask", "--columns"), ("summarize", "data_columns:")):
        hint = get_error(path, stage).partition(f"did you mean {key} ")[2]
        [mapping] = shlex.split(hint) if stage == "ask" else [hint]
        assert len(read_leniently(path, stage, columns=yaml.safe_load(mapping))[0]) == 9


@pytest.mark.parametrize(
    ("rows", "hint"),
    [
        ({"Answer": "a", "label": 1}, "answer: Answer, answerable: ..."),
        ({"answer": "a", "Answerable": 1}, "answerable: Answerable"),
        ({"Answerable": 1}, "answer: ..., answerable: Answerable"),
    ],
)
def test_a_warning_names_the_columns_that_may_have_answers_and_labels(tmp_path, caplog, rows, hint):
    rows = [{"passage": f"p{n}", "question": "q", "summary": f"s{n}", **rows} for n in range(9)]
    read_rows(write_jsonl(tmp_path / "rows.jsonl", rows), "fuse")
    assert f", read as empty; did you mean data_columns: {{{hint}}}?" in caplog.text


def test_a_file_like_a_corpus_gets_a_hint_for_its_own_columns(tmp_path):
    record = {"id": "1", "context": "p", "question": "q", "answers": {"text": [], "answer_start": []}}
    path = tmp_path / "rows.jsonl"
    assert get_error(write_jsonl(path, [record]), "fuse").endswith(
        "; there are id, context, question, answers"
    )
    assert get_error(write_jsonl(path, [record | {"Summary": "s"}]), "fuse").endswith(
        "; did you mean data_columns: {passage: ..., question: question, summary: Summary}"
    )


def test_passages_that_two_splits_share_are_counted(tmp_path, caplog):
    rows = [make_row(n) for n in range(10)]
    write_jsonl(tmp_path / "train.jsonl", rows)
    write_jsonl(tmp_path / "dev.jsonl", [*rows[:3], make_row(10)])
    read_rows(tmp_path, "fuse")
    assert f"{tmp_path}: 3 of 4 passages of validation are in train, too" in caplog.text


def test_shares_of_the_user_divide_one_split(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", [make_row(n) for n in range(400)])
    splits = read_rows(path, "fuse", shares={"validation": 0, "test": 0.5})
    assert set(splits) == {"train", "test"} and 150 < len(splits["test"]) < 250
    streams = read_rows(path, "fuse", shares={"validation": 0, "test": 0.5}, streaming=True)
    assert set(streams) == {"train", "test"} and len(list(streams["test"])) == len(splits["test"])
    for shares in ({"test": 1}, {"test": -0.1}, {"validation": 0.5, "test": 0.5}, {"train": 0.5}):
        assert "share" in get_error(path, "fuse", shares=shares)


def test_words_of_the_passage_may_be_spelled_in_other_characters(tmp_path):
    rows = [make_row(n, answer="10-15 C", passage="Es hat 10–15 C.") for n in range(3)]
    read, rejects = read_leniently(write_jsonl(tmp_path / "rows.jsonl", rows), extractive=True)
    assert len(read) == 3 and not rejects
