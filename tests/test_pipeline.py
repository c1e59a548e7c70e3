"""The pipeline: what goes in and comes out, alike in any batch, with and without the package."""

import copy
import json
import os
import subprocess
import sys
import threading

import pytest
import torch
from datasets import Dataset
from tiny_adapter import make_peft_model
from transformers import pipeline

from crosstask import CrossTaskForConditionalGeneration, CrossTaskProcessor, QuestionSummarizationPipeline
from crosstask.configuration_crosstask import PIPELINES
from crosstask.pipeline_crosstask import TASK

PASSAGES = ["The mayor opened the old bridge on May 3.", "Rain fell for two days. The river rose by a meter."]
ROWS = [
    {"question": "Who opened the bridge?", "passage": PASSAGES[0], "id": "a"},
    {"question": ["How long did it rain?", "What rose?"], "passage": PASSAGES[1], "id": "b"},
    {"question": "When?", "passage": PASSAGES[0] + " " + PASSAGES[1], "id": "c"},
]
SHORT = {"max_new_tokens": 6}


@pytest.fixture(scope="module", params=["t5", "bert"])
def folder(request, make_model, tokenizer, tmp_path_factory):
    """A model whose question encoder reads the summarizer's ids, or ids of its own."""
    folder = tmp_path_factory.mktemp("pipeline") / request.param
    shapes = {"t5": {}, "bert": {"question_encoder": "bert"}}[request.param]
    model = make_model(**shapes)
    model.resize_token_embeddings(len(tokenizer))
    own = None
    if request.param == "bert":
        own = tokenizer
        model.question_encoder.resize_token_embeddings(len(tokenizer))
    model.generation_config.update(**SHORT)
    model.save_pretrained(folder)
    CrossTaskProcessor(tokenizer, own, max_source_length=60).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def pipe(folder):
    return pipeline(TASK, model=str(folder), device="cpu")


def alike(found, expected):
    """Equal, but for the rounding of other batches."""
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(alike, found, expected))
    probability = found["answerability"], expected["answerability"]
    rest = [{k: v for k, v in result.items() if k != "answerability"} for result in (found, expected)]
    return rest[0] == rest[1] and probability[0] == pytest.approx(probability[1], abs=1e-5)


def test_a_question_a_list_and_a_dict(pipe):
    one = pipe(question="Who opened the bridge?", passage=PASSAGES[0])
    assert one.keys() == {"question", "summary", "answerability"}
    assert one["question"] == "Who opened the bridge?" and 0 < one["answerability"] < 1
    assert alike(pipe(ROWS[0]), one)
    several = pipe(question=["What rose?"], passage=PASSAGES[1])
    assert isinstance(several, list) and several[0]["question"] == "What rose?"


def test_it_is_what_the_model_writes(pipe, folder):
    model = CrossTaskForConditionalGeneration.from_pretrained(folder)
    processor = CrossTaskProcessor.from_pretrained(folder)
    inputs = processor(question=ROWS[1]["question"], passage=ROWS[1]["passage"], return_tensors="pt")
    output = model.generate(**inputs, num_beams=2, return_dict_in_generate=True)
    summaries = [text.strip() for text in processor.batch_decode(output.sequences, skip_special_tokens=True)]
    found = pipe(ROWS[1], num_beams=2)
    assert [result["summary"] for result in found] == summaries
    assert [result["answerability"] for result in found] == pytest.approx(output.answerability.tolist())


def test_batch_size_and_kind_of_input_change_nothing(pipe):
    rows = ROWS + ROWS[::-1]
    expected = [pipe(row) for row in rows]
    for size in (1, 2, 4, 100):
        assert alike_all(pipe(rows, batch_size=size), expected)
        assert alike_all(list(pipe((row for row in rows), batch_size=size)), expected)
    data = Dataset.from_list([row for row in rows if isinstance(row["question"], str)])
    expected = [
        result for result, row in zip(expected, rows, strict=True) if isinstance(row["question"], str)
    ]
    assert alike_all(list(pipe(data, batch_size=3)), expected)


def alike_all(found, expected):
    return len(found) == len(expected) and all(map(alike, found, expected))


