"""A model card has valid metadata, describes the run, and names no folder of its author."""

import ast
import json
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard, ModelCardData
from huggingface_hub.repocard_data import eval_results_to_model_index

from crosstask.configuration_crosstask import FUSIONS
from crosstask.hub.cards import list_card_images, make_eval_results_file, make_model_card
from crosstask.training.arguments import SHAPE_KEYS
from crosstask.utils.errors import ConfigError

RESULT = {"metric": "rouge1", "value": 0.75, "low": 0.7, "high": 0.8}
METRICS = {
    "data": "briefs",
    "split": "test",
    "rows": 12,
    "passages": 4,
    "systems": {"lead-3": {"rouge1": 0.5}, "cross-task": {"rouge1": 0.75}},
    "results": [RESULT, {"metric": "answerability_auroc", "value": 0.9, "low": None, "high": None}],
    "level": 0.95,
    "local": [],
    "table": "system      rouge1\ncross-task  0.750",
    "examples": [
        {
            "question": 'Who said "no"?\nAnd why: {}?',
            "passage": "It's *a* <b>long</b> story | told. " * 9,
            "answer": "x",
            "summary": "The [mayor] did.",
            "answerability": 0.5,
        }
    ],
}
ENVIRONMENT = {"versions": {"python": "3.11", "torch": "2.0"}, "hardware": "2 CPU cores", "commit": "abc"}
HISTORY = {
    "summarize": {
        "seconds": 61.4,
        "log": [{"loss": 2.0, "step": 10}, {"step": 20}],
        "environment": ENVIRONMENT,
    },
    "fuse": {"seconds": 5.0, "log": [{"step": 7}], "environment": ENVIRONMENT | {"hardware": "1 x GPU"}},
}


@pytest.fixture
def make_run(tmp_path):
    """`make_run(metrics, name, **recipe)`: write the folder of a finished run and return it."""

    def make_run(metrics=METRICS, name="my run", **values):
        folder = tmp_path / name
        (folder / "crosstask").mkdir(parents=True, exist_ok=True)
        config = {"fusion": "classifier", "max_source_length": 64, "fusion_num_heads": 4}
        config |= {"fusion_dim": 8, "fusion_ffn_dim": 32, "fusion_activation": "relu"}
        config |= {"fusion_likelihood": True}
        (folder / "crosstask" / "config.json").write_text(json.dumps(config))
        processor_config = {"prompt": "{question} |", "max_source_length": 64}
        (folder / "crosstask" / "processor_config.json").write_text(json.dumps(processor_config))
        shared = {"data": "briefs", "output_dir": str(folder), "learning_rate": 0.1} | values
        stages = {name: {"data": shared["data"], "learning_rate": 0.1} for name in HISTORY}
        stages["fuse"]["learning_rate"] = 0.2
        (folder / "recipe.yaml").write_text(yaml.safe_dump({**shared, **stages}, sort_keys=False))
        (folder / "metrics.json").write_text(json.dumps(metrics))
        (folder / "history.json").write_text(json.dumps(HISTORY))
        return folder

    return make_run


def test_the_metadata_are_valid(make_run):
    folder = make_run(summarizer="google/flan-t5-base", question_answerer="FacebookAI/roberta-base")
    text = make_model_card(folder, repo_id="me/it", license="mit", language=["en"], datasets=["me/rows"])
    card = ModelCard(text)
    assert isinstance(card.data, ModelCardData)
    assert (card.data.license, card.data.language, card.data.datasets) == ("mit", ["en"], ["me/rows"])
    assert (card.data.library_name, card.data.pipeline_tag) == ("transformers", "summarization")
    assert card.data.base_model == ["google/flan-t5-base", "FacebookAI/roberta-base"]
    assert card.data.base_model_relation == "merge"
    result = card.data.eval_results[0]
    assert (result.metric_type, result.metric_value, result.dataset_type) == ("rouge1", 0.75, "me/rows")
    assert result.metric_args == {"level": 0.95, "low": 0.7, "high": 0.8}
    assert eval_results_to_model_index("it", card.data.eval_results)[0]["name"] == "it"


