"""Test the trainer's losses and metrics where rows lack a label, metrics are NaN, or rows are sorted."""

import math

import pytest
import transformers
from tiny_trainer import TEXTS, encode, get_logged, make_model, make_trainer

from crosstask import CrossTaskProcessor
from crosstask.data.tokenizer import train_tokenizer
from crosstask.training.trainer import UndefinedMetricError

# The names of one setting in transformers 5 and 4.
GROUP_BY_LENGTH = (
    {"group_by_length": True}
    if transformers.__version__.startswith("4.")
    else {"train_sampling_strategy": "group_by_length"}
)


@pytest.fixture(scope="module")
def processor():
    return CrossTaskProcessor(train_tokenizer(TEXTS, 300), max_source_length=64)


def test_label_smoothing_over_a_micro_batch_without_a_label(processor, tmp_path):
    """Of the rows of each micro-batch of two, some have no summary loss at all."""
    losses = []
    for settings in ({"per_device_train_batch_size": 2, "gradient_accumulation_steps": 8}, {}):
        model = make_model(processor, summary_loss_on="answerable")
        settings = {"label_smoothing_factor": 0.1, "per_device_train_batch_size": 16} | settings
        rows = encode(processor)
        trainer = make_trainer(model, processor, tmp_path, rows, **settings)
        trainer.train()
        losses.append(get_logged(trainer)[0])
        assert all(p.isfinite().all() for p in model.parameters())
        assert math.isfinite(trainer.evaluate()["eval_loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.parametrize("settings", [{}, GROUP_BY_LENGTH])
def test_metrics_get_the_rows_in_the_order_of_the_data(processor, tmp_path, settings):
    rows = encode(processor)
    seen = []

    def compute_metrics(prediction):
        seen.append(prediction)
        return {}

    model = make_model(processor)
    settings = {"predict_with_generate": True, "generation_max_length": 5, **settings}
    settings["per_device_eval_batch_size"] = 4
    trainer = make_trainer(model, processor, tmp_path, rows, compute_metrics=compute_metrics, **settings)
    trainer.evaluate()
    labels = [[label for label in row if label != -100] for row in seen[0].label_ids.tolist()]
    assert labels == list(rows["labels"])
    for index in (0, 1, 5):
        inputs = processor.pad([{k: rows[index][k] for k in ("input_ids", "attention_mask")}])
        expected = model.generate(**inputs, max_length=5)[0].tolist()
        assert seen[0].predictions[index].tolist()[: len(expected)] == expected


def test_nan_of_the_metric_that_chooses_the_best_checkpoint_is_an_error(processor, tmp_path):
    rows = encode(processor)
    rows = rows.remove_columns("answerable").add_column("answerable", [1] * len(rows))
    settings = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}
    settings |= {"load_best_model_at_end": True, "metric_for_best_model": "answerability_auroc"}
    trainer = make_trainer(make_model(processor), processor, tmp_path, rows, **settings)
    with pytest.raises(UndefinedMetricError, match="answerability_auroc is NaN at step 1, expected a number"):
        trainer.train()
