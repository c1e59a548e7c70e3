"""One commit to a repository of the Hub: there whole or not at all, whatever the connection does."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from itertools import takewhile
from pathlib import Path
from time import sleep

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

from crosstask.utils.errors import HubError
from crosstask.utils.files import match_path

TRIES = 6
LONGEST_WAIT = 300  # seconds that a Retry-After may ask for before it is taken for a refusal
# What goes by itself: too many requests, and a server or gateway in trouble.
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
CONFLICTS = (409, 412)  # someone else committed since the head was read

# The root of all errors of the HTTP library, which was requests before huggingface_hub 1 and is httpx since.
_HTTP_ERROR = [kind for kind in HfHubHTTPError.__mro__ if kind.__module__ != "builtins"][-1]
_NETWORK_ERRORS = (_HTTP_ERROR, ConnectionError, TimeoutError)
_TOKEN = re.compile(rb"\bhf_[A-Za-z0-9_]{20,}")
# Texts that say how something was made; the words of a vocabulary may look like anything.
_TOLD = (".json", ".md", ".yaml", ".yml", ".txt", ".py", ".jinja", ".csv")
_WORDS = frozenset({"tokenizer.json", "vocab.json", "vocab.txt", "merges.txt"})


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
    Create the repository where there is none, and bring all files into it in one commit.

    What fails and may go by itself (429, 5xx, a connection that breaks) is tried again, up to 6 times, after
    1, 2, 4, ... seconds or as long as `Retry-After` says. The commit names its parent, so that it can neither
    be made twice nor on top of what nobody looked at; where somebody else was faster, it is made anew on top.

    Args:
        files (`dict[str, Path | str]`): By their path in the repository: a local file, or the text itself.
        repo_id (`str`): `"user/name"`.
        repo_type (`str`): `"model"`, `"dataset"` or `"space"`.
        message (`str`): Title of the commit.
        replaces (`list[str]`): Patterns (`"data/*.parquet"`, where `*` stays within a folder) of files that
            this kind of publication consists of: those of the repository that match and are not among
            `files` are deleted in the same commit.
        private (`bool`): Create the repository as a private one.
        revision (`str`, *optional*): Branch to commit to; made from main where there is none.
        create_pr (`bool`): Open a pull request instead.

    Returns:
        `str`: the address of the commit or of the pull request.

    Raises:
        HubError: in one sentence; nothing of the files is in the repository then.
    """
    create(repo_id, repo_type=repo_type, private=private)
    where = {"repo_id": repo_id, "repo_type": repo_type}
    with _explained(repo_id) as api:
        if revision and not create_pr:
            _patiently(lambda: api.create_branch(**where, branch=revision, exist_ok=True))
        return _Commit(api, where, files, message, replaces, revision, create_pr).make()


def create(repo_id: str, *, repo_type: str, private: bool = False) -> None:
    """
    Create a repository where there is none. Where there is one, the token has to be known, but whether it may
    write is seen with the first commit.

    Args:
        repo_id (`str`): `"user/name"`.
        repo_type (`str`): `"model"`, `"dataset"` or `"space"`.
        private (`bool`): As a private one.

    Raises:
        HubError: in one sentence; also where a public repository is there and a private one was wanted.
    """
    where = {"repo_id": repo_id, "repo_type": repo_type}
    # The kind of a Space has to be said; one of files alone is "static".
    sdk = {"space_sdk": "static"} if repo_type == "space" else {}
    with _explained(repo_id) as api:
        _patiently(lambda: api.create_repo(**where, private=private or None, exist_ok=True, **sdk))
        if private and not _patiently(lambda: api.repo_info(**where)).private:
            raise HubError(
                f"{repo_id}: exists and is public, expected a private repository or a new name, as --private "
                "holds for what it creates"
            )


class _Commit:
    """One commit in the making: what to put where, and how to find out whether it is there already."""

    def __init__(self, api, where, files, message, replaces, revision, create_pr):
        self.api = api
        self.where = where
        self.files = files
        self.message = message
        self.replaces = replaces
        self.revision = revision
        self.create_pr = create_pr
        digest = hashlib.sha256()
        for operation in self.additions():
            with operation.as_file() as file:
                digest.update(f"{operation.path_in_repo}\0".encode() + _sha256(file))
        # By it a commit is known again whose answer was lost.
        self.description = f"Content: {digest.hexdigest()}"
        self.pulls_before = {pull.num for pull in _patiently(self.pulls)} if create_pr else set()

    def additions(self):
        """New ones for each attempt: the client notes in them what the repository had when it last asked."""
        return [CommitOperationAdd(path, _source(file)) for path, file in sorted(self.files.items())]

    def pulls(self):
        return list(self.api.get_repo_discussions(**self.where, discussion_type="pull_request"))

    def make(self):
        info = None

        def attempt():
            nonlocal info
            if info is not None and (url := self._landed(info.sha)):
                return url
            info = self.api.repo_info(**self.where, revision=self.revision, files_metadata=False)
            there = [sibling.rfilename for sibling in info.siblings]
            made = self.api.create_commit(
                **self.where,
                operations=[*self.additions(), *self._stale(there)],
                commit_message=self.message,
                commit_description=self.description,
                revision=self.revision,
                parent_commit=info.sha,
                create_pr=self.create_pr,
            )
            return made.pr_url or made.commit_url

        try:
            return _patiently(attempt, also=CONFLICTS)
        except _NETWORK_ERRORS:
            if info is not None and (url := self._landed(info.sha)):  # only the last answer was lost
                return url
            raise

    def _stale(self, there):
        return [
            CommitOperationDelete(path)
            for path in there
            if path not in self.files and any(match_path(path, pattern) for pattern in self.replaces)
        ]

    def _landed(self, parent):
        """The address of this commit if a former attempt made it, though its answer did not arrive."""
        if self.create_pr:
            for pull in self.pulls():
                if pull.num in self.pulls_before:
                    continue
                details = self.api.get_discussion_details(**self.where, discussion_num=pull.num)
                if any(self.description in getattr(event, "content", "") for event in details.events):
                    return pull.url
            return None
        commits = self.api.list_repo_commits(**self.where, revision=self.revision)
        for made in takewhile(lambda made: made.commit_id != parent, commits):
            if self.description in made.message:
                kind = "" if self.where["repo_type"] == "model" else f"{self.where['repo_type']}s/"
                return f"{self.api.endpoint}/{kind}{self.where['repo_id']}/commit/{made.commit_id}"
        return None


