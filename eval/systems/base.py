"""Systems with a checkpoint: what they have in common, and any seq2seq model as a plain summarizer."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoConfig
from transformers.utils import CONFIG_NAME, cached_file, extract_commit_hash, find_adapter_config_file

from crosstask.processing_crosstask import QUESTION_TOKENIZER
from crosstask.utils.errors import DataError
from crosstask.utils.pretrained import (
    DTYPES,
    LOAD_ERRORS,
    batch_by_length,
    check_kind,
    non_finite_error,
)

Tick = Callable[[int], None] | None

# What of a checkpoint's folder is read to load it; not its card, pictures or training state.
_READ = (".json", ".safetensors", ".model", ".txt", ".jinja")


@dataclass
class Outputs:
    """What a system wrote for rows, in their order.

    Args:
        summaries: One a row, stripped; "" where the system has none to give.
        probabilities: P(the row's reference summary carries the answer), 0 to 1, one a row; None of a
            system that does not judge.
        own: Likewise, of the system's own summary.
    """

    summaries: list[str]
    probabilities: list[float] | None = None
    own: list[float] | None = None


def revision(checkpoint: str) -> str:
    """What a checkpoint holds: the commit of a Hub id, or a digest of a folder's configurations, tokenizers
    and weights (a second for about a gigabyte); of an adapter its base model's, too.

    Raises:
        DataError: If there is no such checkpoint.
    """
    _, base = _config(checkpoint)
    folder = Path(checkpoint)
    if folder.is_dir():
        digest = hashlib.sha256()
        files = [path for path in folder.iterdir() if path.suffix in _READ and path.is_file()]
        for path in sorted([*files, *(folder / QUESTION_TOKENIZER).glob("*.json")]):
            digest.update(f"\0{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0".encode())
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        own = digest.hexdigest()[:16]
    else:  # the file lies in a folder of the cache that is named after the commit
        file = cached_file(checkpoint, CONFIG_NAME) if base is None else find_adapter_config_file(checkpoint)
        own = extract_commit_hash(file, None)
    return own if base is None else f"{own}+{revision(base)}"


def config_of(checkpoint: str):
    """The configuration of a checkpoint's model, which for an adapter is its base's."""
    config, base = _config(checkpoint)
    return config if base is None else config_of(base)


def _config(checkpoint: str):
    """The configuration of a checkpoint, or an adapter's, and the name of the adapter's base or None."""
    try:
        if find_adapter_config_file(checkpoint) is not None:
            from peft import PeftConfig

            config = PeftConfig.from_pretrained(checkpoint)
            return config, config.base_model_name_or_path
        # Asked outright: where a checkpoint has code of its own, the default would wait for an answer.
        return AutoConfig.from_pretrained(checkpoint, trust_remote_code=False), None
    except LOAD_ERRORS as error:
        raise _not_loaded(checkpoint, error) from error


def _not_loaded(checkpoint: str, error: Exception) -> DataError:
    said = (str(error).strip() or type(error).__name__).splitlines()[0]
    return DataError(f"{checkpoint} cannot be loaded: {said}")


class Generative:
    """What writers have in common: a checkpoint that is checked at once, and loaded when it is to write."""

    kind: str

    def __init__(self, auto_class, model, **settings):
        if settings["dtype"] not in DTYPES:
            raise DataError(
                f"{self.kind}: dtype is {settings['dtype']!r}, expected one of {', '.join(DTYPES)}"
            )
        self.checkpoint = str(model)
        config = config_of(self.checkpoint)
        check_kind(auto_class, config, self.kind)
        self.config = config
        self.name = Path(self.checkpoint).name
        self.settings = {
            "kind": self.kind,
            "checkpoint": self.checkpoint,
            "revision": revision(self.checkpoint),
            **settings,
        }

    def batches(self, rows: Sequence[Mapping], encode: Callable, tick: Tick) -> Iterator[tuple[list, list]]:
        """Yield batches of distinct inputs of like length, as (inputs, where the rows of each are).

        Args:
            rows: Of `question` and `passage`.
            encode: Question and passage to an input with `input_ids`, or to None where there is no room.
            tick: Called after each batch with how many rows it was for.
        """
        places = places_of((row["question"], row["passage"]) for row in rows)
        encoded = {key: found for key in places if (found := encode(*key)) is not None}
        for batch in batch_by_length(encoded, self.batch_size):
            indices = [places.pop(key) for key in batch]
            yield [encoded[key] for key in batch], indices
            if tick:
                tick(sum(map(len, indices)))
        if tick and places:  # those without room
            tick(sum(map(len, places.values())))


def places_of(keys: Iterable) -> dict:
    """Where each distinct key stands."""
    places: dict = {}
    for index, key in enumerate(keys):
        places.setdefault(key, []).append(index)
    return places


def finite(model, role: str):
    def check(input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        # A search would go on, and write noise.
        if scores.isnan().any():
            raise non_finite_error(model, role)
        return scores

    return check
