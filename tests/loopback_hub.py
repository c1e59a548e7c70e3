"""Serve a Hub on 127.0.0.1 for tests and for offline trials; real clients talk to it over HTTP.

    python tests/loopback_hub.py --port 8080

prints the environment variables to set (`HF_ENDPOINT` and a token) and serves until it is stopped. It
implements the requests of `huggingface_hub`, `transformers`, `datasets`, `peft` and `evaluate`: create,
upload (regular files and LFS), commit, list, download, branch, open a pull request and delete. It does not
implement Xet, so clients set `HF_HUB_DISABLE_XET=1`.
"""

import argparse
import json
import re
import time
from collections import namedtuple
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from urllib.parse import parse_qs, unquote, urlsplit

from loopback_store import HttpError, Store

TOKENS = {"hf_alice_may_write_here": ("alice", "write"), "hf_bob_may_write_here_too": ("bob", "write")}
TOKENS |= {"hf_alice_may_only_read": ("alice", "read")}
REPO_TYPES = {"models": "model", "datasets": "dataset", "spaces": "space"}

Request = namedtuple("Request", "method path status user length")


@dataclass
class Fault:
    """
    A fault of the next requests that match.

    Attributes:
        method (`str`): The method of the requests.
        path (`str`): A regular expression that is searched for in the path of the requests.
        status (`int`, *optional*): Answer with this status instead.
        headers (`dict`, *optional*): Headers of that answer.
        cut_body_at (`int`, *optional*): Close the connection after so many bytes of the request's body.
        cut_answer (`bool`): Execute the request, and close the connection without an answer.
        carried_out (`bool`): Execute the request although the answer is `status`.
        delay (`float`): Seconds before each block of 64 KiB of the body is read; without a body, before the
            answer.
        times (`int`): How many requests fail.
    """

    method: str
    path: str
    status: int | None = None
    headers: dict | None = None
    cut_body_at: int | None = None
    cut_answer: bool = False
    carried_out: bool = False
    delay: float = 0.0
    times: int = 1


class LoopbackHub:
    """The server, as a context manager. `url` is its address."""

    def __init__(self, port=0, tokens=TOKENS):
        self.tokens = dict(tokens)
        self.store = Store()
        self.faults, self.requests = [], []
        self._lock = Lock()
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", port), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        # The Hub redirects to another host for large files, and clients read the metadata from the redirect.
        self.storage = f"http://localhost:{self._server.server_port}"

    def __enter__(self):
        Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()

    def fail(self, method, path, **fault):
        """Let the next requests that match fail; see [`Fault`]."""
        self.faults.append(Fault(method, path, **fault))

    def reset(self):
        """Delete all repositories, faults and recorded requests."""
        self.store = Store()
        self.faults.clear()
        self.requests.clear()

    def repo(self, repo_id, repo_type="model"):
        return self.store.repo(repo_type, repo_id)

    def files(self, repo_id, repo_type="model", revision="main"):
        """Return the contents of a revision's files by path."""
        files = self.repo(repo_id, repo_type).get_commit(revision).files
        return {path: file.content for path, file in files.items()}

    def commits(self, repo_id, repo_type="model", revision="main"):
        """Return the commits of a revision, newest first."""
        return list(self.repo(repo_id, repo_type).history(revision))

    def count(self, method, path):
        """Return the number of requests whose path matches."""
        return sum(r.method == method and bool(re.search(path, r.path)) for r in list(self.requests))

    def take_fault(self, method, path):
        """Return the fault of a request, or None, and count it as used."""
        with self._lock:
            for fault in self.faults:
                if fault.times > 0 and fault.method == method and re.search(fault.path, path):
                    fault.times -= 1
                    return fault
        return None


