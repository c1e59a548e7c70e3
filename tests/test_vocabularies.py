"""Test how the model decides whether its two parts read the same token ids."""

import copy
import json

import pytest
import torch
from transformers import BartForConditionalGeneration, RobertaModel, T5ForConditionalGeneration, pipeline

from crosstask import CrossTaskForConditionalGeneration, CrossTaskProcessor
from crosstask.data.tokenizer import train_tokenizer
from crosstask.pipeline_crosstask import PIPELINE_TASK

QUESTIONS = {"question": "Who opened the bridge?", "passage": "The mayor opened the old bridge on May 3."}


@pytest.fixture
def save_part(make_part, tmp_path):
    """Return `save_part(name, model_class, tokenizer, vocab_size)`, which saves a part with its tokenizer."""

    def save(name, model_class, tokenizer, vocab_size):
        torch.manual_seed(0)
        family = {BartForConditionalGeneration: "bart", RobertaModel: "roberta"}.get(model_class, "t5")
        model_class(make_part(family, vocab_size=vocab_size)).save_pretrained(tmp_path / name)
        if tokenizer is not None:
            tokenizer.save_pretrained(tmp_path / name)
        return tmp_path / name

    return save


def compose(*parts, **settings):
    return CrossTaskForConditionalGeneration.from_tasks(*parts, fusion_num_heads=4, **settings)


@pytest.mark.parametrize("sizes", [(-1, 0), (0, -1), (0, 7)])
def test_one_tokenizer_with_tables_of_different_sizes(save_part, tokenizer, sizes, tmp_path):
    """bart-large-cnn has a table of 50,264 rows without `<mask>`, and roberta-large one of 50,265."""
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.add_special_tokens({"mask_token": "<mask>"})
    sizes = [len(tokenizer) + size for size in sizes]
    summarizer = save_part("s", BartForConditionalGeneration, tokenizer, sizes[0])
    question_encoder = save_part("q", RobertaModel, tokenizer, sizes[1])
    model = compose(summarizer, question_encoder)
    assert model.config.shares_vocabulary
    inputs = CrossTaskProcessor(tokenizer)(**QUESTIONS, summary="Rain fell.", return_tensors="pt")
    model(**inputs).loss.backward()

    model.save_pretrained(tmp_path / "model")
    assert json.loads((tmp_path / "model" / "config.json").read_text())["shares_vocabulary"] is True
    loaded = CrossTaskForConditionalGeneration.from_pretrained(tmp_path / "model")
    with torch.no_grad():
        assert torch.equal(loaded(**inputs).logits, model.eval()(**inputs).logits)


def test_two_tokenizers_with_tables_of_one_size(save_part, tokenizer, tmp_path):
    other = train_tokenizer(("Los perros duermen mucho.", "El gato come.") * 3, len(tokenizer))
    summarizer = save_part("s", T5ForConditionalGeneration, tokenizer, 300)
    model = compose(summarizer, save_part("q", RobertaModel, other, 300))
    assert not model.config.shares_vocabulary
    inputs = CrossTaskProcessor(tokenizer)(**QUESTIONS, return_tensors="pt")
    with pytest.raises(ValueError, match="`question_input_ids` are needed"):
        model(**inputs, decoder_input_ids=inputs["input_ids"])
    model.save_pretrained(tmp_path / "model")
    assert not CrossTaskForConditionalGeneration.from_pretrained(tmp_path / "model").config.shares_vocabulary


def test_sizes_decide_only_without_tokenizers(save_part, tokenizer):
    same = save_part("s", T5ForConditionalGeneration, None, 99), save_part("q", RobertaModel, None, 99)
    assert compose(*same).config.shares_vocabulary
    assert not compose(*same, shares_vocabulary=False).config.shares_vocabulary
    other = save_part("o", RobertaModel, None, 98)
    assert not compose(same[0], other).config.shares_vocabulary
    assert compose(same[0], other, shares_vocabulary=True).config.shares_vocabulary


def test_tokenizer_of_a_loaded_model_is_found(save_part, tokenizer):
    folders = (
        save_part("s", T5ForConditionalGeneration, tokenizer, 300),
        save_part("q", RobertaModel, tokenizer, 310),
    )
    model = compose(
        T5ForConditionalGeneration.from_pretrained(folders[0]), RobertaModel.from_pretrained(folders[1])
    )
    assert model.config.shares_vocabulary


def test_table_without_a_row_for_each_token_is_refused(save_part, tokenizer):
    summarizer = save_part("s", T5ForConditionalGeneration, tokenizer, len(tokenizer))
    question_encoder = save_part("q", RobertaModel, tokenizer, 50)
    with pytest.raises(
        ValueError, match="the question encoder's embeddings have 50 rows, and its tokenizer ids"
    ):
        compose(summarizer, question_encoder)


@pytest.mark.parametrize("is_shared", [True, False])
def test_from_tasks_to_a_pipeline(save_part, tokenizer, tmp_path, is_shared):
    other = tokenizer if is_shared else train_tokenizer(("Los perros duermen mucho.",) * 3, len(tokenizer))
    parts = [
        save_part("s", BartForConditionalGeneration, tokenizer, len(tokenizer)),
        save_part("q", RobertaModel, other, len(other)),
    ]
    model = compose(*parts)
    processor = CrossTaskProcessor.from_tasks(*parts, max_source_length=60, prompt="{question}")
    assert (processor.question_tokenizer is None) is is_shared is model.config.shares_vocabulary
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    result = pipeline(PIPELINE_TASK, model=str(tmp_path / "model"))(**QUESTIONS, max_new_tokens=5)
    assert isinstance(result["summary"], str) and result["answerability"] is None
