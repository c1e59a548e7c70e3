"""The pipeline: inputs, outputs, batches, options, adapters, errors, and use without the package."""

import copy
import json
import os
import subprocess
import sys
import threading

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset
from tiny_adapter import make_peft_model
from transformers import pipeline

from crosstask import CrossTaskForConditionalGeneration, CrossTaskProcessor, QuestionSummarizationPipeline
from crosstask.configuration_crosstask import PIPELINES
from crosstask.pipeline_crosstask import PIPELINE_TASK

PASSAGES = ["The mayor opened the old bridge on May 3.", "Rain fell for two days. The river rose by a meter."]
ROWS = [
    {"question": "Who opened the bridge?", "passage": PASSAGES[0], "id": "a"},
    {"question": ["How long did it rain?", "What rose?"], "passage": PASSAGES[1], "id": "b"},
    {"question": "When?", "passage": PASSAGES[0] + " " + PASSAGES[1], "id": "c"},
]
SHORT = {"max_new_tokens": 6}


def make_model_and_processor(make_model, tokenizer, question_encoder, **settings):
    """Make a model whose question encoder has the summarizer's vocabulary ("t5") or another one ("bert")."""
    model = make_model(question_encoder=question_encoder, **settings)
    model.resize_token_embeddings(len(tokenizer))
    question_tokenizer = None
    if question_encoder == "bert":
        question_tokenizer = tokenizer
        model.question_encoder.resize_token_embeddings(len(tokenizer))
    return model, CrossTaskProcessor(tokenizer, question_tokenizer, max_source_length=60)


