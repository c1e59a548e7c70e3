"""ACLSum: 250 papers, each summarized for its challenge, its approach and its outcome.

Source: Takeshita et al. 2024, "ACLSum: A New Dataset for Aspect-based Summarization of Scientific
Publications", https://arxiv.org/abs/2403.05303. The files come with the PyPI package `aclsum`,
which is located but not imported, since it would pull in a dependency that reading needs not.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from crosstask.data.readers.files import Part, read_jsonl
from crosstask.data.schema import REJECT
from crosstask.utils.errors import DataError

QUESTIONS = {
    "challenge": "What problem does this paper address?",
    "approach": "How do the authors approach the problem?",
    "outcome": "What do the authors find or achieve?",
}
ASPECTS = tuple(QUESTIONS)
SECTIONS = ("abstract", "introduction", "conclusion")
_FILES = {"train": "train.jsonl", "validation": "val.jsonl", "test": "test.jsonl"}


def read_papers(stage: str) -> dict[str, Part]:
    """Read the rows of a stage from the installed package `aclsum`.

    A passage is the sentences of abstract, introduction and conclusion, joined by spaces; an answer
    is those that the annotators highlighted for the aspect asked about.

    - "summarize": a row a paper, its summary the three aspects' joined.
    - "answer": a row an aspect.
    - "fuse": two rows an aspect's summary: with its own question, labelled 1, and with another
      aspect's question and answer, labelled 0. Which other one alternates from paper to paper, so
      that no pair of aspects alone gives the label away.
    - "build": the rows of "answer", each with its aspect's summary and no label.

    Args:
        stage: "summarize", "answer", "fuse" or "build".

    Returns:
        The parts train, validation and test, of 100, 50 and 100 papers.

    Raises:
        DataError: If the package is not installed or its files are not as described.
    """
    spec = find_spec("aclsum")
    if spec is None or not spec.submodule_search_locations:
        raise DataError("aclsum: the package is not installed, expected after `pip install aclsum`")
    folder = Path(spec.submodule_search_locations[0]) / "dataset"
    return {
        split: Part(str(folder / file), _rows(folder / file, stage), "aclsum", split, is_rows=True)
        for split, file in _FILES.items()
    }


def _rows(path: Path, stage: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for index, (line, paper) in enumerate(read_jsonl(path)):
        try:
            rows = list(_MAKERS[stage](paper, index))
        except (KeyError, TypeError, AttributeError, ValueError):
            raise DataError(
                f"{path}, line {line}: expected a paper of aclsum with id, and summary, sentences "
                f"and highlights of {', '.join(ASPECTS)} in {', '.join(SECTIONS)}"
            ) from None
        for row in rows:
            yield line, row


def _summarize(paper: dict[str, Any], index: int) -> Iterator[dict[str, Any]]:
    yield _row(paper, summary=" ".join(paper["summary"][aspect] for aspect in ASPECTS))


def _answer(paper: dict[str, Any], index: int) -> Iterator[dict[str, Any]]:
    for aspect in ASPECTS:
        yield _row(paper, aspect, question=QUESTIONS[aspect], answer=_highlights(paper, aspect))


def _build(paper: dict[str, Any], index: int) -> Iterator[dict[str, Any]]:
    for aspect, row in zip(ASPECTS, _answer(paper, index), strict=True):
        yield {**row, "summary": paper["summary"][aspect]}


def _fuse(paper: dict[str, Any], index: int) -> Iterator[dict[str, Any]]:
    for position, aspect in enumerate(ASPECTS):
        other = ASPECTS[(position + 1 + index % 2) % len(ASPECTS)]
        for asked in (aspect, other):
            yield _row(
                paper,
                f"{aspect}-{asked}",
                question=QUESTIONS[asked],
                answer=_highlights(paper, asked),
                summary=paper["summary"][aspect],
                answerable=int(asked == aspect),
            )


_MAKERS = {"summarize": _summarize, "answer": _answer, "fuse": _fuse, "build": _build}


def _row(paper: dict[str, Any], suffix: str = "", **columns: Any) -> dict[str, Any]:
    passage = " ".join(text for section in SECTIONS for text in paper["sentences"][section])
    name = f"{paper['id']}:{suffix}" if suffix else paper["id"]
    row = {"id": name, "source": "aclsum", "passage": passage, **columns}
    if columns.get("answer") == "":
        # The paper has an answer, which nobody highlighted: not a row to learn "no answer" from.
        row[REJECT] = "no highlighted sentence"
    return row


def _highlights(paper: dict[str, Any], aspect: str) -> str:
    return " ".join(
        text
        for section in SECTIONS
        for text, highlighted in zip(
            paper["sentences"][section], paper["highlights"][aspect][section], strict=True
        )
        if highlighted
    )
