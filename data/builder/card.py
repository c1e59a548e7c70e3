"""The card of a built data set: metadata that the Hub reads, and how the rows were really made."""

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

from crosstask.data.builder.figures import TEXTS
from crosstask.utils.files import write_text
from crosstask.utils.hub_names import LICENSES, get_public_name, is_hub_id

_COLUMNS = {
    "id": "the row's name",
    "source": "the data set or file that the row comes from",
    "passage": "the text that is summarized",
    "question": "what the reader wants to know; empty asks for a generic summary",
    "answer": "the answer that the passage gives; empty where it gives none",
    "summary": "the summary",
    "answerable": "whether the summary carries the answer; null where unknown",
    "entailment": "P(entailment of the answer by the summary), 0 to 1; null where nothing was judged",
}


@dataclass
class BuildFacts:
    """What a build really did, for its card.

    Args:
        name: The data set's name, its title.
        features: The columns of its Parquet files.
        statistics: As `data.builder.figures.describe` gives them; its splits are those of the files, its
            threshold is the one that made the labels.
        sources: One a source: `name`, and where they are known `id` (on the Hub), `licence` (a Hub
            identifier, or a name such as "CC BY-SA 4.0"), `citation` (BibTeX or text) and `url`.
        rows_in: The rows that were read, those included that were rejected.
        rejects: Why rows were rejected, to how many; the reasons stand in the card as they are.
        rows_added: The rows that came in addition to those read, such as hard negatives.
        language: ISO 639 codes of the texts.
        normalization: The steps that were on, in the order in which they ran.
        splitting: A sentence on how the splits were made, if the card is to tell.
        teacher: What wrote the summaries: `name`, `mode` ("passage" or "question"), `candidates`
            (summaries drawn a question), `hard_negatives` (bool) and `generation` (settings by
            name). None where every summary is the source's.
        cut_inputs: The distinct inputs that the teacher did not read to their end ...
        max_input_tokens: ... since they have more tokens than this.
        judge: What gave the probabilities: `name` and `template` (of the hypothesis). None where
            the labels are the sources'.
        seed: The seed of all that was drawn, or None where nothing was.
    """

    name: str
    features: Features
    statistics: Mapping[str, Any]
    sources: Sequence[Mapping[str, str | None]]
    rows_in: int
    rejects: Mapping[str, int] = field(default_factory=dict)
    rows_added: int = 0
    language: Sequence[str] = ()
    normalization: Sequence[str] = ()
    splitting: str = ""
    teacher: Mapping[str, Any] | None = None
    cut_inputs: int = 0
    max_input_tokens: int | None = None
    judge: Mapping[str, Any] | None = None
    seed: int | None = None


def write_data_card(folder: str | os.PathLike[str], facts: BuildFacts) -> None:
    """Write `README.md` into the folder of a built data set, whose rows are in `data/<split>-*.parquet`.

    Those files are there before the card, every split has one, and their sizes are read.

    Its metadata give `datasets.load_dataset` and the Hub's viewer the splits and the types of the
    columns. It shows the pictures that `data.builder.figures.write_statistics` draws. Of paths it names
    but the last part. The same facts give the same bytes, on the same versions of the libraries.

    Raises:
        ValueError: If the rows read and added are not those written and rejected.
    """
    rows, rejected = facts.statistics["all"]["rows"], sum(facts.rejects.values())
    if facts.rows_in + facts.rows_added != rows + rejected:
        raise ValueError(
            f"{facts.rows_in} rows read and {facts.rows_added} added, but {rows} written and {rejected} "
            "rejected: the sums differ."
        )
    parts = (_head, _load, _columns, _splits, _making, _statistics, _limits, _citations)
    card = f"---\n{_metadata(Path(folder), facts).to_yaml()}\n---\n\n" + "\n".join(
        part(facts) for part in parts
    )
    DatasetCard(card)  # fails on metadata that the Hub would not read
    write_text(Path(folder) / "README.md", card)


