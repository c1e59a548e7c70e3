import tracemalloc
from random import Random

import pytest
import torch
from datasets import Dataset
from torch.utils.data import DataLoader

from crosstask import CrossTaskProcessor
from crosstask.data.collator import ROW_INDEX_COLUMN, Contrasts, CrossTaskCollator, detect_contrasts
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
def processor_with_question_tokenizer(tokenizer):
    question_tokenizer = train_tokenizer(["who opened the bridge ?"], 300)
    return CrossTaskProcessor(tokenizer, question_tokenizer, prompt="{question} :", max_source_length=1024)


def encode_rows(processor, *word_counts):
    """Encode one row per word count; the passage and the summary have this many words."""
    return [
        dict(
            processor(
                question="who ?",
                passage=" ".join(TEXT.split()[:count]),
                summary=" ".join(["bridge"] * count),
                answerable=count % 2,
            )
        )
        for count in word_counts
    ]


def test_rows_are_padded_to_the_longest_one_and_a_multiple_of_8(processor):
    rows = encode_rows(processor, 2, 7, 11)
    batch = CrossTaskCollator(processor)(rows)
    assert type(batch) is dict and batch.keys() == NAMES
    for name in ("input_ids", "labels"):
        longest = max(len(row[name]) for row in rows)
        assert batch[name].shape == (3, -(-longest // 8) * 8)
        assert batch[name].shape[1] < longest + 8
    assert batch["answerable"].tolist() == [0, 1, 1]
    assert all(value.dtype == torch.long for value in batch.values())


def test_padding_leaves_the_tokens_as_they_are(processor):
    rows = encode_rows(processor, 2, 7)
    batch = CrossTaskCollator(processor)(rows)
    for index, row in enumerate(rows):
        length, tokens = len(row["input_ids"]), len(row["labels"])
        assert batch["input_ids"][index, :length].tolist() == row["input_ids"]
        assert set(batch["input_ids"][index, length:].tolist()) <= {processor.tokenizer.pad_token_id}
        assert batch["attention_mask"][index].sum() == length
        assert batch["labels"][index, :tokens].tolist() == row["labels"]
        assert set(batch["labels"][index, tokens:].tolist()) <= {-100}


@pytest.mark.parametrize("multiple", [1, 8, 64])
def test_lengths_are_rounded_up_to_the_multiple(processor, multiple):
    for count in range(1, 10):
        rows = encode_rows(processor, count)
        batch = CrossTaskCollator(processor, pad_to_multiple_of=multiple)(rows)
        for name in ("input_ids", "attention_mask", "labels"):
            assert batch[name].shape[1] == -(-len(rows[0][name]) // multiple) * multiple


def test_the_order_of_rows_only_changes_the_order_of_the_batch(processor):
    rows = encode_rows(processor, 2, 11, 5, 8)
    order = [2, 0, 3, 1]
    collate = CrossTaskCollator(processor)
    batch, reordered = collate(rows), collate([rows[index] for index in order])
    for name, value in batch.items():
        assert torch.equal(value[order], reordered[name])


def test_the_rows_are_not_changed(processor):
    rows = encode_rows(processor, 2, 7)
    before = [{name: value for name, value in row.items()} for row in rows]
    lengths = [len(row["labels"]) for row in rows]
    CrossTaskCollator(processor)(rows)
    assert rows == before and lengths == [len(row["labels"]) for row in rows]


def test_question_ids_are_padded_by_the_question_tokenizer(processor_with_question_tokenizer):
    processor = processor_with_question_tokenizer
    rows = encode_rows(processor, 3, 12)
    batch = CrossTaskCollator(processor)(rows)
    assert batch.keys() == NAMES | {"question_input_ids", "question_attention_mask"}
    longest = max(len(row["question_input_ids"]) for row in rows)
    assert batch["question_input_ids"].shape == (2, -(-longest // 8) * 8)
    assert batch["question_input_ids"].shape != batch["input_ids"].shape
    for index, row in enumerate(rows):
        length = len(row["question_input_ids"])
        assert batch["question_attention_mask"][index].sum() == length
        assert batch["question_input_ids"][index, :length].tolist() == row["question_input_ids"]


def test_rows_without_labels_give_a_batch_without_labels(processor):
    rows = [dict(processor(question="who ?", passage=TEXT))]
    assert CrossTaskCollator(processor)(rows).keys() == {"input_ids", "attention_mask"}


def test_unlabeled_and_empty_rows(processor):
    rows = [dict(processor(question="", passage="", summary="", answerable=-100))]
    batch = CrossTaskCollator(processor)(rows)
    assert batch["answerable"].tolist() == [-100]
    assert batch["labels"].tolist() == [[processor.tokenizer.eos_token_id] + [-100] * 7]


def test_labels_are_padded_on_the_right_even_if_the_tokenizer_pads_on_the_left(processor):
    rows = encode_rows(processor, 2, 7)
    processor.tokenizer.padding_side = "left"
    try:
        batch = CrossTaskCollator(processor)(rows)
    finally:
        processor.tokenizer.padding_side = "right"
    assert batch["attention_mask"][0, 0] == 0 and batch["attention_mask"][0, -1] == 1
    assert batch["labels"][0, 0] != -100 and batch["labels"][0, -1] == -100


def test_contrasts_share_the_passage_but_not_the_question_and_summary(processor):
    rows = {
        "passage": ["a", "a", "a", "a", "b", "c", "c"],
        "question": ["who ?", "when ?", "who ?", "what ?", "who ?", "who ?", "when ?"],
        "summary": ["x", "y", "z", "x", "y", "x", "x"],
    }
    encoded = [
        dict(processor(question=question, passage=passage, summary=summary, answerable=1))
        for passage, question, summary in zip(*rows.values(), strict=True)
    ]
    contrasts = Contrasts(rows, encoded)
    assert [contrasts.find(row) for row in range(7)] == [[1], [0, 2, 3], [1, 3], [1, 2], [], [], []]
    assert detect_contrasts(rows) == [True] * 4 + [False] * 3
    collate = CrossTaskCollator(processor, contrasts=contrasts)
    batch = collate([row | {ROW_INDEX_COLUMN: index} for index, row in enumerate(encoded)])
    assert batch["contrast_mask"].tolist() == [True] * 4 + [False] * 3
    assert len(batch["contrast_input_ids"]) == 7
    assert batch["contrast_input_ids"].shape == batch["contrast_attention_mask"].shape
    seen = set()
    for epoch in range(50):
        contrasts.set_epoch(epoch)
        batch = collate([encoded[1] | {ROW_INDEX_COLUMN: 1}])
        ids, mask = batch["contrast_input_ids"][0], batch["contrast_attention_mask"][0].bool()
        seen |= {index for index in (0, 2, 3) if ids[mask].tolist() == encoded[index]["input_ids"]}
    assert seen == {0, 2, 3}
    # A row without contrasts, and rows without an index.
    alone = collate([encoded[4] | {ROW_INDEX_COLUMN: 4}])
    assert alone["contrast_mask"].tolist() == [False]
    assert torch.equal(alone["contrast_input_ids"], alone["input_ids"])
    assert collate(encoded).keys() == NAMES


@pytest.mark.parametrize("workers", [0, 2])
def test_draws_depend_on_seed_and_epoch_only(processor, workers):
    rows = {
        "passage": ["a"] * 12,
        "question": [f"who {n} ?" for n in range(12)],
        "summary": [f"x {n}" for n in range(12)],
    }
    encoded = [
        dict(processor(question=question, passage="a", summary="x", answerable=1))
        for question in rows["question"]
    ]
    data = [row | {ROW_INDEX_COLUMN: index} for index, row in enumerate(encoded)]

    def draw_epochs(order, size, seed=3):
        """Yield, for each epoch, the contrast inputs by row."""
        contrasts = Contrasts(rows, encoded, seed=seed)
        batches = DataLoader(
            [data[index] for index in order],
            batch_size=size,
            collate_fn=CrossTaskCollator(processor, contrasts=contrasts),
            num_workers=workers,
            persistent_workers=workers > 0,
        )
        for epoch in range(3):
            contrasts.set_epoch(epoch)
            ids = [
                row[mask.bool()].tolist()
                for batch in batches
                for row, mask in zip(
                    batch["contrast_input_ids"], batch["contrast_attention_mask"], strict=True
                )
            ]
            yield dict(zip(order, ids, strict=True))

    expected = list(draw_epochs(range(12), 4))
    assert list(draw_epochs(list(reversed(range(12))), 3)) == expected
    assert list(draw_epochs(range(12), 4, seed=4)) != expected
    assert all(epoch != following for epoch, following in zip(expected, expected[1:], strict=False))


def test_questions_without_a_summary_are_contrasts():
    rows = {"passage": ["a"] * 3, "question": ["who ?", "when ?", "what ?"], "summary": ["x", "", ""]}
    assert Contrasts(rows, [{}] * 3).find(0) == [1, 2]
    assert detect_contrasts(rows) == [True] * 3


def test_detecting_contrasts_agrees_with_finding_them():
    """The texts are so few that every combination of equal texts occurs."""
    for seed in range(20):
        random = Random(seed)
        rows = {name: [random.choice("abc") for _ in range(8)] for name in ("passage", "question", "summary")}
        contrasts = Contrasts(rows, [{}] * 8)
        assert detect_contrasts(rows) == [bool(contrasts.find(row)) for row in range(8)]


def test_draws_do_not_change_between_versions():
    """Published results depend on these draws."""
    rows = {
        "passage": ["a", "b"] * 6,
        "question": [f"who {n % 7} ?" for n in range(12)],
        "summary": [f"x {n % 5}" for n in range(12)],
    }
    contrasts = Contrasts(rows, [{}] * 12, seed=3)
    draws = []
    for epoch in range(3):
        contrasts.set_epoch(epoch)
        draws.append([contrasts.draw(row) for row in range(12)])
    assert draws == [
        [6, 9, 0, 11, 2, 9, 4, 3, 4, 5, 4, 9],
        [8, 3, 4, 7, 6, 11, 4, 3, 2, 1, 2, 3],
        [4, 9, 0, 1, 8, 11, 8, 3, 10, 1, 8, 7],
    ]


def test_many_questions_on_one_passage_need_little_memory():
    count = 3000
    rows = {"passage": ["a"] * count, "question": [f"who {n} ?" for n in range(count)]}
    rows["summary"] = [f"x {n}" for n in range(count)]
    tracemalloc.start()
    try:
        contrasts = Contrasts(rows, [{}] * count)
        assert all(detect_contrasts(rows))
        assert 0 <= contrasts.draw(7) < count
        assert tracemalloc.get_traced_memory()[1] < 1000 * count
    finally:
        tracemalloc.stop()


MALFORMED = {
    "column": ({"passage": ["a"], "question": ["who ?"]}, 1, "no summary among passage, question$"),
    "columns": ({}, 0, "rows: expected the columns passage, question, summary, found no passage among none$"),
    "lengths": (
        {"passage": ["a"], "question": ["who ?"] * 2, "summary": ["x"]},
        1,
        "rows: expected columns of one length, got 1 of passage, 2 of question, 1 of summary$",
    ),
    "encoded": (
        {"passage": ["a"] * 2, "question": ["who ?"] * 2, "summary": ["x"] * 2},
        1,
        "encoded: expected the 2 rows of `rows`, got 1$",
    ),
}


@pytest.mark.parametrize(("rows", "count", "message"), MALFORMED.values(), ids=MALFORMED)
def test_malformed_rows_are_an_error(rows, count, message):
    with pytest.raises(ValueError, match=message):
        Contrasts(rows, [{}] * count)


def test_a_dataset_without_a_column_is_an_error():
    with pytest.raises(ValueError, match="found no summary among passage, question$"):
        detect_contrasts(Dataset.from_dict({"passage": ["a"], "question": ["who ?"]}))


def test_contrasts_include_the_inputs_of_the_question_encoder(processor_with_question_tokenizer):
    rows = {"passage": ["a", "a"], "question": ["who ?", "when ?"], "summary": ["x", "y"]}
    encoded = [
        dict(processor_with_question_tokenizer(question=question, passage="a", summary="x", answerable=1))
        for question in rows["question"]
    ]
    batch = CrossTaskCollator(processor_with_question_tokenizer, contrasts=Contrasts(rows, encoded))(
        [row | {ROW_INDEX_COLUMN: index} for index, row in enumerate(encoded)]
    )
    assert {name for name in batch if name.startswith("contrast_")} == {
        "contrast_mask",
        "contrast_input_ids",
        "contrast_attention_mask",
        "contrast_question_input_ids",
        "contrast_question_attention_mask",
    }
