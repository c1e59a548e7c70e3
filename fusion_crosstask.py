"""The fusion: cross-attention that judges a summary, and cross-attention that takes part in writing it."""

import threading
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import nn
from transformers.activations import ACT2FN


class AnswerabilityHead(nn.Module):
    """
    Multi-head cross-attention (Vaswani et al., 2017, section 3.2.2) from the question encoder's output
    to the decoder's states, feed-forward, layer norm, mean over the question's positions and a linear
    layer with two classes. Padding is masked on both sides.
    """

    def __init__(self, config, question_dim, summary_dim):
        super().__init__()
        self.num_heads = config.fusion_num_heads
        self.dropout = config.fusion_dropout
        dim = config.fusion_dim
        # A tied T5 scales the states before its LM head by d^-1/2 (0.04 for 512): without this norm the
        # values would start that small beside the question's.
        self.summary_norm = nn.LayerNorm(summary_dim)
        self.q_proj = nn.Linear(question_dim, dim)
        self.k_proj = nn.Linear(summary_dim, dim)
        self.v_proj = nn.Linear(summary_dim, dim)
        self.out_proj = nn.Linear(dim, dim)
        self.fc1 = nn.Linear(dim, config.fusion_ffn_dim)
        self.fc2 = nn.Linear(config.fusion_ffn_dim, dim)
        self.activation = ACT2FN[config.fusion_activation]
        self.layer_norm = nn.LayerNorm(dim)
        self.classifier = nn.Linear(dim, 2)

    def forward(
        self,
        question_states,
        question_mask,
        summary_states,
        summary_mask,
        output_attentions=False,
    ):
        """
        Args:
            question_states (`torch.FloatTensor` of shape `(batch_size, question_length, question_dim)`)
            question_mask (`torch.BoolTensor` of shape `(batch_size, question_length)`)
            summary_states (`torch.FloatTensor` of shape `(batch_size, summary_length, summary_dim)`)
            summary_mask (`torch.BoolTensor` of shape `(batch_size, summary_length)`)

        Returns:
            `(logits, attentions)`: `(batch_size, 2)` and, if asked for,
            `(batch_size, num_heads, question_length, summary_length)`, otherwise `None`.
        """
        question_states = _moved(question_states, self.q_proj.weight)
        summary_states = summary_states.to(question_states)
        question_mask, summary_mask = (
            mask.to(question_states.device) for mask in (question_mask, summary_mask)
        )
        summary_states = self.summary_norm(summary_states)
        query = self.q_proj(question_states)
        dropout = self.dropout if self.training else 0.0
        attended, attentions = _attend(
            _heads(query, self.num_heads),
            _heads(self.k_proj(summary_states), self.num_heads),
            _heads(self.v_proj(summary_states), self.num_heads),
            summary_mask[:, None, None, :],
            dropout,
            output_attentions,
        )
        attended = self.out_proj(attended.transpose(1, 2).flatten(2))
        states = query + F.dropout(attended, dropout)
        forwarded = self.fc2(self.activation(self.fc1(states)))
        states = self.layer_norm(states + F.dropout(forwarded, dropout))
        kept = question_mask[..., None].to(states.dtype)
        pooled = (states * kept).sum(1) / kept.sum(1).clamp(min=1)
        return self.classifier(pooled), attentions


