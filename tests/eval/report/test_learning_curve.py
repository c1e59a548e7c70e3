import math
import subprocess
import sys

import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from crosstask.eval.report.learning_curve import draw_learning_curve


def make_history(steps=600, parts=()):
    """Return a log like the Trainer's: frequent training losses, rare validation losses, a summary."""
    entries = []
    for step in range(10, steps + 1, 10):
        loss = 0.3 + 3 * math.exp(-step / 150)
        noisy = loss * (1 + 0.08 * math.sin(step * 1.7))
        shares = {part: noisy * share for part, share in parts}
        entries.append({"loss": noisy, "grad_norm": 1.0, "epoch": step / 100, "step": step} | shares)
        if step % 100 == 0:
            shares = {f"eval_{part}": 1.1 * loss * share for part, share in parts}
            entries.append({"eval_loss": 1.1 * loss, "step": step} | shares)
    return [*entries, {"train_loss": 0.9, "train_runtime": 12.0, "step": steps}]


def make_histories():
    parts = (("summary_loss", 0.7), ("answerability_loss", 0.3))
    return {"summarize": make_history(), "answer": make_history(1200), "fuse": make_history(300, parts)}


@pytest.fixture
def saved_figures(monkeypatch):
    """The figures that were saved during a test."""
    figures = []
    savefig = Figure.savefig

    def spy(self, *args, **kwargs):
        figures.append(self)
        return savefig(self, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", spy)
    return figures


def test_the_png_has_one_panel_per_stage(tmp_path, saved_figures):
    path = tmp_path / "learning_curve.png"
    draw_learning_curve(make_histories(), path)
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert imread(path).shape[:2] == (675, 2100)
    summarize, answer, fuse = saved_figures[0].axes
    assert [line.get_label() for line in answer.lines] == ["loss, training", "loss, validation"]
    assert len(fuse.lines) == 6
    training, validation = summarize.lines
    assert list(validation.get_xdata()) == [100, 200, 300, 400, 500, 600]
    assert training.get_ydata()[0] == make_histories()["summarize"][0]["loss"]


def test_missing_and_empty_histories_give_empty_panels(tmp_path, saved_figures):
    path = tmp_path / "learning_curve.png"
    draw_learning_curve({}, path)
    draw_learning_curve({"summarize": [], "fuse": [{"train_runtime": 1.0, "step": 1}]}, path)
    for figure in saved_figures:
        assert [len(axes.lines) for axes in figure.axes] == [0, 0, 0]
        assert [axes.texts[0].get_text() for axes in figure.axes] == ["no losses logged"] * 3


def test_infinite_and_nan_losses_are_drawn(tmp_path):
    path = tmp_path / "learning_curve.png"
    diverged = [{"loss": loss, "step": step} for step, loss in enumerate([2.0, math.inf, math.nan])]
    draw_learning_curve({"summarize": diverged, "answer": diverged[2:]}, path)
    assert path.exists()


def test_an_existing_file_is_replaced_and_no_other_is_left(tmp_path):
    path = tmp_path / "learning_curve.png"
    path.write_text("old")
    draw_learning_curve(make_histories(), str(path))
    assert path.read_bytes().startswith(b"\x89PNG")
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_keeps_the_old_file(tmp_path, monkeypatch):
    def fail(self, name, **kwargs):
        with open(name, "w") as file:
            file.write("half a picture")
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", fail)
    path = tmp_path / "learning_curve.png"
    path.write_text("old")
    with pytest.raises(OSError, match="disk full"):
        draw_learning_curve(make_histories(), path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_unknown_stage_is_refused(tmp_path):
    with pytest.raises(ValueError, match="Unknown stage 'joint', expected any of 'summarize'"):
        draw_learning_curve({"joint": []}, tmp_path / "learning_curve.png")


def test_pyplot_is_not_imported():
    code = "import sys, crosstask.eval.report.learning_curve; assert 'matplotlib.pyplot' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_stage_shorter_than_its_logging_steps_shows_its_mean_loss(tmp_path, saved_figures):
    draw_learning_curve({"fuse": [{"train_loss": 0.9, "step": 20}]}, tmp_path / "curve.png")
    [line] = saved_figures[0].axes[2].lines
    assert line.get_xydata().tolist() == [[20, 0.9]] and "mean" in line.get_label()