@pytest.fixture(scope="module", params=["t5", "bert"])
def folder(request, make_model, tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipeline") / request.param
    model, processor = make_model_and_processor(make_model, tokenizer, request.param)
    model.generation_config.update(**SHORT)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def pipe(folder):
    return pipeline(PIPELINE_TASK, model=str(folder), device="cpu")


def are_equal(results, expected):
    """Compare one result or lists of results, up to rounding, which depends on the batch."""
    if isinstance(expected, list):
        return len(results) == len(expected) and all(map(are_equal, results, expected))
    probability = pytest.approx(expected["answerability"], abs=1e-5)
    names = {"adapter": None}  # which adapter wrote them is compared elsewhere
    return results | names == expected | names | {"answerability": probability}


def test_a_question_a_list_of_questions_and_a_dict(pipe):
    one = pipe(question="Who opened the bridge?", passage=PASSAGES[0])
    assert one.keys() == {"question", "summary", "answerability"}
    assert one["question"] == "Who opened the bridge?" and 0 < one["answerability"] < 1
    assert are_equal(pipe(ROWS[0]), one)
    several = pipe(question=["What rose?"], passage=PASSAGES[1])
    assert isinstance(several, list) and several[0]["question"] == "What rose?"


def test_results_are_the_models_output(pipe, folder):
    model = CrossTaskForConditionalGeneration.from_pretrained(folder)
    processor = CrossTaskProcessor.from_pretrained(folder)
    inputs = processor(question=ROWS[1]["question"], passage=ROWS[1]["passage"], return_tensors="pt")
    output = model.generate(**inputs, num_beams=2, return_dict_in_generate=True)
    summaries = [text.strip() for text in processor.batch_decode(output.sequences, skip_special_tokens=True)]
    results = pipe(ROWS[1], num_beams=2)
    assert [result["summary"] for result in results] == summaries
    assert [result["answerability"] for result in results] == pytest.approx(output.answerability.tolist())


def test_batch_size_and_type_of_input_do_not_change_results(pipe):
    rows = ROWS + ROWS[::-1]
    expected = [pipe(row) for row in rows]
    for size in (1, 2, 4, 100):
        assert are_equal(pipe(rows, batch_size=size), expected)
        assert are_equal(list(pipe((row for row in rows), batch_size=size)), expected)
    rows = [row for row in rows if isinstance(row["question"], str)]
    assert are_equal(list(pipe(Dataset.from_list(rows), batch_size=3)), [pipe(row) for row in rows])


def test_questions_about_one_passage_are_in_one_batch(pipe, monkeypatch):
    sizes = []
    forward = pipe._forward

    def forward_and_count(inputs, **kwargs):
        sizes.append(len(inputs["input_ids"]))
        return forward(inputs, **kwargs)

    monkeypatch.setattr(pipe, "_forward", forward_and_count)
    pipe(question=["Who?", "When?", "What?"], passage=PASSAGES[0])
    pipe([ROWS[1], ROWS[0], ROWS[1], ROWS[0]], batch_size=3)
    assert sizes == [3, 3, 3]


def test_a_generator_is_read_lazily(pipe):
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
        for answer in result if isinstance(result, list) else [result]:
            assert answer["answered"] is True
            assert all(sentence in row["passage"] for sentence in answer["evidence"])
    assert pipe(ROWS[0], min_answerability=1.0)["answered"] is False
    assert pipe(ROWS[0], min_answerability=np.float32(1e-6))["answered"] is True  # as JSON writes it
    assert pipe(ROWS[0], min_answerability=1.0)["summary"] == pipe(ROWS[0])["summary"]


def test_the_models_own_threshold(folder):
    pipe = pipeline(PIPELINE_TASK, model=str(folder), device="cpu")
    questions = ROWS[1]["question"]
    options = {"question": questions, "passage": PASSAGES[1], "return_evidence": True}
    plain = pipe(**options)
    with pytest.raises(ValueError, match="answerability_threshold`, which training with validation rows"):
        pipe(**options, min_answerability="auto")
    low, high = sorted(result["answerability"] for result in plain)
    pipe.model.config.answerability_threshold = (low + high) / 2
    judged = pipe(**options, min_answerability="auto")
    assert sorted(result["answered"] for result in judged) == [False, True]
    for result, expected in zip(judged, plain, strict=True):
        assert result["evidence"] == (expected["evidence"] if result["answered"] else [])
    merged = pipe(question=questions, passage=PASSAGES[1], merge=True)  # the threshold is its default
    assert [result["answered"] for result in merged["questions"]] == [result["answered"] for result in judged]
    everything = pipe(question=questions, passage=PASSAGES[1], merge=True, min_answerability=0.0)
    assert all(result["answered"] for result in everything["questions"])


def test_merge(pipe):
    merged = pipe(ROWS[1], merge=True, return_evidence=True)
    assert merged.keys() == {"summary", "questions"} and "evidence" in merged["questions"][0]
    words = {word for result in merged["questions"] for word in result["summary"].split()}
    assert set(merged["summary"].split()) <= words | {word.capitalize() for word in words}
    assert pipe(ROWS[1], merge=True, min_answerability=1.0)["summary"] == ""
    assert pipe(ROWS[0], merge=True)["questions"][0]["question"] == ROWS[0]["question"]


def test_options_of_the_constructor_apply_to_every_call(folder):
    pipe = pipeline(
        PIPELINE_TASK, model=str(folder), device="cpu", return_evidence=True, max_new_tokens=1, batch_size=2
    )
    assert "evidence" in pipe(ROWS[0]) and "evidence" not in pipe(ROWS[0], return_evidence=False)
    other = QuestionSummarizationPipeline(pipe.model, processor=pipe.processor, generate_kwargs=SHORT)
    assert len(other(ROWS[0])["summary"]) >= len(pipe(ROWS[0])["summary"])
    with pytest.raises(ValueError, match="`processor` is needed beside a loaded `model`"):
        QuestionSummarizationPipeline(pipe.model)


@pytest.mark.parametrize(
    "inputs, error, message",
    [
        ({}, ValueError, "^`question` is missing"),
        ({"question": "Who?"}, ValueError, "^`passage` is missing"),
        ({"question": [], "passage": "x"}, ValueError, "^`question` is empty"),
        ({"question": ["Who?", " "], "passage": "x"}, ValueError, "^`question` is empty"),
        ({"question": 3, "passage": "x"}, TypeError, "^`question` has to be .* list of strings, got 3"),
        ({"question": ["Who?", None], "passage": "x"}, TypeError, "^`question` has to be a string or a list"),
        ({"question": "Who?", "passage": ["x"]}, TypeError, "^`passage` has to be a string, got list"),
        ({"question": "Who?", "passage": "\n"}, ValueError, "^`passage` is empty"),
        ([ROWS[0], {"question": "Who?"}], ValueError, "^input 1: `passage` is missing"),
        ([ROWS[0], "Who?"], TypeError, "^input 1: expected a dict with `question` and `passage`, got str"),
        ("Who?", TypeError, "^`inputs` have to be a dict"),
        (3, TypeError, "^`inputs` have to be a dict"),
        ({"question": "Who opened the bridge? " * 30, "passage": "x"}, ValueError, "no room is left"),
    ],
)
def test_wrong_inputs_are_refused(pipe, inputs, error, message):
    with pytest.raises(error, match=message):
        pipe(inputs)


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"return_evidnce": True}, TypeError, "is neither an option .*did you mean `return_evidence`"),
        ({"return_dict_in_generate": False}, TypeError, "`return_dict_in_generate` is neither an option"),
        ({"num_return_sequences": 2}, ValueError, "a question has one summary"),
        ({"min_answerability": 2}, ValueError, "between 0 and 1, got 2"),
        ({"question": "Who?"}, ValueError, "either `inputs`, or `question` and `passage`"),
    ],
)
def test_wrong_options_are_refused(pipe, options, error, message):
    with pytest.raises(error, match=message):
        pipe(ROWS[0], **options)


