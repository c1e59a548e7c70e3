"""Adapters on top of a finished model: each gives what the model it was trained as gave."""

import json
import shutil

import pytest
import torch
from peft import AutoPeftModelForSeq2SeqLM, IA3Config, LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tiny_adapter import adapted
from transformers import AutoModelForSeq2SeqLM
from transformers.utils import logging

from crosstask import CrossTaskConfig, CrossTaskForConditionalGeneration

IA3 = IA3Config(target_modules=["k", "v", "wo"], feedforward_modules=["wo"])
LABELLED = {"answerable": torch.tensor([1, 0])}


@pytest.fixture(scope="module")
def folders(make_model, tmp_path_factory):
    """A model, and two adapters on it."""
    folder = tmp_path_factory.mktemp("adapters")
    make_model().save_pretrained(folder / "base")
    for seed, name in enumerate("ab"):
        adapted(folder / "base", seed).save_pretrained(folder / name)
    return folder


@pytest.fixture
def base(folders):
    return CrossTaskForConditionalGeneration.from_pretrained(folders / "base")


@torch.no_grad()
def numbers(model, inputs):
    output = model(**inputs, **LABELLED)
    ids = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    written = model.generate(**ids, max_new_tokens=6, return_dict_in_generate=True)
    return {
        "logits": output.logits,
        "answerability_logits": output.answerability_logits,
        "loss": output.loss,
        "sequences": written.sequences,
        "answerability": written.answerability,
    }


def assert_same(found, expected):
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, rtol=1e-3, atol=5e-4, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.fixture
def expected(folders, base, make_inputs):
    """What the base and each adapter, merged, give."""
    inputs = make_inputs(base)
    merged = {
        name: adapted(folders / "base", seed).merge_and_unload().eval() for seed, name in enumerate("ab")
    }
    return inputs, {name: numbers(model, inputs) for name, model in {"base": base, **merged}.items()}


def test_adapters_are_switched_by_name(folders, base, expected):
    inputs, wanted = expected
    assert not torch.allclose(wanted["a"]["answerability"], wanted["b"]["answerability"])
    base.load_adapter(folders / "a", adapter_name="a")
    assert_same(numbers(base, inputs), wanted["a"])
    base.load_adapter(folders / "b", adapter_name="b")
    for name in "bab":
        base.set_adapter(name)
        assert base.active_adapters() == [name]
        assert_same(numbers(base, inputs), wanted[name])


def test_an_adapter_with_a_fusion_of_its_own_beside_one_without(folders, base, expected, tmp_path):
    inputs, _ = expected
    adapted(folders / "base", 5, modules_to_save=None).save_pretrained(tmp_path / "plain")
    alone = adapted(folders / "base", 5, modules_to_save=None).merge_and_unload().eval()
    wanted = {"plain": numbers(alone, inputs), "a": expected[1]["a"]}
    for order in (("a", "plain"), ("plain", "a")):
        model = CrossTaskForConditionalGeneration.from_pretrained(folders / "base")
        for name in order:
            model.load_adapter((tmp_path if name == "plain" else folders) / name, adapter_name=name)
            assert_same(numbers(model, inputs), wanted[name])
        assert not any(
            parameter.requires_grad for name, parameter in model.named_parameters() if "lora" in name
        )
        for name in ("a", "plain", "a"):
            model.set_adapter(name)
            assert_same(numbers(model, inputs), wanted[name])
        model.disable_adapters()
        model.set_adapter("plain")
        assert_same(numbers(model, inputs), expected[1]["base"])
        model.enable_adapters()
        assert_same(numbers(model, inputs), wanted["plain"])


def test_disabled_is_as_before_and_enabled_is_as_with_it(folders, base, expected):
    inputs, wanted = expected
    base.load_adapter(folders / "a")
    base.disable_adapters()
    found = numbers(base, inputs)
    assert all(torch.equal(found[name], value) for name, value in wanted["base"].items())
    base.enable_adapters()
    assert_same(numbers(base, inputs), wanted["a"])


