"""A teacher's summaries depend on the texts alone, cost one pass a passage, and follow the settings."""

import logging
import random
import shutil

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    BartForConditionalGeneration,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    T5EncoderModel,
)
from transformers.utils import logging as transformers_logging

from crosstask import CrossTaskProcessor
from crosstask.data.builder.teacher import Teacher
from crosstask.utils.errors import DataError

FAMILIES = ["bart", "t5", "mt5", "pegasus"]
SHORT = {"max_new_tokens": 8}
PASSAGES = [
    "The mayor opened the old bridge on May 3.",
    "Rain fell for two days, and the river rose by a meter while the mayor slept.",
    "A cat sat.",
    "",
    "The river rose.",
]
PAIRS = [(question, passage) for passage in PASSAGES for question in ("Who?", "What rose?")]


def loaded(folder, dtype=torch.float64):
    """A pair of model and tokenizer, so precise that the padding of a batch cannot break a tie."""
    model = AutoModelForSeq2SeqLM.from_pretrained(folder).to(dtype)
    return model, AutoTokenizer.from_pretrained(folder)


@pytest.fixture
def inputs(monkeypatch):
    """`inputs(teacher)`: the batches of input ids that its model is going to read."""

    def watch(teacher):
        batches, generate = [], teacher.model.generate

        def spy(input_ids, **kwargs):
            batches.append(input_ids)
            return generate(input_ids=input_ids, **kwargs)

        monkeypatch.setattr(teacher.model, "generate", spy)
        return batches

    return watch


@pytest.mark.parametrize("family", FAMILIES)
def test_neither_batches_nor_padding_change_a_summary(teacher_folder, family):
    pair = loaded(teacher_folder(family))
    alone = Teacher(pair, batch_size=1, max_new_tokens=24).summarize(PASSAGES)
    assert len(set(alone)) > 1
    for batch_size in (2, 5):
        assert Teacher(pair, batch_size=batch_size, max_new_tokens=24).summarize(PASSAGES) == alone


@pytest.mark.parametrize("family", ["bart", "t5"])
def test_order_does_not_matter_and_duplicates_cost_nothing(teacher_folder, inputs, family):
    teacher = Teacher(teacher_folder(family), batch_size=2, **SHORT)
    batches = inputs(teacher)
    expected = dict(zip(PASSAGES, teacher.summarize(PASSAGES), strict=True))
    assert [len(batch) for batch in batches] == [2, 2, 1]
    many = random.Random(0).sample(PASSAGES * 7, 30)
    ticks = []
    assert teacher.summarize(many, ticks.append) == [expected[passage] for passage in many]
    assert sum(len(batch) for batch in batches[3:]) == len(PASSAGES)
    assert (len(ticks), sum(ticks)) == (3, 30)
    assert all(batch.shape[1] % 8 == 0 for batch in batches)
    lengths = [batch.shape[1] for batch in batches[:3]]
    assert lengths == sorted(lengths, reverse=True)
    assert teacher.summarize([]) == [] and teacher.candidates([], 3) == []


def test_candidates_depend_on_their_pairs_and_the_seed_alone(tiny_bart_folder):
    teacher = Teacher(tiny_bart_folder, batch_size=3, **SHORT)
    torch.manual_seed(1)
    untouched = torch.rand(3)
    torch.manual_seed(1)
    first = teacher.candidates(PAIRS, 3)
    assert torch.equal(torch.rand(3), untouched)
    assert [len(texts) for texts in first] == [3] * len(PAIRS)
    assert any(len(set(texts)) > 1 for texts in first)
    teacher.summarize(PASSAGES)
    shuffled = random.Random(0).sample(PAIRS * 2, 2 * len(PAIRS))
    again = Teacher(tiny_bart_folder, batch_size=3, **SHORT).candidates(shuffled, 3)
    expected = dict(zip(PAIRS, first, strict=True))
    assert again == [expected[pair] for pair in shuffled]
    assert teacher.candidates(PAIRS, 3) == first
    assert Teacher(tiny_bart_folder, batch_size=3, seed=1, **SHORT).candidates(PAIRS, 3) != first


