"""Answerability: does the probability that a summary carries the answer tell, and is it calibrated?"""

import datasets
import evaluate

from crosstask.eval.scoring.calibration import answerability_figures

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
        """Accuracy, F1, AUROC, average precision, Brier score, ECE and the reliability curve.

        Args:
            predictions: P(the summary carries the answer), one a row.
            references: 1 or 0, one a row; rows with -100 or None are left out.
            bins: Bins of the calibration figures.
        """
        return answerability_figures(predictions, references, bins=bins)
