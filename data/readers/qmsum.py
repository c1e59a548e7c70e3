"""QMSum: transcripts of meetings, each with queries and their summaries."""

from __future__ import annotations

from collections.abc import Iterator

from crosstask.data.readers.corpus import Corpus, Record, Row, make_answered_row


def _make_rows(record: Record, stage: str, default_id: str) -> Iterator[Row]:
    """Yield one row per query; for "summarize" only the general queries, which are about the entire meeting.

    The passage has one line per turn, "speaker: content". The file gives no ids.
    """
    turns = record["meeting_transcripts"]
    passage = "\n".join(turn["speaker"] + ": " + turn["content"] for turn in turns)
    kinds = {"g": "general_query_list"}
    if stage != "summarize":
        kinds["s"] = "specific_query_list"
    for letter, column in kinds.items():
        for number, query in enumerate(record[column], start=1):
            yield make_answered_row(
                f"{default_id}-{letter}{number}", passage, query["query"], query["answer"]
            )


QMSUM = Corpus(
    name="qmsum",
    title="QMSum",
    license="mit",
    url="https://github.com/Yale-LILY/QMSum",
    citation="Zhong et al. 2021, QMSum: A New Benchmark for Query-based Multi-domain Meeting Summarization, "
    "https://arxiv.org/abs/2104.05938",
    columns=("meeting_transcripts", "general_query_list", "specific_query_list"),
    expected="a meeting of QMSum with speaker and content of each turn and query and answer of each query",
    make_rows=_make_rows,
)
