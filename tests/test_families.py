"""Test the families of summarizers, and that the table of them in the docs is current."""

import re
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForSeq2SeqLM,
    BertConfig,
    BertModel,
    EncoderDecoderConfig,
    EncoderDecoderModel,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES

from crosstask import CrossTaskForConditionalGeneration
from crosstask.benchmarks import families

PAGE = Path(families.__file__).parents[1] / "docs" / "families.md"
AUDIO = re.compile("audio|asr|speech|voxtral|transcribe|music", re.IGNORECASE)


def test_table_has_every_text_family_of_transformers():
    names = MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES
    text = {name for name, class_name in names.items() if not AUDIO.search(name + class_name)}
    rows = re.findall(r"^\| `([\w-]+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert text - set(families.FAMILIES) <= {"xlm-prophetnet"}
    assert [row for row in rows if row != "model_type"] == list(families.FAMILIES)


@pytest.mark.parametrize("family", ["bart", "encoder-decoder", "fsmt", "prophetnet", "switch_transformers"])
def test_table_of_families_is_current(family):
    row = families.format_row(family, families.try_family(family))
    assert row in PAGE.read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("family", ["fsmt", "prophetnet"])
def test_family_that_cannot_be_fused_is_refused_in_one_sentence(family):
    summarizer = AutoModelForSeq2SeqLM.from_config(families.make_config(family))
    with pytest.raises(ValueError, match=rf"^`summarizer`: a '{family}' cannot be fused, because [^.]+\.$"):
        families.compose(summarizer)


def make_bert2bert(encoder_size=99, decoder_size=99):
    parts = (BertConfig(**families.BERT, vocab_size=size) for size in (encoder_size, decoder_size))
    config = EncoderDecoderConfig.from_encoder_decoder_configs(*parts)
    config.pad_token_id, config.decoder_start_token_id, config.eos_token_id = 0, 2, 1
    torch.manual_seed(0)
    return EncoderDecoderModel(config).eval()


def test_encoder_decoder_as_question_answerer_contributes_its_encoder(tmp_path):
    bert2bert = make_bert2bert()
    model = CrossTaskForConditionalGeneration.from_tasks(bert2bert, bert2bert, fusion_num_heads=4)
    assert isinstance(model.question_encoder, BertModel) and model.config.shares_vocabulary
    ids = torch.arange(5, 13)[None]
    model.save_pretrained(tmp_path)
    loaded = CrossTaskForConditionalGeneration.from_pretrained(tmp_path)
    with torch.no_grad():
        output, again = model(ids, labels=ids), loaded(ids, labels=ids)
    assert torch.equal(output.question_encoder_last_hidden_state, bert2bert.encoder(ids)[0])
    assert torch.equal(output.answerability_logits, again.answerability_logits)


def test_resizing_the_embeddings_of_an_encoder_decoder():
    bert2bert = make_bert2bert()
    model = CrossTaskForConditionalGeneration.from_tasks(bert2bert, bert2bert, fusion_num_heads=4)
    model.resize_token_embeddings(120)
    ids = torch.tensor([[5, 119, 6]])
    assert model(ids, labels=ids).logits.shape == (1, 3, 120)
    assert model.config.vocab_size == 120 and model.config.question_encoder.vocab_size == 120


def test_encoder_decoder_of_two_vocabularies_is_refused():
    with pytest.raises(ValueError, match="it reads a vocabulary of 99 and writes one of 98"):
        families.compose(make_bert2bert(99, 98))
