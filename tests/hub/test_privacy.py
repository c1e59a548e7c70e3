"""Texts with a token or the path of a local folder are not published."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crosstask.hub.privacy import check_public, check_rows
from crosstask.utils.errors import HubError


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "runs" / "mine"
    folder.mkdir(parents=True)
    return folder


def test_folders_of_this_machine_are_refused(run):
    config = run / "config.json"
    config.write_text(f'{{"_name_or_path": "{run}"}}')
    with pytest.raises(HubError, match=f"^config.json: names a folder of this machine .*{run}.*nothing was"):
        check_public({"config.json": config}, run)
    with pytest.raises(HubError, match="README.md: names a folder of this machine"):
        check_public({"README.md": f"It lies in {Path.home()}/x."})


@pytest.mark.parametrize("token", ["hf_alice_may_write_here", "hf_" + "a" * 34])
def test_tokens_are_refused_and_not_repeated(token, alice):
    with pytest.raises(HubError, match="looks like a token of the Hub") as caught:
        check_public({"README.md": f"token: {token}"})
    assert token not in str(caught.value)


def test_links_and_json_escapes_are_refused(run, tmp_path):
    link = tmp_path / "été"
    link.symlink_to(run)
    for text in (f"in {link}/x", json.dumps({"in": str(link / "x")})):
        with pytest.raises(HubError, match="names a folder of this machine"):
            check_public({"README.md": text}, link)


def test_a_top_level_folder_alone_is_allowed():
    check_public({"README.md": "It lay in /tmp of the server."}, Path("/tmp"))
    with pytest.raises(HubError, match="names a folder of this machine"):
        check_public({"README.md": "It lay in /tmp/x of the server."}, Path("/tmp"))


def test_vocabularies_and_longer_names_are_allowed(run):
    weights = run / "model.safetensors"
    weights.write_text(str(run))
    check_public({"tokenizer.json": str(run), "notes.md": f"{run}-2", "model.safetensors": weights}, run)


def test_a_passage_of_a_private_row_is_refused(tmp_path):
    rows = [
        {
            "id": "r1",
            "passage": "Frau *Meier* schuldet\n113 Euro und noch mehr Geld.",
            "system": "cross-task",
        },
        {"id": "r2", "passage": "Herr Wolf bezahlt seine Rechnung jeden Monat.", "system": "cross-task"},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    metrics = json.dumps({"examples": [{"passage": rows[1]["passage"]}]})
    files = {"metrics.json": metrics, "README.md": f"> {rows[1]['passage']}"}
    check_rows(files, tmp_path)
    leak = "('113 Euro und '\n 'noch mehr Geld.')"
    with pytest.raises(HubError, match="README.md: contains the passage of the test row 'r1'"):
        check_rows(files | {"README.md": leak}, tmp_path)