def test_candidates_are_drawn_from_the_nucleus(tiny_bart_folder):
    teacher = Teacher(tiny_bart_folder, top_p=1e-6, **SHORT)
    assert all(len(set(texts)) == 1 for texts in teacher.candidates(PAIRS, 4))


@pytest.mark.parametrize("family", ["bart", "t5"])
def test_a_candidate_is_read_as_the_processor_writes_it(teacher_folder, inputs, family):
    prompt = "read {question} in:"
    teacher = Teacher(teacher_folder(family), max_source_length=32, prompt=prompt, **SHORT)
    batches = inputs(teacher)
    processor = CrossTaskProcessor(teacher.tokenizer, prompt=prompt, max_source_length=32)
    [[text]] = teacher.candidates([("Who?", PASSAGES[1])], 1)
    expected = processor(question="Who?", passage=PASSAGES[1], return_tensors="pt")
    assert torch.equal(batches[0], expected["input_ids"])
    assert teacher.truncated == 1
    ids = teacher.model.generate(**expected, **teacher.settings)
    assert text == teacher.tokenizer.decode(ids[0], skip_special_tokens=True).strip()


def test_a_question_without_room_for_its_passage_has_no_candidates(tiny_bart_folder):
    teacher = Teacher(tiny_bart_folder, **SHORT)
    ticks = []
    texts = teacher.candidates([PAIRS[0], ("why " * 200, "A cat sat."), PAIRS[1]], 2, ticks.append)
    assert [len(candidates) for candidates in texts] == [2, 0, 2]
    assert sum(ticks) == 3


def test_truncated_passages_are_counted_once_and_full_ones_are_not(tiny_bart_folder):
    probe = Teacher(tiny_bart_folder)
    lengths = sorted(len(probe.tokenizer(passage)["input_ids"]) for passage in PASSAGES)
    teacher = Teacher(tiny_bart_folder, max_source_length=lengths[-2], **SHORT)
    teacher.summarize(PASSAGES * 2)
    assert teacher.truncated == 1


def test_source_length_is_what_tokenizer_and_model_can_take(teacher_folder, tmp_path):
    assert Teacher(teacher_folder("bart")).max_source_length == 64
    assert Teacher(teacher_folder("t5")).max_source_length == 1024
    assert Teacher(teacher_folder("t5"), max_source_length=2000).max_source_length == 2000
    model, tokenizer = loaded(teacher_folder("t5"))
    tokenizer.model_max_length = 512
    assert Teacher((model, tokenizer)).max_source_length == 512
    with pytest.raises(DataError, match="max_source_length is 65, expected 64 or less"):
        Teacher(teacher_folder("bart"), max_source_length=65)


@pytest.mark.parametrize("limit", [61, 64])
def test_a_full_input_stays_within_the_positions(tiny_bart_folder, limit):
    assert Teacher(tiny_bart_folder, max_source_length=limit, **SHORT).summarize(["rain " * 500])


def test_a_prefix_of_the_checkpoint_comes_before_passages(teacher_folder, inputs):
    for settings, prefix in (({}, "summarize: "), ({"prefix": ""}, ""), ({"prefix": "tl;dr "}, "tl;dr ")):
        teacher = Teacher(teacher_folder("t5"), **settings, **SHORT)
        batches = inputs(teacher)
        teacher.summarize(["A cat sat."])
        ids = teacher.tokenizer(prefix + "A cat sat.")["input_ids"]
        assert batches[0][0, : len(ids)].tolist() == ids
    assert Teacher(teacher_folder("bart")).prefix == ""


def lengths_of(teacher):
    """Lengths in tokens, EOS and what a checkpoint forces included, of one written batch."""
    rows = [teacher._encode(passage=passage) for passage in PASSAGES]
    inputs = teacher._processor.pad(rows)
    ids = teacher.model.generate(**inputs, **teacher.settings)[:, 1:]
    return (ids != teacher.tokenizer.pad_token_id).sum(1).tolist()


