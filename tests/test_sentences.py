"""Which sentences a summary rests on, and what several summaries say once. (Cutting: eval/test_scores.py.)"""

import random

import pytest

from crosstask.data.briefs import generate
from crosstask.sentences_crosstask import find_evidence, merge_summaries, split_sentences

PASSAGE = [
    "The mayor opened the old bridge on May 3.",
    "Rain fell for two days.",
    "The bridge cost $4,500, the mayor said.",
    "It will carry 200 cars a day.",
]


@pytest.mark.parametrize(
    "summary, places",
    [
        ("The bridge cost $4,500.", [2]),
        ("It rained for two days.", [1]),
        ("The old bridge was opened, and it carries 200 cars.", [0, 3]),
        ("The bridge cost $4,500. Rain fell.", [1, 2]),
        ("RAIN FELL!", [1]),
        ("Nobody knows.", []),
        ("", []),
    ],
)
def test_evidence(summary, places):
    assert find_evidence(summary, PASSAGE) == places


def test_evidence_without_a_passage():
    assert find_evidence("Rain fell.", []) == []
    assert find_evidence("雨が降った。", ["雨が降った。", "橋が開いた。"]) == [0]


def test_evidence_has_the_answer_and_little_else():
    rows = [row for row in generate("fuse", "test", 60) if row["answerable"] == 1 and row["answer"]]
    found = cited = 0
    for row in rows:
        sentences = split_sentences(row["passage"])
        places = find_evidence(row["summary"], sentences)
        found += any(row["answer"] in sentences[place] for place in places)
        cited += len(places)
    assert len(rows) > 100 and found / len(rows) >= 0.95 and cited / len(rows) < 2.5


def test_merged_is_in_the_passages_order_and_says_nothing_twice():
    summaries = [
        "It carries 200 cars a day.",
        "The mayor opened the bridge, and rain fell for two days.",
        "The mayor opened the bridge, and the bridge cost $4,500.",
        "The bridge cost $4,500.",
        "The mayor opened the bridge on May 3.",
    ]
    whole = "The mayor opened the bridge on May 3. Rain fell for two days."
    whole += " The bridge cost $4,500. It carries 200 cars a day."
    assert merge_summaries(summaries, PASSAGE) == whole
    for _ in range(5):
        random.Random(0).shuffle(summaries)
        assert sorted(split_sentences(merge_summaries(summaries, PASSAGE))) == sorted(split_sentences(whole))


@pytest.mark.parametrize(
    "summaries, text",
    [
        ([], ""),
        ([""], ""),
        (["Rain fell.", "Rain fell."], "Rain fell."),
        (["Nobody knows.", "Rain fell."], "Rain fell. Nobody knows."),
        (
            ["Rain fell.", "Rain never fell.", "Rain fell before noon."],
            "Rain never fell. Rain fell before noon.",
        ),
        (["The bridge is not open.", "The bridge is shut."], "The bridge is not open. The bridge is shut."),
        # What follows is no clause of its own.
        (["They sold apples, and pears.", "They sold apples."], "They sold apples, and pears."),
    ],
)
def test_merged(summaries, text):
    assert merge_summaries(summaries, PASSAGE) == text


def test_attention_decides_where_words_do_not():
    passage = ["The bridge is old.", "The bridge is long.", "Rain fell."]
    assert find_evidence("A bridge.", passage) == [0]
    assert find_evidence("A bridge.", passage, [0.1, 0.4, 0.5]) == [1]
    assert find_evidence("The rain.", passage, [0.1, 0.8, 0.1]) == [2]
    assert find_evidence("Nothing else.", passage, [0.1, 0.4, 0.5]) == [2]
    assert find_evidence("Nothing else.", passage) == find_evidence("Nothing else.", passage, [0.0] * 3) == []
    assert find_evidence(" ", passage, [0.1, 0.4, 0.5]) == []