def test_num_return_sequences_of_the_generation_configuration_is_ignored(pipe):
    several = copy.deepcopy(pipe.model.generation_config)
    several.update(num_beams=2, num_return_sequences=2)
    assert are_equal(pipe(ROWS, batch_size=3, generation_config=several), pipe(ROWS, num_beams=2))


def test_reranking_returns_the_best_candidate(pipe):
    settings = {"num_beams": 3, "num_return_sequences": 3, "answerability_rerank": 5.0}
    for row, result in zip(ROWS, pipe(ROWS, batch_size=3, **settings), strict=True):
        questions = row["question"] if isinstance(row["question"], list) else [row["question"]]
        inputs = pipe.processor(question=questions, passage=row["passage"], return_tensors="pt")
        output = pipe.model.generate(**inputs, **settings)
        texts = pipe.processor.batch_decode(output[::3], skip_special_tokens=True)
        results = result if isinstance(result, list) else [result]
        assert [answer["summary"] for answer in results] == [text.strip() for text in texts]


def test_pushing_a_pipeline(hub, alice, pipe):
    pipe.push_to_hub("alice/pipe")
    assert "[More Information Needed]" not in hub.files("alice/pipe")["README.md"].decode()
    assert are_equal(pipeline(PIPELINE_TASK, model="alice/pipe", device="cpu")(ROWS[0]), pipe(ROWS[0]))


def test_an_empty_list_has_no_results(pipe):
    assert pipe([]) == [] and list(pipe(iter([]))) == []


def test_a_checkpoint_contains_the_pipeline(folder, pipe, tmp_path):
    assert json.loads((folder / "config.json").read_text())["custom_pipelines"] == PIPELINES
    assert type(pipe) is QuestionSummarizationPipeline and not pipe.model.config.custom_pipelines
    pipe.save_pretrained(tmp_path / "saved")
    assert {"pipeline_crosstask.py", "sentences_crosstask.py", "processor_config.json"} <= {
        path.name for path in (tmp_path / "saved").iterdir()
    }
    assert are_equal(
        pipeline(PIPELINE_TASK, model=str(tmp_path / "saved"), device="cpu")(ROWS[0]), pipe(ROWS[0])
    )


