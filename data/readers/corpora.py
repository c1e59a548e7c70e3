"""Known corpora: how their records become rows, and what a data card has to say of them.

A corpus is recognized by its columns, which are those of its official files or of its data set on the Hub;
where the two differ (SQuAD, PubMedQA) the official file is read as the records of the Hub.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from crosstask.data.readers import squad
from crosstask.utils.errors import DataError

Record = Mapping[str, Any]
Row = dict[str, Any]

# SQuALITY asks this of every story, and has other questions that are about one story.
PLOT = "What is the plot of the story?"
ABOUT = "What is the article about?"  # which XSum's summaries answer (Narayan et al. 2018, abstract)


@dataclass(frozen=True)
class Source:
    """What a data card says of a corpus.

    Attributes:
        title: Its name.
        hub_id: Its data set on the Hub, None where there is none that is its authors'.
        licence: As the Hub's metadata spell it, "unknown" where its authors state none.
        url: Where it comes from.
        citation: The paper.
    """

    title: str
    hub_id: str | None
    licence: str
    url: str
    citation: str


SOURCES = {
    "squad_v2": Source(
        "SQuAD 2.0",
        "rajpurkar/squad_v2",
        "cc-by-sa-4.0",
        "https://rajpurkar.github.io/SQuAD-explorer/",
        "Rajpurkar et al. 2018, Know What You Don't Know: Unanswerable Questions for SQuAD, "
        "https://arxiv.org/abs/1806.03822",
    ),
    "cnn_dailymail": Source(
        "CNN/DailyMail",
        "abisee/cnn_dailymail",
        "apache-2.0",
        "https://github.com/abisee/cnn-dailymail",
        "See et al. 2017, Get To The Point: Summarization with Pointer-Generator Networks, "
        "https://arxiv.org/abs/1704.04368",
    ),
    "xsum": Source(
        "XSum",
        "EdinburghNLP/xsum",
        "unknown",
        "https://github.com/EdinburghNLP/XSum",
        "Narayan et al. 2018, Don't Give Me the Details, Just the Summary! Topic-Aware Convolutional Neural "
        "Networks for Extreme Summarization, https://arxiv.org/abs/1808.08745",
    ),
    "qmsum": Source(
        "QMSum",
        None,
        "mit",
        "https://github.com/Yale-LILY/QMSum",
        "Zhong et al. 2021, QMSum: A New Benchmark for Query-based Multi-domain Meeting Summarization, "
        "https://arxiv.org/abs/2104.05938",
    ),
    "squality": Source(
        "SQuALITY",
        None,
        "cc-by-4.0",
        "https://github.com/nyu-mll/SQuALITY",
        "Wang et al. 2022, SQuALITY: Building a Long-Document Summarization Dataset the Hard Way, "
        "https://arxiv.org/abs/2205.11465",
    ),
    "pubmedqa": Source(
        "PubMedQA",
        "qiaojin/PubMedQA",
        "mit",
        "https://github.com/pubmedqa/pubmedqa",
        "Jin et al. 2019, PubMedQA: A Dataset for Biomedical Research Question Answering, "
        "https://arxiv.org/abs/1909.06146",
    ),
    "aclsum": Source(
        "ACLSum",
        None,
        "mit",
        "https://pypi.org/project/aclsum/",
        "Takeshita et al. 2024, ACLSum: A New Dataset for Aspect-based Summarization of Scientific "
        "Publications, https://arxiv.org/abs/2403.05303",
    ),
    "briefs": Source(
        "Briefs",
        None,
        "apache-2.0",
        "crosstask.data.briefs",
        "Made by the generator of crosstask.",
    ),
}
_OFFICIAL_FILES = {r"(train|dev|sample)-v2\.0\.json": "squad_v2", r"ori_pqa[aul]\w*\.json": "pubmedqa"}


@dataclass(frozen=True)
class Corpus:
    """How a corpus is recognized and read.

    Attributes:
        columns: What all of its records have.
        without: What none of them has.
        stages: The stages of the training that it serves; with "answer" it serves "build" too.
        expected: What an error says that a record should have been.
        rows: Gives the rows of a record, a stage, the name of rows that have no id and the place that an
            error names. A row has the columns that it knows; what a stage does not read is ignored.
    """

    columns: tuple[str, ...]
    stages: tuple[str, ...]
    expected: str
    rows: Callable[[Record, str, str, str], Iterable[Row]]
    without: tuple[str, ...] = ()

    def has(self, columns: set[str]) -> bool:
        """Whether records of these columns may be its own."""
        return columns.issuperset(self.columns) and columns.isdisjoint(self.without)


def recognize(columns: Iterable[str]) -> str | None:
    """Whose columns these are, as a key of `CORPORA`; None for rows of ours and of others."""
    columns = set(columns)
    if "passage" in columns:
        return None
    return next((key for key, corpus in CORPORA.items() if corpus.has(columns)), None)


def source_of(name: str) -> str | None:
    """Find what `SOURCES` says of a source.

    Args:
        name: The `source` of a row or the name of a data set: an id on the Hub, a path, a file's name.

    Returns:
        The key, or None where the name tells nothing, as "train.jsonl" does.
    """
    parts = [part.lower() for part in re.split(r"[/\\]", str(name))]
    for key in SOURCES:
        if key in parts:
            return key
    return next((key for form, key in _OFFICIAL_FILES.items() if re.fullmatch(form, parts[-1])), None)


def is_pubmedqa(document: Any) -> bool:
    """Whether a parsed JSON file is PubMedQA's: {pmid: {"QUESTION", "CONTEXTS", "LONG_ANSWER", …}}."""
    first = next(iter(document.values()), None) if isinstance(document, dict) else None
    return isinstance(first, dict) and "QUESTION" in first


