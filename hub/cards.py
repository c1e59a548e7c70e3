"""The cards of models and adapters, written from what a training run really did."""

import json
import pprint
import re
import shutil
from pathlib import Path

import yaml
from huggingface_hub import ModelCard, ModelCardData

from crosstask.data.readers.corpora import SOURCES
from crosstask.eval.report.results import eval_results, eval_results_yaml, without_folders
from crosstask.processing_crosstask import QUESTION_TOKENIZER
from crosstask.training.record import NAME_KEYS
from crosstask.utils.errors import ConfigError
from crosstask.utils.files import write_text
from crosstask.utils.hub_names import check_license, get_public_name, is_hub_id

PICTURE = "architecture.svg"
_PICTURES = {"classifier": PICTURE, "gated": "architecture_gated.svg"}
STAGES = {"summarize": "summarizer", "answer": "question_answerer", "fuse": "cross-task model"}
# What of a stage's settings a reader asks for first; the others stand in the recipe.
SETTINGS = ("learning_rate", "lr_scheduler_type", "optim", "per_device_train_batch_size")
SETTINGS += ("contrastive_weight", "lora_r", "peft", "trainable", "seed")
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]+)*|code|multilingual")
_CITATION = """```bibtex
@software{crosstask,
  title = {crosstask: question-prompted summarization by fusing two task models},
  version = {%s},
}
```"""


def local_names(run_dir):
    """
    Of the names of models and data in a finished run's recipe, those that were folders or files when it was
    trained: seen from another folder, `data/rows` looks like an id of the Hub.
    """
    return set(_json(Path(run_dir) / "metrics.json")["local"])


def check_facts(values, where, licence, datasets, language=None, local=frozenset()):
    """
    Refuse a card that would lack what only its author knows.

    Args:
        values (`dict`): The recipe, by stage, as in `recipe.yaml`.
        where (`str` or `os.PathLike`): The run's folder, for the sentence.
        licence (`str` or `None`): The Hub's name of the licence.
        datasets (`list[str]` or `None`): Hub ids of data sets.
        language (`list[str]`, *optional*): Codes of languages.
        local (`set[str]`): Names in the recipe that were folders or files when it ran.

    Raises:
        ConfigError: in one sentence that names all that is missing.
    """
    for code in language or ():
        if not _LANGUAGE.fullmatch(str(code)):
            raise ConfigError(f"--language: expected an ISO 639 code such as en, got {code!r}")
    lacking = []
    if licence is None:
        lacking.append("a licence (--license apache-2.0, in a recipe license: apache-2.0)")
    else:
        check_license(licence)
    _, unnamed = _datasets(values, local)
    if unnamed and not datasets:
        lacking.append(
            f"the Hub's name of the data set {', '.join(unnamed)} "
            "(--dataset user/name, in a recipe datasets: [user/name])"
        )
    if lacking:
        raise ConfigError(f"{where}: the card still needs {' and '.join(lacking)}")