def _metadata(folder: Path, facts: BuildFacts) -> DatasetCardData:
    splits, rows = facts.statistics["splits"], facts.statistics["all"]["rows"]
    files = [{"split": name, "path": f"data/{name}-*.parquet"} for name in splits]
    hub_ids = [source["id"] for source in facts.sources if source.get("id") and is_hub_id(source["id"])]
    made = facts.teacher or facts.judge
    data = DatasetCardData(
        pretty_name=facts.name,
        language=list(facts.language) or None,
        **_licence(facts.sources),
        task_categories=["summarization", "question-answering"],
        size_categories=[size_category(rows)],
        annotations_creators=["machine-generated" if made else "found"],
        source_datasets=hub_ids or ["original"],
        tags=["crosstask", "question-prompted-summarization"],
        configs=[{"config_name": "default", "data_files": files}],
    )
    sizes = SplitDict()
    for name, figures in splits.items():
        shards = sorted((folder / "data").glob(f"{name}-*.parquet"))
        sizes.add(SplitInfo(name, sum(map(_uncompressed, shards)), figures["rows"]))
    info = DatasetInfo(features=facts.features, splits=sizes)
    DatasetInfosDict(default=info).to_dataset_card_data(data)
    return data


def _uncompressed(shard: Path) -> int:
    """Bytes of a Parquet file's columns before compression: without a size `datasets` reads no splits."""
    metadata = read_metadata(shard)
    return sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))


def _licence(sources: Sequence[Mapping[str, str | None]]) -> dict[str, str]:
    """One that the Hub knows, if it is that of all sources, or else "other" and a name of it."""
    names = {"-".join((source.get("licence") or "unknown").lower().split()) for source in sources}
    if len(names) == 1 and names <= LICENSES:
        return {"license": names.pop()}
    return {"license": "other", "license_name": names.pop() if len(names) == 1 else "mixed"}


def size_category(rows: int) -> str:
    """The Hub's name for so many rows, of its `size_categories`."""
    names = [f"{number}{unit}" for unit in "KMB" for number in (1, 10, 100)]
    if rows < 1000:
        return "n<1K"
    power = min(len(str(rows)) - 4, len(names) - 2)
    return f"{names[power]}<n<{names[power + 1]}"


def _head(facts: BuildFacts) -> str:
    figures = facts.statistics["all"]
    return f"""# {facts.name}

Question-prompted summaries: each row has a passage, a question, its answer, a summary, and a label that says
whether the summary carries the answer. {figures["rows"]:,} rows with {figures["questions"]:,} distinct
questions on {figures["passages"]:,} distinct passages, made with `crosstask`.
"""


def _load(facts: BuildFacts) -> str:
    text = """## Load

```python
from datasets import load_dataset

data = load_dataset("path/or/id")
```
"""
    if not facts.judge:
        return text
    return f"""{text}
A judged row is labelled yes where `entailment` is above {facts.statistics["threshold"]:g}. The threshold
moves without judging again, here to 0.7:

```python
def relabel(row):
    return row if row["entailment"] is None else {{"answerable": int(row["entailment"] > 0.7)}}

data = data.map(relabel)
```
"""


def _columns(facts: BuildFacts) -> str:
    rows = []
    for name, feature in facts.features.items():
        kind = feature.dtype
        if isinstance(feature, ClassLabel):
            kind = "class: " + ", ".join(f"{number} {name}" for number, name in enumerate(feature.names))
        rows.append([f"`{name}`", kind, _COLUMNS.get(name, "")])
    return "## Columns\n\n" + _table(["column", "type", "what"], rows)


def _splits(facts: BuildFacts) -> str:
    rows = []
    for name, figures in (*facts.statistics["splits"].items(), ("all", facts.statistics["all"])):
        counts = [f"{figures[key]:,}" for key in ("rows", "passages", "questions")]
        shares = [
            _percent(count / figures["rows"] if figures["rows"] else None)
            for count in figures["labels"].values()
        ]
        rows.append([name, *counts, *shares])
    labels = list(facts.statistics["all"]["labels"])
    text = "## Splits\n\n" + _table(["split", "rows", "passages", "questions", *labels], rows)
    return f"{text}\n{facts.splitting}\n" if facts.splitting else text


def _making(facts: BuildFacts) -> str:
    sources = []
    for source in facts.sources:
        name, url = get_public_name(source["name"]), source.get("url") or ""
        link = f"[{name}]({url})" if url.startswith(("http://", "https://")) else name
        sources.append([link, source.get("licence") or "unknown"])
    added = f" and {facts.rows_added:,} added" if facts.rows_added else ""
    text = f"""## How it was made

{_table(["source", "licence"], sources)}
- **Rows**: {facts.rows_in:,} read{added} = {facts.statistics["all"]["rows"]:,} written +
  {sum(facts.rejects.values()):,} rejected.
- **Normalization**: {", ".join(facts.normalization) or "none"}.
- **Summaries**: {_teacher(facts)}
- **Labels**: {_judge(facts)}
- **Seed**: {"none" if facts.seed is None else facts.seed}.
- **Versions**: datasets {datasets.__version__}, transformers {transformers.__version__}, torch
  {torch.__version__}, Python {platform.python_version()}.
"""
    if facts.rejects:
        worst_first = sorted(facts.rejects.items(), key=lambda item: (-item[1], item[0]))
        text += "\n" + _table(
            ["rejected because", "rows"], [[reason, f"{count:,}"] for reason, count in worst_first]
        )
    return text


