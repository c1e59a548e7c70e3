"""Names of the Hub: repository ids and licenses."""

import pytest

from crosstask.utils.errors import ConfigError
from crosstask.utils.hub_names import check_license, find_checkpoint, get_public_name, is_hub_id


def test_a_hub_id_has_its_form_and_is_no_local_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert is_hub_id("user/name") and is_hub_id("gpt2")
    assert not is_hub_id("/home/someone/model") and not is_hub_id("a/b/c") and not is_hub_id("rows.jsonl/")
    (tmp_path / "user" / "name").mkdir(parents=True)
    assert not is_hub_id("user/name")


def test_the_public_name_of_a_path_has_no_folders(tmp_path):
    assert get_public_name("user/name") == "user/name"
    assert get_public_name(str(tmp_path / "rows.jsonl")) == "rows.jsonl"


def test_a_license_is_one_of_the_hub():
    check_license("apache-2.0")
    check_license("other")
    with pytest.raises(ConfigError, match="unknown license 'apache2', .*; did you mean 'apache-2.0'"):
        check_license("apache2")


def test_the_folder_of_a_run_stands_for_its_model(tmp_path):
    (tmp_path / "run" / "crosstask").mkdir(parents=True)
    (tmp_path / "run" / "crosstask" / "config.json").write_text("{}")
    assert find_checkpoint(tmp_path / "run") == str(tmp_path / "run")
    (tmp_path / "run" / "recipe.yaml").write_text("{}")
    assert find_checkpoint(tmp_path / "run") == str(tmp_path / "run" / "crosstask")
    assert find_checkpoint("user/name") == "user/name"


@pytest.mark.parametrize(
    "name", ["./gone", "~/gone", "gone/", "runs/a/b", "/gone", "runs/gone", "runs\\gone"]
)
def test_a_path_that_does_not_exist_is_not_looked_up_on_the_hub(tmp_path, monkeypatch, name):
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="no such folder, expected a folder or the Hub id of a model"):
        find_checkpoint(name)
