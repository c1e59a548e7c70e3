"""Test generation: masks, outputs of `generate`, scoring of summaries, and reranking of candidates."""

import copy
import threading

import pytest
import torch
from transformers import CompileConfig, GenerationConfig

from crosstask.configuration_crosstask import FUSIONS, IGNORE_INDEX
from crosstask.generation_crosstask import (
    CACHE_ARGUMENT,
    UNKNOWN_TOKEN,
    get_predicted_ids,
    get_summary_mask,
    infer_attention_mask,
    to_token_id_tensor,
)

EOS, PAD = 1, 0
SHORT = {"max_new_tokens": 6}
BEAMS = {"num_beams": 4, "num_return_sequences": 4}


@pytest.fixture(scope="module")
def shared_model(make_model):
    """Return a model that tests must not change."""
    return make_model("t5", "t5")


@pytest.fixture
def sources(shared_model, make_inputs):
    inputs = make_inputs(shared_model)
    return {name: inputs[name] for name in ("input_ids", "attention_mask")}


def count_calls(module, calls, name):
    return module.register_forward_hook(lambda _, args, output: calls.append((name, len(output[0]))))


# Masks.


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        ([5, 6, EOS, PAD], [1, 1, 1, 0]),
        ([5, 6, EOS, IGNORE_INDEX], [1, 1, 1, 0]),
        ([5, EOS, 7, EOS], [1, 1, 0, 0]),  # nothing after the first end
        ([5, 6, 7, 8], [1, 1, 1, 1]),  # never ends
        ([5, PAD, 7, EOS], [1, 0, 1, 1]),  # padding inside
        ([5, 6, 7, UNKNOWN_TOKEN], [1, 1, 1, 1]),
        ([EOS, PAD, PAD, PAD], [1, 0, 0, 0]),
        ([IGNORE_INDEX] * 4, [1, 0, 0, 0]),  # empty: the first position stays
        ([PAD] * 4, [1, 0, 0, 0]),
    ],
)
def test_summary_mask_ends_with_the_summary(make_config, targets, expected):
    assert get_summary_mask(torch.tensor([targets]), make_config()).int().tolist() == [expected]


def test_summary_mask_with_several_end_tokens_or_none(make_config):
    targets = torch.tensor([[5, 7, 9, 1]])
    config = make_config()
    config.eos_token_id = [1, 7]
    assert get_summary_mask(targets, config).int().tolist() == [[1, 1, 0, 0]]
    config.eos_token_id = None
    assert get_summary_mask(targets, config).int().tolist() == [[1, 1, 1, 1]]
    config.eos_token_id, config.pad_token_id = 7, 7  # padded with the end token: the first one counts
    assert get_summary_mask(torch.tensor([[5, 7, 7, 7]]), config).int().tolist() == [[1, 1, 0, 0]]


def test_predicted_ids_are_the_next_inputs():
    ids = torch.tensor([[0, 5, 6, 1], [0, 8, 1, 0]])
    assert get_predicted_ids(ids).tolist() == [[5, 6, 1, UNKNOWN_TOKEN], [8, 1, 0, UNKNOWN_TOKEN]]
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    assert get_predicted_ids(ids, mask).tolist() == [
        [5, 6, 1, UNKNOWN_TOKEN],
        [8, 1, IGNORE_INDEX, IGNORE_INDEX],
    ]


def test_token_ids_become_tensors():
    assert [to_token_id_tensor(value, "cpu").tolist() for value in (None, 3, [4, 5])] == [[], [3], [4, 5]]


def test_inferred_attention_mask_leaves_out_padding(make_config):
    config = make_config()
    ids = torch.tensor([[5, 6, PAD, EOS]])
    assert infer_attention_mask(ids, config).tolist() == [[1, 1, 0, 1]]
    config.pad_token_id = EOS  # an end token may be padding then, or not
    assert infer_attention_mask(ids, config).tolist() == [[1, 1, 1, 1]]


# Outputs of `generate`.


def test_plain_generation_does_not_run_the_question_encoder(shared_model, sources):
    calls = []
    handle = count_calls(shared_model.question_encoder, calls, "question")
    for settings in ({}, {"num_beams": 2}, {"use_cache": False}, {"cache_implementation": "static"}):
        shared_model.generate(**sources, max_new_tokens=4, **settings)
    handle.remove()
    assert calls == []


