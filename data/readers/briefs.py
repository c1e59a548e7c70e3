"""Briefs: generated news with questions, for trying and testing without a download."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from crosstask.data.readers.corpus import Corpus, Part, Record, Row
from crosstask.data.schema import check_keys
from crosstask.data.splits import SPLITS
from crosstask.utils.errors import DataError

PASSAGES = {"train": 4000, "validation": 200, "test": 300}
OPTIONS = ("passages", "seed", "questions", "matching", "domain", "words")


def _read_splits(stage: str, options: Mapping[str, Any]) -> dict[str, Part]:
    """Return one part per split with at least one passage.

    Args:
        stage (`str`):
            A training stage; "build" gets the rows of "answer", since it makes the summaries itself.
        options (`Mapping`):
            `passages`, the number of passages by split; the rest are arguments of `briefs.generate`.

    Raises:
        DataError: If an option is unknown or has a wrong value.
    """
    from crosstask.data.briefs import generate  # loads the lexicon

    requested = options.get("passages", {})
    if not isinstance(requested, Mapping) or not all(
        type(count) is int and count >= 0 for count in requested.values()
    ):
        raise DataError(
            f"briefs: passages is {requested!r}, expected a number per split, such as train: 4000"
        )
    check_keys("split", requested, SPLITS)
    passages = {**PASSAGES, **requested}
    arguments = {name: value for name, value in options.items() if name != "passages"}
    task = "answer" if stage in ("build", "ask") else stage
    try:
        return {
            split: Part(
                f"briefs, split {split}",
                enumerate(generate(task, split, passages=passages[split], **arguments)),
                source="briefs",
                stem=f"briefs-{split}",
                unit="index",
                corpus=BRIEFS,
            )
            for split in SPLITS
            if passages[split]
        }
    except (TypeError, ValueError) as error:
        raise DataError(f"briefs: {error}") from error


def _make_rows(record: Record, stage: str, default_id: str) -> Iterator[Row]:
    yield dict(record)  # the generator already writes rows of the stage


BRIEFS = Corpus(
    name="briefs",
    title="Briefs",
    license="apache-2.0",
    url="crosstask.data.briefs",
    citation="Made by the generator of crosstask.",
    read_splits=_read_splits,
    expected="a generated row",
    make_rows=_make_rows,
)
