import logging
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from datasets import ClassLabel, Dataset, load_dataset
from datasets.exceptions import NonMatchingSplitsSizesError
from huggingface_hub import DatasetCard

from crosstask.data.builder.card import BuildReport, get_size_category, write_data_card
from crosstask.data.builder.charts import write_charts
from crosstask.data.builder.finish import SCORED_FEATURES
from crosstask.data.builder.stats import compute_statistics

SQUAD = {
    "name": "SQuAD 2.0",
    "id": "rajpurkar/squad_v2",
    "license": "CC BY-SA 4.0",
    "citation": "@inproceedings{rajpurkar2018know, title={Know What You Don't Know}}",
    "url": "https://rajpurkar.github.io/SQuAD-explorer",
}
LOCAL_FILE = {"name": "/home/someone/tickets/rows.csv", "license": None, "citation": "Someone, 2024."}
TEACHER = {
    "name": "facebook/bart-large-cnn",
    "mode": "passage",
    "candidates": 1,
    "hard_negatives": False,
    "generation": {"num_beams": 4, "max_new_tokens": 96},
}
JUDGE = {"name": "FacebookAI/roberta-large-mnli", "template": "{answer}"}


def make_row(number, answer="two days", entailment=0.6):
    return {
        "id": str(number),
        "source": "squad",
        "passage": f"Passage {number // 2}: it rained for two days.",
        "question": f"How long {number}?",
        "answer": answer,
        "summary": "Two days of rain.",
        "answerable": int(bool(answer) and entailment > 0.5),
        "entailment": entailment if answer else None,
        "contradiction": None,
    }


SPLITS = {
    "train": [
        make_row(0),
        make_row(1, entailment=0.75),
        make_row(2, answer=""),
        make_row(3, entailment=0.25),
    ],
    "validation": [make_row(4)],
    "test": [make_row(6), make_row(7, entailment=1.0)],
}


def make_report(splits=SPLITS, **values):
    statistics = compute_statistics(splits)
    defaults = {
        "name": "my-set",
        "features": SCORED_FEATURES,
        "statistics": statistics,
        "sources": [SQUAD],
        "rows_read": statistics["all"]["rows"],
        "language": ["en"],
        "teacher": TEACHER,
        "judge": JUDGE,
        "seed": 42,
    }
    return BuildReport(**defaults | values)


@pytest.fixture
def make_card(tmp_path):
    """Return a function that writes and loads the card of a report with the given values."""

    def make(**values):
        write_data_card(tmp_path, make_report(**values))
        return DatasetCard.load(tmp_path / "README.md")

    return make


@pytest.fixture
def folder(tmp_path):
    """Return the folder of a built data set with two rows per Parquet file."""
    folder = tmp_path / "built"
    (folder / "data").mkdir(parents=True)
    for split, rows in SPLITS.items():
        for shard, start in enumerate(range(0, len(rows), 2)):
            table = Dataset.from_list(rows[start : start + 2], features=SCORED_FEATURES)
            table.to_parquet(folder / "data" / f"{split}-{shard:05}.parquet")
    report = make_report()
    write_charts(report.statistics, folder)
    (folder / "rejects.jsonl").write_text('{"reason": "empty passage"}\n')
    write_data_card(folder, report)
    return folder


def test_load_dataset_returns_typed_splits_and_the_code_in_the_card_runs(
    folder, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(logging.getLogger("datasets"), "propagate", True)
    data = load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    assert not caplog.records  # datasets warns if it ignores a part of the metadata
    sizes = {
        name: (split.num_examples, split.num_bytes > 0) for name, split in data["train"].info.splits.items()
    }
    assert sizes == {"train": (4, True), "validation": (1, True), "test": (2, True)}
    assert {split: rows.num_rows for split, rows in data.items()} == {"train": 4, "validation": 1, "test": 2}
    assert data["train"].features == SCORED_FEATURES
    assert data["train"].features["answerable"] == ClassLabel(names=["no", "yes"])
    assert data["train"]["answerable"] == [1, 1, 0, 0]

    code = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    scope = {}
    exec(code[0].replace("path/or/id", str(folder)), scope)
    exec(code[1], scope)
    assert scope["data"]["train"]["answerable"] == [0, 1, 0, 0]
    assert scope["data"]["test"]["answerable"] == [0, 1]
    assert scope["data"]["train"].features == SCORED_FEATURES


def test_the_pictures_in_the_card_exist(folder):
    names = re.findall(r"!\[[^]]*\]\(([^)]*)\)", (folder / "README.md").read_text())
    assert names == ["lengths.png", "labels.png"]
    assert all((folder / name).exists() for name in names)


def test_load_dataset_finds_a_wrong_number_of_rows(folder, tmp_path):
    shutil.copy(folder / "data" / "test-00000.parquet", folder / "data" / "test-00001.parquet")
    with pytest.raises(NonMatchingSplitsSizesError):
        load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))


