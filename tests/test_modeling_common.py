"""Test what transformers tests for every model: outputs, checkpoints, dtypes, devices, training."""

import copy
import json
import logging
import pickle
import re

import pytest
import torch
from accelerate import disk_offload
from safetensors.torch import load_file, save_file
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments
from transformers.utils import logging as transformers_logging

from crosstask import CrossTaskForConditionalGeneration, CrossTaskOutput
from crosstask.configuration_crosstask import FUSIONS

ANSWERABLE = torch.tensor([1, 0])
MODELS = [("t5", "t5", {}), ("bart", "bert", {"fusion": "gated"}), ("t5gemma", "roberta", {})]
MODELS += [
    ("t5", "t5", {"share_base": True, "question_encoder_updates": {"block.0.layer.0.SelfAttention.q": 2}})
]


def load(folder, **kwargs):
    return CrossTaskForConditionalGeneration.from_pretrained(folder, **kwargs).eval()


def assert_same(first, second, atol=0.0):
    assert torch.allclose(first.logits, second.logits, atol=atol)
    assert torch.allclose(first.answerability_logits, second.answerability_logits, atol=atol)
    if first.loss is not None:
        assert torch.allclose(first.loss, second.loss, atol=atol)


@pytest.mark.parametrize(
    ("summarizer", "question_encoder"), [("t5", "t5"), ("bart", "bert"), ("t5gemma", "roberta")]
)
def test_hidden_states_attentions_and_tuples(make_model, make_inputs, summarizer, question_encoder):
    model = make_model(summarizer, question_encoder, attn_implementation="eager")
    inputs = make_inputs(model) | {"answerable": ANSWERABLE}
    output = model(**inputs, output_attentions=True, output_hidden_states=True, use_cache=False)
    width = model.config.question_encoder.hidden_size
    for name, length in (("encoder", 10), ("decoder", 7), ("question_encoder", 10)):
        states = output[f"{name}_hidden_states"]
        expected = (2, length, width if name == "question_encoder" else 32)
        assert len(states) == 3 and all(state.shape == expected for state in states), name
        attentions = output[f"{name}_attentions"]
        assert len(attentions) == 2 and all(a.shape == (2, 4, length, length) for a in attentions), name
    assert [a.shape for a in output.cross_attentions] == [(2, 4, 7, 10)] * 2
    assert output.fusion_attentions.shape == (2, 4, 10, 7)
    for kwargs in ({}, {"output_attentions": True, "output_hidden_states": True}):
        as_dict = model(**inputs, **kwargs)
        as_tuple = model(**inputs, **kwargs, return_dict=False)
        assert isinstance(as_dict, CrossTaskOutput) and isinstance(as_tuple, tuple)
        assert len(as_tuple) == len(as_dict.to_tuple())
        for first, second in zip(as_tuple, as_dict.to_tuple(), strict=True):
            if torch.is_tensor(first):
                assert torch.equal(first, second)
    # The configuration can request them, too.
    model.config.output_hidden_states = True
    assert len(model(**inputs).question_encoder_hidden_states) == 3


def test_gradients_of_hidden_states_and_attentions(make_model, make_inputs):
    model = make_model("bart", "bert", attn_implementation="eager")
    output = model(**make_inputs(model), output_attentions=True, output_hidden_states=True)
    tensors = [
        output.encoder_hidden_states[0],
        output.decoder_hidden_states[0],
        output.question_encoder_hidden_states[0],
        output.cross_attentions[0],
        output.question_encoder_attentions[0],
        output.fusion_attentions,
    ]
    for tensor in tensors:
        tensor.retain_grad()
    output.answerability_logits[:, 1].sum().backward()
    assert all(tensor.grad is not None and tensor.grad.abs().sum() > 0 for tensor in tensors)


def test_outputs_are_deterministic_in_evaluation_mode(make_model, make_inputs):
    model = make_model("bart", "bert", fusion_dropout=0.5)
    inputs = make_inputs(model) | {"answerable": ANSWERABLE}
    assert_same(model(**inputs), model(**inputs))
    model.train()
    assert not torch.equal(model(**inputs).answerability_logits, model(**inputs).answerability_logits)


