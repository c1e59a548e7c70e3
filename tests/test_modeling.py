"""Test the model: families of parts, answerability, losses, and inputs of the forward pass."""

import copy

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForSeq2SeqLM, BertConfig, BlenderbotConfig, M2M100Config

from crosstask import CrossTaskConfig, CrossTaskForConditionalGeneration
from crosstask.configuration_crosstask import FUSIONS, IGNORE_INDEX
from crosstask.generation_crosstask import CACHE_ARGUMENT
from crosstask.modeling_crosstask import check_answerable, shift_tokens_right

SUMMARIZERS = ("t5", "mt5", "umt5", "bart", "pegasus", "led", "t5gemma")
QUESTION_ENCODERS = ("t5", "bart", "t5gemma", "bert", "roberta")
PAIRS = [(s, "bert") for s in SUMMARIZERS] + [("t5", q) for q in QUESTION_ENCODERS if q != "bert"]
ANSWERABLE = torch.tensor([1, 0])


def get_probability(output):
    return output.answerability_logits.softmax(-1)[:, 1]


def to_labels(sequences, pad):
    """Convert summaries from the form that `generate` returns to labels."""
    labels = sequences[:, 1:].clone()
    labels[labels == pad] = -100
    return labels


@pytest.mark.parametrize(("summarizer", "question_encoder"), PAIRS)
def test_model_of_every_family(make_model, make_inputs, summarizer, question_encoder, tmp_path):
    model = make_model(summarizer, question_encoder)
    inputs = make_inputs(model)
    output = model.train()(**inputs, answerable=ANSWERABLE)
    output.loss.backward()
    unused = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    # LED has weights that only its global attention uses.
    assert not [name for name in unused if "_global." not in name]
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    model.eval().zero_grad()

    with torch.no_grad():
        output = model(**inputs, answerable=ANSWERABLE)
        sources = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        sequences = model.generate(**sources, max_new_tokens=6)
        assert torch.equal(sequences, model.summarizer.generate(**sources, max_new_tokens=6))
        beams = {"max_new_tokens": 6, "num_beams": 3, "num_return_sequences": 2}
        generated = model.generate(**sources, **beams, return_dict_in_generate=True)
        assert torch.equal(generated.sequences, model.summarizer.generate(**sources, **beams))
        scored = model.score_answerability(**sources, summary_ids=generated.sequences)
        double = {name: value.repeat_interleave(2, 0) for name, value in sources.items()}
        doubled = model(**double, labels=to_labels(generated.sequences, model.config.pad_token_id))
    assert generated.answerability.shape == (4,)
    assert torch.allclose(generated.answerability, scored, atol=1e-5)
    assert torch.allclose(generated.answerability, get_probability(doubled), atol=1e-5)

    model.save_pretrained(tmp_path)
    loaded, info = CrossTaskForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    with torch.no_grad():
        again = loaded.eval()(**inputs, answerable=ANSWERABLE)
    assert torch.equal(again.logits, output.logits)
    assert torch.equal(again.answerability_logits, output.answerability_logits)


@pytest.mark.parametrize("config_class", [BlenderbotConfig, M2M100Config])
def test_families_without_a_method_that_shifts_labels(make_part, make_model, make_inputs, config_class):
    settings = make_part("bart").to_diff_dict()
    names = ("d_model", "encoder_layers", "decoder_layers", "vocab_size", "max_position_embeddings")
    settings = {name: settings[name] for name in names} | {"encoder_ffn_dim": 37, "decoder_ffn_dim": 37}
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4}
    model = make_model(config_class(**settings, **heads), "bert")
    inputs = make_inputs(model)
    with torch.no_grad():
        output = model(**inputs, answerable=ANSWERABLE)
        assert torch.allclose(output.summary_loss, model.summarizer(**inputs).loss, atol=1e-5)
        inputs.pop("labels")
        written = model.generate(**inputs, max_new_tokens=6, return_dict_in_generate=True)
        output = model(**inputs, labels=to_labels(written.sequences, model.config.pad_token_id))
    assert torch.allclose(get_probability(output), written.answerability, atol=1e-5)


