"""Test the configuration: defaults, checks, parts, saving and loading."""

import copy
import json
import math
import pickle

import pytest
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSeq2SeqLM,
    BartConfig,
    BertConfig,
    DebertaV2Config,
    EncoderDecoderConfig,
    LEDConfig,
    MPNetConfig,
    PegasusConfig,
    RobertaConfig,
    T5Config,
    XLNetConfig,
)

from crosstask import CrossTaskConfig
from crosstask.configuration_crosstask import get_max_lengths, get_max_positions


def test_defaults():
    config = CrossTaskConfig()
    assert (config.summarizer, config.question_encoder, config.fusion) == (None, None, "classifier")
    assert (config.fusion_num_heads, config.fusion_dim, config.fusion_ffn_dim) == (8, None, None)
    assert (config.fusion_dropout, config.answerability_weight, config.summary_loss_on) == (0.1, 1.0, "all")
    assert (config.prompt, config.max_source_length) == ("question: {question} passage:", 1024)
    assert config.model_type == "crosstask" and config.is_encoder_decoder


@pytest.mark.parametrize("name", ["vocab_size", "hidden_size", "num_attention_heads", "num_hidden_layers"])
def test_sizes_need_a_summarizer(name):
    assert not hasattr(CrossTaskConfig(), name)


def test_sizes_are_the_summarizers(make_part):
    config = CrossTaskConfig(make_part("bart"), make_part("bert"), fusion_num_heads=4)
    assert (config.vocab_size, config.hidden_size) == (99, 32)
    assert (config.num_attention_heads, config.num_hidden_layers) == (4, 2)


@pytest.mark.parametrize(
    ("question_encoder", "width"), [("t5", 32), ("bart", 32), ("t5gemma", 32), ("bert", 24)]
)
def test_fusion_width_defaults_to_the_question_encoders(make_part, question_encoder, width):
    config = CrossTaskConfig(make_part("t5"), make_part(question_encoder), fusion_num_heads=4)
    assert (config.fusion_dim, config.fusion_ffn_dim) == (width, 4 * width)


def test_fusion_sizes_can_be_set(make_part):
    config = CrossTaskConfig(make_part("t5"), make_part("bert"), fusion_dim=16, fusion_ffn_dim=5)
    assert (config.fusion_dim, config.fusion_ffn_dim) == (16, 5)


@pytest.mark.parametrize("family", ["t5", "bart", "pegasus", "led"])
def test_token_ids_are_the_summarizers(make_part, family):
    summarizer = make_part(family)
    config = CrossTaskConfig(summarizer, make_part("bert"), fusion_num_heads=4)
    for name in ("eos_token_id", "pad_token_id", "decoder_start_token_id", "bos_token_id"):
        assert getattr(config, name, None) == getattr(summarizer, name, None)


def test_decoder_start_token_of_t5gemma_is_bos(make_part):
    assert (
        CrossTaskConfig(make_part("t5gemma"), make_part("t5"), fusion_num_heads=4).decoder_start_token_id == 2
    )


def test_token_ids_can_be_set(make_part):
    config = CrossTaskConfig(make_part("t5"), make_part("t5"), fusion_num_heads=4, decoder_start_token_id=5)
    assert config.decoder_start_token_id == 5


def test_parts_are_copied(make_part):
    shared = make_part("t5")
    before = shared.to_dict()
    config = CrossTaskConfig(shared, shared, fusion_num_heads=4)
    config.summarizer.d_model = 5
    assert config.question_encoder.d_model == shared.d_model == 32
    assert shared.to_dict() == before
    nested = {"model_type": "t5", "d_model": 16, "task_specific_params": {"x": [1]}}
    expected = copy.deepcopy(nested)
    CrossTaskConfig(nested, nested)
    assert nested == expected


def test_parts_as_dicts(make_part):
    config = CrossTaskConfig(make_part("t5").to_dict(), make_part("bert").to_dict(), fusion_num_heads=4)
    assert isinstance(config.summarizer, T5Config) and config.question_encoder.hidden_size == 24


