"""Adapters of several stages as one: the very model that the stages made, from the public parts."""

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForSeq2SeqLM

from crosstask import CrossTaskForConditionalGeneration
from crosstask.adapters import join_adapters

NAMES = {"t5": ["q", "v"], "bart": ["q_proj", "v_proj"]}


def adapted(model, family, rank, **settings):
    """The model with LoRA of random weights, as training leaves it."""
    config = LoraConfig(r=rank, lora_alpha=3 * rank + 1, target_modules=NAMES[family], **settings)
    model = get_peft_model(model, config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name or "modules_to_save" in name:
                weight.normal_(std=0.3)
    return model.eval()


def save_part(make_part, family, seed, folder):
    torch.manual_seed(seed)
    AutoModelForSeq2SeqLM.from_config(make_part(family)).eval().save_pretrained(folder)
    return folder


def stage(folder, family, rank, output, **settings):
    model = AutoModelForSeq2SeqLM.from_pretrained(folder)
    adapted(model, family, rank, task_type="SEQ_2_SEQ_LM", **settings).save_pretrained(output)
    return output


@pytest.mark.parametrize("use_rslora", [False, True])
@pytest.mark.parametrize(
    "family, ranks",
    [("t5", (2, 3, 4)), ("bart", (2, 2, 2)), ("t5", (0, 3, 2)), ("bart", (2, 0, 3)), ("t5", (0, 0, 2))],
)
def test_the_joined_adapter_is_all_stages(family, ranks, use_rslora, make_part, make_inputs, tmp_path):
    bases = [save_part(make_part, family, seed, tmp_path / f"base{seed}") for seed in (0, 1)]
    parts = [
        stage(base, family, rank, tmp_path / f"part{rank}{number}", use_rslora=use_rslora) if rank else None
        for number, (base, rank) in enumerate(zip(bases, ranks[:2], strict=True))
    ]
    settings = {"fusion_num_heads": 4, "fusion_dropout": 0.0}
    torch.manual_seed(2)
    model = CrossTaskForConditionalGeneration.from_tasks(
        *(part or base for part, base in zip(parts, bases, strict=True)), **settings
    )
    kept = {"modules_to_save": ["fusion"], "exclude_modules": r"fusion\..*"}
    expected = adapted(model, family, ranks[2], use_rslora=use_rslora, **kept)
    expected.save_pretrained(tmp_path / "fused")
    (tmp_path / "joined").mkdir()
    join_adapters(tmp_path / "fused", *parts, tmp_path / "joined")

    torch.manual_seed(3)  # another fusion, that the adapter's has to replace
    base = CrossTaskForConditionalGeneration.from_tasks(*bases, **settings)
    found = PeftModel.from_pretrained(base, tmp_path / "joined").eval()
    inputs = make_inputs(model)
    with torch.no_grad():
        expected, found = expected(**inputs), found(**inputs)
    torch.testing.assert_close(found.logits, expected.logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        found.answerability_logits, expected.answerability_logits, rtol=1e-4, atol=1e-5
    )


def test_only_the_encoder_of_the_answerer_is_taken(make_part, tmp_path):
    base = save_part(make_part, "t5", 0, tmp_path / "base")
    part = stage(base, "t5", 2, tmp_path / "part")
    model = CrossTaskForConditionalGeneration.from_tasks(base, part, fusion_num_heads=4)
    adapted(model, "t5", 2, modules_to_save=["fusion"], exclude_modules=r"fusion\..*").save_pretrained(
        tmp_path / "fused"
    )
    (tmp_path / "joined").mkdir()
    join_adapters(tmp_path / "fused", None, part, tmp_path / "joined")
    names = load_file(tmp_path / "joined" / "adapter_model.safetensors").keys()
    assert names == load_file(tmp_path / "fused" / "adapter_model.safetensors").keys()


@pytest.mark.parametrize("settings", [{"use_dora": True}, {"rank_pattern": {"q": 1}}])
def test_what_is_no_sum_of_products_is_refused(settings, make_part, tmp_path):
    base = save_part(make_part, "t5", 0, tmp_path / "base")
    part = stage(base, "t5", 2, tmp_path / "part", **settings)
    with pytest.raises(
        ValueError, match=f"part is an adapter with {next(iter(settings))}, expected plain LoRA"
    ):
        join_adapters(part, None, None, tmp_path)
