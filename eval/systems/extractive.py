"""Systems that take sentences of the passage: the first, the central, and those that an oracle picks."""

from __future__ import annotations

import math
import re
from bisect import bisect
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import islice, pairwise

import numpy as np

from crosstask.eval.systems.base import Outputs
from crosstask.sentences_crosstask import iter_sentence_spans, split_sentences
from crosstask.utils.errors import DataError
from crosstask.utils.pretrained import check_counts


class _Extractive:
    """A system that reads a passage into something (`read`) and takes from it for each distinct row."""

    fields: tuple[str, ...] = ("passage",)  # of a row, all that its summary depends on

    def write(self, rows: Sequence[Mapping], tick: Callable[[int], None] | None = None) -> Outputs:
        """Summaries of rows. `tick` is called with how many rows were done."""
        groups: dict[str, dict[tuple, list[int]]] = {}
        for index, row in enumerate(rows):
            key = tuple(row[name] for name in self.fields)
            groups.setdefault(row["passage"], {}).setdefault(key, []).append(index)
        summaries = [""] * len(rows)
        for passage, keys in groups.items():
            parsed = self.read(passage)
            for key, indices in keys.items():
                summary = self.take(parsed, *key[1:])
                for index in indices:
                    summaries[index] = summary
                if tick:
                    tick(len(indices))
        return Outputs(summaries)


class Lead(_Extractive):
    """The first `k` sentences of the passage."""

    def __init__(self, k: int = 3):
        check_counts("lead", k=k)
        self.k, self.name = k, f"lead-{k}"
        self.settings = {"kind": "lead", "k": k}

    def read(self, passage: str) -> str:
        return lead(passage, self.k)

    def take(self, summary: str) -> str:
        return summary


class Oracle(_Extractive):
    """The sentences that a reference asks for: what extraction could reach at most, or nearly.

    Up to `k` sentences are taken one by one, each the one that raises ROUGE-1 F1 + ROUGE-2 F1 of the
    summary the most (the first of equals), until none raises it. It is greedy, as Nallapati et al. 2017,
    "SummaRuNNer", https://arxiv.org/abs/1611.04230, and so as good as the best sentence, but not always
    the best set. Words and n-grams are those of `rouge_score` with its stemmer, in the order of
    the passage, across sentences too, so that what is maximized is what is reported. Where no sentence
    shares a word with the reference, as in scripts that ROUGE cannot read, it is the lead.
    """

    fields = ("passage", "summary")

    def __init__(self, k: int = 3):
        from rouge_score.tokenizers import DefaultTokenizer

        check_counts("oracle", k=k)
        self.k, self.name = k, "oracle"
        self.settings = {"kind": "oracle", "k": k}
        self._tokenize = DefaultTokenizer(use_stemmer=True).tokenize

    def read(self, passage: str) -> tuple[str, list[str], list[list[str]], dict[tuple, Counter]]:
        """The passage, its sentences that have words, their words, and where each n-gram occurs."""
        sentences = [(text, self._tokenize(text)) for text in split_sentences(passage)]
        sentences = [(text, words) for text, words in sentences if words]
        places: dict[tuple, Counter] = {}
        for index, (_, words) in enumerate(sentences):
            for gram in _grams(words):
                places.setdefault(gram, Counter())[index] += 1
        return passage, [text for text, _ in sentences], [words for _, words in sentences], places

    def take(self, parsed: tuple, reference: str) -> str:
        passage, sentences, words, places = parsed
        picked = self._pick(words, places, self._tokenize(reference))
        return " ".join(sentences[index] for index in picked) or lead(passage, self.k)

    def _pick(self, words: list[list[str]], places: Mapping, reference: list[str]) -> list[int]:
        wanted = Counter(_grams(reference))
        columns = {gram: column for column, gram in enumerate(wanted)}
        limits = np.array(list(wanted.values()))
        counts = np.zeros((len(words), len(columns)), int)  # of the reference's n-grams in each sentence
        for gram, column in columns.items():
            for index, count in places.get(gram, {}).items():
                counts[index, column] = count
        lengths = np.array([len(sentence) for sentence in words])
        unigrams = np.array([len(gram) == 1 for gram in wanted], bool)
        picked: list[int] = []
        best = 0.0
        while len(picked) < min(self.k, len(words)):
            found = counts + counts[picked].sum(0)
            for index in range(len(words)):  # n-grams across sentences
                summary = sorted([*picked, index])
                for left, right in pairwise(summary):
                    column = columns.get((words[left][-1], words[right][0]))
                    if column is not None:
                        found[index, column] += 1
            hits = np.minimum(found, limits)
            total = lengths + lengths[picked].sum()
            scores = _f1(hits[:, unigrams].sum(1), total, len(reference))
            scores += _f1(hits[:, ~unigrams].sum(1), total - 1, len(reference) - 1)
            scores[picked] = -1
            index = int(scores.argmax())
            if scores[index] <= best + 1e-12:
                break
            best = scores[index]
            picked.insert(bisect(picked, index), index)
        return picked


