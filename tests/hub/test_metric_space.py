"""The metrics can be loaded from a folder or the Hub without this library."""

import json
import os
import subprocess
import sys

import evaluate
import pytest
from transformers import BertConfig, BertForSequenceClassification, BertModel

from crosstask.hub.metric_space import METRICS_FOLDER, write_metric_space
from crosstask.hub.publish import publish
from crosstask.utils.errors import ConfigError

SUMMARIES = ["The mayor opened the bridge on May 3.", "Rain fell for 2 days."]
REFERENCES = ["The bridge was opened on May 3.", "It rained for two days."]
TEXTS = {"predictions": SUMMARIES, "references": REFERENCES}


@pytest.fixture(scope="module")
def inputs(tokenizer, tmp_path_factory):
    """The arguments of `compute` for each metric."""
    folder = tmp_path_factory.mktemp("models")
    config = {
        "vocab_size": len(tokenizer),
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "max_position_embeddings": 64,
        "pad_token_id": tokenizer.pad_token_id,
    }
    labels = {
        "id2label": {0: "contradiction", 1: "entailment"},
        "label2id": {"contradiction": 0, "entailment": 1},
    }
    for name, model in (
        ("encoder", BertModel(BertConfig(**config))),
        ("judge", BertForSequenceClassification(BertConfig(**config, **labels))),
    ):
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    judge = {
        "predictions": SUMMARIES,
        "references": ["the mayor", "two days"],
        "judge": str(folder / "judge"),
    }
    return {
        "answer_entailment": judge | {"questions": ["Who?", "How long?"]},
        "answer_recall": {"predictions": SUMMARIES, "references": ["the mayor", "two days"]},
        "answerability": {"predictions": [0.9, 0.2], "references": [1, 0]},
        "bertscore": TEXTS | {"model": str(folder / "encoder"), "num_layers": 1},
        "extractiveness": TEXTS,
        "faithfulness": TEXTS,
        "rouge": TEXTS,
    }


def compute_without_library(folder, calls):
    """Load and compute metrics in a process that cannot import this library."""
    code = """
import json, sys
sys.modules["crosstask"] = None
import evaluate
calls = json.load(sys.stdin)
print("RESULTS", json.dumps([evaluate.load(name).compute(**inputs) for name, inputs in calls]))
"""
    process = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(calls),
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr[-3000:]
    return json.loads(process.stdout.split("RESULTS ")[1])


def test_every_metric_gives_the_same_results_without_the_library(hub, alice, inputs, tmp_path):
    names = sorted(path.name for path in METRICS_FOLDER.iterdir() if path.is_dir())
    assert names == sorted(inputs)
    calls, expected = [], []
    for name in names:
        write_metric_space(name, tmp_path / name, repo_id=f"alice/{name}")
        calls.append([str(tmp_path / name), inputs[name]])
        expected.append(evaluate.load(str(METRICS_FOLDER / name)).compute(**inputs[name]))
    # From the Hub, and under another name.
    publish("metric", "answer_recall", "alice/my-recall")
    calls.append(["alice/my-recall", inputs["answer_recall"]])
    expected.append(expected[names.index("answer_recall")])
    assert compute_without_library(tmp_path, calls) == json.loads(json.dumps(expected))


def test_the_files_of_a_space(hub, alice):
    publish("metric", "answer_recall", "alice/recall")
    files = {path: content.decode() for path, content in hub.files("alice/recall", repo_type="space").items()}
    assert {".gitattributes", "README.md", "recall.py", "requirements.txt"} < set(files)
    assert "crosstask_data_answers.py" in files and "sdk: static" in files["README.md"]
    assert 'evaluate.load("alice/recall")' in files["README.md"] and "eval/metrics" not in files["README.md"]
    assert files["requirements.txt"].split() == ["datasets", "evaluate"]
    assert not any(
        "crosstask." in line for text in files.values() for line in text.splitlines() if "import" in line
    )


def test_a_missing_package_is_reported(tmp_path):
    write_metric_space("rouge", tmp_path / "rouge", repo_id="alice/rouge")
    code = f"""
import sys
sys.modules["crosstask"] = sys.modules["rouge_score"] = None
import evaluate
try:
    evaluate.load({str(tmp_path / "rouge")!r})
except ImportError as error:
    print(error)
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install rouge_score" in process.stdout, process.stdout + process.stderr


def test_an_unknown_metric_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="unknown metric 'answer_recal', .*did you mean 'answer_recall'"):
        write_metric_space("answer_recal", tmp_path, repo_id="alice/x")
    with pytest.raises(ConfigError, match="loads no metric with a dot in its name"):
        publish("metric", "rouge", "alice/rouge.v1")
