"""A Hugging Face hub small enough to read, for tests: what the client asks for, answered as huggingface.co does.

Files below git LFS (.safetensors, .bin) are redirected to another host, as to the real hub's storage, where no token
may arrive; others are answered at once. Faults are switches of the server.
"""

import base64
import contextlib
import hashlib
import json
import re
import socket
import threading
import time
import types
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import pytest
import yaml

LFS = (".safetensors", ".bin")
TOKENS = {"hf_write": "write", "hf_read": "read"}


@dataclass
class Repo:
    """Its commits as {path: content}, oldest first, and what each branch points at."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    private: bool = False
    gated: bool = False

    def commit(self, branch, files):
        """A new commit on ``branch`` that adds or replaces ``files``; its 40 digits."""
        files = {**self.commits.get(self.branches.get(branch, ""), {}), **files}
        tree = sorted((path, etag(path, content)) for path, content in files.items())
        oid = hashlib.sha1(repr((len(self.commits), tree)).encode()).hexdigest()
        self.commits[oid] = files
        self.branches[branch] = oid
        return oid


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    range: str | None
    token: str | None


def etag(path, content):
    """The SHA-256 of a file below LFS, git's SHA-1 of another one."""
    if path.endswith(LFS):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class HubServer:
    """Serves ``repos`` while the ``with`` block lasts.

    Args of the faults, all off at first:
        cut_after: the connection ends after so many bytes of a file, ``cuts`` times.
        corrupt: one byte of every file is not what its digest says.
        status: every question is answered with this status.
        delay: seconds before an answer about a path with the word ``slow``.
        xet: large files are said to lie in Xet storage, where nothing is.
        foreign: answers lack the headers of a hub, as those of a captive portal do.
    """

    def __init__(self):
        self.repos: dict[str, Repo] = {}
        self.requests: list[Request] = []
        self.uploads: dict[str, bytes] = {}
        self.connections: list[socket.socket] = []
        self.cut_after, self.cuts = None, 1
        self.corrupt, self.foreign, self.xet = False, False, False
        self.status, self.delay, self.slow = None, 1.5, None

    def __enter__(self):
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._http.daemon_threads = True
        self._http.hub = self
        self.port = self._http.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._http.shutdown()
        self._http.server_close()
        for connection in self.connections:  # those that are kept alive would go on
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def add(self, name, files, branch="main", **flags):
        """Put files into a repository, which is made if missing; the commit."""
        repo = self.repos.setdefault(name, Repo())
        for flag, value in flags.items():
            setattr(repo, flag, value)
        return repo.commit(branch, files)

    def asked(self, method="", word=""):
        """The requests so far of a method whose path contains a word."""
        return [r for r in self.requests if method in r.method and word in r.path]


