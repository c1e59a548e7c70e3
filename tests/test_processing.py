"""The processor: input format, limits, errors, labels, padding, saving and loading."""

import copy
import json
import os
import pickle
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoProcessor, AutoTokenizer, BatchEncoding, BertJapaneseTokenizer, RobertaConfig

from crosstask import CrossTaskProcessor
from crosstask.data.tokenizer import train_tokenizer
from crosstask.processing_crosstask import QuestionTooLongError, to_label

QUESTION = "Who opened the bridge?"
PASSAGE = "The mayor opened the old bridge on May 3. Rain fell for two days."


@pytest.fixture
def processor(tokenizer):
    return CrossTaskProcessor(copy.deepcopy(tokenizer), max_source_length=64)


@pytest.fixture
def two_tokenizers(tokenizer):
    """A processor with a question tokenizer, which reads at most 48 tokens."""
    other = train_tokenizer(["Rain fell for two days", "question passage"], 280)
    other.model_max_length = 48
    return CrossTaskProcessor(copy.deepcopy(tokenizer), other, max_source_length=64)


def decode(processor, ids):
    return processor.tokenizer.decode(ids).strip()


def test_the_question_comes_first_and_the_passage_second(processor):
    ids = processor(question=QUESTION, passage=PASSAGE)["input_ids"]
    assert decode(processor, ids) == f"question: {QUESTION} passage:</s> {PASSAGE}</s>"


def test_a_passage_without_a_question(processor):
    assert decode(processor, processor(passage=PASSAGE)["input_ids"]) == f"{PASSAGE}</s>"


def test_an_empty_question_is_a_prompt_without_a_question(processor):
    ids = processor(question="", passage=PASSAGE)["input_ids"]
    assert decode(processor, ids) == f"question:  passage:</s> {PASSAGE}</s>"


@pytest.mark.parametrize("question", ["{x} {question} {", "}{0}%s\\n", "Qui? 誰が橋を開けた？ 🌉", "a\n\tb"])
def test_special_characters_are_plain_text(processor, question):
    processor.max_source_length = 128
    ids = processor(question=question, passage="{passage} {}")["input_ids"]
    assert decode(processor, ids) == f"question: {question} passage:</s> {{passage}} {{}}</s>"


def test_braces_in_the_prompt_are_plain_text(processor):
    processor.prompt = '{"q": "{question}"} {0}'
    ids = processor(question="a", passage="b")["input_ids"]
    assert decode(processor, ids) == '{"q": "a"} {0}</s> b</s>'


@pytest.mark.parametrize("spare", [1, 2, 5])
def test_only_the_passage_is_truncated(processor, spare):
    prompt = processor.tokenizer(processor.prompt.format(question=QUESTION))["input_ids"]
    processor.max_source_length = len(prompt) + spare + 1
    ids = processor(question=QUESTION, passage=PASSAGE)["input_ids"]
    assert len(ids) == processor.max_source_length
    assert ids[: len(prompt)] == prompt
    assert ids[len(prompt) :] == [
        *processor.tokenizer(PASSAGE)["input_ids"][:spare],
        processor.tokenizer.eos_token_id,
    ]


def test_a_passage_without_a_question_is_truncated(processor):
    processor.max_source_length = 5
    assert len(processor(passage=PASSAGE)["input_ids"]) == 5


@pytest.mark.parametrize("saved", [False, True])
def test_a_passage_is_cut_at_its_end_whatever_side_a_tokenizer_truncates(two_tokenizers, tmp_path, saved):
    two_tokenizers.save_pretrained(tmp_path / "old")
    folders = (tmp_path / "old", tmp_path / "old" / "question_tokenizer")
    for folder in folders:
        path = folder / "tokenizer_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"truncation_side": "left"}))
    processor = CrossTaskProcessor.from_pretrained(tmp_path / "old")
    if not saved:
        tokenizers = [AutoTokenizer.from_pretrained(folder) for folder in folders]
        assert [tokenizer.truncation_side for tokenizer in tokenizers] == ["left", "left"]
        processor = CrossTaskProcessor(*tokenizers, max_source_length=64)
    passage = f"START {PASSAGE * 20} END"
    encoded = processor(question=QUESTION, passage=passage)
    texts = [decode(processor, encoded["input_ids"])]
    texts.append(processor.question_tokenizer.decode(encoded["question_input_ids"]))
    assert all("START" in text and "END" not in text for text in texts)
    processor.save_pretrained(tmp_path / "new")
    for folder in (tmp_path / "new", tmp_path / "new" / "question_tokenizer"):
        assert AutoTokenizer.from_pretrained(folder).truncation_side == "right"