def test_questions_on_one_passage_are_one_batch(pipe, monkeypatch):
    sizes = []
    forward = pipe._forward

    def counted(inputs, **kwargs):
        sizes.append(len(inputs["input_ids"]))
        return forward(inputs, **kwargs)

    monkeypatch.setattr(pipe, "_forward", counted)
    pipe(question=["Who?", "When?", "What?"], passage=PASSAGES[0])
    pipe([ROWS[1], ROWS[0], ROWS[1], ROWS[0]], batch_size=3)
    assert sizes == [3, 3, 3]


def test_a_stream_is_read_as_it_is_asked_for(pipe):
    read = []

    def rows():
        for number in range(100):
            read.append(number)
            yield ROWS[0]

    results = pipe(rows(), batch_size=2)
    assert len(read) <= 1  # transformers 5 looks at the first
    next(results)
    assert len(read) == 2


def test_evidence_and_answered(pipe):
    results = pipe(ROWS, return_evidence=True, min_answerability=0.0)
    for row, result in zip(ROWS, results, strict=True):
        for each in result if isinstance(result, list) else [result]:
            assert each["answered"] is True
            assert all(sentence in row["passage"] for sentence in each["evidence"])
    assert pipe(ROWS[0], min_answerability=1.0)["answered"] is False
    assert pipe(ROWS[0], min_answerability=1.0)["summary"] == pipe(ROWS[0])["summary"]


def test_merge(pipe):
    found = pipe(ROWS[1], merge=True, return_evidence=True)
    assert found.keys() == {"summary", "questions"} and "evidence" in found["questions"][0]
    assert set(found["summary"].split()) <= {
        word
        for result in found["questions"]
        for word in (*result["summary"].split(), result["summary"].title())
    } | {word.capitalize() for result in found["questions"] for word in result["summary"].split()}
    assert pipe(ROWS[1], merge=True, min_answerability=1.0)["summary"] == ""
    assert pipe(ROWS[0], merge=True)["questions"][0]["question"] == ROWS[0]["question"]


def test_options_may_be_given_for_every_call(folder):
    pipe = pipeline(
        TASK, model=str(folder), device="cpu", return_evidence=True, max_new_tokens=1, batch_size=2
    )
    assert "evidence" in pipe(ROWS[0]) and "evidence" not in pipe(ROWS[0], return_evidence=False)
    model, processor = pipe.model, pipe.processor
    other = QuestionSummarizationPipeline(
        model=model, processor=processor, device="cpu", generate_kwargs=SHORT
    )
    assert len(other(ROWS[0])["summary"]) >= len(pipe(ROWS[0])["summary"])
    with pytest.raises(ValueError, match="`processor` is needed beside a loaded `model`"):
        QuestionSummarizationPipeline(model=model)


@pytest.mark.parametrize(
    "inputs, error, sentence",
    [
        ({}, ValueError, "^`question` is missing"),
        ({"question": "Who?"}, ValueError, "^`passage` is missing"),
        ({"question": [], "passage": "x"}, ValueError, "^`question` is empty"),
        ({"question": ["Who?", " "], "passage": "x"}, ValueError, "^`question` is empty"),
        (
            {"question": 3, "passage": "x"},
            TypeError,
            "^`question` has to be a text or a list of texts, got 3",
        ),
        ({"question": ["Who?", None], "passage": "x"}, TypeError, "^`question` has to be a text or a list"),
        ({"question": "Who?", "passage": ["x"]}, TypeError, "^`passage` has to be a text, got list"),
        ({"question": "Who?", "passage": "\n"}, ValueError, "^`passage` is empty"),
        ([ROWS[0], {"question": "Who?"}], ValueError, "^input 1: `passage` is missing"),
        ([ROWS[0], "Who?"], TypeError, "^input 1: expected a dict with `question` and `passage`, got str"),
        ("Who?", TypeError, "^`inputs` have to be a dict"),
        (3, TypeError, "^`inputs` have to be a dict"),
        ({"question": "Who opened the bridge? " * 30, "passage": "x"}, ValueError, "no room is left"),
    ],
)
def test_what_is_wrong_is_said(pipe, inputs, error, sentence):
    with pytest.raises(error, match=sentence):
        pipe(inputs)


