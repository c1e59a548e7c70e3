"""Figures that need no screen, and files of them that are whole or not there."""

from __future__ import annotations

import os
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Blue, vermilion, green, orange and purple that stay apart for colour-blind readers: Okabe & Ito
# 2008, "Color Universal Design", https://jfly.uni-koeln.de/color.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7")


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches, 150 pixels each, that needs no screen and no `pyplot`."""
    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_png(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure under a temporary name beside `path`, then rename it: it is whole or not there.

    The same figure gives the same bytes.

    Raises:
        OSError: If the file cannot be written, as where its folder does not exist.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        figure.savefig(temporary, format="png", metadata={"Software": None})
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
