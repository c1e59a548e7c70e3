"""Batches: as long as their longest row, not longer."""

from dataclasses import dataclass

from crosstask.processing_crosstask import CrossTaskProcessor


@dataclass
class CrossTaskCollator:
    """
    Pads encoded rows to the longest of their batch, then to a multiple of 8, the width that matrix units
    of GPUs like; labels with -100.

    Args:
        processor: The processor that encoded the rows.
        pad_to_multiple_of: The multiple.
    """

    processor: CrossTaskProcessor
    pad_to_multiple_of: int = 8

    def __call__(self, rows):
        return dict(self.processor.pad(rows, pad_to_multiple_of=self.pad_to_multiple_of))