def flatten_pubmedqa(document: Mapping[str, Any]) -> Iterator[dict[str, Any] | str]:
    """Yield the records of the Hub from PubMedQA's official JSON, or why there is none."""
    for pmid, paper in document.items():
        try:
            yield {
                "pubid": pmid,
                "question": paper["QUESTION"],
                "context": {"contexts": paper["CONTEXTS"]},
                "long_answer": paper["LONG_ANSWER"],
            }
        except (KeyError, TypeError):
            yield f"{pmid}: expected a paper of PubMedQA with QUESTION, CONTEXTS and LONG_ANSWER"


def _squad(record: Record, stage: str, name: str, where: str) -> Iterator[Row]:
    yield squad.to_row(record, where)


def _cnn_dailymail(record: Record, stage: str, name: str, where: str) -> Iterator[Row]:
    yield {"id": record.get("id"), "passage": record["article"], "summary": record["highlights"]}


def _xsum(record: Record, stage: str, name: str, where: str) -> Iterator[Row]:
    """For "fuse" with a question that every summary answers, and no label: nothing is to be judged."""
    row = {"id": record.get("id"), "passage": record["document"], "summary": record["summary"]}
    yield row if stage == "summarize" else row | {"question": ABOUT, "answer": "", "answerable": None}


def _qmsum(record: Record, stage: str, name: str, where: str) -> Iterator[Row]:
    """A row a query; the meeting is a line a turn. For "summarize" only the queries about all of it."""
    turns = record["meeting_transcripts"]
    passage = "\n".join(turn["speaker"] + ": " + turn["content"] for turn in turns)
    for letter, kind in (("g", "general_query_list"), ("s", "specific_query_list")):
        if stage == "summarize" and letter == "s":
            continue
        for number, query in enumerate(record[kind], start=1):
            yield _answered(f"{name}-{letter}{number}", passage, query["query"], query["answer"])


def _squality(record: Record, stage: str, name: str, where: str) -> Iterator[Row]:
    """A row a reference: several people answered each question. For "summarize" only the plot."""
    story = record["metadata"]["passage_id"]
    for question in record["questions"]:
        text = question["question_text"]
        if stage == "summarize" and text != PLOT:
            continue
        for number, response in enumerate(question["responses"], start=1):
            row_id = f"{story}-q{question['question_number']}-r{number}"
            yield _answered(row_id, record["document"], text, response["response_text"])


def _pubmedqa(record: Record, stage: str, name: str, where: str) -> Iterator[Row]:
    """A row a paper: its abstract without the conclusion, which answers the question."""
    contexts = record["context"]["contexts"]
    if isinstance(contexts, str):
        raise TypeError  # a text would be joined letter by letter
    passage = " ".join(contexts)
    yield _answered(record.get("pubid"), passage, record["question"], record["long_answer"])


def _answered(row_id: Any, passage: str, question: str, text: str) -> Row:
    """The row of a text by a human that is at once the answer and the summary with the question in mind."""
    return {
        "id": row_id,
        "passage": passage,
        "question": question,
        "answer": text,
        "summary": text,
        "answerable": 1,
    }


_ALL = ("summarize", "answer", "fuse")
CORPORA = {
    "squad_v2": Corpus(squad.COLUMNS, ("answer",), "a question of SQuAD", _squad),
    "cnn_dailymail": Corpus(("article", "highlights"), ("summarize",), "an article", _cnn_dailymail),
    # Questions of somebody's own are not to be lost to the one that it has for all.
    "xsum": Corpus(
        ("document", "summary"),
        ("summarize", "fuse"),
        "a document",
        _xsum,
        without=("question", "answer", "answerable"),
    ),
    "qmsum": Corpus(
        ("meeting_transcripts", "general_query_list", "specific_query_list"),
        _ALL,
        "a meeting of QMSum with speaker and content of each turn and query and answer of each query",
        _qmsum,
    ),
    "squality": Corpus(
        ("metadata", "document", "questions"),
        _ALL,
        "a story of SQuALITY with metadata.passage_id, and question_text, question_number and the "
        "response_text of responses in each of questions",
        _squality,
    ),
    "pubmedqa": Corpus(
        ("question", "context", "long_answer"), _ALL, "a paper of PubMedQA with context.contexts", _pubmedqa
    ),
}


def rows_of(key: str, record: Record, stage: str, name: str, where: str) -> list[Row]:
    """Make the rows of a stage from a record of a corpus.

    Args:
        key: Which of `CORPORA`.
        record: With the columns of the corpus.
        stage: One that it serves, or "build".
        name: What the ids of rows that have none begin with.
        where: The place that an error names.

    Returns:
        The rows, at least one, each with some of the schema's columns.

    Raises:
        DataError: If the record is not of the corpus's form, or has nothing for the stage.
    """
    corpus = CORPORA[key]
    missing = [column for column in corpus.columns if column not in record]
    if missing:
        raise DataError(
            f"{where}: the column {missing[0]!r} is missing: there are {', '.join(record)}; "
            f"{SOURCES[key].title} has {', '.join(corpus.columns)}"
        )
    try:
        rows = list(corpus.rows(record, stage, name, where))
    except (KeyError, TypeError, AttributeError):
        raise DataError(f"{where}: expected {corpus.expected}") from None
    if not rows:
        raise DataError(f"{where}: has no question for stage {stage}, expected at least one")
    return rows
