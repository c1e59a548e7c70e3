"""Scores of texts, row by row: lists in, a list out with a float for each row, or None where the score
is not defined there. A figure of a system is their `mean`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from crosstask.data.answers import to_paired_lists
from crosstask.sentences_crosstask import OPENERS, split_sentences

ROUGE_TYPES = ("rouge1", "rouge2", "rougeL", "rougeLsum")
# Starting a pool takes a second or two, in which one process scores about so many pairs.
POOL_FROM = 2000

_WORD_OR_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*|[^\W\d_]+")
_THOUSANDS = re.compile(r",(?=\d{3}(?!\d))")
_TOKEN = re.compile(r"\w+|[^\w\s]")


# --- Closeness to a reference ----------------------------------------------------------------------


def rouge_rows(
    predictions: Iterable[str],
    references: Iterable[str | Sequence[str]],
    *,
    use_stemmer: bool = True,
    types: Sequence[str] = ROUGE_TYPES,
    processes: int | None = None,
) -> dict[str, list[float | None]]:
    """ROUGE F1 of each prediction, by the `rouge_score` package.

    Its tokenizer keeps only a-z and 0-9, so text in another script scores 0. For rougeLsum, which
    compares sentence by sentence, every line is cut into its sentences. Source: Lin 2004, "ROUGE: A
    Package for Automatic Evaluation of Summaries", https://aclanthology.org/W04-1013.

    Args:
        predictions: One text a row; an empty one scores 0.
        references: A text a row, or several; of several the best F1 counts, for each type alone.
        use_stemmer: Whether Porter's stemmer takes off endings (of English).
        types: Any of "rouge1" to "rouge9", "rougeL" and "rougeLsum".
        processes: Over how many processes the pairs are spread; None is one up to `POOL_FROM`
            distinct pairs, and beyond that one for each core. It does not change the scores.

    Returns:
        For each type, each row's F1, 0 to 1; None where all references are blank. Each distinct pair
        is scored once.

    Raises:
        ValueError: If there are not as many predictions as references, or a type is unknown.
    """
    predictions, references = to_paired_lists(predictions=predictions, references=references)
    for name in types:
        if not re.fullmatch("rouge([1-9]|L|Lsum)", name):
            raise ValueError(f"The ROUGE type is {name!r}, expected rouge1 to rouge9, rougeL or rougeLsum.")
    references = [written(texts) for texts in references]
    pairs = list(
        dict.fromkeys((p, r) for p, texts in zip(predictions, references, strict=True) for r in texts)
    )
    scores = dict(zip(pairs, _rouge(pairs, use_stemmer, list(types), processes), strict=True))
    rows = [
        [scores[prediction, reference] for reference in texts]
        for prediction, texts in zip(predictions, references, strict=True)
    ]
    return {
        name: [max((f1s[index] for f1s in row), default=None) for row in rows]
        for index, name in enumerate(types)
    }


def written(references: str | Sequence[str]) -> list[str]:
    """A row's references, without the blank ones."""
    return [text for text in ([references] if isinstance(references, str) else references) if text.strip()]


def _rouge(pairs, use_stemmer, types, processes):
    """F1 of each type for each pair (prediction, reference)."""
    from joblib import Parallel, cpu_count, delayed
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(types, use_stemmer=use_stemmer)
    lines = _lines if "rougeLsum" in types else str
    texts = ((lines(reference), lines(prediction)) for prediction, reference in pairs)
    if processes is None:
        processes = cpu_count() if len(pairs) > POOL_FROM else 1
    if processes == 1:
        scores = (scorer.score(*pair) for pair in texts)
    else:
        # joblib's processes start afresh, which torch's threads survive, and do not run the caller's
        # script again, as multiprocessing's would. Nor do they import crosstask, and torch with it: what
        # they are sent is a method of `rouge_score`.
        share = len(pairs) // (4 * processes) + 1  # four each: one slow share is no long wait
        scores = Parallel(processes, batch_size=share)(delayed(scorer.score)(*pair) for pair in texts)
    return [[float(score[name].fmeasure) for name in types] for score in scores]


def _lines(text: str) -> str:
    """The text with a line for each sentence, as rougeLsum reads it."""
    return "\n".join(sentence for line in text.splitlines() for sentence in split_sentences(line))


# --- The answer in the summary ---------------------------------------------------------------------


def entailment_rows(
    judge, summaries: Iterable[str], questions: Iterable[str], answers: Iterable[str]
) -> list[float | None]:
    """P(entailment) of each answer by its summary, as the judge of the data builder gives it.

    Args:
        judge ([`~crosstask.data.builder.judge.Judge`]): It scores each distinct pair once, and fills its
            template with the question and the answer.
        summaries: One summary a row; an empty one entails nothing and scores 0.
        questions: One question a row, for templates that have it.
        answers: One answer a row.

    Returns:
        0 to 1 for each row, rounded to 6 decimals; None where the answer is blank.

    Raises:
        ValueError: If the columns are not of the same length.
        DataError: If the judge's numbers overflow.
    """
    columns = to_paired_lists(summaries=summaries, questions=questions, answers=answers)
    rows = list(zip(*columns, strict=True))
    judged = [row for row in rows if row[0].strip() and row[2].strip()]
    premises, questions, answers = zip(*judged, strict=True) if judged else ((), (), ())
    scores = iter(judge.score(premises, judge.hypotheses(questions, answers)))
    return [
        None if not answer.strip() else next(scores) if summary.strip() else 0.0
        for summary, _, answer in rows
    ]


