import logging
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from datasets import ClassLabel, Dataset, Features, Value, load_dataset
from datasets.exceptions import NonMatchingSplitsSizesError
from huggingface_hub import DatasetCard

from crosstask.data.builder.card import BuildFacts, write_data_card
from crosstask.data.builder.figures import describe, write_statistics
from crosstask.data.schema import FEATURES

BUILT = Features(FEATURES | {"entailment": Value("float32")})
SQUAD = {
    "name": "SQuAD 2.0",
    "id": "rajpurkar/squad_v2",
    "licence": "CC BY-SA 4.0",
    "citation": "@inproceedings{rajpurkar2018know, title={Know What You Don't Know}}",
    "url": "https://rajpurkar.github.io/SQuAD-explorer",
}
OWN = {"name": "/home/someone/tickets/rows.csv", "licence": None, "citation": "Someone, 2024."}
TEACHER = {
    "name": "facebook/bart-large-cnn",
    "mode": "passage",
    "candidates": 1,
    "hard_negatives": False,
    "generation": {"num_beams": 4, "max_new_tokens": 96},
}
JUDGE = {"name": "FacebookAI/roberta-large-mnli", "template": "{answer}"}


def row(number, answer="two days", entailment=0.6):
    return {
        "id": str(number),
        "source": "squad",
        "passage": f"Passage {number // 2}: it rained for two days.",
        "question": f"How long {number}?",
        "answer": answer,
        "summary": "Two days of rain.",
        "answerable": int(bool(answer) and entailment > 0.5),
        "entailment": entailment if answer else None,
    }


SPLITS = {
    "train": [row(0), row(1, entailment=0.75), row(2, answer=""), row(3, entailment=0.25)],
    "validation": [row(4)],
    "test": [row(6), row(7, entailment=1.0)],
}


def facts_of(splits=SPLITS, **values):
    statistics = describe(splits)
    rows = statistics["all"]["rows"]
    facts = {"rows_in": rows, "language": ["en"], "teacher": TEACHER, "judge": JUDGE, "seed": 42}
    return BuildFacts(
        **{"name": "my-set", "features": BUILT, "statistics": statistics, "sources": [SQUAD]} | facts | values
    )


@pytest.fixture
def card_of(tmp_path):
    def card_of(**values):
        write_data_card(tmp_path, facts_of(**values))
        return DatasetCard.load(tmp_path / "README.md")

    return card_of


@pytest.fixture
def built(tmp_path):
    """A built folder with shards, statistics and card, and what else lies there."""
    folder = tmp_path / "built"
    (folder / "data").mkdir(parents=True)
    for split, rows in SPLITS.items():
        for shard, at in enumerate(range(0, len(rows), 2)):
            table = Dataset.from_list(rows[at : at + 2], features=BUILT)
            table.to_parquet(folder / "data" / f"{split}-{shard:05}.parquet")
    facts = facts_of()
    write_statistics(facts.statistics, folder)
    (folder / "rejects.jsonl").write_text('{"reason": "empty passage"}\n')
    write_data_card(folder, facts)
    return folder


def test_load_dataset_gives_typed_splits_and_the_card_moves_the_threshold(
    built, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(logging.getLogger("datasets"), "propagate", True)
    data = load_dataset(str(built), cache_dir=str(tmp_path / "cache"))
    assert not caplog.records  # datasets says so where it ignores a part of the metadata
    sizes = {
        name: (split.num_examples, split.num_bytes > 0) for name, split in data["train"].info.splits.items()
    }
    assert sizes == {"train": (4, True), "validation": (1, True), "test": (2, True)}
    assert {split: rows.num_rows for split, rows in data.items()} == {"train": 4, "validation": 1, "test": 2}
    assert data["train"].features == BUILT
    assert data["train"].features["answerable"] == ClassLabel(names=["no", "yes"])
    assert data["train"]["answerable"] == [1, 1, 0, 0]

    code = re.findall(r"```python\n(.*?)```", (built / "README.md").read_text(), re.DOTALL)
    scope = {}
    exec(code[0].replace("path/or/id", str(built)), scope)
    exec(code[1], scope)
    assert scope["data"]["train"]["answerable"] == [0, 1, 0, 0]
    assert scope["data"]["test"]["answerable"] == [0, 1]
    assert scope["data"]["train"].features == BUILT


def test_every_picture_and_file_that_the_card_names_is_there(built):
    text = (built / "README.md").read_text()
    names = re.findall(r"!\[[^]]*\]\(([^)]*)\)", text)
    assert names == ["lengths.png", "labels.png"]
    assert all((built / name).exists() for name in [*names, "stats.json"])


def test_a_wrong_number_of_rows_is_found_by_load_dataset(built, tmp_path):
    shutil.copy(built / "data" / "test-00000.parquet", built / "data" / "test-00001.parquet")
    with pytest.raises(NonMatchingSplitsSizesError):
        load_dataset(str(built), cache_dir=str(tmp_path / "cache"))


def test_metadata(card_of):
    data = card_of().data.to_dict()
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
        ([SQUAD, SQUAD | {"licence": "cc-by-sa-4.0"}], {"license": "cc-by-sa-4.0"}),
        ([SQUAD, SQUAD | {"licence": "MIT"}], {"license": "other", "license_name": "mixed"}),
        ([SQUAD, OWN], {"license": "other", "license_name": "mixed"}),
        ([OWN], {"license": "other", "license_name": "unknown"}),
        ([OWN | {"licence": "House rules"}], {"license": "other", "license_name": "house-rules"}),
    ],
)
def test_licence(card_of, sources, expected):
    data = card_of(sources=sources).data.to_dict()
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
def test_size(card_of, rows, expected):
    statistics = describe(SPLITS)
    statistics["all"]["rows"] = rows
    assert card_of(statistics=statistics, rows_in=rows).data.size_categories == [expected]


