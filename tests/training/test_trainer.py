"""The trainer: the same loss however a step is cut, its two parts in the log, metrics, NaN."""

import math

import numpy as np
import pytest
import torch
from datasets import Dataset
from sklearn.metrics import roc_auc_score
from torch.utils.data import IterableDataset
from transformers import (
    M2M100Config,
    M2M100ForConditionalGeneration,
    Seq2SeqTrainingArguments,
    T5Config,
    T5ForConditionalGeneration,
)

from crosstask import CrossTaskConfig, CrossTaskForConditionalGeneration, CrossTaskProcessor, CrossTaskTrainer
from crosstask.data.collator import ROW_INDEX, Contrasts, CrossTaskCollator
from crosstask.data.tokenizer import train_tokenizer
from crosstask.training.trainer import NonFiniteLossError, disable_reentrant_checkpointing

TEXTS = ["the mayor opened the old bridge on May 3", "rain fell for two days", "who opened the bridge ?"]


@pytest.fixture(scope="module")
def processor():
    return CrossTaskProcessor(train_tokenizer(TEXTS, 300), max_source_length=64)


def shape(processor):
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


def fused(processor, **kwargs):
    torch.manual_seed(0)
    part = shape(processor)
    settings = {"fusion_num_heads": 4, "fusion_dropout": 0.0} | kwargs
    return CrossTaskForConditionalGeneration(CrossTaskConfig(part, part, **settings))


def encode(processor, count=16):
    # Of unequal lengths and labels: a mean of micro-batch means would not be the mean of all.
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


def trainer_of(model, processor, folder, train=None, **kwargs):
    own = {name: kwargs.pop(name, None) for name in ("compute_metrics", "fusion_learning_rate")}
    own["contrastive_weight"] = kwargs.pop("contrastive_weight", 0.0)
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
        **own,
    )


def logged(trainer, name="loss"):
    return [entry[name] for entry in trainer.state.log_history if name in entry]


@pytest.mark.parametrize("summary_loss_on", ["all", "answerable"])
def test_gradient_accumulation_changes_nothing(processor, tmp_path, summary_loss_on):
    weights, losses = [], []
    for size, accumulated in ((8, 1), (2, 4)):
        model = fused(processor, summary_loss_on=summary_loss_on, answerability_weight=0.7)
        trainer = trainer_of(
            model,
            processor,
            tmp_path,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=accumulated,
        )
        trainer.train()
        weights.append(model.state_dict())
        losses.append([logged(trainer, name)[0] for name in ("loss", "summary_loss", "answerability_loss")])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], rtol=1e-4, atol=1e-6)


def test_the_first_loss_is_the_models_own_on_the_whole_batch(processor, tmp_path):
    data = encode(processor, 8)
    model = fused(processor, answerability_weight=0.5)
    with torch.no_grad():
        expected = model(**CrossTaskCollator(processor)(list(data)))
    trainer = trainer_of(model, processor, tmp_path, train=data)
    trainer.train()
    assert logged(trainer)[0] == pytest.approx(expected.loss.item(), rel=1e-4)
    assert logged(trainer, "summary_loss")[0] == pytest.approx(expected.summary_loss.item(), rel=1e-4)
    assert logged(trainer, "answerability_loss")[0] == pytest.approx(
        expected.answerability_loss.item(), rel=1e-4
    )


def test_logged_parts_average_the_steps_between_two_logs(processor, tmp_path):
    fine, coarse = (
        trainer_of(fused(processor), processor, tmp_path, max_steps=4, logging_steps=steps)
        for steps in (1, 2)
    )
    fine.train(), coarse.train()
    for name in ("loss", "summary_loss", "answerability_loss"):
        steps = logged(fine, name)
        pairs = [np.mean(steps[:2]), np.mean(steps[2:])]
        assert logged(coarse, name) == pytest.approx(pairs, rel=1e-3)


def test_evaluation_is_exact_whatever_the_batch_size(processor, tmp_path):
    model = fused(processor).eval()
    data = encode(processor, 13)
    with torch.no_grad():
        whole = model(**CrossTaskCollator(processor)(list(data)))
    for size in (1, 4, 13):
        trainer = trainer_of(model, processor, tmp_path, train=data, per_device_eval_batch_size=size)
        metrics = trainer.evaluate()
        assert metrics["eval_loss"] == pytest.approx(whole.loss.item(), rel=1e-4)
        assert metrics["eval_summary_loss"] == pytest.approx(whole.summary_loss.item(), rel=1e-4)
        assert metrics["eval_answerability_loss"] == pytest.approx(whole.answerability_loss.item(), rel=1e-4)


