"""Files and folders are whole or not there, whatever ends the process that writes them."""

import os

import pytest

from crosstask.utils.files import write_folder, write_text


class Killed(BaseException):
    pass


def killed(*args, **kwargs):
    raise Killed


def test_text_comes_back_and_its_folders_are_made(tmp_path):
    path = tmp_path / "a" / "b" / "c.json"
    write_text(path, "ö\n")
    write_text(str(path), "ü\n")
    assert path.read_text(encoding="utf-8") == "ü\n"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("text", ["new", "half a pair \ud800"])
def test_a_failed_write_leaves_the_old_text(tmp_path, monkeypatch, text):
    path = tmp_path / "metrics.json"
    write_text(path, "old")
    with monkeypatch.context() as patch, pytest.raises((Killed, UnicodeEncodeError)):
        patch.setattr(os, "replace", killed)
        write_text(path, text)
    assert path.read_text() == "old"
    write_text(path, "newer")
    assert path.read_text() == "newer" and list(tmp_path.iterdir()) == [path]


def test_a_leftover_of_a_killed_write_is_overwritten(tmp_path):
    (tmp_path / "a.json.tmp").write_text("half, and longer than what follows")
    write_text(tmp_path / "a.json", "whole")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_text() == "whole"


def fill(folder):
    (folder / "one").write_text("1")
    (folder / "two").write_text("2")


def fail_half_way(folder):
    (folder / "one").write_text("half")
    raise Killed


def test_a_folder_appears_with_all_that_is_in_it(tmp_path):
    seen = []

    def write(folder):
        fill(folder)
        seen.append((tmp_path / "deep" / "model").exists())

    write_folder(tmp_path / "deep" / "model", write)
    assert seen == [False]
    assert sorted(path.name for path in (tmp_path / "deep" / "model").iterdir()) == ["one", "two"]
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["model"]


def test_a_folder_that_failed_half_way_is_not_there_and_is_saved_later(tmp_path):
    folder = tmp_path / "model"
    with pytest.raises(Killed):
        write_folder(folder, fail_half_way)
    assert not folder.exists()
    (tmp_path / "model.tmp" / "leftover").write_text("of the killed run")
    write_folder(folder, fill)
    assert sorted(path.name for path in folder.iterdir()) == ["one", "two"]
    assert list(tmp_path.iterdir()) == [folder]


def test_a_folder_that_is_there_is_not_touched(tmp_path):
    folder = tmp_path / "model"
    write_folder(folder, fill)
    with pytest.raises(OSError):
        write_folder(folder, lambda temporary: (temporary / "three").write_text("3"))
    assert sorted(path.name for path in folder.iterdir()) == ["one", "two"]
