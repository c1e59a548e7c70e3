"""Extractiveness: how much of a summary is copied, how long the copied fragments are, and its length."""

import datasets
import evaluate

from crosstask.data.answers import mean
from crosstask.eval.scoring.text_scores import extractiveness_rows, length_rows

CITATION = (
    "Grusky et al. 2018, Newsroom: A Dataset of 1.3 Million Summaries, https://arxiv.org/abs/1804.11283"
)


class Extractiveness(evaluate.Metric):
    def _info(self):
        texts = datasets.Value("string")
        return evaluate.MetricInfo(
            description=__doc__,
            citation=CITATION,
            inputs_description=self._compute.__doc__,
            features=datasets.Features({"predictions": texts, "references": texts}),
        )

    def _compute(self, predictions, references):
        """Return the mean coverage and density of the copied fragments, and the mean length in words.

        Args:
            predictions: One summary per row; blank summaries count for the length only.
            references: One passage per row.
        """
        coverage, density = extractiveness_rows(predictions, references)
        return {
            "coverage": mean(coverage),
            "density": mean(density),
            "length": mean(length_rows(predictions)),
        }