def test_body_tells_what_was_run(card_of):
    text = card_of(
        rows_in=1210,
        rows_added=2,
        rejects={"empty passage": 5, "a | b": 1200},
        normalization=["lowercase", "contractions"],
        splitting="By a hash of the passage.",
        cut_inputs=17,
        max_input_tokens=1024,
    ).text
    assert "| train | 4 | 2 | 4 | 50.0% | 50.0% | 0.0% |" in text
    assert "1,210 read and 2 added = 7 written" in text and "1,205 rejected" in text
    assert text.index(r"| a \| b | 1,200 |") < text.index("| empty passage | 5 |")
    assert "lowercase, contractions" in text and "By a hash of the passage." in text
    assert "`facebook/bart-large-cnn`, one a passage" in text and "num_beams=4, max_new_tokens=96" in text
    assert "longer: 17." in text and "1,024 tokens" in text
    assert "P(entailment) > 0.5" in text and "hypothesis: `{answer}`" in text
    assert "**Seed**: 42." in text
    assert "[SQuAD 2.0](https://rajpurkar.github.io/SQuAD-explorer) | CC BY-SA 4.0" in text
    assert "```bibtex\n@inproceedings{rajpurkar2018know" in text


def test_question_mode_tells_of_its_candidates(card_of):
    teacher = TEACHER | {"mode": "question", "candidates": 4, "hard_negatives": True}
    text = card_of(teacher=teacher).text
    assert "candidates a question: 4, of which the one that entails" in text and "labelled no" in text
    assert "share one summary" not in text and "its errors are chosen too" in text


def test_only_what_applies_is_told(card_of):
    splits = {"train": [row(0, answer="")]}
    card = card_of(splits=splits, teacher=None, judge=None, seed=None, language=())
    assert card.data.annotations_creators == ["found"] and card.data.language is None
    for absent in ("machine", "a judge", "threshold", "bart", "rejected because", "one reading"):
        assert absent not in card.text
    assert "**Summaries**: the sources' own." in card.text and "**Seed**: none." in card.text
    assert "Those of the sources." in card.text


def test_no_path_of_the_machine(card_of, tmp_path):
    teacher = TEACHER | {"name": str(tmp_path / "models" / "tiny-bart")}
    judge = JUDGE | {"name": "../models/tiny-nli"}
    text = str(card_of(sources=[OWN | {"id": str(tmp_path)}], teacher=teacher, judge=judge))
    assert "| rows.csv |" in text and "`tiny-bart`" in text and "`tiny-nli`" in text
    for private in (str(tmp_path), "/home", "someone", "../", str(Path.home())):
        assert private not in text
    assert "source_datasets:\n- original" in text


def test_sums_that_differ_are_an_error(tmp_path):
    with pytest.raises(ValueError, match="9 rows read and 0 added, but 7 written and 1 rejected"):
        write_data_card(tmp_path, facts_of(rows_in=9, rejects={"empty passage": 1}))
    assert not (tmp_path / "README.md").exists()


def test_the_same_facts_give_the_same_bytes(tmp_path):
    facts = facts_of(rejects={"b": 1, "a": 1}, rows_in=9)
    write_data_card(tmp_path / "one", facts)
    write_data_card(tmp_path / "two", replace(facts, rejects={"a": 1, "b": 1}))
    assert (tmp_path / "one" / "README.md").read_bytes() == (tmp_path / "two" / "README.md").read_bytes()


def test_an_empty_build_has_a_card(card_of):
    assert "| all | 0 | 0 | 0 | - | - | - |" in card_of(splits={}).text
