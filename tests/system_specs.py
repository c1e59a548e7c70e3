"""The rows and the systems that the tests of systems share."""

PASSAGES = [
    "The mayor opened the old bridge on May 3.",
    "Rain fell for two days, and the river rose by a meter while the mayor slept in the old town.",
    "A cat sat.",
    "The river rose.",
    "The bridge fell into the river on May 3, and it took two days to find the cat.",
]
QUESTIONS = ["Who opened the bridge?", "How long did it rain?", "Who sat?", "What rose?", "What fell?"]
SUMMARIES = ["The mayor opened it.", "It rained for two days in the old town.", "Sat.", "", "A bridge."]
ROWS = [
    {
        "question": question,
        "passage": passage,
        "summary": summary,
        "answer": " ".join(summary.split()[:1]),
        "answerable": 1,
        "id": "not an argument of the processor",
    }
    for question, passage, summary in zip(QUESTIONS, PASSAGES, SUMMARIES, strict=True)
]

# Arguments of `make_system`, with the name of a fixture folder as the model.
SPECS = {
    "plain": {"kind": "seq2seq", "model": "seq2seq"},
    "with question": {"kind": "seq2seq", "model": "seq2seq", "question": True},
    "chat": {"kind": "chat", "model": "llama"},
    "no template": {"kind": "chat", "model": "gpt2"},
    "cross-task": {"kind": "crosstask", "model": "crosstask"},
    "zeroed": {"kind": "crosstask", "model": "crosstask", "ablation": "zeroed"},
    "swapped": {"kind": "crosstask", "model": "crosstask", "ablation": "swapped"},
    "ranked": {"kind": "crosstask", "model": "crosstask", "num_beams": 3, "num_return_sequences": 3}
    | {"answerability_rerank": 2.0},
    "two vocabularies": {"kind": "crosstask", "model": "two vocabularies"},
    "two zeroed": {"kind": "crosstask", "model": "two vocabularies", "ablation": "zeroed"},
}