class _RefusedError(Exception):
    def __init__(self, status, code=None, message="", url=None, **headers):
        super().__init__(message)
        self.status, self.message, self.url = status, message, url
        self.headers = {**({"X-Error-Code": code} if code else {}), "X-Error-Message": message, **headers}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def setup(self):
        super().setup()
        self.server.hub.connections.append(self.connection)

    def log_message(self, *_):
        pass

    def _answer(self):
        self.path_only = unquote(urlsplit(self.path).path)
        header = self.headers.get("Authorization")
        self.token = header.removeprefix("Bearer ") if header else None
        self.server.hub.requests.append(Request(self.command, self.path, self.headers.get("Range"), self.token))
        self.body = self._read()
        if self.server.hub.slow and self.server.hub.slow in self.path:
            time.sleep(self.server.hub.delay)
        try:
            if self.server.hub.status is not None:
                raise _RefusedError(self.server.hub.status, message="switched to fail")
            if self.server.hub.foreign:
                self._send(200, b"<html>Welcome to our hotel</html>")
                return
            for method, pattern, action in _ROUTES:
                if (found := re.fullmatch(pattern, self.path_only)) and method == self.command.replace("HEAD", "GET"):
                    action(self, **found.groupdict())
                    return
            raise _RefusedError(404, message=f"no route {self.command} {self.path_only}")
        except _RefusedError as refused:
            body = {"error": refused.message, "url": refused.url}
            self._send(refused.status, json.dumps(body).encode(), **refused.headers)

    do_HEAD = do_GET = do_POST = do_PUT = _answer  # noqa: N815

    def _read(self):
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _send(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _json(self, value):
        self._send(200, json.dumps(value).encode(), **{"Content-Type": "application/json"})

    def _repo(self, name, *, write=False):
        repo = self.server.hub.repos.get(name)
        if self.token is not None and self.token not in TOKENS:
            raise _RefusedError(401, message="Invalid credentials in Authorization header")
        if repo is None or (repo.private and self.token is None):
            if self.token is None:  # the hub does not tell a stranger what exists, and gives no code
                raise _RefusedError(401, message="Invalid username or password.")
            raise _RefusedError(404, "RepoNotFound", "Repository not found")
        if repo.gated:
            status = 401 if self.token is None else 403
            raise _RefusedError(status, "GatedRepo", f"Access to model {name} is restricted.")
        if write and TOKENS.get(self.token) != "write":
            raise _RefusedError(403 if self.token else 401, message="You must have write access.")
        return repo

    def _files(self, name, revision):
        repo = self._repo(name)
        commit = repo.branches.get(revision, revision)
        if commit not in repo.commits:
            raise _RefusedError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit, repo.commits[commit]

    def resolve(self, name, revision, path):
        commit, files = self._files(name, revision)
        if path not in files:
            raise _RefusedError(404, "EntryNotFound", "Entry not found", **{"X-Repo-Commit": commit})
        content = files[path]
        headers = {"X-Repo-Commit": commit, "ETag": f'"{etag(path, content)}"'}
        if not path.endswith(LFS):
            self._content(content, **headers)
            return
        headers |= {"X-Linked-Etag": f'"{etag(path, content)}"', "X-Linked-Size": str(len(content))}
        if self.server.hub.xet:
            headers |= {"X-Xet-Hash": "ab" * 32, "X-Xet-Refresh-Route": f"{self.server.hub.url}/xet-token"}
        location = f"http://localhost:{self.server.hub.port}/storage/{name}/{commit}/{path}"
        self._send(302, b"Found. Redirecting", **headers, Location=location)

    def xet_token(self):
        headers = {"X-Xet-Cas-Url": self.server.hub.url, "X-Xet-Access-Token": "t"}
        self._send(200, b"{}", **headers, **{"X-Xet-Token-Expiration": str(int(time.time()) + 3600)})

    def storage(self, name, revision, path):
        if self.token is not None:
            raise _RefusedError(400, message="a token was sent to the storage host")
        self._content(self.server.hub.repos[name].commits[revision][path])

    def _content(self, content, **headers):
        hub = self.server.hub
        if hub.corrupt:
            content = bytes([content[0] ^ 1]) + content[1:]
        status, start = 200, 0
        if found := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or ""):
            status, start = 206, int(found[1])
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        content = content[start:]
        if hub.cut_after is None or hub.cuts < 1 or self.command == "HEAD":
            self._send(status, content, **headers, **{"Accept-Ranges": "bytes"})
            return
        hub.cuts -= 1
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content[: hub.cut_after])
        self.close_connection = True

    def tree(self, name, revision):
        _, files = self._files(name, revision)
        entries = []
        for path, content in sorted(files.items()):
            entry = {"type": "file", "path": path, "size": len(content), "oid": etag(path, content)}
            if path.endswith(LFS):
                entry["lfs"] = {"oid": etag(path, content), "size": len(content), "pointerSize": 130}
            entries.append(entry)
        self._json(entries)

    def info(self, name, revision="main"):
        commit, files = self._files(name, revision)
        self._json({"id": name, "sha": commit, "siblings": [{"rfilename": path} for path in files]})

    def create(self):
        asked = json.loads(self.body)
        if TOKENS.get(self.token) != "write":
            raise _RefusedError(
                403 if self.token in TOKENS else 401, message="You don't have the rights to create a model"
            )
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.server.hub.repos:
            raise _RefusedError(409, message="You already created this model repo", url=f"{self.server.hub.url}/{name}")
        self.server.hub.add(name, {".gitattributes": b"*.safetensors filter=lfs\n"})
        self.server.hub.repos[name].private = asked.get("visibility") == "private"
        self._json({"url": f"{self.server.hub.url}/{name}"})

    def branch(self, name, revision):
        repo = self._repo(name, write=True)
        if revision in repo.branches:
            raise _RefusedError(409, message="Reference already exists")
        repo.branches[revision] = repo.branches["main"]
        self._json({})

    def validate(self):
        text = json.loads(self.body)["content"]
        try:
            assert text.startswith("---\n")
            yaml.safe_load(text.split("\n---\n")[0].removeprefix("---\n"))
        except (AssertionError, yaml.YAMLError) as error:
            answer = {"errors": [{"message": f"not YAML: {error}"}], "warnings": []}
            self._send(400, json.dumps(answer).encode())
            return
        self._json({"errors": [], "warnings": []})

    def preupload(self, name, revision):
        repo = self._repo(name, write=True)
        if revision not in repo.branches:
            raise _RefusedError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        there = repo.commits[repo.branches[revision]]
        self._json(
            {
                "files": [
                    {
                        "path": file["path"],
                        "uploadMode": "lfs" if file["path"].endswith(LFS) else "regular",
                        "shouldIgnore": False,
                        "oid": etag(file["path"], there[file["path"]]) if file["path"] in there else None,
                    }
                    for file in json.loads(self.body)["files"]
                ]
            }
        )

    def batch(self, name):
        self._repo(name, write=True)
        self._json(
            {
                "transfer": "basic",
                "objects": [
                    {**wanted, "actions": {"upload": {"href": f"{self.server.hub.url}/upload/{wanted['oid']}"}}}
                    for wanted in json.loads(self.body)["objects"]
                ],
            }
        )

    def upload(self, oid):
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise _RefusedError(400, message="not what its digest says")
        self.server.hub.uploads[oid] = self.body
        self._send(200)

    def commit(self, name, revision):
        repo = self._repo(name, write=True)
        files, summary = {}, None
        for item in map(json.loads, self.body.splitlines()):
            value = item["value"]
            match item["key"]:
                case "header":
                    summary = value["summary"]
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    files[value["path"]] = self.server.hub.uploads[value["oid"]]
        assert summary
        oid = repo.commit(revision, files)
        self._json({"commitUrl": f"{self.server.hub.url}/{name}/commit/{oid}", "commitOid": oid, "success": True})


