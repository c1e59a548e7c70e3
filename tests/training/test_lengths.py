"""Runs on models with few positions and longer rows: what is rejected, cut, counted and reported."""

import copy
import json

import pytest
import yaml
from tiny_run import RECIPE
from transformers import AutoModel, AutoModelForSeq2SeqLM, BartConfig, PegasusConfig, RobertaConfig

from crosstask import CrossTaskProcessor, train
from crosstask.data.briefs import generate
from crosstask.data.tokenizer import train_tokenizer

SUMMARIZER = {
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_ffn_dim": 8,
    "decoder_ffn_dim": 8,
}
SUMMARIZER |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
SUMMARIZER |= {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0, "forced_eos_token_id": 1}
ENCODER = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
ENCODER |= {"max_position_embeddings": 99, "pad_token_id": 2}  # RoBERTa uses 96 of them
# Rows of one passage each, in which most passages are longer than the models below can read.
ROWS = [row | {"id": f"r{i}"} for i, row in enumerate(generate("fuse", passages=40)) if row["answerable"]][
    ::2
]


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """A folder with summarizers of 128 and 61 positions, and a RoBERTa that reads 96 tokens."""
    folder = tmp_path_factory.mktemp("parts")
    tokenizer = train_tokenizer([row[name] for row in ROWS for name in ("passage", "question")], 400)
    size = {"vocab_size": len(tokenizer)}
    models = {
        "bart": AutoModelForSeq2SeqLM.from_config(
            BartConfig(**SUMMARIZER, **size, max_position_embeddings=128)
        ),
        "pegasus": AutoModelForSeq2SeqLM.from_config(
            PegasusConfig(**SUMMARIZER, **size, max_position_embeddings=61)
        ),
        "roberta": AutoModel.from_config(RobertaConfig(**ENCODER, **size)),
    }
    for name, model in models.items():
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return folder


def run(parts, folder, summarizer, rows, **values):
    """Train on the rows from the 21st on, evaluate on the first ten, and return the folder of the run."""
    (folder / "data").mkdir()
    for split, part in {"train": rows[20:], "validation": rows[10:20], "test": rows[:10]}.items():
        text = "".join(json.dumps(row) + "\n" for row in part)
        (folder / "data" / f"{split}.jsonl").write_text(text)
    recipe = {
        key: value for key, value in RECIPE.items() if not key.endswith("_config") and key != "vocab_size"
    }
    recipe |= {"data": str(folder / "data"), "data_options": None, "stages": ["fuse"], "use_cpu": True}
    recipe |= {"summarizer": str(parts / summarizer), "question_answerer": str(parts / "roberta")}
    recipe |= {"max_source_length": 1024, "output_dir": str(folder / "run"), "fusion": "gated"} | values
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    train.main([str(folder / "recipe.yaml")])
    return folder / "run"


def test_encoders_with_one_tokenizer_and_other_limits_are_trained_and_evaluated(parts, tmp_path, capsys):
    rows = copy.deepcopy(ROWS[:40])
    rows[0]["summary"] = rows[12]["summary"] = rows[30]["summary"] = "news " * 400
    rows[1]["question"] = rows[31]["question"] = "why " * 400
    rows[2]["passage"] = "news " * 400
    folder = run(
        parts,
        tmp_path,
        "bart",
        rows,
        generation_max_length=1000,
        predict_with_generate=True,
        eval_strategy="steps",
        eval_steps=1,
        wrong_values=0,
    )
    printed = capsys.readouterr().out
    assert (
        "fuse: `max_source_length` is 128, the number of positions that the model has, and not 1024."
        in printed
    )
    assert "fuse: `max_question_length` is 96, the number of positions that the model has" in printed
    assert "fuse: `generation_max_length` is 128" in printed
    assert "fuse: 2 rows rejected" in printed and printed.index("rows rejected") < printed.index(
        "fuse: training"
    )
    rejects = [json.loads(line) for line in (folder / "rejects_fuse.jsonl").read_text().splitlines()]
    assert [(reject["split"], reject["id"]) for reject in rejects] == [
        (split, rows[index]["id"]) for split, index in (("train", 31), ("test", 1))
    ]
    counts = json.loads((folder / "history.json").read_text())["fuse"]["lengths"]
    assert {split: (c["rows"], c["rejected"], c["truncated_summaries"]) for split, c in counts.items()} == {
        "train": (19, 1, 1),
        "validation": (10, 0, 1),
        "test": (9, 1, 1),
    }
    assert 0 < counts["test"]["truncated_inputs"] <= counts["test"]["truncated_question_inputs"]
    cut = counts["test"]["truncated_question_inputs"]
    assert (
        f"fuse: test: of 9 rows, {counts['test']['truncated_inputs']} inputs are cut at 128 tokens" in printed
    )
    notes = json.loads((folder / "results.json").read_text())["notes"]
    part = "only the parts that fit best to the question were read"
    assert f"cross-task: {cut} of 10 inputs were longer than the model reads, and {part}." in notes
    assert any("1 of 10 questions left no room for the passage" in note for note in notes)
    assert any("1 of 10 reference summaries were longer than the decoder" in note for note in notes)
    limits = CrossTaskProcessor.from_pretrained(folder / "crosstask").get_limits()
    assert limits == {"input_ids": 128, "question_input_ids": 96, "labels": 128}
    config = json.loads((folder / "crosstask" / "config.json").read_text())
    assert config["max_source_length"] == 128
    (folder / "metrics.json").unlink()
    train.main([str(tmp_path / "recipe.yaml")])  # evaluates again
    assert (folder / "metrics.json").exists()


def test_a_summarizer_with_few_positions_is_trained_from_the_first_stage_on(parts, tmp_path):
    rows = copy.deepcopy(ROWS[:40])
    rows[30]["summary"] = "news " * 400
    stages = ["summarize", "fuse"]
    # 61 positions are no multiple of 8, to which batches are padded.
    folder = run(parts, tmp_path, "pegasus", rows, stages=stages)
    history = json.loads((folder / "history.json").read_text())
    for stage in stages:
        counts = history[stage]["lengths"]["train"]
        assert counts["truncated_inputs"] > 10 and counts["truncated_summaries"] >= 1
    limits = CrossTaskProcessor.from_pretrained(folder / "crosstask").get_limits()
    assert limits == {"input_ids": 61, "labels": 61}
