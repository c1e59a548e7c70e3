"""What a system writes and judges for a row does not depend on the rows around it."""

import copy
import json
import math
import random
import shutil

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    GenerationMixin,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)

from crosstask import CrossTaskConfig, CrossTaskForConditionalGeneration, CrossTaskProcessor
from crosstask.data.builder.teacher import Teacher
from crosstask.data.tokenizer import train_tokenizer
from crosstask.eval.systems import KINDS, chat, make_system
from crosstask.eval.systems.base import revision
from crosstask.eval.systems.chat import ChatLM
from crosstask.eval.systems.crosstask import CrossTask, swap_questions
from crosstask.eval.systems.extractive import LexRank
from crosstask.eval.systems.seq2seq import Seq2Seq
from crosstask.utils.errors import DataError

PASSAGES = [
    "The mayor opened the old bridge on May 3.",
    "Rain fell for two days, and the river rose by a meter while the mayor slept in the old town.",
    "A cat sat.",
    "The river rose.",
    "The bridge fell into the river on May 3, and it took two days to find the cat.",
]
QUESTIONS = ["Who opened the bridge?", "How long did it rain?", "Who sat?", "What rose?", "What fell?"]
SUMMARIES = ["The mayor opened it.", "It rained for two days in the old town.", "Sat.", "", "A bridge."]
ROWS = [
    {"question": question, "passage": passage, "summary": summary, "id": "not for the processor"}
    for question, passage, summary in zip(QUESTIONS, PASSAGES, SUMMARIES, strict=True)
]
LENGTH = {"max_new_tokens": 6}


def t5(vocab_size):
    return T5Config(
        vocab_size=vocab_size,
        d_model=16,
        d_kv=4,
        d_ff=32,
        num_layers=1,
        num_heads=4,
        decoder_start_token_id=0,
    )


@pytest.fixture(scope="module")
def processor():
    return CrossTaskProcessor(train_tokenizer(PASSAGES, 320), max_source_length=96)


@pytest.fixture(scope="module")
def summarizer(processor):
    torch.manual_seed(0)
    return sharper(T5ForConditionalGeneration(t5(len(processor.tokenizer))).eval())


@pytest.fixture(scope="module")
def model(processor):
    torch.manual_seed(0)
    part = t5(len(processor.tokenizer))
    return sharper(CrossTaskForConditionalGeneration(CrossTaskConfig(part, part, fusion_num_heads=4)).eval())


@pytest.fixture(scope="module")
def two_vocabularies(processor):
    """A model whose question encoder has a vocabulary of its own, and its processor."""
    torch.manual_seed(0)
    other = train_tokenizer(QUESTIONS, 290)
    encoder = BertConfig(
        vocab_size=len(other),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=32,
        max_position_embeddings=128,
    )
    config = CrossTaskConfig(t5(len(processor.tokenizer)), encoder, fusion_num_heads=4)
    model = sharper(CrossTaskForConditionalGeneration(config).eval())
    return model, CrossTaskProcessor(processor.tokenizer, other, max_source_length=96)


def sharper(model):
    """Weights so large that inputs make a difference, which fresh ones hardly do."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(3)
    return model


TEMPLATE = (
    "{% for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def save(folder, model, *others):
    """In float64, so precise that the padding of a batch cannot break a tie."""
    for each in (model.double(), *others):
        each.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def folders(tmp_path_factory, processor, summarizer, model, two_vocabularies):
    """Folders of tiny models by their kind."""
    made = tmp_path_factory.mktemp("checkpoints")
    tokenizer, size = processor.tokenizer, len(processor.tokenizer)
    shape = {"vocab_size": size, "bos_token_id": 1, "eos_token_id": 1}
    gpt2 = GPT2Config(n_embd=16, n_layer=1, n_head=2, n_positions=256, **shape)
    llama = LlamaConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=256,
        **shape,
    )
    bert = BertConfig(vocab_size=size, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    chatty, bare = copy.deepcopy(tokenizer), copy.deepcopy(tokenizer)
    chatty.chat_template, bare.pad_token = TEMPLATE, None
    torch.manual_seed(0)
    prefixed = copy.deepcopy(summarizer)
    prefixed.config.task_specific_params = {"summarization": {"prefix": "summarize: "}}
    two, its_processor = (copy.deepcopy(part) for part in two_vocabularies)
    return {
        "seq2seq": save(made / "seq2seq", prefixed, tokenizer),
        "crosstask": save(made / "crosstask", copy.deepcopy(model), processor),
        "two vocabularies": save(made / "two", two, its_processor),
        "llama": save(made / "llama", sharper(sharper(LlamaForCausalLM(llama))), chatty),
        "gpt2": save(made / "gpt2", sharper(GPT2LMHeadModel(gpt2)), bare),
        "bert": save(made / "bert", BertForMaskedLM(bert), tokenizer),
    }


@pytest.fixture
def generated(monkeypatch):
    """The inputs of every call of `generate`, whatever model's."""
    seen, original = [], GenerationMixin.generate

    def generate(self, *args, **kwargs):
        seen.append(kwargs["input_ids"])
        return original(self, *args, **kwargs)

    monkeypatch.setattr(GenerationMixin, "generate", generate)
    return seen


