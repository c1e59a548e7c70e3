"""Upload files to a repository of the Hub in one commit: all or none, even if the connection fails."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from itertools import takewhile
from pathlib import Path
from time import sleep
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

from crosstask.utils.errors import HubError
from crosstask.utils.files import hash_file, match_path

MAX_TRIES = 6
MAX_WAIT = 300  # seconds; a longer `Retry-After` counts as a refusal
# Too many requests, and a server or gateway in trouble: these may pass.
TRANSIENT_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
CONFLICT_STATUSES = frozenset({409, 412})  # somebody else committed after the head was read

# The base class of all errors of the HTTP library: requests before huggingface_hub 1, httpx since.
_HTTP_ERROR = [
    base for base in HfHubHTTPError.__mro__ if issubclass(base, Exception) and base.__module__ != "builtins"
][-1]
_NETWORK_ERRORS = (_HTTP_ERROR, ConnectionError, TimeoutError)


def commit(
    files: Mapping[str, Path | str],
    repo_id: str,
    *,
    repo_type: str,
    message: str,
    replaces: Sequence[str] = (),
    private: bool = False,
    revision: str | None = None,
    create_pr: bool = False,
) -> str:
    """
    Create the repository if it does not exist, and upload all files in one commit.

    Failures that may pass (status 429 or 5xx, a broken connection) are retried up to 6 times, after 1, 2,
    4, ... seconds or after the time in `Retry-After`. The commit names its parent, so that it is neither
    repeated nor added after a commit that was not checked; after a conflict it is prepared again on the new
    head.

    Args:
        files (`dict[str, Path | str]`): A local file, or its text, by path in the repository.
        repo_id (`str`): `"user/name"`.
        repo_type (`str`): `"model"`, `"dataset"` or `"space"`.
        message (`str`): Title of the commit.
        replaces (`list[str]`): Patterns of paths, e.g. `"data/*.parquet"`, in which `*` matches no slash.
            Files in the repository that match one of them and are not in `files` are deleted in the same
            commit.
        private (`bool`): Create the repository as a private one.
        revision (`str`, *optional*, defaults to the main branch): Branch to commit to; created from main if
            it does not exist.
        create_pr (`bool`): Open a pull request instead.

    Returns:
        `str`: The URL of the commit or of the pull request.

    Raises:
        HubError: In one sentence; then no file was uploaded to the repository.
    """
    create_repository(repo_id, repo_type=repo_type, private=private)
    repo: dict[str, Any] = {"repo_id": repo_id, "repo_type": repo_type}
    with _open_client(repo_id) as api:
        if revision and not create_pr:
            _retry(lambda: api.create_branch(**repo, branch=revision, exist_ok=True))
        return _Commit(api, repo, files, message, replaces, revision, create_pr).send()


def create_repository(repo_id: str, *, repo_type: str, private: bool = False) -> None:
    """
    Create a repository on the Hub if it does not exist. For an existing one, the Hub checks that the token is
    valid; it checks the permission to write at the first commit.

    Args:
        repo_id (`str`): `"user/name"`.
        repo_type (`str`): `"model"`, `"dataset"` or `"space"`.
        private (`bool`): Create it as a private one.

    Raises:
        HubError: In one sentence; also if `private` is set and the repository exists and is public.
    """
    repo: dict[str, Any] = {"repo_id": repo_id, "repo_type": repo_type}
    # The Hub requires the kind of a Space; a Space without a program is "static".
    sdk: dict[str, Any] = {"space_sdk": "static"} if repo_type == "space" else {}
    with _open_client(repo_id) as api:
        _retry(lambda: api.create_repo(**repo, private=private or None, exist_ok=True, **sdk))
        if private and not _retry(lambda: api.repo_info(**repo)).private:
            raise HubError(
                f"{repo_id}: exists and is public; --private only works for a new repository, so give "
                "another name"
            )


def check_datasets_exist(names: Collection[str]) -> None:
    """
    Check that data sets exist on the Hub.

    Args:
        names (`list[str]`): Ids `"user/name"`.

    Raises:
        HubError: If one does not exist, or the Hub cannot be reached.
    """
    for name in names:
        with _open_client(name) as api:
            _retry(lambda api=api, name=name: api.dataset_info(name))


class _Commit:
    """
    A commit with its retries. Its description contains a digest that identifies the commit on the Hub, so
    that a retry does not repeat it.
    """

    def __init__(self, api, repo, files, message, replaces, revision, create_pr):
        self.api = api
        self.repo = repo
        self.files = files
        self.message = message
        self.replaces = replaces
        self.revision = revision
        self.create_pr = create_pr
        self.parent = None
        self.description = f"Content: {_hash_files(files)}"
        self.pulls_before = {pull.num for pull in _retry(self._list_pulls)} if create_pr else set()

    def send(self):
        """Make the commit; return its URL, or that of its pull request."""
        try:
            return _retry(self._attempt, CONFLICT_STATUSES)
        except _NETWORK_ERRORS:
            if url := self._find_on_hub():  # only the answer to the last attempt was lost
                return url
            raise

    def _attempt(self):
        if url := self._find_on_hub():
            return url
        info = self.api.repo_info(**self.repo, revision=self.revision, files_metadata=False)
        self.parent = info.sha
        result = self.api.create_commit(
            **self.repo,
            operations=[*self._additions(), *self._deletions([file.rfilename for file in info.siblings])],
            commit_message=self.message,
            commit_description=self.description,
            revision=self.revision,
            parent_commit=info.sha,
            create_pr=self.create_pr,
        )
        return result.pr_url or result.commit_url

    def _additions(self):
        """Return new operations: the client stores in them the state of the repository at an attempt."""
        return [
            CommitOperationAdd(path, file.encode() if isinstance(file, str) else str(file))
            for path, file in sorted(self.files.items())
        ]

    def _deletions(self, paths):
        return [
            CommitOperationDelete(path)
            for path in paths
            if path not in self.files and any(match_path(path, pattern) for pattern in self.replaces)
        ]

    def _find_on_hub(self):
        """Return the URL of this commit if an earlier attempt made it and its answer was lost, or None."""
        if self.parent is None:  # no attempt yet
            return None
        if self.create_pr:
            for pull in self._list_pulls():
                if pull.num in self.pulls_before:
                    continue
                details = self.api.get_discussion_details(**self.repo, discussion_num=pull.num)
                if any(self.description in getattr(event, "content", "") for event in details.events):
                    return pull.url
            return None
        commits = self.api.list_repo_commits(**self.repo, revision=self.revision)
        for entry in takewhile(lambda entry: entry.commit_id != self.parent, commits):
            if self.description in entry.message:
                prefix = "" if self.repo["repo_type"] == "model" else f"{self.repo['repo_type']}s/"
                return f"{self.api.endpoint}/{prefix}{self.repo['repo_id']}/commit/{entry.commit_id}"
        return None

    def _list_pulls(self):
        return list(self.api.get_repo_discussions(**self.repo, discussion_type="pull_request"))


def _hash_files(files):
    digest = hashlib.sha256()
    for path, file in sorted(files.items()):
        content = hashlib.sha256(file.encode()).hexdigest() if isinstance(file, str) else hash_file(file)
        digest.update(f"{path}\0{content}\0".encode())
    return digest.hexdigest()


def _retry(call: Callable, conflicts: Collection[int] = ()):
    """
    Call until it succeeds or fails for good; `conflicts` are more status codes to retry.

    The loop is written out because tenacity would replace only its frame, not these conditions, and
    `huggingface_hub.http_backoff` repeats single requests, not the steps of a commit.
    """
    for attempt in range(1, MAX_TRIES + 1):
        try:
            return call()
        except OfflineModeIsEnabled:
            raise
        except _NETWORK_ERRORS as error:
            status = _get_status(error)
            wait = _get_retry_after(error) or 2 ** (attempt - 1)
            transient = status is None or status in TRANSIENT_STATUSES or status in conflicts
            if not transient or attempt == MAX_TRIES or wait > MAX_WAIT:
                raise
        sleep(wait)


def _get_status(error):
    """Return the status code of the Hub's answer, or None if there was no answer."""
    return getattr(getattr(error, "response", None), "status_code", None)


