"""Plots of a training run."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from crosstask.data.schema import STAGES
from crosstask.utils.plots import COLORS, new_figure, save_png

# One colour for each loss; validation is dashed, with markers.
_LOSSES = (
    ("loss", "loss", COLORS[0]),
    ("summary_loss", "summary loss", COLORS[1]),
    ("answerability_loss", "answerability loss", COLORS[2]),
)
_SPLITS = (
    ("", "training", {"linestyle": "-"}),
    ("eval_", "validation", {"linestyle": "--", "marker": "o", "markersize": 4}),
)


def learning_curve(log_histories: Mapping[str, Sequence[Mapping]], path: str | os.PathLike[str]) -> None:
    """Draw the losses of the three training stages against the step, one panel a stage.

    Draws `loss` and `eval_loss`, and the joint stage's `summary_loss` and `answerability_loss`
    (also with `eval_` before them) where they were logged. Losses are in nats, as the `Trainer`
    logs them. The file appears whole or not at all: it is written under a temporary name beside
    `path` and then renamed.

    Args:
        log_histories: For each of the stages "summarize", "answer" and "fuse", the `log_history`
            of its `TrainerState`: a list of dicts with `step` and what was logged there. A stage
            that is missing or empty gets an empty panel.
        path: Where the PNG goes (2100 by 675 pixels); a file there is replaced.

    Raises:
        ValueError: If `log_histories` names another stage.
        OSError: If the file cannot be written, as where its folder does not exist.
    """
    unknown = [repr(stage) for stage in log_histories if stage not in STAGES]
    if unknown:
        raise ValueError(
            f"Unknown stage {', '.join(unknown)}, expected any of {', '.join(map(repr, STAGES))}."
        )

    figure = new_figure(14, 4.5)
    for number, (stage, axes) in enumerate(
        zip(STAGES, figure.subplots(1, len(STAGES)), strict=True), start=1
    ):
        axes.set_title(f"{number}. {stage}", loc="left")
        _draw_stage(axes, log_histories.get(stage, ()))
    save_png(figure, path)


def _draw_stage(axes: Axes, history: Sequence[Mapping]) -> None:
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.spines[["top", "right"]].set_visible(False)
    for key, label, color in _LOSSES:
        for prefix, split, style in _SPLITS:
            points = [(entry["step"], entry[prefix + key]) for entry in history if prefix + key in entry]
            if points:
                axes.plot(*zip(*points, strict=True), color=color, label=f"{label}, {split}", **style)
    if not axes.lines:
        axes.set(xticks=[], yticks=[])
        axes.text(0.5, 0.5, "no losses logged", transform=axes.transAxes, ha="center", color="0.4")
        return
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.legend(frameon=False)
