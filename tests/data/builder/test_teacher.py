"""Test the teacher: its summaries depend only on the texts, and each distinct text is processed once."""

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


def load_pair(folder, dtype=torch.float64):
    """Return model and tokenizer, in float64 so that the padding of a batch cannot change a summary."""
    model = AutoModelForSeq2SeqLM.from_pretrained(folder).to(dtype)
    return model, AutoTokenizer.from_pretrained(folder)


@pytest.fixture
def record_inputs(monkeypatch):
    """Return a function that records the batches of input ids that the model of a teacher will read."""

    def record(teacher):
        batches, generate = [], teacher.model.generate

        def spy(input_ids, **kwargs):
            batches.append(input_ids)
            return generate(input_ids=input_ids, **kwargs)

        monkeypatch.setattr(teacher.model, "generate", spy)
        return batches

    return record


@pytest.mark.parametrize("family", FAMILIES)
def test_batches_and_padding_do_not_change_a_summary(teacher_folder, family):
    pair = load_pair(teacher_folder(family))
    expected = Teacher(pair, batch_size=1, max_new_tokens=24).summarize(PASSAGES)
    assert len(set(expected)) > 1
    for batch_size in (2, 5):
        assert Teacher(pair, batch_size=batch_size, max_new_tokens=24).summarize(PASSAGES) == expected


@pytest.mark.parametrize("family", ["bart", "t5"])
def test_the_order_does_not_matter_and_duplicates_are_summarized_once(teacher_folder, record_inputs, family):
    teacher = Teacher(teacher_folder(family), batch_size=2, **SHORT)
    batches = record_inputs(teacher)
    expected = dict(zip(PASSAGES, teacher.summarize(PASSAGES), strict=True))
    assert [len(batch) for batch in batches] == [2, 2, 1]
    passages = random.Random(0).sample(PASSAGES * 7, 30)
    updates = []
    assert teacher.summarize(passages, updates.append) == [expected[passage] for passage in passages]
    assert sum(len(batch) for batch in batches[3:]) == len(PASSAGES)
    assert (len(updates), sum(updates)) == (3, 30)
    assert all(batch.shape[1] % 8 == 0 for batch in batches)
    lengths = [batch.shape[1] for batch in batches[:3]]
    assert lengths == sorted(lengths, reverse=True)
    assert teacher.summarize([]) == [] and teacher.write_candidates([], 3) == []


def test_candidates_depend_only_on_the_pairs_and_the_seed(tiny_bart_folder):
    teacher = Teacher(tiny_bart_folder, batch_size=3, **SHORT)
    torch.manual_seed(1)
    expected_draws = torch.rand(3)
    torch.manual_seed(1)
    first = teacher.write_candidates(PAIRS, 3)
    assert torch.equal(torch.rand(3), expected_draws)
    assert [len(texts) for texts in first] == [3] * len(PAIRS)
    assert any(len(set(texts)) > 1 for texts in first)
    teacher.summarize(PASSAGES)
    shuffled = random.Random(0).sample(PAIRS * 2, 2 * len(PAIRS))
    again = Teacher(tiny_bart_folder, batch_size=3, **SHORT).write_candidates(shuffled, 3)
    expected = dict(zip(PAIRS, first, strict=True))
    assert again == [expected[pair] for pair in shuffled]
    assert teacher.write_candidates(PAIRS, 3) == first
    assert Teacher(tiny_bart_folder, batch_size=3, seed=1, **SHORT).write_candidates(PAIRS, 3) != first


def test_candidates_are_sampled_from_the_nucleus(tiny_bart_folder):
    teacher = Teacher(tiny_bart_folder, top_p=1e-6, **SHORT)
    assert all(len(set(texts)) == 1 for texts in teacher.write_candidates(PAIRS, 4))


@pytest.mark.parametrize("family", ["bart", "t5"])
def test_the_input_of_a_candidate_comes_from_the_processor(teacher_folder, record_inputs, family):
    prompt = "read {question} in:"
    teacher = Teacher(teacher_folder(family), max_source_length=32, prompt=prompt, **SHORT)
    batches = record_inputs(teacher)
    processor = CrossTaskProcessor(teacher.tokenizer, prompt=prompt, max_source_length=32)
    [[text]] = teacher.write_candidates([("Who?", PASSAGES[1])], 1)
    expected = processor(question="Who?", passage=PASSAGES[1], return_tensors="pt")
    assert torch.equal(batches[0], expected["input_ids"])
    assert teacher.truncated == 1
    ids = teacher.model.generate(**expected, **teacher.generation_kwargs)
    assert text == teacher.tokenizer.decode(ids[0], skip_special_tokens=True).strip()


def test_a_question_that_leaves_no_room_for_its_passage_has_no_candidates(tiny_bart_folder):
    teacher = Teacher(tiny_bart_folder, **SHORT)
    updates = []
    texts = teacher.write_candidates([PAIRS[0], ("why " * 200, "A cat sat."), PAIRS[1]], 2, updates.append)
    assert [len(candidates) for candidates in texts] == [2, 0, 2]
    assert sum(updates) == 3


