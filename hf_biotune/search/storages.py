"""Where the study of a search is kept: in memory, in a journal file, in a database."""

from __future__ import annotations

import importlib.util
import os
import sys
import time
import warnings
import weakref
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from optuna.exceptions import ExperimentalWarning, OptunaError, StorageInternalError
from optuna.storages import (
    BaseStorage,
    GrpcStorageProxy,
    InMemoryStorage,
    JournalStorage,
    RDBStorage,
)
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, ProgrammingError, SQLAlchemyError

from ..exceptions import BioTuneError, ConfigError, StorageError
from ..passwords import with_hidden_password
from .journal import JournalFile

JOURNAL_NAME = "study.journal"
STUDY_NAME = "hf_biotune"
# Seconds to wait for a server. `?connect_timeout=60` in a URL overrules it.
CONNECTION_TIMEOUT = 10.0
# Seconds to wait until another worker has written to an SQLite file.
_LOCK_TIMEOUT = 60.0
_GRPC_PORT = 13000
# Tables that several workers want to create at once.
_ATTEMPTS = 5
# Errors of storages by module, which is not imported for their sake.
_OF_SERVERS = {"grpc": "RpcError", "redis": "RedisError"}
FORMS = (
    "memory",
    "journal:///study.journal",
    "sqlite:///study.db",
    "postgresql://user@host/database",
    f"grpc://host:{_GRPC_PORT}",
)


def open_storage(
    storage: str | BaseStorage | None, output_dir: str | os.PathLike[str]
) -> BaseStorage:
    """Open what a user gave as the storage of a search.

    | `storage` | where the study is kept | workers |
    |---|---|---|
    | `None` | the journal file `study.journal` in `output_dir` | of one machine or one disk |
    | `"memory"` | nowhere: it ends with the process | one |
    | `"journal:///file"` | that journal file | of one machine or one disk |
    | `"sqlite:///file"` | an SQLite file | of one machine |
    | `"postgresql://user@host/database"` | PostgreSQL; extra `postgresql` | anywhere |
    | `"grpc://host:port"` | behind Optuna's `run_grpc_proxy_server`; extra `grpc` | anywhere |

    As for SQLAlchemy, three slashes come before a relative path and four before an absolute one.
    A password belongs in `~/.pgpass` or the environment variable `PGPASSWORD`; one that is in the
    URL is shown nowhere.

    Args:
        storage: one of these, or a storage of Optuna, which is returned as it is.
        output_dir: for the default.

    Returns:
        A storage that answers.

    Raises:
        ConfigError: an unknown form, a missing extra, a file that can't be written, a server that
            can't be reached in time (10 s, or `?connect_timeout=` in the URL), or a storage of
            another version of Optuna.
    """
    if isinstance(storage, BaseStorage):
        return storage
    if storage is None:
        return _open_journal(Path(output_dir) / JOURNAL_NAME, f"output_dir {str(output_dir)!r}")
    if storage == "memory":
        return InMemoryStorage()
    if not isinstance(storage, str):
        raise ConfigError(
            f"storage must be one of {', '.join(FORMS)}, or a storage of Optuna, got "
            f"{type(storage).__name__}; a journal file is given as 'journal:///path'"
        )
    scheme = storage.partition("://")[0].partition("+")[0]
    if "://" not in storage or scheme not in _OPENERS:
        raise ConfigError(
            f"storage must be one of {', '.join(FORMS)}, or a storage of Optuna, got "
            f"{with_hidden_password(storage)!r}"
        )
    return _OPENERS[scheme](storage)


def _open_journal_url(storage: str) -> JournalStorage:
    return _open_journal(_path(storage), f"storage {storage!r}")


def _open_journal(path: Path, named: str) -> JournalStorage:
    _touch(path, named)
    try:
        return JournalStorage(JournalFile(str(path)))
    except StorageError:
        raise
    except (ValueError, KeyError, AssertionError) as error:  # Optuna asserts that it knows a line
        raise ConfigError(
            f"{named}: {str(path)!r} is no journal that this version of Optuna can read; give "
            f"another one, or install the version that wrote it"
        ) from error


def _open_sqlite(storage: str) -> RDBStorage:
    path = _path(storage)
    if str(path) in (".", ":memory:"):
        raise ConfigError(f"storage {storage!r} is in memory; give storage='memory'")
    _touch(path, f"storage {storage!r}")
    return _open_tables(storage, _url(storage), {"connect_args": {"timeout": _LOCK_TIMEOUT}})


def _open_postgresql(storage: str) -> RDBStorage:
    url = _url(storage)
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    if url.drivername == "postgresql+psycopg":
        _require("psycopg", "postgresql", storage)
    timeout = _timeout(storage, url.query.get("connect_timeout"))
    return _open_tables(
        storage,
        url,
        {
            "connect_args": {"connect_timeout": max(2, round(timeout))},  # libpq's least
            # Connections that idle for as long as a training takes are cut by some networks.
            "pool_pre_ping": True,
        },
        f" within {timeout:g} s",
    )