def model_card(
    run_dir, *, repo_id=None, license=None, language=None, datasets=None, bases=None, evaluation=None
):
    """
    The card of a finished training run's model, or of its adapter.

    Args:
        run_dir (`str` or `os.PathLike`): The run's folder.
        repo_id (`str`, *optional*): Where it is published. Then the card needs a licence, and a data set
            wherever the run's own rows have no name on the Hub.
        license (`str`, *optional*): The Hub's name of the licence.
        language (`list[str]`, *optional*): ISO 639 codes of the texts.
        datasets (`list[str]`, *optional*): Hub ids of data sets, beside those that the recipe names.
        bases (`list[str]`, *optional*): Of an adapter: the checkpoints that it sits on.
        evaluation (`str`, *optional*): Hub id of the published rows of the evaluation.

    Returns:
        `str`: the text of `README.md`.

    Raises:
        ConfigError: in one sentence, where the card lacks something.
    """
    run = _Run(run_dir)
    if repo_id is not None:
        check_facts(run.values, run.folder, license, datasets, language, run.local)
    named = list(dict.fromkeys([*_datasets(run.values, run.local)[0], *(datasets or ())]))
    sits_on, relation = (bases, "adapter") if bases else run.bases()
    data = ModelCardData(
        model_name=repo_id.split("/")[1] if repo_id else run.name,
        license=license,
        language=language,
        library_name="peft" if bases else "transformers",
        pipeline_tag="summarization",
        tags=[
            "crosstask",
            "question-prompted-summarization",
            *([run.adapter_kind().lower()] if bases else []),
        ],
        base_model=sits_on or None,
        datasets=named or None,
        metrics=["rouge"],
        eval_results=eval_results(
            run.metrics["results"],
            evaluation or (named[0] if named else run.metrics["data"]),
            level=run.metrics["level"],
            dataset_name=run.metrics["data"],
            split=run.metrics["split"],
        ),
        **({"base_model_relation": relation} if sits_on else {}),
    )
    where = repo_id or str(Path("path") / "to" / "it")
    parts = [
        f"# {data.model_name}",
        _PURPOSE.format(fusion=run.fusion, does=_DOES[run.fusion]),
        "## Use",
        _adapter_code(run, where, bases) if bases else _code(run, where),
        "## Examples",
        *map(_example, run.metrics["examples"]),
        "## Evaluation",
        _evaluation(run, evaluation),
        "## How it is made",
        f"![Architecture]({PICTURE})",
        _training(run),
        "## Risks and limits",
        _limits(run),
        "## Citation",
        _CITATION % run.versions.get("crosstask"),
    ]
    card = f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(part for part in parts if part) + "\n"
    ModelCard(card)  # fails on metadata that the Hub would not read
    return card


def card_files(run_dir):
    """The pictures that a card refers to: `{name beside README.md: Path}`."""
    run_dir = Path(run_dir)
    fusion = _json(run_dir / "crosstask" / "config.json")["fusion"]
    picture = Path(__file__).parents[1] / "docs" / _PICTURES[fusion]
    return {"learning_curve.png": run_dir / "learning_curve.png", PICTURE: picture}


def write_card(run_dir):
    """Write the card of a finished run's model, and its pictures, beside the weights."""
    folder = Path(run_dir) / "crosstask"
    for name, picture in card_files(run_dir).items():
        shutil.copyfile(picture, folder / name)
    write_text(folder / "README.md", model_card(run_dir))


def eval_results_file(run_dir, dataset, revision=None):
    """Path and text of the file by which the Hub shows a model's results on a published data set."""
    run = _Run(run_dir)
    text = eval_results_yaml(run.metrics["results"], dataset, level=run.metrics["level"], revision=revision)
    return f".eval_results/{dataset.replace('/', '--')}.yaml", text


class _Run:
    """What the files of a run's folder say."""

    def __init__(self, folder):
        folder = Path(folder)
        self.folder = folder
        self.name = folder.resolve().name
        self.values = yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8"))
        self.metrics = _json(folder / "metrics.json")
        self.local = local_names(folder)
        history = folder / "history.json"
        self.history = _json(history) if history.exists() else {}
        config = _json(folder / "crosstask" / "config.json")
        self.fusion, self.max_source_length = config["fusion"], config["max_source_length"]
        last = self.history.get("fuse", {}).get("environment", {})
        self.versions = last.get("versions", {})

    def adapter_kind(self):
        """LORA, IA3 or what else peft calls the adapter of the run's last stage."""
        return _json(self.folder / "adapter" / "adapter_config.json")["peft_type"]

    def bases(self):
        """Checkpoints of the Hub that the model came from, and how."""
        top = self.values[""]
        names = [top.get(key) for key in NAME_KEYS[:3]]
        names = list(
            dict.fromkeys(name for name in names if name and is_hub_id(name) and name not in self.local)
        )
        # Two models made one are what the Hub calls a merge.
        return names, "merge" if len(names) > 1 else "finetune"


