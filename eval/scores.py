"""Scores: does the summary carry the answer, how close is it to a reference, and does the model
know? Plus the table that shows them and the lead baseline that they are compared with."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice, pairwise

ROUGE_TYPES = ("rouge1", "rouge2", "rougeL")
IGNORED_LABEL = -100

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


def normalize_answer(text: str) -> str:
    """Bring an answer to the form in which SQuAD compares answers.

    Lower-cases, deletes ASCII punctuation, drops the articles *a*, *an* and *the*, and leaves one
    space between words. Numbers lose their punctuation too ("4.2" becomes "42"), and a text of
    nothing but articles and punctuation becomes empty.

    Source: the steps of SQuAD's official evaluation script; Rajpurkar et al. 2016, "SQuAD: 100,000+
    Questions for Machine Comprehension of Text", https://arxiv.org/abs/1606.05250.

    Args:
        text: Any text; what is not English keeps its words.

    Returns:
        The normalized text, possibly empty.
    """
    without_punctuation = text.lower().translate(_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", without_punctuation).split())


def answer_recall(summaries: Iterable[str], answers: Iterable[str]) -> float | None:
    """Mean share of the answer's tokens that the summary carries.

    Both are normalized with `normalize_answer` and compared as multisets of words: a word that the
    answer has twice counts fully only where the summary has it twice. It is the recall half of
    SQuAD's token F1 (Rajpurkar et al. 2016), since a summary is rightly longer than the answer.

    Args:
        summaries: One summary a row.
        answers: One answer a row; rows whose answer is empty once normalized are left out.

    Returns:
        The mean over the rows with an answer, 0 to 1, or None if no row has one.

    Raises:
        ValueError: If there are not as many summaries as answers.
    """
    summaries, answers = _paired(summaries=summaries, answers=answers)
    recalls = []
    for summary, answer in zip(summaries, answers, strict=True):
        wanted = Counter(normalize_answer(answer).split())
        if wanted:
            found = wanted & Counter(normalize_answer(summary).split())
            recalls.append(found.total() / wanted.total())
    return _mean(recalls)


def rouge(predictions: Iterable[str], references: Iterable[str]) -> dict[str, float | None]:
    """Mean ROUGE F1 of predictions against one reference each.

    Computed by the `rouge_score` package with Porter stemming. Its tokenizer keeps only a-z and
    0-9, so text in another script scores 0. Source: Lin 2004, "ROUGE: A Package for Automatic
    Evaluation of Summaries", https://aclanthology.org/W04-1013.

    Args:
        predictions: One text a row; an empty one scores 0.
        references: One text a row; rows whose reference is empty or blank are left out.

    Returns:
        `rouge1`, `rouge2` and `rougeL`, each 0 to 1, each None when no row is left.

    Raises:
        ValueError: If there are not as many predictions as references.
    """
    from rouge_score.rouge_scorer import RougeScorer

    predictions, references = _paired(predictions=predictions, references=references)
    scorer = RougeScorer(list(ROUGE_TYPES), use_stemmer=True)
    scores = [
        scorer.score(reference, prediction)
        for prediction, reference in zip(predictions, references, strict=True)
        if reference.strip()
    ]
    return {name: _mean([score[name].fmeasure for score in scores]) for name in ROUGE_TYPES}


def answerability(probabilities: Iterable[float], labels: Iterable[int | None]) -> dict[str, float | None]:
    """How well P(summary carries the answer) tells the rows that do from those that do not.

    Args:
        probabilities: P(class 1), one a row, 0 to 1.
        labels: 1 or 0, one a row; rows labelled -100 or None are left out.

    Returns:
        `accuracy`, 0 to 1, of saying yes where the probability is above 0.5 (at 0.5 it is a no, as
        the arg max of two equal logits is), None when no row is left; and `auroc`, 0 to 1, the area
        under the ROC curve by scikit-learn's `roc_auc_score`, None unless both classes are there.

    Raises:
        ValueError: If there are not as many probabilities as labels, if a probability is NaN or
            outside 0 to 1 (in a row that is left out, too: the model is at fault there as well),
            or if a label is none of 0, 1, -100 and None.
    """
    probabilities, labels = _paired(probabilities=probabilities, labels=labels)
    kept_probabilities, kept_labels = [], []
    for row, (probability, label) in enumerate(zip(probabilities, labels, strict=True)):
        if not 0 <= probability <= 1:  # NaN fails this too
            raise ValueError(f"The probability in row {row} is {float(probability)}, expected 0 to 1.")
        if label is None or label == IGNORED_LABEL:
            continue
        if label not in (0, 1):
            raise ValueError(f"The label in row {row} is {label!r}, expected 0, 1, -100 or None.")
        kept_probabilities.append(float(probability))
        kept_labels.append(int(label))

    hits = [
        (probability > 0.5) == (label == 1)
        for probability, label in zip(kept_probabilities, kept_labels, strict=True)
    ]
    auroc = None
    if len(set(kept_labels)) == 2:
        from sklearn.metrics import roc_auc_score

        auroc = float(roc_auc_score(kept_labels, kept_probabilities))
    return {"accuracy": _mean(hits), "auroc": auroc}


def table(rows: Mapping[str, Mapping[str, float | None]], markdown: bool = False) -> str:
    """Lay out scores with a line for each system and a column for each metric.

    Args:
        rows: The metrics of each system by name. Columns come in the order in which the metrics
            are first met; a metric that a system lacks shows as None does.
        markdown: Whether to write a Markdown table instead of plain, aligned text.

    Returns:
        The table, three decimals a number and "-" for None, without a newline at its end.
    """
    metrics = list(dict.fromkeys(metric for scores in rows.values() for metric in scores))
    lines = [["system", *metrics]]
    for system, scores in rows.items():
        values = [scores.get(metric) for metric in metrics]
        lines.append([system, *("-" if value is None else f"{value:.3f}" for value in values)])
    if markdown:
        lines = [[cell.replace("|", r"\|") for cell in line] for line in lines]

    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    aligned = [[line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])] for line in lines]
    rule = ["-" * width for width in widths]
    if not markdown:
        return "\n".join("  ".join(line).rstrip() for line in [aligned[0], rule, *aligned[1:]])
    rule[1:] = [dashes[:-1] + ":" for dashes in rule[1:]]  # numbers are aligned right
    return "\n".join(f"| {' | '.join(line)} |" for line in [aligned[0], rule, *aligned[1:]])


# A full stop after one of these never ends a sentence …
_TITLES = frozenset(
    "mr mrs ms mx dr prof rev hon gen col maj capt lt sgt cpl adm gov sen rep st mt ft vs cf e.g i.e".split()
)
# … and after one of these, or after initials ("U.S.", "J."), it does so only before a word that
# commonly begins a sentence.
_ABBREVIATIONS = frozenset(
    "jr sr inc ltd co corp bros dept est no nos vol pp fig figs eq approx ca etc al ph.d jan feb "
    "mar apr jun jul aug sep sept oct nov dec".split()
)
_INITIALS = re.compile(r"[^\W\d_](?:\.[^\W\d_])*")
_OPENERS = frozenset(
    "a after although an and as at because before both but by despite during each for from he her "
    "here his how however i if in it its many most my no on one our several she since so some such "
    "that the their then there these they this those to under until we what when where which while "
    "who why with you your".split()
)


def lead(passage: str, sentences: int = 3) -> str:
    """The lead baseline: the first sentences of the passage.

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
    return passage[: [0, *islice(_ends(passage), sentences)][-1]].strip()


