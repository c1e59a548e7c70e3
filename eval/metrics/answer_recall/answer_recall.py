"""Answer recall: the share of the answer's words in the summary, and whether it has the answer verbatim."""

import datasets
import evaluate

from crosstask.data.answers import answer_exact_rows, answer_recall_rows, mean

CITATION = "Rajpurkar et al. 2016, SQuAD: 100,000+ Questions for Machine Comprehension of Text, https://arxiv.org/abs/1606.05250"


class AnswerRecall(evaluate.Metric):
    def _info(self):
        texts = datasets.Value("string")
        return evaluate.MetricInfo(
            description=__doc__,
            citation=CITATION,
            inputs_description=self._compute.__doc__,
            features=datasets.Features({"predictions": texts, "references": texts}),
        )

    def _compute(self, predictions, references):
        """Return the mean recall of the answers' words, and the share of answers that occur word for word.

        Args:
            predictions: One summary per row.
            references: One answer per row; rows whose normalized answer is empty are ignored.
        """
        return {
            "answer_recall": mean(answer_recall_rows(predictions, references)),
            "answer_exact": mean(answer_exact_rows(predictions, references)),
        }