SPECS = {
    "plain": {"kind": "seq2seq", "model": "seq2seq"},
    "with question": {"kind": "seq2seq", "model": "seq2seq", "question": True},
    "chat": {"kind": "chat", "model": "llama"},
    "no template": {"kind": "chat", "model": "gpt2"},
    "cross-task": {"kind": "crosstask", "model": "crosstask"},
    "zeroed": {"kind": "crosstask", "model": "crosstask", "ablation": "zeroed"},
    "swapped": {"kind": "crosstask", "model": "crosstask", "ablation": "swapped"},
    "ranked": {"kind": "crosstask", "model": "crosstask", "num_beams": 3, "num_return_sequences": 3}
    | {"answerability_rerank": 2.0},
    "two vocabularies": {"kind": "crosstask", "model": "two vocabularies"},
    "two zeroed": {"kind": "crosstask", "model": "two vocabularies", "ablation": "zeroed"},
}


def made(folders, name, **more):
    spec = SPECS[name] | {"max_new_tokens": 5} | more
    return make_system(spec | {"model": folders[spec["model"]]})


@pytest.mark.parametrize("name", SPECS)
def test_neither_order_nor_batches_change_what_a_system_gives(folders, generated, name):
    rows = ROWS + [ROWS[0] | {"summary": "Another."}, ROWS[1] | {"question": "Who slept?"}]
    distinct = {
        "plain": 5,
        "swapped": len(set(zip(swap_questions(rows), PASSAGES + PASSAGES[:2], strict=True))),
    }
    whole = made(folders, name, batch_size=16).write(rows)
    assert len(set(whole.summaries)) > 1
    assert (whole.own is None) == (whole.probabilities is None) == (SPECS[name]["kind"] != "crosstask")
    order = random.Random(0).choices(range(7), k=20) + list(range(7))
    for size in (1, 3):
        del generated[:]
        ticks = []
        outputs = made(folders, name, batch_size=size).write([rows[index] for index in order], ticks.append)
        assert outputs.summaries == [whole.summaries[index] for index in order]
        if whole.own is not None:
            for values, expected in zip(
                (outputs.probabilities, outputs.own), (whole.probabilities, whole.own), strict=True
            ):
                assert values == pytest.approx([expected[index] for index in order], abs=1e-6)
        assert sum(map(len, generated)) == distinct.get(name, 6)
        assert max(map(len, generated)) == size
        assert sum(ticks) == 27


@pytest.mark.parametrize("name", SPECS)
def test_settings_name_what_was_used_and_nothing_is_loaded_for_them(folders, monkeypatch, name):
    def fail(*args, **kwargs):
        raise AssertionError("loaded")

    monkeypatch.setattr(PreTrainedModel, "from_pretrained", fail)
    system = made(folders, name)
    settings = json.loads(json.dumps(system.settings))
    assert settings["revision"] == revision(folders[SPECS[name]["model"]])
    assert settings["max_new_tokens"] == 5 and settings["kind"] == SPECS[name]["kind"]
    assert "batch_size" not in settings and settings == made(folders, name, batch_size=3).settings
    assert settings != made(folders, name, max_new_tokens=6).settings


@pytest.mark.parametrize("name", ["plain", "chat", "cross-task", "zeroed"])
def test_no_rows_are_no_summaries(folders, name):
    outputs = made(folders, name).write([])
    assert outputs.summaries == [] and not outputs.probabilities and not outputs.own


def test_a_plain_summarizer_is_the_teachers(folders):
    teacher = Teacher(folders["seq2seq"], num_beams=2, max_new_tokens=5)
    assert teacher.prefix == "summarize: "
    system = made(folders, "plain", num_beams=2)
    assert system.write(ROWS).summaries == teacher.summarize(PASSAGES)
    system = made(folders, "with question", num_beams=2)
    pairs = list(zip(QUESTIONS, PASSAGES, strict=True))
    assert system.write(ROWS).summaries == [text for [text] in teacher.candidates(pairs, 1)]
    assert [made(folders, name).name for name in ("plain", "with question")] == [
        "seq2seq",
        "seq2seq + question",
    ]