def test_truncated_passages_are_counted_once_and_passages_that_just_fit_are_not(tiny_bart_folder):
    tokenizer = Teacher(tiny_bart_folder).tokenizer
    lengths = sorted(len(tokenizer(passage)["input_ids"]) for passage in PASSAGES)
    teacher = Teacher(tiny_bart_folder, max_source_length=lengths[-2], **SHORT)
    teacher.summarize(PASSAGES * 2)
    assert teacher.truncated == 1


def test_the_source_length_is_limited_by_tokenizer_and_model(teacher_folder, tmp_path):
    assert Teacher(teacher_folder("bart")).max_source_length == 64
    assert Teacher(teacher_folder("t5")).max_source_length == 1024
    assert Teacher(teacher_folder("t5"), max_source_length=2000).max_source_length == 2000
    model, tokenizer = load_pair(teacher_folder("t5"))
    tokenizer.model_max_length = 512
    assert Teacher((model, tokenizer)).max_source_length == 512
    with pytest.raises(DataError, match="max_source_length is 65, expected at most 64"):
        Teacher(teacher_folder("bart"), max_source_length=65)


@pytest.mark.parametrize("limit", [61, 64])
def test_padding_does_not_exceed_the_positions(tiny_bart_folder, limit):
    assert Teacher(tiny_bart_folder, max_source_length=limit, **SHORT).summarize(["rain " * 500])


def test_the_prefix_of_the_checkpoint_precedes_a_passage(teacher_folder, record_inputs):
    for settings, prefix in (({}, "summarize: "), ({"prefix": ""}, ""), ({"prefix": "tl;dr "}, "tl;dr ")):
        teacher = Teacher(teacher_folder("t5"), **settings, **SHORT)
        batches = record_inputs(teacher)
        teacher.summarize(["A cat sat."])
        ids = teacher.tokenizer(prefix + "A cat sat.")["input_ids"]
        assert batches[0][0, : len(ids)].tolist() == ids
    assert Teacher(teacher_folder("bart")).prefix == ""


def get_summary_lengths(teacher):
    """Return the lengths of summaries in tokens, including EOS and tokens that the checkpoint forces."""
    rows = [teacher._encode(passage=passage) for passage in PASSAGES]
    inputs = teacher._processor.pad(rows)
    ids = teacher.model.generate(**inputs, **teacher.generation_kwargs)[:, 1:]
    return (ids != teacher.tokenizer.pad_token_id).sum(1).tolist()


def test_generation_defaults_come_from_the_checkpoint(tiny_bart_folder):
    kwargs = Teacher(tiny_bart_folder, num_beams=None, max_new_tokens=None).generation_kwargs
    assert (kwargs["num_beams"], kwargs["min_length"], kwargs["max_length"]) == (4, 6, 14)
    kwargs = Teacher(tiny_bart_folder, num_beams=2, max_new_tokens=20, min_new_tokens=9).generation_kwargs
    assert (kwargs["num_beams"], kwargs["min_length"], kwargs["max_length"]) == (2, 10, 21)
    assert Teacher(tiny_bart_folder).generation_kwargs["max_length"] == 65, "there are 64 positions"


def test_summaries_have_the_requested_lengths(tiny_bart_folder):
    assert max(get_summary_lengths(Teacher(tiny_bart_folder, max_new_tokens=5))) == 5
    assert min(get_summary_lengths(Teacher(tiny_bart_folder, min_new_tokens=25, max_new_tokens=30))) >= 25
    model, tokenizer = load_pair(tiny_bart_folder)
    with torch.no_grad():  # EOS has the highest score, so a text ends as soon as possible
        model.final_logits_bias[0, model.config.eos_token_id] = 1e4
    assert set(get_summary_lengths(Teacher((model, tokenizer)))) == {6}, (
        "the minimum of the checkpoint is 5, and EOS follows"
    )
    assert set(get_summary_lengths(Teacher((model, tokenizer), min_new_tokens=3))) == {4}
    # The minimum of 5 is ignored, as it is above the maximum; EOS comes after the forced start.
    assert set(get_summary_lengths(Teacher((model, tokenizer), max_new_tokens=4))) == {2}


def test_an_argument_overrides_the_checkpoint_even_with_the_default_of_transformers(tiny_bart_folder):
    texts = {}
    for size in (None, 0, 1):
        teacher = Teacher(tiny_bart_folder, no_repeat_ngram_size=size, max_new_tokens=40)
        texts[size] = teacher.summarize(PASSAGES)
    model, tokenizer = load_pair(tiny_bart_folder, torch.float32)
    model.generation_config.no_repeat_ngram_size = 0
    assert texts[0] == Teacher((model, tokenizer), max_new_tokens=40).summarize(PASSAGES)
    assert texts[0] != texts[None] != texts[1]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("settings", [{}, {"num_beams": 1}, {"max_new_tokens": 3}, {"num_beams": None}])