def _grams(words: list[str]) -> list[tuple[str, ...]]:
    return [*((word,) for word in words), *pairwise(words)]


def _f1(hits: np.ndarray, predicted: np.ndarray, wanted: int) -> np.ndarray:
    """F1 from counts; precision and recall have the same hits, so it is their share of both."""
    return 2 * hits / np.maximum(predicted + wanted, 1)


class LexRank(_Extractive):
    """The `k` most central sentences of the passage, in its order; or central to the question.

    Without a question it is `sumy`'s LexRank with English stop words and stems (Erkan & Radev 2004,
    https://arxiv.org/abs/1109.2128), whose matrix is a product here: its own loops take 3 s over a
    transcript of 800 sentences. With the question it is the biased walk of Otterbacher, Erkan & Radev 2005,
    "Using Random Walks for Question-focused Sentence Retrieval", https://aclanthology.org/H05-1115:

        p(s|q) = d · rel(s|q) / Σ_z rel(z|q)  +  (1 - d) · Σ_v sim(s, v) / Σ_z sim(z, v) · p(v|q)
        rel(s|q) = Σ_{w in q} log(tf(w, s) + 1) · log(tf(w, q) + 1) · log((n + 1) / (0.5 + sf(w)))

    over the cosines above sumy's threshold of 0.1, where sf(w) of the n sentences have the word. A question
    that shares no word with the passage leaves every sentence as relevant. Of sentences that are alike
    but for case, only the first is taken; equals go by their place in the passage.

    Args:
        k: Sentences.
        question: Whether the score depends on the question.
        d: Weight of the question against centrality, above 0 and up to 1; of no effect without it. Between
            0.7 and 0.95 ROUGE on ACLSum and QMSum differs by less than 0.002.
    """

    def __init__(self, k: int = 3, question: bool = False, d: float = 0.85):
        check_counts("lexrank", k=k)
        if isinstance(d, bool) or not isinstance(d, (int, float)) or not 0 < d <= 1:
            raise DataError(f"lexrank: d is {d!r}, expected a number above 0 and up to 1")
        self.k, self.d = k, d
        self.name = f"lexrank-{k}" + (" + question" if question else "")
        self.settings = {"kind": "lexrank", "k": k, "question": question} | ({"d": d} if question else {})
        if question:
            self.fields = ("passage", "question")
        self._summarizer = _sumy()

    def read(self, passage: str) -> tuple[list[str], list[list[str]], np.ndarray]:
        """The sentences of a passage, their stems, and the cosine of every two."""
        sentences = split_sentences(passage)
        stems = [self._summarizer.stems(text) for text in sentences]
        return sentences, stems, self._summarizer.cosines(stems)

    def take(self, parsed: tuple, question: str | None = None) -> str:
        sentences, stems, cosines = parsed
        if not sentences:
            return ""
        if question is None:
            scores = self._summarizer.centrality(cosines)
        else:
            scores = self._biased(stems, cosines, self._summarizer.stems(question))
        # Rounded, so that what is equal but for the order of a sum is equal.
        ranked = sorted(range(len(sentences)), key=lambda index: (-round(scores[index], 9), index))
        first: dict[str, int] = {}
        for index in ranked:
            first.setdefault(sentences[index].lower(), index)
        return " ".join(sentences[index] for index in sorted(list(first.values())[: self.k]))

    def _biased(self, stems: list[list[str]], cosines: np.ndarray, question: list[str]) -> np.ndarray:
        counts = [Counter(sentence) for sentence in stems]
        relevance = np.zeros(len(stems))
        for word, asked in Counter(question).items():
            tf = np.array([sentence[word] for sentence in counts])
            idf = math.log((len(stems) + 1) / (0.5 + np.count_nonzero(tf)))
            relevance += np.log(tf + 1) * math.log(asked + 1) * idf
        relevance = relevance / relevance.sum() if relevance.any() else np.full(len(stems), 1 / len(stems))
        links = cosines * (cosines > self._summarizer.threshold)
        links /= np.maximum(links.sum(0), 1e-12)
        scores = relevance
        # Each step shrinks what is left by 1 - d, so these reach 1e-12.
        for _ in range(math.ceil(-12 / math.log10(max(1 - self.d, 1e-12)))):
            scores = self.d * relevance + (1 - self.d) * links @ scores
        return scores


