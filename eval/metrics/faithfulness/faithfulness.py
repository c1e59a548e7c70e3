"""Faithfulness without a model: the share of a summary's numbers and names that occur in its passage."""

import datasets
import evaluate

from crosstask.data.answers import mean
from crosstask.eval.scoring.text_scores import faithfulness_rows

CITATION = "Nan et al. 2021, Entity-level Factual Consistency of Abstractive Text Summarization, https://aclanthology.org/2021.eacl-main.235"


class Faithfulness(evaluate.Metric):
    def _info(self):
        texts = datasets.Value("string")
        return evaluate.MetricInfo(
            description=__doc__,
            citation=CITATION,
            inputs_description=self._compute.__doc__,
            features=datasets.Features({"predictions": texts, "references": texts}),
        )

    def _compute(self, predictions, references):
        """Return the mean share of the numbers and names.

        Args:
            predictions: One summary per row; rows without a number or a name are ignored.
            references: One passage per row.
        """
        return {"faithfulness": mean(faithfulness_rows(predictions, references))}