@pytest.mark.parametrize("name", ["tokenizer", "question_tokenizer"])
def test_a_tokenizer_without_a_padding_token_is_refused(two_tokenizers, name):
    tokenizers = {key: getattr(two_tokenizers, key) for key in ("tokenizer", "question_tokenizer")}
    tokenizers[name].pad_token = None
    with pytest.raises(ValueError, match=f"`{name}` has no padding token; set its `pad_token`"):
        CrossTaskProcessor(**tokenizers)


def test_a_question_that_is_too_long_is_refused(processor):
    prompt = processor.tokenizer(processor.prompt.format(question=QUESTION))["input_ids"]
    processor.max_source_length = limit = len(prompt) + 1
    with pytest.raises(QuestionTooLongError, match=f"question 1 takes {limit} tokens .* is {limit}") as error:
        processor(question=["", QUESTION, QUESTION], passage=PASSAGE)
    assert error.value.index == 1 and isinstance(error.value, ValueError)


def test_a_huge_passage(processor):
    ids = processor(question=QUESTION, passage="bridge " * 150_000)["input_ids"]
    assert len(ids) == 64


def test_the_question_tokenizer_reads_the_same_text(two_tokenizers):
    encoded = two_tokenizers(question=QUESTION, passage=PASSAGE)
    assert len(encoded["input_ids"]) <= 64 and len(encoded["question_input_ids"]) == 48
    decoded = two_tokenizers.question_tokenizer.decode(encoded["question_input_ids"]).strip()
    assert decoded.startswith(f"question: {QUESTION} passage:</s> The")
    assert two_tokenizers.model_input_names == [
        "input_ids",
        "attention_mask",
        "question_input_ids",
        "question_attention_mask",
    ]


def test_the_limit_of_the_question_tokenizer(two_tokenizers):
    two_tokenizers.question_tokenizer.model_max_length = 20
    with pytest.raises(QuestionTooLongError, match="`question_tokenizer.model_max_length` is 20"):
        two_tokenizers(question=QUESTION, passage=PASSAGE)


def test_single_inputs_have_no_batch_dimension(processor):
    encoded = processor(question=QUESTION, passage=PASSAGE, summary="rain", answerable=1)
    assert isinstance(encoded, BatchEncoding)
    assert list(encoded) == ["input_ids", "attention_mask", "labels", "answerable"]
    assert isinstance(encoded["input_ids"][0], int) and encoded["answerable"] == 1


def test_a_single_text_is_repeated_for_a_list(processor):
    both = processor(question=[QUESTION, "How?"], passage=PASSAGE, answerable=[1, 0])
    assert len(both["input_ids"]) == 2
    assert both["input_ids"][1] == processor(question="How?", passage=PASSAGE)["input_ids"]
    both = processor(question=QUESTION, passage=[PASSAGE, "Rain."], answerable=0)
    assert both["answerable"] == [0, 0]
    both = processor(question=QUESTION, passage=PASSAGE, answerable=[1, 0])
    assert len(both["input_ids"]) == 2 and both["answerable"] == [1, 0]


