"""Errors for mistakes of the user: one sentence that says what is wrong, where, and what was expected."""


class ConfigError(ValueError):
    """A mistake in a recipe or on the command line."""


class DataError(ValueError):
    """A user's mistake in data: one sentence with what was wrong, what was expected, and where."""


class HubError(RuntimeError):
    """A publication that did not come about, in one sentence."""
