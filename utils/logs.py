"""Log warnings that would otherwise repeat, since a source is read by several stages and once per epoch."""

from __future__ import annotations

import logging
from functools import lru_cache


@lru_cache
def warn_once(logger: logging.Logger, message: str) -> None:
    """Log a warning, unless this process has logged the same one before."""
    logger.warning(message)