def test_labels_are_padded_with_minus_100_on_the_right(processor):
    batch = processor(
        question=QUESTION, passage=PASSAGE, summary=["rain", "the old bridge fell"], return_tensors="pt"
    )
    short = processor.tokenizer("rain")["input_ids"]
    assert short[-1] == processor.tokenizer.eos_token_id
    assert batch["labels"][0].tolist() == short + [-100] * (batch["labels"].shape[1] - len(short))
    assert (batch["labels"][1] != -100).all()


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_side(processor, side):
    processor.tokenizer.padding_side = side
    batch = processor(question=["", QUESTION], passage="b", summary=["a", "b c"], return_tensors="pt")
    padded = (batch["attention_mask"][0] == 0).nonzero().flatten()
    assert len(padded) and (0 in padded) == (side == "left")
    assert (batch["input_ids"][0][padded] == processor.tokenizer.pad_token_id).all()
    assert batch["labels"][0][-1] == -100


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        *[(value, 0) for value in (0, 0.0, -0.0, False, "0", "no", np.int64(0), torch.tensor(0))],
        *[(value, 0) for value in ("0.0", "0,00", "FALSE", "False", "No", " 0\n", "f", Decimal(0))],
        *[(value, 0) for value in ("unanswerable", "Not Answerable", "not_entailment", "NEUTRAL")],
        *[(value, 1) for value in (1, 1.0, True, "1", "yes", np.float32(1), np.bool_(True))],
        *[(value, 1) for value in ("1.0", "1,0", "TRUE", "True", "Yes", "YES", " 1", "Y", Decimal("1.0"))],
        *[(value, 1) for value in ("answerable", "Entailment")],
        *[(value, -100) for value in (None, "", " ", -100, -100.0, "-100", "-100.0")],
        *[(value, -100) for value in (float("nan"), np.float64("nan"), pd.NA, pd.NaT)],
        *[(value, -100) for value in ("NaN", "nan", "NA", "<NA>", "N/A", "#N/A", "null", "None")],
    ],
)
def test_labels_of_every_kind_become_0_1_or_minus_100(processor, label, expected):
    result = to_label(label)
    assert result == expected and type(result) is int
    assert processor(question="", passage="b", answerable=[label])["answerable"] == [expected]
    if label is not None:
        assert processor(question="", passage="b", answerable=label)["answerable"] == expected


@pytest.mark.parametrize(
    "label",
    [2, -1, 0.5, "maybe", "LABEL_1", "10", "0.5", "1.01", ".0", "-", float("inf"), [1], {}, b"1"]
    + [np.array([0, 1])],
)
def test_other_labels_are_refused_with_their_position(processor, label):
    with pytest.raises(ValueError, match="^expected a label of 0, 1, 'no' or 'yes' .*, got ") as caught:
        to_label(label)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="^`answerable` at position 1: expected a label of .*, got "):
        processor(question="", passage=["a", "b"], answerable=[1, label])


@pytest.mark.parametrize("labels", [torch.tensor([1, 0]), np.array([1, 0])])
def test_labels_may_be_an_array(processor, labels):
    assert processor(question="", passage=["b", "c"], answerable=labels)["answerable"] == [1, 0]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"question": "a"}, ValueError, "`passage` is needed"),
        (
            {"question": ["a", "b"], "passage": ["c"]},
            ValueError,
            "of one length, got .*'question': 2.*'passage': 1",
        ),
        (
            {"question": 3, "passage": "b"},
            TypeError,
            "`question` has to be a string .* got int at position 0",
        ),
        ({"passage": ["a", None]}, TypeError, "`passage` .* got NoneType at position 1"),
        ({"passage": b"a"}, TypeError, "`passage` .* got bytes"),
        ({"passage": "a", "summary": ["b", 1.0]}, TypeError, "`summary` .* got float at position 1"),
        ({"question": [], "passage": []}, ValueError, "lists are empty"),
        ({"passage": "a", "padding": "max_length"}, ValueError, "`padding` has to be .* got 'max_length'"),
    ],
)
def test_wrong_arguments_are_refused(processor, arguments, error, message):
    with pytest.raises(error, match=message):
        processor(**arguments)


def test_a_prompt_without_a_question_is_refused(tokenizer):
    with pytest.raises(ValueError, match="`prompt` has to contain {question}, got 'summarize:'"):
        CrossTaskProcessor(tokenizer, prompt="summarize:")


