"""Label the summaries that a model writes itself: right or wrong by the answer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from crosstask.configuration_crosstask import IGNORE_INDEX
from crosstask.data.answers import answer_recall_rows
from crosstask.processing_crosstask import to_label

# Share of the references labeled 1 that have all words of the answer, from which on the answer's words decide
# whether a summary is right. Where fewer have, right summaries paraphrase the answer.
MIN_LITERAL_SHARE = 0.9


class SummaryLabeler:
    """
    Label summaries of the rows of a data set.

    The label is 1 if the summary has all words of an answer ([`~data.answers.answer_recall_rows`] is 1), and
    0 if not. A summary for a question that the passage does not answer is always 0. The label is -100,
    unknown, if the row has no answer without being labeled 0, or if fewer than 9 in 10 references labeled 1
    have all words of their answer.

    Args:
        rows (`Iterable[Mapping]`): Rows of the schema, in the order of the indices that name them.
    """

    def __init__(self, rows: Iterable[Mapping[str, Any]]):
        self._keys: list[tuple[str, str]] = []
        answers: dict[tuple[str, str], dict[str, None]] = defaultdict(dict)
        self._unanswerable: set[tuple[str, str]] = set()
        references: list[str] = []
        reference_answers: list[str] = []
        for row in rows:
            key = row["passage"], row["question"]
            self._keys.append(key)
            label = to_label(row["answerable"])
            if row["answer"].strip():
                answers[key][row["answer"]] = None
                if label == 1:
                    references.append(row["summary"])
                    reference_answers.append(row["answer"])
            elif label == 0:
                self._unanswerable.add(key)
        self._answers = {key: list(texts) for key, texts in answers.items()}
        recalls = [value for value in answer_recall_rows(references, reference_answers) if value is not None]
        self.literal_share = sum(value == 1 for value in recalls) / len(recalls) if recalls else 0.0

    @property
    def is_usable(self) -> bool:
        """Whether the words of the answers tell right summaries from wrong ones."""
        return self.literal_share >= MIN_LITERAL_SHARE

    def has_label(self, index: int) -> bool:
        """Return whether a summary of the row at `index` would be labeled 0 or 1."""
        key = self._keys[index]
        return self.is_usable and (key in self._answers or key in self._unanswerable)

    def label(self, indices: Sequence[int], summaries: Sequence[str]) -> list[int]:
        """
        Return the labels of summaries: 1, 0 or -100.

        Args:
            indices (`Sequence[int]`): The rows that the summaries belong to.
            summaries (`Sequence[str]`): One text per index.
        """
        labels = []
        for index, summary in zip(indices, summaries, strict=True):
            if not self.has_label(index):
                labels.append(IGNORE_INDEX)
                continue
            answers = self._answers.get(self._keys[index], [])
            recalls = answer_recall_rows([summary] * len(answers), answers)
            labels.append(int(1.0 in recalls))
        return labels