def test_generation_causes_no_warnings(teacher_folder, family, settings, caplog, recwarn):
    transformers_logging.enable_propagation()
    try:
        with caplog.at_level(logging.WARNING):
            teacher = Teacher(teacher_folder(family), max_source_length=32, **SHORT | settings)
            teacher.summarize(PASSAGES)
            teacher.write_candidates(PAIRS[:3], 2)
    finally:
        transformers_logging.disable_propagation()
    assert [record.getMessage() for record in caplog.records] == []
    assert [str(warning.message) for warning in recwarn] == []


def test_the_dtype_is_that_of_the_checkpoint_or_the_argument(tiny_bart_folder):
    assert Teacher(tiny_bart_folder).model.dtype == torch.float32
    teacher = Teacher(tiny_bart_folder, dtype="bfloat16", device="cpu", **SHORT)
    assert teacher.model.dtype == torch.bfloat16 and not teacher.model.training
    assert len(teacher.summarize(PASSAGES)) == len(PASSAGES)


@pytest.mark.parametrize("num_beams", [1, 2])
def test_scores_that_are_not_finite_are_an_error(tiny_bart_folder, num_beams):
    model, tokenizer = load_pair(tiny_bart_folder, torch.float32)
    with torch.no_grad():
        model.get_encoder().layers[0].fc1.weight.fill_(float("nan"))
    teacher = Teacher((model, tokenizer), num_beams=num_beams, **SHORT)
    for write in (lambda: teacher.summarize(PASSAGES), lambda: teacher.write_candidates(PAIRS, 2)):
        with pytest.raises(DataError, match="^teacher: .* not finite in float32"):
            write()


def test_a_base_model_is_a_summarizer(tiny_bart_folder, tmp_path):
    # facebook/bart-large is saved so: a `BartModel` has all weights of the summarizer.
    BartForConditionalGeneration.from_pretrained(tiny_bart_folder).model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny_bart_folder).save_pretrained(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path).architectures == ["BartModel"]
    assert len(Teacher(tmp_path, **SHORT).summarize(PASSAGES)) == len(PASSAGES)


def test_sinusoidal_positions_may_be_missing_in_the_checkpoint(teacher_folder, tmp_path):
    # google/pegasus-xsum is saved so.
    model, tokenizer = load_pair(teacher_folder("pegasus"), torch.float32)
    state = {name: value for name, value in model.state_dict().items() if "embed_positions" not in name}
    model.save_pretrained(tmp_path, state_dict=state)
    tokenizer.save_pretrained(tmp_path)
    expected = Teacher((model, tokenizer), **SHORT).summarize(PASSAGES)
    assert Teacher(tmp_path, **SHORT).summarize(PASSAGES) == expected


def test_a_model_that_is_not_a_summarizer_is_an_error(judge_folder, teacher_folder, make_part, tmp_path):
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


def test_an_incomplete_checkpoint_is_an_error(tiny_bart_folder, tmp_path):
    with pytest.raises(
        DataError, match="^teacher: .*nowhere: no such folder, expected a folder or the Hub id"
    ):
        Teacher(tmp_path / "nowhere")
    folder = shutil.copytree(tiny_bart_folder, tmp_path / "pickle")
    (folder / "model.safetensors").unlink()
    torch.save(load_pair(tiny_bart_folder)[0].state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(DataError, match="^teacher: .*pickle cannot be loaded: .*safetensors"):
        Teacher(folder)
    state = load_pair(tiny_bart_folder)[0].state_dict()
    state = {name: value for name, value in state.items() if "decoder.layers.1" not in name}
    folder = tmp_path / "parts"
    load_pair(tiny_bart_folder)[0].save_pretrained(folder, state_dict=state)
    AutoTokenizer.from_pretrained(tiny_bart_folder).save_pretrained(folder)
    expected = r"lacks \d+ weights .model\.decoder\.layers\.1\..* expected all weights of Bart"
    with pytest.raises(DataError, match=expected):
        Teacher(folder)
    folder = shutil.copytree(
        tiny_bart_folder, tmp_path / "no_tokenizer", ignore=shutil.ignore_patterns("tok*")
    )
    with pytest.raises(DataError, match="^teacher: .*no_tokenizer"):
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
def test_a_value_out_of_range_is_an_error(tiny_bart_folder, settings, message):
    with pytest.raises(DataError) as error:
        Teacher(tiny_bart_folder, **settings)
    assert str(error.value) == f"teacher: {message}"


@pytest.mark.parametrize("device", ["abacus", "cuda:77"])
def test_a_missing_device_is_an_error(tiny_bart_folder, device):
    with pytest.raises(DataError, match=f"^teacher: .* cannot be moved to device '{device}': "):
        Teacher(tiny_bart_folder, device=device)


def test_zero_candidates_are_an_error(tiny_bart_folder):
    with pytest.raises(DataError, match="candidates is 0, expected a positive integer"):
        Teacher(tiny_bart_folder).write_candidates(PAIRS, 0)
