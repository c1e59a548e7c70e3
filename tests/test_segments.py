"""Test long inputs: segments, which are encoded one by one and read at once, and parts that are selected."""

import copy
import math

import numpy as np
import pytest
import torch
from transformers import GenerationConfig

from crosstask import CrossTaskConfig, CrossTaskProcessor, QuestionSummarizationPipeline, fusion_crosstask

PAIRS = [("t5", "t5"), ("bart", "roberta"), ("pegasus", "bert"), ("led", "t5"), ("t5gemma", "t5gemma")]
QUESTION = "Who opened the bridge?"
SENTENCES = [
    "The old mill was sold in March.",
    "The mayor opened the bridge on May 3.",
    "It rained for six days.",
    "The school paid $4 million.",
]


@pytest.fixture(params=["classifier", "gated"])
def fusion(request):
    return request.param


@pytest.fixture
def make_long_model(make_model, fusion):
    """Return `make(summarizer, question_encoder)`: a model whose gates are open."""

    def make(summarizer="t5", question_encoder="t5", **settings):
        model = make_model(summarizer, question_encoder, fusion=fusion, **settings)
        if fusion == "gated":
            model.gated_cross_attention.gates.data.fill_(1.0)
        return model

    return make


def make_segments(lengths, size=8, seed=0):
    """Return ids and mask of segments with the given numbers of tokens, by row."""
    random = torch.Generator().manual_seed(seed)
    count = max(map(len, lengths))
    ids = torch.randint(3, 99, (len(lengths), count, size), generator=random)
    mask = torch.zeros_like(ids)
    for row, row_lengths in enumerate(lengths):
        for segment, length in enumerate(row_lengths):
            mask[row, segment, :length] = 1
    return {"input_ids": ids * mask, "attention_mask": mask}


def run(model, inputs, labels=None):
    """Return logits, answerability logits and the summaries of three kinds of search."""
    labels = torch.tensor([[5, 6, 7, 1]] * len(inputs["input_ids"])) if labels is None else labels
    with torch.inference_mode():
        output = model(**inputs, labels=labels)
        results = [output.logits, output.answerability_logits, output.loss]
        for settings in ({"num_beams": 1}, {"num_beams": 3, "num_return_sequences": 2}):
            generated = model.generate(
                **inputs, max_new_tokens=6, return_dict_in_generate=True, output_logits=True, **settings
            )
            results += [generated.sequences, generated.answerability]
        results.append(model.score_answerability(**inputs, summary_ids=results[3]))
    return results


def assert_close(results, expected):
    for value, other in zip(results, expected, strict=True):
        torch.testing.assert_close(value, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("summarizer", "question_encoder"), PAIRS)
def test_one_segment_equals_none(make_long_model, summarizer, question_encoder):
    model = make_long_model(summarizer, question_encoder)
    long = make_segments([[8], [5]])
    short = {name: value.squeeze(1) for name, value in long.items()}
    for value, other in zip(run(model, long), run(model, short), strict=True):
        torch.testing.assert_close(value, other, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("summarizer", "question_encoder"), PAIRS)
