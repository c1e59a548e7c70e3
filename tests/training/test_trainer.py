"""The trainer: the exact loss of a step, its terms in the log, metrics, contrasts, pushes and NaN."""

import math

import numpy as np
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from sklearn.metrics import roc_auc_score
from tiny_trainer import TEXTS, encode, get_logged, make_model, make_part_config, make_trainer
from torch.utils.data import IterableDataset
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    M2M100Config,
    M2M100ForConditionalGeneration,
    Seq2SeqTrainingArguments,
    T5ForConditionalGeneration,
)

from crosstask import CrossTaskForConditionalGeneration, CrossTaskProcessor, CrossTaskTrainer
from crosstask.configuration_crosstask import FUSIONS
from crosstask.data.collator import ROW_INDEX_COLUMN, Contrasts, CrossTaskCollator
from crosstask.data.tokenizer import train_tokenizer
from crosstask.training.trainer import NonFiniteLossError
from crosstask.training.tuning import disable_reentrant_checkpointing


@pytest.fixture(scope="module")
def processor():
    return CrossTaskProcessor(train_tokenizer(TEXTS, 300), max_source_length=64)


@pytest.mark.parametrize("summary_loss_on", ["all", "answerable"])
def test_gradient_accumulation_changes_neither_losses_nor_weights(processor, tmp_path, summary_loss_on):
    weights, losses = [], []
    for size, accumulated in ((8, 1), (2, 4)):
        model = make_model(processor, summary_loss_on=summary_loss_on, answerability_weight=0.7)
        trainer = make_trainer(
            model,
            processor,
            tmp_path,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=accumulated,
        )
        trainer.train()
        weights.append(model.state_dict())
        losses.append(
            [get_logged(trainer, name)[0] for name in ("loss", "summary_loss", "answerability_loss")]
        )
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], rtol=1e-4, atol=1e-6)


def test_the_first_loss_is_that_of_the_model_on_the_batch(processor, tmp_path):
    data = encode(processor, 8)
    model = make_model(processor, answerability_weight=0.5)
    with torch.no_grad():
        expected = model(**CrossTaskCollator(processor)(list(data)))
    trainer = make_trainer(model, processor, tmp_path, train=data)
    trainer.train()
    assert get_logged(trainer)[0] == pytest.approx(expected.loss.item(), rel=1e-4)
    assert get_logged(trainer, "summary_loss")[0] == pytest.approx(expected.summary_loss.item(), rel=1e-4)
    assert get_logged(trainer, "answerability_loss")[0] == pytest.approx(
        expected.answerability_loss.item(), rel=1e-4
    )


def test_logged_terms_are_means_over_the_steps_since_the_last_log(processor, tmp_path):
    fine, coarse = (
        make_trainer(make_model(processor), processor, tmp_path, max_steps=4, logging_steps=steps)
        for steps in (1, 2)
    )
    fine.train(), coarse.train()
    for name in ("loss", "summary_loss", "answerability_loss"):
        steps = get_logged(fine, name)
        pairs = [np.mean(steps[:2]), np.mean(steps[2:])]
        assert get_logged(coarse, name) == pytest.approx(pairs, rel=1e-3)


def test_evaluation_losses_do_not_depend_on_the_batch_size(processor, tmp_path):
    model = make_model(processor).eval()
    data = encode(processor, 13)
    with torch.no_grad():
        expected = model(**CrossTaskCollator(processor)(list(data)))
    for size in (1, 4, 13):
        trainer = make_trainer(model, processor, tmp_path, train=data, per_device_eval_batch_size=size)
        metrics = trainer.evaluate()
        assert metrics["eval_loss"] == pytest.approx(expected.loss.item(), rel=1e-4)
        assert metrics["eval_summary_loss"] == pytest.approx(expected.summary_loss.item(), rel=1e-4)
        assert metrics["eval_answerability_loss"] == pytest.approx(
            expected.answerability_loss.item(), rel=1e-4
        )


