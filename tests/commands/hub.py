"""A small hub on this machine: as much of its HTTP interface as the client libraries need to list and download files."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

Files = dict[str, bytes]


def commit_of(files: Files) -> str:
    """40 hex digits that name this content."""
    return hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()


class Hub(ThreadingHTTPServer):
    """Repositories by kind and name, each a list of versions; ``main`` is the last. `gated` ones are shown to nobody.

    `served` are the paths of all bodies that were sent, in order.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[tuple[str, str], list[Files]] = {}
        self.gated: set[str] = set()
        self.served: list[str] = []
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def add(self, kind: str, name: str, files: Files) -> str:
        """Commit these files; returns the commit."""
        self.repositories.setdefault((kind, name), []).append(files)
        return commit_of(files)

    def stop(self) -> None:
        if self._thread.is_alive():
            self.shutdown()
            self._thread.join()
            self.server_close()


def folder_files(folder: Path) -> Files:
    """The files of a folder, by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path).strip("/")
        if match := re.fullmatch(r"api/(model|dataset)s/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+)(?:/(.*))?)?", path):
            kind, name, what, revision, below = match.groups()
            found = self._find(kind, name, revision or "main")
            if found is not None:
                self._json(self._tree(found, below) if what == "tree" else self._info(name, found))
        elif match := re.fullmatch(r"(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            dataset, name, revision, file = match.groups()
            found = self._find("dataset" if dataset else "model", name, revision)
            if found is not None and file in found:
                self.server.served.append(path) if self.command == "GET" else None
                etag = hashlib.sha1(found[file]).hexdigest()
                self._send(200, found[file], {"X-Repo-Commit": commit_of(found), "ETag": f'"{etag}"'})
            elif found is not None:
                self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit_of(found)})
        else:
            self._send(404, b"{}", {})

    do_HEAD = do_GET

    def do_POST(self) -> None:
        asked = self.rfile.read(int(self.headers["Content-Length"])).decode()
        match = re.fullmatch(r"api/(model|dataset)s/([^/]+/[^/]+)/paths-info/([^/]+)", unquote(self.path).strip("/"))
        assert match, self.path
        found = self._find(*match.groups())
        if found is not None:
            paths = json.loads(asked)["paths"] if asked.startswith("{") else re.findall(r"paths=([^&]*)", unquote(asked))
            self._json([entry for entry in self._tree(found, None) if entry["path"] in paths])

    def _find(self, kind: str, name: str, revision: str) -> Files | None:
        versions = self.server.repositories.get((kind, name))
        if versions is None:
            self._send(404, b"", {"X-Error-Code": "RepoNotFound"})
            return None
        if name in self.server.gated:
            self._send(403, b"", {"X-Error-Code": "GatedRepo"})
            return None
        for files in versions:
            if commit_of(files) == revision:
                return files
        if revision == "main":
            return versions[-1]
        self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        return None

    @staticmethod
    def _info(name: str, files: Files) -> object:
        siblings = [{"rfilename": file, "size": len(content)} for file, content in files.items()]
        return {"id": name, "sha": commit_of(files), "private": False, "tags": [], "downloads": 0, "siblings": siblings}

    @staticmethod
    def _tree(files: Files, below: str | None) -> list[dict]:
        return [
            {"type": "file", "path": file, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
            for file, content in files.items()
            if not below or file.startswith(f"{below}/")
        ]

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return
