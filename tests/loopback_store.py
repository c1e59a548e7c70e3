"""Store the contents of a Hub: repositories with commits, branches, tags, pull requests and LFS objects."""

import base64
import hashlib
import threading
import time
from dataclasses import dataclass, field
from fnmatch import fnmatch

LFS_PATTERNS = ("*.safetensors", "*.parquet", "*.bin", "*.pt", "*.arrow", "*.png", "*.jpg", "*.zip", "*.gz")
LFS_SIZE = 10 * 2**20  # bytes; larger files are LFS objects regardless of their name


class HttpError(Exception):
    """An answer with an error status, a message and, for some errors, a code of the Hub."""

    def __init__(self, status, message, code=None):
        super().__init__(message)
        self.status, self.message, self.code = status, message, code


@dataclass(frozen=True)
class File:
    content: bytes
    lfs: bool

    @property
    def sha256(self):
        return hashlib.sha256(self.content).hexdigest()

    @property
    def oid(self):
        """The id of the file's blob in git."""
        return hashlib.sha1(b"blob %d\0" % len(self.content) + self.content).hexdigest()

    @property
    def etag(self):
        return self.sha256 if self.lfs else self.oid


@dataclass(frozen=True)
class Commit:
    parent: "Commit | None"
    files: dict
    title: str
    message: str
    author: str
    date: str = field(default_factory=lambda: now())

    @property
    def oid(self):
        parent = self.parent.oid if self.parent else ""
        tree = "".join(f"{path}{self.files[path].oid}" for path in sorted(self.files))
        return hashlib.sha1(f"{parent}{tree}{self.title}{self.message}{self.date}".encode()).hexdigest()


@dataclass
class PullRequest:
    num: int
    title: str
    description: str
    author: str
    date: str = field(default_factory=lambda: now())


class Repo:
    """A repository. Branches have the names of `resolve`, e.g. "main" or "refs/pr/1"."""

    def __init__(self, repo_type, repo_id, private, author):
        self.repo_type, self.repo_id, self.private = repo_type, repo_id, private
        first = Commit(
            None, {".gitattributes": File(b"*.safetensors filter=lfs\n", False)}, "initial commit", "", author
        )
        self.branches, self.tags, self.pulls = {"main": first}, {}, []

    @property
    def namespace(self):
        return self.repo_id.split("/")[0]

    def get_commit(self, revision):
        """Return the commit of a branch, a tag or a commit id."""
        commit = self.branches.get(revision) or self.tags.get(revision)
        commit = commit or next((commit for commit in self.history() if commit.oid == revision), None)
        if commit is None:
            raise HttpError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit

    def history(self, revision=None):
        """Yield the commits of a revision, newest first, or those of all branches."""
        heads = [self.get_commit(revision)] if revision else list(self.branches.values())
        for commit in heads:
            while commit is not None:
                yield commit
                commit = commit.parent

    def is_lfs(self, path, size):
        return size > LFS_SIZE or any(fnmatch(path, pattern) for pattern in LFS_PATTERNS)


class Store:
    """All repositories and LFS objects. Its lock makes commits atomic."""

    def __init__(self):
        self.lock = threading.RLock()
        self.repos, self.objects = {}, {}

    def create(self, repo_type, repo_id, private, author):
        if (repo_type, repo_id) in self.repos:
            raise HttpError(409, "You already created this repo")
        self.repos[repo_type, repo_id] = Repo(repo_type, repo_id, private, author)
        return self.repos[repo_type, repo_id]

    def repo(self, repo_type, repo_id):
        if (repo_type, repo_id) not in self.repos:
            raise HttpError(404, "Repository not found", "RepoNotFound")
        return self.repos[repo_type, repo_id]

    def put_object(self, oid, content):
        if hashlib.sha256(content).hexdigest() != oid:
            raise HttpError(400, "The content does not match the object's id")
        self.objects[oid] = content

    def commit(self, repo, revision, lines, author, create_pr):
        """Execute the lines of a commit's payload; return the commit and the pull request, if any."""
        header, *changes = lines
        header = header["value"]
        with self.lock:
            head = repo.branches.get(revision)
            if head is None:
                raise HttpError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
            if header.get("parentCommit") not in (None, head.oid):
                raise HttpError(412, "A commit has happened since. Please refresh and try again.")
            files = dict(head.files)
            for change in changes:
                self._apply_change(files, change["key"], change["value"])
            commit = Commit(head, files, header["summary"], header.get("description", ""), author)
            if not create_pr:
                repo.branches[revision] = commit
                return commit, None
            pull = PullRequest(len(repo.pulls) + 1, commit.title, commit.message, author)
            repo.pulls.append(pull)
            repo.branches[f"refs/pr/{pull.num}"] = commit
            return commit, pull

    def _apply_change(self, files, key, value):
        path = value["path"]
        if key == "file":
            files[path] = File(base64.b64decode(value["content"]), False)
        elif key == "lfsFile":
            if value["oid"] not in self.objects:
                raise HttpError(400, f"LFS object of {path} was not uploaded")
            files[path] = File(self.objects[value["oid"]], True)
        elif key == "deletedFile":
            if path not in files:
                raise HttpError(404, "A file with this name doesn't exist", "EntryNotFound")
            del files[path]
        elif key == "deletedFolder":
            for name in [name for name in files if name.startswith(f"{path.rstrip('/')}/")]:
                del files[name]
        else:
            raise HttpError(400, f"unknown change {key}")


def now():
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
