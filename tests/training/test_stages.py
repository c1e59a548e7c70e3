"""Stages: what `datasets` pickles to encode rows, the encoded rows, and the checkpoint to resume from."""

import json

import pytest
from datasets import Dataset
from datasets.utils import _dill
from tiny_run import write_recipe

from crosstask import CrossTaskProcessor
from crosstask.data.schema import NO_ANSWER
from crosstask.training.arguments import read_recipe
from crosstask.training.loading import find_last_checkpoint
from crosstask.training.stages import Stage
from crosstask.utils.errors import DataError

COUNT = 4000


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    """The stages of a run on a file of 16 MB, with their rows read."""
    folder = tmp_path_factory.mktemp("stages")
    with open(folder / "rows.jsonl", "w") as file:
        for number in range(COUNT):
            row = {"id": f"r{number}", "passage": f"Rain fell on day {number}. " * 180, "question": "When?"}
            row |= {"answer": f"on day {number}", "summary": f"It rained on day {number}.", "answerable": 1}
            file.write(json.dumps(row) + "\n")
    recipe = read_recipe(write_recipe(folder, data=str(folder / "rows.jsonl"), data_options=None))
    stages = []
    stages += [Stage(name, recipe, stages) for name in recipe.stages]
    for stage in stages:
        stage.check_data()
    return stages


@pytest.fixture
def processor(tokenizer):
    return CrossTaskProcessor(tokenizer, max_source_length=64)


@pytest.fixture
def pickle_sizes(monkeypatch):
    """The size in bytes of each pickle that `datasets` makes."""
    sizes, dump = [], _dill.dump

    def measure(obj, file):
        start = file.tell()
        dump(obj, file)
        sizes.append(file.tell() - start)

    monkeypatch.setattr(_dill, "dump", measure)
    return sizes


def test_an_error_says_that_the_name_of_a_file_leaves_no_rows_to_train_on(tmp_path):
    path = tmp_path / "unit-test-questions.jsonl"
    row = {"question": "When?", "answer": "today", "summary": "It rained today.", "answerable": 1}
    lines = [json.dumps({"id": f"r{n}", "passage": f"Rain fell on day {n}.", **row}) for n in range(30)]
    path.write_text("\n".join(lines))
    recipe = read_recipe(write_recipe(tmp_path, data=str(path), data_options=None))
    with pytest.raises(DataError, match=f"test only; the name {path.name} means the split test, so rename"):
        Stage(list(recipe.stages)[0], recipe, []).check_data()


def test_encoding_does_not_pickle_the_rows(stages, processor, pickle_sizes):
    for stage in stages:
        rows = stage.rows["train"].select(range(10))
        pickle_sizes.clear()
        assert len(stage.encode(rows, processor)) == 10
        assert 0 < max(pickle_sizes) < 1e6
    # The spy sees what a function that closes over a stage would cost.
    stages[0].rows["train"].select(range(10)).map(lambda row: {"name": stages[0].name})
    assert max(pickle_sizes) > 10e6


def test_the_fingerprint_depends_on_rows_stage_and_processor(stages, processor, tokenizer):
    summarize, answer, fuse = stages
    rows = fuse.rows["train"].select(range(10))
    fingerprint = fuse.encode(rows, processor)._fingerprint
    assert fuse.encode(rows, processor)._fingerprint == fingerprint
    shorter = CrossTaskProcessor(tokenizer, max_source_length=32)
    others = [
        fuse.encode(fuse.rows["train"].select(range(1, 11)), processor),
        fuse.encode(rows, shorter),
        answer.encode(rows, processor),
    ]
    assert len({fingerprint, *(encoded._fingerprint for encoded in others)}) == 4


def test_each_stage_encodes_its_own_inputs(stages, processor):
    row = {"id": "a", "passage": "Rain fell.", "question": "Why?", "summary": "It rained.", "answerable": 0}
    rows = Dataset.from_list([row | {"answer": ""}])
    summarize, answer, fuse = (dict(stage.encode(rows, processor)[0]) for stage in stages)
    expected = processor(passage="Rain fell.", summary="It rained.")
    assert summarize == dict(expected)
    expected = processor(question="Why?", passage="Rain fell.", summary=NO_ANSWER)
    assert answer == dict(expected)
    expected = processor(question="Why?", passage="Rain fell.", summary="It rained.", answerable=0)
    assert fuse == dict(expected)


def test_a_question_that_leaves_no_room_is_reported_with_its_row(stages, processor):
    row = {"passage": "Rain fell.", "question": "why " * 100, "summary": "It rained.", "answerable": 0}
    rows = Dataset.from_list(
        [row | {"id": "a", "answer": "", "question": "Why?"}, row | {"id": "b", "answer": ""}]
    )
    with pytest.raises(
        DataError, match=r"rows\.jsonl: row b: the question takes .* `max_source_length` is 64"
    ):
        stages[2].encode(rows, processor)


def test_an_incomplete_checkpoint_is_deleted_and_not_resumed_from(tmp_path):
    for step, state in ((2, "{}"), (4, '{"half": '), (6, None)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        if state is not None:
            (folder / "trainer_state.json").write_text(state)
    assert find_last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-2")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-2"]
    assert find_last_checkpoint(tmp_path / "nothing") is None
