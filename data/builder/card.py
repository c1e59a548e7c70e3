"""Write the card of a built data set: metadata for the Hub, and a description of the data and its origin."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
from datasets import ClassLabel, DatasetInfo, Features
from datasets.info import DatasetInfosDict
from datasets.splits import SplitDict, SplitInfo
from huggingface_hub import DatasetCard, DatasetCardData
from pyarrow.parquet import read_metadata

from crosstask.data.builder.stats import TEXTS
from crosstask.utils.files import write_text
from crosstask.utils.hub_names import LICENSES, get_public_name, is_hub_id

_COLUMNS = {
    "id": "unique id of the row",
    "source": "data set or file that the row comes from",
    "passage": "text to summarize",
    "question": "question about the passage; empty if a generic summary is requested",
    "answer": "answer from the passage; empty if the passage does not answer the question",
    "summary": "summary of the passage",
    "answerable": "whether the summary carries the answer; null if unknown",
    "entailment": "probability that the summary entails the answer, from 0 to 1; null if it was not scored",
    "contradiction": "probability that the passage contradicts the summary; null if it was not scored",
}


@dataclass
class BuildReport:
    """
    What a build did, for the card of its data set.

    Args:
        name (`str`):
            Name of the data set, which is the title of the card.
        features (`Features`):
            Columns of the Parquet files.
        statistics (`Mapping[str, Any]`):
            Statistics as returned by [`compute_statistics`]. Their splits are the splits of the files, and
            their threshold is the one of the labels.
        sources (`Sequence[Mapping[str, Any]]`):
            One mapping per source with its `name` and, where known, `id` (on the Hub), `license` (an
            identifier of the Hub, or a name such as "CC BY-SA 4.0"), `citation` (BibTeX or text) and `url`.
        rows_read (`int`):
            Number of rows read, including the rejected ones.
        rejects (`Mapping[str, int]`, *optional*):
            Number of rejected rows by reason. The card quotes the reasons.
        rows_added (`int`, *optional*, defaults to 0):
            Number of rows that the build added to the rows read: hard negatives and wrong values.
        rows_shortened (`int`, *optional*, defaults to 0):
            Number of rows of which normalization has dropped more than a tenth of the passage.
        language (`Sequence[str]`, *optional*):
            ISO 639 codes of the languages of the texts.
        normalization (`Sequence[str]`, *optional*):
            Normalization steps that were active, in their order.
        splitting (`str`, *optional*):
            Sentence about how the splits were made.
        teacher (`Mapping[str, Any]`, *optional*):
            The model that wrote the summaries: `name`, `mode` (`"passage"` or `"question"`), `candidates`
            (per question), `hard_negatives` (`bool`) and `generation` (arguments of `generate`). `None` if
            the summaries come from the sources.
        truncated_inputs (`int`, *optional*, defaults to 0):
            Number of distinct inputs of the teacher that were longer than `max_source_length`.
        max_source_length (`int`, *optional*):
            Maximum number of tokens of an input of the teacher.
        judge (`Mapping[str, Any]`, *optional*):
            The model that gave the probabilities: `name`, `template` (of the hypothesis), and the keys
            `faithful` and `wrong_values` of the recipe. `None` if the labels come from the sources.
        seed (`int`, *optional*):
            Seed of the sampling, or `None` if nothing was sampled.
    """

    name: str
    features: Features
    statistics: Mapping[str, Any]
    sources: Sequence[Mapping[str, Any]]
    rows_read: int
    rejects: Mapping[str, int] = field(default_factory=dict)
    rows_added: int = 0
    rows_shortened: int = 0
    language: Sequence[str] = ()
    normalization: Sequence[str] = ()
    splitting: str = ""
    teacher: Mapping[str, Any] | None = None
    truncated_inputs: int = 0
    max_source_length: int | None = None
    judge: Mapping[str, Any] | None = None
    seed: int | None = None


def write_data_card(folder: str | os.PathLike[str], report: BuildReport) -> None:
    """
    Write `README.md` into the folder of a built data set.

    The rows have to be in `data/<split>-*.parquet` already, because the card states the sizes of these files.
    Its metadata tell `datasets.load_dataset` and the viewer of the Hub the splits and the types of the
    columns. The card shows the pictures that [`write_charts`] draws, and names only the last component of a
    local path. The same report gives the same bytes with the same versions of the libraries.

    Args:
        folder (`str` or `os.PathLike`):
            Folder of the data set.
        report ([`BuildReport`]):
            What the build did.

    Raises:
        ValueError: If the rows read and added are not as many as the rows written and rejected.
    """
    rows, rejected = report.statistics["all"]["rows"], sum(report.rejects.values())
    if report.rows_read + report.rows_added != rows + rejected:
        raise ValueError(
            f"rows read and added ({report.rows_read}+{report.rows_added}) do not equal rows written and "
            f"rejected ({rows}+{rejected})"
        )
    sections = (
        _render_head(report),
        _render_usage(report),
        _render_columns(report),
        _render_splits(report),
        _render_creation(report),
        _render_statistics(report),
        _render_limitations(report),
        _render_citations(report),
    )
    card = f"---\n{_make_metadata(Path(folder), report).to_yaml()}\n---\n\n" + "\n".join(sections)
    DatasetCard(card)  # raises an error if the Hub could not read the metadata
    write_text(Path(folder) / "README.md", card)


def get_size_category(rows: int) -> str:
    """Return the Hub's `size_categories` value for a number of rows, e.g. "1K<n<10K"."""
    names = [f"{number}{unit}" for unit in "KMB" for number in (1, 10, 100)]
    if rows < 1000:
        return "n<1K"
    power = min(len(str(rows)) - 4, len(names) - 2)
    return f"{names[power]}<n<{names[power + 1]}"


