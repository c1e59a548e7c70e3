import pytest
from datasets import Dataset

from crosstask.data.splits import split_by_passage, split_of


def rows_of_passages(passages, each=3):
    return Dataset.from_dict({"passage": [f"p{n}" for n in range(passages) for _ in range(each)]})


def test_no_passage_lies_in_two_splits_and_no_row_is_lost():
    splits = split_by_passage(rows_of_passages(2000))
    passages = {name: set(split["passage"]) for name, split in splits.items()}
    assert sum(len(split) for split in splits.values()) == 6000
    assert sum(len(names) for names in passages.values()) == 2000
    assert 60 < len(passages["validation"]) < 140 and 60 < len(passages["test"]) < 140


def test_the_split_does_not_depend_on_the_order_of_rows():
    dataset = rows_of_passages(300)
    one, other = split_by_passage(dataset), split_by_passage(dataset.shuffle(seed=1))
    assert all(set(one[name]["passage"]) == set(other[name]["passage"]) for name in one)


def test_passages_stay_where_they_are_when_others_come():
    few, many = split_by_passage(rows_of_passages(500)), split_by_passage(rows_of_passages(1000))
    assert all(set(few[name]["passage"]) <= set(many[name]["passage"]) for name in few)


@pytest.mark.parametrize("passages", range(3, 40))
def test_even_a_tiny_file_fills_every_split(passages):
    splits = split_by_passage(rows_of_passages(passages))
    assert all(len(split) for split in splits.values())
    # However uneven the shares: no split may take all that the later ones need.
    splits = split_by_passage(rows_of_passages(passages), validation=0.005, test=0.99)
    assert all(len(split) for split in splits.values())


def test_a_share_of_zero_is_no_split():
    assert set(split_by_passage(rows_of_passages(50), test=0)) == {"train", "validation"}
    assert set(split_by_passage(rows_of_passages(1), validation=0, test=0)) == {"train"}


@pytest.mark.parametrize("shares", [(-0.1, 0.1), (0.5, 0.5), (1, 0)])
def test_impossible_shares(shares):
    with pytest.raises(ValueError, match="expected shares"):
        split_by_passage(rows_of_passages(50), *shares)


def test_a_passage_has_its_split_by_itself():
    passages = rows_of_passages(2000, each=1)
    table = split_by_passage(passages)
    assert all(split_of(text) == split for split in table for text in table[split]["passage"])
    assert {split_of(text, validation=0, test=0) for text in passages["passage"]} == {"train"}
