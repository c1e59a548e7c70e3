import pytest
from datasets import Dataset

from crosstask.data.schema import (
    FEATURES,
    NO_ANSWER,
    STAGE_COLUMNS,
    check_keys,
    check_row,
    check_stage,
    hash_texts,
)
from crosstask.utils.errors import DataError

ROW = {
    "id": "r1",
    "source": "rows.jsonl",
    "passage": "The mill opened in 1893.",
    "question": "When did the mill open?",
    "answer": "1893",
    "summary": "A mill opened in 1893.",
    "answerable": 1,
}


def test_features_hold_labeled_and_unlabeled_rows():
    rows = [ROW, {**ROW, "answerable": None}, {**ROW, "answerable": "no"}]
    dataset = Dataset.from_list(rows, features=FEATURES)
    assert list(dataset.features) == list(ROW)
    assert dataset["answerable"][:] == [1, None, 0]
    assert dataset.features["answerable"].names == ["no", "yes"]


def test_every_stage_reads_columns_of_the_schema():
    assert set(STAGE_COLUMNS) == {"summarize", "answer", "fuse", "build", "ask"}
    assert all(set(columns) <= set(FEATURES) for columns in STAGE_COLUMNS.values())
    assert NO_ANSWER == "unanswerable"


@pytest.mark.parametrize("stage", STAGE_COLUMNS)
@pytest.mark.parametrize("label", [0, 1, 1.0, "no", "yes", "1", "", None])
def test_a_good_row_is_accepted(stage, label):
    assert check_row({**ROW, "answerable": label}, stage) is None


@pytest.mark.parametrize(
    ("column", "stages"),
    [
        ("passage", {"summarize", "answer", "fuse", "build", "ask"}),
        ("question", {"answer", "fuse", "build", "ask"}),
        ("summary", {"summarize", "fuse"}),
        ("answer", set()),
    ],
)
@pytest.mark.parametrize("blank", ["", " \n\t"])
def test_an_empty_text_is_rejected_by_the_stages_that_need_it(column, stages, blank):
    row = {**ROW, "answerable": 0, column: blank}
    for stage in STAGE_COLUMNS:
        assert check_row(row, stage) == (f"empty {column}" if stage in stages else None)


@pytest.mark.parametrize("label", [2, -1, 0.5, "maybe", "2", [], {}])
def test_an_unknown_label_is_a_reason_to_reject(label):
    reason = check_row({**ROW, "answerable": label}, "fuse")
    assert reason == f"answerable is {label!r}, expected 0, 1, 'no', 'yes' or null"


@pytest.mark.parametrize("label", [1, "yes"])
def test_a_label_1_without_an_answer_is_a_reason_to_reject(label):
    row = {**ROW, "answer": " ", "answerable": label}
    reason = check_row(row, "fuse")
    assert reason == f"answerable is {label!r} with an empty answer, expected an answer or the label 0"
    assert check_row({**row, "answer": ""}, "fuse", has_answers=False) is None


@pytest.mark.parametrize("column", ["id", "source", "passage", "question", "answer", "summary"])
@pytest.mark.parametrize("value", [3, None, ["text"]])
def test_a_wrong_type_is_an_error(column, value):
    with pytest.raises(DataError, match=rf"{column} is .*expected a string"):
        check_row({**ROW, column: value}, "fuse")


def test_half_a_surrogate_pair_is_an_error():
    with pytest.raises(DataError, match=r"passage holds '\\ud83d', expected Unicode"):
        check_row({**ROW, "passage": "half a smile: \ud83d"}, "fuse")


def test_an_unknown_stage_is_an_error():
    with pytest.raises(DataError, match="'fusion' is unknown: expected one of summarize, answer, fuse"):
        check_stage("fusion")


def test_an_unknown_key_suggests_the_closest():
    with pytest.raises(DataError, match=r"column 'sumary' is unknown.*did you mean 'summary'"):
        check_keys("column", ["passage", "sumary"], FEATURES)
    check_keys("column", ["passage"], FEATURES)


def test_the_hash_differs_for_other_texts_and_other_boundaries():
    assert hash_texts("ab", "c") != hash_texts("a", "bc") != hash_texts("abc")
    assert hash_texts("🌉", "\ud83d") == hash_texts("🌉", "\ud83d") < 2**64
