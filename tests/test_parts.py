"""Composing from parts: checkpoints, loaded models, adapters, and what is taken of each."""

import copy
import json
import threading

import pytest
import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModel,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    BertForQuestionAnswering,
    BertModel,
    T5EncoderModel,
    T5ForConditionalGeneration,
    T5Model,
)

from crosstask import CrossTaskForConditionalGeneration
from crosstask.fusion_crosstask import capture_input, capture_output
from crosstask.loading_crosstask import get_lm_head, get_text_encoder, load_task_model

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


def changed(model, before):
    after = model.state_dict()
    return [name for name, value in before.items() if not torch.equal(value, after[name])]


def test_from_folders(summarizer, make_part, tmp_path):
    bert = BertModel(make_part("bert")).eval()
    summarizer.save_pretrained(tmp_path / "s")
    bert.save_pretrained(tmp_path / "q")
    model = compose(str(tmp_path / "s"), tmp_path / "q", fusion_dropout=0.3, prompt="{question}?")
    assert not model.training
    assert (model.config.fusion_dropout, model.config.prompt) == (0.3, "{question}?")
    assert torch.equal(model.summarizer(IDS, labels=IDS).logits, summarizer(IDS, labels=IDS).logits)
    assert torch.equal(model.question_encoder(IDS)[0], bert(IDS)[0])
    assert not [name for name, _ in model.named_parameters() if "pooler" in name]


def test_loaded_models_are_copied(summarizer, answerer):
    summarizer.train()
    before = copy.deepcopy(summarizer.state_dict()), copy.deepcopy(answerer.state_dict())
    configs = summarizer.config.to_dict(), answerer.config.to_dict()
    model = compose(summarizer, answerer)
    output = model(IDS, labels=IDS, answerable=torch.tensor([1, 0]))
    output.loss.backward()
    torch.optim.SGD(model.parameters(), lr=1.0).step()
    model.resize_token_embeddings(120)
    assert not changed(summarizer, before[0]) and not changed(answerer, before[1])
    assert (summarizer.config.to_dict(), answerer.config.to_dict()) == configs
    assert summarizer.training and all(p.grad is None for p in summarizer.parameters())


def test_the_same_model_twice_becomes_two(summarizer):
    model = compose(summarizer, summarizer)
    shared = model.summarizer.shared.weight, model.question_encoder.embed_tokens.weight
    assert torch.equal(*shared) and shared[0].data_ptr() != shared[1].data_ptr()


def test_weights_that_transformers_did_not_initialize_are_kept(summarizer, make_part):
    layer = summarizer.encoder.block[0].layer[1].DenseReluDense
    layer.wi = torch.nn.Linear(32, 37, bias=False)
    bert = BertModel(make_part("bert"))
    bert.encoder.layer[0].output.dense = torch.nn.Linear(37, 24)
    bert.resize_token_embeddings(120)
    before = copy.deepcopy(summarizer.state_dict()), copy.deepcopy(bert.state_dict())
    model = compose(summarizer, bert)
    assert not changed(model.summarizer, before[0])
    assert not changed(model.question_encoder, {k: v for k, v in before[1].items() if "pooler" not in k})


def test_adapter_folder_is_merged(summarizer, answerer, tmp_path):
    peft = pytest.importorskip("peft")
    summarizer.save_pretrained(tmp_path / "base")
    before = copy.deepcopy(summarizer.state_dict())
    lora = peft.LoraConfig(r=4, target_modules=["q", "v"], task_type="SEQ_2_SEQ_LM", init_lora_weights=False)
    base = T5ForConditionalGeneration.from_pretrained(tmp_path / "base")
    adapted = peft.get_peft_model(base, lora).eval()
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
    assert torch.equal(adapted(input_ids=IDS, labels=IDS).logits, expected)  # itself not merged
    assert not changed(T5ForConditionalGeneration.from_pretrained(tmp_path / "base"), before)


def test_an_adapter_inside_a_loaded_model_is_refused(summarizer, tmp_path):
    """Its layers would be saved under names that no model has."""
    summarizer.save_pretrained(tmp_path / "base")
    config = LoraConfig(target_modules=["q"], init_lora_weights=False)
    base = T5ForConditionalGeneration.from_pretrained(tmp_path / "base")
    get_peft_model(base, config).save_pretrained(tmp_path / "adapter")
    inside = T5ForConditionalGeneration.from_pretrained(tmp_path / "base")
    inside.load_adapter(str(tmp_path / "adapter"))
    sentence = "a loaded T5ForConditionalGeneration has layers of an adapter in it.* expected a `PeftModel`"
    for model in (inside, base):
        for sources in ((model, summarizer), (summarizer, model)):
            for share_base in (True, False):
                with pytest.raises(ValueError, match=sentence):
                    compose(*sources, share_base=share_base)
    inside.delete_adapter("default")  # transformers leaves its layers
    with pytest.raises(ValueError, match=sentence):
        compose(inside, summarizer)


def test_an_adapter_that_names_no_base_is_refused(summarizer, tmp_path):
    get_peft_model(copy.deepcopy(summarizer), LoraConfig(target_modules=["q"])).save_pretrained(tmp_path)
    for share_base in (True, False):
        with pytest.raises(ValueError, match="its adapter_config.json names no base, expected `base_model_"):
            compose(tmp_path, tmp_path, share_base=share_base)


