"""A trainer that resumes without warnings about weights that a checkpoint does have."""

from __future__ import annotations

from typing import Any

from transformers import Seq2SeqTrainer


class ResumingTrainer(Seq2SeqTrainer):
    """A trainer that knows tied weights when it loads a checkpoint."""

    model: Any

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        # safetensors saves tied weights once, under one of their names. `Trainer` (transformers 4 and 5)
        # warns that the other names are missing, although the model's parameters are the same tensors.
        state = self.model.state_dict()
        loaded = {state[name].data_ptr() for name in state.keys() - set(load_result.missing_keys)}
        missing = [name for name in load_result.missing_keys if state[name].data_ptr() not in loaded]
        super()._issue_warnings_after_load(load_result._replace(missing_keys=missing))
