"""The lead baseline: the first sentences of the passage."""

from __future__ import annotations

from itertools import islice

from crosstask.eval.systems.base import Extractive
from crosstask.sentences_crosstask import iter_sentence_spans
from crosstask.utils.pretrained import check_counts


class Lead(Extractive):
    """The first `k` sentences of the passage.

    Args:
        k (`int`, *optional*, defaults to 3): The number of sentences.

    Raises:
        DataError: If `k` is not a positive integer.
    """

    def __init__(self, k: int = 3):
        check_counts("lead", k=k)
        self.k, self.name = k, f"lead-{k}"
        self.settings = {"kind": "lead", "k": k}

    def parse(self, passage: str) -> str:
        return get_lead(passage, self.k)

    def select(self, parsed: str, value: None) -> str:
        return parsed


def get_lead(passage: str, sentences: int = 3) -> str:
    """Return the first sentences of a passage, or all of it if it has fewer.

    Source of the baseline: See et al. 2017, "Get To The Point: Summarization with Pointer-Generator
    Networks", https://arxiv.org/abs/1704.04368 (lead-3).

    Args:
        passage (`str`): The text to cut. White space within the result is as in the passage.
        sentences (`int`, *optional*, defaults to 3): The number of sentences, at least 1.

    Raises:
        ValueError: If `sentences` is below 1.
    """
    if sentences < 1:
        raise ValueError(f"sentences is {sentences}, expected at least 1.")
    spans = list(islice(iter_sentence_spans(passage), sentences))
    return passage[spans[0][0] : spans[-1][1]] if spans else ""
