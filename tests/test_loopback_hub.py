"""For real clients, the loopback Hub behaves like the Hub."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from datasets import Dataset, load_dataset
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    hf_hub_download,
    snapshot_download,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

REPO = "alice/things"


@pytest.fixture
def api(hub, alice):
    return HfApi(token=alice)


@pytest.fixture
def repo(api):
    api.create_repo(REPO)
    return REPO


def test_uploaded_files_can_be_downloaded(api, hub, repo, tmp_path):
    (tmp_path / "in" / "sub").mkdir(parents=True)
    (tmp_path / "in" / "config.json").write_text("{}")
    big = os.urandom(300_000)
    (tmp_path / "in" / "sub" / "model.safetensors").write_bytes(big)
    api.upload_folder(repo_id=repo, folder_path=tmp_path / "in", commit_message="all")
    assert hub.files(repo)["sub/model.safetensors"] == big
    assert hub.repo(repo).get_commit("main").files["sub/model.safetensors"].lfs
    snapshot = Path(snapshot_download(repo))
    assert (snapshot / "sub" / "model.safetensors").read_bytes() == big
    assert (snapshot / "config.json").read_text() == "{}"
    assert [commit.title for commit in api.list_repo_commits(repo)] == ["all", "initial commit"]
    files = {f.path for f in api.list_repo_tree(repo, recursive=True) if hasattr(f, "blob_id")}
    assert files == {".gitattributes", "config.json", "sub/model.safetensors"}
    # Cached files are not downloaded again, and existing LFS objects are not uploaded again.
    before = hub.count("GET", "lfs-objects") + hub.count("GET", "resolve")
    hf_hub_download(repo, "sub/model.safetensors")
    assert hub.count("GET", "lfs-objects") + hub.count("GET", "resolve") == before
    puts = hub.count("PUT", "lfs-objects")
    api.upload_folder(repo_id=repo, folder_path=tmp_path / "in")
    assert hub.count("PUT", "lfs-objects") == puts and len(hub.commits(repo)) == 2


def test_commits_are_atomic_and_check_their_parent(api, hub, repo):
    head = api.repo_info(repo).sha
    add = [CommitOperationAdd("a.txt", b"a"), CommitOperationAdd("b.parquet", b"b" * 100)]
    commit = api.create_commit(repo, add, commit_message="two", parent_commit=head, repo_type="model")
    assert hub.commits(repo)[0].oid == commit.oid
    with pytest.raises(HfHubHTTPError) as caught:
        more = [CommitOperationAdd("c.txt", b"c")]
        api.create_commit(repo, more, commit_message="late", parent_commit=head)
    assert caught.value.response.status_code == 412 and "c.txt" not in hub.files(repo)
    api.create_commit(repo, [CommitOperationDelete("a.txt")], commit_message="less")
    assert "a.txt" not in hub.files(repo) and "a.txt" in hub.files(repo, revision=commit.oid)


def test_an_object_that_was_not_uploaded_cannot_be_committed(api, hub, repo):
    # Make the client believe that the object was uploaded.
    operation = CommitOperationAdd("x.safetensors", b"x" * 50)
    operation._upload_mode, operation._is_uploaded = "lfs", True
    operation._should_ignore = False
    with pytest.raises(HfHubHTTPError):
        api.create_commit(repo, [operation, CommitOperationAdd("y", b"y")], commit_message="half")
    assert hub.files(repo).keys() == {".gitattributes"}


def test_branches_tags_and_pull_requests(api, hub, repo):
    api.create_branch(repo, branch="dev")
    api.create_commit(repo, [CommitOperationAdd("a", b"1")], commit_message="dev", revision="dev")
    assert "a" not in hub.files(repo) and hub.files(repo, revision="dev")["a"] == b"1"
    api.create_tag(repo, tag="v1", revision="dev")
    assert Path(hf_hub_download(repo, "a", revision="v1")).read_bytes() == b"1"
    refs = api.list_repo_refs(repo)
    assert {b.name for b in refs.branches} == {"main", "dev"} and [t.name for t in refs.tags] == ["v1"]
    commit = api.create_commit(repo, [CommitOperationAdd("p", b"2")], commit_message="please", create_pr=True)
    assert commit.pr_num == 1 and "p" not in hub.files(repo)
    assert Path(hf_hub_download(repo, "p", revision="refs/pr/1")).read_bytes() == b"2"
    assert [pull.title for pull in api.get_repo_discussions(repo)] == ["please"]


def test_missing_things_raise_the_errors_of_the_hub(api, repo):
    with pytest.raises(RepositoryNotFoundError):
        api.repo_info("alice/nothing")
    with pytest.raises(RevisionNotFoundError):
        api.repo_info(repo, revision="nowhere")
    with pytest.raises(EntryNotFoundError):
        hf_hub_download(repo, "nothing.txt")
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_repo(repo)


@pytest.mark.parametrize(
    "token, status",
    [(False, 401), ("hf_alice_may_only_read", 403), ("hf_bob_may_write_here_too", 403), ("hf_nobody", 401)],
)
def test_writing_without_permission_is_refused(api, hub, repo, token, status):
    with pytest.raises(HfHubHTTPError) as caught:
        HfApi().upload_file(path_or_fileobj=b"x", path_in_repo="x", repo_id=repo, token=token)
    assert caught.value.response.status_code == status and "x" not in hub.files(repo)


def test_a_private_repository_is_hidden_from_other_users(api):
    api.create_repo("alice/secret", private=True)
    assert api.repo_info("alice/secret").private
    for token in (False, "hf_bob_may_write_here_too"):
        with pytest.raises(RepositoryNotFoundError):
            HfApi().repo_info("alice/secret", token=token)
    api.delete_repo("alice/secret")
    assert not api.repo_exists("alice/secret")


def test_an_interrupted_download_is_resumed(api, hub, repo, tmp_path):
    content = os.urandom(200_000)
    api.upload_file(path_or_fileobj=content, path_in_repo="x.bin", repo_id=repo)
    name = hashlib.sha256(content).hexdigest()
    folder = tmp_path / "models--alice--things" / "blobs"
    folder.mkdir(parents=True)
    (folder / f"{name}.incomplete").write_bytes(content[:70_000])
    assert Path(hf_hub_download(repo, "x.bin", cache_dir=tmp_path)).read_bytes() == content


def test_models_and_data_sets_can_be_pushed_and_loaded(api, hub, make_part, tokenizer, tmp_path):
    model = AutoModelForSeq2SeqLM.from_config(make_part("t5"))
    model.push_to_hub("alice/t5")
    tokenizer.push_to_hub("alice/t5")
    loaded = AutoModelForSeq2SeqLM.from_pretrained("alice/t5")
    assert (loaded.shared.weight == model.shared.weight).all()
    assert AutoTokenizer.from_pretrained("alice/t5").get_vocab() == tokenizer.get_vocab()
    Dataset.from_dict({"text": ["a", "b"]}).push_to_hub("alice/texts", split="test")
    assert load_dataset("alice/texts", split="test")["text"][:] == ["a", "b"]


def test_faults_are_injected(api, hub, repo):
    hub.fail("GET", "/api/models/", status=503, times=2)
    for _ in range(2):
        with pytest.raises(HfHubHTTPError, match="503"):
            api.repo_info(repo)
    assert api.repo_info(repo).id == repo
    hub.fail("POST", "/commit/", cut_answer=True)
    with pytest.raises(Exception, match="(?i)disconnect|closed|aborted"):
        api.upload_file(path_or_fileobj=b"x", path_in_repo="x", repo_id=repo)
    assert hub.files(repo)["x"] == b"x"  # executed although the answer was cut
    hub.fail("POST", "/commit/", cut_body_at=1)
    with pytest.raises(Exception):  # noqa: B017  (the HTTP library decides which)
        api.upload_file(path_or_fileobj=b"y", path_in_repo="y", repo_id=repo)
    assert "y" not in hub.files(repo)


def test_it_can_be_started_from_the_command_line(tmp_path):
    server = Path(__file__).with_name("loopback_hub.py")
    process = subprocess.Popen(
        [sys.executable, "-u", str(server), "--port", "0"], stdout=subprocess.PIPE, text=True
    )
    try:
        line = process.stdout.readline()
        url = line.split("HF_ENDPOINT=")[1].split()[0]
        token = line.split("HF_TOKEN=")[1].split()[0]
        assert HfApi(endpoint=url, token=token).whoami()["name"] == "alice"
    finally:
        process.kill()
