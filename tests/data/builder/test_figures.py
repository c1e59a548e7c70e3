import json
import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.image import imread

from crosstask.data.answers import answer_recall
from crosstask.data.builder.figures import describe, write_statistics


def row(passage, question="", answer="", summary="", answerable=None, entailment=None):
    texts = {"passage": passage, "question": question, "answer": answer, "summary": summary}
    return {"id": "1", "source": "test", **texts, "answerable": answerable, "entailment": entailment}


RAIN = "It rained for two days and the river rose by a meter"  # 12 words
BRIDGE = "The mayor opened the bridge"  # 5 words
TRAIN = [
    row(RAIN, "How long?", "two days", "Two days of rain.", 1, 0.9),
    row(RAIN, "How long?", "two days", "It rained.", 0, 0.5),  # the threshold itself is a no
    row(RAIN, "Who sang?", "", "It rained.", 0),
    row(BRIDGE, "Who opened the bridge?", "the old mayor", "The mayor did", 1, 1.0),
]
TEST = [row(RAIN, "", "", "It rained."), row("A b", "", "", "")]


def test_counts_of_a_small_case():
    statistics = describe({"train": TRAIN, "test": TEST})
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
    assert (both["rows"], both["passages"], both["questions"]) == (6, 3, 3)  # a passage is in both splits
    assert both["tokens"]["passage"]["mean"] == pytest.approx(19 / 3)
    assert sum(test["entailment"]) == 0 and sum(both["entailment"]) == 3


def test_the_same_question_on_another_passage_is_another_one():
    rows = [row("a b", "Who?"), row("c d", "Who?"), row("a b", "Who?"), row("a b", " ")]
    assert describe({"train": rows})["all"]["questions"] == 2


def test_the_threshold_moves_what_entailment_says_and_not_the_label():
    carried = describe({"train": TRAIN}, threshold=0.95)["all"]["carried"]
    assert carried["by_entailment"] == pytest.approx(1 / 3)
    assert carried["by_label"] == pytest.approx(2 / 3)


def test_counts_tokens_with_the_tokenizer_and_each_passage_once(tokenizer):
    seen = []

    def count(texts):
        seen.extend(texts)
        return [len(ids) for ids in tokenizer(texts).input_ids]

    rows = [row(RAIN, f"Question {number}?") for number in range(600)]
    statistics = describe({"train": rows, "test": TEST}, count)
    assert statistics["unit"] == "tokens"
    assert statistics["splits"]["train"]["tokens"]["passage"]["max"] == len(tokenizer(RAIN).input_ids)
    assert seen.count(RAIN) == 1


def test_a_counter_that_skips_a_text_is_an_error():
    with pytest.raises(ValueError):
        describe({"train": TRAIN}, lambda texts: [1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"entailment": math.nan}, "train, row '1': entailment is nan, expected 0 to 1 or None"),
        ({"entailment": 1.5}, "entailment is 1.5"),
        ({"answerable": -1}, "train, row '1': answerable is -1, expected 0, 1 or None"),
    ],
)
def test_a_wrong_number_is_named_with_its_row(change, message):
    with pytest.raises(ValueError, match=message):
        describe({"train": [TRAIN[0] | change]})


def test_the_column_entailment_may_be_missing():
    rows = [{key: value for key, value in row.items() if key != "entailment"} for row in TRAIN]
    carried = describe({"train": rows})["all"]["carried"]
    assert carried["by_entailment"] is None and carried["by_label"] == pytest.approx(2 / 3)


def test_no_rows():
    for splits in ({}, {"train": []}):
        assert describe(splits)["all"]["rows"] == 0
        assert describe(splits)["all"]["passages"] == 0


