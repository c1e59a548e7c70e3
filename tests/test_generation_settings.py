"""Settings of generation: what a composed model inherits, and what a call replaces."""

import logging

import pytest
import torch
from transformers import BartForConditionalGeneration, GenerationConfig, T5ForConditionalGeneration

from crosstask import CrossTaskForConditionalGeneration
from crosstask.configuration_crosstask import DEFAULT_MAX_LENGTH, make_generation_config

IDS = torch.tensor([[5, 6, 7, 8, 9, 1], [9, 8, 7, 6, 5, 1]])
# Settings of a summarizer of news, as in facebook/bart-large-cnn.
NEWS = {"min_length": 56, "max_length": 142, "num_beams": 4, "no_repeat_ngram_size": 3}
NEWS |= {"length_penalty": 2.0, "early_stopping": True, "forced_eos_token_id": 50}


@pytest.fixture
def log(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("crosstask"), "propagate", True)
    return caplog


@pytest.fixture
def make_t5(make_part):
    def make(seed, **settings):
        torch.manual_seed(seed)
        model = T5ForConditionalGeneration(make_part("t5")).eval()
        model.generation_config.update(**settings)
        return model

    return make


def compose(*parts):
    return CrossTaskForConditionalGeneration.from_tasks(*parts, fusion_num_heads=4)


def test_lengths_beams_and_penalties_of_the_summarizer_are_dropped(make_t5, log):
    tokens = {"forced_bos_token_id": 7, "bad_words_ids": [[9]]}
    summarizer = make_t5(1, **NEWS, **tokens)
    config = compose(summarizer, make_t5(2)).generation_config
    assert all(getattr(config, name) != value for name, value in NEWS.items())
    assert {name: getattr(config, name) for name in tokens} == tokens
    for name in ("decoder_start_token_id", "eos_token_id", "pad_token_id"):
        assert getattr(config, name) == getattr(summarizer.generation_config, name)
    [line] = [record.getMessage() for record in log.records if "not inherited" in record.getMessage()]
    assert line.startswith("Generation settings of the summarizer are not inherited: ")
    assert set(line.partition(": ")[2].split(", ")) == {f"{name}={value!r}" for name, value in NEWS.items()}
    assert summarizer.generation_config.num_beams == 4


def test_a_composed_model_writes_like_a_summarizer_without_settings(make_t5):
    model = compose(make_t5(1, **NEWS), make_t5(2))
    expected = make_t5(1).generate(IDS, max_length=DEFAULT_MAX_LENGTH)
    assert torch.equal(model.generate(IDS), expected)


def test_the_end_of_a_cut_summary_is_forced_with_the_end_token_only(make_t5):
    for token, expected in ((1, 1), (2, None)):
        config = compose(make_t5(1, forced_eos_token_id=token), make_t5(2)).generation_config
        assert config.forced_eos_token_id == expected


def test_nothing_is_logged_if_nothing_is_dropped(make_t5, log):
    compose(make_t5(1), make_t5(2))
    assert "not inherited" not in log.text


def test_the_default_length_is_saved_and_loaded(make_t5, tmp_path):
    compose(make_t5(1, **NEWS), make_t5(2)).save_pretrained(tmp_path)
    assert GenerationConfig.from_pretrained(tmp_path).max_length == DEFAULT_MAX_LENGTH
    loaded = CrossTaskForConditionalGeneration.from_pretrained(tmp_path)
    assert (loaded.generation_config.max_length, loaded.generation_config.max_new_tokens) == (128, None)
    assert loaded.generation_config.num_beams in (None, 1)


def test_the_default_length_fits_the_decoder(make_part, make_t5):
    summarizer = BartForConditionalGeneration(make_part("bart", max_position_embeddings=40)).eval()
    model = compose(summarizer, make_t5(2))
    assert model.generation_config.max_length == make_generation_config(summarizer).max_length == 40
    assert model.generate(IDS, min_length=40).shape[1] == 40


@pytest.mark.parametrize("saved", [{"max_length": 9, "max_new_tokens": None}, {"max_new_tokens": 8}])
@pytest.mark.parametrize(
    ("length", "expected"), [({"max_new_tokens": 4}, 5), ({"max_length": 6}, 6), ({}, 9)]
)
def test_a_length_of_a_call_replaces_that_of_the_model(make_t5, log, monkeypatch, saved, length, expected):
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    model = compose(make_t5(1), make_t5(2))
    model.generation_config.update(**{"max_length": None} | saved, eos_token_id=None)
    assert model.generate(IDS, **length).shape[1] == expected
    assert "max_new_tokens" not in log.text
