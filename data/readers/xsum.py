"""XSum: news articles, each with a summary of one sentence."""

from __future__ import annotations

from collections.abc import Iterator

from crosstask.data.readers.corpus import Corpus, Record, Row

# The question that every summary of XSum answers (Narayan et al. 2018, abstract).
QUESTION = "What is the article about?"


def _make_rows(record: Record, stage: str, default_id: str) -> Iterator[Row]:
    """Yield one row. For "fuse" it has the question that all summaries answer, no answer and no label."""
    row = {"id": record.get("id"), "passage": record["document"], "summary": record["summary"]}
    yield row if stage == "summarize" else row | {"question": QUESTION, "answer": "", "answerable": None}


XSUM = Corpus(
    name="xsum",
    title="XSum",
    hub_id="EdinburghNLP/xsum",
    license="unknown",
    url="https://github.com/EdinburghNLP/XSum",
    citation="Narayan et al. 2018, Don't Give Me the Details, Just the Summary! Topic-Aware Convolutional "
    "Neural Networks for Extreme Summarization, https://arxiv.org/abs/1808.08745",
    columns=("document", "summary"),
    # A user's file may have the same two columns and questions, which the one question must not replace.
    excluded_columns=("question", "answer", "answerable"),
    stages=("summarize", "fuse"),
    expected="a document",
    make_rows=_make_rows,
)
