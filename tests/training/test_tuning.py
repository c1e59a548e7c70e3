"""Tuning: adapters of several methods, quantization, and freezing all but the last layers."""

import pytest
import torch
import transformers
from peft import PeftModel
from safetensors.torch import load_file
from tiny_run import WITHOUT_PARTS, write_recipe
from transformers import T5Config

from crosstask import CrossTaskConfig, CrossTaskForConditionalGeneration, train
from crosstask.loading_crosstask import merge_adapter
from crosstask.training.arguments import StageArguments
from crosstask.training.tuning import (
    add_adapter,
    cast_float16,
    freeze_all_but_last,
    make_adapter_config,
    make_quantization_config,
)
from crosstask.utils.errors import ConfigError
from crosstask.utils.logs import warn_once

LAYERS = {"t5": ["q", "v"], "bart": ["q_proj", "v_proj"]}
FEED_FORWARD = {"t5": ["wo"], "bart": ["fc2"]}


def make_stage(**values):
    return StageArguments(data="briefs", **values)


def methods(family):
    layers, feed_forward = LAYERS[family], FEED_FORWARD[family]
    return {
        "lora": {"lora_r": 2, "lora_target_modules": layers},
        "dora": {"lora_r": 2, "lora_target_modules": layers, "peft": {"use_dora": True}},
        "rslora": {"peft": {"use_rslora": True, "r": 3, "target_modules": layers}},
        "ia3": {
            "peft": {
                "peft_type": "IA3",
                "target_modules": [*layers, *feed_forward],
                "feedforward_modules": feed_forward,
            }
        },
        "loha": {"peft": {"peft_type": "LOHA", "r": 2, "target_modules": layers}},
    }


def test_lora_keys_make_a_lora_config():
    assert make_adapter_config(make_stage()) is None
    config = make_adapter_config(
        make_stage(lora_r=4, lora_alpha=8, lora_dropout=0.1, lora_target_modules=["k"])
    )
    assert (config.r, config.lora_alpha, config.lora_dropout, config.target_modules) == (4, 8, 0.1, {"k"})
    config = make_adapter_config(make_stage(lora_r=4, peft={"use_dora": True, "lora_alpha": 5}))
    assert (config.r, config.lora_alpha, config.use_dora) == (4, 5, True)
    assert config.target_modules == {"q", "v"}


@pytest.mark.parametrize(
    "values, message",
    [
        ({"peft": {"peft_type": "NOPE"}}, "peft: unknown peft_type 'NOPE', expected one of ADALORA"),
        ({"peft": {"use_dorra": True}}, "peft: .*unexpected keyword argument 'use_dorra'"),
        ({"peft": {"peft_type": "IA3"}}, "peft: target_modules: expected the names of the layers that IA3"),
        (
            {"peft": {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 4}},
            "peft: target_modules: expected the names",
        ),
        (
            {"lora_r": 2, "peft": {"peft_type": "IA3", "target_modules": ["q"]}},
            "lora_r: expected 0 beside peft, whose peft_type is IA3",
        ),
        (
            {"peft": {"peft_type": "IA3", "target_modules": ["q"], "feedforward_modules": ["x"]}},
            "peft: .*subset",
        ),
    ],
)
def test_wrong_adapter_settings_raise(values, message):
    with pytest.raises(ConfigError, match=message):
        make_adapter_config(make_stage(**values))


@pytest.fixture(params=[("t5", "classifier"), ("bart", "gated")], ids="-".join)
def shape(request):
    return request.param


