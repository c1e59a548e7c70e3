"""An output folder belongs to one process at a time and to one recipe."""

import pytest
import yaml

from crosstask.utils.errors import ConfigError
from crosstask.utils.output_folder import claim_folder, lock_folder


def test_a_lock_is_held_until_its_release(tmp_path):
    lock = lock_folder(tmp_path / "deep" / "run")
    with pytest.raises(ConfigError, match="output_dir: .*run is in use by another process"):
        lock_folder(tmp_path / "deep" / "run")
    lock.release()
    lock_folder(tmp_path / "deep" / "run").release()


def test_a_file_is_no_output_folder(tmp_path):
    (tmp_path / "run").write_text("a file")
    with pytest.raises(ConfigError, match="output_dir: .*run cannot be written to"):
        lock_folder(tmp_path / "run")


def test_only_free_keys_may_change(tmp_path):
    claim_folder(tmp_path, {"": {"seed": 1, "log": 1, "output_dir": "a"}, "fuse": {"steps": 2}}, {"log"})
    claim_folder(tmp_path, {"": {"seed": 1, "log": 2, "output_dir": "b"}, "fuse": {"steps": 2}}, {"log"})
    with pytest.raises(ConfigError, match=r"another recipe \(fuse.steps is 2 there and 3 here\)"):
        claim_folder(tmp_path, {"": {"seed": 1}, "fuse": {"steps": 3}}, {"log"})
    with pytest.raises(ConfigError, match=r"another recipe \(seed is 1 there and None here\)"):
        claim_folder(tmp_path, {"": {}, "fuse": {"steps": 2}}, {"log"})
    recorded = yaml.safe_load((tmp_path / "recipe.yaml").read_text())
    assert recorded == {"seed": 1, "log": 2, "output_dir": "b", "fuse": {"steps": 2}}


@pytest.mark.parametrize("text", [": : :\n- x", "hello"])
def test_a_damaged_record_is_named(tmp_path, text):
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(ConfigError, match="recipe.yaml is not the record of a recipe"):
        claim_folder(tmp_path, {"": {}}, set())


def test_speed_may_change_for_stages_that_have_not_begun(tmp_path):
    def claim(batch_size, new_stages, stage_size=None, seed=1):
        top = {"seed": seed, "batch_size": batch_size}
        stages = {"answer": top, "fuse": top | ({"batch_size": stage_size} if stage_size else {})}
        claim_folder(tmp_path, {"": top, **stages}, set(), new_stages, {"batch_size"})

    claim(8, {"answer", "fuse"})
    claim(4, {"answer", "fuse"})
    with pytest.raises(
        ConfigError, match=r"\(answer.batch_size is 4 there and 2 here\); set it under fuse only"
    ):
        claim(2, {"fuse"})
    claim(4, {"fuse"}, stage_size=2)
    with pytest.raises(ConfigError, match="fuse.batch_size is 2 there and 1 here.*choose another output_dir"):
        claim(4, set(), stage_size=1)
    with pytest.raises(ConfigError, match="seed is 1 there and 2 here.*choose another output_dir"):
        claim(4, {"fuse"}, stage_size=2, seed=2)


def test_training_may_become_longer_for_stages_that_can_go_on(tmp_path):
    def claim(steps, unfinished):
        claim_folder(
            tmp_path,
            {"": {"steps": steps}, "answer": {"steps": steps}, "fuse": {"steps": steps}},
            set(),
            growing_stages=unfinished,
            growing_keys={"steps"},
        )

    claim(2, {"answer", "fuse"})
    claim(4, {"answer", "fuse"})
    with pytest.raises(ConfigError, match=r"\(steps is 4 there and 3 here\)"):
        claim(3, {"answer", "fuse"})
    with pytest.raises(ConfigError, match=r"\(answer.steps is 4 there and 6 here\); set it under fuse only"):
        claim(6, {"fuse"})
    with pytest.raises(
        ConfigError, match=r"\(answer.steps is 4 there and 6 here\); its model is finished: set model: "
    ):
        claim(6, set())
