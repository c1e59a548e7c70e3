"""Saved, published, loaded again: whole and unchanged, or not at all."""

import hashlib
import json
import re
import subprocess

import pytest
import torch
from huggingface_hub import HfApi, ModelCard
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSeq2SeqLM, AutoProcessor

from crosstask import CrossTaskConfig, CrossTaskForConditionalGeneration, CrossTaskProcessor

SUMS = "model.safetensors.sha256"


def load(name, **kwargs):
    return CrossTaskForConditionalGeneration.from_pretrained(name, **kwargs)


def assert_equal(found, expected):
    found, expected = found.state_dict(), expected.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def change_weights(folder, change):
    """Other weights, of which the sums are renewed: what a broken tool would save."""
    path = folder / "model.safetensors"
    weights = load_file(path)
    save_file(change(weights) or weights, path, metadata={"format": "pt"})
    (folder / SUMS).unlink()


@pytest.fixture
def folder(make_model, tmp_path):
    make_model("t5", "bert").save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize(
    "options, files",
    [
        ({}, ["model.safetensors"]),
        ({"variant": "fp16"}, ["model.fp16.safetensors"]),
        ({"max_shard_size": "40KB"}, ["model.safetensors.index.json", "model-00001-of-00007.safetensors"]),
        ({"max_shard_size": "40KB", "variant": "fp16"}, ["model.safetensors.index.fp16.json"]),
    ],
    ids=str,
)
def test_the_sums_are_those_of_sha256sum(make_model, tmp_path, options, files):
    model = make_model("t5", "bert")
    model.save_pretrained(tmp_path, **options)
    (sums,) = tmp_path.glob("*.sha256")
    lines = dict(reversed(line.split()) for line in sums.read_text().splitlines())
    assert {*files} <= lines.keys()
    assert lines == {name: hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in lines}
    assert lines.keys() == {path.name for path in tmp_path.glob("model[.-]*") if path != sums}
    done = subprocess.run(["sha256sum", "-c", sums.name], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert_equal(load(tmp_path, variant=options.get("variant")), model)


def test_saving_anew_renews_the_sums(make_model, folder):
    for seed, size in ((1, "40KB"), (2, "1GB")):
        model = make_model("t5", "bert", seed=seed)
        model.save_pretrained(folder, max_shard_size=size)
        assert_equal(load(folder), model)


@pytest.mark.parametrize("sharded", [False, True])
def test_a_changed_file_is_named(make_model, tmp_path, sharded):
    make_model("t5", "bert").save_pretrained(tmp_path, max_shard_size="40KB" if sharded else "1GB")
    path = sorted(tmp_path.glob("*.safetensors"))[-1]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    sentence = f"^{re.escape(str(tmp_path))}: {path.name} is not what was saved, by {SUMS}; download it again"
    for loading in (load, AutoModelForSeq2SeqLM.from_pretrained):
        with pytest.raises(OSError, match=sentence):
            loading(tmp_path)
    (tmp_path / SUMS).unlink()  # the change was meant
    load(tmp_path)


@pytest.mark.parametrize("known", [True, False])
def test_weights_that_cannot_be_read_are_one_sentence(folder, known):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:5000])
    if not known:
        (folder / SUMS).unlink()
    with pytest.raises(
        OSError, match="is not what was saved" if known else "cannot be read .*; download"
    ) as caught:
        load(folder)
    assert "\n" not in str(caught.value)


def test_a_missing_shard_is_named(make_model, tmp_path):
    make_model("t5", "bert").save_pretrained(tmp_path, max_shard_size="40KB")
    shard = sorted(tmp_path.glob("*.safetensors"))[0]
    shard.unlink()
    with pytest.raises(OSError, match=f"{shard.name} is missing, by {SUMS}; download it again"):
        load(tmp_path)


def test_a_missing_shard_is_named_without_sums_too(make_model, tmp_path):
    make_model("t5", "bert").save_pretrained(tmp_path, max_shard_size="40KB")
    (tmp_path / SUMS).unlink()
    shard = sorted(tmp_path.glob("*.safetensors"))[0]
    shard.unlink()
    with pytest.raises(OSError, match=f"cannot be read .*{shard.name}.*; download them again"):
        load(tmp_path)


@pytest.mark.parametrize("line", ["{sum} *{name}", "{SUM}  {name}", "{sum}  {name}\r"])
def test_all_that_sha256sum_reads_is_read(folder, line):
    digest = (folder / SUMS).read_text().split()[0]
    text = line.format(sum=digest, SUM=digest.upper(), name="model.safetensors")
    (folder / SUMS).write_bytes(text.encode() + b"\n")
    load(folder)


@pytest.mark.parametrize("line", ["garbage", "0" * 63 + "  model.safetensors", "0" * 64 + "  ../config.json"])
def test_sums_of_another_form_are_one_sentence(folder, line):
    (folder / SUMS).write_text(line + "\n")
    with pytest.raises(OSError, match=f"{SUMS} has a line that is not of the form") as caught:
        load(folder)
    assert "\n" not in str(caught.value)


def test_missing_and_unknown_weights_are_counted_and_named(folder):
    def change(weights):
        other = {
            name: value for name, value in weights.items() if not name.startswith("answerability_head.fc")
        }
        return other | {"head.weight": torch.ones(2)}

    change_weights(folder, change)
    with pytest.raises(
        ValueError, match="4 weights are missing .answerability_head.fc1.bias, .*1 weights are unknown"
    ) as caught:
        load(folder)
    assert "\n" not in str(caught.value) and "head.weight" in str(caught.value)
    model, info = load(folder, output_loading_info=True)  # whoever asks for it judges by himself
    assert len(info["missing_keys"]) == 4 and set(info["unexpected_keys"]) == {"head.weight"}


