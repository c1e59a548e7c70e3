import json
import math
import random
import shutil

import pytest
from safetensors.torch import load_file, save_file
from system_specs import PASSAGES, ROWS, SPECS
from transformers import PreTrainedModel

from crosstask.eval.systems import KINDS, make_system
from crosstask.eval.systems.checkpoints import get_revision
from crosstask.eval.systems.crosstask import CrossTask, swap_questions
from crosstask.eval.systems.lexrank import LexRank
from crosstask.utils.errors import DataError


@pytest.mark.parametrize("name", SPECS)
def test_order_and_batch_size_do_not_change_the_outputs(make, generate_inputs, name):
    rows = ROWS + [ROWS[0] | {"summary": "Another."}, ROWS[1] | {"question": "Who slept?"}]
    distinct_inputs = {
        "plain": 5,
        "swapped": len(set(zip(swap_questions(rows), PASSAGES + PASSAGES[:2], strict=True))),
    }.get(name, 6)
    expected = make(name, batch_size=16).write(rows)
    assert len(set(expected.summaries)) > 1
    has_probabilities = SPECS[name]["kind"] == "crosstask"
    assert (expected.summary_probabilities is not None) == has_probabilities
    assert (expected.reference_probabilities is not None) == has_probabilities
    order = random.Random(0).choices(range(7), k=20) + list(range(7))
    for size in (1, 3):
        del generate_inputs[:]
        updates = []
        outputs = make(name, batch_size=size).write([rows[index] for index in order], updates.append)
        assert outputs.summaries == [expected.summaries[index] for index in order]
        if has_probabilities:
            for field in ("reference_probabilities", "summary_probabilities"):
                values = [getattr(expected, field)[index] for index in order]
                assert getattr(outputs, field) == pytest.approx(values, abs=1e-6)
        assert sum(map(len, generate_inputs)) == distinct_inputs
        assert max(map(len, generate_inputs)) == size
        assert sum(updates) == 27


@pytest.mark.parametrize("name", SPECS)
def test_settings_determine_the_outputs_and_load_no_model(folders, make, monkeypatch, name):
    def fail(*args, **kwargs):
        raise AssertionError("loaded")

    monkeypatch.setattr(PreTrainedModel, "from_pretrained", fail)
    system = make(name)
    settings = json.loads(json.dumps(system.settings))
    assert settings["revision"] == get_revision(folders[SPECS[name]["model"]])
    assert settings["max_new_tokens"] == 5 and settings["kind"] == SPECS[name]["kind"]
    assert "batch_size" not in settings and settings == make(name, batch_size=3).settings
    assert settings != make(name, max_new_tokens=6).settings


@pytest.mark.parametrize("name", ["plain", "chat", "cross-task", "zeroed"])
def test_no_rows_give_no_outputs(make, name):
    outputs = make(name).write([])
    assert (
        outputs.summaries == [] and not outputs.reference_probabilities and not outputs.summary_probabilities
    )


def test_numbers_that_are_not_finite_are_refused(folders, tmp_path):
    for name in ("cross-task", "chat"):
        folder = shutil.copytree(folders[SPECS[name]["model"]], tmp_path / name)
        weights = load_file(folder / "model.safetensors")
        broken = "answerability_head.fc1.weight" if name == "cross-task" else "model.norm.weight"
        weights[broken] = weights[broken] * math.nan
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(DataError, match="returns numbers that are not finite in float64"):
            make_system(SPECS[name] | {"model": str(folder), "max_new_tokens": 5}).write(ROWS)


def test_a_question_without_room_has_an_empty_summary_and_probability_0(make):
    rows = [ROWS[0], ROWS[1] | {"question": "What rose? " * 60}]
    for name in ("with question", "cross-task", "two zeroed"):
        updates = []
        arguments = {"max_source_length": 96} if name == "with question" else {}
        outputs = make(name, **arguments).write(rows, updates.append)
        assert outputs.summaries[1] == "" and sum(updates) == 2
        if outputs.summary_probabilities is not None:
            assert outputs.summary_probabilities[1] == outputs.reference_probabilities[1] == 0
            assert outputs.summary_probabilities[0] > 0


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("seq2seq", "llama", "got a LlamaForCausalLM .*, expected a model of AutoModelForSeq2SeqLM"),
        ("seq2seq", "bert", "got a BertForMaskedLM"),
        ("chat", "seq2seq", "got a T5ForConditionalGeneration .*, expected a model of AutoModelForCausalLM"),
        ("chat", "bert", "got a BertForMaskedLM"),
        ("chat", "crosstask", "got a CrossTaskForConditionalGeneration"),
        ("crosstask", "seq2seq", "is a checkpoint of t5, expected one of crosstask"),
        ("crosstask", "gpt2", "got a GPT2LMHeadModel"),
    ],
)
def test_a_checkpoint_of_another_kind_is_refused_before_it_is_loaded(folders, kind, name, message):
    with pytest.raises(DataError, match=message):
        make_system({"kind": kind, "model": folders[name]})


@pytest.mark.parametrize("kind", ["seq2seq", "chat", "crosstask"])
def test_a_missing_checkpoint_is_refused(tmp_path, kind):
    for name in (str(tmp_path), "nobody/nothing"):
        with pytest.raises(DataError, match="cannot be loaded") as error:
            make_system({"kind": kind, "model": name})
        assert "\n" not in str(error.value)


def test_systems_are_made_from_recipes(make):
    assert make_system("lead").name == "lead-3"
    assert make_system("lead-2").settings == {"kind": "lead", "k": 2}
    assert make_system("oracle").settings == {"kind": "oracle", "k": 3}
    pytest.importorskip("sumy")
    lexrank = make_system({"kind": "lexrank", "k": 2, "question": True, "name": "central"})
    assert isinstance(lexrank, LexRank) and lexrank.name == "central"
    assert lexrank.settings == {"kind": "lexrank", "k": 2, "question": True, "d": 0.85}
    swapped = make("swapped")
    assert isinstance(swapped, CrossTask) and swapped.name == "cross-task, question swapped"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("leed-3", r"system 'leed' is unknown: expected .*; did you mean 'lead'\?"),
        ({"kind": "seq2sec"}, "did you mean 'seq2seq'"),
        ({"model": "x"}, f"has no kind, expected one of {', '.join(KINDS)}"),
        (None, "system None has no kind"),
        ("lead-0", "k is 0, expected a positive integer"),
        ({"kind": "lead", "sentences": 3}, "system lead: key 'sentences' is unknown: expected k, name"),
        ({"kind": "seq2seq", "model": "x", "num_beam": 4}, "did you mean 'num_beams'"),
        ({"kind": "seq2seq", "question": True}, "system seq2seq: needs a model"),
        ("chat", "system chat: needs a model"),
        ({"kind": "chat", "model": "x", "max_new_tokens": "many"}, "max_new_tokens is 'many'"),
        ({"kind": "crosstask", "model": "x", "ablation": "none"}, "ablation is 'none', expected None"),
        ({"kind": "chat", "model": "x", "dtype": "int8"}, "chat: dtype is 'int8', expected one of auto"),
        ({"kind": ["lead"]}, "system .* is unknown"),
    ],
)
def test_a_wrong_spec_is_refused(spec, message):
    with pytest.raises(DataError, match=message):
        make_system(spec)