def test_without_the_package(hub, alice, folder, pipe, tmp_path):
    """Load from the Hub in a process that cannot import crosstask, save, and load again."""
    pipe.model.push_to_hub("alice/model")
    pipe.processor.push_to_hub("alice/model")
    code = f"""
import sys
sys.modules["crosstask"] = None
import json
from transformers import pipeline
pipe = pipeline({PIPELINE_TASK!r}, model="alice/model", trust_remote_code=True, device="cpu")
pipe.save_pretrained({str(tmp_path / "saved")!r})
pipe = pipeline({PIPELINE_TASK!r}, model={str(tmp_path / "saved")!r}, trust_remote_code=True, device="cpu")
print("RESULT", json.dumps(pipe({ROWS[1]!r}, return_evidence=True)))
try:
    pipeline({PIPELINE_TASK!r}, model="alice/model", device="cpu", trust_remote_code=False)
except ValueError as error:
    print("REFUSED", "trust_remote_code=True" in str(error))
"""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr[-2000:]
    results = json.loads(process.stdout.split("RESULT ")[1].splitlines()[0])
    assert are_equal(results, pipe(ROWS[1], return_evidence=True))
    assert "REFUSED True" in process.stdout


def test_device_and_dtype(folder):
    pipe = pipeline(PIPELINE_TASK, model=str(folder), dtype="bfloat16", device="cpu")
    assert pipe.model.dtype == torch.bfloat16 and isinstance(pipe(ROWS[0])["answerability"], float)


@pytest.fixture(scope="module", params=["t5", "bert", "left"])
def gated(request, make_model, tokenizer):
    """Pipelines of models with an open gate; `left` pads on the left."""
    tokenizer = copy.deepcopy(tokenizer)
    question_encoder = "bert" if request.param == "bert" else "t5"
    model, processor = make_model_and_processor(
        make_model, tokenizer, question_encoder, fusion="gated", seed=3
    )
    if request.param == "left":
        tokenizer.padding_side = "left"
    model.gated_cross_attention.gates.data.fill_(0.5)
    model.gated_cross_attention.q_proj.weight.data *= 3
    return QuestionSummarizationPipeline(model, processor=processor)


def test_the_gates_attention_is_used_if_no_word_is_shared(gated, monkeypatch):
    # An untrained model writes none of these words.
    passage = "Zyx qwv jjk. Wqx zzv xxq vvw. Kkj zxw."
    row = {"question": ["Who?", "What is it that nobody has said?"], "passage": passage}
    kwargs = SHORT | {"suppress_tokens": gated.processor.tokenizer.all_special_ids}
    results = gated(row, return_evidence=True, **kwargs)
    assert all(result["summary"] for result in results)
    expected = []
    for question in row["question"]:
        inputs = gated.processor(question=question, passage=[passage], return_tensors="pt")
        output = gated.model.generate(
            **inputs, **kwargs, return_dict_in_generate=True, output_fusion_attentions=True
        )
        attention = output.fusion_attentions[0].mean(0).sum(0).tolist()
        sums = dict.fromkeys(["Zyx qwv jjk.", "Wqx zzv xxq vvw.", "Kkj zxw."], 0.0)
        offsets = gated.processor.get_passage_offsets(question, passage)
        for span, value in zip(offsets, attention, strict=True):
            if span is not None:
                start = span[0] + (passage[span[0]] == " ")
                name = list(sums)[(start >= 13) + (start >= 30)]
                sums[name] += value
        expected.append([max(sums, key=sums.get)])
    assert [result["evidence"] for result in results] == expected
    results = gated([row, row], batch_size=4, return_evidence=True, **kwargs)[1]
    assert [result["evidence"] for result in results] == expected

    def slow(*_):
        raise NotImplementedError

    monkeypatch.setattr(gated.processor, "get_passage_offsets", slow)
    assert [result["evidence"] for result in gated(row, return_evidence=True, **kwargs)] == [[], []]


