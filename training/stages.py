"""The stages of a training run: what each starts from, what it reads, and the folder that it ends in."""

import difflib
import json
import shutil
import tempfile
import time
from functools import cached_property
from pathlib import Path

import numpy as np
from accelerate import PartialState
from huggingface_hub.errors import StrictDataclassError
from peft import PeftModel
from safetensors import SafetensorError
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    EarlyStoppingCallback,
    PreTrainedTokenizerFast,
    set_seed,
)

from crosstask import CrossTaskConfig, CrossTaskForConditionalGeneration, CrossTaskProcessor
from crosstask.configuration_crosstask import IGNORE_INDEX
from crosstask.data.answers import answer_recall
from crosstask.data.collator import ROW_INDEX, Contrasts, CrossTaskCollator, have_contrasts
from crosstask.data.readers import read_rows, write_rejects
from crosstask.data.schema import NO_ANSWER
from crosstask.data.tokenizer import train_tokenizer
from crosstask.eval.scoring.scores import rouge
from crosstask.loading_crosstask import prevent_weight_packing
from crosstask.processing_crosstask import QuestionTooLongError
from crosstask.training.arguments import MODEL_KEYS, STAGE_FOLDERS
from crosstask.training.record import describe_environment
from crosstask.training.trainer import CrossTaskTrainer, NonFiniteLossError, disable_reentrant_checkpointing
from crosstask.training.tuning import (
    add_adapter,
    freeze_all_but_last,
    make_adapter_config,
    make_quantization_config,
    merge_adapter,
)
from crosstask.utils.errors import ConfigError, DataError
from crosstask.utils.files import write_folder, write_text


