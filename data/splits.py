"""Splits by passage: all rows of a passage lie in one, whatever the order in which they come."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from datasets import Dataset, DatasetDict

from crosstask.data.schema import digest
from crosstask.utils.errors import DataError

SPLITS = ("train", "validation", "test")


def split_by_passage(dataset: Dataset, validation: float = 0.05, test: float = 0.05) -> DatasetDict:
    """Part a data set so that all rows of a passage lie in one split.

    A passage's place is a hash of its text, in [0, 1): the order of the rows does not matter. Where
    hashes leave a split empty it gets the nearest passage in their order, so that the fewest
    passages needed are as many as there are splits.

    Args:
        dataset: Rows with a column `passage`.
        validation: Share of the passages for validation, in [0, 1); 0 for no such split.
        test: Share of the passages for test, likewise.

    Returns:
        The splits train, validation and test, those of share 0 left out, rows in their order.

    Raises:
        ValueError: If a share is negative or none is left for train.
        DataError: If there are fewer distinct passages than splits.
    """
    place_of_passage = {passage: place_of(passage) for passage in set(dataset["passage"][:])}
    ends = ends_of_splits(place_of_passage.values(), validation, test)
    indices: dict[str, list[int]] = {split: [] for split in SPLITS if split in ends}
    for index, passage in enumerate(dataset["passage"][:]):
        indices[split_at(place_of_passage[passage], ends)].append(index)
    return DatasetDict({split: dataset.select(rows) for split, rows in indices.items()})


def split_of(passage: str, validation: float = 0.05, test: float = 0.05) -> str:
    """The split of a passage by its hash alone, for streams, of which nobody knows the other passages.

    Of many passages it is mostly that of `split_by_passage`, which moves some where a split would be empty.

    Args:
        passage: Its text.
        validation: Share of the passages for validation, in [0, 1).
        test: Share of the passages for test, likewise.

    Returns:
        "train", "validation" or "test".
    """
    return split_at(place_of(passage), {"test": test, "validation": test + validation, "train": 1.0})


def place_of(passage: str) -> float:
    """A passage's place in [0, 1): the same on every machine, unlike `hash`."""
    return digest(passage) / 2**64


def ends_of_splits(places: Iterable[float], validation: float = 0.05, test: float = 0.05) -> dict[str, float]:
    """Where the splits end among the places of the passages, so that none is empty.

    Args:
        places: Of all distinct passages.
        validation: As for `split_by_passage`.
        test: Likewise.

    Returns:
        The splits that there are, in the order of their ends; for `split_at`.

    Raises:
        ValueError, DataError: As `split_by_passage`.
    """
    if min(validation, test) < 0 or validation + test >= 1:
        shares = f"validation={validation} and test={test}"
        raise ValueError(f"{shares}: expected shares from 0 with a sum below 1")
    ranked = sorted(places)
    wanted = {"test": test, "validation": test + validation}
    wanted = {split: end for split, end in wanted.items() if {"test": test, "validation": validation}[split]}
    if len(ranked) <= len(wanted):
        names = ", ".join(["train", *reversed(wanted)])
        raise DataError(
            f"found {len(ranked)} distinct passages, expected at least {len(wanted) + 1} to have a "
            f"split each for {names}"
        )
    ends, start = {}, 0
    for left, (split, share) in enumerate(wanted.items()):
        end = sum(place < share for place in ranked)
        # At least one passage here, and one for each of the splits that are still to come.
        start = min(max(end, start + 1), len(ranked) - len(wanted) + left)
        ends[split] = ranked[start]
    return {**ends, "train": 1.0}


def split_at(place: float, ends: Mapping[str, float]) -> str:
    """The split of a place: the first that ends behind it."""
    return next(split for split, end in ends.items() if place < end)
