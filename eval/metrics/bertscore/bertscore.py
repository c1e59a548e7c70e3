"""BERTScore: the similarity of a text and its reference by the contextual vectors of their tokens."""

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
        text_lists = datasets.Sequence(texts)
        return evaluate.MetricInfo(
            description=__doc__,
            citation=CITATION,
            inputs_description=self._compute.__doc__,
            features=[
                datasets.Features({"predictions": texts, "references": text_lists}),
                datasets.Features({"predictions": texts, "references": texts}),
            ],
        )

    def _compute(self, predictions, references, **settings):
        """Return the mean precision, recall and F1.

        Args:
            predictions: One text per row.
            references: One text per row, or a list of texts per row; the best score counts. Rows whose
                references are all blank are ignored.
            settings: `model` (a Hub id or a folder, required), `num_layers`, `rescale_with_baseline`, `lang`,
                `batch_size` and `device` of `crosstask.eval.scoring.bertscore.bertscore_rows`.
        """
        rows = bertscore_rows(predictions, references, **settings)
        return {name: mean(values) for name, values in rows.items()}