@pytest.mark.parametrize(
    "options, error, sentence",
    [
        (
            {"return_evidnce": True},
            TypeError,
            "`return_evidnce` is no option .*did you mean `return_evidence`",
        ),
        ({"return_dict_in_generate": False}, TypeError, "`return_dict_in_generate` is no option"),
        ({"num_return_sequences": 2}, ValueError, "a question has one summary"),
        ({"min_answerability": 2}, ValueError, "between 0 and 1, got 2"),
        ({"question": "Who?"}, ValueError, "either `inputs`, or `question` and `passage`"),
    ],
)
def test_what_is_wrong_with_options_is_said(pipe, options, error, sentence):
    with pytest.raises(error, match=sentence):
        pipe(ROWS[0], **options)


def test_a_question_has_one_summary_whatever_a_configuration_says(pipe):
    several = copy.deepcopy(pipe.model.generation_config)
    several.update(num_beams=2, num_return_sequences=2)
    assert alike_all(pipe(ROWS, batch_size=3, generation_config=several), pipe(ROWS, num_beams=2))


def test_the_best_of_several_candidates(pipe):
    settings = {"num_beams": 3, "num_return_sequences": 3, "answerability_rerank": 5.0}
    found = pipe(ROWS, batch_size=3, **settings)
    for row, result in zip(ROWS, found, strict=True):
        questions = row["question"] if isinstance(row["question"], list) else [row["question"]]
        inputs = pipe.processor(question=questions, passage=row["passage"], return_tensors="pt")
        output = pipe.model.generate(**inputs, **settings)
        texts = pipe.processor.batch_decode(output[::3], skip_special_tokens=True)
        results = result if isinstance(result, list) else [result]
        assert [each["summary"] for each in results] == [text.strip() for text in texts]


def test_the_pipeline_is_pushed_as_its_model_is(hub, alice, pipe):
    pipe.push_to_hub("alice/pipe")
    assert "[More Information Needed]" not in hub.files("alice/pipe")["README.md"].decode()
    assert alike(pipeline(TASK, model="alice/pipe", device="cpu")(ROWS[0]), pipe(ROWS[0]))


def test_an_empty_list_has_no_results(pipe):
    assert pipe([]) == [] and list(pipe(iter([]))) == []


def test_the_checkpoint_has_the_pipeline(folder, pipe, tmp_path):
    assert json.loads((folder / "config.json").read_text())["custom_pipelines"] == PIPELINES
    assert type(pipe) is QuestionSummarizationPipeline and not pipe.model.config.custom_pipelines
    pipe.save_pretrained(tmp_path / "saved")
    assert {"pipeline_crosstask.py", "sentences_crosstask.py", "processor_config.json"} <= {
        path.name for path in (tmp_path / "saved").iterdir()
    }
    assert alike(pipeline(TASK, model=str(tmp_path / "saved"), device="cpu")(ROWS[0]), pipe(ROWS[0]))


def test_without_the_package(hub, alice, folder, pipe, tmp_path):
    """By Hub id, in a process that cannot import it; and saved there again, as a second person would."""
    pipe.model.push_to_hub("alice/model")
    pipe.processor.push_to_hub("alice/model")
    code = f"""
import sys
sys.modules["crosstask"] = None
import json
from transformers import pipeline
pipe = pipeline({TASK!r}, model="alice/model", trust_remote_code=True, device="cpu")
pipe.save_pretrained({str(tmp_path / "saved")!r})
pipe = pipeline({TASK!r}, model={str(tmp_path / "saved")!r}, trust_remote_code=True, device="cpu")
print("RESULT", json.dumps(pipe({ROWS[1]!r}, return_evidence=True)))
try:
    pipeline({TASK!r}, model="alice/model", device="cpu", trust_remote_code=False)
except ValueError as error:
    print("REFUSED", "trust_remote_code=True" in str(error))
"""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.split("RESULT ")[1].splitlines()[0])
    assert alike(found, pipe(ROWS[1], return_evidence=True))
    assert "REFUSED True" in done.stdout


