"""Tiny, random models in folders as the Hub has them, to make data with: teachers and judges."""

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    DebertaV2Config,
    PreTrainedTokenizerFast,
)

SPECIAL = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
PASSAGES = [
    "The mayor opened the old bridge on May 3.",
    "Rain fell for two days, and the river rose by a meter while the mayor slept in the old town.",
    "A cat sat.",
    "The river rose.",
    "The bridge fell into the river on May 3, and it took two days to find the cat.",
]
# The layout of facebook/bart-large-cnn's generation settings, in tiny.
BART_GENERATION = {
    "num_beams": 4,
    "min_length": 6,
    "max_length": 14,
    "length_penalty": 2.0,
    "no_repeat_ngram_size": 3,
    "early_stopping": True,
    "forced_bos_token_id": 0,
    "forced_eos_token_id": 2,
}
MNLI = ("CONTRADICTION", "NEUTRAL", "ENTAILMENT")  # as FacebookAI/roberta-large-mnli has them


def roberta_tokenizer():
    """A small tokenizer with the special tokens of RoBERTa and BART: `<s> A </s></s> B </s>`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=list(SPECIAL.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(PASSAGES, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
        add_prefix_space=True,
        **SPECIAL,
    )


def sharper(model):
    """Random weights write one token for any input: larger ones tell inputs apart."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and "embed_positions" not in name:  # those may be a formula's
                parameter.mul_(4.0)
    return model


def save(folder, model, tokenizer, **generation):
    if generation:
        model.generation_config.update(**generation)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def teacher_folder(tmp_path_factory, make_part, tokenizer):
    """`teacher_folder(family)`: a folder of a tiny, random summarizer with its tokenizer."""
    folders = {}

    def make(family):
        if family not in folders:
            of_bart = family in ("bart", "pegasus")
            own = roberta_tokenizer() if of_bart else tokenizer
            settings = {"architectures": None}
            if of_bart:
                settings |= {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
                settings |= {"decoder_start_token_id": 2}
            if family == "t5":
                settings["task_specific_params"] = {"summarization": {"prefix": "summarize: "}}
            torch.manual_seed(0)
            model = AutoModelForSeq2SeqLM.from_config(make_part(family, len(own), **settings))
            generation = BART_GENERATION if family == "bart" else {}
            folder = tmp_path_factory.mktemp(f"tiny_{family}")
            folders[family] = save(folder, sharper(model), own, **generation)
        return folders[family]

    return make


@pytest.fixture(scope="session")
def tiny_bart_folder(teacher_folder):
    """A teacher like facebook/bart-large-cnn in all but size and sense."""
    return teacher_folder("bart")


@pytest.fixture(scope="session")
def judge_folder(tmp_path_factory, make_part, tokenizer):
    """`judge_folder(family, labels)`: a folder of a tiny, random classifier with its tokenizer."""

    def make(family="roberta", labels=MNLI, **settings):
        own = tokenizer if family in ("bert", "deberta") else roberta_tokenizer()
        settings |= {"id2label": dict(enumerate(labels)), "label2id": {v: i for i, v in enumerate(labels)}}
        special = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
        if family == "deberta":
            small = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
            small |= {"intermediate_size": 37, "max_position_embeddings": 64, "vocab_size": len(own)}
            relative = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "type_vocab_size": 0}
            config = DebertaV2Config(**small, **relative, **settings)
        else:
            settings |= special if family in ("roberta", "bart") else {}
            config = make_part(family, len(own), **settings)
        torch.manual_seed(0)
        model = sharper(AutoModelForSequenceClassification.from_config(config))
        return save(tmp_path_factory.mktemp(f"tiny_{family}_mnli"), model, own)

    return make


@pytest.fixture(scope="session")
def tiny_roberta_mnli_folder(judge_folder):
    """A judge like FacebookAI/roberta-large-mnli in all but size and sense."""
    return judge_folder("roberta", MNLI)
