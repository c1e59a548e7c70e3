"""The learning curves of a training run."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from crosstask.data.schema import STAGES
from crosstask.utils.plots import COLORS, new_figure, save_png

# One color per loss; validation losses are dashed, with markers.
_LOSSES = (
    ("loss", "loss", COLORS[0]),
    ("summary_loss", "summary loss", COLORS[1]),
    ("answerability_loss", "answerability loss", COLORS[2]),
)
_SPLITS = (
    ("", "training", {"linestyle": "-"}),
    ("eval_", "validation", {"linestyle": "--", "marker": "o", "markersize": 4}),
)


def draw_learning_curve(log_histories: Mapping[str, Sequence[Mapping]], path: str | os.PathLike[str]) -> None:
    """Draw the losses of the three training stages against the step, one panel per stage.

    The losses are `loss` and `eval_loss`, and those of `summary_loss` and `answerability_loss`, with and
    without `eval_`, that were logged. They are in nats. The file is written under a temporary name and then
    renamed.

    Args:
        log_histories (`Mapping[str, Sequence[Mapping]]`): For each of the stages "summarize", "answer" and
            "fuse", the `log_history` of its `TrainerState`: dicts with `step` and what was logged there. A
            stage that is missing or empty gets an empty panel.
        path (`str` or `os.PathLike`): The PNG file (2100 by 675 pixels), which is replaced.

    Raises:
        ValueError: If `log_histories` contains an unknown stage.
        OSError: If the file cannot be written, e.g. because its folder does not exist.
    """
    unknown = [repr(stage) for stage in log_histories if stage not in STAGES]
    if unknown:
        raise ValueError(
            f"Unknown stage {', '.join(unknown)}, expected any of {', '.join(map(repr, STAGES))}."
        )
    figure = new_figure(14, 4.5)
    panels = zip(STAGES, figure.subplots(1, len(STAGES)), strict=True)
    for number, (stage, axes) in enumerate(panels, start=1):
        axes.set_title(f"{number}. {stage}", loc="left")
        _draw_stage(axes, log_histories.get(stage, ()))
    save_png(figure, path)


def _draw_stage(axes: Axes, history: Sequence[Mapping]) -> None:
    """Draw the losses of one stage into its panel."""
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.spines[["top", "right"]].set_visible(False)
    for key, label, color in _LOSSES:
        for prefix, split, style in _SPLITS:
            points = [(entry["step"], entry[prefix + key]) for entry in history if prefix + key in entry]
            if points:
                axes.plot(*zip(*points, strict=True), color=color, label=f"{label}, {split}", **style)
    if not axes.lines:  # shorter than `logging_steps`: the mean over the stage is all that was logged
        means = [(entry["step"], entry["train_loss"]) for entry in history if "train_loss" in entry]
        if means:
            axes.plot(*zip(*means, strict=True), "o", color=COLORS[0], label="loss, mean over the training")
    if not axes.lines:
        axes.set(xticks=[], yticks=[])
        axes.text(0.5, 0.5, "no losses logged", transform=axes.transAxes, ha="center", color="0.4")
        return
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.legend(frameon=False)
