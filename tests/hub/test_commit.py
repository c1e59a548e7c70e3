"""A publication is one commit, even with the faults that the loopback Hub injects."""

import base64
import logging
import os
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path

import pytest

from crosstask.hub import commit as commit_module
from crosstask.hub.commit import commit
from crosstask.utils.errors import HubError

REPO = "alice/thing"
BIG = os.urandom(300_000)


@pytest.fixture
def waits(monkeypatch):
    """Replace the waits between attempts; return the list of their seconds."""
    seconds = []
    monkeypatch.setattr(commit_module, "sleep", seconds.append)
    return seconds


@pytest.fixture
def files(tmp_path):
    """A small text, and a large file that is uploaded through LFS."""
    weights = tmp_path / "weights" / "model.safetensors"
    weights.parent.mkdir()
    weights.write_bytes(BIG)
    return {"README.md": "# thing\n", "sub/model.safetensors": weights}


def publish(files, repo_id=REPO, **options):
    return commit(files, repo_id, **{"repo_type": "model", "message": "Publish"} | options)


def assert_complete(hub, revision="main", commits=2):
    """Check that all files were uploaded and that the branch has `commits` commits, with the initial one."""
    stored = hub.files(REPO, revision=revision)
    assert (stored["README.md"], stored["sub/model.safetensors"]) == (b"# thing\n", BIG)
    assert len(hub.commits(REPO, revision=revision)) == commits


def assert_nothing_published(hub):
    assert not hub.store.repos or set(hub.files(REPO)) == {".gitattributes"}


def test_all_files_are_one_commit(hub, alice, files):
    url = publish(files)
    assert_complete(hub)
    assert url == f"{hub.url}/{REPO}/commit/{hub.commits(REPO)[0].oid}"


@pytest.mark.parametrize("repo_type", ["model", "dataset", "space"])
def test_every_type_of_repository(hub, alice, files, repo_type):
    publish(files, repo_type=repo_type)
    assert hub.files(REPO, repo_type=repo_type)["README.md"] == b"# thing\n"


def test_replaced_files_are_deleted_and_other_files_stay(hub, alice, files):
    old = {
        "model-00001-of-00002.safetensors": "x",
        "model-00002-of-00002.safetensors": "y",
        "NOTES.md": "mine",
    }
    publish(old)
    publish(files, replaces=("*.safetensors",))
    assert set(hub.files(REPO)) == {".gitattributes", "NOTES.md", *files}
    assert len(hub.commits(REPO)) == 3


def test_publishing_again_uploads_no_large_file_again(hub, alice, files):
    publish(files)
    publish(files)
    assert hub.files(REPO)["sub/model.safetensors"] == BIG
    assert hub.count("PUT", "lfs-objects") == 1


def test_private_and_public_repositories(hub, alice, files):
    publish(files, private=True)
    assert hub.repo(REPO).private
    publish(files)  # stays private
    assert hub.repo(REPO).private
    publish(files, "alice/open")
    with pytest.raises(HubError, match="alice/open: exists and is public; --private only works for a new"):
        publish({"secret": "x"}, "alice/open", private=True)
    assert "secret" not in hub.files("alice/open")


def test_a_missing_branch_is_created(hub, alice, files):
    publish(files, revision="v2")
    assert_complete(hub, revision="v2")
    assert set(hub.files(REPO)) == {".gitattributes"}
    publish({"README.md": "# other\n"}, revision="v2")
    assert len(hub.commits(REPO, revision="v2")) == 3


def test_a_pull_request_does_not_change_main(hub, alice, files):
    url = publish(files, create_pr=True)
    assert url == f"{hub.url}/{REPO}/discussions/1"
    assert_complete(hub, revision="refs/pr/1")
    assert set(hub.files(REPO)) == {".gitattributes"}


@pytest.mark.parametrize("status", [500, 503])
@pytest.mark.parametrize(
    "method, path",
    [("POST", "repos/create"), ("POST", "preupload"), ("GET", "revision"), ("POST", "/commit/")],
)
def test_a_server_error_is_retried(hub, alice, files, waits, method, path, status):
    hub.fail(method, path, status=status)
    publish(files)
    assert_complete(hub)
    assert waits in ([1], [])  # the client retries some calls itself


