"""Calls of `generate` in all their forms, compared with the same calls of the summarizer."""

import copy

import pytest
import torch
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)

from crosstask import CrossTaskProcessor

SHORT = {"max_new_tokens": 6}
JUDGED = SHORT | {"return_dict_in_generate": True}
FAMILIES = [("t5", "t5"), ("bart", "bert"), ("t5gemma", "roberta")]


class Favor(LogitsProcessor):
    def __init__(self, token):
        self.token = token

    def __call__(self, input_ids, scores):
        scores[:, self.token] = 1000.0
        return scores


class StopAt(StoppingCriteria):
    def __init__(self, length):
        self.length = length

    def __call__(self, input_ids, scores, **kwargs):
        return torch.full((len(input_ids),), input_ids.shape[1] >= self.length)


@pytest.fixture(params=["classifier", "gated"])
def fusion(request):
    return request.param


@pytest.fixture
def model(make_model, fusion):
    return make_model("t5", "t5", fusion=fusion)


@pytest.fixture
def sources(model, make_inputs):
    inputs = make_inputs(model)
    return {name: inputs[name] for name in ("input_ids", "attention_mask")}


@pytest.fixture
def run_counts(model):
    """Count the steps of the decoder."""
    counts = []
    model.get_decoder().register_forward_hook(lambda *_: counts.append(1))
    return counts


def test_positional_arguments_are_those_of_generation_mixin(model, sources):
    ids, config = sources["input_ids"], GenerationConfig(max_length=8, decoder_start_token_id=0)
    positional = (
        (LogitsProcessorList([Favor(50)]),),
        (None, StoppingCriteriaList([StopAt(4)])),
        (None, None, lambda batch_id, input_ids: [60]),
    )
    plain = model.generate(ids, config)
    for arguments in positional:
        output = model.generate(ids, config, *arguments)
        expected = model.summarizer.generate(
            ids, config, *arguments, attention_mask=sources["attention_mask"]
        )
        assert torch.equal(output, expected) and not torch.equal(output, plain)


def test_two_values_of_one_argument_are_refused(model, sources):
    with pytest.raises(TypeError, match="multiple values for .*logits_processor"):
        model.generate(sources["input_ids"], None, None, logits_processor=LogitsProcessorList([Favor(50)]))


@pytest.mark.parametrize("parts", [("t5", "t5"), ("bart", "t5")])
def test_without_input_a_summary_starts_from_the_start_token(make_model, fusion, parts):
    model = make_model(*parts, fusion=fusion)
    for settings in ({}, {"num_beams": 2}):
        expected = model.summarizer.generate(bos_token_id=5, **SHORT, **settings)
        output = model.generate(bos_token_id=5, **JUDGED, **settings)
        assert torch.equal(output.sequences, expected) and output.answerability.shape == (1,)
        assert torch.equal(model.generate(bos_token_id=5, **SHORT, **settings), expected)
    model.generation_config.bos_token_id = model.summarizer.generation_config.bos_token_id = 5
    assert torch.equal(model.generate(**SHORT), model.summarizer.generate(**SHORT))


def test_without_input_and_start_token_the_call_is_refused_as_by_the_summarizer(model, run_counts):
    for generate in (model.summarizer.generate, model.generate):
        with pytest.raises(ValueError, match="`bos_token_id` has to be defined when no `input_ids`"):
            generate(**JUDGED)
    assert not run_counts


def test_without_input_the_question_of_another_vocabulary_is_needed(make_model, make_part, fusion):
    model = make_model("t5", make_part("bert", vocab_size=120), fusion=fusion)
    with pytest.raises(ValueError, match="`question_input_ids` are needed"):
        model.generate(bos_token_id=5, **JUDGED)
    output = model.generate(bos_token_id=5, question_input_ids=torch.tensor([[7, 8, 9]]), **JUDGED)
    assert output.answerability.shape == (1,)


def make_encoded(model, sources):
    mask = {"attention_mask": sources["attention_mask"]}
    encoded = model.get_encoder()(**sources)
    embeds = model.get_input_embeddings()(sources["input_ids"])
    return {"encoder_outputs": encoded} | mask, {"inputs_embeds": embeds} | mask


def test_encoded_inputs_without_a_question_are_not_judged(make_model, make_inputs):
    model = make_model("t5", "t5")
    inputs = make_inputs(model)
    sources = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    expected = model.generate(**sources, **SHORT)
    for encoded in make_encoded(model, sources):
        output = model.generate(**encoded, **JUDGED)
        assert torch.equal(output.sequences, expected) and "answerability" not in output
    for encoded in make_encoded(model, sources):
        output = model.generate(**encoded, question_input_ids=sources["input_ids"], **JUDGED)
        assert torch.equal(output.sequences, expected) and output.answerability.shape == (2,)


@pytest.mark.parametrize(
    "settings",
    [
        {"answerability_rerank": 1.0, "num_beams": 2, "num_return_sequences": 2},
        {"output_fusion_attentions": True, "return_dict_in_generate": True},
    ],
)
def test_a_missing_question_is_refused_before_the_first_step(model, sources, run_counts, settings):
    sentence = "need the question|writes with the question encoder"
    for encoded in make_encoded(model, sources):
        with pytest.raises(ValueError, match=sentence):
            model.generate(**encoded, **SHORT, **settings)
    assert not run_counts


def test_a_wrong_number_of_questions_is_refused_before_the_first_step(model, sources, run_counts):
    question = {"question_input_ids": sources["input_ids"][:1]}
    for inputs in (sources, *make_encoded(model, sources)):
        with pytest.raises(ValueError, match="The batch sizes differ: 2 inputs and 1 questions"):
            model.generate(**inputs, **question, **JUDGED)
    assert not run_counts


