"""Ranking candidates by their own likelihood and by their answerability."""

import copy

import pytest
import torch

from crosstask.generation_crosstask import CACHE_ARGUMENT

SHORT = {"max_new_tokens": 6}
BEAMS = {"num_beams": 4, "num_return_sequences": 4}


@pytest.fixture(params=[("t5", "t5", "classifier"), ("bart", "bert", "gated")], ids="-".join)
def model(request, make_model):
    summarizer, question_encoder, fusion = request.param
    model = make_model(summarizer, question_encoder, fusion=fusion)
    model.answerability_head.classifier.weight.data *= 3  # that it has something to say
    return model


@pytest.fixture
def inputs(model, make_inputs):
    given = make_inputs(model, batch_size=3)
    del given["labels"]
    random = torch.Generator().manual_seed(5)
    question = torch.randint(3, 99, (3, 6), generator=random)
    return given | {"question_input_ids": question, "question_attention_mask": torch.ones_like(question)}


def ranked(model, inputs, weight, **settings):
    settings = SHORT | BEAMS | {"return_dict_in_generate": True} | settings
    return model.generate(**inputs, answerability_rerank=weight, **settings)


@pytest.mark.parametrize("weight", [0, 0.5, 3.0])
def test_candidates_are_in_the_order_of_the_sum(model, inputs, weight):
    output = ranked(model, inputs, weight)
    plain = model.generate(**inputs, **SHORT, **BEAMS, return_dict_in_generate=True)
    expected = output.summary_log_probs + weight * output.answerability.log()
    assert torch.allclose(output.rerank_scores, expected, atol=1e-5)
    scores = output.rerank_scores.unflatten(0, (3, 4))
    assert (scores[:, :-1] >= scores[:, 1:]).all()
    for row in range(3):
        own = slice(4 * row, 4 * row + 4)
        assert sorted(output.sequences[own].tolist()) == sorted(plain.sequences[own].tolist())
    tokens = model.generate(**inputs, **SHORT, **BEAMS, answerability_rerank=weight)
    assert torch.equal(tokens, output.sequences)


