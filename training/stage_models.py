"""Make the models that the stages of a training run train."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from accelerate import PartialState
from peft import PeftModel
from transformers import (
    AutoConfig,
    AutoModelForSeq2SeqLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Seq2SeqTrainingArguments,
)

from crosstask import CrossTaskConfig, CrossTaskForConditionalGeneration, CrossTaskProcessor
from crosstask.configuration_crosstask import log_dropped_settings, make_generation_config
from crosstask.data.tokenizer import train_tokenizer
from crosstask.loading_crosstask import prevent_weight_packing
from crosstask.sharing_crosstask import check_table_sizes, compare_vocabularies
from crosstask.training.arguments import MODEL_KEYS, READING_KEYS, STAGE_FOLDERS, RunArguments, StageArguments
from crosstask.training.loading import (
    configure_generation,
    load_part,
    load_pretrained,
    load_tokenizer,
    make_config,
)
from crosstask.training.tuning import (
    add_adapter,
    freeze_all_but_last,
    make_adapter_config,
    make_quantization_config,
)
from crosstask.utils.errors import ConfigError, first_line
from crosstask.utils.files import write_folder

if TYPE_CHECKING:
    from crosstask.training.stages import Stage

# The part of the cross-task model that each of the first two stages trains, as the recipe names it.
PARTS = {"summarize": "summarizer", "answer": "question_answerer"}


class StageModelMixin:
    """The methods of a [`Stage`] that load, compose and freeze its model."""

    name: str
    run: RunArguments
    run_dir: Path
    arguments: StageArguments
    training: Seq2SeqTrainingArguments
    explicit_keys: set[str]
    stages: list[Stage]

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
        for key in self.explicit_keys & set(READING_KEYS):
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
        settings = {name: getattr(self.run, name) for name in READING_KEYS}
        if self.name != "fuse":  # the parts read one segment
            settings |= {"max_segments": 1, "stride": 0}
        return CrossTaskProcessor(tokenizer, question_tokenizer, **settings)

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
