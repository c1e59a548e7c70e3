"""Run the stages of a training: read and encode the rows, make the model, train it and save it."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from accelerate import PartialState
from datasets import Dataset, DatasetDict, concatenate_datasets
from datasets.fingerprint import Hasher
from peft import PeftModel
from transformers import (
    EarlyStoppingCallback,
    PreTrainedModel,
    set_seed,
)

from crosstask import CrossTaskProcessor
from crosstask.data.collator import ROW_INDEX_COLUMN, Contrasts, CrossTaskCollator, detect_contrasts
from crosstask.data.readers import read_rows, write_rejects
from crosstask.data.readers.files import explain_held_out, name_source
from crosstask.data.readers.rows import count_reasons
from crosstask.data.summary_labels import SummaryLabeler
from crosstask.data.wrong_values import WRONG_SUFFIX, make_wrong_rows
from crosstask.loading_crosstask import merge_adapter
from crosstask.processing_crosstask import TRUNCATED
from crosstask.training.arguments import (
    STAGE_FOLDERS,
    Recipe,
)
from crosstask.training.calibration import calibrate
from crosstask.training.callbacks import ScheduleCallback, StopCallback
from crosstask.training.encoding import (
    check_labels,
    check_tokenizer,
    count_truncated,
    describe_single_label,
    describe_truncated,
    describe_unlabeled,
    encode_batch,
    reject_long_questions,
)
from crosstask.training.loading import (
    find_last_checkpoint,
)
from crosstask.training.record import describe_environment
from crosstask.training.stage_models import StageModelMixin
from crosstask.training.text_metrics import make_text_metrics
from crosstask.training.trainer import CrossTaskTrainer, NonFiniteLossError, UndefinedMetricError
from crosstask.training.tuning import cast_float16, disable_reentrant_checkpointing
from crosstask.utils.errors import ConfigError, DataError
from crosstask.utils.files import write_folder, write_text
from crosstask.utils.interrupts import StopRequested, handle_signals

HISTORY_NAME = "history.json"  # in the folder of a run
# Keys that may grow when a run is started again: its last stage then trains longer from its last checkpoint.
GROWING_KEYS = ("max_steps", "num_train_epochs")


class Stage(StageModelMixin):
    """
    One stage of a training run.

    Args:
        name (`str`): "summarize", "answer" or "fuse".
        recipe ([`Recipe`]): The recipe of the run.
        stages (`list[Stage]`): All stages of the run. The list may be filled after this stage is created.
    """

    def __init__(self, name: str, recipe: Recipe, stages: list[Stage]):
        self.name = name
        self.stages = stages
        self.run = recipe.run
        self.explicit_keys = {key for key, value in recipe.values[""].items() if value is not None}
        self.arguments = recipe.stages[name].stage
        self.training = recipe.stages[name].training
        self.run_dir = recipe.output_dir
        self.folder = self.run_dir / STAGE_FOLDERS[name]
        self.checkpoint_dir = Path(str(self.training.output_dir))
        self.rejects: list[dict[str, Any]] = []
        self.counts: dict[str, dict[str, int]] = {}  # of rows and of what was cut, by split

    @property
    def is_finished(self) -> bool:
        """
        Whether the model is trained as long as the recipe says.

        The joint stage keeps its last checkpoint, and goes on from there if the recipe now trains it longer.
        """
        if not self.folder.exists() or find_last_checkpoint(self.checkpoint_dir) is None:
            return self.folder.exists()
        return self._read_history().get(self.name, {}).get("schedule") == self._get_schedule()

    def _get_schedule(self):
        return {key: getattr(self.training, key) for key in GROWING_KEYS}

    def _read_history(self):
        """Return the log of the run by stage."""
        path = self.run_dir / HISTORY_NAME
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def train(self) -> bool:
        """Train the model and save it. Return `False` if the stage was finished before."""
        if self.is_finished:
            print_once(f"{self.name}: already finished, in {self.folder}")
            return False
        print_once(f"{self.name}: training")
        start = time.monotonic()
        set_seed(self.training.seed)
        rows = self.rows
        counts = ", ".join(f"{len(split)} {name}" for name, split in rows.items())
        print_once(f"{self.name}: {counts} rows from {name_source(self.arguments.data)}")
        if self.name == "fuse" and (line := describe_unlabeled(rows["train"], self._get_summary_loss_on())):
            print_once(f"fuse: {line}")
        rows = self._add_wrong_values(rows)
        model, processor = self.make_model()
        trainer = self.make_trainer(model, processor, rows)
        if self.name == "fuse":
            has_own_summaries = trainer.summary_labeler is not None
            if line := describe_single_label(rows["train"], has_own_summaries):
                print_once(f"fuse: {line}")
        self._run_trainer(trainer)
        if trainer.is_world_process_zero():
            self.save(trainer, processor, time.monotonic() - start)
        PartialState().wait_for_everyone()
        del self.rows  # the next stages need the memory
        return True

    def _add_wrong_values(self, rows):
        """
        Return the rows by split, those to train on with rows that state wrong values.

        With `summary_loss_on: all` there are none, not even those of the builder, because the model would
        learn to write them.
        """
        share, train = self.arguments.wrong_values, rows["train"]
        if self.name != "fuse":
            return rows
        right = [index for index, row_id in enumerate(train["id"]) if not row_id.endswith(WRONG_SUFFIX)]
        built = len(train) - len(right)
        if self._get_summary_loss_on() == "all":
            if share or built:
                reason = "as summary_loss_on: all would teach the model to write them"
                print_once(f"fuse: no training rows with a wrong value are used (wrong_values), {reason}")
            return DatasetDict({**rows, "train": train.select(right)}) if built else rows
        if not share or built:  # the builder has added them
            return rows
        wrong_rows = make_wrong_rows(train, share, self.training.seed)
        print_once(f"fuse: {len(wrong_rows)} training rows with a wrong value are added (wrong_values)")
        if not wrong_rows:
            return rows
        wrong = Dataset.from_list(wrong_rows, features=train.features)
        return DatasetDict({**rows, "train": concatenate_datasets([train, wrong])})

    def _make_labeler(self, train):
        """Return what labels the model's own summaries of training rows; `None` if nothing can."""
        if self.name != "fuse" or not self.arguments.own_summary_steps:
            return None
        labeler = SummaryLabeler(train)
        reason = labeler.describe_unusable()
        if reason is None:
            return labeler
        print_once(f"fuse: the model does not judge summaries of its own (own_summary_steps), as {reason}")
        return None

    def _run_trainer(self, trainer):
        if checkpoint := find_last_checkpoint(self.checkpoint_dir):
            print_once(f"{self.name}: resuming from {checkpoint}")
        stop = StopCallback()
        trainer.add_callback(stop)
        try:
            with handle_signals(stop.handle):
                trainer.train(resume_from_checkpoint=checkpoint)
            trainer.check_weights()
        except KeyError as error:
            if "metric_for_best_model" not in str(error):
                raise
            raise ConfigError(f"{self.name}: {error.args[0]}") from error
        except UndefinedMetricError as error:
            raise DataError(f"{self.name}: {error}") from error
        except NonFiniteLossError as error:
            checkpoint = find_last_checkpoint(self.checkpoint_dir) or "none"
            raise NonFiniteLossError(f"{self.name}: {error} (last good checkpoint: {checkpoint})") from error
        if stop.number is not None:
            raise StopRequested(stop.number, f"at step {trainer.state.global_step} of stage {self.name}")

    def check_data(self) -> None:
        """
        Check that the stage has the rows that it needs, before any stage is trained.

        Raises:
            ConfigError: If a loss does not work with the kind of gradient checkpointing.
            DataError: If a split is missing, or no row has a contrast for the contrastive loss.
        """
        if self.is_finished:
            return
        rows, data = self.rows, name_source(self.arguments.data)
        if "train" not in rows:
            reason = explain_held_out(self.arguments.data)
            raise DataError(f"{data}: expected rows to train on, found {', '.join(rows)} only{reason}")
        if self.training.eval_strategy != "no" and "validation" not in rows:
            strategy = getattr(self.training.eval_strategy, "value", self.training.eval_strategy)
            expected = f"expected validation rows for eval_strategy {strategy}"
            raise DataError(f"{data}: {expected}, found {', '.join(rows)}")
        if self.name == "fuse" and not rows.keys() & {"validation", "test"}:
            raise DataError(f"{data}: expected test or validation rows to evaluate on, found train only")
        if self.name == "fuse":
            check_labels(rows, self._get_summary_loss_on(), self.training, data)
        if self.name == "fuse" and (self.arguments.contrastive_weight or self.arguments.own_summary_steps):
            try:
                disable_reentrant_checkpointing(self.training)
            except ValueError as error:
                raise ConfigError(f"fuse: {error}") from error
        if self.name == "fuse" and self.arguments.contrastive_weight:
            self._check_contrasts(rows["train"])

    def _get_summary_loss_on(self):
        """Return the setting that applies: a model that is trained further keeps its own."""
        if self.run.model is None or "summary_loss_on" in self.explicit_keys:
            return self.run.summary_loss_on
        return self._load_cross_task_config().summary_loss_on

    def check_lengths(self) -> None:
        """
        Check that the rows fit the model, before any stage is trained.

        Rows whose question leaves no room for the passage are rejected. Limits above the positions of the
        model are lowered, with a line in the log.

        Raises:
            ConfigError: If a model cannot be loaded. DataError: If most rows of a split are rejected.
        """
        if self.is_finished:
            return
        processor, config = self._preview_model()
        check_tokenizer(self.rows["train"], processor, self.name)
        sentences = processor.limit_lengths(config)
        limit, length = processor.max_summary_length, self.training.generation_max_length
        if limit is not None and length is not None and length > limit:
            self.training.generation_max_length = limit
            sentences.append(
                f"`generation_max_length` is {limit}, as the decoder has positions, and not {length}."
            )
        for sentence in sentences:
            print_once(f"{self.name}: {sentence}")
        if self.name != "summarize":
            self.rows, rejects = reject_long_questions(self.rows, processor, name_source(self.arguments.data))
            self._report_rejects(rejects)

    def _check_contrasts(self, rows):
        has_contrast = detect_contrasts(rows)
        if self._get_summary_loss_on() == "answerable":
            has_contrast = [
                contrasted and label == 1
                for contrasted, label in zip(has_contrast, rows["answerable"], strict=True)
            ]
        if not any(has_contrast):
            raise DataError(
                f"{name_source(self.arguments.data)}: expected training passages with several questions and "
                "summaries, for contrastive_weight, found none"
            )

    @cached_property
    def rows(self) -> DatasetDict:
        """The rows of the stage by split. Rejected rows are counted, and written to the folder of the run."""
        arguments = self.arguments
        rejects: list[dict] = []
        try:
            return read_rows(
                arguments.data,
                self.name,
                **arguments.get_reader_kwargs(),
                shares=arguments.data_shares,
                rejects=rejects,
            )
        finally:
            self._report_rejects(rejects)

    def _report_rejects(self, rejects):
        """Count rejected rows in the log, and write them to a file, after those that were rejected before."""
        self.rejects += rejects
        if rejects and PartialState().is_main_process:
            path = self.run_dir / f"rejects_{self.name}.jsonl"
            write_rejects(self.rejects, path)
            count, reason = count_reasons(reject["reason"] for reject in rejects)[0]
            print_once(
                f"{self.name}: {len(rejects)} rows rejected ({count} of them: {reason}), with their reasons "
                f"in {path}"
            )

    def make_trainer(
        self,
        model: PreTrainedModel | PeftModel,
        processor: CrossTaskProcessor,
        rows: Mapping[str, Dataset],
    ) -> CrossTaskTrainer:
        """Return the trainer of the stage, with encoded rows."""
        callbacks: list[Any] = [ScheduleCallback()]
        if self.arguments.early_stopping_patience is not None:
            callbacks.append(EarlyStoppingCallback(self.arguments.early_stopping_patience))
            self.training.restore_callback_states_from_checkpoint = True  # the patience that is left
        if self.training.device.type == "cpu":
            self.training.dataloader_pin_memory = False  # torch warns if there is no GPU to pin memory for
        text_metrics = None
        if self.training.predict_with_generate and "validation" in rows:
            answers = rows["validation"]["answer"] if self.name == "fuse" else None
            text_metrics = make_text_metrics(processor, answers)
        # The joint stage is evaluated on the test rows, too: they are encoded to count what is cut.
        splits = rows if self.name == "fuse" else rows.keys() & {"train", "validation"}
        encoded = {split: self.encode(rows[split], processor, split) for split in splits}
        train, contrasts, contrastive_weight = encoded["train"], None, 0.0
        if self.name == "fuse" and self.arguments.contrastive_weight:
            contrastive_weight = self.arguments.contrastive_weight
            contrasts = Contrasts(rows["train"], train, seed=self.training.seed)
        labeler = self._make_labeler(rows["train"])
        if contrasts is not None or labeler is not None:
            train = train.add_column(ROW_INDEX_COLUMN, range(len(train)))
            self.training.remove_unused_columns = False
        return CrossTaskTrainer(
            model=model,
            args=self.training,
            train_dataset=train,
            eval_dataset=encoded.get("validation"),
            data_collator=CrossTaskCollator(processor, contrasts=contrasts),
            processing_class=processor,
            compute_metrics=text_metrics,
            callbacks=callbacks,
            fusion_learning_rate=self.arguments.fusion_learning_rate if self.name == "fuse" else None,
            contrastive_weight=contrastive_weight,
            summary_labeler=labeler,
            own_summary_steps=self.arguments.own_summary_steps or 1,
        )

    def encode(self, rows: Dataset, processor: CrossTaskProcessor, split: str = "train") -> Dataset:
        """
        Encode rows as the inputs and labels of the stage, and count those that are cut.

        Raises:
            DataError: If a question leaves no room for its passage.
        """
        encoded = rows.map(
            encode_batch,
            batched=True,
            # Not `self`, as it refers to the rows of all stages: `datasets` may pickle the arguments.
            fn_kwargs={"stage": self.name, "processor": processor, "data": name_source(self.arguments.data)},
            new_fingerprint=Hasher.hash([rows._fingerprint, self.name, processor]),
            remove_columns=rows.column_names,
            desc="encoding",
        )
        counts = count_truncated(encoded)
        if line := describe_truncated(counts, processor):
            print_once(f"{self.name}: {split}: {line}")
        rejected = sum(reject.get("split") == split for reject in self.rejects)
        self.counts[split] = counts | {"rejected": rejected}
        return encoded.remove_columns([name for name in encoded.column_names if name.endswith(TRUNCATED)])

    def save(self, trainer: CrossTaskTrainer, processor: CrossTaskProcessor, seconds: float) -> None:
        """
        Save the trained model and the log of the stage, then delete its checkpoints, but the last one of the
        joint stage.

        Args:
            trainer ([`CrossTaskTrainer`]): The trainer of the trained model.
            processor ([`CrossTaskProcessor`]): The processor of the model; the first two stages save only its
                tokenizer.
            seconds (`float`): How long the stage took, for the log.
        """
        model = trainer.accelerator.unwrap_model(trainer.model)
        if self.name == "fuse" and isinstance(model, PeftModel):
            model = self._save_adapter(model)
        if self.name == "fuse" and model.config.answerability_trained:
            self._calibrate(model, processor)

        def write(folder: Path) -> None:
            model.save_pretrained(folder)
            (processor if self.name == "fuse" else processor.tokenizer).save_pretrained(folder)

        history = self._read_history()
        history[self.name] = {
            "schedule": self._get_schedule(),
            "seconds": seconds,
            "log": trainer.state.log_history,
            "lengths": self.counts,
            "environment": describe_environment(self.training.world_size),
        }
        # If the run is killed from here on, the stage saves the model of its last checkpoint.
        shutil.rmtree(self.folder, ignore_errors=True)
        (self.run_dir / "metrics.json").unlink(missing_ok=True)
        write_text(self.run_dir / HISTORY_NAME, json.dumps(history, indent=1))
        write_folder(self.folder, write)
        last = find_last_checkpoint(self.checkpoint_dir) if self.name == "fuse" else None
        for checkpoint in self.checkpoint_dir.glob("*"):
            if str(checkpoint) != last:
                shutil.rmtree(checkpoint, ignore_errors=True)
        if self.name == "fuse":  # `pipeline(model=RUN)` reads the configuration before it loads the model
            shutil.copyfile(self.folder / "config.json", self.run_dir / "config.json")

    def _calibrate(self, model, processor):
        """Calibrate the answerability on the validation rows, if there are any."""
        line = "answerability is not calibrated, as there are no validation rows"
        if "validation" in self.rows:
            precision = self.arguments.answerability_precision
            batch_size = self.training.per_device_eval_batch_size
            line = calibrate(model, processor, self.rows["validation"], precision, batch_size)
        print_once(f"fuse: {line}")

    def _save_adapter(self, model: PeftModel) -> PreTrainedModel:
        """Save the adapter of the joint stage to the folder `adapter`, and return the merged model."""
        folder = self.run_dir / "adapter"
        shutil.rmtree(folder, ignore_errors=True)  # left by a run that was killed before it saved the model
        write_folder(folder, lambda path: model.save_pretrained(str(path)))
        if self.arguments.quantization:  # merge into the weights in full precision
            base = self._compose_model() if self.run.model is None else self._load_cross_task_model()
            base.generation_config = model.generation_config
            base.config.answerability_trained = model.config.answerability_trained
            cast_float16(base)  # as the trainer did
            model = PeftModel.from_pretrained(base, folder)
        return merge_adapter(model)


def print_once(text: str) -> None:
    """Print a line in the main process only."""
    if PartialState().is_main_process:
        print(text, flush=True)
