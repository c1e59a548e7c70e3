"""Write the cards of models and adapters from the files of a training run."""

from __future__ import annotations

import json
import os
import pprint
import re
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml
from huggingface_hub import ModelCard, ModelCardData

from crosstask.data.readers.registry import CORPORA
from crosstask.data.schema import STAGES
from crosstask.eval.report.hub_metadata import dump_eval_results, make_eval_results
from crosstask.eval.report.results import strip_folders
from crosstask.hub.limitations import write_limitations
from crosstask.processing_crosstask import QUESTION_TOKENIZER
from crosstask.training.arguments import SHAPE_KEYS
from crosstask.training.record import SOURCE_KEYS
from crosstask.utils.errors import ConfigError, suggest
from crosstask.utils.files import write_text
from crosstask.utils.hub_names import PRIVATE, check_datasets, check_license, get_public_name, is_hub_id
from crosstask.utils.output_folder import RECORD_NAME, read_record

DIAGRAM = "architecture.svg"  # beside README.md
_PRIVATE_DATA = "private data"  # instead of the names of files
_DIAGRAMS = {"classifier": "architecture.svg", "gated": "architecture_gated.svg"}  # in docs/
_LEARNING_CURVE = "learning_curve.png"
_TRAINED_MODELS = {"summarize": "summarizer", "answer": "question_answerer", "fuse": "cross-task model"}
# The settings in the table of stages; the recipe below it has all of them.
_SHOWN_SETTINGS = (
    *("learning_rate", "lr_scheduler_type", "optim", "per_device_train_batch_size"),
    *("contrastive_weight", "lora_r", "peft", "trainable", "seed"),
)
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]+)*|code|multilingual")

_FUSION_ROLES = {
    "classifier": "the question encoder is used to judge a summary, not to write it",
    "gated": "the question encoder is used both to write a summary and to judge it",
}
_INTRODUCTION = """This model summarizes a passage with a question in mind: the summary should contain the
answer to the question, and the model estimates the probability that it does. It combines a summarizer and a
question encoder by cross-attention (`fusion="{fusion}"`: {role}) and was trained with `crosstask`.

Use it on texts like its training data, which are named below. Check a summary before you act on it, and do
not take the probability as a proof: see Limitations."""
_PIPELINE_USE = """```python
from transformers import pipeline

summarize = pipeline("question-summarization", model={model!r}, trust_remote_code=True)
passage = {passage}
result = summarize(question={question!r}, passage=passage)
print(result["summary"])
{output}
```

`result["answerability"]` is the probability that the summary contains the answer{untrained}.
Several questions about one passage, given as a list, are processed in one batch. `AutoModelForSeq2SeqLM` and
`AutoProcessor` load the model and its processor, also with `trust_remote_code=True`, because the code of the
model is in this repository. If `crosstask` is installed and imported, `trust_remote_code` is not needed."""
_ADAPTER_USE = """```python
from crosstask import CrossTaskForConditionalGeneration, CrossTaskProcessor
from peft import PeftModel{imports}

base = CrossTaskForConditionalGeneration.{base}
model = PeftModel.from_pretrained(base, {adapter!r})
processor = {processor}
```

This repository contains only the weights of the adapter and of the fusion. They work only with the base model
in the code above."""
_NO_EXAMPLES = "None are shown, because the data of this model are not public."
_EVALUATION = """Measured on {rows:,} rows (split `{split}`) of {data}, with {passages:,} different passages:

```text
{table}
```

ROUGE is computed on the rows that are not labeled as lacking the answer. Answer recall is the share of the
answer's words that the summary contains, on the rows with an answer."""
_CITATION = """```bibtex
@software{crosstask,
  title = {crosstask: question-prompted summarization by fusing two task models},
  version = {%s},
}
```"""


def read_run_recipe(run_dir: str | os.PathLike) -> dict[str, dict[str, Any]]:
    """Return the values of a run's recipe by stage; those at the top level under ""."""
    path = Path(run_dir) / RECORD_NAME
    names = yaml.safe_load(path.read_text(encoding="utf-8")).keys()
    return read_record(path, [stage for stage in STAGES if stage in names])