def test_the_code_of_an_adapters_base_is_not_trusted(summarizer, answerer, tmp_path):
    """Whoever trusts the adapter that he names has not trusted a repository that the adapter names."""
    summarizer.save_pretrained(tmp_path / "base")
    base = T5ForConditionalGeneration.from_pretrained(tmp_path / "base")
    get_peft_model(base, LoraConfig(target_modules=["q"])).save_pretrained(tmp_path / "adapter")
    config = json.loads((tmp_path / "base" / "config.json").read_text())
    config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.EvilConfig"}}
    (tmp_path / "base" / "config.json").write_text(json.dumps(config))
    ran = tmp_path / "ran"
    (tmp_path / "base" / "evil.py").write_text(f"open({str(ran)!r}, 'w')\nclass EvilConfig: pass\n")
    with pytest.raises(ValueError, match="trust_remote_code"):
        compose(str(tmp_path / "adapter"), answerer, model_kwargs={"trust_remote_code": True})
    assert not ran.exists()


@pytest.mark.parametrize(
    "kind", [BertForQuestionAnswering, BertModel, T5EncoderModel, T5Model, T5ForConditionalGeneration]
)
def test_question_answerers_of_any_class(summarizer, make_part, kind, tmp_path):
    torch.manual_seed(3)
    answerer = kind(make_part("bert" if "Bert" in kind.__name__ else "t5")).eval()
    reader = answerer.bert if hasattr(answerer, "bert") else answerer
    reader = reader.encoder if "T5" in kind.__name__ else reader
    expected = reader(input_ids=IDS)[0]
    model = compose(summarizer, answerer)
    assert torch.equal(model.question_encoder(IDS)[0], expected)
    model.save_pretrained(tmp_path)
    loaded, info = CrossTaskForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert torch.equal(loaded.eval().question_encoder(IDS)[0], expected)


def test_real_question_encoder(summarizer, minilm, tmp_path):
    original = AutoModel.from_pretrained(minilm).eval()
    tokens = AutoTokenizer.from_pretrained(minilm)(
        ["who opened it?", "rain fell"], padding=True, return_tensors="pt"
    )
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


def test_dtype_of_both_checkpoints(summarizer, answerer, tmp_path):
    summarizer.save_pretrained(tmp_path / "s")
    answerer.save_pretrained(tmp_path / "q")
    model = compose(tmp_path / "s", tmp_path / "q", model_kwargs={"dtype": torch.bfloat16})
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert model.generate(IDS, max_new_tokens=3, return_dict_in_generate=True).answerability.isfinite().all()


def test_generation_settings_are_the_summarizers(summarizer, answerer):
    summarizer.generation_config.num_beams = 3
    summarizer.generation_config.max_new_tokens = 4
    model = compose(summarizer, answerer)
    assert (model.generation_config.num_beams, model.generation_config.max_new_tokens) == (3, 4)
    assert torch.equal(model.generate(IDS), summarizer.generate(IDS))
    model.generation_config.num_beams = 1
    assert summarizer.generation_config.num_beams == 3


def test_wrong_parts(summarizer, make_part, tmp_path):
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
def test_encoder_of_seq2seq(make_part, family):
    model = AutoModelForSeq2SeqLM.from_config(make_part(family))
    assert get_text_encoder(model) is model.get_encoder()
    assert get_text_encoder(model.base_model) is model.get_encoder()
    assert get_text_encoder(model.get_encoder()) is model.get_encoder()
    assert get_lm_head(model).weight.shape[0] == 99


def test_load_part_takes_the_class_that_the_configuration_names(summarizer, make_part, tmp_path):
    summarizer.save_pretrained(tmp_path / "s")
    BertModel(make_part("bert")).save_pretrained(tmp_path / "b")
    assert type(load_task_model(tmp_path / "s")) is T5ForConditionalGeneration
    assert type(load_task_model(str(tmp_path / "b"))) is BertModel


def test_load_part_without_the_updates_of_adapters(summarizer, tmp_path):
    summarizer.save_pretrained(tmp_path / "base")
    base = T5ForConditionalGeneration.from_pretrained(tmp_path / "base")
    lora = LoraConfig(target_modules=["q"], init_lora_weights=False)
    adapted = get_peft_model(base, lora)
    adapted.save_pretrained(tmp_path / "adapter")
    before = summarizer.state_dict()
    for source in (summarizer, tmp_path / "base", adapted, tmp_path / "adapter"):
        found = load_task_model(source, merge=False).state_dict()
        assert found.keys() == before.keys() and all(torch.equal(found[name], before[name]) for name in found)


def test_catching_inputs_and_outputs():
    linear = torch.nn.Linear(3, 4)
    states = torch.randn(2, 5, 3)
    plain = linear(states)
    with capture_input(linear, pass_on=1, change=lambda states: states + 1) as inputs:
        changed = linear(states)
    assert torch.equal(changed, F.linear(states + 1, *linear.parameters())[:, :1])
    assert len(inputs) == 1 and torch.equal(inputs[0], states + 1)
    with capture_output(linear) as outputs, pytest.raises(RuntimeError):
        linear(torch.randn(2, 7))
    # Nobody listens any more, here or in a copy.
    for module in (linear, copy.deepcopy(linear)):
        assert torch.equal(module(states), plain)
    assert len(inputs) == 1 and outputs == []


def test_catching_is_of_one_thread():
    linear = torch.nn.Linear(3, 4)
    states = torch.randn(2, 3)
    plain, elsewhere = linear(states), []
    with capture_input(linear, change=torch.zeros_like) as inputs, capture_output(linear) as outputs:
        other = threading.Thread(target=lambda: elsewhere.append(linear(states)))
        other.start()
        other.join()
        assert torch.equal(elsewhere[0], plain) and inputs == outputs == []
        assert torch.equal(linear(states)[0], linear.bias)
    assert len(inputs) == len(outputs) == 1