_NAME = r"(?P<name>[^/]+/[^/]+?)"
_ROUTES = (
    ("GET", rf"/{_NAME}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", _Handler.resolve),
    ("GET", "/xet-token", _Handler.xet_token),
    ("GET", rf"/storage/{_NAME}/(?P<revision>[^/]+)/(?P<path>.+)", _Handler.storage),
    ("GET", rf"/api/models/{_NAME}/tree/(?P<revision>[^/]+)", _Handler.tree),
    ("GET", rf"/api/models/{_NAME}(/revision/(?P<revision>[^/]+))?", _Handler.info),
    ("POST", "/api/repos/create", _Handler.create),
    ("POST", "/api/validate-yaml", _Handler.validate),
    ("POST", rf"/api/models/{_NAME}/branch/(?P<revision>.+)", _Handler.branch),
    ("POST", rf"/api/models/{_NAME}/preupload/(?P<revision>.+)", _Handler.preupload),
    ("POST", rf"/api/models/{_NAME}/commit/(?P<revision>.+)", _Handler.commit),
    ("POST", rf"/{_NAME}\.git/info/lfs/objects/batch", _Handler.batch),
    ("PUT", "/upload/(?P<oid>[0-9a-f]{64})", _Handler.upload),
)


@pytest.fixture(name="hub")
def hub_fixture(tmp_path, monkeypatch):
    """A hub, and huggingface_hub in this process made to use it with an empty cache and no token.

    It reads its variables when it is first imported, so what it made of them is set here; ``test_hub.py`` also starts
    processes with the variables themselves. Nothing of it is replaced but the waiting between two tries.
    """
    from huggingface_hub import constants, file_download
    from huggingface_hub.utils import _http

    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    home = tmp_path / "hf_home"
    with HubServer() as server:
        values = {
            "ENDPOINT": server.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": server.url + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HOME": str(home),
            "HF_HUB_CACHE": str(home / "hub"),
            "HF_TOKEN_PATH": str(home / "token"),
            "AGENT_HARNESSES_PATH": str(home / "agents.json"),
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_XET": True,
        }
        for name, value in values.items():
            assert hasattr(constants, name)
            monkeypatch.setattr(constants, name, value)
        at_once = types.SimpleNamespace(sleep=lambda _seconds: None)
        monkeypatch.setattr(file_download, "time", at_once)
        monkeypatch.setattr(_http, "time", at_once)
        yield server
