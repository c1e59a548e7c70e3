"""An answerability head that reads the likelihood of the summary's tokens, and the temperature."""

import math

import pytest
import torch

from crosstask import CrossTaskConfig, CrossTaskForConditionalGeneration
from crosstask.configuration_crosstask import FUSIONS, IGNORE_INDEX
from crosstask.fusion_crosstask import LIKELIHOOD_DIM, compute_likelihood

PARTS = [("t5", "t5"), ("bart", "bert")]


@pytest.fixture(params=[(*parts, fusion) for parts in PARTS for fusion in FUSIONS], ids="-".join)
def model(request, make_model):
    summarizer, question_encoder, fusion = request.param
    return make_model(summarizer, question_encoder, fusion=fusion, fusion_likelihood=True).eval()


def get_sources(inputs):
    return {name: x for name, x in inputs.items() if name.endswith(("input_ids", "attention_mask"))}


# --- The features ---------------------------------------------------------------------------------


def test_the_features_equal_their_formulas():
    logits = torch.tensor([[[1.0, 2.0, 3.0], [0.0, 0.0, 0.0], [9.0, 0.0, 0.0]]])
    features = compute_likelihood(logits, torch.tensor([[2, 0, -1]]))
    assert features.shape == (1, 3, LIKELIHOOD_DIM)
    p = logits[0, 0].softmax(-1)
    entropy = -(p * p.log()).sum()
    expected = [p[2], p[2], p[2].log() / 10, entropy / 10]
    torch.testing.assert_close(features[0, 0], torch.stack(expected))
    third = math.log(3)
    torch.testing.assert_close(features[0, 1], torch.tensor([1 / 3, 1 / 3, -third / 10, third / 10]))
    assert features[0, 2].tolist() == [0.0] * 4  # a position without a token


def test_improbable_tokens_and_forbidden_ones_have_finite_features():
    logits = torch.tensor([[[100.0, 0.0, -torch.inf]]])
    for token in range(3):
        features = compute_likelihood(logits, torch.tensor([[token]]))
        assert features.isfinite().all() and features.abs().max() <= 1


def test_no_gradient_flows_through_the_likelihood(model, make_inputs):
    logits = torch.randn(1, 2, 5, requires_grad=True)
    assert not compute_likelihood(logits, torch.zeros(1, 2, dtype=torch.long)).requires_grad
    inputs = make_inputs(model)
    model(**inputs, answerable=torch.tensor([1, 0])).loss.backward()
    assert model.answerability_head.likelihood_proj.weight.grad.abs().sum() > 0


# --- The model ------------------------------------------------------------------------------------


def test_forward_generate_and_scoring_give_one_probability(model, make_inputs):
    inputs = get_sources(make_inputs(model))
    output = model.generate(**inputs, max_new_tokens=6, return_dict_in_generate=True)
    scored = model.score_answerability(**inputs, summary_ids=output.sequences)
    targets = output.sequences[:, 1:].clone()
    labels = targets.masked_fill(~model.get_summary_mask(targets), IGNORE_INDEX)
    with torch.no_grad():
        forward = model(**inputs, labels=labels).answerability_logits.softmax(-1)[:, 1]
    torch.testing.assert_close(output.answerability, scored)
    torch.testing.assert_close(output.answerability, forward)


def test_the_likelihood_changes_the_judgment_and_padding_does_not(model, make_inputs):
    inputs = make_inputs(model)
    padded = inputs | {"labels": torch.nn.functional.pad(inputs["labels"], (0, 3), value=IGNORE_INDEX)}
    with torch.no_grad():
        logits = model(**inputs).answerability_logits
        torch.testing.assert_close(model(**padded).answerability_logits, logits)
        model.answerability_head.likelihood_proj.weight.zero_()
        assert not torch.allclose(model(**inputs).answerability_logits, logits)


def test_candidates_are_reranked(model, make_inputs):
    inputs = get_sources(make_inputs(model))
    settings = {"num_beams": 3, "num_return_sequences": 3, "max_new_tokens": 5}
    output = model.generate(**inputs, **settings, answerability_rerank=1.0, return_dict_in_generate=True)
    scored = model.score_answerability(**inputs, summary_ids=output.sequences)
    torch.testing.assert_close(output.answerability, scored)


def test_the_temperature_divides_the_logits_everywhere(model, make_inputs):
    inputs = make_inputs(model)
    sources = get_sources(inputs)
    summaries = model.generate(**sources, max_new_tokens=6)
    with torch.no_grad():
        logits = model(**inputs).answerability_logits
        probabilities = model.score_answerability(**sources, summary_ids=summaries)
        model.config.answerability_temperature = 2.5
        torch.testing.assert_close(model(**inputs).answerability_logits, logits / 2.5)
        cooled = model.score_answerability(**sources, summary_ids=summaries)
    torch.testing.assert_close(cooled.logit(), probabilities.logit() / 2.5)


def test_settings_and_weights_are_saved(model, make_inputs, tmp_path):
    model.config.answerability_temperature, model.config.answerability_threshold = 1.7, 0.4
    model.save_pretrained(tmp_path)
    loaded = CrossTaskForConditionalGeneration.from_pretrained(tmp_path).eval()
    assert loaded.config.fusion_likelihood and loaded.config.answerability_threshold == 0.4
    inputs = make_inputs(model)
    with torch.no_grad():
        torch.testing.assert_close(
            loaded(**inputs).answerability_logits, model(**inputs).answerability_logits
        )


def test_checkpoints_without_the_key_have_no_weights_for_it(make_model, tmp_path):
    make_model().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    lines = [line for line in path.read_text().splitlines() if "fusion_likelihood" not in line]
    path.write_text("\n".join(lines))
    loaded = CrossTaskForConditionalGeneration.from_pretrained(tmp_path)
    assert loaded.answerability_head.likelihood_proj is None


@pytest.mark.parametrize(
    "settings",
    [
        {"fusion_likelihood": 1},
        {"answerability_temperature": 0},
        {"answerability_temperature": math.inf},
        {"answerability_threshold": 1.1},
        {"answerability_threshold": "auto"},
    ],
    ids=str,
)
def test_wrong_settings_are_refused(settings):
    [name] = settings
    with pytest.raises(ValueError, match=f"`{name}` has to be "):
        CrossTaskConfig(**settings)
