"""The generated briefs: their rows, their splits, and labels that only the fusion can predict."""

import json
import os
import re
import subprocess
import sys
from collections import Counter, defaultdict
from functools import cache
from itertools import product

import pytest

from crosstask.data.briefs import MATCHINGS, SPLITS, TASKS, generate
from crosstask.data.briefs import generator as briefs

# Kinds of stories: what tells them apart.
KINDS = {"type": {"matching": "type"}, "name": {"matching": "name"}, "farm": {"domain": "farm"}}
COLUMNS = ["id", "source", "passage", "question", "answer", "summary", "answerable"]


@cache
def rows(task, split="train", passages=300, **options):
    return list(generate(task, split, passages=passages, **options))


def words(text):
    return re.findall(r"\w+|[^\w\s]", text)


def plain(text):
    return " ".join(re.sub(r"[^a-z0-9 ]", "", text.lower()).split())


# --- Rows -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("kind", KINDS)
def test_rows_have_the_schema(task, split, kind):
    made = rows(task, split, **KINDS[kind])
    assert len({row["id"] for row in made}) == len(made)
    for row in made:
        assert list(row) == COLUMNS
        assert all(isinstance(row[column], str) for column in COLUMNS[:-1])
        name = "briefs-farm" if kind == "farm" else "briefs"
        assert row["source"] == "briefs" and row["id"].startswith(f"{name}-{split}-")
        assert row["passage"].isascii() and row["summary"].isascii()
        assert "{" not in "".join(row[column] for column in COLUMNS[:-1])
        assert bool(row["question"]) == (task != "summarize")
        assert bool(row["summary"]) == (task != "answer")


def test_summarize_has_a_row_a_passage():
    made = rows("summarize")
    assert len(made) == len({row["passage"] for row in made}) == 300
    assert all(row["answer"] == "" and row["answerable"] is None for row in made)


def test_generic_summaries_carry_two_facts():
    summaries = {row["passage"]: row["summary"] for row in rows("summarize", passages=500)}
    answers = defaultdict(set)
    for row in rows("answer", passages=500, questions=40):
        # Every summary names the building: that is its head, and no fact that it picks.
        if row["answer"] and not row["question"].startswith("Which building"):
            answers[row["passage"]].add(row["answer"])
    for passage, summary in summaries.items():
        assert 4 <= len(answers[passage]) <= 6
        assert sum(answer in summary for answer in answers[passage]) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_copied_or_absent(kind):
    made = rows("answer", passages=1000, **KINDS[kind])
    absent = [row for row in made if not row["answer"]]
    assert 1 / 7 < len(absent) / len(made) < 1 / 5
    for row in made:
        assert row["answer"] in row["passage"]
        assert row["answerable"] == (None if row["answer"] else 0)
        assert len(row["answer"].split()) <= 6


@pytest.mark.parametrize("questions", [1, 4])
def test_questions_are_limited(questions):
    counts = Counter(row["passage"] for row in rows("fuse", questions=questions))
    assert max(counts.values()) == questions
    assert len(counts) == 300


@pytest.mark.parametrize("kind", KINDS)
def test_lengths(kind):
    for row in rows("fuse", passages=1000, **KINDS[kind]):
        assert 35 <= len(row["passage"].split()) <= 90
        assert 9 <= len(row["summary"].split()) <= 28


def test_a_passage_has_several_values_of_a_type_only_with_names():
    def most_money(matching):
        return max(row["passage"].count("$") for row in rows("summarize", matching=matching))

    assert most_money("type") == 1
    assert most_money("name") == 3
    for row in rows("fuse", matching="name"):
        assert re.search("|".join(briefs.lexicon.SURNAMES), row["question"])


# --- The same rows again --------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
def test_same_arguments_give_the_same_rows(task):
    assert list(generate(task, passages=50)) == list(generate(task, passages=50))
    assert list(generate(task, passages=50)) != list(generate(task, passages=50, seed=1))


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("kind", KINDS)
def test_fewer_passages_are_a_prefix(task, kind):
    fewer = list(generate(task, passages=20, **KINDS[kind]))
    assert fewer == rows(task, **KINDS[kind])[: len(fewer)]
    assert list(generate(task, passages=0)) == []


