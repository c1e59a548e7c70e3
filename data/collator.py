"""Batches: as long as their longest row, not longer; and rows beside others on the same passage."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from crosstask.processing_crosstask import CrossTaskProcessor

ROW_INDEX = "row"  # of an encoded row, its place in the set, by which its contrasts are found
COLUMNS = ("passage", "question", "summary")  # by which contrasts are found
CONTRAST_PREFIX = (
    "contrast_"  # before the names of a batch's inputs with another question on the same passage
)


@dataclass
class CrossTaskCollator:
    """
    Pads encoded rows to the longest of their batch, then to a multiple of 8, the width that matrix units
    of GPUs like; labels with -100.

    Args:
        processor: The processor that encoded the rows.
        pad_to_multiple_of: The multiple.
        contrasts: Rows for the contrastive loss, of which encoded rows name theirs as `row`. Each batch
            then has second inputs, under names that begin with `contrast_`: for each row those of one of its
            contrasts, and its own again where it has none, which `contrast_rows` tells, a bool a row.
    """

    processor: CrossTaskProcessor
    pad_to_multiple_of: int = 8
    contrasts: "Contrasts | None" = None

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        batch = self._padded(rows)
        if self.contrasts is None or ROW_INDEX not in rows[0]:
            return batch
        # Of every batch, for processes that take a step together have to run the model equally often.
        drawn = [self.contrasts.draw(row[ROW_INDEX]) for row in rows]
        others = self._padded([self.contrasts.inputs(index) for index in drawn])
        batch |= {f"{CONTRAST_PREFIX}{name}": value for name, value in others.items()}
        batch[f"{CONTRAST_PREFIX}rows"] = torch.tensor(
            [index != row[ROW_INDEX] for index, row in zip(drawn, rows, strict=True)]
        )
        return batch

    def _padded(self, rows):
        return dict(self.processor.pad(rows, pad_to_multiple_of=self.pad_to_multiple_of))


class _Texts:
    """The texts of a set's rows by number, as only which are equal matters, and the rows of each passage."""

    def __init__(self, rows):
        names = getattr(rows, "column_names", None) or list(rows)
        if missing := [name for name in COLUMNS if name not in names]:
            raise ValueError(
                f"rows: expected the columns {', '.join(COLUMNS)}, found no {missing[0]} among "
                f"{', '.join(names) or 'none'}"
            )
        numbered = [_numbered(rows[name]) for name in COLUMNS]
        self.passages, self.questions, self.summaries = numbered
        if len({len(numbers) for numbers in numbered}) > 1:
            lengths = ", ".join(
                f"{len(each)} of {name}" for name, each in zip(COLUMNS, numbered, strict=True)
            )
            raise ValueError(f"rows: expected columns of one length, got {lengths}")
        self.places: dict[int, list[int]] = {}
        for index, passage in enumerate(self.passages):
            self.places.setdefault(passage, []).append(index)


def _numbered(texts):
    numbers: dict[str, int] = {}
    return [numbers.setdefault(text, len(numbers)) for text in texts]


def have_contrasts(rows: Mapping[str, Sequence[str]]) -> list[bool]:
    """
    For each row of a set whether another one on its passage has another question and another summary.

    Args:
        rows: The set, with the columns `passage`, `question` and `summary`.
    """
    texts = _Texts(rows)
    same_question = Counter(zip(texts.passages, texts.questions, strict=True))
    same_summary = Counter(zip(texts.passages, texts.summaries, strict=True))
    keys = list(zip(texts.passages, texts.questions, texts.summaries, strict=True))
    same = Counter(keys)
    # Of a passage's rows those with the question and those with the summary, less what both have counted.
    return [
        len(texts.places[key[0]]) > same_question[key[:2]] + same_summary[key[::2]] - same[key]
        for key in keys
    ]


class Contrasts:
    """
    The inputs of other questions on the passages of a set's rows: of rows with another question and another
    summary.

    Which of several is drawn for a row depends on the seed and the epoch alone, so that it is the same in
    any batch and process, and in a run that was killed and resumed.

    Args:
        rows: The set, with the columns `passage`, `question` and `summary`. Beyond the rows that are trained
            on it may have further questions on their passages, whose summaries, as nobody wrote them, are "".
        encoded: The same rows, encoded.
        seed: Of the draws.

    Raises:
        ValueError: where a column is missing, or `encoded` has not as many rows as each column.
    """

    def __init__(self, rows, encoded, seed=0):
        self._texts = _Texts(rows)
        if len(encoded) != (count := len(self._texts.passages)):
            raise ValueError(f"encoded: expected the {count} rows of `rows`, got {len(encoded)}")
        self.encoded = encoded
        self.seed = seed
        # Shared with the loader's workers, which may outlive an epoch.
        self._epoch = torch.zeros((), dtype=torch.long).share_memory_()

    def set_epoch(self, epoch: int):
        """Draws from now on are of this epoch; [`CrossTaskTrainer`] calls it."""
        self._epoch.fill_(epoch)

    def of(self, index: int) -> list[int]:
        """The places of a row's contrasts, found when asked for: of all rows they are too many to keep."""
        texts = self._texts
        return [
            other
            for other in texts.places[texts.passages[index]]
            if texts.questions[other] != texts.questions[index]
            and texts.summaries[other] != texts.summaries[index]
        ]

    def draw(self, index: int) -> int:
        """The place of one of a row's contrasts; its own where it has none."""
        others = self.of(index)
        if not others:
            return index
        return random.Random(f"{self.seed} {self._epoch.item()} {index}").choice(others)

    def inputs(self, index: int) -> dict[str, Any]:
        """What a model reads of a row."""
        row = self.encoded[index]
        return {name: value for name, value in row.items() if name.endswith(("input_ids", "attention_mask"))}