@pytest.mark.parametrize("family", ["t5", "bart", "t5gemma", "led"])
def test_configuration_is_saved_and_loaded(make_part, family, tmp_path):
    config = CrossTaskConfig(
        make_part(family),
        make_part("bert"),
        fusion_num_heads=3,
        fusion_dropout=0.2,
        answerability_weight=0.5,
        summary_loss_on="answerable",
        prompt="Q {question}",
        max_source_length=77,
    )
    config.save_pretrained(tmp_path)
    copies = (
        CrossTaskConfig.from_pretrained(tmp_path),
        AutoConfig.from_pretrained(tmp_path),
        CrossTaskConfig.from_dict(config.to_dict()),
        CrossTaskConfig.from_dict(json.loads(config.to_json_string(use_diff=False))),
        copy.deepcopy(config),
        pickle.loads(pickle.dumps(config)),
    )

    def get_settings(config):  # without the path that it was loaded from
        values = json.loads(config.to_json_string(use_diff=False))
        return {k: v for k, v in values.items() if k not in ("_name_or_path", "transformers_version")}

    for other in copies:
        assert type(other) is CrossTaskConfig
        assert get_settings(other) == get_settings(config)
    # The file has the differences from the defaults only, and complete parts.
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["summarizer"]["model_type"] == config.summarizer.model_type


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fusion": "other"}, "`fusion` has to be one of .*'other'"),
        ({"summary_loss_on": "none"}, "`summary_loss_on` has to be one of .*'none'"),
        ({"fusion_num_heads": 5}, "`fusion_num_heads` has to divide `fusion_dim`, got 5 heads .* 32"),
        ({"fusion_num_heads": 0}, "`fusion_num_heads` has to be an integer of 1 or more, got 0"),
        ({"fusion_dim": -8}, "`fusion_dim` has to be an integer of 1 or more, got -8"),
        ({"max_source_length": 0}, "`max_source_length` has to be an integer of 1 or more, got 0"),
        ({"fusion_num_heads": "4"}, "`fusion_num_heads` has to be an integer of 1 or more, got '4'"),
        ({"fusion_ffn_dim": 4.0}, "`fusion_ffn_dim` has to be an integer of 1 or more, got 4.0"),
        ({"max_source_length": True}, "`max_source_length` has to be an integer of 1 or more, got True"),
        ({"fusion_dropout": 1.0}, "`fusion_dropout` has to be at least 0 and below 1, got 1.0"),
        ({"fusion_dropout": -0.1}, "`fusion_dropout`"),
        ({"fusion_dropout": "0.1"}, "`fusion_dropout` has to be at least 0 and below 1, got '0.1'"),
        ({"fusion_dropout": float("nan")}, "`fusion_dropout` has to be at least 0 and below 1, got nan"),
        ({"fusion_activation": "swiglu2"}, "`fusion_activation` has to be one of .*gelu,.* got 'swiglu2'"),
        ({"fusion_activation": ["gelu"]}, r"`fusion_activation` has to be one of .* got \['gelu'\]"),
        (
            {"answerability_weight": -1},
            "`answerability_weight` has to be a finite number of 0 or more, got -1",
        ),
        ({"answerability_weight": float("nan")}, "`answerability_weight` has to be a finite .*, got nan"),
        ({"answerability_weight": float("inf")}, "`answerability_weight` has to be a finite .*, got inf"),
        ({"answerability_weight": "1"}, "`answerability_weight` has to be a finite number .*, got '1'"),
        ({"answerability_weight": None}, "`answerability_weight` has to be a finite number .*, got None"),
        ({"prompt": "question:"}, "`prompt` has to contain {question}, got 'question:'"),
        ({"prompt": None}, "`prompt` has to contain {question}, got None"),
    ],
)
def test_values_out_of_range_are_rejected(make_part, settings, message):
    with pytest.raises(ValueError, match=message):
        CrossTaskConfig(make_part("t5"), make_part("t5"), **settings)


def test_parts_of_a_wrong_type_are_rejected(make_part):
    with pytest.raises(ValueError, match="`summarizer` has to be a sequence-to-sequence model .* 'bert'"):
        CrossTaskConfig(make_part("bert"), make_part("t5"))
    with pytest.raises(TypeError, match="`question_encoder` has to be a configuration or a dict, got str"):
        CrossTaskConfig(make_part("t5"), "bert-base-uncased")
    with pytest.raises(ValueError, match="`summarizer` needs the key 'model_type'"):
        CrossTaskConfig({"d_model": 32}, make_part("t5"))


def test_vocabularies_of_one_size_are_shared(make_part):
    assert CrossTaskConfig(make_part("t5"), make_part("bert"), fusion_num_heads=4).shares_vocabulary
    config = CrossTaskConfig(make_part("t5"), make_part("bert", vocab_size=50), fusion_num_heads=4)
    assert not config.shares_vocabulary


