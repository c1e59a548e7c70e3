"""LexRank: the most central sentences of the passage, with or without regard to the question."""

from __future__ import annotations

import math
from collections import Counter
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from crosstask.eval.systems.base import Extractive
from crosstask.sentences_crosstask import join_sentences, split_sentences, split_words
from crosstask.utils.errors import DataError
from crosstask.utils.pretrained import check_counts


class ParsedPassage(NamedTuple):
    """A passage's sentences, their stems, and the cosine of each pair, (sentences, sentences)."""

    sentences: list[str]
    stems: list[list[str]]
    cosines: np.ndarray


class LexRank(Extractive):
    """The `k` most central sentences of the passage, in its order.

    Without the question, the scores are those of `sumy`'s LexRank with English stop words and stems (Erkan &
    Radev 2004, https://arxiv.org/abs/1109.2128). With the question, they come from the biased random walk of
    Otterbacher, Erkan & Radev 2005, "Using Random Walks for Question-focused Sentence Retrieval",
    https://aclanthology.org/H05-1115:

        p(s|q) = d · rel(s|q) / Σ_z rel(z|q)  +  (1 - d) · Σ_v sim(s, v) / Σ_z sim(z, v) · p(v|q)
        rel(s|q) = Σ_{w in q} log(tf(w, s) + 1) · log(tf(w, q) + 1) · log((n + 1) / (0.5 + sf(w)))

    where sim is the cosine if it is above sumy's threshold of 0.1 and 0 otherwise, and sf(w) of the n
    sentences contain w. If the question shares no word with the passage, all sentences are equally relevant.
    Of sentences that differ only in case, one is selected; ties go to the earlier sentence. In other
    languages, stop words stay, and words in a-z may lose an ending that looks like an English suffix.

    Args:
        k (`int`, *optional*, defaults to 3): The number of sentences.
        question (`bool`, *optional*, defaults to `False`): Whether the scores depend on the question.
        d (`float`, *optional*, defaults to 0.85): The weight of the question against centrality, above 0 and
            up to 1. Between 0.7 and 0.95, ROUGE on ACLSum and QMSum differs by less than 0.002.

    Raises:
        DataError: If `k` or `d` is out of range, or if `sumy` is not installed.
    """

    def __init__(self, k: int = 3, question: bool = False, d: float = 0.85):
        check_counts("lexrank", k=k)
        if isinstance(d, bool) or not isinstance(d, (int, float)) or not 0 < d <= 1:
            raise DataError(f"lexrank: d is {d!r}, expected a number above 0 and up to 1")
        self.k, self.d = k, d
        self.name = f"lexrank-{k}" + (" + question" if question else "")
        self.settings = {"kind": "lexrank", "k": k, "question": question} | ({"d": d} if question else {})
        if question:
            self.column = "question"
        self._summarizer, self._make_sentence = _load_sumy()

    def parse(self, passage: str) -> ParsedPassage:
        sentences = split_sentences(passage)
        stems = [self.stem(sentence) for sentence in sentences]
        return ParsedPassage(sentences, stems, self.compute_cosines(stems))

    def select(self, parsed: ParsedPassage, question: str | None) -> str:
        sentences, stems, cosines = parsed
        if not sentences:
            return ""
        if question is None:
            scores = self.compute_centrality(cosines)
        else:
            scores = self.compute_biased_scores(stems, cosines, self.stem(question))
        scores = np.round(scores, 9)  # scores that differ only by the order of a sum are a tie
        ranking = sorted(range(len(sentences)), key=lambda index: (-scores[index], index))
        distinct: dict[str, int] = {}
        for index in ranking:
            distinct.setdefault(sentences[index].lower(), index)
        return join_sentences([sentences[index] for index in sorted(list(distinct.values())[: self.k])])

    def stem(self, text: str) -> list[str]:
        """Return the stems of a text's words, without stop words."""
        return self._summarizer._to_words_set(self._make_sentence(text))

    def compute_cosines(self, stems: list[list[str]]) -> np.ndarray:
        """Return sumy's tf-idf cosine of each pair of sentences, (sentences, sentences).

        The cosine of a sentence without weight is 0. sumy loops over all pairs, which takes 3 s for a
        transcript of 800 sentences; a sparse matrix product is much faster.
        """
        from scipy.sparse import csr_array

        frequencies = Counter(word for sentence in stems for word in set(sentence))
        columns = {word: column for column, word in enumerate(frequencies)}
        idf = {word: math.log(len(stems) / (1 + count)) for word, count in frequencies.items()}
        entries = [
            (tf * idf[word], row, columns[word])
            for row, term_frequencies in enumerate(self._summarizer._compute_tf(stems))
            for word, tf in term_frequencies.items()
        ]
        values, row_indices, column_indices = zip(*entries, strict=True) if entries else ((), (), ())
        shape = (len(stems), max(len(columns), 1))
        matrix = csr_array((np.array(values, float), (row_indices, column_indices)), shape=shape)
        product = (matrix @ matrix.T).toarray()
        norms = np.sqrt(product.diagonal())
        norms = np.where(norms > 0, norms, np.inf)
        return product / norms / norms[:, None]

    def compute_centrality(self, cosines: np.ndarray) -> np.ndarray:
        """Return LexRank's score of each sentence, (sentences,)."""
        links = (cosines > self._summarizer.threshold).astype(float)
        if not links.any():  # sumy's power method would divide by zero
            return np.zeros(len(links))
        transitions = links / np.maximum(links.sum(1, keepdims=True), 1)
        return self._summarizer.power_method(transitions, self._summarizer.epsilon)

    def compute_biased_scores(
        self, stems: list[list[str]], cosines: np.ndarray, question: list[str]
    ) -> np.ndarray:
        """Return the scores of the walk that is biased towards the stems of a question, (sentences,)."""
        counts = [Counter(sentence) for sentence in stems]
        relevance = np.zeros(len(stems))
        for word, question_tf in Counter(question).items():
            tf = np.array([sentence[word] for sentence in counts])
            idf = math.log((len(stems) + 1) / (0.5 + np.count_nonzero(tf)))
            relevance += np.log(tf + 1) * math.log(question_tf + 1) * idf
        relevance = relevance / relevance.sum() if relevance.any() else np.full(len(stems), 1 / len(stems))
        links = cosines * (cosines > self._summarizer.threshold)
        links /= np.maximum(links.sum(0), 1e-12)
        scores = relevance
        # Each step multiplies the error by 1 - d; after this many steps it is below 1e-12.
        for _ in range(math.ceil(-12 / math.log10(max(1 - self.d, 1e-12)))):
            scores = self.d * relevance + (1 - self.d) * links @ scores
        return scores


@cache
def _load_sumy() -> tuple[Any, Any]:
    """Return sumy's LexRank summarizer for English, and a function that makes one of its sentences."""
    try:  # imported here because sumy imports nltk, which is slow
        from sumy.models.dom import Sentence
        from sumy.nlp.stemmers import Stemmer
        from sumy.summarizers.lex_rank import LexRankSummarizer
        from sumy.utils import get_stop_words
    except ImportError:
        raise DataError("lexrank: needs the package sumy: pip install 'crosstask[eval]'") from None

    class Tokenizer:
        """Splits text into words, as sumy's tokenizer would with data that it downloads."""

        to_words = staticmethod(split_words)

    summarizer = LexRankSummarizer(cache(Stemmer("english")))
    summarizer.stop_words = get_stop_words("english")
    return summarizer, lambda text: Sentence(text, Tokenizer)
