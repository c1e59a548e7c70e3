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

SQUAD = Path(__file__).parents[3] / "shared/data/squad_v2/sample-v2.0.json"
needs_squad = pytest.mark.skipif(not SQUAD.exists(), reason="../shared/data is absent")
DERIVED = ("README.md", "stats.json", "rejects.jsonl", "build.json", "lengths.png", "labels.png")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """12 passages with 3 questions each; one in three has no answer."""
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
    """Build with the tiny models; returns the folder."""

    def build(folder=None, data=source, **flags):
        folder = folder or tmp_path_factory.mktemp("built") / "set"
        models = {"teacher": tiny_bart_folder, "judge": tiny_roberta_mnli_folder}
        main(recipe(folder, data, **models | flags))
        return folder

    return build


def recipe(folder, data, **flags):
    path = Path(folder).parent / "recipe.yaml"
    path.write_text("shard_size: 4\nbatch_size: 4\nnum_beams: 2\nmax_new_tokens: 12\n", encoding="utf-8")
    given = {"data": data, "output_dir": folder, **flags}
    return [str(path), *(f"--{key}={value}" for key, value in given.items())]


@pytest.fixture(scope="module")
def built(build):
    return build()


def contents(folder):
    """Everything that a build is asked for, byte by byte; not `work`, which holds the record of the flags."""
    files = [*(folder / "data").iterdir(), *(folder / name for name in DERIVED)]
    text = str(folder).encode()
    return {str(path.relative_to(folder)): path.read_bytes().replace(text, b"") for path in files}


def scores(folder):
    return {path.name: path.read_bytes() for path in sorted((folder / "work").glob("scored-*.jsonl"))}


def rows_of(folder):
    return [row for part in load_dataset(str(folder)).values() for row in part]


def test_typed_splits_of_whole_passages(built):
    splits = load_dataset(str(built))
    assert set(splits) == {"train", "validation", "test"}
    assert splits["train"].features["answerable"].names == ["no", "yes"]
    assert splits["train"].features["entailment"].dtype == "float32"
    passages = [set(part["passage"]) for part in splits.values()]
    assert sum(map(len, passages)) == len(set().union(*passages)) == 12
    assert sum(map(len, splits.values())) == 36


def test_labels_are_the_threshold_applied(built):
    for row in rows_of(built):
        assert row["answerable"] == int(bool(row["answer"]) and row["entailment"] > 0.5)
        assert (row["entailment"] is None) == (not row["answer"])


def test_questions_of_a_passage_share_its_summary(built):
    summaries = {}
    for row in rows_of(built):
        assert summaries.setdefault(row["passage"], row["summary"]) == row["summary"] != ""


def test_the_training_reads_the_folder_as_it_is(built):
    assert sum(len(part) for part in read_rows(str(built), "fuse").values()) == 36


def test_a_second_start_has_nothing_to_do(built, build, capsys, monkeypatch):
    before = contents(built)
    monkeypatch.setattr(Teacher, "__init__", None)  # which a finished run needs not
    build(built)
    assert "Nothing to do: 36 rows read = 36 rows out + 0 rejected" in capsys.readouterr().out
    assert contents(built) == before


