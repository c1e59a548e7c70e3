"""A Hub on 127.0.0.1 for tests and for trying things out offline: real clients talk to it by real HTTP.

    python tests/loopback_hub.py --port 8080

prints what to set (`HF_ENDPOINT` and a token) and serves until it is stopped. It speaks what
`huggingface_hub`, `transformers`, `datasets`, `peft` and `evaluate` need of the Hub: create, upload
(regular files and LFS), commit, list, download, branch, open a pull request and delete. Xet it does not
speak: clients set `HF_HUB_DISABLE_XET=1`.
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

from loopback_store import Refused, Store

TOKENS = {"hf_alice_may_write_here": ("alice", "write"), "hf_bob_may_write_here_too": ("bob", "write")}
TOKENS |= {"hf_alice_may_only_read": ("alice", "read")}
KINDS = {"models": "model", "datasets": "dataset", "spaces": "space"}

Request = namedtuple("Request", "method path status user length")


@dataclass
class Fault:
    """What goes wrong with the next `times` requests that match.

    Attributes:
        method, path: Of the request; `path` is a regular expression that is searched for.
        status, headers: An answer instead of the real one.
        cut_body_at: Close the connection after so many bytes of the request's body.
        cut_answer: Carry the request out, and close the connection without an answer.
        carried_out: Carry the request out although the answer is `status`.
        delay: Seconds before each block of 64 KiB of the body is taken, or before the answer to none.
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
    """The server, as a context manager; `url` is its address."""

    def __init__(self, port=0, tokens=TOKENS):
        self.tokens = dict(tokens)
        self.store = Store()
        self.faults, self.requests = [], []
        self._lock = Lock()
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", port), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        # Large files lie on another host than the Hub, and clients go by that: they stop at the way there.
        self.storage = f"http://localhost:{self._server.server_port}"

    def __enter__(self):
        Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()

    def fail(self, method, path, **fault):
        """The next requests that match go wrong, see [`Fault`]."""
        self.faults.append(Fault(method, path, **fault))

    def reset(self):
        """As new: nothing stored, no faults, no requests."""
        self.store = Store()
        self.faults.clear()
        self.requests.clear()

    def repo(self, repo_id, kind="model"):
        return self.store.repo(kind, repo_id)

    def files(self, repo_id, kind="model", revision="main"):
        """`{path: bytes}` of a revision."""
        files = self.repo(repo_id, kind).commit_of(revision).files
        return {path: file.content for path, file in files.items()}

    def commits(self, repo_id, kind="model", revision="main"):
        """The commits, newest first."""
        return list(self.repo(repo_id, kind).history(revision))

    def count(self, method, path):
        """How many requests there were whose path matches."""
        return sum(r.method == method and bool(re.search(path, r.path)) for r in list(self.requests))

    def fault_of(self, method, path):
        with self._lock:
            for fault in self.faults:
                if fault.times > 0 and fault.method == method and re.search(fault.path, path):
                    fault.times -= 1
                    return fault
        return None


