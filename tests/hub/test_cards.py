"""The model card: metadata that the Hub reads, what the run really did, and no folder of the author's."""

import json
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard, ModelCardData
from huggingface_hub.repocard_data import eval_results_to_model_index

from crosstask.hub.cards import card_files, eval_results_file, model_card
from crosstask.utils.errors import ConfigError

RESULT = {"metric": "rouge1", "value": 0.75, "low": 0.7, "high": 0.8}
METRICS = {
    "data": "briefs",
    "split": "test",
    "rows": 12,
    "passages": 4,
    "systems": {"lead-3": {"rouge1": 0.5}, "cross-task": {"rouge1": 0.75}},
    "results": [RESULT, {"metric": "auroc", "value": 0.9, "low": None, "high": None}],
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
PLACE = {"versions": {"python": "3.11", "torch": "2.0"}, "hardware": "2 CPU cores", "commit": "abc"}
HISTORY = {
    "summarize": {"seconds": 61.4, "log": [{"loss": 2.0, "step": 10}, {"step": 20}], "environment": PLACE},
    "fuse": {"seconds": 5.0, "log": [{"step": 7}], "environment": PLACE | {"hardware": "1 x GPU"}},
}


@pytest.fixture
def run(tmp_path):
    """Write a run's folder; returns it."""

    def run(metrics=METRICS, name="my run", **values):
        folder = tmp_path / name
        (folder / "crosstask").mkdir(parents=True, exist_ok=True)
        shape = {"fusion": "classifier", "max_source_length": 64, "fusion_num_heads": 4}
        shape |= {"fusion_dim": 8, "fusion_ffn_dim": 32}
        (folder / "crosstask" / "config.json").write_text(json.dumps(shape))
        reads = {"prompt": "{question} |", "max_source_length": 64}
        (folder / "crosstask" / "processor_config.json").write_text(json.dumps(reads))
        shared = {"data": "briefs", "output_dir": str(folder), "learning_rate": 0.1} | values
        stages = {name: {"data": shared["data"], "learning_rate": 0.1} for name in HISTORY}
        stages["fuse"]["learning_rate"] = 0.2
        (folder / "recipe.yaml").write_text(yaml.safe_dump({"": shared, **stages}, sort_keys=False))
        (folder / "metrics.json").write_text(json.dumps(metrics))
        (folder / "history.json").write_text(json.dumps(HISTORY))
        return folder

    return run


def test_the_metadata_is_what_the_hub_reads(run):
    folder = run(summarizer="google/flan-t5-base", question_answerer="FacebookAI/roberta-base")
    text = model_card(folder, repo_id="me/it", license="mit", language=["en"], datasets=["me/rows"])
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
def test_base_models_are_those_of_the_hub(run, values, bases, relation):
    data = ModelCard(model_card(run(**values))).data
    assert data.base_model == bases and getattr(data, "base_model_relation", None) == relation


def test_local_folders_are_not_named(run, tmp_path, monkeypatch):
    (tmp_path / "models" / "mine").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for name in (str(tmp_path / "models" / "mine"), "models/mine", "./models/mine", str(tmp_path / "gone")):
        card = model_card(
            run(summarizer=name, question_answerer=name, data=str(tmp_path / "own" / "rows.jsonl"))
        )
        assert ModelCard(card).data.base_model is None
        assert "models/mine" not in card and str(tmp_path) not in card and "rows.jsonl" in card


def test_what_is_missing_is_asked_for_in_one_sentence(run):
    with pytest.raises(ConfigError, match="still needs a licence [^;]*$") as caught:
        model_card(run(), repo_id="me/it")
    assert "\n" not in str(caught.value)
    own = run(data="/data/rows.jsonl")
    with pytest.raises(ConfigError, match="a licence .* and the Hub's name of the data set rows.jsonl"):
        model_card(own, repo_id="me/it")
    with pytest.raises(ConfigError, match="unknown licence 'apache2'"):
        model_card(own, repo_id="me/it", license="apache2", datasets=["me/rows"])
    model_card(own)  # of a run that stays here


@pytest.mark.parametrize(
    "data, known", [("rajpurkar/squad_v2", ["rajpurkar/squad_v2"]), ("squad_v2", ["rajpurkar/squad_v2"])]
)
def test_data_sets_of_the_hub_are_known(run, data, known):
    card = ModelCard(model_card(run(data=data), repo_id="me/it", license="mit"))
    assert card.data.datasets == known and f"| {data} |" in card.text


def test_the_card_tells_what_ran(run):
    text = model_card(run())
    assert METRICS["table"] in text and "On 12 rows (test) of briefs, 4 passages" in text
    assert "| summarize | summarizer | briefs | 20 | 61 s | learning_rate 0.1 |" in text
    assert "| fuse | cross-task model | briefs | 7 | 5 s | learning_rate 0.2 |" in text
    assert "fuse: 1 x GPU; python 3.11, torch 2.0, code at commit `abc`." in text
    recipe = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])
    assert recipe == {"data": "briefs", "learning_rate": 0.1, "fuse": {"learning_rate": 0.2}}
    assert "cut after 64 tokens" in text and "short generated English news" in text
    assert r"It's \*a\* \<b\>long\</b\> story \| told." in text