def test_another_threshold_scores_nothing_again(build, monkeypatch):
    folder = build()
    probabilities = sorted(row["entailment"] for row in rows_of(folder) if row["answer"])
    threshold = probabilities[len(probabilities) // 2]
    before = scores(folder)
    monkeypatch.setattr(Teacher, "__init__", None)
    build(folder, threshold=round(threshold, 4))
    labels = Counter(row["answerable"] for row in rows_of(folder))
    assert labels[1] == sum(p > round(threshold, 4) for p in probabilities)
    assert scores(folder) == before


def test_each_distinct_passage_is_summarized_once(build, monkeypatch):
    seen = []
    summarize = Teacher._write

    def spy(self, keys, encoded, n, tick):
        seen.extend(encoded)
        return summarize(self, keys, encoded, n, tick)

    monkeypatch.setattr(Teacher, "_write", spy)
    build()
    assert len(seen) == len(set(seen)) == 12


@needs_squad
def test_the_teacher_reads_87_passages_of_squad(build, monkeypatch, capsys):
    seen = []
    generate = Teacher._generate

    def spy(self, rows, settings, digest):
        seen.extend(tuple(row["input_ids"]) for row in rows)
        return generate(self, rows, settings, digest)

    monkeypatch.setattr(Teacher, "_generate", spy)
    folder = build(data=SQUAD, shard_size=64)
    assert len(seen) == 87
    assert "626 rows read = 626 rows out + 0 rejected" in capsys.readouterr().out
    assert len(rows_of(folder)) == 626


def test_mode_question_keeps_the_best_and_the_worst(build, monkeypatch):
    monkeypatch.setattr(
        "crosstask.data.builder.judge.Judge.score",
        lambda self, premises, *_, **__: [(sum(map(ord, text)) % 97) / 97 for text in premises],
    )
    folder = build(mode="question", candidates=3, hard_negatives=True, threshold=0.4)
    rows = {row["id"]: row for row in rows_of(folder)}
    negatives = [row for name, row in rows.items() if name.endswith("-negative")]
    assert negatives
    for row in negatives:
        best = rows[row["id"].removesuffix("-negative")]
        assert row["answerable"] == 0 and row["entailment"] < best["entailment"]
        assert (row["passage"], row["question"]) == (best["passage"], best["question"])
    assert len(rows) == 36 + len(negatives)


def test_the_sources_own_summaries_may_be_kept(tmp_path, build):
    path = tmp_path / "own.csv"
    lines = [f"Passage {n} is here.,What is it?,Passage {n},Summary {n}." for n in range(20)]
    path.write_text("passage,question,answer,summary\n" + "\n".join([*lines, "Lone.,Who?,,"]) + "\n")
    folder = build(data=path, teacher="none")
    assert sorted(row["summary"] for row in rows_of(folder)) == sorted(f"Summary {n}." for n in range(20))
    [reject] = map(json.loads, (folder / "rejects.jsonl").read_text().splitlines())
    assert reject["line"] == 22 and reject["reason"] == "empty summary"


def test_a_csv_of_three_columns(tmp_path, build):
    path = tmp_path / "three.csv"
    path.write_text(
        "passage,question,answer\n" + "".join(f"Bridge {n} fell.,What fell?,Bridge {n}\n" for n in range(9))
    )
    assert len(rows_of(build(data=path))) == 9


def test_a_killed_run_ends_as_an_unkilled_one(
    built, source, tiny_bart_folder, tiny_roberta_mnli_folder, tmp_path
):
    folder = tmp_path / "set"
    command = recipe(folder, source, teacher=tiny_bart_folder, judge=tiny_roberta_mnli_folder)
    for files in ("work/plan.json", "work/scored-00000.jsonl", "data.tmp"):
        process = subprocess.Popen([sys.executable, "-m", "crosstask.data.build", *command])
        while not (folder / files).exists() and process.poll() is None:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
    main(command)
    assert contents(folder) == contents(built)
    assert scores(folder) == scores(built)


@pytest.mark.slow
def test_two_processes_make_the_bytes_of_one(
    built, source, tiny_bart_folder, tiny_roberta_mnli_folder, tmp_path
):
    command = recipe(tmp_path / "set", source, teacher=tiny_bart_folder, judge=tiny_roberta_mnli_folder)
    launch = "-m torch.distributed.run --standalone --nproc-per-node 2 -m accelerate.commands.launch --cpu"
    done = subprocess.run(
        [sys.executable, *launch.split(), "-m", "crosstask.data.build", *command],
        timeout=120,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert contents(tmp_path / "set") == contents(built)


@pytest.mark.slow
def test_ray_makes_the_bytes_of_a_plain_run(built, build):
    pytest.importorskip("ray")
    assert contents(build(engine="ray")) == contents(built)


def test_a_dry_run_loads_no_model_and_writes_nothing(tmp_path, build, capsys, monkeypatch):
    monkeypatch.setattr(Teacher, "__init__", None)
    build(tmp_path / "set", dry_run=True)
    told = capsys.readouterr().out
    assert "36 rows read = 36 kept + 0 rejected" in told and "12 distinct passages" in told
    assert not (tmp_path / "set").exists()


def test_a_passage_of_two_splits_stays_in_the_first(tmp_path, build):
    folder = tmp_path / "source"
    folder.mkdir()
    row = {"question": "What?", "answer": "bridge"}
    for split, numbers in (("train", range(8)), ("test", range(7, 10))):
        rows = [{**row, "id": f"{split}{n}", "passage": f"A bridge, {n}."} for n in numbers]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    built = build(data=folder)
    assert {name: len(part) for name, part in load_dataset(str(built)).items()} == {"train": 8, "test": 2}
    [reject] = map(json.loads, (built / "rejects.jsonl").read_text().splitlines())
    assert reject["id"] == "test7" and "split train too" in reject["reason"]


def test_every_row_of_a_broken_file_is_accounted_for(tmp_path, build, capsys):
    good, broken = write_broken_jsonl(tmp_path / "broken.jsonl")
    lines = len(good) + len(broken)
    folder = build(
        data=tmp_path / "broken.jsonl", extractive=True, shard_size=256, num_beams=1, batch_size=32
    )
    rejects = [json.loads(line) for line in (folder / "rejects.jsonl").read_text().splitlines()]
    out = {row["id"] for row in rows_of(folder)}
    assert {row["id"] for row in good} <= out
    assert len(out) + len(rejects) == lines
    assert f"{lines} rows read = {len(out)} rows out + {len(rejects)} rejected" in capsys.readouterr().out
    assert all(reject["line"] and reject["reason"] for reject in rejects)


@pytest.mark.parametrize(
    ("flags", "told"),
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
def test_mistakes_end_in_one_sentence(build, flags, told):
    with pytest.raises(SystemExit, match="crosstask-build: error: ") as caught:
        build(**flags)
    assert told in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_another_recipe_or_a_changed_source_needs_another_folder(source, build, tmp_path):
    copy = tmp_path / "rows.jsonl"
    copy.write_bytes(source.read_bytes())
    folder = build(data=copy)
    with pytest.raises(SystemExit, match="holds a run of another recipe .max_new_tokens is"):
        build(folder, data=copy, max_new_tokens=13)
    os.utime(copy, ns=(1, 1))
    with pytest.raises(SystemExit, match="holds a run of another recipe .*rows.jsonl"):
        build(folder, data=copy)


def test_a_run_that_could_not_read_leaves_its_folder_free(tmp_path, build):
    path = tmp_path / "rows.csv"
    path.write_text("passage,question\na,b\n")
    with pytest.raises(SystemExit, match="'answer' is missing"):
        build(tmp_path / "set", data=path)
    path.write_text("passage,question,answer\n" + "".join(f"Bridge {n}.,What?,Bridge\n" for n in range(5)))
    assert len(rows_of(build(tmp_path / "set", data=path))) == 5


def test_recipes_are_read():
    for name in ("build_paper", "build_question"):
        arguments, _ = read_build_recipe(Path(__file__).parents[2] / "configs" / f"{name}.yaml")
        assert arguments.data == "rajpurkar/squad_v2"