def test_evaluation_reports_answerability_and_text_metrics(processor, tmp_path):
    model, data, shapes = make_model(processor).eval(), encode(processor, 14), []

    def compute_metrics(prediction):
        shapes[:] = prediction.predictions.shape, prediction.label_ids.shape
        return {"rows": len(prediction.predictions)}

    trainer = make_trainer(
        model,
        processor,
        tmp_path,
        train=data,
        per_device_eval_batch_size=4,
        predict_with_generate=True,
        generation_max_length=7,
        compute_metrics=compute_metrics,
    )
    metrics = trainer.evaluate()
    with torch.no_grad():
        logits = model(**CrossTaskCollator(processor)(list(data))).answerability_logits
    labels = np.array(data["answerable"])
    counted = labels != -100
    probabilities = logits.softmax(-1)[:, 1].numpy()
    expected = roc_auc_score(labels[counted], probabilities[counted])
    assert metrics["eval_answerability_auroc"] == pytest.approx(expected)
    accuracy = np.mean((probabilities > 0.5)[counted] == labels[counted])
    assert metrics["eval_answerability_accuracy"] == pytest.approx(accuracy)
    assert metrics["eval_rows"] == 14
    assert shapes[0][0] == shapes[1][0] == 14


def test_rows_without_labels_can_be_evaluated(processor, tmp_path):
    data = encode(processor, 4).remove_columns("answerable")
    metrics = make_trainer(make_model(processor), processor, tmp_path, train=data).evaluate()
    assert math.isfinite(metrics["eval_loss"])
    assert "eval_answerability_auroc" not in metrics


def test_gradient_accumulation_does_not_change_the_loss_of_a_summarizer(processor, tmp_path):
    losses = []
    for size, accumulated in ((8, 1), (2, 4)):
        torch.manual_seed(0)
        trainer = make_trainer(
            T5ForConditionalGeneration(make_part_config(processor)),
            processor,
            tmp_path,
            max_steps=3,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=accumulated,
        )
        trainer.train()
        losses.append(get_logged(trainer))
        assert not get_logged(trainer, "summary_loss")
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_label_smoothing_changes_the_summary_loss_only(processor, tmp_path):
    unsmoothed, smoothed = (
        make_trainer(make_model(processor), processor, tmp_path, label_smoothing_factor=factor)
        for factor in (0.0, 0.3)
    )
    unsmoothed.train(), smoothed.train()
    assert get_logged(smoothed, "summary_loss")[0] != pytest.approx(
        get_logged(unsmoothed, "summary_loss")[0], rel=1e-3
    )
    assert get_logged(smoothed, "answerability_loss") == pytest.approx(
        get_logged(unsmoothed, "answerability_loss")
    )