@pytest.fixture(scope="module")
def shared_model(make_model):
    """Return a model that tests must not change."""
    return make_model("t5", "t5")


@pytest.fixture
def inputs(shared_model, make_inputs):
    return make_inputs(shared_model)


@pytest.fixture
def sources(inputs):
    return {name: inputs[name] for name in ("input_ids", "attention_mask")}


@pytest.fixture(scope="module")
def two_vocabulary_model(make_model):
    """Return a model whose two parts have different vocabularies and hidden sizes."""
    small = {"num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 20}
    return make_model("t5", BertConfig(vocab_size=50, hidden_size=16, **small))


# Answerability.


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"num_beams": 4, "num_return_sequences": 3},
        {"do_sample": True, "num_return_sequences": 3},
        {"do_sample": True, "num_beams": 2},
        {"min_new_tokens": 8},  # no summary has an end
    ],
)
def test_generate_score_and_forward_give_the_same_probability(shared_model, sources, settings):
    model = copy.deepcopy(shared_model)
    model.summarizer.lm_head.weight.data[1] *= 3  # makes summaries end early and with unequal lengths
    torch.manual_seed(0)
    generated = model.generate(**sources, **settings, max_new_tokens=8, return_dict_in_generate=True)
    count = len(generated.sequences) // 2
    scored = model.score_answerability(**sources, summary_ids=generated.sequences)
    repeated = {name: value.repeat_interleave(count, 0) for name, value in sources.items()}
    output = get_probability(model(**repeated, labels=to_labels(generated.sequences, 0)))
    assert torch.allclose(generated.answerability, scored, atol=1e-6)
    assert torch.allclose(scored, output, atol=1e-6)


@pytest.mark.parametrize(
    "summaries",
    [
        [[0, 5, 6, 1, 0, 0], [0, 7, 8, 9, 10, 1]],  # of unequal length
        [[0, 5, 6, 7, 8, 9], [0, 7, 1, 0, 0, 0]],  # one that never ends
        [[0, 5, 0, 7, 1, 0], [0, 0, 8, 9, 1, 0]],  # padding inside
        [[0, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]],  # empty
    ],
)
def test_forward_with_labels_equals_score_answerability(shared_model, sources, summaries):
    summaries = torch.tensor(summaries)
    scored = shared_model.score_answerability(**sources, summary_ids=summaries)
    for labels in (summaries[:, 1:], to_labels(summaries, 0)):
        assert torch.allclose(get_probability(shared_model(**sources, labels=labels)), scored, atol=1e-6)


def test_forward_with_decoder_inputs_equals_forward_with_labels(shared_model, inputs):
    expected = shared_model(**inputs)
    labels = inputs.pop("labels")
    decoder_ids = shared_model.prepare_decoder_input_ids_from_labels(labels)
    mask = (labels != -100).long()
    output = shared_model(**inputs, decoder_input_ids=decoder_ids, decoder_attention_mask=mask)
    assert torch.allclose(output.answerability_logits, expected.answerability_logits, atol=1e-6)
    embeds = shared_model.get_decoder().embed_tokens(decoder_ids)
    output = shared_model(**inputs, decoder_inputs_embeds=embeds, decoder_attention_mask=mask)
    assert torch.allclose(output.answerability_logits, expected.answerability_logits, atol=1e-6)


def test_a_batch_equals_its_rows(shared_model, make_inputs):
    inputs = make_inputs(shared_model, batch_size=3, length=12)
    answerable = torch.tensor([1, 0, 1])
    batch = shared_model(**inputs, answerable=answerable)
    for row in range(3):
        length, summary = inputs["attention_mask"][row].sum(), (inputs["labels"][row] != -100).sum()
        alone = shared_model(
            input_ids=inputs["input_ids"][row : row + 1, :length],  # without a mask: nothing is padded
            labels=inputs["labels"][row : row + 1, :summary],
        )
        assert torch.allclose(alone.logits[0], batch.logits[row, :summary], atol=1e-5)
        assert torch.allclose(alone.answerability_logits[0], batch.answerability_logits[row], atol=1e-5)


