"""Tiny models of every kind, and a function that makes systems with them."""

import copy

import pytest
import torch
from system_specs import PASSAGES, QUESTIONS, SPECS
from transformers import (
    BertConfig,
    BertForMaskedLM,
    GenerationMixin,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from crosstask import CrossTaskConfig, CrossTaskForConditionalGeneration, CrossTaskProcessor
from crosstask.data.tokenizer import train_tokenizer
from crosstask.eval.systems import make_system


def make_t5_config(vocab_size):
    return T5Config(
        vocab_size=vocab_size,
        d_model=16,
        d_kv=4,
        d_ff=32,
        num_layers=1,
        num_heads=4,
        decoder_start_token_id=0,
    )


@pytest.fixture(scope="session")
def processor():
    return CrossTaskProcessor(train_tokenizer(PASSAGES, 320), max_source_length=96)


@pytest.fixture(scope="session")
def summarizer(processor):
    torch.manual_seed(0)
    return scale_weights(T5ForConditionalGeneration(make_t5_config(len(processor.tokenizer))).eval())


@pytest.fixture(scope="session")
def model(processor):
    torch.manual_seed(0)
    part = make_t5_config(len(processor.tokenizer))
    return scale_weights(
        CrossTaskForConditionalGeneration(CrossTaskConfig(part, part, fusion_num_heads=4)).eval()
    )


@pytest.fixture(scope="session")
def two_vocabularies(processor):
    """A model whose question encoder has another vocabulary, and its processor."""
    torch.manual_seed(0)
    question_tokenizer = train_tokenizer(QUESTIONS, 290)
    encoder = BertConfig(
        vocab_size=len(question_tokenizer),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=32,
        max_position_embeddings=128,
    )
    config = CrossTaskConfig(make_t5_config(len(processor.tokenizer)), encoder, fusion_num_heads=4)
    model = scale_weights(CrossTaskForConditionalGeneration(config).eval())
    return model, CrossTaskProcessor(processor.tokenizer, question_tokenizer, max_source_length=96)


def scale_weights(model):
    """Scale random weights by 3, because the outputs of fresh ones hardly depend on the inputs."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(3)
    return model


TEMPLATE = (
    "{% for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def save(folder, model, processor):
    """Save a model in float64, in which rounding does not depend on the batch, and its processor."""
    model.double().save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def folders(tmp_path_factory, processor, summarizer, model, two_vocabularies):
    """The folders of tiny models, by name."""
    root = tmp_path_factory.mktemp("checkpoints")
    tokenizer, size = processor.tokenizer, len(processor.tokenizer)
    shape = {"vocab_size": size, "bos_token_id": 1, "eos_token_id": 1}
    gpt2 = GPT2Config(n_embd=16, n_layer=1, n_head=2, n_positions=256, **shape)
    llama = LlamaConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=256,
        **shape,
    )
    bert = BertConfig(vocab_size=size, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    with_template, without_padding = copy.deepcopy(tokenizer), copy.deepcopy(tokenizer)
    with_template.chat_template, without_padding.pad_token = TEMPLATE, None
    torch.manual_seed(0)
    prefixed = copy.deepcopy(summarizer)
    prefixed.config.task_specific_params = {"summarization": {"prefix": "summarize: "}}
    two_model, two_processor = (copy.deepcopy(part) for part in two_vocabularies)
    return {
        "seq2seq": save(root / "seq2seq", prefixed, tokenizer),
        "crosstask": save(root / "crosstask", copy.deepcopy(model), processor),
        "two vocabularies": save(root / "two", two_model, two_processor),
        "llama": save(root / "llama", scale_weights(scale_weights(LlamaForCausalLM(llama))), with_template),
        "gpt2": save(root / "gpt2", scale_weights(GPT2LMHeadModel(gpt2)), without_padding),
        "bert": save(root / "bert", BertForMaskedLM(bert), tokenizer),
    }


@pytest.fixture
def generate_inputs(monkeypatch):
    """A list of the `input_ids` of every call of `generate`, by any model."""
    inputs, original = [], GenerationMixin.generate

    def generate(self, *args, **kwargs):
        inputs.append(kwargs["input_ids"])
        return original(self, *args, **kwargs)

    monkeypatch.setattr(GenerationMixin, "generate", generate)
    return inputs


@pytest.fixture
def make(folders):
    """Return `make(name, **arguments)`, which makes a system of `SPECS` with other arguments."""

    def make(name, **arguments):
        spec = SPECS[name] | {"max_new_tokens": 5} | arguments
        return make_system(spec | {"model": folders[spec["model"]]})

    return make