def read_local_names(run_dir: str | os.PathLike) -> set[str]:
    """
    Return the names of models and data in a run's recipe that were local folders or files during training.
    They cannot be recognized later: from another folder, `data/rows` looks like a Hub id.
    """
    return set(_read_json(Path(run_dir) / "metrics.json")["local"])


def check_metadata(
    recipe: dict[str, dict[str, Any]],
    run_dir: str | os.PathLike,
    license: str | None,
    datasets: Sequence[str] | None,
    language: Sequence[str] | None = None,
    local_names: Collection[str] = (),
) -> None:
    """
    Check that the author has provided the metadata of a card that a run's files do not contain.

    Args:
        recipe (`dict`): The recipe's values by stage, as in `recipe.yaml`; key "" has those of all stages.
        run_dir (`str` or `os.PathLike`): The run's folder, for the error message.
        license (`str`, *optional*): The Hub's name of the license; required.
        datasets (`list[str]`, *optional*): Hub ids of data sets, or "private"; required if data of the recipe
            are not on the Hub.
        language (`list[str]`, *optional*): ISO 639 codes.
        local_names (`set[str]`, *optional*): See [`read_local_names`].

    Raises:
        ConfigError: If something is missing or invalid; one sentence names all that is missing.
    """
    for code in language or ():
        if not _LANGUAGE.fullmatch(str(code)):
            raise ConfigError(f"--language: expected an ISO 639 code such as en, got {code!r}")
    check_datasets(datasets or ())
    missing = []
    if license is None:
        missing.append("a license (--license apache-2.0, in a recipe license: apache-2.0)")
    else:
        check_license(license)
    _, unpublished = _list_datasets(recipe, local_names)
    if unpublished and not datasets:
        missing.append(
            f"the Hub id of the data set {', '.join(unpublished)} (--dataset user/name, in a recipe "
            "datasets: [user/name]; or private if it is not on the Hub)"
        )
    if missing:
        raise ConfigError(f"{run_dir}: the card still needs {' and '.join(missing)}")


def make_model_card(
    run_dir: str | os.PathLike,
    *,
    repo_id: str | None = None,
    license: str | None = None,
    language: Sequence[str] | None = None,
    datasets: Sequence[str] | None = None,
    bases: Sequence[str] | None = None,
    base_models: Sequence[str] | None = None,
    evaluation: str | None = None,
    examples: Sequence[str] | None = None,
) -> str:
    """
    Return the text of `README.md` for the model of a finished training run, or for its adapter.

    Args:
        run_dir (`str` or `os.PathLike`): The run's folder.
        repo_id (`str`, *optional*): The repository; then the metadata are checked, see [`check_metadata`].
        license (`str`, *optional*): The Hub's name of the license.
        language (`list[str]`, *optional*): ISO 639 codes of the texts.
        datasets (`list[str]`, *optional*): Hub ids of data sets, in addition to those in the recipe, or
            "private".
        bases (`list[str]`, *optional*): For an adapter, the ids of its base models: one cross-task model,
            or a summarizer and a question answerer.
        base_models (`list[str]`, *optional*): Hub ids of the models that the model was trained from, if the
            run used local copies of them.
        evaluation (`str`, *optional*): Hub id of the published rows of the evaluation.
        examples (`list[str]`, *optional*): Ids of test rows to show with their passages, see
            [`select_examples`].
    """
    run = _Run(run_dir)
    if repo_id is not None:
        check_metadata(run.recipe, run.folder, license, datasets, language, run.local_names)
    shown = select_examples(run_dir, datasets, examples)
    run.data = _PRIVATE_DATA if PRIVATE in (datasets or ()) else run.metrics["data"]
    named = [name for name in datasets or () if name != PRIVATE]
    datasets = list(dict.fromkeys([*_list_datasets(run.recipe, run.local_names)[0], *named]))
    metadata = _make_metadata(run, repo_id, license, language, datasets, bases, evaluation)
    if base_models and not bases:
        metadata.base_model = list(base_models)
        metadata.base_model_relation = "merge" if len(base_models) > 1 else "finetune"
    location = repo_id or "path/to/model"
    sections = [
        f"# {metadata.model_name}",
        _INTRODUCTION.format(fusion=run.fusion, role=_FUSION_ROLES[run.fusion]),
        "## Use",
        _write_adapter_use(run, location, bases) if bases else _write_pipeline_use(run, location, shown),
        "## Examples",
        *(map(_write_example, shown) if shown else [_NO_EXAMPLES]),
        "## Evaluation",
        _write_evaluation(run, evaluation),
        "## Training",
        _write_training(run),
        "## Limitations",
        write_limitations(run),
        "## Citation",
        _CITATION % run.versions.get("crosstask"),
    ]
    card = f"---\n{metadata.to_yaml()}\n---\n\n" + "\n\n".join(filter(None, sections)) + "\n"
    ModelCard(card)  # raises an error if the Hub could not read the metadata
    return card


