import pytest

from crosstask.eval.scoring.languages import describe_language_limits

ENGLISH = "The mayor opened the bridge on May 3, and it will carry 200 cars a day in the spring."
GERMAN = "Der Bürgermeister hat die Brücke am Freitag eröffnet, weil sie täglich viele Autos tragen soll."
HINDI = "महापौर ने शुक्रवार को पुल खोला।"
CHINESE = "市长周五开放了大桥，NATO也来了。"
THAI = "นายกเทศมนตรีเปิดสะพานเมื่อวันศุกร์"


@pytest.mark.parametrize(
    ("passage", "words"),
    [
        (ENGLISH, []),
        (ENGLISH + " It lies in 北京.", []),
        ("Bridge opened.", []),
        ("", []),
        ("42", []),
        (GERMAN, ["encoder and a judge", "capitalized word"]),
        (HINDI, ["encoder and a judge", "numbers only"]),
        (CHINESE, ["encoder and a judge", "numbers only", "count their characters"]),
        (THAI, ["encoder and a judge", "numbers only", "count their characters", "Thai or Lao"]),
    ],
)
def test_the_limits_of_a_language_are_described(passage, words):
    notes = describe_language_limits([passage, passage])
    assert len(notes) == len(words)
    for word, note in zip(words, notes, strict=True):
        assert note.startswith("2 of 2 rows are ") and word in note


def test_the_rows_are_counted():
    notes = describe_language_limits([ENGLISH, HINDI, HINDI, THAI])
    assert [note[:11] for note in notes] == ["3 of 4 rows", "3 of 4 rows", "1 of 4 rows", "1 of 4 rows"]
    assert describe_language_limits([]) == []


def test_single_rows_of_many_are_not_mentioned():
    assert describe_language_limits([ENGLISH] * 99 + [GERMAN]) == []
