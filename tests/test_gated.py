"""Test models with `fusion="gated"`: closed gates change nothing, open gates read the question."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForSeq2SeqLM

from crosstask import CrossTaskForConditionalGeneration
from crosstask.generation_crosstask import CACHE_ARGUMENT

PAIRS = [
    ("t5", "t5"),
    ("bart", "bert"),
    ("led", "bert"),
    ("pegasus", "t5"),
    ("t5gemma", "bert"),
    ("mt5", "roberta"),
]
SETTINGS = {"max_new_tokens": 8}
DECODING = {
    "greedy": {},
    "beams": {"num_beams": 3, "num_return_sequences": 2},
    "sampling": {"do_sample": True, "num_return_sequences": 2},
    "no cache": {"use_cache": False},
}


@pytest.fixture(params=PAIRS, ids="-".join)
def model(request, make_model):
    return make_model(*request.param, fusion="gated")


@pytest.fixture
def make_question_inputs(make_inputs):
    """Return `make_question_inputs(model, **settings)`: inputs for both parts, without labels."""

    def make(model, **settings):
        batch = make_inputs(model, **settings)
        del batch["labels"]
        random = torch.Generator().manual_seed(5)
        question = torch.randint(3, 99, (len(batch["input_ids"]), 6), generator=random)
        return batch | {"question_input_ids": question, "question_attention_mask": torch.ones_like(question)}

    return make


def open_gates(model):
    model.gated_cross_attention.gates.data = torch.tensor([1.0, 0.5])
    return model


def select_source(inputs):
    return {name: inputs[name] for name in ("input_ids", "attention_mask")}


@pytest.mark.parametrize("decoding", DECODING)
def test_closed_gates_leave_generation_to_the_summarizer(model, make_question_inputs, decoding):
    batch = make_question_inputs(model)
    torch.manual_seed(0)
    expected = model.summarizer.generate(**select_source(batch), **SETTINGS, **DECODING[decoding])
    torch.manual_seed(0)
    assert torch.equal(model.generate(**batch, **SETTINGS, **DECODING[decoding]), expected)


def test_open_gates_let_the_question_change_the_logits(model, make_question_inputs):
    batch = make_question_inputs(open_gates(model))
    labels = torch.randint(3, 99, (2, 5))
    logits = model(**batch, labels=labels).logits
    other = model(**batch | {"question_input_ids": batch["question_input_ids"].flip(1)}, labels=labels).logits
    assert (logits - other).abs().max() > 1e-4


def test_gated_generation_with_a_cache_equals_generation_without(model, make_question_inputs):
    batch = make_question_inputs(open_gates(model))
    for decoding in ({}, {"num_beams": 3}):
        output = model.generate(**batch, **SETTINGS, **decoding)
        assert torch.equal(output, model.generate(**batch, **SETTINGS, **decoding, use_cache=False))


def test_gated_generation_of_a_batch_equals_that_of_its_rows(model, make_question_inputs):
    batch = make_question_inputs(open_gates(model), batch_size=3)
    output = model.generate(**batch, **SETTINGS, num_beams=2, return_dict_in_generate=True)
    for row in range(3):
        alone = {name: value[row : row + 1] for name, value in batch.items()}
        one = model.generate(**alone, **SETTINGS, num_beams=2, return_dict_in_generate=True)
        length = min(one.sequences.shape[1], output.sequences.shape[1])
        assert torch.equal(one.sequences[0, :length], output.sequences[row, :length])
        assert torch.allclose(one.answerability, output.answerability[row : row + 1], atol=1e-4)


def test_answerability_head_reads_the_gated_states(model, make_question_inputs):
    batch = make_question_inputs(open_gates(model))
    written = model.generate(**batch, **SETTINGS, return_dict_in_generate=True)
    ids = written.sequences
    answerability = model.score_answerability(summary_ids=ids, **batch)
    assert torch.allclose(answerability, written.answerability, atol=1e-5)
    pad = model.config.pad_token_id
    output = model(
        **batch, labels=ids[:, 1:].masked_fill(ids[:, 1:] == pad, -100), decoder_input_ids=ids[:, :-1]
    )
    assert torch.allclose(output.answerability_logits.softmax(-1)[:, 1], answerability, atol=1e-5)
    model.gated_cross_attention.gates.data.zero_()
    assert not torch.allclose(model.score_answerability(summary_ids=ids, **batch), answerability, atol=1e-6)


def test_question_encoder_runs_once_per_gated_generation(make_model, make_question_inputs):
    model = open_gates(make_model("t5", "bert", fusion="gated"))
    calls = []
    model.question_encoder.register_forward_hook(lambda *_: calls.append(1))
    model.generate(**make_question_inputs(model), **SETTINGS, num_beams=2, return_dict_in_generate=True)
    assert len(calls) == 1


def test_gated_fusion_attentions(make_model, make_question_inputs):
    model = open_gates(make_model("t5", "bert", fusion="gated", seed=1))
    labels = torch.randint(3, 99, (2, 5))
    output = model(**make_question_inputs(model), labels=labels, output_attentions=True)
    assert output.fusion_attentions.shape == (2, 4, 5, 6)
    assert model(**make_question_inputs(model), labels=labels).fusion_attentions is None


def test_gated_model_needs_the_question(make_model, make_question_inputs):
    model = make_model("t5", "t5", fusion="gated")
    encoded = model.get_encoder()(make_question_inputs(model)["input_ids"])
    with pytest.raises(ValueError, match="writes with the question encoder: give `input_ids`"):
        model(encoder_outputs=encoded, decoder_input_ids=torch.zeros(2, 1, dtype=torch.long))
    with pytest.raises(ValueError, match="writes with the question encoder"):
        model.generate(encoder_outputs=encoded, **SETTINGS)


def test_gated_model_needs_a_question_for_each_input(model, make_question_inputs):
    batch = make_question_inputs(model)
    one = batch | {name: batch[name][:1] for name in ("question_input_ids", "question_attention_mask")}
    for call in (
        lambda: model.generate(**one, **SETTINGS),
        lambda: model(**one, labels=torch.ones(2, 3, dtype=torch.long)),
        lambda: model.score_answerability(**one, summary_ids=torch.ones(2, 3, dtype=torch.long)),
    ):
        with pytest.raises(ValueError, match="The batch sizes differ: 2 inputs and 1 questions"):
            call()
    encoded = model.get_encoder()(**select_source(batch))
    with pytest.raises(ValueError, match="The batch sizes differ: 2 inputs and 1 questions"):
        model.generate(encoder_outputs=encoded, question_input_ids=one["question_input_ids"], **SETTINGS)


def test_question_key_values_as_an_argument(make_model, make_question_inputs):
    model = open_gates(make_model("t5", "bert", fusion="gated"))
    batch = make_question_inputs(model)
    labels = torch.randint(3, 99, (2, 5))
    expected = model(**batch, labels=labels)
    question = model.question_encoder(batch["question_input_ids"])[0]
    arguments = {
        "decoder_question_key_values": model.gated_cross_attention.project_question(question),
        "labels": labels,
    }
    for mask in (None, batch["question_attention_mask"], batch["question_attention_mask"].bool()):
        output = model(**select_source(batch), **arguments, decoder_question_mask=mask)
        assert torch.allclose(output.logits, expected.logits, atol=1e-5)
    with pytest.raises(ValueError, match="nor `decoder_question_key_values`"):
        model(**batch, **arguments, answerable=torch.tensor([1, 0]))


def test_gated_generation_with_a_static_cache_and_left_padding(make_model, make_question_inputs):
    model = open_gates(make_model("t5", "bert", fusion="gated"))
    batch = make_question_inputs(model)
    expected = model.generate(**batch, **SETTINGS)
    assert torch.equal(
        model.generate(**batch, **SETTINGS, cache_implementation="static", disable_compile=True), expected
    )
    padded = {
        name: torch.cat([torch.zeros(2, 3, dtype=torch.long), batch[name]], 1)
        for name in ("question_input_ids", "question_attention_mask")
    }
    # The states are padded, not the input of BERT, which has absolute positions.
    question = model.question_encoder(batch["question_input_ids"], batch["question_attention_mask"])[0]
    states = torch.cat([torch.randn(2, 3, 24), question], 1)
    output = model.generate(
        **select_source(batch),
        question_encoder_outputs=(states,),
        question_attention_mask=padded["question_attention_mask"],
        **SETTINGS,
    )
    assert torch.equal(output, expected)


def test_gated_model_is_saved_and_loaded(make_model, make_question_inputs, tmp_path):
    model = open_gates(make_model("t5", "bert", fusion="gated"))
    model.save_pretrained(tmp_path)
    loaded = AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
    batch = make_question_inputs(model)
    assert torch.equal(loaded.generate(**batch, **SETTINGS), model.generate(**batch, **SETTINGS))
    assert torch.equal(loaded.gated_cross_attention.gates, model.gated_cross_attention.gates)


def test_every_weight_of_the_gated_cross_attention_has_a_gradient(make_model, make_question_inputs):
    model = open_gates(make_model("t5", "bert", fusion="gated")).train()
    model.gradient_checkpointing_enable()
    labels = torch.randint(3, 99, (2, 5))
    model(**make_question_inputs(model), labels=labels, answerable=torch.tensor([1, 0])).loss.backward()
    for name, parameter in model.gated_cross_attention.named_parameters():
        # A bias of the keys shifts all scores of a row by the same amount, which softmax ignores.
        assert parameter.grad is not None and (parameter.grad.abs().sum() > 0 or name == "k_proj.bias"), name
    assert model.question_encoder.get_input_embeddings().weight.grad.abs().sum() > 0


def test_gates_of_a_composed_model_are_closed(make_part, tmp_path):
    torch.manual_seed(0)
    for name in ("summarizer", "answerer"):
        AutoModelForSeq2SeqLM.from_config(make_part("t5")).save_pretrained(tmp_path / name)
    model = CrossTaskForConditionalGeneration.from_tasks(
        tmp_path / "summarizer", tmp_path / "answerer", fusion="gated", fusion_num_heads=4
    )
    assert (model.gated_cross_attention.gates == 0).all()
    assert model.gated_cross_attention.q_proj.weight.std() > 0


def test_adapter_with_its_own_gated_cross_attention(make_model, make_question_inputs, tmp_path):
    make_model("t5", "t5", fusion="gated").save_pretrained(tmp_path / "base")
    base = CrossTaskForConditionalGeneration.from_pretrained(tmp_path / "base")
    config = LoraConfig(
        r=2,
        target_modules=["q", "v"],
        modules_to_save=["answerability_head", "gated_cross_attention"],
        exclude_modules=r"(answerability_head|gated_cross_attention)\..*",
    )
    adapted = get_peft_model(base, config).eval()
    open_gates(adapted.base_model.model)
    adapted.save_pretrained(tmp_path / "adapter")
    batch = select_source(make_question_inputs(base))
    expected = adapted.generate(**batch, **SETTINGS)
    fresh = CrossTaskForConditionalGeneration.from_pretrained(tmp_path / "base")
    before = fresh.generate(**batch, **SETTINGS)
    fresh.load_adapter(tmp_path / "adapter")
    assert torch.equal(fresh.generate(**batch, **SETTINGS), expected)
    fresh.disable_adapters()
    assert torch.equal(fresh.generate(**batch, **SETTINGS), before)


@pytest.mark.parametrize("question_encoder", ["t5", "bert"])
def test_gated_model_compiles(make_model, make_question_inputs, question_encoder):
    model = open_gates(make_model("t5", question_encoder, fusion="gated"))
    batch = make_question_inputs(model) | {"labels": torch.randint(3, 99, (2, 5))}
    torch._dynamo.reset()
    with torch.no_grad():
        output = torch.compile(model, backend="eager", fullgraph=True)(**batch)
        expected = model(**batch)
    assert torch.allclose(output.logits, expected.logits, atol=1e-5)
    assert torch.allclose(output.answerability_logits, expected.answerability_logits, atol=1e-5)


def test_gated_decoding_step_compiles(make_model, make_question_inputs):
    model = open_gates(make_model("t5", "bert", fusion="gated"))
    batch = make_question_inputs(model)
    question = model.question_encoder(batch["question_input_ids"], batch["question_attention_mask"])[0]
    encoded = model.get_encoder()(**select_source(batch))
    arguments = {"attention_mask": batch["attention_mask"], "encoder_outputs": encoded, "use_cache": True}
    arguments |= {
        "decoder_question_key_values": model.gated_cross_attention.project_question(question).detach(),
        "decoder_question_mask": batch["question_attention_mask"].bool(),
    }

    def step(function):
        past = model(**arguments, decoder_input_ids=torch.tensor([[0], [0]]))[CACHE_ARGUMENT]
        return function(**arguments, decoder_input_ids=torch.tensor([[5], [6]]), cache=past).logits

    torch._dynamo.reset()
    with torch.no_grad():
        expected = step(model)
        compiled = torch.compile(model, backend="eager", fullgraph=True)
        assert torch.allclose(step(compiled), expected, atol=1e-5)
        model.gated_cross_attention.gates.data.zero_()
        assert torch.allclose(step(compiled), step(model), atol=1e-5)
        assert not torch.allclose(step(compiled), expected, atol=1e-3)
