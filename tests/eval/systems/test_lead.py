import pytest
from extractive_texts import ODD_PASSAGES, PASSAGE, make_row

from crosstask.eval.systems.lead import Lead, get_lead
from crosstask.sentences_crosstask import split_sentences


def test_the_system_writes_the_lead():
    assert Lead(2).write([make_row(PASSAGE)]).summaries == [get_lead(PASSAGE, 2)]
    assert (Lead(2).name, Lead(2).settings) == ("lead-2", {"kind": "lead", "k": 2})


def test_the_lead_agrees_with_the_split_into_sentences():
    for passage in (PASSAGE, *ODD_PASSAGES, "Mr. Smith came.\n\nA heading\n\nHe left the U.S. He slept."):
        sentences = split_sentences(passage)
        assert "".join("".join(sentences).split()) == "".join(passage.split())
        for k in (1, 2, 3):
            assert "".join(get_lead(passage, k).split()) == "".join("".join(sentences[:k]).split())


@pytest.mark.parametrize(
    ("first", "rest"),
    [
        ("It rained.", "Then it stopped."),
        ("Did it rain?", "It did!"),
        ("Mr. Smith met Dr. Jones at St. Mary's.", "They talked."),
        ("The U.S. Army has 4.2 million members.", "It is large."),
        ("He moved to the U.S.", "The family followed."),
        ("J. R. R. Tolkien wrote it.", "Others read it."),
        ("He said “Stop.”", "She did not."),
        ("It fell (by 4.2 per cent.)", "Then it rose."),
        ("Yahoo! was founded in Jan. 1994 in Sunnyvale, e.g. Smith et al. 2001.", "It grew."),
        ("The answer is no.", "He left."),
        ("it rained on mr. smith.", "then it stopped."),  # lower-cased corpora
        ("A headline without a stop", "\n\nThe text."),
    ],
)
def test_the_lead_ends_with_the_first_sentence(first, rest):
    assert get_lead(f"{first} {rest}", sentences=1) == first


def test_the_lead_keeps_the_white_space_between_sentences():
    assert get_lead(" One  is.\nTwo is. Three is. Four is.") == "One  is.\nTwo is. Three is."


@pytest.mark.parametrize("passage", ["", "  ", "One.", "One is. Two is.", "no stop at all"])
def test_the_lead_of_a_short_passage_is_the_passage(passage):
    assert get_lead(passage) == passage.strip()


def test_the_lead_has_at_least_one_sentence():
    with pytest.raises(ValueError, match="at least 1"):
        get_lead("One.", sentences=0)
