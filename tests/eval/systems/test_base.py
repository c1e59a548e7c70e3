import itertools
import random
import time

import pytest
from extractive_texts import ODD_PASSAGES, PASSAGE, make_row

from crosstask.eval.systems.lead import Lead
from crosstask.eval.systems.lexrank import LexRank
from crosstask.eval.systems.oracle import Oracle
from crosstask.sentences_crosstask import split_sentences
from crosstask.utils.errors import DataError

pytest.importorskip("sumy")

QUESTION = "What did the children sing about?"
SYSTEMS = [Lead(), Oracle(), LexRank(), LexRank(question=True)]


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.name)
@pytest.mark.parametrize("passage", ODD_PASSAGES)
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_summary_consists_of_sentences_of_the_passage(system, passage):
    for question, reference in itertools.product((QUESTION, "", "雨?"), ("", "The cat.", passage)):
        [summary] = system.write([make_row(passage, question, reference)]).summaries
        assert summary == summary.strip()
        assert bool(summary) == bool(passage.strip())
        assert set(split_sentences(summary)) <= set(split_sentences(passage))
        assert len(split_sentences(summary)) <= 3


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.name)
def test_rows_keep_their_order_and_distinct_inputs_are_processed_once(system, monkeypatch):
    passages = [PASSAGE, "A cat sat. It rained. The river rose. The mayor slept.", "One."]
    rows = [
        make_row(p, q, s) for p in passages for q in (QUESTION, "Why?") for s in ("A cat.", "The river rose.")
    ]
    expected = [system.write([one]).summaries[0] for one in rows]
    calls = {"parse": 0, "select": 0}

    def count(function, name):
        def call(*args):
            calls[name] += 1
            return function(*args)

        return call

    for name in calls:
        monkeypatch.setattr(system, name, count(getattr(system, name), name))
    order = random.Random(0).choices(range(len(rows)), k=60)
    updates = []
    outputs = system.write([rows[index] for index in order], updates.append)
    assert outputs.summaries == [expected[index] for index in order]
    assert outputs.reference_probabilities is outputs.summary_probabilities is None
    assert sum(updates) == 60
    assert calls["parse"] == 3
    assert calls["select"] == len(
        {(rows[index]["passage"], rows[index].get(system.column)) for index in order}
    )
    assert system.write([]).summaries == []


def test_a_passage_of_a_thousand_sentences_is_fast():
    words = [f"word{i}" for i in range(600)]
    draw = random.Random(0)
    passage = " ".join(" ".join(draw.choices(words, k=12)).capitalize() + "." for _ in range(1000))
    rows = [make_row(passage, " ".join(draw.choices(words, k=8)), passage[:900]) for _ in range(5)]
    start = time.monotonic()
    for system in SYSTEMS:
        system.write(rows)
    assert time.monotonic() - start < 10


@pytest.mark.parametrize("kind", [Lead, Oracle, LexRank])
@pytest.mark.parametrize("k", [0, -1, 1.5, "3", True])
def test_the_number_of_sentences_must_be_a_positive_integer(kind, k):
    with pytest.raises(DataError, match="expected a positive integer"):
        kind(k)
