"""A pytest plugin: a Hub on loopback for this process, and no way to any other machine.

The client reads its endpoint, token and cache directory when it is imported, so this must come
first: `python -m pytest -p loopback_hub tests/hub/loopback`. `test_hub.py` runs that.
"""

from __future__ import annotations

import os
import re
import socket
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest
from hub_server import WRITER, HubServer

_SERVER = HubServer()
_HOME = tempfile.TemporaryDirectory()
os.environ.update(
    HF_ENDPOINT=_SERVER.url,
    HF_HOME=_HOME.name,
    HF_TOKEN=WRITER,
    HF_HUB_OFFLINE="0",
    HF_HUB_DISABLE_XET="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
)
for _name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
    os.environ.pop(_name, None)
    os.environ.pop(_name.lower(), None)
_SERVER.start()

_connect, _getaddrinfo = socket.socket.connect, socket.getaddrinfo
_LOOPBACK = ("127.0.0.1", "::1", b"127.0.0.1")


def _connect_to_loopback(self: socket.socket, address: Any) -> None:
    if self.family != socket.AF_UNIX and address[0] not in _LOOPBACK:
        raise AssertionError(f"a test must not leave loopback, but connects to {address}")
    _connect(self, address)


def _look_up_loopback(host: Any, *args: Any, **kwargs: Any) -> Any:
    if host not in _LOOPBACK:
        raise AssertionError(f"a test must not leave loopback, but looks up {host}")
    return _getaddrinfo(host, *args, **kwargs)


socket.socket.connect = _connect_to_loopback  # type: ignore[method-assign]
socket.getaddrinfo = _look_up_loopback


def pytest_configure(config: pytest.Config) -> None:
    """The client itself warns when it uploads a large file."""
    config.addinivalue_line(
        "filterwarnings", "ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning"
    )


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """An empty Hub; the client's waits between two tries are left out."""
    from huggingface_hub.utils import _http

    monkeypatch.setattr(_http.time, "sleep", lambda seconds: None)
    _SERVER.reset()
    yield _SERVER
    assert _SERVER.unknown == []


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A repository of this test's own, for the client's cache outlives a test."""
    return "me/" + re.sub(r"\W+", "-", request.node.name)[:80].strip("-")
