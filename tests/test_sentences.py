"""Sentences and words of several scripts, evidence of summaries, and merging of summaries.

English sentences are tested in eval/systems/test_lead.py.
"""

import random
import time

import pytest

from crosstask.data.briefs import generate
from crosstask.sentences_crosstask import (
    count_words,
    find_evidence,
    join_sentences,
    merge_summaries,
    normalize_text,
    split_sentences,
    split_words,
)

PASSAGE = [
    "The mayor opened the old bridge on May 3.",
    "Rain fell for two days.",
    "The bridge cost $4,500, the mayor said.",
    "It will carry 200 cars a day.",
]


@pytest.mark.parametrize(
    "sentences",
    [
        ["雨が降った。", "「行け！」と言った。", "橋が開いた！", "ところで、３．５度？"],
        ["他说：“走！”", "然后离开。", "你好吗?", "我很好！！", "（真的。）", "对"],
        ["यह एक नदी है।", "वह पुल है॥", "क्या?"],
        ["ما هذا؟", "نعم.", "ذهب۔", "جاء"],
        ["ဒါက။", "ဟုတ်"],
        ["នេះ។", "បាទ"],
        ["ይህ።", "አዎ"],
        ["सच!", "नहीं।", "हाँ…", "ठीक"],
    ],
)
def test_full_stops_of_several_scripts_end_a_sentence_with_and_without_white_space(sentences):
    assert split_sentences(" ".join(sentences)) == sentences
    assert split_sentences("\u3000".join(sentences)) == sentences
    glued = [s for s in sentences if not s.endswith((".", "?", "!", "…"))]
    assert split_sentences("".join(glued)) == glued


@pytest.mark.parametrize(
    "sentences",
    [
        ["He said no.", "Nobody moved."],
        ["He has no. 5 and Nos. 3 and 4.", "No. 10 is shut."],
        ["“No.”", "Nobody moved."],
        ["Er kam am 3. Mai im 19. Jahrhundert, bzw. Ende März.", "Es kostet 12.", "Dann ging er."],
        ["« Non ! »", "Il part.", "« Oui\u00a0! »", "Elle reste."],
        ["¿Qué?", "¡Sí!"],
        ["It ended.\u200b", "\ufeffThen it began."],
        ["Это мост.", "Он стар?", "Да!"],
    ],
)
def test_sentences_of_scripts_with_capitals(sentences):
    assert split_sentences(" ".join(sentences)) == sentences


@pytest.mark.parametrize(
    "text", ["。" * 60_000, "．" * 60_000 + "a", "।" + "'" * 60_000 + "x", "雨！「" * 20_000]
)
def test_a_long_run_of_marks_takes_linear_time(text):
    start = time.perf_counter()
    assert "".join(split_sentences(text)) == text
    assert time.perf_counter() - start < 5  # 30 s and more in quadratic time


def test_sentences_are_joined_without_a_space_after_a_full_width_mark():
    assert join_sentences(["雨。", "「橋！」", "Yes.", "No。"]) == "雨。「橋！」Yes. No。"
    assert join_sentences(["One."]) == "One." and join_sentences([]) == ""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't pay $4.2!", ["don", "t", "pay", "4", "2"]),  # as ROUGE splits English
        ("snake_case ÜBER Straße", ["snake", "case", "über", "strasse"]),
        ("हिन्दी में ठीक है।", ["हिन्दी", "में", "ठीक", "है"]),
        ("大雨在2010年下NASA", ["大", "雨", "在", "2010", "年", "下", "nasa"]),
        ("カード", ["カ", "ー", "ド"]),
        ("ที่น้ำ", ["ที่", "น้ํ", "า"]),  # NFKC separates the vowel from its mark
        ("ភាសា", ["ភា", "សា"]),
        ("مَدِينَة عام ١٩٨٩", ["مَدِينَة", "عام", "1989"]),
        ("می\u200cشود", ["میشود"]),
        ("привет, Κόσμοσ", ["привет", "κόσμοσ"]),
        ("서울은 크다", ["서울은", "크다"]),
    ],
)
def test_words_of_several_scripts(text, words):
    assert split_words(text) == [normalize_text(word) for word in words]


@pytest.mark.parametrize(
    ("text", "normalized"),
    [
        ("plain 'ASCII' - \t text…"[:-1], "plain 'ASCII' - \t text"),
        ("“don’t” «x» −5 1990–95", '"don\'t" "x" -5 1990-95'),
        ("½ 3½ m²", "1/2 3 1/2 m2"),
        ("e\u0301 Ａ１ ﬁ", "é A1 fi"),
        ("Pa\u200bris\ufeff so\u00adft", "Paris soft"),
        ("٤٫٢ १२", "4.2 12"),
    ],
)
def test_normalized_text_has_one_form_of_each_character(text, normalized):
    assert normalize_text(text) == normalized


def test_characters_count_as_words_in_scripts_without_spaces():
    assert count_words("The cat — 4.2 % sat.") == 6
    assert count_words("大雨，2010年。") == 4 and count_words("นี่") == 1
    assert count_words("यह एक नदी है।") == 4 and count_words(" ") == 0


@pytest.mark.parametrize(
    "passage",
    [
        ["Город построил мост.", "Дождь шёл два дня.", "Мост стоил 4500 рублей."],
        ["市长开放了旧桥。", "大雨下了两天。", "这座桥花费很多。"],
        ["महापौर ने पुल खोला।", "दो दिन बारिश हुई।", "पुल की लागत बहुत थी।"],
        ["افتتح العمدة الجسر.", "هطل المطر يومين.", "كلف الجسر كثيرا؟"],
        ["市長が橋を開いた。", "雨が二日降った。", "費用は高い。"],
        ["นายกเปิดสะพาน", "ฝนตกสองวัน", "ราคาแพงมาก"],
    ],
)
def test_evidence_and_merging_in_several_scripts(passage):
    for index, sentence in enumerate(passage):
        assert find_evidence(sentence, passage) == [index]
    assert merge_summaries([passage[2], passage[0], passage[2]], passage) == join_sentences(
        [passage[0], passage[2]]
    )


def test_the_order_of_characters_matters_for_evidence():
    assert find_evidence("狗咬猫。", ["猫咬狗。", "狗咬猫。"]) == [1]


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
