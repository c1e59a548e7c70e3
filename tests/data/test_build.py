"""Test the command `crosstask-build` from the recipe to the finished data set."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from broken_files import write_broken_jsonl
from datasets import load_dataset

from crosstask.data.build import main, read_build_recipe
from crosstask.data.builder.teacher import Teacher
from crosstask.data.readers import read_rows

ROOT = Path(__file__).parents[2]
SQUAD = ROOT.parent / "shared/data/squad_v2/sample-v2.0.json"
needs_squad = pytest.mark.skipif(not SQUAD.exists(), reason="../shared/data is absent")
FILES = ("README.md", "stats.json", "rejects.jsonl", "build.json", "lengths.png", "labels.png")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Return a file of 12 passages with 3 questions each, one of which has no answer."""
    path = tmp_path_factory.mktemp("source") / "rows.jsonl"
    rows = [
        {
            "id": f"p{p}-q{q}",
            "passage": f"The mayor of town {p} opened bridge {p} on day {p}.",
            "question": ["Who opened it?", "What was opened?", "Why?"][q],
            "answer": ["The mayor", f"bridge {p}", ""][q],
        }
        for p in range(12)
        for q in range(3)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def build(source, tiny_bart_folder, tiny_roberta_mnli_folder, tmp_path_factory):
    """Return a function that builds a data set with the tiny models and returns its folder."""

    def build(folder=None, data=source, **flags):
        folder = folder or tmp_path_factory.mktemp("built") / "set"
        models = {"teacher": tiny_bart_folder, "judge": tiny_roberta_mnli_folder}
        main(make_command(folder, data, **models | flags))
        return folder

    return build


@pytest.fixture(scope="module")
def built(build):
    return build()


def make_command(folder, data, **flags):
    """Write a recipe and return the arguments of the command."""
    path = Path(folder).parent / "recipe.yaml"
    # A random judge finds contradictions anywhere.
    labels = "faithful: false\nwrong_values: 0\n"
    recipe = f"shard_size: 4\nbatch_size: 4\nnum_beams: 2\nmax_new_tokens: 12\n{labels}"
    path.write_text(recipe, encoding="utf-8")
    flags = {"data": data, "output_dir": folder, **flags}
    return [str(path), *(f"--{key}={value}" for key, value in flags.items())]


def read_result(folder):
    """Return the bytes of the files of a data set outside `work`, without the path of the folder."""
    files = [*(folder / "data").iterdir(), *(folder / name for name in FILES)]
    text = str(folder).encode()
    return {str(path.relative_to(folder)): path.read_bytes().replace(text, b"") for path in files}


def read_scored_shards(folder):
    return {path.name: path.read_bytes() for path in sorted((folder / "work").glob("scored-*.jsonl"))}


def load_rows(folder):
    return [row for split in load_dataset(str(folder)).values() for row in split]


# --- The result -----------------------------------------------------------------------------------


def test_the_splits_are_typed_and_share_no_passage(built):
    splits = load_dataset(str(built))
    assert set(splits) == {"train", "validation", "test"}
    assert splits["train"].features["answerable"].names == ["no", "yes"]
    assert splits["train"].features["entailment"].dtype == "float32"
    passages = [set(split["passage"]) for split in splits.values()]
    assert sum(map(len, passages)) == len(set().union(*passages)) == 12
    assert sum(map(len, splits.values())) == 36


def test_the_label_is_1_above_the_threshold(built):
    for row in load_rows(built):
        assert row["answerable"] == int(bool(row["answer"]) and row["entailment"] > 0.5)
        assert (row["entailment"] is None) == (not row["answer"])


def test_the_questions_about_a_passage_share_its_summary(built):
    summaries = {}
    for row in load_rows(built):
        assert summaries.setdefault(row["passage"], row["summary"]) == row["summary"] != ""


def test_training_can_read_the_data_set(built):
    assert sum(len(split) for split in read_rows(str(built), "fuse").values()) == 36


def test_each_distinct_passage_is_summarized_once(build, monkeypatch):
    passages = []
    write = Teacher._write

    def spy(self, keys, encoded, n, update):
        passages.extend(encoded)
        return write(self, keys, encoded, n, update)

    monkeypatch.setattr(Teacher, "_write", spy)
    build()
    assert len(passages) == len(set(passages)) == 12


@needs_squad
def test_the_teacher_reads_the_87_passages_of_a_squad_file(build, monkeypatch, capsys):
    inputs = []
    generate = Teacher._generate

    def spy(self, rows, kwargs, seed):
        inputs.extend(tuple(row["input_ids"]) for row in rows)
        return generate(self, rows, kwargs, seed)

    monkeypatch.setattr(Teacher, "_generate", spy)
    folder = build(data=SQUAD, shard_size=64)
    assert len(inputs) == 87
    assert "626 rows read = 626 rows written + 0 rejected" in capsys.readouterr().out
    assert len(load_rows(folder)) == 626


def test_mode_question_keeps_the_best_and_the_worst_candidate(build, monkeypatch):
    monkeypatch.setattr(
        "crosstask.data.builder.judge.Judge.score",
        lambda self, premises, *_, **__: [(sum(map(ord, text)) % 97) / 97 for text in premises],
    )
    folder = build(mode="question", candidates=3, hard_negatives=True, threshold=0.4)
    rows = {row["id"]: row for row in load_rows(folder)}
    negatives = [row for row_id, row in rows.items() if row_id.endswith("-negative")]
    assert negatives
    for row in negatives:
        best = rows[row["id"].removesuffix("-negative")]
        assert row["answerable"] == 0 and row["entailment"] < best["entailment"]
        assert (row["passage"], row["question"]) == (best["passage"], best["question"])
    assert len(rows) == 36 + len(negatives)


def test_teacher_none_keeps_the_summaries_of_the_source(tmp_path, build):
    path = tmp_path / "own.csv"
    lines = [f"Passage {n} is here.,What is it?,Passage {n},Summary {n}." for n in range(20)]
    path.write_text("passage,question,answer,summary\n" + "\n".join([*lines, "Lone.,Who?,,"]) + "\n")
    folder = build(data=path, teacher="none")
    assert sorted(row["summary"] for row in load_rows(folder)) == sorted(f"Summary {n}." for n in range(20))
    [reject] = map(json.loads, (folder / "rejects.jsonl").read_text().splitlines())
    assert reject["line"] == 22 and reject["reason"] == "empty summary"


def test_a_csv_file_needs_only_three_columns(tmp_path, build):
    path = tmp_path / "three.csv"
    path.write_text(
        "passage,question,answer\n" + "".join(f"Bridge {n} fell.,What fell?,Bridge {n}\n" for n in range(9))
    )
    assert len(load_rows(build(data=path))) == 9


def test_every_row_of_a_malformed_file_is_accounted_for(tmp_path, build, capsys):
    good, broken = write_broken_jsonl(tmp_path / "broken.jsonl")
    num_lines = len(good) + len(broken)
    folder = build(
        data=tmp_path / "broken.jsonl", extractive=True, shard_size=256, num_beams=1, batch_size=32
    )
    rejects = [json.loads(line) for line in (folder / "rejects.jsonl").read_text().splitlines()]
    ids = {row["id"] for row in load_rows(folder)}
    assert {row["id"] for row in good} <= ids
    assert len(ids) + len(rejects) == num_lines
    message = f"{num_lines} rows read = {len(ids)} rows written + {len(rejects)} rejected"
    assert message in capsys.readouterr().out
    assert all(reject["line"] and reject["reason"] for reject in rejects)


# --- Restarts and several processes ---------------------------------------------------------------


def test_a_summary_that_the_passage_contradicts_is_labeled_0(built, build):
    unchecked, checked = ({row["id"]: row for row in load_rows(f)} for f in (built, build(faithful=True)))
    for row_id, row in checked.items():
        assert row["entailment"] == unchecked[row_id]["entailment"]
        expected = unchecked[row_id]["answerable"] if row["contradiction"] <= 0.5 else 0
        assert row["answerable"] == expected and unchecked[row_id]["contradiction"] is None
    assert "the passage contradicts" in (build(faithful=True) / "README.md").read_text()


def test_wrong_values_are_kept_if_the_judge_finds_no_answer_in_them(tmp_path, build):
    rows = [
        {"passage": f"The sum of {n} was paid.", "question": "How much?", "answer": str(n)}
        for n in range(10, 42)
    ]
    for row in rows:
        row |= {"summary": f"They paid {row['answer']}.", "answerable": 1}
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    folder = build(tmp_path / "set", data=source, teacher="none", wrong_values=1, threshold=0.5)
    loaded = load_rows(folder)
    wrong = [row for row in loaded if row["id"].endswith("-wrong")]
    assert len(loaded) - len(wrong) == len(rows)
    for row in wrong:
        assert row["answerable"] == 0 and row["entailment"] <= 0.5
        assert f" {row['answer']}." not in row["summary"]


def test_a_second_start_has_nothing_to_do(built, build, capsys, monkeypatch):
    before = read_result(built)
    monkeypatch.setattr(Teacher, "__init__", None)  # a finished build must not load the teacher
    build(built)
    assert "Nothing to do: 36 rows read = 36 rows written + 0 rejected" in capsys.readouterr().out
    assert read_result(built) == before


def test_another_threshold_does_not_score_again(build, monkeypatch):
    folder = build()
    probabilities = sorted(row["entailment"] for row in load_rows(folder) if row["answer"])
    threshold = round(probabilities[len(probabilities) // 2], 4)
    before = read_scored_shards(folder)
    monkeypatch.setattr(Teacher, "__init__", None)
    build(folder, threshold=threshold)
    labels = Counter(row["answerable"] for row in load_rows(folder))
    assert labels[1] == sum(probability > threshold for probability in probabilities)
    assert read_scored_shards(folder) == before


def test_a_killed_build_continues_and_gives_the_same_bytes(
    built, source, tiny_bart_folder, tiny_roberta_mnli_folder, tmp_path
):
    folder = tmp_path / "set"
    command = make_command(folder, source, teacher=tiny_bart_folder, judge=tiny_roberta_mnli_folder)
    for name in ("work/counts.json", "work/scored-00000.jsonl", "data.tmp"):
        process = subprocess.Popen([sys.executable, "-m", "crosstask.data.build", *command])
        while not (folder / name).exists() and process.poll() is None:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
    main(command)
    assert read_result(folder) == read_result(built)
    assert read_scored_shards(folder) == read_scored_shards(built)


@pytest.mark.slow
def test_two_processes_give_the_same_bytes_as_one(
    built, source, tiny_bart_folder, tiny_roberta_mnli_folder, tmp_path
):
    models = {"teacher": tiny_bart_folder, "judge": tiny_roberta_mnli_folder}
    command = make_command(tmp_path / "set", source, **models)
    launch = "-m torch.distributed.run --standalone --nproc-per-node 2 -m accelerate.commands.launch --cpu"
    result = subprocess.run(
        [sys.executable, *launch.split(), "-m", "crosstask.data.build", *command],
        timeout=120,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert read_result(tmp_path / "set") == read_result(built)


@pytest.mark.slow
def test_ray_gives_the_same_bytes_as_a_single_process(built, build):
    pytest.importorskip("ray")
    assert read_result(build(engine="ray")) == read_result(built)


def test_a_dry_run_loads_no_model_and_writes_nothing(tmp_path, build, capsys, monkeypatch):
    monkeypatch.setattr(Teacher, "__init__", None)
    build(tmp_path / "set", dry_run=True)
    output = capsys.readouterr().out
    assert "36 rows read = 36 accepted + 0 rejected" in output and "12 distinct passages" in output
    assert not (tmp_path / "set").exists()


# --- Recipes and errors ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"treshold": 0.5}, "unknown key 'treshold'; did you mean 'threshold'"),
        ({"threshold": 2}, "threshold: expected at least 0 and below 1, got 2.0"),
        ({"mode": "both"}, "mode: expected one of passage, question"),
        ({"hard_negatives": True}, "hard_negatives: expected mode question"),
        ({"hypothesis": "{anwser}"}, "anwser"),
        ({"normalize": "{lowercaze: true}"}, "lowercaze"),
        ({"teacher": "none", "mode": "question"}, "mode: question needs a teacher"),
        ({"shard_size": 0}, "shard_size: expected 1 or more"),
        ({"data": "missing.jsonl"}, "missing.jsonl: file not found"),
    ],
)
def test_a_mistake_ends_the_command_with_one_sentence(build, flags, message):
    with pytest.raises(SystemExit, match="crosstask-build: error: ") as error:
        build(**flags)
    assert message in str(error.value) and len(str(error.value).splitlines()) == 1


def test_another_recipe_or_a_changed_source_needs_another_folder(source, build, tmp_path):
    copy = tmp_path / "rows.jsonl"
    copy.write_bytes(source.read_bytes())
    folder = build(data=copy)
    with pytest.raises(SystemExit, match="holds a run of another recipe .max_new_tokens is"):
        build(folder, data=copy, max_new_tokens=13)
    os.utime(copy, ns=(1, 1))
    with pytest.raises(SystemExit, match="holds a run of another recipe .*rows.jsonl"):
        build(folder, data=copy)


def test_after_an_unreadable_source_the_folder_accepts_another_recipe(tmp_path, build):
    path = tmp_path / "rows.csv"
    path.write_text("passage,question\na,b\n")
    with pytest.raises(SystemExit, match="'answer' is missing"):
        build(tmp_path / "set", data=path)
    path.write_text("passage,question,answer\n" + "".join(f"Bridge {n}.,What?,Bridge\n" for n in range(5)))
    assert len(load_rows(build(tmp_path / "set", data=path))) == 5


def test_a_path_without_a_model_is_named_before_the_rows_are_read(tmp_path, build, capsys):
    for flags in ({"teacher": tmp_path / "gone"}, {"judge": tmp_path / "gone", "dry_run": True}):
        with pytest.raises(SystemExit, match=f"error: {next(iter(flags))}: .*gone: no such folder"):
            build(tmp_path / "set", **flags)
        assert "rows read" not in capsys.readouterr().out


def test_after_an_unusable_teacher_the_folder_accepts_another(tmp_path, build, tiny_roberta_mnli_folder):
    with pytest.raises(SystemExit, match="teacher: got a RobertaForSequenceClassification"):
        build(tmp_path / "set", teacher=tiny_roberta_mnli_folder)
    assert len(load_rows(build(tmp_path / "set", wrong_values=0.5))) == 36


@pytest.mark.parametrize("name", ["build_paper", "build_question"])
def test_the_recipes_in_configs_are_valid(name):
    arguments, _ = read_build_recipe(ROOT / "configs" / f"{name}.yaml")
    assert arguments.data == "rajpurkar/squad_v2"


def test_help_works_from_any_folder(tmp_path):
    command = [sys.executable, ROOT / "data" / "build.py", "--help"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "work/scored-00000.jsonl" in result.stdout and "hard_negatives" in result.stdout
