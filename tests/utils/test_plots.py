"""Figures are saved reproducibly and atomically."""

import pytest

from crosstask.utils.plots import COLORS, new_figure, save_png


def draw():
    figure = new_figure(2, 1)
    figure.subplots().plot([0, 1], color=COLORS[0])
    return figure


def test_equal_figures_give_equal_bytes(tmp_path):
    for name in ("a.png", "b.png"):
        save_png(draw(), tmp_path / "figures" / name)
    first, second = ((tmp_path / "figures" / name).read_bytes() for name in ("a.png", "b.png"))
    assert first == second and first.startswith(b"\x89PNG")
    assert int.from_bytes(first[16:20], "big") == 300  # two inches at 150 pixels per inch


def test_a_figure_that_cannot_be_saved_leaves_no_file(tmp_path):
    figure = draw()
    figure.savefig = None
    with pytest.raises(TypeError):
        save_png(figure, tmp_path / "a.png")
    assert not list(tmp_path.iterdir())
