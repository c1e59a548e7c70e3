"""Batches: as long as their longest row, not longer; and rows beside others on the same passage."""

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
        contrasts: Rows for the contrastive loss; each batch then also has the inputs of one of them, drawn
            by torch's random numbers, for each of its rows that has any, under names that begin with
            `contrast_`, with `contrast_rows`, which rows these are.
    """

    processor: CrossTaskProcessor
    pad_to_multiple_of: int = 8
    contrasts: "Contrasts | None" = None

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        batch = self._padded(rows)
        if self.contrasts is None or ROW not in rows[0]:
            return batch
        drawn = [self.contrasts.draw(row[ROW]) for row in rows]
        if any(drawn):
            batch[f"{CONTRAST}rows"] = torch.tensor([at for at, other in enumerate(drawn) if other])
            others = self._padded([other for other in drawn if other])
            batch |= {f"{CONTRAST}{name}": value for name, value in others.items()}
        return batch

    def _padded(self, rows):
        return dict(self.processor.pad(rows, pad_to_multiple_of=self.pad_to_multiple_of))


class Contrasts:
    """
    For each row of a set those on the same passage with another question and another summary.

    Args:
        rows: The set, with the columns `passage`, `question` and `summary`.
        encoded: The same rows, encoded.
    """

    def __init__(self, rows, encoded):
        self.encoded = encoded
        texts = list(zip(rows["passage"], rows["question"], rows["summary"], strict=True))
        by_passage: dict[str, list[int]] = {}
        for index, (passage, _, _) in enumerate(texts):
            by_passage.setdefault(passage, []).append(index)
        self.others = [
            [
                other
                for other in by_passage[passage]
                if texts[other][1] != question and texts[other][2] != summary
            ]
            for passage, question, summary in texts
        ]

    def draw(self, index: int) -> dict[str, Any] | None:
        """The inputs of one of a row's contrasts; None where it has none."""
        others = self.others[index]
        if not others:
            return None
        row = self.encoded[others[int(torch.randint(len(others), ()))]]
        return {name: value for name, value in row.items() if name.endswith(("input_ids", "attention_mask"))}
