"""The fusion: its formula, its masks, and which positions of a summary count."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from crosstask.fusion_crosstask import (
    IGNORED,
    UNKNOWN,
    CrossAttentionFusion,
    summary_mask,
    targets_of,
    token_ids,
)


@pytest.fixture
def fusion(make_config):
    torch.manual_seed(0)
    fusion = CrossAttentionFusion(make_config("t5", "bert", fusion_dim=16, fusion_ffn_dim=20), 24, 32)
    for parameter in fusion.parameters():
        nn.init.normal_(parameter, 0.1, 0.4)
    return fusion.eval()


@pytest.fixture
def inputs():
    random = torch.Generator().manual_seed(1)
    question_mask = torch.tensor([[1, 1, 1, 1, 1], [0, 1, 1, 0, 0]]).bool()
    summary_keep = torch.tensor([[1, 1, 0, 0], [1, 1, 0, 1]]).bool()
    return [
        torch.randn(2, 5, 24, generator=random),
        question_mask,
        torch.randn(2, 4, 32, generator=random),
        summary_keep,
    ]


def reference(fusion, question, question_mask, summary, summary_keep):
    """The formula for one row at a time, with loops over heads and without any masks."""
    logits = []
    for q, q_keep, s, s_keep in zip(question, question_mask, summary, summary_keep, strict=True):
        q, s = q[q_keep], s[s_keep]
        s = fusion.summary_norm(s)
        query, key, value = fusion.q_proj(q), fusion.k_proj(s), fusion.v_proj(s)
        heads = []
        for h in range(4):
            part = slice(4 * h, 4 * h + 4)
            weights = torch.softmax(query[:, part] @ key[:, part].T / 4**0.5, dim=-1)
            heads.append(weights @ value[:, part])
        states = query + fusion.out_proj(torch.cat(heads, dim=-1))
        states = fusion.layer_norm(states + fusion.fc2(F.gelu(fusion.fc1(states))))
        logits.append(fusion.classifier(states.mean(0)))
    return torch.stack(logits)


@pytest.mark.parametrize("output_attentions", [False, True])
def test_equals_its_formula(fusion, inputs, output_attentions):
    logits, attentions = fusion(*inputs, output_attentions)
    assert torch.allclose(logits, reference(fusion, *inputs), atol=1e-5)
    assert (attentions is not None) == output_attentions


def test_attentions_are_a_distribution_over_the_summary(fusion, inputs):
    attentions = fusion(*inputs, True)[1]
    assert attentions.shape == (2, 4, 5, 4)
    assert torch.allclose(attentions.sum(-1), torch.ones(2, 4, 5))
    assert (attentions.transpose(1, 3).transpose(2, 3)[~inputs[3]] == 0).all()


def test_padding_of_either_side_changes_nothing(fusion, inputs):
    question, question_mask, summary, summary_keep = inputs
    wild_question = torch.where(question_mask[..., None], question, torch.full_like(question, 50.0))
    wild_summary = torch.where(summary_keep[..., None], summary, torch.full_like(summary, -50.0))
    expected = fusion(*inputs)[0]
    assert torch.allclose(
        fusion(wild_question, question_mask, wild_summary, summary_keep)[0], expected, atol=1e-5
    )


def test_without_any_question_position_it_stays_finite(fusion, inputs):
    inputs[1] = torch.zeros_like(inputs[1])
    assert fusion(*inputs)[0].isfinite().all()


def test_casts_the_states_of_parts_in_another_dtype(fusion, inputs):
    half = [inputs[0].bfloat16(), inputs[1], inputs[2].bfloat16(), inputs[3]]
    logits, _ = fusion(*half)
    assert logits.dtype == torch.float32
    assert torch.allclose(logits, fusion(*inputs)[0], atol=0.2)


@pytest.mark.parametrize("output_attentions", [False, True])
def test_dropout_only_in_training(make_config, inputs, output_attentions):
    fusion = CrossAttentionFusion(make_config("t5", "bert", fusion_dropout=0.5), 24, 32)
    first, second = (fusion.eval()(*inputs, output_attentions)[0] for _ in range(2))
    assert torch.equal(first, second)
    first, second = (fusion.train()(*inputs, output_attentions)[0] for _ in range(2))
    assert not torch.equal(first, second)


def test_every_weight_takes_part(fusion, inputs):
    fusion(*inputs)[0].sum().backward()
    for name, parameter in fusion.named_parameters():
        # A bias of the keys shifts all scores of a row alike: the softmax does not see it.
        if name != "k_proj.bias":
            assert parameter.grad.abs().sum() > 1e-6, name


EOS, PAD = 1, 0


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        ([5, 6, EOS, PAD], [1, 1, 1, 0]),
        ([5, 6, EOS, IGNORED], [1, 1, 1, 0]),
        ([5, EOS, 7, EOS], [1, 1, 0, 0]),  # nothing after the first end
        ([5, 6, 7, 8], [1, 1, 1, 1]),  # never ends
        ([5, PAD, 7, EOS], [1, 0, 1, 1]),  # padding inside
        ([5, 6, 7, UNKNOWN], [1, 1, 1, 1]),
        ([EOS, PAD, PAD, PAD], [1, 0, 0, 0]),
        ([IGNORED] * 4, [1, 0, 0, 0]),  # empty: the first position stays
        ([PAD] * 4, [1, 0, 0, 0]),
    ],
)
def test_positions_of_a_summary(make_config, targets, expected):
    assert summary_mask(torch.tensor([targets]), make_config()).int().tolist() == [expected]


def test_several_or_no_ends(make_config):
    targets = torch.tensor([[5, 7, 9, 1]])
    config = make_config()
    config.eos_token_id = [1, 7]
    assert summary_mask(targets, config).int().tolist() == [[1, 1, 0, 0]]
    config.eos_token_id = None
    assert summary_mask(targets, config).int().tolist() == [[1, 1, 1, 1]]
    config.eos_token_id, config.pad_token_id = 7, 7  # padded with the end: the first one counts
    assert summary_mask(torch.tensor([[5, 7, 7, 7]]), config).int().tolist() == [[1, 1, 0, 0]]


def test_targets_of_decoder_inputs():
    ids = torch.tensor([[0, 5, 6, 1], [0, 8, 1, 0]])
    assert targets_of(ids).tolist() == [[5, 6, 1, UNKNOWN], [8, 1, 0, UNKNOWN]]
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    assert targets_of(ids, mask).tolist() == [[5, 6, 1, UNKNOWN], [8, 1, IGNORED, IGNORED]]


def test_token_ids():
    assert [token_ids(value, "cpu").tolist() for value in (None, 3, [4, 5])] == [[], [3], [4, 5]]