class _Cut(Exception):
    """The connection is to be closed without a further word."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16
    hub = None

    def log_message(self, *_):
        pass

    def do_any(self):
        url = urlsplit(self.path)
        # A revision such as refs/pr/1 comes as one segment, with its slashes quoted.
        self.segments = [unquote(part) for part in url.path.strip("/").split("/")]
        self.query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        self.route_path, self.body, self.user = url.path, b"", None
        fault = self.hub.fault_of(self.command, url.path)
        try:
            self.body = self._read_body(fault)
            self._authenticate()
            if fault and fault.status:
                if fault.carried_out:
                    self._route()
                raise Refused(fault.status, "as ordered")
            answer = self._route()
            if fault and fault.cut_answer:
                raise _Cut
            self._answer(*answer)
        except Refused as error:
            headers = {"X-Error-Message": error.message} | (
                {"X-Error-Code": error.code} if error.code else {}
            )
            headers |= (fault.headers or {}) if fault and fault.status else {}
            self._answer({"error": error.message}, error.status, headers)
        except (_Cut, ConnectionError):
            self._record(0)
            self.close_connection = True
            self.connection.close()

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_any

    def finish(self):
        try:
            super().finish()
        except (OSError, ValueError):  # the connection was cut on purpose
            pass

    def _read_body(self, fault):
        limit = fault.cut_body_at if fault else None
        delay = fault.delay if fault else 0
        body = bytearray()
        for block in self._blocks():
            time.sleep(delay)
            body += block
            if limit is not None and len(body) >= limit:
                raise _Cut
        if limit is not None:
            raise _Cut
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
                raise _Cut
            left -= len(block)
            yield block

    def _authenticate(self):
        kind, _, token = self.headers.get("Authorization", "").partition(" ")
        if kind != "Bearer":
            return
        if token not in self.hub.tokens:
            raise Refused(401, "Invalid credentials in Authorization header")
        self.user = self.hub.tokens[token]

    def _record(self, status):
        user = self.user and self.user[0]
        self.hub.requests.append(Request(self.command, self.route_path, status, user, len(self.body)))

    def _answer(self, content, status=200, headers=None):
        self._record(status)  # before anybody has the answer and counts
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **(headers or {})}
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()

    # --- Routes: each returns what `_answer` takes -----------------------------------------------------

    def _route(self):
        first, *rest = self.segments
        if first == "api":
            return self._api(*rest)
        if first == "lfs-objects":
            return self._object(rest[0])
        kind = KINDS.get(first, "model")
        segments = self.segments[1:] if first in KINDS else self.segments
        if len(segments) == 6 and segments[1].endswith(".git"):  # info/lfs/objects/batch
            return self._lfs_batch(self._writable(kind, f"{segments[0]}/{segments[1][:-4]}"))
        if len(segments) > 4 and segments[2] == "resolve":
            repo = self._readable(kind, "/".join(segments[:2]))
            return self._resolve(repo, segments[3], "/".join(segments[4:]))
        raise Refused(404, f"no route {self.command} {self.route_path}")

    def _api(self, *segments):
        if segments == ("whoami-v2",):
            return self._whoami()
        if segments == ("validate-yaml",):
            return ({"errors": [], "warnings": []},)
        if segments == ("repos", "create"):
            return self._create()
        if segments == ("repos", "delete"):
            return self._delete()
        if segments[0] in KINDS and len(segments) >= 3:
            kind, repo_id = KINDS[segments[0]], "/".join(segments[1:3])
            action = segments[3] if len(segments) > 3 else "revision"
            route = getattr(self, f"_{self.command.lower()}_{action.replace('-', '_')}", None)
            if route is not None:
                # Whoever may read may open a pull request.
                reads = self.command in ("GET", "HEAD") or action == "paths-info"
                reads = reads or (action in ("commit", "preupload") and "create_pr" in self.query)
                repo = self._readable(kind, repo_id) if reads else self._writable(kind, repo_id)
                return route(repo, *segments[4:])
        raise Refused(404, f"no route {self.command} {self.route_path}")

    def _readable(self, kind, repo_id):
        repo = self.hub.store.repo(kind, repo_id)
        if repo.private and (self.user is None or self.user[0] != repo.namespace):
            raise Refused(401 if self.user is None else 404, "Repository not found", "RepoNotFound")
        return repo

    def _writable(self, kind, repo_id):
        repo = self._readable(kind, repo_id)
        self._may_write(repo.namespace)
        return repo

    def _may_write(self, namespace):
        if self.user is None:
            raise Refused(401, "Invalid username or password.")
        name, role = self.user
        if role != "write":
            raise Refused(403, "Forbidden: you must use a write token to upload to a repository.")
        if name != namespace:
            raise Refused(403, f'You don\'t have the rights to use the namespace "{namespace}"')

    def _whoami(self):
        if self.user is None:
            raise Refused(401, "Invalid username or password.")
        name, role = self.user
        access = {"accessToken": {"displayName": "test", "role": role}}
        return ({"type": "user", "name": name, "fullname": name, "orgs": [], "auth": access},)

    def _named_repo(self):
        asked = json.loads(self.body)
        namespace = asked.get("organization") or (self.user[0] if self.user else "")
        self._may_write(namespace)
        return asked, asked.get("type") or "model", f"{namespace}/{asked['name']}"

    def _create(self):
        asked, kind, repo_id = self._named_repo()
        private = asked.get("private") or asked.get("visibility") == "private"
        prefix = "" if kind == "model" else f"{kind}s/"
        about = {"url": f"{self.hub.url}/{prefix}{repo_id}", "name": repo_id, "id": repo_id}
        try:
            self.hub.store.create(kind, repo_id, bool(private), self.user[0])
        except Refused as error:  # clients want to hear of the one that is there
            return about | {"error": error.message}, error.status
        return (about,)

    def _delete(self):
        _, kind, repo_id = self._named_repo()
        self.hub.store.repo(kind, repo_id)
        del self.hub.store.repos[kind, repo_id]
        return ({},)

    def _get_revision(self, repo, revision="main"):
        commit = repo.commit_of(revision)
        siblings = [{"rfilename": path} for path in sorted(commit.files)]
        if self.query.get("blobs"):
            siblings = [
                {"rfilename": path, "size": len(file.content), "blobId": file.oid} | _lfs(file)
                for path, file in sorted(commit.files.items())
            ]
        about = {"id": repo.repo_id, "sha": commit.oid, "private": repo.private, "siblings": siblings}
        about |= {"author": repo.namespace, "lastModified": commit.date, "createdAt": commit.date, "tags": []}
        return (about | {"disabled": False, "gated": False, "downloads": 0, "likes": 0},)

    def _get_refs(self, repo):
        def listed(table, ref):
            return [
                {"name": name, "ref": f"{ref}{name}", "targetCommit": commit.oid}
                for name, commit in table.items()
                if not name.startswith("refs/")
            ]

        branches, tags = listed(repo.branches, "refs/heads/"), listed(repo.tags, "refs/tags/")
        return ({"branches": branches, "tags": tags, "converts": []},)

    def _get_commits(self, repo, revision="main"):
        return (
            [
                {"id": made.oid, "title": made.title, "message": made.message, "date": made.date}
                | {"authors": [{"user": made.author}]}
                for made in repo.history(revision)
            ],
        )

    def _get_tree(self, repo, revision="main", *path):
        folder = "/".join(path)
        start = f"{folder}/" if folder else ""
        files = repo.commit_of(revision).files
        entries = {}
        for name, file in sorted(files.items()):
            if not name.startswith(start):
                continue
            parts = name[len(start) :].split("/")
            for depth in range(1, len(parts)):
                if depth == 1 or self.query.get("recursive", "").lower() in ("1", "true"):
                    above = start + "/".join(parts[:depth])
                    entries.setdefault(
                        above, {"type": "directory", "path": above, "oid": "0" * 40, "size": 0}
                    )
            if len(parts) == 1 or self.query.get("recursive", "").lower() in ("1", "true"):
                entries[name] = _entry(name, file)
        if folder and not entries:
            raise Refused(404, f"{folder} does not exist", "EntryNotFound")
        return (list(entries.values()),)

    def _post_paths_info(self, repo, revision="main"):
        kind = self.headers.get("Content-Type", "")
        asked = json.loads(self.body) if "json" in kind else parse_qs(self.body.decode())
        paths = asked["paths"] if isinstance(asked["paths"], list) else [asked["paths"]]
        files, found = repo.commit_of(revision).files, []
        for path in paths:
            if path in files:
                found.append(_entry(path, files[path]))
            elif any(name.startswith(f"{path}/") for name in files):
                found.append({"type": "directory", "path": path, "oid": "0" * 40, "size": 0})
        return (found,)

    def _post_branch(self, repo, name):
        if name in repo.branches:
            raise Refused(409, f"Reference already exists: {name}")
        start = json.loads(self.body or b"{}").get("startingPoint") or "main"
        repo.branches[name] = repo.commit_of(start)
        return ({},)

    def _delete_branch(self, repo, name):
        repo.commit_of(name)
        del repo.branches[name]
        return ({},)

    def _post_tag(self, repo, revision):
        repo.tags[json.loads(self.body)["tag"]] = repo.commit_of(revision)
        return ({},)

    def _post_preupload(self, repo, revision):
        there, files = repo.commit_of(revision).files, []
        for file in json.loads(self.body)["files"]:
            mode = "lfs" if repo.is_lfs(file["path"], file["size"]) else "regular"
            about = {"path": file["path"], "uploadMode": mode, "shouldIgnore": False}
            files.append(about | ({"oid": there[file["path"]].etag} if file["path"] in there else {}))
        return ({"files": files},)

    def _lfs_batch(self, repo):
        objects = []
        for asked in json.loads(self.body)["objects"]:
            known = asked["oid"] in self.hub.store.objects
            href = f"{self.hub.storage}/lfs-objects/{asked['oid']}"
            objects.append(asked if known else asked | {"actions": {"upload": {"href": href}}})
        return ({"transfer": "basic", "objects": objects},)

    def _object(self, oid):
        if self.command == "PUT":
            self.hub.store.put_object(oid, self.body)
            return ({},)
        return self._ranged(self.hub.store.objects[oid], {"ETag": f'"{oid}"'})

    def _post_commit(self, repo, revision):
        lines = [json.loads(line) for line in self.body.splitlines()]
        asked = "create_pr" in self.query
        made, pull = self.hub.store.commit(repo, revision, lines, self.user[0] if self.user else "", asked)
        base = f"{self.hub.url}/{'' if repo.kind == 'model' else repo.kind + 's/'}{repo.repo_id}"
        return (
            {
                "success": True,
                "commitOid": made.oid,
                "commitUrl": f"{base}/commit/{made.oid}",
                "hookOutput": "",
            }
            | ({"pullRequestUrl": f"{base}/discussions/{pull.num}"} if pull else {}),
        )

    def _get_discussions(self, repo, num=None):
        if num is None:
            pulls = [_pull(repo, pull) for pull in repo.pulls]
            return ({"discussions": pulls, "count": len(pulls), "start": 0},)
        pull = repo.pulls[int(num) - 1]
        comment = {"edited": False, "hidden": False, "latest": {"raw": pull.description}}
        event = {"id": "0", "type": "comment", "createdAt": pull.date, "author": {"name": pull.author}}
        changes = {"base": "refs/heads/main"}
        details = {"events": [event | {"data": comment}], "changes": changes, "filesWithConflicts": []}
        return (_pull(repo, pull) | details,)

    def _resolve(self, repo, revision, path):
        commit = repo.commit_of(revision)
        if path not in commit.files:
            raise Refused(404, f"Entry not found: {path}", "EntryNotFound")
        file = commit.files[path]
        headers = {"X-Repo-Commit": commit.oid, "ETag": f'"{file.etag}"'}
        if not file.lfs:
            return self._ranged(file.content, headers)
        self.hub.store.objects[file.etag] = file.content
        headers |= {"X-Linked-Etag": f'"{file.etag}"', "X-Linked-Size": str(len(file.content))}
        return b"", 302, headers | {"Location": f"{self.hub.storage}/lfs-objects/{file.etag}"}

    def _ranged(self, content, headers):
        headers = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes", **headers}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not asked:
            return content, 200, headers
        start, end = int(asked[1]), int(asked[2]) if asked[2] else len(content) - 1
        if start >= len(content):
            raise Refused(416, "Range not satisfiable")
        end = min(end, len(content) - 1)
        headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
        return content[start : end + 1], 206, headers


def _lfs(file):
    about = {"oid": file.sha256, "sha256": file.sha256, "size": len(file.content), "pointerSize": 130}
    return {"lfs": about} if file.lfs else {}


def _entry(path, file):
    return {"type": "file", "path": path, "oid": file.oid, "size": len(file.content)} | _lfs(file)


def _pull(repo, pull):
    about = {"num": pull.num, "title": pull.title, "createdAt": pull.date, "status": "open"}
    about |= {"author": {"name": pull.author}, "isPullRequest": True}
    return about | {"repo": {"name": repo.repo_id, "type": repo.kind}}


def main():
    parser = argparse.ArgumentParser(description="A Hub on this machine, for trying things out offline.")
    parser.add_argument("--port", type=int, default=8080)
    with LoopbackHub(parser.parse_args().port) as hub:
        token = next(iter(TOKENS))
        print(f"export HF_ENDPOINT={hub.url} HF_TOKEN={token} HF_HUB_DISABLE_XET=1  # you are alice")
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            print("stopped; what was stored is gone")


if __name__ == "__main__":
    main()