def test_answerability_metrics_stand_beside_those_of_the_generated_text(processor, tmp_path):
    model, data, seen = fused(processor).eval(), encode(processor, 14), {}

    def metrics(prediction):
        seen["shapes"] = prediction.predictions.shape, prediction.label_ids.shape
        return {"rows": len(prediction.predictions)}

    trainer = trainer_of(
        model,
        processor,
        tmp_path,
        train=data,
        per_device_eval_batch_size=4,
        predict_with_generate=True,
        generation_max_length=7,
        compute_metrics=metrics,
    )
    found = trainer.evaluate()
    with torch.no_grad():
        logits = model(**CrossTaskCollator(processor)(list(data))).answerability_logits
    labels = np.array(data["answerable"])
    counted = labels != -100
    probabilities = logits.softmax(-1)[:, 1].numpy()
    expected = roc_auc_score(labels[counted], probabilities[counted])
    assert found["eval_answerability_auroc"] == pytest.approx(expected)
    accuracy = np.mean((probabilities > 0.5)[counted] == labels[counted])
    assert found["eval_answerability_accuracy"] == pytest.approx(accuracy)
    assert found["eval_rows"] == 14
    assert seen["shapes"][0][0] == seen["shapes"][1][0] == 14


def test_rows_without_labels_can_be_evaluated(processor, tmp_path):
    data = encode(processor, 4).remove_columns("answerable")
    metrics = trainer_of(fused(processor), processor, tmp_path, train=data).evaluate()
    assert math.isfinite(metrics["eval_loss"])
    assert "eval_answerability_auroc" not in metrics


def test_a_plain_summarizer_trains_exactly_too(processor, tmp_path):
    losses = []
    for size, accumulated in ((8, 1), (2, 4)):
        torch.manual_seed(0)
        trainer = trainer_of(
            T5ForConditionalGeneration(shape(processor)),
            processor,
            tmp_path,
            max_steps=3,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=accumulated,
        )
        trainer.train()
        losses.append(logged(trainer))
        assert not logged(trainer, "summary_loss")
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_label_smoothing_reaches_the_summary_loss(processor, tmp_path):
    plain, smoothed = (
        trainer_of(fused(processor), processor, tmp_path, label_smoothing_factor=factor)
        for factor in (0.0, 0.3)
    )
    plain.train(), smoothed.train()
    assert logged(smoothed, "summary_loss")[0] != pytest.approx(logged(plain, "summary_loss")[0], rel=1e-3)
    assert logged(smoothed, "answerability_loss") == pytest.approx(logged(plain, "answerability_loss"))


