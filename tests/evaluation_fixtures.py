"""An evaluation of real summaries by real scores, which needs no model."""

import pytest

from crosstask.data.answers import answer_recall
from crosstask.data.briefs import generate
from crosstask.eval.report.results import Evaluation, SystemResult
from crosstask.eval.scoring.scores import answerability, rouge
from crosstask.eval.systems.extractive import lead

AWKWARD = [
    {
        "passage": "<script>alert('&')</script> It is 👩‍🚀 Zoë's | day.",
        "answer": "Zoë's | day",
        "answerable": 1,
    },
    {"passage": "東京タワーは1958年に完成した。", "answer": "1958年", "answerable": None},
    {"passage": "", "answer": "", "answerable": 0},
]


def scored(rows, summaries, probabilities=None):
    """A system's result; with probabilities, it has the figures of a judge as well."""
    words = [[row["summary"]] for row in rows]
    scores = {
        metric: [rouge([s], w)[metric] for s, w in zip(summaries, words, strict=True)]
        for metric in ("rouge1", "rougeL")
    }
    pairs = zip(summaries, rows, strict=True)
    scores["answer_recall"] = [answer_recall([summary], [row["answer"]]) for summary, row in pairs]
    scores["length"] = [float(len(summary.split())) for summary in summaries]
    if probabilities is None:
        return SystemResult(summaries, scores)
    figures = answerability(probabilities, [row["answerable"] for row in rows]) | {"brier": 0.18, "ece": None}
    bins = [{"confidence": 0.21, "yes": 0.25, "count": 80}, {"confidence": 0.8, "yes": 0.7, "count": 120}]
    return SystemResult(summaries, scores, figures, bins, probabilities, probabilities)


def made_up(passages=12, leads=(3, 1, 2), awkward=False):
    """Leads of several lengths, "lead-3" being the baseline, and the references as a system that judges."""
    rows = list(generate("fuse", "test", passages))
    if awkward:
        texts = {"source": "<b>", "question": "Who's <i>that</i>? 🤔", "summary": "Zoë's day 🎉"}
        rows += [texts | row | {"id": f"awkward-{number}"} for number, row in enumerate(AWKWARD)]
    systems = {f"lead-{k}": scored(rows, [lead(row["passage"], k) for row in rows]) for k in leads}
    probabilities = [0.9 if row["answerable"] else 0.2 + index % 5 / 8 for index, row in enumerate(rows)]
    systems["cross-task"] = scored(rows, [row["summary"] for row in rows], probabilities)
    log = [{"loss": 3 / step, "step": step} for step in range(10, 200, 10)]
    return Evaluation(
        title="briefs, test",
        rows=rows,
        systems=systems,
        baseline=next(iter(systems)),
        notes=["entailment: no judge was given"],
        history={"summarize": log, "fuse": log},
        made={"command": "crosstask-eval eval.yaml", "data": "/home/someone/rows/test.jsonl", "num_beams": 2},
        resamples=200,
    )


@pytest.fixture(scope="session")
def evaluation():
    return made_up(awkward=True)


@pytest.fixture(scope="session")
def make_evaluation():
    return made_up