def select_examples(
    run_dir: str | os.PathLike, datasets: Sequence[str] | None = None, ids: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """
    Return the test rows that a card shows, with the model's summaries.

    Args:
        run_dir (`str` or `os.PathLike`): The run's folder.
        datasets (`list[str]`, *optional*): Hub ids under which the author says that the data are published,
            or "private".
        ids (`list[str]`, *optional*): The ids of the rows that the author wants to show.

    Returns:
        `list[dict]` with `passage`, `question`, `summary` and `answerability`. Without `ids` these are the
        first test rows if their data are public: on the Hub, or a corpus that is read by its name.

    Raises:
        ConfigError: If the test split has no row with one of the ids.
    """
    run = _Run(run_dir)
    if not ids:
        unpublished = _list_datasets({"fuse": run.recipe["fuse"]}, run.local_names)[1]
        is_public = not unpublished or (datasets and PRIVATE not in datasets)
        return run.metrics["examples"] if is_public else []
    rows = {row["id"]: row for row in read_test_rows(run_dir)}
    if unknown := [row_id for row_id in ids if row_id not in rows]:
        raise ConfigError(
            f"--example: {run.folder} has no test row with the id {unknown[0]!r}"
            f"{suggest(unknown[0], rows) or ', expected one of rows.parquet'}"
        )
    names = {"passage": "passage", "question": "question", "summary": "summary"}
    names["answerability"] = "summary_probability"
    return [{name: rows[row_id][column] for name, column in names.items()} for row_id in ids]


def read_test_rows(run_dir: str | os.PathLike) -> list[dict[str, Any]]:
    """Return the rows of the final evaluation of a run, with what the trained model wrote for them."""
    path = Path(run_dir) / "rows.parquet"
    if not path.exists():
        return []
    return pq.read_table(path, filters=[("system", "==", "cross-task")]).to_pylist()


def list_card_images(run_dir: str | os.PathLike) -> dict[str, Path]:
    """Return the local files of the images in a card, by their names beside `README.md`."""
    run_dir = Path(run_dir)
    fusion = _read_json(run_dir / "crosstask" / "config.json")["fusion"]
    diagram = Path(__file__).parents[1] / "docs" / _DIAGRAMS[fusion]
    return {_LEARNING_CURVE: run_dir / _LEARNING_CURVE, DIAGRAM: diagram}


def write_card(run_dir: str | os.PathLike) -> None:
    """Write the card of a finished run's model, with its images, into the model's folder."""
    folder = Path(run_dir) / "crosstask"
    for name, image in list_card_images(run_dir).items():
        shutil.copyfile(image, folder / name)
    write_text(folder / "README.md", make_model_card(run_dir))


def make_eval_results_file(
    run_dir: str | os.PathLike, dataset: str, revision: str | None = None
) -> tuple[str, str]:
    """Return path and text of the file from which the Hub shows a model's results on a published data set."""
    metrics = _Run(run_dir).metrics
    text = dump_eval_results(metrics["results"], dataset, level=metrics["level"], revision=revision)
    return f".eval_results/{dataset.replace('/', '--')}.yaml", text


class _Run:
    """The contents of a finished run's folder."""

    def __init__(self, folder):
        folder = Path(folder)
        self.folder = folder
        self.name = folder.resolve().name
        self.recipe = read_run_recipe(folder)
        self.metrics = _read_json(folder / "metrics.json")
        self.data = self.metrics["data"]
        self.local_names = read_local_names(folder)
        history = folder / "history.json"
        self.history = _read_json(history) if history.exists() else {}
        self.versions = self.history.get("fuse", {}).get("environment", {}).get("versions", {})
        self.config = _read_json(folder / "crosstask" / "config.json")
        self.fusion = self.config["fusion"]

    def get_base_models(self):
        """Return the Hub ids of the models that this one was trained from, and the kind of the relation."""
        names = [self.recipe[""].get(key) for key in ("model", "summarizer", "question_answerer")]
        names = [name for name in names if name and is_hub_id(name) and name not in self.local_names]
        names = list(dict.fromkeys(names))
        return names, "merge" if len(names) > 1 else "finetune"

    def get_adapter_type(self):
        """Return peft's name of the adapter's type, e.g. LORA or IA3."""
        return _read_json(self.folder / "adapter" / "adapter_config.json")["peft_type"]

    def get_data_name(self, name):
        """Return the display name of data, which does not name private data."""
        is_local = bool(_list_datasets({"stage": {"data": name}}, self.local_names)[1])
        return _PRIVATE_DATA if is_local and self.data == _PRIVATE_DATA else self.get_display_name(name)

    def get_display_name(self, name):
        """Return a model's or data set's Hub id, or the last part of a local path; several are joined."""
        if isinstance(name, list):
            return ", ".join(map(self.get_display_name, name))
        return Path(name).name if name in self.local_names else get_public_name(name)


def _read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


def _list_stages(recipe):
    return {name: values for name, values in recipe.items() if name}


def _list_datasets(recipe, local_names):
    """Return the Hub ids of the data of all stages, and the names of the data that are not on the Hub."""
    corpora = {corpus.name: corpus.hub_id for corpus in CORPORA}
    published, unpublished = [], []
    for values in _list_stages(recipe).values():
        for data in values["data"] if isinstance(values["data"], list) else [values["data"]]:
            if corpora.get(data):
                published.append(corpora[data])
            elif is_hub_id(data) and "/" in data and data not in local_names:
                published.append(data)
            elif data not in corpora:
                unpublished.append(Path(data).name if data in local_names else get_public_name(data))
    return list(dict.fromkeys(published)), list(dict.fromkeys(unpublished))


def _make_metadata(run, repo_id, license, language, datasets, bases, evaluation):
    base_models, relation = (bases, "adapter") if bases else run.get_base_models()
    tags = ["crosstask", "question-prompted-summarization"]
    return ModelCardData(
        model_name=repo_id.split("/")[1] if repo_id else run.name,
        license=license,
        language=language,
        library_name="peft" if bases else "transformers",
        pipeline_tag="summarization",
        tags=[*tags, run.get_adapter_type().lower()] if bases else tags,
        base_model=base_models or None,
        datasets=datasets or None,
        metrics=["rouge"],
        eval_results=make_eval_results(
            run.metrics["results"],
            evaluation or (datasets[0] if datasets else run.data),
            level=run.metrics["level"],
            dataset_name=run.data,
            split=run.metrics["split"],
        ),
        **({"base_model_relation": relation} if base_models else {}),
    )


def _write_pipeline_use(run, location, examples):
    example = examples[0] if examples else {"question": "Who opened the bridge?", "passage": "..."}
    passage = pprint.pformat(example["passage"], width=100)  # a long text becomes literals in parentheses
    return _PIPELINE_USE.format(
        model=location,
        passage=passage if passage.startswith("(") else f"({passage})",
        question=example["question"],
        output="\n".join(f"# {line}" for line in example.get("summary", "").splitlines()),
        untrained="" if run.config.get("answerability_trained", True) else "; here `None`, see Limitations",
    )


def _write_adapter_use(run, location, bases):
    # An adapter's repository has no processor, so the code creates it with the settings of the training.
    settings = _read_json(run.folder / "crosstask" / "processor_config.json")
    names = ["prompt", "max_source_length"]
    names += ["max_segments", "stride"] if settings.get("max_segments", 1) > 1 else []
    settings = ", ".join(f"{name}={settings[name]!r}" for name in names)
    if len(bases) == 1:
        imports = ""
        base = f"from_pretrained({bases[0]!r})"
        processor = f"CrossTaskProcessor.from_pretrained({bases[0]!r}, {settings})"
    else:
        imports = "\nfrom transformers import AutoTokenizer"
        # The outputs do not depend on the dropout, and stages with `share_base` are not joined to an adapter.
        names = [name for name in SHAPE_KEYS if name not in ("fusion_dropout", "share_base")]
        fusion = ", ".join(f"{name}={run.config[name]!r}" for name in names if name in run.config)
        base = f"from_tasks({bases[0]!r}, {bases[1]!r}, {fusion})"
        two_tokenizers = (run.folder / "crosstask" / QUESTION_TOKENIZER).exists()
        sources = bases if two_tokenizers else bases[:1]
        tokenizers = ", ".join(f"AutoTokenizer.from_pretrained({name!r})" for name in sources)
        processor = f"CrossTaskProcessor({tokenizers}, {settings})"
    return _ADAPTER_USE.format(imports=imports, base=base, adapter=location, processor=processor)


def _write_example(example):
    summary, probability = example["summary"], example["answerability"]
    if probability is not None:
        summary += f" (answerability {probability:.3f})"
    texts = {"Passage": example["passage"], "Question": example["question"], "Summary": summary}
    return "\n>\n".join(f"> **{name}.** {_escape_markdown(text)}" for name, text in texts.items())


def _write_evaluation(run, evaluation):
    metrics = run.metrics
    link = f"[{evaluation}](https://huggingface.co/datasets/{evaluation})"
    return _EVALUATION.format(
        rows=metrics["rows"],
        passages=metrics["passages"],
        split=metrics["split"],
        data=link if evaluation else run.data,
        table=metrics["table"],
    )


def _write_training(run):
    lines = [f"![Architecture]({DIAGRAM})\n"]
    lines += ["| stage | trained model | data | steps | time | settings |", "|---|---|---|---|---|---|"]
    stages_by_environment = {}
    for stage, entry in run.history.items():
        values = run.recipe.get(stage, {})
        steps = entry["log"][-1].get("step", "-") if entry["log"] else "-"
        settings = ", ".join(f"{key} {values[key]}" for key in _SHOWN_SETTINGS if values.get(key) is not None)
        data = run.get_data_name(values.get("data", "-"))
        cells = [stage, _TRAINED_MODELS[stage], data, str(steps), f"{entry['seconds']:.0f} s", settings]
        lines.append(f"| {' | '.join(cells)} |")
        if environment := entry.get("environment"):
            stages_by_environment.setdefault(json.dumps(environment), []).append(stage)
    for environment, stages in stages_by_environment.items():
        environment = json.loads(environment)
        versions = ", ".join(f"{name} {value}" for name, value in environment["versions"].items() if value)
        commit = f", code at commit `{environment['commit']}`" if environment["commit"] else ""
        lines.append(f"\n{', '.join(stages)}: {environment['hardware']}; {versions}{commit}.")
    recipe = yaml.safe_dump(_make_public_recipe(run), sort_keys=False, allow_unicode=True)
    lines.append(f"\nThe recipe:\n\n```yaml\n{recipe}```\n\n![Learning curves]({_LEARNING_CURVE})")
    return "\n".join(lines)


def _make_public_recipe(run):
    """Return the recipe without local folders; stages have only the values that differ from the top level."""

    def clean(values):
        # The columns of private data say what is in it.
        hidden = {"output_dir", "data_columns"} if run.data == _PRIVATE_DATA else {"output_dir"}
        values = {key: value for key, value in values.items() if value is not None and key not in hidden}
        for key in values.keys() & set(SOURCE_KEYS):
            get_name = run.get_data_name if key == "data" else run.get_display_name
            values[key] = get_name(values[key])
        return strip_folders(values)

    common = clean(run.recipe[""])
    stages = {
        name: {key: value for key, value in clean(values).items() if common.get(key) != value}
        for name, values in _list_stages(run.recipe).items()
    }
    return common | {name: values for name, values in stages.items() if values}


def _escape_markdown(text):
    return re.sub(r"([\\`*_{}\[\]<>#|!])", r"\\\1", " ".join(text.split()))
