"""Errors for mistakes of the user: one sentence that says what is wrong, where, and what was expected."""

import difflib
from collections.abc import Iterable


class ConfigError(ValueError):
    """A mistake in a recipe or on the command line."""


class DataError(ValueError):
    """A user's mistake in data: one sentence with what was wrong, what was expected, and where."""


class HubError(RuntimeError):
    """A publication that did not come about, in one sentence."""


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its class if it has no message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def suggest(name: object, known: Iterable[str]) -> str:
    """Return `"; did you mean 'x'?"` for the known name closest to `name`, or `""` if none is close."""
    close = difflib.get_close_matches(str(name), list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