def _teacher(facts: BuildFacts) -> str:
    teacher = facts.teacher
    if not teacher:
        return "the sources' own."
    settings = ", ".join(f"{key}={value!r}" for key, value in teacher["generation"].items())
    text = f"by `{get_public_name(teacher['name'])}`"
    if teacher["mode"] == "passage":
        text += ", one a passage, whatever the question"
    else:
        text += f", which read question and passage; candidates a question: {teacher['candidates']}"
        if teacher["candidates"] > 1:
            text += ", of which the one that entails the answer best was taken"
        if teacher["hard_negatives"]:
            text += ", and the one that entails it least as a row labelled no"
    text += f" ({settings})" if settings else ""
    return f"{text}."


def _judge(facts: BuildFacts) -> str:
    if not facts.judge:
        return "the sources' own."
    return (
        f"yes where `{get_public_name(facts.judge['name'])}` gives P(entailment) >"
        f" {facts.statistics['threshold']:g}; premise: the summary, hypothesis: `{facts.judge['template']}`;"
        " no where there is no answer."
    )


def _statistics(facts: BuildFacts) -> str:
    figures, unit = facts.statistics["all"], facts.statistics["unit"]
    keys = ("mean", "median", "p95", "max")
    rows = [
        [f"{column} ({unit})", *(_number(figures["tokens"][column][key], ".1f") for key in keys)]
        for column in TEXTS
    ]
    rows.append(
        [f"summary / passage ({unit})", *(_number(figures["compression"][key], ".3f") for key in keys)]
    )
    carried = figures["carried"]
    return f"""## Statistics

{_table(["length", "mean", "median", "95%", "max"], rows)}
Questions a passage: {_number(figures["questions_per_passage"], ".2f")}. Rows with a question that have an
answer: {_percent(figures["with_answer"])}. Of the rows with an answer, the summary carries it in
{_percent(carried["by_label"])} by the label; it has {_percent(carried["by_recall"])} of the answer's words on
average. More is in `stats.json`.

![Lengths of passages, questions, answers and summaries](lengths.png)

![Balance of the labels, probabilities of entailment, compression](labels.png)
"""


def _limits(facts: BuildFacts) -> str:
    figures, teacher, judge = facts.statistics["all"], facts.teacher, facts.judge
    limits = []
    if teacher:
        limits.append("Summaries by a machine may state what the passage does not.")
        if teacher["mode"] == "passage":
            limits.append("All questions on a passage share one summary, which knows none of them.")
        elif teacher["candidates"] > 1:
            limits.append(
                "The same judge chose among the candidates and labelled them, so its errors are chosen too."
            )
    if judge:
        limits.append("The label is a judge's estimate, not a reader's.")
        if judge["template"].strip() == "{answer}":
            limits.append("The hypothesis is the bare answer, where the judge has learnt from sentences.")
    if figures["tokens"]["answer"]["count"]:
        limits.append("A row has the answer of one reading; others may be as right.")
    if figures["labels"]["unknown"]:
        limits.append(f"Rows whose label is unknown: {figures['labels']['unknown']:,}.")
    if facts.cut_inputs:
        limits.append(
            f"The teacher read no more than {facts.max_input_tokens:,} tokens of an input. Inputs that are"
            f" longer: {facts.cut_inputs:,}."
        )
    if facts.normalization:
        limits.append("The texts are normalized (see above), so they are not the sources' letter by letter.")
    return (
        "## Known limits\n\n"
        + "\n".join(f"- {limit}" for limit in limits or ["Those of the sources."])
        + "\n"
    )


def _citations(facts: BuildFacts) -> str:
    texts = []
    for source in facts.sources:
        text = (source.get("citation") or "").strip()
        if text:
            texts.append(f"```bibtex\n{text}\n```" if text.startswith("@") else text)
    texts = list(dict.fromkeys(texts)) or ["The sources name none."]
    return "## Citation\n\nPlease cite the sources.\n\n" + "\n\n".join(texts) + "\n"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    cells = ([" ".join(str(cell).split()).replace("|", r"\|") for cell in line] for line in lines)
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}%"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else f"{value:,{form}}"
