"""PubMedQA: abstracts of biomedical papers; the title asks a question that the conclusion answers.

It is read from the columns of `qiaojin/PubMedQA` and from the official JSON.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from crosstask.data.readers.corpus import Corpus, JsonFormat, Record, Reject, Row, make_answered_row


def _make_rows(record: Record, stage: str, default_id: str) -> Iterator[Row]:
    """Yield one row per paper: the abstract without its conclusion, and the conclusion as the answer."""
    contexts = record["context"]["contexts"]
    if isinstance(contexts, str):
        raise TypeError("contexts: expected a list, got a string")
    passage = " ".join(contexts)
    yield make_answered_row(record.get("pubid"), passage, record["question"], record["long_answer"])


def _matches(document: Any) -> bool:
    first_paper = next(iter(document.values()), None) if isinstance(document, dict) else None
    return isinstance(first_paper, dict) and "QUESTION" in first_paper


def _flatten(document: Any) -> Iterator[Record | Reject]:
    """Yield one record per paper of {pmid: {"QUESTION", "CONTEXTS", "LONG_ANSWER", ...}}."""
    for pmid, paper in document.items():
        try:
            yield {
                "pubid": pmid,
                "question": paper["QUESTION"],
                "context": {"contexts": paper["CONTEXTS"]},
                "long_answer": paper["LONG_ANSWER"],
            }
        except (KeyError, TypeError):
            reason = f"{pmid}: expected a paper of PubMedQA with QUESTION, CONTEXTS and LONG_ANSWER"
            yield Reject(reason, is_malformed=True)


PUBMEDQA = Corpus(
    name="pubmedqa",
    title="PubMedQA",
    hub_id="qiaojin/PubMedQA",
    license="mit",
    url="https://github.com/pubmedqa/pubmedqa",
    citation="Jin et al. 2019, PubMedQA: A Dataset for Biomedical Research Question Answering, "
    "https://arxiv.org/abs/1909.06146",
    columns=("question", "context", "long_answer"),
    official_files=r"ori_pqa[aul]\w*\.json",
    json_format=JsonFormat("an object of papers with QUESTION", _matches, _flatten),
    expected="a paper of PubMedQA with context.contexts",
    make_rows=_make_rows,
)