def test_an_adapter_is_merged_and_its_base_is_part_of_its_revision(folders, tmp_path):
    base = T5ForConditionalGeneration.from_pretrained(folders["seq2seq"])
    torch.manual_seed(0)
    adapted = get_peft_model(base, LoraConfig(target_modules=["q", "v"], init_lora_weights=False))
    adapted.save_pretrained(tmp_path / "adapter")
    AutoTokenizer.from_pretrained(folders["seq2seq"]).save_pretrained(tmp_path / "adapter")
    system = Seq2Seq(str(tmp_path / "adapter"), prefix="summarize: ", max_new_tokens=5)
    assert system.settings["revision"].endswith("+" + revision(folders["seq2seq"]))
    adapted.merge_and_unload().save_pretrained(tmp_path / "merged")
    AutoTokenizer.from_pretrained(folders["seq2seq"]).save_pretrained(tmp_path / "merged")
    merged = Seq2Seq(str(tmp_path / "merged"), max_new_tokens=5)
    assert system.write(ROWS).summaries == merged.write(ROWS).summaries


def test_an_adapter_without_a_tokenizer_is_an_error(folders, tmp_path):
    base = T5ForConditionalGeneration.from_pretrained(folders["seq2seq"])
    get_peft_model(base, LoraConfig(target_modules=["q"])).save_pretrained(tmp_path)
    with pytest.raises(DataError, match="cannot be loaded|expected a tokenizer beside the model"):
        Seq2Seq(str(tmp_path)).write(ROWS)


def test_numbers_that_are_not_finite_are_an_error(folders, tmp_path):
    for name in ("cross-task", "chat"):
        folder = shutil.copytree(folders[SPECS[name]["model"]], tmp_path / name)
        weights = load_file(folder / "model.safetensors")
        broken = "answerability_head.fc1.weight" if name == "cross-task" else "model.norm.weight"
        weights[broken] = weights[broken] * math.nan
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        (folder / "model.safetensors.sha256").unlink(missing_ok=True)
        with pytest.raises(DataError, match="gives numbers that are not finite in float64"):
            made(folders | {SPECS[name]["model"]: str(folder)}, name).write(ROWS)


def test_a_revision_is_that_of_the_content(folders, tmp_path):
    folder = shutil.copytree(folders["two vocabularies"], tmp_path / "elsewhere")
    before = revision(folder)
    assert before == revision(folders["two vocabularies"])
    (folder / "README.md").write_text("A card.")
    (folder / "checkpoint-1").mkdir()
    assert revision(folder) == before
    question_tokenizer = folder / "question_tokenizer" / "tokenizer_config.json"
    question_tokenizer.write_text(question_tokenizer.read_text() + " ")
    changed = revision(folder)
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    assert len({before, changed, revision(folder)}) == 3


def test_the_probabilities_are_the_models_own_with_its_own_summary(folders, model, processor):
    outputs = made(folders, "cross-task").write(ROWS)
    for row, probability, summary, own in zip(
        ROWS, outputs.probabilities, outputs.summaries, outputs.own, strict=True
    ):
        texts = {name: row[name] for name in ("question", "passage", "summary")}
        with torch.no_grad():
            logits = model(**processor(**texts, return_tensors="pt")).answerability_logits
        assert logits.softmax(-1)[0, 1].item() == pytest.approx(probability, abs=1e-5)
        inputs = processor(question=row["question"], passage=row["passage"], return_tensors="pt")
        output = model.generate(**inputs, max_new_tokens=5, return_dict_in_generate=True)
        assert processor.decode(output.sequences[0], skip_special_tokens=True).strip() == summary
        assert output.answerability.item() == pytest.approx(own, abs=1e-5)


@pytest.mark.parametrize("names", [("cross-task", "zeroed"), ("two vocabularies", "two zeroed")])
def test_zeroed_is_a_question_encoder_that_gives_zeros(folders, monkeypatch, names):
    plain, zeroed = (made(folders, name).write(ROWS) for name in names)
    system = made(folders, names[0])

    def silence(model, processor, inputs, original=system._batch):
        model.question_encoder.register_forward_hook(
            lambda module, args, output: type(output)(last_hidden_state=output[0] * 0)
        )
        return original(model, processor, inputs)

    monkeypatch.setattr(system, "_batch", silence)
    silent = system.write(ROWS)
    assert zeroed.probabilities == pytest.approx(silent.probabilities)
    assert zeroed.own == pytest.approx(silent.own)
    assert zeroed.summaries == silent.summaries
    assert zeroed.probabilities != pytest.approx(plain.probabilities)


