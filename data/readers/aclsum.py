"""ACLSum: 250 papers, each summarized for its challenge, its approach and its outcome.

The files come with the PyPI package `aclsum`. It is located but not imported, since importing it would load a
dependency that reading does not need.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from crosstask.data.readers.corpus import Corpus, Part, Record, Reject, Row
from crosstask.data.readers.formats import read_jsonl
from crosstask.utils.errors import DataError

QUESTIONS = {
    "challenge": "What problem does this paper address?",
    "approach": "How do the authors approach the problem?",
    "outcome": "What do the authors find or achieve?",
}
ASPECTS = tuple(QUESTIONS)
SECTIONS = ("abstract", "introduction", "conclusion")
_FILES = {"train": "train.jsonl", "validation": "val.jsonl", "test": "test.jsonl"}


def _read_splits(stage: str, options: Mapping[str, Any]) -> dict[str, Part]:
    """Return the parts train, validation and test, of 100, 50 and 100 papers.

    Raises:
        DataError: If the package is not installed.
    """
    spec = find_spec("aclsum")
    if spec is None or not spec.submodule_search_locations:
        raise DataError("aclsum: the package is not installed: pip install aclsum")
    folder = Path(spec.submodule_search_locations[0]) / "dataset"
    return {
        split: Part(str(folder / file), _read_papers(folder / file), "aclsum", split, corpus=ACLSUM)
        for split, file in _FILES.items()
    }


def _read_papers(path: Path) -> Iterator[tuple[int, Record | Reject]]:
    for index, (line, paper) in enumerate(read_jsonl(path)):
        yield line, paper if isinstance(paper, Reject) else {**paper, "index": index}


def _make_rows(record: Record, stage: str, default_id: str) -> Iterator[Row | Reject]:
    """Yield the rows of a paper.

    The passage is the text of abstract, introduction and conclusion. The answer to the question about an
    aspect is the sentences that annotators highlighted for it.

    - "summarize": one row per paper; its summary joins those of the three aspects.
    - "answer": one row per aspect.
    - "build": one row per aspect, with its summary and no label.
    - "fuse": two rows per aspect. Its summary is paired with its own question, labeled 1, and with the
      question and answer of another aspect, labeled 0. Which other aspect that is alternates from paper to
      paper, so that a pair of aspects alone does not give the label away.
    """
    summaries = record["summary"]
    if stage == "summarize":
        yield _make_row(record, record["id"], summary=" ".join(summaries[aspect] for aspect in ASPECTS))
        return
    for position, aspect in enumerate(ASPECTS):
        if stage != "fuse":
            summary = summaries[aspect] if stage == "build" else ""
            yield _make_row(record, f"{record['id']}:{aspect}", asked_aspect=aspect, summary=summary)
            continue
        other_aspect = ASPECTS[(position + 1 + record["index"] % 2) % len(ASPECTS)]
        for asked_aspect in (aspect, other_aspect):
            yield _make_row(
                record,
                f"{record['id']}:{aspect}-{asked_aspect}",
                asked_aspect=asked_aspect,
                summary=summaries[aspect],
                answerable=int(asked_aspect == aspect),
            )


def _make_row(
    record: Record, row_id: str, summary: str, asked_aspect: str | None = None, answerable: int | None = None
) -> Row | Reject:
    passage = " ".join(text for section in SECTIONS for text in record["sentences"][section])
    row = {"id": row_id, "passage": passage, "summary": summary, "answerable": answerable}
    if asked_aspect is not None:
        answer = _join_highlights(record, asked_aspect)
        if not answer:
            # The paper has an answer that nobody highlighted; an empty answer would teach the contrary.
            return Reject("no highlighted sentence", row_id)
        row |= {"question": QUESTIONS[asked_aspect], "answer": answer}
    return row


def _join_highlights(record: Record, aspect: str) -> str:
    return " ".join(
        text
        for section in SECTIONS
        for text, is_highlighted in zip(
            record["sentences"][section], record["highlights"][aspect][section], strict=True
        )
        if is_highlighted
    )


ACLSUM = Corpus(
    name="aclsum",
    title="ACLSum",
    license="mit",
    url="https://pypi.org/project/aclsum/",
    citation="Takeshita et al. 2024, ACLSum: A New Dataset for Aspect-based Summarization of Scientific "
    "Publications, https://arxiv.org/abs/2403.05303",
    read_splits=_read_splits,
    expected=f"a paper of ACLSum with id, and summary, sentences and highlights of {', '.join(ASPECTS)} in "
    f"{', '.join(SECTIONS)}",
    make_rows=_make_rows,
)
