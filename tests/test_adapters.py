"""Adapters of a cross-task model: outputs, switching, deleting, saving, and errors."""

import json
import shutil

import pytest
import torch
from peft import AutoPeftModelForSeq2SeqLM, IA3Config, LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tiny_adapter import make_peft_model
from transformers import AutoModelForSeq2SeqLM
from transformers.utils import logging

from crosstask import CrossTaskConfig, CrossTaskForConditionalGeneration

IA3 = IA3Config(target_modules=["k", "v", "wo"], feedforward_modules=["wo"])
ANSWERABLE = {"answerable": torch.tensor([1, 0])}


@pytest.fixture(scope="module")
def folders(make_model, tmp_path_factory):
    """A folder with a model, `base`, and two adapters on it, `a` and `b`."""
    folder = tmp_path_factory.mktemp("adapters")
    make_model().save_pretrained(folder / "base")
    for seed, name in enumerate("ab"):
        make_peft_model(folder / "base", seed).save_pretrained(folder / name)
    return folder


@pytest.fixture
def base(folders):
    return CrossTaskForConditionalGeneration.from_pretrained(folders / "base")


@torch.no_grad()
def run(model, inputs):
    """Return the outputs of `forward` and `generate`."""
    output = model(**inputs, **ANSWERABLE)
    ids = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    generated = model.generate(**ids, max_new_tokens=6, return_dict_in_generate=True)
    return {
        "logits": output.logits,
        "answerability_logits": output.answerability_logits,
        "loss": output.loss,
        "sequences": generated.sequences,
        "answerability": generated.answerability,
    }


