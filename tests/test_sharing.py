"""One base for both parts: what the model with two copies computes, with the base in memory once."""

import copy
import json

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tiny_run import write
from transformers import AutoModelForSeq2SeqLM

from crosstask import CrossTaskForConditionalGeneration, train
from crosstask.training.arguments import StageArguments
from crosstask.training.tuning import add_adapter, make_adapter_config, merge_adapter

LAYERS = {"t5": ["q", "v"], "bart": ["q_proj", "v_proj"], "t5gemma": ["q_proj", "v_proj"]}
SETTINGS = {"fusion_num_heads": 4, "fusion_dropout": 0.0}


def adapter(base, folder, family, seed, **settings):
    settings = {"r": 2, "lora_alpha": 5, "target_modules": LAYERS[family]} | settings
    config = LoraConfig(task_type="SEQ_2_SEQ_LM", **settings)
    model = get_peft_model(AutoModelForSeq2SeqLM.from_pretrained(base), config)
    random = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data = 0.3 * torch.randn(weight.shape, generator=random)
    model.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module", params=list(LAYERS))
def parts(request, make_part, tmp_path_factory):
    """A family, and two adapters of one base of it, of other ranks and layers."""
    folder = tmp_path_factory.mktemp("sharing")
    torch.manual_seed(0)
    AutoModelForSeq2SeqLM.from_config(make_part(request.param)).save_pretrained(folder / "base")
    family = request.param
    one = adapter(folder / "base", folder / "one", family, 1)
    feed_forward = {"t5": "wo", "bart": "fc2", "t5gemma": "down_proj"}[family]
    more = {"r": 3, "use_rslora": True, "target_modules": [*LAYERS[family], feed_forward]}
    return family, one, adapter(folder / "base", folder / "two", family, 2, **more)


@pytest.fixture(params=["classifier", "gated"])
def pair(request, parts):
    """The model that shares its base, and the one that does not."""
    models = []
    for share_base in (True, False):
        torch.manual_seed(3)
        model = CrossTaskForConditionalGeneration.from_tasks(
            *parts[1:], fusion=request.param, share_base=share_base, **SETTINGS
        )
        models.append(model)
    shared, apart = models
    for name, weight in apart.named_parameters():
        if name.startswith(("answerability_head", "gated_cross_attention")):
            shared.get_parameter(name).data = weight.data.clone()
    if request.param == "gated":
        for model in models:
            model.gated_cross_attention.gates.data.fill_(0.7)
    return shared, apart


def assert_same(found, expected, inputs, **settings):
    one, other = (
        model(**inputs, labels=torch.tensor([[5, 6, 7]] * 2), answerable=torch.tensor([1, 0]), **settings)
        for model in (found, expected)
    )
    for name in ("logits", "answerability_logits", "loss"):
        torch.testing.assert_close(
            one[name], other[name], rtol=1e-3, atol=5e-5, msg=lambda text, name=name: f"{name}: {text}"
        )
    one, other = (
        model.generate(**inputs, max_new_tokens=6, num_beams=2, return_dict_in_generate=True)
        for model in (found, expected)
    )
    assert torch.equal(one.sequences, other.sequences)
    torch.testing.assert_close(one.answerability, other.answerability, rtol=1e-3, atol=5e-5)


def given(make_inputs, model):
    inputs = make_inputs(model)
    return {name: inputs[name] for name in ("input_ids", "attention_mask")}


def test_it_computes_what_two_copies_do(pair, make_inputs):
    assert_same(*pair, given(make_inputs, pair[1]))


def test_the_base_is_there_once(pair, parts):
    shared, apart = (sum(weight.numel() for weight in model.parameters()) for model in pair)
    encoder = sum(weight.numel() for weight in pair[0].get_encoder().parameters())
    updates = sum(weight.numel() for weight in pair[0].question_encoder.parameters())
    assert shared - updates == apart - encoder
    # A rank of r1 + r2 where both adapters have a layer.
    assert sorted(set(pair[0].config.question_encoder_updates.values())) == [3, 5]


def test_saved_and_loaded(pair, make_inputs, tmp_path):
    shared, apart = pair
    shared.save_pretrained(tmp_path)
    inputs = given(make_inputs, apart)
    names = load_file(tmp_path / "model.safetensors").keys()
    assert all(".updates." in name for name in names if name.startswith("question_encoder"))
    assert_same(CrossTaskForConditionalGeneration.from_pretrained(tmp_path), apart, inputs)
    assert_same(AutoModelForSeq2SeqLM.from_pretrained(tmp_path, trust_remote_code=True), apart, inputs)
    again = CrossTaskForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.float64)
    assert {weight.dtype for weight in again.parameters()} == {torch.float64}


