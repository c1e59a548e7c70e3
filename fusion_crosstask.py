"""
The fusion of summarizer and question encoder: two modules, and the hooks that connect them to a summarizer.

[`AnswerabilityHead`] predicts whether a summary carries the answer. [`GatedCrossAttention`] lets the question
encoder influence the summary. [`capture_input`] gives both the decoder states of any summarizer.
[`encode_segments`] fuses the segments of a long input: the decoder and the fusion read the states of all.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PretrainedConfig
from transformers.activations import ACT2FN
from transformers.modeling_outputs import BaseModelOutput

LIKELIHOOD_DIM = 4  # what `compute_likelihood` returns per token
SEGMENT_BATCH_TOKENS = 4096  # read at once by an encoder: more take more memory, and are hardly faster
MAX_NATS = 10.0  # log-probabilities below -10 count as -10, and entropies above 10 as 10


class AnswerabilityHead(nn.Module):
    """
    Classify whether a summary carries the answer to a question.

    Multi-head cross-attention (Vaswani et al., 2017, section 3.2.2) from the question encoder's output to the
    decoder's states, feed-forward layer, layer norm, mean over the question's positions, and a linear layer
    with two classes. Padding is masked on both sides.

    With `config.fusion_likelihood`, the head also sees how probable the summarizer finds each token of the
    summary, see [`compute_likelihood`]: a linear layer adds it to the decoder's states. A value that the
    summarizer has copied from the passage tends to be probable, and one that it has invented improbable.

    Args:
        config ([`CrossTaskConfig`]): Supplies the `fusion_*` settings.
        question_dim (`int`): Hidden size of the question encoder.
        summary_dim (`int`): Hidden size of the summarizer's decoder.
    """

    def __init__(self, config: PretrainedConfig, question_dim: int, summary_dim: int):
        super().__init__()
        self.num_heads = config.fusion_num_heads
        self.dropout = config.fusion_dropout
        dim = config.fusion_dim
        # A T5 with tied embeddings scales the states before its LM head by d^-1/2 (0.04 for d = 512). Without
        # this norm the values would be that small compared to the question's states.
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
        self.likelihood_proj = None
        if config.fusion_likelihood:
            self.likelihood_proj = nn.Linear(LIKELIHOOD_DIM, summary_dim)

    def forward(
        self,
        question_states: torch.Tensor,
        question_mask: torch.Tensor,
        summary_states: torch.Tensor,
        summary_mask: torch.Tensor,
        output_attentions: bool = False,
        likelihood: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """
        Args:
            question_states (`torch.FloatTensor` of shape `(batch_size, question_length, question_dim)`):
                Output of the question encoder.
            question_mask (`torch.BoolTensor` of shape `(batch_size, question_length)`):
                `True` for tokens, `False` for padding.
            summary_states (`torch.FloatTensor` of shape `(batch_size, summary_length, summary_dim)`):
                Decoder states, as the LM head reads them.
            summary_mask (`torch.BoolTensor` of shape `(batch_size, summary_length)`):
                `True` at the positions that predict a token of the summary.
            output_attentions (`bool`, *optional*, defaults to `False`):
                Whether to return the attention probabilities.
            likelihood (`torch.FloatTensor` of shape `(batch_size, summary_length, 4)`, *optional*):
                Result of [`compute_likelihood`], needed with `config.fusion_likelihood`.

        Returns:
            `tuple`: `(logits, attentions)`, of shapes `(batch_size, 2)` and
            `(batch_size, num_heads, question_length, summary_length)`. `attentions` is `None` without
            `output_attentions`.
        """
        question_states = _move_to(self.q_proj.weight, question_states)
        summary_states = self.summary_norm(summary_states.to(question_states))
        if self.likelihood_proj is not None:
            summary_states = summary_states + self.likelihood_proj(likelihood.to(question_states))
        question_mask = question_mask.to(question_states.device)
        summary_mask = summary_mask.to(question_states.device)
        dropout = self.dropout if self.training else 0.0
        query = self.q_proj(question_states)
        attention_output, attentions = _compute_attention(
            _split_heads(query, self.num_heads),
            _split_heads(self.k_proj(summary_states), self.num_heads),
            _split_heads(self.v_proj(summary_states), self.num_heads),
            summary_mask[:, None, None, :],
            dropout,
            output_attentions,
        )
        attention_output = self.out_proj(_merge_heads(attention_output))
        states = query + F.dropout(attention_output, dropout)
        ffn_output = self.fc2(self.activation(self.fc1(states)))
        states = self.layer_norm(states + F.dropout(ffn_output, dropout))
        weights = question_mask[..., None].to(states.dtype)
        pooled = (states * weights).sum(1) / weights.sum(1).clamp(min=1)
        return self.classifier(pooled), attentions


@torch.no_grad()
def compute_likelihood(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """
    Compute how probable a summarizer finds the tokens of a summary, each given those before it.

    No gradient flows through the result: the answerability is to read the summarizer's confidence, not to
    change it.

    Args:
        logits (`torch.FloatTensor` of shape `(batch_size, summary_length, vocab_size)`): Of the summary.
        targets (`torch.LongTensor` of shape `(batch_size, summary_length)`):
            The token that each position predicts; negative for none, where the result is 0.

    Returns:
        `torch.FloatTensor` of shape `(batch_size, summary_length, 4)`: the token's probability, that of the
        most probable token, the token's log-probability and the entropy of the distribution. The last two
        are in nats, at most `MAX_NATS`, and divided by it.
    """
    logits = logits.float()
    targets = targets.to(logits.device)
    # One pass of exponentials over the vocabulary: log Z is the largest logit minus log of its probability.
    probabilities, largest_logit = logits.softmax(-1), logits.amax(-1)
    largest = probabilities.amax(-1)
    target_logit = logits.gather(-1, targets.clamp(min=0)[..., None]).squeeze(-1)
    log_prob = target_logit - largest_logit + largest.log()
    entropy = torch.special.entr(probabilities).sum(-1)
    features = [
        log_prob.exp(),
        largest,
        log_prob.clamp(min=-MAX_NATS) / MAX_NATS,
        entropy.clamp(max=MAX_NATS) / MAX_NATS,
    ]
    return torch.stack(features, dim=-1) * (targets >= 0)[..., None]


def sum_log_probs(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """
    Return the log-probabilities of summaries.

    Args:
        logits (`torch.FloatTensor` of shape `(batch_size, summary_length, vocab_size)`)
        labels (`torch.LongTensor` of shape `(batch_size, summary_length)`): -100 is ignored.

    Returns:
        `torch.FloatTensor` of shape `(batch_size,)`: Sums over the labels, in nats.
    """
    labels = labels.to(logits.device)
    log_probs = logits.float().log_softmax(-1).gather(-1, labels.clamp(min=0)[..., None]).squeeze(-1)
    return (log_probs * (labels >= 0)).sum(1)


class GatedCrossAttention(nn.Module):
    """
    Add information from the question encoder to the decoder's states before the LM head reads them.

    One block after the last decoder layer: cross-attention from the decoder's states to the question
    encoder's output, then a feed-forward layer. Each is added to the states through `tanh` of a gate that is
    0 before training, as in Flamingo (Alayrac et al., 2022, https://arxiv.org/abs/2204.14198, section 2.2),
    so that an untrained block changes nothing. Both are scaled by the root mean square of the states, because
    the states that an LM head reads are of size 1 in BART and of size d^-1/2 in a T5 with tied embeddings.

    Args:
        config ([`CrossTaskConfig`]): Supplies the `fusion_*` settings.
        question_dim (`int`): Hidden size of the question encoder.
        summary_dim (`int`): Hidden size of the summarizer's decoder.
    """

    def __init__(self, config: PretrainedConfig, question_dim: int, summary_dim: int):
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

    def project_question(self, question_states: torch.Tensor) -> torch.Tensor:
        """
        Compute the keys and values of a question, which are the same in all decoding steps.

        Args:
            question_states (`torch.FloatTensor` of shape `(batch_size, question_length, question_dim)`):
                Output of the question encoder.

        Returns:
            `torch.FloatTensor` of shape `(batch_size, 2, num_heads, question_length, head_dim)`.
        """
        # By way of `forward`: hooks that load sharded or offloaded weights only run when a module is called.
        return self(question_states=question_states)

    def forward(
        self,
        states: torch.Tensor | None = None,
        question_key_values: torch.Tensor | None = None,
        question_mask: torch.Tensor | None = None,
        output_attentions: bool = False,
        question_states: torch.Tensor | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor | None]:
        """
        Args:
            states (`torch.FloatTensor` of shape `(batch_size, summary_length, summary_dim)`):
                Decoder states before the LM head.
            question_key_values (`torch.FloatTensor`):
                Result of [`~GatedCrossAttention.project_question`].
            question_mask (`torch.Tensor` of shape `(batch_size, question_length)`, *optional*):
                Boolean, or 1 for tokens and 0 for padding. Defaults to ones.
            output_attentions (`bool`, *optional*, defaults to `False`):
                Whether to return the attention probabilities.
            question_states (`torch.FloatTensor`, *optional*):
                Argument of [`~GatedCrossAttention.project_question`], which replaces all others.

        Returns:
            `tuple`: `(states, attentions)`, of shapes `(batch_size, summary_length, summary_dim)` and
            `(batch_size, num_heads, summary_length, question_length)`. `attentions` is `None` without
            `output_attentions`. With `question_states`, the keys and values alone.

        Raises:
            ValueError: If the batch sizes of summaries and questions differ.
        """
        if question_states is not None:
            question_states = self.question_norm(_move_to(self.k_proj.weight, question_states))
            key, value = self.k_proj(question_states), self.v_proj(question_states)
            return torch.stack([_split_heads(states, self.num_heads) for states in (key, value)], dim=1)
        if len(states) != len(question_key_values):
            raise ValueError(
                f"The batch sizes differ: {len(states)} summaries and {len(question_key_values)} questions."
            )
        if question_mask is None:
            question_mask = question_key_values.new_ones(
                len(question_key_values), question_key_values.shape[-2]
            )
        decoder_states, states = states, _move_to(self.q_proj.weight, states)
        scale = states.detach().float().square().mean(-1, keepdim=True).sqrt().to(states.dtype)
        attention_gate, ffn_gate = torch.tanh(self.gates)
        dropout = self.dropout if self.training else 0.0
        key, value = question_key_values.unbind(1)
        attention_output, attentions = _compute_attention(
            _split_heads(self.q_proj(self.summary_norm(states)), self.num_heads),
            key,
            value,
            question_mask.to(states.device, torch.bool)[:, None, None, :],
            dropout,
            output_attentions,
        )
        attention_output = self.out_proj(_merge_heads(attention_output))
        states = states + attention_gate * scale * F.dropout(attention_output, dropout)
        ffn_output = self.fc2(self.activation(self.fc1(self.layer_norm(states))))
        states = states + ffn_gate * scale * F.dropout(ffn_output, dropout)
        return _move_to(decoder_states, states), attentions


def encode_segments(
    encoder: Callable[..., BaseModelOutput],
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    **kwargs: Any,
) -> BaseModelOutput:
    """
    Encode the segments of long inputs one by one, and join their states, which a decoder reads at once
    (Izacard & Grave, 2021, "Fusion-in-Decoder", https://arxiv.org/abs/2007.01282; Ivgi et al., 2023, "SLED",
    https://arxiv.org/abs/2208.00748). Time and memory grow linearly with the number of segments.

    Args:
        encoder (`Callable`):
            An encoder, which takes `input_ids` and `attention_mask` of shape `(n, length)`.
        input_ids (`torch.LongTensor` of shape `(batch_size, segments, length)`):
            The segments. Those without any token are not read, and have states of 0.
        attention_mask (`torch.LongTensor` of shape `(batch_size, segments, length)`, *optional*):
            1 for tokens, 0 for padding. Defaults to ones.
        kwargs:
            Further arguments of the encoder.

    Returns:
        `BaseModelOutput`: States of shape `(batch_size, segments * length, hidden_size)`, and with
        `output_hidden_states` those of all layers. It has no attentions.
    """
    if attention_mask is None:
        attention_mask = torch.ones_like(input_ids)
    ids, mask, rows = input_ids.flatten(0, 1), attention_mask.flatten(0, 1), None
    if not torch.compiler.is_compiling():  # a compiled graph cannot select rows by their values
        rows = mask.any(1).nonzero().squeeze(1)
        ids, mask = ids[rows], mask[rows]
    size = max(1, SEGMENT_BATCH_TOKENS // ids.shape[1])
    outputs = [
        encoder(input_ids=batch_ids, attention_mask=batch_mask, **kwargs)
        for batch_ids, batch_mask in zip(ids.split(size), mask.split(size), strict=True)
    ]

    def join(parts):
        states = torch.cat(parts)
        if rows is not None and len(rows) < input_ids.shape[:2].numel():
            zeros = states.new_zeros(input_ids.shape[:2].numel(), *states.shape[1:])
            states = zeros.index_copy(0, rows.to(states.device), states)
        return states.unflatten(0, input_ids.shape[:2]).flatten(1, 2)

    hidden_states = None
    if outputs[0].hidden_states is not None:
        layers = zip(*(output.hidden_states for output in outputs), strict=True)
        hidden_states = tuple(map(join, layers))
    return BaseModelOutput(join([output[0] for output in outputs]), hidden_states)


def init_fusion_weights(module: nn.Module) -> None:
    """
    Initialize the parameters of one module of the fusion, except those that came from a checkpoint.

    Weights of linear layers are drawn from a normal distribution of variance 1 / fan-in, as in T5. Biases and
    gates are 0, and a layer norm does not scale.
    """
    for parameter in module.parameters(recurse=False):
        # transformers 5 sets this flag on every tensor that it has loaded.
        if getattr(parameter, "_is_hf_initialized", False):
            continue
        if isinstance(module, nn.LayerNorm):
            parameter.data.fill_(1.0 if parameter is module.weight else 0.0)
        elif isinstance(module, nn.Linear):
            if parameter is module.weight:
                parameter.data.normal_(0.0, module.in_features**-0.5)
            else:
                parameter.data.zero_()
        elif isinstance(module, GatedCrossAttention):
            parameter.data.zero_()  # the gates


def _move_to(target, states):
    """Move states to the device and dtype of `target`, since the parts may have others (`device_map`)."""
    # An offloaded weight is on "meta" until its layer runs. Its layer then runs on the device of the states.
    device = states.device if target.device.type == "meta" else target.device
    return states.to(device, target.dtype)


def _split_heads(states, num_heads):
    """Reshape `(batch_size, length, dim)` to `(batch_size, num_heads, length, head_dim)`."""
    return states.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def _merge_heads(states):
    """Reshape `(batch_size, num_heads, length, head_dim)` to `(batch_size, length, dim)`."""
    return states.transpose(1, 2).flatten(2)


def _compute_attention(query, key, value, mask, dropout, output_attentions):
    """Return the output of scaled dot-product attention, and its probabilities or `None`."""
    if not output_attentions:
        return F.scaled_dot_product_attention(query, key, value, mask, dropout), None
    scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
    scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    attentions = scores.float().softmax(-1).to(query.dtype)
    return F.dropout(attentions, dropout) @ value, attentions


# How capturing works
#
# The fusion reads and changes the states that the LM head reads: the one place where every
# sequence-to-sequence model has its decoder's states normed and scaled. Models of transformers do not return
# them (T5 scales them after its last hidden state), so forward hooks take them from the LM head's input. The
# hooks are registered once and for all, because a graph of `torch.compile` can neither register a hook nor
# notice one that is registered later. They do nothing unless the context manager `capture_input` or
# `capture_output` is active for their module. Active captures are stored per thread, so that several threads
# of a server can share one model.


class _CaptureState(threading.local):
    """The captures that are active in this thread, each as `(module, function)`."""

    def __init__(self):
        self.thread_name = str(threading.get_ident())  # compiled graphs can read it, but not call `get_ident`
        self.input = None
        self.output = None


_state = _CaptureState()
_registration_lock = threading.Lock()


def get_thread_name() -> str:
    """Return a name of the current thread, also within a compiled graph."""
    return _state.thread_name


def register_capture_hooks(*modules: nn.Module) -> None:
    """Register the hooks of [`capture_input`] and [`capture_output`] on modules that do not have them."""
    for module in modules:
        for hooks, register, hook in (
            (module._forward_pre_hooks, module.register_forward_pre_hook, _run_pre_hook),
            (module._forward_hooks, module.register_forward_hook, _run_hook),
        ):
            if hook not in hooks.values():
                with _registration_lock:
                    if hook not in hooks.values():  # another thread may have registered it meanwhile
                        register(hook)


# The hooks are functions of the module, so that models with hooks can be copied and pickled.
def _run_pre_hook(module, args):
    if _state.input is not None and _state.input[0] is module:
        return _state.input[1](args)
    return None


def _run_hook(module, args, output):
    if _state.output is not None and _state.output[0] is module:
        _state.output[1](output)


@contextmanager
def capture_input(
    module: nn.Module,
    logits_to_keep: int | None = None,
    transform: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> Iterator[list[torch.Tensor]]:
    """
    Capture the first argument of all calls of `module` by this thread.

    Args:
        module (`torch.nn.Module`): The module, in practice an LM head.
        logits_to_keep (`int`, *optional*):
            Number of last positions that the module itself is to process. Defaults to all of them.
        transform (`Callable`, *optional*):
            Function that replaces the argument, both for the module and in the captured list.

    Yields:
        `list[torch.Tensor]`: The captured arguments, one per call.
    """
    captured = []

    def capture(args):
        states = args[0] if transform is None else transform(args[0])
        captured.append(states)
        return (states if logits_to_keep is None else states[:, -logits_to_keep:], *args[1:])

    register_capture_hooks(module)
    previous, _state.input = _state.input, (module, capture)
    try:
        yield captured
    finally:
        _state.input = previous


@contextmanager
def capture_output(module: nn.Module) -> Iterator[list[torch.Tensor]]:
    """Capture the first output of all calls of `module` by this thread, e.g. an encoder's states."""
    captured = []
    register_capture_hooks(module)
    previous, _state.output = _state.output, (module, lambda output: captured.append(output[0]))
    try:
        yield captured
    finally:
        _state.output = previous