def test_pad_is_the_same_as_padding_in_the_call(two_tokenizers):
    arguments = {
        "question": [QUESTION, ""],
        "passage": [PASSAGE, "Rain."],
        "summary": ["a", "b c"],
        "answerable": [1, None],
    }
    at_once = two_tokenizers(**arguments, return_tensors="pt", pad_to_multiple_of=8)
    encoded = two_tokenizers(**arguments)
    rows = [{name: values[index] for name, values in encoded.items()} for index in range(2)]
    later = two_tokenizers.pad(rows, pad_to_multiple_of=8)
    assert list(at_once) == list(later)
    for name, values in at_once.items():
        assert torch.equal(values, later[name]), name
        assert name == "answerable" or values.shape[1] % 8 == 0
    assert later["answerable"].tolist() == [1, -100]


def test_tensors_arrays_and_lists(processor):
    arguments = {"question": ["a", "b c"], "passage": "b", "summary": "x", "answerable": [1, 0]}
    arrays = processor(**arguments, return_tensors="np")
    tensors = processor(**arguments, return_tensors="pt")
    lists = processor(**arguments, padding=True)
    for name in tensors:
        assert isinstance(arrays[name], np.ndarray) and isinstance(lists[name], list)
        assert (
            arrays[name].tolist()
            == tensors[name].tolist()
            == [list(r) if np.ndim(r) else r for r in lists[name]]
        )
    single = processor(question="a", passage="b", return_tensors="pt")
    assert single["input_ids"].shape[0] == 1
    assert processor(passage="b", padding=False, return_tensors="pt")["input_ids"].ndim == 2


def test_pad_refuses_rows_that_are_no_batch(processor):
    labelled = processor(question="a", passage="b", answerable=1)
    plain = processor(question="a", passage="b")
    with pytest.raises(ValueError, match="no rows to pad"):
        processor.pad([])
    for rows in ([labelled, plain], [plain, labelled]):
        with pytest.raises(ValueError, match="Row 1 has the keys"):
            processor.pad(rows)


def have_same_output(first, second):
    arguments = {
        "question": [QUESTION, "Où ?"],
        "passage": PASSAGE,
        "summary": "rain",
        "answerable": [0, None],
    }
    return dict(first(**arguments)) == dict(second(**arguments))


@pytest.mark.parametrize("kind", ["processor", "two_tokenizers"])
@pytest.mark.parametrize("loader", [CrossTaskProcessor, AutoProcessor])
def test_saving_and_loading(request, kind, loader, tmp_path):
    processor = request.getfixturevalue(kind)
    processor.prompt = "Q: {question} P:"
    processor.save_pretrained(tmp_path)
    loaded = loader.from_pretrained(tmp_path)
    assert type(loaded) is CrossTaskProcessor
    assert (loaded.prompt, loaded.max_source_length) == ("Q: {question} P:", 64)
    assert (loaded.question_tokenizer is None) == (kind == "processor")
    assert have_same_output(loaded, processor)
    assert (tmp_path / "processing_crosstask.py").exists()
    # Once more, because loading may have added something.
    loaded.save_pretrained(tmp_path / "again")
    assert have_same_output(loader.from_pretrained(tmp_path / "again"), processor)
    # The summarizer's tokenizer can be loaded without the processor.
    assert (
        AutoTokenizer.from_pretrained(tmp_path)("rain")["input_ids"]
        == processor.tokenizer("rain")["input_ids"]
    )


def test_loading_from_a_subfolder_and_with_other_settings(two_tokenizers, tmp_path):
    two_tokenizers.save_pretrained(tmp_path / "deep" / "down")
    loaded = CrossTaskProcessor.from_pretrained(tmp_path, subfolder=os.path.join("deep", "down"))
    assert have_same_output(loaded, two_tokenizers)
    loaded = CrossTaskProcessor.from_pretrained(tmp_path / "deep" / "down", max_source_length=50)
    assert loaded.max_source_length == 50 and loaded.question_tokenizer is not None


def test_saving_over_a_processor_with_a_question_tokenizer(processor, two_tokenizers, tmp_path):
    two_tokenizers.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert CrossTaskProcessor.from_pretrained(tmp_path).question_tokenizer is None


