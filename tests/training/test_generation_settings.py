"""Settings of generation in a run: what is trained is saved, and all that is shown is written with it."""

import json
import logging

import pyarrow.parquet as pq
import pytest
import torch
from tiny_run import write_recipe
from transformers import BartConfig, BartForConditionalGeneration, GenerationConfig, pipeline

from crosstask import train
from crosstask.data.tokenizer import train_tokenizer

PASSAGES = [
    f"The mayor of town {number} opened the old bridge on May {number}. Rain fell for {number} days."
    for number in range(12)
]
NEWS = {"min_length": 24, "max_length": 60, "num_beams": 4, "no_repeat_ngram_size": 3}
NEWS |= {"length_penalty": 2.0, "early_stopping": True, "forced_eos_token_id": 1}
STAGES = {"summarize": {"generation_max_length": 9}, "fuse": {"generation_max_length": 14}}


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Return `start(**values)`, which trains a summarizer that has settings, and returns the run's folder."""
    folder = tmp_path_factory.mktemp("settings")
    tokenizer = train_tokenizer(PASSAGES, 300)
    torch.manual_seed(0)
    shape = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 32}
    shape |= {"decoder_ffn_dim": 32, "encoder_attention_heads": 4, "decoder_attention_heads": 4}
    ids = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None, "decoder_start_token_id": 0}
    config = BartConfig(vocab_size=len(tokenizer), max_position_embeddings=160, init_std=0.5, **shape, **ids)
    summarizer = BartForConditionalGeneration(config)
    summarizer.generation_config.update(**NEWS)
    summarizer.save_pretrained(folder / "bart")
    tokenizer.save_pretrained(folder / "bart")
    (folder / "rows").mkdir()
    for split, start in (("train", 0), ("validation", 4), ("test", 8)):
        with open(folder / "rows" / f"{split}.jsonl", "w") as file:
            for number in range(start, start + 4):
                row = {"passage": PASSAGES[number], "question": f"Who opened bridge {number}?"}
                row |= {
                    "id": str(number),
                    "answer": "The mayor",
                    "summary": "The mayor won.",
                    "answerable": 1,
                }
                file.write(json.dumps(row) + "\n")
    parts = {"summarizer": str(folder / "bart"), "question_answerer": str(folder / "bart")}
    parts |= {"summarizer_config": None, "question_answerer_config": None, "generation_max_length": None}
    parts |= {"data": str(folder / "rows"), "data_options": None, "max_steps": 1, "use_cpu": True}

    def run(name, **values):
        (folder / name).mkdir()
        train.main([str(write_recipe(folder / name, **parts | values))])
        return folder / name / "run"

    return run


def read_summaries(run, system="cross-task"):
    """Return the summaries of a system in the report by question, and the rows' passages."""
    rows = pq.read_table(run / "rows.parquet").to_pylist()
    return {(row["question"], row["passage"]): row["summary"] for row in rows if row["system"] == system}


def write_summaries(run, pairs):
    summarize = pipeline("question-summarization", model=str(run / "crosstask"), trust_remote_code=True)
    inputs = [{"question": question, "passage": passage} for question, passage in pairs]
    results = summarize(inputs, batch_size=4)
    return {pair: result["summary"] for pair, result in zip(pairs, results, strict=True)}


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("default", {"stages": ["fuse"]}, (128, None)),
        ("top level", {"stages": ["fuse"], "generation_max_length": 12, "generation_num_beams": 2}, (12, 2)),
        ("fuse", {"stages": ["fuse"], "fuse": {"generation_max_length": 14}}, (14, None)),
        (
            "other stage",
            {"stages": ["summarize", "fuse"], "summarize": {"generation_max_length": 9}},
            (128, None),
        ),
        ("two stages", {"stages": ["summarize", "fuse"], **STAGES}, (14, None)),
    ],
)
def test_pipeline_report_and_card_write_the_same(start, name, values, expected):
    run = start(name, **values)
    config = GenerationConfig.from_pretrained(run / "crosstask")
    assert (config.max_length, config.num_beams) == expected
    assert config.max_new_tokens is None and config.min_length in (None, 0)
    reported = read_summaries(run)
    assert len(reported) == 4 and len(set(reported.values())) > 1
    assert write_summaries(run, list(reported)) == reported
    metrics = json.loads((run / "metrics.json").read_text())
    for example in metrics["examples"]:
        assert example["summary"] == reported[example["question"], example["passage"]]
    settings = json.loads((run / "results.json").read_text())["settings"]["systems"]
    for system in ("cross-task", "summarizer alone"):
        assert settings[system]["max_new_tokens"] == expected[0] - 1
        assert settings[system]["num_beams"] == (expected[1] or 1)
        assert settings[system]["min_new_tokens"] == 0


def test_settings_of_the_recipe_are_saved(start, tmp_path):
    GenerationConfig(min_length=8, no_repeat_ngram_size=2).save_pretrained(tmp_path)
    run = start("file", stages=["fuse"], generation_config=str(tmp_path), fuse={"generation_max_length": 16})
    config = GenerationConfig.from_pretrained(run / "crosstask")
    assert (config.max_length, config.min_length, config.no_repeat_ngram_size) == (16, 8, 2)
    assert (config.decoder_start_token_id, config.eos_token_id) == (0, 1)
    reported = read_summaries(run)
    assert write_summaries(run, list(reported)) == reported


def test_the_validation_writes_with_the_saved_settings_and_does_not_warn(start, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    run = start(
        "validation",
        stages=["fuse"],
        fuse={"generation_max_length": 14},
        predict_with_generate=True,
        eval_strategy="steps",
        eval_steps=1,
    )
    assert "max_new_tokens" not in caplog.text
    assert GenerationConfig.from_pretrained(run / "crosstask").max_length == 14


def test_a_model_that_is_trained_further_keeps_its_settings(start):
    first = start("first", stages=["fuse"], generation_max_length=14, generation_num_beams=2)
    parts = {"summarizer": None, "question_answerer": None, "fusion_num_heads": None}
    second = start("second", **parts, model=str(first / "crosstask"))
    third = start("third", **parts, model=str(first / "crosstask"), generation_max_length=9)
    for run, length in ((second, 14), (third, 9)):
        config = GenerationConfig.from_pretrained(run / "crosstask")
        assert (config.max_length, config.num_beams) == (length, 2)