def test_padding_side_of_the_source_does_not_change_the_outputs(shared_model, inputs, sources):
    right = shared_model(**inputs)
    shift = 10 - int(inputs["attention_mask"][1].sum())
    left = {name: value.clone() for name, value in sources.items()}
    for value in left.values():
        value[1] = value[1].roll(shift)
    output = shared_model(**left, labels=inputs["labels"])
    assert torch.allclose(output.logits, right.logits, atol=1e-5)
    assert torch.allclose(output.answerability_logits, right.answerability_logits, atol=1e-5)
    first, second = (
        shared_model.generate(**batch, max_new_tokens=6, return_dict_in_generate=True)
        for batch in (sources, left)
    )
    assert torch.equal(first.sequences, second.sequences)
    assert torch.allclose(first.answerability, second.answerability, atol=1e-6)


def test_padding_of_labels_does_not_change_the_outputs(shared_model, inputs):
    expected = shared_model(**inputs, answerable=ANSWERABLE)
    inputs["labels"] = F.pad(inputs["labels"], (0, 5), value=-100)
    output = shared_model(**inputs, answerable=ANSWERABLE)
    assert torch.allclose(output.loss, expected.loss, atol=1e-6)
    assert torch.allclose(output.answerability_logits, expected.answerability_logits, atol=1e-6)


def test_tokens_after_the_end_do_not_change_the_answerability(shared_model, sources):
    ended = torch.tensor([[0, 5, 6, 1, 0, 0], [0, 7, 8, 9, 1, 0]])
    longer = torch.tensor([[0, 5, 6, 1, 40, 41], [0, 7, 8, 9, 1, 42]])
    first, second = (shared_model.score_answerability(**sources, summary_ids=ids) for ids in (ended, longer))
    assert torch.allclose(first, second, atol=1e-6)
    longer[0, 2] = 50
    assert not torch.allclose(
        first, shared_model.score_answerability(**sources, summary_ids=longer), atol=1e-4
    )


def test_answerability_depends_on_question_and_summary(two_vocabulary_model, make_inputs):
    inputs = make_inputs(two_vocabulary_model)
    questions = torch.tensor([[5, 6, 7], [8, 9, 10]])
    first = two_vocabulary_model(**inputs, question_input_ids=questions)
    second = two_vocabulary_model(**inputs, question_input_ids=questions + 20)
    assert torch.equal(first.logits, second.logits)
    assert (get_probability(first) - get_probability(second)).abs().min() > 1e-4
    inputs["labels"] = inputs["labels"].where(inputs["labels"] < 3, inputs["labels"] - 1)
    third = two_vocabulary_model(**inputs, question_input_ids=questions)
    assert (get_probability(first) - get_probability(third)).abs().min() > 1e-5


def test_question_mask(two_vocabulary_model, make_inputs):
    inputs = make_inputs(two_vocabulary_model)
    questions = torch.tensor([[5, 6, 7, 8], [8, 9, 0, 0]])
    mask = (questions != 0).long()
    output = two_vocabulary_model(**inputs, question_input_ids=questions, question_attention_mask=mask)
    alone = two_vocabulary_model(
        **{name: value[1:] for name, value in inputs.items()}, question_input_ids=torch.tensor([[8, 9]])
    )
    assert torch.allclose(output.answerability_logits[1], alone.answerability_logits[0], atol=1e-5)


