"""Test the modules of the fusion and the hooks that capture states."""

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
def head(make_config):
    torch.manual_seed(0)
    head = AnswerabilityHead(make_config("t5", "bert", fusion_dim=16, fusion_ffn_dim=20), 24, 32)
    for parameter in head.parameters():
        nn.init.normal_(parameter, 0.1, 0.4)
    return head.eval()


@pytest.fixture
def inputs():
    random = torch.Generator().manual_seed(1)
    question_mask = torch.tensor([[1, 1, 1, 1, 1], [0, 1, 1, 0, 0]]).bool()
    summary_mask = torch.tensor([[1, 1, 0, 0], [1, 1, 0, 1]]).bool()
    return [
        torch.randn(2, 5, 24, generator=random),
        question_mask,
        torch.randn(2, 4, 32, generator=random),
        summary_mask,
    ]


def compute_logits(head, question, question_mask, summary, summary_mask):
    """Compute the logits one row at a time, with loops over attention heads and without masks."""
    logits = []
    for q, q_mask, s, s_mask in zip(question, question_mask, summary, summary_mask, strict=True):
        q, s = q[q_mask], s[s_mask]
        s = head.summary_norm(s)
        query, key, value = head.q_proj(q), head.k_proj(s), head.v_proj(s)
        heads = []
        for h in range(4):
            part = slice(4 * h, 4 * h + 4)
            weights = torch.softmax(query[:, part] @ key[:, part].T / 4**0.5, dim=-1)
            heads.append(weights @ value[:, part])
        states = query + head.out_proj(torch.cat(heads, dim=-1))
        states = head.layer_norm(states + head.fc2(F.gelu(head.fc1(states))))
        logits.append(head.classifier(states.mean(0)))
    return torch.stack(logits)


@pytest.mark.parametrize("output_attentions", [False, True])
def test_answerability_head_equals_its_formula(head, inputs, output_attentions):
    logits, attentions = head(*inputs, output_attentions)
    assert torch.allclose(logits, compute_logits(head, *inputs), atol=1e-5)
    assert (attentions is not None) == output_attentions


def test_attentions_are_a_distribution_over_the_summary(head, inputs):
    attentions = head(*inputs, True)[1]
    assert attentions.shape == (2, 4, 5, 4)
    assert torch.allclose(attentions.sum(-1), torch.ones(2, 4, 5))
    assert (attentions.transpose(1, 3).transpose(2, 3)[~inputs[3]] == 0).all()


def test_padding_on_either_side_does_not_change_the_logits(head, inputs):
    question, question_mask, summary, summary_mask = inputs
    changed_question = torch.where(question_mask[..., None], question, torch.full_like(question, 50.0))
    changed_summary = torch.where(summary_mask[..., None], summary, torch.full_like(summary, -50.0))
    expected = head(*inputs)[0]
    assert torch.allclose(
        head(changed_question, question_mask, changed_summary, summary_mask)[0], expected, atol=1e-5
    )


def test_logits_without_any_question_position_are_finite(head, inputs):
    inputs[1] = torch.zeros_like(inputs[1])
    assert head(*inputs)[0].isfinite().all()


def test_states_in_another_dtype_are_cast(head, inputs):
    inputs_in_bfloat16 = [inputs[0].bfloat16(), inputs[1], inputs[2].bfloat16(), inputs[3]]
    logits, _ = head(*inputs_in_bfloat16)
    assert logits.dtype == torch.float32
    assert torch.allclose(logits, head(*inputs)[0], atol=0.2)


@pytest.mark.parametrize("output_attentions", [False, True])
def test_dropout_is_active_in_training_only(make_config, inputs, output_attentions):
    head = AnswerabilityHead(make_config("t5", "bert", fusion_dropout=0.5), 24, 32)
    first, second = (head.eval()(*inputs, output_attentions)[0] for _ in range(2))
    assert torch.equal(first, second)
    first, second = (head.train()(*inputs, output_attentions)[0] for _ in range(2))
    assert not torch.equal(first, second)


def test_every_weight_of_the_answerability_head_has_a_gradient(head, inputs):
    head(*inputs)[0].sum().backward()
    for name, parameter in head.named_parameters():
        # A bias of the keys shifts all scores of a row by the same amount, which softmax ignores.
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
def test_gated_cross_attention_equals_its_formula(gate, inputs):
    question, mask, states, _ = inputs
    output, attentions = gate(states, gate.project_question(question), mask, True)
    assert torch.allclose(gate(states, gate.project_question(question), mask)[0], output, atol=1e-5)
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
    assert torch.allclose(output, expected, atol=1e-4)


def test_closed_gate_changes_nothing_and_has_a_gradient(gate, inputs):
    question, mask, states, _ = inputs
    gate.gates.data.zero_()
    output, _ = gate(states, gate.project_question(question), mask)
    assert torch.equal(output, states)
    output.square().sum().backward()
    assert (gate.gates.grad != 0).all()


@torch.no_grad()
def test_gated_cross_attention_ignores_padding(gate, inputs):
    question, mask, states, _ = inputs
    output, _ = gate(states, gate.project_question(question), mask)
    changed = question.masked_fill(~mask[..., None], 99.0)
    assert torch.allclose(gate(states, gate.project_question(changed), mask)[0], output, atol=1e-5)
    shorter, _ = gate(states[:1, :2], gate.project_question(question[:1]), mask[:1])
    assert torch.allclose(shorter, output[:1, :2], atol=1e-5)


@torch.no_grad()
def test_gated_cross_attention_scales_with_the_states(gate, inputs):
    """The decoder states of a T5 with tied embeddings are scaled by d^-1/2."""
    question, mask, states, _ = inputs
    large, _ = gate(states, gate.project_question(question), mask)
    small, _ = gate(states / 16, gate.project_question(question), mask)
    assert torch.allclose(small * 16, large, atol=1e-2)


@torch.no_grad()
def test_gated_cross_attention_accepts_boolean_integer_and_no_masks(gate, inputs):
    question, mask, states, _ = inputs
    key_values = gate.project_question(question)
    for output_attentions in (False, True):
        output, _ = gate(states, key_values, mask, output_attentions)
        assert torch.equal(gate(states, key_values, mask.long(), output_attentions)[0], output)
        assert torch.equal(
            gate(states, key_values, None, output_attentions)[0],
            gate(states, key_values, torch.ones_like(mask), output_attentions)[0],
        )


def test_gated_cross_attention_rejects_another_batch_size(gate, inputs):
    question, mask, states, _ = inputs
    with pytest.raises(ValueError, match="The batch sizes differ: 2 summaries and 1 questions"):
        gate(states, gate.project_question(question[:1]), mask[:1])


def test_forward_hooks_run_for_the_projection_of_the_question(gate, inputs):
    """Hooks load the weights of sharded and offloaded modules."""
    question, mask, states, _ = inputs
    calls = []
    gate.register_forward_pre_hook(lambda *_: calls.append(1))
    key_values = gate.project_question(question)
    assert len(calls) == 1
    gate(states, key_values, mask)
    assert len(calls) == 2


def test_capture_hooks_work_only_within_their_context():
    linear = nn.Linear(3, 4)
    states = torch.randn(2, 5, 3)
    expected = linear(states)
    with capture_input(linear, logits_to_keep=1, transform=lambda states: states + 1) as inputs:
        output = linear(states)
    # Not equal: the kernel of a product, and so its rounding, may depend on the number of rows.
    torch.testing.assert_close(output, F.linear(states + 1, *linear.parameters())[:, -1:])
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
