"""What a Hub keeps: repositories with commits, branches, tags and pull requests, and the objects of LFS."""

import base64
import hashlib
import threading
import time
from dataclasses import dataclass, field
from fnmatch import fnmatch

LFS_PATTERNS = ("*.safetensors", "*.parquet", "*.bin", "*.pt", "*.arrow", "*.png", "*.jpg", "*.zip", "*.gz")
LFS_SIZE = 10 * 2**20  # larger files are LFS whatever their name


class Refused(Exception):
    """An answer other than 2xx: status, the Hub's error code if it has one, and a message."""

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
        """As git names a blob."""
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
    """One repository. Names of branches are as in `resolve`: "main", "refs/pr/1"."""

    def __init__(self, kind, repo_id, private, author):
        self.kind, self.repo_id, self.private = kind, repo_id, private
        first = Commit(
            None, {".gitattributes": File(b"*.safetensors filter=lfs\n", False)}, "initial commit", "", author
        )
        self.branches, self.tags, self.pulls = {"main": first}, {}, []

    @property
    def namespace(self):
        return self.repo_id.split("/")[0]

    def commit_of(self, revision):
        found = self.branches.get(revision) or self.tags.get(revision)
        found = found or next((c for c in self.history() if c.oid == revision), None)
        if found is None:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return found

    def history(self, revision=None):
        heads = [self.commit_of(revision)] if revision else list(self.branches.values())
        for commit in heads:
            while commit is not None:
                yield commit
                commit = commit.parent

    def is_lfs(self, path, size):
        return size > LFS_SIZE or any(fnmatch(path, pattern) for pattern in LFS_PATTERNS)


class Store:
    """All repositories and LFS objects. One lock: a commit is seen whole or not at all."""

    def __init__(self):
        self.lock = threading.RLock()
        self.repos, self.objects = {}, {}

    def create(self, kind, repo_id, private, author):
        if (kind, repo_id) in self.repos:
            raise Refused(409, "You already created this repo")
        self.repos[kind, repo_id] = Repo(kind, repo_id, private, author)
        return self.repos[kind, repo_id]

    def repo(self, kind, repo_id):
        if (kind, repo_id) not in self.repos:
            raise Refused(404, "Repository not found", "RepoNotFound")
        return self.repos[kind, repo_id]

    def put_object(self, oid, content):
        if hashlib.sha256(content).hexdigest() != oid:
            raise Refused(400, "The content is not that of the object")
        self.objects[oid] = content

    def commit(self, repo, revision, lines, author, create_pr):
        """Carry out the lines of a commit's payload; returns the commit and the pull request, if any."""
        header, *changes = lines
        header = header["value"]
        with self.lock:
            head = repo.branches.get(revision)
            if head is None:
                raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
            if header.get("parentCommit") not in (None, head.oid):
                raise Refused(412, "A commit has happened since. Please refresh and try again.")
            files = dict(head.files)
            for change in changes:
                self._change(files, change["key"], change["value"])
            made = Commit(head, files, header["summary"], header.get("description", ""), author)
            if not create_pr:
                repo.branches[revision] = made
                return made, None
            pull = PullRequest(len(repo.pulls) + 1, made.title, made.message, author)
            repo.pulls.append(pull)
            repo.branches[f"refs/pr/{pull.num}"] = made
            return made, pull

    def _change(self, files, key, value):
        path = value["path"]
        if key == "file":
            files[path] = File(base64.b64decode(value["content"]), False)
        elif key == "lfsFile":
            if value["oid"] not in self.objects:
                raise Refused(400, f"LFS object of {path} was not uploaded")
            files[path] = File(self.objects[value["oid"]], True)
        elif key == "deletedFile":
            if path not in files:
                raise Refused(404, "A file with this name doesn't exist", "EntryNotFound")
            del files[path]
        elif key == "deletedFolder":
            for name in [name for name in files if name.startswith(f"{path.rstrip('/')}/")]:
                del files[name]
        else:
            raise Refused(400, f"unknown change {key}")


def now():
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
