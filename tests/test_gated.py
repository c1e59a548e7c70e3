"""`fusion="gated"`: closed it writes as its summarizer, open it reads the question, however it decodes."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForSeq2SeqLM

from crosstask import CrossTaskForConditionalGeneration
from crosstask.generation_crosstask import CACHE_ARGUMENT

FAMILIES = [
    ("t5", "t5"),
    ("bart", "bert"),
    ("led", "bert"),
    ("pegasus", "t5"),
    ("t5gemma", "bert"),
    ("mt5", "roberta"),
]
SHORT = {"max_new_tokens": 8}
DECODING = {
    "greedy": {},
    "beams": {"num_beams": 3, "num_return_sequences": 2},
    "sampling": {"do_sample": True, "num_return_sequences": 2},
    "no cache": {"use_cache": False},
}


@pytest.fixture(params=FAMILIES, ids="-".join)
def model(request, make_model):
    return make_model(*request.param, fusion="gated")


@pytest.fixture
def inputs(make_inputs):
    def inputs(model, **settings):
        given = make_inputs(model, **settings)
        del given["labels"]
        random = torch.Generator().manual_seed(5)
        question = torch.randint(3, 99, (len(given["input_ids"]), 6), generator=random)
        return given | {"question_input_ids": question, "question_attention_mask": torch.ones_like(question)}

    return inputs


def opened(model):
    model.gated_cross_attention.gates.data = torch.tensor([1.0, 0.5])
    return model


def plain(inputs):
    return {name: inputs[name] for name in ("input_ids", "attention_mask")}


@pytest.mark.parametrize("decoding", DECODING)
def test_a_fresh_one_writes_as_its_summarizer(model, inputs, decoding):
    given = inputs(model)
    torch.manual_seed(0)
    expected = model.summarizer.generate(**plain(given), **SHORT, **DECODING[decoding])
    torch.manual_seed(0)
    assert torch.equal(model.generate(**given, **SHORT, **DECODING[decoding]), expected)


def test_an_open_gate_reads_the_question(model, inputs):
    given = inputs(opened(model))
    labels = torch.randint(3, 99, (2, 5))
    logits = model(**given, labels=labels).logits
    other = model(**given | {"question_input_ids": given["question_input_ids"].flip(1)}, labels=labels).logits
    assert (logits - other).abs().max() > 1e-4


def test_steps_with_a_cache_are_those_without(model, inputs):
    given = inputs(opened(model))
    for decoding in ({}, {"num_beams": 3}):
        found = model.generate(**given, **SHORT, **decoding)
        assert torch.equal(found, model.generate(**given, **SHORT, **decoding, use_cache=False))


def test_rows_do_not_depend_on_each_other(model, inputs):
    given = inputs(opened(model), batch_size=3)
    found = model.generate(**given, **SHORT, num_beams=2, return_dict_in_generate=True)
    for row in range(3):
        alone = {name: value[row : row + 1] for name, value in given.items()}
        one = model.generate(**alone, **SHORT, num_beams=2, return_dict_in_generate=True)
        length = min(one.sequences.shape[1], found.sequences.shape[1])
        assert torch.equal(one.sequences[0, :length], found.sequences[row, :length])
        assert torch.allclose(one.answerability, found.answerability[row : row + 1], atol=1e-4)


def test_the_judge_reads_the_fused_states(model, inputs):
    given = inputs(opened(model))
    written = model.generate(**given, **SHORT, return_dict_in_generate=True)
    ids = written.sequences
    answerability = model.score_answerability(summary_ids=ids, **given)
    assert torch.allclose(answerability, written.answerability, atol=1e-5)
    pad = model.config.pad_token_id
    output = model(
        **given, labels=ids[:, 1:].masked_fill(ids[:, 1:] == pad, -100), decoder_input_ids=ids[:, :-1]
    )
    assert torch.allclose(output.answerability_logits.softmax(-1)[:, 1], answerability, atol=1e-5)
    model.gated_cross_attention.gates.data.zero_()
    assert not torch.allclose(model.score_answerability(summary_ids=ids, **given), answerability, atol=1e-6)


def test_the_question_encoder_runs_once(make_model, inputs):
    model = opened(make_model("t5", "bert", fusion="gated"))
    calls = []
    model.question_encoder.register_forward_hook(lambda *_: calls.append(1))
    model.generate(**inputs(model), **SHORT, num_beams=2, return_dict_in_generate=True)
    assert len(calls) == 1


def test_attentions(make_model, inputs):
    model = opened(make_model("t5", "bert", fusion="gated", seed=1))
    labels = torch.randint(3, 99, (2, 5))
    output = model(**inputs(model), labels=labels, output_attentions=True)
    assert output.fusion_attentions.shape == (2, 4, 5, 6)
    assert model(**inputs(model), labels=labels).fusion_attentions is None


def test_it_needs_the_question(make_model, inputs):
    model = make_model("t5", "t5", fusion="gated")
    encoded = model.get_encoder()(inputs(model)["input_ids"])
    with pytest.raises(ValueError, match="writes with the question encoder: give `input_ids`"):
        model(encoder_outputs=encoded, decoder_input_ids=torch.zeros(2, 1, dtype=torch.long))
    with pytest.raises(ValueError, match="writes with the question encoder"):
        model.generate(encoder_outputs=encoded, **SHORT)


def test_it_needs_a_question_for_each_input(model, inputs):
    given = inputs(model)
    one = given | {name: given[name][:1] for name in ("question_input_ids", "question_attention_mask")}
    for call in (
        lambda: model.generate(**one, **SHORT),
        lambda: model(**one, labels=torch.ones(2, 3, dtype=torch.long)),
        lambda: model.score_answerability(**one, summary_ids=torch.ones(2, 3, dtype=torch.long)),
    ):
        with pytest.raises(ValueError, match="The batch sizes differ: 2 inputs and 1 questions"):
            call()
    encoded = model.get_encoder()(**plain(given))
    with pytest.raises(ValueError, match="The batch sizes differ: 2 summaries and 1 questions"):
        model.generate(encoder_outputs=encoded, question_input_ids=one["question_input_ids"], **SHORT)


def test_a_memory_that_is_given(make_model, inputs):
    model = opened(make_model("t5", "bert", fusion="gated"))
    given = inputs(model)
    labels = torch.randint(3, 99, (2, 5))
    expected = model(**given, labels=labels)
    question = model.question_encoder(given["question_input_ids"])[0]
    memory = {
        "decoder_question_key_values": model.gated_cross_attention.project_question(question),
        "labels": labels,
    }
    for mask in (None, given["question_attention_mask"], given["question_attention_mask"].bool()):
        output = model(**plain(given), **memory, decoder_question_mask=mask)
        assert torch.allclose(output.logits, expected.logits, atol=1e-5)
    with pytest.raises(ValueError, match="nor `decoder_question_key_values`"):
        model(**given, **memory, answerable=torch.tensor([1, 0]))


def test_static_cache_and_left_padding(make_model, inputs):
    model = opened(make_model("t5", "bert", fusion="gated"))
    given = inputs(model)
    expected = model.generate(**given, **SHORT)
    assert torch.equal(
        model.generate(**given, **SHORT, cache_implementation="static", disable_compile=True), expected
    )
    padded = {
        name: torch.cat([torch.zeros(2, 3, dtype=torch.long), given[name]], 1)
        for name in ("question_input_ids", "question_attention_mask")
    }
    # BERT counts positions, so only the gate's own mask is looked at here.
    question = model.question_encoder(given["question_input_ids"], given["question_attention_mask"])[0]
    states = torch.cat([torch.randn(2, 3, 24), question], 1)
    found = model.generate(
        **plain(given),
        question_encoder_outputs=(states,),
        question_attention_mask=padded["question_attention_mask"],
        **SHORT,
    )
    assert torch.equal(found, expected)


def test_saved_and_loaded(make_model, inputs, tmp_path):
    model = opened(make_model("t5", "bert", fusion="gated"))
    model.save_pretrained(tmp_path)
    loaded = AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
    given = inputs(model)
    assert torch.equal(loaded.generate(**given, **SHORT), model.generate(**given, **SHORT))
    assert torch.equal(loaded.gated_cross_attention.gates, model.gated_cross_attention.gates)


def test_all_of_it_is_trained(make_model, inputs):
    model = opened(make_model("t5", "bert", fusion="gated")).train()
    model.gradient_checkpointing_enable()
    labels = torch.randint(3, 99, (2, 5))
    model(**inputs(model), labels=labels, answerable=torch.tensor([1, 0])).loss.backward()
    for name, parameter in model.gated_cross_attention.named_parameters():
        # A bias of the keys shifts all scores of a row alike: the softmax does not see it.
        assert parameter.grad is not None and (parameter.grad.abs().sum() > 0 or name == "k_proj.bias"), name
    assert model.question_encoder.get_input_embeddings().weight.grad.abs().sum() > 0


def test_composed_of_trained_parts_it_starts_closed(make_part, tmp_path):
    torch.manual_seed(0)
    for name in ("summarizer", "answerer"):
        AutoModelForSeq2SeqLM.from_config(make_part("t5")).save_pretrained(tmp_path / name)
    model = CrossTaskForConditionalGeneration.from_tasks(
        tmp_path / "summarizer", tmp_path / "answerer", fusion="gated", fusion_num_heads=4
    )
    assert (
        model.gated_cross_attention.gates == 0
    ).all() and model.gated_cross_attention.q_proj.weight.std() > 0


def test_an_adapter_brings_its_own_gate(make_model, inputs, tmp_path):
    make_model("t5", "t5", fusion="gated").save_pretrained(tmp_path / "base")
    base = CrossTaskForConditionalGeneration.from_pretrained(tmp_path / "base")
    config = LoraConfig(
        r=2,
        target_modules=["q", "v"],
        modules_to_save=["answerability_head", "gated_cross_attention"],
        exclude_modules=r"(answerability_head|gated_cross_attention)\..*",
    )
    adapted = get_peft_model(base, config).eval()
    opened(adapted.base_model.model)
    adapted.save_pretrained(tmp_path / "adapter")
    given = plain(inputs(base))
    expected = adapted.generate(**given, **SHORT)
    fresh = CrossTaskForConditionalGeneration.from_pretrained(tmp_path / "base")
    before = fresh.generate(**given, **SHORT)
    fresh.load_adapter(tmp_path / "adapter")
    assert torch.equal(fresh.generate(**given, **SHORT), expected)
    fresh.disable_adapters()
    assert torch.equal(fresh.generate(**given, **SHORT), before)


@pytest.mark.parametrize("question_encoder", ["t5", "bert"])
def test_compiled(make_model, inputs, question_encoder):
    model = opened(make_model("t5", question_encoder, fusion="gated"))
    given = inputs(model) | {"labels": torch.randint(3, 99, (2, 5))}
    torch._dynamo.reset()
    with torch.no_grad():
        found = torch.compile(model, backend="eager", fullgraph=True)(**given)
        expected = model(**given)
    assert torch.allclose(found.logits, expected.logits, atol=1e-5)
    assert torch.allclose(found.answerability_logits, expected.answerability_logits, atol=1e-5)


def test_a_compiled_decoding_step(make_model, inputs):
    model = opened(make_model("t5", "bert", fusion="gated"))
    given = inputs(model)
    question = model.question_encoder(given["question_input_ids"], given["question_attention_mask"])[0]
    encoded = model.get_encoder()(**plain(given))
    kept = {"attention_mask": given["attention_mask"], "encoder_outputs": encoded, "use_cache": True}
    kept |= {
        "decoder_question_key_values": model.gated_cross_attention.project_question(question).detach(),
        "decoder_question_mask": given["question_attention_mask"].bool(),
    }

    def step(function):
        past = model(**kept, decoder_input_ids=torch.tensor([[0], [0]]))[CACHE_ARGUMENT]
        return function(**kept, decoder_input_ids=torch.tensor([[5], [6]]), cache=past).logits

    torch._dynamo.reset()
    with torch.no_grad():
        expected = step(model)
        compiled = torch.compile(model, backend="eager", fullgraph=True)
        assert torch.allclose(step(compiled), expected, atol=1e-5)
        model.gated_cross_attention.gates.data.zero_()
        assert torch.allclose(step(compiled), step(model), atol=1e-5)
        assert not torch.allclose(step(compiled), expected, atol=1e-3)