def test_on_the_device_and_in_the_dtype_that_was_asked_for(folder):
    pipe = pipeline(TASK, model=str(folder), dtype="bfloat16", device="cpu")
    assert pipe.model.dtype == torch.bfloat16 and isinstance(pipe(ROWS[0])["answerability"], float)


@pytest.fixture(scope="module", params=["t5", "bert", "left"])
def gated(request, make_model, tokenizer):
    """A pipeline of a model with an open gate; padding on the left in one."""
    tokenizer = copy.deepcopy(tokenizer)
    model = make_model(question_encoder="bert" if request.param == "bert" else "t5", fusion="gated", seed=3)
    model.resize_token_embeddings(len(tokenizer))
    own = None
    if request.param == "bert":
        own = tokenizer
        model.question_encoder.resize_token_embeddings(len(tokenizer))
    if request.param == "left":
        tokenizer.padding_side = "left"
    model.gated_cross_attention.gates.data.fill_(0.5)
    model.gated_cross_attention.q_proj.weight.data *= 3
    processor = CrossTaskProcessor(tokenizer, own, max_source_length=60)
    return QuestionSummarizationPipeline(model, processor=processor)


def test_the_gates_attention_is_evidence_where_words_are_not(gated, monkeypatch):
    # What a model without training writes shares no word with this.
    passage = "Zyx qwv jjk. Wqx zzv xxq vvw. Kkj zxw."
    row = {"question": ["Who?", "What is it that nobody has said?"], "passage": passage}
    said = SHORT | {"suppress_tokens": gated.processor.tokenizer.all_special_ids}
    results = gated(row, return_evidence=True, **said)
    assert all(result["summary"] for result in results)
    expected = []
    for question in row["question"]:
        inputs = gated.processor(question=question, passage=[passage], return_tensors="pt")
        output = gated.model.generate(
            **inputs, **said, return_dict_in_generate=True, output_fusion_attentions=True
        )
        attention = output.fusion_attentions[0].mean(0).sum(0).tolist()
        sums = dict.fromkeys(["Zyx qwv jjk.", "Wqx zzv xxq vvw.", "Kkj zxw."], 0.0)
        for span, value in zip(gated.processor.passage_offsets(question, passage), attention, strict=True):
            if span is not None:
                start = span[0] + (passage[span[0]] == " ")
                name = list(sums)[(start >= 13) + (start >= 30)]
                sums[name] += value
        expected.append([max(sums, key=sums.get)])
    assert [result["evidence"] for result in results] == expected
    assert [
        result["evidence"] for result in gated([row, row], batch_size=4, return_evidence=True, **said)[1]
    ] == (expected)

    def slow(*_):
        raise NotImplementedError

    monkeypatch.setattr(gated.processor, "passage_offsets", slow)
    assert [result["evidence"] for result in gated(row, return_evidence=True, **said)] == [[], []]


def test_evidence_may_be_asked_for_and_not(gated):
    always = QuestionSummarizationPipeline(gated.model, processor=gated.processor, return_evidence=True)
    assert "evidence" in always(ROWS[0], **SHORT)
    assert "evidence" not in always(ROWS[0], return_evidence=False, **SHORT)
    assert "evidence" not in gated(ROWS[0], **SHORT)


class ByWord:
    """A router that sends passages with "Rain" to "b"."""

    def route(self, passages):
        return ["b" if "Rain" in passage else "base" for passage in passages]


@pytest.fixture(scope="module")
def routed(folder, tmp_path_factory):
    """With two adapters, the second of which is active."""
    adapters = tmp_path_factory.mktemp("adapters")
    pipe = pipeline(TASK, model=str(folder), device="cpu", router=ByWord())
    targets = {"target_modules": r"summarizer\..*\.(q|v)"}
    for seed, name in enumerate("ab"):
        make_peft_model(folder, seed, **targets).save_pretrained(adapters / name)
        pipe.model.load_adapter(adapters / name, adapter_name=name)
    return pipe


