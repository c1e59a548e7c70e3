"""Test the statistics of a built data set."""

import json
import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crosstask.data.answers import answer_recall
from crosstask.data.builder.stats import compute_statistics


def make_row(passage, question="", answer="", summary="", answerable=None, entailment=None):
    texts = {"passage": passage, "question": question, "answer": answer, "summary": summary}
    return {"id": "1", "source": "test", **texts, "answerable": answerable, "entailment": entailment}


RAIN = "It rained for two days and the river rose by a meter"  # 12 words
BRIDGE = "The mayor opened the bridge"  # 5 words
TRAIN = [
    make_row(RAIN, "How long?", "two days", "Two days of rain.", 1, 0.9),
    make_row(RAIN, "How long?", "two days", "It rained.", 0, 0.5),  # not above the threshold
    make_row(RAIN, "Who sang?", "", "It rained.", 0),
    make_row(BRIDGE, "Who opened the bridge?", "the old mayor", "The mayor did", 1, 1.0),
]
TEST = [make_row(RAIN, "", "", "It rained."), make_row("A b", "", "", "")]


def test_statistics_of_a_small_case():
    statistics = compute_statistics({"train": TRAIN, "test": TEST})
    assert (statistics["unit"], statistics["threshold"]) == ("words", 0.5)
    train, test, both = statistics["splits"]["train"], statistics["splits"]["test"], statistics["all"]
    assert (train["rows"], train["passages"], train["questions"]) == (4, 2, 3)
    assert train["questions_per_passage"] == 1.5
    assert train["tokens"]["passage"]["mean"] == 8.5  # (12 + 5) / 2: each passage once
    assert train["tokens"]["passage"]["p95"] == pytest.approx(5 + 0.95 * 7)
    assert train["tokens"]["passage"]["max"] == 12
    assert train["tokens"]["question"] | {"histogram": []} == {
        "count": 4,
        "mean": 2.5,
        "median": 2.0,
        "p95": pytest.approx(3.7),
        "max": 4,
        "histogram": [],
    }
    assert train["tokens"]["question"]["histogram"] == [0, 0, 3, 0, 1]
    assert train["tokens"]["answer"]["count"] == 3
    assert train["tokens"]["summary"]["mean"] == 11 / 4
    ratios = [0.3333, 0.1667, 0.1667, 0.6]  # 4 / 12, 2 / 12 and 3 / 5, to four decimals
    assert train["compression"]["mean"] == pytest.approx(np.mean(ratios))
    assert train["compression"]["median"] == pytest.approx(0.25)
    assert train["labels"] == {"yes": 2, "no": 2, "unknown": 0}
    assert (train["yes"], train["with_answer"]) == (0.5, 0.75)
    assert train["carried"]["by_label"] == train["carried"]["by_entailment"] == pytest.approx(2 / 3)
    assert train["carried"]["by_recall"] == pytest.approx((1 + 0 + 1 / 2) / 3)
    assert [number for number, count in enumerate(train["entailment"]) if count] == [10, 18, 19]

    assert test["labels"] == {"yes": 0, "no": 0, "unknown": 2}
    assert test["yes"] is test["with_answer"] is test["carried"]["by_label"] is None
    assert test["tokens"]["answer"] == {
        "count": 0,
        "mean": None,
        "median": None,
        "p95": None,
        "max": None,
        "histogram": [],
    }
    assert (both["rows"], both["passages"], both["questions"]) == (6, 3, 3)  # one passage is in both splits
    assert both["tokens"]["passage"]["mean"] == pytest.approx(19 / 3)
    assert sum(test["entailment"]) == 0 and sum(both["entailment"]) == 3


def test_the_same_question_about_two_passages_counts_twice():
    rows = [make_row("a b", "Who?"), make_row("c d", "Who?"), make_row("a b", "Who?"), make_row("a b", " ")]
    assert compute_statistics({"train": rows})["all"]["questions"] == 2


def test_the_threshold_changes_by_entailment_but_not_by_label():
    carried = compute_statistics({"train": TRAIN}, threshold=0.95)["all"]["carried"]
    assert carried["by_entailment"] == pytest.approx(1 / 3)
    assert carried["by_label"] == pytest.approx(2 / 3)