WORDS = st.lists(st.sampled_from(["rain", "river", "the", "May", "3"]), max_size=30).map(" ".join)
ROWS = st.lists(
    st.builds(
        row,
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
def test_neither_order_nor_streaming_changes_anything(train, test, random):
    expected = describe({"train": train, "test": test})
    random.shuffle(train)
    shuffled = {"train": (row for row in train), "test": iter(test)}
    assert json.dumps(describe(shuffled)) == json.dumps(expected)


@settings(max_examples=60, deadline=None)
@given(ROWS, ROWS)
def test_agrees_with_a_plain_computation(train, test):
    rows = train + test
    found = describe({"train": train, "test": test})["all"]
    texts = {column: [row[column] for row in rows if row[column]] for column in found["tokens"]}
    texts["passage"] = set(texts["passage"])
    for column, kept in texts.items():
        check(found["tokens"][column], [len(text.split()) for text in kept])
    pairs = [(row["summary"].split(), row["passage"].split()) for row in rows]
    check(found["compression"], [round(len(s) / len(p), 4) for s, p in pairs if s and p])
    assert found["questions"] == len({(row["passage"], row["question"]) for row in rows if row["question"]})
    recall = answer_recall([row["summary"] for row in rows], [row["answer"] for row in rows])
    assert found["carried"]["by_recall"] == (None if recall is None else pytest.approx(recall))
    judged = [row["entailment"] for row in rows if row["entailment"] is not None]
    assert sum(found["entailment"]) == len(judged)
    assert sum(found["entailment"][10:]) == sum(value >= 0.5 for value in judged)


def check(spread, values):
    assert spread["count"] == len(values)
    assert sum(spread["histogram"]) <= len(values)
    for key, function in (("mean", np.mean), ("median", np.median), ("max", np.max)):
        assert spread[key] == (pytest.approx(function(values), abs=1e-4) if values else None)
    assert spread["p95"] == (pytest.approx(np.percentile(values, 95), abs=1e-4) if values else None)


def test_memory_hardly_grows_with_the_rows():
    def rows(number):
        return (
            row(f"passage {i % 50} " * 20, f"question {i}", "a b", "a b c", 1, 0.7) for i in range(number)
        )

    peaks = []
    for number in (2_000, 12_000):
        tracemalloc.start()
        describe({"train": rows(number)})
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert (peaks[1] - peaks[0]) / 10_000 < 60  # bytes a row; a row's texts alone are over 200


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved."""
    figures = []
    savefig = Figure.savefig

    def spy(self, *args, **kwargs):
        figures.append(self)
        return savefig(self, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", spy)
    return figures


def test_writes_three_files_with_the_same_bytes_each_time(tmp_path, drawn):
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        write_statistics(describe({"train": TRAIN, "test": TEST}), folder)
    assert sorted(path.name for path in folder.iterdir()) == ["labels.png", "lengths.png", "stats.json"]
    for path in folder.iterdir():
        assert path.read_bytes() == (tmp_path / "one" / path.name).read_bytes()
    assert b"Matplotlib" not in (folder / "lengths.png").read_bytes()
    assert imread(folder / "lengths.png").shape[:2] == (1200, 1500)
    assert imread(folder / "labels.png").shape[:2] == (675, 2250)
    assert json.loads((folder / "stats.json").read_text())["splits"]["train"]["rows"] == 4
    labels, entailment, compression = drawn[1].axes
    assert [line.get_label() for line in entailment.lines] == ["threshold 0.5"]
    assert compression.get_xlabel() == "summary words / passage words"
    assert [text.get_text() for text in labels.texts] == ["50%", "", "50%", "", "", "100%"]


def test_a_heavy_tail_is_cut_off_and_the_panel_says_so(tmp_path, drawn):
    rows = [row("word " * (10 + number % 7) + str(number)) for number in range(400)] + [row("word " * 5000)]
    write_statistics(describe({"train": rows}), tmp_path)
    passages = drawn[0].axes[0]
    assert passages.get_xlabel() == "length (words); not shown: 1 above, up to 5,000"
    assert passages.get_xlim()[1] < 20


def test_what_is_missing_gives_a_panel_that_says_so(tmp_path, drawn):
    write_statistics(describe({"train": [], "test": [row("a b", answerable=0)]}), tmp_path)
    write_statistics(describe({}), tmp_path)
    told = [axes.texts[0].get_text() for figure in drawn for axes in figure.axes if axes.texts]
    assert told[:6] == ["no questions", "no answers", "no summaries", "100%", "no judged rows"] + [
        "no rows with a summary"
    ]
    assert "no passages" in told[6:] and "no rows" in told[6:]


def test_a_split_keeps_its_colour_where_another_is_missing(tmp_path, drawn):
    answered = row(BRIDGE, "Who?", "the mayor", "The mayor did", 1, 1.0)
    write_statistics(describe({"train": [row(RAIN, "Who?")], "test": [answered]}), tmp_path)
    passages, _, answers, _ = drawn[0].axes
    assert answers.patches[0].get_edgecolor() == passages.patches[1].get_edgecolor()