def test_swapped_is_the_model_with_another_question(folders):
    swapped = made(folders, "swapped").write(ROWS)
    rows = [row | {"question": q} for row, q in zip(ROWS, swap_questions(ROWS), strict=True)]
    plain = made(folders, "cross-task").write(rows)
    assert swapped == plain
    assert swapped.own != pytest.approx(made(folders, "cross-task").write(ROWS).own)


def test_every_question_is_swapped_for_another_passages():
    rows = [{"passage": f"P{i % 3}", "question": f"Q{i}?"} for i in range(30)]
    rows += [{"passage": "P0", "question": "Q1?"}]
    swapped = dict(
        zip([(row["passage"], row["question"]) for row in rows], swap_questions(rows), strict=True)
    )
    for row in rows:
        own = {other["question"] for other in rows if other["passage"] == row["passage"]}
        assert swapped[row["passage"], row["question"]] not in own
    order = random.Random(0).sample(rows, len(rows))
    assert swap_questions(order) == [swapped[row["passage"], row["question"]] for row in order]
    assert len(set(swapped.values())) > 10
    assert swap_questions([]) == []


def test_questions_that_every_passage_has_are_swapped_for_each_other():
    rows = [{"passage": p, "question": q} for p in "abc" for q in ("Challenge?", "Approach?", "Outcome?")]
    swapped = swap_questions(rows)
    assert all(other != row["question"] for other, row in zip(swapped, rows, strict=True))
    with pytest.raises(DataError, match="every row asks 'Why\\?', expected another question"):
        swap_questions([{"passage": p, "question": "Why?"} for p in "ab"])


def test_a_chat_model_reads_its_template_or_plain_text(folders, monkeypatch):
    texts = {}
    for name, kind in (("llama", LlamaForCausalLM), ("gpt2", GPT2LMHeadModel)):
        seen = []

        def generate(self, seen=seen, original=kind.generate, **kwargs):
            seen.append(kwargs)
            return original(self, **kwargs)

        monkeypatch.setattr(kind, "generate", generate)
        ChatLM(folders[name], max_new_tokens=3).write([*ROWS, ROWS[0] | {"question": " "}])
        [batch] = seen
        mask = batch["attention_mask"]
        assert mask[:, -1].all() and not mask.all()  # padded on the left
        tokenizer = AutoTokenizer.from_pretrained(folders[name])
        rows = zip(batch["input_ids"], mask.bool(), strict=True)
        texts[name] = [tokenizer.decode(ids[kept], skip_special_tokens=True) for ids, kept in rows]
    prompts = [
        chat.PROMPT.replace("{question}", row["question"]).replace("{passage}", row["passage"])
        for row in ROWS
    ] + [chat.PROMPT_WITHOUT_QUESTION.replace("{passage}", PASSAGES[0])]
    expected = {
        "llama": [f"<user>{prompt}<assistant>" for prompt in prompts],
        "gpt2": [f"{prompt}\n\nSummary:" for prompt in prompts],
    }
    tokenizer = AutoTokenizer.from_pretrained(folders["llama"])

    def seen_as(text):  # what the small vocabulary leaves of it
        return tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True)

    for name, found in texts.items():
        assert sorted(found) == sorted(map(seen_as, expected[name]))


@pytest.mark.parametrize("name", ["chat", "no template"])
def test_only_the_passage_of_a_chat_is_cut(folders, generated, name):
    kind, long = SPECS[name]["model"], PASSAGES[4] * 60
    tokenizer = AutoTokenizer.from_pretrained(folders[kind])
    tokenizer.pad_token = tokenizer.eos_token
    room = len(ChatLM._prompt(tokenizer, "Who fell?", ""))
    system = ChatLM(folders[kind], max_source_length=room + 9, max_new_tokens=4)
    rows = [ROWS[0] | {"passage": long, "question": q} for q in ("Who fell?", "Who fell? " * 40)]
    ticks = []
    outputs = system.write(rows, ticks.append)
    assert outputs.summaries[1] == "" and sum(ticks) == 2
    [ids] = generated
    assert ids.shape[0] == 1 and room < ids.shape[1] <= room + 9
    text = tokenizer.decode(ids[0], skip_special_tokens=True)
    assert "Who fell?" in text and text.endswith("<assistant>" if name == "chat" else "Summary:")


