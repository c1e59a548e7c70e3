"""Test the judge: it returns the probability of the entailment class, which depends only on the texts."""

import random

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertForMaskedLM

from crosstask.data.builder.judge import Judge, check_template, find_entailment_index
from crosstask.utils.errors import DataError

SUMMARIES = [
    "The mayor opened the old bridge on May 3.",
    "Rain fell for two days, and the river rose by a meter.",
    "",
    "A cat sat.",
]
ANSWERS = ["May 3", "two days", "the mayor of the old town"]
PAIRS = [(summary, answer) for summary in SUMMARIES for answer in ANSWERS]
FAMILIES = ["roberta", "bert", "deberta", "bart"]


def score(judge, pairs, update=None):
    return judge.score(*zip(*pairs, strict=True), update)


def record_batch_sizes(judge):
    """Return a list to which each call of the judge's model will append its number of pairs."""
    batch_sizes = []
    judge.model.register_forward_pre_hook(
        lambda _, args, kwargs: batch_sizes.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    return batch_sizes


@pytest.mark.parametrize("family", FAMILIES)
def test_probabilities_equal_those_of_the_model(judge_folder, family):
    folder = judge_folder(family)
    judge = Judge(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    scores = score(judge, PAIRS)
    assert len(set(scores)) > 1
    for (premise, hypothesis), probability in zip(PAIRS, scores, strict=True):
        with torch.no_grad():
            logits = model(**tokenizer(premise, hypothesis, return_tensors="pt")).logits
        assert probability == pytest.approx(logits.softmax(-1)[0, 2].item(), abs=2e-6)
        assert probability == round(probability, 6)


@pytest.mark.parametrize("family", FAMILIES)
def test_batches_and_padding_do_not_change_a_probability(judge_folder, family):
    folder = judge_folder(family)
    alone = score(Judge(folder, batch_size=1), PAIRS)
    for batch_size in (5, 64):
        assert score(Judge(folder, batch_size=batch_size), PAIRS) == pytest.approx(alone, abs=2e-6)


def test_the_order_does_not_matter_and_duplicates_are_scored_once(tiny_roberta_mnli_folder):
    judge = Judge(tiny_roberta_mnli_folder, batch_size=5)
    batch_sizes, updates = record_batch_sizes(judge), []
    expected = dict(zip(PAIRS, score(judge, PAIRS), strict=True))
    assert batch_sizes == [5, 5, 2]
    pairs = random.Random(0).sample(PAIRS * 9, 60)
    assert score(judge, pairs, updates.append) == [expected[pair] for pair in pairs]
    assert sum(batch_sizes[3:]) == len(PAIRS)
    assert (len(updates), sum(updates)) == (3, 60)
    assert judge.score([], []) == []
    with pytest.raises(ValueError):
        judge.score(["one"], [])


@pytest.mark.parametrize(
    "labels, index",
    [
        (("CONTRADICTION", "NEUTRAL", "ENTAILMENT"), 2),  # FacebookAI/roberta-large-mnli
        (("contradiction", "entailment", "neutral"), 1),  # cross-encoder/nli-deberta-v3-base
        (("entailment", "neutral", "contradiction"), 0),  # microsoft/deberta-base-mnli, reversed
        (("contradiction", "ENTAILMENT", "neutral"), 1),
        (("entailment", "not_entailment"), 0),  # MoritzLaurer's zero-shot models
        (("not_entailment", "entailment"), 1),
        (("non-entailment", "NLI: entailment"), 1),
        (("notEntailment", " Entailment "), 1),
        (("not entailment", "textual entailment", "entailment"), 2),
    ],
)
def test_the_entailment_class_is_found_by_name(labels, index):
    assert find_entailment_index(dict(enumerate(labels))) == index


@pytest.mark.parametrize("labels", [("ENTAILMENT", "neutral", "x"), ("not_entailment", "entailment")])
def test_the_probability_is_that_of_the_entailment_class(judge_folder, labels):
    judge = Judge(judge_folder("roberta", labels))
    [probability] = judge.score(SUMMARIES[:1], ANSWERS[:1])
    batch = judge.tokenizer(SUMMARIES[0], ANSWERS[0], return_tensors="pt")
    with torch.no_grad():
        expected = judge.model(**batch).logits.softmax(-1)[0, [n.lower() for n in labels].index("entailment")]
    assert probability == pytest.approx(expected.item(), abs=2e-6)


@pytest.mark.parametrize(
    "labels",
    [
        ("LABEL_0", "LABEL_1", "LABEL_2"),
        ("not_entailment", "contradiction"),
        ("entailment", "Entailment"),
        ("entailment",),
    ],
)
def test_labels_without_a_single_entailment_class_are_an_error(judge_folder, labels):
    with pytest.raises(DataError) as error:
        Judge(judge_folder("roberta", labels))
    expected = f"judge: expected one label of several to be 'entailment', got {', '.join(labels)}"
    assert str(error.value) == expected


def test_a_template_is_filled_with_question_and_answer(tiny_roberta_mnli_folder):
    questions, answers = ["Who {sat}?", "What?"], ["A cat", "{answer}"]
    for template, expected in (
        ("{answer}", answers),
        ("{question} {answer}", ["Who {sat}? A cat", "What? {answer}"]),
        ('"{question}": it is {{{answer}}}.', ['"Who {sat}?": it is {A cat}.', '"What?": it is {{answer}}.']),
        ("{question}", questions),
    ):
        judge = Judge(tiny_roberta_mnli_folder, hypothesis=template)
        assert judge.make_hypotheses(questions, answers) == expected


@pytest.mark.parametrize(
    "template",
    ["", "yes", "{{answer}}", "{summary}", "{answer} {x}", "{}", "{0}", "{answer", "answer}", "{answer!r}"]
    + ["{answer:>9}", "{answer.title}", "{answer[0]}", "{ answer }", "{answer:{question}}", None],
)
def test_a_wrong_template_is_an_error(template):
    with pytest.raises(DataError, match=r"^hypothesis: .*expected a text with {answer}, {question} or both"):
        check_template(template)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("limit", [29, 32, 512])
def test_only_the_premise_is_cut_unless_the_hypothesis_fills_the_input(judge_folder, family, limit):
    judge = Judge(judge_folder(family), max_length=limit)
    short, long = "A cat sat.", "rain fell " * 200
    cut = judge._encode(long, short)["input_ids"]
    assert len(cut) == judge.max_length
    ids = judge.tokenizer(short, add_special_tokens=False)["input_ids"]
    assert cut[-len(ids) - 1 : -1] == ids, "the hypothesis must not be cut"
    assert judge.truncated == 1
    assert len(judge._encode(short, long)["input_ids"]) == judge.max_length
    assert len(judge._encode(long, long)["input_ids"]) == judge.max_length
    assert len(judge._encode("", long)["input_ids"]) == judge.max_length
    assert judge.truncated == 4
    untruncated = judge.tokenizer([""], [short])["input_ids"][0]
    assert sorted(judge._encode(short, "")["input_ids"]) == sorted(untruncated)
    assert judge.truncated == 4
    pairs = [(long, short), (short, long), (long, long), ("", long), ("", "")]
    assert all(0 <= p <= 1 for p in score(judge, pairs))


@pytest.mark.parametrize("family, length", [("roberta", 62), ("bert", 64), ("deberta", 64), ("bart", 64)])
def test_the_maximum_length_is_the_number_of_positions(judge_folder, family, length):
    assert Judge(judge_folder(family)).max_length == length


def test_a_special_token_in_a_text_is_plain_text(judge_folder):
    judge = Judge(judge_folder("bart"))  # BART expects the same number of `</s>` in all rows
    pairs = [("A cat </s> sat.", "<pad> cat"), ("A cat.", "cat")]
    assert len(score(judge, pairs)) == 2
    assert judge._encode(*pairs[0])["input_ids"].count(judge.tokenizer.eos_token_id) == 3


def test_logits_that_are_not_finite_are_an_error(tiny_roberta_mnli_folder):
    judge = Judge(tiny_roberta_mnli_folder)
    with torch.no_grad():
        judge.model.classifier.dense.weight.fill_(float("nan"))
    with pytest.raises(DataError, match="^judge: .*not finite in float32, expected dtype float32$"):
        score(judge, PAIRS)


def test_a_model_that_is_not_a_classifier_is_an_error(tiny_bart_folder, make_part, tokenizer, tmp_path):
    with pytest.raises(DataError, match="^judge: got a BartForConditionalGeneration .*Classification$"):
        Judge(tiny_bart_folder)
    # transformers adds a classifier with random weights to a base model; its labels may even be right.
    labels = {0: "entailment", 1: "contradiction"}
    BertForMaskedLM(make_part("bert", len(tokenizer), id2label=labels)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(DataError, match="^judge: got a BertForMaskedLM"):
        Judge(tmp_path)


def test_a_loaded_pair_is_used_unchanged(tiny_roberta_mnli_folder):
    model = AutoModelForSequenceClassification.from_pretrained(tiny_roberta_mnli_folder).double()
    judge = Judge((model, AutoTokenizer.from_pretrained(tiny_roberta_mnli_folder)))
    assert judge.model is model and model.dtype == torch.float64
    assert score(judge, PAIRS) == pytest.approx(score(Judge(tiny_roberta_mnli_folder), PAIRS), abs=2e-6)


def test_bfloat16_is_close_to_float32(tiny_roberta_mnli_folder):
    half = Judge(tiny_roberta_mnli_folder, dtype="bfloat16")
    assert half.model.dtype == torch.bfloat16
    assert score(half, PAIRS) == pytest.approx(score(Judge(tiny_roberta_mnli_folder), PAIRS), abs=0.05)


@pytest.mark.parametrize("settings", [{"batch_size": 0}, {"max_length": -1}, {"dtype": "half"}])
def test_a_value_out_of_range_is_an_error(tiny_roberta_mnli_folder, settings):
    with pytest.raises(DataError, match=f"^judge: {next(iter(settings))} is .*, expected "):
        Judge(tiny_roberta_mnli_folder, **settings)
