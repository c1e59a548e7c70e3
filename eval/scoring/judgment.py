"""How well a system judges summaries: those that it writes, and those that state a wrong value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from crosstask.configuration_crosstask import IGNORE_INDEX
from crosstask.data.summary_labels import SummaryLabeler
from crosstask.eval.scoring.answerability import answerability_figures

THRESHOLD = 0.5  # the answerability from which on a summary passes
OWN, WRONG = "own_", "wrong_"  # prefixes of the figures


def judge_own_summaries(
    rows: Sequence[Mapping[str, Any]], summaries: Sequence[str], probabilities: Sequence[float]
) -> tuple[dict[str, float | None], list[dict[str, Any]], list[dict[str, float]]]:
    """
    Compare the answerability of a system's own summaries with whether they are right.

    A summary is right if it has all words of the answer, and wrong if not or if the passage does not answer
    the question, see [`~data.summary_labels.SummaryLabeler`].

    Args:
        rows (`list[dict]`): Rows with `answerable` as 0, 1 or -100.
        summaries (`list[str]`): The summaries of the rows.
        probabilities (`list[float]`): Their answerability.

    Returns:
        `tuple`: Figures with the prefix "own_", the bins of the reliability diagram, and the points of the
        risk-coverage curve. All are empty if words do not tell whether a summary is right. The figures are
        those of [`answerability_figures`] and

        - `own_aurc`: the area under the risk-coverage curve (Geifman & El-Yaniv 2017, "Selective
          Classification for Deep Neural Networks", https://arxiv.org/abs/1705.08500): the mean share of wrong
          summaries among the n most answerable ones, over all n. Lower is better.
        - `own_unanswerable_passed`: the share of questions without an answer whose summary has an
          answerability of .5 or more; `None` without such questions.
    """
    labeler = SummaryLabeler(rows)
    labels = labeler.label(range(len(rows)), summaries)
    if all(label == IGNORE_INDEX for label in labels):
        return {}, [], []
    figures = answerability_figures(probabilities, labels)
    reliability = [bin for bin in figures.pop("reliability") if bin["count"]]
    curve = compute_risk_coverage(probabilities, labels)
    unanswerable = [
        probability >= THRESHOLD
        for row, probability in zip(rows, probabilities, strict=True)
        if row["answerable"] == 0 and not row["answer"].strip()
    ]
    figures["aurc"] = float(np.mean([point["risk"] for point in curve]))
    figures["unanswerable_passed"] = float(np.mean(unanswerable)) if unanswerable else None
    return {f"{OWN}{name}": value for name, value in figures.items()}, reliability, curve


def compute_risk_coverage(probabilities: Sequence[float], labels: Sequence[int]) -> list[dict[str, float]]:
    """
    Return the points of a risk-coverage curve: `coverage`, the share of labeled summaries that are accepted,
    the most answerable ones first, and `risk`, the share of these that is wrong. One point per summary; equal
    probabilities are accepted in the order of the rows.
    """
    known = np.array(labels) >= 0
    order = np.argsort(-np.array(probabilities, dtype=float)[known], kind="stable")
    wrong = 1 - np.array(labels)[known][order]
    counts = np.arange(1, len(wrong) + 1)
    risks, coverages = np.cumsum(wrong) / counts, counts / max(len(wrong), 1)
    return [
        {"coverage": coverage, "risk": risk}
        for coverage, risk in zip(coverages.tolist(), risks.tolist(), strict=True)
    ]


def judge_wrong_values(
    reference_probabilities: Sequence[float], wrong_probabilities: Sequence[float | None]
) -> dict[str, float | None]:
    """
    Compare the answerability of references with that of the same texts with a wrong value.

    Args:
        reference_probabilities (`list[float]`): The answerability of the reference of each row.
        wrong_probabilities (`list[float]`): That of the reference with another value in the place of the
            answer; `None` where there is none.

    Returns:
        `dict`: `wrong_auroc`, the probability that a reference has a higher answerability than a text with a
        wrong value, and `wrong_passed`, the share of wrong texts with an answerability of .5 or more. Empty
        without wrong texts.
    """
    wrong = [p for p in wrong_probabilities if p is not None]
    if not wrong:
        return {}
    pairs = zip(reference_probabilities, wrong_probabilities, strict=True)
    right = [p for p, other in pairs if other is not None]
    figures = answerability_figures(right + wrong, [1] * len(right) + [0] * len(wrong))
    passed = float(np.mean([p >= THRESHOLD for p in wrong]))
    return {f"{WRONG}auroc": figures["auroc"], f"{WRONG}passed": passed}