def test_checkpoints_of_a_newer_format_are_refused(tmp_path):
    CrossTaskConfig().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config.pop("format_version") == 1
    (tmp_path / "config.json").write_text(json.dumps(config))
    CrossTaskConfig.from_pretrained(tmp_path)  # the first checkpoints had no version
    (tmp_path / "config.json").write_text(json.dumps(config | {"format_version": 2}))
    with pytest.raises(ValueError, match="of format version 2, and this crosstask reads 1: upgrade it, or"):
        CrossTaskConfig.from_pretrained(tmp_path)


@pytest.mark.parametrize("version", ["2", None, 0, True, 1.5])
def test_the_format_version_is_an_integer(version):
    with pytest.raises(ValueError, match="`format_version` has to be an integer from 1, got"):
        CrossTaskConfig(format_version=version)


@pytest.mark.parametrize("summarizer", ["t5", "bart", "t5gemma"])
def test_setting_the_vocabulary_size_sets_it_in_the_parts_that_share_it(make_part, summarizer):
    config = CrossTaskConfig(make_part(summarizer), make_part("t5gemma"), fusion_num_heads=4)
    config.vocab_size = 12
    assert config.vocab_size == config.get_text_config().vocab_size == config.summarizer.vocab_size == 12
    assert config.question_encoder.vocab_size == config.question_encoder.encoder.vocab_size == 12
    config = CrossTaskConfig(make_part(summarizer), make_part("bert", vocab_size=50), fusion_num_heads=4)
    config.vocab_size = 12
    assert config.vocab_size == 12 and config.question_encoder.vocab_size == 50


SMALL_BART = {
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_ffn_dim": 8,
    "decoder_ffn_dim": 8,
}
SMALL_BERT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}


@pytest.mark.parametrize(
    ("config", "encoder", "decoder"),
    [
        (BartConfig(**SMALL_BART, max_position_embeddings=64), 64, 64),
        (PegasusConfig(**SMALL_BART, max_position_embeddings=48), 48, 48),
        (
            LEDConfig(
                **SMALL_BART,
                attention_window=[4],
                max_encoder_position_embeddings=64,
                max_decoder_position_embeddings=32,
            ),
            64,
            32,
        ),
        (T5Config(d_model=16, d_kv=8, d_ff=8, num_layers=1, num_heads=2), math.inf, math.inf),
        (
            EncoderDecoderConfig.from_encoder_decoder_configs(
                RobertaConfig(**SMALL_BERT, max_position_embeddings=66),
                BertConfig(**SMALL_BERT, max_position_embeddings=32),
            ),
            64,
            32,
        ),
    ],
    ids=lambda value: getattr(value, "model_type", None),
)
def test_the_positions_of_a_sequence_to_sequence_model(config, encoder, decoder):
    for model in (config, AutoModelForSeq2SeqLM.from_config(config)):
        assert get_max_positions(model, "encoder") == encoder
        assert get_max_positions(model, "decoder") == decoder
        lengths = get_max_lengths(model)
        assert lengths["max_source_length"] == encoder and lengths["max_summary_length"] == decoder
        assert lengths["max_question_length"] == math.inf


@pytest.mark.parametrize(
    ("config", "positions"),
    [
        (BertConfig(**SMALL_BERT, max_position_embeddings=64), 64),
        # These two count positions from the id after that of the padding token, which is 1.
        (RobertaConfig(**SMALL_BERT, max_position_embeddings=66), 64),
        (MPNetConfig(**SMALL_BERT, max_position_embeddings=66), 64),
        (DebertaV2Config(**SMALL_BERT, max_position_embeddings=64), 64),
        (
            DebertaV2Config(
                **SMALL_BERT, max_position_embeddings=64, relative_attention=True, position_biased_input=False
            ),
            math.inf,
        ),
        (XLNetConfig(d_model=16, n_layer=1, n_head=2, d_inner=8), math.inf),
    ],
    ids=lambda value: getattr(value, "model_type", None),
)
def test_the_positions_of_a_text_encoder(config, positions):
    assert get_max_positions(config) == get_max_positions(AutoModel.from_config(config)) == positions


@pytest.mark.parametrize(
    ("question_encoder", "limit"),
    [("bert", 64), ("roberta", 62), ("led", 64), ("bart", 64), ("t5", math.inf)],
)
def test_the_lengths_of_a_cross_task_model(make_model, question_encoder, limit):
    model = make_model("pegasus", question_encoder)
    expected = {"max_source_length": 64, "max_question_length": limit, "max_summary_length": 64}
    assert get_max_lengths(model) == get_max_lengths(model.config) == expected
