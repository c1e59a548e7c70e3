"""Test the generated briefs: rows, splits, and labels that need both the question and the summary."""

import json
import os
import re
import subprocess
import sys
from collections import Counter, defaultdict
from functools import cache
from itertools import product
from random import Random

import pytest

from crosstask.data.briefs import MATCHINGS, SPLITS, TASKS, generate, generator, lexicon
from crosstask.data.briefs.fillers import iter_fillers
from crosstask.sentences_crosstask import split_sentences

# Arguments of `generate` by kind of story.
KINDS = {"type": {"matching": "type"}, "name": {"matching": "name"}, "farm": {"domain": "farm"}}
COLUMNS = ["id", "source", "passage", "question", "answer", "summary", "answerable"]


@cache
def get_rows(task, split="train", passages=300, **options):
    return list(generate(task, split, passages=passages, **options))


def split_words(text):
    return re.findall(r"\w+|[^\w\s]", text)


def strip_punctuation(text):
    return " ".join(re.sub(r"[^a-z0-9 ]", "", text.lower()).split())


# --- Rows -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("kind", KINDS)
def test_rows_have_the_columns_of_the_schema(task, split, kind):
    rows = get_rows(task, split, **KINDS[kind])
    assert len({row["id"] for row in rows}) == len(rows)
    for row in rows:
        assert list(row) == COLUMNS
        assert all(isinstance(row[column], str) for column in COLUMNS[:-1])
        name = "briefs-farm" if kind == "farm" else "briefs"
        assert row["source"] == "briefs" and row["id"].startswith(f"{name}-{split}-")
        assert row["passage"].isascii() and row["summary"].isascii()
        assert "{" not in "".join(row[column] for column in COLUMNS[:-1])
        assert bool(row["question"]) == (task != "summarize")
        assert bool(row["summary"]) == (task != "answer")


def test_task_summarize_has_one_row_per_passage():
    rows = get_rows("summarize")
    assert len(rows) == len({row["passage"] for row in rows}) == 300
    assert all(row["answer"] == "" and row["answerable"] is None for row in rows)


def test_generic_summaries_carry_two_facts():
    summaries = {row["passage"]: row["summary"] for row in get_rows("summarize", passages=500)}
    answers = defaultdict(set)
    for row in get_rows("answer", passages=500, questions=40):
        # Every summary names the building, as it is in the head.
        if row["answer"] and not row["question"].startswith("Which building"):
            answers[row["passage"]].add(row["answer"])
    for passage, summary in summaries.items():
        assert 4 <= len(answers[passage]) <= 6
        assert sum(answer in summary for answer in answers[passage]) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_is_copied_from_the_passage_or_empty(kind):
    rows = get_rows("answer", passages=1000, **KINDS[kind])
    unanswerable = [row for row in rows if not row["answer"]]
    assert 1 / 7 < len(unanswerable) / len(rows) < 1 / 5
    for row in rows:
        assert row["answer"] in row["passage"]
        assert row["answerable"] == (None if row["answer"] else 0)
        assert len(row["answer"].split()) <= 6


@pytest.mark.parametrize("questions", [1, 4])
def test_the_number_of_questions_per_passage_is_limited(questions):
    counts = Counter(row["passage"] for row in get_rows("fuse", questions=questions))
    assert max(counts.values()) == questions
    assert len(counts) == 300


@pytest.mark.parametrize("kind", KINDS)
def test_lengths_of_passages_and_summaries(kind):
    for row in get_rows("fuse", passages=1000, **KINDS[kind]):
        assert 35 <= len(row["passage"].split()) <= 90
        assert 9 <= len(row["summary"].split()) <= 28


def test_only_matching_by_name_gives_a_passage_several_values_of_one_type():
    def max_amounts(matching):
        return max(row["passage"].count("$") for row in get_rows("summarize", matching=matching))

    assert max_amounts("type") == 1
    assert max_amounts("name") == 3
    for row in get_rows("fuse", matching="name"):
        assert re.search("|".join(lexicon.SURNAMES), row["question"])


# --- Reproducibility ------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
def test_the_same_arguments_give_the_same_rows(task):
    assert list(generate(task, passages=50)) == list(generate(task, passages=50))
    assert list(generate(task, passages=50)) != list(generate(task, passages=50, seed=1))


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_rows_of_fewer_passages_are_a_prefix(task, kind):
    prefix = list(generate(task, passages=20, **KINDS[kind]))
    assert prefix == get_rows(task, **KINDS[kind])[: len(prefix)]
    assert list(generate(task, passages=0)) == []


