"""What the model returns: all that a sequence-to-sequence model does, and what the fusion adds."""

from dataclasses import dataclass, fields

import torch
from transformers.modeling_outputs import Seq2SeqLMOutput

# What a summarizer calls its keys and values of former steps, as argument and in what it returns.
CACHE = "cache" if "cache" in {field.name for field in fields(Seq2SeqLMOutput)} else "past_key_values"


@dataclass
class CrossTaskOutput(Seq2SeqLMOutput):
    """
    Output of [`CrossTaskForConditionalGeneration`]: all of `Seq2SeqLMOutput`, and

    Args:
        loss (`torch.FloatTensor` of shape `(1,)`, *optional*):
            `summary_loss + config.answerability_weight * answerability_loss`, of those that there are.
        summary_loss (`torch.FloatTensor` of shape `(1,)`, *optional*):
            Mean cross-entropy in nats per summary token; 0 where no row takes part.
        answerability_loss (`torch.FloatTensor` of shape `(1,)`, *optional*):
            Mean cross-entropy in nats per labelled row; 0 where no row is labelled.
        answerability_logits (`torch.FloatTensor` of shape `(batch_size, 2)`, *optional*):
            Scores of "the summary does not / does carry the answer", before the softmax.
        question_encoder_last_hidden_state, question_encoder_hidden_states, \
question_encoder_attentions:
            Of the question encoder, shaped as any encoder's.
        fusion_attentions (`torch.FloatTensor` of shape \
`(batch_size, num_heads, question_length, summary_length)`, *optional*):
            Attention of the question encoder's positions to the summary's, with `output_attentions`. With
            `fusion="gated"` that of the summary's positions to the question encoder's,
            `(batch_size, num_heads, summary_length, question_length)`.
    """

    summary_loss: torch.FloatTensor | None = None
    answerability_loss: torch.FloatTensor | None = None
    answerability_logits: torch.FloatTensor | None = None
    question_encoder_last_hidden_state: torch.FloatTensor | None = None
    question_encoder_hidden_states: tuple[torch.FloatTensor, ...] | None = None
    question_encoder_attentions: tuple[torch.FloatTensor, ...] | None = None
    fusion_attentions: torch.FloatTensor | None = None