def split_sentences(passage: str) -> list[str]:
    """The sentences of a passage, as they stand there but for white space around them.

    Sentences end at ".", "!" or "?" (closing quotes and brackets may follow) before white space,
    and at an empty line. Titles ("Mr."), common English abbreviations, initials ("U.S.") and
    decimals ("4.2") do not end one, nor does a mark before a lower-case word, unless the whole
    passage is in lower case.
    """
    return [passage[start:end].strip() for start, end in pairwise([0, *_ends(passage)])]


def _ends(passage: str) -> Iterator[int]:
    """Where each sentence ends: offsets into the passage."""
    cased = passage != passage.lower()
    words = list(re.finditer(r"\S+", passage))
    for word, following in pairwise(words):
        gap = passage[word.end() : following.start()]
        if gap.count("\n") > 1 or _ends_sentence(word[0], following[0], cased):
            yield word.end()
    if words:
        yield words[-1].end()


def _ends_sentence(word: str, following: str, cased: bool) -> bool:
    """Whether a sentence ends with `word` where `following` is the next word."""
    word = word.strip("\"'“”‘’«»()[]")
    following = following.lstrip("\"'“‘«([").rstrip(",")
    if not word.endswith((".", "!", "?", "…")) or (cased and following[:1].islower()):
        return False
    stem = word[:-1].lower()
    if not word.endswith(".") or (stem not in _TITLES | _ABBREVIATIONS and not _INITIALS.fullmatch(stem)):
        return True
    return stem not in _TITLES and following.lower() in _OPENERS


def _paired(**columns: Iterable) -> list[list]:
    """The two columns as lists, or a ValueError if they are not of the same length."""
    lists = {name: list(column) for name, column in columns.items()}
    (first, a), (second, b) = lists.items()
    if len(a) != len(b):
        raise ValueError(f"There are {len(a)} {first} but {len(b)} {second}, expected as many.")
    return [a, b]


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
