"""Briefs: an embedded data set of generated news, small and regular enough to learn on a CPU.

A brief tells 4 to 6 typed facts (who, what, when, where, how much, how many, why, how, how long,
who pays) of one event, and leaves others out. Every fact can be asked for, so one passage has many
question-prompted summaries: the head of the story and the fact that was asked for.

The splits differ by construction. Every value is a pair of words ("March" + "12", "Dorn" +
"Harbor"), and a rule on the pair gives it to one split: validation and test consist of values that
training never shows, made of words that it does. The words are in `crosstask.data.briefs.lexicon`, and those
of a second domain, to adapt a model to, in `crosstask.data.briefs.farm`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from crosstask.data.briefs import farm as briefs_farm
from crosstask.data.briefs import lexicon

TASKS = ("summarize", "answer", "fuse")
MATCHINGS = ("type", "name")
EVENTS = {"news": lexicon.EVENTS, "farm": briefs_farm.EVENTS}  # by domain
DOMAINS = tuple(EVENTS)
TYPES = tuple(lexicon.CLAUSES)

# A pair of words belongs to the split that has the sum of their positions modulo `_CELLS`. Most are for
# training: from few pairs, a model learns which words never meet.
_CELLS = 5
_SPLIT_CELLS = {"train": (0, 1, 2), "validation": (3,), "test": (4,)}
SPLITS = tuple(_SPLIT_CELLS)

# The rows of task "fuse": how many carry their answer, withhold it, or have none to carry, and how
# many of each show the generic summary.
_CARRIED, _WITHHELD, _GENERIC = 0.6, 0.26, 0.25
_UNANSWERABLE = 1 / 6  # the rows of task "answer" that have none
_ENOUGH_WORDS = 48  # a passage gets no more fillers from there on
_UNTOLD = 3  # the facts left out of a passage that may be asked for


@dataclass(frozen=True)
class Fact:
    """A value that can be asked for, and the texts that tell it and ask for it."""

    type: str
    value: str
    clauses: Sequence[str]  # the first one is the summary's
    questions: Sequence[str]
    named: bool = False


@dataclass(frozen=True)
class Story:
    """A passage with what it tells, what it leaves out, and what a generic summary keeps of it."""

    passage: str
    head: str
    told: tuple[Fact, ...]
    building: Fact
    untold: tuple[Fact, ...]
    lead: tuple[Fact, Fact]


def generate(
    task: str,
    split: str = "train",
    passages: int = 2000,
    seed: int = 0,
    questions: int = 4,
    matching: str = "type",
    domain: str = "news",
) -> Iterator[dict[str, Any]]:
    """Generate the rows of a task. The same arguments always give the same rows.

    Args:
        task: What the rows are for.
            - "summarize": a row a passage, with a generic summary of two of its facts.
            - "answer": up to `questions` rows a passage, with an answer copied from it, or "" and
              label 0 where the passage does not tell (1 row in 6).
            - "fuse": up to `questions` rows a passage, each with a summary and the label whether
              that summary carries the answer: 1 (60%) where it does; 0 where it is about another
              fact (26%) or the passage does not tell (14%; the answer is ""). Neither the summary
              alone nor the question alone tells anything about the label.
        split: "train", "validation" or "test"; their passages share no value.
        passages: The number of passages, at least 0. Fewer are a prefix of more.
        seed: Any whole number. It gives other passages of the same split.
        questions: The most questions that are asked about a passage, at least 1.
        matching: What the question selects its fact by. "type": each passage has one fact of a type
            at most. "name", the harder one: three people with facts of the same types; the question
            names the person.
        domain: What the stories are about: events in towns ("news") or on farms ("farm").

    Returns:
        An iterator of dicts with the strings `id`, `source`, `passage`, `question`, `answer` and
        `summary` ("" where the task has none) and the label `answerable` (0, 1 or None).

    Raises:
        ValueError: If an argument is not as described.
    """
    for name, value, allowed in (
        ("task", task, TASKS),
        ("split", split, SPLITS),
        ("matching", matching, MATCHINGS),
        ("domain", domain, DOMAINS),
    ):
        if value not in allowed:
            raise ValueError(f"{name} is {value!r}, expected one of {', '.join(allowed)}")
    for name, value, least in (
        ("passages", passages, 0),
        ("questions", questions, 1),
        ("seed", seed, None),
    ):
        if type(value) is not int or least is not None and value < least:
            expected = "a whole number" if least is None else f"a whole number from {least}"
            raise ValueError(f"{name} is {value!r}, expected {expected}")
    return _generate(task, split, passages, seed, questions, matching, domain)


def _generate(
    task: str, split: str, passages: int, seed: int, questions: int, matching: str, domain: str
) -> Iterator[dict[str, Any]]:
    source = "briefs" if domain == "news" else f"briefs-{domain}"
    for index in range(passages):
        # A generator for each passage makes fewer passages a prefix of more; a string seeds it
        # independently of PYTHONHASHSEED.
        key = f"{matching} {split} {seed} {index}" + ("" if domain == "news" else f" {domain}")
        story = _STORIES[matching](Random(key), split, EVENTS[domain])
        name = f"{source}-{split}-{index:06d}"
        for number, columns in enumerate(_TASKS[task](Random(f"{key} {task}"), story, questions)):
            yield {
                "id": name if task == "summarize" else f"{name}-q{number}",
                "source": "briefs",
                "passage": story.passage,
                "question": "",
                "answer": "",
                "summary": "",
                "answerable": None,
                **columns,
            }


# --- Rows of a story ------------------------------------------------------------------------------


def _summarize(rng: Random, story: Story, questions: int) -> Iterator[dict[str, Any]]:
    yield {"summary": _summary(rng, story, story.lead)}


def _answer(rng: Random, story: Story, questions: int) -> Iterator[dict[str, Any]]:
    # Every summary names the building, so that only this task can ask for it. These easy questions
    # teach a small model to copy, which it needs before it can learn what to copy.
    told, untold = _shuffled(rng, (*story.told, story.building)), _shuffled(rng, story.untold)
    for _ in range(questions):
        absent = rng.random() < _UNANSWERABLE
        pool = untold if absent else told
        if pool:
            fact = pool.pop()
            answer, label = ("", 0) if absent else (fact.value, None)
            yield {"question": rng.choice(fact.questions), "answer": answer, "answerable": label}


def _fuse(rng: Random, story: Story, questions: int) -> Iterator[dict[str, Any]]:
    told, untold = _shuffled(rng, story.told), _shuffled(rng, story.untold)
    for _ in range(questions):
        draw = rng.random()
        absent = draw >= _CARRIED + _WITHHELD
        pool = untold if absent else told
        if pool:
            fact = pool.pop()
            carried = draw < _CARRIED
            yield {
                "question": rng.choice(fact.questions),
                "answer": "" if absent else fact.value,
                "summary": _summary(rng, story, _facts_of_summary(rng, story, fact, carried)),
                "answerable": int(carried),
            }


def _facts_of_summary(rng: Random, story: Story, fact: Fact, carried: bool) -> Sequence[Fact]:
    """Choose what the summary beside a question about `fact` tells: the lead, or a single fact.

    If the asked fact were drawn first and any fitting summary then, generic summaries and summaries
    of lead facts would be commoner under one label than under the other. The odds below give both
    labels the same shares, for a passage of n facts of which 2 lead: g generic summaries in all,
    2/n - g summaries of one lead fact, and 1 - 2/n of another fact.
    """
    n, g = len(story.told), _GENERIC
    leads = fact in story.lead
    if carried:
        generic = leads and rng.random() < g * n / 2
        return story.lead if generic else (fact,)
    if fact in story.told:
        generic = not leads and rng.random() < g * n / (n - 2)
    else:
        generic = rng.random() < g
    if generic:
        return story.lead
    of_lead = rng.random() < (2 / n - g) / (1 - g)
    others = [o for o in story.told if o != fact and (o in story.lead) == of_lead]
    return (rng.choice(others),)


_TASKS: dict[str, Callable[[Random, Story, int], Iterator[dict[str, Any]]]] = {
    "summarize": _summarize,
    "answer": _answer,
    "fuse": _fuse,
}


def _summary(rng: Random, story: Story, facts: Sequence[Fact]) -> str:
    """The head of the story with some facts, in one sentence."""
    head = story.head + _at(facts)
    clauses = [_tell(fact, fact.clauses[0]) for fact in facts if not _fits_head(fact)]
    link = rng.choice((", and ", "; "))
    if not clauses:
        return _sentence(head + rng.choice((", local radio reported", ", officials said")))
    if len(clauses) == 1:
        return _sentence(head + link + clauses[0])
    return _sentence(f"{head}{'; ' if link == '; ' else ', '}{clauses[0]}, and {clauses[1]}")


# --- Stories --------------------------------------------------------------------------------------


def _type_story(rng: Random, split: str, events: dict[str, Any]) -> Story:
    event = events[rng.choice(tuple(events))]
    count = rng.randint(4, 6)
    facts: list[Fact] = []
    for kind in rng.sample(TYPES, count + _UNTOLD):
        clauses, questions = event.get(kind, ([], []))
        facts.append(
            Fact(
                type=kind,
                value=_new_value(rng, split, kind, event, [fact.value for fact in facts]),
                clauses=[*clauses, *lexicon.CLAUSES[kind]],
                questions=[
                    question.format(e=event["name"]) for question in (*questions, *lexicon.QUESTIONS[kind])
                ],
            )
        )
    lead = sorted(facts[:count], key=lambda fact: event["lead"].index(fact.type))[:2]
    return _story(rng, split, event, facts, count, lead)


def _name_story(rng: Random, split: str, events: dict[str, Any]) -> Story:
    event = events[rng.choice(tuple(events))]
    # People stay as long as they like: what fits the event alone has too few values for three of
    # them in validation and test.
    event = {**event, "words": {k: v for k, v in event["words"].items() if k != "duration"}}
    names: list[str] = []
    while len(names) < 3:
        names.append(_new_value(rng, split, "who", event, names))
    # Three people by two types: the facts that are left out have the type of some that are told.
    facts: list[Fact] = []
    for kind in rng.sample(tuple(lexicon.PEOPLE), 2):
        clauses, questions = lexicon.PEOPLE[kind]
        for name in names:
            taken = [*names, *(fact.value for fact in facts)]
            facts.append(
                Fact(
                    type=kind,
                    value=_new_value(rng, split, kind, event, taken),
                    clauses=[clause.replace("{n}", name) for clause in clauses],
                    questions=[question.format(n=name) for question in questions],
                    named=True,
                )
            )
    facts = _shuffled(rng, facts)
    introduction = [rng.choice(lexicon.PEOPLE_INTRODUCTIONS).format(e=event["name"])]
    return _story(rng, split, event, facts, rng.randint(4, 5), facts[:2], introduction)


_STORIES: dict[str, Callable[[Random, str, dict[str, Any]], Story]] = {
    "type": _type_story,
    "name": _name_story,
}


def _story(
    rng: Random,
    split: str,
    event: dict[str, Any],
    facts: Sequence[Fact],
    count: int,
    lead: Sequence[Fact],
    introduction: Sequence[str] = (),
) -> Story:
    """Write a passage that tells the first `count` facts in their order, with fillers between."""
    told = facts[:count]
    in_head = [fact for fact in told if _fits_head(fact) and rng.random() < 0.5]
    clauses = [_tell(fact, rng.choice(fact.clauses)) for fact in told if fact not in in_head]
    body = [_attributed(rng, clause) for clause in clauses]
    if rng.random() < 0.5:
        body[-2:] = [f"{body[-2]}, and {clauses[-1]}"]
    building = _draw(rng, split, "building", event)
    opening = [rng.choice(event["heads"]).format(s=building) + _at(in_head), *introduction]
    fillers = [rng.choice(event["fillers"]), *rng.sample(lexicon.FILLERS, 2)]
    if rng.random() < 0.1:
        opening.insert(0, fillers.pop(0))
    for filler in fillers:
        if sum(len(text.split()) for text in (*opening, *body)) < _ENOUGH_WORDS:
            body.insert(rng.randrange(len(body) + 1), filler)
    return Story(
        passage=" ".join(_sentence(text) for text in (*opening, *body)),
        head=event["heads"][0].format(s=building),
        told=tuple(told),
        building=Fact(
            type="building",
            value=building,
            clauses=event["heads"],
            questions=[question.format(e=event["name"]) for question in lexicon.BUILDING_QUESTIONS],
        ),
        untold=tuple(facts[count:]),
        lead=(lead[0], lead[1]),
    )


def _attributed(rng: Random, clause: str) -> str:
    return f"{rng.choice(lexicon.ATTRIBUTIONS)} {clause}" if rng.random() < 0.1 else clause


def _fits_head(fact: Fact) -> bool:
    return fact.type in ("where", "when") and not fact.named


def _at(facts: Sequence[Fact]) -> str:
    """Place and day as they end a head: " in Dorn Harbor on March 12"."""
    values = {fact.type: fact.value for fact in facts if _fits_head(fact)}
    place = f" in {values['where']}" if "where" in values else ""
    return place + (f" on {values['when']}" if "when" in values else "")


def _tell(fact: Fact, clause: str) -> str:
    return clause.replace("{v}", fact.value)


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


# --- Values ---------------------------------------------------------------------------------------


def _new_value(rng: Random, split: str, kind: str, event: dict[str, Any], taken: Sequence[str]) -> str:
    """Draw a value that neither holds nor lies within another one of the passage.

    Otherwise the summary of one fact could carry the answer to the question about another.
    """
    while True:
        value = _draw(rng, split, kind, event)
        plain = _plain(value)
        if not any(plain in other or other in plain for other in map(_plain, taken)):
            return value


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9 ]", "", text.lower())


def _draw(rng: Random, split: str, kind: str, event: dict[str, Any]) -> str:
    """Draw a value: two words that fit the event and whose pair belongs to the split."""
    if kind == "when":
        kind = rng.choice(("date", "weekday"))
    lefts, rights = _PAIRS[kind]
    fitting = event["words"].get(kind, rights)
    left, right = rng.choice(
        [
            (left, right)
            for j, right in enumerate(rights)
            for i, left in enumerate(lefts)
            if right in fitting and (i + j) % _CELLS in _SPLIT_CELLS[split]
        ]
    )
    return right.format(left) if "{}" in right else f"{left} {right}"


def _rights(kind: str) -> list[str]:
    """The right words of all events, each once: their positions must not depend on the event."""
    every = (word for events in EVENTS.values() for event in events.values() for word in event["words"][kind])
    return list(dict.fromkeys(every))


_PAIRS: dict[str, tuple[Sequence[str], Sequence[str]]] = {
    "who": (lexicon.FIRST_NAMES, lexicon.SURNAMES),
    "where": (lexicon.TOWN_STARTS, lexicon.TOWN_ENDS),
    "payer": (lexicon.BODY_NAMES, lexicon.BODIES),
    "date": (lexicon.DAYS, lexicon.MONTHS),
    "weekday": (lexicon.WEEKDAYS, lexicon.HOURS),
    "cost": (lexicon.SUMS, lexicon.SCALES),
    "count": (lexicon.HEADCOUNTS, _rights("count")),
    "duration": (lexicon.NUMBERS, _rights("duration")),
    "what": (lexicon.THING_ADJECTIVES, _rights("what")),
    "why": (lexicon.CAUSE_ADJECTIVES, _rights("why")),
    "how": (lexicon.TOOL_ADJECTIVES, _rights("how")),
    "building": (lexicon.BUILDING_ADJECTIVES, _rights("building")),
}


def _shuffled(rng: Random, items: Sequence[Any]) -> list[Any]:
    return rng.sample(items, len(items))
