"""What counts of inputs and summaries: masks, and the labels that a loss leaves out."""

import torch
import torch.nn.functional as F

IGNORED = -100  # the label that a loss leaves out, as everywhere in transformers
UNKNOWN = -1  # a target that is no token: what follows the last decoder input


def attention_mask_of(input_ids, config):
    """
    For `(batch_size, length)` inputs without one, in that shape: by the rule of `generate`, which
    transformers 5 gave up.
    """
    pad = token_ids(config.pad_token_id, input_ids.device)
    if torch.isin(pad, token_ids(config.eos_token_id, input_ids.device)).any():
        return torch.ones_like(input_ids)
    return (~torch.isin(input_ids, pad)).long()


def targets_of(decoder_input_ids, decoder_attention_mask=None):
    """
    What each decoder position predicts: the next input, `UNKNOWN` after the last, -100 where padded.
    Shapes: `(batch_size, summary_length)` in and out.
    """
    targets = F.pad(decoder_input_ids[:, 1:], (0, 1), value=UNKNOWN)
    if decoder_attention_mask is not None:
        targets = targets.masked_fill(decoder_attention_mask == 0, IGNORED)
    return targets


def shifted_right(labels, config):
    """
    The decoder's inputs of labels, -100 or padding where there is none, as transformers makes them: the start
    token before, the last token off. Shapes: `(batch_size, summary_length)` in and out.
    """
    if config.decoder_start_token_id is None or config.pad_token_id is None:
        raise ValueError(
            "`labels` need `decoder_start_token_id` and `pad_token_id` in the configuration, or "
            "`decoder_input_ids` beside them."
        )
    shifted = F.pad(labels[:, :-1], (1, 0), value=config.decoder_start_token_id)
    return shifted.masked_fill(shifted == IGNORED, config.pad_token_id)


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
