"""A Hugging Face Hub on loopback, in memory, for tests: just what pushing and pulling ask for.

It keeps commits, tells who may read and write what, and can be made to fail on demand.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

WRITER, READER = "hf_writer", "hf_reader"
REPO_NAME = re.compile(r"(?!-)[\w.-]{1,96}(/[\w.-]{1,96})?")
FRONT_MATTER = re.compile(r"\s*---\r?\n(.*?)\r?\n---\s*(\n|$)", re.DOTALL)


class HubError(Exception):
    """An answer by whose headers the client picks its exception."""

    def __init__(self, status: int, code: str = "", message: str = "", commit: str = "") -> None:
        super().__init__(message)
        self.status = status
        headers = {"X-Error-Code": code, "X-Error-Message": message, "X-Repo-Commit": commit}
        self.headers = {name: value for name, value in headers.items() if value}


@dataclass
class Fault:
    """Requests that fail: `times` of those whose method and path match."""

    method: str
    path: str
    status: int
    times: int


@dataclass
class Repository:
    """Branches of commits, each `{path: sha256 of the content}`."""

    private: bool = False
    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, str]] = field(default_factory=dict)

    def commit(self, branch: str, files: dict[str, str]) -> str:
        content = json.dumps([len(self.commits), branch, sorted(files.items())])
        sha = hashlib.sha1(content.encode()).hexdigest()
        self.commits[sha], self.branches[branch] = files, sha
        return sha

    def resolve(self, revision: str) -> str:
        sha = self.branches.get(revision, revision)
        if sha not in self.commits:
            raise HubError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return sha


class HubServer:
    """The server and what it holds; a context manager."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.blobs: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self.unknown: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.hub = self  # type: ignore[attr-defined]
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def start(self) -> None:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def reset(self) -> None:
        for held in (self.repositories, self.blobs, self.faults, self.requests, self.unknown):
            held.clear()

    def fail(self, method: str, path: str, status: int, times: int = 1_000) -> None:
        """Let the next requests fail whose path contains the regular expression `path`."""
        self.faults.append(Fault(method, path, status, times))

    def files(self, name: str, branch: str = "main") -> dict[str, bytes]:
        repository = self.repositories[name]
        tree = repository.commits[repository.branches[branch]]
        return {path: self.blobs[sha] for path, sha in tree.items()}

    def keep(self, content: bytes) -> str:
        sha = hashlib.sha256(content).hexdigest()
        self.blobs[sha] = content
        return sha


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Any

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        hub: HubServer = self.server.hub
        path = unquote(urlsplit(self.path).path)
        # Always read, or keep-alive would take it for the next request.
        body = self._body()
        hub.requests.append(f"{self.command} {path}")
        try:
            self._check_faults(hub, path)
            for method, pattern, answer in ROUTES:
                match = re.fullmatch(pattern, path)
                if match and self.command in method.split():
                    return answer(self, hub, body, **match.groupdict())
            hub.unknown.append(f"{self.command} {path}")
            raise HubError(404, message="no such route")
        except HubError as error:
            return self._reply({"error": str(error)}, error.status, error.headers)

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _reply(
        self, content: Any = b"", status: int = 200, headers: dict[str, str] | None = None
    ) -> None:
        headers = dict(headers or {})
        if not isinstance(content, bytes):
            content = json.dumps(content).encode()
            headers.setdefault("Content-Type", "application/json")
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _check_faults(self, hub: HubServer, path: str) -> None:
        for fault in hub.faults:
            if fault.times and fault.method == self.command and re.search(fault.path, path):
                fault.times -= 1
                raise HubError(fault.status, message="made to fail")

    # -- who may do what ----------------------------------------------------------------------

    @property
    def _token(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def _check_token(self) -> None:
        if self._token not in ("", WRITER, READER):
            raise HubError(401, message="Invalid credentials in Authorization header")

    def _check_writer(self) -> None:
        self._check_token()
        if self._token == READER:
            raise HubError(403, message="Forbidden: this token has no write access")
        if self._token != WRITER:
            raise HubError(401, message="Invalid username or password.")

    def _repository(self, hub: HubServer, name: str) -> Repository:
        self._check_token()
        repository = hub.repositories.get(name)
        if repository is None or (repository.private and not self._token):
            raise HubError(404 if self._token else 401, "RepoNotFound", "Repository not found")
        return repository

    # -- answers -------------------------------------------------------------------------------

    def create(self, hub: HubServer, body: bytes) -> None:
        self._check_writer()
        asked = json.loads(body)
        name = f"{asked.get('organization') or 'me'}/{asked['name']}"
        is_new = name not in hub.repositories
        if is_new:
            private = asked.get("private") or asked.get("visibility") == "private"
            hub.repositories[name] = Repository(private=bool(private))
            hub.repositories[name].commit("main", {})
        self._reply({"url": f"{hub.url}/{name}", "name": name}, 200 if is_new else 409)

    def info(self, hub: HubServer, body: bytes, name: str, revision: str | None = None) -> None:
        repository = self._repository(hub, name)
        sha = repository.resolve(revision or "main")
        files = [{"rfilename": path} for path in repository.commits[sha]]
        self._reply({"id": name, "sha": sha, "siblings": files, "tags": [], "private": False})

    def preupload(self, hub: HubServer, body: bytes, name: str, revision: str) -> None:
        self._check_writer()
        self._repository(hub, name).resolve(revision)
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                "shouldIgnore": False,
            }
            for file in json.loads(body)["files"]
        ]
        self._reply({"files": files})

    def lfs_batch(self, hub: HubServer, body: bytes, name: str) -> None:
        self._check_writer()
        objects = [
            {**item, "actions": {"upload": {"href": f"{hub.url}/lfs/{item['oid']}"}}}
            for item in json.loads(body)["objects"]
        ]
        self._reply({"transfer": "basic", "objects": objects})

    def lfs_put(self, hub: HubServer, body: bytes, sha: str) -> None:
        if hub.keep(body) != sha:
            raise HubError(400, message="the content does not have the announced sha256")
        self._reply()

    def commit(self, hub: HubServer, body: bytes, name: str, revision: str) -> None:
        self._check_writer()
        repository = self._repository(hub, name)
        files = dict(repository.commits[repository.resolve(revision)])
        for line in body.splitlines()[1:]:
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = hub.keep(base64.b64decode(value["content"]))
            elif entry["key"] == "lfsFile" and value["oid"] in hub.blobs:
                files[value["path"]] = value["oid"]
            else:
                raise HubError(400, message=f"can't do {entry}")
        sha = repository.commit(revision, files)
        self._reply({"commitOid": sha, "commitUrl": f"{hub.url}/{name}/commit/{sha}"})

    def download(self, hub: HubServer, body: bytes, name: str, revision: str, path: str) -> None:
        repository = self._repository(hub, name)
        commit = repository.resolve(revision)
        if path not in repository.commits[commit]:
            raise HubError(404, "EntryNotFound", "Entry not found", commit)
        sha = repository.commits[commit][path]
        self._reply(hub.blobs[sha], headers={"ETag": f'"{sha}"', "X-Repo-Commit": commit})

    def validate_yaml(self, hub: HubServer, body: bytes) -> None:
        errors = card_errors(json.loads(body)["content"])
        self._reply({"errors": errors}, 400 if errors else 200)