def test_generation_with_a_question_in_another_vocabulary(two_vocabulary_model, make_inputs):
    inputs = make_inputs(two_vocabulary_model)
    labels = inputs.pop("labels")
    questions = {
        "question_input_ids": torch.tensor([[5, 6, 7], [8, 9, 0]]),
        "question_attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]]),
    }
    settings = {"max_new_tokens": 5, "num_beams": 2, "num_return_sequences": 2}
    output = two_vocabulary_model.generate(**inputs, **questions, **settings, return_dict_in_generate=True)
    scored = two_vocabulary_model.score_answerability(**inputs, **questions, summary_ids=output.sequences)
    assert torch.allclose(output.answerability, scored, atol=1e-6)
    encoded = two_vocabulary_model.question_encoder(
        input_ids=questions["question_input_ids"], attention_mask=questions["question_attention_mask"]
    )
    encoder_outputs = {
        "question_encoder_outputs": encoded,
        "question_attention_mask": questions["question_attention_mask"],
    }
    again = two_vocabulary_model.generate(
        **inputs, **encoder_outputs, **settings, return_dict_in_generate=True
    )
    assert torch.allclose(again.answerability, scored, atol=1e-6)
    # `Trainer` passes labels, too. Without `return_dict_in_generate` no question is needed.
    sequences = two_vocabulary_model.generate(
        **inputs, **questions, labels=labels, answerable=ANSWERABLE, **settings
    )
    assert torch.equal(sequences, output.sequences) and torch.equal(
        two_vocabulary_model.generate(**inputs, **settings), sequences
    )


def test_question_encoder_outputs_of_every_type(two_vocabulary_model, make_inputs):
    inputs = make_inputs(two_vocabulary_model)
    questions = torch.tensor([[5, 6, 7], [8, 9, 10]])
    expected = two_vocabulary_model(**inputs, question_input_ids=questions).answerability_logits
    encoded = two_vocabulary_model.question_encoder(input_ids=questions)
    for outputs in (encoded, tuple(encoded.values())[:1], [encoded[0]]):
        output = two_vocabulary_model(**inputs, question_encoder_outputs=outputs)
        assert torch.allclose(output.answerability_logits, expected, atol=1e-6)


# Losses.


def test_joint_loss_equals_its_formula(make_model, make_inputs):
    model = make_model("bart", "bert", answerability_weight=0.25)
    inputs = make_inputs(model)
    output = model(**inputs, answerable=ANSWERABLE)
    total, count = 0.0, 0
    for row, labels in zip(output.logits.log_softmax(-1), inputs["labels"], strict=True):
        for position, label in zip(row, labels, strict=True):
            if label != -100:
                total, count = total - position[label], count + 1
    log_probs = output.answerability_logits.log_softmax(-1)
    assert torch.allclose(output.summary_loss, total / count, atol=1e-5)
    assert torch.allclose(output.answerability_loss, -(log_probs[0, 1] + log_probs[1, 0]) / 2, atol=1e-6)
    assert torch.allclose(output.loss, output.summary_loss + 0.25 * output.answerability_loss)
    # The summarizer computes the same loss.
    assert torch.allclose(model.summarizer(**inputs).loss, output.summary_loss, atol=1e-6)


def test_rows_without_a_label_do_not_count(shared_model, inputs):
    both = shared_model(**inputs, answerable=torch.tensor([1, -100]))
    first = shared_model(**{k: v[:1] for k, v in inputs.items()}, answerable=torch.tensor([1]))
    assert torch.allclose(both.answerability_loss, first.answerability_loss, atol=1e-6)
    none = shared_model(**inputs, answerable=torch.tensor([-100, -100]))
    assert none.answerability_loss == 0 and torch.equal(none.loss, none.summary_loss)
    nothing = shared_model(**inputs | {"labels": torch.full((2, 7), -100)}, answerable=ANSWERABLE)
    assert nothing.summary_loss == 0 and nothing.answerability_loss.isfinite()


def test_losses_without_labels_are_none(shared_model, inputs):
    output = shared_model(**inputs)
    assert output.answerability_loss is None and torch.equal(output.loss, output.summary_loss)
    labels = inputs.pop("labels")
    decoder_ids = shared_model.prepare_decoder_input_ids_from_labels(labels)
    output = shared_model(**inputs, decoder_input_ids=decoder_ids)
    assert output.loss is None and output.summary_loss is None
    output = shared_model(**inputs, decoder_input_ids=decoder_ids, answerable=ANSWERABLE)
    assert output.summary_loss is None and torch.equal(output.loss, output.answerability_loss)