def test_settings_that_are_not_given_are_the_checkpoints_own(tiny_bart_folder):
    settings = Teacher(tiny_bart_folder, num_beams=None, max_new_tokens=None).settings
    assert (settings["num_beams"], settings["min_length"], settings["max_length"]) == (4, 6, 14)
    settings = Teacher(tiny_bart_folder, num_beams=2, max_new_tokens=20, min_new_tokens=9).settings
    assert (settings["num_beams"], settings["min_length"], settings["max_length"]) == (2, 10, 21)
    assert Teacher(tiny_bart_folder).settings["max_length"] == 65, "142 new tokens have no positions"


def test_lengths_are_kept(tiny_bart_folder):
    assert max(lengths_of(Teacher(tiny_bart_folder, max_new_tokens=5))) == 5
    assert min(lengths_of(Teacher(tiny_bart_folder, min_new_tokens=25, max_new_tokens=30))) >= 25
    model, tokenizer = loaded(tiny_bart_folder)
    with torch.no_grad():  # an EOS that outweighs all else ends a text as soon as it may
        model.final_logits_bias[0, model.config.eos_token_id] = 1e4
    assert set(lengths_of(Teacher((model, tokenizer)))) == {6}, "5 by the checkpoint, and EOS"
    assert set(lengths_of(Teacher((model, tokenizer), min_new_tokens=3))) == {4}
    # A minimum of 5 with a maximum of 4 would keep EOS out; here it comes after the forced start.
    assert set(lengths_of(Teacher((model, tokenizer), max_new_tokens=4))) == {2}


def test_the_users_penalties_win_even_where_they_are_transformers_defaults(tiny_bart_folder):
    texts = {}
    for size in (None, 0, 1):
        teacher = Teacher(tiny_bart_folder, no_repeat_ngram_size=size, max_new_tokens=40)
        texts[size] = teacher.summarize(PASSAGES)
    model, tokenizer = loaded(tiny_bart_folder, torch.float32)
    model.generation_config.no_repeat_ngram_size = 0
    assert texts[0] == Teacher((model, tokenizer), max_new_tokens=40).summarize(PASSAGES)
    assert texts[0] != texts[None] != texts[1]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("settings", [{}, {"num_beams": 1}, {"max_new_tokens": 3}, {"num_beams": None}])
def test_nothing_is_warned_of(teacher_folder, family, settings, caplog, recwarn):
    transformers_logging.enable_propagation()
    try:
        with caplog.at_level(logging.WARNING):
            teacher = Teacher(teacher_folder(family), max_source_length=32, **SHORT | settings)
            teacher.summarize(PASSAGES)
            teacher.candidates(PAIRS[:3], 2)
    finally:
        transformers_logging.disable_propagation()
    assert [record.getMessage() for record in caplog.records] == []
    assert [str(warning.message) for warning in recwarn] == []


def test_dtypes(tiny_bart_folder):
    assert Teacher(tiny_bart_folder).model.dtype == torch.float32
    teacher = Teacher(tiny_bart_folder, dtype="bfloat16", device="cpu", **SHORT)
    assert teacher.model.dtype == torch.bfloat16 and not teacher.model.training
    assert len(teacher.summarize(PASSAGES)) == len(PASSAGES)


@pytest.mark.parametrize("num_beams", [1, 2])
def test_numbers_that_are_not_finite_are_an_error(tiny_bart_folder, num_beams):
    model, tokenizer = loaded(tiny_bart_folder, torch.float32)
    with torch.no_grad():
        model.get_encoder().layers[0].fc1.weight.fill_(float("nan"))
    teacher = Teacher((model, tokenizer), num_beams=num_beams, **SHORT)
    for write in (lambda: teacher.summarize(PASSAGES), lambda: teacher.candidates(PAIRS, 2)):
        with pytest.raises(DataError, match="^teacher: .* not finite in float32"):
            write()


def test_a_bare_model_has_all_weights_of_a_summarizer(tiny_bart_folder, tmp_path):
    # As facebook/bart-large is on the Hub.
    BartForConditionalGeneration.from_pretrained(tiny_bart_folder).model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny_bart_folder).save_pretrained(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path).architectures == ["BartModel"]
    assert len(Teacher(tmp_path, **SHORT).summarize(PASSAGES)) == len(PASSAGES)


