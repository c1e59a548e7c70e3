"""The lead baseline: the first sentences of a passage."""

from __future__ import annotations

from itertools import islice

from crosstask.sentences_crosstask import sentence_spans


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
    spans = list(islice(sentence_spans(passage), sentences))
    return passage[spans[0][0] : spans[-1][1]] if spans else ""