def _json(path):
    return json.loads(path.read_text(encoding="utf-8"))


def _datasets(values, local):
    """Hub ids of the rows that the stages read, and the names of those that have none."""
    known, unnamed = [], []
    for table in _stages(values).values():
        data = table["data"]
        if data in SOURCES and SOURCES[data].hub_id:
            known.append(SOURCES[data].hub_id)
        elif is_hub_id(data) and "/" in data and data not in local:
            known.append(data)
        elif data not in SOURCES and data != "briefs":
            unnamed.append(Path(data).name if data in local else get_public_name(data))
    return list(dict.fromkeys(known)), list(dict.fromkeys(unnamed))


def _stages(values):
    return {name: table for name, table in values.items() if name}


_DOES = {
    "classifier": "the question encoder takes part in judging the summary, not in writing it",
    "gated": "the question encoder takes part in writing the summary, and in judging it",
}
_PURPOSE = """A question-prompted summarizer: given a passage and a question, it writes a summary that is to
carry the answer, and says how probable it is that it does. It joins a summarizer and a question encoder by
cross-attention (`fusion="{fusion}"`: {does}) and was trained with `crosstask`.

It is for texts like those that it was trained on (below). It is not for advice that somebody acts on unread,
and its probability is no proof: see the risks."""


def _code(run, where):
    example = run.metrics["examples"][0] if run.metrics["examples"] else None
    question, passage = (example or {"question": "Who opened the bridge?"})["question"], "..."
    if example:
        passage = example["passage"]
    passage = pprint.pformat(passage, width=100)  # a long text becomes several literals in parentheses
    passage = passage if passage.startswith("(") else f"({passage})"
    shown = f"\n# {example['summary']}" if example else ""
    shown = "\n# ".join(shown.strip("\n").splitlines())
    return f"""```python
from transformers import pipeline

summarize = pipeline("question-summarization", model={where!r}, trust_remote_code=True)
passage = {passage}
result = summarize(question={question!r}, passage=passage)
print(result["summary"])
{shown}
```

`result["answerability"]` is the probability that the summary carries the answer. A list of questions on one
passage is one batch. `AutoModelForSeq2SeqLM` and `AutoProcessor` load the parts, likewise with
`trust_remote_code=True`: the code is in this repository. Where `crosstask` is installed, `import crosstask`
makes that needless."""


def _adapter_code(run, where, bases):
    # An adapter brings no processor: what it was trained to read is said here.
    saved = _json(run.folder / "crosstask" / "processor_config.json")
    reads = ", ".join(f"{name}={saved[name]!r}" for name in ("prompt", "max_source_length"))
    if len(bases) == 1:
        base = f"from_pretrained({bases[0]!r})"
        tokenizers, processor = "", f"CrossTaskProcessor.from_pretrained({bases[0]!r}, {reads})"
    else:
        config = _json(run.folder / "crosstask" / "config.json")
        names = ("fusion", "fusion_num_heads", "fusion_dim", "fusion_ffn_dim")
        shape = ", ".join(f"{name}={config[name]!r}" for name in names)
        base = f"from_tasks({bases[0]!r}, {bases[1]!r}, {shape})"
        own = (run.folder / "crosstask" / QUESTION_TOKENIZER).exists()  # or one for both parts
        read = [f"AutoTokenizer.from_pretrained({name!r})" for name in bases[: 1 + own]]
        tokenizers = "\nfrom transformers import AutoTokenizer"
        processor = f"CrossTaskProcessor({', '.join(read)}, {reads})"
    return f"""```python
from crosstask import CrossTaskForConditionalGeneration, CrossTaskProcessor
from peft import PeftModel{tokenizers}

base = CrossTaskForConditionalGeneration.{base}
model = PeftModel.from_pretrained(base, {where!r})
processor = {processor}
```

These are the weights of the adapter and of the fusion alone: they need the model above under them."""