def test_a_loss_that_is_not_finite_ends_the_training_before_the_step(processor, tmp_path):
    model = make_model(processor)
    trainer = make_trainer(model, processor, tmp_path, max_steps=3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        model.answerability_head.classifier.bias.fill_(math.nan)
    with pytest.raises(NonFiniteLossError, match="at step 1"):
        trainer.train()
    for name, value in model.state_dict().items():
        if name != "answerability_head.classifier.bias":
            torch.testing.assert_close(value, before[name], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("fp16", "remedy"), [(False, "rate, or check"), (True, "rate, bf16 instead of fp16, or")]
)
def test_only_a_run_in_fp16_is_told_of_bf16(processor, tmp_path, fp16, remedy):
    trainer = make_trainer(make_model(processor), processor, tmp_path)
    trainer.args.fp16 = fp16
    with torch.no_grad():
        trainer.model.answerability_head.classifier.bias.fill_(math.nan)
    with pytest.raises(NonFiniteLossError, match=f"try a lower learning {remedy}"):
        trainer.check_weights()


def test_float16_weights_are_trained_and_saved_in_float32(processor, tmp_path):
    model = make_model(processor).half()
    trainer = make_trainer(model, processor, tmp_path)
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    assert {weight.dtype for weight in load_file(tmp_path / "saved" / "model.safetensors").values()} == {
        torch.float32
    }
    assert "float16" not in (tmp_path / "saved" / "config.json").read_text()


@pytest.mark.parametrize("strategy", ["every_save", "checkpoint", "end"])
def test_a_push_has_the_model_its_code_and_processor_only(hub, alice, processor, tmp_path, strategy):
    folder = tmp_path / "pushed"
    settings = {"push_to_hub": True, "hub_model_id": "alice/pushed", "hub_strategy": strategy}
    model = make_model(processor)
    trainer = make_trainer(
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
    titles = [commit.title for commit in hub.commits("alice/pushed")]
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
    pushed = CrossTaskForConditionalGeneration.from_pretrained("alice/pushed")
    assert all(torch.equal(pushed.state_dict()[name], value) for name, value in model.state_dict().items())
    assert CrossTaskProcessor.from_pretrained("alice/pushed").max_source_length == 64


def test_a_trainer_without_push_to_hub_can_push_after_training(hub, alice, processor, tmp_path):
    trainer = make_trainer(make_model(processor), processor, tmp_path / "later", encode(processor))
    trainer.train()
    trainer.push_to_hub(private=True)
    assert hub.repo("alice/later").private and "model.safetensors" in hub.files("alice/later")


def test_a_push_has_the_question_tokenizer_and_deletes_old_weights(hub, alice, processor, tmp_path):
    both = CrossTaskProcessor(processor.tokenizer, processor.tokenizer, max_source_length=64)
    folder = tmp_path / "both"
    trainer = make_trainer(make_model(processor), both, folder, encode(processor))
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "other.model").write_text("x")
    trainer.push_to_hub()
    files = hub.files("alice/both")
    assert "question_tokenizer/tokenizer.json" in files and "data/other.model" not in files
    assert CrossTaskProcessor.from_pretrained("alice/both").question_tokenizer is not None
    trainer.model.save_pretrained(folder, max_shard_size="20KB")
    trainer.save_model = lambda **_: None  # keeps the shards, as for a larger model
    trainer.push_to_hub()
    assert "model.safetensors" not in hub.files("alice/both")
    assert "model.safetensors.index.json" in hub.files("alice/both")
    CrossTaskForConditionalGeneration.from_pretrained("alice/both")


@pytest.mark.parametrize("optim", ["adamw_torch", "adafactor"])
def test_fusion_learning_rate_applies_to_the_fusion_only(processor, tmp_path, optim):
    def trained(fusion_learning_rate, fusion="gated"):
        model = make_model(processor, fusion=fusion)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        settings = {"optim": optim, "learning_rate": 1e-3, "fusion_learning_rate": fusion_learning_rate}
        trainer = make_trainer(model, processor, tmp_path, **settings)
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


def test_a_second_training_keeps_the_parameter_groups(processor, tmp_path):
    settings = {"optim": "adamw_torch", "fusion_learning_rate": 1e-1, "learning_rate": 1e-3}
    trainer = make_trainer(make_model(processor, fusion="gated"), processor, tmp_path, **settings)
    groups = []
    for _ in range(3):
        trainer.train()
        groups.append([(len(group["params"]), group["lr"]) for group in trainer.optimizer.param_groups])
    assert groups[0] == groups[1] == groups[2]
    assert {rate for _, rate in groups[0]} == {1e-1, 1e-3} and all(count for count, _ in groups[0])


def test_a_fusion_that_is_trained_alone_leaves_no_empty_groups(processor, tmp_path):
    model = make_model(processor, fusion="gated").requires_grad_(False)
    model.answerability_head.requires_grad_(True), model.gated_cross_attention.requires_grad_(True)
    trainer = make_trainer(model, processor, tmp_path, optim="adamw_torch", fusion_learning_rate=1e-1)
    trainer.train()
    groups = trainer.optimizer.param_groups
    assert all(group["params"] and group["lr"] == 1e-1 for group in groups)
    assert get_logged(trainer, "learning_rate") == [1e-1]


@pytest.mark.parametrize("scheduled", [False, True])
def test_fusion_learning_rate_beside_an_optimizer_raises(processor, tmp_path, scheduled):
    model = make_model(processor)
    optimizer = torch.optim.AdamW(model.parameters())
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0) if scheduled else None
    arguments = Seq2SeqTrainingArguments(str(tmp_path), use_cpu=True, report_to="none")
    settings = {"model": model, "args": arguments, "optimizers": (optimizer, scheduler)}
    with pytest.raises(ValueError, match="^fusion_learning_rate: expected no optimizer .* got AdamW$"):
        CrossTaskTrainer(**settings, fusion_learning_rate=1e-3)
    CrossTaskTrainer(**settings)


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf, "0.3", True, None])
@pytest.mark.parametrize("name", ["contrastive_weight", "fusion_learning_rate"])
def test_an_invalid_weight_or_rate_raises(processor, tmp_path, name, value):
    if (name, value) == ("fusion_learning_rate", None):
        return  # None is valid: the rate of the other parameters
    with pytest.raises(
        ValueError, match=f"^`{name}` has to be a finite number of 0 or more, got {value!r}.$"
    ):
        make_trainer(make_model(processor), processor, tmp_path, **{name: value})


