"""ROUGE F1: words, pairs of words and longest common runs that a text shares with its reference."""

import datasets
import evaluate

from crosstask.data.answers import mean
from crosstask.eval.scoring.rows import ROUGE_TYPES, rouge_rows

CITATION = (
    "Lin 2004, ROUGE: A Package for Automatic Evaluation of Summaries, https://aclanthology.org/W04-1013"
)


class Rouge(evaluate.Metric):
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

    def _compute(self, predictions, references, use_stemmer=True, rouge_types=ROUGE_TYPES, processes=None):
        """Mean F1 of each type; see `crosstask.eval.scoring.rows.rouge_rows` for the arguments.

        Args:
            predictions: One text a row.
            references: One text a row, or a list of texts, of which the best one counts; rows whose
                references are all blank are left out.
            use_stemmer: Whether Porter's stemmer takes off endings.
            rouge_types: Any of rouge1 to rouge9, rougeL and rougeLsum.
            processes: Processes to use; None is one for few pairs, and all cores for many.
        """
        rows = rouge_rows(
            predictions, references, use_stemmer=use_stemmer, types=rouge_types, processes=processes
        )
        return {name: mean(values) for name, values in rows.items()}