def test_all_that_is_returned_is_in_one_order(model, inputs):
    plain = model.generate(**inputs, **SHORT, **BEAMS, return_dict_in_generate=True)
    output = ranked(model, inputs, 1e6)
    assert not torch.equal(output.sequences, plain.sequences)
    # No two candidates of an input are alike, so each can be told by its tokens.
    beams = {
        (row // 4, *ids): indices.tolist()
        for row, (ids, indices) in enumerate(zip(plain.sequences.tolist(), plain.beam_indices, strict=True))
    }
    assert len(beams) == 12
    for row, ids in enumerate(output.sequences.tolist()):
        assert output.beam_indices[row].tolist() == beams[row // 4, *ids]
    assert CACHE_ARGUMENT in plain and CACHE_ARGUMENT not in output


def test_both_parts_are_those_of_the_model(model, inputs):
    output = ranked(model, inputs, 1.0, suppress_tokens=[model.config.pad_token_id])
    each = {name: value.repeat_interleave(4, 0) for name, value in inputs.items()}
    answerability = model.score_answerability(summary_ids=output.sequences, **each)
    assert torch.allclose(output.answerability, answerability, atol=1e-5)
    pad, eos = model.config.pad_token_id, model.config.eos_token_id
    for row, sequence in enumerate(output.sequences):
        tokens = sequence[1:]
        ends = (tokens == eos).nonzero()
        tokens = tokens[: ends[0] + 1] if len(ends) else tokens[tokens != pad]
        alone = {name: value[row : row + 1] for name, value in each.items()}
        ids = torch.cat([sequence[:1], tokens])[None]
        logits = model(**alone, decoder_input_ids=ids[:, :-1]).logits
        chosen = logits.log_softmax(-1).gather(-1, ids[:, 1:, None])
        assert output.summary_log_probs[row].item() == pytest.approx(chosen.mean().item(), abs=1e-4)


def test_a_large_weight_goes_by_answerability_alone(model, inputs):
    output = ranked(model, inputs, 1e6)
    probabilities = output.answerability.unflatten(0, (3, 4))
    assert (probabilities[:, :-1] >= probabilities[:, 1:] - 1e-6).all()
    assert (probabilities.max(1).values - probabilities.min(1).values).max() > 1e-3


def test_sampled_candidates_and_rows_of_their_own(model, inputs):
    torch.manual_seed(0)
    output = ranked(model, inputs, 1.0, num_beams=1, do_sample=True)
    assert len(output.sequences) == 12
    beams = ranked(model, inputs, 1.0)
    alone = ranked(model, {name: value[1:2] for name, value in inputs.items()}, 1.0)
    assert torch.allclose(beams.rerank_scores[4:8], alone.rerank_scores, atol=1e-4)


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
        ({"answerability_rerank": 1, "num_return_sequences": 1}, "of 2 or more, got 1"),
        (
            {"answerability_rerank": 1, "output_scores": True},
            "cannot rank `output_scores`, which are by decoding step",
        ),
    ],
)
def test_what_cannot_be_ranked_is_refused(model, inputs, settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        model.generate(**inputs, **SHORT | BEAMS | settings)


def test_fusion_attentions_are_those_of_the_summaries(model, inputs):
    settings = SHORT | BEAMS | {"return_dict_in_generate": True}
    assert "fusion_attentions" not in model.generate(**inputs, **settings)
    for ranking in ({}, {"answerability_rerank": 2.0}):
        output = model.generate(**inputs, **settings, **ranking, output_fusion_attentions=True)
        ids = output.sequences
        each = {name: value.repeat_interleave(4, 0) for name, value in inputs.items()}
        expected = model(**each, labels=ids[:, 1:].masked_fill(ids[:, 1:] == model.config.pad_token_id, -100))
        assert expected.fusion_attentions is None
        expected = model(**each, decoder_input_ids=ids[:, :-1], output_attentions=True).fusion_attentions
        lengths = (ids[:, 1:] != model.config.pad_token_id).sum(1)
        for row, length in enumerate(lengths.tolist()):
            # Of `(heads, summary, question)` in the gated model, `(heads, question, summary)` in the other.
            axis = 1 if model.gated_cross_attention is not None else 2
            found = output.fusion_attentions[row].narrow(axis, 0, length)
            found, whole = (
                x / x.sum(-1, keepdim=True) for x in (found, expected[row].narrow(axis, 0, length))
            )
            assert torch.allclose(found, whole, atol=1e-5)


def test_a_plain_summarizer_assists(model, inputs):
    one = {name: value[:1] for name, value in inputs.items()}
    settings = SHORT | {"return_dict_in_generate": True}
    if model.gated_cross_attention is not None:
        model.gated_cross_attention.gates.data.fill_(1.0)
    expected = model.generate(**one, **settings)
    output = model.generate(**one, **settings, assistant_model=model.summarizer)
    assert torch.equal(output.sequences, expected.sequences)
    assert torch.allclose(output.answerability, expected.answerability, atol=1e-5)


def test_it_assists_others(model, inputs, make_model):
    one = {name: value[:1] for name, value in inputs.items()}
    source = {name: one[name] for name in ("input_ids", "attention_mask")}
    expected = model.summarizer.generate(**source, **SHORT)
    target = copy.deepcopy(model.summarizer)
    drafts, judged = [], []
    model.get_decoder().register_forward_hook(lambda *_: drafts.append(1))
    model.answerability_head.register_forward_hook(lambda *_: judged.append(1))
    assert torch.equal(target.generate(**source, **SHORT, assistant_model=model), expected)
    assert drafts and not judged
    gated = make_model(model.config.summarizer.model_type, "bert", fusion="gated", seed=1)
    gated.gated_cross_attention.gates.data.fill_(1.0)
    expected = gated.generate(**one, **SHORT)
    assert torch.equal(gated.generate(**one, **SHORT, assistant_model=model), expected)
