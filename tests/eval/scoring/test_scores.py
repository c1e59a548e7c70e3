import math

import pytest
from rouge_score.rouge_scorer import RougeScorer
from sklearn.metrics import accuracy_score, roc_auc_score

from crosstask.data.answers import answer_recall, normalize_answer
from crosstask.eval.scoring.scores import answerability, rouge, table
from crosstask.eval.systems.extractive import lead


@pytest.mark.parametrize(
    ("text", "normalized"),
    [
        ("The  Eiffel\tTower.", "eiffel tower"),
        ("an Apple a day", "apple day"),
        ("theatre, Anna", "theatre anna"),  # articles go as words, not as prefixes
        ("U.S.-born", "usborn"),
        ("4.2%", "42"),
        ("Zürich", "zürich"),
        ("the", ""),
        ("?!", ""),
        ("", ""),
    ],
)
def test_normalize_answer(text, normalized):
    assert normalize_answer(text) == normalized


def test_answer_recall_is_the_mean_share_of_the_answers_tokens():
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


def test_rouge_by_hand():
    # Four words against five, "the cat sat" in common and in order: P 3/4, R 3/5, F1 2/3.
    # Bigrams "the cat" and "cat sat": P 2/3, R 2/4, F1 4/7.
    scores = rouge(["the cat sat down"], ["the cat sat outside today"])
    assert scores == pytest.approx({"rouge1": 2 / 3, "rouge2": 4 / 7, "rougeL": 2 / 3})


def test_rouge_agrees_with_rouge_score():
    predictions = ["Dogs were running in the park.", "", "A tower of iron, in Paris."]
    references = ["The dog runs through a park.", "Rain fell.", "The iron tower stands in Paris."]
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    for name, mean in rouge(predictions, references).items():
        f1s = [
            scorer.score(target=reference, prediction=prediction)[name].fmeasure
            for prediction, reference in zip(predictions, references, strict=True)
        ]
        assert mean == pytest.approx(sum(f1s) / 3)


def test_rouge_leaves_out_rows_without_a_reference():
    assert rouge(["a b", "c"], ["a b", " "]) == {"rouge1": 1, "rouge2": 1, "rougeL": 1}
    assert rouge(["a b"], [""]) == {"rouge1": None, "rouge2": None, "rougeL": None}


def test_answerability_by_hand():
    # Two of four right; of the four (yes, no) pairs three are in order.
    scores = answerability([0.9, 0.4, 0.6, 0.1], [1, 1, 0, 0])
    assert scores == {"accuracy": 0.75 - 0.25, "auroc": 0.75}


def test_answerability_agrees_with_scikit_learn():
    probabilities = [0.1, 0.35, 0.35, 0.8, 0.62, 0.55, 0.2, 0.97]
    labels = [0, 1, 0, 1, 0, 1, 1, 1]
    assert answerability(probabilities, labels) == {
        "accuracy": accuracy_score(labels, [p > 0.5 for p in probabilities]),
        "auroc": roc_auc_score(labels, probabilities),
    }


def test_answerability_leaves_out_rows_without_a_label():
    scores = answerability([0.9, 0.9, 0.2, 0.9], [1, -100, 0, None])
    assert scores == {"accuracy": 1, "auroc": 1}
    assert answerability([0.9, 0.9], [-100, None]) == {"accuracy": None, "auroc": None}


def test_answerability_of_one_class_has_no_auroc():
    assert answerability([0.9, 0.4], [1, 1]) == {"accuracy": 0.5, "auroc": None}


def test_answerability_takes_half_as_no():
    assert answerability([0.5, 0.5], [0, 1])["accuracy"] == 0.5
    assert answerability([0.5], [0])["accuracy"] == 1


def test_answerability_takes_tensors_and_returns_floats():
    torch = pytest.importorskip("torch")
    scores = answerability(torch.tensor([0.9, 0.2]), torch.tensor([1, 0]))
    assert scores == {"accuracy": 1, "auroc": 1}
    assert type(scores["accuracy"]) is float and type(scores["auroc"]) is float


@pytest.mark.parametrize("label", [1, -100])
def test_answerability_refuses_nan(label):
    with pytest.raises(ValueError, match="row 1 is nan"):
        answerability([0.5, math.nan], [0, label])


@pytest.mark.parametrize("probability", [-0.1, 1.1, math.inf])
def test_answerability_refuses_what_is_no_probability(probability):
    with pytest.raises(ValueError, match="expected 0 to 1"):
        answerability([probability], [1])


@pytest.mark.parametrize("label", [2, -1, 0.5, math.nan, "1"])
def test_answerability_refuses_other_labels(label):
    with pytest.raises(ValueError, match="label in row 0"):
        answerability([0.5], [label])


@pytest.mark.parametrize(
    ("score", "first", "second"),
    [
        (answer_recall, "summaries", "answers"),
        (rouge, "predictions", "references"),
        (answerability, "probabilities", "labels"),
    ],
)
def test_lengths_must_match(score, first, second):
    with pytest.raises(ValueError, match=f"There are 0 {first} but 1 {second}"):
        score([], [1])


SCORES = {
    "lead": {"recall": 0.41666, "rouge1": 0.5},
    "crosstask|joint": {"recall": 1.0, "rouge1": None, "auroc": 0.87654},
}


def test_table():
    assert table(SCORES).split("\n") == [
        "system           recall  rouge1  auroc",
        "---------------  ------  ------  -----",
        "lead              0.417   0.500      -",
        "crosstask|joint   1.000       -  0.877",
    ]


def test_table_in_markdown():
    assert table(SCORES, markdown=True).split("\n") == [
        "| system           | recall | rouge1 | auroc |",
        "| ---------------- | -----: | -----: | ----: |",
        "| lead             |  0.417 |  0.500 |     - |",
        r"| crosstask\|joint |  1.000 |      - | 0.877 |",
    ]


def test_table_without_systems_or_metrics():
    assert table({}) == "system\n------"
    assert table({"lead": {}}, markdown=True).split("\n")[-1] == "| lead   |"


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
def test_lead_finds_the_first_sentence(first, rest):
    assert lead(f"{first} {rest}", sentences=1) == first


def test_lead_takes_three_sentences_as_they_stand():
    assert lead(" One  is.\nTwo is. Three is. Four is.") == "One  is.\nTwo is. Three is."


@pytest.mark.parametrize("passage", ["", "  ", "One.", "One is. Two is.", "no stop at all"])
def test_lead_of_a_short_passage_is_the_passage(passage):
    assert lead(passage) == passage.strip()


def test_lead_needs_a_sentence():
    with pytest.raises(ValueError, match="at least 1"):
        lead("One.", sentences=0)
