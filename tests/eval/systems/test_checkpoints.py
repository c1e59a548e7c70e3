import shutil

import pytest
from peft import LoraConfig, get_peft_model
from transformers import T5Config, T5ForConditionalGeneration

from crosstask.eval.systems.checkpoints import get_adapter_base, get_model_config, get_revision
from crosstask.utils.errors import DataError


def test_the_revision_of_a_folder_depends_on_its_content(folders, tmp_path):
    folder = shutil.copytree(folders["two vocabularies"], tmp_path / "copy")
    before = get_revision(folder)
    assert before == get_revision(folders["two vocabularies"])
    (folder / "README.md").write_text("A card.")
    (folder / "checkpoint-1").mkdir()
    assert get_revision(folder) == before
    question_tokenizer = folder / "question_tokenizer" / "tokenizer_config.json"
    question_tokenizer.write_text(question_tokenizer.read_text() + " ")
    changed = get_revision(folder)
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    assert len({before, changed, get_revision(folder)}) == 3


def test_the_revision_of_a_hub_id_is_its_commit(hub, alice, folders):
    model = T5ForConditionalGeneration.from_pretrained(folders["seq2seq"])
    model.push_to_hub("alice/summarizer")
    assert get_revision("alice/summarizer") == hub.commits("alice/summarizer")[0].oid
    adapted = get_peft_model(model, LoraConfig(target_modules=["q"], task_type="SEQ_2_SEQ_LM"))
    adapted.peft_config["default"].base_model_name_or_path = "alice/summarizer"
    adapted.push_to_hub("alice/adapter")
    commits = [hub.commits(name)[0].oid for name in ("alice/adapter", "alice/summarizer")]
    assert get_revision("alice/adapter") == "+".join(commits)


def test_the_configuration_of_an_adapter_is_that_of_its_base_model(folders, tmp_path):
    base = T5ForConditionalGeneration.from_pretrained(folders["seq2seq"])
    get_peft_model(base, LoraConfig(target_modules=["q"])).save_pretrained(tmp_path)
    assert get_adapter_base(tmp_path) == folders["seq2seq"]
    assert get_adapter_base(folders["seq2seq"]) is None
    assert isinstance(get_model_config(tmp_path), T5Config)


def test_a_missing_configuration_is_refused(tmp_path):
    with pytest.raises(DataError, match="cannot be loaded"):
        get_model_config(tmp_path)
