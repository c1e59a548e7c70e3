"""Task models; saving, publishing, loading and verifying checkpoints."""

import copy
import hashlib
import json
import re
import subprocess

import pytest
import torch
from huggingface_hub import HfApi, ModelCard
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    AutoModelForSeq2SeqLM,
    AutoProcessor,
    AutoTokenizer,
    BertForQuestionAnswering,
    BertModel,
    T5EncoderModel,
    T5ForConditionalGeneration,
    T5Model,
)

from crosstask import CrossTaskConfig, CrossTaskForConditionalGeneration, CrossTaskProcessor
from crosstask.loading_crosstask import get_lm_head, get_text_encoder, load_task_model, write_checksums

CHECKSUMS = "model.safetensors.sha256"
IDS = torch.tensor([[5, 6, 7, 8, 9, 1], [9, 8, 7, 6, 5, 1]])


def compose(summarizer, answerer, **settings):
    return CrossTaskForConditionalGeneration.from_tasks(
        summarizer, answerer, **{"fusion_num_heads": 4} | settings
    )


@pytest.fixture
def summarizer(make_part):
    torch.manual_seed(1)
    return T5ForConditionalGeneration(make_part("t5")).eval()


@pytest.fixture
def answerer(make_part):
    torch.manual_seed(2)
    return T5ForConditionalGeneration(make_part("t5")).eval()


def get_changed_weights(model, before):
    after = model.state_dict()
    return [name for name, value in before.items() if not torch.equal(value, after[name])]


def test_composing_from_folders(summarizer, make_part, tmp_path):
    bert = BertModel(make_part("bert")).eval()
    summarizer.save_pretrained(tmp_path / "s")
    bert.save_pretrained(tmp_path / "q")
    model = compose(str(tmp_path / "s"), tmp_path / "q", fusion_dropout=0.3, prompt="{question}?")
    assert not model.training
    assert (model.config.fusion_dropout, model.config.prompt) == (0.3, "{question}?")
    assert torch.equal(model.summarizer(IDS, labels=IDS).logits, summarizer(IDS, labels=IDS).logits)
    assert torch.equal(model.question_encoder(IDS)[0], bert(IDS)[0])
    assert not [name for name, _ in model.named_parameters() if "pooler" in name]


def test_composing_copies_loaded_models(summarizer, answerer):
    summarizer.train()
    before = copy.deepcopy(summarizer.state_dict()), copy.deepcopy(answerer.state_dict())
    configs = summarizer.config.to_dict(), answerer.config.to_dict()
    model = compose(summarizer, answerer)
    output = model(IDS, labels=IDS, answerable=torch.tensor([1, 0]))
    output.loss.backward()
    torch.optim.SGD(model.parameters(), lr=1.0).step()
    model.resize_token_embeddings(120)
    assert not get_changed_weights(summarizer, before[0]) and not get_changed_weights(answerer, before[1])
    assert (summarizer.config.to_dict(), answerer.config.to_dict()) == configs
    assert summarizer.training and all(p.grad is None for p in summarizer.parameters())


def test_composing_a_model_with_itself_makes_two_copies(summarizer):
    model = compose(summarizer, summarizer)
    shared = model.summarizer.shared.weight, model.question_encoder.embed_tokens.weight
    assert torch.equal(*shared) and shared[0].data_ptr() != shared[1].data_ptr()


def test_composing_keeps_weights_that_transformers_did_not_initialize(summarizer, make_part):
    layer = summarizer.encoder.block[0].layer[1].DenseReluDense
    layer.wi = torch.nn.Linear(32, 37, bias=False)
    bert = BertModel(make_part("bert"))
    bert.encoder.layer[0].output.dense = torch.nn.Linear(37, 24)
    bert.resize_token_embeddings(120)
    before = copy.deepcopy(summarizer.state_dict()), copy.deepcopy(bert.state_dict())
    model = compose(summarizer, bert)
    assert not get_changed_weights(model.summarizer, before[0])
    assert not get_changed_weights(
        model.question_encoder, {k: v for k, v in before[1].items() if "pooler" not in k}
    )