@pytest.mark.parametrize("hash_seed", ["0", "77"])
def test_hash_seed_does_not_matter(hash_seed):
    code = (
        "import json; from crosstask.data.briefs import generate;"
        "rows = [list(generate('fuse', passages=5, matching=m)) for m in ('type', 'name')];"
        "print(json.dumps(rows))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    printed = subprocess.run(
        [sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True
    ).stdout
    expected = [list(generate("fuse", passages=5, matching=matching)) for matching in MATCHINGS]
    assert json.loads(printed) == expected


def test_tasks_share_their_passages():
    passages = [list(dict.fromkeys(row["passage"] for row in rows(task))) for task in TASKS]
    assert passages[0] == passages[1] == passages[2]


# --- Splits ---------------------------------------------------------------------------------------


def split_pairs(kind):
    """All values of a kind that each split may have, by the rule and not by chance."""
    lefts, rights = briefs._PAIRS[kind]
    pairs = {split: set() for split in SPLITS}
    for (i, left), (j, right) in product(enumerate(lefts), enumerate(rights)):
        value = right.format(left) if "{}" in right else f"{left} {right}"
        for split in SPLITS:
            if (i + j) % briefs._CELLS in briefs._SPLIT_CELLS[split]:
                pairs[split].add(value)
    return pairs


@pytest.mark.parametrize("kind", briefs._PAIRS)
def test_splits_share_no_value(kind):
    pairs = split_pairs(kind)
    lefts, rights = briefs._PAIRS[kind]
    assert len(set(lefts)) == len(lefts) and len(set(rights)) == len(rights)
    assert all(pairs.values())
    assert sum(len(values) for values in pairs.values()) == len(set.union(*pairs.values()))


@pytest.mark.parametrize("kind", KINDS)
def test_every_answer_belongs_to_its_split(kind):
    for split in SPLITS:
        allowed = set().union(*(split_pairs(kind)[split] for kind in briefs._PAIRS))
        for seed in (0, 5):
            made = rows("answer", split, **KINDS[kind], seed=seed)
            assert {row["answer"] for row in made} - {""} <= allowed


@pytest.mark.parametrize("kind", KINDS)
def test_splits_share_no_passage(kind):
    passages = []
    for split in SPLITS:
        for seed in (0, 1):
            passages += {row["passage"] for row in rows("summarize", split, **KINDS[kind], seed=seed)}
    assert len(set(passages)) == len(passages) == 6 * 300


@pytest.mark.parametrize("kind", KINDS)
def test_training_has_every_word(kind):
    def vocabulary(split, passages):
        made = rows("fuse", split, passages=passages, **KINDS[kind])
        texts = (row[column] for row in made for column in ("passage", "question", "summary"))
        return {word for text in texts for word in words(text)}

    known = vocabulary("train", 2000)
    assert len(known) < 2500
    assert vocabulary("test", 1000) <= known
    assert vocabulary("validation", 1000) <= known


# --- Labels ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("kind", KINDS)
def test_labels_are_true(split, kind):
    for row in rows("fuse", split, passages=1000, **KINDS[kind]):
        if row["answerable"]:
            assert row["answer"] and row["answer"] in row["summary"]
        elif row["answer"]:
            assert plain(row["answer"]) not in plain(row["summary"])


@pytest.mark.parametrize("kind", KINDS)
def test_absent_answers_are_not_in_the_passage(kind):
    """No question is without answer in one row and has one in another row of the same passage."""
    answers = defaultdict(set)
    for row in rows("answer", passages=500, questions=40, **KINDS[kind]):
        answers[row["passage"], row["question"]].add(bool(row["answer"]))
    assert all(len(kinds) == 1 for kinds in answers.values())


@pytest.mark.parametrize("kind", KINDS)
def test_labels_are_balanced(kind):
    made = rows("fuse", passages=2000, **KINDS[kind])
    shares = Counter((row["answerable"], bool(row["answer"])) for row in made)
    assert 0.57 < shares[1, True] / len(made) < 0.64
    assert 0.22 < shares[0, True] / len(made) < 0.29
    assert 0.11 < shares[0, False] / len(made) < 0.17


def opening(row):
    return row["summary"].split()[:3]


def length(row):
    return len(row["summary"].split())


def punctuation(row):
    return re.sub(r"[^,;]", "", row["summary"])


def clause(row):
    """How the summary goes on after its head: the type of the fact that it tells."""
    return re.split("; | and |, ", row["summary"])[1].split()[:3]


def asked(row):
    """The question, which is no surface of the summary, without the names in it."""
    return re.sub(r"\b[A-Z][a-z]+ [A-Z][a-z]+\b", "", row["question"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("surface", [opening, length, punctuation, clause, asked])
def test_surfaces_do_not_give_the_label_away(surface, kind):
    votes = defaultdict(Counter)
    for row in rows("fuse", passages=4000, **KINDS[kind]):
        votes[str(surface(row))][row["answerable"]] += 1
    test = rows("fuse", "test", passages=1500, **KINDS[kind])
    base = sum(row["answerable"] for row in test) / len(test)
    hits = 0
    for row in test:
        seen = votes.get(str(surface(row)), Counter({1: 1}))
        hits += row["answerable"] == seen.most_common(1)[0][0]
    assert hits / len(test) < base + 0.02


@pytest.mark.parametrize("kind", KINDS)
def test_generic_summaries_are_as_common_under_either_label(kind):
    summaries = {row["passage"]: row["summary"] for row in rows("summarize", passages=4000, **KINDS[kind])}
    generic = {0: [], 1: []}
    for row in rows("fuse", passages=4000, **KINDS[kind]):
        # How its clauses are linked is drawn anew in every row: about half of them differ by it.
        generic[row["answerable"]].append(row["summary"] == summaries[row["passage"]])
    shares = [sum(same) / len(same) for same in generic.values()]
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
        ({"passages": -1}, "passages is -1, expected a whole number from 0"),
        ({"passages": 2.5}, "passages is 2.5, expected a whole number from 0"),
        ({"questions": 0}, "questions is 0, expected a whole number from 1"),
        ({"seed": "a"}, "seed is 'a', expected a whole number"),
    ],
)
def test_errors_come_at_the_call(arguments, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        generate(**{"task": "fuse", **arguments})


# --- Enough values --------------------------------------------------------------------------------


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("kind", briefs.lexicon.PEOPLE)
def test_three_people_find_different_values(split, kind):
    """Values are drawn until one is new: where a split had fewer than three, that would never end."""
    pairs = split_pairs("date" if kind == "when" else kind)[split]
    for event in (event for events in briefs.EVENTS.values() for event in events.values()):
        fitting = event["words"].get(kind, ()) if kind != "duration" else ()
        assert sum(not fitting or value.split()[-1] in fitting for value in pairs) >= 3


def test_the_second_domain_reads_otherwise_and_writes_with_the_words_of_the_first():
    def vocabulary(column, **kind):
        return {word for row in rows("fuse", passages=1000, **kind) for word in words(row[column])}

    known = set().union(*(vocabulary(column) for column in ("passage", "question", "summary")))
    assert vocabulary("summary", domain="farm") <= known
    assert len(vocabulary("passage", domain="farm") - known) > 50
    assert len(vocabulary("question", domain="farm") - known) > 5
