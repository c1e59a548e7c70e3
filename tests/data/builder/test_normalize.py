import time
from dataclasses import fields
from itertools import product

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from crosstask.data.builder.normalize import URLS, Normalization, normalize
from crosstask.utils.errors import DataError

OFF = Normalization(fix_encoding=False, whitespace=False)
ALL_COMBINATIONS = [
    Normalization(*flags[:4], urls=urls, contractions=flags[4])
    for flags in product([False, True], repeat=5)
    for urls in URLS
]
# Pieces that the steps change. Random characters alone would hardly ever form one.
PIECES = [
    "http",
    "https",
    ":",
    "//",
    "/",
    "ftp://",
    "www.",
    "it",
    "don",
    "can",
    "'",
    "’",
    "ʼ",
    "t",
    "s",
    "'ve",
]
PIECES += [
    "\u0301",
    "é",
    "İ",
    "ß",
    "½",
    "²",
    "â€™",
    "Ã",
    "\xa0",
    "\x85",
    "\u2028",
    "\r",
    "\n",
    " ",
    "\x00",
    "\x1b[1m",
]
PIECES += ["中", ".", ")", "Σ", "K", "ﬁ", "\ud83d", "\ude00", "\ufeff", "&amp;", "e", "X", "1"]
texts = st.one_of(st.text(), st.lists(st.sampled_from(PIECES)).map("".join))


def test_the_default_does_not_change_correct_text():
    text = "“Don’t!” said Zoë — see https://a.org/x?y=1&amp;z … ﬁ Ａ it's 10² ½ naïve 中文"
    assert normalize(text, Normalization()) == text
    assert normalize(text, OFF) == text


def test_the_default_repairs_encodings_and_white_space():
    text = "\ufeff  The cafÃ© â€” itâ€™s\r\n\r\n\topen\x00\x07 e\u0301\xa0! "
    assert normalize(text, Normalization()) == "The café — it’s open é !"
    assert normalize("a \n\n b", Normalization(whitespace=False)) == "a \n\n b"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Zoë Brontë’s café", "Zoe Bronte's cafe"),
        ("“Straße” – Ærø, Łódź… ﬁn", '"Strasse" - AEro, Lodz... fin'),
        ("1½ cups, 10² m, 3×4", "1 1/2 cups, 10^2 m, 3x4"),
        ("one\u2028two 中文 three", "one two three"),
    ],
)
def test_ascii_replaces_accented_letters_and_signs_and_drops_other_characters(text, expected):
    assert normalize(text, Normalization(ascii=True)) == expected


@pytest.mark.parametrize(
    ("urls", "expected"),
    [
        ("keep", "See (https://a.b/c?d=e), FTP://x.y or www.z.org. Not ahttp://."),
        ("protocol", "See (a.b/c?d=e), x.y or www.z.org. Not ahttp://."),
        ("remove", "See (), or . Not ahttp://."),
    ],
)
def test_urls(urls, expected):
    text = "See (https://a.b/c?d=e), FTP://x.y or www.z.org. Not ahttp://."
    assert normalize(text, Normalization(urls=urls)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don't you? I don’t.", "Do not you? I do not."),
        ("can't won't shan't CAN'T Won't", "cannot will not shall not CANNOT Will not"),
        ("what's new, What's been done", "what is new, What has been done"),
        ("It's here; it's got there; that's it", "It is here; it has got there; that is it"),
        ("I'm, i'm, I'M", "I am, i am, I AM"),
        ("they've gone, you're it, we'll see", "they have gone, you are it, we will see"),
        ("Let's go, y'all", "Let us go, you all"),
        ("shouldn't've", "should not have"),
        ("the mayor's and the mayors' rock 'n' roll", "the mayor's and the mayors' rock 'n' roll"),
        ("he'd gone, ain't, o'clock", "he'd gone, ain't, o'clock"),
    ],
)
def test_contractions(text, expected):
    assert normalize(text, Normalization(contractions=True)) == expected


def test_all_optional_steps_together():
    steps = Normalization(lowercase=True, ascii=True, urls="protocol", contractions=True)
    text = "What’s Zoë’s  PAGE?\nIt’s http://zoe.org"
    assert normalize(text, steps) == "what is zoe's page? it is zoe.org"


@pytest.mark.parametrize("text", ["ht中tp://http://x", "http:http:////", "it's's don'tn't", "Ã http:/中/x"])
@pytest.mark.parametrize("steps", ALL_COMBINATIONS)
def test_input_that_one_step_creates_for_another_is_normalized_at_once(text, steps):
    once = normalize(text, steps)
    assert normalize(once, steps) == once


@settings(max_examples=600, deadline=None)
@given(texts, st.sampled_from(ALL_COMBINATIONS))
@example("http://" * 3 + "//", ALL_COMBINATIONS[-1])
def test_normalizing_twice_changes_nothing(text, steps):
    once = normalize(text, steps)
    assert normalize(once, steps) == once
    if steps.ascii:
        assert once.isascii()
    if steps.whitespace:
        assert once == " ".join(once.split())


@pytest.mark.parametrize(
    "piece", ["The café's http://a.b/ isn't ", "a", "'", "http://", "www.", "http:", "):", "é", "'ve"]
)
@pytest.mark.parametrize("urls", URLS[1:])
def test_the_time_is_linear_in_the_length(piece, urls):
    steps = Normalization(lowercase=True, ascii=True, urls=urls, contractions=True)
    start = time.perf_counter()
    normalize(piece * (1_000_000 // len(piece)), steps)
    assert time.perf_counter() - start < 10  # measured: under 1; a quadratic step takes minutes


def test_steps_from_a_mapping():
    steps = Normalization.from_mapping({"lowercase": True, "urls": "protocol"})
    assert steps == Normalization(lowercase=True, urls="protocol")
    assert Normalization.from_mapping(None) == Normalization.from_mapping({}) == Normalization()
    assert all(step.metadata["help"] for step in fields(Normalization))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lower_case": True}, "normalize key 'lower_case' is unknown"),
        ({"lower_case": True}, "did you mean 'lowercase'"),
        ({"ascii": "yes"}, "normalize: ascii is 'yes', expected true or false"),
        ({"urls": True}, "normalize: urls is True, expected one of keep, protocol, remove"),
        ({"urls": []}, "expected one of keep, protocol, remove"),
        (["lowercase"], "expected a mapping"),
    ],
)
def test_a_wrong_mapping_is_an_error(values, message):
    with pytest.raises(DataError) as error:
        Normalization.from_mapping(values)
    assert message in str(error.value)