def test_the_pictures_are_there(run):
    folder = run()
    (folder / "learning_curve.png").write_bytes(b"")
    text = model_card(folder)
    for name, path in card_files(folder).items():
        assert f"({name})" in text and path.exists()


def test_each_fusion_has_its_picture_and_sentence(run):
    folder = run()
    pictures = {}
    for fusion in ("classifier", "gated"):
        config = folder / "crosstask" / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | {"fusion": fusion}))
        pictures[fusion] = card_files(folder)["architecture.svg"].read_text()
        assert ("not in writing it" in model_card(folder)) == (fusion == "classifier")
    assert "Gated" in pictures["gated"] and "Gated" not in pictures["classifier"]


def test_the_code_is_python(run):
    for metrics in (METRICS, METRICS | {"examples": []}):
        code = model_card(run(metrics)).split("```python\n")[1].split("```")[0]
        names = {}
        exec(code.split("\n\n")[1].split("\n", 1)[1].rsplit("\nresult", 1)[0], names)  # the passage
        assert names["passage"] == (metrics["examples"] or [{"passage": "..."}])[0]["passage"]
        compile(code, "card", "exec")


@pytest.mark.parametrize("bases", [["me/base"], ["google/t5", "google/bert"]])
def test_an_adapter_names_what_it_sits_on(run, bases):
    folder = run()
    (folder / "adapter").mkdir()
    (folder / "adapter" / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    card = ModelCard(model_card(folder, repo_id="me/it", license="mit", bases=bases))
    assert (card.data.base_model, card.data.base_model_relation) == (bases, "adapter")
    assert card.data.library_name == "peft" and "lora" in card.data.tags
    code = card.text.split("```python\n")[1].split("```")[0]
    compile(code, "card", "exec")
    assert all(repr(base) in code for base in bases)


def test_results_on_a_published_data_set(run):
    path, text = eval_results_file(run(), "me/evals")
    assert path == ".eval_results/me--evals.yaml"
    assert yaml.safe_load(text)[0]["value"] == 0.75
    card = ModelCard(model_card(run(), repo_id="me/it", license="mit", evaluation="me/evals"))
    assert card.data.eval_results[0].dataset_type == "me/evals" and "datasets/me/evals" in card.text


def test_a_run_in_the_current_folder_has_a_name(run, monkeypatch):
    folder = run(name="here")
    monkeypatch.chdir(folder)
    assert "# here\n" in model_card(Path("."))


def test_relative_folders_are_no_ids_of_the_hub_elsewhere(run):
    """A recipe keeps `data/rows` as it was written, and from another folder that looks like an id."""
    names = {"summarizer": "ckpt/summarizer", "question_answerer": "ckpt/qa", "data": "data/rows"}
    folder = run(METRICS | {"local": sorted(names.values())}, **names)
    text = model_card(folder)
    assert ModelCard(text).data.base_model is None and ModelCard(text).data.datasets is None
    assert not any(name in text for name in names.values())
    with pytest.raises(ConfigError, match="the Hub's name of the data set rows"):
        model_card(folder, repo_id="me/it", license="mit")
    assert ModelCard(model_card(run(**names))).data.base_model == ["ckpt/summarizer", "ckpt/qa"]


def test_folders_in_other_keys_are_not_told(run):
    text = model_card(run(deepspeed="/mnt/team/ds.json", logging_dir="/mnt/team/logs"))
    assert "/mnt/team" not in text and "deepspeed: ds.json" in text


@pytest.mark.parametrize("language", [["English"], ["EN"], [3]])
def test_a_language_is_a_code(run, language):
    with pytest.raises(ConfigError, match="--language: expected an ISO 639 code such as en, got"):
        model_card(run(), repo_id="me/it", license="mit", language=language)
