"""What the systems share: their outputs, and the base classes of extractive and generative systems."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from crosstask.eval.systems.checkpoints import get_model_config, get_revision
from crosstask.utils.errors import DataError
from crosstask.utils.hub_names import find_checkpoint
from crosstask.utils.pretrained import DTYPES, batch_by_length, check_architecture, make_non_finite_error

# Called with the number of rows that were finished since the last call, as `tqdm.update`.
Update = Callable[[int], object] | None


@dataclass
class Outputs:
    """What a system wrote, one value per row in the order of the rows.

    Attributes:
        summaries (`list[str]`): Summaries without surrounding white space; "" if the system has none.
        reference_probabilities (`list[float]`, *optional*): P(the row's reference summary carries the
            answer), 0 to 1; None if the system does not predict answerability.
        summary_probabilities (`list[float]`, *optional*): P(the system's summary carries the answer),
            likewise.
        wrong_probabilities (`list[float]`, *optional*): P(the reference with a wrong value in the place of
            the answer carries it); None for rows without such a text, see [`~data.wrong_values.WrongValues`].
        notes (`list[str]`): What a reader has to know about the outputs, e.g. how many inputs were cut.
    """

    summaries: list[str]
    reference_probabilities: list[float] | None = None
    summary_probabilities: list[float] | None = None
    wrong_probabilities: list[float | None] | None = None
    notes: list[str] = field(default_factory=list)


class System(ABC):
    """A system that writes a summary for each row.

    Attributes:
        name (`str`): The name shown in reports.
        settings (`dict`): Everything that determines the outputs, except the rows and the versions of the
            libraries. It can be written as JSON.
    """

    name: str
    settings: dict[str, Any]

    @abstractmethod
    def write(self, rows: Sequence[Mapping], update: Update = None) -> Outputs:
        """Return the outputs for `rows`. Neither their order nor the batch size changes a row's output.

        Args:
            rows (`Sequence[Mapping]`): Rows with the columns of `data.schema.FEATURES`.
            update (`Callable[[int], None]`, *optional*): Called with the number of rows that were finished.
        """


class Extractive(System):
    """A system that selects sentences of the passage. Each passage is parsed once.

    Subclasses implement [`~Extractive.parse`] and [`~Extractive.select`]. `column` is the column besides the
    passage that the summary depends on, if there is one.
    """

    column: str | None = None

    @abstractmethod
    def parse(self, passage: str) -> Any:
        """Return what `select` needs to know about a passage."""

    @abstractmethod
    def select(self, parsed: Any, value: Any) -> str:
        """Return the summary of a parsed passage, for a value of `column` (None without a column)."""

    def write(self, rows: Sequence[Mapping], update: Update = None) -> Outputs:
        groups: dict[str, dict[str | None, list[int]]] = {}
        for index, row in enumerate(rows):
            value = None if self.column is None else row[self.column]
            groups.setdefault(row["passage"], {}).setdefault(value, []).append(index)
        summaries = [""] * len(rows)
        for passage, values in groups.items():
            parsed = self.parse(passage)
            for value, indices in values.items():
                summary = self.select(parsed, value)
                for index in indices:
                    summaries[index] = summary
                if update:
                    update(len(indices))
        return Outputs(summaries)


class Generative(System):
    """A system that generates text with a checkpoint.

    The constructor checks the checkpoint's configuration; `write` loads the weights.

    Args:
        auto_class (`type`): The class of transformers that loads the model, e.g. `AutoModelForSeq2SeqLM`.
        model (`str` or `os.PathLike`): A Hub id or a folder.
        settings (`dict`): Everything else that determines the outputs, `dtype` among it.

    Raises:
        DataError: If there is no such checkpoint, if it is of another kind, or if the dtype is unknown.
    """

    kind: str
    batch_size: int

    def __init__(self, auto_class: type, model: str | os.PathLike, **settings: Any):
        if settings["dtype"] not in DTYPES:
            raise DataError(
                f"{self.kind}: dtype is {settings['dtype']!r}, expected one of {', '.join(DTYPES)}"
            )
        self.checkpoint = find_checkpoint(model)
        self.config = get_model_config(self.checkpoint)
        check_architecture(auto_class, self.config, self.kind)
        self.name = Path(model).name
        self.settings = {
            "kind": self.kind,
            "checkpoint": self.checkpoint,
            "revision": get_revision(self.checkpoint),
            **settings,
        }

    def iter_batches(
        self, rows: Sequence[Mapping], encode: Callable[[str, str], dict | None], update: Update
    ) -> Iterator[tuple[list[dict], list[list[int]]]]:
        """Yield batches of distinct inputs of similar length.

        Args:
            rows (`Sequence[Mapping]`): Rows with `question` and `passage`.
            encode (`Callable`): Turns a question and a passage into a dict with `input_ids`, or into None if
                the question leaves no room for the passage.
            update (`Callable[[int], None]`, *optional*): Called after each batch with the number of its rows.

        Yields:
            The inputs of a batch, and for each input the indices of its rows.
        """
        groups = group_indices((row["question"], row["passage"]) for row in rows)
        inputs = {key: encoded for key in groups if (encoded := encode(*key)) is not None}
        for batch in batch_by_length(inputs, self.batch_size):
            indices = [groups.pop(key) for key in batch]
            yield [inputs[key] for key in batch], indices
            if update:
                update(sum(map(len, indices)))
        if update and groups:  # the rows whose question leaves no room
            update(sum(map(len, groups.values())))


def describe_lengths(
    rows: int, truncated: int, unread: int = 0, summaries: int = 0, selected: bool = False
) -> list[str]:
    """Return the notes about the lengths of texts; none if all of them fit.

    Args:
        rows (`int`): Number of rows.
        truncated (`int`): Number of rows with an input that was cut.
        unread (`int`, *optional*, defaults to 0): Number of rows whose question left no room for the passage.
        summaries (`int`, *optional*, defaults to 0): Number of rows with a reference summary that was cut.
        selected (`bool`, *optional*, defaults to `False`): Whether the parts that fit best to the question
            were read of an input that was cut, instead of its beginning.
    """
    part = "only the parts that fit best to the question were read" if selected else "were cut"
    notes = {
        f"inputs were longer than the model reads, and {part}": truncated,
        "questions left no room for the passage, and got an empty summary": unread,
        "reference summaries were longer than the decoder, and were cut to predict answerability": summaries,
    }
    return [f"{count} of {rows} {text}." for text, count in notes.items() if count]


def group_indices(keys: Iterable[Hashable]) -> dict[Any, list[int]]:
    """Return the positions of each distinct key, in order of first appearance."""
    groups: dict[Any, list[int]] = {}
    for index, key in enumerate(keys):
        groups.setdefault(key, []).append(index)
    return groups


def make_nan_check(model, role: str) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Return a logits processor that raises a `DataError` at the first NaN.

    Without it, greedy and beam search would continue and return arbitrary tokens.
    """

    def check(input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if scores.isnan().any():
            raise make_non_finite_error(model, role)
        return scores

    return check
