"""Adapters of several stages as one: the very model that the stages made, from the public parts."""

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForSeq2SeqLM

from crosstask import CrossTaskForConditionalGeneration
from crosstask.hub.adapters import join_adapters

NAMES = {"t5": ["q", "v"], "bart": ["q_proj", "v_proj"]}


def adapted(model, family, rank, **settings):
    """The model with LoRA of random weights, as training leaves it."""
    settings = {"target_modules": NAMES[family]} | settings
    model = get_peft_model(model, LoraConfig(r=rank, lora_alpha=3 * rank + 1, **settings))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.requires_grad and "lora_A" not in name:
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
    assert_joined(family, bases, parts, ranks[2], make_inputs, tmp_path, use_rslora=use_rslora)


FUSION = {"modules_to_save": ["answerability_head"], "exclude_modules": r"answerability_head\..*"}


def assert_joined(family, bases, parts, rank, make_inputs, tmp_path, **settings):
    """That the adapters of two parts, and one of that rank of their fusion, are the joined one."""
    shape = {"fusion_num_heads": 4, "fusion_dropout": 0.0}
    torch.manual_seed(2)
    model = CrossTaskForConditionalGeneration.from_tasks(
        *(part or base for part, base in zip(parts, bases, strict=True)), **shape
    )
    expected = adapted(model, family, rank, **FUSION | settings)
    expected.save_pretrained(tmp_path / "fused")
    (tmp_path / "joined").mkdir()
    join_adapters(tmp_path / "fused", *parts, tmp_path / "joined")

    torch.manual_seed(3)  # another fusion, that the adapter's has to replace
    base = CrossTaskForConditionalGeneration.from_tasks(*bases, **shape)
    found = PeftModel.from_pretrained(base, tmp_path / "joined").eval()
    inputs = make_inputs(model)
    with torch.no_grad():
        expected, found = expected(**inputs), found(**inputs)
    torch.testing.assert_close(found.logits, expected.logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        found.answerability_logits, expected.answerability_logits, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    "family, settings",
    [
        ("t5", {"modules_to_save": ["answerability_head", "final_layer_norm"]}),
        ("bart", {"bias": "lora_only", "target_modules": ["q_proj", "fc2"]}),
    ],
)
def test_what_the_fusion_stage_trains_whole_is_kept(family, settings, make_part, make_inputs, tmp_path):
    bases = [save_part(make_part, family, seed, tmp_path / f"base{seed}") for seed in (0, 1)]
    parts = [stage(base, family, 2, tmp_path / f"part{number}") for number, base in enumerate(bases)]
    assert_joined(family, bases, parts, 2, make_inputs, tmp_path, **settings)


@pytest.mark.parametrize(
    "family, settings, lost",
    [
        (
            "t5",
            {"modules_to_save": ["answerability_head", "v"], "target_modules": ["q"]},
            r"v.weight",
        ),  # has LoRA before
        ("bart", {"bias": "all", "target_modules": ["q_proj"]}, r"v_proj.bias"),
        ("bart", {"lora_bias": True}, r"q_proj.lora_B.bias"),
        ("t5", {"target_modules": ["shared", "q"]}, r"shared.lora_embedding_A"),
    ],
)
def test_of_the_fusion_stage_too_nothing_is_lost(family, settings, lost, make_part, make_inputs, tmp_path):
    bases = [save_part(make_part, family, seed, tmp_path / f"base{seed}") for seed in (0, 1)]
    parts = [stage(base, family, 2, tmp_path / f"part{number}") for number, base in enumerate(bases)]
    with pytest.raises(ValueError, match=f"fused is an adapter with .*{lost}, expected plain LoRA"):
        assert_joined(family, bases, parts, 2, make_inputs, tmp_path, **settings)


def test_only_the_encoder_of_the_answerer_is_taken(make_part, tmp_path):
    base = save_part(make_part, "t5", 0, tmp_path / "base")
    part = stage(base, "t5", 2, tmp_path / "part")
    model = CrossTaskForConditionalGeneration.from_tasks(base, part, fusion_num_heads=4)
    adapted(
        model, "t5", 2, modules_to_save=["answerability_head"], exclude_modules=r"answerability_head\..*"
    ).save_pretrained(tmp_path / "fused")
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


@pytest.mark.parametrize(
    "family, settings, lost",
    [
        ("bart", {"bias": "lora_only"}, "q_proj.base_layer.bias"),
        ("bart", {"lora_bias": True}, "q_proj.lora_B.bias"),
        ("t5", {"target_modules": ["shared", "q"]}, "shared.lora_embedding_A"),
        ("t5", {"modules_to_save": ["layer_norm"]}, "layer_norm.weight"),
        ("t5", {"init_lora_weights": "olora"}, "init_lora_weights"),
    ],
)
def test_what_would_be_lost_is_refused(family, settings, lost, make_part, tmp_path):
    base = save_part(make_part, family, 0, tmp_path / "base")
    plain = stage(base, family, 2, tmp_path / "plain")
    more = stage(base, family, 2, tmp_path / "more", **{"target_modules": NAMES[family]} | settings)
    for parts in ((more, plain), (plain, more)):
        with pytest.raises(ValueError, match=f"more is an adapter with .*{lost}, expected plain LoRA"):
            join_adapters(plain, *parts, tmp_path)