def test_gradients_are_those_of_two_copies(pair, make_inputs):
    inputs = given(make_inputs, pair[1]) | {
        "labels": torch.tensor([[5, 6, 7]] * 2),
        "answerable": torch.tensor([1, 0]),
    }
    for checkpointing in (False, True):
        gradients = []
        for model in pair:
            model.zero_grad()
            if checkpointing:
                model.gradient_checkpointing_enable({"use_reentrant": False})
            model.train()(**inputs).loss.backward()
            gradients.append(dict(model.named_parameters()))
        for name, weight in gradients[1].items():
            if name.startswith(
                (
                    "summarizer.decoder",
                    "summarizer.model.decoder",
                    "answerability_head",
                    "gated_cross_attention",
                )
            ):
                found = gradients[0][name].grad
                torch.testing.assert_close(found, weight.grad, rtol=1e-3, atol=1e-5, msg=name)
        # What both passes read has the sum of what two copies have.
        shared, apart = pair
        for (name, own), summarizer, question in zip(
            shared.get_encoder().named_parameters(),
            apart.get_encoder().parameters(),
            apart.question_encoder.parameters(),
            strict=True,
        ):
            parts = [weight.grad for weight in (summarizer, question) if weight.grad is not None]
            torch.testing.assert_close(own.grad, sum(parts), rtol=1e-3, atol=1e-5, msg=name)
        assert all(weight.grad.abs().max() > 0 for weight in shared.question_encoder.parameters())


def test_one_checkpoint_needs_no_updates(parts, make_inputs):
    base = json.loads(open(f"{parts[1]}/adapter_config.json").read())["base_model_name_or_path"]
    torch.manual_seed(3)
    shared = CrossTaskForConditionalGeneration.from_tasks(base, base, share_base=True, **SETTINGS)
    torch.manual_seed(3)
    apart = CrossTaskForConditionalGeneration.from_tasks(base, base, **SETTINGS)
    assert not list(shared.question_encoder.parameters())
    shared.answerability_head.load_state_dict(apart.answerability_head.state_dict())
    assert_same(shared, apart, given(make_inputs, apart))


def test_two_bases_are_refused_and_named(parts, make_part, tmp_path):
    family, one, _ = parts
    AutoModelForSeq2SeqLM.from_config(make_part(family)).save_pretrained(tmp_path / "other")
    other = adapter(tmp_path / "other", tmp_path / "adapter", family, 4)
    with pytest.raises(
        ValueError, match="`share_base` needs two adapters of one base, got one of .*base and one of .*other"
    ):
        CrossTaskForConditionalGeneration.from_tasks(one, other, share_base=True)
    with pytest.raises(ValueError, match="expected plain LoRA"):
        base = json.loads(open(f"{one}/adapter_config.json").read())["base_model_name_or_path"]
        dora = adapter(base, tmp_path / "dora", family, 5, use_dora=True)
        CrossTaskForConditionalGeneration.from_tasks(one, dora, share_base=True)
    with pytest.raises(ValueError, match="`question_encoder_updates` are of a shared base"):
        CrossTaskForConditionalGeneration.from_tasks(one, one, question_encoder_updates={"x": 1})


def test_loaded_adapters(parts, make_inputs):
    models = []
    for folder in parts[1:]:
        base = json.loads(open(f"{folder}/adapter_config.json").read())["base_model_name_or_path"]
        models.append(PeftModel.from_pretrained(AutoModelForSeq2SeqLM.from_pretrained(base), folder))
    found = CrossTaskForConditionalGeneration.from_tasks(*models, share_base=True, **SETTINGS)
    expected = CrossTaskForConditionalGeneration.from_tasks(*parts[1:], share_base=True, **SETTINGS)
    found.answerability_head.load_state_dict(expected.answerability_head.state_dict())
    assert_same(found, expected, given(make_inputs, expected))


@pytest.fixture(scope="module")
def base(make_part, tmp_path_factory):
    """`base(family, seed=0)`: the folder of a tiny model with random weights."""
    folder = tmp_path_factory.mktemp("bases")

    def make(family, seed=0):
        path = folder / f"{family}{seed}"
        if not path.exists():
            torch.manual_seed(seed)
            AutoModelForSeq2SeqLM.from_config(make_part(family)).save_pretrained(path)
        return path

    return make


