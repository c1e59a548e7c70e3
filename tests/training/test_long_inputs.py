"""Train, evaluate and ask with segments: what was trained is what is saved and used."""

import json

import pytest
from tiny_run import write_recipe
from transformers import pipeline

from crosstask import CrossTaskConfig, CrossTaskProcessor, train
from crosstask.data.readers import read_rows
from crosstask.eval.run import list_rows
from crosstask.eval.systems.crosstask import CrossTask
from crosstask.utils.errors import DataError

OPTIONS = {"words": 90, "passages": {"train": 12, "validation": 4, "test": 4}}


@pytest.fixture(scope="module", params=["classifier", "gated"])
def run(request, tmp_path_factory):
    """Return the folder of a run that was trained on segments."""
    folder = tmp_path_factory.mktemp("long")
    settings = {"max_source_length": 96, "max_segments": 4, "stride": 8, "fusion": request.param}
    train.main(
        [str(write_recipe(folder, data_options=OPTIONS, eval_strategy="steps", eval_steps=1, **settings))]
    )
    return folder / "run"


@pytest.fixture(scope="module")
def rows():
    return list_rows(read_rows("briefs", "fuse", options=OPTIONS)["test"])


def test_segments_are_saved_with_the_model(run):
    for loaded in (CrossTaskConfig, CrossTaskProcessor):
        settings = loaded.from_pretrained(run / "crosstask")
        assert (settings.max_source_length, settings.max_segments, settings.stride) == (96, 4, 8)
    lengths = json.loads((run / "history.json").read_text())["fuse"]["lengths"]
    assert 0 < lengths["train"]["truncated_inputs"] < lengths["train"]["rows"]


@pytest.mark.parametrize("long_passages", [None, "segments", "select", "truncate"])
def test_pipeline_and_report_read_the_same(run, rows, long_passages):
    options = {} if long_passages is None else {"long_passages": long_passages}
    pipe = pipeline("question-summarization", model=str(run / "crosstask"), device="cpu", **options)
    results = pipe([{name: row[name] for name in ("question", "passage")} for row in rows], batch_size=3)
    outputs = CrossTask(run / "crosstask", device="cpu", batch_size=5, long_passages=long_passages).write(
        rows
    )
    assert [result["summary"] for result in results] == outputs.summaries
    probabilities = [result["answerability"] for result in results]
    assert probabilities == pytest.approx(outputs.summary_probabilities, abs=1e-5)
    end = "only the parts that fit best to the question were read." if long_passages == "select" else "cut."
    assert outputs.notes[0].endswith(end)


def test_ablations_of_segments(run, rows):
    for ablation in ("zeroed", "swapped"):
        outputs = CrossTask(run / "crosstask", device="cpu", ablation=ablation).write(rows[:3])
        assert len(outputs.summaries) == 3


def test_a_model_without_segments_is_named(trained_run, rows):
    _, folder = trained_run
    with pytest.raises(DataError, match="crosstask: .* was not trained with segments"):
        CrossTask(folder / "crosstask", long_passages="segments").write(rows)
    with pytest.raises(DataError, match="long_passages is 'all', expected one of segments, select, truncate"):
        CrossTask(folder / "crosstask", long_passages="all")


def test_a_model_learns_to_read_segments_afterwards(trained_run, tmp_path):
    _, folder = trained_run
    recipe = tmp_path / "further.yaml"
    recipe.write_text(
        f"model: {folder}\nstages: [fuse]\noutput_dir: {tmp_path / 'run'}\ndata: briefs\nmax_steps: 1\n"
        "data_options: {words: 400, passages: {train: 4, validation: 2, test: 2}}\nmax_segments: 9\n"
    )
    train.main([str(recipe)])
    config = CrossTaskConfig.from_pretrained(tmp_path / "run" / "crosstask")
    assert (config.max_segments, config.stride) == (9, 0)
    card = (tmp_path / "run" / "crosstask" / "README.md").read_text()
    assert "It reads at most 9 segments of 256 tokens of a passage" in card
