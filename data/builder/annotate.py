"""The second step of making a data set: a shard's summaries and the probabilities that labels come of.

A shard's result depends on the shard alone, not on who works on it or what was done before, and its file
appears whole or not at all.
"""

import json
from contextlib import contextmanager

import torch
from tqdm.auto import tqdm

from crosstask.data.builder.judge import Judge
from crosstask.data.builder.normalize import normalize
from crosstask.data.builder.shards import rows_path
from crosstask.data.builder.teacher import Teacher
from crosstask.utils.errors import ConfigError
from crosstask.utils.files import write_text


def scored_path(work, shard):
    """The file of a shard's scored rows, lines of {"row": ...} or {"reject": ...}; the last tells of the
    teacher."""
    return work / f"scored-{shard:05d}.jsonl"


class Annotator:
    """The teacher and the judge that a recipe names, either of which may be none."""

    def __init__(self, arguments):
        self.arguments = arguments
        self.teacher = self.judge = None
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

    def __call__(self, rows):
        """
        Annotate the rows of a shard.

        Args:
            rows (`list[dict]`): As the first step wrote them.

        Returns:
            `list[dict]`: for each row in its order {"reject": ...}, or {"row": ...} with `summary`,
            `entailment` (P(entailment of the answer by the summary), or None) and `negative`, and then its
            hard negative where there is one.
        """
        if self.teacher is None:
            drafts = [[row["summary"]] for row in rows]
        elif self.arguments.mode == "passage":
            drafts = [[summary] for summary in self._summaries([row["passage"] for row in rows])]
        else:
            drafts = self._candidates(rows)
        drafts = [[normalize(text, self.arguments.normalize) for text in texts] for texts in drafts]
        annotated = []
        for row, scored, texts in zip(rows, self._scored(rows, drafts), drafts, strict=True):
            if not scored:
                reason = "the teacher wrote nothing" if texts else "its question leaves it no room"
                annotated.append({"reject": {**row["place"], "id": row["id"], "reason": reason}})
                continue
            best = max(scored, key=_probability)  # the first of equals
            worst = min(scored, key=_probability)
            annotated.append({"row": _row(row, *best)})
            if self.arguments.hard_negatives and _probability(worst) < _probability(best):
                annotated.append({"row": _row(row, *worst, negative=True)})
        return annotated

    @contextmanager
    def _progress(self, what, total):
        """A bar that leaves nothing behind, below that of the shards."""
        with tqdm(desc=what, total=total, unit=" texts", leave=False, disable=None if total else True) as bar:
            yield bar.update

    def _summaries(self, passages):
        with self._progress("summaries", len(passages)) as tick:
            return self.teacher.summarize(passages, tick=tick)

    def _candidates(self, rows):
        """Several for each question with an answer; one for each without, as none of them can be judged."""
        drafts = {}
        with self._progress("candidates", len(rows)) as tick:
            for n, group in (
                (self.arguments.candidates, [row for row in rows if row["answer"]]),
                (1, [row for row in rows if not row["answer"]]),
            ):
                pairs = [(row["question"], row["passage"]) for row in group]
                texts = self.teacher.candidates(pairs, n, tick=tick)
                drafts |= {(n, *pair): found for pair, found in zip(pairs, texts, strict=True)}
        return [
            drafts[self.arguments.candidates if row["answer"] else 1, row["question"], row["passage"]]
            for row in rows
        ]

    def _scored(self, rows, drafts):
        """The drafts of each row with their probabilities; None where there is no answer or judge."""
        scores = {}
        if self.judge:
            triples = [
                (text, row["question"], row["answer"])
                for row, texts in zip(rows, drafts, strict=True)
                if row["answer"]
                for text in texts
            ]
            triples = list(dict.fromkeys(triples))
            premises, questions, answers = zip(*triples, strict=True) if triples else ((), (), ())
            hypotheses = self.judge.hypotheses(questions, answers)
            with self._progress("entailment", len(triples)) as tick:
                scores = dict(zip(triples, self.judge.score(premises, hypotheses, tick=tick), strict=True))
        return [
            [(text, scores.get((text, row["question"], row["answer"]))) for text in texts if text]
            for row, texts in zip(rows, drafts, strict=True)
        ]


def _row(row, summary, entailment, negative=False):
    row = {name: value for name, value in row.items() if name != "place"}
    name = f"{row['id']}-negative" if negative else row["id"]
    return {**row, "id": name, "summary": summary, "entailment": entailment, "negative": negative}


def _probability(draft):
    return draft[1] or 0.0


def annotate(annotator, work, shard):
    """Annotate a shard and write its file."""
    with open(rows_path(work, shard), encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    before = annotator.teacher.truncated if annotator.teacher else 0
    lines = annotator(rows)
    if annotator.teacher:
        lines.append({"cut": annotator.teacher.truncated - before, **_told(annotator)})
    write_text(scored_path(work, shard), "".join(json.dumps(line) + "\n" for line in lines))


def _told(annotator):
    """What the card tells of the teacher, whose own defaults it alone knows."""
    teacher, arguments = annotator.teacher, annotator.arguments
    lengths = {f"{end}_new_tokens": teacher.settings[f"{end}_length"] - 1 for end in ("min", "max")}
    drawn = arguments.mode == "question" and arguments.candidates > 1
    how = {"top_p": teacher.top_p} if drawn else {"num_beams": teacher.settings["num_beams"]}
    return {"limit": teacher.max_source_length, "generation": {**how, **lengths}}


def annotate_with_ray(arguments, work, shards):
    """
    Annotate shards on a Ray cluster, all machines of which see the folder `work`.

    Args:
        arguments ([`BuildArguments`]): `ray_actors` of them each hold a copy of the models.
        work (`Path`): The folder of the shards.
        shards (`list[int]`): Which.

    Yields:
        `int`: each shard, once its file is there.

    Raises:
        ConfigError: If Ray is not installed.
    """
    try:
        import ray.data
    except ImportError as error:
        raise ConfigError(
            'engine: ray is not installed, expected after `pip install "crosstask[scale]"`'
        ) from error
    shards = ray.data.from_items([{"shard": shard} for shard in shards])
    finished = shards.map_batches(
        _Actor,
        fn_constructor_args=(arguments, work.resolve()),
        batch_size=1,
        concurrency=arguments.ray_actors,
        num_gpus=1 if torch.cuda.is_available() else None,
    )
    for entry in finished.iter_rows():
        yield int(entry["shard"])


class _Actor:
    """What Ray keeps alive from shard to shard, since it holds the models."""

    def __init__(self, arguments, work):
        self.annotator, self.work = Annotator(arguments), work

    def __call__(self, batch):
        for shard in batch["shard"]:
            annotate(self.annotator, self.work, int(shard))
        return batch