def test_gates_open_in_training_and_are_logged(processor, tmp_path):
    model = make_model(processor, fusion="gated")
    trainer = make_trainer(model, processor, tmp_path, optim="adamw_torch", learning_rate=1e-2, max_steps=3)
    trainer.train()
    for number, name in enumerate(("gate_attention", "gate_feed_forward")):
        opening = get_logged(trainer, name)
        assert len(opening) == 3 and opening[-1] != 0
        assert opening[-1] == pytest.approx(model.gated_cross_attention.gates.tanh()[number].item(), abs=1e-6)
    ungated = make_trainer(make_model(processor), processor, tmp_path)
    ungated.train()
    assert not get_logged(ungated, "gate_attention")


def make_contrasts(processor):
    """Return eight rows encoded, four of them with one contrast, then contrasts, texts and labels."""
    rows = {
        "passage": [TEXTS[0]] * 2 + [TEXTS[1]] * 2 + [f"{TEXTS[0]} {n}" for n in range(4)],
        "question": ["who ?", "when ?", "how long ?", "what ?", *["who ?"] * 4],
        "summary": ["bridge", "on May 3", "two days", "rain fell for days", *["bridge"] * 4],
    }
    answerable = [1, 1, 1, 0, 1, -100, 0, 1]
    encoded = processor(**rows, answerable=answerable)
    encoded_rows = [dict(zip(encoded, values, strict=True)) for values in zip(*encoded.values(), strict=True)]
    data = Dataset.from_list([row | {ROW_INDEX_COLUMN: index} for index, row in enumerate(encoded_rows)])
    return data, Contrasts(rows, encoded_rows), rows, answerable