def test_common_attributes(make_model):
    model = make_model("bart", "bert")
    assert model.main_input_name == "input_ids" and model.can_generate()
    assert model.get_input_embeddings() is model.summarizer.get_input_embeddings()
    assert model.get_output_embeddings() is model.summarizer.lm_head
    assert model.get_encoder() is model.summarizer.get_encoder()
    assert model.get_decoder() is model.summarizer.get_decoder()
    embeddings = torch.nn.Embedding(99, 32)
    model.set_input_embeddings(embeddings)
    assert model.get_input_embeddings() is embeddings
    assert model.num_parameters() == sum(p.numel() for p in model.parameters())
    assert 0 < model.num_parameters(exclude_embeddings=True) < model.num_parameters()
    assert model.generation_config.decoder_start_token_id == 2


# Checkpoints.


@pytest.mark.parametrize("summarizer", ["t5", "bart"])
def test_sharded_checkpoint_with_tied_weights(make_model, make_inputs, summarizer, tmp_path):
    model = make_model(summarizer, "t5")
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 3
    pointers = {p.data_ptr() for p in model.parameters()}
    assert len(index["weight_map"]) == len(pointers) + len(
        dict(model.named_buffers(remove_duplicate=True)).keys() & set(index["weight_map"])
    )
    loaded = load(tmp_path)
    with torch.no_grad():
        assert_same(loaded(**make_inputs(model)), model(**make_inputs(model)))
    encoder, decoder = loaded.get_encoder(), loaded.get_decoder()
    assert encoder.embed_tokens.weight.data_ptr() == decoder.embed_tokens.weight.data_ptr()
    assert loaded.get_output_embeddings().weight.data_ptr() == encoder.embed_tokens.weight.data_ptr()
    assert loaded.question_encoder.embed_tokens.weight.data_ptr() != encoder.embed_tokens.weight.data_ptr()


@pytest.mark.parametrize(
    ("summarizer", "question_encoder"),
    [("t5", "t5"), ("bart", "bert"), ("t5gemma", "t5gemma"), ("led", "bart")],
)
@pytest.mark.parametrize("size", [80, 120])
def test_resized_embeddings(make_model, make_inputs, summarizer, question_encoder, size, tmp_path):
    model = make_model(summarizer, question_encoder)
    before = model.get_input_embeddings().weight[:80].clone()
    resized = model.resize_token_embeddings(size, mean_resizing=False)
    assert resized is model.get_input_embeddings() and resized.num_embeddings == size
    assert torch.equal(resized.weight[:80], before)
    assert model.question_encoder.get_input_embeddings().num_embeddings == size
    assert model.config.vocab_size == size and model.config.shares_vocabulary
    inputs = {name: value.where(value < 0, value % 80) for name, value in make_inputs(model).items()}
    assert model(**inputs).logits.shape[-1] == size
    model.save_pretrained(tmp_path)
    loaded = load(tmp_path)
    with torch.no_grad():
        assert_same(loaded(**inputs), model(**inputs))
    assert loaded.config.vocab_size == loaded.config.question_encoder.vocab_size == size
    labels = inputs.pop("labels")
    generated = loaded.generate(**inputs, max_new_tokens=3, return_dict_in_generate=True)
    assert generated.answerability.shape == (2,) and labels.shape == (2, 7)


