"""ROUGE F1: the words, bigrams and longest common subsequences that a text shares with its reference."""

import datasets
import evaluate

from crosstask.data.answers import mean
from crosstask.eval.scoring.text_scores import ROUGE_TYPES, rouge_rows

CITATION = (
    "Lin 2004, ROUGE: A Package for Automatic Evaluation of Summaries, https://aclanthology.org/W04-1013"
)


class Rouge(evaluate.Metric):
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

    def _compute(self, predictions, references, use_stemmer=True, rouge_types=ROUGE_TYPES, processes=None):
        """Return the mean F1 of each type; see `crosstask.eval.scoring.text_scores.rouge_rows`.

        Args:
            predictions: One text per row.
            references: One text per row, or a list of texts per row; the best score counts. Rows whose
                references are all blank are ignored.
            use_stemmer: Whether Porter's stemmer removes English suffixes.
            rouge_types: Any of rouge1 to rouge9, rougeL and rougeLsum.
            processes: The number of processes; by default one for few pairs, and all cores for many.
        """
        rows = rouge_rows(
            predictions, references, use_stemmer=use_stemmer, types=rouge_types, processes=processes
        )
        return {name: mean(values) for name, values in rows.items()}