def test_a_loss_that_is_not_finite_ends_the_training_before_the_step(processor, tmp_path):
    model = fused(processor)
    trainer = trainer_of(model, processor, tmp_path, max_steps=3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        model.answerability_head.classifier.bias.fill_(math.nan)
    with pytest.raises(NonFiniteLossError, match="at step 1"):
        trainer.train()
    for name, value in model.state_dict().items():
        if name != "answerability_head.classifier.bias":
            torch.testing.assert_close(value, before[name], rtol=0, atol=0)


@pytest.mark.parametrize("strategy", ["every_save", "checkpoint", "end"])
def test_only_what_others_need_is_pushed(hub, alice, processor, tmp_path, strategy):
    folder = tmp_path / "pushed"
    settings = {"push_to_hub": True, "hub_model_id": "alice/pushed", "hub_strategy": strategy}
    model = fused(processor)
    trainer = trainer_of(
        model,
        processor,
        folder,
        encode(processor),
        save_strategy="steps",
        save_steps=1,
        max_steps=2,
        **settings,
    )
    trainer.train()
    (folder / "notes.json").write_text("{}")
    titles = [made.title for made in hub.commits("alice/pushed")]
    assert len(titles) > 1 if strategy != "end" else titles == ["initial commit"]
    assert all(title.startswith("Training in progress, step ") for title in titles[:-1])
    trainer.push_to_hub(language="en")
    files = hub.files("alice/pushed")
    assert {
        "README.md",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "modeling_crosstask.py",
    } <= set(files)
    for name in ("notes.json", "training_args.bin", "trainer_state.json", "optimizer.pt"):
        assert not any(path.endswith(name) for path in files)
    assert not any(str(tmp_path).encode() in content for content in files.values())
    assert not list(folder.rglob("training_args.bin"))
    found = CrossTaskForConditionalGeneration.from_pretrained("alice/pushed")
    assert all(torch.equal(found.state_dict()[name], value) for name, value in model.state_dict().items())
    assert CrossTaskProcessor.from_pretrained("alice/pushed").max_source_length == 64


def test_a_push_may_be_asked_for_afterwards(hub, alice, processor, tmp_path):
    trainer = trainer_of(fused(processor), processor, tmp_path / "later", encode(processor))
    trainer.train()
    trainer.push_to_hub(private=True)
    assert hub.repo("alice/later").private and "model.safetensors" in hub.files("alice/later")


def test_a_second_tokenizer_is_pushed_and_old_weights_go(hub, alice, processor, tmp_path):
    both = CrossTaskProcessor(processor.tokenizer, processor.tokenizer, max_source_length=64)
    folder = tmp_path / "both"
    trainer = trainer_of(fused(processor), both, folder, encode(processor))
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "other.model").write_text("x")
    trainer.push_to_hub()
    files = hub.files("alice/both")
    assert "question_tokenizer/tokenizer.json" in files and "data/other.model" not in files
    assert CrossTaskProcessor.from_pretrained("alice/both").question_tokenizer is not None
    trainer.model.save_pretrained(folder, max_shard_size="20KB")
    trainer.save_model = lambda **_: None  # as a larger model would be saved
    trainer.push_to_hub()
    assert "model.safetensors" not in hub.files("alice/both")
    assert "model.safetensors.index.json" in hub.files("alice/both")
    CrossTaskForConditionalGeneration.from_pretrained("alice/both")


@pytest.mark.parametrize("optim", ["adamw_torch", "adafactor"])
def test_the_fusion_has_a_learning_rate_of_its_own(processor, tmp_path, optim):
    def trained(fusion_learning_rate, fusion="gated"):
        model = fused(processor, fusion=fusion)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        settings = {"optim": optim, "learning_rate": 1e-3, "fusion_learning_rate": fusion_learning_rate}
        trainer = trainer_of(model, processor, tmp_path, **settings)
        trainer.train()
        parts = {
            "answerability_head": 0.0,
            "gated_cross_attention": 0.0,
            "summarizer": 0.0,
            "question_encoder": 0.0,
        }
        for name, value in model.state_dict().items():
            part = name.split(".")[0]
            parts[part] = max(parts[part], (value - before[name]).abs().max().item())
        return parts, [sum(p.numel() for p in group["params"]) for group in trainer.optimizer.param_groups]

    same, sizes = trained(None)
    faster, split = trained(1e-1)
    assert sum(sizes) == sum(split) and len(split) > len(sizes)
    for part in ("answerability_head", "gated_cross_attention"):
        assert faster[part] > 10 * same[part] > 0
    for part in ("summarizer", "question_encoder"):
        assert faster[part] == pytest.approx(same[part])


def test_a_second_training_keeps_the_groups_of_the_first(processor, tmp_path):
    settings = {"optim": "adamw_torch", "fusion_learning_rate": 1e-1, "learning_rate": 1e-3}
    trainer = trainer_of(fused(processor, fusion="gated"), processor, tmp_path, **settings)
    found = []
    for _ in range(3):
        trainer.train()
        found.append([(len(group["params"]), group["lr"]) for group in trainer.optimizer.param_groups])
    assert found[0] == found[1] == found[2]
    assert {rate for _, rate in found[0]} == {1e-1, 1e-3} and all(count for count, _ in found[0])


def test_a_fusion_that_is_trained_alone_has_no_empty_groups_beside_it(processor, tmp_path):
    model = fused(processor, fusion="gated").requires_grad_(False)
    model.answerability_head.requires_grad_(True), model.gated_cross_attention.requires_grad_(True)
    trainer = trainer_of(model, processor, tmp_path, optim="adamw_torch", fusion_learning_rate=1e-1)
    trainer.train()
    groups = trainer.optimizer.param_groups
    assert all(group["params"] and group["lr"] == 1e-1 for group in groups)
    assert logged(trainer, "learning_rate") == [1e-1]


