"""BERTScore: how well the tokens of a text and of its reference match by their vectors in context."""

import datasets
import evaluate

from crosstask.data.answers import mean
from crosstask.eval.scoring.bertscore import bertscore_rows

CITATION = (
    "Zhang et al. 2020, BERTScore: Evaluating Text Generation with BERT, https://arxiv.org/abs/1904.09675"
)


class BertScore(evaluate.Metric):
    def _info(self):
        texts = datasets.Value("string")
        several = datasets.Sequence(texts)
        return evaluate.MetricInfo(
            description=__doc__,
            citation=CITATION,
            inputs_description=self._compute.__doc__,
            features=[
                datasets.Features({"predictions": texts, "references": several}),
                datasets.Features({"predictions": texts, "references": texts}),
            ],
        )

    def _compute(self, predictions, references, **settings):
        """Mean precision, recall and F1.

        Args:
            predictions: One text a row.
            references: One text a row, or a list of texts, of which the best one counts; rows whose
                references are all blank are left out.
            settings: `model` (an id or a folder, needed), `num_layers`, `rescale_with_baseline`, `lang`,
                `batch_size` and `device` of `crosstask.eval.scoring.bertscore.bertscore_rows`.
        """
        rows = bertscore_rows(predictions, references, **settings)
        return {name: mean(values) for name, values in rows.items()}
