"""Push a model to the Hub while and after it is trained: its files, and nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from transformers import Seq2SeqTrainingArguments
from transformers.trainer_utils import HubStrategy
from transformers.utils.hub import PushInProgress

from crosstask.training.resuming import ResumingTrainer
from crosstask.utils.files import list_model_files


class HubPushTrainer(ResumingTrainer):
    """A trainer that pushes the model, its code, its processor and its card."""

    args: Seq2SeqTrainingArguments
    model: Any
    hub_model_id: Any
    push_in_progress: Any

    def push_to_hub(  # type: ignore[override]
        self,
        commit_message: str = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """
        Push the model, its code, its processor and its card to the Hub, and no other file.

        Args:
            private (`bool`, *optional*): Whether a new repository is private.

        The other arguments are those of `Trainer.push_to_hub`.
        """
        if private is not None:
            self.args.hub_private_repo = private
        if self.hub_model_id is None:
            self.init_hf_repo(token=token or self.args.hub_token)
        self._finish_current_push()  # it reads the files that `save_model` replaces
        self.save_model(_internal_call=True)
        if not self.is_world_process_zero():
            return None
        kwargs.setdefault("tags", list(self.model.model_tags or ()))
        self.create_model_card(**{"model_name": self.hub_model_id.split("/")[-1]} | kwargs)
        return self._upload(commit_message, token, revision, run_as_future=not blocking)

    def _push_from_checkpoint(self, checkpoint_folder):
        is_busy = self.push_in_progress is not None and not self.push_in_progress.is_done()
        if not self.is_world_process_zero() or self.args.hub_strategy == HubStrategy.END or is_busy:
            return
        # Copies, as `save_total_limit` may delete the checkpoint during the upload.
        for path, file in list_model_files(Path(checkpoint_folder)).items():
            target = Path(self.args.output_dir, path)
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(file, target)
        job = self._upload(f"Training in progress, step {self.state.global_step}", run_as_future=True)
        self.push_in_progress = PushInProgress([job])

    def _upload(self, message, token=None, revision=None, **kwargs):
        folder = Path(self.args.output_dir)
        return HfApi(token=token or self.args.hub_token).upload_folder(
            repo_id=self.hub_model_id,
            folder_path=folder,
            commit_message=message,
            allow_patterns=["README.md", *list_model_files(folder)],
            # An earlier push may have split the weights into other files.
            delete_patterns=["model*.safetensors", "model.safetensors.index*.json"],
            revision=revision or self.args.hub_revision,
            **kwargs,
        )
