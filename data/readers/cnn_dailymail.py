"""CNN/DailyMail: news articles with their highlights."""

from __future__ import annotations

from collections.abc import Iterator

from crosstask.data.readers.corpus import Corpus, Record, Row


def _make_rows(record: Record, stage: str, default_id: str) -> Iterator[Row]:
    yield {"id": record.get("id"), "passage": record["article"], "summary": record["highlights"]}


CNN_DAILYMAIL = Corpus(
    name="cnn_dailymail",
    title="CNN/DailyMail",
    hub_id="abisee/cnn_dailymail",
    license="apache-2.0",
    url="https://github.com/abisee/cnn-dailymail",
    citation="See et al. 2017, Get To The Point: Summarization with Pointer-Generator Networks, "
    "https://arxiv.org/abs/1704.04368",
    columns=("article", "highlights"),
    stages=("summarize",),
    expected="an article",
    make_rows=_make_rows,
)
