"""Scores of texts. Each function `*_rows` returns one score per row, or None for a row without one.

A system's figure is the mean over its rows, `data.answers.mean`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from types import SimpleNamespace

from crosstask.data.answers import to_paired_lists
from crosstask.sentences_crosstask import (
    COMBINING_MARKS,
    OPENERS,
    UNSPACED_CHARACTER,
    UNSPACED_LETTERS,
    WORD_CHARACTER,
    count_words,
    normalize_text,
    split_sentences,
    split_words,
)

ROUGE_TYPES = ("rouge1", "rouge2", "rougeL", "rougeLsum")
# Up to this many pairs, one process is faster than starting a pool, which takes one or two seconds.
MAX_PAIRS_OF_ONE_PROCESS = 2000

_WORD_OR_NUMBER = re.compile(rf"\d+(?:[.,:]\d+)*|(?:[^\W\d_{UNSPACED_LETTERS}]|[{COMBINING_MARKS}])+")
_THOUSANDS_COMMA = re.compile(r",(?=\d{3}(?!\d))")
_TOKEN = re.compile(rf"{UNSPACED_CHARACTER}|(?:{WORD_CHARACTER}|_)+|[^\w\s]")


# --- Similarity to a reference --------------------------------------------------------------------


def rouge_rows(
    predictions: Iterable[str],
    references: Iterable[str | Sequence[str]],
    *,
    use_stemmer: bool = True,
    types: Sequence[str] = ROUGE_TYPES,
    processes: int | None = None,
) -> dict[str, list[float | None]]:
    """Compute ROUGE F1 of each prediction with the `rouge_score` package.

    The package's tokenizer keeps only a-z and 0-9. The one here, [`make_rouge_tokenizer`], returns the same
    words for ASCII text, and words or characters for other scripts. For rougeLsum, which compares sentences,
    each line is split into its sentences. Source: Lin 2004, "ROUGE: A Package for Automatic
    Evaluation of Summaries", https://aclanthology.org/W04-1013.

    Args:
        predictions (`Iterable[str]`): One text per row; an empty one scores 0.
        references (`Iterable[str | Sequence[str]]`): One or several texts per row; of several, the best F1
            counts, separately for each type.
        use_stemmer (`bool`, *optional*, defaults to `True`): Whether Porter's stemmer removes English
            suffixes of words in a-z.
        types (`Sequence[str]`, *optional*): Any of "rouge1" to "rouge9", "rougeL" and "rougeLsum".
        processes (`int`, *optional*): The number of processes; by default one for at most
            `MAX_PAIRS_OF_ONE_PROCESS` distinct pairs, and all cores for more. The scores do not depend on it.

    Returns:
        `dict[str, list]`: For each type, F1 of each row, 0 to 1, or None if all references are blank. Each
        distinct pair is scored once.

    Raises:
        ValueError: If the numbers of predictions and references differ, or if a type is unknown.
    """
    predictions, references = to_paired_lists(predictions=predictions, references=references)
    for name in types:
        if not re.fullmatch("rouge([1-9]|L|Lsum)", name):
            raise ValueError(f"The ROUGE type is {name!r}, expected rouge1 to rouge9, rougeL or rougeLsum.")
    references = [list_references(texts) for texts in references]
    pairs = list(
        dict.fromkeys((p, r) for p, texts in zip(predictions, references, strict=True) for r in texts)
    )
    scores = dict(zip(pairs, _score_pairs(pairs, use_stemmer, list(types), processes), strict=True))
    rows = [
        [scores[prediction, reference] for reference in texts]
        for prediction, texts in zip(predictions, references, strict=True)
    ]
    return {
        name: [max((f1s[index] for f1s in row), default=None) for row in rows]
        for index, name in enumerate(types)
    }


def make_rouge_tokenizer(use_stemmer: bool = True) -> Callable[[str], list[str]]:
    """Return a function that splits a text into words as ROUGE compares them.

    The words are those of [`~sentences_crosstask.split_words`]. With `use_stemmer`, the `rouge_score` package
    stems the words in a-z and 0-9.
    """
    if not use_stemmer:
        return split_words
    from rouge_score.tokenizers import DefaultTokenizer

    stem = cache(DefaultTokenizer(use_stemmer=True).tokenize)  # a list with one word for each word
    return lambda text: [stem(word)[0] if word.isascii() else word for word in split_words(text)]


def list_references(references: str | Sequence[str]) -> list[str]:
    """Return the references of a row that are not blank."""
    return [text for text in ([references] if isinstance(references, str) else references) if text.strip()]


def _score_pairs(
    pairs: list[tuple[str, str]], use_stemmer: bool, types: list[str], processes: int | None
) -> list[list[float]]:
    """Return F1 of each type for each pair of a prediction and a reference."""
    from joblib import Parallel, cpu_count, delayed
    from rouge_score.rouge_scorer import RougeScorer

    tokenize = make_rouge_tokenizer(use_stemmer)

    @cache
    def prepare(text: str) -> str:
        """Separate the words with spaces, and the sentences with line breaks."""
        lines = text.splitlines() if "rougeLsum" in types else []
        sentences = [sentence for line in lines for sentence in split_sentences(line)] or [text]
        return "\n".join(" ".join(tokenize(sentence)) for sentence in sentences)

    scorer = RougeScorer(types, tokenizer=SimpleNamespace(tokenize=str.split))
    texts = ((prepare(reference), prepare(prediction)) for prediction, reference in pairs)
    if processes is None:
        processes = cpu_count() if len(pairs) > MAX_PAIRS_OF_ONE_PROCESS else 1
    if processes == 1:
        scores = (scorer.score(*pair) for pair in texts)
    else:
        # joblib, because its processes neither inherit torch's threads, as forked ones would, nor run the
        # caller's script again, as those of multiprocessing would. They receive a method of `rouge_score` and
        # `str.split`, so they do not import this package and torch.
        batch_size = len(pairs) // (4 * processes) + 1  # four batches per process even out slow pairs
        scores = Parallel(processes, batch_size=batch_size)(delayed(scorer.score)(*pair) for pair in texts)
    return [[float(score[name].fmeasure) for name in types] for score in scores]


# --- The answer in the summary --------------------------------------------------------------------


def entailment_rows(
    judge, summaries: Iterable[str], questions: Iterable[str], answers: Iterable[str]
) -> list[float | None]:
    """Compute P(entailment) of each answer by its summary with the judge of the data builder.

    Args:
        judge ([`~crosstask.data.builder.judge.Judge`]): Scores each distinct pair once, and fills its
            template with the question and the answer.
        summaries (`Iterable[str]`): One per row; an empty one entails nothing and scores 0.
        questions (`Iterable[str]`): One per row, for templates that contain it.
        answers (`Iterable[str]`): One per row.

    Returns:
        `list`: 0 to 1 per row, rounded to 6 decimals, or None if the answer is blank.

    Raises:
        ValueError: If the columns differ in length.
        DataError: If the judge's logits are not finite.
    """
    columns = to_paired_lists(summaries=summaries, questions=questions, answers=answers)
    rows = list(zip(*columns, strict=True))
    defined = [row for row in rows if row[0].strip() and row[2].strip()]
    premises, questions, answers = zip(*defined, strict=True) if defined else ((), (), ())
    scores = iter(judge.score(premises, judge.make_hypotheses(questions, answers)))
    return [
        None if not answer.strip() else next(scores) if summary.strip() else 0.0
        for summary, _, answer in rows
    ]


# --- The summary and its passage ------------------------------------------------------------------


def faithfulness_rows(summaries: Iterable[str], passages: Iterable[str]) -> list[float | None]:
    """Compute the share of each summary's numbers and names that occur in its passage.

    This is a cheap indicator of hallucinations. It follows Nan et al. 2021, "Entity-level Factual Consistency
    of Abstractive Text Summarization", https://aclanthology.org/2021.eacl-main.235, who use an entity tagger.

    Numbers are runs of digits with the marks between them; only the comma of thousands is ignored ("1,200" is
    "1200"), the digits of all scripts are equal, and number words do not count. Names are words that begin
    with a capital, except "I"; each word of a name counts separately, and case is ignored when it is looked
    up. The first word of a sentence is a name only with further evidence: another capital in it ("NASA"), a
    capital inside a sentence elsewhere in the summary or the passage, or a capitalized word right after it
    ("Ada Lovelace") unless it often begins sentences ("The"). So an invented single name at the beginning of
    a sentence is missed. Scripts without capitals have no names, and in German every noun is one.

    Args:
        summaries (`Iterable[str]`): One per row.
        passages (`Iterable[str]`): One per row.

    Returns:
        `list`: 0 to 1 per row, over its distinct numbers and names, or None if it has none.

    Raises:
        ValueError: If the numbers of summaries and passages differ.
    """
    summaries, passages = to_paired_lists(summaries=summaries, passages=passages)
    return [_score_faithfulness(*row) for row in zip(summaries, passages, strict=True)]


def _score_faithfulness(summary: str, passage: str) -> float | None:
    passage_words = {_normalize_word(word) for word in _find_words_and_numbers(passage)}
    certain, possible = _find_names(summary)
    claims = certain | possible & _find_names(passage)[0]
    return len(claims & passage_words) / len(claims) if claims else None


def _find_names(text: str) -> tuple[set[str], set[str]]:
    """Return the numbers and certain names of a text, and its words that may be names."""
    certain: set[str] = set()
    possible: set[str] = set()
    for sentence in split_sentences(text):
        words = _find_words_and_numbers(sentence)
        for index, word in enumerate(words):
            following = words[index + 1] if index + 1 < len(words) else ""
            if word[0].isdigit():
                certain.add(_normalize_word(word))
            elif not word[0].isupper() or word == "I":
                continue
            elif (
                index
                or any(letter.isupper() for letter in word[1:])
                or (following[:1].isupper() and following != "I" and word.lower() not in OPENERS)
            ):
                certain.add(_normalize_word(word))
            else:
                possible.add(_normalize_word(word))
    return certain, possible


def _find_words_and_numbers(text: str) -> list[str]:
    return _WORD_OR_NUMBER.findall(normalize_text(text))


def _normalize_word(word: str) -> str:
    return _THOUSANDS_COMMA.sub("", word).casefold()


def extractiveness_rows(
    summaries: Iterable[str], passages: Iterable[str]
) -> tuple[list[float | None], list[float | None]]:
    """Compute how much of each summary is copied from its passage, and how long the copied fragments are.

    The summary S is divided greedily, from its beginning, into the longest fragments f that occur in the
    passage. With |·| in tokens,

        coverage = 1/|S| · Σ |f|        density = 1/|S| · Σ |f|²

    Source: Grusky et al. 2018, "Newsroom: A Dataset of 1.3 Million Summaries with Diverse Extractive
    Strategies", https://arxiv.org/abs/1804.11283, section 4. Tokens are words and single marks, without
    case. In scripts without spaces between words, each character is a token.

    Args:
        summaries (`Iterable[str]`): One per row.
        passages (`Iterable[str]`): One per row; an empty one gives 0.

    Returns:
        `tuple[list, list]`: Coverage, 0 to 1, and density, 0 to the summary's length in tokens, of each row;
        None if the summary is blank.

    Raises:
        ValueError: If the numbers of summaries and passages differ.
    """
    coverage, density = [], []
    for texts in zip(*to_paired_lists(summaries=summaries, passages=passages), strict=True):
        summary, passage = (_TOKEN.findall(normalize_text(text).casefold()) for text in texts)
        lengths = _measure_fragments(summary, passage)
        coverage.append(sum(lengths) / len(summary) if summary else None)
        density.append(sum(length**2 for length in lengths) / len(summary) if summary else None)
    return coverage, density


def _measure_fragments(summary: list[str], passage: list[str]) -> list[int]:
    """Return the lengths of the greedy fragments: the algorithm of the paper's figure 3, with an index."""
    positions: dict[str, list[int]] = {}
    for index, token in enumerate(passage):
        positions.setdefault(token, []).append(index)
    lengths, start = [], 0
    while start < len(summary):
        longest = 0
        for position in positions.get(summary[start], ()):
            limit = min(len(summary) - start, len(passage) - position)
            length = 1
            while length < limit and summary[start + length] == passage[position + length]:
                length += 1
            longest = max(longest, length)
        lengths += [longest] if longest else []
        start += longest or 1
    return lengths


def length_rows(texts: Iterable[str]) -> list[float | None]:
    """Return the length of each text in words, see [`~sentences_crosstask.count_words`]."""
    return [float(count_words(text)) for text in texts]