@pytest.mark.parametrize("scheduled", [False, True])
def test_the_rates_of_ones_own_optimizer_are_not_overridden(processor, tmp_path, scheduled):
    model = fused(processor)
    optimizer = torch.optim.AdamW(model.parameters())
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0) if scheduled else None
    arguments = Seq2SeqTrainingArguments(str(tmp_path), use_cpu=True, report_to="none")
    settings = {"model": model, "args": arguments, "optimizers": (optimizer, scheduler)}
    with pytest.raises(ValueError, match="^fusion_learning_rate: expected no optimizer .* got AdamW$"):
        CrossTaskTrainer(**settings, fusion_learning_rate=1e-3)
    CrossTaskTrainer(**settings)


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf, "0.3", True, None])
@pytest.mark.parametrize("name", ["contrastive_weight", "fusion_learning_rate"])
def test_what_is_no_weight_or_rate_is_refused(processor, tmp_path, name, value):
    if (name, value) == ("fusion_learning_rate", None):
        return  # that of the other parts
    with pytest.raises(
        ValueError, match=f"^`{name}` has to be a finite number of 0 or more, got {value!r}.$"
    ):
        trainer_of(fused(processor), processor, tmp_path, **{name: value})


def test_the_gates_open_and_are_logged(processor, tmp_path):
    model = fused(processor, fusion="gated")
    trainer = trainer_of(model, processor, tmp_path, optim="adamw_torch", learning_rate=1e-2, max_steps=3)
    trainer.train()
    for number, name in enumerate(("gate_attention", "gate_feed_forward")):
        opening = logged(trainer, name)
        assert len(opening) == 3 and opening[-1] != 0
        assert opening[-1] == pytest.approx(model.gated_cross_attention.gates.tanh()[number].item(), abs=1e-6)
    plain = trainer_of(fused(processor), processor, tmp_path)
    plain.train()
    assert not logged(plain, "gate_attention")


def contrasted(processor):
    """Eight rows, four of which have one other question each."""
    rows = {
        "passage": [TEXTS[0]] * 2 + [TEXTS[1]] * 2 + [f"{TEXTS[0]} {n}" for n in range(4)],
        "question": ["who ?", "when ?", "how long ?", "what ?", *["who ?"] * 4],
        "summary": ["bridge", "on May 3", "two days", "rain fell for days", *["bridge"] * 4],
    }
    answerable = [1, 1, 1, 0, 1, -100, 0, 1]
    encoded = processor(**rows, answerable=answerable)
    rows_ = [dict(zip(encoded, values, strict=True)) for values in zip(*encoded.values(), strict=True)]
    data = Dataset.from_list([row | {ROW_INDEX: index} for index, row in enumerate(rows_)])
    return data, Contrasts(rows, rows_), rows, answerable


@pytest.mark.parametrize("summary_loss_on", ["all", "answerable"])
@pytest.mark.parametrize("plain", [False, True])
def test_the_contrastive_loss_is_that_of_its_definition(processor, tmp_path, summary_loss_on, plain):
    data, contrasts, rows, answerable = contrasted(processor)

    def build():
        if not plain:
            return fused(processor, summary_loss_on=summary_loss_on, fusion="gated")
        torch.manual_seed(0)
        return T5ForConditionalGeneration(shape(processor))

    if plain:
        data = data.remove_columns("answerable")
    model, losses = build().eval(), []
    for index, other in ((0, 1), (1, 0), (2, 3), (3, 2)):
        if summary_loss_on == "answerable" and not plain and answerable[index] != 1:
            continue
        likelihoods = []
        for question in (rows["question"][index], rows["question"][other]):
            texts = {
                "question": question,
                "passage": rows["passage"][index],
                "summary": rows["summary"][index],
            }
            given = processor(**{name: [text] for name, text in texts.items()}, return_tensors="pt")
            likelihoods.append(-model(**given).loss * (given["labels"] != -100).sum())
        losses.append(-torch.nn.functional.logsigmoid(likelihoods[0] - likelihoods[1]).item())
    expected = np.mean(losses)
    weights, found = [], []
    for size, accumulated in ((8, 1), (2, 4)):
        model = build()
        trainer = trainer_of(
            model,
            processor,
            tmp_path,
            train=data,
            contrasts=contrasts,
            contrastive_weight=0.3,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=accumulated,
            remove_unused_columns=False,
        )
        trainer.train()
        weights.append(model.state_dict())
        found.append(logged(trainer)[0])
        assert logged(trainer, "contrastive_loss")[0] == pytest.approx(expected, rel=1e-4)
        if plain:
            assert not logged(trainer, "summary_loss")
        else:
            parts = [logged(trainer, name)[0] for name in ("summary_loss", "answerability_loss")]
            assert found[-1] == pytest.approx(sum(parts) + 0.3 * expected, rel=1e-4)
    assert found[0] == pytest.approx(found[1], rel=1e-4)
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], rtol=1e-4, atol=1e-6)


