"""Filler sentences for long briefs: they state nothing that a question asks for."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

# Each template takes one word group of each kind that it names: some 270,000 sentences. None of the words is
# part of a value of the lexicon, so that no filler contains an answer.
_TEMPLATES = (
    "{who} {did} {where}",
    "{who} {did} {where} {when}",
    "{when}, {who} {did} {where}",
    "{where}, {who} {did}",
    "{who} {did} because {why}",
    "{why}, so {who} {did}",
    "{who} {did} while {why}",
)
_GROUPS = {
    "who": (
        "a few neighbors",
        "an old man with a dog",
        "the baker",
        "children from the school",
        "a group of hikers",
        "the driver of a bus",
        "most of the shops",
        "a woman with an umbrella",
        "the cook",
        "several cyclists",
        "a painter",
        "the gardener",
        "some of the guests",
        "a family of tourists",
        "the man at the door",
        "everyone on the square",
        "a boy on a bicycle",
        "the owner of the kiosk",
        "a singer",
        "the people in line",
    ),
    "did": (
        "talked about the weather",
        "waited for news",
        "sat on the steps",
        "read the paper",
        "watched the birds",
        "looked for a seat",
        "ate a sandwich",
        "took the long way home",
        "asked for directions",
        "hummed a tune",
        "forgot the keys",
        "held a newspaper",
        "played cards",
        "carried a heavy bag",
        "told an old joke",
        "shared a bench",
        "fed the ducks",
        "missed the last train",
        "swept the leaves away",
        "slept badly",
    ),
    "where": (
        "near the fountain",
        "under the trees",
        "by the river",
        "on the corner",
        "behind the market",
        "at the window",
        "across the street",
        "in the shade",
        "along the wall",
        "beside the gate",
        "in front of the cafe",
        "on the platform",
    ),
    "when": (
        "as usual",
        "for a while",
        "after lunch",
        "before the rain",
        "once again",
        "all the same",
        "in the end",
        "from time to time",
    ),
    "why": (
        "the sun was shining",
        "the clouds were low",
        "nobody was in a hurry",
        "the clock had stopped",
        "the lights were on",
        "the wind had turned",
        "the benches were wet",
        "the music was loud",
        "the coffee was cold",
        "the road was empty",
    ),
}


def iter_fillers(rng: Random) -> Iterator[str]:
    """Yield random sentences without end, without a capital letter and a period."""
    while True:
        template = rng.choice(_TEMPLATES)
        yield template.format(**{name: rng.choice(groups) for name, groups in _GROUPS.items()})