def test_return_evidence_can_be_switched_off_per_call(gated):
    always = QuestionSummarizationPipeline(gated.model, processor=gated.processor, return_evidence=True)
    assert "evidence" in always(ROWS[0], **SHORT)
    assert "evidence" not in always(ROWS[0], return_evidence=False, **SHORT)
    assert "evidence" not in gated(ROWS[0], **SHORT)


class WordRouter:
    """A router that picks "b" for passages with "Rain", and no adapter for others."""

    def route(self, passages):
        return ["b" if "Rain" in passage else "base" for passage in passages]


@pytest.fixture(scope="module")
def routed(folder, tmp_path_factory):
    """Return a pipeline with a router and two adapters; the adapter "b" is active."""
    adapters = tmp_path_factory.mktemp("adapters")
    pipe = pipeline(PIPELINE_TASK, model=str(folder), device="cpu", router=WordRouter())
    targets = {"target_modules": r"summarizer\..*\.(q|v)"}
    for seed, name in enumerate("ab"):
        make_peft_model(folder, seed, **targets).save_pretrained(adapters / name)
        pipe.model.load_adapter(adapters / name, adapter_name=name)
    return pipe


def test_the_adapter_is_selected_by_name(routed, pipe):
    row = ROWS[1]
    assert are_equal(routed(row, adapter="base"), pipe(row))
    a, b = (routed(row, adapter=name) for name in "ab")
    assert not are_equal(a, b) and not are_equal(a, pipe(row)) and not are_equal(b, pipe(row))
    assert [result["adapter"] for result in a + b + routed(row)] == ["a", "a", "b", "b", "base", "base"]
    assert "adapter" not in pipe(row)[0]
    # The active adapter stays active, or disabled, and a call without `adapter` is the base.
    assert routed.model.active_adapters() == ["b"] and are_equal(routed(row), pipe(row))
    routed.model.disable_adapters()
    assert are_equal(routed(row, adapter="a"), a) and are_equal(routed(row), pipe(row))
    routed.model.enable_adapters()
    assert are_equal(routed(row), pipe(row))
    # `requires_grad` stays the same.
    flags = [parameter.requires_grad for parameter in routed.model.parameters()]
    for name in ("a", "base"):
        routed(row, adapter=name)
        assert [parameter.requires_grad for parameter in routed.model.parameters()] == flags


def test_selecting_adapters_with_and_without_a_fusion(folder, pipe, tmp_path):
    targets = {"target_modules": r"summarizer\..*\.(q|v)"}
    adapter_pipe = pipeline(PIPELINE_TASK, model=str(folder), device="cpu")
    expected = {"base": pipe(ROWS[1])}
    for seed, (name, more) in enumerate({"a": {}, "b": {"modules_to_save": None}}.items()):
        model = make_peft_model(folder, seed, **targets, **more)
        model.save_pretrained(tmp_path / name)
        adapter_pipe.model.load_adapter(tmp_path / name, adapter_name=name)
        expected[name] = adapter_pipe(ROWS[1], adapter=name)
    assert not are_equal(expected["a"], expected["b"])
    for active in "ab":
        adapter_pipe.model.set_adapter(active)
        for name, wanted in expected.items():
            assert are_equal(adapter_pipe(ROWS[1], adapter=name), wanted)
            assert are_equal(adapter_pipe(ROWS[1]), expected["base"])


