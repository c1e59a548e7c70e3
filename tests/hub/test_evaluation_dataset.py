"""A published evaluation has the rows, the outputs and scores of the systems, and reproduces the results."""

import json
import shutil
from dataclasses import replace

import pytest
from datasets import ClassLabel, List, Value, get_dataset_config_names, load_dataset
from huggingface_hub import DatasetCard

from crosstask.configuration_crosstask import IGNORE_INDEX
from crosstask.data.answers import mean
from crosstask.data.briefs import generate
from crosstask.eval.report.results import write_results
from crosstask.eval.run import main as evaluate
from crosstask.eval.run import score
from crosstask.eval.systems.base import Outputs
from crosstask.hub.evaluation_dataset import write_evaluation_dataset
from crosstask.hub.publish import main as publish
from crosstask.utils.errors import DataError

REPO = "alice/evaluation"


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A report of `crosstask-eval` on rows, some with the same question, some labeled 0."""
    folder = tmp_path_factory.mktemp("report")
    rows = list(generate("fuse", "test", 10))
    rows += [
        {**row, "id": row["id"] + "-2", "summary": "Officials say: " + row["summary"]} for row in rows[:3]
    ]
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = folder / "recipe.yaml"
    recipe.write_text(
        f"data: {folder / 'test.jsonl'}\nsplit: all\noutput_dir: {folder / 'out'}\nresamples: 50\n"
        "baseline: the lead\nsystems: [{kind: lead, k: 2, name: the lead}, oracle]\n"
    )
    try:
        evaluate([str(recipe)])
    except SystemExit as error:
        raise AssertionError(str(error)) from error
    return folder / "out"


@pytest.fixture
def published(hub, alice, report):
    publish(["evaluation", str(report), "--repo", REPO, "--license", "cc-by-4.0", "--include_private_texts"])
    return hub.files(REPO, repo_type="dataset")


def test_the_rows_have_types_and_all_references(published):
    rows = load_dataset(REPO, split="test")
    assert isinstance(rows.features["answerable"], ClassLabel)
    assert rows.features["references"] == List(Value("string"))
    for row in rows:
        same = [r for r in rows if (r["question"], r["passage"]) == (row["question"], row["passage"])]
        summaries = {r["summary"] for r in same if r["answerable"] != 0}
        assert set(row["references"]) == (set() if row["answerable"] == 0 else summaries)
    assert max(map(len, rows["references"])) == 2 and min(map(len, rows["references"])) == 0


def test_the_results_can_be_reproduced(published, report):
    results = json.loads((report / "results.json").read_text())
    assert get_dataset_config_names(REPO) == ["rows", "the-lead", "oracle"]
    rows = load_dataset(REPO, "rows", split="test").to_list()
    for system, name in (("the lead", "the-lead"), ("oracle", "oracle")):
        outputs = load_dataset(REPO, name, split="test")
        assert outputs["id"][:] == [row["id"] for row in rows]
        scored, _ = score(rows, {"mine": Outputs(outputs["summary"][:])})
        for metric, expected in results["systems"][system]["metrics"].items():
            assert mean(outputs[metric]) == mean(scored["mine"].scores[metric]) == expected["mean"], metric


def test_the_code_of_the_card_gives_the_numbers_in_the_card(published, report):
    card = DatasetCard(published["README.md"].decode())
    names = {}
    for block in card.text.split("```python\n")[1:]:
        exec(block.split("```")[0], names)
    metrics = json.loads((report / "results.json").read_text())["systems"]["the lead"]["metrics"]
    assert names["means"] == {metric: estimate["mean"] for metric, estimate in metrics.items()}
    assert f"{names['means']['rouge1']:.3f} (" in card.text
    assert (card.data.license, card.data.size_categories) == ("cc-by-4.0", ["n<1K"])
    assert "`the-lead`: k 2, kind lead" in card.text


def test_crosstask_eval_reads_the_rows(published, report, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"data: {REPO}\ndata_config_name: rows\nsplit: all\noutput_dir: {tmp_path / 'out'}\nresamples: 50\n"
        "systems: [{kind: lead, k: 2, name: the lead}]\n"
    )
    evaluate([str(recipe)])
    actual, expected = (
        json.loads((folder / "results.json").read_text())["systems"] for folder in (tmp_path / "out", report)
    )
    for metric, values in expected["the lead"]["metrics"].items():
        assert actual["the lead"]["metrics"][metric]["mean"] == values["mean"]


def test_no_other_files_are_published(published, report):
    assert set(published) == {
        ".gitattributes",
        "README.md",
        "results.json",
        "data/rows/test-00000-of-00001.parquet",
        "data/the-lead/test-00000-of-00001.parquet",
        "data/oracle/test-00000-of-00001.parquet",
    }
    assert not any(str(report.parent).encode() in content for content in published.values())


@pytest.mark.parametrize("data", [None, "alice/rows"])
def test_no_name_of_a_local_file_or_folder_is_published(evaluation, tmp_path, data):
    """A training run's report has the file's name in its title, and the folders of its models."""
    settings = {"cross-task": {"kind": "crosstask", "checkpoint": "clients/miller/crosstask"}}
    settings |= {"lead-1": {"kind": "seq2seq", "checkpoint": "google/flan-t5-small"}}
    record = {"data": "miller.csv", "systems": settings}
    write_results(replace(evaluation, title="run on miller.csv", settings=record), tmp_path)
    write_evaluation_dataset(tmp_path, tmp_path / "set", repo_id=REPO, license="mit", data=data)
    texts = [(tmp_path / "set" / name).read_text() for name in ("README.md", "results.json")]
    for text in texts:
        assert "miller" not in text and f"run on {data or 'private data'}" in text
        assert "google/flan-t5-small" in text


def test_probabilities_and_unusual_texts(evaluation, tmp_path):
    """The evaluation has probabilities, an empty passage, markup, other scripts and similar names."""
    write_results(evaluation, tmp_path)
    write_evaluation_dataset(tmp_path, tmp_path / "set", repo_id=REPO, license="mit")
    rows = load_dataset(str(tmp_path / "set"), "rows", split="test")
    assert rows["passage"][:] == [row["passage"] for row in evaluation.rows]
    labels = [row["answerable"] for row in evaluation.rows]
    assert rows["answerable"][:] == [None if label == IGNORE_INDEX else label for label in labels]
    judge = load_dataset(str(tmp_path / "set"), "cross-task", split="test")
    probabilities = list(evaluation.systems["cross-task"].reference_probabilities)
    assert judge["reference_probability"][:] == probabilities
    lead = load_dataset(str(tmp_path / "set"), "lead-1", split="test")
    assert "reference_probability" not in lead.column_names
    assert "auroc" in (tmp_path / "set" / "README.md").read_text()


def test_systems_get_valid_and_unique_names_of_configurations(make_evaluation, tmp_path):
    evaluation = make_evaluation(leads=(1,))
    system = evaluation.systems["lead-1"]
    evaluation.systems = {name: system for name in ("a b", "a/b", "rows", "../x", "日本")}
    evaluation.baseline = None
    write_results(evaluation, tmp_path)
    write_evaluation_dataset(tmp_path, tmp_path / "set", repo_id=REPO, license="mit")
    assert sorted(path.name for path in (tmp_path / "set" / "data").iterdir()) == [
        "a-b",
        "a-b-2",
        "rows",
        "rows-2",
        "system",
        "x",
    ]


def test_folders_without_a_report_are_refused(hub, alice, report, tmp_path):
    with pytest.raises(SystemExit, match=f"{tmp_path}: expected the folder of an evaluation"):
        publish(["evaluation", str(tmp_path), "--repo", REPO, "--license", "mit"])
    with pytest.raises(SystemExit, match="expected the license of its rows, for example --license"):
        publish(["evaluation", str(report), "--repo", REPO])
    shutil.copytree(report, tmp_path / "half")
    results = json.loads((report / "results.json").read_text())
    (tmp_path / "half" / "results.json").write_text(json.dumps(results | {"order": ["oracle"]}))
    with pytest.raises(DataError, match="of one evaluation, got two"):
        write_evaluation_dataset(tmp_path / "half", tmp_path / "set", repo_id=REPO, license="mit")
    assert not hub.store.repos
