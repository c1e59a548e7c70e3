import random

import pytest
import torch
from system_specs import ROWS

from crosstask.eval.systems.crosstask import swap_questions
from crosstask.utils.errors import DataError


def test_the_probabilities_are_those_of_the_model(make, model, processor):
    outputs = make("cross-task").write(ROWS)
    for row, reference_probability, summary, summary_probability in zip(
        ROWS, outputs.reference_probabilities, outputs.summaries, outputs.summary_probabilities, strict=True
    ):
        texts = {name: row[name] for name in ("question", "passage", "summary")}
        with torch.no_grad():
            logits = model(**processor(**texts, return_tensors="pt")).answerability_logits
        assert logits.softmax(-1)[0, 1].item() == pytest.approx(reference_probability, abs=1e-5)
        inputs = processor(question=row["question"], passage=row["passage"], return_tensors="pt")
        output = model.generate(**inputs, max_new_tokens=5, return_dict_in_generate=True)
        assert processor.decode(output.sequences[0], skip_special_tokens=True).strip() == summary
        assert output.answerability.item() == pytest.approx(summary_probability, abs=1e-5)


@pytest.mark.parametrize("names", [("cross-task", "zeroed"), ("two vocabularies", "two zeroed")])
def test_zeroed_is_a_question_encoder_that_returns_zeros(make, monkeypatch, names):
    plain, zeroed = (make(name).write(ROWS) for name in names)
    system = make(names[0])

    def make_batch_of_silenced_model(model, processor, inputs, original=system._make_batch):
        model.question_encoder.register_forward_hook(
            lambda module, args, output: type(output)(last_hidden_state=output[0] * 0)
        )
        return original(model, processor, inputs)

    monkeypatch.setattr(system, "_make_batch", make_batch_of_silenced_model)
    silent = system.write(ROWS)
    assert zeroed.reference_probabilities == pytest.approx(silent.reference_probabilities)
    assert zeroed.summary_probabilities == pytest.approx(silent.summary_probabilities)
    assert zeroed.summaries == silent.summaries
    assert zeroed.reference_probabilities != pytest.approx(plain.reference_probabilities)


def test_swapped_is_the_model_with_another_question(make):
    swapped = make("swapped").write(ROWS)
    rows = [row | {"question": q} for row, q in zip(ROWS, swap_questions(ROWS), strict=True)]
    plain = make("cross-task").write(rows)
    assert swapped == plain
    assert swapped.summary_probabilities != pytest.approx(
        make("cross-task").write(ROWS).summary_probabilities
    )


def test_every_question_is_swapped_for_one_of_another_passage():
    rows = [{"passage": f"P{i % 3}", "question": f"Q{i}?"} for i in range(30)]
    rows += [{"passage": "P0", "question": "Q1?"}]
    swapped = dict(
        zip([(row["passage"], row["question"]) for row in rows], swap_questions(rows), strict=True)
    )
    for row in rows:
        asked = {candidate["question"] for candidate in rows if candidate["passage"] == row["passage"]}
        assert swapped[row["passage"], row["question"]] not in asked
    order = random.Random(0).sample(rows, len(rows))
    assert swap_questions(order) == [swapped[row["passage"], row["question"]] for row in order]
    assert len(set(swapped.values())) > 10
    assert swap_questions([]) == []


def test_questions_of_every_passage_are_swapped_for_each_other():
    rows = [{"passage": p, "question": q} for p in "abc" for q in ("Challenge?", "Approach?", "Outcome?")]
    swapped = swap_questions(rows)
    assert all(question != row["question"] for question, row in zip(swapped, rows, strict=True))
    with pytest.raises(DataError, match="every row asks 'Why\\?', expected another question"):
        swap_questions([{"passage": p, "question": "Why?"} for p in "ab"])