class Stage:
    """One stage of a run: what it starts from, what it reads, and the folder that it ends in."""

    def __init__(self, name, recipe, stages):
        self.name = name
        self.stages = stages  # of the run, this one among them
        self.run = recipe.run
        # What is not left to a default.
        self.given = {key for key, value in recipe.values[""].items() if value is not None}
        self.arguments = recipe.stages[name].stage
        self.training = recipe.stages[name].training
        self.root = recipe.output_dir
        self.folder = self.root / STAGE_FOLDERS[name]
        self.checkpoints = Path(self.training.output_dir)

    def train(self):
        """Train, and save to the stage's folder. `False` where that had been done before."""
        if self.folder.exists():
            _say(f"{self.name}: already finished, in {self.folder}")
            return False
        _say(f"{self.name}: training")
        start = time.monotonic()
        set_seed(self.training.seed)
        rows = self.rows
        counts = ", ".join(f"{len(part)} {name}" for name, part in rows.items())
        _say(f"{self.name}: {counts} rows from {self.arguments.data}")
        model, processor = self.build()
        trainer = self.trainer(model, processor, rows)
        checkpoint = last_checkpoint(self.checkpoints)
        if checkpoint:
            _say(f"{self.name}: resuming from {checkpoint}")
        try:
            trainer.train(resume_from_checkpoint=checkpoint)
            trainer.check_weights()
        except KeyError as error:
            if "metric_for_best_model" not in str(error):
                raise
            raise ConfigError(f"{self.name}: {error.args[0]}") from error
        except NonFiniteLossError as error:
            kept = last_checkpoint(self.checkpoints)
            where = f"the last good checkpoint is {kept}" if kept else "there was no checkpoint yet"
            raise NonFiniteLossError(f"{self.name}: {error} ({where})") from error
        if trainer.is_world_process_zero():
            self.save(trainer, processor, time.monotonic() - start)
        PartialState().wait_for_everyone()
        del self.rows  # a large set need not stay in memory for the stages to come
        return True

    def check_data(self):
        """Refuse what would end the run only after the stages before this one."""
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
            try:
                disable_reentrant_checkpointing(self.training)
            except ValueError as error:
                raise ConfigError(f"fuse: {error}") from error
            learned = rows["train"]["answerable"] if self.run.summary_loss_on == "answerable" else None
            contrasted = have_contrasts(rows["train"])
            if not any(
                found and (learned is None or learned[row] == 1) for row, found in enumerate(contrasted)
            ):
                raise DataError(
                    f"{data}: expected training passages with several questions and summaries, for "
                    "contrastive_weight, found none"
                )

    @cached_property
    def rows(self):
        """What the stage reads, by split. Rejected rows are counted and written beside the stages."""
        arguments, rejects = self.arguments, []
        try:
            rows = read_rows(
                arguments.data,
                self.name,
                config_name=arguments.data_config_name,
                columns=arguments.data_columns,
                options=arguments.data_options,
                rejects=rejects,
            )
        finally:
            if rejects and PartialState().is_main_process:
                path = self.root / f"rejects_{self.name}.jsonl"
                write_rejects(rejects, path)
                _say(f"{self.name}: {len(rejects)} rows rejected, with their reasons in {path}")
        return rows

    def build(self):
        """The model to train and the processor of its inputs."""
        if self.name == "fuse":
            return self.build_fused()
        side = "summarizer" if self.name == "summarize" else "question_answerer"
        model_name, shape = getattr(self.run, side), getattr(self.run, f"{side}_config")
        tokenizer = self.tokenizer(model_name, side)
        if model_name is None:
            model = AutoModelForSeq2SeqLM.from_config(_config_from(shape, tokenizer, f"{side}_config"))
        else:
            config = _load(AutoConfig, model_name, side)
            if not config.is_encoder_decoder:
                hint = (
                    "leave 'answer' out of stages to fuse it as it is"
                    if self.name == "answer"
                    else "expected a model such as T5 or BART"
                )
                raise ConfigError(f"{side}: {model_name} is no sequence-to-sequence model; {hint}")
            model = _load(AutoModelForSeq2SeqLM, model_name, side, **self.quantized())
            prevent_weight_packing(model)
        if self.training.generation_max_length:
            model.generation_config.max_new_tokens = self.training.generation_max_length
        return self.tuned(model), self.processor(tokenizer)

    def build_fused(self):
        if self.run.model is not None:
            name = self.run.model
            processor = _load(CrossTaskProcessor, name, "model")
            for key in self.given & {"prompt", "max_source_length"}:
                setattr(processor, key, getattr(self.run, key))
            return self.tuned(self.further(**self.quantized())), processor
        summarizer, answerer = self.parts()
        model = self.composed()
        if self.arguments.quantization:  # which transformers does as it loads
            with tempfile.TemporaryDirectory() as folder:
                model.save_pretrained(folder)
                model = CrossTaskForConditionalGeneration.from_pretrained(folder, **self.quantized())
        tokenizer = _load_tokenizer(summarizer, "summarizer")
        question_tokenizer = _load_tokenizer(answerer, "question_answerer")
        if question_tokenizer.get_vocab() == tokenizer.get_vocab():
            question_tokenizer = None
        return self.tuned(model, new_fusion=True), self.processor(tokenizer, question_tokenizer)

    def parts(self):
        """Where the summarizer and the question answerer are that the last stage joins."""
        return (
            self.root / STAGE_FOLDERS[stage] if stage in self.run.stages else getattr(self.run, side)
            for stage, side in (("summarize", "summarizer"), ("answer", "question_answerer"))
        )

    def composed(self):
        """A model of both parts, with a new fusion."""
        try:
            return CrossTaskForConditionalGeneration.from_tasks(
                *self.parts(), **{name: getattr(self.run, name) for name in MODEL_KEYS}
            )
        except (OSError, ValueError) as error:
            raise ConfigError(f"fuse: {str(error).splitlines()[0]}") from error

    def further(self, **kwargs):
        """A whole model to train on, as it is but for what the recipe gives."""
        name = self.run.model
        kind = _load(AutoConfig, name, "model").model_type
        if kind != CrossTaskConfig.model_type:
            raise ConfigError(f"model: {name} is a {kind}, expected a cross-task model")
        model = _load(CrossTaskForConditionalGeneration, name, "model", **{"use_safetensors": True} | kwargs)
        for key in self.given & set(MODEL_KEYS):
            setattr(model.config, key, getattr(self.run, key))
        if self.training.generation_max_length:
            model.generation_config.max_new_tokens = self.training.generation_max_length
        return model

    def quantized(self):
        """Arguments for loading what is trained on."""
        config = make_quantization_config(self.arguments)
        return {"use_safetensors": True} | ({} if config is None else {"quantization_config": config})

    def tokenizer(self, model_name, side):
        """Of the checkpoint, or one trained on the run's own texts, once for both models."""
        if model_name is not None:
            return _load_tokenizer(model_name, side)
        folder = self.root / "tokenizer"
        with PartialState().main_process_first():
            if not folder.exists():
                tokenizer = train_tokenizer(self.texts(), self.run.vocab_size)
                write_folder(folder, tokenizer.save_pretrained)
        return PreTrainedTokenizerFast.from_pretrained(folder)

    def texts(self):
        """Training texts of all stages: what the models are to read and write."""
        for stage in self.stages:
            rows = stage.rows["train"]
            for name in ("passage", "question", "answer", "summary"):
                yield from dict.fromkeys(rows[name])

    def processor(self, tokenizer, question_tokenizer=None):
        limit = self.run.max_source_length
        return CrossTaskProcessor(tokenizer, question_tokenizer, self.run.prompt, max_source_length=limit)

    def tuned(self, model, new_fusion=False):
        """The model with what the recipe wants trained of it."""
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

    def trainer(self, model, processor, rows):
        callbacks = []
        if self.arguments.early_stopping_patience is not None:
            callbacks.append(EarlyStoppingCallback(self.arguments.early_stopping_patience))
        if self.training.device.type == "cpu":
            self.training.dataloader_pin_memory = False  # nothing to pin for, as torch would say often
        validation = rows.get("validation")
        train, contrasts, weight = self.encode(rows["train"], processor), None, 0.0
        if self.name == "fuse" and (weight := self.arguments.contrastive_weight):
            contrasts = Contrasts(rows["train"], train, seed=self.training.seed)
            train = train.add_column(ROW_INDEX, range(len(train)))
            self.training.remove_unused_columns = False
        return CrossTaskTrainer(
            model=model,
            args=self.training,
            train_dataset=train,
            eval_dataset=None if validation is None else self.encode(validation, processor),
            data_collator=CrossTaskCollator(processor, contrasts=contrasts),
            processing_class=processor,
            compute_metrics=self.text_metrics(processor, validation),
            callbacks=callbacks,
            fusion_learning_rate=self.arguments.fusion_learning_rate if self.name == "fuse" else None,
            contrastive_weight=weight,
        )

    def encode(self, rows, processor):
        inputs = {
            "summarize": lambda row: {"passage": row["passage"], "summary": row["summary"]},
            "answer": lambda row: {
                "question": row["question"],
                "passage": row["passage"],
                "summary": [answer or NO_ANSWER for answer in row["answer"]],
            },
            "fuse": lambda row: {
                name: row[name] for name in ("question", "passage", "summary", "answerable")
            },
        }[self.name]

        def encode(batch):
            try:
                return dict(processor(**inputs(batch)))
            except QuestionTooLongError as error:
                reason = str(error).replace(f"question {error.index} takes", "the question takes", 1)
                raise DataError(f"{self.arguments.data}: row {batch['id'][error.index]}: {reason}") from error

        return rows.map(encode, batched=True, remove_columns=rows.column_names, desc="encoding")

    def text_metrics(self, processor, rows):
        """ROUGE and answer recall of generated text, where the recipe asks for generation."""
        if rows is None or not self.training.predict_with_generate:
            return None
        answers = rows["answer"] if self.name == "fuse" else None

        def metrics(prediction):
            generated, references = (
                processor.batch_decode(
                    np.where(ids == IGNORE_INDEX, processor.tokenizer.pad_token_id, ids),
                    skip_special_tokens=True,
                )
                for ids in (prediction.predictions, prediction.label_ids)
            )
            scores = rouge(generated, references)
            if answers is not None:
                scores["answer_recall"] = answer_recall(generated, answers)
            return {name: value for name, value in scores.items() if value is not None}

        return metrics

    def save(self, trainer, processor, seconds):
        """Write the stage's folder whole, then drop the checkpoints that led to it."""
        model = trainer.accelerator.unwrap_model(trainer.model)
        if self.name == "fuse" and isinstance(model, PeftModel):
            adapter = self.root / "adapter"  # alone as well, to be shared by those who have the base
            shutil.rmtree(adapter, ignore_errors=True)  # of a run that was killed between the two
            write_folder(adapter, model.save_pretrained)
            if self.arguments.quantization:  # the weights as they were before
                base = self.composed() if self.run.model is None else self.further()
                model = PeftModel.from_pretrained(base, adapter)
            model = merge_adapter(model)

        def write(folder):
            model.save_pretrained(folder)
            (processor if self.name == "fuse" else processor.tokenizer).save_pretrained(folder)

        history = self.root / "history.json"
        log = json.loads(history.read_text(encoding="utf-8")) if history.exists() else {}
        log[self.name] = {"seconds": seconds, "log": trainer.state.log_history}
        log[self.name]["environment"] = describe_environment(self.training.world_size)
        write_text(history, json.dumps(log, indent=1))
        write_folder(self.folder, write)
        shutil.rmtree(self.checkpoints, ignore_errors=True)


