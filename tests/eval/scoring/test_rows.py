"""Scores row by row: known values, the libraries they are taken from, and what must make no difference."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from sklearn.calibration import calibration_curve
from sklearn.metrics import average_precision_score, brier_score_loss, f1_score
from transformers import AutoModel, BertConfig, BertForSequenceClassification

from crosstask.data.answers import answer_exact_rows, answer_recall_rows, mean
from crosstask.data.builder.judge import Judge
from crosstask.eval.scoring.bertscore import bertscore_rows
from crosstask.eval.scoring.calibration import answerability_figures
from crosstask.eval.scoring.rows import (
    ROUGE_TYPES,
    entailment_rows,
    extractiveness_rows,
    faithfulness_rows,
    length_rows,
    rouge_rows,
)
from crosstask.sentences_crosstask import split_sentences
from crosstask.utils.errors import DataError

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
# What every score of a summary against another text promises to do alike.
TEXT_SCORES = {
    "rouge": lambda a, b: rouge_rows(a, b)["rougeLsum"],
    "recall": answer_recall_rows,
    "exact": answer_exact_rows,
    "faithfulness": faithfulness_rows,
    "coverage": lambda a, b: extractiveness_rows(a, b)[0],
    "density": lambda a, b: extractiveness_rows(a, b)[1],
}


def test_mean_leaves_out_rows_without_a_value():
    assert mean([1.0, None, 0.0]) == 0.5
    assert mean([None]) is None and mean([]) is None
    assert mean([1e16, 1.0, -1e16]) == mean([1e16, -1e16, 1.0]) == 1 / 3


@pytest.mark.parametrize("name", TEXT_SCORES)
@given(rows=st.lists(st.tuples(WORDS, WORDS), max_size=8), data=st.data())
@settings(max_examples=25, deadline=None)
def test_a_rows_score_does_not_depend_on_the_rows_around_it(name, rows, data):
    score = TEXT_SCORES[name]
    values = score(*([row[side] for row in rows] for side in (0, 1)))
    assert values == [score([a], [b])[0] for a, b in rows]
    order = data.draw(st.permutations(range(len(rows))))
    shuffled = score(*([rows[index][side] for index in order] for side in (0, 1)))
    assert shuffled == [values[index] for index in order]


@pytest.mark.parametrize("name", TEXT_SCORES)
def test_as_many_texts_on_both_sides(name):
    assert TEXT_SCORES[name]([], []) == []
    with pytest.raises(ValueError, match="There are 1 .* but 2 .*, expected as many"):
        TEXT_SCORES[name](["a"], ["a", "b"])


# --- ROUGE ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("use_stemmer", [True, False])
def test_rouge_agrees_with_rouge_score(use_stemmer):
    scorer = RougeScorer(list(ROUGE_TYPES), use_stemmer=use_stemmer)
    rows = rouge_rows(SUMMARIES, REFERENCES, use_stemmer=use_stemmer)
    assert list(rows) == list(ROUGE_TYPES)
    for index, (summary, reference) in enumerate(zip(SUMMARIES[:-1], REFERENCES[:-1], strict=True)):
        expected = scorer.score(
            *("\n".join(split_sentences(t.replace("\n", "\n\n"))) for t in (reference, summary))
        )
        for name in ROUGE_TYPES:
            assert rows[name][index] == pytest.approx(expected[name].fmeasure)


def test_rouge_of_known_texts():
    rows = rouge_rows(["the cat sat", "the cat", "", "a b"], ["the cat sat", "of dogs", "the cat", "b a"])
    assert rows["rouge1"] == [1, 0, 0, 1]
    assert rows["rouge2"] == [1, 0, 0, 0]
    assert rows["rougeL"] == pytest.approx([1, 0, 0, 1 / 2])


def test_rouge_lsum_takes_sentences_one_by_one():
    # The same two sentences the other way round: as one text only half of them is in order.
    rows = rouge_rows(["It rained. We slept."], ["We slept. It rained."])
    assert rows["rougeLsum"] == [1] and rows["rougeL"] == [0.5]


def test_rouge_of_several_references_is_the_best_of_each_type():
    rows = rouge_rows(["a b c d"] * 4, [["d c b a", "a b x y", ""], ("a b c d",), [" "], []])
    assert rows["rouge1"] == [1, 1, None, None]  # the first reference's
    assert rows["rouge2"] == pytest.approx([1 / 3, 1, None, None])  # the second one's


def test_rouge_needs_something_to_compare_with():
    assert rouge_rows(["a"], [""], types=["rouge1"]) == {"rouge1": [None]}
    assert rouge_rows(["川"], ["川"], types=["rouge1"]) == {"rouge1": [0]}  # no a-z in it


def test_rouge_scores_each_distinct_pair_once(monkeypatch):
    calls = []
    score = RougeScorer.score
    monkeypatch.setattr(RougeScorer, "score", lambda *args, **kw: calls.append(1) or score(*args, **kw))
    rows = rouge_rows(["a b"] * 1000, ["a c"] * 1000)
    assert len(calls) == 1 and rows["rouge1"] == [0.5] * 1000


def test_rouge_is_the_same_by_any_number_of_processes():
    alone = rouge_rows(SUMMARIES * 3, (REFERENCES * 3)[1:] + [PASSAGE], processes=1)
    for processes in (2, 3):
        spread = rouge_rows(SUMMARIES * 3, (REFERENCES * 3)[1:] + [PASSAGE], processes=processes)
        assert spread == alone


def test_many_pairs_are_spread_over_all_cores(monkeypatch):
    asked = []

    def parallel(processes, batch_size):
        asked.append((processes, batch_size))
        return lambda tasks: [function(*texts) for function, texts, _ in tasks]

    monkeypatch.setattr("joblib.cpu_count", lambda: 4)
    monkeypatch.setattr("joblib.Parallel", parallel)
    monkeypatch.setattr("crosstask.eval.scoring.rows.POOL_FROM", 50)
    texts = [f"word{number}" for number in range(51)]
    for count in (50, 51):
        assert rouge_rows(texts[:count], texts[:count], types=["rouge1"])["rouge1"] == [1] * count
    assert asked == [(4, 4)]  # 51 pairs in 16 shares


@pytest.mark.parametrize("name", ["rouge", "rouge0", "rougel", "bleu"])
def test_rouge_of_unknown_type(name):
    with pytest.raises(ValueError, match=f"type is '{name}', expected"):
        rouge_rows(["a"], ["a"], types=[name])


# --- The answer -----------------------------------------------------------------------------------


def test_answer_recall_by_hand():
    summaries = ["It opened in Paris in 1889.", "New York", "", "x", "Größe: 3 🙂"]
    answers = ["Paris, 1890", "New York, New York", "Paris", "the!", "größe 🙂"]
    assert answer_recall_rows(summaries, answers) == [0.5, 0.5, 0, None, 1]


@pytest.mark.parametrize(
    ("summary", "answer", "exact"),
    [
        ("It opened in the Spring of 1889.", "spring of 1889", 1),
        ("In 1889, in the spring.", "spring of 1889", 0),
        ("It rained in Parisian streets.", "Paris", 0),  # words, not letters
        ("The May 3 opening", "the May 3", 1),
        ("", "Paris", 0),
        ("Paris", "", None),
        ("川が 増水した", "増水した", 1),
    ],
)
def test_answer_exact(summary, answer, exact):
    assert answer_exact_rows([summary], [answer]) == [exact]


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


def test_entailment_is_the_judges(judge):
    summaries = ["The bridge opened.", "The bridge opened.", "", "It rained."]
    rows = entailment_rows(judge, summaries, ["What opened?"] * 4, ["the bridge", " ", "the bridge", "rain"])
    expected = judge.score([summaries[0], summaries[3]], ["What opened? the bridge", "What opened? rain"])
    assert rows == [expected[0], None, 0, expected[1]] and 0 < rows[0] < 1


def test_entailment_without_rows_to_judge(judge):
    assert entailment_rows(judge, [], [], []) == []
    assert entailment_rows(judge, ["a", ""], ["?", "?"], ["", "b"]) == [None, 0]
    with pytest.raises(ValueError, match="There are 1 summaries but 0 answers"):
        entailment_rows(judge, ["a"], ["?"], [])


# --- The passage ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("summary", "share"),
    [
        ("Ada Reed opened it.", 1),
        ("The bridge cost 1200 dollars.", 1),
        ("In Dorn Bay, Ada Moss paid 1,300 dollars.", 2 / 5),
        ("The river rose.", None),
        ("Yesterday it rained.", None),  # begins a sentence, and nothing says that it is a name
        ("Reed opened it.", 1),  # a name, as the passage shows
        ("NASA opened it.", 0),
        ("Eve Moss opened it.", 0),
        ("I think I know.", None),
        ("Opened on 3.", 1),
        ("Opened on 3.5.", 0),
        ("Opened on May 3, May 3 and June 3.", 2 / 3),  # distinct ones
        ("", None),
        ("川が増水した。🌊", None),
        ("川 3", 1),
    ],
)
def test_faithfulness(summary, share):
    expected = None if share is None else pytest.approx(share)
    assert faithfulness_rows([summary], [PASSAGE]) == [expected]


def test_faithfulness_to_a_passage_in_lower_case_or_without_words():
    assert faithfulness_rows(["On Monday Ada Reed left.", "See Ada."], ["ada reed left monday", ""]) == [1, 0]


@pytest.mark.parametrize(
    ("summary", "passage", "coverage", "density"),
    [
        ("the cat sat", "The cat sat on the mat", 1, 3),
        ("dogs ran", "The cat sat", 0, 0),
        ("the cat ran", "the cat sat", 2 / 3, 4 / 3),
        ("on the cat", "the cat sat on the mat", 1, (4 + 1) / 3),  # greedy: "on the", then "cat"
        ("the mat", "the cat sat on the mat", 1, 2),  # the longest place, not the first
        ("cat cat", "cat", 1, 1),
        ("cat .", "Cat.", 1, 2),
        ("über 🌊", "Über uns 🌊", 1, 1),
        ("cat", "", 0, 0),
        (" ", "cat", None, None),
    ],
)
def test_extractiveness(summary, passage, coverage, density):
    rows = extractiveness_rows([summary], [passage])
    assert [row[0] for row in rows] == [value and pytest.approx(value) for value in (coverage, density)]


def test_length():
    assert length_rows(["The cat  sat.", "", "🙂 🙂"]) == [3, 0, 2]


# --- BERTScore, with real weights -----------------------------------------------------------------


@pytest.fixture(scope="module")
def model(minilm):
    pytest.importorskip("bert_score")
    return str(minilm)


def test_bertscore_agrees_with_bert_score(model):
    import bert_score

    rows = bertscore_rows(SUMMARIES[2:5], REFERENCES[2:5], model=model)
    # One pair a batch: beside longer texts it takes negative cosines for 0.
    direct = bert_score.score(SUMMARIES[2:5], REFERENCES[2:5], model_type=model, num_layers=6, batch_size=1)
    for values, expected in zip(rows.values(), direct, strict=True):
        assert values == pytest.approx(expected.tolist(), abs=1e-4)


def test_bertscore_of_a_lower_layer(model):
    import bert_score

    rows = bertscore_rows(["It rained."], ["Rain fell."], model=model, num_layers=2)
    direct = bert_score.score(["It rained."], ["Rain fell."], model_type=model, num_layers=2)
    assert [values[0] for values in rows.values()] == pytest.approx([float(v) for v in direct], abs=1e-4)
    assert rows != bertscore_rows(["It rained."], ["Rain fell."], model=model)


def test_bertscore_of_known_texts(model):
    rows = bertscore_rows(
        ["It rained.", "", " ", "It rained.", "x"], ["It rained."] * 3 + ["", " "], model=model
    )
    assert rows == {name: [1, 0, 0, None, None] for name in ("precision", "recall", "f1")}
    near, far = bertscore_rows(["Rain fell."] * 2, ["It rained.", "A cat sat."], model=model)["f1"]
    assert far < near < 1


def test_bertscore_of_several_references_is_that_of_the_best(model):
    texts = ["A cat sat.", "It rained.", ""]
    rows = bertscore_rows(["Rain fell."], [texts], model=model)
    assert rows == bertscore_rows(["Rain fell."], ["It rained."], model=model)
    assert bertscore_rows(["Rain fell."], [[]], model=model)["f1"] == [None]


def test_bertscore_takes_each_distinct_text_once(model, monkeypatch):
    import bert_score.utils

    seen = []
    embed = bert_score.utils.get_bert_embedding
    monkeypatch.setattr(
        "bert_score.utils.get_bert_embedding",
        lambda texts, *a, **k: seen.extend(texts) or embed(texts, *a, **k),
    )
    rows = bertscore_rows(["Rain fell."] * 1000, ["It rained."] * 1000, model=model)
    assert sorted(seen) == ["It rained.", "Rain fell."] and len(set(rows["f1"])) == 1


def test_bertscore_does_not_depend_on_batch_or_order(model):
    summaries, references = SUMMARIES + ["It rained. " * 40], REFERENCES + ["The river rose."]
    rows = bertscore_rows(summaries, references, model=model)
    for size in (1, 2):
        assert bertscore_rows(summaries, references, model=model, batch_size=size) == rows
    backwards = bertscore_rows(summaries[::-1], references[::-1], model=model, batch_size=3)
    assert {name: values[::-1] for name, values in backwards.items()} == rows


def test_bertscore_cuts_what_is_too_long(model):
    assert bertscore_rows(["rain " * 2000], ["rain " * 3000], model=model)["f1"] == [1]


@pytest.mark.parametrize("layers", [7, -1])
def test_bertscore_of_a_layer_that_is_not_there(model, layers):
    with pytest.raises(DataError, match=f"num_layers is {layers}, expected 1 to 6"):
        bertscore_rows(["a"], ["a"], model=model, num_layers=layers)


def test_bertscore_without_a_baseline_or_a_model(model, tmp_path):
    with pytest.raises(DataError, match="no baseline of .* for language 'en'"):
        bertscore_rows(["a"], ["a"], model=model, rescale_with_baseline=True)
    with pytest.raises(DataError, match="cannot be loaded"):
        bertscore_rows(["a"], ["a"], model=str(tmp_path))


def test_bertscore_rescaled_by_the_packages_table(model, monkeypatch):
    import bert_score

    from crosstask.eval.scoring import bertscore

    table = Path(bert_score.__file__).parent / "rescale_baseline/en/roberta-base.tsv"
    line = [float(value) for value in table.read_text().splitlines()[1 + 6].split(",")]
    assert line[0] == 6  # the first line is of the embeddings
    assert bertscore._baseline("roberta-base", "en", 6) == line[1:]
    plain = bertscore_rows(["Rain fell."], ["It rained."], model=model)
    monkeypatch.setattr(bertscore, "_baseline", lambda *args: line[1:])
    rescaled = bertscore_rows(["Rain fell."], ["It rained."], model=model, rescale_with_baseline=True)
    for base, x, y in zip(line[1:], plain.values(), rescaled.values(), strict=True):
        assert y[0] == pytest.approx((x[0] - base) / (1 - base), abs=1e-3)


@pytest.fixture
def save(tmp_path, make_part, tokenizer):
    """`save(family, **settings)`: a folder of a tiny, random model with its tokenizer."""

    def save(family, **settings):
        folder = tmp_path / "t5"  # `bert_score` takes any path like this for a T5
        torch.manual_seed(0)
        AutoModel.from_config(make_part(family, len(tokenizer), **settings)).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return str(folder)

    return save


@pytest.mark.parametrize("family", ["bert", "roberta", "bart", "t5", "led"])
def test_bertscore_of_other_encoders(save, family):
    rows = bertscore_rows(
        ["It rained."] * 2 + ["rain " * 99], ["It rained.", "A cat.", "x"], model=save(family)
    )
    assert rows["f1"][0] == 1 and max(rows["f1"][1:]) < 1


def test_bertscore_of_an_encoder_decoder_agrees_with_bert_score(save, tmp_path, tokenizer):
    import bert_score

    plain = Path(save("bart")).rename(tmp_path / "bart")
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.model_max_length = 64  # without a limit it overflows
    tokenizer.save_pretrained(plain)
    for layers in (1, 2):
        rows = bertscore_rows(["It rained."], ["A cat sat."], model=str(plain), num_layers=layers)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(tmp_path)  # where the tests run, any path may have a "t5" in it
            direct = bert_score.score(["It rained."], ["A cat sat."], model_type="bart", num_layers=layers)
        assert [values[0] for values in rows.values()] == pytest.approx([float(v) for v in direct], abs=1e-4)


def test_bertscore_by_what_is_no_whole_encoder(save):
    with pytest.raises(DataError, match="got a t5gemma .*, expected a text encoder"):
        bertscore_rows(["a"], ["a"], model=save("t5gemma"))
    folder = Path(save("bert"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(DataError, match="has no weights encoder.layer.2.*, expected a whole text encoder"):
        bertscore_rows(["a"], ["a"], model=str(folder))


# --- Answerability --------------------------------------------------------------------------------


def test_answerability_figures_by_hand():
    figures = answerability_figures([0.9, 0.7, 0.6, 0.2], [1, 1, 0, 0], bins=2)
    reliability = figures.pop("reliability")
    assert figures == pytest.approx(
        {
            "accuracy": 0.75,
            "f1": 0.8,
            "auroc": 1,
            "average_precision": 1,
            "brier": (0.01 + 0.09 + 0.36 + 0.04) / 4,
            "ece": 0.75 * abs(2.2 / 3 - 2 / 3) + 0.25 * 0.2,
        }
    )
    low, high = reliability
    assert low == {"from": 0, "to": 0.5, "probability": 0.2, "yes": 0, "count": 1}
    assert high["probability"] == pytest.approx(2.2 / 3) and high["yes"] == pytest.approx(2 / 3)


def test_answerability_figures_agree_with_scikit_learn():
    random = np.random.default_rng(0)
    probabilities = random.random(500)
    labels = (random.random(500) < probabilities**2).astype(int)
    figures = answerability_figures(probabilities, labels)
    assert figures["f1"] == pytest.approx(f1_score(labels, probabilities > 0.5))
    assert figures["average_precision"] == pytest.approx(average_precision_score(labels, probabilities))
    assert figures["brier"] == pytest.approx(brier_score_loss(labels, probabilities))
    yes, said = calibration_curve(labels, probabilities, n_bins=10)
    assert [line["yes"] for line in figures["reliability"]] == pytest.approx(yes.tolist())
    assert [line["probability"] for line in figures["reliability"]] == pytest.approx(said.tolist())
    shares = np.array([line["count"] for line in figures["reliability"]]) / 500
    assert figures["ece"] == pytest.approx(float((shares * abs(yes - said)).sum()))


def test_answerability_figures_where_they_are_not_defined():
    figures = answerability_figures([0.9], [None])
    assert sum(line["count"] for line in figures.pop("reliability")) == 0
    assert set(figures.values()) == {None}
    no = answerability_figures([0.1, 0.2], [0, 0])
    assert (no["accuracy"], no["f1"], no["auroc"], no["average_precision"]) == (1, None, None, None)
    yes = answerability_figures([0.9], [1])
    assert (yes["f1"], yes["auroc"], yes["average_precision"]) == (1, None, 1)


def test_perfect_and_constant_probabilities():
    perfect = answerability_figures([0, 1, 1], [0, 1, 1])
    assert (perfect["brier"], perfect["ece"], perfect["auroc"]) == (0, 0, 1)
    constant = answerability_figures([0.5] * 1000, [0, 1] * 500)
    assert (constant["brier"], constant["ece"], constant["auroc"]) == (0.25, 0, 0.5)


@given(
    rows=st.lists(st.tuples(st.floats(0, 1), st.sampled_from([0, 1])), min_size=1, max_size=12),
    bins=st.integers(1, 20),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_probability_is_in_one_bin(rows, bins):
    figures = answerability_figures(*zip(*rows, strict=True), bins=bins)
    reliability = figures["reliability"]
    assert sum(line["count"] for line in reliability) == len(rows) and len(reliability) == bins
    assert 0 <= figures["ece"] <= 1
    for line in reliability:
        if line["count"]:
            assert line["from"] - 1e-9 <= line["probability"] <= line["to"] + 1e-9


def test_answerability_needs_a_bin():
    with pytest.raises(ValueError, match="bins is 0, expected at least 1"):
        answerability_figures([0.5], [1], bins=0)