def shared_and_apart(*sources):
    models = [
        CrossTaskForConditionalGeneration.from_tasks(*sources, share_base=share_base, **SETTINGS)
        for share_base in (True, False)
    ]
    models[0].answerability_head.load_state_dict(models[1].answerability_head.state_dict())
    return models


@pytest.mark.parametrize(
    "family, settings, lost",
    [
        ("bart", {"bias": "lora_only"}, r"encoder\..*q_proj.base_layer.bias"),
        ("bart", {"lora_bias": True}, r"encoder\..*q_proj.lora_B.bias"),
        (
            "bart",
            {"target_modules": ["embed_positions", "q_proj"]},
            "encoder.embed_positions.lora_embedding_A",
        ),
        ("t5", {"target_modules": ["shared", "q"]}, "shared.lora_embedding_A"),
        ("t5", {"target_modules": ["lm_head", "q"]}, "lm_head"),  # which is tied to the encoder's embeddings
        ("t5", {"modules_to_save": ["layer_norm"]}, r"encoder\..*layer_norm.weight"),
        ("t5", {"trainable_token_indices": [5]}, "shared.token_adapter.trainable_tokens_delta"),
        ("t5", {"init_lora_weights": "pissa"}, "init_lora_weights"),
    ],
)
def test_what_would_be_lost_is_refused(family, settings, lost, base, tmp_path):
    plain = adapter(base(family), tmp_path / "plain", family, 1)
    more = adapter(base(family), tmp_path / "more", family, 2, **settings)
    for sources in ((plain, more), (more, plain)):
        with pytest.raises(ValueError, match=f"more is an adapter with .*{lost}.*, expected plain LoRA"):
            CrossTaskForConditionalGeneration.from_tasks(*sources, share_base=True)


def test_of_the_decoder_alone_nothing_is_lost(base, make_inputs, tmp_path):
    settings = {"modules_to_save": ["decoder.final_layer_norm"], "target_modules": r".*decoder.*\.(q|v)"}
    one = adapter(base("t5"), tmp_path / "one", "t5", 1, **settings)
    two = adapter(base("t5"), tmp_path / "two", "t5", 2, modules_to_save=["decoder.final_layer_norm"])
    weights = load_file(f"{one}/adapter_model.safetensors")
    weights["base_model.model.decoder.final_layer_norm.weight"] += 0.5
    save_file(weights, f"{one}/adapter_model.safetensors", {"format": "pt"})
    models = shared_and_apart(one, two)
    assert_same(*models, given(make_inputs, models[1]))


def loaded(base, *folders, name="default"):
    model = AutoModelForSeq2SeqLM.from_pretrained(base)
    model = PeftModel.from_pretrained(model, folders[0], adapter_name=name)
    for folder in folders[1:]:
        model.load_adapter(folder, adapter_name=folder.rpartition("/")[-1])
    return model


def test_a_loaded_adapter_is_the_active_one(base, make_inputs, tmp_path):
    one = adapter(base("t5"), tmp_path / "one", "t5", 1)
    two = adapter(base("t5"), tmp_path / "two", "t5", 2, r=3)
    named = loaded(base("t5"), one, name="named")
    second = loaded(base("t5"), one, two)
    second.set_adapter("two")
    both = loaded(base("t5"), one, two)
    both.base_model.set_adapter(["default", "two"])
    for sources in ((named, second), (two, both), (both, named)):
        models = shared_and_apart(*sources)
        assert_same(*models, given(make_inputs, models[1]))


def test_loaded_models_share_what_has_the_same_weights(base, make_inputs, tmp_path):
    same, again, other = (AutoModelForSeq2SeqLM.from_pretrained(base("t5", seed)) for seed in (0, 0, 1))
    for model in (same, other):
        model.name_or_path = ""  # as of a model that was not loaded
    one = adapter(base("t5"), tmp_path / "one", "t5", 1)
    adapted = {model: PeftModel.from_pretrained(copy.deepcopy(model), one) for model in (same, other)}
    for sources in ((same, again), (same, base("t5")), (adapted[same], again), (one, same)):
        models = shared_and_apart(*sources)
        assert_same(*models, given(make_inputs, models[1]))
    differ = "needs two adapters of one base, got one of .*, whose encoders differ in weights or dtype"
    for sources in (
        (same, other),
        (base("t5"), other),
        (adapted[same], adapted[other]),
        (one, adapted[other]),
        (same, again.to(torch.bfloat16)),
    ):
        with pytest.raises(ValueError, match=differ):
            CrossTaskForConditionalGeneration.from_tasks(*sources, share_base=True)