def test_a_deleted_adapter_leaves_the_other(folders, base, expected):
    inputs, wanted = expected
    for name in "ab":
        base.load_adapter(folders / name, adapter_name=name)
    base.set_adapter("b")
    base.delete_adapter("a")
    assert base.active_adapters() == ["b"]
    assert_same(numbers(base, inputs), wanted["b"])


@pytest.mark.parametrize("deleted", ["plain", "whole"])
def test_a_deleted_adapter_leaves_the_other_with_the_fusion_it_was_trained_with(
    folders, base, expected, tmp_path, deleted
):
    adapted(folders / "base", 5, modules_to_save=None).save_pretrained(tmp_path / "plain")
    base.load_adapter(folders / "a", adapter_name="whole")
    base.load_adapter(tmp_path / "plain", adapter_name="plain")
    left = {"plain": "whole", "whole": "plain"}[deleted]
    base.set_adapter(left)
    wanted = numbers(base, expected[0])
    base.set_adapter(deleted)
    base.delete_adapter(deleted)
    assert base.active_adapters() == [left]
    assert_same(numbers(base, expected[0]), wanted)


def test_without_its_last_adapter_a_model_is_as_before_and_is_saved_whole(folders, base, expected, tmp_path):
    inputs, wanted = expected
    before = {name: value.clone() for name, value in base.state_dict().items()}
    for name in "ab":
        base.load_adapter(folders / name, adapter_name=name)
    base.delete_adapter(["a", "b"])
    base.save_pretrained(tmp_path)
    again = CrossTaskForConditionalGeneration.from_pretrained(tmp_path)
    for model in (base, again):
        found = model.state_dict()
        assert found.keys() == before.keys()
        assert all(torch.equal(found[name], value) for name, value in before.items())
        found = numbers(model, inputs)
        assert all(torch.equal(found[name], value) for name, value in wanted["base"].items())
    base.load_adapter(folders / "a")
    assert_same(numbers(base, inputs), wanted["a"])


def test_peft_loads_them_too(hub, alice, folders, base, expected):
    inputs, wanted = expected
    assert_same(numbers(PeftModel.from_pretrained(base, folders / "a"), inputs), wanted["a"])
    CrossTaskForConditionalGeneration.from_pretrained(folders / "base").push_to_hub("alice/base")
    adapted("alice/base", 0).push_to_hub("alice/adapter")
    assert "adapter_model.safetensors" in hub.files("alice/adapter")
    assert "model.safetensors" not in hub.files("alice/adapter")
    for auto_class in (AutoPeftModelForSeq2SeqLM, AutoModelForSeq2SeqLM):
        assert_same(numbers(auto_class.from_pretrained("alice/adapter"), inputs), wanted["a"])
    again = CrossTaskForConditionalGeneration.from_pretrained("alice/base")
    again.load_adapter("alice/adapter")
    assert_same(numbers(again, inputs), wanted["a"])


def test_saving_saves_the_adapter(folders, base, expected, tmp_path):
    inputs, wanted = expected
    base.load_adapter(folders / "a")
    base.save_pretrained(tmp_path)
    assert not (tmp_path / "model.safetensors").exists()
    other = CrossTaskForConditionalGeneration.from_pretrained(folders / "base")
    other.load_adapter(tmp_path)
    assert_same(numbers(other, inputs), wanted["a"])


@pytest.fixture
def others(folders, make_model, make_part, tmp_path):
    """Adapters that do not fit the model, by what an error is to say of where they belong."""
    make_model("bart").save_pretrained(tmp_path / "bart")
    adapted(tmp_path / "bart", 0, target_modules=["q_proj"]).save_pretrained(tmp_path / "of bart")
    plain = AutoModelForSeq2SeqLM.from_config(make_part("t5"))
    get_peft_model(plain, LoraConfig(target_modules=["q"])).save_pretrained(tmp_path / "of t5")
    make_model(fusion_dim=16, fusion_num_heads=2).save_pretrained(tmp_path / "narrow")
    adapted(tmp_path / "narrow", 0).save_pretrained(tmp_path / "of narrow")
    shallow = CrossTaskConfig(make_part("t5", num_layers=1, num_decoder_layers=2), make_part("t5"))
    CrossTaskForConditionalGeneration(shallow).save_pretrained(tmp_path / "shallow")
    adapted(tmp_path / "shallow", 0).save_pretrained(tmp_path / "of shallow")
    model = CrossTaskForConditionalGeneration.from_pretrained(tmp_path / "shallow")
    get_peft_model(model, IA3).save_pretrained(tmp_path / "IA3 of shallow")
    shutil.copytree(folders / "a", tmp_path / "half")
    file = tmp_path / "half/adapter_model.safetensors"
    save_file({name: weight for name, weight in load_file(file).items() if ".decoder." not in name}, file)
    belong = {"of bart": "bart", "of t5": "does not name", "of narrow": "narrow", "of shallow": "shallow"}
    belong |= {"IA3 of shallow": "shallow", "half": "base"}
    return {tmp_path / name: told for name, told in belong.items()}


