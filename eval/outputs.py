"""What a system gives for rows, whatever writes it."""

from __future__ import annotations

from dataclasses import dataclass


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