def test_saving_and_pushing(two_tokenizers, tmp_path, monkeypatch):
    pushed = []
    monkeypatch.setattr(
        CrossTaskProcessor, "push_to_hub", lambda self, *args, **kwargs: pushed.append((args, kwargs))
    )
    two_tokenizers.save_pretrained(tmp_path / "name", push_to_hub=True, private=True)
    two_tokenizers.save_pretrained(tmp_path / "name", push_to_hub=True, repo_id="user/other")
    assert pushed == [(("name",), {"private": True}), (("user/other",), {})]
    assert have_same_output(CrossTaskProcessor.from_pretrained(tmp_path / "name"), two_tokenizers)


def test_saved_tokenizers_can_be_read_by_transformers_4_and_5(two_tokenizers, tmp_path):
    two_tokenizers.save_pretrained(tmp_path)
    for folder in (tmp_path, tmp_path / "question_tokenizer"):
        settings = (folder / "tokenizer_config.json").read_text()
        assert "TokenizersBackend" not in settings and '"PreTrainedTokenizerFast"' in settings


def test_copying_and_pickling(two_tokenizers):
    assert have_same_output(copy.deepcopy(two_tokenizers), two_tokenizers)
    assert have_same_output(pickle.loads(pickle.dumps(two_tokenizers)), two_tokenizers)
    assert "CrossTaskProcessor" in repr(two_tokenizers)


def test_decoding(processor):
    batch = processor(question=["", QUESTION], passage="Rain.", return_tensors="pt")
    texts = processor.batch_decode(batch["input_ids"], skip_special_tokens=True)
    assert texts[1].strip() == f"question: {QUESTION} passage: Rain."
    assert processor.decode(batch["input_ids"][1], skip_special_tokens=True) == texts[1]


def test_a_wordpiece_question_tokenizer(tokenizer, minilm):
    processor = CrossTaskProcessor(copy.deepcopy(tokenizer), AutoTokenizer.from_pretrained(minilm))
    batch = processor(question=["", QUESTION], passage=["a", "rain " * 900], return_tensors="pt")
    assert batch["question_input_ids"].shape == (2, 512)
    assert batch["input_ids"].shape[1] > 512
    ids = batch["question_input_ids"][1]
    assert processor.question_tokenizer.decode(ids[:11]).startswith(
        "[CLS] question : who opened the bridge? passage"
    )
    assert "question_token_type_ids" not in batch


@pytest.mark.parametrize("kind", ["processor", "two_tokenizers"])
def test_passage_offsets_locate_the_tokens(request, kind):
    processor = request.getfixturevalue(kind)
    passage = "The mayor opened the old bridge on May 3."
    offsets = processor.get_passage_offsets("Who opened it?", passage)
    name = "input_ids" if processor.question_tokenizer is None else "question_input_ids"
    encoded = processor(question="Who opened it?", passage=passage)
    assert len(offsets) == len(encoded[name])
    spans = [span for span in offsets if span is not None]
    assert 0 < len(spans) < len(offsets) and offsets[0] is None and offsets[-1] is None
    tokenizer = processor.question_tokenizer or processor.tokenizer
    for span, token in zip(offsets, encoded[name], strict=True):
        if span is not None:
            text = tokenizer.decode([token]).removeprefix("##").strip()
            assert text.lower() in passage[slice(*span)].lower()


def test_passage_offsets_end_where_the_passage_is_truncated(processor):
    offsets = processor.get_passage_offsets("Who?", "The old bridge. " * 500)
    assert len(offsets) == processor.max_source_length
    assert offsets[-2][1] < 500 * 15


@pytest.fixture
def limited(make_model, tokenizer):
    """A processor for a BART of 64 positions and a RoBERTa of 34, i.e. 32 tokens, with one tokenizer."""
    config = make_model("bart", RobertaConfig(**SMALL, max_position_embeddings=34)).config
    processor = CrossTaskProcessor(copy.deepcopy(tokenizer), max_source_length=1024)
    assert processor.limit_lengths(config) == [
        "`max_source_length` is 64, the number of positions that the model has, and not 1024.",
        "`max_question_length` is 32, the number of positions that the model has, and not 1024.",
    ]
    return processor