def test_weights_of_another_shape(folder):
    change_weights(folder, lambda weights: weights | {"answerability_head.fc1.weight": torch.ones(2, 2)})
    with pytest.raises(
        ValueError, match="its weights are of other shapes than its config.json says"
    ) as caught:
        load(folder)
    assert "\n" not in str(caught.value)
    assert load(folder, ignore_mismatched_sizes=True).answerability_head.fc1.weight.shape == (96, 24)


def test_a_checkpoint_of_another_model_is_refused(make_part, tmp_path):
    AutoModelForSeq2SeqLM.from_config(make_part("t5")).save_pretrained(tmp_path)
    config = CrossTaskConfig(make_part("t5"), make_part("bert"), fusion_num_heads=4)
    with pytest.raises(ValueError, match="weights are missing .* and .* weights are unknown to the model"):
        load(tmp_path, config=config)


def test_a_newer_format_is_not_read(folder):
    config = json.loads((folder / "config.json").read_text())
    assert config.pop("format_version") == 1
    (folder / "config.json").write_text(json.dumps(config))
    load(folder)  # of the time before there was a version
    (folder / "config.json").write_text(json.dumps(config | {"format_version": 2}))
    with pytest.raises(ValueError, match="of format version 2, and this crosstask reads 1: upgrade it, or"):
        load(folder)


@pytest.mark.parametrize("version", ["2", None, 0, True, 1.5])
def test_a_format_version_is_an_integer(version):
    with pytest.raises(ValueError, match="`format_version` has to be an integer from 1, got"):
        CrossTaskConfig(format_version=version)


def test_where_it_is_loaded_from(hub, alice, folder, make_model, tmp_path):
    model = load(folder)
    model.push_to_hub("alice/model")
    other = make_model("t5", "bert", seed=1)
    other.push_to_hub("alice/model", revision="other")
    assert_equal(load("alice/model"), model)
    assert_equal(load("alice/model", revision="other"), other)
    assert_equal(load("alice/model", revision=hub.commits("alice/model")[0].oid), model)
    HfApi().upload_folder(repo_id="alice/model", folder_path=folder, path_in_repo="sub/folder")
    assert_equal(load("alice/model", subfolder="sub/folder"), model)
    where = {"cache_dir": tmp_path / "cache"}
    assert_equal(load("alice/model", **where), model)
    hub.reset()
    assert_equal(load("alice/model", local_files_only=True, **where), model)


def test_weights_that_were_changed_on_the_hub(hub, alice, folder):
    load(folder).push_to_hub("alice/model")
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    HfApi().upload_file(path_or_fileobj=bytes(content), path_in_repo=path.name, repo_id="alice/model")
    with pytest.raises(OSError, match="^alice/model: model.safetensors is not what was saved"):
        load("alice/model")


def test_what_is_pushed_has_code_sums_and_a_card(hub, alice, make_model, tokenizer):
    model = make_model()
    model.push_to_hub("alice/model")
    CrossTaskProcessor(tokenizer, max_source_length=50).push_to_hub("alice/model")
    files = hub.files("alice/model")
    code = {name for name in files if name.endswith(".py")}
    assert {"modeling_crosstask.py", "processing_crosstask.py", "pipeline_crosstask.py"} <= code
    assert {"model.safetensors", SUMS, "config.json", "processor_config.json"} <= set(files)
    card = ModelCard(files["README.md"].decode())
    assert "[More Information Needed]" not in card.text and "model='alice/model'" in card.text
    assert card.data.tags == ["crosstask", "question-prompted-summarization"]
    assert (card.data.library_name, card.data.pipeline_tag) == ("transformers", "summarization")
    compile(card.text.split("```python\n")[1].split("```")[0], "card", "exec")
    assert AutoProcessor.from_pretrained("alice/model").max_source_length == 50


def test_a_card_that_is_there_stays(hub, alice, make_model, folder, tmp_path):
    HfApi().create_repo("alice/model")
    mine = b"---\nlicense: mit\n---\n# Mine\n"
    HfApi().upload_file(path_or_fileobj=mine, path_in_repo="README.md", repo_id="alice/model")
    model = make_model()
    model.push_to_hub("alice/model")
    assert "# Mine" in hub.files("alice/model")["README.md"].decode()
    model.save_pretrained(str(tmp_path / "again"), push_to_hub=True, repo_id="alice/again")
    assert SUMS in hub.files("alice/again") and "# again" in hub.files("alice/again")["README.md"].decode()


def test_pushing_shards_over_one_file_leaves_the_new_ones(hub, alice, make_model):
    for seed, size in ((0, "1GB"), (1, "40KB"), (2, "1GB")):
        model = make_model("t5", "bert", seed=seed)
        model.push_to_hub("alice/model", max_shard_size=size)
        assert_equal(load("alice/model"), model)


def test_one_file_that_the_sums_do_not_know_is_not_loaded(make_model, tmp_path):
    make_model("t5", "bert").save_pretrained(tmp_path / "old")
    make_model("t5", "bert", seed=1).save_pretrained(tmp_path / "new", max_shard_size="40KB")
    (tmp_path / "old" / "model.safetensors").rename(tmp_path / "new" / "model.safetensors")
    with pytest.raises(OSError, match="model.safetensors is not what was saved"):
        load(tmp_path / "new")