class _Disconnect(Exception):
    """Raised to close the connection without an answer."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16
    hub = None

    def log_message(self, *_):
        pass

    def do_any(self):
        url = urlsplit(self.path)
        # A revision such as refs/pr/1 is one segment, with its slashes quoted.
        self.segments = [unquote(part) for part in url.path.strip("/").split("/")]
        self.query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        self.route_path, self.body, self.user = url.path, b"", None
        fault = self.hub.take_fault(self.command, url.path)
        try:
            self.body = self._read_body(fault)
            self._authenticate()
            if fault and fault.status:
                if fault.carried_out:
                    self._route()
                raise HttpError(fault.status, "as ordered")
            answer = self._route()
            if fault and fault.cut_answer:
                raise _Disconnect
            self._answer(*answer)
        except HttpError as error:
            headers = {"X-Error-Message": error.message} | (
                {"X-Error-Code": error.code} if error.code else {}
            )
            headers |= (fault.headers or {}) if fault and fault.status else {}
            self._answer({"error": error.message}, error.status, headers)
        except (_Disconnect, ConnectionError):
            self._record(0)
            self.close_connection = True
            self.connection.close()

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_any

    def finish(self):
        try:
            super().finish()
        except (OSError, ValueError):  # a fault has closed the connection
            pass

    def _read_body(self, fault):
        limit = fault.cut_body_at if fault else None
        delay = fault.delay if fault else 0
        body = bytearray()
        for block in self._blocks():
            time.sleep(delay)
            body += block
            if limit is not None and len(body) >= limit:
                raise _Disconnect
        if limit is not None:
            raise _Disconnect
        if delay and not body:
            time.sleep(delay)
        return bytes(body)

    def _blocks(self):
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return
        left = int(self.headers.get("Content-Length") or 0)
        while left:
            block = self.rfile.read(min(left, 1 << 16))
            if not block:
                raise _Disconnect
            left -= len(block)
            yield block

    def _authenticate(self):
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer":
            return
        if token not in self.hub.tokens:
            raise HttpError(401, "Invalid credentials in Authorization header")
        self.user = self.hub.tokens[token]

    def _record(self, status):
        user = self.user and self.user[0]
        self.hub.requests.append(Request(self.command, self.route_path, status, user, len(self.body)))

    def _answer(self, content, status=200, headers=None):
        self._record(status)  # before the client has the answer and the test counts requests
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **(headers or {})}
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()

    # Routes: each one returns the arguments of `_answer`.

    def _route(self):
        first, *rest = self.segments
        if first == "api":
            return self._api(*rest)
        if first == "lfs-objects":
            return self._transfer_object(rest[0])
        repo_type = REPO_TYPES.get(first, "model")
        segments = self.segments[1:] if first in REPO_TYPES else self.segments
        if len(segments) == 6 and segments[1].endswith(".git"):  # info/lfs/objects/batch
            return self._lfs_batch(self._get_writable_repo(repo_type, f"{segments[0]}/{segments[1][:-4]}"))
        if len(segments) > 4 and segments[2] == "resolve":
            repo = self._get_readable_repo(repo_type, "/".join(segments[:2]))
            return self._resolve(repo, segments[3], "/".join(segments[4:]))
        raise HttpError(404, f"no route {self.command} {self.route_path}")

    def _api(self, *segments):
        if segments == ("whoami-v2",):
            return self._whoami()
        if segments == ("validate-yaml",):
            return ({"errors": [], "warnings": []},)
        if segments == ("repos", "create"):
            return self._create()
        if segments == ("repos", "delete"):
            return self._delete()
        if segments[0] in REPO_TYPES and len(segments) >= 3:
            repo_type, repo_id = REPO_TYPES[segments[0]], "/".join(segments[1:3])
            action = segments[3] if len(segments) > 3 else "revision"
            route = getattr(self, f"_{self.command.lower()}_{action.replace('-', '_')}", None)
            if route is not None:
                # Permission to read is enough for a pull request.
                only_reads = self.command in ("GET", "HEAD") or action == "paths-info"
                only_reads |= action in ("commit", "preupload") and "create_pr" in self.query
                get_repo = self._get_readable_repo if only_reads else self._get_writable_repo
                repo = get_repo(repo_type, repo_id)
                return route(repo, *segments[4:])
        raise HttpError(404, f"no route {self.command} {self.route_path}")

    def _get_readable_repo(self, repo_type, repo_id):
        repo = self.hub.store.repo(repo_type, repo_id)
        if repo.private and (self.user is None or self.user[0] != repo.namespace):
            raise HttpError(401 if self.user is None else 404, "Repository not found", "RepoNotFound")
        return repo

    def _get_writable_repo(self, repo_type, repo_id):
        repo = self._get_readable_repo(repo_type, repo_id)
        self._check_write(repo.namespace)
        return repo

    def _check_write(self, namespace):
        if self.user is None:
            raise HttpError(401, "Invalid username or password.")
        name, role = self.user
        if role != "write":
            raise HttpError(403, "Forbidden: you must use a write token to upload to a repository.")
        if name != namespace:
            raise HttpError(403, f'You don\'t have the rights to use the namespace "{namespace}"')

    def _whoami(self):
        if self.user is None:
            raise HttpError(401, "Invalid username or password.")
        name, role = self.user
        access = {"accessToken": {"displayName": "test", "role": role}}
        return ({"type": "user", "name": name, "fullname": name, "orgs": [], "auth": access},)

    def _read_repo_request(self):
        request = json.loads(self.body)
        namespace = request.get("organization") or (self.user[0] if self.user else "")
        self._check_write(namespace)
        return request, request.get("type") or "model", f"{namespace}/{request['name']}"

    def _create(self):
        request, repo_type, repo_id = self._read_repo_request()
        private = request.get("private") or request.get("visibility") == "private"
        prefix = "" if repo_type == "model" else f"{repo_type}s/"
        answer = {"url": f"{self.hub.url}/{prefix}{repo_id}", "name": repo_id, "id": repo_id}
        try:
            self.hub.store.create(repo_type, repo_id, bool(private), self.user[0])
        except HttpError as error:  # clients read the existing repository from the answer
            return answer | {"error": error.message}, error.status
        return (answer,)

    def _delete(self):
        _, repo_type, repo_id = self._read_repo_request()
        self.hub.store.repo(repo_type, repo_id)
        del self.hub.store.repos[repo_type, repo_id]
        return ({},)

    def _get_revision(self, repo, revision="main"):
        commit = repo.get_commit(revision)
        siblings = [{"rfilename": path} for path in sorted(commit.files)]
        if self.query.get("blobs"):
            siblings = [
                {"rfilename": path, "size": len(file.content), "blobId": file.oid} | _describe_lfs(file)
                for path, file in sorted(commit.files.items())
            ]
        answer = {"id": repo.repo_id, "sha": commit.oid, "private": repo.private, "siblings": siblings}
        answer |= {
            "author": repo.namespace,
            "lastModified": commit.date,
            "createdAt": commit.date,
            "tags": [],
        }
        return (answer | {"disabled": False, "gated": False, "downloads": 0, "likes": 0},)

    def _get_refs(self, repo):
        def list_refs(commits, prefix):
            return [
                {"name": name, "ref": f"{prefix}{name}", "targetCommit": commit.oid}
                for name, commit in commits.items()
                if not name.startswith("refs/")
            ]

        branches, tags = list_refs(repo.branches, "refs/heads/"), list_refs(repo.tags, "refs/tags/")
        return ({"branches": branches, "tags": tags, "converts": []},)

    def _get_commits(self, repo, revision="main"):
        return (
            [
                {"id": commit.oid, "title": commit.title, "message": commit.message, "date": commit.date}
                | {"authors": [{"user": commit.author}]}
                for commit in repo.history(revision)
            ],
        )

    def _get_tree(self, repo, revision="main", *path):
        folder = "/".join(path)
        prefix = f"{folder}/" if folder else ""
        recursive = self.query.get("recursive", "").lower() in ("1", "true")
        files = repo.get_commit(revision).files
        entries = {}
        for name, file in sorted(files.items()):
            if not name.startswith(prefix):
                continue
            parts = name[len(prefix) :].split("/")
            for depth in range(1, len(parts)):
                if depth == 1 or recursive:
                    parent = prefix + "/".join(parts[:depth])
                    entries.setdefault(parent, _describe_folder(parent))
            if len(parts) == 1 or recursive:
                entries[name] = _describe_file(name, file)
        if folder and not entries:
            raise HttpError(404, f"{folder} does not exist", "EntryNotFound")
        return (list(entries.values()),)

    def _post_paths_info(self, repo, revision="main"):
        content_type = self.headers.get("Content-Type", "")
        request = json.loads(self.body) if "json" in content_type else parse_qs(self.body.decode())
        paths = request["paths"] if isinstance(request["paths"], list) else [request["paths"]]
        files, entries = repo.get_commit(revision).files, []
        for path in paths:
            if path in files:
                entries.append(_describe_file(path, files[path]))
            elif any(name.startswith(f"{path}/") for name in files):
                entries.append(_describe_folder(path))
        return (entries,)

    def _post_branch(self, repo, name):
        if name in repo.branches:
            raise HttpError(409, f"Reference already exists: {name}")
        start = json.loads(self.body or b"{}").get("startingPoint") or "main"
        repo.branches[name] = repo.get_commit(start)
        return ({},)

    def _delete_branch(self, repo, name):
        repo.get_commit(name)
        del repo.branches[name]
        return ({},)

    def _post_tag(self, repo, revision):
        repo.tags[json.loads(self.body)["tag"]] = repo.get_commit(revision)
        return ({},)

    def _post_preupload(self, repo, revision):
        existing, files = repo.get_commit(revision).files, []
        for file in json.loads(self.body)["files"]:
            mode = "lfs" if repo.is_lfs(file["path"], file["size"]) else "regular"
            answer = {"path": file["path"], "uploadMode": mode, "shouldIgnore": False}
            files.append(answer | ({"oid": existing[file["path"]].etag} if file["path"] in existing else {}))
        return ({"files": files},)

    def _lfs_batch(self, repo):
        objects = []
        for request in json.loads(self.body)["objects"]:
            exists = request["oid"] in self.hub.store.objects
            href = f"{self.hub.storage}/lfs-objects/{request['oid']}"
            objects.append(request if exists else request | {"actions": {"upload": {"href": href}}})
        return ({"transfer": "basic", "objects": objects},)

    def _transfer_object(self, oid):
        if self.command == "PUT":
            self.hub.store.put_object(oid, self.body)
            return ({},)
        return self._send_range(self.hub.store.objects[oid], {"ETag": f'"{oid}"'})

    def _post_commit(self, repo, revision):
        lines = [json.loads(line) for line in self.body.splitlines()]
        author, create_pr = self.user[0] if self.user else "", "create_pr" in self.query
        commit, pull = self.hub.store.commit(repo, revision, lines, author, create_pr)
        base = f"{self.hub.url}/{'' if repo.repo_type == 'model' else repo.repo_type + 's/'}{repo.repo_id}"
        answer = {"success": True, "commitOid": commit.oid, "commitUrl": f"{base}/commit/{commit.oid}"}
        if pull:
            answer["pullRequestUrl"] = f"{base}/discussions/{pull.num}"
        return (answer | {"hookOutput": ""},)

    def _get_discussions(self, repo, num=None):
        if num is None:
            pulls = [_describe_pull(repo, pull) for pull in repo.pulls]
            return ({"discussions": pulls, "count": len(pulls), "start": 0},)
        pull = repo.pulls[int(num) - 1]
        comment = {"edited": False, "hidden": False, "latest": {"raw": pull.description}}
        event = {"id": "0", "type": "comment", "createdAt": pull.date, "author": {"name": pull.author}}
        changes = {"base": "refs/heads/main"}
        details = {"events": [event | {"data": comment}], "changes": changes, "filesWithConflicts": []}
        return (_describe_pull(repo, pull) | details,)

    def _resolve(self, repo, revision, path):
        commit = repo.get_commit(revision)
        if path not in commit.files:
            raise HttpError(404, f"Entry not found: {path}", "EntryNotFound")
        file = commit.files[path]
        headers = {"X-Repo-Commit": commit.oid, "ETag": f'"{file.etag}"'}
        if not file.lfs:
            return self._send_range(file.content, headers)
        self.hub.store.objects[file.etag] = file.content
        headers |= {"X-Linked-Etag": f'"{file.etag}"', "X-Linked-Size": str(len(file.content))}
        return b"", 302, headers | {"Location": f"{self.hub.storage}/lfs-objects/{file.etag}"}

    def _send_range(self, content, headers):
        headers = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes", **headers}
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not match:
            return content, 200, headers
        start, end = int(match[1]), int(match[2]) if match[2] else len(content) - 1
        if start >= len(content):
            raise HttpError(416, "Range not satisfiable")
        end = min(end, len(content) - 1)
        headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
        return content[start : end + 1], 206, headers


def _describe_lfs(file):
    pointer = {"oid": file.sha256, "sha256": file.sha256, "size": len(file.content), "pointerSize": 130}
    return {"lfs": pointer} if file.lfs else {}


def _describe_folder(path):
    return {"type": "directory", "path": path, "oid": "0" * 40, "size": 0}


def _describe_file(path, file):
    return {"type": "file", "path": path, "oid": file.oid, "size": len(file.content)} | _describe_lfs(file)


def _describe_pull(repo, pull):
    details = {"num": pull.num, "title": pull.title, "createdAt": pull.date, "status": "open"}
    details |= {"author": {"name": pull.author}, "isPullRequest": True}
    return details | {"repo": {"name": repo.repo_id, "type": repo.repo_type}}


def main():
    parser = argparse.ArgumentParser(description="Serve a Hub on this machine for offline trials.")
    parser.add_argument("--port", type=int, default=8080)
    with LoopbackHub(parser.parse_args().port) as hub:
        token = next(iter(TOKENS))
        print(f"export HF_ENDPOINT={hub.url} HF_TOKEN={token} HF_HUB_DISABLE_XET=1  # you are alice")
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            print("stopped; all repositories are deleted")


if __name__ == "__main__":
    main()
