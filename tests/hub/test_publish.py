"""`crosstask-publish` publishes models, adapters and data sets that the usual clients can load."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from datasets import ClassLabel, load_dataset
from huggingface_hub import CommitOperationAdd, HfApi, ModelCard
from safetensors.torch import load_file
from tiny_run import WITHOUT_PARTS, write_recipe
from transformers import AutoModelForSeq2SeqLM, AutoProcessor

from crosstask import AdapterRouter, CrossTaskForConditionalGeneration, train
from crosstask.configuration_crosstask import FUSIONS
from crosstask.data.build import main as build
from crosstask.hub.cards import read_test_rows
from crosstask.hub.publish import main, publish
from crosstask.loading_crosstask import write_checksums
from crosstask.utils.errors import ConfigError, DataError, HubError
from crosstask.utils.files import CENTROIDS_NAME

REPO = "alice/tiny"
TEXTS = {"question": ["Who won?", "Why?"], "passage": ["The mayor won.", "It rained, so they left."]}


@pytest.fixture(scope="module")
def lora_run(trained_run, tmp_path_factory):
    """Folder of a run whose fuse stage adapts the model of another run, with another prompt."""
    folder = tmp_path_factory.mktemp("lora")
    settings = {"model": str(trained_run[1] / "crosstask"), "prompt": "{question} Say it of:"}
    train.main([str(write_recipe(folder, **settings, lora_r=2, learning_rate=0.1, **WITHOUT_PARTS))])
    return folder / "run"


def generate(model, processor):
    inputs = processor(**TEXTS, return_tensors="pt")
    return model.eval().generate(**inputs, max_new_tokens=8, num_beams=2)


def run_card(text):
    """Run the first code block of a card; return the variables that it defines."""
    names = {}
    exec(ModelCard(text).text.split("```python\n")[1].split("```")[0], names)
    return names


def assert_same_encoding(processor, folder):
    expected = AutoProcessor.from_pretrained(folder)(**TEXTS)
    assert dict(processor(**TEXTS)) == dict(expected)


def write_rows(path):
    rows = [
        {"id": str(n), "passage": f"The mayor opened bridge {n}.", "question": f"Who opened bridge {n}?"}
        | {"answer": "The mayor", "summary": f"The mayor opened bridge {n}.", "answerable": n % 2}
        for n in range(60)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def load(name, **location):
    model = AutoModelForSeq2SeqLM.from_pretrained(name, **location)
    return model, AutoProcessor.from_pretrained(name, **location)


def test_a_published_model_generates_what_the_local_one_does(hub, alice, trained_run, capsys):
    _, folder = trained_run
    main(["model", str(folder), "--repo", REPO, "--license", "mit", "--language", "en"])
    assert capsys.readouterr().out.strip() == f"{hub.url}/{REPO}/commit/{hub.commits(REPO)[0].oid}"
    assert len(hub.commits(REPO)) == 2
    assert torch.equal(generate(*load(REPO)), generate(*load(folder / "crosstask")))


def test_the_files_of_a_published_model(hub, alice, trained_run):
    _, folder = trained_run
    publish("model", folder, REPO, license="mit", language=["en"])
    files = hub.files(REPO)
    code = {name for name in files if name.endswith(".py")}
    assert {"configuration_crosstask.py", "modeling_crosstask.py", "processing_crosstask.py"} <= code
    other_files = {name for name in files if not name.endswith(".py")}
    assert other_files - {"special_tokens_map.json"} == {  # a file that only transformers 4 writes
        ".gitattributes",
        "README.md",
        "architecture.svg",
        "config.json",
        "generation_config.json",
        "learning_curve.png",
        "metrics.json",
        "model.safetensors",
        "model.safetensors.sha256",
        "processor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert "auto_map" in json.loads(files["config.json"])
    assert b"_name_or_path" not in files["config.json"]
    names = [str(folder).encode(), os.environ["HF_HOME"].encode()]
    for path, content in files.items():
        assert not any(name in content for name in names), path
    card = ModelCard(files["README.md"].decode())
    assert (card.data.license, card.data.language, card.data.model_name) == ("mit", ["en"], "tiny")
    assert "local" not in json.loads(files["metrics.json"])
    assert card.data.eval_results and f"model='{REPO}'" in card.text


def test_a_second_tokenizer_and_shards_are_published(
    hub, alice, trained_run, make_model, tokenizer, tmp_path
):
    run = tmp_path / "run"
    shutil.copytree(trained_run[1], run)
    processor = AutoProcessor.from_pretrained(run / "crosstask")
    processor.question_tokenizer = processor.tokenizer
    processor.save_pretrained(run / "crosstask")
    publish("model", run, REPO, license="mit")
    expected = generate(*load(REPO))
    (run / "crosstask" / "model.safetensors").unlink()
    model = CrossTaskForConditionalGeneration.from_pretrained(trained_run[1] / "crosstask")
    model.save_pretrained(run / "crosstask", max_shard_size="20KB")
    publish("model", run, REPO, license="mit")
    weights = {name for name in hub.files(REPO) if name.endswith(".safetensors")}
    assert len(weights) > 2 and "model.safetensors" not in weights
    assert "model.safetensors.index.json" in hub.files(REPO)
    assert torch.equal(generate(*load(REPO)), expected)
    publish("model", trained_run[1], REPO, license="mit")
    assert {name for name in hub.files(REPO) if ".safetensors" in name} <= {
        "model.safetensors",
        "model.safetensors.sha256",
    }


def test_the_published_weights_can_be_verified(hub, alice, trained_run, tmp_path):
    run = shutil.copytree(trained_run[1], tmp_path / "run")
    publish("model", run, REPO, license="mit")
    AutoModelForSeq2SeqLM.from_pretrained(REPO, verify_weights=True)
    write_checksums(run / "crosstask")
    publish("model", run, REPO, license="mit")
    sums = run / "crosstask" / "model.safetensors.sha256"
    assert sums.read_bytes() == hub.files(REPO)["model.safetensors.sha256"]
    sums.write_text(f"{'0' * 64}  model.safetensors\n")
    with pytest.raises(DataError, match="the weights differ from the checksums in model.safetensors.sha256"):
        publish("model", run, REPO, license="mit")
    assert len(hub.commits(REPO)) == 2  # the checksums were the same, so there was nothing to commit


def test_private_repositories_branches_and_pull_requests(hub, alice, trained_run):
    arguments = ["model", str(trained_run[1]), "--license", "mit", "--repo"]
    main([*arguments, "alice/secret", "--private"])
    assert hub.repo("alice/secret").private
    main([*arguments, REPO, "--revision", "v2"])
    assert "config.json" in hub.files(REPO, revision="v2") and "config.json" not in hub.files(REPO)
    main([*arguments, REPO, "--pr"])
    assert "config.json" in hub.files(REPO, revision="refs/pr/1") and "config.json" not in hub.files(REPO)
    assert generate(*load(REPO, revision="v2")).shape[0] == 2


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        ([], "the card still needs a license .--license apache-2.0"),
        (["--license", "nonsense"], "unknown license 'nonsense', expected one of the Hub's"),
        (["--license", "mit", "--repo", "tiny"], "--repo: expected user/name, got 'tiny'"),
        (["--license", "mit", "--repo", "a/b/c"], "--repo: expected user/name, got 'a/b/c'"),
        (["--license", "mit", "--repo", "bob/x"], "the token lacks the permission to write to .* of bob"),
    ],
)
def test_mistakes_are_reported_in_one_sentence(hub, alice, trained_run, arguments, sentence):
    with pytest.raises(SystemExit, match=f"^crosstask-publish: error: [^\n]*{sentence}[^\n]*$"):
        main(["model", str(trained_run[1]), "--repo", REPO, *arguments])
    assert not hub.store.repos


@pytest.mark.parametrize("kind", ["model", "adapter", "dataset"])
def test_a_folder_of_another_kind_is_refused(hub, alice, tmp_path, kind):
    with pytest.raises(SystemExit, match=f"{re.escape(str(tmp_path))}.*expected (the|a) folder"):
        main([kind, str(tmp_path), "--repo", REPO, "--license", "mit"])
    assert not hub.store.repos


def test_a_file_that_names_a_local_folder_is_refused(hub, alice, trained_run, tmp_path):
    shutil.copytree(trained_run[1], tmp_path / "run")
    config = tmp_path / "run" / "crosstask" / "generation_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"origin": str(tmp_path / "run")}))
    with pytest.raises(HubError, match="^generation_config.json: names a folder of this machine"):
        publish("model", tmp_path / "run", REPO, license="mit")
    assert not hub.store.repos


def test_a_killed_publication_leaves_nothing_and_can_be_repeated(hub, alice, trained_run):
    command = [sys.executable, "-m", "crosstask.hub.publish", "model", str(trained_run[1])]
    command += ["--repo", REPO, "--license", "mit"]
    hub.fail("PUT", "lfs-objects", delay=30)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 60
    while hub.faults[-1].times and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    assert alice.encode() not in process.communicate()[0]
    assert set(hub.files(REPO)) == {".gitattributes"}
    hub.faults.clear()
    publish("model", trained_run[1], REPO, license="mit")
    assert len(hub.commits(REPO)) == 2 and "model.safetensors" in hub.files(REPO)


def test_an_adapter_works_with_the_published_base(hub, alice, trained_run, lora_run):
    publish("model", trained_run[1], REPO, license="mit")
    with pytest.raises(ConfigError, match="needs .*, which is not on the Hub; publish that model and name"):
        publish("adapter", lora_run, "alice/small", license="mit")
    publish("adapter", lora_run, "alice/small", license="mit", base=REPO)
    files = hub.files("alice/small")
    assert set(files) == {
        ".gitattributes",
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "architecture.svg",
        "learning_curve.png",
        "metrics.json",
    }
    assert not any(str(trained_run[1].parent).encode() in content for content in files.values())
    card = ModelCard(files["README.md"].decode())
    assert (card.data.base_model, card.data.base_model_relation) == ([REPO], "adapter")
    names = run_card(files["README.md"].decode())
    assert_same_encoding(names["processor"], lora_run / "crosstask")
    expected = load_file(lora_run / "crosstask" / "model.safetensors")
    found = names["model"].merge_and_unload().state_dict()
    assert all(torch.allclose(found[name], value, atol=1e-6) for name, value in expected.items())
    before = load_file(trained_run[1] / "crosstask" / "model.safetensors")
    assert any(not torch.allclose(before[name], value) for name, value in expected.items())


@pytest.mark.parametrize("fusion", FUSIONS)
def test_an_adapter_of_three_stages_works_with_the_public_parts(hub, alice, trained_run, tmp_path, fusion):
    parts = {"summarizer": "alice/t5", "question_answerer": "alice/qa"}
    for side, repo in parts.items():
        model = AutoModelForSeq2SeqLM.from_pretrained(trained_run[1] / side)
        model.push_to_hub(repo)
        AutoProcessor.from_pretrained(trained_run[1] / "crosstask").tokenizer.push_to_hub(repo)
    recipe = write_recipe(
        tmp_path,
        **parts,
        summarizer_config=None,
        question_answerer_config=None,
        lora_r=2,
        learning_rate=0.1,
        fusion=fusion,
    )
    train.main([str(recipe)])
    router = AdapterRouter("alice/qa").fit("mine", TEXTS["passage"])
    router.save("mine", tmp_path / "run" / "adapter")
    publish("adapter", tmp_path / "run", "alice/small", license="mit")
    found = AdapterRouter("alice/qa").load("theirs", "alice/small").centroids["theirs"]
    torch.testing.assert_close(found, router.centroids["mine"])
    names = run_card(hub.files("alice/small")["README.md"].decode())
    assert_same_encoding(names["processor"], tmp_path / "run" / "crosstask")
    expected = load_file(tmp_path / "run" / "crosstask" / "model.safetensors")
    found = names["model"].merge_and_unload().state_dict()
    assert found.keys() >= expected.keys() and ("gated_cross_attention.gates" in expected) == (
        fusion == "gated"
    )
    assert all(torch.allclose(found[name], value, atol=1e-6) for name, value in expected.items())


def test_the_centroids_of_an_adapter_are_published_and_removed_with_it(
    hub, alice, trained_run, lora_run, tmp_path
):
    publish("model", trained_run[1], REPO, license="mit")
    run = tmp_path / "run"
    shutil.copytree(lora_run, run)
    encoder = trained_run[1] / "question_answerer"
    router = AdapterRouter(encoder).fit("mine", TEXTS["passage"])
    router.save("mine", run / "adapter")
    publish("adapter", run, "alice/small", license="mit", base=REPO)
    downloaded = AdapterRouter(encoder).load("theirs", "alice/small")
    assert downloaded.route(TEXTS["passage"]) == ["theirs"] * 2
    (run / "adapter" / CENTROIDS_NAME).unlink()
    publish("adapter", run, "alice/small", license="mit", base=REPO)
    assert CENTROIDS_NAME not in hub.files("alice/small")
    assert {"adapter_config.json", "adapter_model.safetensors"} < hub.files("alice/small").keys()


def test_an_adapter_of_local_parts_is_refused(hub, alice, trained_run, tmp_path):
    parts = {side: str(trained_run[1] / side) for side in ("summarizer", "question_answerer")}
    train.main(
        [
            str(
                write_recipe(
                    tmp_path, **parts, summarizer_config=None, question_answerer_config=None, lora_r=2
                )
            )
        ]
    )
    with pytest.raises(
        ConfigError, match="which is not on the Hub; publish that model and train from its Hub id"
    ):
        publish("adapter", tmp_path / "run", "alice/small", license="mit")
    with pytest.raises(ConfigError, match="^--base: expected none"):
        publish("adapter", tmp_path / "run", "alice/small", license="mit", base=REPO)


def test_other_files_in_the_repository_stay(hub, alice, trained_run):
    theirs = {"onnx/model.safetensors", "adapter_model.safetensors", "adapter_config.json", "images/a.png"}
    HfApi().create_repo(REPO)
    HfApi().create_commit(
        REPO, [CommitOperationAdd(path, b"theirs") for path in sorted(theirs)], commit_message="theirs"
    )
    publish("model", trained_run[1], REPO, license="mit")
    assert theirs < set(hub.files(REPO))


def test_a_fully_trained_part_has_no_public_base(hub, alice, trained_run, tmp_path):
    recipe = write_recipe(tmp_path, **{"fuse": {"lora_r": 2}})
    train.main([str(recipe)])
    with pytest.raises(
        ConfigError, match="stage summarize trained all weights of its model.*publish the model"
    ):
        publish("adapter", tmp_path / "run", "alice/small", license="mit")
    with pytest.raises(
        ConfigError, match="has no adapter, expected a run whose fuse stage has lora_r or peft"
    ):
        publish("adapter", trained_run[1], "alice/small", license="mit")


def test_a_recipe_publishes_its_model(hub, alice, trained_run, tmp_path, capsys):
    publish("model", trained_run[1], REPO, license="mit")
    rows = tmp_path / "rows.jsonl"
    write_rows(rows)
    values = WITHOUT_PARTS | {
        "model": REPO,
        "data": str(rows),
        "data_options": None,
        "max_steps": 20,
        "save_steps": 20,
    }
    values |= {"push_to_hub": True, "hub_model_id": "alice/mine", "license": "mit", "vocab_size": None}
    recipe = write_recipe(tmp_path, **values)
    with pytest.raises(SystemExit, match="still needs the Hub id of the data set rows.jsonl"):
        train.main([str(recipe)])
    with pytest.raises(SystemExit, match="alice/rows: not found on the Hub"):
        train.main([str(recipe), "--datasets", "alice/rows"])
    assert not (tmp_path / "run" / "crosstask").exists()
    HfApi().create_repo("alice/rows", repo_type="dataset")
    train.main([str(recipe), "--datasets", "alice/rows"])
    assert f"Published: {hub.url}/alice/mine/commit/" in capsys.readouterr().out
    folder = tmp_path / "run" / "crosstask"
    assert torch.equal(generate(*load("alice/mine")), generate(*load(folder)))
    card = ModelCard(hub.files("alice/mine")["README.md"].decode())
    assert (card.data.base_model, card.data.base_model_relation) == ([REPO], "finetune")
    assert card.data.datasets == ["alice/rows"]
    before, after = (load_file(path / "model.safetensors") for path in (trained_run[1] / "crosstask", folder))
    assert any(not torch.equal(before[name], after[name]) for name in before)
    # Running it again trains nothing, and changes nothing on the Hub.
    train.main([str(recipe), "--datasets", "alice/rows"])
    assert len(hub.commits("alice/mine")) == 2


@pytest.mark.parametrize(
    "values, sentence",
    [
        ({}, "hub_model_id: expected user/name, got None"),
        ({"hub_model_id": "mine"}, "hub_model_id: expected user/name, got 'mine'"),
        (
            {"hub_model_id": "bob/mine", "license": "mit"},
            "lacks the permission to write to repositories of bob",
        ),
        ({"hub_model_id": "alice/mine"}, "the card still needs a license"),
    ],
)
def test_a_recipe_that_could_not_be_published_is_not_trained(hub, alice, tmp_path, values, sentence):
    recipe = write_recipe(tmp_path, push_to_hub=True, **values)
    with pytest.raises(SystemExit, match=f"^crosstask-train: error: [^\n]*{sentence}[^\n]*$"):
        train.main([str(recipe)])
    assert not (tmp_path / "run" / "summarizer").exists()


def test_a_published_data_set_loads_with_its_types(hub, alice, tmp_path):
    source = tmp_path / "rows.jsonl"
    write_rows(source)
    recipe = tmp_path / "build.yaml"
    recipe.write_text(f"data: {source}\noutput_dir: {tmp_path / 'set'}\nteacher: none\njudge: none\n")
    build([str(recipe)])
    with pytest.raises(SystemExit, match="its sources state no license, expected --license"):
        main(["dataset", str(tmp_path / "set"), "--repo", "alice/rows"])
    main(["dataset", str(tmp_path / "set"), "--repo", "alice/rows", "--license", "cc-by-4.0"])
    published = load_dataset("alice/rows")
    local = load_dataset(str(tmp_path / "set"))
    assert published.keys() == local.keys()
    for split, part in published.items():
        assert part.features == local[split].features and part[:] == local[split][:]
        assert isinstance(part.features["answerable"], ClassLabel)
    files = hub.files("alice/rows", repo_type="dataset")
    assert not any(str(tmp_path).encode() in content for content in files.values())
    assert {path.split("/")[0] for path in files} <= {".gitattributes", "README.md", "data", "stats.json"} | {
        path for path in files if path.endswith(".png")
    }
    assert 'load_dataset("alice/rows")' in files["README.md"].decode()
    assert "license: cc-by-4.0" in files["README.md"].decode()
    # The files of a removed split are deleted.
    data = tmp_path / "set" / "data"
    next(data.glob("test*.parquet")).unlink()
    main(["dataset", str(tmp_path / "set"), "--repo", "alice/rows", "--license", "cc-by-4.0"])
    files = hub.files("alice/rows", repo_type="dataset")
    assert not any("test" in path for path in files if path.startswith("data/"))


@pytest.fixture(scope="module")
def private_run(trained_run, tmp_path_factory):
    """Folder of a run that was tuned from a local model on rows with names and sums."""
    folder = tmp_path_factory.mktemp("private")
    rows = [
        {
            "id": f"t{n}",
            "passage": f"Frau Meier aus Haus {n} schuldet uns noch {n * 113} Euro.",
            "question": "Wer?",
            "answer": "Frau Meier",
            "summary": f"Frau Meier aus Haus {n}.",
            "answerable": 1,
        }
        for n in range(60)
    ]
    path = folder / "schuldner_2026.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    values = {"model": str(trained_run[1] / "crosstask"), "data": str(path), "data_options": None}
    train.main([str(write_recipe(folder, **WITHOUT_PARTS, **values, vocab_size=None))])
    return folder / "run"


def find_private_words(hub):
    """Return the published files that contain a word of the private rows, with the word."""
    return {
        name: word
        for name, content in hub.files(REPO).items()
        for word in (b"Meier", b"schuldet", b"schuldner_2026")
        if not name.startswith("tokenizer") and word in content
    }


def test_the_card_of_a_private_model_shows_no_row(hub, alice, private_run):
    card = (private_run / "crosstask" / "README.md").read_text()
    assert "Meier" not in card and "None are shown" in card
    publish("model", private_run, REPO, license="mit", datasets=["private"])
    assert find_private_words(hub) == {}
    card = ModelCard(hub.files(REPO)["README.md"].decode())
    assert card.data.datasets is None and "private data" in card.text
    assert json.loads(hub.files(REPO)["metrics.json"])["examples"] == []


def test_an_adapter_of_private_rows_needs_its_base(hub, alice, private_run, tmp_path):
    train.main([str(private_run / "recipe.yaml"), "--output_dir", str(tmp_path / "run"), "--lora_r", "2"])
    settings = {"license": "mit", "datasets": ["private"]}
    with pytest.raises(ConfigError, match="the adapter needs .*, which is not on the Hub; .* with --base"):
        publish("adapter", tmp_path / "run", REPO, **settings)
    assert not hub.store.repos
    publish("adapter", tmp_path / "run", REPO, **settings, base="alice/base")
    assert find_private_words(hub) == {}
    assert ModelCard(hub.files(REPO)["README.md"].decode()).data.base_model == ["alice/base"]


def test_a_card_shows_the_rows_that_its_author_names(hub, alice, private_run):
    rows = {row["id"]: row for row in read_test_rows(private_run)}
    first, second, *_ = rows
    publish("model", private_run, REPO, license="mit", datasets=["private"], examples=[second])
    card = hub.files(REPO)["README.md"].decode()
    assert card.count(rows[second]["passage"]) == 2 and rows[first]["passage"] not in card
    with pytest.raises(ConfigError, match="^--example: .* has no test row with the id 'gone'"):
        publish("model", private_run, REPO, license="mit", datasets=["private"], examples=["gone"])


@pytest.mark.parametrize("name", ["", "none", "rows", "a/b/c"])
def test_what_names_no_data_set_is_refused(hub, alice, private_run, name):
    with pytest.raises(ConfigError, match=f"--dataset: expected user/name .*, or private, got '{name}'"):
        publish("model", private_run, REPO, license="mit", datasets=[name])
    assert not hub.store.repos


def test_data_sets_that_do_not_exist_are_refused(hub, alice, private_run):
    with pytest.raises(HubError, match="^bob/gone: not found on the Hub.*; nothing was published$"):
        publish("model", private_run, REPO, license="mit", datasets=["bob/gone"])
    assert not hub.store.repos


def test_a_model_tuned_from_a_folder_names_its_base(hub, alice, private_run):
    settings = {"license": "mit", "datasets": ["private"]}
    publish("model", private_run, REPO, **settings)
    assert ModelCard(hub.files(REPO)["README.md"].decode()).data.base_model is None
    publish("model", private_run, REPO, **settings, base="alice/base")
    card = ModelCard(hub.files(REPO)["README.md"].decode())
    assert (card.data.base_model, card.data.base_model_relation) == (["alice/base"], "finetune")
    with pytest.raises(ConfigError, match="^--base: expected the Hub id of a model, got './base'"):
        publish("model", private_run, REPO, **settings, base="./base")


@pytest.fixture(scope="module")
def scratch_run(trained_run, tmp_path_factory):
    """The trained run, as if its rows came from a file and its tokenizer had been trained on them."""
    folder = tmp_path_factory.mktemp("scratch") / "run"
    shutil.copytree(trained_run[1], folder)
    source = folder.parent / "kunden.jsonl"
    source.touch()
    recipe = (folder / "recipe.yaml").read_text().replace("data: briefs\n", f"data: {source}\n")
    (folder / "recipe.yaml").write_text(recipe)
    metrics = json.loads((folder / "metrics.json").read_text()) | {"local": [str(source)]}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    results = json.loads((folder / "results.json").read_text())
    results["settings"]["data"] = results["title"] = "kunden.jsonl"
    (folder / "results.json").write_text(json.dumps(results))
    assert (folder / "tokenizer").exists()
    return folder


def test_words_of_private_rows_in_a_tokenizer_are_not_published_unasked(hub, alice, scratch_run):
    settings = {"license": "mit", "datasets": ["private"]}
    with pytest.raises(
        ConfigError, match="its tokenizer is trained on the private rows .* names and numbers"
    ):
        publish("model", scratch_run, REPO, **settings)
    assert not hub.store.repos
    publish("model", scratch_run, REPO, **settings, include_private_texts=True)
    assert "tokenizer.json" in hub.files(REPO)


def test_private_test_rows_are_not_published_unasked(hub, alice, scratch_run):
    for options in ({}, {"dataset": "private"}):
        with pytest.raises(
            ConfigError, match="its rows, with their passages, come from files that are not on"
        ):
            publish("evaluation", scratch_run, REPO, license="mit", **options)
    assert not hub.store.repos
    publish("evaluation", scratch_run, REPO, license="mit", include_private_texts=True)
    files = hub.files(REPO, repo_type="dataset")
    assert not any(b"kunden" in content for content in files.values())
    with pytest.raises(ConfigError, match="--dataset: expected user/name .* got 'rows'"):
        publish("evaluation", scratch_run, REPO, license="mit", dataset="rows")
    publish("evaluation", scratch_run, REPO, license="mit", dataset="bob/rows")
    assert b"Rows of bob/rows" in hub.files(REPO, repo_type="dataset")["README.md"]


def test_a_recipe_whose_tokenizer_would_be_refused_is_not_trained(hub, alice, tmp_path):
    values = {"hub_model_id": REPO, "license": "mit", "datasets": ["private"]}
    with pytest.raises(SystemExit, match="its tokenizer is trained on the private rows"):
        train.main([str(write_recipe(tmp_path, push_to_hub=True, **values))])
    assert not hub.store.repos
