"""The joined adapter turns the public parts into the model that the stages trained."""

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForSeq2SeqLM

from crosstask import CrossTaskForConditionalGeneration
from crosstask.hub.adapters import join_adapters

TARGET_MODULES = {"t5": ["q", "v"], "bart": ["q_proj", "v_proj"]}
FUSION = {"modules_to_save": ["answerability_head"], "exclude_modules": r"answerability_head\..*"}


def add_random_lora(model, family, rank, **settings):
    """Add a LoRA adapter whose weights are random in both matrices, as if it had been trained."""
    settings = {"target_modules": TARGET_MODULES[family]} | settings
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


def save_adapter(base, family, rank, folder, **settings):
    model = AutoModelForSeq2SeqLM.from_pretrained(base)
    add_random_lora(model, family, rank, task_type="SEQ_2_SEQ_LM", **settings).save_pretrained(folder)
    return folder


@pytest.fixture
def make_bases(make_part, tmp_path):
    """`make_bases(family)`: folders of a summarizer and a question answerer with random weights."""
    return lambda family: [save_part(make_part, family, seed, tmp_path / f"base{seed}") for seed in (0, 1)]


def assert_joined_equals_stages(family, bases, adapters, rank, make_inputs, folder, **settings):
    """
    Check that the joined adapter on the original parts gives the outputs of the model that has the three
    adapters in stages.
    """
    shape = {"fusion_num_heads": 4, "fusion_dropout": 0.0}
    torch.manual_seed(2)
    parts = [adapter or base for adapter, base in zip(adapters, bases, strict=True)]
    model = CrossTaskForConditionalGeneration.from_tasks(*parts, **shape)
    expected = add_random_lora(model, family, rank, **FUSION | settings)
    expected.save_pretrained(folder / "fused")
    (folder / "joined").mkdir()
    join_adapters(folder / "fused", *adapters, folder / "joined")

    torch.manual_seed(3)  # another random fusion, which the adapter's weights have to replace
    base = CrossTaskForConditionalGeneration.from_tasks(*bases, **shape)
    joined = PeftModel.from_pretrained(base, folder / "joined").eval()
    inputs = make_inputs(model)
    with torch.no_grad():
        expected, actual = expected(**inputs), joined(**inputs)
    for name in ("logits", "answerability_logits"):
        torch.testing.assert_close(actual[name], expected[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("use_rslora", [False, True])
@pytest.mark.parametrize(
    "family, ranks",
    [("t5", (2, 3, 4)), ("bart", (2, 2, 2)), ("t5", (0, 3, 2)), ("bart", (2, 0, 3)), ("t5", (0, 0, 2))],
)
def test_the_joined_adapter_equals_all_stages(family, ranks, use_rslora, make_bases, make_inputs, tmp_path):
    bases = make_bases(family)
    adapters = [
        save_adapter(base, family, rank, tmp_path / f"adapter{number}", use_rslora=use_rslora)
        if rank
        else None
        for number, (base, rank) in enumerate(zip(bases, ranks[:2], strict=True))
    ]
    assert_joined_equals_stages(
        family, bases, adapters, ranks[2], make_inputs, tmp_path, use_rslora=use_rslora
    )


@pytest.mark.parametrize(
    "family, settings",
    [
        ("t5", {"modules_to_save": ["answerability_head", "final_layer_norm"]}),
        ("bart", {"bias": "lora_only", "target_modules": ["q_proj", "fc2"]}),
    ],
)
def test_full_weights_of_the_fusion_stage_are_copied(family, settings, make_bases, make_inputs, tmp_path):
    bases = make_bases(family)
    adapters = [
        save_adapter(base, family, 2, tmp_path / f"adapter{number}") for number, base in enumerate(bases)
    ]
    assert_joined_equals_stages(family, bases, adapters, 2, make_inputs, tmp_path, **settings)


@pytest.mark.parametrize(
    "family, settings, weight",
    [
        # An earlier stage has LoRA on `v`.
        ("t5", {"modules_to_save": ["answerability_head", "v"], "target_modules": ["q"]}, r"v.weight"),
        ("bart", {"bias": "all", "target_modules": ["q_proj"]}, r"v_proj.bias"),
        ("bart", {"lora_bias": True}, r"q_proj.lora_B.bias"),
        ("t5", {"target_modules": ["shared", "q"]}, r"shared.lora_embedding_A"),
    ],
)
def test_unsupported_weights_of_the_fusion_stage_are_refused(
    family, settings, weight, make_bases, make_inputs, tmp_path
):
    bases = make_bases(family)
    adapters = [
        save_adapter(base, family, 2, tmp_path / f"adapter{number}") for number, base in enumerate(bases)
    ]
    with pytest.raises(ValueError, match=f"fused is an adapter with .*{weight}, expected plain LoRA"):
        assert_joined_equals_stages(family, bases, adapters, 2, make_inputs, tmp_path, **settings)


def test_only_the_encoder_of_the_question_answerer_is_used(make_part, tmp_path):
    base = save_part(make_part, "t5", 0, tmp_path / "base")
    adapter = save_adapter(base, "t5", 2, tmp_path / "adapter")
    model = CrossTaskForConditionalGeneration.from_tasks(base, adapter, fusion_num_heads=4)
    add_random_lora(model, "t5", 2, **FUSION).save_pretrained(tmp_path / "fused")
    (tmp_path / "joined").mkdir()
    join_adapters(tmp_path / "fused", None, adapter, tmp_path / "joined")
    names = load_file(tmp_path / "joined" / "adapter_model.safetensors").keys()
    assert names == load_file(tmp_path / "fused" / "adapter_model.safetensors").keys()


@pytest.mark.parametrize("settings", [{"use_dora": True}, {"rank_pattern": {"q": 1}}])
def test_other_kinds_of_fusion_adapters_are_refused(settings, make_part, tmp_path):
    base = save_part(make_part, "t5", 0, tmp_path / "base")
    adapter = save_adapter(base, "t5", 2, tmp_path / "adapter", **settings)
    key = next(iter(settings))
    with pytest.raises(ValueError, match=f"adapter is an adapter with {key}, expected plain LoRA"):
        join_adapters(adapter, None, None, tmp_path)


@pytest.mark.parametrize(
    "family, settings, problem",
    [
        ("bart", {"bias": "lora_only"}, "q_proj.base_layer.bias"),
        ("bart", {"lora_bias": True}, "q_proj.lora_B.bias"),
        ("t5", {"target_modules": ["shared", "q"]}, "shared.lora_embedding_A"),
        ("t5", {"modules_to_save": ["layer_norm"]}, "layer_norm.weight"),
        ("t5", {"init_lora_weights": "olora"}, "init_lora_weights"),
    ],
)
def test_unsupported_weights_of_a_part_are_refused(family, settings, problem, make_part, tmp_path):
    base = save_part(make_part, family, 0, tmp_path / "base")
    plain = save_adapter(base, family, 2, tmp_path / "plain")
    settings = {"target_modules": TARGET_MODULES[family]} | settings
    unsupported = save_adapter(base, family, 2, tmp_path / "unsupported", **settings)
    for adapters in ((unsupported, plain), (plain, unsupported)):
        with pytest.raises(
            ValueError, match=f"unsupported is an adapter with .*{problem}, expected plain LoRA"
        ):
            join_adapters(plain, *adapters, tmp_path)
