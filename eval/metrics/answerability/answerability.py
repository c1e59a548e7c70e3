"""Answerability: the accuracy and the calibration of the probability that a summary carries the answer."""

import datasets
import evaluate

from crosstask.eval.scoring.answerability import IGNORE_INDEX, answerability_figures

CITATION = "Naeini et al. 2015, Obtaining Well Calibrated Probabilities Using Bayesian Binning, AAAI"


class Answerability(evaluate.Metric):
    def _info(self):
        columns = {"predictions": datasets.Value("float64"), "references": datasets.Value("int64")}
        return evaluate.MetricInfo(
            description=__doc__,
            citation=CITATION,
            inputs_description=self._compute.__doc__,
            features=datasets.Features(columns),
        )

    def _compute(self, predictions, references, bins=10):
        """Return accuracy, F1, AUROC, average precision, Brier score, ECE and the reliability curve.

        Args:
            predictions: P(the summary carries the answer), one per row.
            references: 1 or 0, one per row; rows with -100 or None are ignored.
            bins: The number of bins of `ece` and `reliability`.
        """
        references = [IGNORE_INDEX if label is None else label for label in references]
        return answerability_figures(predictions, references, bins=bins)