def test_an_adapter_is_merged_into_its_base_model(summarizer, answerer, tmp_path):
    summarizer.save_pretrained(tmp_path / "base")
    before = copy.deepcopy(summarizer.state_dict())
    lora = LoraConfig(r=4, target_modules=["q", "v"], task_type="SEQ_2_SEQ_LM", init_lora_weights=False)
    base = T5ForConditionalGeneration.from_pretrained(tmp_path / "base")
    adapted = get_peft_model(base, lora).eval()
    adapted.save_pretrained(tmp_path / "adapter")
    expected = adapted(input_ids=IDS, labels=IDS).logits
    assert not torch.allclose(expected, summarizer(IDS, labels=IDS).logits, atol=1e-3)
    for source in (tmp_path / "adapter", adapted):
        model = compose(source, source)
        assert torch.allclose(model.summarizer(IDS, labels=IDS).logits, expected, atol=1e-5)
        encoded = adapted.get_base_model().get_encoder()(IDS)[0]
        assert torch.allclose(model.question_encoder(IDS)[0], encoded, atol=1e-5)
        assert not [name for name, _ in model.named_parameters() if "lora" in name]
        assert all(weight.requires_grad for weight in model.parameters())
        model.save_pretrained(tmp_path / "merged")
        loaded = CrossTaskForConditionalGeneration.from_pretrained(tmp_path / "merged")
        assert torch.allclose(loaded(IDS, labels=IDS).logits, expected, atol=1e-5)
    # The adapter itself is not changed by that.
    assert torch.equal(adapted(input_ids=IDS, labels=IDS).logits, expected)
    assert not get_changed_weights(T5ForConditionalGeneration.from_pretrained(tmp_path / "base"), before)


def test_a_loaded_model_with_adapter_layers_is_refused(summarizer, tmp_path):
    """Saving such a model would give its adapter layers names that no model has."""
    summarizer.save_pretrained(tmp_path / "base")
    config = LoraConfig(target_modules=["q"], init_lora_weights=False)
    base = T5ForConditionalGeneration.from_pretrained(tmp_path / "base")
    get_peft_model(base, config).save_pretrained(tmp_path / "adapter")
    inside = T5ForConditionalGeneration.from_pretrained(tmp_path / "base")
    inside.load_adapter(str(tmp_path / "adapter"))
    message = "a loaded T5ForConditionalGeneration has adapter layers in it.* expected a `PeftModel`"
    for model in (inside, base):
        for sources in ((model, summarizer), (summarizer, model)):
            for share_base in (True, False):
                with pytest.raises(ValueError, match=message):
                    compose(*sources, share_base=share_base)
    inside.delete_adapter("default")  # transformers leaves its layers
    with pytest.raises(ValueError, match=message):
        compose(inside, summarizer)


def test_an_adapter_that_names_no_base_model_is_refused(summarizer, tmp_path):
    get_peft_model(copy.deepcopy(summarizer), LoraConfig(target_modules=["q"])).save_pretrained(tmp_path)
    for share_base in (True, False):
        with pytest.raises(
            ValueError, match="adapter_config.json names no base model, expected `base_model_"
        ):
            compose(tmp_path, tmp_path, share_base=share_base)


def test_code_of_an_adapters_base_model_is_not_trusted(summarizer, answerer, tmp_path):
    """`trust_remote_code` is for the repository that the user names, not for one that an adapter names."""
    summarizer.save_pretrained(tmp_path / "base")
    base = T5ForConditionalGeneration.from_pretrained(tmp_path / "base")
    get_peft_model(base, LoraConfig(target_modules=["q"])).save_pretrained(tmp_path / "adapter")
    config = json.loads((tmp_path / "base" / "config.json").read_text())
    config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.EvilConfig"}}
    (tmp_path / "base" / "config.json").write_text(json.dumps(config))
    marker = tmp_path / "marker"
    (tmp_path / "base" / "evil.py").write_text(f"open({str(marker)!r}, 'w')\nclass EvilConfig: pass\n")
    with pytest.raises(ValueError, match="trust_remote_code"):
        compose(str(tmp_path / "adapter"), answerer, model_kwargs={"trust_remote_code": True})
    assert not marker.exists()