@pytest.mark.parametrize("method", list(methods("t5")))
@pytest.mark.parametrize("new_fusion", [True, False])
def test_a_saved_adapter_is_loaded_and_merged(method, new_fusion, shape, make_model, make_inputs, tmp_path):
    family, fusion = shape
    model = make_model(family, family, fusion=fusion)
    model.save_pretrained(tmp_path / "base")
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    model = add_adapter(model, make_adapter_config(make_stage(**methods(family)[method])), new_fusion)
    inputs = make_inputs(model.base_model.model)
    random = torch.Generator().manual_seed(0)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.train()(**inputs, answerable=torch.tensor([1, 0])).loss.backward()
    assert all(parameter.grad is not None for parameter in trained)
    for parameter in trained:
        parameter.data += 0.2 * torch.randn(parameter.shape, generator=random)
    expected = model.eval()(**inputs)
    model.save_pretrained(tmp_path / "adapter")

    names = load_file(tmp_path / "adapter" / "adapter_model.safetensors").keys()
    fusion_modules = {"answerability_head"} | ({"gated_cross_attention"} if fusion == "gated" else set())
    fully_trained = {name.split(".")[2] for name in names if name.endswith(("fc1.weight", "gates"))}
    is_lora = method in ("lora", "dora", "rslora")
    assert fully_trained == (set() if is_lora and not new_fusion else fusion_modules)
    assert {name.split(".")[2] for name in names} == {"summarizer", "question_encoder", *fusion_modules}

    fresh = CrossTaskForConditionalGeneration.from_pretrained(tmp_path / "base")
    assert all(torch.equal(weight, before[name]) for name, weight in fresh.named_parameters())
    assert not torch.allclose(fresh(**inputs).logits, expected.logits, atol=1e-4)
    switched = CrossTaskForConditionalGeneration.from_pretrained(tmp_path / "base")
    switched.load_adapter(tmp_path / "adapter")
    adapted = PeftModel.from_pretrained(fresh, tmp_path / "adapter").eval()
    for loaded in (switched, adapted, merge_adapter(adapted).eval()):
        output = loaded(**inputs)
        torch.testing.assert_close(output.logits, expected.logits, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(
            output.answerability_logits, expected.answerability_logits, rtol=1e-3, atol=1e-4
        )


def test_unknown_target_modules_raise(make_model):
    with pytest.raises(ConfigError, match=r"target_modules: none of \['nope'\] is a layer of the model"):
        add_adapter(
            make_model(), make_adapter_config(make_stage(lora_r=2, lora_target_modules=["nope"])), True
        )


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"init_lora_weights": "nope"}, "^peft: Unknown initialization"),
        ({"r": "two"}, "^peft: '<=' not supported"),
        ({"modules_to_save": ["nope"]}, "^peft: modules_to_save: 'nope' is not a module of the model"),
    ],
)
def test_settings_that_peft_refuses_raise(make_model, settings, message):
    with pytest.raises(ConfigError, match=message) as caught:
        add_adapter(make_model(), make_adapter_config(make_stage(lora_r=2, peft=settings)), True)
    assert "\n" not in str(caught.value)


def get_trained_names(model):
    return {name for name, weight in model.named_parameters() if weight.requires_grad}


def test_a_pattern_of_target_modules_is_not_extended(make_model):
    config = make_adapter_config(make_stage(peft={"r": 2, "target_modules": r"summarizer\..*\.q"}))
    assert all(
        "summarizer" in name
        for name in get_trained_names(add_adapter(make_model(), config, new_fusion=False))
    )


@pytest.mark.parametrize("layers", ["all-linear", r".*\.(q|v)"])
def test_a_new_fusion_is_fully_trained_with_any_target_modules(make_model, layers):
    config = make_adapter_config(make_stage(peft={"r": 2, "target_modules": layers}))
    model = add_adapter(make_model(fusion="gated"), config, new_fusion=True)
    fully_trained = {name.split(".")[2] for name in get_trained_names(model) if "modules_to_save" in name}
    assert fully_trained == {"answerability_head", "gated_cross_attention"}
    assert any(name.endswith("modules_to_save.default.gates") for name in get_trained_names(model))
    assert not any(
        "lora_" in name for name in get_trained_names(model) if name.split(".")[2] in fully_trained
    )