@cache
def _sumy():
    """sumy's LexRank, with its loops over all pairs of sentences as products of matrices."""
    try:  # here, for it imports nltk
        from sumy.models.dom import Sentence
        from sumy.nlp.stemmers import Stemmer
        from sumy.summarizers.lex_rank import LexRankSummarizer
        from sumy.utils import get_stop_words
    except ImportError:
        raise DataError(
            'lexrank: needs the package sumy, which `pip install "crosstask[eval]"` has'
        ) from None

    class Words:
        """In place of sumy's tokenizer, which would download its data."""

        @staticmethod
        def to_words(text: str) -> list[str]:
            return re.findall(r"[^\W_]+", text)

    class Summarizer(LexRankSummarizer):
        def stems(self, text: str) -> list[str]:
            return self._to_words_set(Sentence(text, Words))

        def cosines(self, sentences: list[list[str]]) -> np.ndarray:
            """sumy's cosine of every two sentences, (sentences, sentences); 0 of one without weight."""
            from scipy.sparse import csr_array

            found = Counter(word for sentence in sentences for word in set(sentence))
            columns = {word: column for column, word in enumerate(found)}
            idf = {word: math.log(len(sentences) / (1 + count)) for word, count in found.items()}
            weights = [
                (tf * idf[word], row, columns[word])
                for row, metrics in enumerate(self._compute_tf(sentences))
                for word, tf in metrics.items()
            ]
            values, rows, places = zip(*weights, strict=True) if weights else ((), (), ())
            shape = (len(sentences), max(len(columns), 1))
            matrix = csr_array((np.array(values, float), (rows, places)), shape=shape)
            product = (matrix @ matrix.T).toarray()
            norms = np.sqrt(product.diagonal())
            return product / np.where(norms > 0, norms, np.inf) / np.where(norms > 0, norms, np.inf)[:, None]

        def centrality(self, cosines: np.ndarray) -> np.ndarray:
            links = (cosines > self.threshold).astype(float)
            if not links.any():  # sumy would divide by zero
                return np.zeros(len(links))
            return self.power_method(links / np.maximum(links.sum(1, keepdims=True), 1), self.epsilon)

    summarizer = Summarizer(cache(Stemmer("english")))
    summarizer.stop_words = get_stop_words("english")
    return summarizer


def lead(passage: str, sentences: int = 3) -> str:
    """The lead baseline: the first sentences of the passage, as `sentences_of` finds them.

    Source of the baseline: See et al. 2017, "Get To The Point: Summarization with
    Pointer-Generator Networks", https://arxiv.org/abs/1704.04368 (lead-3).

    Args:
        passage: The text to take from.
        sentences: How many sentences to take, at least 1.

    Returns:
        The beginning of the passage, as it stands there but for white space around it; the whole
        passage where it has no more sentences than asked for.

    Raises:
        ValueError: If `sentences` is below 1.
    """
    if sentences < 1:
        raise ValueError(f"sentences is {sentences}, expected at least 1.")
    spans = list(islice(iter_sentence_spans(passage), sentences))
    return passage[spans[0][0] : spans[-1][1]] if spans else ""
