"""The joint loss: of the summary's tokens, and of whether it carries the answer; and likelihoods."""

import torch
import torch.nn.functional as F

from .masks_crosstask import IGNORED


def joint_loss(config, logits, labels, answerability_logits, answerable):
    """
    Args:
        logits (`torch.FloatTensor` of shape `(batch_size, summary_length, vocab_size)`)
        labels (`torch.LongTensor` of shape `(batch_size, summary_length)`, *optional*): -100 is ignored.
        answerability_logits (`torch.FloatTensor` of shape `(batch_size, 2)`, *optional*)
        answerable (`torch.LongTensor` of shape `(batch_size,)`, *optional*): 1, 0, or -100, which is ignored.

    Returns:
        `(loss, summary_loss, answerability_loss)`: means in nats per token and per row, and
        `summary_loss + config.answerability_weight * answerability_loss` of those that there are; `None`
        where there is nothing to compare with.
    """
    summary_loss = answerability_loss = None
    if answerable is not None:
        check_answerable(answerable, len(answerability_logits))
        answerable = answerable.to(answerability_logits.device, torch.long)
        answerability_loss = _cross_entropy(answerability_logits, answerable)
    if labels is not None:
        labels = labels.to(logits.device)
        if config.summary_loss_on == "answerable" and answerable is not None:
            left_out = answerable.to(labels.device) != 1
            labels = labels.masked_fill(left_out[:, None], IGNORED)
        summary_loss = _cross_entropy(logits.flatten(0, 1), labels.flatten())
    if answerability_loss is None:
        return summary_loss, summary_loss, None
    loss = config.answerability_weight * answerability_loss
    if summary_loss is not None:
        loss = summary_loss + loss.to(summary_loss.device)
    return loss, summary_loss, answerability_loss


def log_likelihood(logits, labels):
    """
    Log-probabilities of whole summaries, in nats, of shape `(batch_size,)`: sums over the labels that are not
    -100, of `(batch_size, summary_length, vocab_size)` logits and `(batch_size, summary_length)` labels.
    """
    labels = labels.to(logits.device)
    chosen = logits.float().log_softmax(-1).gather(-1, labels.clamp(min=0)[..., None]).squeeze(-1)
    return (chosen * (labels != IGNORED)).sum(1)


def _cross_entropy(logits, labels):
    """Mean over the labels that count, in float32; 0 (with a graph) where none does."""
    loss = F.cross_entropy(logits.float(), labels, ignore_index=IGNORED, reduction="sum")
    return loss / (labels != IGNORED).sum().clamp(min=1)


def check_answerable(answerable, batch_size):
    """Refuse what is no batch of 0, 1 or -100, which the loss would do from deep inside, or not at all."""
    correct = answerable.shape == (batch_size,) and not answerable.is_floating_point()
    # A compiled graph cannot branch on values.
    if correct and not torch.compiler.is_compiling():
        correct = ((answerable == 0) | (answerable == 1) | (answerable == IGNORED)).all()
    if not correct:
        raise ValueError(
            f"`answerable` has to be 1, 0 or {IGNORED} for each of the {batch_size} rows, got {answerable}."
        )
