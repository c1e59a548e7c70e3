"""The record of what a stage ran on."""

import platform
import subprocess

import pytest
import torch

from crosstask.training import record


def test_the_environment_has_versions_and_hardware():
    environment = record.describe_environment(2)
    assert environment["versions"]["python"] == platform.python_version()
    assert environment["versions"]["torch"] == torch.__version__
    assert environment["hardware"].endswith("2 processes")
    assert record.describe_environment()["hardware"].endswith("1 process")


def test_a_package_that_is_not_installed_has_no_version(monkeypatch):
    monkeypatch.setattr(record, "PACKAGES", ("no-such-package",))
    assert record.describe_environment()["versions"]["no-such-package"] is None


@pytest.fixture
def checkout(tmp_path):
    def git(*arguments):
        settings = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        return subprocess.run(
            ["git", "-C", tmp_path, *settings, *arguments], check=True, capture_output=True, text=True
        ).stdout.strip()

    git("init", "-q")
    (tmp_path / "code.py").write_text("")
    git("add", "code.py")
    git("commit", "-q", "-m", "Add code")
    return tmp_path, git("rev-parse", "HEAD")


def test_the_commit_is_that_of_the_checkout(checkout):
    folder, commit = checkout
    assert record._get_commit(folder) == commit
    (folder / "code.py").write_text("changed")
    assert record._get_commit(folder) == f"{commit}+changes"


def test_a_folder_inside_another_repository_has_no_commit(checkout):
    folder, _ = checkout
    (folder / "site-packages").mkdir()
    assert record._get_commit(folder / "site-packages") is None


def test_the_sources_are_models_and_data_of_all_stages():
    values = {
        "": {"summarizer": "a/b", "model": None, "seed": 1},
        "fuse": {"data": "rows.jsonl", "lora_r": 2},
    }
    assert record.list_sources(values) == {"a/b", "rows.jsonl"}
