"""An evaluation with real summaries and scores, built without a model."""

import pytest

from crosstask.configuration_crosstask import IGNORE_INDEX
from crosstask.data.answers import answer_recall_rows
from crosstask.data.briefs import generate
from crosstask.eval.report.results import Evaluation, SystemResult
from crosstask.eval.scoring.answerability import answerability_figures
from crosstask.eval.scoring.text_scores import length_rows, rouge_rows
from crosstask.eval.systems.lead import get_lead

AWKWARD_ROWS = [
    {
        "passage": "<script>alert('&')</script> It is 👩‍🚀 Zoë's | day.",
        "answer": "Zoë's | day",
        "answerable": 1,
    },
    {"passage": "東京タワーは1958年に完成した。", "answer": "1958年", "answerable": IGNORE_INDEX},
    {"passage": "", "answer": "", "answerable": 0},
]


def score_summaries(rows, summaries, probabilities=None):
    """Return a system's result; with probabilities, also figures and bins of answerability."""
    scores = rouge_rows(summaries, [row["summary"] for row in rows], types=["rouge1", "rougeL"])
    scores["answer_recall"] = answer_recall_rows(summaries, [row["answer"] for row in rows])
    scores["length"] = length_rows(summaries)
    if probabilities is None:
        return SystemResult(summaries, scores)
    figures = answerability_figures(probabilities, [row["answerable"] for row in rows])
    figures = {"accuracy": figures["accuracy"], "auroc": figures["auroc"], "brier": 0.18, "ece": None}
    bins = [{"probability": 0.21, "yes": 0.25, "count": 80}, {"probability": 0.8, "yes": 0.7, "count": 120}]
    return SystemResult(summaries, scores, figures, bins, probabilities, probabilities)


def build_evaluation(passages=12, leads=(3, 1, 2), awkward=False):
    """Evaluate leads of several lengths and the references, as a system "cross-task" with probabilities.

    The baseline is the first lead; `awkward` adds rows with markup, other scripts and empty texts.
    """
    rows = list(generate("fuse", "test", passages))
    if awkward:
        texts = {"source": "<b>", "question": "Who's <i>that</i>? 🤔", "summary": "Zoë's day 🎉"}
        rows += [texts | row | {"id": f"awkward-{number}"} for number, row in enumerate(AWKWARD_ROWS)]
    systems = {
        f"lead-{k}": score_summaries(rows, [get_lead(row["passage"], k) for row in rows]) for k in leads
    }
    probabilities = [0.9 if row["answerable"] == 1 else 0.2 + index % 5 / 8 for index, row in enumerate(rows)]
    systems["cross-task"] = score_summaries(rows, [row["summary"] for row in rows], probabilities)
    log = [{"loss": 3 / step, "step": step} for step in range(10, 200, 10)]
    return Evaluation(
        title="briefs, test",
        rows=rows,
        systems=systems,
        baseline=next(iter(systems)),
        notes=["entailment: no judge was given"],
        history={"summarize": log, "fuse": log},
        settings={
            "command": "crosstask-eval eval.yaml",
            "data": "/home/someone/rows/test.jsonl",
            "num_beams": 2,
        },
        resamples=200,
    )


@pytest.fixture(scope="session")
def evaluation():
    return build_evaluation(awkward=True)


@pytest.fixture(scope="session")
def make_evaluation():
    return build_evaluation