def check_public(files: Mapping[str, Path | str], *folders: Path) -> None:
    """
    Refuse files that tell of this machine or its user.

    Args:
        files (`dict[str, Path | str]`): As of [`commit`].
        folders (`Path`): Beside the home and the current folder, those that nobody else has.

    Raises:
        HubError: naming the file, where a text (not the words of a vocabulary, nor weights or tables) has
            one of these folders or a token of the Hub in it.
    """
    guarded = {str(folder) for folder in (Path.home(), Path.cwd(), *folders) if folder.is_absolute()}
    guarded |= {str(folder.resolve()) for folder in (Path.home(), Path.cwd(), *folders)}
    token = (get_token() or "").encode()
    for path, file in files.items():
        if not path.endswith(_TOLD) or Path(path).name in _WORDS:
            continue
        content = file.encode() if isinstance(file, str) else file.read_bytes()
        if (token and token in content) or _TOKEN.search(content):
            raise HubError(f"{path}: has what looks like a token of the Hub in it; nothing was published")
        for folder in sorted(guarded - {"/"}):
            # A name of one part, such as /tmp, may be meant in general; a file in it is not.
            end = rb"/" if folder.count("/") == 1 else rb"(?![\w.-])"
            for said in {folder, json.dumps(folder)[1:-1]}:
                if re.search(rb"(?<![\w.])" + re.escape(said.encode()) + end, content):
                    raise HubError(
                        f"{path}: names a folder of this machine ({folder}); nothing was published"
                    )


def _source(file):
    return file.encode() if isinstance(file, str) else str(file)


def _sha256(file):
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.digest()


def _patiently(call: Callable, also=()):
    """Call until it succeeds or fails for good; `also` are further status codes worth another try."""
    for attempt in range(1, TRIES + 1):
        try:
            return call()
        except OfflineModeIsEnabled:
            raise
        except _NETWORK_ERRORS as error:
            status = _status(error)
            wait = _asked_wait(error) or 2 ** (attempt - 1)
            passing = status is None or status in PASSING or status in also
            if not passing or attempt == TRIES or wait > LONGEST_WAIT:
                raise
        sleep(wait)


def _status(error):
    """The status code of an answer, or None where there was none."""
    return getattr(getattr(error, "response", None), "status_code", None)


def _asked_wait(error):
    """Seconds that the answer's `Retry-After` asks for, given as a number or as a date."""
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
def _explained(repo_id):
    """A client of the Hub, whose every failure becomes one sentence, and none with the token in it."""
    token = get_token()
    try:
        yield HfApi(token=token, library_name="crosstask")
    except HubError:
        raise
    # hf_xet's failures are RuntimeErrors, or of the kinds that a file system has; a card whose metadata the
    # Hub refuses is a ValueError.
    except (*_NETWORK_ERRORS, LocalTokenNotFoundError, OSError, RuntimeError, ValueError) as error:
        sentence = f"{repo_id}: {_explanation(repo_id, error)}; nothing was published"
        # Without the error that it came from, whose request has the token among its headers.
        raise HubError(sentence.replace(token, "***") if token else sentence) from None


def _explanation(repo_id, error):
    status, said = _status(error), getattr(error, "server_message", None)
    said = f" (the Hub says: {' '.join(said.split())})" if said else ""
    namespace = repo_id.split("/")[0]
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set, and publishing needs the Hub"
    if status == 401 or isinstance(error, LocalTokenNotFoundError):
        return (
            "the Hub wants a token and got none that it knows, log in with `hf auth login` or set HF_TOKEN "
            f"to a token with write permission{said}"
        )
    if status == 403:
        return (
            f"the token lacks the permission to write to repositories of {namespace}, expected one of the "
            f"role write, or a fine-grained one with write access to them{said}"
        )
    if status in CONFLICTS:
        return f"others committed to it again and again meanwhile{said}, try again when they are done"
    if status == 404:
        return f"not found on the Hub, or not visible to this token{said}"
    if status in PASSING:
        return f"the Hub answered {status} and went on to do so{said}, try again later"
    if status is not None:
        return f"the Hub refused with {status}{said}"
    if isinstance(error, _NETWORK_ERRORS):
        return f"the connection to the Hub failed ({type(error).__name__}), try again later"
    return f"the upload failed ({type(error).__name__}: {' '.join(str(error).split())})"