def assert_same_output(output, expected):
    for name, value in expected.items():
        torch.testing.assert_close(
            output[name], value, rtol=1e-3, atol=5e-4, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.fixture
def references(folders, base, make_inputs):
    """Inputs, and the outputs of the base model and of both merged adapters by name."""
    inputs = make_inputs(base)
    merged = {
        name: make_peft_model(folders / "base", seed).merge_and_unload().eval()
        for seed, name in enumerate("ab")
    }
    return inputs, {name: run(model, inputs) for name, model in {"base": base, **merged}.items()}


def test_adapters_are_switched_by_name(folders, base, references):
    inputs, outputs = references
    assert not torch.allclose(outputs["a"]["answerability"], outputs["b"]["answerability"])
    base.load_adapter(folders / "a", adapter_name="a")
    assert_same_output(run(base, inputs), outputs["a"])
    base.load_adapter(folders / "b", adapter_name="b")
    for name in "bab":
        base.set_adapter(name)
        assert base.active_adapters() == [name]
        assert_same_output(run(base, inputs), outputs[name])


def test_switching_between_adapters_with_and_without_a_fusion(folders, base, references, tmp_path):
    inputs, _ = references
    make_peft_model(folders / "base", 5, modules_to_save=None).save_pretrained(tmp_path / "plain")
    alone = make_peft_model(folders / "base", 5, modules_to_save=None).merge_and_unload().eval()
    outputs = {"plain": run(alone, inputs), "a": references[1]["a"]}
    for order in (("a", "plain"), ("plain", "a")):
        model = CrossTaskForConditionalGeneration.from_pretrained(folders / "base")
        for name in order:
            model.load_adapter((tmp_path if name == "plain" else folders) / name, adapter_name=name)
            assert_same_output(run(model, inputs), outputs[name])
        assert not any(
            parameter.requires_grad for name, parameter in model.named_parameters() if "lora" in name
        )
        for name in ("a", "plain", "a"):
            model.set_adapter(name)
            assert_same_output(run(model, inputs), outputs[name])
        model.disable_adapters()
        model.set_adapter("plain")
        assert_same_output(run(model, inputs), references[1]["base"])
        model.enable_adapters()
        assert_same_output(run(model, inputs), outputs["plain"])


def test_disabling_and_enabling_an_adapter(folders, base, references):
    inputs, outputs = references
    base.load_adapter(folders / "a")
    base.disable_adapters()
    output = run(base, inputs)
    assert all(torch.equal(output[name], value) for name, value in outputs["base"].items())
    base.enable_adapters()
    assert_same_output(run(base, inputs), outputs["a"])


def test_deleting_an_adapter_keeps_the_other_one(folders, base, references):
    inputs, outputs = references
    for name in "ab":
        base.load_adapter(folders / name, adapter_name=name)
    base.set_adapter("b")
    base.delete_adapter("a")
    assert base.active_adapters() == ["b"]
    assert_same_output(run(base, inputs), outputs["b"])


@pytest.mark.parametrize("deleted", ["plain", "full"])
def test_deleting_an_adapter_keeps_the_fusion_of_the_other_one(folders, base, references, tmp_path, deleted):
    make_peft_model(folders / "base", 5, modules_to_save=None).save_pretrained(tmp_path / "plain")
    base.load_adapter(folders / "a", adapter_name="full")
    base.load_adapter(tmp_path / "plain", adapter_name="plain")
    other = {"plain": "full", "full": "plain"}[deleted]
    base.set_adapter(other)
    outputs = run(base, references[0])
    base.set_adapter(deleted)
    base.delete_adapter(deleted)
    assert base.active_adapters() == [other]
    assert_same_output(run(base, references[0]), outputs)


def test_deleting_the_last_adapter_restores_the_model(folders, base, references, tmp_path):
    inputs, outputs = references
    before = {name: value.clone() for name, value in base.state_dict().items()}
    for name in "ab":
        base.load_adapter(folders / name, adapter_name=name)
    base.delete_adapter(["a", "b"])
    base.save_pretrained(tmp_path)
    again = CrossTaskForConditionalGeneration.from_pretrained(tmp_path)
    for model in (base, again):
        weights = model.state_dict()
        assert weights.keys() == before.keys()
        assert all(torch.equal(weights[name], value) for name, value in before.items())
        output = run(model, inputs)
        assert all(torch.equal(output[name], value) for name, value in outputs["base"].items())
    base.load_adapter(folders / "a")
    assert_same_output(run(base, inputs), outputs["a"])


def test_peft_and_auto_classes_load_the_adapters(hub, alice, folders, base, references):
    inputs, outputs = references
    assert_same_output(run(PeftModel.from_pretrained(base, folders / "a"), inputs), outputs["a"])
    CrossTaskForConditionalGeneration.from_pretrained(folders / "base").push_to_hub("alice/base")
    make_peft_model("alice/base", 0).push_to_hub("alice/adapter")
    assert "adapter_model.safetensors" in hub.files("alice/adapter")
    assert "model.safetensors" not in hub.files("alice/adapter")
    for auto_class in (AutoPeftModelForSeq2SeqLM, AutoModelForSeq2SeqLM):
        assert_same_output(run(auto_class.from_pretrained("alice/adapter"), inputs), outputs["a"])
    again = CrossTaskForConditionalGeneration.from_pretrained("alice/base")
    again.load_adapter("alice/adapter")
    assert_same_output(run(again, inputs), outputs["a"])


def test_saving_a_model_with_an_adapter_saves_the_adapter(folders, base, references, tmp_path):
    inputs, outputs = references
    base.load_adapter(folders / "a")
    base.save_pretrained(tmp_path)
    assert not (tmp_path / "model.safetensors").exists()
    other = CrossTaskForConditionalGeneration.from_pretrained(folders / "base")
    other.load_adapter(tmp_path)
    assert_same_output(run(other, inputs), outputs["a"])


@pytest.fixture
def unfit_adapters(folders, make_model, make_part, tmp_path):
    """Adapters that do not fit the model, with the end of the error about each: its base model."""
    make_model("bart").save_pretrained(tmp_path / "bart")
    make_peft_model(tmp_path / "bart", 0, target_modules=["q_proj"]).save_pretrained(tmp_path / "of bart")
    plain = AutoModelForSeq2SeqLM.from_config(make_part("t5"))
    get_peft_model(plain, LoraConfig(target_modules=["q"])).save_pretrained(tmp_path / "of t5")
    make_model(fusion_dim=16, fusion_num_heads=2).save_pretrained(tmp_path / "narrow")
    make_peft_model(tmp_path / "narrow", 0).save_pretrained(tmp_path / "of narrow")
    shallow = CrossTaskConfig(make_part("t5", num_layers=1, num_decoder_layers=2), make_part("t5"))
    CrossTaskForConditionalGeneration(shallow).save_pretrained(tmp_path / "shallow")
    make_peft_model(tmp_path / "shallow", 0).save_pretrained(tmp_path / "of shallow")
    model = CrossTaskForConditionalGeneration.from_pretrained(tmp_path / "shallow")
    get_peft_model(model, IA3).save_pretrained(tmp_path / "IA3 of shallow")
    shutil.copytree(folders / "a", tmp_path / "half")
    file = tmp_path / "half/adapter_model.safetensors"
    save_file({name: weight for name, weight in load_file(file).items() if ".decoder." not in name}, file)
    bases = {"of bart": "bart", "of t5": "does not name", "of narrow": "narrow", "of shallow": "shallow"}
    bases |= {"IA3 of shallow": "shallow", "half": "base"}
    return {tmp_path / name: base for name, base in bases.items()}


def test_an_adapter_of_another_model_is_refused(base, unfit_adapters):
    for folder, base_name in unfit_adapters.items():
        message = f"^adapter .*{folder.name} does not fit the model .*base .*; load it on .*{base_name}.$"
        with pytest.raises(ValueError, match=message) as caught:
            base.load_adapter(folder)
        assert "\n" not in str(caught.value)


def test_a_refused_adapter_leaves_the_model_unchanged(folders, base, unfit_adapters, references, tmp_path):
    inputs, outputs = references
    before = base.state_dict().keys()
    for folder in unfit_adapters:
        with pytest.raises(ValueError, match="does not fit"):
            base.load_adapter(folder, adapter_name="x")
    assert base.state_dict().keys() == before
    assert_same_output(run(base, inputs), outputs["base"])
    base.save_pretrained(tmp_path / "again")
    CrossTaskForConditionalGeneration.from_pretrained(tmp_path / "again")
    for name in "ab":
        base.load_adapter(folders / name, adapter_name=name)
    base.set_adapter("a")
    for folder in unfit_adapters:
        with pytest.raises(ValueError, match="does not fit"):
            base.load_adapter(folder, adapter_name="x")
        assert base.active_adapters() == ["a"] and set(base.peft_config) == {"a", "b"}
    assert_same_output(run(base, inputs), outputs["a"])


def test_a_peft_that_is_too_old_is_refused_before_loading(folders, base, monkeypatch):
    # Each version of transformers has its own minimum, and checks it at every switch.
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0.0.1")
    before = base.state_dict().keys()
    with pytest.raises(ValueError, match="version of PEFT you are using is not compatible"):
        base.load_adapter(folders / "a")
    assert base.state_dict().keys() == before and not getattr(base, "peft_config", None)


def test_adapters_with_updates_and_with_a_copy_of_the_fusion_are_not_mixed(
    folders, base, references, tmp_path
):
    updated = {
        "target_modules": ["q", "answerability_head.fc1"],
        "modules_to_save": None,
        "exclude_modules": None,
    }
    make_peft_model(folders / "base", 3, **updated).save_pretrained(tmp_path / "updated")
    updated = run(make_peft_model(folders / "base", 3, **updated).merge_and_unload().eval(), references[0])
    outputs = {folders / "a": references[1]["a"], tmp_path / "updated": updated}
    for first, second in (outputs, reversed(outputs)):
        model = CrossTaskForConditionalGeneration.from_pretrained(folders / "base")
        model.load_adapter(first, adapter_name="first")
        with pytest.raises(
            ValueError, match=r"module 'answerability_head', .* \(first\) .*another copy of the model.$"
        ):
            model.load_adapter(second, adapter_name="second")
        assert_same_output(run(model, references[0]), outputs[first])


def test_trained_biases_are_refused(folders, make_model, tmp_path):
    make_model("bart", "bart").save_pretrained(tmp_path / "base")
    settings = {"target_modules": ["q_proj"], "bias": "all", "modules_to_save": None}
    make_peft_model(tmp_path / "base", 0, **settings).save_pretrained(tmp_path / "biases")
    model = CrossTaskForConditionalGeneration.from_pretrained(tmp_path / "base")
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    with pytest.raises(ValueError, match="has trained biases of the model itself .bias='all'."):
        model.load_adapter(tmp_path / "biases")
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


def test_a_base_model_of_another_name_is_a_warning(folders, base, caplog, monkeypatch, tmp_path):
    shutil.copytree(folders / "a", tmp_path / "a")
    config = tmp_path / "a" / "adapter_config.json"
    settings = json.loads(config.read_text()) | {"base_model_name_or_path": "alice/other"}
    config.write_text(json.dumps(settings))
    base.config._name_or_path = "alice/base"
    monkeypatch.setattr(logging.get_logger("transformers"), "propagate", True)
    base.load_adapter(tmp_path / "a")
    assert "was trained on alice/other and is loaded on alice/base" in caplog.text


def test_wrong_names_are_refused(folders, base):
    base.load_adapter(folders / "a", adapter_name="a")
    with pytest.raises(ValueError, match="unknown.*among .*'a'"):
        base.set_adapter("unknown")
    for wrong in (5, None, [], ["a", 5]):
        with pytest.raises(TypeError, match="^set_adapter: expected the name of an adapter, or several, got"):
            base.set_adapter(wrong)
    for wrong in ("a.b", "", 5):
        with pytest.raises(ValueError, match="^adapter_name: expected a name without a dot, got"):
            base.load_adapter(folders / "b", adapter_name=wrong)
    assert base.active_adapters() == ["a"]


def test_only_one_adapter_with_a_copy_of_the_fusion_can_be_active(folders, base, references):
    for name in "ab":
        base.load_adapter(folders / name, adapter_name=name)
    base.set_adapter("a")
    with pytest.raises(
        ValueError, match="^the adapters a, b each have a copy of the module 'answerability_head'"
    ):
        base.set_adapter(["a", "b"])
    assert base.active_adapters() == ["a"]
    assert_same_output(run(base, references[0]), references[1]["a"])


@pytest.fixture
def k_adapter(folders, tmp_path):
    """An adapter of layers that the other adapters do not change."""
    settings = {"target_modules": ["k"], "modules_to_save": None}
    make_peft_model(folders / "base", 7, **settings).save_pretrained(tmp_path / "k")
    return tmp_path / "k"


def test_an_adapter_loaded_while_another_is_disabled_is_the_only_active_one(
    folders, base, references, k_adapter
):
    for order in ((k_adapter, folders / "a"), (folders / "a", k_adapter)):
        model = CrossTaskForConditionalGeneration.from_pretrained(folders / "base")
        model.load_adapter(order[0], adapter_name="first")
        model.disable_adapters()
        model.load_adapter(order[1], adapter_name="second")
        alone = CrossTaskForConditionalGeneration.from_pretrained(folders / "base")
        alone.load_adapter(order[1])
        assert_same_output(run(model, references[0]), run(alone, references[0]))


def test_deleting_one_of_several_active_adapters(folders, base, references, k_adapter, tmp_path):
    inputs, outputs = references
    base.load_adapter(folders / "a", adapter_name="a")
    base.load_adapter(k_adapter, adapter_name="k")
    base.set_adapter(["a", "k"])
    base.delete_adapter("k")
    assert base.active_adapters() == ["a"]
    assert_same_output(run(base, inputs), outputs["a"])
    base.load_adapter(k_adapter, adapter_name="k")
    other = run(base, inputs)
    base.set_adapter("a")
    base.delete_adapter("a")  # its layers are not those of the other adapter
    assert base.active_adapters() == ["k"]
    assert_same_output(run(base, inputs), other)
    base.save_pretrained(tmp_path / "saved")


def test_other_errors_of_loading_are_clear(folders, base, tmp_path):
    base.load_adapter(folders / "a", adapter_name="a")
    with pytest.raises(ValueError, match="^Adapter with name a already exists"):
        base.load_adapter(folders / "a", adapter_name="a")
    shutil.copytree(folders / "a", tmp_path / "broken")
    weights = tmp_path / "broken/adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:3000])
    with pytest.raises(OSError, match="^adapter .*broken: its weights cannot be read .*; download"):
        base.load_adapter(tmp_path / "broken", adapter_name="b")


def test_adapters_of_other_methods_than_lora(folders, base, tmp_path):
    model = get_peft_model(CrossTaskForConditionalGeneration.from_pretrained(folders / "base"), IA3)
    model.save_pretrained(tmp_path)
    base.load_adapter(tmp_path)
    assert base.active_adapters() == ["default"]