def test_a_missing_question_of_another_vocabulary_is_refused_before_the_first_step(
    make_model, make_part, make_inputs, fusion
):
    model = make_model("t5", make_part("bert", vocab_size=120), fusion=fusion)
    steps = []
    model.get_decoder().register_forward_hook(lambda *_: steps.append(1))
    with pytest.raises(ValueError, match="`question_input_ids` are needed beside `input_ids`"):
        model.generate(make_inputs(model)["input_ids"], **JUDGED)
    assert not steps


@pytest.fixture
def two_vocabularies(make_model, make_part, make_inputs, fusion):
    """Return a model with two vocabularies and its inputs."""
    model = make_model("t5", make_part("bert", vocab_size=120), fusion=fusion)
    if model.gated_cross_attention is not None:
        model.gated_cross_attention.gates.data.fill_(1.0)
    inputs = make_inputs(model)
    inputs.pop("labels")
    return model, inputs | {"question_input_ids": torch.tensor([[100, 101, 102], [103, 104, 105]])}


@pytest.mark.parametrize("settings", [{}, {"num_beams": 2}])
def test_custom_code_in_a_folder_can_call_generate_again(two_vocabularies, tmp_path, settings):
    (tmp_path / "custom_generate").mkdir()
    (tmp_path / "custom_generate" / "generate.py").write_text(
        "def generate(model, **kwargs):\n"
        "    assert kwargs['question_input_ids'].shape == (2, 3)\n"
        "    kwargs = {name: value for name, value in kwargs.items() if value is not None}\n"
        "    return model.generate(**kwargs)\n"
    )
    model, inputs = two_vocabularies
    code = {"custom_generate": str(tmp_path), "trust_remote_code": True}
    for options in ({}, {"output_fusion_attentions": True}):
        expected = model.generate(**inputs, **JUDGED, **settings, **options)
        output = model.generate(**inputs, **JUDGED, **settings, **options, **code)
        assert torch.equal(output.sequences, expected.sequences)
        assert torch.equal(output.answerability, expected.answerability)
        assert ("fusion_attentions" in output) == bool(options)


def test_a_custom_function_can_call_generate_again(two_vocabularies):
    model, inputs = two_vocabularies
    expected = model.generate(**inputs, **JUDGED)

    def generate_again(model, input_ids, logits_processor, stopping_criteria, generation_config, **kwargs):
        assert torch.equal(kwargs["question_input_ids"], inputs["question_input_ids"])
        return model.generate(**inputs, **JUDGED)

    def continue_encoded(model, input_ids, logits_processor, stopping_criteria, generation_config, **kwargs):
        names = ("encoder_outputs", "attention_mask", "question_input_ids")
        return model.generate(**{name: kwargs[name] for name in names}, **JUDGED)

    for function in (generate_again, continue_encoded):
        output = model.generate(**inputs, **JUDGED, custom_generate=function)
        assert torch.equal(output.sequences, expected.sequences)
        assert torch.allclose(output.answerability, expected.answerability, atol=1e-6)


def test_a_custom_function_can_run_the_usual_steps(two_vocabularies):
    model, inputs = two_vocabularies
    expected = model.generate(**inputs, **JUDGED)

    def sample(model, input_ids, logits_processor, stopping_criteria, generation_config, **kwargs):
        return model._sample(input_ids, logits_processor, stopping_criteria, generation_config, **kwargs)

    output = model.generate(**inputs, **JUDGED, custom_generate=sample)
    assert torch.equal(output.sequences, expected.sequences)
    assert torch.allclose(output.answerability, expected.answerability, atol=1e-6)


@pytest.mark.parametrize("parts", FAMILIES)
@pytest.mark.parametrize("modality", ["image", "video", "audio"])
def test_a_text_model_has_no_encoder_of_another_modality(make_model, parts, modality):
    model = make_model(*parts)
    expected = model.summarizer.get_encoder(modality=modality)
    assert (model.get_encoder(modality=modality) is model) == (expected is model.summarizer)
    assert model.get_encoder() is model.summarizer.get_encoder()


@pytest.mark.parametrize(
    ("families", "limit", "reader"),
    [(("bart", "t5"), 64, "summarizer"), (("t5", "roberta"), 62, "question encoder")],
)
def test_an_input_beyond_the_positions_is_refused_before_the_first_step(
    make_model, fusion, families, limit, reader
):
    model = make_model(*families, fusion=fusion)
    ids = torch.full((1, limit), 5)
    assert model.generate(ids, **JUDGED).answerability.isfinite()
    with pytest.raises(
        ValueError,
        match=f"have {limit + 1} tokens, the {reader} has {limit} positions; call `processor.limit_lengths",
    ):
        model.generate(torch.full((1, limit + 1), 5), **JUDGED)


def test_limit_lengths_of_the_processor_cuts_to_the_positions(make_part, make_model, tokenizer):
    model = make_model(make_part("bart", 300), make_part("bert", 300, max_position_embeddings=48))
    processor = CrossTaskProcessor(copy.deepcopy(tokenizer))
    texts = {"question": "Who?", "passage": "The mayor opened the bridge. " * 50, "return_tensors": "pt"}
    with pytest.raises(ValueError, match="call `processor.limit_lengths"):
        model.generate(**processor(**texts), **JUDGED)
    processor.limit_lengths(model)
    assert model.generate(**processor(**texts), **JUDGED).answerability.isfinite()


def test_rotary_positions_are_not_limited(make_model, fusion):
    model = make_model("t5gemma", "t5", fusion=fusion)
    limit = model.config.summarizer.encoder.max_position_embeddings
    assert model.generate(torch.full((1, limit + 8), 5), **JUDGED).answerability.isfinite()
