"""Run the stages of a training: read and encode the rows, make the model, train it and save it."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from accelerate import PartialState
from datasets import Dataset, DatasetDict
from datasets.fingerprint import Hasher
from peft import PeftModel
from transformers import (
    AutoConfig,
    AutoModelForSeq2SeqLM,
    EarlyStoppingCallback,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    set_seed,
)

from crosstask import CrossTaskConfig, CrossTaskForConditionalGeneration, CrossTaskProcessor
from crosstask.configuration_crosstask import log_dropped_settings, make_generation_config
from crosstask.data.collator import ROW_INDEX_COLUMN, Contrasts, CrossTaskCollator, detect_contrasts
from crosstask.data.readers import read_rows, write_rejects
from crosstask.data.readers.files import name_source
from crosstask.data.tokenizer import train_tokenizer
from crosstask.loading_crosstask import merge_adapter, prevent_weight_packing
from crosstask.processing_crosstask import TRUNCATED
from crosstask.sharing_crosstask import check_table_sizes, compare_vocabularies
from crosstask.training.arguments import (
    MODEL_KEYS,
    STAGE_FOLDERS,
    Recipe,
    disable_reentrant_checkpointing,
)
from crosstask.training.callbacks import ScheduleCallback, StopCallback
from crosstask.training.encoding import (
    check_labels,
    check_tokenizer,
    count_truncated,
    describe_truncated,
    describe_unlabeled,
    encode_batch,
    reject_long_questions,
)
from crosstask.training.loading import (
    configure_generation,
    find_last_checkpoint,
    load_part,
    load_pretrained,
    load_tokenizer,
    make_config,
)
from crosstask.training.record import describe_environment
from crosstask.training.text_metrics import make_text_metrics
from crosstask.training.trainer import CrossTaskTrainer, NonFiniteLossError, UndefinedMetricError
from crosstask.training.tuning import (
    add_adapter,
    freeze_all_but_last,
    make_adapter_config,
    make_quantization_config,
)
from crosstask.utils.errors import ConfigError, DataError, first_line
from crosstask.utils.files import write_folder, write_text
from crosstask.utils.interrupts import StopRequested, handle_signals

# The part of the cross-task model that each of the first two stages trains, as the recipe names it.
PARTS = {"summarize": "summarizer", "answer": "question_answerer"}


class Stage:
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

    def train(self) -> bool:
        """Train the model and save it. Return `False` if the stage was finished before."""
        if self.folder.exists():
            print_once(f"{self.name}: already finished, in {self.folder}")
            return False
        print_once(f"{self.name}: training")
        start = time.monotonic()
        set_seed(self.training.seed)
        rows = self.rows
        counts = ", ".join(f"{len(split)} {name}" for name, split in rows.items())
        print_once(f"{self.name}: {counts} rows from {name_source(self.arguments.data)}")
        if self.name == "fuse" and (line := describe_unlabeled(rows["train"])):
            print_once(f"fuse: {line}")
        model, processor = self.make_model()
        trainer = self.make_trainer(model, processor, rows)
        self._run_trainer(trainer)
        if trainer.is_world_process_zero():
            self.save(trainer, processor, time.monotonic() - start)
        PartialState().wait_for_everyone()
        del self.rows  # the next stages need the memory
        return True

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
            ConfigError: If the contrastive loss does not work with the kind of gradient checkpointing.
            DataError: If a split is missing, or no row has a contrast for the contrastive loss.
        """
        if self.folder.exists():
            return
        rows, data = self.rows, name_source(self.arguments.data)
        if "train" not in rows:
            raise DataError(f"{data}: expected rows to train on, found {', '.join(rows)} only")
        if self.training.eval_strategy != "no" and "validation" not in rows:
            strategy = getattr(self.training.eval_strategy, "value", self.training.eval_strategy)
            expected = f"expected validation rows for eval_strategy {strategy}"
            raise DataError(f"{data}: {expected}, found {', '.join(rows)}")
        if self.name == "fuse" and not rows.keys() & {"validation", "test"}:
            raise DataError(f"{data}: expected test or validation rows to evaluate on, found train only")
        if self.name == "fuse":
            check_labels(rows, self.run.summary_loss_on, self.training, data)
        if self.name == "fuse" and self.arguments.contrastive_weight:
            self._check_contrasts(rows["train"])

    def check_lengths(self) -> None:
        """
        Check that the rows fit the model, before any stage is trained.

        Rows whose question leaves no room for the passage are rejected. Limits above the positions of the
        model are lowered, with a line in the log.

        Raises:
            ConfigError: If a model cannot be loaded. DataError: If most rows of a split are rejected.
        """
        if self.folder.exists():
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

    def _preview_model(self):
        """Return the processor and the configuration of the model that the stage will train."""
        if self.name == "fuse" and self.run.model is not None:
            return self._load_processor(), self._load_cross_task_config()
        loaded = [self._load_part(part) for stage, part in PARTS.items() if self.name in (stage, "fuse")]
        tokenizers, configs = map(list, zip(*loaded, strict=True))
        if self.name != "fuse":
            return self._make_processor(*tokenizers), configs[0]
        shared, settings = compare_vocabularies(*tokenizers), {n: getattr(self.run, n) for n in MODEL_KEYS}
        try:
            config = CrossTaskConfig(*configs, shares_vocabulary=shared, **settings)
            check_table_sizes(config, tokenizers)
        except ValueError as error:
            raise ConfigError(f"fuse: {first_line(error)}") from error
        return self._make_processor(*tokenizers[: 2 - shared]), config

    def _load_part(self, part):
        """Return the tokenizer and the configuration of a part, after its stage if that is finished."""
        checkpoint = getattr(self.run, part)
        for stage in self.stages:  # the stage of the part may be finished
            if PARTS.get(stage.name) == part and stage.folder.exists():
                checkpoint = stage.folder
        if checkpoint is None:
            key, tokenizer = f"{part}_config", self._train_tokenizer()
            return tokenizer, make_config(getattr(self.run, key), tokenizer, key)
        return load_part(checkpoint, part, self.name)

    def _check_contrasts(self, rows):
        try:
            disable_reentrant_checkpointing(self.training)
        except ValueError as error:
            raise ConfigError(f"fuse: {error}") from error
        has_contrast = detect_contrasts(rows)
        if self.run.summary_loss_on == "answerable":
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
            print_once(f"{self.name}: {len(rejects)} rows rejected, with their reasons in {path}")

    def make_model(self) -> tuple[PreTrainedModel | PeftModel, CrossTaskProcessor]:
        """Return the model that the stage trains, with frozen weights and adapter, and its processor."""
        if self.name == "fuse":
            return self._make_cross_task_model()
        part = PARTS[self.name]
        tokenizer, config = self._load_part(part)
        checkpoint = getattr(self.run, part)
        if checkpoint is None:
            model = AutoModelForSeq2SeqLM.from_config(config)
        else:
            model = load_pretrained(AutoModelForSeq2SeqLM, checkpoint, part, **self._get_loading_kwargs())
            prevent_weight_packing(model)
            log_dropped_settings(model, part)
        processor = self._make_processor(tokenizer)
        processor.limit_lengths(model)
        model.generation_config = make_generation_config(model)
        configure_generation(model, self.training)
        return self._select_trainable(model), processor

    def _make_cross_task_model(self):
        if self.run.model is not None:
            processor = self._load_processor()
            model = self._load_cross_task_model(**self._get_loading_kwargs())
            processor.limit_lengths(model)
            model.config.max_source_length = processor.max_source_length
            return self._select_trainable(model), processor
        summarizer, question_answerer = self._find_parts()
        model = self._compose_model()
        if self.arguments.quantization:  # transformers quantizes only while it loads a model
            with tempfile.TemporaryDirectory() as folder:
                model.save_pretrained(folder)
                kwargs = self._get_loading_kwargs()
                model = CrossTaskForConditionalGeneration.from_pretrained(folder, **kwargs)
        configure_generation(model, self.training)
        tokenizer = load_tokenizer(summarizer, "summarizer")
        question_tokenizer = None
        if not model.config.shares_vocabulary:
            question_tokenizer = load_tokenizer(question_answerer, "question_answerer")
        processor = self._make_processor(tokenizer, question_tokenizer)
        processor.limit_lengths(model)
        model.config.max_source_length = processor.max_source_length
        return self._select_trainable(model, new_fusion=True), processor

    def _find_parts(self):
        """Return the folders or Hub ids of the summarizer and the question answerer to fuse."""
        return [
            self.run_dir / STAGE_FOLDERS[stage] if stage in self.run.stages else getattr(self.run, part)
            for stage, part in PARTS.items()
        ]

    def _compose_model(self):
        """Return a cross-task model of the two parts, with a new fusion."""
        try:
            return CrossTaskForConditionalGeneration.from_tasks(
                *self._find_parts(), **{name: getattr(self.run, name) for name in MODEL_KEYS}
            )
        except (OSError, ValueError) as error:
            raise ConfigError(f"fuse: {first_line(error)}") from error

    def _load_cross_task_model(self, **kwargs):
        """Return the cross-task model to train further, with the settings that the recipe changes."""
        name = self.run.model
        self._load_cross_task_config()
        kwargs = {"use_safetensors": True} | kwargs
        model = load_pretrained(CrossTaskForConditionalGeneration, name, "model", **kwargs)
        for key in self.explicit_keys & set(MODEL_KEYS):
            setattr(model.config, key, getattr(self.run, key))
        configure_generation(model, self.training)
        return model

    def _load_cross_task_config(self):
        config = load_pretrained(AutoConfig, self.run.model, "model")
        if config.model_type != CrossTaskConfig.model_type:
            raise ConfigError(
                f"model: {self.run.model} is a {config.model_type}, expected a cross-task model"
            )
        return config

    def _load_processor(self):
        """Return the processor of the cross-task model to train further, with the recipe's settings."""
        processor = load_pretrained(CrossTaskProcessor, self.run.model, "model")
        for key in self.explicit_keys & {"prompt", "max_source_length"}:
            setattr(processor, key, getattr(self.run, key))
        return processor

    def _get_loading_kwargs(self):
        """Return the arguments of `from_pretrained` for the model to train, with its quantization."""
        config = make_quantization_config(self.arguments)
        return {"use_safetensors": True} | ({} if config is None else {"quantization_config": config})

    def _train_tokenizer(self):
        """Return the tokenizer of all models from scratch, trained on the first call."""
        folder = self.run_dir / "tokenizer"
        with PartialState().main_process_first():
            if not folder.exists():
                tokenizer = train_tokenizer(self._iter_texts(), self.run.vocab_size)
                write_folder(folder, tokenizer.save_pretrained)
        return PreTrainedTokenizerFast.from_pretrained(folder)

    def _iter_texts(self) -> Iterator[str]:
        """Yield the training texts of all stages, each text once per column."""
        for stage in self.stages:
            rows = stage.rows["train"]
            for column in ("passage", "question", "answer", "summary"):
                yield from dict.fromkeys(rows[column])

    def _make_processor(
        self, tokenizer: PreTrainedTokenizerBase, question_tokenizer: PreTrainedTokenizerBase | None = None
    ) -> CrossTaskProcessor:
        limit = self.run.max_source_length
        return CrossTaskProcessor(tokenizer, question_tokenizer, self.run.prompt, max_source_length=limit)

    def _select_trainable(self, model, new_fusion=False):
        """Freeze the weights that the recipe does not train, and add its adapter."""
        try:
            if self.arguments.trainable:
                return freeze_all_but_last(model, **self.arguments.trainable)
            config = make_adapter_config(self.arguments)
            if config is None:
                return model
            if self.training.gradient_checkpointing:
                model.enable_input_require_grads()
            model = add_adapter(model, config, new_fusion)
        except ConfigError as error:
            raise ConfigError(f"{self.name}.{error}") from error
        if PartialState().is_main_process:
            model.print_trainable_parameters()
        return model

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
        Save the trained model and the log of the stage, then delete its checkpoints.

        Args:
            trainer ([`CrossTaskTrainer`]): The trainer of the trained model.
            processor ([`CrossTaskProcessor`]): The processor of the model; the first two stages save only its
                tokenizer.
            seconds (`float`): How long the stage took, for the log.
        """
        model = trainer.accelerator.unwrap_model(trainer.model)
        if self.name == "fuse" and isinstance(model, PeftModel):
            model = self._save_adapter(model)

        def write(folder: Path) -> None:
            model.save_pretrained(folder)
            (processor if self.name == "fuse" else processor.tokenizer).save_pretrained(folder)

        path = self.run_dir / "history.json"
        history = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        history[self.name] = {
            "seconds": seconds,
            "log": trainer.state.log_history,
            "lengths": self.counts,
            "environment": describe_environment(self.training.world_size),
        }
        write_text(path, json.dumps(history, indent=1))
        write_folder(self.folder, write)
        shutil.rmtree(self.checkpoint_dir, ignore_errors=True)

    def _save_adapter(self, model: PeftModel) -> PreTrainedModel:
        """Save the adapter of the joint stage to the folder `adapter`, and return the merged model."""
        folder = self.run_dir / "adapter"
        shutil.rmtree(folder, ignore_errors=True)  # left by a run that was killed before it saved the model
        write_folder(folder, lambda path: model.save_pretrained(str(path)))
        if self.arguments.quantization:  # merge into the weights in full precision
            base = self._compose_model() if self.run.model is None else self._load_cross_task_model()
            base.generation_config = model.generation_config
            base.config.answerability_trained = model.config.answerability_trained
            model = PeftModel.from_pretrained(base, folder)
        return merge_adapter(model)


def print_once(text: str) -> None:
    """Print a line in the main process only."""
    if PartialState().is_main_process:
        print(text, flush=True)