@pytest.mark.parametrize(
    "kind", [BertForQuestionAnswering, BertModel, T5EncoderModel, T5Model, T5ForConditionalGeneration]
)
def test_the_encoder_of_any_class_of_question_answerer_is_used(summarizer, make_part, kind, tmp_path):
    torch.manual_seed(3)
    answerer = kind(make_part("bert" if "Bert" in kind.__name__ else "t5")).eval()
    encoder = answerer.bert if hasattr(answerer, "bert") else answerer
    encoder = encoder.encoder if "T5" in kind.__name__ else encoder
    expected = encoder(input_ids=IDS)[0]
    model = compose(summarizer, answerer)
    assert torch.equal(model.question_encoder(IDS)[0], expected)
    model.save_pretrained(tmp_path)
    loaded, info = CrossTaskForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert torch.equal(loaded.eval().question_encoder(IDS)[0], expected)


def test_a_real_text_encoder_as_question_encoder(summarizer, minilm, tmp_path):
    original = AutoModel.from_pretrained(minilm).eval()
    questions = ["who opened it?", "rain fell"]
    tokens = AutoTokenizer.from_pretrained(minilm)(questions, padding=True, return_tensors="pt")
    expected = original(**tokens)[0]
    model = compose(summarizer, str(minilm))
    assert not model.config.shares_vocabulary and model.config.fusion_dim == 384
    ids = {f"question_{name}": tokens[name] for name in ("input_ids", "attention_mask")}
    output = model(IDS, labels=IDS, **ids)
    assert torch.allclose(output.question_encoder_last_hidden_state, expected, atol=1e-6)
    model.save_pretrained(tmp_path)
    loaded = CrossTaskForConditionalGeneration.from_pretrained(tmp_path).eval()
    again = loaded(IDS, labels=IDS, **ids)
    assert torch.equal(again.question_encoder_last_hidden_state, output.question_encoder_last_hidden_state)
    assert torch.equal(again.answerability_logits, output.answerability_logits)


def test_dtype_applies_to_both_checkpoints(summarizer, answerer, tmp_path):
    summarizer.save_pretrained(tmp_path / "s")
    answerer.save_pretrained(tmp_path / "q")
    model = compose(tmp_path / "s", tmp_path / "q", model_kwargs={"dtype": torch.bfloat16})
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert model.generate(IDS, max_new_tokens=3, return_dict_in_generate=True).answerability.isfinite().all()


@pytest.mark.parametrize(
    ("dtypes", "expected"),
    [
        ((torch.float16, torch.float32), torch.float32),
        ((torch.float32, torch.bfloat16), torch.float32),
        ((torch.float16, torch.bfloat16), torch.float32),
        ((torch.float16, torch.float16), torch.float16),
    ],
)
def test_parts_of_two_dtypes_get_the_wider_one(summarizer, answerer, dtypes, expected):
    model = compose(summarizer.to(dtypes[0]), answerer.to(dtypes[1]))
    assert {p.dtype for p in model.parameters()} == {expected}


@pytest.mark.parametrize("share_base", [False, True])
def test_a_cross_task_model_is_refused_as_a_part(make_model, summarizer, tmp_path, share_base):
    model = make_model()
    model.save_pretrained(tmp_path)
    lora = get_peft_model(copy.deepcopy(model), LoraConfig(r=2, target_modules=["q"]))
    # Low-rank updates of a shared base have to lie in its encoder, which is refused before.
    for part in (tmp_path, model) if share_base else (tmp_path, model, lora):
        with pytest.raises(ValueError, match="`summarizer` is a cross-task model already.*`from_pretrained`"):
            compose(part, part if share_base else summarizer, share_base=share_base)
    with pytest.raises(ValueError, match="`question_answerer` is a cross-task model already"):
        compose(summarizer, model)


def test_models_of_the_wrong_kind_are_refused(summarizer, make_part, tmp_path):
    BertModel(make_part("bert")).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="`summarizer` has to be a sequence-to-sequence model .* 'bert'"):
        compose(tmp_path, summarizer)
    with pytest.raises(ValueError, match="`summarizer` has to be a sequence-to-sequence model .* 'bert'"):
        compose(tmp_path, tmp_path, share_base=True)
    with pytest.raises(ValueError, match="with a language-model head, got a T5Model"):
        compose(T5Model(make_part("t5")), summarizer)
    with pytest.raises((OSError, ValueError), match="nowhere"):
        compose(str(tmp_path / "nowhere"), summarizer)


@pytest.mark.parametrize("family", ["t5", "bart", "led", "t5gemma"])
def test_get_text_encoder_of_seq2seq_models(make_part, family):
    model = AutoModelForSeq2SeqLM.from_config(make_part(family))
    assert get_text_encoder(model) is model.get_encoder()
    assert get_text_encoder(model.base_model) is model.get_encoder()
    assert get_text_encoder(model.get_encoder()) is model.get_encoder()
    assert get_lm_head(model).weight.shape[0] == 99