MODEL = r"/api/models/(?P<name>[^/]+/[^/]+)"
ROUTES: list[tuple[str, str, Callable[..., None]]] = [
    ("POST", r"/api/repos/create", _Handler.create),
    ("POST", r"/api/validate-yaml", _Handler.validate_yaml),
    ("POST", MODEL + r"/preupload/(?P<revision>.+)", _Handler.preupload),
    ("POST", MODEL + r"/commit/(?P<revision>.+)", _Handler.commit),
    ("GET", MODEL + r"(/revision/(?P<revision>.+))?", _Handler.info),
    ("POST", r"/(?P<name>[^/]+/[^/]+)\.git/info/lfs/objects/batch", _Handler.lfs_batch),
    ("PUT", r"/lfs/(?P<sha>[0-9a-f]{64})", _Handler.lfs_put),
    (
        "GET HEAD",
        r"/(?P<name>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)",
        _Handler.download,
    ),
]


def card_errors(content: str) -> list[str]:
    """What the Hub finds wrong in a card: the part of its rules that our fields come under."""
    match = FRONT_MATTER.match(content)
    if match is None:
        return ["no metadata"]
    try:
        data = yaml.safe_load(match[1])
    except yaml.YAMLError as error:
        return [f"invalid YAML: {error}"]
    if not isinstance(data, dict):
        return ["metadata must be an object"]
    errors = []
    for key in ("base_model", "datasets"):
        listed = data.get(key, [])
        for name in listed if isinstance(listed, list) else [listed]:
            if not isinstance(name, str) or not REPO_NAME.fullmatch(name):
                errors.append(f'"{key}" must be the name of a repository, got {name!r}')
    for key in ("library_name", "license", "pipeline_tag"):
        if key in data and not re.fullmatch(r"[a-z0-9][\w.-]*", str(data[key])):
            errors.append(f'"{key}" must be a lower-case word, got {data[key]!r}')
    if not all(isinstance(tag, str) for tag in data.get("tags", [])):
        errors.append('"tags" must be text')
    return errors + _index_errors(data.get("model-index", []))


def _index_errors(index: Any) -> list[str]:
    errors = []
    for model in index:
        if not model.get("name"):
            errors.append('"model-index[0].name" is required')
        for result in model["results"]:
            wanted = {"task": ("type",), "dataset": ("type", "name")}
            for part, keys in wanted.items():
                for key in keys:
                    if not isinstance(result.get(part, {}).get(key), str):
                        errors.append(f'"model-index[0].results[0].{part}.{key}" is required')
            for metric in result["metrics"]:
                if not isinstance(metric.get("type"), str) or "value" not in metric:
                    errors.append('"model-index[0].results[0].metrics[0]" needs type and value')
    return errors