def test_an_adapter_by_name(routed, pipe):
    row = ROWS[1]
    assert alike(routed(row, adapter="base"), pipe(row))
    a, b = (routed(row, adapter=name) for name in "ab")
    assert not alike(a, b) and not alike(a, pipe(row)) and not alike(b, pipe(row))
    # As it was before, active or disabled.
    assert routed.model.active_adapters() == ["b"] and alike(routed(row), b)
    routed.model.disable_adapters()
    assert alike(routed(row, adapter="a"), a) and alike(routed(row), pipe(row))
    routed.model.enable_adapters()
    assert alike(routed(row), b)
    # And no weight is trained that was not.
    flags = [parameter.requires_grad for parameter in routed.model.parameters()]
    for name in ("a", "base"):
        routed(row, adapter=name)
        assert [parameter.requires_grad for parameter in routed.model.parameters()] == flags


def test_adapters_of_several_shapes_by_name(folder, pipe, tmp_path):
    """One with a fusion of its own, and one without."""
    targets = {"target_modules": r"summarizer\..*\.(q|v)"}
    own = pipeline(TASK, model=str(folder), device="cpu")
    expected = {"base": pipe(ROWS[1])}
    for seed, (name, more) in enumerate({"a": {}, "b": {"modules_to_save": None}}.items()):
        model = make_peft_model(folder, seed, **targets, **more)
        model.save_pretrained(tmp_path / name)
        own.model.load_adapter(tmp_path / name, adapter_name=name)
        expected[name] = own(ROWS[1])
    assert not alike(expected["a"], expected["b"])
    for active in "ab":
        own.model.set_adapter(active)
        for name, wanted in expected.items():
            assert alike(own(ROWS[1], adapter=name), wanted)
            assert alike(own(ROWS[1]), expected[active])


def test_several_adapters_at_once(routed, tmp_path):
    """Two that adapt the same layers, neither with a fusion of its own."""
    own = pipeline(TASK, model=routed.model.config._name_or_path, device="cpu")
    targets = {"target_modules": r"summarizer\..*\.(q|v)", "modules_to_save": None}
    for seed, name in enumerate("cd"):
        make_peft_model(routed.model.config._name_or_path, seed, **targets).save_pretrained(tmp_path / name)
        own.model.load_adapter(tmp_path / name, adapter_name=name)
    one = own(ROWS[1])
    own.model.set_adapter(["c", "d"])
    both = own(ROWS[1])
    own.model.set_adapter("d")
    assert not alike(both, one)
    assert alike(own(ROWS[1], adapter=["c", "d"]), both) and alike(own(ROWS[1], adapter=("c", "d")), both)
    assert alike(own(ROWS[1], adapter=["d"]), one)
    assert own.model.active_adapters() == ["d"] and alike(own(ROWS[1]), one)
    # One model has one fusion.
    before = routed(ROWS[1])
    with pytest.raises(ValueError):
        routed(ROWS[1], adapter=["a", "b"])
    assert routed.model.active_adapters() == ["b"] and alike(routed(ROWS[1]), before)


def test_calls_from_several_threads_each_have_their_adapter(routed):
    """By several pipelines of one model, whose state is afterwards what it was."""
    expected = {name: routed(ROWS[1], adapter=name) for name in ("a", "b", "base", None)}
    wrong = []

    def work(name):
        own = QuestionSummarizationPipeline(routed.model, processor=copy.deepcopy(routed.processor))
        try:
            for _ in range(8):
                if not alike(own(ROWS[1], adapter=name), expected[name]):
                    wrong.append(name)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert routed.model.active_adapters() == ["b"] and alike(routed(ROWS[1]), expected["b"])


def test_streams_that_are_read_by_turns_or_left_hold_no_one_up(routed):
    expected = {name: routed(ROWS[0], adapter=name) for name in "ab"}
    streams = {name: routed((ROWS[0] for _ in range(3)), adapter=name) for name in "ab"}
    for name in "abba":
        assert alike(next(streams[name]), expected[name])
    # Both are open still.
    found = []
    other = threading.Thread(target=lambda: found.append(routed(ROWS[0], adapter="a")), daemon=True)
    other.start()
    other.join(60)
    assert found and alike(found[0], expected["a"])


