import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from transformers import BertConfig, BertForSequenceClassification

from crosstask.data.answers import answer_exact_rows, answer_recall_rows
from crosstask.data.builder.judge import Judge
from crosstask.eval.scoring.text_scores import (
    ROUGE_TYPES,
    entailment_rows,
    extractiveness_rows,
    faithfulness_rows,
    length_rows,
    rouge_rows,
)
from crosstask.sentences_crosstask import split_sentences

PASSAGE = "Ada Reed opened the bridge in Dorn Harbor on May 3. It cost 1,200 dollars. The river rose."
SUMMARIES = [
    "Ada Reed opened the bridge. It cost 1,200 dollars.",
    "",
    "Der Fluss stieg über die Ufer. 🌊🌊",
    "川が増水した。",
    "The bridges were opening!\nThe rivers rose.",
    "😀",
]
REFERENCES = [
    PASSAGE,
    "The river rose.",
    "Der Fluss stieg. 🌊",
    "川が増水した。",
    "The bridge opened. A river was rising.",
    " ",
]
WORDS = st.lists(st.sampled_from(["the", "cat", "Sat", "3", "🙂", "über", "."]), max_size=6).map(" ".join)
# The scores of a summary against another text, for the tests that apply to all of them.
TEXT_SCORES = {
    "rouge": lambda a, b: rouge_rows(a, b)["rougeLsum"],
    "answer_recall": answer_recall_rows,
    "answer_exact": answer_exact_rows,
    "faithfulness": faithfulness_rows,
    "coverage": lambda a, b: extractiveness_rows(a, b)[0],
    "density": lambda a, b: extractiveness_rows(a, b)[1],
}


@pytest.mark.parametrize("name", TEXT_SCORES)
@given(rows=st.lists(st.tuples(WORDS, WORDS), max_size=8), data=st.data())
@settings(max_examples=25, deadline=None)
def test_a_score_does_not_depend_on_the_other_rows(name, rows, data):
    score = TEXT_SCORES[name]
    values = score(*([row[side] for row in rows] for side in (0, 1)))
    assert values == [score([a], [b])[0] for a, b in rows]
    order = data.draw(st.permutations(range(len(rows))))
    shuffled = score(*([rows[index][side] for index in order] for side in (0, 1)))
    assert shuffled == [values[index] for index in order]


@pytest.mark.parametrize("name", TEXT_SCORES)
def test_lengths_must_match(name):
    assert TEXT_SCORES[name]([], []) == []
    with pytest.raises(ValueError, match="expected as many .* as .*: got 1 .* and 2 .*"):
        TEXT_SCORES[name](["a"], ["a", "b"])


# --- ROUGE ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("use_stemmer", [True, False])
def test_rouge_of_ascii_text_agrees_with_rouge_score(use_stemmer):
    scorer = RougeScorer(list(ROUGE_TYPES), use_stemmer=use_stemmer)
    odd = "It's 4.2% of the U.S. snake_case policies; TYING\tdying. The end? 1,200 skies' 3rd e-mails!\n\nYes"
    pairs = [
        (summary, reference)
        for summary in [*filter(str.isascii, SUMMARIES), odd, odd[40:]]
        for reference in [*filter(str.isascii, REFERENCES), odd]
        if reference.strip()
    ]
    rows = rouge_rows(*zip(*pairs, strict=True), use_stemmer=use_stemmer)
    assert list(rows) == list(ROUGE_TYPES)
    for index, (summary, reference) in enumerate(pairs):
        expected = scorer.score(
            *("\n".join(split_sentences(t.replace("\n", "\n\n"))) for t in (reference, summary))
        )
        for name in ROUGE_TYPES:
            assert rows[name][index] == pytest.approx(expected[name].fmeasure)


def test_rouge_by_hand():
    rows = rouge_rows(["the cat sat", "the cat", "", "a b"], ["the cat sat", "of dogs", "the cat", "b a"])
    assert rows["rouge1"] == [1, 0, 0, 1]
    assert rows["rouge2"] == [1, 0, 0, 0]
    assert rows["rougeL"] == pytest.approx([1, 0, 0, 1 / 2])


