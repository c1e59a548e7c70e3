"""The fusion: the formulas of both its modules, their masks and gates."""

import copy
import threading

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from crosstask.fusion_crosstask import (
    AnswerabilityHead,
    GatedCrossAttention,
    capture_input,
    capture_output,
)


@pytest.fixture
def fusion(make_config):
    torch.manual_seed(0)
    fusion = AnswerabilityHead(make_config("t5", "bert", fusion_dim=16, fusion_ffn_dim=20), 24, 32)
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
    fusion = AnswerabilityHead(make_config("t5", "bert", fusion_dropout=0.5), 24, 32)
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


@pytest.mark.parametrize("module_class", [AnswerabilityHead, GatedCrossAttention])
def test_the_activation_function_is_configurable(make_config, module_class):
    module = module_class(make_config("t5", "bert", fusion_activation="relu"), 24, 32)
    assert isinstance(module.activation, nn.ReLU)


@pytest.fixture
def gate(make_config):
    torch.manual_seed(0)
    gate = GatedCrossAttention(make_config("t5", "bert", fusion_dim=16, fusion_ffn_dim=20), 24, 32)
    for parameter in gate.parameters():
        nn.init.normal_(parameter, 0.1, 0.4)
    return gate.eval()


@torch.no_grad()
def test_the_gate_equals_its_formula(gate, inputs):
    question, mask, states, _ = inputs
    found, attentions = gate(states, gate.project_question(question), mask, True)
    assert torch.allclose(gate(states, gate.project_question(question), mask)[0], found, atol=1e-5)
    assert attentions.shape == (2, 4, 4, 5)
    assert torch.allclose(attentions.sum(-1), torch.ones(2, 4, 4), atol=1e-5)
    assert (attentions[~mask[:, None, None, :].expand_as(attentions)] == 0).all()
    heads = nn.MultiheadAttention(16, 4, batch_first=True)
    heads.in_proj_weight.data = torch.cat([torch.eye(16)] * 3)
    heads.in_proj_bias.data.zero_()
    heads.out_proj.load_state_dict({"weight": torch.eye(16), "bias": torch.zeros(16)})
    normed = gate.question_norm(question)
    attended, _ = heads(
        gate.q_proj(gate.summary_norm(states)),
        gate.k_proj(normed),
        gate.v_proj(normed),
        key_padding_mask=~mask,
    )
    scale = states.square().mean(-1, keepdim=True).sqrt()
    expected = states + gate.gates[0].tanh() * scale * gate.out_proj(attended)
    forwarded = gate.fc2(F.gelu(gate.fc1(gate.layer_norm(expected))))
    expected = expected + gate.gates[1].tanh() * scale * forwarded
    assert torch.allclose(found, expected, atol=1e-4)


def test_a_closed_gate_changes_nothing_and_can_be_opened(gate, inputs):
    question, mask, states, _ = inputs
    gate.gates.data.zero_()
    found, _ = gate(states, gate.project_question(question), mask)
    assert torch.equal(found, states)
    found.square().sum().backward()
    assert (gate.gates.grad != 0).all()


@torch.no_grad()
def test_the_gate_does_not_see_padding(gate, inputs):
    question, mask, states, _ = inputs
    found, _ = gate(states, gate.project_question(question), mask)
    changed = question.masked_fill(~mask[..., None], 99.0)
    assert torch.allclose(gate(states, gate.project_question(changed), mask)[0], found, atol=1e-5)
    shorter, _ = gate(states[:1, :2], gate.project_question(question[:1]), mask[:1])
    assert torch.allclose(shorter, found[:1, :2], atol=1e-5)


@torch.no_grad()
def test_the_gate_is_of_the_states_own_size(gate, inputs):
    """A tied T5's states are d^-1/2 as large: what is added is too."""
    question, mask, states, _ = inputs
    large, _ = gate(states, gate.project_question(question), mask)
    small, _ = gate(states / 16, gate.project_question(question), mask)
    assert torch.allclose(small * 16, large, atol=1e-2)


@torch.no_grad()
def test_the_gates_mask_is_of_any_kind(gate, inputs):
    question, mask, states, _ = inputs
    memory = gate.project_question(question)
    for output_attentions in (False, True):
        found, _ = gate(states, memory, mask, output_attentions)
        assert torch.equal(gate(states, memory, mask.long(), output_attentions)[0], found)
        assert torch.equal(
            gate(states, memory, None, output_attentions)[0],
            gate(states, memory, torch.ones_like(mask), output_attentions)[0],
        )


def test_the_gate_refuses_questions_of_other_rows(gate, inputs):
    question, mask, states, _ = inputs
    with pytest.raises(ValueError, match="The batch sizes differ: 2 summaries and 1 questions"):
        gate(states, gate.project_question(question[:1]), mask[:1])


def test_the_gates_hooks_see_every_use(gate, inputs):
    """What is sharded or offloaded has its weights from them."""
    question, mask, states, _ = inputs
    calls = []
    gate.register_forward_pre_hook(lambda *_: calls.append(1))
    memory = gate.project_question(question)
    assert len(calls) == 1
    gate(states, memory, mask)
    assert len(calls) == 2


def test_capture_hooks_work_only_within_their_context():
    linear = nn.Linear(3, 4)
    states = torch.randn(2, 5, 3)
    expected = linear(states)
    with capture_input(linear, logits_to_keep=1, transform=lambda states: states + 1) as inputs:
        output = linear(states)
    assert torch.equal(output, F.linear(states + 1, *linear.parameters())[:, -1:])
    assert len(inputs) == 1 and torch.equal(inputs[0], states + 1)
    with capture_output(linear) as outputs, pytest.raises(RuntimeError):
        linear(torch.randn(2, 7))
    # The hooks stay, here and in a copy, but do nothing.
    for module in (linear, copy.deepcopy(linear)):
        assert torch.equal(module(states), expected)
    assert len(inputs) == 1 and outputs == []


def test_capture_hooks_work_only_in_their_thread():
    linear = nn.Linear(3, 4)
    states = torch.randn(2, 3)
    expected, other_outputs = linear(states), []
    with capture_input(linear, transform=torch.zeros_like) as inputs, capture_output(linear) as outputs:
        thread = threading.Thread(target=lambda: other_outputs.append(linear(states)))
        thread.start()
        thread.join()
        assert torch.equal(other_outputs[0], expected) and inputs == outputs == []
        assert torch.equal(linear(states)[0], linear.bias)
    assert len(inputs) == len(outputs) == 1
