"""Score the text that a model generates in validation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from transformers import EvalPrediction

from crosstask.configuration_crosstask import IGNORE_INDEX
from crosstask.data.answers import answer_recall, mean
from crosstask.eval.scoring.text_scores import rouge_rows
from crosstask.processing_crosstask import CrossTaskProcessor


def make_text_metrics(
    processor: CrossTaskProcessor, answers: Sequence[str] | None = None
) -> Callable[[EvalPrediction], dict[str, float]]:
    """
    Return a function that scores generated text, for the argument `compute_metrics` of a trainer.

    Args:
        processor ([`CrossTaskProcessor`]): Decodes the tokens.
        answers (`Sequence[str]`, *optional*): The answer of each row, for `answer_recall`.
    """

    def compute_metrics(prediction):
        generated, references = (
            processor.batch_decode(
                np.where(ids == IGNORE_INDEX, processor.tokenizer.pad_token_id, ids), skip_special_tokens=True
            )
            for ids in (prediction.predictions, prediction.label_ids)
        )
        rouge = rouge_rows(generated, references, types=("rouge1", "rouge2", "rougeL"))
        scores = {name: mean(values) for name, values in rouge.items()}
        if answers is not None:
            scores["answer_recall"] = answer_recall(generated, answers)
        return {name: value for name, value in scores.items() if value is not None}

    return compute_metrics
