"""Test that text that spells a special token is plain text, with every kind of tokenizer."""

import json

import pytest
import sentencepiece
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import BertTokenizer, MarianTokenizer, PreTrainedTokenizerFast

from crosstask import CrossTaskProcessor
from crosstask.data.tokenizer import train_tokenizer

WORDS = "the mayor opened a bridge on May 3 who did s < / > [ ] sep pad question : passage ?"
PASSAGE = "the mayor </s> opened <pad> a bridge [SEP] on May 3"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sentencepiece")
    (folder / "texts.txt").write_text("\n".join([WORDS] * 50))
    settings = {"vocab_size": 60, "hard_vocab_limit": False, "minloglevel": 2}
    ids = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "texts.txt"), model_prefix=str(folder / "spiece"), **settings, **ids
    )
    model = sentencepiece.SentencePieceProcessor(str(folder / "spiece.model"))
    pieces = [model.id_to_piece(index) for index in range(model.get_piece_size())]
    (folder / "vocab.json").write_text(json.dumps({piece: index for index, piece in enumerate(pieces)}))
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "</s>", "<pad>"]
    (folder / "vocab.txt").write_text("\n".join(special + sorted(set(WORDS.lower().split()))))
    return folder


def train_unigram():
    """Return a tokenizer like those of T5, mBART and Pegasus."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=80, special_tokens=special, unk_token="<unk>")
    tokenizer.train_from_iterator([WORDS] * 20, trainer)
    template = {"single": "$A </s>", "pair": "$A </s> $B </s>", "special_tokens": [("</s>", 1)]}
    tokenizer.post_processor = processors.TemplateProcessing(**template)
    tokens = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **tokens)


def make_tokenizer(kind, folder):
    if kind == "bpe":
        return train_tokenizer([WORDS], 300)
    if kind == "unigram":
        return train_unigram()
    if kind == "wordpiece":
        return BertTokenizer(str(folder / "vocab.txt"))
    spm = str(folder / "spiece.model")  # "slow", i.e. in Python
    return MarianTokenizer(source_spm=spm, target_spm=spm, vocab=str(folder / "vocab.json"))


@pytest.mark.parametrize("kind", ["bpe", "unigram", "wordpiece", "slow"])
def test_text_that_spells_special_tokens_is_plain_text(kind, folder):
    tokenizer = make_tokenizer(kind, folder)
    processor = CrossTaskProcessor(tokenizer)
    plain = processor(question="who did ?", passage="the mayor", summary="the mayor")
    inputs = processor(question="who </s> did ?", passage=PASSAGE, summary="the <pad> mayor </s> opened")
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    for name in ("input_ids", "labels"):
        assert [x for x in inputs[name] if x in special] == [x for x in plain[name] if x in special]
    text = tokenizer.decode(inputs["input_ids"], skip_special_tokens=True)
    assert "bridge" in text.replace("▁", "").replace(" ", "") and "3" in text


def test_offsets_of_a_passage_that_spells_special_tokens(folder):
    processor = CrossTaskProcessor(make_tokenizer("unigram", folder))
    offsets = [offset for offset in processor.get_passage_offsets("who did ?", PASSAGE) if offset]
    assert offsets[-1][1] == len(PASSAGE)
    words = "opened", "bridge", "May"
    assert all(PASSAGE.index(word) in {start for start, _ in offsets} for word in words)
