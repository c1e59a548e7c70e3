"""Files and folders are written completely or not at all, even if the process that writes them is killed."""

import hashlib
import os

import pytest
from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES, tokenizer_class_from_name

from crosstask.utils.files import (
    hash_file,
    list_model_files,
    match_path,
    replace_file,
    write_folder,
    write_text,
)


class Killed(BaseException):
    pass


def raise_killed(*args, **kwargs):
    raise Killed


def test_text_is_read_back_and_missing_folders_are_created(tmp_path):
    path = tmp_path / "a" / "b" / "c.json"
    write_text(path, "ö\n")
    write_text(str(path), "ü\n")
    assert path.read_text(encoding="utf-8") == "ü\n"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("text", ["new", "half a surrogate pair \ud800"])
def test_a_failed_write_leaves_the_old_text(tmp_path, monkeypatch, text):
    path = tmp_path / "metrics.json"
    write_text(path, "old")
    with monkeypatch.context() as patch, pytest.raises((Killed, UnicodeEncodeError)):
        patch.setattr(os, "replace", raise_killed)
        write_text(path, text)
    assert path.read_text() == "old"
    write_text(path, "newer")
    assert path.read_text() == "newer" and list(tmp_path.iterdir()) == [path]


def test_a_failed_block_leaves_neither_the_file_nor_a_temporary_one(tmp_path):
    with pytest.raises(Killed), replace_file(tmp_path / "a.png") as temporary:
        temporary.write_bytes(b"half")
        raise Killed
    assert not list(tmp_path.iterdir())


def test_a_leftover_of_a_killed_write_is_overwritten(tmp_path):
    (tmp_path / "a.json.tmp").write_text("half, and longer than what follows")
    write_text(tmp_path / "a.json", "complete")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_text() == "complete"


def write_two_files(folder):
    (folder / "one").write_text("1")
    (folder / "two").write_text("2")


def fail_after_one_file(folder):
    (folder / "one").write_text("half")
    raise Killed


def test_a_folder_appears_with_all_its_files(tmp_path):
    existed = []

    def write(folder):
        write_two_files(folder)
        existed.append((tmp_path / "deep" / "model").exists())

    write_folder(tmp_path / "deep" / "model", write)
    assert existed == [False]
    assert sorted(path.name for path in (tmp_path / "deep" / "model").iterdir()) == ["one", "two"]
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["model"]


def test_a_folder_that_failed_is_absent_and_can_be_written_later(tmp_path):
    folder = tmp_path / "model"
    with pytest.raises(Killed):
        write_folder(folder, fail_after_one_file)
    assert not folder.exists()
    (tmp_path / "model.tmp" / "leftover").write_text("of the killed run")
    write_folder(folder, write_two_files)
    assert sorted(path.name for path in folder.iterdir()) == ["one", "two"]
    assert list(tmp_path.iterdir()) == [folder]


def test_an_existing_folder_is_not_changed(tmp_path):
    folder = tmp_path / "model"
    write_folder(folder, write_two_files)
    with pytest.raises(OSError):
        write_folder(folder, lambda temporary: (temporary / "three").write_text("3"))
    assert sorted(path.name for path in folder.iterdir()) == ["one", "two"]


def test_the_digest_of_a_file_longer_than_a_block(tmp_path):
    content = bytes(range(256)) * 5000
    (tmp_path / "weights").write_bytes(content)
    assert hash_file(tmp_path / "weights") == hashlib.sha256(content).hexdigest()


def test_a_pattern_does_not_cross_folders():
    assert match_path("model-1.safetensors", "model*.safetensors")
    assert match_path("data/a.parquet", "data/*.parquet")
    assert not match_path("data/old/a.parquet", "data/*.parquet")
    assert not match_path("data/a.parquet", "*.parquet")


PUBLISHED = ("model.safetensors", "config.json", "question_tokenizer/tokenizer.json", "modeling_crosstask.py")
PRIVATE = ("optimizer.pt", "pytorch_model.bin", "notes.txt", "old/model.safetensors", "runs/config.json")


def test_only_files_of_a_checkpoint_are_listed(tmp_path):
    for name in PUBLISHED + PRIVATE:
        write_text(tmp_path / name, "")
    assert set(list_model_files(tmp_path)) == set(PUBLISHED)


def test_vocabulary_files_of_every_tokenizer_of_transformers_are_published(tmp_path):
    names = {"tokenizer.json"}
    for tokenizer_class in set(filter(None, TOKENIZER_MAPPING_NAMES.values())):
        try:
            names |= set(tokenizer_class_from_name(tokenizer_class).vocab_files_names.values())
        except (AttributeError, ImportError, ValueError):  # its package is missing, or it is made elsewhere
            continue
    names = {name for name in names if name}
    for name in names | {"bpe.codes", "dict.txt", "vocab-src.json"}:
        (tmp_path / name).write_text("{}")
    assert names >= {"vocab.txt", "merges.txt"}
    assert {path.name for path in tmp_path.iterdir()} == set(list_model_files(tmp_path))


def test_the_files_of_a_folder_are_as_readable_as_the_umask_allows(tmp_path):
    def write(folder):
        (folder / "part").mkdir()
        for path in (folder / "config.json", folder / "part" / "weights"):
            path.touch(mode=0o600)

    before = os.umask(0o027)
    try:
        write_folder(tmp_path / "model", write)
    finally:
        os.umask(before)
    assert (tmp_path / "model" / "config.json").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "model" / "part" / "weights").stat().st_mode & 0o777 == 0o640