def test_load_task_model_picks_the_class_by_the_configuration(summarizer, make_part, tmp_path):
    summarizer.save_pretrained(tmp_path / "s")
    BertModel(make_part("bert")).save_pretrained(tmp_path / "b")
    assert type(load_task_model(tmp_path / "s")) is T5ForConditionalGeneration
    assert type(load_task_model(str(tmp_path / "b"))) is BertModel


def test_load_task_model_without_merging_returns_the_base_model(summarizer, tmp_path):
    summarizer.save_pretrained(tmp_path / "base")
    base = T5ForConditionalGeneration.from_pretrained(tmp_path / "base")
    lora = LoraConfig(target_modules=["q"], init_lora_weights=False)
    adapted = get_peft_model(base, lora)
    adapted.save_pretrained(tmp_path / "adapter")
    before = summarizer.state_dict()
    for source in (summarizer, tmp_path / "base", adapted, tmp_path / "adapter"):
        base = load_task_model(source, merge=False)
        assert base.state_dict().keys() == before.keys() and not get_changed_weights(base, before)


def load(name, **kwargs):
    return CrossTaskForConditionalGeneration.from_pretrained(name, **kwargs)


def assert_same_weights(model, expected):
    assert model.state_dict().keys() == expected.state_dict().keys()
    assert not get_changed_weights(model, expected.state_dict())


def rewrite_weights(folder, change):
    """Replace the weights in a folder by `change(weights)`."""
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})