@pytest.mark.parametrize(
    "path, fault",
    [
        ("objects/batch", {"status": 503}),
        ("lfs-objects", {"status": 500}),
        ("lfs-objects", {"cut_body_at": 70_000}),
        ("lfs-objects", {"cut_body_at": 70_000, "times": 2}),
        ("lfs-objects", {"cut_answer": True}),
        ("lfs-objects", {"delay": 0.1}),
    ],
    ids=str,
)
def test_a_broken_upload_is_retried(hub, alice, files, waits, path, fault):
    method = "POST" if path == "objects/batch" else "PUT"
    hub.fail(method, path, **fault)
    publish(files)
    assert_complete(hub)


@pytest.mark.parametrize("target", [{}, {"revision": "v2"}, {"private": True}, {"create_pr": True}], ids=str)
@pytest.mark.parametrize(
    "fault", [{"cut_answer": True}, {"status": 500, "carried_out": True}, {"cut_body_at": 10}], ids=str
)
def test_a_commit_whose_answer_is_lost_is_not_made_twice(hub, alice, files, waits, fault, target):
    hub.fail("POST", "/commit/", **fault)
    url = publish(files, **target)
    pulls = hub.repo(REPO).pulls
    if "create_pr" in target:
        assert len(pulls) == 1 and url.endswith("/discussions/1")
    else:
        assert (
            not pulls
            and f"/commit/{hub.commits(REPO, revision=target.get('revision', 'main'))[0].oid}" in url
        )
    assert_complete(hub, revision="refs/pr/1" if pulls else target.get("revision", "main"))


def test_a_commit_whose_last_answer_is_lost_is_recognized(hub, alice, files, waits):
    hub.fail("POST", "/commit/", status=503, times=commit_module.MAX_TRIES - 1)
    hub.fail("POST", "/commit/", cut_answer=True)
    publish(files)
    assert_complete(hub)
    assert waits == [1, 2, 4, 8, 16]


def test_an_old_commit_with_the_same_content_is_not_mistaken_for_this_one(hub, alice, files, waits):
    publish(files)
    publish({"README.md": "other"})
    hub.fail("POST", "/commit/", status=503)
    publish(files)
    assert_complete(hub, commits=4)


@pytest.mark.parametrize("path", ["repos/create", "preupload", "/commit/"])
def test_retry_after_is_respected(hub, alice, files, waits, path):
    hub.fail("POST", path, status=429, headers={"Retry-After": "2"})
    publish(files)
    assert_complete(hub)
    assert waits in ([2], [])


def test_retry_after_may_be_a_date_or_invalid(hub, alice, files, waits):
    date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 60))
    hub.fail("POST", "/commit/", status=503, headers={"Retry-After": date})
    hub.fail("POST", "/commit/", status=503, headers={"Retry-After": "soon"})
    publish(files)
    assert 50 < waits[0] <= 60 and waits[1:] == [2]


def test_a_too_long_retry_after_is_a_refusal(hub, alice, files, waits):
    hub.fail("POST", "repos/create", status=429, headers={"Retry-After": "4000"}, times=9)
    with pytest.raises(HubError, match="the Hub answered 429 at every attempt.*try again later"):
        publish(files)
    assert waits == [] and hub.count("POST", "repos/create") == 1


@pytest.mark.parametrize(
    "fault, sentence",
    [
        ({"status": 503}, "the Hub answered 503 at every attempt"),
        ({"cut_body_at": 10}, r"the connection to the Hub failed \(\w+\), try again later"),
        ({"status": 412}, "other commits to it came in between again and again"),
        ({"status": 400}, r"the Hub refused with 400 \(the Hub says: as ordered\)"),
    ],
    ids=str,
)
def test_a_lasting_failure_publishes_nothing(hub, alice, files, waits, fault, sentence):
    hub.fail("POST", "/commit/", **fault, times=99)
    with pytest.raises(HubError, match=f"^{REPO}: {sentence}.*; nothing was published$"):
        publish(files)
    assert_nothing_published(hub)


def test_a_broken_upload_commits_nothing(hub, alice, files, waits):
    hub.fail("PUT", "lfs-objects", status=403, times=99)
    with pytest.raises(HubError, match="nothing was published"):
        publish(files)
    assert_nothing_published(hub)