def test_the_metadata_describe_the_data_set(make_card):
    data = make_card().data.to_dict()
    assert data["configs"][0]["config_name"] == "default"
    assert data["configs"][0]["data_files"] == [
        {"split": split, "path": f"data/{split}-*.parquet"} for split in ("train", "validation", "test")
    ]
    assert data["dataset_info"]["splits"][0] == {"name": "train", "num_bytes": 0, "num_examples": 4}
    label = {"class_label": {"names": {"0": "no", "1": "yes"}}}
    assert {"name": "answerable", "dtype": label} in data["dataset_info"]["features"]
    assert data["license"] == "cc-by-sa-4.0" and "license_name" not in data
    assert data["source_datasets"] == ["rajpurkar/squad_v2"]
    assert data["task_categories"] == ["summarization", "question-answering"]
    assert data["annotations_creators"] == ["machine-generated"]
    assert (data["size_categories"], data["language"], data["pretty_name"]) == (["n<1K"], ["en"], "my-set")
    assert {"crosstask", "question-prompted-summarization"} <= set(data["tags"])


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        ([SQUAD, SQUAD | {"license": "cc-by-sa-4.0"}], {"license": "cc-by-sa-4.0"}),
        ([SQUAD, SQUAD | {"license": "MIT"}], {"license": "other", "license_name": "mixed"}),
        ([SQUAD, LOCAL_FILE], {"license": "other", "license_name": "mixed"}),
        ([LOCAL_FILE], {"license": "other", "license_name": "unknown"}),
        ([LOCAL_FILE | {"license": "House rules"}], {"license": "other", "license_name": "house-rules"}),
    ],
)
def test_the_license_is_that_of_the_sources(make_card, sources, expected):
    data = make_card(sources=sources).data.to_dict()
    assert {key: data[key] for key in ("license", "license_name") if key in data} == expected


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (999, "n<1K"),
        (1000, "1K<n<10K"),
        (123_456, "100K<n<1M"),
        (9_999_999, "1M<n<10M"),
        (10**10, "10B<n<100B"),
    ],
)
def test_the_size_category_has_the_name_of_the_hub(rows, expected):
    assert get_size_category(rows) == expected


def test_the_text_describes_the_build(make_card):
    text = make_card(
        rows_read=1210,
        rows_added=2,
        rejects={"empty passage": 5, "a | b": 1200},
        normalization=["lowercase", "contractions"],
        splitting="By a hash of the passage.",
        truncated_inputs=17,
        max_source_length=1024,
    ).text
    assert "| train | 4 | 2 | 4 | 50.0% | 50.0% | 0.0% |" in text
    assert "1,210 read and 2 negatives added = 7 written" in text and "1,205 rejected" in text
    assert text.index(r"| a \| b | 1,200 |") < text.index("| empty passage | 5 |")
    assert "lowercase, contractions" in text and "By a hash of the passage." in text
    assert "`facebook/bart-large-cnn` (num_beams=4, max_new_tokens=96), which read only the passage" in text
    assert "at most 1,024 tokens" in text and "17 distinct inputs are longer" in text
    assert "P(entailment) > 0.5" in text and "`{answer}` as the hypothesis" in text
    assert "**Seed**: 42." in text
    assert "[SQuAD 2.0](https://rajpurkar.github.io/SQuAD-explorer) | CC BY-SA 4.0" in text
    assert "```bibtex\n@inproceedings{rajpurkar2018know" in text


def test_the_text_describes_the_candidates_of_mode_question(make_card):
    teacher = TEACHER | {"mode": "question", "candidates": 4, "hard_negatives": True}
    text = make_card(teacher=teacher).text
    assert "Of 4 candidates per question, the one that entails the answer best is kept" in text
    assert "kept as a row labeled `no`" in text
    assert "have the same summary" not in text and "its errors are overrepresented" in text


def test_the_text_omits_what_does_not_apply(make_card):
    splits = {"train": [make_row(0, answer="")]}
    card = make_card(splits=splits, teacher=None, judge=None, seed=None, language=())
    assert card.data.annotations_creators == ["found"] and card.data.language is None
    for text in ("A model", "judge", "threshold", "bart", "reason for rejection", "one answer"):
        assert text not in card.text
    assert "**Summaries**: taken from the sources." in card.text and "**Seed**: none" in card.text
    assert "The limitations of the sources apply." in card.text


def test_the_card_has_no_local_paths(make_card, tmp_path):
    teacher = TEACHER | {"name": str(tmp_path / "models" / "tiny-bart")}
    judge = JUDGE | {"name": "../models/tiny-nli"}
    text = str(make_card(sources=[LOCAL_FILE | {"id": str(tmp_path)}], teacher=teacher, judge=judge))
    assert "| rows.csv |" in text and "`tiny-bart`" in text and "`tiny-nli`" in text
    for path in (str(tmp_path), "/home", "someone", "../", str(Path.home())):
        assert path not in text
    assert "source_datasets:\n- original" in text


def test_different_sums_of_rows_are_an_error(tmp_path):
    message = r"rows read and added \(9\+0\) do not equal rows written and rejected \(7\+1\)"
    with pytest.raises(ValueError, match=message):
        write_data_card(tmp_path, make_report(rows_read=9, rejects={"empty passage": 1}))
    assert not (tmp_path / "README.md").exists()


def test_the_same_report_gives_the_same_bytes(tmp_path):
    report = make_report(rejects={"b": 1, "a": 1}, rows_read=9)
    write_data_card(tmp_path / "one", report)
    write_data_card(tmp_path / "two", replace(report, rejects={"a": 1, "b": 1}))
    assert (tmp_path / "one" / "README.md").read_bytes() == (tmp_path / "two" / "README.md").read_bytes()


def test_a_data_set_without_rows_has_a_card(make_card):
    assert "| all | 0 | 0 | 0 | - | - | - |" in make_card(splits={}).text