def test_several_adapters_together(routed, tmp_path):
    """Two adapters of the same layers, without copies of the fusion."""
    pipe = pipeline(PIPELINE_TASK, model=routed.model.config._name_or_path, device="cpu")
    targets = {"target_modules": r"summarizer\..*\.(q|v)", "modules_to_save": None}
    for seed, name in enumerate("cd"):
        make_peft_model(routed.model.config._name_or_path, seed, **targets).save_pretrained(tmp_path / name)
        pipe.model.load_adapter(tmp_path / name, adapter_name=name)
    one, both = (pipe(ROWS[1], adapter=names) for names in ("d", ["c", "d"]))
    assert not are_equal(both, one) and [result["adapter"] for result in both] == [["c", "d"]] * 2
    assert are_equal(pipe(ROWS[1], adapter=("c", "d")), both)
    assert are_equal(pipe(ROWS[1], adapter=["d"]), one)
    assert pipe.model.active_adapters() == ["d"]
    with pipe.model.use_adapter(["c", "d"]):
        assert pipe.model.active_adapters() == ["c", "d"]
    assert pipe.model.active_adapters() == ["d"]
    # Two copies of the fusion cannot be used together.
    before = routed(ROWS[1])
    with pytest.raises(ValueError):
        routed(ROWS[1], adapter=["a", "b"])
    assert routed.model.active_adapters() == ["b"] and are_equal(routed(ROWS[1]), before)


def test_every_thread_gets_its_adapter(routed):
    """Several pipelines share one model, and its state is the same afterwards."""
    expected = {name: routed(ROWS[1], adapter=name) for name in ("a", "b", "base", None)}
    failures = []

    def work(name):
        pipe = QuestionSummarizationPipeline(routed.model, processor=copy.deepcopy(routed.processor))
        try:
            for _ in range(8):
                if not are_equal(pipe(ROWS[1], adapter=name), expected[name]):
                    failures.append(name)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert routed.model.active_adapters() == ["b"] and are_equal(routed(ROWS[1]), expected["base"])


def run_in_thread(function):
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    thread.join(60)


def test_unfinished_streams_do_not_block_others(routed):
    expected = {name: routed(ROWS[0], adapter=name) for name in "ab"}
    streams = {name: routed((ROWS[0] for _ in range(3)), adapter=name) for name in "ab"}
    for name in "abba":
        assert are_equal(next(streams[name]), expected[name])
    # Both streams are still open.
    results = []
    run_in_thread(lambda: results.append(routed(ROWS[0], adapter="a")))
    assert results and are_equal(results[0], expected["a"])


def test_a_call_within_a_call_does_not_block(routed):
    """A stopping criterion calls the pipeline."""
    expected = {name: routed(ROWS[0], adapter=name) for name in "ab"}
    results = []

    def watch(ids, scores, **kwargs):
        if not results:
            results.append(routed(ROWS[0], adapter="a"))
        return torch.zeros(len(ids), dtype=torch.bool)

    options = {"adapter": "b", "stopping_criteria": [watch]}
    run_in_thread(lambda: results.append(routed(ROWS[0], **options)))
    assert are_equal(results, [expected["a"], expected["b"]])


def test_a_model_that_a_pipeline_has_used_can_be_copied(routed):
    expected = routed(ROWS[1], adapter="a")
    pipe = QuestionSummarizationPipeline(copy.deepcopy(routed.model), processor=routed.processor)
    assert are_equal(pipe(ROWS[1], adapter="a"), expected)


def test_an_adapter_that_was_deleted(folder, tmp_path):
    pipe = pipeline(PIPELINE_TASK, model=str(folder), device="cpu")
    make_peft_model(folder, 0).save_pretrained(tmp_path)
    pipe.model.load_adapter(tmp_path, adapter_name="a")
    always = QuestionSummarizationPipeline(pipe.model, processor=pipe.processor, adapter="a")
    stream = always(row for row in ROWS)
    next(stream)
    pipe.model.delete_adapter("a")
    for call in (lambda: always(ROWS[0]), lambda: next(stream)):
        with pytest.raises(ValueError, match="^adapter 'a' is not loaded; expected one of base, auto "):
            call()
    assert are_equal(always(ROWS[0], adapter="base"), pipe(ROWS[0]))