def test_summary_loss_on_answerable_rows_only(make_model, make_inputs):
    model = make_model(summary_loss_on="answerable")
    inputs = make_inputs(model, batch_size=3)
    output = model(**inputs, answerable=torch.tensor([0, 1, -100]))
    alone = model(**{k: v[1:2] for k, v in inputs.items()})
    assert torch.allclose(output.summary_loss, alone.summary_loss, atol=1e-6)
    everyone = model(**inputs)
    assert torch.allclose(everyone.summary_loss, model.summarizer(**inputs).loss, atol=1e-6)
    none = model(**inputs, answerable=torch.tensor([0, 0, -100]))
    assert none.summary_loss == 0
    none.loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_answerability_weight_of_zero(make_model, make_inputs):
    model = make_model(answerability_weight=0.0)
    output = model(**make_inputs(model), answerable=ANSWERABLE)
    assert torch.equal(output.loss, output.summary_loss) and output.answerability_loss > 0


def test_fusion_attentions(make_model, make_inputs):
    model = make_model("t5", "bert")
    model.set_attn_implementation("eager")
    inputs = make_inputs(model, length=10, summary_length=7)
    attentions = model(**inputs, output_attentions=True).fusion_attentions
    assert attentions.shape == (2, 4, 10, 7)
    assert torch.allclose(attentions.sum(-1), torch.ones(2, 4, 10))
    padding = inputs["labels"] == -100
    assert padding.any() and (attentions.movedim(3, 1)[padding] == 0).all()
    assert model(**inputs).fusion_attentions is None


@pytest.mark.parametrize("labels", [[0, 1, IGNORE_INDEX], [1, 1, 1], [True, False, True]])
def test_check_answerable_accepts_labels(labels):
    check_answerable(torch.tensor(labels), 3)


@pytest.mark.parametrize("labels", [[0, 1, 2], [-1, 0, 0], [0.0, 1.0, 1.0], [1, 0], [[1], [0], [1]], 1])
def test_check_answerable_rejects_other_values(labels):
    with pytest.raises(ValueError, match="`answerable` has to be 1, 0 or -100 for each of the 3 rows"):
        check_answerable(torch.tensor(labels), 3)


# Encoder inputs and outputs.


