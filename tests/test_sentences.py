"""Evidence of summaries, and merging of summaries. (Splitting is tested in eval/scoring/test_rows.py.)"""

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
    "summary, indices",
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
def test_evidence_by_shared_words(summary, indices):
    assert find_evidence(summary, PASSAGE) == indices


def test_evidence_of_an_empty_passage_and_of_text_without_white_space():
    assert find_evidence("Rain fell.", []) == []
    assert find_evidence("雨が降った。", ["雨が降った。", "橋が開いた。"]) == [0]


def test_evidence_contains_the_answer_and_few_other_sentences():
    rows = [row for row in generate("fuse", "test", 60) if row["answerable"] == 1 and row["answer"]]
    num_answers = num_sentences = 0
    for row in rows:
        sentences = split_sentences(row["passage"])
        indices = find_evidence(row["summary"], sentences)
        num_answers += any(row["answer"] in sentences[index] for index in indices)
        num_sentences += len(indices)
    assert len(rows) > 100
    assert num_answers / len(rows) >= 0.95 and num_sentences / len(rows) < 2.5


def test_merging_keeps_the_order_of_the_passage_and_drops_repetition():
    summaries = [
        "It carries 200 cars a day.",
        "The mayor opened the bridge, and rain fell for two days.",
        "The mayor opened the bridge, and the bridge cost $4,500.",
        "The bridge cost $4,500.",
        "The mayor opened the bridge on May 3.",
    ]
    merged = "The mayor opened the bridge on May 3. Rain fell for two days."
    merged += " The bridge cost $4,500. It carries 200 cars a day."
    assert merge_summaries(summaries, PASSAGE) == merged
    for _ in range(5):
        random.Random(0).shuffle(summaries)
        assert sorted(split_sentences(merge_summaries(summaries, PASSAGE))) == sorted(split_sentences(merged))


@pytest.mark.parametrize(
    "summaries, merged",
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
        # The second half is a single word, which is not a sentence.
        (["They sold apples, and pears.", "They sold apples."], "They sold apples, and pears."),
    ],
)
def test_merging_of_special_cases(summaries, merged):
    assert merge_summaries(summaries, PASSAGE) == merged


def test_attention_decides_if_words_do_not():
    passage = ["The bridge is old.", "The bridge is long.", "Rain fell."]
    assert find_evidence("A bridge.", passage) == [0]
    assert find_evidence("A bridge.", passage, [0.1, 0.4, 0.5]) == [1]
    assert find_evidence("The rain.", passage, [0.1, 0.8, 0.1]) == [2]
    assert find_evidence("Nothing else.", passage, [0.1, 0.4, 0.5]) == [2]
    assert find_evidence("Nothing else.", passage) == find_evidence("Nothing else.", passage, [0.0] * 3) == []
    assert find_evidence(" ", passage, [0.1, 0.4, 0.5]) == []
