"""Run the stages of a training: read and encode the rows, make the model, train it and save it."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
from accelerate import PartialState
from datasets import Dataset, DatasetDict
from datasets.fingerprint import Hasher
from peft import PeftModel
from transformers import (
    AutoConfig,
    AutoModelForSeq2SeqLM,
    EarlyStoppingCallback,
    EvalPrediction,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    set_seed,
)

from crosstask import CrossTaskConfig, CrossTaskForConditionalGeneration, CrossTaskProcessor
from crosstask.configuration_crosstask import IGNORE_INDEX
from crosstask.data.answers import answer_recall, mean
from crosstask.data.collator import ROW_INDEX_COLUMN, Contrasts, CrossTaskCollator, detect_contrasts
from crosstask.data.readers import read_rows, write_rejects
from crosstask.data.schema import NO_ANSWER
from crosstask.data.tokenizer import train_tokenizer
from crosstask.eval.scoring.text_scores import rouge_rows
from crosstask.loading_crosstask import merge_adapter, prevent_weight_packing
from crosstask.processing_crosstask import QuestionTooLongError
from crosstask.training.arguments import MODEL_KEYS, STAGE_FOLDERS, Recipe
from crosstask.training.loading import load_pretrained, load_tokenizer, make_config
from crosstask.training.record import describe_environment
from crosstask.training.trainer import CrossTaskTrainer, NonFiniteLossError, disable_reentrant_checkpointing
from crosstask.training.tuning import (
    add_adapter,
    freeze_all_but_last,
    make_adapter_config,
    make_quantization_config,
)
from crosstask.utils.errors import ConfigError, DataError, first_line
from crosstask.utils.files import write_folder, write_text


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
        self.checkpoint_dir = Path(self.training.output_dir)

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
        print_once(f"{self.name}: {counts} rows from {self.arguments.data}")
        model, processor = self.make_model()
        trainer = self.make_trainer(model, processor, rows)
        self._run_trainer(trainer)
        if trainer.is_world_process_zero():
            self.save(trainer, processor, time.monotonic() - start)
        PartialState().wait_for_everyone()
        del self.rows  # the next stages need the memory
        return True

    def _run_trainer(self, trainer):
        checkpoint = find_last_checkpoint(self.checkpoint_dir)
        if checkpoint:
            print_once(f"{self.name}: resuming from {checkpoint}")
        try:
            trainer.train(resume_from_checkpoint=checkpoint)
            trainer.check_weights()
        except KeyError as error:
            if "metric_for_best_model" not in str(error):
                raise
            raise ConfigError(f"{self.name}: {error.args[0]}") from error
        except NonFiniteLossError as error:
            checkpoint = find_last_checkpoint(self.checkpoint_dir)
            hint = (
                f"the last good checkpoint is {checkpoint}" if checkpoint else "there was no checkpoint yet"
            )
            raise NonFiniteLossError(f"{self.name}: {error} ({hint})") from error

    def check_data(self) -> None:
        """
        Check that the stage has the rows that it needs, before any stage is trained.

        Raises:
            ConfigError: If the contrastive loss does not work with the kind of gradient checkpointing.
            DataError: If a split is missing, or no row has a contrast for the contrastive loss.
        """
        if self.folder.exists():
            return
        rows, data = self.rows, self.arguments.data
        if "train" not in rows:
            raise DataError(f"{data}: expected rows to train on, found {', '.join(rows)} only")
        if self.training.eval_strategy != "no" and "validation" not in rows:
            raise DataError(f"{data}: expected validation rows, as eval_strategy is not no")
        if self.name == "fuse" and not rows.keys() & {"validation", "test"}:
            raise DataError(f"{data}: expected test or validation rows to evaluate on, found train only")
        if self.name == "fuse" and self.arguments.contrastive_weight:
            self._check_contrasts(rows["train"])

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
                f"{self.arguments.data}: expected training passages with several questions and summaries, "
                "for contrastive_weight, found none"
            )

    @cached_property
    def rows(self) -> DatasetDict:
        """The rows of the stage by split. Rejected rows are counted, and written to the folder of the run."""
        arguments, rejects = self.arguments, []
        try:
            return read_rows(
                arguments.data,
                self.name,
                config_name=arguments.data_config_name,
                columns=arguments.data_columns,
                options=arguments.data_options,
                rejects=rejects,
            )
        finally:
            if rejects and PartialState().is_main_process:
                path = self.run_dir / f"rejects_{self.name}.jsonl"
                write_rejects(rejects, path)
                print_once(f"{self.name}: {len(rejects)} rows rejected, with their reasons in {path}")

    def make_model(self) -> tuple[PreTrainedModel | PeftModel, CrossTaskProcessor]:
        """Return the model that the stage trains, with frozen weights and adapter, and its processor."""
        if self.name == "fuse":
            return self._make_cross_task_model()
        part = "summarizer" if self.name == "summarize" else "question_answerer"
        checkpoint, settings = getattr(self.run, part), getattr(self.run, f"{part}_config")
        if checkpoint is None:
            tokenizer = self._train_tokenizer()
            model = AutoModelForSeq2SeqLM.from_config(make_config(settings, tokenizer, f"{part}_config"))
        else:
            tokenizer = load_tokenizer(checkpoint, part)
            config = load_pretrained(AutoConfig, checkpoint, part)
            if not config.is_encoder_decoder:
                hint = (
                    "leave 'answer' out of stages to fuse it as it is"
                    if self.name == "answer"
                    else "expected a model such as T5 or BART"
                )
                raise ConfigError(f"{part}: {checkpoint} is no sequence-to-sequence model; {hint}")
            model = load_pretrained(AutoModelForSeq2SeqLM, checkpoint, part, **self._get_loading_kwargs())
            prevent_weight_packing(model)
        self._set_generation_length(model)
        return self._select_trainable(model), self._make_processor(tokenizer)

    def _make_cross_task_model(self):
        if self.run.model is not None:
            processor = load_pretrained(CrossTaskProcessor, self.run.model, "model")
            for key in self.explicit_keys & {"prompt", "max_source_length"}:
                setattr(processor, key, getattr(self.run, key))
            model = self._load_cross_task_model(**self._get_loading_kwargs())
            return self._select_trainable(model), processor
        summarizer, question_answerer = self._find_parts()
        model = self._compose_model()
        if self.arguments.quantization:  # transformers quantizes only while it loads a model
            with tempfile.TemporaryDirectory() as folder:
                model.save_pretrained(folder)
                kwargs = self._get_loading_kwargs()
                model = CrossTaskForConditionalGeneration.from_pretrained(folder, **kwargs)
        tokenizer = load_tokenizer(summarizer, "summarizer")
        question_tokenizer = load_tokenizer(question_answerer, "question_answerer")
        if question_tokenizer.get_vocab() == tokenizer.get_vocab():
            question_tokenizer = None
        return self._select_trainable(model, new_fusion=True), self._make_processor(
            tokenizer, question_tokenizer
        )

    def _find_parts(self):
        """Return the folders or Hub ids of the summarizer and the question answerer to fuse."""
        return [
            self.run_dir / STAGE_FOLDERS[stage] if stage in self.run.stages else getattr(self.run, part)
            for stage, part in (("summarize", "summarizer"), ("answer", "question_answerer"))
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
        model_type = load_pretrained(AutoConfig, name, "model").model_type
        if model_type != CrossTaskConfig.model_type:
            raise ConfigError(f"model: {name} is a {model_type}, expected a cross-task model")
        kwargs = {"use_safetensors": True} | kwargs
        model = load_pretrained(CrossTaskForConditionalGeneration, name, "model", **kwargs)
        for key in self.explicit_keys & set(MODEL_KEYS):
            setattr(model.config, key, getattr(self.run, key))
        self._set_generation_length(model)
        return model

    def _set_generation_length(self, model):
        if self.training.generation_max_length:
            model.generation_config.max_new_tokens = self.training.generation_max_length

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
        callbacks = []
        if self.arguments.early_stopping_patience is not None:
            callbacks.append(EarlyStoppingCallback(self.arguments.early_stopping_patience))
        if self.training.device.type == "cpu":
            self.training.dataloader_pin_memory = False  # torch warns if there is no GPU to pin memory for
        validation = rows.get("validation")
        train, contrasts, contrastive_weight = self.encode(rows["train"], processor), None, 0.0
        if self.name == "fuse" and self.arguments.contrastive_weight:
            contrastive_weight = self.arguments.contrastive_weight
            contrasts = Contrasts(rows["train"], train, seed=self.training.seed)
            train = train.add_column(ROW_INDEX_COLUMN, range(len(train)))
            self.training.remove_unused_columns = False
        return CrossTaskTrainer(
            model=model,
            args=self.training,
            train_dataset=train,
            eval_dataset=None if validation is None else self.encode(validation, processor),
            data_collator=CrossTaskCollator(processor, contrasts=contrasts),
            processing_class=processor,
            compute_metrics=self._make_text_metrics(processor, validation),
            callbacks=callbacks,
            fusion_learning_rate=self.arguments.fusion_learning_rate if self.name == "fuse" else None,
            contrastive_weight=contrastive_weight,
        )

    def encode(self, rows: Dataset, processor: CrossTaskProcessor) -> Dataset:
        """
        Encode rows as the inputs and labels of the stage.

        Raises:
            DataError: If a question leaves no room for its passage.
        """
        return rows.map(
            encode_batch,
            batched=True,
            # Not `self`, as it refers to the rows of all stages: `datasets` may pickle the arguments.
            fn_kwargs={"stage": self.name, "processor": processor, "data": self.arguments.data},
            new_fingerprint=Hasher.hash([rows._fingerprint, self.name, processor]),
            remove_columns=rows.column_names,
            desc="encoding",
        )

    def _make_text_metrics(
        self, processor: CrossTaskProcessor, rows: Dataset | None
    ) -> Callable[[EvalPrediction], dict[str, float]] | None:
        """Return the function that scores generated text, or `None` if the recipe does not generate any."""
        if rows is None or not self.training.predict_with_generate:
            return None
        answers = rows["answer"] if self.name == "fuse" else None

        def compute_metrics(prediction):
            generated, references = (
                processor.batch_decode(
                    np.where(ids == IGNORE_INDEX, processor.tokenizer.pad_token_id, ids),
                    skip_special_tokens=True,
                )
                for ids in (prediction.predictions, prediction.label_ids)
            )
            rouge = rouge_rows(generated, references, types=("rouge1", "rouge2", "rougeL"))
            scores = {name: mean(values) for name, values in rouge.items()}
            if answers is not None:
                scores["answer_recall"] = answer_recall(generated, answers)
            return {name: value for name, value in scores.items() if value is not None}

        return compute_metrics

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
            "environment": describe_environment(self.training.world_size),
        }
        write_text(path, json.dumps(history, indent=1))
        write_folder(self.folder, write)
        shutil.rmtree(self.checkpoint_dir, ignore_errors=True)

    def _save_adapter(self, model: PeftModel) -> PreTrainedModel:
        """Save the adapter of the joint stage to the folder `adapter`, and return the merged model."""
        folder = self.run_dir / "adapter"
        shutil.rmtree(folder, ignore_errors=True)  # left by a run that was killed before it saved the model
        write_folder(folder, model.save_pretrained)
        if self.arguments.quantization:  # merge into the weights in full precision
            base = self._compose_model() if self.run.model is None else self._load_cross_task_model()
            model = PeftModel.from_pretrained(base, folder)
        return merge_adapter(model)


def encode_batch(
    batch: Mapping[str, list], stage: str, processor: CrossTaskProcessor, data: str
) -> dict[str, list]:
    """
    Encode a batch of rows as the inputs and labels of a stage.

    Args:
        batch (`dict[str, list]`): The columns of the rows.
        stage (`str`): "summarize", "answer" or "fuse".
        processor ([`CrossTaskProcessor`]): The processor of the model.
        data (`str`): The name of the data, for errors.

    Raises:
        DataError: If a question leaves no room for its passage.
    """
    if stage == "summarize":
        inputs = {name: batch[name] for name in ("passage", "summary")}
    elif stage == "answer":
        inputs = {name: batch[name] for name in ("question", "passage")}
        inputs["summary"] = [answer or NO_ANSWER for answer in batch["answer"]]
    else:
        inputs = {name: batch[name] for name in ("question", "passage", "summary", "answerable")}
    try:
        return dict(processor(**inputs))
    except QuestionTooLongError as error:
        reason = str(error).replace(f"question {error.index} takes", "the question takes", 1)
        raise DataError(f"{data}: row {batch['id'][error.index]}: {reason}") from error


def find_last_checkpoint(folder: Path) -> str | None:
    """
    Return the newest complete checkpoint of an interrupted stage, or `None` if there is none.

    Newer, incomplete checkpoints are deleted: `trainer_state.json` is written last, so it is missing or
    unreadable if the process was killed while it wrote the checkpoint.
    """
    checkpoints = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    for checkpoint in reversed(checkpoints):
        try:
            json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
            return str(checkpoint)
        except (OSError, ValueError):
            if PartialState().is_main_process:
                shutil.rmtree(checkpoint)
    return None


def print_once(text: str) -> None:
    """Print a line in the main process only."""
    if PartialState().is_main_process:
        print(text, flush=True)
