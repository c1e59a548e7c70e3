"""Split rows by passage: all rows about one passage are in one split, whatever the order of the rows.

A hash places each passage in [0, 1). The interval is divided among test, validation and train, in this order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from datasets import Dataset, DatasetDict

from crosstask.data.schema import hash_texts
from crosstask.utils.errors import DataError

SPLITS = ("train", "validation", "test")

# Without a share of the user, a split gets 5% of the passages, but at least 10, or a fifth if 10 are more.
DEFAULT_SHARE = 0.05
LEAST_PASSAGES = 10


def split_by_passage(
    dataset: Dataset, validation: float | None = None, test: float | None = None
) -> DatasetDict:
    """Split a data set so that all rows about one passage are in one split.

    A split that the hashes would leave with too few passages gets those with the nearest hashes.

    Args:
        dataset (`Dataset`):
            Rows with a column `passage`.
        validation (`float`, *optional*):
            Share of the passages for validation, in [0, 1). No such split is made if it is 0. By default it
            is 0.05, but at least 10 passages, or a fifth of the passages if 10 are more.
        test (`float`, *optional*):
            Share of the passages for test, likewise.

    Returns:
        `DatasetDict`: The splits train, validation and test, with the rows in their order.

    Raises:
        ValueError: If a share is negative, or if nothing is left for train.
        DataError: If there are fewer distinct passages than splits.
    """
    passages = dataset["passage"][:]
    positions = {passage: hash_passage(passage) for passage in set(passages)}
    ends = compute_split_ends(positions.values(), validation, test)
    indices: dict[str, list[int]] = {split: [] for split in SPLITS if split in ends}
    for index, passage in enumerate(passages):
        indices[find_split(positions[passage], ends)].append(index)
    return DatasetDict({split: dataset.select(rows) for split, rows in indices.items()})


def assign_split(passage: str, validation: float | None = None, test: float | None = None) -> str:
    """Return the split of a passage by its hash alone, for streams, where the other passages are unknown.

    It differs from [`split_by_passage`] for the few passages that the latter moves to a split that would
    be too small.

    Args:
        passage (`str`):
            The text of the passage.
        validation (`float`, *optional*):
            Share of the passages for validation, in [0, 1); 0.05 by default.
        test (`float`, *optional*):
            Share of the passages for test, in [0, 1); 0.05 by default.

    Returns:
        `str`: "train", "validation" or "test".
    """
    validation, test = (DEFAULT_SHARE if share is None else share for share in (validation, test))
    return find_split(hash_passage(passage), {"test": test, "validation": test + validation, "train": 1.0})


def hash_passage(passage: str) -> float:
    """Return the position of a passage in [0, 1); unlike `hash`, it is the same in every process.

    Passages that differ in white space only have the same position.
    """
    return hash_texts(" ".join(passage.split())) / 2**64


def compute_split_ends(
    positions: Iterable[float], validation: float | None = None, test: float | None = None
) -> dict[str, float]:
    """Compute where in [0, 1] each split ends, so that no split is empty or too small.

    Args:
        positions (`Iterable[float]`):
            The positions of all distinct passages, see [`hash_passage`].
        validation (`float`, *optional*):
            Share of the passages for validation, see [`split_by_passage`].
        test (`float`, *optional*):
            Share of the passages for test.

    Returns:
        `dict[str, float]`: The end of each split with a share above 0, in ascending order; see
        [`find_split`].

    Raises:
        ValueError: If a share is negative, or if nothing is left for train.
        DataError: If there are fewer distinct passages than splits.
    """
    ranked = sorted(positions)
    enough = max(1, min(LEAST_PASSAGES, len(ranked) // 5))
    shares = {"test": test, "validation": validation}
    least = {split: enough if share is None else 1 for split, share in shares.items() if share != 0}
    test, validation = (DEFAULT_SHARE if share is None else share for share in shares.values())
    if min(validation, test) < 0 or validation + test >= 1:
        got = f"validation={validation} and test={test}"
        raise ValueError(f"{got}: expected shares of at least 0 with a sum below 1")
    targets = {"test": test} if test else {}
    if validation:
        targets["validation"] = test + validation
    if len(ranked) <= len(targets):
        names = ", ".join(["train", *reversed(targets)])
        raise DataError(
            f"found {len(ranked)} distinct passages, expected at least {len(targets) + 1}, one for each of "
            f"the splits {names}"
        )
    ends, first = {}, 0  # `first`: the rank of the first passage of the next split
    for done, (split, target) in enumerate(targets.items()):
        count_below = sum(position < target for position in ranked)
        # The least number for this split, and one passage for each split that is still to come.
        first = min(max(count_below, first + least[split]), len(ranked) - len(targets) + done)
        ends[split] = ranked[first]
    return {**ends, "train": 1.0}


def find_split(position: float, ends: Mapping[str, float]) -> str:
    """Return the split of a position: the first one that ends behind it."""
    return next(split for split, end in ends.items() if position < end)
