"""The extractive oracle: the sentences of the passage that match the reference best."""

from __future__ import annotations

from bisect import bisect
from collections import Counter
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from crosstask.eval.scoring.text_scores import make_rouge_tokenizer
from crosstask.eval.systems.base import Extractive
from crosstask.eval.systems.lead import get_lead
from crosstask.sentences_crosstask import join_sentences, split_sentences
from crosstask.utils.pretrained import check_counts

NGram = tuple[str, ...]


class ParsedPassage(NamedTuple):
    """A passage with its sentences that have words.

    Attributes:
        passage (`str`): The passage.
        sentences (`list[str]`): Its sentences that have at least one word.
        words (`list[list[str]]`): The stemmed words of each sentence.
        counts (`dict[NGram, Counter]`): How often each word and bigram occurs in each sentence, by its index.
    """

    passage: str
    sentences: list[str]
    words: list[list[str]]
    counts: dict[NGram, Counter]


class Oracle(Extractive):
    """The sentences that a greedy search selects with the reference: nearly the best that extraction can do.

    The search adds up to `k` sentences. Each step adds the sentence that raises ROUGE-1 F1 + ROUGE-2 F1 of
    the summary most (the first one of a tie), and the search ends when none raises it. The result is at least
    as good as the best single sentence, but not always the best set. The score uses the words of
    [`~eval.scoring.text_scores.make_rouge_tokenizer`], and bigrams across sentences count, so the search
    maximizes what the report shows. If no sentence shares a word with the reference, the result is the lead.

    Source: Nallapati et al. 2017, "SummaRuNNer", https://arxiv.org/abs/1611.04230.

    Args:
        k (`int`, *optional*, defaults to 3): The largest number of sentences.

    Raises:
        DataError: If `k` is not a positive integer.
    """

    column = "summary"

    def __init__(self, k: int = 3):
        check_counts("oracle", k=k)
        self.k, self.name = k, "oracle"
        self.settings = {"kind": "oracle", "k": k}
        self._tokenize = make_rouge_tokenizer()

    def parse(self, passage: str) -> ParsedPassage:
        pairs = [(sentence, self._tokenize(sentence)) for sentence in split_sentences(passage)]
        pairs = [(sentence, words) for sentence, words in pairs if words]
        counts: dict[NGram, Counter] = {}
        for index, (_, words) in enumerate(pairs):
            for ngram in _get_ngrams(words):
                counts.setdefault(ngram, Counter())[index] += 1
        return ParsedPassage(
            passage, [sentence for sentence, _ in pairs], [words for _, words in pairs], counts
        )

    def select(self, parsed: ParsedPassage, reference: str) -> str:
        selected = self._search(parsed, self._tokenize(reference))
        sentences = [parsed.sentences[index] for index in selected]
        return join_sentences(sentences) or get_lead(parsed.passage, self.k)

    def _search(self, parsed: ParsedPassage, reference: list[str]) -> list[int]:
        """Return the indices of the selected sentences in the order of the passage."""
        words = parsed.words
        reference_counts = Counter(_get_ngrams(reference))
        columns = {ngram: column for column, ngram in enumerate(reference_counts)}
        limits = np.array(list(reference_counts.values()))
        counts = np.zeros((len(words), len(columns)), int)  # of the reference's n-grams, by sentence
        for ngram, column in columns.items():
            for index, count in parsed.counts.get(ngram, {}).items():
                counts[index, column] = count
        lengths = np.array([len(sentence) for sentence in words])
        is_unigram = np.array([len(ngram) == 1 for ngram in reference_counts], bool)
        selected: list[int] = []
        best = 0.0
        while len(selected) < min(self.k, len(words)):
            totals = counts + counts[selected].sum(0)  # row i: the counts of `selected` with sentence i added
            for index in range(len(words)):
                for left, right in pairwise(sorted([*selected, index])):
                    border = columns.get((words[left][-1], words[right][0]))  # a bigram of two sentences
                    if border is not None:
                        totals[index, border] += 1
            matches = np.minimum(totals, limits)
            length = lengths + lengths[selected].sum()
            scores = _compute_f1(matches[:, is_unigram].sum(1), length, len(reference))
            scores += _compute_f1(matches[:, ~is_unigram].sum(1), length - 1, len(reference) - 1)
            scores[selected] = -1
            index = int(scores.argmax())
            if scores[index] <= best + 1e-12:
                break
            best = scores[index]
            selected.insert(bisect(selected, index), index)
        return selected


def _get_ngrams(words: list[str]) -> list[NGram]:
    """Return the unigrams and bigrams of a text."""
    return [*((word,) for word in words), *pairwise(words)]


def _compute_f1(matches: np.ndarray, predicted: np.ndarray, expected: int) -> np.ndarray:
    """Return F1 = 2 · matches / (predicted + expected), with all three as counts of n-grams."""
    return 2 * matches / np.maximum(predicted + expected, 1)