def test_rouge_lsum_compares_sentences():
    # The same two sentences in the other order: in the complete texts only one of them is in order.
    rows = rouge_rows(["It rained. We slept."], ["We slept. It rained."])
    assert rows["rougeLsum"] == [1] and rows["rougeL"] == [0.5]


def test_rouge_of_several_references_is_the_best_of_each_type():
    rows = rouge_rows(["a b c d"] * 4, [["d c b a", "a b x y", ""], ("a b c d",), [" "], []])
    assert rows["rouge1"] == [1, 1, None, None]  # from the first reference
    assert rows["rouge2"] == pytest.approx([1 / 3, 1, None, None])  # from the second one


def test_rouge_without_a_reference_or_without_letters():
    assert rouge_rows(["a"], [""], types=["rouge1"]) == {"rouge1": [None]}
    assert rouge_rows(["🌊!"], ["🌊!"], types=["rouge1"]) == {"rouge1": [0]}


def test_rouge_compares_the_words_of_other_scripts():
    texts = [
        "वह पुल पुराना है।",
        "Это старый мост.",
        "هذا جسر قديم؟",
        "Η γέφυρα είναι παλιά.",
        "다리는 오래되었다.",
    ]
    rows = rouge_rows(texts, texts)
    assert all(values == [1] * len(texts) for values in rows.values())
    # Three of four words, P = R = 3/4; bigrams 1/3.
    rows = rouge_rows(["वह पुल नया है।"], ["वह पुल पुराना है।"])
    assert [rows[name][0] for name in ("rouge1", "rouge2")] == pytest.approx([3 / 4, 1 / 3])


def test_rouge_compares_the_characters_of_scripts_without_spaces():
    # 2010, 年, 大 and 雨 of 4 and 7 tokens: P 1, R 4/7.
    rows = rouge_rows(["2010年大雨"], ["2010年大雨在北京"], types=["rouge1"])
    assert rows["rouge1"] == pytest.approx([2 * 4 / (4 + 7)])
    # 2010, が and た of 6 tokens each: equal digits are not an equal text.
    rows = rouge_rows(["2010 橋が開いた"], ["2010 雨が降った"], types=["rouge1"])
    assert rows["rouge1"] == [1 / 2]


def test_rouge_scores_each_distinct_pair_once(monkeypatch):
    calls = []
    score = RougeScorer.score
    monkeypatch.setattr(RougeScorer, "score", lambda *args, **kw: calls.append(1) or score(*args, **kw))
    rows = rouge_rows(["a b"] * 1000, ["a c"] * 1000)
    assert len(calls) == 1 and rows["rouge1"] == [0.5] * 1000


def test_rouge_does_not_depend_on_the_number_of_processes():
    expected = rouge_rows(SUMMARIES * 3, (REFERENCES * 3)[1:] + [PASSAGE], processes=1)
    for processes in (2, 3):
        rows = rouge_rows(SUMMARIES * 3, (REFERENCES * 3)[1:] + [PASSAGE], processes=processes)
        assert rows == expected


def test_many_pairs_use_all_cores(monkeypatch):
    calls = []

    def parallel(processes, batch_size):
        calls.append((processes, batch_size))
        return lambda tasks: [function(*texts) for function, texts, _ in tasks]

    monkeypatch.setattr("joblib.cpu_count", lambda: 4)
    monkeypatch.setattr("joblib.Parallel", parallel)
    monkeypatch.setattr("crosstask.eval.scoring.text_scores.MAX_PAIRS_OF_ONE_PROCESS", 50)
    texts = [f"word{number}" for number in range(51)]
    for count in (50, 51):
        assert rouge_rows(texts[:count], texts[:count], types=["rouge1"])["rouge1"] == [1] * count
    assert calls == [(4, 4)]  # 51 pairs in 16 batches


@pytest.mark.parametrize("name", ["rouge", "rouge0", "rougel", "bleu"])
def test_an_unknown_rouge_type_is_refused(name):
    with pytest.raises(ValueError, match=f"type is '{name}', expected"):
        rouge_rows(["a"], ["a"], types=[name])


