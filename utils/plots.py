"""Create figures that need no screen, and save them reproducibly."""

from __future__ import annotations

import os

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from crosstask.utils.files import replace_file

# Blue, vermilion, green, orange and purple that color-blind readers can tell apart: Okabe & Ito
# 2008, "Color Universal Design", https://jfly.uni-koeln.de/color.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7")


def new_figure(width: float, height: float) -> Figure:
    """
    Create an empty figure at 150 pixels per inch, without a screen and without `pyplot`'s global state.

    Args:
        width (`float`): In inches.
        height (`float`): In inches.
    """
    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_png(figure: Figure, path: str | os.PathLike) -> None:
    """Save a figure as a PNG file, atomically. Equal figures give equal bytes."""
    with replace_file(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})