def last_checkpoint(folder):
    """
    The newest complete checkpoint of an interrupted stage, or `None`. A process that was killed while it
    wrote one leaves no readable `trainer_state.json`, which is written last; that one is deleted.
    """
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    while found:
        try:
            json.loads((found[-1] / "trainer_state.json").read_text(encoding="utf-8"))
            return str(found[-1])
        except (OSError, ValueError):
            if PartialState().is_main_process:
                shutil.rmtree(found[-1])
            found.pop()
    return None


def _load(auto_class, name, key, **kwargs):
    try:
        return auto_class.from_pretrained(name, **kwargs)
    # RuntimeError: weights of other shapes than the configuration says.
    except (OSError, RuntimeError, SafetensorError, StrictDataclassError, ValueError) as error:
        raise ConfigError(f"{key}: {name}: {str(error).splitlines()[0]}") from error


def _load_tokenizer(name, key):
    tokenizer = _load(AutoTokenizer, name, key)
    # Where there are no files for it, transformers 5 makes one up that knows no word (T5's has "▁").
    if len(tokenizer.get_vocab().keys() - set(tokenizer.all_special_tokens)) < 2:
        raise ConfigError(f"{key}: {name}: expected a tokenizer beside the model, found none")
    return tokenizer


def _config_from(shape, tokenizer, key):
    if "model_type" not in shape:
        raise ConfigError(f"{key}: expected model_type among its keys, got {', '.join(shape)}")
    kind = shape["model_type"]
    if kind not in CONFIG_MAPPING:
        near = difflib.get_close_matches(str(kind), CONFIG_MAPPING, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ", expected t5 or bart"
        raise ConfigError(f"{key}: unknown model_type {kind!r}{hint}")
    ids = {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "decoder_start_token_id": tokenizer.pad_token_id,
    }
    try:
        config = AutoConfig.for_model(**(ids | shape))
    except (StrictDataclassError, TypeError, ValueError) as error:
        raise ConfigError(f"{key}: {' '.join(str(error).split())}") from error
    known = CONFIG_MAPPING[kind]().to_dict().keys() | config.attribute_map.keys()
    for name in shape.keys() - known:
        near = difflib.get_close_matches(str(name), known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"{key}: unknown key {name!r} for a {kind}{hint}")
    if not config.is_encoder_decoder:
        raise ConfigError(
            f"{key}: {shape['model_type']} is no sequence-to-sequence model, expected t5 or bart"
        )
    return config


def _say(text):
    if PartialState().is_main_process:
        print(text, flush=True)
