"""Callbacks of the trainer."""

from __future__ import annotations

from transformers import TrainerCallback

from crosstask.data.collator import Contrasts


class ContrastEpochCallback(TrainerCallback):
    """Set the epoch of the contrasts before the first batch of each epoch is drawn."""

    def __init__(self, contrasts: Contrasts):
        self.contrasts = contrasts

    def on_train_begin(self, args, state, control, **kwargs):
        # The state's epoch is right only here: without a length of the data, it is a share of all steps.
        self.epoch = int(state.epoch or 0)

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.contrasts.set_epoch(self.epoch)
        self.epoch += 1
