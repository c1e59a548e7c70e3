"""Make batches: pad rows to the longest one, and add inputs with another question on the same passage."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset

from crosstask.processing_crosstask import CrossTaskProcessor

# The column of an encoded row that holds its index in the training set, the key to its contrasts.
ROW_INDEX_COLUMN = "row_index"
# The prefix of the inputs in a batch that ask another question about the same passage.
CONTRAST_PREFIX = "contrast_"
# The key in a batch of one bool per row: whether the row has a contrast.
CONTRAST_MASK = f"{CONTRAST_PREFIX}mask"
# The columns that decide which rows are contrasts of each other.
CONTRAST_COLUMNS = ("passage", "question", "summary")


@dataclass
class CrossTaskCollator:
    """Pad encoded rows to the longest one of the batch; labels are padded with -100.

    If the rows have the column `row_index`, so has the batch, with the shape `(batch,)`.

    Args:
        processor ([`CrossTaskProcessor`]):
            The processor that encoded the rows.
        pad_to_multiple_of (`int`, *optional*, defaults to 8):
            Lengths are rounded up to a multiple of this number; 8 suits the matrix units of GPUs.
        contrasts ([`Contrasts`], *optional*):
            Inputs for the contrastive loss. If set, and if the rows have the column `row_index`, each batch
            also has the inputs of one contrast per row under the prefix `contrast_`, and the boolean tensor
            `contrast_mask` of shape `(batch,)`. Where it is `False` the row has no contrast, and its contrast
            inputs are its regular inputs.
    """

    processor: CrossTaskProcessor
    pad_to_multiple_of: int = 8
    contrasts: Contrasts | None = None

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        batch = self._pad(rows)
        if ROW_INDEX_COLUMN not in rows[0]:
            return batch
        indices = [row[ROW_INDEX_COLUMN] for row in rows]
        batch[ROW_INDEX_COLUMN] = torch.tensor(indices)
        if self.contrasts is None:
            return batch
        # Every batch gets contrast inputs, even if no row has one: all processes must run the model equally
        # often.
        contrast_indices = [self.contrasts.draw(index) for index in indices]
        contrast_inputs = self._pad([self.contrasts.get_inputs(index) for index in contrast_indices])
        batch |= {f"{CONTRAST_PREFIX}{name}": value for name, value in contrast_inputs.items()}
        batch[CONTRAST_MASK] = torch.tensor(contrast_indices) != torch.tensor(indices)
        return batch

    def _pad(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        return dict(self.processor.pad(rows, pad_to_multiple_of=self.pad_to_multiple_of))


class _TextIndex:
    """The texts of a training set as integers, equal for equal texts, and the rows of each passage.

    Only the equality of texts matters here, and integers take less memory than the texts.

    Args:
        rows: The training set, with `CONTRAST_COLUMNS`.

    Attributes:
        passages, questions, summaries (`list[int]`): The number of each row's text.
        rows_by_passage (`dict[int, list[int]]`): The indices of the rows of each passage.
    """

    def __init__(self, rows: Dataset | Mapping[str, Sequence[str]]):
        names = getattr(rows, "column_names", None) or list(rows)
        missing = [name for name in CONTRAST_COLUMNS if name not in names]
        if missing:
            raise ValueError(
                f"rows: expected the columns {', '.join(CONTRAST_COLUMNS)}, found no {missing[0]} among "
                f"{', '.join(names) or 'none'}"
            )
        columns = [_number_texts(rows[name]) for name in CONTRAST_COLUMNS]
        if len({len(column) for column in columns}) > 1:
            lengths = ", ".join(
                f"{len(column)} of {name}" for name, column in zip(CONTRAST_COLUMNS, columns, strict=True)
            )
            raise ValueError(f"rows: expected columns of one length, got {lengths}")
        self.passages, self.questions, self.summaries = columns
        self.rows_by_passage: dict[int, list[int]] = {}
        for index, passage in enumerate(self.passages):
            self.rows_by_passage.setdefault(passage, []).append(index)


def _number_texts(texts: Sequence[str]) -> list[int]:
    numbers: dict[str, int] = {}
    return [numbers.setdefault(text, len(numbers)) for text in texts]


def detect_contrasts(rows: Dataset | Mapping[str, Sequence[str]]) -> list[bool]:
    """Detect which rows have a contrast: a row on the same passage with another question and summary.

    Time and memory are linear in the number of rows, unlike those of listing the contrasts of every row.

    Args:
        rows (`Dataset` or `Mapping[str, Sequence[str]]`):
            The training set, with the columns `passage`, `question` and `summary`.

    Returns:
        `list[bool]`: One value per row.

    Raises:
        ValueError: If a column is missing or the columns differ in length.
    """
    texts = _TextIndex(rows)
    keys = list(zip(texts.passages, texts.questions, texts.summaries, strict=True))
    same_question = Counter((passage, question) for passage, question, _ in keys)
    same_summary = Counter((passage, summary) for passage, _, summary in keys)
    same_both = Counter(keys)
    # Inclusion and exclusion: a row has a contrast unless all rows of its passage share the question or the
    # summary with it.
    return [
        len(texts.rows_by_passage[key[0]])
        > same_question[key[0], key[1]] + same_summary[key[0], key[2]] - same_both[key]
        for key in keys
    ]


class Contrasts:
    """Draw contrasts of training rows: rows on the same passage with another question and another summary.

    The contrast that is drawn for a row depends only on the seed, the epoch and the row. So it is the same in
    any batch and process, and in a run that was killed and resumed.

    Args:
        rows (`Dataset` or `Mapping[str, Sequence[str]]`):
            The rows, with the columns `passage`, `question` and `summary`. They may include questions that
            are not trained on and have no summary; their `summary` is "".
        encoded (`Sequence[Mapping[str, Any]]`):
            The same rows, encoded by the processor.
        seed (`int`, *optional*, defaults to 0):
            The seed of the draws.

    Raises:
        ValueError: If a column is missing, or the columns and `encoded` differ in length.
    """

    def __init__(
        self,
        rows: Dataset | Mapping[str, Sequence[str]],
        encoded: Sequence[Mapping[str, Any]],
        seed: int = 0,
    ):
        self._texts = _TextIndex(rows)
        row_count = len(self._texts.passages)
        if len(encoded) != row_count:
            raise ValueError(f"encoded: expected the {row_count} rows of `rows`, got {len(encoded)}")
        self.encoded = encoded
        self.seed = seed
        # In shared memory, since the workers of a data loader may outlive an epoch.
        self._epoch = torch.zeros((), dtype=torch.long).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that the next draws are for; [`CrossTaskTrainer`] calls it."""
        self._epoch.fill_(epoch)

    def find(self, index: int) -> list[int]:
        """Return the indices of all contrasts of a row.

        They are searched for on demand: n questions on one passage have up to n * (n - 1) contrasts.
        """
        texts = self._texts
        return [
            candidate
            for candidate in texts.rows_by_passage[texts.passages[index]]
            if texts.questions[candidate] != texts.questions[index]
            and texts.summaries[candidate] != texts.summaries[index]
        ]

    def draw(self, index: int) -> int:
        """Return the index of one contrast of a row, or `index` if the row has none."""
        candidates = self.find(index)
        if not candidates:
            return index
        return random.Random(f"{self.seed} {self._epoch.item()} {index}").choice(candidates)

    def get_inputs(self, index: int) -> dict[str, Any]:
        """Return the encoder inputs of a row: its ids and attention masks, without labels."""
        row = self.encoded[index]
        return {name: value for name, value in row.items() if name.endswith(("input_ids", "attention_mask"))}