SMALL = {"vocab_size": 99, "hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 4}


def test_encoders_with_one_vocabulary_and_other_limits_get_inputs_of_their_own(limited):
    encoded = limited(question="Who?", passage=PASSAGE * 5, summary=PASSAGE * 5, return_truncated=True)
    assert len(encoded["input_ids"]) == len(encoded["labels"]) == 64
    assert len(encoded["question_input_ids"]) == len(encoded["question_attention_mask"]) == 32
    assert encoded["question_input_ids"][:-1] == encoded["input_ids"][:31]
    assert encoded["labels"][-1] == limited.tokenizer.eos_token_id
    names = ("input_ids_truncated", "question_input_ids_truncated", "labels_truncated")
    assert [encoded[name] for name in names] == [True, True, True]
    encoded = limited(question="Who?", passage="It", summary="It", return_truncated=True)
    assert [encoded[name] for name in names] == [False, False, False]
    assert limited.model_input_names[2:] == ["question_input_ids", "question_attention_mask"]
    with pytest.raises(QuestionTooLongError, match="`max_question_length` is 32: no room is left"):
        limited(question="Who opened the bridge over the river?" * 2, passage="x")
    with pytest.raises(ValueError, match="`return_truncated` needs `padding=False`"):
        limited(question="Who?", passage="x", return_truncated=True, return_tensors="pt")


def test_padding_to_a_multiple_does_not_pass_a_limit(limited):
    limited.max_source_length, limited.max_question_length, limited.max_summary_length = 61, 30, 59
    rows = [
        limited(question="Who?", passage=PASSAGE * 5, summary=PASSAGE * 5),
        limited(question="", passage="x", summary=""),
    ]
    batch = limited.pad(rows, pad_to_multiple_of=8)
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (2, 61)
    assert batch["question_input_ids"].shape == (2, 30) and batch["labels"].shape == (2, 59)
    short = limited.pad(rows[1:], pad_to_multiple_of=8)
    assert all(short[name].shape[1] % 8 == 0 for name in ("input_ids", "question_input_ids", "labels"))


def test_limits_are_saved_and_never_raised(limited, make_config, tmp_path):
    limited.save_pretrained(tmp_path)
    loaded = CrossTaskProcessor.from_pretrained(tmp_path)
    assert loaded.get_limits() == {"input_ids": 64, "question_input_ids": 32, "labels": 64}
    assert loaded.limit_lengths(make_config("t5", "t5")) == []
    assert loaded.get_limits() == limited.get_limits()
    free = CrossTaskProcessor(limited.tokenizer)
    assert free.limit_lengths(make_config("t5", "t5")) == []
    assert free.get_limits() == {"input_ids": 1024, "labels": None}


def test_a_question_tokenizer_without_a_limit_has_the_question_encoders(make_model, tokenizer):
    processor = CrossTaskProcessor(tokenizer, copy.deepcopy(tokenizer), max_source_length=100)
    processor.limit_lengths(make_model("t5", "roberta"))
    encoded = processor(question="Who?", passage=PASSAGE * 5)
    assert len(encoded["input_ids"]) == 100 and len(encoded["question_input_ids"]) == 62


def test_a_slow_tokenizer_says_what_it_cuts(tmp_path):
    (tmp_path / "vocab.txt").write_text(
        "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh"])
    )
    tokenizer = BertJapaneseTokenizer(
        str(tmp_path / "vocab.txt"), word_tokenizer_type="basic", subword_tokenizer_type="character"
    )
    assert not tokenizer.is_fast
    processor = CrossTaskProcessor(tokenizer, prompt="{question}", max_source_length=8)
    passages = ["a b c d", "a b c d e", "a"]
    encoded = processor(question="h", passage=passages, return_truncated=True)
    assert [len(ids) for ids in encoded["input_ids"]] == [8, 8, 5]
    assert encoded["input_ids_truncated"] == [False, True, False]
