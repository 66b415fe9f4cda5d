"""A hub on 127.0.0.1 that answers as the real one does (API, redirects to storage, ranges) and can be told to misbehave."""

from __future__ import annotations

import hashlib
import json
import sys
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

LARGE = (".safetensors", ".gguf")  # what lies in storage, under its SHA-256
COMMIT = "6b5be086d52f65a1e204cb0faf70bf54e2741ecd"
PIECE = 1 << 16


@dataclass
class Repo:
    """One revision of one model."""

    files: dict[str, bytes]
    commit: str = COMMIT
    info: dict[str, Any] = field(default_factory=dict)  # more keys of the API's answer
    sizes: dict[str, int] = field(default_factory=dict)  # lies of the API
    branches: tuple[str, ...] = ("main",)
    refuses: tuple[int, str] | None = None  # status and X-Error-Code of every file

    def described(self, name: str) -> dict[str, Any]:
        siblings = [self._sibling(file, content) for file, content in self.files.items()]
        return {"_id": "0", "id": name, "sha": self.commit, "private": False, "gated": False, "siblings": siblings, **self.info}

    def _sibling(self, file: str, content: bytes) -> dict[str, Any]:
        n_bytes = self.sizes.get(file, len(content))
        about: dict[str, Any] = {"rfilename": file, "size": n_bytes, "blobId": git_hash(content)}
        if file.endswith(LARGE):
            about["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": n_bytes, "pointerSize": 135}
        return about


def git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Hub(ThreadingHTTPServer):
    """The server; `with Hub() as hub` runs it. Storage has another host name, as the real one."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repos: dict[str, Repo] = {}
        self.storage: dict[str, bytes] = {}  # other content than the right one, by SHA-256
        self.seen: list[tuple[str, str, str | None]] = []  # method, path, Range
        self.drop_at: list[int] = []  # bytes after which the next answers from storage break off
        self.stall_at: int | None = None  # byte after which storage sends nothing more
        self.storage_down = False
        self.ignores_ranges = False
        self.stalled, self.released = threading.Event(), threading.Event()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def ranges(self) -> list[str | None]:
        """Of the requests that storage got."""
        return [span for method, path, span in self.seen if method == "GET" and path.startswith("/storage/")]

    def fetched(self) -> list[str]:
        """Names of the files that were sent."""
        return [path.split("/")[-1] for method, path, _ in self.seen if method == "GET" and "/resolve/" in path]

    def __enter__(self) -> Hub:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say what went wrong, but not that the other side was killed."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    """The hub's three kinds of address: /api/models/ID, /ID/resolve/REVISION/FILE, /storage/SHA256."""

    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Nothing on stderr."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.seen.append((self.command, path, self.headers.get("Range")))
        if path.startswith("/api/models/"):
            self._api(path.removeprefix("/api/models/"))
        elif path.startswith("/storage/"):
            self._storage(path.removeprefix("/storage/"))
        else:
            self._file(path)

    def _api(self, path: str) -> None:
        name, _, rest = path.partition("/revision/")
        name, checked = name.removesuffix("/auth-check"), name.endswith("/auth-check")
        repo = self.server.repos.get(name)
        if repo is None:
            self._refuse(404, "RepoNotFound")
        elif checked and repo.refuses:
            self._refuse(*repo.refuses)
        elif rest and rest not in (*repo.branches, repo.commit):
            self._refuse(404, "RevisionNotFound")
        else:
            self._send(json.dumps(repo.described(name)).encode(), {"Content-Type": "application/json"})

    def _file(self, path: str) -> None:
        name, _, rest = path.lstrip("/").partition("/resolve/")
        revision, _, file = rest.partition("/")
        repo = self.server.repos.get(name)
        if repo is None:
            self._refuse(404, "RepoNotFound")
        elif repo.refuses:
            self._refuse(*repo.refuses)
        elif revision not in (*repo.branches, repo.commit):
            self._refuse(404, "RevisionNotFound")
        elif file not in repo.files:
            self._refuse(404, "EntryNotFound")
        elif file.endswith(LARGE):
            content = repo.files[file]
            key = hashlib.sha256(content).hexdigest()
            self.server.storage.setdefault(key, content)
            linked = {"X-Linked-ETag": f'"{key}"', "X-Linked-Size": str(repo.sizes.get(file, len(content)))}
            storage = f"http://localhost:{self.server.server_port}/storage/{key}"
            self._send(b"", {"X-Repo-Commit": repo.commit, "Location": storage, **linked}, 302)
        else:
            content = repo.files[file]
            self._send(content, {"X-Repo-Commit": repo.commit, "ETag": f'"{git_hash(content)}"'})

    def _storage(self, key: str) -> None:
        if self.server.storage_down:
            self._refuse(503, "")
            return
        content, span = self.server.storage[key], self.headers.get("Range")
        if span is None or self.server.ignores_ranges:
            self._send(content, {"ETag": f'"{key}"', "Accept-Ranges": "bytes"})
            return
        start = int(span.removeprefix("bytes=").partition("-")[0])
        if start >= len(content):
            self._send(b"", {"Content-Range": f"bytes */{len(content)}"}, 416)
            return
        where = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}", "Accept-Ranges": "bytes", "ETag": f'"{key}"'}
        self._send(content[start:], where, 206, start)

    def _refuse(self, status: int, code: str) -> None:
        self._send(b"", {"X-Error-Code": code, "X-Error-Message": code} if code else {}, status)

    def _send(self, body: bytes, headers: dict[str, str], status: int = 200, start: int = 0) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        end = len(body)
        if self.path.startswith("/storage/") and self.server.drop_at:
            end = self.server.drop_at.pop(0) - start
        stall = None if self.server.stall_at is None or not self.path.startswith("/storage/") else self.server.stall_at - start
        try:
            for at in range(0, min(end, len(body)), PIECE):
                if stall is not None and at >= stall:
                    self.server.stalled.set()
                    self.server.released.wait(60)
                    break
                self.wfile.write(body[at : min(at + PIECE, end)])
        except OSError:  # the other side has gone
            end = 0
        self.close_connection = self.close_connection or end < len(body) or stall is not None
