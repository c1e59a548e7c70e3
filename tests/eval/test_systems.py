"""What a system writes and judges for a row does not depend on the rows around it."""

import pytest
import torch
from transformers import BertConfig, T5Config, T5ForConditionalGeneration

from crosstask import CrossTaskConfig, CrossTaskForConditionalGeneration, CrossTaskProcessor
from crosstask.data.tokenizer import train_tokenizer
from crosstask.eval.systems import generate_summaries, score_summaries

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


@pytest.fixture
def calls(monkeypatch):
    """The inputs of every call of `generate`, as (model, ids)."""
    seen = []
    for kind in (T5ForConditionalGeneration, CrossTaskForConditionalGeneration):

        def generate(self, *args, original=kind.generate, **kwargs):
            seen.append(kwargs["input_ids"])
            return original(self, *args, **kwargs)

        monkeypatch.setattr(kind, "generate", generate)
    return seen


def test_summaries_keep_the_order_of_their_rows(model, processor):
    alone = [
        generate_summaries(model, processor, [passage], [question], **LENGTH)[0]
        for passage, question in zip(PASSAGES, QUESTIONS, strict=True)
    ]
    assert len(set(alone)) > 1
    for size in (1, 2, 32):
        assert generate_summaries(model, processor, PASSAGES, QUESTIONS, batch_size=size, **LENGTH) == alone
    order = [3, 0, 4, 2, 1]
    passages, questions = ([texts[index] for index in order] for texts in (PASSAGES, QUESTIONS))
    written = generate_summaries(model, processor, passages, questions, batch_size=2, **LENGTH)
    assert written == [alone[index] for index in order]


def test_a_passage_is_summarized_once_without_questions(summarizer, processor, calls):
    passages = [PASSAGES[index] for index in (1, 0, 1, 2, 0, 1)]
    written = generate_summaries(summarizer, processor, passages, batch_size=2, **LENGTH)
    assert sum(len(ids) for ids in calls) == 3
    assert [len(ids) for ids in calls] == [2, 1]
    alone = [generate_summaries(summarizer, processor, [passage], **LENGTH)[0] for passage in passages]
    assert written == alone and len(set(alone)) > 1


def test_each_question_on_a_passage_has_its_summary(model, processor, calls):
    generate_summaries(model, processor, PASSAGES[:1] * 3, QUESTIONS[:3], batch_size=2, **LENGTH)
    assert sum(len(ids) for ids in calls) == 3


def test_batches_are_of_like_length_without_padding_beyond_them(summarizer, processor, calls):
    generate_summaries(summarizer, processor, PASSAGES, batch_size=2, **LENGTH)
    lengths = sorted((len(processor(passage=passage)["input_ids"]) for passage in PASSAGES), reverse=True)
    assert [ids.shape[1] for ids in calls] == lengths[::2]


def test_arguments_of_generate_reach_it(summarizer, processor):
    short = generate_summaries(summarizer, processor, PASSAGES[:2], max_new_tokens=1)
    long = generate_summaries(summarizer, processor, PASSAGES[:2], max_new_tokens=12, num_beams=2)
    assert all(len(a) <= len(b) for a, b in zip(short, long, strict=True))
    assert all(text == text.strip() for text in long)


def test_nothing_to_do_is_done(model, summarizer, processor):
    assert generate_summaries(summarizer, processor, []) == []
    assert generate_summaries(model, processor, [], []) == []
    assert score_summaries(model, processor, []) == []


def test_a_question_too_few_is_an_error(model, processor):
    with pytest.raises(ValueError):
        generate_summaries(model, processor, PASSAGES, QUESTIONS[:-1])


def test_probabilities_keep_the_order_of_their_rows(model, processor):
    alone = [score_summaries(model, processor, [row])[0] for row in ROWS]
    assert len(set(alone)) == len(ROWS) and all(0 < value < 1 for value in alone)
    for size in (1, 2, 32):
        assert score_summaries(model, processor, ROWS, batch_size=size) == pytest.approx(alone, abs=1e-5)
    backwards = score_summaries(model, processor, ROWS[::-1], batch_size=2)
    assert backwards == pytest.approx(alone[::-1], abs=1e-5)


@pytest.mark.parametrize("kind", ["one vocabulary", "two vocabularies"])
def test_probabilities_are_the_models_own(model, processor, two_vocabularies, kind):
    if kind == "two vocabularies":
        model, processor = two_vocabularies
    scored = score_summaries(model, processor, ROWS, batch_size=2)
    for row, probability in zip(ROWS, scored, strict=True):
        texts = {name: row[name] for name in ("question", "passage", "summary")}
        inputs = processor(**texts, return_tensors="pt")
        with torch.no_grad():
            of_forward = model(**inputs).answerability_logits.softmax(-1)[0, 1].item()
        labels = inputs.pop("labels")
        start = torch.full((1, 1), model.config.decoder_start_token_id)
        judged = model.score_answerability(**inputs, summary_ids=torch.cat([start, labels], 1))
        assert probability == pytest.approx(of_forward, abs=1e-5)
        assert probability == pytest.approx(judged.item(), abs=1e-5)


def test_a_question_encoder_of_its_own_vocabulary_reads_its_own_ids(two_vocabularies):
    model, processor = two_vocabularies
    scored = score_summaries(model, processor, ROWS)
    without = CrossTaskProcessor(processor.tokenizer, max_source_length=96)
    with pytest.raises(ValueError, match="question_input_ids"):
        score_summaries(model, without, ROWS)
    other = [{**row, "question": "Why?"} for row in ROWS]
    assert scored != pytest.approx(score_summaries(model, processor, other), abs=1e-5)
    assert len(generate_summaries(model, processor, PASSAGES, QUESTIONS, batch_size=2, **LENGTH)) == 5


def test_a_generated_summary_has_the_probability_that_generation_gave_it(model, processor):
    inputs = processor(question=QUESTIONS[0], passage=PASSAGES[0], return_tensors="pt")
    output = model.generate(**inputs, **LENGTH, return_dict_in_generate=True)
    labels = output.sequences[:, 1:]
    with torch.no_grad():
        logits = model(**inputs, labels=labels).answerability_logits
    assert output.answerability.item() == pytest.approx(logits.softmax(-1)[0, 1].item(), abs=1e-5)


def test_no_gradients_are_kept(model, processor):
    score_summaries(model, processor, ROWS[:1])
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.is_grad_enabled()
