"""The router: embeddings, centroids, their files, and the adapters that passages are routed to."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers.normalizers import Replace
from transformers import AutoModel, T5EncoderModel

from crosstask import AdapterRouter
from crosstask.data.briefs import generate
from crosstask.utils.files import CENTROIDS_NAME

TEXTS = ["the river rose", "rain fell for two days and the bridge was closed", "a cup final"]


@pytest.fixture(scope="module")
def encoders(make_part, tokenizer, tmp_path_factory):
    """Return a folder of text encoders with random weights: two BERTs and a T5."""
    folder = tmp_path_factory.mktemp("encoders")
    for name, kind in (("one", "bert"), ("two", "bert"), ("t5", "t5")):
        torch.manual_seed(len(name) + ord(name[0]))
        config = make_part(kind)
        config.vocab_size = len(tokenizer)
        AutoModel.from_config(config).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return folder


@pytest.fixture
def router(encoders):
    return AdapterRouter(encoders / "one")


@pytest.mark.parametrize("name", ["one", "t5"])
def test_an_embedding_is_the_normalized_mean_of_the_states(encoders, tokenizer, name):
    router = AdapterRouter(encoders / name)
    embeddings = router.embed(TEXTS)
    model = (AutoModel if name == "one" else T5EncoderModel).from_pretrained(encoders / name).eval()
    for text, embedding in zip(TEXTS, embeddings, strict=True):
        ids = tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            states = model(input_ids=ids["input_ids"]).last_hidden_state[0].mean(0)
        torch.testing.assert_close(embedding, states / states.norm(), atol=1e-5, rtol=1e-4)
    for size in (1, 2):
        torch.testing.assert_close(router.embed(TEXTS, batch_size=size), embeddings)


def test_long_texts_are_cut_and_empty_texts_embedded(encoders):
    router = AdapterRouter(encoders / "one", max_length=8)
    long = router.embed(["rain fell " * 1000, "rain fell " * 9, ""])
    torch.testing.assert_close(long[0], long[1])
    assert long.isfinite().all()
    assert router.embed([]).shape == (0, long.shape[1])


def test_a_text_without_tokens_is_left_out_of_the_centroids(router, monkeypatch):
    monkeypatch.setattr(router.tokenizer.backend_tokenizer, "post_processor", None)
    assert router.embed(["", TEXTS[0]])[0].norm() == 0
    router.fit("a", TEXTS[:1]).fit("b", ["", *TEXTS[2:]])
    assert router.route([TEXTS[0], TEXTS[2]]) == ["a", "b"]
    # A text that is not blank may have no tokens either: zeros would be nearer than some other centroids.
    monkeypatch.setattr(router.tokenizer.backend_tokenizer, "normalizer", Replace("\u200b", ""))
    assert router.embed(["\u200b"]).norm() == 0
    assert len(router.fit("c", ["\u200b", TEXTS[1]]).centroids["c"]) == 1
    with pytest.raises(ValueError, match="^adapter d: expected passages that .*/one can embed, got"):
        router.fit("d", ["\u200b"])


@pytest.mark.parametrize(
    "kind, settings",
    [
        ("bert", {"max_position_embeddings": 16}),
        ("roberta", {"max_position_embeddings": 18}),  # two of them come before the first token
        ("led", {"max_encoder_position_embeddings": 16}),
    ],
)
def test_texts_are_cut_at_the_positions_of_the_encoder(make_part, tokenizer, tmp_path, kind, settings):
    AutoModel.from_config(make_part(kind, len(tokenizer), **settings)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    router, expected = AdapterRouter(tmp_path), AdapterRouter(tmp_path, max_length=16)
    long = ["rain fell " * 1000]
    torch.testing.assert_close(router.embed(long), expected.embed(long))
    assert not torch.allclose(router.embed(long), AdapterRouter(tmp_path, max_length=15).embed(long))


def test_a_passage_goes_to_the_nearest_centroid(router):
    for name, text in zip("abc", TEXTS, strict=True):
        router.fit(name, [text])
    assert router.route(TEXTS[::-1]) == ["c", "b", "a"]
    assert router.route([]) == []


def test_a_domain_has_several_clusters(router):
    # One domain has two kinds of passages.
    kinds = [[f"{text} {number}" for number in range(8)] for text in TEXTS]
    router.fit("a", kinds[0] + kinds[2]).fit("b", kinds[1])
    assert router.centroids["a"].shape == (8, 24)
    assert router.route(sum(kinds, [])) == ["a"] * 8 + ["b"] * 8 + ["a"] * 8
    # With as many passages as clusters, each passage is a centroid.
    embeddings = router.embed(kinds[1])
    nearest = (embeddings @ router.centroids["b"].T).argmax(1)
    assert nearest.unique().tolist() == [*range(8)]
    torch.testing.assert_close(router.centroids["b"][nearest], embeddings)
    # Passages that do not differ within `max_length` are one centroid.
    router.max_length = 8
    assert len(router.fit("few", ["rain " * 9, "rain " * 12, "the river"]).centroids["few"]) == 2


@pytest.mark.parametrize("kind", [tuple, np.array, iter, lambda texts: (text for text in texts)])
def test_texts_may_be_any_iterable(router, kind):
    expected = router.embed(TEXTS)
    torch.testing.assert_close(router.embed(kind(TEXTS)), expected)
    for name, text in zip("abc", TEXTS, strict=True):
        router.fit(name, kind([text]))
    assert router.route(kind(TEXTS)) == ["a", "b", "c"]


def test_saved_centroids_are_loaded(router, encoders, tmp_path):
    router.fit("a", TEXTS[:2]).fit("b", TEXTS[2:])
    for name in "ab":
        router.save(name, tmp_path / name)
        assert [path.name for path in (tmp_path / name).iterdir()] == [CENTROIDS_NAME]
    loaded = AdapterRouter(str(encoders / "one"))
    for name in "ab":
        loaded.load(name, tmp_path / name)
        torch.testing.assert_close(loaded.centroids[name], router.centroids[name])
    assert loaded.route(TEXTS) == router.route(TEXTS)
    assert str(tmp_path).encode() not in (tmp_path / "a" / CENTROIDS_NAME).read_bytes()
    assert load_file(tmp_path / "a" / CENTROIDS_NAME)["centroids"].norm(dim=1).tolist() == pytest.approx(
        [1, 1]
    )


def test_a_killed_save_does_not_change_the_saved_centroids(router, tmp_path, monkeypatch):
    router.fit("a", TEXTS[:1]).save("a", tmp_path)
    before = router.centroids["a"]

    def write_half(path, content):
        with path.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", write_half)
    with pytest.raises(KeyboardInterrupt):
        router.fit("a", TEXTS[1:]).save("a", tmp_path)
    torch.testing.assert_close(router.load("a", tmp_path).centroids["a"], before)


def test_centroids_are_loaded_from_a_subfolder(router, tmp_path):
    router.fit("a", TEXTS).save("a", tmp_path / "best")
    assert router.load("b", tmp_path, subfolder="best").centroids.keys() == {"a", "b"}
    with pytest.raises(OSError, match=f"^adapter {tmp_path}: has no last/adapter_centroids.safetensors"):
        router.load("c", tmp_path, subfolder="last")


@pytest.mark.parametrize(
    "centroids",
    [torch.ones(()), torch.ones(24), torch.ones(0, 24), torch.ones(2, 7), torch.full((1, 24), torch.nan)],
)
def test_centroids_of_wrong_shape_or_value_raise(router, tmp_path, centroids):
    router.fit("a", TEXTS).save("a", tmp_path)
    save_file(load_file(tmp_path / CENTROIDS_NAME) | {"centroids": centroids}, tmp_path / CENTROIDS_NAME)
    with pytest.raises(
        ValueError, match=f"^adapter {tmp_path}: its centroids are .* expected finite numbers"
    ):
        router.load("a", tmp_path)


def test_centroids_in_half_precision_are_loaded_and_normalized(router, tmp_path):
    router.fit("a", TEXTS[:1]).save("a", tmp_path)
    saved = load_file(tmp_path / CENTROIDS_NAME)
    halves = {"centroids": saved["centroids"].half() * 3, "probe": saved["probe"].half()}
    save_file(halves, tmp_path / CENTROIDS_NAME)
    router.load("a", tmp_path)
    assert router.centroids["a"].norm() == pytest.approx(1)
    assert router.route(TEXTS) == ["a"] * 3


@pytest.mark.parametrize("other", ["two", "t5"])
def test_centroids_of_another_encoder_raise(router, encoders, tmp_path, other):
    router.fit("a", TEXTS).save("a", tmp_path)
    with pytest.raises(
        ValueError, match="its centroids were computed with another text encoder .*, expected that"
    ):
        AdapterRouter(encoders / other).load("a", tmp_path)


def test_centroids_of_a_copy_of_the_encoder_are_loaded(router, encoders, tmp_path):
    router.fit("a", TEXTS).save("a", tmp_path)
    shutil.copytree(encoders / "one", tmp_path / "copy")
    assert AdapterRouter(tmp_path / "copy").load("a", tmp_path).centroids.keys() == {"a"}


def test_centroids_are_loaded_from_the_hub(hub, alice, router, encoders, tmp_path):
    from huggingface_hub import HfApi

    AutoModel.from_pretrained(encoders / "one").push_to_hub("alice/encoder")
    router.tokenizer.push_to_hub("alice/encoder")
    AdapterRouter("alice/encoder").fit("a", TEXTS).save("a", tmp_path)
    HfApi().create_repo("alice/adapter")
    HfApi().upload_folder(repo_id="alice/adapter", folder_path=tmp_path)
    router.load("a", "alice/adapter")
    assert router.route(TEXTS) == ["a"] * 3
    with pytest.raises(
        OSError, match="^adapter alice/encoder: has no adapter_centroids.safetensors; create it"
    ):
        router.load("b", "alice/encoder")
    other = AdapterRouter(encoders / "two")
    with pytest.raises(ValueError, match=r"with another text encoder \(alice/encoder\), expected"):
        other.load("a", "alice/adapter")


def test_wrong_arguments_raise(router, tmp_path):
    with pytest.raises(ValueError, match="^expected centroids of some adapters"):
        router.route(TEXTS)
    with pytest.raises(
        ValueError, match="^adapter a: expected passages to compute its centroids from, got none"
    ):
        router.fit("a", [])
    with pytest.raises(
        ValueError, match="^adapter a: expected passages to compute its centroids from, got none"
    ):
        router.fit("a", [" "])
    with pytest.raises(TypeError, match="^adapter a: expected a list of passages, got one text"):
        router.fit("a", "the river rose")
    with pytest.raises(OSError, match="^nobody/nothing is not a local folder and is not a valid model id"):
        router.load("b", "nobody/nothing")
    with pytest.raises(TypeError, match="^expected a list of passages, got one text"):
        router.fit("a", TEXTS).route("the river rose")
    with pytest.raises(TypeError, match="^adapter a: expected a list of passages, got NoneType at index 1$"):
        router.fit("a", ["the river rose", None])
    with pytest.raises(TypeError, match="^expected a list of passages, got int at index 0$"):
        router.route([3])
    for passages in (None, 3):
        with pytest.raises(TypeError, match="^adapter a: expected a list of passages, got (NoneType|int)$"):
            router.fit("a", passages)
        with pytest.raises(TypeError, match="^expected a list of passages, got (NoneType|int)$"):
            router.route(passages)
    with pytest.raises(OSError, match="has no adapter_centroids.safetensors"):
        router.load("b", tmp_path)
    (tmp_path / CENTROIDS_NAME).write_bytes(json.dumps({}).encode())
    with pytest.raises(OSError, match="its adapter_centroids.safetensors cannot be read"):
        router.load("b", tmp_path)


def test_briefs_are_routed_to_their_domain(minilm, tmp_path):
    router = AdapterRouter(minilm)
    passages = {
        split: {
            domain: [row["passage"] for row in generate("summarize", split, 300, domain=domain)]
            for domain in ("news", "farm")
        }
        for split in ("train", "test")
    }
    for domain, texts in passages["train"].items():
        router.fit(domain, texts)
    for domain, texts in passages["test"].items():
        names = router.route(texts)
        assert names.count(domain) >= 0.98 * len(names)


def test_a_passage_of_no_domain_goes_to_the_base(router, tmp_path):
    domain = [f"the mayor opened the old bridge on May {day}" for day in range(32)]
    router.fit("a", domain)
    foreign = "zzz qqq 999 !!! ???"
    assert router.route([domain[0], foreign]) == ["a", "base"]
    router.save("a", tmp_path)
    loaded = AdapterRouter(router.name).load("b", tmp_path)
    assert loaded.thresholds["b"] == pytest.approx(router.thresholds["a"])
    assert loaded.route([domain[0], foreign]) == ["b", "base"]
    assert router.fit("a", domain[:8]).route([foreign]) == ["a"]  # too few passages for a threshold


def test_centroids_of_an_unknown_name_are_not_saved(router, tmp_path):
    router.fit("a", TEXTS)
    with pytest.raises(
        ValueError, match="^adapter 'b': the router has no centroids of it, it has a; `fit` it"
    ):
        router.save("b", tmp_path)