@pytest.mark.parametrize("summary_loss_on", ["all", "answerable"])
@pytest.mark.parametrize("is_fused", [True, False])
def test_the_contrastive_loss_equals_its_definition(processor, tmp_path, summary_loss_on, is_fused):
    data, contrasts, rows, answerable = make_contrasts(processor)

    def build():
        if is_fused:
            return make_model(processor, summary_loss_on=summary_loss_on, fusion="gated")
        torch.manual_seed(0)
        return T5ForConditionalGeneration(make_part_config(processor))

    if not is_fused:
        data = data.remove_columns("answerable")
    model, losses = build().eval(), []
    for index, other in ((0, 1), (1, 0), (2, 3), (3, 2)):
        if summary_loss_on == "answerable" and is_fused and answerable[index] != 1:
            continue
        likelihoods = []
        for question in (rows["question"][index], rows["question"][other]):
            texts = {
                "question": question,
                "passage": rows["passage"][index],
                "summary": rows["summary"][index],
            }
            inputs = processor(**{name: [text] for name, text in texts.items()}, return_tensors="pt")
            likelihoods.append(-model(**inputs).loss * (inputs["labels"] != -100).sum())
        losses.append(-torch.nn.functional.logsigmoid(likelihoods[0] - likelihoods[1]).item())
    expected = np.mean(losses)
    weights, total_losses = [], []
    for size, accumulated in ((8, 1), (2, 4)):
        model = build()
        trainer = make_trainer(
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
        total_losses.append(get_logged(trainer)[0])
        assert get_logged(trainer, "contrastive_loss")[0] == pytest.approx(expected, rel=1e-4)
        if not is_fused:
            assert not get_logged(trainer, "summary_loss")
        else:
            parts = [get_logged(trainer, name)[0] for name in ("summary_loss", "answerability_loss")]
            assert total_losses[-1] == pytest.approx(sum(parts) + 0.3 * expected, rel=1e-4)
    assert total_losses[0] == pytest.approx(total_losses[1], rel=1e-4)
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], rtol=1e-4, atol=1e-6)


def test_evaluation_has_no_contrastive_loss(processor, tmp_path):
    data, contrasts, _, _ = make_contrasts(processor)
    settings = {"contrasts": contrasts, "contrastive_weight": 0.3, "remove_unused_columns": False}
    for generate in (False, True):
        trainer = make_trainer(
            make_model(processor), processor, tmp_path, train=data, predict_with_generate=generate, **settings
        )
        metrics = trainer.evaluate()
        parts = metrics["eval_summary_loss"] + metrics["eval_answerability_loss"]
        assert metrics["eval_loss"] == pytest.approx(parts, rel=1e-5)


def test_contrasts_get_the_epoch_in_a_resumed_run_too(processor, tmp_path):
    data, contrasts, _, _ = make_contrasts(processor)
    epochs = []
    contrasts.set_epoch = epochs.append
    settings = {"contrasts": contrasts, "contrastive_weight": 0.3, "remove_unused_columns": False}
    settings |= {"per_device_train_batch_size": 2, "max_steps": 10, "save_strategy": "steps", "save_steps": 2}
    make_trainer(make_model(processor), processor, tmp_path, train=data, **settings).train()
    assert epochs == [0, 1, 2]
    for checkpoint, expected in ((2, [0, 1, 2]), (4, [1, 2]), (6, [1, 2])):
        epochs.clear()
        trainer = make_trainer(make_model(processor), processor, tmp_path, train=data, **settings)
        trainer.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{checkpoint}"))
        assert epochs == expected, checkpoint


class Stream(IterableDataset):
    """Rows that can be read only once."""

    def __init__(self, rows):
        self.rows = iter(list(rows))

    def __iter__(self):
        return self.rows


def test_contrasts_get_the_epochs_of_data_without_a_length(processor, tmp_path):
    data, contrasts, _, _ = make_contrasts(processor)
    epochs = []
    contrasts.set_epoch = epochs.append
    settings = {"contrasts": contrasts, "contrastive_weight": 0.3, "remove_unused_columns": False}
    settings |= {"train": data.to_iterable_dataset(), "max_steps": 4}
    trainer = make_trainer(make_model(processor), processor, tmp_path, **settings)
    trainer.train()
    assert epochs == [0, 1, 2, 3]
    epochs.clear()
    trainer.train()
    assert epochs == [0, 1, 2, 3]


