import pytest

from crosstask.data.answers import (
    answer_exact_rows,
    answer_recall,
    answer_recall_rows,
    carries_answer,
    mean,
    normalize_answer,
    to_paired_lists,
)


def test_the_mean_leaves_out_rows_without_a_value():
    assert mean([1.0, None, 0.0]) == 0.5
    assert mean([None]) is None and mean([]) is None


def test_the_mean_does_not_depend_on_the_order():
    assert mean([1e16, 1.0, -1e16]) == mean([1e16, -1e16, 1.0]) == 1 / 3


def test_paired_lists_have_one_length():
    assert to_paired_lists(summaries=iter("ab"), answers=("c", "d")) == [["a", "b"], ["c", "d"]]
    with pytest.raises(
        ValueError, match="expected as many answers as summaries: got 1 summaries and 2 answers"
    ):
        to_paired_lists(summaries=["a"], answers=["c", "d"])


@pytest.mark.parametrize(
    ("text", "normalized"),
    [
        ("The  Eiffel\tTower.", "eiffel tower"),
        ("an Apple a day", "apple day"),
        ("theatre, Anna", "theatre anna"),  # articles are removed as words, not as prefixes
        ("U.S.-born", "usborn"),
        ("4.2%", "42"),
        ("Zürich", "zürich"),
        ("“The” l’été", "lété"),
        ("Cafe\u0301 ＮＡＴＯ ﬁt", "café nato fit"),
        ("−5", "5"),
        ("½", "12"),
        ("3½", "3 12"),
        ("Par\u200bis\ufeff", "paris"),
        ("1990–95", "199095"),  # like "1990-95"
        ("Paris—where it rained", "paris where it rained"),
        ("नदी है।यह", "नदी है यह"),
        ("باريس، ١٩٨٩؟", "باريس 1989"),
        ("٤٫٢", "42"),
        ("北京、2010年。", "北 京 2010 年"),
        ("€5 ± 🙂", "€5 ± 🙂"),
        ("the", ""),
        ("?!", ""),
        ("", ""),
    ],
)
def test_normalize_answer(text, normalized):
    assert normalize_answer(text) == normalized


def test_answer_recall_rows_by_hand():
    summaries = ["It opened in Paris in 1889.", "New York", "", "x", "Größe: 3 🙂"]
    answers = ["Paris, 1890", "New York, New York", "Paris", "the!", "größe 🙂"]
    assert answer_recall_rows(summaries, answers) == [0.5, 0.5, 0, None, 1]


@pytest.mark.parametrize(
    ("summary", "answer", "exact"),
    [
        ("It opened in the Spring of 1889.", "spring of 1889", 1),
        ("In 1889, in the spring.", "spring of 1889", 0),
        ("It rained in Parisian streets.", "Paris", 0),  # words are compared, not letters
        ("The May 3 opening", "the May 3", 1),
        ("", "Paris", 0),
        ("Paris", "", None),
        ("川が 増水した", "増水した", 1),
        ("2010年に東京で雨が降った。", "東京", 1),
        ("2010年に東京で雨が降った。", "京東", 0),
        ("2010年に東京で雨が降った。", "201", 0),
        ("北京是中国的首都。", "中国的首都", 1),
        ("ฝนตกที่กรุงเทพฯ", "กรุงเทพ", 1),
        ("ฝนตกที่กรุงเทพฯ", "เชียงใหม่", 0),
        ("यह दिल्ली है।वह नदी", "दिल्ली है", 1),
        ("هل هي باريس؟", "باريس", 1),
        ("“Don’t go,” he said", '"don\'t go"', 1),
        ("It was −5 degrees and ½ done", "-5 degrees and 1/2", 1),
        ("Beyonce\u0301 sang", "Beyoncé", 1),
        ("in Par\u200bis", "Paris", 1),
    ],
)
def test_answer_exact_rows(summary, answer, exact):
    assert answer_exact_rows([summary], [answer]) == [exact]


@pytest.mark.parametrize("score", [answer_recall_rows, answer_exact_rows, answer_recall])
def test_summaries_and_answers_must_have_one_length(score):
    with pytest.raises(ValueError, match="got 0 summaries and 1 answers"):
        score([], [1])


def test_answer_recall_counts_characters_in_scripts_without_spaces():
    assert answer_recall_rows(["東京で雨", "大雨"], ["東京都", "北京"]) == [2 / 3, 0]


def test_answer_recall_is_the_mean_share_of_the_answers_words():
    summaries = ["It opened in Paris in 1889.", "Nothing here.", "In the spring of 1889."]
    answers = ["Paris, 1889", "Berlin", "spring 1890"]
    assert answer_recall(summaries, answers) == pytest.approx((1 + 0 + 1 / 2) / 3)


def test_answer_recall_compares_multisets():
    assert answer_recall(["New York"], ["New York, New York"]) == pytest.approx(2 / 4)
    assert answer_recall(["New York, New York"], ["New York"]) == 1


def test_answer_recall_leaves_out_rows_without_an_answer():
    assert answer_recall(["Paris", "Rome", "Oslo"], ["Paris", "", "the!"]) == 1
    assert answer_recall(["Paris"], [" "]) is None
    assert answer_recall([], []) is None


def test_answer_recall_of_an_empty_summary_is_zero():
    assert answer_recall([""], ["Paris"]) == 0


@pytest.mark.parametrize(
    ("summary", "answer", "carries"),
    [
        ("It cost $1.5 million.", "$1.5 million", True),
        ("It cost $15 million.", "$1.5 million", False),
        ("Es kostete 15 Mio. €.", "1,5 Mio. €", False),
        ("Es kostete 1,5 Mio. €.", "1,5 Mio. €", True),
        ("It was 5 degrees.", "-5 degrees", False),
        ("It was -5 degrees.", "5 degrees", False),
        ("It was −5 degrees.", "-5 degrees", True),
        ("It rose by 4.20%.", "4.2%", False),  # its words differ
        ("1500 came.", "1,500", True),
        ("1.500 kamen.", "1,500", True),
        ("On 4.5.2024.", "4.5.2024", True),
        ("On 45.2024.", "4.5.2024", False),
        ("From 1990-95.", "1990–95", True),
        ("彼は1958年に生まれた。", "1958年", True),
        ("The mayor opened it.", "the mayor", True),
        ("The mayor opened it.", "the", False),
    ],
)
def test_a_summary_carries_the_numbers_of_the_answer(summary, answer, carries):
    assert carries_answer(summary, answer) is carries
