"""Define the errors for users' mistakes, each a single sentence, and helpers to word them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ConfigError(ValueError):
    """A mistake in a recipe or on the command line."""


class DataError(ValueError):
    """A mistake in data, or in a model that processes it."""


class HubError(RuntimeError):
    """A request to the Hub that failed or was refused."""


class NonFiniteLossError(RuntimeError):
    """Raised when the loss becomes NaN or infinite, before the optimizer takes the step."""


class UndefinedMetricError(ValueError):
    """Raised when the metric that chooses the best checkpoint is NaN."""


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its class if it has no message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def suggest(name: object, known: Iterable[str]) -> str:
    """Return `"; did you mean 'x'?"` for the known name closest to `name`, or `""` if none is close."""
    matches = difflib.get_close_matches(str(name), list(known), n=3)
    # `lora_rank` is rather `lora_r` than `local_rank`.
    matches.sort(key=lambda match: match.split("_")[0] != str(name).split("_")[0])
    return f"; did you mean {matches[0]!r}?" if matches else ""
