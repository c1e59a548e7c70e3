"""Answer entailment: the probability that a summary entails the answer to the question."""

import datasets
import evaluate

from crosstask.data.answers import mean
from crosstask.data.builder.judge import Judge
from crosstask.eval.scoring.text_scores import entailment_rows

CITATION = "Honovich et al. 2022, TRUE: Re-evaluating Factual Consistency Evaluation, https://arxiv.org/abs/2204.04991"


class AnswerEntailment(evaluate.Metric):
    def _info(self):
        texts = datasets.Value("string")
        return evaluate.MetricInfo(
            description=__doc__,
            citation=CITATION,
            inputs_description=self._compute.__doc__,
            features=datasets.Features({"predictions": texts, "references": texts}),
        )

    def _compute(self, predictions, references, judge, questions=None, **settings):
        """Return the mean P(entailment), and the share of the rows in which it is above 0.5.

        Args:
            predictions: One summary per row.
            references: One answer per row; rows with a blank answer are ignored.
            judge: A `Judge`, or the Hub id or folder of a classifier with an entailment label.
            questions: One question per row, for a hypothesis that contains {question}.
            settings: `hypothesis`, `dtype`, `device`, `batch_size` and `max_length` of
                `crosstask.data.builder.judge.Judge`.
        """
        if not isinstance(judge, Judge):
            judge = Judge(judge, **settings)
        questions = [""] * len(references) if questions is None else questions
        rows = entailment_rows(judge, predictions, questions, references)
        entailed = [None if value is None else value > 0.5 for value in rows]
        return {"answer_entailment": mean(rows), "answer_entailed": mean(entailed)}