@pytest.mark.parametrize(("summarizer", "question_encoder", "settings"), MODELS)
def test_loading_reports_every_parameter_of_an_empty_checkpoint(
    make_config, summarizer, question_encoder, settings, tmp_path
):
    """Do what `test_model_weights_reload_no_missing_tied_weights` of transformers does."""
    model = CrossTaskForConditionalGeneration(make_config(summarizer, question_encoder, **settings))
    model.save_pretrained(tmp_path)
    load(tmp_path)  # the file has one of several tied weights, and none is missing
    save_file({"tensor": torch.tensor([1, 2])}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    loaded, info = CrossTaskForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    state = loaded.state_dict()
    names = {name for name, _ in loaded.named_parameters()} | {name for name, _ in loaded.named_buffers()}
    pointers = [tensor.data_ptr() for tensor in state.values()]
    tied_names = {name for name, tensor in state.items() if pointers.count(tensor.data_ptr()) > 1}
    # Models can declare weights that a checkpoint may lack, such as BART's `final_logits_bias`.
    patterns = loaded._keys_to_ignore_on_load_missing or ()
    required = {n for n in names & state.keys() if not any(re.search(p, n) for p in patterns)}
    assert required <= set(info["missing_keys"]) <= names | tied_names
    with pytest.raises(ValueError, match="weights are missing"):
        load(tmp_path)


@pytest.mark.parametrize(("summarizer", "question_encoder", "settings"), MODELS)
def test_embeddings_are_resized(make_config, make_inputs, summarizer, question_encoder, settings):
    """Do what `test_resize_tokens_embeddings` of transformers does."""
    config = make_config(summarizer, question_encoder, **settings)
    model = CrossTaskForConditionalGeneration(copy.deepcopy(config)).eval()
    inputs = make_inputs(model)
    before = model.resize_token_embeddings(99).weight.clone()
    for size in (109, 84):
        embeddings = model.resize_token_embeddings(size)
        assert type(embeddings) is type(model.get_input_embeddings()) and len(embeddings.weight) == size
        assert (
            model.vocab_size == model.config.vocab_size == model.config.get_text_config().vocab_size == size
        )
        if size > 99:  # new embeddings are drawn around the mean of the old ones
            mean, new_mean = embeddings.weight[:99].mean(0), embeddings.weight[99:].mean(0)
            assert torch.allclose(mean, new_mean, rtol=1e-3, atol=1e-3)
        inputs["input_ids"][:, -2] = size - 1
        inputs = {name: value.clamp(max=size - 1) for name, value in inputs.items()}
        assert model(**inputs).logits.shape[-1] == size
    assert torch.equal(before[:84], embeddings.weight)
    for size, multiple, expected in ((99, 64, 128), (112, 64, 128), (128, 64, 128), (109, 1, 109)):
        embeddings = model.resize_token_embeddings(size, pad_to_multiple_of=multiple)
        assert len(embeddings.weight) == model.vocab_size == expected
    with pytest.raises(ValueError, match="`1.3`, which is not and integer"):
        model.resize_token_embeddings(99, pad_to_multiple_of=1.3)
    # The vocabulary can be smaller than the hidden size.
    config.vocab_size, config.pad_token_id = 4, 3
    model = CrossTaskForConditionalGeneration(config)
    assert len(model.get_input_embeddings().weight) == 4
    assert len(model.resize_token_embeddings(14).weight) == model.config.get_text_config().vocab_size == 14


def test_resizing_does_not_change_another_vocabulary(make_model, make_part):
    model = make_model("t5", make_part("bert", vocab_size=50))
    model.resize_token_embeddings(120)
    assert model.question_encoder.get_input_embeddings().num_embeddings == 50
    assert model.config.question_encoder.vocab_size == 50 and not model.config.shares_vocabulary


def test_initialization_of_the_fusion(make_config):
    model = CrossTaskForConditionalGeneration(make_config("bart", "bert"))
    for name, parameter in model.answerability_head.named_parameters():
        if "norm" in name:
            assert (parameter == (1.0 if name.endswith("weight") else 0.0)).all(), name
        elif name.endswith("bias"):
            assert (parameter == 0).all(), name
        else:  # with variance 1 / fan-in
            assert 0.8 < parameter.std() * parameter.shape[1] ** 0.5 < 1.2 or parameter.shape[0] == 2, name


def test_missing_and_unexpected_weights_are_reported(make_model, make_inputs, tmp_path, caplog):
    model = make_model("t5", "bert")
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    missing = {
        "answerability_head.q_proj.weight",
        "answerability_head.q_proj.bias",
        "answerability_head.layer_norm.weight",
        "answerability_head.fc1.weight",
    }
    remaining = {name: value for name, value in weights.items() if name not in missing}
    save_file(
        remaining | {"answerability_head.other": torch.ones(2)},
        tmp_path / "model.safetensors",
        metadata={"format": "pt"},
    )
    root = logging.getLogger("transformers")
    transformers_logging.enable_propagation()
    try:
        with caplog.at_level(logging.WARNING, logger=root.name):
            loaded, info = CrossTaskForConditionalGeneration.from_pretrained(
                tmp_path, output_loading_info=True
            )
    finally:
        transformers_logging.disable_propagation()
    assert set(info["missing_keys"]) == missing and set(info["unexpected_keys"]) == {
        "answerability_head.other"
    }
    assert (
        all(name.split(".")[-2] in caplog.text for name in missing)
        and "answerability_head.other" in caplog.text
    )
    state = loaded.state_dict()
    assert all(torch.equal(state[name], value) for name, value in remaining.items())
    assert (state["answerability_head.layer_norm.weight"] == 1).all() and (
        state["answerability_head.q_proj.bias"] == 0
    ).all()
    for name in ("answerability_head.q_proj.weight", "answerability_head.fc1.weight"):
        assert not torch.equal(state[name], weights[name]) and 0.1 < state[name].std() < 0.3
    assert loaded(**make_inputs(model), answerable=ANSWERABLE).loss.isfinite()


def test_model_is_copied_and_pickled(make_model, make_inputs):
    model = make_model("t5", "bert")
    inputs = make_inputs(model)
    expected = model(**inputs)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert_same(other(**inputs), expected)
        other.answerability_head.classifier.weight.data.zero_()
    assert_same(model(**inputs), expected)


# Dtypes, devices, implementations.


@pytest.mark.parametrize("question_encoder", ["t5", "bert", "roberta"])
def test_float16_keeps_modules_that_overflow_in_float32(make_model, make_inputs, question_encoder, tmp_path):
    make_model("t5", question_encoder).save_pretrained(tmp_path)
    model = load(tmp_path, dtype=torch.float16)
    for name, parameter in model.named_parameters():
        assert parameter.dtype == (torch.float32 if ".wo." in name else torch.float16), name
    assert model(**make_inputs(model), answerable=ANSWERABLE).loss.isfinite()
    # A checkpoint in float16 is loaded in float16.
    model.save_pretrained(tmp_path / "half")
    again = load(tmp_path / "half", dtype="auto")
    assert {n: p.dtype for n, p in again.named_parameters()} == {
        n: p.dtype for n, p in model.named_parameters()
    }
    single = load(tmp_path / "half", dtype=torch.float32)
    assert {p.dtype for p in single.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("summarizer", "question_encoder"), [("t5", "bert"), ("bart", "t5"), ("t5gemma", "bert")]
)
def test_bfloat16(make_model, make_inputs, summarizer, question_encoder, tmp_path):
    exact = make_model(summarizer, question_encoder)
    exact.save_pretrained(tmp_path)
    model = load(tmp_path, dtype=torch.bfloat16)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    inputs = make_inputs(model)
    output = model.train()(**inputs, answerable=ANSWERABLE)
    output.loss.backward()
    assert output.loss.isfinite() and output.answerability_loss.dtype == torch.float32
    assert abs(output.answerability_loss - exact(**inputs, answerable=ANSWERABLE).answerability_loss) < 0.2
    inputs.pop("labels")
    generated = model.eval().generate(**inputs, max_new_tokens=3, return_dict_in_generate=True)
    assert generated.answerability.isfinite().all() and generated.answerability.dtype == torch.float32


@pytest.mark.parametrize("device_map", ["cpu", "auto", {"": "cpu"}])
def test_device_map(make_model, make_inputs, device_map, tmp_path):
    model = make_model("t5", "bert")
    model.save_pretrained(tmp_path)
    inputs = make_inputs(model)
    loaded = load(tmp_path, device_map=device_map)
    expected = model(**inputs)
    output = loaded(**{name: value.to(loaded.device) for name, value in inputs.items()})
    assert torch.allclose(output.answerability_logits.cpu(), expected.answerability_logits, atol=1e-4)


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("method", ["device_map", "accelerate"])
def test_offloading(make_model, make_inputs, fusion, method, tmp_path):
    model = make_model("t5", "bert", fusion=fusion)
    if fusion == "gated":
        model.gated_cross_attention.gates.data.fill_(1.0)
    model.save_pretrained(tmp_path)
    if method == "device_map":
        devices = {"summarizer": "cpu", "question_encoder": "cpu", "answerability_head": "disk"}
        devices |= {"gated_cross_attention": "disk"} if fusion == "gated" else {}
        loaded = load(tmp_path, device_map=devices, offload_folder=tmp_path / "offload")
        assert loaded.answerability_head.q_proj.weight.device.type == "meta"
    else:
        loaded = load(tmp_path)
        disk_offload(loaded, tmp_path / "offload", execution_device=torch.device("cpu"))
    inputs = make_inputs(model)
    assert_same(loaded(**inputs, answerable=ANSWERABLE), model(**inputs, answerable=ANSWERABLE))
    inputs.pop("labels")
    settings = {"max_new_tokens": 4, "return_dict_in_generate": True}
    output, expected = loaded.generate(**inputs, **settings), model.generate(**inputs, **settings)
    assert torch.equal(output.sequences, expected.sequences)
    assert torch.equal(output.answerability, expected.answerability)


@pytest.mark.parametrize(
    ("summarizer", "question_encoder"), [("bart", "bert"), ("t5gemma", "roberta"), ("t5", "t5")]
)
def test_attention_implementations_agree(make_model, make_inputs, summarizer, question_encoder, tmp_path):
    model = make_model(summarizer, question_encoder)
    model.save_pretrained(tmp_path)
    inputs = make_inputs(model)
    eager = load(tmp_path, attn_implementation="eager")
    assert eager.summarizer.config._attn_implementation == "eager"
    assert eager.question_encoder.config._attn_implementation == "eager"
    assert_same(eager(**inputs), model(**inputs), atol=1e-4)
    assert_same(eager(**inputs, output_attentions=True), model(**inputs), atol=1e-4)


def test_setting_the_attention_implementation(make_model, make_inputs):
    model = make_model("bart", "bart")
    inputs = make_inputs(model)
    expected = model(**inputs)
    for setting, expected_implementations in (
        ("eager", ("eager", "eager")),
        ("sdpa", ("sdpa", "sdpa")),
        ({"summarizer": "eager", "question_encoder": "sdpa"}, ("eager", "sdpa")),
        ({"question_encoder": "eager"}, ("eager", "eager")),
    ):
        model.set_attn_implementation(setting)
        parts = (model.summarizer, model.question_encoder)
        assert tuple(part.config._attn_implementation for part in parts) == expected_implementations
        assert_same(model(**inputs), expected, atol=1e-4)


def test_compiled_forward(make_model, make_part, make_inputs):
    model = make_model(
        make_part("bart", encoder_layers=1, decoder_layers=1), make_part("bert", num_hidden_layers=1)
    )
    inputs = make_inputs(model) | {"answerable": ANSWERABLE}
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch.no_grad():
        assert_same(compiled(**inputs), model(**inputs), atol=1e-5)
        model.resize_token_embeddings(104, mean_resizing=False)  # replaces the LM head
        assert_same(compiled(**inputs), model(**inputs), atol=1e-5)


@pytest.fixture
def mesh(tmp_path):
    """Return a device mesh of one process on the CPU."""
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    distributed.destroy_process_group()


@pytest.mark.parametrize("fusion", FUSIONS)
def test_fully_sharded_modules(make_model, make_inputs, mesh, fusion):
    model = make_model("t5", "bert", fusion=fusion)
    if fusion == "gated":
        model.gated_cross_attention.gates.data.fill_(1.0)
    inputs = make_inputs(model) | {"answerable": ANSWERABLE}
    expected = model(**inputs)
    for part in filter(None, (model.answerability_head, model.gated_cross_attention, model)):
        fully_shard(part, mesh=mesh)
    output = model(**inputs)
    assert_same(output, expected, atol=1e-6)
    output.loss.backward()
    assert all(
        p.grad is not None for p in (model.gated_cross_attention or model.answerability_head).parameters()
    )


# Training.


@pytest.mark.parametrize(
    ("summarizer", "question_encoder"), [("t5", "t5"), ("bart", "bert"), ("t5gemma", "roberta")]
)
@pytest.mark.parametrize("use_reentrant", [False, True])
def test_gradient_checkpointing(make_model, make_inputs, summarizer, question_encoder, use_reentrant):
    model = make_model(summarizer, question_encoder).train()
    inputs = make_inputs(model) | {"answerable": ANSWERABLE}

    def step():
        model.zero_grad()
        loss = model(**inputs).loss
        loss.backward()
        return loss.detach(), {n: p.grad.clone() for n, p in model.named_parameters()}

    expected_loss, expected = step()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": use_reentrant})
    assert model.is_gradient_checkpointing
    loss, gradients = step()
    assert torch.allclose(loss, expected_loss, atol=1e-6)
    for name, gradient in gradients.items():
        assert torch.allclose(gradient, expected[name], atol=1e-5), name
    model.gradient_checkpointing_disable()
    assert not model.is_gradient_checkpointing


@pytest.mark.parametrize("generate", [False, True])
def test_seq2seq_trainer(make_model, make_inputs, generate, tmp_path):
    model = make_model("t5", "bert")
    inputs = make_inputs(model, batch_size=4, length=12) | {"answerable": torch.tensor([1, 0, -100, 1])}
    rows = [{name: values[row] for name, values in inputs.items()} for row in range(4)]
    evaluations = []
    arguments = Seq2SeqTrainingArguments(
        output_dir=str(tmp_path),
        max_steps=2,
        learning_rate=0.01,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        predict_with_generate=generate,
        generation_max_length=6,
        gradient_checkpointing=not generate,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = Seq2SeqTrainer(
        model=model,
        args=arguments,
        train_dataset=rows,
        eval_dataset=rows,
        compute_metrics=lambda prediction: evaluations.append(prediction) or {},
    )
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < before
    predictions = evaluations[-1].predictions
    if generate:
        assert predictions.ndim == 2 and len(predictions) == 4
    else:  # the two kinds of logits, without hidden states and caches
        assert [array.shape for array in predictions] == [(4, 7, 99), (4, 2)]
