"""A shared base: the outputs and gradients of a model with two copies, with the base in memory once."""

import copy
import json

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tiny_run import write_recipe
from transformers import AutoModelForSeq2SeqLM

from crosstask import CrossTaskForConditionalGeneration, train
from crosstask.configuration_crosstask import FUSIONS
from crosstask.loading_crosstask import merge_adapter
from crosstask.training.arguments import StageArguments
from crosstask.training.tuning import add_adapter, make_adapter_config

LAYERS = {"t5": ["q", "v"], "bart": ["q_proj", "v_proj"], "t5gemma": ["q_proj", "v_proj"]}
SETTINGS = {"fusion_num_heads": 4, "fusion_dropout": 0.0}


def save_adapter(base, folder, family, seed, **settings):
    """Save a LoRA adapter with random updates on the model in `base`, and return its folder."""
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
def adapters(request, make_part, tmp_path_factory):
    """A family of models, and two adapters of one base model with different ranks and layers."""
    folder = tmp_path_factory.mktemp("sharing")
    torch.manual_seed(0)
    AutoModelForSeq2SeqLM.from_config(make_part(request.param)).save_pretrained(folder / "base")
    family = request.param
    one = save_adapter(folder / "base", folder / "one", family, 1)
    feed_forward = {"t5": "wo", "bart": "fc2", "t5gemma": "down_proj"}[family]
    more = {"r": 3, "use_rslora": True, "target_modules": [*LAYERS[family], feed_forward]}
    return family, one, save_adapter(folder / "base", folder / "two", family, 2, **more)


@pytest.fixture(params=FUSIONS)
def pair(request, adapters):
    """Two models with equal weights: one with a shared base, one with two copies."""
    models = []
    for share_base in (True, False):
        torch.manual_seed(3)
        model = CrossTaskForConditionalGeneration.from_tasks(
            *adapters[1:], fusion=request.param, share_base=share_base, **SETTINGS
        )
        models.append(model)
    shared, separate = models
    for name, weight in separate.named_parameters():
        if name.startswith(("answerability_head", "gated_cross_attention")):
            shared.get_parameter(name).data = weight.data.clone()
    if request.param == "gated":
        for model in models:
            model.gated_cross_attention.gates.data.fill_(0.7)
    return shared, separate


def assert_same_output(model, expected_model, inputs):
    output, expected = (
        model(**inputs, labels=torch.tensor([[5, 6, 7]] * 2), answerable=torch.tensor([1, 0]))
        for model in (model, expected_model)
    )
    for name in ("logits", "answerability_logits", "loss"):
        torch.testing.assert_close(
            output[name], expected[name], rtol=1e-3, atol=5e-5, msg=lambda text, name=name: f"{name}: {text}"
        )
    output, expected = (
        model.generate(**inputs, max_new_tokens=6, num_beams=2, return_dict_in_generate=True)
        for model in (model, expected_model)
    )
    assert torch.equal(output.sequences, expected.sequences)
    torch.testing.assert_close(output.answerability, expected.answerability, rtol=1e-3, atol=5e-5)


def make_encoder_inputs(make_inputs, model):
    inputs = make_inputs(model)
    return {name: inputs[name] for name in ("input_ids", "attention_mask")}


def test_outputs_are_those_of_two_copies(pair, make_inputs):
    assert_same_output(*pair, make_encoder_inputs(make_inputs, pair[1]))


def test_the_base_is_in_memory_once(pair, adapters):
    shared, separate = (sum(weight.numel() for weight in model.parameters()) for model in pair)
    encoder = sum(weight.numel() for weight in pair[0].get_encoder().parameters())
    updates = sum(weight.numel() for weight in pair[0].question_encoder.parameters())
    assert shared - updates == separate - encoder
    # Layers that both adapters update have the sum of their ranks.
    assert sorted(set(pair[0].config.question_encoder_updates.values())) == [3, 5]


def test_saving_and_loading(pair, make_inputs, tmp_path):
    shared, separate = pair
    shared.save_pretrained(tmp_path)
    inputs = make_encoder_inputs(make_inputs, separate)
    names = load_file(tmp_path / "model.safetensors").keys()
    assert all(".updates." in name for name in names if name.startswith("question_encoder"))
    assert_same_output(CrossTaskForConditionalGeneration.from_pretrained(tmp_path), separate, inputs)
    assert_same_output(
        AutoModelForSeq2SeqLM.from_pretrained(tmp_path, trust_remote_code=True), separate, inputs
    )
    again = CrossTaskForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.float64)
    assert {weight.dtype for weight in again.parameters()} == {torch.float64}


