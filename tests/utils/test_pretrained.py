"""Checkpoints are loaded safely, and inputs are batched by length."""

import pytest
import torch
from transformers import (
    AutoModelForSeq2SeqLM,
    BartForConditionalGeneration,
    BartForSequenceClassification,
    BertModel,
)

from crosstask.utils.errors import DataError
from crosstask.utils.pretrained import (
    batch_by_length,
    check_architecture,
    check_counts,
    load_checkpoint,
    make_non_finite_error,
)


@pytest.fixture
def bart_folder(make_part, tokenizer, tmp_path):
    """Return the folder of a tiny BART with a tokenizer."""
    BartForConditionalGeneration(make_part("bart", len(tokenizer))).save_pretrained(tmp_path / "bart")
    tokenizer.save_pretrained(tmp_path / "bart")
    return tmp_path / "bart"


def load(model, dtype="auto", device="cpu"):
    return load_checkpoint(AutoModelForSeq2SeqLM, model, dtype, device, "teacher")


def test_a_checkpoint_is_loaded_for_evaluation_in_the_dtype_asked_for(bart_folder):
    model, tokenizer = load(bart_folder, "bfloat16")
    assert not model.training and model.dtype == torch.bfloat16 and model.device.type == "cpu"
    assert tokenizer("The mayor")["input_ids"]


def test_a_loaded_model_keeps_its_dtype(bart_folder):
    model, tokenizer = load(bart_folder)
    model.double()
    assert load((model, tokenizer))[0] is model and model.dtype == torch.float64


def test_an_unusable_checkpoint_is_named(bart_folder, tmp_path):
    with pytest.raises(DataError, match="teacher: .*missing: no such folder"):
        load(tmp_path / "missing")
    with pytest.raises(DataError, match="teacher: dtype is 'int8', expected one of auto, float32"):
        load(bart_folder, "int8")
    with pytest.raises(DataError, match="teacher: .*bart cannot be moved to device 'cuda:99': "):
        load(bart_folder, device="cuda:99")
    (bart_folder / "model.safetensors").rename(bart_folder / "weights.safetensors")
    with pytest.raises(DataError, match="teacher: .*bart cannot be loaded: "):
        load(bart_folder)


def test_missing_weights_are_counted(bart_folder, tokenizer):
    model, _ = load(bart_folder)
    weights = {name: value for name, value in model.state_dict().items() if "decoder.layers.1" not in name}
    model.save_pretrained(bart_folder, state_dict=weights)
    with pytest.raises(DataError, match=r"lacks \d+ weights \(model\.decoder\.layers\.1\.[^)]* for one\)"):
        load(bart_folder)


def test_a_missing_tokenizer_is_named(bart_folder):
    for path in bart_folder.glob("token*"):
        path.unlink()
    with pytest.raises(DataError, match="teacher: .*bart"):
        load(bart_folder)


def test_a_checkpoint_of_another_class_is_refused(make_part):
    config = make_part("bart")
    check_architecture(AutoModelForSeq2SeqLM, config, "teacher")
    config.architectures = [BartForSequenceClassification.__name__]
    with pytest.raises(
        DataError, match="teacher: got a BartForSequenceClassification, expected a model of Auto"
    ):
        check_architecture(AutoModelForSeq2SeqLM, config, "teacher")
    with pytest.raises(DataError, match="teacher: got a BertConfig"):
        check_architecture(AutoModelForSeq2SeqLM, make_part("bert"), "teacher")


def test_counts_are_positive_integers():
    check_counts("teacher", batch_size=1, num_beams=None)
    for value in (0, -1, 2.0, True, "3"):
        with pytest.raises(DataError, match="teacher: batch_size is .*, expected a positive integer"):
            check_counts("teacher", batch_size=value)


def test_batches_are_sorted_by_length_whatever_the_order():
    lengths = {"a": 1, "b": 3, "c": 2, "d": 3, "e": 1}
    encoded = {key: {"input_ids": [0] * length} for key, length in lengths.items()}
    expected = [["d", "b"], ["c", "e"], ["a"]]
    assert list(batch_by_length(encoded, 2)) == expected
    assert list(batch_by_length(dict(reversed(encoded.items())), 2)) == expected
    assert list(batch_by_length({}, 2)) == []


def test_the_error_about_numbers_that_are_not_finite(make_part):
    error = make_non_finite_error(BertModel(make_part("bert")).half(), "judge")
    assert (
        str(error)
        == "judge: BertModel returns numbers that are not finite in float16, expected dtype float32"
    )