# --- Metadata -------------------------------------------------------------------------------------


def _make_metadata(folder: Path, report: BuildReport) -> DatasetCardData:
    splits, rows = report.statistics["splits"], report.statistics["all"]["rows"]
    data_files = [{"split": name, "path": f"data/{name}-*.parquet"} for name in splits]
    hub_ids = [source["id"] for source in report.sources if source.get("id") and is_hub_id(source["id"])]
    metadata = DatasetCardData(
        pretty_name=report.name,
        language=list(report.language) or None,
        **_get_license(report.sources),
        task_categories=["summarization", "question-answering"],
        size_categories=[get_size_category(rows)],
        annotations_creators=["machine-generated" if report.teacher or report.judge else "found"],
        source_datasets=hub_ids or ["original"],
        tags=["crosstask", "question-prompted-summarization"],
        configs=[{"config_name": "default", "data_files": data_files}],
    )
    sizes = SplitDict()
    for name, statistics in splits.items():
        paths = sorted((folder / "data").glob(f"{name}-*.parquet"))
        sizes.add(SplitInfo(name, sum(map(_get_uncompressed_size, paths)), statistics["rows"]))
    info = DatasetInfo(features=report.features, splits=sizes)
    DatasetInfosDict(default=info).to_dataset_card_data(metadata)
    return metadata


def _get_uncompressed_size(path: Path) -> int:
    """Return the uncompressed size of a Parquet file in bytes. `datasets` ignores splits without a size."""
    metadata = read_metadata(path)
    return sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))


