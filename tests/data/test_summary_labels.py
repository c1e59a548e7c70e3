"""Labels of summaries that a model writes: right, wrong or unknown."""

import pytest

from crosstask.data.summary_labels import SummaryLabeler


def make_row(passage, question, answer, summary="", answerable=None):
    return {
        "passage": passage,
        "question": question,
        "answer": answer,
        "summary": summary,
        "answerable": answerable,
    }


ROWS = [
    make_row("P", "Who won?", "Ann Lee", "Ann Lee won.", 1),
    make_row("P", "Who won?", "Lee's team", "A team won.", 0),
    make_row("P", "Why?", "", "Ann Lee won.", 0),
    make_row("P", "When?", "", "Ann Lee won."),
    make_row("Q", "Who won?", "Bob", "Bob won.", "yes"),
]


def test_a_summary_is_right_if_it_has_all_words_of_an_answer():
    labeler = SummaryLabeler(ROWS)
    assert labeler.is_usable and labeler.literal_share == 1
    assert labeler.label([0, 0, 0], ["Lee, Ann: the winner", "Ann won", ""]) == [1, 0, 0]
    assert labeler.label([0, 1], ["lees team won", "Ann Lee won"]) == [1, 1]  # either answer is right


def test_a_question_without_an_answer_has_no_right_summary():
    assert SummaryLabeler(ROWS).label([2, 2], ["Ann Lee won.", ""]) == [0, 0]


def test_a_row_that_says_nothing_has_no_label():
    labeler = SummaryLabeler(ROWS)
    assert labeler.label([3], ["anything"]) == [-100]
    assert [labeler.has_label(index) for index in range(5)] == [True, True, True, False, True]


def test_answers_that_references_paraphrase_label_nothing():
    rows = [make_row("P", f"Question {i}?", "a dozen", "There were twelve.", 1) for i in range(2)] + ROWS
    labeler = SummaryLabeler(rows)
    assert not labeler.is_usable and labeler.literal_share == pytest.approx(0.5)
    assert labeler.label([2], ["Ann Lee won."]) == [-100] and not labeler.has_label(2)


def test_without_labels_or_answers_nothing_is_labeled():
    assert not SummaryLabeler([]).is_usable
    assert SummaryLabeler([]).describe_unusable() == "the rows have no answers"
    labeler = SummaryLabeler([make_row("P", "Who?", "Ann", "Ann.")])
    assert not labeler.is_usable
    assert labeler.describe_unusable() == "no row with an answer is labeled 1"
    assert SummaryLabeler(ROWS).describe_unusable() is None


def test_another_number_of_the_same_digits_is_wrong():
    rows = [make_row("P", "How much?", "$1.5 million", "It cost $1.5 million.", 1)]
    summaries = ["It cost $1.5 million.", "It cost $15 million."]
    assert SummaryLabeler(rows).label([0, 0], summaries) == [1, 0]
