"""Passages and helpers that the tests of extractive systems share."""

import random

PASSAGE = (
    "The town council met on Monday to discuss the bridge. Many people came to the meeting. "
    "The bridge was built in 1901 and is closed to heavy traffic. A new bridge would cost ten million. "
    "Children sang a song in the hall. The council will vote on the new bridge in May. "
    "Heavy traffic now goes through the town. The song was about a cat."
)
ODD_PASSAGES = [
    "",
    " \n\n ",
    "One sentence.",
    "no stop at all",
    "... !!! ???",
    "Same here. Same here. SAME HERE. Same here. Same here.",
    "Two words. Other things.",
    "桥在五月三日开放。雨下了两天。",
    "Мост открылся в мае. Дождь шёл два дня. Река поднялась на метр. Мэр спал.",
    "🎉 🎊. 🎉🎉! 🐈?",
    "The of and. A the is. To be or not.",
]


def make_row(passage, question="What did the children sing about?", summary="", **columns):
    return {"passage": passage, "question": question, "summary": summary} | columns


def generate_texts(seed, count):
    """Yield passages and references from a small vocabulary, so that they share many words."""
    draw = random.Random(seed)
    words = "dogs dog ran runs in the park parks a cat sat on mat".split()
    for _ in range(count):
        sentences = [" ".join(draw.choices(words, k=draw.randint(2, 9))) for _ in range(7)]
        yield "! ".join(map(str.capitalize, sentences)), " ".join(draw.choices(words, k=draw.randint(1, 25)))