class GatedCrossAttention(nn.Module):
    """
    One block after the last decoder layer: the decoder's states attend to the question encoder's, then a
    feed-forward layer, each added to the states through `tanh` of a gate that starts at 0, as in Flamingo
    (Alayrac et al., 2022, https://arxiv.org/abs/2204.14198, section 2.2): closed gates change nothing.
    What is added is in units of the states' own root mean square, since what an LM head reads is of unit
    size in BART and of size d^-1/2 in a tied T5.
    """

    def __init__(self, config, question_dim, summary_dim):
        super().__init__()
        self.num_heads = config.fusion_num_heads
        self.dropout = config.fusion_dropout
        dim = config.fusion_dim
        self.summary_norm = nn.LayerNorm(summary_dim)
        self.question_norm = nn.LayerNorm(question_dim)
        self.q_proj = nn.Linear(summary_dim, dim)
        self.k_proj = nn.Linear(question_dim, dim)
        self.v_proj = nn.Linear(question_dim, dim)
        self.out_proj = nn.Linear(dim, summary_dim)
        self.layer_norm = nn.LayerNorm(summary_dim)
        self.fc1 = nn.Linear(summary_dim, config.fusion_ffn_dim)
        self.fc2 = nn.Linear(config.fusion_ffn_dim, summary_dim)
        self.activation = ACT2FN[config.fusion_activation]
        self.gates = nn.Parameter(torch.zeros(2))  # of the attention and of the feed-forward layer

    def question_key_values(self, question_states):
        """
        Keys and values of a question, to be computed once: of `(batch_size, question_length, question_dim)`
        states `(batch_size, 2, num_heads, question_length, head_dim)`.
        """
        # Hooks, which bring the weights where they are sharded or offloaded, are run for calls alone.
        return self(question_states=question_states)

    def forward(
        self,
        states=None,
        question_key_values=None,
        question_mask=None,
        output_attentions=False,
        question_states=None,
    ):
        """
        Args:
            states (`torch.FloatTensor` of shape `(batch_size, summary_length, summary_dim)`)
            question_key_values (`torch.FloatTensor`): As [`~GatedCrossAttention.question_key_values`] gives it.
            question_mask (`torch.Tensor` of shape `(batch_size, question_length)`, *optional*):
                Boolean, or of 1 and 0; ones where not given.
            question_states: Instead of all of these, what [`~GatedCrossAttention.question_key_values`] is to read.

        Returns:
            `(states, attentions)`: the states as the LM head is to read them, and, if asked for,
            `(batch_size, num_heads, summary_length, question_length)`, otherwise `None`; or the question_key_values.
        """
        if question_states is not None:
            question_states = self.question_norm(_moved(question_states, self.k_proj.weight))
            pairs = (project(question_states) for project in (self.k_proj, self.v_proj))
            return torch.stack([_heads(states, self.num_heads) for states in pairs], dim=1)
        if len(states) != len(question_key_values):
            raise ValueError(
                f"The batch sizes differ: {len(states)} summaries and questions of {len(question_key_values)}."
            )
        if question_mask is None:
            question_mask = question_key_values.new_ones(
                len(question_key_values), question_key_values.shape[-2]
            )
        came, states = states, _moved(states, self.q_proj.weight)
        scale = states.detach().float().square().mean(-1, keepdim=True).sqrt().to(states.dtype)
        open_attention, open_ffn = torch.tanh(self.gates)
        dropout = self.dropout if self.training else 0.0
        attended, attentions = _attend(
            _heads(self.q_proj(self.summary_norm(states)), self.num_heads),
            *question_key_values.unbind(1),
            question_mask.to(states.device, torch.bool)[:, None, None, :],
            dropout,
            output_attentions,
        )
        attended = self.out_proj(attended.transpose(1, 2).flatten(2))
        states = states + open_attention * scale * F.dropout(attended, dropout)
        forwarded = self.fc2(self.activation(self.fc1(self.layer_norm(states))))
        states = states + open_ffn * scale * F.dropout(forwarded, dropout)
        return _moved(states, came), attentions


def _moved(states, like):
    """The parts may sit on other devices (`device_map`) or be of other dtypes than the fusion."""
    # An offloaded weight is nowhere until its layer runs; the states are there where it will be.
    device = states.device if like.device.type == "meta" else like.device
    return states.to(device, like.dtype)


def _heads(states, num_heads):
    return states.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def _attend(query, key, value, mask, dropout, output_attentions):
    if not output_attentions:
        return F.scaled_dot_product_attention(query, key, value, mask, dropout), None
    scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
    scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    attentions = scores.float().softmax(-1).to(query.dtype)
    return F.dropout(attentions, dropout) @ value, attentions


class _Here(threading.local):
    """What is of one thread alone: its name, and what it listens to."""

    def __init__(self):
        self.name = str(threading.get_ident())  # a graph that is compiled can read this, but not ask
        self.input = self.output = None  # `(module, listener)` of the innermost context


_here = _Here()


_registering = threading.Lock()


def get_thread_name():
    """Which thread this is."""
    return _here.name


def register_capture_hooks(*modules):
    """
    Let modules be heard by `input_of` and `output_of`. Their hooks stay, since a graph that is compiled can
    neither register one nor notice that one came later; while nobody listens they do nothing.
    """
    for module in modules:
        for hooks, register, hook in (
            (module._forward_pre_hooks, module.register_forward_pre_hook, _hear_input),
            (module._forward_hooks, module.register_forward_hook, _hear_output),
        ):
            if hook not in hooks.values():
                with _registering:
                    if hook not in hooks.values():  # still: another thread may have been first
                        register(hook)


# Functions of the module, so that models can be copied and pickled with them.
def _hear_input(module, args):
    return _here.input[1](args) if _here.input is not None and _here.input[0] is module else None


def _hear_output(module, args, output):
    if _here.output is not None and _here.output[0] is module:
        _here.output[1](output)


@contextmanager
def capture_input(module, pass_on=None, change=None):
    """
    Catch what `module` reads in this thread: the one place where every sequence-to-sequence model has its
    decoder's states normed and scaled as its LM head wants them. With `change`, a function of these states,
    the module reads what that returns, and so does the catcher; with `pass_on`, the module itself sees only
    that many positions.
    """
    captured = []

    def catch(args):
        states = args[0] if change is None else change(args[0])
        captured.append(states)
        return (states if pass_on is None else states[:, :pass_on], *args[1:])

    register_capture_hooks(module)
    before, _here.input = _here.input, (module, catch)
    try:
        yield captured
    finally:
        _here.input = before


@contextmanager
def capture_output(module):
    """Catch the first value of what `module` returns: an encoder's states, while generation runs it."""
    captured = []
    register_capture_hooks(module)
    before, _here.output = _here.output, (module, lambda output: captured.append(output[0]))
    try:
        yield captured
    finally:
        _here.output = before