def test_a_concurrent_commit_is_not_overwritten(hub, alice, files, waits):
    publish({"model.bin": "old", "notes.md": "old"})
    hub.fail("POST", "/commit/", delay=1.0)
    publishing = threading.Thread(target=publish, args=(files,), kwargs={"replaces": ("*.bin",)})
    publishing.start()
    while hub.faults[-1].times:  # until the commit has been sent, with the old head as its parent
        time.sleep(0.01)
    theirs = [{"value": {"summary": "theirs"}}, {"key": "file", "value": {"path": "new.bin", "content": ""}}]
    hub.store.commit(hub.repo(REPO), "main", theirs, "bob", False)
    publishing.join()
    assert [entry.title for entry in hub.commits(REPO)] == ["Publish", "theirs", "Publish", "initial commit"]
    # The second attempt was prepared on top of theirs, and deleted their file too.
    assert set(hub.files(REPO)) == {".gitattributes", "notes.md", *files}


def test_files_that_a_concurrent_commit_changed_are_uploaded_again(hub, alice, files, waits):
    """This includes files that the first attempt did not have to upload, since the Hub had the same ones."""
    publish(files)
    hub.fail("POST", "/commit/", delay=1.0)
    more = files | {"notes.md": "new"}
    publishing = threading.Thread(target=publish, args=(more,))
    publishing.start()
    while hub.faults[-1].times:
        time.sleep(0.01)
    content = base64.b64encode(b"theirs").decode()
    theirs = [{"value": {"summary": "theirs"}}]
    theirs += [{"key": "file", "value": {"path": path, "content": content}} for path in files]
    hub.store.commit(hub.repo(REPO), "main", theirs, "bob", False)
    publishing.join()
    assert {path: hub.files(REPO)[path] for path in more} == {
        "README.md": b"# thing\n",
        "sub/model.safetensors": BIG,
        "notes.md": b"new",
    }


def test_a_second_pull_request_with_the_same_files_is_opened(hub, alice, files, waits):
    publish(files, create_pr=True)
    hub.fail("POST", "/commit/", status=503)
    assert publish(files, create_pr=True).endswith("/discussions/2")


def test_a_refused_card_is_one_sentence(hub, alice):
    hub.fail("POST", "validate-yaml", status=400)
    with pytest.raises(HubError, match="^alice/thing: the upload failed .*; nothing was published$"):
        publish({"README.md": "---\nlanguage: English\n---\n"})
    assert_nothing_published(hub)


@pytest.mark.parametrize(
    "token, repo_id, sentence",
    [
        (None, REPO, "the Hub needs a token and got none or an unknown one, log in with `hf auth login`"),
        ("hf_nobody_knows_this_one", REPO, "a token with write permission"),
        (
            "hf_alice_may_only_read",
            REPO,
            "lacks the permission to write to repositories of alice, .* role write",
        ),
        ("hf_alice_may_write_here", "bob/thing", "lacks the permission to write to repositories of bob"),
    ],
)
def test_a_missing_permission_is_named(hub, monkeypatch, files, token, repo_id, sentence):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(HubError, match=sentence) as caught:
        publish(files, repo_id)
    assert not hub.store.repos and (token is None or token not in str(caught.value))


def test_offline_mode_is_reported(hub):
    code = f"from crosstask.hub.commit import commit; commit({{}}, {REPO!r}, repo_type='model', message='x')"
    process = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"HF_HUB_OFFLINE": "1"}, capture_output=True, text=True
    )
    assert "HubError: alice/thing: HF_HUB_OFFLINE is set, and publishing needs the Hub" in process.stderr


def test_the_token_is_neither_logged_nor_stored(hub, alice, files, waits, caplog, capfd, tmp_path):
    caplog.set_level(logging.DEBUG)
    hub.fail("POST", "/commit/", status=503)
    publish(files)
    texts = [caplog.text, *capfd.readouterr()]
    for fault in ({"status": 400}, {"status": 401}, {"status": 503}, {"cut_body_at": 1}):
        hub.faults.clear()
        hub.fail("POST", "/commit/", **fault, times=99)
        with pytest.raises(HubError) as caught:
            publish({"README.md": str(fault)})
        texts += traceback.TracebackException.from_exception(caught.value, capture_locals=False).format()
        error = caught.value
        while error is not None:
            texts += [str(error), repr(vars(error))]
            error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    texts += [caplog.text, *capfd.readouterr()]
    assert "POST" in "".join(texts)  # including the logs of the client
    assert not any(alice in text for text in texts)
    paths = [path for folder in (Path(os.environ["HF_HOME"]), tmp_path) for path in folder.rglob("*")]
    assert paths and not any(alice.encode() in path.read_bytes() for path in paths if path.is_file())
    assert not any(alice.encode() in content for content in hub.files(REPO).values())
