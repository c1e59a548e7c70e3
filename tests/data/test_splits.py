import pytest
from datasets import Dataset

from crosstask.data.splits import assign_split, split_by_passage


def make_dataset(passage_count, rows_per_passage=3):
    passages = [f"p{n}" for n in range(passage_count) for _ in range(rows_per_passage)]
    return Dataset.from_dict({"passage": passages})


def test_no_passage_is_in_two_splits_and_no_row_is_lost():
    splits = split_by_passage(make_dataset(2000))
    passages = {name: set(split["passage"]) for name, split in splits.items()}
    assert sum(len(split) for split in splits.values()) == 6000
    assert sum(len(names) for names in passages.values()) == 2000
    assert 60 < len(passages["validation"]) < 140 and 60 < len(passages["test"]) < 140


def test_the_split_does_not_depend_on_the_order_of_rows():
    dataset = make_dataset(300)
    splits, shuffled = split_by_passage(dataset), split_by_passage(dataset.shuffle(seed=1))
    assert all(set(splits[name]["passage"]) == set(shuffled[name]["passage"]) for name in splits)


def test_a_passage_stays_in_its_split_when_passages_are_added():
    few, many = split_by_passage(make_dataset(500)), split_by_passage(make_dataset(1000))
    assert all(set(few[name]["passage"]) <= set(many[name]["passage"]) for name in few)


@pytest.mark.parametrize("passages", range(3, 40))
def test_no_split_of_a_tiny_file_is_empty(passages):
    splits = split_by_passage(make_dataset(passages))
    assert all(len(split) for split in splits.values())
    # Also with uneven shares: no split may take the passages that the later ones need.
    splits = split_by_passage(make_dataset(passages), validation=0.005, test=0.99)
    assert all(len(split) for split in splits.values())


def test_a_share_of_zero_makes_no_split():
    assert set(split_by_passage(make_dataset(50), test=0)) == {"train", "validation"}
    assert set(split_by_passage(make_dataset(1), validation=0, test=0)) == {"train"}


@pytest.mark.parametrize("shares", [(-0.1, 0.1), (0.5, 0.5), (1, 0)])
def test_impossible_shares_are_an_error(shares):
    with pytest.raises(ValueError, match="expected shares"):
        split_by_passage(make_dataset(50), *shares)


def test_the_split_of_a_passage_depends_on_its_text_alone():
    passages = make_dataset(2000, rows_per_passage=1)
    table = split_by_passage(passages)
    assert all(assign_split(text) == split for split in table for text in table[split]["passage"])
    assert {assign_split(text, validation=0, test=0) for text in passages["passage"]} == {"train"}


@pytest.mark.parametrize(("passages", "least"), [(20, 4), (60, 10), (100, 10)])
def test_small_sets_have_enough_passages_for_validation_and_test(passages, least):
    splits = split_by_passage(make_dataset(passages, rows_per_passage=1))
    assert min(len(splits["validation"]), len(splits["test"])) >= least
    assert len(splits["train"]) >= passages // 2


def test_shares_of_the_user_have_no_least_number():
    splits = split_by_passage(make_dataset(100, rows_per_passage=1), validation=0.01, test=0.02)
    assert len(splits["validation"]) < 5 and len(splits["test"]) < 8


def test_passages_that_differ_in_white_space_are_in_one_split():
    passages = [f"A mill of {n}.{space}" for n in range(100) for space in ("", " ", "\n")]
    splits = split_by_passage(Dataset.from_dict({"passage": passages}))
    stripped = [{passage.strip() for passage in split["passage"]} for split in splits.values()]
    assert sum(map(len, stripped)) == 100