def test_rouge_of_every_type_by_hand():
    # Four words and five, "the cat sat" in common and in order: P 3/4, R 3/5, F1 2/3.
    # Bigrams "the cat" and "cat sat": P 2/3, R 2/4, F1 4/7.
    rows = rouge_rows(["the cat sat down"], ["the cat sat outside today"])
    assert {name: values[0] for name, values in rows.items()} == pytest.approx(
        {"rouge1": 2 / 3, "rouge2": 4 / 7, "rougeL": 2 / 3, "rougeLsum": 2 / 3}
    )


# --- Entailment -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def judge(tokenizer):
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=64,
        id2label={0: "contradiction", 1: "entailment"},
        label2id={"contradiction": 0, "entailment": 1},
    )
    return Judge((BertForSequenceClassification(config), tokenizer), hypothesis="{question} {answer}")


def test_entailment_equals_the_judges_score(judge):
    summaries = ["The bridge opened.", "The bridge opened.", "", "It rained."]
    rows = entailment_rows(judge, summaries, ["What opened?"] * 4, ["the bridge", " ", "the bridge", "rain"])
    expected = judge.score([summaries[0], summaries[3]], ["What opened? the bridge", "What opened? rain"])
    assert rows == [expected[0], None, 0, expected[1]] and 0 < rows[0] < 1


def test_entailment_without_rows_to_score(judge):
    assert entailment_rows(judge, [], [], []) == []
    assert entailment_rows(judge, ["a", ""], ["?", "?"], ["", "b"]) == [None, 0]
    with pytest.raises(ValueError, match="got 1 summaries and 0 answers"):
        entailment_rows(judge, ["a"], ["?"], [])


# --- The passage ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("summary", "share"),
    [
        ("Ada Reed opened it.", 1),
        ("The bridge cost 1200 dollars.", 1),
        ("In Dorn Bay, Ada Moss paid 1,300 dollars.", 2 / 5),
        ("The river rose.", None),
        ("Yesterday it rained.", None),  # it begins a sentence, and there is no evidence that it is a name
        ("Reed opened it.", 1),  # a name, because of the passage
        ("NASA opened it.", 0),
        ("Eve Moss opened it.", 0),
        ("I think I know.", None),
        ("Opened on 3.", 1),
        ("Opened on 3.5.", 0),
        ("Opened on May 3, May 3 and June 3.", 2 / 3),  # distinct numbers and names
        ("", None),
        ("川が増水した。🌊", None),
        ("在NASA", 0),
        ("يوم ٣", 1),
        ("٤٫٢", 0),
        ("I’m in “Dorn Harbor”", 1),
        ("川 3", 1),
    ],
)
def test_faithfulness(summary, share):
    expected = None if share is None else pytest.approx(share)
    assert faithfulness_rows([summary], [PASSAGE]) == [expected]


def test_faithfulness_to_a_lower_case_or_empty_passage():
    assert faithfulness_rows(["On Monday Ada Reed left.", "See Ada."], ["ada reed left monday", ""]) == [1, 0]


@pytest.mark.parametrize(
    ("summary", "passage", "coverage", "density"),
    [
        ("the cat sat", "The cat sat on the mat", 1, 3),
        ("dogs ran", "The cat sat", 0, 0),
        ("the cat ran", "the cat sat", 2 / 3, 4 / 3),
        ("on the cat", "the cat sat on the mat", 1, (4 + 1) / 3),  # greedy: "on the", then "cat"
        ("the mat", "the cat sat on the mat", 1, 2),  # the longest match, not the first one
        ("cat cat", "cat", 1, 1),
        ("cat .", "Cat.", 1, 2),
        ("über 🌊", "Über uns 🌊", 1, 1),
        ("橋が開いた", "昨日、橋が開いた。", 1, 5),
        ("川が開いた", "昨日、橋が開いた。", 4 / 5, 16 / 5),
        ("नदी है", "यह नदी है।", 1, 2),
        ("don’t", "Don't", 1, 3),
        ("cat", "", 0, 0),
        (" ", "cat", None, None),
    ],
)
def test_extractiveness(summary, passage, coverage, density):
    rows = extractiveness_rows([summary], [passage])
    assert [row[0] for row in rows] == [value and pytest.approx(value) for value in (coverage, density)]


def test_length():
    assert length_rows(["The cat  sat.", "", "🙂 🙂", "橋が開いた。"]) == [3, 0, 2, 5]
