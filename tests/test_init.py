"""Test the package: its imports, its public names and its registration with the Auto classes."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoConfig, AutoModelForSeq2SeqLM

import crosstask


def run_python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_import_is_light_and_registers_the_auto_classes():
    heavy = {"gradio", "evaluate", "bert_score", "peft", "datasets", "matplotlib", "ray", "bitsandbytes"}
    code = (
        "import sys, crosstask\n"
        f"print(sorted({heavy!r} & set(sys.modules)))\n"
        "from transformers import AutoConfig, T5Config, BertConfig, AutoModelForSeq2SeqLM\n"
        "t5 = T5Config(d_model=16, d_kv=4, d_ff=8, num_layers=1, num_heads=2, vocab_size=9)\n"
        "config = AutoConfig.for_model('crosstask', summarizer=t5, question_encoder=t5)\n"
        "print(type(AutoModelForSeq2SeqLM.from_config(config)).__name__)"
    )
    assert run_python(code).split("\n")[:2] == ["[]", "CrossTaskForConditionalGeneration"]


def test_checkpoint_loads_without_trusting_remote_code(make_model, tmp_path):
    make_model().save_pretrained(tmp_path)
    assert type(AutoConfig.from_pretrained(tmp_path)) is crosstask.CrossTaskConfig
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
    assert type(model) is crosstask.CrossTaskForConditionalGeneration
    # The checkpoint has its code, for users without crosstask.
    assert (tmp_path / "modeling_crosstask.py").exists()
    auto_map = crosstask.CrossTaskConfig.from_pretrained(tmp_path).auto_map
    assert auto_map["AutoModelForSeq2SeqLM"] == "modeling_crosstask.CrossTaskForConditionalGeneration"
    assert auto_map["AutoConfig"] == "configuration_crosstask.CrossTaskConfig"


def test_public_names():
    assert set(crosstask.__all__) <= set(dir(crosstask))
    assert crosstask.__version__
    for name in (
        "CrossTaskConfig",
        "CrossTaskForConditionalGeneration",
        "CrossTaskOutput",
        "CrossTaskProcessor",
    ):
        assert getattr(crosstask, name).__name__ == name


@pytest.mark.parametrize("name", ["AdapterRouter", "CrossTaskTrainer", "CrossTaskCollator", "read_rows"])
def test_lazily_imported_names(name):
    pytest.importorskip("datasets")
    assert getattr(crosstask, name).__name__ == name


def test_unknown_names_are_rejected():
    with pytest.raises(AttributeError, match="module 'crosstask' has no attribute 'CrossTaskModel'"):
        crosstask.CrossTaskModel  # noqa: B018
    with pytest.raises(ImportError, match="CrossTaskModel"):
        from crosstask import CrossTaskModel  # noqa: F401


def test_no_code_trusts_remote_code_by_default():
    root = Path(crosstask.__file__).parent
    folders = ("data", "eval", "training", "hub", "utils")
    files = [*root.glob("*.py"), *(file for folder in folders for file in root.glob(f"{folder}/**/*.py"))]
    assert len(files) > 40
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
                assert node.value.value is False, f"{file}, line {node.lineno}"
