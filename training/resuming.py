"""A trainer that resumes at the right step, and warns only of weights that a checkpoint lacks."""

from __future__ import annotations

import os
from typing import Any

from transformers import Seq2SeqTrainer, TrainerState
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import TrainOutput


class ResumingTrainer(Seq2SeqTrainer):
    """A trainer that takes no step after the last one, and knows tied weights when it loads a checkpoint."""

    model: Any

    def train(
        self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any
    ) -> TrainOutput:
        """Train the model. Same arguments as [`Trainer.train`]."""
        if not isinstance(resume_from_checkpoint, str) or self.args.max_steps < 0:
            return super().train(resume_from_checkpoint, *args, **kwargs)
        state = TrainerState.load_from_json(os.path.join(resume_from_checkpoint, TRAINER_STATE_NAME))
        schedule = self.args.max_steps, self.args.num_train_epochs
        if state.global_step >= self.args.max_steps:
            # `Trainer` (transformers 4 and 5) compares with `max_steps` only after a step, so it takes one
            # more in an epoch that has begun. With the complete epochs as its limit, it takes none.
            self.args.max_steps, self.args.num_train_epochs = -1, int(state.epoch or 0)
        try:
            return super().train(resume_from_checkpoint, *args, **kwargs)
        finally:
            self.args.max_steps, self.args.num_train_epochs = schedule

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        # safetensors saves tied weights once, under one of their names. `Trainer` (transformers 4 and 5)
        # warns that the other names are missing, although the model's parameters are the same tensors.
        state = self.model.state_dict()
        loaded = {state[name].data_ptr() for name in state.keys() - set(load_result.missing_keys)}
        missing = [name for name in load_result.missing_keys if state[name].data_ptr() not in loaded]
        super()._issue_warnings_after_load(load_result._replace(missing_keys=missing))