def test_a_question_without_room_has_no_summary_and_no_probability(folders):
    rows = [ROWS[0], ROWS[1] | {"question": "What rose? " * 60}]
    for name in ("with question", "cross-task", "two zeroed"):
        ticks = []
        more = {"max_source_length": 96} if name == "with question" else {}
        outputs = made(folders, name, **more).write(rows, ticks.append)
        assert outputs.summaries[1] == "" and sum(ticks) == 2
        if outputs.own is not None:
            assert outputs.own[1] == outputs.probabilities[1] == 0 < outputs.own[0]


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("seq2seq", "llama", "got a LlamaForCausalLM .*, expected a model of AutoModelForSeq2SeqLM"),
        ("seq2seq", "bert", "got a BertForMaskedLM"),
        ("chat", "seq2seq", "got a T5ForConditionalGeneration .*, expected a model of AutoModelForCausalLM"),
        ("chat", "bert", "got a BertForMaskedLM"),
        ("chat", "crosstask", "got a CrossTaskForConditionalGeneration"),
        ("crosstask", "seq2seq", "is a checkpoint of t5, expected one of crosstask"),
        ("crosstask", "gpt2", "got a GPT2LMHeadModel"),
    ],
)
def test_a_checkpoint_of_another_kind_is_an_error_at_once(folders, kind, name, message):
    with pytest.raises(DataError, match=message):
        make_system({"kind": kind, "model": folders[name]})


@pytest.mark.parametrize("kind", ["seq2seq", "chat", "crosstask"])
def test_a_checkpoint_that_is_not_there_is_an_error_at_once(tmp_path, kind):
    for name in (str(tmp_path), "nobody/nothing"):
        with pytest.raises(DataError, match="cannot be loaded") as error:
            make_system({"kind": kind, "model": name})
        assert "\n" not in str(error.value)


def test_a_chat_without_positions_for_its_summary_is_an_error(folders):
    for settings in ({"max_new_tokens": 256}, {"max_source_length": 250, "max_new_tokens": 10}):
        with pytest.raises(DataError, match="expected a lower max_source_length or max_new_tokens"):
            ChatLM(folders["gpt2"], **settings).write(ROWS)


def test_systems_are_made_from_yaml(folders):
    assert make_system("lead").name == "lead-3"
    assert make_system("lead-2").settings == {"kind": "lead", "k": 2}
    assert make_system("oracle").settings == {"kind": "oracle", "k": 3}
    pytest.importorskip("sumy")
    lexrank = make_system({"kind": "lexrank", "k": 2, "question": True, "name": "central"})
    assert isinstance(lexrank, LexRank) and lexrank.name == "central"
    assert lexrank.settings == {"kind": "lexrank", "k": 2, "question": True, "d": 0.85}
    ablated = made(folders, "swapped")
    assert isinstance(ablated, CrossTask) and ablated.name == "cross-task, question swapped"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("leed-3", r"system 'leed' is unknown: expected .* \(did you mean 'lead'\?\)"),
        ({"kind": "seq2sec"}, "did you mean 'seq2seq'"),
        ({"model": "x"}, f"has no kind, expected one of {', '.join(KINDS)}"),
        (None, "system None has no kind"),
        ("lead-0", "k is 0, expected a positive integer"),
        ({"kind": "lead", "sentences": 3}, "system lead: key 'sentences' is unknown: expected k, name"),
        ({"kind": "seq2seq", "model": "x", "num_beam": 4}, "did you mean 'num_beams'"),
        ({"kind": "seq2seq", "question": True}, "system seq2seq: needs a model"),
        ("chat", "system chat: needs a model"),
        ({"kind": "chat", "model": "x", "max_new_tokens": "many"}, "max_new_tokens is 'many'"),
        ({"kind": "crosstask", "model": "x", "ablation": "gone"}, "ablation is 'gone', expected None"),
        ({"kind": "chat", "model": "x", "dtype": "int8"}, "chat: dtype is 'int8', expected one of auto"),
        ({"kind": ["lead"]}, "system .* is unknown"),
    ],
)
def test_a_wrong_spec_is_an_error(spec, message):
    with pytest.raises(DataError, match=message):
        make_system(spec)


def test_the_revision_of_a_hub_id_is_its_commit(hub, alice, folders):
    model = T5ForConditionalGeneration.from_pretrained(folders["seq2seq"])
    model.push_to_hub("alice/summarizer")
    assert revision("alice/summarizer") == hub.commits("alice/summarizer")[0].oid
    adapted = get_peft_model(model, LoraConfig(target_modules=["q"], task_type="SEQ_2_SEQ_LM"))
    adapted.peft_config["default"].base_model_name_or_path = "alice/summarizer"
    adapted.push_to_hub("alice/adapter")
    found = [hub.commits(name)[0].oid for name in ("alice/adapter", "alice/summarizer")]
    assert revision("alice/adapter") == "+".join(found)