def test_tokens_are_counted_by_the_tokenizer_once_per_passage(tokenizer):
    counted = []

    def count_tokens(texts):
        counted.extend(texts)
        return [len(ids) for ids in tokenizer(texts).input_ids]

    rows = [make_row(RAIN, f"Question {number}?") for number in range(600)]
    statistics = compute_statistics({"train": rows, "test": TEST}, count_tokens)
    assert statistics["unit"] == "tokens"
    assert statistics["splits"]["train"]["tokens"]["passage"]["max"] == len(tokenizer(RAIN).input_ids)
    assert counted.count(RAIN) == 1


def test_a_token_counter_that_skips_a_text_is_an_error():
    with pytest.raises(ValueError):
        compute_statistics({"train": TRAIN}, lambda texts: [1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"entailment": math.nan},
            "train, row '1': entailment is nan, expected a number from 0 to 1 or None",
        ),
        ({"entailment": 1.5}, "entailment is 1.5"),
        ({"answerable": -1}, "train, row '1': answerable is -1, expected 0, 1 or None"),
    ],
)
def test_the_error_for_a_wrong_value_names_the_row(change, message):
    with pytest.raises(ValueError, match=message):
        compute_statistics({"train": [TRAIN[0] | change]})


def test_the_column_entailment_is_optional():
    rows = [{key: value for key, value in row.items() if key != "entailment"} for row in TRAIN]
    carried = compute_statistics({"train": rows})["all"]["carried"]
    assert carried["by_entailment"] is None and carried["by_label"] == pytest.approx(2 / 3)


def test_statistics_of_no_rows():
    for splits in ({}, {"train": []}):
        assert compute_statistics(splits)["all"]["rows"] == 0
        assert compute_statistics(splits)["all"]["passages"] == 0


WORDS = st.lists(st.sampled_from(["rain", "river", "the", "May", "3"]), max_size=30).map(" ".join)
ROWS = st.lists(
    st.builds(
        make_row,
        WORDS,
        WORDS,
        WORDS,
        WORDS,
        st.sampled_from([0, 1, None]),
        st.none() | st.floats(0, 1, width=32),
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(ROWS, ROWS, st.randoms())
def test_the_order_of_the_rows_and_streaming_do_not_change_the_statistics(train, test, random):
    expected = compute_statistics({"train": train, "test": test})
    random.shuffle(train)
    shuffled = {"train": (row for row in train), "test": iter(test)}
    assert json.dumps(compute_statistics(shuffled)) == json.dumps(expected)


@settings(max_examples=60, deadline=None)
@given(ROWS, ROWS)
def test_the_statistics_equal_a_direct_computation(train, test):
    rows = train + test
    statistics = compute_statistics({"train": train, "test": test})["all"]
    texts = {column: [row[column] for row in rows if row[column]] for column in statistics["tokens"]}
    texts["passage"] = set(texts["passage"])
    for column, values in texts.items():
        check_summary(statistics["tokens"][column], [len(text.split()) for text in values])
    pairs = [(row["summary"].split(), row["passage"].split()) for row in rows]
    check_summary(statistics["compression"], [round(len(s) / len(p), 4) for s, p in pairs if s and p])
    assert statistics["questions"] == len(
        {(row["passage"], row["question"]) for row in rows if row["question"]}
    )
    recall = answer_recall([row["summary"] for row in rows], [row["answer"] for row in rows])
    assert statistics["carried"]["by_recall"] == (None if recall is None else pytest.approx(recall))
    judged = [row["entailment"] for row in rows if row["entailment"] is not None]
    assert sum(statistics["entailment"]) == len(judged)
    assert sum(statistics["entailment"][10:]) == sum(value >= 0.5 for value in judged)


def check_summary(summary, values):
    assert summary["count"] == len(values)
    assert sum(summary["histogram"]) <= len(values)
    for key, function in (("mean", np.mean), ("median", np.median), ("max", np.max)):
        assert summary[key] == (pytest.approx(function(values), abs=1e-4) if values else None)
    assert summary["p95"] == (pytest.approx(np.percentile(values, 95), abs=1e-4) if values else None)


def test_memory_hardly_grows_with_the_number_of_rows():
    def iter_rows(number):
        return (
            make_row(f"passage {i % 50} " * 20, f"question {i}", "a b", "a b c", 1, 0.7)
            for i in range(number)
        )

    peaks = []
    for number in (2_000, 12_000):
        tracemalloc.start()
        compute_statistics({"train": iter_rows(number)})
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert (peaks[1] - peaks[0]) / 10_000 < 60  # bytes per row; the texts of a row have more than 200