@pytest.mark.parametrize("summarizer", ["t5", "bart", "led", "t5gemma"])
def test_encoder_outputs(make_model, make_inputs, summarizer):
    model = make_model(summarizer, "bert")
    inputs = make_inputs(model)
    expected = model(**inputs)
    encoded = model.get_encoder()(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
    for outputs in (encoded, (encoded[0],), [encoded[0]]):
        output = model(**inputs, encoder_outputs=outputs)
        assert torch.allclose(output.logits, expected.logits, atol=1e-6)
        assert torch.allclose(output.answerability_logits, expected.answerability_logits, atol=1e-6)
    summaries = torch.tensor([[2, 5, 6, 7], [2, 8, 9, 10]])
    scores = [
        model.score_answerability(
            inputs["input_ids"], inputs["attention_mask"], summaries, encoder_outputs=outputs
        )
        for outputs in (None, encoded, (encoded[0],))
    ]
    assert torch.allclose(scores[0], scores[1]) and torch.allclose(scores[0], scores[2])


def test_inputs_embeds(shared_model, inputs):
    expected = shared_model(**inputs)
    embeds = shared_model.get_input_embeddings()(inputs["input_ids"])
    ids = inputs.pop("input_ids")
    output = shared_model(inputs_embeds=embeds, **inputs)
    assert torch.allclose(output.logits, expected.logits, atol=1e-6)
    assert output.answerability_logits is None  # the question encoder has no input
    output = shared_model(
        inputs_embeds=embeds,
        question_input_ids=ids,
        question_attention_mask=inputs["attention_mask"],
        **inputs,
    )
    assert torch.allclose(output.answerability_logits, expected.answerability_logits, atol=1e-6)
    inputs.pop("labels")
    generated = shared_model.generate(inputs_embeds=embeds, **inputs, max_new_tokens=3)
    assert torch.equal(generated, shared_model.generate(ids, **inputs, max_new_tokens=3))


@pytest.mark.parametrize("name", ["past_key_values", "cache"])
@pytest.mark.parametrize("summarizer", ["t5", "bart", "t5gemma"])
def test_forward_step_by_step_equals_one_pass(make_model, make_inputs, summarizer, name):
    model = make_model(summarizer, "bert")
    inputs = make_inputs(model)
    decoder_ids = model.prepare_decoder_input_ids_from_labels(inputs.pop("labels"))
    expected = model(**inputs, decoder_input_ids=decoder_ids)
    past, steps = None, []
    for step in range(decoder_ids.shape[1]):
        output = model(
            **inputs, decoder_input_ids=decoder_ids[:, step : step + 1], use_cache=True, **{name: past}
        )
        past = output[CACHE_ARGUMENT]
        steps.append(output.logits)
        # The fusion reads the complete summary: there is no answerability from the second step on.
        assert (output.answerability_logits is None) == (step > 0)
    assert torch.allclose(torch.cat(steps, 1), expected.logits, atol=1e-5)
    with pytest.raises(ValueError, match="^`cache` and `past_key_values` are two names of one argument"):
        model(**inputs, decoder_input_ids=decoder_ids, cache=past, past_key_values=past)


def test_batch_of_one(shared_model, inputs):
    one = {name: value[:1] for name, value in inputs.items()}
    assert shared_model(**one, answerable=torch.tensor([1])).answerability_logits.shape == (1, 2)
    labels = one.pop("labels")
    output = shared_model.generate(**one, max_new_tokens=3, return_dict_in_generate=True)
    assert output.answerability.shape == (1,)
    short = shared_model(input_ids=one["input_ids"][:, :1], labels=labels[:, :1])
    assert short.answerability_logits.isfinite().all()


def test_labels_are_shifted_as_in_transformers(make_config, make_part):
    labels = torch.tensor([[5, 6, 1, IGNORE_INDEX], [7, 1, 0, 0]])
    expected = AutoModelForSeq2SeqLM.from_config(make_part("t5")).prepare_decoder_input_ids_from_labels(
        labels
    )
    assert torch.equal(shift_tokens_right(labels, make_config()), expected)
    with pytest.raises(ValueError, match="`labels` need `decoder_input_ids`, or `decoder_start_token_id`"):
        shift_tokens_right(labels, make_config(pad_token_id=None))


@pytest.mark.parametrize("fusion", FUSIONS)
def test_fusion_parameters_are_all_but_those_of_the_parts(make_model, fusion):
    model = make_model("t5", "bert", fusion=fusion)
    names = {name for name, _ in model.named_parameters() if name.split(".")[0] in model.fusion_modules}
    parts = {
        name for name, _ in model.named_parameters() if name.startswith(("summarizer", "question_encoder"))
    }
    assert names | parts == {name for name, _ in model.named_parameters()} and not names & parts
    assert [id(p) for p in model.fusion_parameters()] == [
        id(p) for name, p in model.named_parameters() if name in names
    ]


# Errors.


def test_forward_rejects_wrong_inputs(two_vocabulary_model, shared_model, inputs, make_inputs):
    with pytest.raises(
        ValueError, match="another vocabulary than the summarizer: `question_input_ids` are needed"
    ):
        two_vocabulary_model(**make_inputs(two_vocabulary_model))
    for labels in ([2, 0], [-1, 0], [0.5, 1.0], [1]):
        with pytest.raises(ValueError, match="`answerable` has to be 1, 0 or -100 for each of the 2 rows"):
            shared_model(**inputs, answerable=torch.tensor(labels))
    embeds = shared_model.get_input_embeddings()(inputs.pop("input_ids"))
    with pytest.raises(ValueError, match="`answerable` needs the question encoder"):
        shared_model(inputs_embeds=embeds, **inputs, answerable=ANSWERABLE)


def test_model_needs_both_parts(make_part):
    for config in (CrossTaskConfig(), CrossTaskConfig(make_part("t5"))):
        with pytest.raises(ValueError, match="needs both `summarizer` and `question_encoder`"):
            CrossTaskForConditionalGeneration(config)
