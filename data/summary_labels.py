"""Label the summaries that a model writes itself: right or wrong by the answer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from crosstask.configuration_crosstask import IGNORE_INDEX
from crosstask.data.answers import carries_answer
from crosstask.data.schema import hash_texts
from crosstask.processing_crosstask import to_label

# Share of the references labeled 1 that have all words of the answer, from which on the answer's words decide
# whether a summary is right. Where fewer have, right summaries paraphrase the answer.
MIN_LITERAL_SHARE = 0.9


class SummaryLabeler:
    """
    Label summaries of the rows of a data set.

    The label is 1 if the summary has all words and numbers of an answer ([`~data.answers.carries_answer`]),
    and 0 if not. A summary for a question that the passage does not answer is always 0. The label is -100,
    unknown, if the row has no answer without being labeled 0, or if fewer than 9 in 10 references labeled 1
    have all words of their answer.

    Args:
        rows (`Iterable[Mapping]`): Rows of the schema, in the order of the indices that name them.

    Attributes:
        has_answers (`bool`): Whether any row has an answer.
        has_references (`bool`): Whether any row with an answer is labeled 1.
        literal_share (`float`): Share of the references labeled 1 that have all words of their answer.
    """

    def __init__(self, rows: Iterable[Mapping[str, Any]]):
        # Hashes of passage and question: the texts of the passages may be larger than memory.
        self._keys: list[int] = []
        self._answers: dict[int, list[str]] = defaultdict(list)
        self._unanswerable: set[int] = set()
        references = literal = 0
        for row in rows:
            key, answer = hash_texts(row["passage"], row["question"]), row["answer"]
            self._keys.append(key)
            label = to_label(row["answerable"])
            if answer.strip():
                if answer not in self._answers[key]:
                    self._answers[key].append(answer)
                if label == 1:
                    references += 1
                    literal += carries_answer(row["summary"], answer)
            elif label == 0:
                self._unanswerable.add(key)
        self.has_answers = bool(self._answers)
        self.has_references = references > 0
        self.literal_share = literal / references if references else 0.0

    @property
    def is_usable(self) -> bool:
        """Whether the words of the answers tell right summaries from wrong ones."""
        return self.literal_share >= MIN_LITERAL_SHARE

    def describe_unusable(self) -> str | None:
        """Return why no summary can be labeled, as a clause for the log, or `None` if summaries can be."""
        if not self.has_answers:
            return "the rows have no answers"
        if not self.has_references:
            return "no row with an answer is labeled 1"
        if not self.is_usable:
            return (
                f"{self.literal_share:.0%} of the references labeled 1 have all words of their answer, so "
                "that words do not tell whether a summary is right"
            )
        return None

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
            answers = self._answers.get(self._keys[index], [])  # `get`, as `[]` would add a key
            labels.append(int(any(carries_answer(summary, answer) for answer in answers)))
        return labels