def test_encoders_run_once_and_scoring_is_one_decoder_pass(shared_model, sources):
    calls = []
    parts = {
        "question": shared_model.question_encoder,
        "encoder": shared_model.get_encoder(),
        "decoder": shared_model.get_decoder(),
    }
    handles = [count_calls(module, calls, name) for name, module in parts.items()]
    settings = {"max_new_tokens": 5, "min_new_tokens": 5, "num_beams": 3, "num_return_sequences": 3}
    shared_model.generate(**sources, **settings, return_dict_in_generate=True)
    for handle in handles:
        handle.remove()
    assert sorted(call for call in calls if call[0] != "decoder") == [("encoder", 2), ("question", 2)]
    assert calls.count(("decoder", 6)) == 5 + 1


def test_generate_accepts_all_forms_of_inputs(shared_model, sources):
    ids, mask = sources["input_ids"], sources["attention_mask"]
    settings = {"max_new_tokens": 5, "return_dict_in_generate": True}
    expected = shared_model.generate(input_ids=ids, attention_mask=mask, **settings)
    encoded = shared_model.get_encoder()(input_ids=ids, attention_mask=mask)
    config = copy.deepcopy(shared_model.generation_config)
    config.max_new_tokens, config.return_dict_in_generate = 5, True
    outputs = [
        shared_model.generate(ids, **settings),  # the mask derived from the padding
        shared_model.generate(ids, config),
        shared_model.generate(ids, generation_config=config, attention_mask=mask),
        shared_model.generate(**sources, encoder_outputs=encoded, **settings),
    ]
    for output in outputs:
        assert torch.equal(output.sequences, expected.sequences)
        assert torch.allclose(output.answerability, expected.answerability, atol=1e-6)


def test_return_dict_in_the_generation_config(make_model, make_inputs):
    model = make_model()
    ids = make_inputs(model)["input_ids"]
    model.generation_config.return_dict_in_generate = True
    assert model.generate(ids, max_new_tokens=3).answerability.shape == (2,)
    settings = GenerationConfig(max_new_tokens=3, decoder_start_token_id=0)
    output = model.generate(ids, settings)
    assert torch.is_tensor(output) or output.answerability.shape == (2,)
    assert torch.is_tensor(model.generate(ids, max_new_tokens=3, return_dict_in_generate=False))


def test_requested_outputs_equal_the_summarizers(make_model, make_inputs):
    model = make_model("bart", "t5", seed=1)
    model.summarizer.set_attn_implementation("eager")
    sources = make_inputs(model)
    sources.pop("labels")
    output_names = ("output_attentions", "output_hidden_states", "output_scores", "output_logits")
    settings = {"max_new_tokens": 4, "return_dict_in_generate": True} | dict.fromkeys(output_names, True)
    output = model.generate(**sources, **settings)
    expected = model.summarizer.generate(**sources, **settings)
    assert set(output) == {*expected, "answerability"}
    assert len(output.encoder_attentions) == 2 and len(output.encoder_hidden_states) == 3
    assert torch.equal(torch.stack(output.scores), torch.stack(expected.scores))
    assert torch.equal(output.encoder_hidden_states[-1], expected.encoder_hidden_states[-1])


def test_arguments_of_the_summarizer_are_passed_on(make_model, make_inputs):
    model = make_model("led", "t5")
    sources = make_inputs(model)
    labels = sources.pop("labels")
    global_attention = {"global_attention_mask": sources["attention_mask"]}
    settings = {"max_new_tokens": 4, "return_dict_in_generate": True, "output_logits": True}
    expected = model.summarizer.generate(**sources, **global_attention, **settings)
    output = model.generate(**sources, **global_attention, **settings)
    assert torch.equal(torch.stack(output.logits), torch.stack(expected.logits))
    local = model.generate(**sources, **settings)
    assert not torch.allclose(torch.stack(local.logits), torch.stack(expected.logits), atol=1e-5)
    assert model(**sources, **global_attention, labels=labels).logits.isfinite().all()
    with pytest.raises(ValueError, match="max_new_token"):  # a typo
        model.generate(**sources, max_new_token=4)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_passages_longer_than_a_sliding_window(make_model, make_inputs, fusion):
    model = make_model("t5gemma", "bert", fusion=fusion)
    sources = make_inputs(model, length=40)
    sources.pop("labels")
    static = {"cache_implementation": "static", "disable_compile": True}
    for settings in ({}, {"num_beams": 3}, {"use_cache": False}, static):
        output = model.generate(**sources, max_new_tokens=20, **settings, return_dict_in_generate=True)
        expected = model.summarizer.generate(**sources, max_new_tokens=20, **settings)
        assert torch.equal(output.sequences, expected)
        scored = model.score_answerability(**sources, summary_ids=expected)
        assert torch.allclose(output.answerability, scored, atol=1e-5)


