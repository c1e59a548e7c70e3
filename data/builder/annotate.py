"""
Second step of a build: write the summaries of a shard, and score how probably they entail the answers.

The result of a shard depends on the shard alone, not on the process or on earlier shards. Its file is written
atomically.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tqdm.auto import tqdm

from crosstask.data.builder.judge import Judge
from crosstask.data.builder.normalize import normalize
from crosstask.data.builder.shards import get_rows_path
from crosstask.data.builder.teacher import Teacher
from crosstask.data.wrong_values import make_wrong_rows
from crosstask.utils.errors import ConfigError
from crosstask.utils.files import write_text

if TYPE_CHECKING:
    from crosstask.data.build import BuildArguments

Row = dict[str, Any]


def get_scored_path(work: Path, shard: int) -> Path:
    """
    Return the path of the scored rows of a shard.

    Its lines are `{"row": ...}` or `{"reject": ...}`, and `{"teacher": ...}` at the end if there is a
    teacher.
    """
    return work / f"scored-{shard:05d}.jsonl"


class Annotator:
    """
    Annotate rows with the teacher and the judge of a recipe; either may be missing.

    Args:
        arguments ([`BuildArguments`]):
            The recipe.
    """

    def __init__(self, arguments: BuildArguments):
        self.arguments = arguments
        self.teacher: Teacher | None = None
        self.judge: Judge | None = None
        if arguments.teacher:
            self.teacher = Teacher(
                arguments.teacher,
                dtype=arguments.dtype,
                batch_size=arguments.batch_size,
                max_source_length=arguments.max_source_length,
                num_beams=arguments.num_beams,
                min_new_tokens=arguments.min_new_tokens,
                max_new_tokens=arguments.max_new_tokens,
                prefix=arguments.prefix,
                seed=arguments.seed,
            )
        if arguments.judge:
            self.judge = Judge(arguments.judge, hypothesis=arguments.hypothesis, dtype=arguments.dtype)

    def annotate(self, rows: list[Row]) -> list[dict[str, Row]]:
        """
        Annotate the rows of a shard.

        Args:
            rows (`list[dict]`):
                Rows as the first step wrote them.

        Returns:
            `list[dict]`: For each row, in order, `{"reject": ...}` or `{"row": ...}`. A row gets `summary`,
            `entailment` (the probability that the summary entails the answer, or `None`), `contradiction`
            (the probability that the passage contradicts the summary, or `None`) and `negative`. A hard
            negative follows its row; summaries with a wrong value come last.
        """
        candidates = self._write_candidates(rows)
        annotated = []
        for row, texts, scored in zip(rows, candidates, self._score(rows, candidates), strict=True):
            if not scored:
                reason = "the teacher wrote nothing" if texts else "question leaves no room for the passage"
                annotated.append({"reject": {**row["location"], "id": row["id"], "reason": reason}})
                continue
            best = max(scored, key=_get_probability)  # the first one if several are equal
            worst = min(scored, key=_get_probability)
            annotated.append({"row": _make_row(row, *best)})
            if self.arguments.hard_negatives and _get_probability(worst) < _get_probability(best):
                annotated.append({"row": _make_row(row, *worst, suffix="-negative")})
        annotated += self._make_wrong_rows([entry["row"] for entry in annotated if "row" in entry])
        self._score_faithfulness([entry["row"] for entry in annotated if "row" in entry])
        return annotated

    def _make_wrong_rows(self, rows: list[Row]) -> list[dict[str, Row]]:
        """Return rows whose summary has a wrong value; they are kept only if the judge labels them 0."""
        share = self.arguments.wrong_values
        if not share or self.judge is None:
            return []
        judged = [{**row, "answerable": 1} for row in rows if row["answer"] and not row["negative"]]
        wrong_rows = make_wrong_rows(judged, share, self.arguments.seed)
        scores = self._score(wrong_rows, [[row["summary"]] for row in wrong_rows])
        return [
            {"row": {**row, "answerable": 0, "entailment": scored[0][1], "negative": True}}
            for row, scored in zip(wrong_rows, scores, strict=True)
        ]

    def _score_faithfulness(self, rows: list[Row]) -> None:
        """Set the probability that the passage contradicts the summary, `None` where it is not scored."""
        index = None if self.judge is None else self.judge.contradiction_index
        scores: list[float | None] = [None] * len(rows)
        if self.judge is not None and index is not None and self.arguments.faithful:
            texts = [row["passage"] for row in rows], [row["summary"] for row in rows]
            with _show_progress("faithfulness", len(rows)) as update:
                scores = [*self.judge.score(*texts, update=update, index=index)]
        for row, score in zip(rows, scores, strict=True):
            row["contradiction"] = score

    def describe_teacher(self) -> dict[str, Any]:
        """Return the settings of the teacher for the card; only the loaded model knows its defaults."""
        assert self.teacher is not None
        kwargs = self.teacher.generation_kwargs
        lengths = {f"{end}_new_tokens": kwargs[f"{end}_length"] - 1 for end in ("min", "max")}
        samples = self.arguments.mode == "question" and self.arguments.candidates > 1
        method = {"top_p": self.teacher.top_p} if samples else {"num_beams": kwargs["num_beams"]}
        return {"max_source_length": self.teacher.max_source_length, "generation": {**method, **lengths}}

    def _write_candidates(self, rows: list[Row]) -> list[list[str]]:
        """Return the normalized candidate summaries of each row."""
        if self.teacher is None:
            candidates = [[row["summary"]] for row in rows]
        elif self.arguments.mode == "passage":
            with _show_progress("summaries", len(rows)) as update:
                summaries = self.teacher.summarize([row["passage"] for row in rows], update=update)
            candidates = [[summary] for summary in summaries]
        else:
            candidates = self._write_candidates_for_questions(rows)
        return [[normalize(text, self.arguments.normalization) for text in texts] for texts in candidates]

    def _write_candidates_for_questions(self, rows: list[Row]) -> list[list[str]]:
        """Return several candidates for a row with an answer, and one for a row that will not be judged."""
        assert self.teacher is not None
        candidates: dict[tuple[bool, str, str], list[str]] = {}
        with _show_progress("candidates", len(rows)) as update:
            for has_answer, n in ((True, self.arguments.candidates), (False, 1)):
                group = [row for row in rows if bool(row["answer"]) == has_answer]
                pairs = [(row["question"], row["passage"]) for row in group]
                texts = self.teacher.write_candidates(pairs, n, update=update)
                candidates |= {(has_answer, *pair): drafts for pair, drafts in zip(pairs, texts, strict=True)}
        return [candidates[bool(row["answer"]), row["question"], row["passage"]] for row in rows]

    def _score(self, rows: list[Row], candidates: list[list[str]]) -> list[list[tuple[str, float | None]]]:
        """
        Return the candidates of each row that are not empty, with their probabilities.

        The probability is `None` without an answer or without a judge.
        """
        scores = {}
        if self.judge:
            triples = [
                (text, row["question"], row["answer"])
                for row, texts in zip(rows, candidates, strict=True)
                if row["answer"]
                for text in texts
            ]
            triples = list(dict.fromkeys(triples))
            premises, questions, answers = zip(*triples, strict=True) if triples else ((), (), ())
            hypotheses = self.judge.make_hypotheses(questions, answers)
            with _show_progress("entailment", len(triples)) as update:
                scores = dict(
                    zip(triples, self.judge.score(premises, hypotheses, update=update), strict=True)
                )
        return [
            [(text, scores.get((text, row["question"], row["answer"]))) for text in texts if text]
            for row, texts in zip(rows, candidates, strict=True)
        ]


@contextmanager
def _show_progress(description: str, total: int) -> Iterator[Callable[[int], object]]:
    """Show a progress bar below the bar of the shards; it disappears when it is complete."""
    disable = None if total else True  # None shows the bar only in a terminal
    with tqdm(desc=description, total=total, unit=" texts", leave=False, disable=disable) as bar:
        yield bar.update


def _make_row(row: Row, summary: str, entailment: float | None, suffix: str = "") -> Row:
    row = {name: value for name, value in row.items() if name != "location"}
    columns = {"id": row["id"] + suffix, "summary": summary, "entailment": entailment}
    return {**row, **columns, "negative": bool(suffix)}


def _get_probability(candidate: tuple[str, float | None]) -> float:
    return candidate[1] or 0.0


def annotate_shard(annotator: Annotator, work: Path, shard: int) -> None:
    """Annotate the rows of a shard and write its file."""
    with open(get_rows_path(work, shard), encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    truncated_before = annotator.teacher.truncated if annotator.teacher else 0
    lines = annotator.annotate(rows)
    if annotator.teacher:
        truncated = annotator.teacher.truncated - truncated_before
        lines.append({"teacher": {"truncated": truncated, **annotator.describe_teacher()}})
    write_text(get_scored_path(work, shard), "".join(json.dumps(line) + "\n" for line in lines))


def annotate_with_ray(arguments: BuildArguments, work: Path, shards: list[int]) -> Iterator[int]:
    """
    Annotate shards on a Ray cluster; all of its machines need access to the folder `work`.

    Args:
        arguments ([`BuildArguments`]):
            The recipe. Each of its `ray_actors` has a copy of the models.
        work (`Path`):
            Folder of the shards.
        shards (`list[int]`):
            Numbers of the shards.

    Yields:
        `int`: The number of a shard when its file is written.

    Raises:
        ConfigError: If Ray is not installed.
    """
    try:
        import ray.data
    except ImportError as error:
        raise ConfigError("engine: ray is not installed: pip install 'crosstask[scale]'") from error
    finished = ray.data.from_items([{"shard": shard} for shard in shards]).map_batches(
        _RayAnnotator,
        fn_constructor_args=(arguments, work.resolve()),
        batch_size=1,
        concurrency=arguments.ray_actors,
        num_gpus=1 if torch.cuda.is_available() else None,
    )
    for entry in finished.iter_rows():
        yield int(entry["shard"])


class _RayAnnotator:
    """Keep the models in memory from shard to shard in a Ray actor."""

    def __init__(self, arguments: BuildArguments, work: Path):
        self.annotator, self.work = Annotator(arguments), work

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        for shard in batch["shard"]:
            annotate_shard(self.annotator, self.work, int(shard))
        return batch