def test_padding_batches_and_micro_batches_change_nothing(
    make_long_model, summarizer, question_encoder, monkeypatch
):
    model = make_long_model(summarizer, question_encoder)
    inputs = make_segments([[8, 8, 3], [8, 6], [4]])
    expected = run(model, inputs)
    assert not torch.allclose(expected[0][0], expected[0][1])  # the segments matter
    monkeypatch.setattr(fusion_crosstask, "SEGMENT_BATCH_TOKENS", 8)  # one segment at a time
    assert_close(run(model, inputs), expected)
    monkeypatch.undo()
    wider = {name: torch.nn.functional.pad(value, (0, 0, 0, 2)) for name, value in inputs.items()}
    assert_close(run(model, wider), expected)
    order = torch.tensor([2, 0, 1])
    permuted = run(model, {name: value[order] for name, value in inputs.items()})
    torch.testing.assert_close(permuted[0], expected[0][order], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(permuted[3], expected[3][order], rtol=0, atol=0)
    alone = run(model, {name: value[1:2, :2] for name, value in inputs.items()})
    torch.testing.assert_close(alone[0][0], expected[0][1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(alone[4], expected[4][1:2], rtol=1e-4, atol=1e-5)


def test_an_encoder_does_not_read_segments_of_padding(make_long_model):
    model, rows = make_long_model(), []
    for encoder in (model.get_encoder(), model.question_encoder):
        encoder.register_forward_pre_hook(
            lambda module, args, kwargs: rows.append(len(kwargs["input_ids"])), with_kwargs=True
        )
    model(**make_segments([[8, 8, 3], [8]]), labels=torch.tensor([[5, 1]] * 2))
    assert rows == [4, 4]


def test_order_of_segments_does_not_matter_to_the_classifier(make_model):
    """The decoder of a T5 has no positions in its cross-attention, so that segments are a set to it."""
    model = make_model("t5", "t5")
    inputs = make_segments([[8, 8, 8]])
    turned = {name: value.flip(1) for name, value in inputs.items()}
    assert_close(run(model, turned)[:2], run(model, inputs)[:2])


def test_a_question_encoder_with_segments_of_its_own(make_long_model):
    model = make_long_model("t5", "bert", shares_vocabulary=False)
    inputs = make_segments([[8, 8, 3], [8, 6]])
    question = make_segments([[5, 5, 5, 5], [5, 2]], size=5, seed=1)
    inputs |= {f"question_{name}": value for name, value in question.items()}
    expected = run(model, inputs)
    changed = {**inputs, "question_input_ids": inputs["question_input_ids"].flip(-1)}
    assert not torch.allclose(run(model, changed)[1], expected[1])


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_gradients_of_segments(make_long_model, use_reentrant):
    model = make_long_model("t5", "roberta")
    inputs = make_segments([[8, 8, 3], [8, 6]])
    batch = inputs | {"labels": torch.tensor([[5, 6, 1]] * 2), "answerable": torch.tensor([1, 0])}
    model.train()
    model(**batch).loss.backward()
    gradients = {
        name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None
    }
    assert gradients.keys() == {name for name, value in model.named_parameters()}
    model.zero_grad()
    model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
    model.enable_input_require_grads()
    model(**batch).loss.backward()
    for name, value in model.named_parameters():
        torch.testing.assert_close(value.grad, gradients[name], rtol=1e-4, atol=1e-5, msg=name)


def test_hidden_states_of_segments(make_long_model):
    model = make_long_model()
    inputs = make_segments([[8, 8, 3], [8]])
    output = model(**inputs, labels=torch.tensor([[5, 1]] * 2), output_hidden_states=True)
    assert output.encoder_last_hidden_state.shape[:2] == (2, 24)
    assert [states.shape[:2] for states in output.encoder_hidden_states] == [(2, 24)] * 3
    assert output.question_encoder_last_hidden_state.shape[:2] == (2, 24)


def test_a_static_cache_and_a_compiled_model(make_long_model):
    model = make_long_model()
    inputs = make_segments([[8, 8, 3], [8, 8, 8]])
    expected = model.generate(**inputs, max_new_tokens=5, do_sample=False)
    assert torch.equal(model.generate(**inputs, max_new_tokens=5, cache_implementation="static"), expected)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    labels = torch.tensor([[5, 6, 1]] * 2)
    with torch.inference_mode():
        logits = model(**inputs, labels=labels).logits
        torch.testing.assert_close(compiled(**inputs, labels=labels).logits, logits, rtol=1e-4, atol=1e-5)


def make_processor(tokenizer, **settings):
    return CrossTaskProcessor(copy.deepcopy(tokenizer), **{"max_source_length": 64} | settings)


@pytest.mark.parametrize("stride", [0, 7])
def test_a_passage_is_cut_into_segments_that_overlap(tokenizer, stride):
    processor = make_processor(tokenizer, max_segments=40, stride=stride)
    passage = " ".join(SENTENCES * 6)
    encoded = processor(QUESTION, passage, return_truncated=True)
    assert encoded.pop("input_ids_truncated") is False and len(encoded["input_ids"]) > 3
    assert all(len(ids) <= 64 for ids in encoded["input_ids"])
    offsets = processor.get_passage_offsets(QUESTION, passage)
    assert len(offsets) == sum(map(len, encoded["input_ids"]))
    covered = {position for offset in filter(None, offsets) for position in range(*offset)}
    assert {index for index, character in enumerate(passage) if not character.isspace()} <= covered
    plain = make_processor(tokenizer, max_source_length=4000)(QUESTION, passage)["input_ids"]
    assert sum(map(len, encoded["input_ids"])) > len(plain) + (len(encoded["input_ids"]) - 1) * stride


def test_segments_beyond_the_limit_are_counted(tokenizer):
    processor = make_processor(tokenizer, max_segments=2, stride=3)
    encoded = processor([QUESTION] * 2, [SENTENCES[0], " ".join(SENTENCES * 9)], return_truncated=True)
    assert encoded["input_ids_truncated"] == [False, True]
    assert [len(ids) for ids in encoded["input_ids"]] == [1, 2]
    batch = processor([QUESTION] * 2, [SENTENCES[0], " ".join(SENTENCES * 9)], return_tensors="pt")
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (2, 2, 64)
    assert batch["attention_mask"][0, 1].sum() == 0
    as_lists = processor([QUESTION] * 2, SENTENCES[:2], padding=True)
    assert torch.equal(
        torch.tensor(as_lists["input_ids"]),
        processor([QUESTION] * 2, SENTENCES[:2], return_tensors="pt")["input_ids"],
    )


@pytest.mark.parametrize("convert", [list, np.array, torch.tensor])
@pytest.mark.parametrize("max_segments", [1, 2])
def test_rows_of_any_format_are_padded(tokenizer, convert, max_segments):
    processor = make_processor(tokenizer, max_segments=max_segments)
    passages = [
        SENTENCES[0],
        f"{SENTENCES[0]} Yes.",
    ]  # of one segment, as an array has no rows of two lengths
    rows = [dict(processor(QUESTION, passage, "It rained.")) for passage in passages]
    expected = processor.pad(rows)
    batch = processor.pad([{name: convert(values) for name, values in row.items()} for row in rows])
    assert batch.keys() == expected.keys()
    assert all(torch.equal(batch[name], expected[name]) for name in expected)


def test_one_segment_is_what_a_processor_without_segments_encodes(tokenizer):
    plain, segmented = make_processor(tokenizer), make_processor(tokenizer, max_segments=3, stride=5)
    for passage in (SENTENCES[0], ""):
        inputs = {"question": QUESTION, "passage": passage, "summary": "The mayor.", "answerable": 1}
        expected, encoded = plain(**inputs), segmented(**inputs)
        assert encoded["labels"] == expected["labels"]
        assert encoded["input_ids"] == [expected["input_ids"]]


def test_the_segments_of_a_question_tokenizer(tokenizer):
    processor = make_processor(
        tokenizer,
        question_tokenizer=copy.deepcopy(tokenizer),
        max_segments=9,
        stride=2,
        max_question_length=48,
    )
    batch = processor(QUESTION, " ".join(SENTENCES * 3), return_tensors="pt")
    assert batch["input_ids"].shape[2] == 64 and batch["question_input_ids"].shape[2] == 48
    assert batch["question_input_ids"].shape[1] > batch["input_ids"].shape[1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_segments": 0}, "`max_segments` has to be an integer of 1 or more, got 0"),
        ({"max_segments": 2, "stride": 64}, "`stride` has to be an integer from 0 to below .* got 64"),
        ({"max_segments": 2, "stride": -1}, "`stride` has to be an integer from 0 to below .* got -1"),
    ],
)
def test_wrong_numbers_are_refused(tokenizer, make_part, settings, message):
    with pytest.raises(ValueError, match=message):
        make_processor(tokenizer, **settings)
    with pytest.raises(ValueError, match=message):
        CrossTaskConfig(
            make_part("t5"), make_part("t5"), max_source_length=64, fusion_num_heads=4, **settings
        )


def test_a_stride_that_leaves_no_room_is_said(tokenizer):
    with pytest.raises(ValueError, match="^question 0 takes .* tokens, `stride` is 60, .*: no room is left"):
        make_processor(tokenizer, max_segments=2, stride=60)(QUESTION, SENTENCES[0])


def test_a_processor_keeps_its_segments(tokenizer, tmp_path):
    make_processor(tokenizer, max_segments=5, stride=4).save_pretrained(tmp_path)
    processor = CrossTaskProcessor.from_pretrained(tmp_path)
    assert (processor.max_segments, processor.stride) == (5, 4)


def test_the_sentences_that_fit_to_the_question_are_selected(tokenizer):
    processor = make_processor(tokenizer, max_source_length=96)
    filler = "Nobody was seen on that long road. "
    passage = filler * 30 + "The mayor opened the bridge. " + filler * 30
    spans = processor.select_passage(QUESTION, passage)
    parts = [passage[start:end] for start, end in spans]
    assert "The mayor opened the bridge." in parts and spans == sorted(spans)
    encoded, selected = processor.encode_long(QUESTION, passage)
    assert selected == spans and encoded["input_ids_truncated"]
    assert not processor(QUESTION, " ".join(parts), return_truncated=True)["input_ids_truncated"]
    room = 96 - len(encoded["input_ids"])
    assert room < len(processor(None, filler)["input_ids"])  # nothing else fits
    last = processor.select_passage(QUESTION, passage, lambda question, texts: range(len(texts)))
    assert last[-1][1] == len(passage.rstrip())


def test_a_sentence_without_end_is_selected_in_pieces(tokenizer):
    processor = make_processor(tokenizer, max_source_length=96)
    passage = "one two three " * 400 + "the mayor opened the bridge " + "four five six " * 400
    spans = processor.select_passage(QUESTION, passage)
    assert any("opened" in passage[start:end] for start, end in spans)
    assert processor.select_passage(QUESTION, "x" * 900)  # no white space at all


def test_ways_to_read_a_long_passage(tokenizer):
    plain, segmented = make_processor(tokenizer), make_processor(tokenizer, max_segments=3)
    passage = " ".join(SENTENCES * 9)
    assert plain.check_long_passages(None) == "select" and segmented.check_long_passages(None) == "segments"
    truncated, spans = segmented.encode_long(QUESTION, passage, long_passages="truncate")
    assert spans is None and truncated["input_ids"] == plain(QUESTION, passage)["input_ids"]
    assert len(segmented.encode_long(QUESTION, passage)[0]["input_ids"]) == 3
    selected, spans = segmented.encode_long(QUESTION, passage, long_passages="select")
    assert len(selected["input_ids"]) <= 3 and spans
    with pytest.raises(ValueError, match="not trained with segments"):
        plain.encode_long(QUESTION, passage, long_passages="segments")
    with pytest.raises(ValueError, match="`long_passages` has to be one of"):
        plain.encode_long(QUESTION, passage, long_passages="cut")
    with pytest.raises(ValueError, match="`passage_scorer` has to return a number for each of"):
        plain.encode_long(QUESTION, passage, passage_scorer=lambda question, texts: [1.0])
    with pytest.raises(ValueError, match="`passage_scorer` has to return numbers, got NaN"):
        plain.encode_long(
            QUESTION, passage, passage_scorer=lambda question, texts: [1.0, *[math.nan] * (len(texts) - 1)]
        )


@pytest.mark.parametrize("long_passages", [None, "select", "truncate"])
@pytest.mark.parametrize("max_segments", [1, 30])
def test_the_pipeline_finds_evidence_in_long_passages(
    make_long_model, tokenizer, max_segments, long_passages
):
    model = make_long_model(max_source_length=64, max_segments=max_segments)
    model.resize_token_embeddings(len(tokenizer))
    model.generation_config = GenerationConfig(max_new_tokens=4, decoder_start_token_id=0, eos_token_id=1)
    processor = make_processor(tokenizer, max_segments=max_segments)
    pipe = QuestionSummarizationPipeline(model, processor=processor)
    passage = " ".join(SENTENCES * 9)
    inputs = [{"question": [QUESTION, "Why?"], "passage": passage}, {"question": "Who?", "passage": "It."}]
    options = {} if long_passages is None else {"long_passages": long_passages}
    results = pipe(inputs, batch_size=4, return_evidence=True, **options)
    assert set(results[0][0]["evidence"]) <= set(SENTENCES)
    alone = pipe(inputs[0], return_evidence=True, **options)
    assert [result["summary"] for result in alone] == [result["summary"] for result in results[0]]
    with pytest.raises(TypeError, match="`passage_scorer` has to be a function, got 3"):
        pipe(inputs[0], passage_scorer=3)