def test_a_call_within_a_call_is_not_held_up(routed):
    """By what watches the generation."""
    expected = {name: routed(ROWS[0], adapter=name) for name in "ab"}
    found = []

    def watch(ids, scores, **kwargs):
        if not found:
            found.append(routed(ROWS[0], adapter="a"))
        return torch.zeros(len(ids), dtype=torch.bool)

    options = {"adapter": "b", "stopping_criteria": [watch]}
    thread = threading.Thread(target=lambda: found.append(routed(ROWS[0], **options)), daemon=True)
    thread.start()
    thread.join(60)
    assert alike_all(found, [expected["a"], expected["b"]])


def test_a_model_in_use_is_copied_all_the_same(routed):
    expected = routed(ROWS[1], adapter="a")
    own = QuestionSummarizationPipeline(copy.deepcopy(routed.model), processor=routed.processor)
    assert alike(own(ROWS[1], adapter="a"), expected)


def test_an_adapter_that_is_gone(folder, tmp_path):
    own = pipeline(TASK, model=str(folder), device="cpu")
    make_peft_model(folder, 0).save_pretrained(tmp_path)
    own.model.load_adapter(tmp_path, adapter_name="a")
    always = QuestionSummarizationPipeline(own.model, processor=own.processor, adapter="a")
    stream = always(row for row in ROWS)
    next(stream)
    own.model.delete_adapter("a")
    for call in (lambda: always(ROWS[0]), lambda: next(stream)):
        with pytest.raises(ValueError, match="^adapter 'a' is not loaded; expected one of base, auto "):
            call()
    assert alike(always(ROWS[0], adapter="base"), own(ROWS[0]))


@pytest.mark.parametrize("size", [1, 3, 16])
def test_auto_is_what_the_router_says_whatever_the_batch(routed, size):
    expected = [routed(row, adapter="b" if "Rain" in row["passage"] else "base") for row in ROWS]
    assert alike(routed(ROWS, adapter="auto", batch_size=size), expected)
    assert alike(list(routed((row for row in ROWS), adapter="auto", batch_size=size)), expected)
    assert routed.model.active_adapters() == ["b"]


def test_an_adapter_that_cannot_be_had(routed, pipe, monkeypatch):
    with pytest.raises(ValueError, match="^adapter 'law' is not loaded; expected one of a, b, base, auto "):
        routed(ROWS[0], adapter="law")
    with pytest.raises(ValueError, match="^adapter 'a' is not loaded; expected one of base, auto "):
        pipe(ROWS[0], adapter="a")
    with pytest.raises(ValueError, match='^`adapter="auto"` needs a `router`'):
        pipe(ROWS[0], adapter="auto")
    with monkeypatch.context() as patch:
        patch.setitem(routed.model.peft_config, "base", None)
        with pytest.raises(ValueError, match="^adapter 'base': load it by another name"):
            routed(ROWS[0], adapter="base")
    for adapter in (3, [], ["a", None], {"a"}):
        with pytest.raises(TypeError, match="^`adapter` has to be a name or a list of names, got "):
            routed(ROWS[0], adapter=adapter)
    with pytest.raises(ValueError, match="^adapter 'law' is not loaded"):
        routed(ROWS[0], adapter=["a", "law"])
    for name in ("base", "auto"):
        with pytest.raises(
            ValueError, match=f"^adapter '{name}': has to be given by itself, got it in a list"
        ):
            routed(ROWS[0], adapter=["a", name])


def test_a_router_that_is_none(routed, monkeypatch):
    with pytest.raises(
        TypeError, match="^`router` has to have a method `route`, as an AdapterRouter, got str"
    ):
        QuestionSummarizationPipeline(routed.model, processor=routed.processor, router="minilm")
    for names, error, sentence in (
        (["law"] * 2, ValueError, "^adapter 'law' is not loaded"),
        (["a"], ValueError, "^the router has to give one name for each passage, got 1 for 2.$"),
        ("ab", ValueError, "^the router has to give one name for each passage, got 1 for 2.$"),
        (None, ValueError, "^the router has to give one name for each passage, got 1 for 2.$"),
        ([None] * 2, TypeError, "^`adapter` has to be a name or a list of names, got None"),
    ):
        monkeypatch.setattr(routed.router, "route", lambda passages, names=names: names, raising=False)
        with pytest.raises(error, match=sentence):
            routed(ROWS[:2], adapter="auto", batch_size=16)
