"""The fusion: what it reads of a summary, and the cross-attention that judges it."""

import torch
import torch.nn.functional as F
from torch import nn
from transformers.activations import ACT2FN

IGNORED = -100  # the label that a loss leaves out, as everywhere in transformers
UNKNOWN = -1  # a target that is no token: what follows the last decoder input


class CrossAttentionFusion(nn.Module):
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
        self.activation = ACT2FN["gelu"]
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
        # The parts may sit on other devices (`device_map`) or be of other dtypes than the fusion.
        weight = self.q_proj.weight
        question_states, summary_states = (
            states.to(weight.device, weight.dtype) for states in (question_states, summary_states)
        )
        question_mask, summary_mask = (mask.to(weight.device) for mask in (question_mask, summary_mask))
        summary_states = self.summary_norm(summary_states)
        query = self.q_proj(question_states)
        attended, attentions = self._attend(
            self._heads(query),
            self._heads(self.k_proj(summary_states)),
            self._heads(self.v_proj(summary_states)),
            summary_mask[:, None, None, :],
            output_attentions,
        )
        attended = self.out_proj(attended.transpose(1, 2).flatten(2))
        states = query + self._drop(attended)
        states = self.layer_norm(states + self._drop(self.fc2(self.activation(self.fc1(states)))))
        kept = question_mask[..., None].to(states.dtype)
        pooled = (states * kept).sum(1) / kept.sum(1).clamp(min=1)
        return self.classifier(pooled), attentions

    def _heads(self, states):
        return states.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def _drop(self, states):
        return F.dropout(states, self.dropout, self.training)

    def _attend(self, query, key, value, mask, output_attentions):
        dropout = self.dropout if self.training else 0.0
        if not output_attentions:
            return F.scaled_dot_product_attention(query, key, value, mask, dropout), None
        scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
        attentions = scores.float().softmax(-1).to(query.dtype)
        return F.dropout(attentions, dropout, self.training) @ value, attentions


def targets_of(decoder_input_ids, decoder_attention_mask=None):
    """
    What each decoder position predicts: the next input, `UNKNOWN` after the last, -100 where padded.
    Shapes: `(batch_size, summary_length)` in and out.
    """
    targets = F.pad(decoder_input_ids[:, 1:], (0, 1), value=UNKNOWN)
    if decoder_attention_mask is not None:
        targets = targets.masked_fill(decoder_attention_mask == 0, IGNORED)
    return targets


def summary_mask(targets, config):
    """
    True at the positions whose state predicts a token of the summary: up to the first end of sequence,
    included, without padding. `targets` is `(batch_size, summary_length)`, and so is the result.
    """
    is_eos = torch.isin(targets, token_ids(config.eos_token_id, targets.device))
    is_pad = torch.isin(targets, token_ids(config.pad_token_id, targets.device)) & ~is_eos
    ended = is_eos.cumsum(1) - is_eos.long() > 0
    mask = ~(ended | is_pad | (targets == IGNORED))
    # An empty summary still has a first position; without any, the attention would be NaN.
    mask[:, 0] |= ~mask.any(1)
    return mask


def token_ids(value, device):
    """A tensor of the one, several or no token ids that a configuration gives."""
    value = [] if value is None else value
    return torch.tensor(value, dtype=torch.long, device=device).reshape(-1)
