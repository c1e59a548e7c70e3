"""Batches: as long as their longest row, not longer; and rows beside others on the same passage."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from crosstask.processing_crosstask import CrossTaskProcessor

ROW = "row"  # of an encoded row, its place in the set, by which its contrasts are found
CONTRAST = "contrast_"  # before the names of a batch's inputs with another question on the same passage


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
        if self.contrasts is None or ROW not in rows[0]:
            return batch
        # Of every batch, for processes that take a step together have to run the model equally often.
        drawn = [self.contrasts.draw(row[ROW]) for row in rows]
        others = self._padded([self.contrasts.inputs(index) for index in drawn])
        batch |= {f"{CONTRAST}{name}": value for name, value in others.items()}
        batch[f"{CONTRAST}rows"] = torch.tensor(
            [index != row[ROW] for index, row in zip(drawn, rows, strict=True)]
        )
        return batch

    def _padded(self, rows):
        return dict(self.processor.pad(rows, pad_to_multiple_of=self.pad_to_multiple_of))


def contrasts_of(rows: Mapping[str, Sequence[str]]) -> list[list[int]]:
    """
    For each row of a set the places of those on the same passage with another question and another summary.

    Args:
        rows: The set, with the columns `passage`, `question` and `summary`.
    """
    texts = list(zip(rows["passage"], rows["question"], rows["summary"], strict=True))
    by_passage: dict[str, list[int]] = {}
    for index, (passage, _, _) in enumerate(texts):
        by_passage.setdefault(passage, []).append(index)
    return [
        [other for other in by_passage[passage] if texts[other][1] != question and texts[other][2] != summary]
        for passage, question, summary in texts
    ]


class Contrasts:
    """
    The inputs of other questions on the passages of a set's rows, as of [`contrasts_of`].

    Which of several is drawn for a row depends on the seed and the epoch alone, so that it is the same in
    any batch and process, and in a run that was killed and resumed.

    Args:
        rows: The set, with the columns `passage`, `question` and `summary`. Beyond the rows that are trained
            on it may have further questions on their passages, whose summaries, as nobody wrote them, are "".
        encoded: The same rows, encoded.
        seed: Of the draws.
    """

    def __init__(self, rows, encoded, seed=0):
        self.others = contrasts_of(rows)
        self.encoded = encoded
        self.seed = seed
        # Shared with the loader's workers, which may outlive an epoch.
        self._epoch = torch.zeros((), dtype=torch.long).share_memory_()

    def set_epoch(self, epoch: int):
        """Draws from now on are of this epoch; [`CrossTaskTrainer`] calls it."""
        self._epoch.fill_(epoch)

    def draw(self, index: int) -> int:
        """The place of one of a row's contrasts; its own where it has none."""
        others = self.others[index]
        if not others:
            return index
        return random.Random(f"{self.seed} {self._epoch.item()} {index}").choice(others)

    def inputs(self, index: int) -> dict[str, Any]:
        """What a model reads of a row."""
        row = self.encoded[index]
        return {name: value for name, value in row.items() if name.endswith(("input_ids", "attention_mask"))}