@pytest.mark.parametrize("size", [1, 3, 16])
def test_auto_uses_the_routers_adapter_in_any_batch(routed, size):
    expected = [routed(row, adapter="b" if "Rain" in row["passage"] else "base") for row in ROWS]
    assert are_equal(routed(ROWS, adapter="auto", batch_size=size), expected)
    assert are_equal(list(routed((row for row in ROWS), adapter="auto", batch_size=size)), expected)
    assert routed.model.active_adapters() == ["b"]
    assert [result["adapter"] for result in routed(ROWS[::2], adapter="auto")] == ["base", "b"]


def test_an_input_may_name_its_adapter(routed):
    rows = [ROWS[0] | {"adapter": name} for name in ("a", "auto", "base", None)]
    results = routed(rows, adapter="b", batch_size=4)
    assert [result["adapter"] for result in results] == ["a", "base", "base", "b"]
    assert are_equal(results[0], routed(ROWS[0], adapter="a"))
    with pytest.raises(ValueError, match="^input 1: adapter 'law' is not loaded"):
        routed([ROWS[0], ROWS[0] | {"adapter": "law"}])


def test_a_bad_input_need_not_end_a_stream(pipe):
    rows = [ROWS[0], {"question": "Who?"}, "no dict", ROWS[0] | {"question": "why " * 99}, ROWS[0]]
    expected = pipe(ROWS[0])
    results = list(pipe((row for row in rows), on_error="return", batch_size=2))
    assert are_equal([results[0], results[4]], [expected, expected])
    assert [result["error"] for result in results[1:4]] == [
        "input 1: `passage` is missing.",
        "input 2: expected a dict with `question` and `passage`, got str.",
        results[3]["error"],
    ]
    assert "no room is left" in results[3]["error"]
    assert pipe({"question": "Who?"}, on_error="return") == {"error": "`passage` is missing."}
    with pytest.raises(ValueError, match="^`on_error` has to be"):
        pipe(ROWS[0], on_error="skip")


def test_wrong_adapters_are_refused(routed, pipe, monkeypatch):
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
        with pytest.raises(ValueError, match=f"^adapter '{name}': expected it alone, got it in a list"):
            routed(ROWS[0], adapter=["a", name])


def test_wrong_routers_are_refused(routed, monkeypatch):
    with pytest.raises(TypeError, match="^`router` has to have a method `route`, .*, got str"):
        QuestionSummarizationPipeline(routed.model, processor=routed.processor, router="minilm")
    count = "^the router has to return one name for each passage, got 1 for 2.$"
    for names, error, message in (
        (["law"] * 2, ValueError, "^adapter 'law' is not loaded"),
        (["a"], ValueError, count),
        ("ab", ValueError, count),
        (None, ValueError, count),
        ([None] * 2, TypeError, "^`adapter` has to be a name or a list of names, got None"),
    ):
        monkeypatch.setattr(routed.router, "route", lambda passages, names=names: names, raising=False)
        with pytest.raises(error, match=message):
            routed(ROWS[:2], adapter="auto", batch_size=16)


@pytest.fixture(params=["one tokenizer", "two tokenizers"])
def limited(request, make_model, tokenizer):
    """A pipeline of a BART with 64 positions and a RoBERTa with 62, and a processor that knows no limits."""
    model = make_model("bart", "roberta")
    model.resize_token_embeddings(len(tokenizer))
    model.generation_config.update(**SHORT)
    second = None
    if request.param == "two tokenizers":
        second = copy.deepcopy(tokenizer)
        model.config.shares_vocabulary = False
    return QuestionSummarizationPipeline(model, processor=CrossTaskProcessor(tokenizer, second))