@pytest.mark.parametrize("hash_seed", ["0", "77"])
def test_the_rows_do_not_depend_on_the_hash_seed(hash_seed):
    code = (
        "import json; from crosstask.data.briefs import generate;"
        "rows = [list(generate('fuse', passages=5, matching=m)) for m in ('type', 'name')];"
        "print(json.dumps(rows))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    output = subprocess.run(
        [sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True
    ).stdout
    expected = [list(generate("fuse", passages=5, matching=matching)) for matching in MATCHINGS]
    assert json.loads(output) == expected


def test_all_tasks_have_the_same_passages():
    passages = [list(dict.fromkeys(row["passage"] for row in get_rows(task))) for task in TASKS]
    assert passages[0] == passages[1] == passages[2]


# --- Splits ---------------------------------------------------------------------------------------


def get_values_by_split(pair_type):
    """Return all values that each split may have by the rule, whether or not a passage has them."""
    lefts, rights = generator._WORD_PAIRS[pair_type]
    values = {split: set() for split in SPLITS}
    for (i, left), (j, right) in product(enumerate(lefts), enumerate(rights)):
        value = right.format(left) if "{}" in right else f"{left} {right}"
        for split in SPLITS:
            if (i + j) % generator._NUM_CELLS in generator._SPLIT_CELLS[split]:
                values[split].add(value)
    return values


@pytest.mark.parametrize("pair_type", generator._WORD_PAIRS)
def test_splits_share_no_value(pair_type):
    values = get_values_by_split(pair_type)
    lefts, rights = generator._WORD_PAIRS[pair_type]
    assert len(set(lefts)) == len(lefts) and len(set(rights)) == len(rights)
    assert all(values.values())
    assert sum(map(len, values.values())) == len(set.union(*values.values()))


@pytest.mark.parametrize("kind", KINDS)
def test_every_answer_belongs_to_its_split(kind):
    for split in SPLITS:
        allowed = set().union(*(get_values_by_split(name)[split] for name in generator._WORD_PAIRS))
        for seed in (0, 5):
            rows = get_rows("answer", split, **KINDS[kind], seed=seed)
            assert {row["answer"] for row in rows} - {""} <= allowed


@pytest.mark.parametrize("kind", KINDS)
def test_splits_share_no_passage(kind):
    passages = []
    for split in SPLITS:
        for seed in (0, 1):
            passages += {row["passage"] for row in get_rows("summarize", split, **KINDS[kind], seed=seed)}
    assert len(set(passages)) == len(passages) == 6 * 300


@pytest.mark.parametrize("kind", KINDS)
def test_training_has_every_word_of_the_other_splits(kind):
    def get_vocabulary(split, passages):
        rows = get_rows("fuse", split, passages=passages, **KINDS[kind])
        texts = (row[column] for row in rows for column in ("passage", "question", "summary"))
        return {word for text in texts for word in split_words(text)}

    training_words = get_vocabulary("train", 2000)
    assert len(training_words) < 2500
    assert get_vocabulary("test", 1000) <= training_words
    assert get_vocabulary("validation", 1000) <= training_words


# --- Labels ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_label_says_whether_the_summary_carries_the_answer(split, kind):
    for row in get_rows("fuse", split, passages=1000, **KINDS[kind]):
        if row["answerable"]:
            assert row["answer"] and row["answer"] in row["summary"]
        elif row["answer"]:
            assert strip_punctuation(row["answer"]) not in strip_punctuation(row["summary"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_question_without_an_answer_never_has_one_for_the_same_passage(kind):
    has_answer = defaultdict(set)
    for row in get_rows("answer", passages=500, questions=40, **KINDS[kind]):
        has_answer[row["passage"], row["question"]].add(bool(row["answer"]))
    assert all(len(values) == 1 for values in has_answer.values())


@pytest.mark.parametrize("kind", KINDS)
def test_labels_have_the_documented_shares(kind):
    rows = get_rows("fuse", passages=2000, **KINDS[kind])
    counts = Counter((row["answerable"], bool(row["answer"])) for row in rows)
    assert 0.57 < counts[1, True] / len(rows) < 0.64
    assert 0.22 < counts[0, True] / len(rows) < 0.29
    assert 0.11 < counts[0, False] / len(rows) < 0.17


def get_opening(row):
    return row["summary"].split()[:3]


def get_length(row):
    return len(row["summary"].split())


def get_punctuation(row):
    return re.sub(r"[^,;]", "", row["summary"])


def get_clause(row):
    """Return the words after the head of the summary, which depend on the type of its fact."""
    return re.split("; | and |, ", row["summary"])[1].split()[:3]


def get_question(row):
    """Return the question without the names of people."""
    return re.sub(r"\b[A-Z][a-z]+ [A-Z][a-z]+\b", "", row["question"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("feature", [get_opening, get_length, get_punctuation, get_clause, get_question])
def test_a_surface_feature_does_not_predict_the_label(feature, kind):
    votes = defaultdict(Counter)
    for row in get_rows("fuse", passages=4000, **KINDS[kind]):
        votes[str(feature(row))][row["answerable"]] += 1
    test = get_rows("fuse", "test", passages=1500, **KINDS[kind])
    majority_share = sum(row["answerable"] for row in test) / len(test)
    hits = 0
    for row in test:
        labels = votes.get(str(feature(row)), Counter({1: 1}))
        hits += row["answerable"] == labels.most_common(1)[0][0]
    assert hits / len(test) < majority_share + 0.02


@pytest.mark.parametrize("kind", KINDS)
def test_generic_summaries_are_equally_frequent_under_both_labels(kind):
    rows = get_rows("summarize", passages=4000, **KINDS[kind])
    summaries = {row["passage"]: row["summary"] for row in rows}
    is_generic = {0: [], 1: []}
    for row in get_rows("fuse", passages=4000, **KINDS[kind]):
        # About half of the generic summaries differ, because each row draws how the clauses are linked.
        is_generic[row["answerable"]].append(row["summary"] == summaries[row["passage"]])
    shares = [sum(values) / len(values) for values in is_generic.values()]
    assert min(shares) > 0.1
    assert abs(shares[0] - shares[1]) < 0.02


# --- Errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": "translate"}, "task is 'translate', expected one of summarize, answer, fuse"),
        ({"split": "dev"}, "split is 'dev', expected one of train, validation, test"),
        ({"matching": "place"}, "matching is 'place', expected one of type, name"),
        ({"domain": "sea"}, "domain is 'sea', expected one of news, farm"),
        ({"passages": -1}, "passages is -1, expected an integer of at least 0"),
        ({"passages": 2.5}, "passages is 2.5, expected an integer of at least 0"),
        ({"questions": 0}, "questions is 0, expected an integer of at least 1"),
        ({"seed": "a"}, "seed is 'a', expected an integer"),
        ({"words": 0}, "words is 0, expected an integer of at least 1, or the ends of a range"),
        ({"words": [9, 5]}, "words is [9, 5], expected an integer of at least 1, or the ends of a range"),
        ({"words": "9"}, "words is '9', expected an integer of at least 1, or the ends of a range"),
        ({"words": True}, "words is True, expected an integer of at least 1, or the ends of a range"),
    ],
)
def test_a_wrong_argument_is_an_error_before_the_first_row(arguments, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        generate(**{"task": "fuse", **arguments})


# --- Number of values -----------------------------------------------------------------------------


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("fact_type", lexicon.PEOPLE)
def test_each_split_has_values_for_three_people(split, fact_type):
    """The generator draws until a value is new, which would never end with fewer than three values."""
    values = get_values_by_split("date" if fact_type == "when" else fact_type)[split]
    for event in (event for events in generator.EVENTS.values() for event in events.values()):
        suitable = event["words"].get(fact_type, ()) if fact_type != "duration" else ()
        assert sum(not suitable or value.split()[-1] in suitable for value in values) >= 3


def test_the_farm_domain_has_new_words_in_passages_and_questions_but_not_in_summaries():
    def get_vocabulary(column, **kind):
        return {word for row in get_rows("fuse", passages=1000, **kind) for word in split_words(row[column])}

    news_words = set().union(*(get_vocabulary(column) for column in ("passage", "question", "summary")))
    assert get_vocabulary("summary", domain="farm") <= news_words
    assert len(get_vocabulary("passage", domain="farm") - news_words) > 50
    assert len(get_vocabulary("question", domain="farm") - news_words) > 5


# --- Long passages --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_long_passages_have_the_rows_of_short_ones(kind):
    short = get_rows("fuse", passages=100, **KINDS[kind])
    long = get_rows("fuse", passages=100, words=400, **KINDS[kind])
    for row, other in zip(short, long, strict=True):
        assert {**row, "passage": ""} == {**other, "passage": ""}
        assert 400 <= len(other["passage"].split()) < 420
        sentences = split_sentences(other["passage"])
        assert [s for s in split_sentences(row["passage"]) if s not in sentences] == []
        assert sentences[0] == split_sentences(row["passage"])[0]
        if row["answer"]:
            assert other["passage"].count(row["answer"]) == row["passage"].count(row["answer"])


def test_the_answers_of_long_passages_are_at_all_depths():
    rows = [row for row in get_rows("fuse", passages=400, words=400) if row["answer"]]
    depths = Counter(int(10 * row["passage"].index(row["answer"]) / len(row["passage"])) for row in rows)
    assert len(depths) == 10 and min(depths.values()) > len(rows) / 30


def test_each_passage_draws_its_length_from_a_range():
    lengths = {len(row["passage"].split()) for row in generate("summarize", passages=200, words=[50, 400])}
    assert min(lengths) < 90 and max(lengths) > 350 and len(lengths) > 100


def test_fillers_differ_and_contain_no_value():
    fillers = [filler for _, filler in zip(range(3000), iter_fillers(Random(0)), strict=False)]
    assert len(set(fillers)) > 2500
    text = " ".join(fillers).lower()
    for pair_type in generator._WORD_PAIRS:
        for values in get_values_by_split(pair_type).values():
            assert not [value for value in values if value.lower() in text]