def test_what_is_evaluated_is_not_contrasted(processor, tmp_path):
    data, contrasts, _, _ = contrasted(processor)
    settings = {"contrasts": contrasts, "contrastive_weight": 0.3, "remove_unused_columns": False}
    for generate in (False, True):
        trainer = trainer_of(
            fused(processor), processor, tmp_path, train=data, predict_with_generate=generate, **settings
        )
        found = trainer.evaluate()
        parts = found["eval_summary_loss"] + found["eval_answerability_loss"]
        assert found["eval_loss"] == pytest.approx(parts, rel=1e-5)


def test_contrasts_are_told_the_epoch_also_of_a_resumed_run(processor, tmp_path):
    data, contrasts, _, _ = contrasted(processor)
    told = []
    contrasts.set_epoch = told.append
    settings = {"contrasts": contrasts, "contrastive_weight": 0.3, "remove_unused_columns": False}
    settings |= {"per_device_train_batch_size": 2, "max_steps": 10, "save_strategy": "steps", "save_steps": 2}
    trainer_of(fused(processor), processor, tmp_path, train=data, **settings).train()
    assert told == [0, 1, 2]
    for checkpoint, expected in ((2, [0, 1, 2]), (4, [1, 2]), (6, [1, 2])):
        told.clear()
        trainer = trainer_of(fused(processor), processor, tmp_path, train=data, **settings)
        trainer.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{checkpoint}"))
        assert told == expected, checkpoint


class Stream(IterableDataset):
    """Rows that can be read once."""

    def __init__(self, rows):
        self.rows = iter(list(rows))

    def __iter__(self):
        return self.rows


def test_contrasts_are_told_the_epochs_of_data_without_a_length(processor, tmp_path):
    data, contrasts, _, _ = contrasted(processor)
    told = []
    contrasts.set_epoch = told.append
    settings = {"contrasts": contrasts, "contrastive_weight": 0.3, "remove_unused_columns": False}
    settings |= {"train": data.to_iterable_dataset(), "max_steps": 4}
    trainer = trainer_of(fused(processor), processor, tmp_path, **settings)
    trainer.train()
    assert told == [0, 1, 2, 3]
    told.clear()
    trainer.train()
    assert told == [0, 1, 2, 3]


def test_no_row_of_a_stream_is_lost(processor, tmp_path):
    data, contrasts, _, _ = contrasted(processor)
    settings = {"contrasts": contrasts, "contrastive_weight": 0.3, "remove_unused_columns": False}
    losses = []
    for rows in (data, Stream(data)):
        trainer = trainer_of(fused(processor), processor, tmp_path, train=rows, **settings)
        trainer.train()
        losses.append(logged(trainer))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    trainer = trainer_of(
        fused(processor), processor, tmp_path, train=Stream(data.remove_columns(ROW_INDEX)), **settings
    )
    with pytest.raises(
        ValueError, match="^contrastive_weight: expected training rows with 'row', got a batch"
    ):
        trainer.train()


UNCONTRASTED = {
    "collator": (
        {"contrasts": None},
        "a CrossTaskCollator with `contrasts`, got a CrossTaskCollator without",
    ),
    "columns": ({"remove_unused_columns": True}, "remove_unused_columns=False, as True leaves no 'row'"),
    "rows": ({"train": []}, "training rows with 'row', got none"),
}


@pytest.mark.parametrize(("settings", "words"), UNCONTRASTED.values(), ids=UNCONTRASTED)
def test_a_weight_without_contrasts_is_refused(processor, tmp_path, settings, words):
    data, contrasts, _, _ = contrasted(processor)
    right = {"train": data, "contrasts": contrasts, "remove_unused_columns": False}
    with pytest.raises(ValueError, match=f"^contrastive_weight: expected {words}"):
        trainer_of(fused(processor), processor, tmp_path, contrastive_weight=0.3, **right | settings)