def test_an_adapter_of_another_model_is_refused(base, others):
    for folder, told in others.items():
        sentence = f"^adapter .*{folder.name} does not fit the model .*base .*; load it on .*{told}.$"
        with pytest.raises(ValueError, match=sentence) as caught:
            base.load_adapter(folder)
        assert "\n" not in str(caught.value)


def test_what_is_refused_leaves_the_model_as_it_was(folders, base, others, expected, tmp_path):
    inputs, wanted = expected
    before = base.state_dict().keys()
    for folder in others:
        with pytest.raises(ValueError, match="does not fit"):
            base.load_adapter(folder, adapter_name="x")
    assert base.state_dict().keys() == before
    assert_same(numbers(base, inputs), wanted["base"])
    base.save_pretrained(tmp_path / "again")
    CrossTaskForConditionalGeneration.from_pretrained(tmp_path / "again")
    for name in "ab":
        base.load_adapter(folders / name, adapter_name=name)
    base.set_adapter("a")
    for folder in others:
        with pytest.raises(ValueError, match="does not fit"):
            base.load_adapter(folder, adapter_name="x")
        assert base.active_adapters() == ["a"] and set(base.peft_config) == {"a", "b"}
    assert_same(numbers(base, inputs), wanted["a"])


def test_a_peft_too_old_for_transformers_is_refused_before_anything_is_loaded(folders, base, monkeypatch):
    # By its installed version: each transformers has a least one of its own, and asks for it at every switch.
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0.0.1")
    before = base.state_dict().keys()
    with pytest.raises(ValueError, match="version of PEFT you are using is not compatible"):
        base.load_adapter(folders / "a")
    assert base.state_dict().keys() == before and not getattr(base, "peft_config", None)


def test_a_fusion_is_a_copy_or_updated_not_both(folders, base, expected, tmp_path):
    updated = {
        "target_modules": ["q", "answerability_head.fc1"],
        "modules_to_save": None,
        "exclude_modules": None,
    }
    adapted(folders / "base", 3, **updated).save_pretrained(tmp_path / "updated")
    updated = numbers(adapted(folders / "base", 3, **updated).merge_and_unload().eval(), expected[0])
    wanted = {folders / "a": expected[1]["a"], tmp_path / "updated": updated}
    for first, second in (wanted, reversed(wanted)):
        model = CrossTaskForConditionalGeneration.from_pretrained(folders / "base")
        model.load_adapter(first, adapter_name="first")
        with pytest.raises(
            ValueError, match=r"module 'answerability_head', .* \(first\) .*another copy of the model.$"
        ):
            model.load_adapter(second, adapter_name="second")
        assert_same(numbers(model, expected[0]), wanted[first])


def test_trained_biases_are_refused(folders, make_model, tmp_path):
    make_model("bart", "bart").save_pretrained(tmp_path / "base")
    settings = {"target_modules": ["q_proj"], "bias": "all", "modules_to_save": None}
    adapted(tmp_path / "base", 0, **settings).save_pretrained(tmp_path / "biases")
    model = CrossTaskForConditionalGeneration.from_pretrained(tmp_path / "base")
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    with pytest.raises(ValueError, match="has trained biases of the model itself .bias='all'."):
        model.load_adapter(tmp_path / "biases")
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