# --- The summary and its passage -------------------------------------------------------------------


def faithfulness_rows(summaries: Iterable[str], passages: Iterable[str]) -> list[float | None]:
    """The share of each summary's numbers and names that occur in its passage: a cheap sign of what
    it made up. After the share of a summary's entities and numbers that its source has, as in Nan et
    al. 2021, "Entity-level Factual Consistency of Abstractive Text Summarization",
    https://aclanthology.org/2021.eacl-main.235 (there with a tagger).

    Numbers are runs of digits with the marks inside them, compared as they stand but for the commas of
    thousands ("1,200" is "1200"); a number in words is none. Names are words with a capital at their
    beginning, each word of a name by itself, looked for in any case. "I" is none. The first word of a
    sentence is a name only where something else says so: more capitals in it ("NASA"), a capital inside
    a sentence elsewhere in the summary or the passage, or a capitalized word right after it
    ("Ada Lovelace"), unless it commonly begins sentences ("The"). So a made-up single name that begins
    a sentence goes unseen. Scripts without capitals have no names.

    Args:
        summaries: One summary a row.
        passages: One passage a row.

    Returns:
        0 to 1 for each row, over its distinct numbers and names; None where it has none.

    Raises:
        ValueError: If there are not as many summaries as passages.
    """
    summaries, passages = to_paired_lists(summaries=summaries, passages=passages)
    return [_faithfulness(*row) for row in zip(summaries, passages, strict=True)]


def _faithfulness(summary, passage):
    told = {_plain(word) for word in _WORD_OR_NUMBER.findall(passage)}
    sure, unsure = _names(summary)
    claimed = sure | unsure & _names(passage)[0]
    return len(claimed & told) / len(claimed) if claimed else None


def _names(text):
    """Numbers and certain names of a text, and the words that are names if they are so elsewhere."""
    sure, unsure = set(), set()
    for sentence in split_sentences(text):
        words = _WORD_OR_NUMBER.findall(sentence)
        for index, word in enumerate(words):
            following = words[index + 1] if index + 1 < len(words) else ""
            if word[0].isdigit():
                sure.add(_plain(word))
            elif not word[0].isupper() or word == "I":
                continue
            elif (
                index
                or any(letter.isupper() for letter in word[1:])
                or (following[:1].isupper() and following != "I" and word.lower() not in OPENERS)
            ):
                sure.add(_plain(word))
            else:
                unsure.add(_plain(word))
    return sure, unsure


def _plain(word):
    return _THOUSANDS.sub("", word).casefold()


def extractiveness_rows(
    summaries: Iterable[str], passages: Iterable[str]
) -> tuple[list[float | None], list[float | None]]:
    """How much of each summary is copied from its passage, and in how long pieces.

    The summary S is cut greedily, from its beginning, into the longest fragments f that occur in the
    passage A; with |·| in tokens,

        coverage = 1/|S| · Σ |f|        density = 1/|S| · Σ |f|²

    Source: Grusky et al. 2018, "Newsroom: A Dataset of 1.3 Million Summaries with Diverse Extractive
    Strategies", https://arxiv.org/abs/1804.11283, section 4. Tokens are words and single marks, in
    lower case.

    Args:
        summaries: One summary a row.
        passages: One passage a row; an empty one gives 0.

    Returns:
        Coverage, 0 to 1, and density, 0 to the summary's length in tokens, of each row; None where the
        summary is blank.

    Raises:
        ValueError: If there are not as many summaries as passages.
    """
    coverage, density = [], []
    for texts in zip(*to_paired_lists(summaries=summaries, passages=passages), strict=True):
        summary, passage = (_TOKEN.findall(text.lower()) for text in texts)
        lengths = _fragments(summary, passage)
        coverage.append(sum(lengths) / len(summary) if summary else None)
        density.append(sum(length**2 for length in lengths) / len(summary) if summary else None)
    return coverage, density


def _fragments(summary, passage):
    """Lengths of the greedy fragments: the paper's figure 3, with the passage's words indexed."""
    places = {}
    for index, token in enumerate(passage):
        places.setdefault(token, []).append(index)
    lengths, start = [], 0
    while start < len(summary):
        longest = 0
        for place in places.get(summary[start], ()):
            room = min(len(summary) - start, len(passage) - place)
            length = 1
            while length < room and summary[start + length] == passage[place + length]:
                length += 1
            longest = max(longest, length)
        lengths += [longest] if longest else []
        start += longest or 1
    return lengths


def length_rows(texts: Iterable[str]) -> list[float]:
    """The length of each text in words, which are what white space parts; 0 of a blank one."""
    return [float(len(text.split())) for text in texts]
