"""SQuALITY: short stories with questions, each answered by several people."""

from __future__ import annotations

from collections.abc import Iterator

from crosstask.data.readers.corpus import Corpus, Record, Row, make_answered_row

# The only question that SQuALITY asks about every story.
PLOT_QUESTION = "What is the plot of the story?"


def _make_rows(record: Record, stage: str, default_id: str) -> Iterator[Row]:
    """Yield one row per response; for "summarize" only the responses about the plot."""
    story_id = record["metadata"]["passage_id"]
    for question in record["questions"]:
        text = question["question_text"]
        if stage == "summarize" and text != PLOT_QUESTION:
            continue
        for number, response in enumerate(question["responses"], start=1):
            row_id = f"{story_id}-q{question['question_number']}-r{number}"
            yield make_answered_row(row_id, record["document"], text, response["response_text"])


SQUALITY = Corpus(
    name="squality",
    title="SQuALITY",
    license="cc-by-4.0",
    url="https://github.com/nyu-mll/SQuALITY",
    citation="Wang et al. 2022, SQuALITY: Building a Long-Document Summarization Dataset the Hard Way, "
    "https://arxiv.org/abs/2205.11465",
    columns=("metadata", "document", "questions"),
    expected="a story of SQuALITY with metadata.passage_id, and question_text, question_number and the "
    "response_text of responses in each of questions",
    make_rows=_make_rows,
)