def _example(example):
    summary = f"{example['summary']} (answerability {example['answerability']:.3f})"
    lines = {"Passage": example["passage"], "Question": example["question"], "Summary": summary}
    return "\n>\n".join(f"> **{name}.** {_plain(text)}" for name, text in lines.items())


def _evaluation(run, evaluation):
    rows, passages = run.metrics["rows"], run.metrics["passages"]
    on = (
        f"[{evaluation}](https://huggingface.co/datasets/{evaluation})" if evaluation else run.metrics["data"]
    )
    return f"""On {rows:,} rows ({run.metrics["split"]}) of {on}, {passages:,} passages:

```text
{run.metrics["table"]}
```

ROUGE is over the rows whose reference carries the answer, answer recall (the share of the answer's words that
the summary has) over the rows with an answer."""


def _training(run):
    lines = ["| stage | trains | rows from | steps | time | settings |", "|---|---|---|---|---|---|"]
    for name, entry in run.history.items():
        table = run.values.get(name, {})
        steps = entry["log"][-1].get("step", "-") if entry["log"] else "-"
        settings = ", ".join(f"{key} {table[key]}" for key in SETTINGS if table.get(key) is not None)
        source = _called(run, table.get("data", "-"))
        lines.append(
            f"| {name} | {STAGES[name]} | {source} | {steps} | {entry['seconds']:.0f} s | {settings} |"
        )
    places = {}
    for name, entry in run.history.items():
        if told := entry.get("environment"):
            places.setdefault(json.dumps(told), []).append(name)
    for told, names in places.items():
        told = json.loads(told)
        versions = ", ".join(f"{name} {number}" for name, number in told["versions"].items() if number)
        commit = f", code at commit `{told['commit']}`" if told["commit"] else ""
        lines.append(f"\n{', '.join(names)}: {told['hardware']}; {versions}{commit}.")
    recipe = yaml.safe_dump(_recipe(run), sort_keys=False, allow_unicode=True)
    lines.append(f"\nThe recipe:\n\n```yaml\n{recipe}```\n\n![Learning curves](learning_curve.png)")
    return "\n".join(lines)


def _called(run, name):
    return Path(name).name if name in run.local else get_public_name(name)


def _recipe(run):
    """What was said, each value once: a stage's own where they differ from all stages'."""

    def told(table):
        table = {key: value for key, value in table.items() if value is not None and key != "output_dir"}
        table = {key: _called(run, v) if key in NAME_KEYS else v for key, v in table.items()}
        return without_folders(table)

    shared = told(run.values[""])
    own = {
        name: {key: value for key, value in told(table).items() if shared.get(key) != value}
        for name, table in _stages(run.values).items()
    }
    return shared | {name: table for name, table in own.items() if table}


def _limits(run):
    recall = {result["metric"]: result["value"] for result in run.metrics["results"]}.get("answer_recall")
    missed = "" if recall is None else f" Here {1 - recall:.1%} of the answers' words were missing."
    toy = any(table["data"] == "briefs" for table in _stages(run.values).values())
    lines = [
        f"- A summary may lack the answer, or state what the passage does not.{missed}",
        "- The probability means what its training labels meant, on texts like those; elsewhere it was not "
        "measured.",
        f"- An input is cut after {run.max_source_length} tokens: the rest of a passage is not read.",
        "- What the models it was made of have learnt of the world, right or wrong, is in it too.",
    ]
    if toy:
        lines.insert(
            0, "- It was trained on briefs, short generated English news: it is no model for real texts."
        )
    return "\n".join(lines)


def _plain(text):
    """A text that Markdown shows as it is."""
    return re.sub(r"([\\`*_{}\[\]<>#|!])", r"\\\1", " ".join(text.split()))