def test_gradients_are_the_sum_of_those_of_two_copies(pair, make_inputs):
    inputs = make_encoder_inputs(make_inputs, pair[1]) | {
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
                gradient = gradients[0][name].grad
                torch.testing.assert_close(gradient, weight.grad, rtol=1e-3, atol=1e-5, msg=name)
        # The shared encoder runs twice, so its gradient is the sum of those of the two copies.
        shared, separate = pair
        for (name, weight), summarizer_weight, question_weight in zip(
            shared.get_encoder().named_parameters(),
            separate.get_encoder().parameters(),
            separate.question_encoder.parameters(),
            strict=True,
        ):
            copies = (summarizer_weight, question_weight)
            expected = sum(copy.grad for copy in copies if copy.grad is not None)
            torch.testing.assert_close(weight.grad, expected, rtol=1e-3, atol=1e-5, msg=name)
        assert all(weight.grad.abs().max() > 0 for weight in shared.question_encoder.parameters())


def test_one_checkpoint_as_both_task_models_needs_no_updates(adapters, make_inputs):
    base = json.loads(open(f"{adapters[1]}/adapter_config.json").read())["base_model_name_or_path"]
    torch.manual_seed(3)
    shared = CrossTaskForConditionalGeneration.from_tasks(base, base, share_base=True, **SETTINGS)
    torch.manual_seed(3)
    separate = CrossTaskForConditionalGeneration.from_tasks(base, base, **SETTINGS)
    assert not list(shared.question_encoder.parameters())
    shared.answerability_head.load_state_dict(separate.answerability_head.state_dict())
    assert_same_output(shared, separate, make_encoder_inputs(make_inputs, separate))


def test_adapters_of_two_base_models_are_refused(adapters, make_part, tmp_path):
    family, one, _ = adapters
    AutoModelForSeq2SeqLM.from_config(make_part(family)).save_pretrained(tmp_path / "other")
    other = save_adapter(tmp_path / "other", tmp_path / "adapter", family, 4)
    with pytest.raises(
        ValueError,
        match="`share_base` needs two adapters of one base model, got one of .*base and one of .*other",
    ):
        CrossTaskForConditionalGeneration.from_tasks(one, other, share_base=True)
    with pytest.raises(ValueError, match="expected plain LoRA"):
        base = json.loads(open(f"{one}/adapter_config.json").read())["base_model_name_or_path"]
        dora = save_adapter(base, tmp_path / "dora", family, 5, use_dora=True)
        CrossTaskForConditionalGeneration.from_tasks(one, dora, share_base=True)
    with pytest.raises(ValueError, match="`question_encoder_updates` needs `share_base=True`"):
        CrossTaskForConditionalGeneration.from_tasks(one, one, question_encoder_updates={"x": 1})


def test_loaded_peft_models(adapters, make_inputs):
    models = []
    for folder in adapters[1:]:
        base = json.loads(open(f"{folder}/adapter_config.json").read())["base_model_name_or_path"]
        models.append(PeftModel.from_pretrained(AutoModelForSeq2SeqLM.from_pretrained(base), folder))
    model = CrossTaskForConditionalGeneration.from_tasks(*models, share_base=True, **SETTINGS)
    expected = CrossTaskForConditionalGeneration.from_tasks(*adapters[1:], share_base=True, **SETTINGS)
    model.answerability_head.load_state_dict(expected.answerability_head.state_dict())
    assert_same_output(model, expected, make_encoder_inputs(make_inputs, expected))


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


def compose_both(*sources):
    """Compose two models with equal weights: one with a shared base, one with two copies."""
    models = [
        CrossTaskForConditionalGeneration.from_tasks(*sources, share_base=share_base, **SETTINGS)
        for share_base in (True, False)
    ]
    models[0].answerability_head.load_state_dict(models[1].answerability_head.state_dict())
    return models


@pytest.mark.parametrize(
    "family, settings, reason",
    [
        ("bart", {"bias": "lora_only"}, r"encoder\..*q_proj.base_layer.bias"),
        ("bart", {"lora_bias": True}, r"encoder\..*q_proj.lora_B.bias"),
        (
            "bart",
            {"target_modules": ["embed_positions", "q_proj"]},
            "encoder.embed_positions.lora_embedding_A",
        ),
        ("t5", {"target_modules": ["shared", "q"]}, "shared.lora_embedding_A"),
        ("t5", {"target_modules": ["lm_head", "q"]}, "lm_head"),  # tied to the encoder's embeddings
        ("t5", {"modules_to_save": ["layer_norm"]}, r"encoder\..*layer_norm.weight"),
        ("t5", {"trainable_token_indices": [5]}, "shared.token_adapter.trainable_tokens_delta"),
        ("t5", {"init_lora_weights": "pissa"}, "init_lora_weights"),
    ],
)
def test_an_adapter_with_other_changes_of_the_encoder_is_refused(family, settings, reason, base, tmp_path):
    plain = save_adapter(base(family), tmp_path / "plain", family, 1)
    more = save_adapter(base(family), tmp_path / "more", family, 2, **settings)
    for sources in ((plain, more), (more, plain)):
        with pytest.raises(ValueError, match=f"more is an adapter with .*{reason}.*, expected plain LoRA"):
            CrossTaskForConditionalGeneration.from_tasks(*sources, share_base=True)


def test_adapters_may_change_the_decoder_in_any_way(base, make_inputs, tmp_path):
    settings = {"modules_to_save": ["decoder.final_layer_norm"], "target_modules": r".*decoder.*\.(q|v)"}
    one = save_adapter(base("t5"), tmp_path / "one", "t5", 1, **settings)
    two = save_adapter(base("t5"), tmp_path / "two", "t5", 2, modules_to_save=["decoder.final_layer_norm"])
    weights = load_file(f"{one}/adapter_model.safetensors")
    weights["base_model.model.decoder.final_layer_norm.weight"] += 0.5
    save_file(weights, f"{one}/adapter_model.safetensors", {"format": "pt"})
    models = compose_both(one, two)
    assert_same_output(*models, make_encoder_inputs(make_inputs, models[1]))


def load_peft_model(base, *folders, name="default"):
    model = AutoModelForSeq2SeqLM.from_pretrained(base)
    model = PeftModel.from_pretrained(model, folders[0], adapter_name=name)
    for folder in folders[1:]:
        model.load_adapter(folder, adapter_name=folder.rpartition("/")[-1])
    return model


def test_only_the_active_adapters_of_a_loaded_model_count(base, make_inputs, tmp_path):
    one = save_adapter(base("t5"), tmp_path / "one", "t5", 1)
    two = save_adapter(base("t5"), tmp_path / "two", "t5", 2, r=3)
    named = load_peft_model(base("t5"), one, name="named")
    second = load_peft_model(base("t5"), one, two)
    second.set_adapter("two")
    both = load_peft_model(base("t5"), one, two)
    both.base_model.set_adapter(["default", "two"])
    for sources in ((named, second), (two, both), (both, named)):
        models = compose_both(*sources)
        assert_same_output(*models, make_encoder_inputs(make_inputs, models[1]))


def test_loaded_models_have_one_base_if_their_weights_are_equal(base, make_inputs, tmp_path):
    same, again, other = (AutoModelForSeq2SeqLM.from_pretrained(base("t5", seed)) for seed in (0, 0, 1))
    for model in (same, other):
        model.name_or_path = ""  # like a model that was built from a configuration
    one = save_adapter(base("t5"), tmp_path / "one", "t5", 1)
    peft_models = {model: PeftModel.from_pretrained(copy.deepcopy(model), one) for model in (same, other)}
    for sources in ((same, again), (same, base("t5")), (peft_models[same], again), (one, same)):
        models = compose_both(*sources)
        assert_same_output(*models, make_encoder_inputs(make_inputs, models[1]))
    message = "needs two adapters of one base model, got one of .*, whose encoders differ in weights or dtype"
    for sources in (
        (same, other),
        (base("t5"), other),
        (peft_models[same], peft_models[other]),
        (one, peft_models[other]),
        (same, again.to(torch.bfloat16)),
    ):
        with pytest.raises(ValueError, match=message):
            CrossTaskForConditionalGeneration.from_tasks(*sources, share_base=True)


def test_a_folder_may_be_spelled_in_several_ways(base, tmp_path, monkeypatch):
    one = save_adapter(base("t5"), tmp_path / "one", "t5", 1)
    folder = base("t5")
    monkeypatch.chdir(folder.parent)
    for name in (f"{folder}/", folder.name, f"../{folder.parent.name}/{folder.name}", folder):
        assert CrossTaskForConditionalGeneration.from_tasks(one, name, share_base=True).config.share_base


def test_resizing_embeddings(pair, adapters, make_inputs):
    if adapters[0] == "t5gemma":
        pytest.skip("transformers resizes the decoder's embeddings of T5Gemma alone")
    for model in pair:
        torch.manual_seed(5)
        model.resize_token_embeddings(120, mean_resizing=False)
    inputs = make_encoder_inputs(make_inputs, pair[1])
    inputs["input_ids"] = inputs["input_ids"].clamp(max=98)
    shared, separate = (model(**inputs, labels=torch.tensor([[5, 6, 7]] * 2)) for model in pair)
    torch.testing.assert_close(shared.logits[..., :99], separate.logits[..., :99], rtol=1e-4, atol=1e-5)
    assert pair[0].config.shares_vocabulary


def test_an_adapter_on_the_composed_model(pair, adapters, make_inputs, tmp_path):
    shared, _ = pair
    shared.save_pretrained(tmp_path / "base")
    inputs = make_encoder_inputs(make_inputs, pair[1])
    config = make_adapter_config(
        StageArguments(data="briefs", lora_r=2, lora_target_modules=LAYERS[adapters[0]])
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

    peft_model = PeftModel.from_pretrained(base(), tmp_path / "adapter").eval()
    loaded = base()
    loaded.load_adapter(str(tmp_path / "adapter"))
    expected = merge_adapter(PeftModel.from_pretrained(base(), tmp_path / "adapter")).eval()
    assert_same_output(peft_model, expected, inputs)
    assert_same_output(loaded, expected, inputs)


def test_training_with_a_shared_base(trained_run, tmp_path):
    base = str(trained_run[1] / "summarizer")
    parts = {"summarizer": base, "question_answerer": base}
    parts |= {"summarizer_config": None, "question_answerer_config": None}
    settings = parts | {"lora_r": 2, "share_base": True, "learning_rate": 0.1}
    train.main([str(write_recipe(tmp_path, **settings))])
    folder = tmp_path / "run" / "crosstask"
    names = load_file(folder / "model.safetensors").keys()
    assert all(".updates." in name for name in names if name.startswith("question_encoder"))
    model = CrossTaskForConditionalGeneration.from_pretrained(folder)
    assert model.config.share_base and set(model.config.question_encoder_updates.values()) == {4}
    # Training can continue from the result.
    further = tmp_path / "further"
    further.mkdir()
    values = {"model": str(folder), "fusion_num_heads": None, "lora_r": 2, **dict.fromkeys(parts)}
    train.main([str(write_recipe(further, **values))])
    assert CrossTaskForConditionalGeneration.from_pretrained(further / "run" / "crosstask").config.share_base


@pytest.mark.parametrize(
    "values, message",
    [
        (
            {"question_answerer": "other/model"},
            "share_base: expected summarizer and .* one checkpoint, got .* and oth",
        ),
        ({"lora_r": 0}, "summarize: lora_r: expected 1 or more, as share_base freezes the base"),
        (
            {"lora_r": 0, "peft": {"peft_type": "IA3", "target_modules": ["q"], "feedforward_modules": []}},
            "lora_r: expected 1 or more, as share_base",
        ),
    ],
)
def test_mistakes_in_a_recipe_are_reported(values, message, trained_run, tmp_path):
    base = str(trained_run[1] / "summarizer")
    parts = {"summarizer": base, "question_answerer": base, "lora_r": 2, "share_base": True}
    parts |= {"summarizer_config": None, "question_answerer_config": None}
    with pytest.raises(SystemExit, match=message):
        train.main([str(write_recipe(tmp_path, **parts | values))])


@pytest.mark.parametrize(
    "name, hint",
    [
        ("fusoin", "did you mean `fusion`?"),
        ("fusion_num_head", "did you mean `fusion_num_heads`?"),
        ("revision", "`model_kwargs` has those of `from_pretrained`"),
        ("dtype", "`dtype` is not an argument"),
    ],
)
def test_an_argument_that_the_configuration_does_not_have_is_an_error(name, hint, trained_run):
    parts = str(trained_run[1] / "summarizer"), str(trained_run[1] / "question_answerer")
    with pytest.raises(TypeError, match=f"^`{name}` is not an argument of CrossTaskConfig; ") as error:
        CrossTaskForConditionalGeneration.from_tasks(*parts, **{name: "x"})
    assert hint in str(error.value)
    settings = {"use_cache": False, "pad_token_id": 0, "attn_implementation": "eager", "id2label": {0: "no"}}
    assert CrossTaskForConditionalGeneration.from_tasks(*parts, **settings).config.pad_token_id == 0
