"""The evaluation of a run: the limit of the baseline's input, and the examples."""

import pytest
from transformers import BartConfig, LEDConfig, T5Config

from crosstask.eval.report.results import SystemResult
from crosstask.training.evaluation import limit_source_length, select_examples


@pytest.mark.parametrize(
    ("config", "limit"),
    [
        (BartConfig(max_position_embeddings=32), 32),
        (LEDConfig(max_encoder_position_embeddings=48, max_decoder_position_embeddings=16), 48),
        (T5Config(), 64),
    ],
)
def test_the_source_length_is_limited_by_the_positions_of_the_encoder(config, limit):
    assert limit_source_length(config, 64) == limit


def test_examples_have_an_answer_and_different_passages():
    rows = [
        {"passage": "a", "question": "q0", "answer": "", "answerable": 0},
        {"passage": "a", "question": "q1", "answer": "x", "answerable": None},
        {"passage": "a", "question": "q2", "answer": "y", "answerable": 1},
        {"passage": "b", "question": "q3", "answer": "z", "answerable": 0},
        *({"passage": letter, "question": "q", "answer": "x", "answerable": 1} for letter in "cdef"),
    ]
    summaries = [f"s{index}" for index in range(len(rows))]
    result = SystemResult(
        summaries=summaries, scores={}, summary_probabilities=[index / 10 for index in range(len(rows))]
    )
    examples = select_examples(rows, result)
    assert [example["passage"] for example in examples] == ["a", "c", "d"]
    assert examples[0] == {
        "passage": "a",
        "question": "q1",
        "answer": "x",
        "summary": "s1",
        "answerability": 0.1,
    }
