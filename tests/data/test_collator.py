"""Batches: as long as their longest row, to a multiple of 8, whatever the order of the rows."""

import pytest
import torch

from crosstask import CrossTaskProcessor
from crosstask.data.collator import CrossTaskCollator
from crosstask.data.tokenizer import train_tokenizer

TEXT = "the mayor opened the old bridge on May 3 after two days of rain"
NAMES = {"input_ids", "attention_mask", "labels", "answerable"}


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([TEXT], 320)


@pytest.fixture(scope="module")
def processor(tokenizer):
    return CrossTaskProcessor(tokenizer, prompt="{question} :", max_source_length=1024)


@pytest.fixture(scope="module")
def with_question_tokenizer(tokenizer):
    other = train_tokenizer(["who opened the bridge ?"], 300)
    return CrossTaskProcessor(tokenizer, other, prompt="{question} :", max_source_length=1024)


def rows_of(processor, *words):
    """A row for each number of words, of passage and summary."""
    return [
        dict(
            processor(
                question="who ?",
                passage=" ".join(TEXT.split()[:count]),
                summary=" ".join(["bridge"] * count),
                answerable=count % 2,
            )
        )
        for count in words
    ]


def test_the_longest_row_gives_the_length(processor):
    rows = rows_of(processor, 2, 7, 11)
    batch = CrossTaskCollator(processor)(rows)
    assert type(batch) is dict and batch.keys() == NAMES
    for name in ("input_ids", "labels"):
        longest = max(len(row[name]) for row in rows)
        assert batch[name].shape == (3, -(-longest // 8) * 8)
        assert batch[name].shape[1] < longest + 8
    assert batch["answerable"].tolist() == [0, 1, 1]
    assert all(value.dtype == torch.long for value in batch.values())


def test_rows_come_back_between_the_padding(processor):
    rows = rows_of(processor, 2, 7)
    batch = CrossTaskCollator(processor)(rows)
    for index, row in enumerate(rows):
        length, tokens = len(row["input_ids"]), len(row["labels"])
        assert batch["input_ids"][index, :length].tolist() == row["input_ids"]
        assert set(batch["input_ids"][index, length:].tolist()) <= {processor.tokenizer.pad_token_id}
        assert batch["attention_mask"][index].sum() == length
        assert batch["labels"][index, :tokens].tolist() == row["labels"]
        assert set(batch["labels"][index, tokens:].tolist()) <= {-100}


@pytest.mark.parametrize("multiple", [1, 8, 64])
def test_the_multiple_is_kept_and_length_without_need_is_not_added(processor, multiple):
    for count in range(1, 10):
        rows = rows_of(processor, count)
        batch = CrossTaskCollator(processor, pad_to_multiple_of=multiple)(rows)
        for name in ("input_ids", "attention_mask", "labels"):
            assert batch[name].shape[1] == -(-len(rows[0][name]) // multiple) * multiple


def test_the_order_of_rows_changes_nothing_but_the_order(processor):
    rows = rows_of(processor, 2, 11, 5, 8)
    order = [2, 0, 3, 1]
    collate = CrossTaskCollator(processor)
    batch, other = collate(rows), collate([rows[index] for index in order])
    for name, value in batch.items():
        assert torch.equal(value[order], other[name])


def test_rows_are_left_as_they_were(processor):
    rows = rows_of(processor, 2, 7)
    before = [{name: value for name, value in row.items()} for row in rows]
    lengths = [len(row["labels"]) for row in rows]
    CrossTaskCollator(processor)(rows)
    assert rows == before and lengths == [len(row["labels"]) for row in rows]


def test_a_question_tokenizer_pads_its_own_ids(with_question_tokenizer):
    processor = with_question_tokenizer
    rows = rows_of(processor, 3, 12)
    batch = CrossTaskCollator(processor)(rows)
    assert batch.keys() == NAMES | {"question_input_ids", "question_attention_mask"}
    longest = max(len(row["question_input_ids"]) for row in rows)
    assert batch["question_input_ids"].shape == (2, -(-longest // 8) * 8)
    assert batch["question_input_ids"].shape != batch["input_ids"].shape
    for index, row in enumerate(rows):
        length = len(row["question_input_ids"])
        assert batch["question_attention_mask"][index].sum() == length
        assert batch["question_input_ids"][index, :length].tolist() == row["question_input_ids"]


def test_rows_without_labels_make_a_batch_without(processor):
    rows = [dict(processor(question="who ?", passage=TEXT))]
    assert CrossTaskCollator(processor)(rows).keys() == {"input_ids", "attention_mask"}


def test_unlabelled_and_empty_rows(processor):
    rows = [dict(processor(question="", passage="", summary="", answerable=-100))]
    batch = CrossTaskCollator(processor)(rows)
    assert batch["answerable"].tolist() == [-100]
    assert batch["labels"].tolist() == [[processor.tokenizer.eos_token_id] + [-100] * 7]


def test_a_tokenizer_that_pads_on_the_left_keeps_labels_on_the_right(processor):
    rows = rows_of(processor, 2, 7)
    processor.tokenizer.padding_side = "left"
    try:
        batch = CrossTaskCollator(processor)(rows)
    finally:
        processor.tokenizer.padding_side = "right"
    assert batch["attention_mask"][0, 0] == 0 and batch["attention_mask"][0, -1] == 1
    assert batch["labels"][0, 0] != -100 and batch["labels"][0, -1] == -100