def test_a_base_of_another_name_is_told(folders, base, caplog, monkeypatch, tmp_path):
    shutil.copytree(folders / "a", tmp_path / "a")
    config = tmp_path / "a" / "adapter_config.json"
    settings = json.loads(config.read_text()) | {"base_model_name_or_path": "alice/other"}
    config.write_text(json.dumps(settings))
    base.config._name_or_path = "alice/base"
    monkeypatch.setattr(logging.get_logger("transformers"), "propagate", True)
    base.load_adapter(tmp_path / "a")
    assert "was trained on alice/other, and is loaded on alice/base" in caplog.text


def test_an_unknown_name_is_refused(folders, base):
    base.load_adapter(folders / "a", adapter_name="a")
    with pytest.raises(ValueError, match="nobody.*among .*'a'"):
        base.set_adapter("nobody")
    for wrong in (5, None, [], ["a", 5]):
        with pytest.raises(TypeError, match="^set_adapter: expected the name of an adapter, or several, got"):
            base.set_adapter(wrong)
    for wrong in ("a.b", "", 5):
        with pytest.raises(ValueError, match="^adapter_name: expected a name without a dot, got"):
            base.load_adapter(folders / "b", adapter_name=wrong)
    assert base.active_adapters() == ["a"]


def test_of_whole_fusions_one_is_active(folders, base, expected):
    for name in "ab":
        base.load_adapter(folders / name, adapter_name=name)
    base.set_adapter("a")
    with pytest.raises(ValueError, match="^the adapters a, b have a 'answerability_head' of their own each"):
        base.set_adapter(["a", "b"])
    assert base.active_adapters() == ["a"]
    assert_same(numbers(base, expected[0]), expected[1]["a"])


@pytest.fixture
def elsewhere(folders, tmp_path):
    """An adapter of layers that the others leave alone."""
    settings = {"target_modules": ["k"], "modules_to_save": None}
    adapted(folders / "base", 7, **settings).save_pretrained(tmp_path / "k")
    return tmp_path / "k"


def test_one_that_is_loaded_while_another_is_disabled_is_the_only_one_on(folders, base, expected, elsewhere):
    for order in ((elsewhere, folders / "a"), (folders / "a", elsewhere)):
        model = CrossTaskForConditionalGeneration.from_pretrained(folders / "base")
        model.load_adapter(order[0], adapter_name="first")
        model.disable_adapters()
        model.load_adapter(order[1], adapter_name="second")
        alone = CrossTaskForConditionalGeneration.from_pretrained(folders / "base")
        alone.load_adapter(order[1])
        assert_same(numbers(model, expected[0]), numbers(alone, expected[0]))


def test_of_the_active_ones_those_that_are_not_deleted_stay(folders, base, expected, elsewhere, tmp_path):
    inputs, wanted = expected
    base.load_adapter(folders / "a", adapter_name="a")
    base.load_adapter(elsewhere, adapter_name="k")
    base.set_adapter(["a", "k"])
    base.delete_adapter("k")
    assert base.active_adapters() == ["a"]
    assert_same(numbers(base, inputs), wanted["a"])
    base.load_adapter(elsewhere, adapter_name="k")
    other = numbers(base, inputs)
    base.set_adapter("a")
    base.delete_adapter("a")  # of layers that the other one does not have
    assert base.active_adapters() == ["k"]
    assert_same(numbers(base, inputs), other)
    base.save_pretrained(tmp_path / "saved")


def test_what_else_fails_is_not_called_a_misfit(folders, base, tmp_path):
    base.load_adapter(folders / "a", adapter_name="a")
    with pytest.raises(ValueError, match="^Adapter with name a already exists"):
        base.load_adapter(folders / "a", adapter_name="a")
    shutil.copytree(folders / "a", tmp_path / "broken")
    weights = tmp_path / "broken/adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:3000])
    with pytest.raises(OSError, match="^adapter .*broken: its weights cannot be read .*; download"):
        base.load_adapter(tmp_path / "broken", adapter_name="b")


def test_adapters_of_other_kinds_are_peft_s_own_affair(folders, base, tmp_path):
    model = get_peft_model(CrossTaskForConditionalGeneration.from_pretrained(folders / "base"), IA3)
    model.save_pretrained(tmp_path)
    base.load_adapter(tmp_path)
    assert base.active_adapters() == ["default"]