@pytest.mark.parametrize("summarizer", ["t5", "bart", "t5gemma"])
def test_static_cache_equals_dynamic_cache(make_model, make_inputs, summarizer):
    model = make_model(summarizer, "bert")
    sources = make_inputs(model)
    sources.pop("labels")
    settings = {"max_new_tokens": 6, "return_dict_in_generate": True}
    dynamic = model.generate(**sources, **settings)
    static = model.generate(**sources, **settings, cache_implementation="static")
    assert torch.equal(dynamic.sequences, static.sequences)
    assert torch.allclose(dynamic.answerability, static.answerability, atol=1e-6)


def test_generation_under_inference_mode(shared_model, sources):
    settings = {"max_new_tokens": 3, "return_dict_in_generate": True}
    expected = shared_model.generate(**sources, **settings)
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            output = shared_model.generate(**sources, **settings)
        assert torch.equal(output.answerability, expected.answerability)
    assert not expected.answerability.requires_grad


def test_calls_from_several_threads_do_not_mix(shared_model, sources):
    expected = shared_model.generate(**sources, max_new_tokens=8, return_dict_in_generate=True)
    failures = []

    def work(scores):
        try:
            for _ in range(8):
                if scores:
                    result = shared_model.score_answerability(**sources, summary_ids=expected.sequences)
                    assert torch.allclose(result, expected.answerability, atol=1e-6)
                else:
                    result = shared_model.generate(**sources, max_new_tokens=8)
                    assert torch.equal(result, expected.sequences)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(index % 2,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_score_answerability_rejects_summaries_that_do_not_fit(shared_model, sources):
    with pytest.raises(ValueError, match="`summary_ids`: expected n rows for each of the 2 inputs, got 3"):
        shared_model.score_answerability(**sources, summary_ids=torch.ones(3, 4, dtype=torch.long))
    for summaries in (None, torch.tensor([0, 5, 1]), torch.tensor([[0], [0]])):
        with pytest.raises(ValueError, match="`summary_ids` have to be a batch as `generate` returns it"):
            shared_model.score_answerability(**sources, summary_ids=summaries)
    with pytest.raises(
        ValueError, match="`input_ids`, `question_input_ids` or `question_encoder_outputs` are needed"
    ):
        shared_model.score_answerability(None, summary_ids=torch.tensor([[0, 5]]))


# Compiled steps.


def test_decoding_step_compiles_into_one_graph(make_model, make_inputs):
    model = make_model("t5", "bert")
    inputs = make_inputs(model)
    encoded = model.get_encoder()(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
    arguments = {"attention_mask": inputs["attention_mask"], "encoder_outputs": encoded, "use_cache": True}
    first, second = torch.tensor([[0], [0]]), torch.tensor([[5], [6]])

    def step(function):
        past = model(**arguments, decoder_input_ids=first)[CACHE_ARGUMENT]
        return function(**arguments, decoder_input_ids=second, cache=past).logits

    torch._dynamo.reset()
    with torch.no_grad():
        compiled = step(torch.compile(model, backend="eager", fullgraph=True))
        assert torch.allclose(compiled, step(model), atol=1e-5)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_generation_compiles_one_graph_for_all_steps(make_model, make_inputs, fusion):
    model = make_model("t5", "t5", fusion=fusion)
    if fusion == "gated":
        model.gated_cross_attention.gates.data.fill_(1.0)
    inputs = make_inputs(model)
    inputs.pop("labels")
    settings = {"max_new_tokens": 6, "return_dict_in_generate": True}
    config = CompileConfig(backend="eager", mode=None, fullgraph=True)
    config._compile_all_devices = True
    torch._dynamo.reset()
    counters = torch._dynamo.utils.counters
    counters.clear()
    for seed in range(3):
        inputs["input_ids"] = make_inputs(model, seed=seed)["input_ids"]
        expected = model.generate(**inputs, **settings)
        output = model.generate(**inputs, **settings, cache_implementation="static", compile_config=config)
        assert torch.equal(output.sequences, expected.sequences)
        assert torch.allclose(output.answerability, expected.answerability, atol=1e-5)
    assert counters["stats"]["unique_graphs"] == 1


def test_generation_with_compiled_parts(make_model, make_inputs):
    model = make_model("t5", "t5", fusion="gated")
    model.gated_cross_attention.gates.data.fill_(1.0)
    inputs = make_inputs(model)
    inputs.pop("labels")
    settings = {"max_new_tokens": 6, "return_dict_in_generate": True}
    expected = model.generate(**inputs, **settings)
    torch._dynamo.reset()
    for part in (model.get_encoder(), model.get_output_embeddings()):
        part.compile(backend="eager")
    output = model.generate(**inputs, **settings)
    assert torch.equal(output.sequences, expected.sequences)
    assert torch.allclose(output.answerability, expected.answerability, atol=1e-5)


# Reranking.


@pytest.fixture(params=[("t5", "t5", "classifier"), ("bart", "bert", "gated")], ids="-".join)
def model(request, make_model):
    summarizer, question_encoder, fusion = request.param
    model = make_model(summarizer, question_encoder, fusion=fusion)
    model.answerability_head.classifier.weight.data *= 3  # so that probabilities differ
    return model


@pytest.fixture
def inputs(model, make_inputs):
    batch = make_inputs(model, batch_size=3)
    del batch["labels"]
    random = torch.Generator().manual_seed(5)
    question = torch.randint(3, 99, (3, 6), generator=random)
    return batch | {"question_input_ids": question, "question_attention_mask": torch.ones_like(question)}


def generate_reranked(model, inputs, weight, **settings):
    settings = SHORT | BEAMS | {"return_dict_in_generate": True} | settings
    return model.generate(**inputs, answerability_rerank=weight, **settings)


@pytest.mark.parametrize("weight", [0, 0.5, 3.0])
def test_candidates_are_sorted_by_rerank_score(model, inputs, weight):
    output = generate_reranked(model, inputs, weight)
    unsorted = model.generate(**inputs, **SHORT, **BEAMS, return_dict_in_generate=True)
    expected = output.summary_log_probs + weight * output.answerability.log()
    assert torch.allclose(output.rerank_scores, expected, atol=1e-5)
    scores = output.rerank_scores.unflatten(0, (3, 4))
    assert (scores[:, :-1] >= scores[:, 1:]).all()
    for row in range(3):
        rows = slice(4 * row, 4 * row + 4)
        assert sorted(output.sequences[rows].tolist()) == sorted(unsorted.sequences[rows].tolist())
    tokens = model.generate(**inputs, **SHORT, **BEAMS, answerability_rerank=weight)
    assert torch.equal(tokens, output.sequences)


def test_all_outputs_are_sorted_alike(model, inputs):
    unsorted = model.generate(**inputs, **SHORT, **BEAMS, return_dict_in_generate=True)
    output = generate_reranked(model, inputs, 1e6)
    assert not torch.equal(output.sequences, unsorted.sequences)
    # The candidates of an input all differ, so that their tokens identify them.
    beams = {
        (row // 4, *ids): indices.tolist()
        for row, (ids, indices) in enumerate(
            zip(unsorted.sequences.tolist(), unsorted.beam_indices, strict=True)
        )
    }
    assert len(beams) == 12
    for row, ids in enumerate(output.sequences.tolist()):
        assert output.beam_indices[row].tolist() == beams[row // 4, *ids]
    assert CACHE_ARGUMENT in unsorted and CACHE_ARGUMENT not in output


def test_rerank_score_consists_of_the_models_probabilities(model, inputs):
    output = generate_reranked(model, inputs, 1.0, suppress_tokens=[model.config.pad_token_id])
    repeated = {name: value.repeat_interleave(4, 0) for name, value in inputs.items()}
    answerability = model.score_answerability(summary_ids=output.sequences, **repeated)
    assert torch.allclose(output.answerability, answerability, atol=1e-5)
    pad, eos = model.config.pad_token_id, model.config.eos_token_id
    for row, sequence in enumerate(output.sequences):
        tokens = sequence[1:]
        ends = (tokens == eos).nonzero()
        tokens = tokens[: ends[0] + 1] if len(ends) else tokens[tokens != pad]
        single = {name: value[row : row + 1] for name, value in repeated.items()}
        ids = torch.cat([sequence[:1], tokens])[None]
        logits = model(**single, decoder_input_ids=ids[:, :-1]).logits
        chosen = logits.log_softmax(-1).gather(-1, ids[:, 1:, None])
        assert output.summary_log_probs[row].item() == pytest.approx(chosen.mean().item(), abs=1e-4)


def test_large_rerank_weight_sorts_by_answerability(model, inputs):
    output = generate_reranked(model, inputs, 1e6)
    probabilities = output.answerability.unflatten(0, (3, 4))
    assert (probabilities[:, :-1] >= probabilities[:, 1:] - 1e-6).all()
    assert (probabilities.max(1).values - probabilities.min(1).values).max() > 1e-3


def test_rerank_of_sampled_candidates_and_of_single_rows(model, inputs):
    torch.manual_seed(0)
    output = generate_reranked(model, inputs, 1.0, num_beams=1, do_sample=True)
    assert len(output.sequences) == 12
    beams = generate_reranked(model, inputs, 1.0)
    single = generate_reranked(model, {name: value[1:2] for name, value in inputs.items()}, 1.0)
    assert torch.allclose(beams.rerank_scores[4:8], single.rerank_scores, atol=1e-4)


@pytest.mark.parametrize(
    "settings, sentence",
    [
        ({"answerability_rerank": -1}, "has to be a finite number of 0 or more, got -1"),
        ({"answerability_rerank": float("nan")}, "has to be a finite number of 0 or more, got nan"),
        ({"answerability_rerank": float("inf")}, "has to be a finite number of 0 or more, got inf"),
        ({"answerability_rerank": "1"}, "has to be a finite number of 0 or more, got '1'"),
        ({"answerability_rerank": [1]}, r"has to be a finite number of 0 or more, got \[1\]"),
        ({"answerability_rerank": True}, "has to be a finite number of 0 or more, got True"),
        (
            {"answerability_rerank": torch.tensor([1.0, 2.0])},
            r"has to be a finite number of 0 or more, got tensor\(\[1., 2.\]\)",
        ),
        ({"answerability_rerank": 1, "num_return_sequences": 1}, "of at least 2, got 1"),
        ({"answerability_rerank": 1, "num_return_sequences": 0}, "of at least 2, got 0"),
        ({"answerability_rerank": 1, "num_return_sequences": None}, "of at least 2, got 1"),
        (
            {"answerability_rerank": 1, "output_scores": True},
            "cannot be used with `output_scores`, which has one entry per decoding step",
        ),
    ],
)
def test_rerank_rejects_settings_that_cannot_be_ranked(model, inputs, settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        model.generate(**inputs, **SHORT | BEAMS | settings)


def test_fusion_attentions_belong_to_the_returned_summaries(model, inputs):
    settings = SHORT | BEAMS | {"return_dict_in_generate": True}
    assert "fusion_attentions" not in model.generate(**inputs, **settings)
    for ranking in ({}, {"answerability_rerank": 2.0}):
        output = model.generate(**inputs, **settings, **ranking, output_fusion_attentions=True)
        ids = output.sequences
        repeated = {name: value.repeat_interleave(4, 0) for name, value in inputs.items()}
        expected = model(
            **repeated, labels=ids[:, 1:].masked_fill(ids[:, 1:] == model.config.pad_token_id, -100)
        )
        assert expected.fusion_attentions is None
        expected = model(**repeated, decoder_input_ids=ids[:, :-1], output_attentions=True).fusion_attentions
        lengths = (ids[:, 1:] != model.config.pad_token_id).sum(1)
        for row, length in enumerate(lengths.tolist()):
            # (heads, summary, question) in the gated model, (heads, question, summary) in the other one
            axis = 1 if model.gated_cross_attention is not None else 2
            actual = output.fusion_attentions[row].narrow(axis, 0, length)
            actual, reference = (
                x / x.sum(-1, keepdim=True) for x in (actual, expected[row].narrow(axis, 0, length))
            )
            assert torch.allclose(actual, reference, atol=1e-5)


def test_summarizer_as_assistant_model(model, inputs):
    single = {name: value[:1] for name, value in inputs.items()}
    settings = SHORT | {"return_dict_in_generate": True}
    if model.gated_cross_attention is not None:
        model.gated_cross_attention.gates.data.fill_(1.0)
    expected = model.generate(**single, **settings)
    output = model.generate(**single, **settings, assistant_model=model.summarizer)
    assert torch.equal(output.sequences, expected.sequences)
    assert torch.allclose(output.answerability, expected.answerability, atol=1e-5)


def test_cross_task_model_as_assistant_model(model, inputs, make_model):
    single = {name: value[:1] for name, value in inputs.items()}
    source = {name: single[name] for name in ("input_ids", "attention_mask")}
    expected = model.summarizer.generate(**source, **SHORT)
    target = copy.deepcopy(model.summarizer)
    drafts, head_calls = [], []
    model.get_decoder().register_forward_hook(lambda *_: drafts.append(1))
    model.answerability_head.register_forward_hook(lambda *_: head_calls.append(1))
    assert torch.equal(target.generate(**source, **SHORT, assistant_model=model), expected)
    assert drafts and not head_calls
    gated = make_model(model.config.summarizer.model_type, "bert", fusion="gated", seed=1)
    gated.gated_cross_attention.gates.data.fill_(1.0)
    expected = gated.generate(**single, **SHORT)
    assert torch.equal(gated.generate(**single, **SHORT, assistant_model=model), expected)