@pytest.mark.parametrize("excluded", [["k"], r".*\.k"])
def test_exclude_modules_apply_beside_a_new_fusion(make_model, excluded):
    settings = {"r": 2, "target_modules": ["q", "k"], "exclude_modules": excluded}
    names = get_trained_names(
        add_adapter(make_model(), make_adapter_config(make_stage(peft=settings)), new_fusion=True)
    )
    assert any(".q.lora_A" in name for name in names)
    assert not any(".k.lora_A" in name for name in names)


def test_the_adapter_of_a_large_model_takes_less_than_40_mb():
    # Flan-T5-large's shape (https://huggingface.co/google/flan-t5-large, config.json).
    large = {
        "d_model": 1024,
        "d_ff": 2816,
        "num_layers": 24,
        "num_heads": 16,
        "d_kv": 64,
        "vocab_size": 32128,
    }
    large |= {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
    config = CrossTaskConfig(T5Config(**large), T5Config(**large), fusion="gated")
    with torch.device("meta"):
        model = CrossTaskForConditionalGeneration(config)
        model = add_adapter(model, make_adapter_config(make_stage(lora_r=16)), new_fusion=False)
    adapted = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    assert adapted * 4 < 40e6


@pytest.mark.parametrize("layers", [0, 1, 2])
def test_freezing_leaves_the_last_layers_and_the_fusion(layers, shape, make_model):
    family, fusion = shape
    model = freeze_all_but_last(make_model(family, "t5", fusion=fusion), layers)
    prefix = {"t5": "summarizer.decoder.block.", "bart": "summarizer.model.decoder.layers."}[family]
    expected = tuple(f"{prefix}{layer}." for layer in range(2 - layers, 2)) + (
        "answerability_head.",
        "gated_cross_attention.",
    )
    for name, weight in model.named_parameters():
        assert weight.requires_grad == name.startswith(expected)


def test_a_wrong_number_of_layers_raises(make_model):
    with pytest.raises(ConfigError, match="trainable.decoder_layers: expected 0 to 2, .* got 3"):
        freeze_all_but_last(make_model(), 3)
    with pytest.raises(ConfigError, match="trainable.decoder_layers: expected 1 to 2, .* got 0"):
        freeze_all_but_last(make_model().summarizer, 0)


FURTHER = {
    "ia3": {"peft": methods("t5")["ia3"]["peft"]},
    "dora": {"lora_r": 2, "peft": {"use_dora": True}},
    "last": {"trainable": {"decoder_layers": 1}},
}


@pytest.mark.parametrize("method", list(FURTHER))
def test_a_run_trains_what_the_recipe_selects(method, trained_run, tmp_path):
    base = trained_run[1] / "crosstask"
    settings = WITHOUT_PARTS | {"model": str(base), "learning_rate": 0.1} | FURTHER[method]
    train.main([str(write_recipe(tmp_path, **settings))])
    before, after = (load_file(path / "model.safetensors") for path in (base, tmp_path / "run" / "crosstask"))
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert any("decoder" in name for name in changed) and any(
        "answerability_head" in name for name in changed
    )
    assert not any("embed" in name or "shared" in name for name in changed)
    if method == "last":
        assert all(
            name.startswith(("summarizer.decoder.block.0.", "answerability_head.")) for name in changed
        )
    assert (tmp_path / "run" / "adapter").exists() == (method != "last")


@pytest.mark.parametrize(
    "values, message",
    [
        ({"trainable": {"decoder_layer": 1}}, "trainable: unknown key 'decoder_layer'; did you mean"),
        (
            {"trainable": {"decoder_layers": "2"}},
            "trainable.decoder_layers: expected an integer of 0 or more",
        ),
        ({"trainable": {"decoder_layers": 1}, "lora_r": 2}, "trainable: expected none beside lora_r"),
        ({"trainable": {"decoder_layers": 9}}, "fuse.trainable.decoder_layers: expected 0 to 1"),
        ({"peft": {"peft_type": "nope"}}, "fuse: peft: unknown peft_type 'NOPE'"),
        ({"quantization": "int8"}, "fuse: quantization: expected lora_r or peft beside it"),
        ({"quantization": "int3", "lora_r": 2}, "fuse: quantization: expected int8 or nf4, got 'int3'"),
        (
            {"peft": {"peft_type": "IA3", "target_modules": ["nope"], "feedforward_modules": []}},
            r"fuse.lora_target_modules, or peft: target_modules: none of \['nope'\] is a layer",
        ),
    ],
)
def test_wrong_recipe_values_raise(values, message, trained_run, tmp_path):
    recipe = write_recipe(tmp_path, model=str(trained_run[1] / "crosstask"), **WITHOUT_PARTS, **values)
    with pytest.raises(SystemExit, match=message):
        train.main([str(recipe)])


def test_adapters_are_switched_and_stacked_by_name(make_model, make_inputs, tmp_path):
    make_model().save_pretrained(tmp_path / "base")

    def base():
        return CrossTaskForConditionalGeneration.from_pretrained(tmp_path / "base")

    inputs = make_inputs(base())
    for seed, name in enumerate("ab"):
        adapted = add_adapter(base(), make_adapter_config(make_stage(lora_r=2 + seed)), new_fusion=False)
        random = torch.Generator().manual_seed(seed)
        for weight in adapted.parameters():
            if weight.requires_grad:
                weight.data = 0.2 * torch.randn(weight.shape, generator=random)
        adapted.save_pretrained(tmp_path / name)
    single = {
        name: merge_adapter(PeftModel.from_pretrained(base(), tmp_path / name)).eval()(**inputs)
        for name in "ab"
    }
    both = merge_adapter(PeftModel.from_pretrained(base(), tmp_path / "a"))
    both = merge_adapter(PeftModel.from_pretrained(both, tmp_path / "b")).eval()(**inputs)

    model = base()
    for name in "ab":
        model.load_adapter(str(tmp_path / name), adapter_name=name)
    for names, expected in (("a", single["a"]), (["a", "b"], both), ("b", single["b"]), ("a", single["a"])):
        model.set_adapter(names)
        output = model(**inputs)
        torch.testing.assert_close(output.logits, expected.logits, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(
            output.answerability_logits, expected.answerability_logits, rtol=1e-3, atol=1e-4
        )
    model.disable_adapters()
    torch.testing.assert_close(model(**inputs).logits, base()(**inputs).logits)
    with pytest.raises(ValueError, match="nope"):
        model.set_adapter("nope")


def test_quantization_skips_the_fusion_and_the_lm_head(make_part, make_inputs, tmp_path):
    pytest.importorskip("bitsandbytes")
    part = make_part("bart", d_model=64, encoder_ffn_dim=64, decoder_ffn_dim=64)
    model = CrossTaskForConditionalGeneration(
        CrossTaskConfig(part, make_part("t5", d_model=64, d_ff=64), fusion="gated", fusion_num_heads=4)
    ).eval()
    model.gated_cross_attention.gates.data.fill_(0.3)
    model.save_pretrained(tmp_path)
    inputs = make_inputs(model)
    expected = model(**inputs).logits
    for kind, error in (("int8", 0.05), ("nf4", 0.3)):
        config = make_quantization_config(make_stage(quantization=kind))
        quantized = CrossTaskForConditionalGeneration.from_pretrained(tmp_path, quantization_config=config)
        # The caller's configuration is not changed.
        assert config.llm_int8_skip_modules is None
        linear = {
            name: type(module) is torch.nn.Linear
            for name, module in quantized.named_modules()
            if isinstance(module, torch.nn.Linear)
        }
        skipped = {name for name, is_skipped in linear.items() if is_skipped}
        assert {name.split(".")[0] for name in skipped - {"summarizer.lm_head"}} <= {
            "answerability_head",
            "gated_cross_attention",
            "question_encoder",
        }
        assert {
            name for name in linear if name.startswith(("answerability_head", "gated_cross_attention"))
        } | {"summarizer.lm_head"} <= skipped
        # transformers keeps T5's `wo` in float32.
        assert all(name.endswith("wo") for name in skipped if name.startswith("question_encoder"))
        difference = (quantized(**inputs).logits - expected).abs().max() / expected.abs().max()
        assert 0 < difference < error
        assert quantized.get_memory_footprint() < model.get_memory_footprint()
        adapted = add_adapter(
            quantized, make_adapter_config(make_stage(lora_r=2, lora_target_modules=["q", "q_proj"])), True
        )
        adapted.train()(**inputs, answerable=torch.tensor([1, 0])).loss.backward()
        gradients = {name for name, weight in adapted.named_parameters() if weight.grad is not None}
        assert {"lora", "answerability_head", "gated_cross_attention"} == {
            part
            for name in gradients
            for part in ("lora", "answerability_head", "gated_cross_attention")
            if part in name
        }
        assert all(weight.grad is None or weight.is_floating_point() for weight in adapted.parameters())


@pytest.mark.parametrize("family, width", [("t5", 64), ("bart", 64), ("t5", 96)])
@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_a_quantized_model_trains_and_generates_in_turn(
    kind, family, width, make_part, make_inputs, tmp_path
):
    """A run that evaluates between its steps does so. Some kernels do not support the last width."""
    bitsandbytes = pytest.importorskip("bitsandbytes")
    widths = {
        "t5": {"d_kv": width // 4, "d_ff": width},
        "bart": {"encoder_ffn_dim": width, "decoder_ffn_dim": width},
    }
    part = make_part(family, d_model=width, **widths[family])
    torch.manual_seed(0)
    CrossTaskForConditionalGeneration(
        CrossTaskConfig(part, part, fusion="gated", fusion_num_heads=4, fusion_dropout=0.0)
    ).save_pretrained(tmp_path)
    config = make_quantization_config(make_stage(quantization=kind))
    model = CrossTaskForConditionalGeneration.from_pretrained(tmp_path, quantization_config=config)
    layers = bitsandbytes.nn.Linear8bitLt, bitsandbytes.nn.Linear4bit
    quantized = {name for name, module in model.named_modules() if isinstance(module, layers)}
    assert {name.split(".")[0] for name in quantized} == {"summarizer", "question_encoder"}
    assert not any("lm_head" in name for name in quantized)
    lora = make_stage(lora_r=2, lora_dropout=0.0, lora_target_modules=LAYERS[family])
    model = add_adapter(model, make_adapter_config(lora), new_fusion=True)
    inputs = make_inputs(model.base_model.model)
    source = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    random = torch.Generator().manual_seed(0)
    for name, weight in trained.items():
        if "lora_B" in name:
            weight.data = 0.1 * torch.randn(weight.shape, generator=random)

    def gradients():
        model.zero_grad()
        model.train()(**inputs, answerable=torch.tensor([1, 0])).loss.backward()
        return {name: weight.grad.clone() for name, weight in trained.items() if weight.grad is not None}

    before = gradients()
    assert before.keys() == trained.keys()
    output = model.eval().generate(**source, max_new_tokens=5, return_dict_in_generate=True)
    assert output.answerability.isfinite().all()
    after = gradients()
    assert after.keys() == before.keys()
    for name, gradient in before.items():
        torch.testing.assert_close(after[name], gradient, msg=name)
    torch.optim.SGD(trained.values(), lr=0.1).step()
    assert model.eval().generate(**source, max_new_tokens=5).shape[0] == 2


@pytest.mark.parametrize(
    "keys", [{"load_in_8bit": True}, {"load_in_8bit": True, "quant_method": "bitsandbytes"}]
)
def test_a_quantization_config_as_a_dictionary_skips_the_same_modules(keys, make_model, tmp_path):
    bitsandbytes = pytest.importorskip("bitsandbytes")
    make_model(fusion="gated").save_pretrained(tmp_path)
    settings = keys | {"llm_int8_skip_modules": ["question_encoder"]}
    model = CrossTaskForConditionalGeneration.from_pretrained(tmp_path, quantization_config=dict(settings))
    quantized = [
        name for name, module in model.named_modules() if isinstance(module, bitsandbytes.nn.Linear8bitLt)
    ]
    assert quantized and all(
        name.startswith(("summarizer.encoder", "summarizer.decoder")) for name in quantized
    )


def test_the_quantization_keywords_of_transformers_4_skip_the_same_modules(make_model, tmp_path):
    bitsandbytes = pytest.importorskip("bitsandbytes")
    if not transformers.__version__.startswith("4."):
        pytest.skip("transformers 5 has quantization_config alone")
    make_model(fusion="gated").save_pretrained(tmp_path)
    model = CrossTaskForConditionalGeneration.from_pretrained(tmp_path, load_in_8bit=True)
    quantized = [
        name for name, module in model.named_modules() if isinstance(module, bitsandbytes.nn.Linear8bitLt)
    ]
    assert {name.split(".")[0] for name in quantized} == {"summarizer", "question_encoder"}
    assert not any("lm_head" in name for name in quantized)


def test_composing_with_a_quantization_config_raises(make_part, tmp_path):
    config = make_quantization_config(make_stage(quantization="int8"))
    with pytest.raises(ValueError, match="`model_kwargs`: parts are composed in full precision"):
        CrossTaskForConditionalGeneration.from_tasks("a", "b", model_kwargs={"quantization_config": config})


def test_quantization_without_bitsandbytes_raises(monkeypatch):
    monkeypatch.setattr("crosstask.training.tuning.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r'needs bitsandbytes: pip install "crosstask\[quantization\]"'):
        make_quantization_config(make_stage(quantization="int8"))


@pytest.mark.parametrize("further", [True, False])
def test_a_run_quantizes_the_weights_under_its_adapter(further, trained_run, tmp_path):
    pytest.importorskip("bitsandbytes")
    base = trained_run[1]
    settings = {"lora_r": 2, "learning_rate": 0.1, "quantization": "int8"}
    if further:
        settings |= WITHOUT_PARTS | {"model": str(base / "crosstask")}
    else:
        settings |= {side: str(base / side) for side in ("summarizer", "question_answerer")}
        settings |= {"summarizer_config": None, "question_answerer_config": None}
    train.main([str(write_recipe(tmp_path, **settings))])
    final = load_file(tmp_path / "run" / "crosstask" / "model.safetensors")
    start = load_file(base / "crosstask" / "model.safetensors")
    assert {name: weight.dtype for name, weight in final.items()} == {
        name: weight.dtype for name, weight in start.items()
    }
    # Weights without an adapter are saved as they were, to the last bit.
    original = start if further else load_file(base / "summarizer" / "model.safetensors")
    prefix = "" if further else "summarizer."
    name = "summarizer.decoder.block.0.layer.0.SelfAttention.{}.weight"
    for layer, changed in (("q", True), ("k", False)):
        same = torch.equal(final[name.format(layer)], original[name.format(layer).removeprefix(prefix)])
        assert same != changed


@pytest.mark.parametrize(
    ("dtypes", "expected"),
    [
        ((torch.float16, torch.float32), torch.float32),
        ((torch.float16, torch.bfloat16), torch.float32),
        ((torch.bfloat16, torch.bfloat16), torch.bfloat16),
    ],
)
def test_only_models_with_float16_weights_are_converted(make_model, caplog, dtypes, expected):
    warn_once.cache_clear()
    model = make_model()
    for part, dtype in zip((model.summarizer, model.question_encoder), dtypes, strict=True):
        part.to(dtype)
    model.answerability_head.to(dtypes[0])
    cast_float16(model)
    assert {weight.dtype for weight in model.parameters()} == {expected}
    assert ("trained in float32" in caplog.text) == (torch.float16 in dtypes)
