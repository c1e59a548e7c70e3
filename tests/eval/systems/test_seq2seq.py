import pytest
import torch
from peft import LoraConfig, get_peft_model
from system_specs import PASSAGES, QUESTIONS, ROWS
from transformers import AutoTokenizer, T5ForConditionalGeneration

from crosstask.data.builder.teacher import Teacher
from crosstask.eval.systems.checkpoints import get_revision
from crosstask.eval.systems.seq2seq import Seq2Seq
from crosstask.utils.errors import DataError


def test_the_summaries_are_those_of_the_teacher(folders, make):
    teacher = Teacher(folders["seq2seq"], num_beams=2, max_new_tokens=5)
    assert teacher.prefix == "summarize: "
    system = make("plain", num_beams=2)
    assert system.write(ROWS).summaries == teacher.summarize(PASSAGES)
    system = make("with question", num_beams=2)
    pairs = list(zip(QUESTIONS, PASSAGES, strict=True))
    assert system.write(ROWS).summaries == [text for [text] in teacher.write_candidates(pairs, 1)]
    assert [make(name).name for name in ("plain", "with question")] == [
        "seq2seq",
        "seq2seq + question",
    ]


def test_an_adapter_is_merged_and_its_revision_contains_that_of_its_base_model(folders, tmp_path):
    base = T5ForConditionalGeneration.from_pretrained(folders["seq2seq"])
    torch.manual_seed(0)
    adapted = get_peft_model(base, LoraConfig(target_modules=["q", "v"], init_lora_weights=False))
    adapted.save_pretrained(tmp_path / "adapter")
    AutoTokenizer.from_pretrained(folders["seq2seq"]).save_pretrained(tmp_path / "adapter")
    system = Seq2Seq(str(tmp_path / "adapter"), prefix="summarize: ", max_new_tokens=5)
    assert system.settings["revision"].endswith("+" + get_revision(folders["seq2seq"]))
    adapted.merge_and_unload().save_pretrained(tmp_path / "merged")
    AutoTokenizer.from_pretrained(folders["seq2seq"]).save_pretrained(tmp_path / "merged")
    merged = Seq2Seq(str(tmp_path / "merged"), max_new_tokens=5)
    assert system.write(ROWS).summaries == merged.write(ROWS).summaries


def test_an_adapter_without_a_tokenizer_is_refused(folders, tmp_path):
    base = T5ForConditionalGeneration.from_pretrained(folders["seq2seq"])
    get_peft_model(base, LoraConfig(target_modules=["q"])).save_pretrained(tmp_path)
    with pytest.raises(DataError, match="cannot be loaded|expected a tokenizer beside the model"):
        Seq2Seq(str(tmp_path)).write(ROWS)