def _get_license(sources: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the license that all sources share if the Hub knows it, or else "other" and a name for it."""
    names = {"-".join((source.get("license") or "unknown").lower().split()) for source in sources}
    if len(names) == 1 and names <= LICENSES:
        return {"license": names.pop()}
    return {"license": "other", "license_name": names.pop() if len(names) == 1 else "mixed"}


# --- Sections -------------------------------------------------------------------------------------


def _render_head(report: BuildReport) -> str:
    statistics = report.statistics["all"]
    return f"""# {report.name}

Question-prompted summaries. Each row has a passage, a question, its answer, a summary, and a label that says
whether the summary carries the answer. The data set has {statistics["rows"]:,} rows with
{statistics["questions"]:,} distinct questions about {statistics["passages"]:,} distinct passages. It was
built with `crosstask`.
"""


def _render_usage(report: BuildReport) -> str:
    text = """## Usage

```python
from datasets import load_dataset

data = load_dataset("path/or/id")
```
"""
    if not report.judge:
        return text
    return f"""{text}
A row with an `entailment` is labeled `yes` if `entailment` is above {report.statistics["threshold"]:g} and
`contradiction` is not above 0.5. To label the rows with another threshold, here 0.7:

```python
def relabel(row):
    if row["entailment"] is None:
        return row
    return {{"answerable": int(row["entailment"] > 0.7 and (row["contradiction"] or 0) <= 0.5)}}

data = data.map(relabel)
```
"""


def _render_columns(report: BuildReport) -> str:
    rows = []
    for name, feature in report.features.items():
        type_name = feature.dtype
        if isinstance(feature, ClassLabel):
            labels = (f"{number} {label}" for number, label in enumerate(feature.names))
            type_name = f"class: {', '.join(labels)}"
        rows.append([f"`{name}`", type_name, _COLUMNS.get(name, "")])
    return "## Columns\n\n" + _render_table(["column", "type", "description"], rows)


def _render_splits(report: BuildReport) -> str:
    rows = []
    for name, statistics in (*report.statistics["splits"].items(), ("all", report.statistics["all"])):
        counts = [f"{statistics[key]:,}" for key in ("rows", "passages", "questions")]
        shares = [
            _format_percent(count / statistics["rows"] if statistics["rows"] else None)
            for count in statistics["labels"].values()
        ]
        rows.append([name, *counts, *shares])
    labels = list(report.statistics["all"]["labels"])
    text = "## Splits\n\n" + _render_table(["split", "rows", "passages", "questions", *labels], rows)
    return f"{text}\n{report.splitting}\n" if report.splitting else text


def _render_creation(report: BuildReport) -> str:
    sources = []
    for source in report.sources:
        name, url = get_public_name(source["name"]), source.get("url") or ""
        link = f"[{name}]({url})" if url.startswith(("http://", "https://")) else name
        sources.append([link, source.get("license") or "unknown"])
    shortened = ""
    if report.rows_shortened:
        shortened = f" It dropped more than a tenth of the passage of {report.rows_shortened:,} rows."
    added = f" and {report.rows_added:,} negatives added" if report.rows_added else ""
    text = f"""## How it was built

{_render_table(["source", "license"], sources)}
- **Rows**: {report.rows_read:,} read{added} = {report.statistics["all"]["rows"]:,} written +
  {sum(report.rejects.values()):,} rejected.
- **Normalization**: {", ".join(report.normalization) or "none"}.{shortened}
- **Summaries**: {_describe_teacher(report)}
- **Labels**: {_describe_judge(report)}
- **Seed**: {"none, as nothing was sampled" if report.seed is None else report.seed}.
- **Versions**: datasets {datasets.__version__}, transformers {transformers.__version__}, torch
  {torch.__version__}, Python {platform.python_version()}.
"""
    if report.rejects:
        most_frequent_first = sorted(report.rejects.items(), key=lambda item: (-item[1], item[0]))
        rows = [[reason, f"{count:,}"] for reason, count in most_frequent_first]
        text += "\n" + _render_table(["reason for rejection", "rows"], rows)
    return text


def _describe_teacher(report: BuildReport) -> str:
    teacher = report.teacher
    if not teacher:
        return "taken from the sources."
    settings = ", ".join(f"{key}={value!r}" for key, value in teacher["generation"].items())
    text = f"written by `{get_public_name(teacher['name'])}`" + (f" ({settings})" if settings else "")
    if teacher["mode"] == "passage":
        return f"{text}, which read only the passage. All questions about a passage have the same summary."
    text += ", which read the question and the passage."
    if teacher["candidates"] > 1:
        text += f" Of {teacher['candidates']} candidates per question, the one that entails the answer best"
        text += " is kept."
    if teacher["hard_negatives"]:
        text += " The one that entails it least is kept as a row labeled `no`."
    return text


def _describe_judge(report: BuildReport) -> str:
    if not report.judge:
        return "taken from the sources."
    return (
        f"`yes` if P(entailment) > {report.statistics['threshold']:g} according to "
        f"`{get_public_name(report.judge['name'])}`, with the summary as the premise and "
        f"`{report.judge['template']}` as the hypothesis. Rows without an answer are labeled `no`"
        + (
            ", and so are those whose summary the passage contradicts."
            if report.judge.get("faithful")
            else "."
        )
        + (
            " Some rows are repeated with a wrong value in the place of the answer (`-wrong` in their ids)."
            if report.judge.get("wrong_values")
            else ""
        )
    )


def _render_statistics(report: BuildReport) -> str:
    statistics, unit = report.statistics["all"], report.statistics["unit"]
    keys = ("mean", "median", "p95", "max")
    rows = [
        [f"{column} ({unit})", *(_format_number(statistics["tokens"][column][key], ".1f") for key in keys)]
        for column in TEXTS
    ]
    ratios = [_format_number(statistics["compression"][key], ".3f") for key in keys]
    rows.append([f"summary / passage ({unit})", *ratios])
    carried = statistics["carried"]
    return f"""## Statistics

{_render_table(["length", "mean", "median", "95th percentile", "max"], rows)}
- Questions per passage: {_format_number(statistics["questions_per_passage"], ".2f")}.
- Rows with an answer, among the rows with a question: {_format_percent(statistics["with_answer"])}.
- Rows whose summary carries the answer by the label, among the rows with an answer:
  {_format_percent(carried["by_label"])}.
- Share of the words of an answer that are in the summary, on average:
  {_format_percent(carried["by_recall"])}.

`stats.json` has these statistics for each split, and histograms.

![Lengths of passages, questions, answers and summaries](lengths.png)

![Shares of the labels, probabilities of entailment, compression ratios](labels.png)
"""


def _render_limitations(report: BuildReport) -> str:
    statistics, teacher, judge = report.statistics["all"], report.teacher, report.judge
    limitations = []
    if teacher:
        limitations.append("A model wrote the summaries. They may state what the passage does not.")
        if teacher["mode"] == "passage":
            limitations.append("The summaries were written without knowledge of the questions.")
        elif teacher["candidates"] > 1:
            limitations.append(
                "The model that labels a summary has also selected it among the candidates, so its errors "
                "are overrepresented."
            )
    if judge:
        limitations.append("A model, not a person, estimated the labels.")
        if judge["template"].strip() == "{answer}":
            limitations.append("The hypothesis is the bare answer, but the judge was trained on sentences.")
    if statistics["tokens"]["answer"]["count"]:
        limitations.append("A row has one answer. Other answers may be correct, too.")
    if statistics["labels"]["unknown"]:
        limitations.append(f"The label is unknown in {statistics['labels']['unknown']:,} rows.")
    if report.truncated_inputs:
        limitations.append(
            f"The model that wrote the summaries read at most {report.max_source_length:,} tokens of an "
            f"input. {report.truncated_inputs:,} distinct inputs are longer."
        )
    if report.normalization:
        limitations.append("The texts are normalized (see above) and may differ from the sources.")
    lines = [f"- {limitation}" for limitation in limitations or ["The limitations of the sources apply."]]
    return "## Limitations\n\n" + "\n".join(lines) + "\n"


def _render_citations(report: BuildReport) -> str:
    citations = []
    for source in report.sources:
        citation = (source.get("citation") or "").strip()
        if citation:
            citations.append(f"```bibtex\n{citation}\n```" if citation.startswith("@") else citation)
    if not citations:
        return "## Citation\n\nNo citation of the sources is known.\n"
    return "## Citation\n\nPlease cite the sources:\n\n" + "\n\n".join(dict.fromkeys(citations)) + "\n"


# --- Formatting -----------------------------------------------------------------------------------


def _render_table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    cells = ([" ".join(str(cell).split()).replace("|", r"\|") for cell in line] for line in lines)
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)


def _format_percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}%"


def _format_number(value: float | None, spec: str) -> str:
    return "-" if value is None else f"{value:,{spec}}"
