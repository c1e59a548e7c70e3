"""Summaries with wrong values: what is replaced, by what, and that no draw depends on the order of rows."""

import random

import pytest

from crosstask.data.answers import normalize_answer
from crosstask.data.briefs import generate
from crosstask.data.wrong_values import WrongValues, make_wrong_rows


def make_row(row_id, passage, question, answer, summary, answerable=1):
    columns = {"passage": passage, "question": question, "answer": answer, "summary": summary}
    return {"id": row_id, "source": "test", "answerable": answerable, **columns}


ROWS = [
    make_row("a", "Anna paid $4 on May 3.", "How much?", "$4", "She paid $4 for it."),
    make_row("b", "Omar paid $97 in June.", "How much?", "$97", "He paid $97."),
    make_row("c", "Omar paid $97 in June.", "Who paid?", "Omar", "Omar paid."),
    make_row("d", "Il pleut.", "How much?", "", "It rains.", 0),
]


@pytest.fixture(scope="module")
def briefs():
    return list(generate("fuse", passages=60))


def test_the_answer_is_replaced_by_another_one_to_the_same_question_or_passage():
    summaries = {WrongValues(ROWS, seed).replace(ROWS[1]) for seed in range(40)}
    assert summaries == {"He paid $4.", "He paid Omar."}
    assert {WrongValues(ROWS, seed).replace(ROWS[0]) for seed in range(40)} == {"She paid $97 for it."}


def test_a_question_that_no_other_row_has_gets_a_value_of_the_same_shape():
    rows = [
        make_row("a", "P", "Who?", "Ann Lee", "Ann Lee won."),
        make_row("b", "Q", "Which boy?", "Bob Ray", "Bob Ray won."),
        make_row("c", "R", "What?", "a red car", "It was a red car."),
    ]
    assert {WrongValues(rows, seed).replace(rows[0]) for seed in range(20)} == {"Bob Ray won."}
    assert WrongValues(rows).replace(rows[2]) is None  # no other text of three lower-case words


@pytest.mark.parametrize(
    "row",
    [
        make_row("e", "P", "How much?", "", "She paid $4."),
        make_row("e", "P", "How much?", "$4", "She paid a little."),
        make_row("e", "P", "How much?", "4", "She paid $45 in 1994."),
    ],
    ids=["no answer", "not a phrase", "part of a longer number"],
)
def test_nothing_is_replaced_without_the_answer_as_a_phrase(row):
    assert WrongValues([*ROWS, row]).replace(row) is None


def test_a_value_at_the_start_of_a_sentence_gets_a_capital():
    rows = [
        make_row("a", "P", "What?", "red lamps", "Red lamps were sold."),
        make_row("b", "Q", "What?", "old maps", "Old maps were sold."),
    ]
    assert WrongValues(rows).replace(rows[0]) == "Old maps were sold."


def test_no_other_answer_to_the_question_is_called_wrong():
    rows = [
        make_row("a", "P", "Who won?", "Ann", "Ann won."),
        make_row("b", "P", "Who won?", "the Ann", "The Ann won."),
        make_row("c", "P", "Who won?", "Bob", "Bob won."),
    ]
    assert WrongValues(rows).replace(rows[0]) is None  # both others are right, too


def test_wrong_rows_state_none_of_the_answers_and_are_labeled_0(briefs):
    wrong = make_wrong_rows(briefs, 1.0)
    by_id = {row["id"]: row for row in briefs}
    assert len(wrong) > 0.9 * sum(row["answerable"] == 1 for row in briefs)
    for row in wrong:
        original = by_id[row["id"].removesuffix("-wrong")]
        assert original["answerable"] == 1 and row["answerable"] == 0
        assert normalize_answer(row["answer"]) not in normalize_answer(row["summary"])
        unchanged = row.keys() - {"id", "summary", "answerable"}
        assert {name: row[name] for name in unchanged} == {name: original[name] for name in unchanged}


def test_the_share_selects_rows_by_their_texts(briefs):
    whole = {row["id"]: row for row in make_wrong_rows(briefs, 1.0)}
    part = make_wrong_rows(briefs, 0.3)
    assert 0.2 < len(part) / len(whole) < 0.4
    assert all(whole[row["id"]] == row for row in part)
    assert make_wrong_rows(briefs, 0.0) == []


def test_neither_order_nor_process_changes_a_draw_and_a_seed_does(briefs):
    def collect(rows, seed=0):
        return {row["id"]: row["summary"] for row in make_wrong_rows(rows, 0.5, seed)}

    shuffled = random.Random(1).sample(briefs, len(briefs))
    assert collect(briefs) == collect(shuffled)
    assert collect(briefs) != collect(briefs, seed=1)


def test_values_are_found_in_scripts_without_spaces_between_words():
    rows = [
        make_row("a", "P", "いつ?", "1958年", "彼は1958年に生まれた。"),
        make_row("b", "Q", "いつ?", "2003年", "2003年に開いた。"),
    ]
    assert WrongValues(rows).replace(rows[0]) == "彼は2003年に生まれた。"
