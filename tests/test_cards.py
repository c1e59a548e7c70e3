"""The model card: metadata that the Hub reads, the numbers of the run, and no folder of the author's."""

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from huggingface_hub import ModelCard, ModelCardData

from crosstask.eval.scores import table
from crosstask.hub import write_model_card

METRICS = {
    "rows": 12,
    "passages": 4,
    "systems": {
        "lead-3": {"rouge1": 0.5, "answer recall": 0.25},
        "cross-task": {"rouge1": 0.75, "answer recall": None, "answerability auroc": 0.625},
    },
    "examples": [{"question": 'Who said "no"?\nAnd why: {}?', "passage": "..."}],
}
HISTORY = {
    "summarize": {"seconds": 61.4, "log": [{"loss": 2.0, "step": 10}, {"train_runtime": 60.0, "step": 20}]},
    "fuse": {"seconds": 5.0, "log": [{"train_runtime": 60.0, "step": 7}]},
}


def recipe_of(folder, summarizer=None, question_answerer=None, data="briefs"):
    stage = SimpleNamespace(stage=SimpleNamespace(data=data))
    run = SimpleNamespace(summarizer=summarizer, question_answerer=question_answerer, fusion="classifier")
    return SimpleNamespace(run=run, stages={"summarize": stage, "fuse": stage}, output_dir=folder)


@pytest.fixture
def card_of(tmp_path):
    def card_of(metrics=METRICS, **values):
        folder = tmp_path / "my run" / "crosstask"
        folder.mkdir(parents=True, exist_ok=True)
        write_model_card(folder, recipe_of(tmp_path / "my run", **values), metrics, HISTORY)
        assert [path.name for path in folder.iterdir()] == ["README.md"]
        return ModelCard.load(folder / "README.md")

    return card_of


def test_the_metadata_is_what_the_hub_reads(card_of):
    card = card_of(summarizer="google/flan-t5-base", question_answerer="FacebookAI/roberta-base")
    assert isinstance(card.data, ModelCardData)
    assert card.data.library_name == "transformers"
    assert "summarization" in card.data.tags and "crosstask" in card.data.tags
    assert card.data.base_model == ["google/flan-t5-base", "FacebookAI/roberta-base"]
    metadata = yaml.safe_load(card.content.split("---")[1])
    assert metadata == card.data.to_dict()


def test_one_base_model_is_named_once_and_none_not_at_all(card_of):
    both = card_of(summarizer="google/flan-t5-base", question_answerer="google/flan-t5-base")
    assert both.data.base_model == ["google/flan-t5-base"]
    assert "base_model" not in card_of().data.to_dict()


def test_the_card_has_the_table_the_training_and_the_use(card_of):
    text = card_of().text
    assert table(METRICS["systems"], markdown=True) in text
    assert "| summarize | briefs | 61 s | 20 |" in text and "| fuse | briefs | 5 s | 7 |" in text
    assert "12 test rows on 4 passages" in text
    assert "# my run" in text and "(learning_curve.png)" in text


def test_the_example_is_python(card_of):
    for metrics in (METRICS, METRICS | {"examples": []}):
        code = card_of(metrics).text.split("```python\n")[1].split("```")[0]
        compile(code, "card", "exec")
    assert "Who said" in card_of().text


def test_local_folders_are_not_named(card_of, tmp_path, monkeypatch):
    (tmp_path / "models" / "mine").mkdir(parents=True)
    data = tmp_path / "private" / "rows.jsonl"
    monkeypatch.chdir(tmp_path)
    here = [str(tmp_path / "models" / "mine"), "models/mine", "./models/mine", str(tmp_path / "gone")]
    for name in here:
        card = card_of(summarizer=name, question_answerer=name, data=str(data))
        assert "base_model" not in card.data.to_dict()
        assert "models/mine" not in card.content and str(tmp_path) not in card.content
        assert "| summarize | rows.jsonl |" in card.text and "private" not in card.content
    mixed = card_of(summarizer="models/mine", question_answerer="google/flan-t5-base")
    assert mixed.data.base_model == ["google/flan-t5-base"]


@pytest.mark.parametrize("data", ["briefs", "aclsum", "rajpurkar/squad_v2", "squad"])
def test_data_of_the_hub_keep_their_names(card_of, data):
    assert f"| fuse | {data} |" in card_of(data=data).text


def test_a_run_in_the_current_folder_has_a_name(tmp_path, monkeypatch):
    (tmp_path / "here" / "crosstask").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    write_model_card(Path("crosstask"), recipe_of(Path(".")), METRICS, HISTORY)
    assert "# here\n" in Path("crosstask", "README.md").read_text(encoding="utf-8")


def test_scores_that_are_not_there_do_not_break_the_card(card_of):
    systems = {"a": {"rouge1": None}, "b": {"answer | recall": 0.5, "auroc": math.nan}}
    text = card_of(METRICS | {"systems": systems}).text
    assert "| -" in text and r"answer \| recall" in text