@pytest.mark.parametrize(
    "values, bases, relation",
    [
        ({"summarizer": "google/t5", "question_answerer": "google/t5"}, ["google/t5"], "finetune"),
        ({"model": "me/whole"}, ["me/whole"], "finetune"),
        ({"summarizer_config": {"model_type": "t5"}}, None, None),
    ],
)
def test_only_models_on_the_hub_are_base_models(make_run, values, bases, relation):
    data = ModelCard(make_model_card(make_run(**values))).data
    assert data.base_model == bases and getattr(data, "base_model_relation", None) == relation


def test_local_folders_are_not_named(make_run, tmp_path, monkeypatch):
    (tmp_path / "models" / "mine").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for name in (str(tmp_path / "models" / "mine"), "models/mine", "./models/mine", str(tmp_path / "gone")):
        card = make_model_card(
            make_run(summarizer=name, question_answerer=name, data=str(tmp_path / "own" / "rows.jsonl"))
        )
        assert ModelCard(card).data.base_model is None
        assert "models/mine" not in card and str(tmp_path) not in card and "rows.jsonl" in card


def test_missing_metadata_are_named_in_one_sentence(make_run):
    with pytest.raises(ConfigError, match="still needs a license [^;]*$") as caught:
        make_model_card(make_run(), repo_id="me/it")
    assert "\n" not in str(caught.value)
    local = make_run(data="/data/rows.jsonl")
    with pytest.raises(ConfigError, match="a license .* and the Hub id of the data set rows.jsonl"):
        make_model_card(local, repo_id="me/it")
    with pytest.raises(ConfigError, match="unknown license 'apache2'"):
        make_model_card(local, repo_id="me/it", license="apache2", datasets=["me/rows"])
    make_model_card(local)  # a card that is not published needs no metadata


@pytest.mark.parametrize(
    "data, expected", [("rajpurkar/squad_v2", ["rajpurkar/squad_v2"]), ("squad_v2", ["rajpurkar/squad_v2"])]
)
def test_data_sets_on_the_hub_are_recognized(make_run, data, expected):
    card = ModelCard(make_model_card(make_run(data=data), repo_id="me/it", license="mit"))
    assert card.data.datasets == expected and f"| {data} |" in card.text


def test_the_card_describes_the_run(make_run):
    text = make_model_card(make_run())
    assert (
        METRICS["table"] in text and "on 12 rows (split `test`) of briefs, with 4 different passages" in text
    )
    assert "| summarize | summarizer | briefs | 20 | 61 s | learning_rate 0.1 |" in text
    assert "| fuse | cross-task model | briefs | 7 | 5 s | learning_rate 0.2 |" in text
    assert "fuse: 1 x GPU; python 3.11, torch 2.0, code at commit `abc`." in text
    recipe = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])
    assert recipe == {"data": "briefs", "learning_rate": 0.1, "fuse": {"learning_rate": 0.2}}
    assert "It reads at most 64 tokens of a passage" in text and "short generated English news" in text
    assert r"It's \*a\* \<b\>long\</b\> story \| told." in text


def test_the_images_exist(make_run):
    folder = make_run()
    (folder / "learning_curve.png").write_bytes(b"")
    text = make_model_card(folder)
    for name, path in list_card_images(folder).items():
        assert f"({name})" in text and path.exists()


def test_each_fusion_has_its_diagram_and_sentence(make_run):
    folder = make_run()
    diagrams = {}
    for fusion in FUSIONS:
        config = folder / "crosstask" / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | {"fusion": fusion}))
        diagrams[fusion] = list_card_images(folder)["architecture.svg"].read_text()
        assert ("not to write it" in make_model_card(folder)) == (fusion == "classifier")
    assert "Gated" in diagrams["gated"] and "Gated" not in diagrams["classifier"]


def test_the_code_is_valid_python(make_run):
    for metrics in (METRICS, METRICS | {"examples": []}):
        code = make_model_card(make_run(metrics)).split("```python\n")[1].split("```")[0]
        names = {}
        exec(code.split("\n\n")[1].split("\n", 1)[1].rsplit("\nresult", 1)[0], names)  # the passage
        assert names["passage"] == (metrics["examples"] or [{"passage": "..."}])[0]["passage"]
        compile(code, "card", "exec")


