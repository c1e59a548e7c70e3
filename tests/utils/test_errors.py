"""The helpers that word error messages."""

from crosstask.utils.errors import first_line, suggest


def test_first_line_of_a_message_or_the_name_of_the_class():
    assert first_line(ValueError("\n one\ntwo")) == "one"
    assert first_line(KeyError()) == "KeyError"
    assert first_line(OSError(" ")) == "OSError"


def test_the_closest_known_name_is_suggested():
    assert suggest("sumarizer", ["summarizer", "data"]) == "; did you mean 'summarizer'?"
    assert suggest("zzz", ["summarizer", "data"]) == ""
    assert suggest(1, {"data": 1}) == ""
