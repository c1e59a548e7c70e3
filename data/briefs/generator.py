"""
Generate the briefs, an embedded data set of short news reports.

A brief states 4 to 6 typed facts (who, what, when, where, how much, how many, why, how, how long, who pays)
of one event and omits others. Each stated fact can be asked for, so one passage has many question-prompted
summaries: the head of the story followed by the requested fact.

The splits differ by construction. Every value is a pair of words ("March" + "12", "Dorn" + "Harbor"), and a
rule on the pair assigns the value to one split. Validation and test therefore consist of values that never
occur in training, built from words that do. The words are in `crosstask.data.briefs.lexicon`; the words of a
second domain, which serves to adapt a model, are in `crosstask.data.briefs.farm`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from crosstask.data.briefs import farm, lexicon
from crosstask.data.briefs.fillers import iter_fillers
from crosstask.sentences_crosstask import split_sentences

TASKS = ("summarize", "answer", "fuse")
MATCHINGS = ("type", "name")
EVENTS: dict[str, dict[str, Any]] = {"news": lexicon.EVENTS, "farm": farm.EVENTS}  # by domain
DOMAINS = tuple(EVENTS)
FACT_TYPES = tuple(lexicon.CLAUSES)

# The positions of the two words of a value, added modulo `_NUM_CELLS`, give the value's cell, and the cell
# its split. Training has most cells: if it saw only few pairs, a model would learn which words never occur
# together.
_NUM_CELLS = 5
_SPLIT_CELLS = {"train": (0, 1, 2), "validation": (3,), "test": (4,)}
SPLITS = tuple(_SPLIT_CELLS)

# Shares of the rows of task "fuse". In the remaining rows the passage has no answer to the question.
_CARRIED_SHARE = 0.6  # the summary carries the answer
_WITHHELD_SHARE = 0.26  # the passage has the answer, the summary does not
_GENERIC_SHARE = 0.25  # the summary is the generic one, in each of the three groups of rows

_UNANSWERABLE_SHARE = 1 / 6  # rows of task "answer" without an answer
_FILLER_LIMIT = 48  # words; a passage that has as many gets no further filler sentence
_NUM_OMITTED_FACTS = 3  # facts that can be asked for although the passage omits them


@dataclass(frozen=True)
class Fact:
    """A value that can be asked for, with the clauses that state it and the questions that ask for it."""

    type: str
    value: str
    clauses: Sequence[str]  # summaries use the first one
    questions: Sequence[str]
    named: bool = False  # the clauses and questions name a person


@dataclass(frozen=True)
class Story:
    """A passage, the facts that it states and omits, and the two lead facts of its generic summary."""

    passage: str
    head: str
    stated: tuple[Fact, ...]
    building: Fact
    omitted: tuple[Fact, ...]
    lead: tuple[Fact, Fact]


def generate(
    task: str,
    split: str = "train",
    passages: int = 2000,
    seed: int = 0,
    questions: int = 4,
    matching: str = "type",
    domain: str = "news",
    words: int | Sequence[int] | None = None,
) -> Iterator[dict[str, Any]]:
    """
    Generate the rows of a task. The same arguments always give the same rows.

    Args:
        task (`str`):
            The purpose of the rows.

            - `"summarize"`: one row per passage, with a generic summary of two of its facts.
            - `"answer"`: up to `questions` rows per passage, each with an answer copied from the passage, or
              with an empty answer and the label 0 if the passage omits the fact (1 row in 6).
            - `"fuse"`: up to `questions` rows per passage, each with a summary and a label that says whether
              the summary carries the answer. The label is 1 if it does (60%) and 0 if the summary states
              another fact (26%) or the passage omits the fact (14%; the answer is empty). Neither the summary
              alone nor the question alone predicts the label.
        split (`str`, *optional*, defaults to `"train"`):
            `"train"`, `"validation"` or `"test"`. The passages of different splits share no value.
        passages (`int`, *optional*, defaults to 2000):
            Number of passages, at least 0. The rows of fewer passages are a prefix of the rows of more
            passages.
        seed (`int`, *optional*, defaults to 0):
            Any integer. Another seed gives other passages of the same split.
        questions (`int`, *optional*, defaults to 4):
            Maximum number of questions per passage, at least 1.
        matching (`str`, *optional*, defaults to `"type"`):
            How a question selects its fact. `"type"`: a passage has at most one fact of each type. `"name"`,
            which is harder: a passage has facts of the same types about three people, and the question names
            the person.
        domain (`str`, *optional*, defaults to `"news"`):
            Topic of the stories: events in towns (`"news"`) or on farms (`"farm"`).
        words (`int` or `list[int]`, *optional*):
            Minimum number of words of a passage, or a range of which each passage draws its own. Its facts
            are spread over as many filler sentences, in their order and behind the opening. By default,
            passages have about 50 words.

    Returns:
        `Iterator[dict]`: Rows with the strings `id`, `source`, `passage`, `question`, `answer` and `summary`
        (empty where the task has none) and the label `answerable` (0, 1 or `None`).

    Raises:
        ValueError: If an argument is not as described.
    """
    for name, value, choices in (
        ("task", task, TASKS),
        ("split", split, SPLITS),
        ("matching", matching, MATCHINGS),
        ("domain", domain, DOMAINS),
    ):
        if value not in choices:
            raise ValueError(f"{name} is {value!r}, expected one of {', '.join(choices)}")
    for name, number, minimum in (
        ("passages", passages, 0),
        ("questions", questions, 1),
        ("seed", seed, None),
    ):
        if type(number) is not int or minimum is not None and number < minimum:
            expected = "an integer" if minimum is None else f"an integer of at least {minimum}"
            raise ValueError(f"{name} is {number!r}, expected {expected}")
    lengths = [0, 0] if words is None else [words, words] if isinstance(words, int) else list(words)
    if words is not None and (
        [type(length) for length in lengths] != [int, int] or not 1 <= lengths[0] <= lengths[1]
    ):
        raise ValueError(f"words is {words!r}, expected an integer of at least 1, or the ends of a range")
    return _iter_rows(task, split, passages, seed, questions, matching, domain, lengths)


def _iter_rows(
    task: str,
    split: str,
    passages: int,
    seed: int,
    questions: int,
    matching: str,
    domain: str,
    lengths: Sequence[int],
) -> Iterator[dict[str, Any]]:
    prefix = "briefs" if domain == "news" else f"briefs-{domain}"
    for index in range(passages):
        # One random generator per passage makes the rows of fewer passages a prefix of the rows of more
        # passages. A seed that is a string does not depend on PYTHONHASHSEED.
        key = f"{matching} {split} {seed} {index}" + ("" if domain == "news" else f" {domain}")
        story = _STORY_MAKERS[matching](Random(key), split, EVENTS[domain])
        if lengths[1]:
            filler_rng = Random(f"{key} fillers")
            story = _lengthen(filler_rng, story, filler_rng.randint(*lengths))
        story_id = f"{prefix}-{split}-{index:06d}"
        for number, columns in enumerate(_ROW_MAKERS[task](Random(f"{key} {task}"), story, questions)):
            yield {
                "id": story_id if task == "summarize" else f"{story_id}-q{number}",
                "source": "briefs",
                "passage": story.passage,
                "question": "",
                "answer": "",
                "summary": "",
                "answerable": None,
                **columns,
            }


# --- Rows of a story ------------------------------------------------------------------------------


def _make_summarize_rows(rng: Random, story: Story, questions: int) -> Iterator[dict[str, Any]]:
    yield {"summary": _write_summary(rng, story, story.lead)}


def _make_answer_rows(rng: Random, story: Story, questions: int) -> Iterator[dict[str, Any]]:
    # Only this task asks for the building, since every summary names it. These easy questions teach a small
    # model to copy, which it has to learn before it can learn what to copy.
    stated, omitted = _shuffle(rng, (*story.stated, story.building)), _shuffle(rng, story.omitted)
    for _ in range(questions):
        unanswerable = rng.random() < _UNANSWERABLE_SHARE
        pool = omitted if unanswerable else stated
        if pool:
            fact = pool.pop()
            answer, label = ("", 0) if unanswerable else (fact.value, None)
            yield {"question": rng.choice(fact.questions), "answer": answer, "answerable": label}


def _make_fuse_rows(rng: Random, story: Story, questions: int) -> Iterator[dict[str, Any]]:
    stated, omitted = _shuffle(rng, story.stated), _shuffle(rng, story.omitted)
    for _ in range(questions):
        draw = rng.random()
        unanswerable = draw >= _CARRIED_SHARE + _WITHHELD_SHARE
        pool = omitted if unanswerable else stated
        if pool:
            fact = pool.pop()
            carried = draw < _CARRIED_SHARE
            yield {
                "question": rng.choice(fact.questions),
                "answer": "" if unanswerable else fact.value,
                "summary": _write_summary(rng, story, _choose_summary_facts(rng, story, fact, carried)),
                "answerable": int(carried),
            }


_ROW_MAKERS: dict[str, Callable[[Random, Story, int], Iterator[dict[str, Any]]]] = {
    "summarize": _make_summarize_rows,
    "answer": _make_answer_rows,
    "fuse": _make_fuse_rows,
}


def _choose_summary_facts(rng: Random, story: Story, fact: Fact, carried: bool) -> Sequence[Fact]:
    """
    Choose the facts of a summary for a question about `fact`: the two lead facts, or a single fact.

    The kind of the summary must not predict the label. Drawing the requested fact first and then any summary
    that fits would make generic summaries, and summaries of lead facts, more frequent under one label than
    under the other. With the probabilities below, both labels have the same shares. For a passage with n
    facts, 2 of them lead facts, and g = `_GENERIC_SHARE`: a share of g are generic summaries, 2/n - g are
    summaries of one lead fact, and 1 - 2/n are summaries of another fact.
    """
    n, g = len(story.stated), _GENERIC_SHARE
    is_lead = fact in story.lead
    if carried:
        generic = is_lead and rng.random() < g * n / 2
        return story.lead if generic else (fact,)
    if fact in story.stated:
        generic = not is_lead and rng.random() < g * n / (n - 2)
    else:
        generic = rng.random() < g
    if generic:
        return story.lead
    use_lead = rng.random() < (2 / n - g) / (1 - g)
    candidates = [other for other in story.stated if other != fact and (other in story.lead) == use_lead]
    return (rng.choice(candidates),)


def _write_summary(rng: Random, story: Story, facts: Sequence[Fact]) -> str:
    """Return the head of the story and one or two facts in one sentence."""
    head = story.head + _format_place_and_day(facts)
    clauses = [_fill_clause(fact, fact.clauses[0]) for fact in facts if not _fits_head(fact)]
    link = rng.choice((", and ", "; "))
    if not clauses:
        return _format_sentence(head + rng.choice((", local radio reported", ", officials said")))
    if len(clauses) == 1:
        return _format_sentence(head + link + clauses[0])
    return _format_sentence(f"{head}{'; ' if link == '; ' else ', '}{clauses[0]}, and {clauses[1]}")


# --- Stories --------------------------------------------------------------------------------------


def _make_type_story(rng: Random, split: str, events: dict[str, Any]) -> Story:
    event = events[rng.choice(tuple(events))]
    num_stated = rng.randint(4, 6)
    facts: list[Fact] = []
    for fact_type in rng.sample(FACT_TYPES, num_stated + _NUM_OMITTED_FACTS):
        clauses, questions = event.get(fact_type, ([], []))
        questions = (*questions, *lexicon.QUESTIONS[fact_type])
        facts.append(
            Fact(
                type=fact_type,
                value=_draw_distinct_value(rng, split, fact_type, event, [fact.value for fact in facts]),
                clauses=[*clauses, *lexicon.CLAUSES[fact_type]],
                questions=[question.format(e=event["name"]) for question in questions],
            )
        )
    lead = sorted(facts[:num_stated], key=lambda fact: event["lead"].index(fact.type))[:2]
    return _write_story(rng, split, event, facts, num_stated, lead)


def _make_name_story(rng: Random, split: str, events: dict[str, Any]) -> Story:
    event = events[rng.choice(tuple(events))]
    # A person may stay for any duration. The durations of one event are too few for three people in
    # validation and test.
    event = {**event, "words": {k: v for k, v in event["words"].items() if k != "duration"}}
    names: list[str] = []
    while len(names) < 3:
        names.append(_draw_distinct_value(rng, split, "who", event, names))
    # Three people with the same two types of facts, so that omitted facts have the type of stated facts.
    facts: list[Fact] = []
    for fact_type in rng.sample(tuple(lexicon.PEOPLE), 2):
        clauses, questions = lexicon.PEOPLE[fact_type]
        for name in names:
            taken = [*names, *(fact.value for fact in facts)]
            facts.append(
                Fact(
                    type=fact_type,
                    value=_draw_distinct_value(rng, split, fact_type, event, taken),
                    clauses=[clause.replace("{n}", name) for clause in clauses],
                    questions=[question.format(n=name) for question in questions],
                    named=True,
                )
            )
    facts = _shuffle(rng, facts)
    introduction = [rng.choice(lexicon.PEOPLE_INTRODUCTIONS).format(e=event["name"])]
    return _write_story(rng, split, event, facts, rng.randint(4, 5), facts[:2], introduction)


_STORY_MAKERS: dict[str, Callable[[Random, str, dict[str, Any]], Story]] = {
    "type": _make_type_story,
    "name": _make_name_story,
}


def _write_story(
    rng: Random,
    split: str,
    event: dict[str, Any],
    facts: Sequence[Fact],
    num_stated: int,
    lead: Sequence[Fact],
    introduction: Sequence[str] = (),
) -> Story:
    """Write a passage that states the first `num_stated` facts in their order, with fillers between."""
    stated = facts[:num_stated]
    in_head = [fact for fact in stated if _fits_head(fact) and rng.random() < 0.5]
    clauses = [_fill_clause(fact, rng.choice(fact.clauses)) for fact in stated if fact not in in_head]
    body = [_maybe_attribute(rng, clause) for clause in clauses]
    if rng.random() < 0.5:
        body[-2:] = [f"{body[-2]}, and {clauses[-1]}"]
    building = _draw_value(rng, split, "building", event)
    opening = [rng.choice(event["heads"]).format(s=building) + _format_place_and_day(in_head), *introduction]
    fillers = [rng.choice(event["fillers"]), *rng.sample(lexicon.FILLERS, 2)]
    if rng.random() < 0.1:
        opening.insert(0, fillers.pop(0))
    for filler in fillers:
        if sum(len(text.split()) for text in (*opening, *body)) < _FILLER_LIMIT:
            body.insert(rng.randrange(len(body) + 1), filler)
    return Story(
        passage=" ".join(_format_sentence(text) for text in (*opening, *body)),
        head=event["heads"][0].format(s=building),
        stated=tuple(stated),
        building=Fact(
            type="building",
            value=building,
            clauses=event["heads"],
            questions=[question.format(e=event["name"]) for question in lexicon.BUILDING_QUESTIONS],
        ),
        omitted=tuple(facts[num_stated:]),
        lead=(lead[0], lead[1]),
    )


def _lengthen(rng: Random, story: Story, words: int) -> Story:
    """Return the story with filler sentences between those of its passage, up to a number of words."""
    opening, *sentences = split_sentences(story.passage)
    fillers, count = [], len(story.passage.split())
    for filler in iter_fillers(rng):
        if count >= words:
            break
        fillers.append(_format_sentence(filler))
        count += len(filler.split())
    positions = sorted(rng.randrange(len(fillers) + 1) for _ in sentences)
    for position, sentence in reversed(list(zip(positions, sentences, strict=True))):
        fillers.insert(position, sentence)
    return replace(story, passage=" ".join([opening, *fillers]))


def _maybe_attribute(rng: Random, clause: str) -> str:
    return f"{rng.choice(lexicon.ATTRIBUTIONS)} {clause}" if rng.random() < 0.1 else clause


def _fits_head(fact: Fact) -> bool:
    return fact.type in ("where", "when") and not fact.named


def _format_place_and_day(facts: Sequence[Fact]) -> str:
    """Return the end of a head, such as " in Dorn Harbor on March 12", or "" without a place and a day."""
    values = {fact.type: fact.value for fact in facts if _fits_head(fact)}
    place = f" in {values['where']}" if "where" in values else ""
    return place + (f" on {values['when']}" if "when" in values else "")


def _fill_clause(fact: Fact, clause: str) -> str:
    return clause.replace("{v}", fact.value)


def _format_sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


# --- Values ---------------------------------------------------------------------------------------


def _draw_distinct_value(
    rng: Random, split: str, fact_type: str, event: dict[str, Any], taken: Sequence[str]
) -> str:
    """
    Draw a value that neither contains a value in `taken` nor is contained in one.

    Otherwise the summary of one fact could carry the answer to a question about another fact.
    """
    while True:
        value = _draw_value(rng, split, fact_type, event)
        text = _strip_punctuation(value)
        if not any(text in other or other in text for other in map(_strip_punctuation, taken)):
            return value


def _strip_punctuation(text: str) -> str:
    return re.sub(r"[^a-z0-9 ]", "", text.lower())


def _draw_value(rng: Random, split: str, fact_type: str, event: dict[str, Any]) -> str:
    """Draw a pair of words that fits the event and belongs to the split."""
    pair_type = rng.choice(("date", "weekday")) if fact_type == "when" else fact_type
    lefts, rights = _WORD_PAIRS[pair_type]
    suitable = event["words"].get(pair_type, rights)
    left, right = rng.choice(
        [
            (left, right)
            for j, right in enumerate(rights)
            for i, left in enumerate(lefts)
            if right in suitable and (i + j) % _NUM_CELLS in _SPLIT_CELLS[split]
        ]
    )
    return right.format(left) if "{}" in right else f"{left} {right}"


def _collect_right_words(pair_type: str) -> list[str]:
    """Return the distinct right words of all events. A word's position must not depend on the event."""
    words = (
        word for events in EVENTS.values() for event in events.values() for word in event["words"][pair_type]
    )
    return list(dict.fromkeys(words))


_WORD_PAIRS: dict[str, tuple[Sequence[str], Sequence[str]]] = {
    "who": (lexicon.FIRST_NAMES, lexicon.SURNAMES),
    "where": (lexicon.TOWN_STARTS, lexicon.TOWN_ENDS),
    "payer": (lexicon.BODY_NAMES, lexicon.BODIES),
    "date": (lexicon.DAYS, lexicon.MONTHS),
    "weekday": (lexicon.WEEKDAYS, lexicon.HOURS),
    "cost": (lexicon.SUMS, lexicon.SCALES),
    "count": (lexicon.HEADCOUNTS, _collect_right_words("count")),
    "duration": (lexicon.NUMBERS, _collect_right_words("duration")),
    "what": (lexicon.THING_ADJECTIVES, _collect_right_words("what")),
    "why": (lexicon.CAUSE_ADJECTIVES, _collect_right_words("why")),
    "how": (lexicon.TOOL_ADJECTIVES, _collect_right_words("how")),
    "building": (lexicon.BUILDING_ADJECTIVES, _collect_right_words("building")),
}


def _shuffle(rng: Random, items: Sequence[Any]) -> list[Any]:
    return rng.sample(items, len(items))