@pytest.mark.parametrize("bases", [["me/base"], ["google/t5", "google/bert"]])
def test_an_adapter_card_names_its_base_models(make_run, bases):
    folder = make_run()
    (folder / "adapter").mkdir()
    (folder / "adapter" / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    card = ModelCard(make_model_card(folder, repo_id="me/it", license="mit", bases=bases))
    assert (card.data.base_model, card.data.base_model_relation) == (bases, "adapter")
    assert card.data.library_name == "peft" and "lora" in card.data.tags
    code = card.text.split("```python\n")[1].split("```")[0]
    compile(code, "card", "exec")
    assert all(repr(base) in code for base in bases)
    if len(bases) == 2:
        call = next(
            node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call) and node.keywords
        )
        settings = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
        config = json.loads((folder / "crosstask" / "config.json").read_text())
        assert settings == {name: config[name] for name in set(SHAPE_KEYS) - {"fusion_dropout", "share_base"}}


def test_results_on_a_published_data_set(make_run):
    path, text = make_eval_results_file(make_run(), "me/evals")
    assert path == ".eval_results/me--evals.yaml"
    assert yaml.safe_load(text)[0]["value"] == 0.75
    card = ModelCard(make_model_card(make_run(), repo_id="me/it", license="mit", evaluation="me/evals"))
    assert card.data.eval_results[0].dataset_type == "me/evals" and "datasets/me/evals" in card.text


def test_a_run_in_the_current_folder_has_a_name(make_run, monkeypatch):
    folder = make_run(name="here")
    monkeypatch.chdir(folder)
    assert "# here\n" in make_model_card(Path("."))


def test_relative_folders_are_not_mistaken_for_hub_ids(make_run):
    """A recipe may contain `data/rows`, which looks like a Hub id from another folder."""
    names = {"summarizer": "ckpt/summarizer", "question_answerer": "ckpt/qa", "data": "data/rows"}
    folder = make_run(METRICS | {"local": sorted(names.values())}, **names)
    text = make_model_card(folder)
    assert ModelCard(text).data.base_model is None and ModelCard(text).data.datasets is None
    assert not any(name in text for name in names.values())
    with pytest.raises(ConfigError, match="the Hub id of the data set rows"):
        make_model_card(folder, repo_id="me/it", license="mit")
    assert ModelCard(make_model_card(make_run(**names))).data.base_model == ["ckpt/summarizer", "ckpt/qa"]


def test_folders_in_other_keys_are_not_published(make_run):
    text = make_model_card(make_run(deepspeed="/mnt/team/ds.json", logging_dir="/mnt/team/logs"))
    assert "/mnt/team" not in text and "deepspeed: ds.json" in text


@pytest.mark.parametrize("language", [["English"], ["EN"], [3]])
def test_a_language_is_a_code(make_run, language):
    with pytest.raises(ConfigError, match="--language: expected an ISO 639 code such as en, got"):
        make_model_card(make_run(), repo_id="me/it", license="mit", language=language)


def test_the_columns_of_private_data_are_not_named(make_run):
    columns = {"passage": "kundentext"}
    folder = make_run(metrics=METRICS | {"local": ["rows.csv"]}, data="rows.csv", data_columns=columns)
    assert "kundentext" in make_model_card(folder, datasets=["me/rows"])
    assert "kundentext" not in make_model_card(folder, datasets=["private"])


def test_the_card_counts_what_was_cut(make_run):
    folder = make_run()
    assert "were cut" not in make_model_card(folder)
    history = json.loads((folder / "history.json").read_text())
    lengths = {"train": {"rows": 1200, "truncated_inputs": 30}, "test": {"rows": 60, "truncated_inputs": 0}}
    history["fuse"]["lengths"] = lengths
    (folder / "history.json").write_text(json.dumps(history))
    assert "fit best to the question. 30 of 1,200 train rows were cut." in make_model_card(folder)