def test_training_on_a_stream_reads_every_row(processor, tmp_path):
    data, contrasts, _, _ = make_contrasts(processor)
    settings = {"contrasts": contrasts, "contrastive_weight": 0.3, "remove_unused_columns": False}
    losses = []
    for rows in (data, Stream(data)):
        trainer = make_trainer(make_model(processor), processor, tmp_path, train=rows, **settings)
        trainer.train()
        losses.append(get_logged(trainer))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    trainer = make_trainer(
        make_model(processor),
        processor,
        tmp_path,
        train=Stream(data.remove_columns(ROW_INDEX_COLUMN)),
        **settings,
    )
    with pytest.raises(
        ValueError, match="^contrastive_weight: expected training rows with 'row_index', got a batch"
    ):
        trainer.train()


MISSING_CONTRASTS = {
    "collator": (
        {"contrasts": None},
        "a CrossTaskCollator with `contrasts`, got a CrossTaskCollator without",
    ),
    "columns": (
        {"remove_unused_columns": True},
        "remove_unused_columns=False, as True removes 'row_index'",
    ),
    "rows": ({"train": []}, "training rows with 'row_index', got none"),
}


@pytest.mark.parametrize(("settings", "words"), MISSING_CONTRASTS.values(), ids=MISSING_CONTRASTS)
def test_a_weight_without_contrasts_raises(processor, tmp_path, settings, words):
    data, contrasts, _, _ = make_contrasts(processor)
    right = {"train": data, "contrasts": contrasts, "remove_unused_columns": False}
    with pytest.raises(ValueError, match=f"^contrastive_weight: expected {words}"):
        make_trainer(make_model(processor), processor, tmp_path, contrastive_weight=0.3, **right | settings)


def test_a_weight_with_rows_without_index_raises(processor, tmp_path):
    data, contrasts, _, _ = make_contrasts(processor)
    settings = {"contrasts": contrasts, "contrastive_weight": 0.3, "remove_unused_columns": False}
    with pytest.raises(
        ValueError, match="^contrastive_weight: expected training rows with 'row_index', got .*labels"
    ):
        make_trainer(
            make_model(processor),
            processor,
            tmp_path,
            train=data.remove_columns(ROW_INDEX_COLUMN),
            **settings,
        )


def count_calls(module):
    """Return a list that grows by one with each forward pass of a module."""
    calls = []
    module.register_forward_hook(lambda *_: calls.append(1))
    return calls


@pytest.mark.parametrize("own_tokenizer", [False, True])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_contrast_runs_the_question_encoder_only_with_gates(
    processor, tmp_path, monkeypatch, fusion, own_tokenizer
):
    tokenizer = processor.tokenizer
    both = CrossTaskProcessor(tokenizer, tokenizer if own_tokenizer else None, max_source_length=64)
    data, contrasts, _, _ = make_contrasts(both)
    model = make_model(processor, fusion=fusion)
    settings = {"train": data, "contrasts": contrasts, "contrastive_weight": 0.3}
    trainer = make_trainer(model, both, tmp_path, **settings, remove_unused_columns=False)
    batch = trainer.data_collator(list(data))
    passes, question_passes, inputs = count_calls(model), count_calls(model.question_encoder), []
    forward = model.forward
    monkeypatch.setattr(model, "forward", lambda **kwargs: inputs.append(kwargs) or forward(**kwargs))
    trainer.compute_loss(model, batch)
    assert len(passes) == 2 and len(question_passes) == (2 if fusion == "gated" else 1)
    assert "labels" in inputs[0] and "labels" not in inputs[1]


def test_a_summarizer_that_shifts_its_labels_itself_has_a_contrastive_loss(processor, tmp_path):
    torch.manual_seed(0)
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "vocab_size": len(processor.tokenizer)}
    sizes |= {f"{part}_attention_heads": 4 for part in ("encoder", "decoder")}
    sizes |= {f"{part}_ffn_dim": 32 for part in ("encoder", "decoder")}
    model = M2M100ForConditionalGeneration(M2M100Config(**sizes, pad_token_id=0, decoder_start_token_id=2))
    data, contrasts, _, _ = make_contrasts(processor)
    settings = {"contrasts": contrasts, "contrastive_weight": 0.3, "remove_unused_columns": False}
    trainer = make_trainer(model, processor, tmp_path, train=data.remove_columns("answerable"), **settings)
    trainer.train()
    assert get_logged(trainer, "contrastive_loss")[0] > 0


