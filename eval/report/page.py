"""`report.html`: an evaluation in one file that needs nothing else, to be read, mailed and kept."""

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
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from crosstask.data.answers import normalize_answer
from crosstask.eval.report.charts import reliability_diagram, score_against_length, score_distribution
from crosstask.eval.report.learning_curve import learning_curve
from crosstask.eval.report.results import SIGNIFICANT, Evaluation, format_name, number
from crosstask.utils.files import write_text

EXAMPLES = 20

# Of scripts that leave spaces between words: "3" is no part of "1893", but 1958年 stands in は1958年に.
_LETTER = "[0-9A-Za-zÀ-ɏͰ-ӿ]"


def write_html(evaluation: Evaluation, path: str | os.PathLike[str]) -> None:
    """Write the report: the same evaluation gives the same bytes.

    It has a table of all metrics with intervals and p-values, charts, the notes, twenty examples with the
    answer marked in each summary, and how to make it again. It loads nothing and runs no script, and
    texts of the rows and systems stand in it as text, whatever they hold.

    Args:
        evaluation: What to report.
        path: The file, as `report.html`; one that is there is replaced.

    Raises:
        ValueError: If the evaluation's history names another stage than `learning_curve` knows.
        OSError: If the file cannot be written.
    """
    environment = Environment(
        loader=PackageLoader("crosstask.eval.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["named"] = format_name
    page = environment.get_template("report.html.jinja").render(
        evaluation=evaluation,
        passages=len(set(evaluation.passages)),
        with_answer=sum(1 for row in evaluation.rows if row["answer"].strip()),
        labels=Counter(row["answerable"] for row in evaluation.rows),
        level=f"{100 * evaluation.level:g}%",
        significant=SIGNIFICANT,
        metrics=[
            (metric, _defined(evaluation, metric), _cells(evaluation, metric))
            for metric in evaluation.metrics
        ],
        judges=[name for name, system in evaluation.systems.items() if system.figures],
        charts=_charts(evaluation),
        curve=_curve(evaluation),
        examples=_examples(evaluation),
        made={format_name(key): _plain(value) for key, value in evaluation.made.items()},
        number=number,
    )
    write_text(path, page)


def mark_answer(text: str, answer: str, words: bool = True) -> Markup:
    """The text as HTML, with the answer in `<mark>`.

    Args:
        text: Any text.
        answer: What to mark: each place where it stands as it is, whatever the case of its letters, but
            not within a longer word.
        words: Whether to mark its single words where it stands nowhere, as `normalize_answer` compares
            them, which is what answer recall counts.
    """
    if answer.strip():
        whole = rf"(?<!{_LETTER})({re.escape(answer.strip())})(?!{_LETTER})"
        parts = re.split(whole, text, flags=re.IGNORECASE)
        if len(parts) > 1:
            return Markup("").join(
                Markup("<mark>{}</mark>").format(part) if odd % 2 else escape(part)
                for odd, part in enumerate(parts)
            )
    wanted = set(normalize_answer(answer).split()) if words else set()
    parts = (
        Markup("<mark>{}</mark>").format(part) if wanted & {normalize_answer(part)} else escape(part)
        for part in re.split(r"(\s+)", text)
    )
    return Markup(re.sub(r"</mark>(\s+)<mark>", r"\1", Markup("").join(parts)))  # neighbours in one


def _defined(evaluation: Evaluation, metric: str) -> str:
    """On how many rows the metric is defined: "280 rows", or "12 to 280 rows" where systems differ."""
    metrics = evaluation.estimates.values()
    rows = [estimates[metric].rows for estimates in metrics if metric in estimates]
    fewest, most = (f"{number:,}" for number in (min(rows), max(rows)))
    return f"{most} rows" if fewest == most else f"{fewest} to {most} rows"


def _cells(evaluation: Evaluation, metric: str) -> list[dict[str, Any]]:
    """A cell of the table for each system: its mean, interval, p-value, and whether it is the best."""
    best, digits, cells = evaluation.best(metric), evaluation.digits(metric), []
    for name in evaluation.systems:
        estimate = evaluation.estimates[name].get(metric)
        cell = {"mean": None, "interval": None, "p": None, "best": name in best, "significant": False}
        if estimate is not None and estimate.mean is not None:
            cell["mean"] = number(estimate.mean, digits)
            if estimate.low is not None:
                cell["interval"] = f"{number(estimate.low, digits)} to {number(estimate.high, digits)}"
            if estimate.p is not None:
                cell["p"] = f"p = {estimate.p:.3f}" if estimate.p >= 0.001 else "p < 0.001"
                cell["significant"] = estimate.p < SIGNIFICANT
        cells.append(cell)
    return cells


def _charts(evaluation: Evaluation) -> list[dict[str, str]]:
    """The charts there is something to draw of, each as a data URI with its caption and what it shows."""
    charts = []

    def add(figure: Figure, caption: str, text: str) -> None:
        charts.append({"source": _data_uri(figure), "caption": caption, "text": text})

    recall = next((metric for metric in evaluation.metrics if metric == "answer_recall"), None)
    if recall and evaluation.values(recall):
        values = _spoken(evaluation, recall)
        add(
            score_against_length(evaluation, recall),
            "Does a system carry more answers, or is it only longer? Answer recall against length, with "
            "intervals.",
            f"Mean {format_name(recall)} against the mean number of words of each system. {values}",
        )
    judges = [name for name, system in evaluation.systems.items() if system.reliability]
    if judges:
        add(
            reliability_diagram(evaluation),
            "Reliability: of the summaries that are said to carry the answer with some probability, as "
            "large a share should. The bars count the rows.",
            f"Reliability diagram of {', '.join(judges)}.",
        )
    for metric in evaluation.metrics:
        if evaluation.values(metric):
            add(
                score_distribution(evaluation, metric),
                f"{format_name(metric)}: where the rows lie, darker where there are more; the diamond is the mean "
                "with its interval.",
                f"Distribution of {format_name(metric)} by system. {_spoken(evaluation, metric)}",
            )
    return charts


def _spoken(evaluation: Evaluation, metric: str) -> str:
    """The means in words, for who cannot see the chart."""
    digits = evaluation.digits(metric)
    means = [f"{name} {number(value, digits)}" for name, value in evaluation.values(metric).items()]
    return f"Means: {', '.join(means)}."


def _curve(evaluation: Evaluation) -> str | None:
    """The learning curves as a data URI."""
    if not evaluation.history:
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "learning_curve.png"
        learning_curve(evaluation.history, path)
        return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def _data_uri(figure: Figure) -> str:
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _examples(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Rows of as many passages as there are, drawn by their digests: the same ones in whatever order."""
    drawn, seen = [], Counter()
    for index in sorted(range(len(evaluation.rows)), key=lambda index: _digest(evaluation.rows[index])):
        passage = evaluation.rows[index]["passage"]
        drawn.append((seen[passage], index))
        seen[passage] += 1
    drawn.sort(key=lambda item: item[0])  # stable: first a row of every passage, then a second one
    return [_example(evaluation, index) for _, index in drawn[:EXAMPLES]]


def _example(evaluation: Evaluation, index: int) -> dict[str, Any]:
    row = evaluation.rows[index]
    return {
        "row": row,
        "passage": mark_answer(row["passage"], row["answer"], words=False),
        "reference": mark_answer(row["summary"], row["answer"]),
        "systems": [
            {
                "name": name,
                "summary": mark_answer(system.summaries[index], row["answer"]),
                "own": None if system.own is None else number(system.own[index]),
            }
            for name, system in evaluation.systems.items()
        ],
    }


def _digest(row: Mapping[str, Any]) -> bytes:
    text = json.dumps([row[key] for key in ("passage", "question", "answer", "summary")])
    return blake2b(text.encode(), digest_size=16).digest()


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