@pytest.mark.parametrize(
    ("options", "part"),
    [({}, "the parts that fit best to the question"), ({"long_passages": "truncate"}, "their beginning")],
)
def test_long_inputs_have_one_warning_per_call(limited, caplog, options, part):
    long, short = {"question": "Who?", "passage": PASSAGES[0] * 9}, {"question": "Who?", "passage": "It"}
    assert isinstance(limited(long, **options)["summary"], str)
    assert isinstance(limited(short, **options)["summary"], str)
    assert len(limited([long, short, long], batch_size=2, **options)) == 3
    assert len(list(limited(iter([short, long]), **options))) == 2
    messages = [
        record.getMessage() for record in caplog.records if record.name.endswith("pipeline_crosstask")
    ]
    assert messages == [
        f"{count} inputs are longer than the 64 tokens and 62 tokens that the model reads: it read {part} "
        f"(long_passages={options.get('long_passages', 'select')!r})"
        for count in ("1 of 1", "2 of 3", "1 of 2")
    ]


def test_a_question_without_room_names_its_input_in_a_stream(limited):
    rows = [{"question": "Who?", "passage": "It"}, {"question": "Who? " * 40, "passage": "It"}]
    results = limited(iter(rows))
    next(results)
    with pytest.raises(ValueError, match="^input 1: question 0 takes .* no room is left"):
        next(results)


def test_a_length_above_the_positions_of_the_decoder_is_refused(limited):
    row = {"question": "Who?", "passage": "It"}
    assert limited(row, max_new_tokens=64, min_new_tokens=64)["summary"] is not None
    with pytest.raises(ValueError, match="`max_new_tokens` is 65, the decoder has 64 positions"):
        limited(row, max_new_tokens=65)


def test_an_untrained_answerability_is_not_given(make_model, tokenizer, caplog):
    model, processor = make_model_and_processor(make_model, tokenizer, "t5", answerability_trained=False)
    model.generation_config.update(**SHORT)
    pipe = QuestionSummarizationPipeline(model, processor=processor)
    assert "was never trained on labels" in caplog.text
    assert pipe(ROWS[0])["answerability"] is None
    assert isinstance(pipe(ROWS[1], merge=True)["summary"], str)
    for options in ({"min_answerability": 0.5}, {"answerability_rerank": 1.0, "num_return_sequences": 2}):
        with pytest.raises(ValueError, match="needs a model whose answerability was trained on labels"):
            pipe(ROWS[0], num_beams=2, **options)
    assert model.generate(  # the number itself stays, for those who train
        **processor(question="Who?", passage="It", return_tensors="pt"), **SHORT, return_dict_in_generate=True
    ).answerability.isfinite()


def test_an_empty_summary_does_not_answer(pipe, monkeypatch):
    monkeypatch.setattr(pipe.processor, "batch_decode", lambda ids, **_: [" "] * len(ids))
    result = pipe(ROWS[1], min_answerability=0.0, merge=True)
    assert [part["answerability"] for part in result["questions"]] == [0.0, 0.0]
    assert not any(part["answered"] for part in result["questions"]) and result["summary"] == ""


def test_a_table_is_refused_in_a_sentence(pipe):
    with pytest.raises(TypeError, match="are a table, which iterates over its columns; expected its rows"):
        pipe(pd.DataFrame([ROWS[0]]))
    assert pipe(pd.DataFrame([ROWS[0]]).to_dict("records"))[0]["summary"] == pipe(ROWS[0])["summary"]


def test_half_a_surrogate_pair_is_an_error_that_names_its_input(pipe):
    inputs = [ROWS[0], ROWS[0] | {"passage": "It rained. \ud83d"}, ROWS[1] | {"question": ["a", "b\udcff"]}]
    results = pipe(inputs, on_error="return", batch_size=4)
    assert "summary" in results[0]
    assert results[1] == {
        "error": r"input 1: `passage` holds '\ud83d' at position 11, expected Unicode text."
    }
    assert results[2]["error"].startswith(r"input 2: `question` holds '\udcff' at position 1")
    with pytest.raises(ValueError, match="`passage` 0 holds"):
        pipe.processor(question="a", passage="\ud83d")


def test_a_model_of_another_kind_is_an_error(pipe):
    with pytest.raises(ValueError, match="has to be a cross-task model, got a T5ForConditionalGeneration"):
        pipeline(PIPELINE_TASK, model=pipe.model.summarizer, processor=pipe.processor)