@pytest.mark.parametrize("kwargs", [None, {"use_reentrant": True}, {"preserve_rng_state": True}])
def test_gradient_checkpointing_with_contrasts_is_not_reentrant_by_default(
    processor, tmp_path, monkeypatch, kwargs
):
    data, contrasts, _, _ = make_contrasts(processor)
    settings = {"train": data, "remove_unused_columns": False, "contrastive_weight": 0.3}
    settings |= {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": kwargs}
    used, checkpoint = [], torch.utils.checkpoint.checkpoint

    def spy(*args, use_reentrant, **kwargs):
        used.append(use_reentrant)
        return checkpoint(*args, use_reentrant=use_reentrant, **kwargs)

    for module in ("torch.utils.checkpoint", "transformers.modeling_utils"):
        monkeypatch.setattr(f"{module}.checkpoint", spy)
    trainer = make_trainer(make_model(processor), processor, tmp_path, contrasts=contrasts, **settings)
    trainer.train()
    assert used and set(used) == {bool(kwargs and kwargs.get("use_reentrant"))}
    # With several processes the reentrant kind would report each gradient twice.
    monkeypatch.setattr(Seq2SeqTrainingArguments, "world_size", 2)
    if kwargs and "use_reentrant" in kwargs:
        with pytest.raises(
            ValueError, match="^gradient_checkpointing_kwargs: expected use_reentrant to be Fa"
        ):
            disable_reentrant_checkpointing(trainer.args)
    else:
        disable_reentrant_checkpointing(trainer.args)


def test_without_a_weight_there_is_no_contrastive_loss(processor, tmp_path):
    data, contrasts, _, _ = make_contrasts(processor)
    trainer = make_trainer(
        make_model(processor),
        processor,
        tmp_path,
        train=data,
        contrasts=contrasts,
        remove_unused_columns=False,
    )
    trainer.train()
    assert not get_logged(trainer, "contrastive_loss")


def test_a_generation_length_above_the_positions_of_the_decoder_raises(processor, tmp_path):
    model = BartForConditionalGeneration(
        BartConfig(d_model=16, encoder_layers=1, decoder_layers=1, vocab_size=300, max_position_embeddings=32)
    )
    make_trainer(model, processor, tmp_path, generation_max_length=32)
    with pytest.raises(ValueError, match=r"generation_max_length: expected at most 32 .*, got 33"):
        make_trainer(model, processor, tmp_path, generation_max_length=33)


@pytest.mark.parametrize(
    ("labels", "weight", "expected"), [([-100], 1.0, False), ([-100, 0], 1.0, True), ([1], 0, False)]
)
def test_answerability_is_trained_once_a_labeled_row_was(processor, tmp_path, labels, weight, expected):
    model = make_model(processor, answerability_trained=False, answerability_weight=weight)
    rows = encode(processor, 8).map(
        lambda row, index: {"answerable": labels[index % len(labels)]}, with_indices=True
    )
    make_trainer(model, processor, tmp_path, rows, max_steps=2).train()
    assert model.config.answerability_trained is expected


def test_labels_before_a_resumption_count(processor, tmp_path):
    """The rows after the checkpoint have no labels."""
    model = make_model(processor, answerability_trained=False)
    data = encode(processor, count=8).remove_columns("answerable")
    labeled = data.add_column("answerable", [1, 0] * 4)
    make_trainer(model, processor, tmp_path, train=labeled, save_strategy="steps", save_steps=1).train()
    model = make_model(processor, answerability_trained=False)
    unlabeled = data.add_column("answerable", [-100] * 8)
    trainer = make_trainer(model, processor, tmp_path, train=unlabeled, max_steps=2)
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    assert model.config.answerability_trained
