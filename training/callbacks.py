"""Callbacks of the trainer."""

from __future__ import annotations

import sys
from types import FrameType

import torch
from transformers import TrainerCallback

from crosstask.data.collator import Contrasts
from crosstask.utils.interrupts import StopRequested


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


class ScheduleCallback(TrainerCallback):
    """Log, evaluate and save as the arguments say: a checkpoint restores the settings of the run before."""

    def on_train_begin(self, args, state, control, **kwargs):
        state.compute_steps(args, state.max_steps)


class StopCallback(TrainerCallback):
    """
    Save a checkpoint and stop the training after the step in which the process is asked to stop.

    A second request ends the process at once.

    Attributes:
        number (`int`, *optional*): The number of the signal that asked, see [`handle`].
    """

    def __init__(self):
        self.number: int | None = None

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Handle SIGINT or SIGTERM."""
        if self.number is not None:
            raise StopRequested(number)
        self.number = number
        print("\nStopping after this step; a second Ctrl-C stops at once.", file=sys.stderr)

    def on_step_end(self, args, state, control, **kwargs):
        number = self.number or 0
        if args.world_size > 1:  # all processes stop after the same step
            numbers = torch.tensor([number], device=args.device)
            torch.distributed.all_reduce(numbers, torch.distributed.ReduceOp.MAX)
            number = int(numbers)
        if number:
            self.number = number
            control.should_save = control.should_training_stop = True
