"""`report.html`: an evaluation in one self-contained file."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import tempfile
from collections import Counter
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from statistics import median
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from crosstask.data.answers import compile_phrase, normalize_answer
from crosstask.eval.report.charts import (
    draw_reliability_diagram,
    draw_risk_coverage,
    draw_score_against_length,
    draw_score_by_depth,
    draw_score_distribution,
)
from crosstask.eval.report.glossary import DESCRIPTIONS
from crosstask.eval.report.learning_curve import draw_learning_curve
from crosstask.eval.report.results import Evaluation
from crosstask.eval.report.tables import SIGNIFICANCE_LEVEL, format_name, format_number
from crosstask.eval.scoring.depth import average_by_depth, find_depths
from crosstask.sentences_crosstask import count_words
from crosstask.utils.files import write_text

EXAMPLES = 20
LONG_PASSAGE = 300  # words: if the median has as many, the report shows recall by depth

# Charts of the judgment: the field of `SystemResult` that a chart draws, the function, its title and caption.
_JUDGMENT_CHARTS = (
    (
        "reliability",
        draw_reliability_diagram,
        "Reliability diagram",
        "Reliability: for each predicted probability, the share of summaries that carry the answer; ideally "
        "the two are equal. The bars count the rows.",
    ),
    (
        "risk_coverage",
        draw_risk_coverage,
        "Risk-coverage curve",
        "Risk and coverage: if only the most answerable summaries are accepted, how many of these are wrong?",
    ),
)


def write_html(evaluation: Evaluation, path: str | os.PathLike[str]) -> None:
    """Write the report of an evaluation as HTML. The same evaluation gives the same bytes.

    The page has a table of all metrics with intervals and p-values, charts, the notes, twenty examples with
    the answer marked in each summary, and the settings. It loads nothing and runs no script, and it escapes
    all texts of the rows and systems.

    Args:
        evaluation (`Evaluation`): What to report.
        path (`str` or `os.PathLike`): The file, which is replaced.

    Raises:
        ValueError: If the evaluation's history contains an unknown stage.
        OSError: If the file cannot be written.
    """
    environment = Environment(
        loader=PackageLoader("crosstask.eval.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["format_name"] = format_name
    environment.filters["format_number"] = format_number
    page = environment.get_template("report.html.jinja").render(
        evaluation=evaluation,
        passages=len(set(evaluation.passages)),
        with_answer=sum(1 for row in evaluation.rows if row["answer"].strip()),
        labels=Counter(row["answerable"] for row in evaluation.rows),
        level=f"{100 * evaluation.level:g}%",
        significance_level=SIGNIFICANCE_LEVEL,
        metrics=[
            (metric, _format_row_count(evaluation, metric), _make_cells(evaluation, metric))
            for metric in evaluation.metrics
        ],
        descriptions={
            metric: DESCRIPTIONS[metric]
            for metric in (*evaluation.metrics, *evaluation.figures)
            if metric in DESCRIPTIONS
        },
        systems_with_figures=[name for name, system in evaluation.systems.items() if system.figures],
        charts=_draw_charts(evaluation),
        learning_curve=_draw_learning_curve(evaluation),
        examples=_select_examples(evaluation),
        settings={format_name(key): _format_setting(value) for key, value in evaluation.settings.items()},
    )
    write_text(path, page)


def mark_answer(text: str, answer: str, words: bool = True) -> Markup:
    """Return a text as HTML, with the answer in `<mark>`.

    Args:
        text (`str`): Any text.
        answer (`str`): The text to mark wherever it occurs, regardless of case, but not within a longer word.
        words (`bool`, *optional*, defaults to `True`): Whether to mark the answer's single words if it does
            not occur as a phrase. Words are compared as in answer recall, with `normalize_answer`.
    """
    if answer.strip():
        parts = compile_phrase(answer).split(text)
        if len(parts) > 1:  # the odd parts are matches
            return Markup("").join(
                Markup("<mark>{}</mark>").format(part) if index % 2 else escape(part)
                for index, part in enumerate(parts)
            )
    answer_words = set(normalize_answer(answer).split()) if words else set()
    marked = Markup("").join(
        Markup("<mark>{}</mark>").format(part) if normalize_answer(part) in answer_words else escape(part)
        for part in re.split(r"(\s+)", text)
    )
    return Markup(re.sub(r"</mark>(\s+)<mark>", r"\1", marked))  # join adjacent marks


def _format_row_count(evaluation: Evaluation, metric: str) -> str:
    """Return on how many rows a metric is defined: "280 rows", or "12 to 280 rows" if systems differ."""
    counts = [estimates[metric].rows for estimates in evaluation.estimates.values() if metric in estimates]
    lowest, highest = (f"{count:,}" for count in (min(counts), max(counts)))
    return f"{highest} rows" if lowest == highest else f"{lowest} to {highest} rows"


def _make_cells(evaluation: Evaluation, metric: str) -> list[dict[str, Any]]:
    """Return a cell of the table for each system: mean, interval, p-value, and whether it is the best."""
    best, digits, cells = evaluation.get_best(metric), evaluation.get_digits(metric), []
    for name in evaluation.systems:
        estimate = evaluation.estimates[name].get(metric)
        cell: dict[str, Any] = {
            "mean": None,
            "interval": None,
            "p": None,
            "best": name in best,
            "significant": False,
        }
        if estimate is not None and estimate.mean is not None:
            cell["mean"] = format_number(estimate.mean, digits)
            if estimate.low is not None:
                ends = (format_number(end, digits) for end in (estimate.low, estimate.high))
                cell["interval"] = " to ".join(ends)
            if estimate.p is not None:
                cell["p"] = f"p = {estimate.p:.3f}" if estimate.p >= 0.001 else "p < 0.001"
                cell["significant"] = estimate.p < SIGNIFICANCE_LEVEL
        cells.append(cell)
    return cells


def _draw_charts(evaluation: Evaluation) -> list[dict[str, str]]:
    """Return the charts that have data, each as a data URI with its caption and its alternative text."""
    charts = []

    def add(figure: Figure, caption: str, text: str) -> None:
        charts.append({"source": _encode_png(figure), "caption": caption, "text": text})

    recall = "answer_recall"
    if recall in evaluation.metrics and evaluation.get_values(recall):
        means = _describe_means(evaluation, recall)
        add(
            draw_score_against_length(evaluation, recall),
            "Does a system carry more answers, or is it only longer? Answer recall against length"
            + ("." if evaluation.is_small else ", with intervals."),
            f"Mean {format_name(recall)} against the mean number of words of each system. {means}",
        )
        if median(map(count_words, set(evaluation.passages))) >= LONG_PASSAGE and any(
            depth is not None for depth in find_depths(evaluation.rows)
        ):
            add(
                draw_score_by_depth(evaluation, recall),
                "Is a long passage read to its end? Answer recall by the depth of the answer.",
                f"Mean {format_name(recall)} by depth. {_describe_depths(evaluation, recall)}",
            )
    for field, draw, title, caption in _JUDGMENT_CHARTS:
        names = [name for name, system in evaluation.systems.items() if getattr(system, field)]
        if names:
            add(draw(evaluation), caption, f"{title} of {', '.join(names)}.")
    for metric in evaluation.metrics:
        if evaluation.get_values(metric):
            name = format_name(metric)
            add(
                draw_score_distribution(evaluation, metric),
                f"{name}: where the rows lie, darker where there are more; the diamond is the mean"
                + ("." if evaluation.is_small else " with its interval."),
                f"Distribution of {name} by system. {_describe_means(evaluation, metric)}",
            )
    return charts


def _describe_means(evaluation: Evaluation, metric: str) -> str:
    """Return the means in words, for readers who cannot see the chart."""
    digits = evaluation.get_digits(metric)
    means = [
        f"{name} {format_number(value, digits)}" for name, value in evaluation.get_values(metric).items()
    ]
    return f"Means: {', '.join(means)}."


def _describe_depths(evaluation: Evaluation, metric: str) -> str:
    """Return the means by depth in words, from the first tenth of a passage to its last."""
    depths = find_depths(evaluation.rows)
    lists = {
        name: average_by_depth(depths, system.scores[metric])
        for name, system in evaluation.systems.items()
        if metric in system.scores
    }
    return " ".join(
        f"{name}: {', '.join(format_number(point['mean']) for point in points)}."
        for name, points in lists.items()
    )


def _draw_learning_curve(evaluation: Evaluation) -> str | None:
    """Return the learning curves as a data URI, or None without a history."""
    if not evaluation.history:
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "learning_curve.png"
        draw_learning_curve(evaluation.history, path)
        return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def _encode_png(figure: Figure) -> str:
    """Return a figure as a data URI."""
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _select_examples(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Return examples from as many passages as possible.

    The rows are drawn by the hash of their texts, so the order of the rows does not matter.
    """
    draws: list[tuple[int, int]] = []  # how many rows of the same passage precede a row, and its index
    rows_by_passage: Counter[str] = Counter()
    for index in sorted(range(len(evaluation.rows)), key=lambda index: _hash_row(evaluation.rows[index])):
        passage = evaluation.rows[index]["passage"]
        draws.append((rows_by_passage[passage], index))
        rows_by_passage[passage] += 1
    draws.sort(key=lambda draw: draw[0])  # stable: first one row of every passage, then a second one
    return [_make_example(evaluation, index) for _, index in draws[:EXAMPLES]]


def _make_example(evaluation: Evaluation, index: int) -> dict[str, Any]:
    """Return a row with the marked texts and the probabilities of all systems."""
    row = evaluation.rows[index]
    systems = []
    for name, system in evaluation.systems.items():
        probabilities = system.summary_probabilities
        systems.append(
            {
                "name": name,
                "summary": mark_answer(system.summaries[index], row["answer"]),
                "probability": None if probabilities is None else format_number(probabilities[index]),
            }
        )
    return {
        "row": row,
        "passage": mark_answer(row["passage"], row["answer"], words=False),
        "reference": mark_answer(row["summary"], row["answer"]),
        "systems": systems,
    }


def _hash_row(row: Mapping[str, Any]) -> bytes:
    text = json.dumps([row[key] for key in ("passage", "question", "answer", "summary")])
    return blake2b(text.encode(), digest_size=16).digest()


def _format_setting(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
