import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from crosstask.data.tokenizer import train_tokenizer

TEXTS = [
    "The mayor opened the old bridge on March 12.",
    "Rain fell for two days, and the river rose.",
    "Who opened the bridge?",
    "How long did it rain in Dorn Harbor?",
]
BYTES = 256


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS, 600)


@settings(max_examples=200, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_decoding_restores_any_text(tokenizer, text):
    ids = tokenizer(text)["input_ids"]
    assert ids[-1] == tokenizer.eos_token_id
    back = tokenizer.decode(ids, skip_special_tokens=True)
    # A space is put before the text, so that its first word has the same token as elsewhere.
    assert back.removeprefix(" ") == text.removeprefix(" ") or "<pad>" in text or "</s>" in text


@pytest.mark.parametrize("text", ["naïve café, 50 €", "東京で雨", "👩‍🚀 go", "a\tb\n\nc  d", "ﬁ", "e\u0301"])
def test_decoding_restores_text_unlike_the_training_texts(tokenizer, text):
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True).strip() == text


def test_special_tokens_are_those_of_t5(tokenizer):
    assert (tokenizer.pad_token, tokenizer.pad_token_id) == ("<pad>", 0)
    assert (tokenizer.eos_token, tokenizer.eos_token_id) == ("</s>", 1)
    assert tokenizer.unk_token is None and tokenizer.bos_token is None
    assert set(tokenizer.all_special_ids) == {0, 1}


def test_every_segment_of_a_pair_ends_with_eos(tokenizer):
    first, second = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in TEXTS[:2])
    assert tokenizer(TEXTS[0])["input_ids"] == [*first, 1]
    assert tokenizer(TEXTS[0], TEXTS[1])["input_ids"] == [*first, 1, *second, 1]
    assert tokenizer.num_special_tokens_to_add(pair=True) == 2
    cut = tokenizer(TEXTS[0], TEXTS[1], truncation="only_second", max_length=len(first) + 5)["input_ids"]
    assert cut == [*first, 1, *second[:3], 1]


def test_a_word_is_one_token_if_the_vocabulary_is_large_enough():
    words = sorted({word for text in TEXTS for word in text.replace(",", "").strip(".?").split()})
    tokenizer = train_tokenizer(TEXTS * 3, 5000)
    for word in words:
        assert len(tokenizer(word, add_special_tokens=False)["input_ids"]) == 1, word
        assert tokenizer(word)["input_ids"] == tokenizer(" " + word)["input_ids"]


def test_the_order_of_the_texts_does_not_matter():
    texts = [f"{a} {b}" for a in ("mayor", "bridge", "river", "rain") for b in ("opened", "rose", "fell")]
    vocabularies = []
    for seed in range(3):
        shuffled = random.Random(seed).sample(texts, len(texts))
        vocabularies.append(train_tokenizer(iter(shuffled), 320).get_vocab())
    assert vocabularies[0] == vocabularies[1] == vocabularies[2]


@pytest.mark.parametrize("size", [258, 270, 300])
def test_the_vocabulary_has_the_requested_size(size):
    tokenizer = train_tokenizer(TEXTS, size)
    assert len(tokenizer) == size
    assert set(tokenizer.get_vocab().values()) == set(range(size))


def test_the_vocabulary_always_has_all_bytes():
    tokenizer = train_tokenizer(["a"], 10)
    assert len(tokenizer) == BYTES + 2
    assert tokenizer.decode(tokenizer("ö?")["input_ids"], skip_special_tokens=True).strip() == "ö?"


@pytest.mark.parametrize("texts", [[], [""], ["", " ", "\n"]])
def test_empty_texts_give_a_tokenizer_of_bytes(texts):
    tokenizer = train_tokenizer(texts, 300)
    assert tokenizer.decode(tokenizer("rain")["input_ids"], skip_special_tokens=True).strip() == "rain"
    assert tokenizer("")["input_ids"] == [1]
    assert tokenizer(["", "rain"], ["", ""])["input_ids"][0] == [1, 1]


@pytest.mark.parametrize("tokenizer_class", [PreTrainedTokenizerFast, AutoTokenizer])
def test_a_saved_tokenizer_loads_unchanged(tokenizer, tmp_path, tokenizer_class):
    tokenizer.save_pretrained(tmp_path)
    loaded = tokenizer_class.from_pretrained(tmp_path)
    assert loaded.get_vocab() == tokenizer.get_vocab()
    assert (loaded.pad_token_id, loaded.eos_token_id) == (0, 1)
    for texts in ((TEXTS[0],), (TEXTS[2], TEXTS[0]), ("¿naïve?",), ("a , b .",)):
        assert loaded(*texts)["input_ids"] == tokenizer(*texts)["input_ids"]
        ids = loaded(*texts)["input_ids"]
        assert loaded.decode(ids) == tokenizer.decode(ids)


def test_decoding_does_not_remove_spaces_before_punctuation(tokenizer):
    text = "a , b . it 's"
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True).strip() == text