class _Tables(RDBStorage):  # type: ignore[misc]  # optuna is not followed by mypy
    """Closes its connections when it is no longer used, or can't be."""

    def __init__(self, url: str, engine_kwargs: dict[str, Any]) -> None:
        try:
            super().__init__(url, engine_kwargs=engine_kwargs)
        except BaseException:
            if hasattr(self, "engine"):
                self.engine.dispose()
            raise
        weakref.finalize(self, self.engine.dispose)


def _open_tables(
    storage: str, url: URL, engine_kwargs: dict[str, Any], within: str = ""
) -> RDBStorage:
    """The storage in a database, its tables made if needed."""
    named = f"storage {with_hidden_password(storage)!r}"
    complete = url.render_as_string(hide_password=False)
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return _Tables(complete, engine_kwargs=engine_kwargs)
        except ImportError as error:
            raise ConfigError(f"{named} needs a driver that is not installed: {error}") from error
        except RuntimeError as error:
            raise ConfigError(f"{named} has tables of another version of Optuna: {error}") from None
        except SQLAlchemyError as error:
            if _is_race(error) and attempt < _ATTEMPTS:
                time.sleep(0.2 * attempt)
                continue
            reason = " ".join(str(getattr(error, "orig", None) or error).split())
            raise ConfigError(
                f"{named} can't be opened{within}: {reason}. Check that it is there, and its name, "
                f"user and password"
            ) from None
    raise AssertionError("unreachable")


def server_errors() -> tuple[type[Exception], ...]:
    """What is raised if the server of a storage does not answer, or answers that it can't."""
    servers = [
        getattr(sys.modules[module], name)
        for module, name in _OF_SERVERS.items()
        if module in sys.modules
    ]
    return (StorageInternalError, *servers)


def storage_errors() -> tuple[type[Exception], ...]:
    """Everything that a storage may raise."""
    return (BioTuneError, OptunaError, SQLAlchemyError, *server_errors())


def _is_race(error: SQLAlchemyError) -> bool:
    """Whether another worker has just made a table that we wanted to make."""
    return isinstance(error, (IntegrityError, ProgrammingError)) or "already exists" in str(error)


def _open_grpc(storage: str) -> GrpcStorageProxy:
    for module in ("grpc", "google.protobuf"):
        _require(module, "grpc", storage)
    address = urlsplit(storage)
    try:
        host, port = address.hostname, address.port or _GRPC_PORT
    except ValueError as error:
        raise ConfigError(f"storage {storage!r} is no address: {error}") from None
    seconds = _timeout(storage, parse_qs(address.query).get("connect_timeout", [None])[0])
    if not host:
        raise ConfigError(f"storage {storage!r} has no host; give grpc://host:{_GRPC_PORT}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        proxy = GrpcStorageProxy(host=f"[{host}]" if ":" in host else host, port=port)
    try:
        proxy.wait_server_ready(seconds)
    except ConnectionError:
        proxy.close()
        raise ConfigError(
            f"storage {storage!r} can't be reached within {seconds:g} s; start "
            f"optuna.storages.run_grpc_proxy_server there, or check host and port"
        ) from None
    return proxy


_OPENERS = {
    "journal": _open_journal_url,
    "sqlite": _open_sqlite,
    "postgresql": _open_postgresql,
    "grpc": _open_grpc,
}


def _path(storage: str) -> Path:
    """The file of a URL with three slashes and a path after them."""
    _, _, rest = storage.partition("://")
    return Path(rest.removeprefix("/").partition("?")[0])


def _url(storage: str) -> URL:
    try:
        return make_url(storage)
    except (ArgumentError, ValueError):
        raise ConfigError(
            f"storage {with_hidden_password(storage)!r} can't be read as a URL; write special "
            f"characters of a password as in %40 for @"
        ) from None


def _timeout(storage: str, given: Any) -> float:
    """Seconds to wait for a server."""
    if given is None:
        return CONNECTION_TIMEOUT
    try:
        return float(given)
    except (TypeError, ValueError):
        raise ConfigError(
            f"storage {with_hidden_password(storage)!r}: connect_timeout must be a number of "
            f"seconds, got {given!r}"
        ) from None


def _touch(path: Path, named: str) -> None:
    if path.is_dir():
        raise ConfigError(f"{named} names a directory, {str(path)!r}; add the name of a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError as error:
        raise ConfigError(
            f"{named} can't be written to: {error.strerror}; give another directory"
        ) from error


def _require(module: str, extra: str, storage: str) -> None:
    try:
        found = importlib.util.find_spec(module)
    except ModuleNotFoundError:  # of the parent package
        found = None
    if found is None:
        raise ConfigError(
            f"storage {with_hidden_password(storage)!r} needs the package {module!r}, which is not "
            f"installed; pip install 'hf-biotune[{extra}]'"
        )