def test_a_folder_has_many_names(base, tmp_path, monkeypatch):
    one = adapter(base("t5"), tmp_path / "one", "t5", 1)
    folder = base("t5")
    monkeypatch.chdir(folder.parent)
    for name in (f"{folder}/", folder.name, f"../{folder.parent.name}/{folder.name}", folder):
        assert CrossTaskForConditionalGeneration.from_tasks(one, name, share_base=True).config.share_base


def test_embeddings_are_resized_once(pair, parts, make_inputs):
    if parts[0] == "t5gemma":
        pytest.skip("transformers resizes the decoder's embeddings of T5Gemma alone")
    for model in pair:
        torch.manual_seed(5)
        model.resize_token_embeddings(120, mean_resizing=False)
    inputs = given(make_inputs, pair[1])
    inputs["input_ids"] = inputs["input_ids"].clamp(max=98)
    shared, apart = (model(**inputs, labels=torch.tensor([[5, 6, 7]] * 2)) for model in pair)
    torch.testing.assert_close(shared.logits[..., :99], apart.logits[..., :99], rtol=1e-4, atol=1e-5)
    assert pair[0].config.shares_vocabulary


def test_an_adapter_of_the_whole(pair, parts, make_inputs, tmp_path):
    shared, _ = pair
    shared.save_pretrained(tmp_path / "base")
    inputs = given(make_inputs, pair[1])
    config = make_adapter_config(
        StageArguments(data="briefs", lora_r=2, lora_target_modules=LAYERS[parts[0]])
    )
    torch.manual_seed(6)
    adapted = add_adapter(shared, config, new_fusion=False)
    random = torch.Generator().manual_seed(0)
    trained = [name for name, weight in adapted.named_parameters() if weight.requires_grad]
    assert any("question_encoder" in name for name in trained)
    for name in trained:
        weight = adapted.get_parameter(name)
        weight.data += 0.1 * torch.randn(weight.shape, generator=random)
    adapted.save_pretrained(tmp_path / "adapter")

    def base():
        return CrossTaskForConditionalGeneration.from_pretrained(tmp_path / "base")

    found = PeftModel.from_pretrained(base(), tmp_path / "adapter").eval()
    on_top = base()
    on_top.load_adapter(str(tmp_path / "adapter"))
    expected = merge_adapter(PeftModel.from_pretrained(base(), tmp_path / "adapter")).eval()
    assert_same(found, expected, inputs)
    assert_same(on_top, expected, inputs)


def test_a_recipe_shares_the_base(trained_run, tmp_path):
    base = str(trained_run[1] / "summarizer")
    parts = {"summarizer": base, "question_answerer": base}
    parts |= {"summarizer_config": None, "question_answerer_config": None}
    settings = parts | {"lora_r": 2, "share_base": True, "learning_rate": 0.1}
    train.main([str(write(tmp_path, **settings))])
    folder = tmp_path / "run" / "crosstask"
    names = load_file(folder / "model.safetensors").keys()
    assert all(".updates." in name for name in names if name.startswith("question_encoder"))
    model = CrossTaskForConditionalGeneration.from_pretrained(folder)
    assert model.config.share_base and set(model.config.question_encoder_updates.values()) == {4}
    # And on from there.
    further = tmp_path / "further"
    further.mkdir()
    values = {"model": str(folder), "fusion_num_heads": None, "lora_r": 2, **dict.fromkeys(parts)}
    train.main([str(write(further, **values))])
    assert CrossTaskForConditionalGeneration.from_pretrained(further / "run" / "crosstask").config.share_base


@pytest.mark.parametrize(
    "values, sentence",
    [
        (
            {"question_answerer": "other/model"},
            "share_base: expected summarizer and .* one checkpoint, got .* and oth",
        ),
        ({"lora_r": 0}, "summarize: lora_r: expected 1 or more, as share_base keeps the base as it is"),
        (
            {"lora_r": 0, "peft": {"peft_type": "IA3", "target_modules": ["q"], "feedforward_modules": []}},
            "lora_r: expected 1 or more, as share_base",
        ),
    ],
)
def test_mistakes_in_a_recipe(values, sentence, trained_run, tmp_path):
    base = str(trained_run[1] / "summarizer")
    parts = {"summarizer": base, "question_answerer": base, "lora_r": 2, "share_base": True}
    parts |= {"summarizer_config": None, "question_answerer_config": None}
    with pytest.raises(SystemExit, match=sentence):
        train.main([str(write(tmp_path, **parts | values))])