def _get_retry_after(error):
    """Return the seconds until the answer's `Retry-After`, a number or a date; None if it has none."""
    value = getattr(getattr(error, "response", None), "headers", {}).get("Retry-After")
    if value is None:
        return None
    if value.isdigit():
        return int(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


@contextmanager
def _open_client(repo_id: str) -> Iterator[HfApi]:
    """Yield a client of the Hub, and turn its failures into a `HubError` without the token."""
    token = get_token()
    try:
        yield HfApi(token=token, library_name="crosstask")
    except HubError:
        raise
    # hf_xet raises RuntimeErrors and OSErrors; a card whose metadata the Hub refuses is a ValueError.
    except (*_NETWORK_ERRORS, LocalTokenNotFoundError, OSError, RuntimeError, ValueError) as error:
        sentence = f"{repo_id}: {_explain(repo_id, error)}; nothing was published"
        # Not raised from the original error: the headers of its request hold the token.
        raise HubError(sentence.replace(token, "***") if token else sentence) from None


def _explain(repo_id, error):
    status, answer = _get_status(error), getattr(error, "server_message", None)
    answer = f" (the Hub says: {' '.join(answer.split())})" if answer else ""
    namespace = repo_id.split("/")[0]
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set, and publishing needs the Hub"
    if status == 401 or isinstance(error, LocalTokenNotFoundError):
        return (
            "the Hub needs a token and got none or an unknown one, log in with `hf auth login` or set "
            f"HF_TOKEN to a token with write permission{answer}"
        )
    if status == 403:
        return (
            f"the token lacks the permission to write to repositories of {namespace}, expected one with the "
            f"role write, or a fine-grained one with write access to them{answer}"
        )
    if status in CONFLICT_STATUSES:
        return f"other commits to it came in between again and again{answer}, try again later"
    if status == 404:
        return f"not found on the Hub, or not visible with this token{answer}"
    if status in TRANSIENT_STATUSES:
        return f"the Hub answered {status} at every attempt{answer}, try again later"
    if status is not None:
        return f"the Hub refused with {status}{answer}"
    if isinstance(error, _NETWORK_ERRORS):
        return f"the connection to the Hub failed ({type(error).__name__}), try again later"
    return f"the upload failed ({type(error).__name__}: {' '.join(str(error).split())})"