def test_positions_by_a_formula_need_not_be_stored(teacher_folder, tmp_path):
    # As google/pegasus-xsum is on the Hub.
    model, tokenizer = loaded(teacher_folder("pegasus"), torch.float32)
    state = {name: value for name, value in model.state_dict().items() if "embed_positions" not in name}
    model.save_pretrained(tmp_path, state_dict=state)
    tokenizer.save_pretrained(tmp_path)
    expected = Teacher((model, tokenizer), **SHORT).summarize(PASSAGES)
    assert Teacher(tmp_path, **SHORT).summarize(PASSAGES) == expected


def test_models_of_another_kind_are_named(judge_folder, teacher_folder, make_part, tmp_path):
    small = {"n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": 99}
    GPT2LMHeadModel(GPT2Config(**small)).save_pretrained(tmp_path / "causal")
    BertModel(make_part("bert")).save_pretrained(tmp_path / "encoder")
    T5EncoderModel.from_pretrained(teacher_folder("t5")).save_pretrained(tmp_path / "t5")
    for folder, architecture in (
        (tmp_path / "causal", "GPT2LMHeadModel"),
        (tmp_path / "encoder", "BertModel"),
        (tmp_path / "t5", "T5EncoderModel"),
        (judge_folder("bart"), "BartForSequenceClassification"),
    ):
        with pytest.raises(DataError, match=f"^teacher: got a {architecture} .*AutoModelForSeq2SeqLM$"):
            Teacher(folder)


def test_checkpoints_that_are_not_whole_are_refused(tiny_bart_folder, tmp_path):
    with pytest.raises(DataError, match="^teacher: .*nowhere.* cannot be loaded: "):
        Teacher(tmp_path / "nowhere")
    folder = shutil.copytree(tiny_bart_folder, tmp_path / "pickle")
    (folder / "model.safetensors").unlink()
    torch.save(loaded(tiny_bart_folder)[0].state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(DataError, match="^teacher: .*pickle cannot be loaded: .*safetensors"):
        Teacher(folder)
    state = loaded(tiny_bart_folder)[0].state_dict()
    state = {name: value for name, value in state.items() if "decoder.layers.1" not in name}
    folder = tmp_path / "parts"
    loaded(tiny_bart_folder)[0].save_pretrained(folder, state_dict=state)
    AutoTokenizer.from_pretrained(tiny_bart_folder).save_pretrained(folder)
    with pytest.raises(DataError, match=r"no weights model\.decoder\.layers\.1\..* expected a whole Bart"):
        Teacher(folder)
    folder = shutil.copytree(tiny_bart_folder, tmp_path / "mute", ignore=shutil.ignore_patterns("tok*"))
    with pytest.raises(DataError, match="^teacher: .*mute"):
        Teacher(folder)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"dtype": "int8"}, "dtype is 'int8', expected one of auto, float32, bfloat16, float16"),
        ({"batch_size": 0}, "batch_size is 0, expected a positive integer"),
        ({"num_beams": 2.5}, "num_beams is 2.5, expected a positive integer"),
        ({"max_new_tokens": -1}, "max_new_tokens is -1, expected a positive integer"),
        ({"min_new_tokens": 9, "max_new_tokens": 9}, "min_new_tokens is 9, expected an integer below 9"),
        ({"top_p": 0}, "top_p is 0, expected a number above 0 and up to 1"),
        ({"prompt": "read:"}, "prompt is 'read:', expected a text with {question}"),
    ],
)
def test_values_out_of_range(tiny_bart_folder, settings, message):
    with pytest.raises(DataError) as error:
        Teacher(tiny_bart_folder, **settings)
    assert str(error.value) == f"teacher: {message}"


@pytest.mark.parametrize("device", ["abacus", "cuda:77"])
def test_devices_that_are_not_there(tiny_bart_folder, device):
    with pytest.raises(DataError, match=f"^teacher: .* cannot be moved to device '{device}': "):
        Teacher(tiny_bart_folder, device=device)


def test_no_candidates_cannot_be_asked_for(tiny_bart_folder):
    with pytest.raises(DataError, match="candidates is 0, expected a positive integer"):
        Teacher(tiny_bart_folder).candidates(PAIRS, 0)