def flip_last_bit(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    return bytes(content)


@pytest.fixture
def folder(make_model, tmp_path):
    """A checkpoint in one file, with its checksums."""
    make_model("t5", "bert").save_pretrained(tmp_path / "model")
    write_checksums(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def sharded(make_model, tmp_path):
    """A checkpoint in several files, with its checksums."""
    make_model("t5", "bert").save_pretrained(tmp_path / "sharded", max_shard_size="40KB")
    write_checksums(tmp_path / "sharded")
    return tmp_path / "sharded"


@pytest.mark.parametrize(
    "options, files",
    [
        ({}, ["model.safetensors"]),
        ({"variant": "fp16"}, ["model.fp16.safetensors"]),
        ({"max_shard_size": "40KB"}, ["model.safetensors.index.json", "model-00001-of-00007.safetensors"]),
        ({"max_shard_size": "40KB", "variant": "fp16"}, ["model.safetensors.index.fp16.json"]),
    ],
    ids=str,
)
def test_checksums_are_those_of_sha256sum(make_model, tmp_path, options, files):
    model = make_model("t5", "bert")
    model.save_pretrained(tmp_path, **options)
    assert not list(tmp_path.glob("*.sha256"))
    write_checksums(tmp_path)
    (checksums,) = tmp_path.glob("*.sha256")
    lines = dict(reversed(line.split()) for line in checksums.read_text().splitlines())
    assert {*files} <= lines.keys()
    assert lines == {name: hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in lines}
    assert lines.keys() == {path.name for path in tmp_path.glob("model[.-]*") if path != checksums}
    check = subprocess.run(["sha256sum", "-c", checksums.name], cwd=tmp_path, capture_output=True, text=True)
    assert check.returncode == 0, check.stdout
    assert_same_weights(load(tmp_path, variant=options.get("variant"), verify_weights=True), model)


def test_saving_again_replaces_the_older_weights_and_checksums(make_model, folder):
    for seed, size in ((1, "40KB"), (2, "1GB")):
        model = make_model("t5", "bert", seed=seed)
        model.save_pretrained(folder, max_shard_size=size)
        assert_same_weights(load(folder), model)
        assert not list(folder.glob("*.sha256"))


def test_saving_a_variant_keeps_the_checksums_of_another_one(make_model, folder):
    make_model("t5", "bert", seed=1).save_pretrained(folder, variant="fp16")
    load(folder, verify_weights=True)


@pytest.mark.parametrize("kind", ["folder", "sharded"])
def test_verifying_names_a_file_that_was_changed(request, kind):
    folder = request.getfixturevalue(kind)
    path = sorted(folder.glob("*.safetensors"))[-1]
    flip_last_bit(path)
    message = f"^{re.escape(str(folder))}: {path.name} differs from its checksum in {CHECKSUMS}; download it"
    for loader in (load, AutoModelForSeq2SeqLM.from_pretrained):
        with pytest.raises(OSError, match=message):
            loader(folder, verify_weights=True)
    load(folder)  # is not verified by default


@pytest.mark.parametrize("verify_weights", [True, False])
def test_truncated_weights_are_reported_in_one_sentence(folder, verify_weights):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    message = "differs from its checksum in" if verify_weights else "cannot be read .*; download them again"
    with pytest.raises(OSError, match=message) as caught:
        load(folder, verify_weights=verify_weights)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("verify_weights", [True, False])
def test_a_missing_shard_is_named(sharded, verify_weights):
    shard = sorted(sharded.glob("*.safetensors"))[0]
    shard.unlink()
    message = f"cannot be read .*{shard.name}.*; download them again"
    if verify_weights:
        message = f"{shard.name} is missing, but listed in {CHECKSUMS}; download it again"
    with pytest.raises(OSError, match=message):
        load(sharded, verify_weights=verify_weights)


def test_verifying_needs_checksums(folder):
    (folder / CHECKSUMS).unlink()
    with pytest.raises(OSError, match=f": has no {CHECKSUMS}, which `verify_weights=True` compares"):
        load(folder, verify_weights=True)
    model = load(folder)
    with pytest.raises(OSError, match=f"^None: has no {CHECKSUMS}"):
        load(None, config=model.config, state_dict=model.state_dict(), verify_weights=True)


def test_verifying_refuses_a_single_file_that_the_checksums_do_not_list(folder, sharded):
    """transformers would load it instead of the shards."""
    (folder / "model.safetensors").rename(sharded / "model.safetensors")
    with pytest.raises(OSError, match=f"model.safetensors differs from its checksum in {CHECKSUMS}"):
        load(sharded, verify_weights=True)


@pytest.mark.parametrize("line", ["{checksum} *{name}", "{CHECKSUM}  {name}", "{checksum}  {name}\r"])
def test_every_format_of_sha256sum_is_read(folder, line):
    checksum = (folder / CHECKSUMS).read_text().split()[0]
    line = line.format(checksum=checksum, CHECKSUM=checksum.upper(), name="model.safetensors")
    (folder / CHECKSUMS).write_bytes(line.encode() + b"\n")
    load(folder, verify_weights=True)


@pytest.mark.parametrize("line", ["garbage", "0" * 63 + "  model.safetensors", "0" * 64 + "  ../config.json"])
def test_checksums_of_another_format_are_refused(folder, line):
    (folder / CHECKSUMS).write_text(line + "\n")
    with pytest.raises(OSError, match=f"{CHECKSUMS} has a line that is not of the form") as caught:
        load(folder, verify_weights=True)
    assert "\n" not in str(caught.value)


def test_missing_and_unknown_weights_are_counted_and_named(folder):
    def change(weights):
        weights = {k: v for k, v in weights.items() if not k.startswith("answerability_head.fc")}
        return weights | {"head.weight": torch.ones(2)}

    rewrite_weights(folder, change)
    message = "4 weights are missing .answerability_head.fc1.bias, .*1 weights are unknown"
    with pytest.raises(ValueError, match=message) as caught:
        load(folder)
    assert "\n" not in str(caught.value) and "head.weight" in str(caught.value)
    _, info = load(folder, output_loading_info=True)
    assert len(info["missing_keys"]) == 4 and set(info["unexpected_keys"]) == {"head.weight"}


@pytest.mark.parametrize("name", ["summarizer.lm_head.weight", "summarizer.encoder.embed_tokens.weight"])
def test_weights_that_are_tied_to_saved_ones_are_not_missing(make_model, tmp_path, name):
    model = make_model("t5", "t5")
    model.save_pretrained(tmp_path)
    rewrite_weights(tmp_path, lambda weights: weights | {name: weights.pop("summarizer.shared.weight")})
    assert_same_weights(load(tmp_path), model)
    rewrite_weights(tmp_path, lambda weights: {k: v for k, v in weights.items() if k != name})
    with pytest.raises(ValueError, match="4 weights are missing .*summarizer.lm_head.weight"):
        load(tmp_path)


def test_weights_of_another_shape_are_refused(folder):
    rewrite_weights(folder, lambda weights: weights | {"answerability_head.fc1.weight": torch.ones(2, 2)})
    with pytest.raises(ValueError, match="its weights have other shapes than its config.json says") as caught:
        load(folder)
    assert "\n" not in str(caught.value)
    assert load(folder, ignore_mismatched_sizes=True).answerability_head.fc1.weight.shape == (96, 24)


def test_a_checkpoint_of_another_model_is_refused(make_part, tmp_path):
    AutoModelForSeq2SeqLM.from_config(make_part("t5")).save_pretrained(tmp_path)
    config = CrossTaskConfig(make_part("t5"), make_part("bert"), fusion_num_heads=4)
    with pytest.raises(ValueError, match="weights are missing .* and .* weights are unknown to the model"):
        load(tmp_path, config=config)


def test_arguments_that_say_where_a_checkpoint_is(hub, alice, folder, make_model, tmp_path):
    model = load(folder)
    model.push_to_hub("alice/model")
    other = make_model("t5", "bert", seed=1)
    other.push_to_hub("alice/model", revision="other")
    assert_same_weights(load("alice/model", verify_weights=True), model)
    assert_same_weights(load("alice/model", revision="other", verify_weights=True), other)
    assert_same_weights(load("alice/model", revision=hub.commits("alice/model")[0].oid), model)
    HfApi().upload_folder(repo_id="alice/model", folder_path=folder, path_in_repo="sub/folder")
    assert_same_weights(load("alice/model", subfolder="sub/folder", verify_weights=True), model)
    kwargs = {"cache_dir": tmp_path / "cache", "verify_weights": True}
    assert_same_weights(load("alice/model", **kwargs), model)
    hub.reset()
    assert_same_weights(load("alice/model", local_files_only=True, **kwargs), model)


def test_verifying_finds_weights_that_were_changed_on_the_hub(hub, alice, folder):
    load(folder).push_to_hub("alice/model")
    path = folder / "model.safetensors"
    HfApi().upload_file(path_or_fileobj=flip_last_bit(path), path_in_repo=path.name, repo_id="alice/model")
    with pytest.raises(OSError, match="^alice/model: model.safetensors differs from its checksum in"):
        load("alice/model", verify_weights=True)
    load("alice/model")


def test_pushing_uploads_code_checksums_and_a_card(hub, alice, make_model, tokenizer):
    model = make_model()
    model.push_to_hub("alice/model")
    CrossTaskProcessor(tokenizer, max_source_length=50).push_to_hub("alice/model")
    files = hub.files("alice/model")
    code = {name for name in files if name.endswith(".py")}
    assert {"modeling_crosstask.py", "processing_crosstask.py", "pipeline_crosstask.py"} <= code
    assert {"model.safetensors", CHECKSUMS, "config.json", "processor_config.json"} <= set(files)
    card = ModelCard(files["README.md"].decode())
    assert "[More Information Needed]" not in card.text and "model='alice/model'" in card.text
    assert card.data.tags == ["crosstask", "question-prompted-summarization"]
    assert (card.data.library_name, card.data.pipeline_tag) == ("transformers", "summarization")
    compile(card.text.split("```python\n")[1].split("```")[0], "card", "exec")
    assert AutoProcessor.from_pretrained("alice/model").max_source_length == 50


def test_pushing_keeps_the_card_of_a_repository(hub, alice, make_model, tmp_path):
    HfApi().create_repo("alice/model")
    card = b"---\nlicense: mit\n---\n# Mine\n"
    HfApi().upload_file(path_or_fileobj=card, path_in_repo="README.md", repo_id="alice/model")
    model = make_model()
    model.push_to_hub("alice/model")
    assert "# Mine" in hub.files("alice/model")["README.md"].decode()
    model.save_pretrained(str(tmp_path / "again"), push_to_hub=True, repo_id="alice/again")
    files = hub.files("alice/again")
    assert {CHECKSUMS, "pipeline_crosstask.py"} <= files.keys() and "# again" in files["README.md"].decode()


def test_pushing_deletes_weights_of_an_earlier_version(hub, alice, make_model):
    for seed, size in ((0, "1GB"), (1, "40KB"), (2, "1GB")):
        model = make_model("t5", "bert", seed=seed)
        model.push_to_hub("alice/model", max_shard_size=size)
        assert_same_weights(load("alice/model", verify_weights=True), model)
