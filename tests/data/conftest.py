"""Folders with tiny, random teachers and judges, for the tests of the data builder."""

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
# The generation settings of facebook/bart-large-cnn, with shorter lengths.
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
MNLI = ("CONTRADICTION", "NEUTRAL", "ENTAILMENT")  # the labels of FacebookAI/roberta-large-mnli


def make_roberta_tokenizer():
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


def enlarge_weights(model):
    """Multiply the weights by 4: small random weights generate the same token for every input."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and "embed_positions" not in name:  # positions may be sinusoids
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
    """Return a function that makes the folder of a tiny, random summarizer of a model family."""
    folders = {}

    def make(family):
        if family not in folders:
            is_bart_like = family in ("bart", "pegasus")
            family_tokenizer = make_roberta_tokenizer() if is_bart_like else tokenizer
            settings = {"architectures": None}
            if is_bart_like:
                settings |= {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
                settings |= {"decoder_start_token_id": 2}
            if family == "t5":
                settings["task_specific_params"] = {"summarization": {"prefix": "summarize: "}}
            torch.manual_seed(0)
            config = make_part(family, len(family_tokenizer), **settings)
            model = enlarge_weights(AutoModelForSeq2SeqLM.from_config(config))
            generation = BART_GENERATION if family == "bart" else {}
            folder = tmp_path_factory.mktemp(f"tiny_{family}")
            folders[family] = save(folder, model, family_tokenizer, **generation)
        return folders[family]

    return make


@pytest.fixture(scope="session")
def tiny_bart_folder(teacher_folder):
    """Return the folder of a tiny, random stand-in for facebook/bart-large-cnn."""
    return teacher_folder("bart")


@pytest.fixture(scope="session")
def judge_folder(tmp_path_factory, make_part, tokenizer):
    """Return a function that makes the folder of a tiny, random classifier of a model family."""

    def make(family="roberta", labels=MNLI, **settings):
        uses_roberta_tokenizer = family not in ("bert", "deberta")
        family_tokenizer = make_roberta_tokenizer() if uses_roberta_tokenizer else tokenizer
        settings |= {"id2label": dict(enumerate(labels)), "label2id": {v: i for i, v in enumerate(labels)}}
        if family == "deberta":
            small = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
            small |= {
                "intermediate_size": 37,
                "max_position_embeddings": 64,
                "vocab_size": len(family_tokenizer),
            }
            relative = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "type_vocab_size": 0}
            config = DebertaV2Config(**small, **relative, **settings)
        else:
            if family in ("roberta", "bart"):
                settings |= {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
            config = make_part(family, len(family_tokenizer), **settings)
        torch.manual_seed(0)
        model = enlarge_weights(AutoModelForSequenceClassification.from_config(config))
        return save(tmp_path_factory.mktemp(f"tiny_{family}_mnli"), model, family_tokenizer)

    return make


@pytest.fixture(scope="session")
def tiny_roberta_mnli_folder(judge_folder):
    """Return the folder of a tiny, random stand-in for FacebookAI/roberta-large-mnli."""
    return judge_folder("roberta", MNLI)
