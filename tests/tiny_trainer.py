"""Tiny models, rows and trainers, for tests of the trainer."""

import torch
from datasets import Dataset
from transformers import Seq2SeqTrainingArguments, T5Config

from crosstask import CrossTaskConfig, CrossTaskForConditionalGeneration, CrossTaskTrainer
from crosstask.data.collator import CrossTaskCollator

TEXTS = ["the mayor opened the old bridge on May 3", "rain fell for two days", "who opened the bridge ?"]


def make_part_config(processor):
    return T5Config(
        vocab_size=len(processor.tokenizer),
        d_model=16,
        d_kv=4,
        d_ff=32,
        num_layers=1,
        num_heads=4,
        dropout_rate=0.0,
        decoder_start_token_id=0,
    )


def make_model(processor, **kwargs):
    torch.manual_seed(0)
    part = make_part_config(processor)
    settings = {"fusion_num_heads": 4, "fusion_dropout": 0.0} | kwargs
    return CrossTaskForConditionalGeneration(CrossTaskConfig(part, part, **settings))


def encode(processor, count=16):
    # Lengths and labels differ, so that a mean of micro-batch means is not the mean of all rows.
    rows = [
        processor(
            question=TEXTS[2],
            passage=" ".join([TEXTS[0]] * (1 + index % 3)),
            summary=" ".join(["bridge"] * (1 + 5 * (index % 4 == 0))),
            answerable=[1, 0, -100, 1, -100, -100, -100][index % 7],
        )
        for index in range(count)
    ]
    return Dataset.from_list([dict(row) for row in rows])


def make_trainer(model, processor, folder, train=None, **kwargs):
    settings = {name: kwargs.pop(name, None) for name in ("compute_metrics", "fusion_learning_rate")}
    settings["contrastive_weight"] = kwargs.pop("contrastive_weight", 0.0)
    settings["summary_labeler"] = kwargs.pop("summary_labeler", None)
    settings["own_summary_steps"] = kwargs.pop("own_summary_steps", 1)
    contrasts = kwargs.pop("contrasts", None)
    arguments = Seq2SeqTrainingArguments(
        **{
            "output_dir": str(folder),
            "per_device_train_batch_size": 8,
            "max_steps": 1,
            "learning_rate": 0.1,
            "optim": "sgd",
            "lr_scheduler_type": "constant",
            "max_grad_norm": 0.0,
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": "none",
            "disable_tqdm": True,
            "use_cpu": True,
            **kwargs,
        }
    )
    data = encode(processor) if train is None else train
    return CrossTaskTrainer(
        model=model,
        args=arguments,
        train_dataset=data,
        eval_dataset=data,
        data_collator=CrossTaskCollator(processor, contrasts=contrasts),
        processing_class=processor,
        **settings,
    )


def get_logged(trainer, name="loss"):
    return [entry[name] for entry in trainer.state.log_history if name in entry]