def test_rows_that_do_not_name_their_place_are_refused(processor, tmp_path):
    data, contrasts, _, _ = contrasted(processor)
    settings = {"contrasts": contrasts, "contrastive_weight": 0.3, "remove_unused_columns": False}
    with pytest.raises(
        ValueError, match="^contrastive_weight: expected training rows with 'row', got .*labels"
    ):
        trainer_of(fused(processor), processor, tmp_path, train=data.remove_columns(ROW_INDEX), **settings)


def calls_of(module):
    """Counts the forward passes of a module."""
    seen = []
    module.register_forward_hook(lambda *_: seen.append(1))
    return seen


@pytest.mark.parametrize("own_tokenizer", [False, True])
@pytest.mark.parametrize("fusion", ["classifier", "gated"])
def test_the_contrasts_are_read_by_what_writes_alone(processor, tmp_path, monkeypatch, fusion, own_tokenizer):
    tokenizer = processor.tokenizer
    both = CrossTaskProcessor(tokenizer, tokenizer if own_tokenizer else None, max_source_length=64)
    data, contrasts, _, _ = contrasted(both)
    model = fused(processor, fusion=fusion)
    settings = {"train": data, "contrasts": contrasts, "contrastive_weight": 0.3}
    trainer = trainer_of(model, both, tmp_path, **settings, remove_unused_columns=False)
    batch = trainer.data_collator(list(data))
    passes, questions, given = calls_of(model), calls_of(model.question_encoder), []
    forward = model.forward
    monkeypatch.setattr(model, "forward", lambda **inputs: given.append(inputs) or forward(**inputs))
    trainer.compute_loss(model, batch)
    assert len(passes) == 2 and len(questions) == (2 if fusion == "gated" else 1)
    assert "labels" in given[0] and "labels" not in given[1]


def test_a_summarizer_that_shifts_its_labels_itself_is_contrasted(processor, tmp_path):
    torch.manual_seed(0)
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "vocab_size": len(processor.tokenizer)}
    sizes |= {f"{part}_attention_heads": 4 for part in ("encoder", "decoder")}
    sizes |= {f"{part}_ffn_dim": 32 for part in ("encoder", "decoder")}
    model = M2M100ForConditionalGeneration(M2M100Config(**sizes, pad_token_id=0, decoder_start_token_id=2))
    data, contrasts, _, _ = contrasted(processor)
    settings = {"contrasts": contrasts, "contrastive_weight": 0.3, "remove_unused_columns": False}
    trainer = trainer_of(model, processor, tmp_path, train=data.remove_columns("answerable"), **settings)
    trainer.train()
    assert logged(trainer, "contrastive_loss")[0] > 0


@pytest.mark.parametrize("given", [None, {"use_reentrant": True}, {"preserve_rng_state": True}])
def test_checkpointed_layers_are_not_reentered_unless_asked_for(processor, tmp_path, monkeypatch, given):
    data, contrasts, _, _ = contrasted(processor)
    settings = {"train": data, "remove_unused_columns": False, "contrastive_weight": 0.3}
    settings |= {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": given}
    used, checkpoint = [], torch.utils.checkpoint.checkpoint

    def seen(*args, use_reentrant, **kwargs):
        used.append(use_reentrant)
        return checkpoint(*args, use_reentrant=use_reentrant, **kwargs)

    for module in ("torch.utils.checkpoint", "transformers.modeling_utils"):
        monkeypatch.setattr(f"{module}.checkpoint", seen)
    trainer = trainer_of(fused(processor), processor, tmp_path, contrasts=contrasts, **settings)
    trainer.train()
    assert used and set(used) == {bool(given and given.get("use_reentrant"))}
    # As of several processes, whose gradients would be reported twice.
    monkeypatch.setattr(Seq2SeqTrainingArguments, "world_size", 2)
    if given and "use_reentrant" in given:
        with pytest.raises(
            ValueError, match="^gradient_checkpointing_kwargs: expected use_reentrant to be Fa"
        ):
            disable_reentrant_checkpointing(trainer.args)
    else:
        disable_reentrant_checkpointing(trainer.args)


def test_without_a_weight_nothing_is_contrasted(processor, tmp_path):
    data, contrasts, _, _ = contrasted(processor)
    trainer = trainer_of(
        fused(processor), processor, tmp_path, train=data, contrasts=contrasts, remove_unused_columns=False
    )
    trainer.train()
    assert not logged(trainer, "contrastive_loss")
