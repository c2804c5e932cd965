"""Servers that tests start for real: PostgreSQL, and Optuna's gRPC proxy."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from optuna.storages import BaseStorage

PASSWORD = "correct horse @ battery"
ESCAPED_PASSWORD = "correct%20horse%20%40%20battery"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def postgresql_binaries() -> Path | None:
    """The directory of `initdb` and `pg_ctl`, which distributions keep out of the path."""
    found = shutil.which("initdb")
    candidates = [Path(found).resolve()] if found else []
    candidates += sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True)
    return next((c.parent for c in candidates if (c.parent / "pg_ctl").exists()), None)


@contextmanager
def postgresql_server() -> Iterator[str]:
    """The URL of a new, empty PostgreSQL on this machine, without a database name."""
    binaries = postgresql_binaries()
    if binaries is None:
        pytest.skip("PostgreSQL's initdb is not installed; on Debian: apt-get install postgresql")
    user = None
    if os.getuid() == 0:  # as whom it refuses to run
        user = next((u.pw_name for u in pwd.getpwall() if u.pw_name == "postgres"), "nobody")
    # Not below pytest's directory, which is for the user alone who runs the tests.
    with tempfile.TemporaryDirectory(prefix="postgresql") as place:
        root, data = Path(place), Path(place) / "data"
        (root / "password").write_text(PASSWORD)
        if user is not None:
            owner = pwd.getpwnam(user)
            for path in (root, root / "password"):
                os.chown(path, owner.pw_uid, owner.pw_gid)

        def run(*command: object) -> None:
            group = None if user is None else pwd.getpwnam(user).pw_gid
            subprocess.run(
                [str(binaries / str(command[0])), *map(str, command[1:])],
                check=True,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd=root,
                user=user,
                group=group,
                extra_groups=None if user is None else [],
            )

        port = free_port()
        options = f"-p {port} -k {root} -c listen_addresses=127.0.0.1 -c fsync=off"
        trust = ("--auth=scram-sha-256", f"--pwfile={root / 'password'}")
        run("initdb", "-D", data, "-U", "searcher", "--no-sync", "--encoding=UTF8", *trust)
        run("pg_ctl", "-D", data, "-l", root / "log", "-o", options, "-w", "start")
        try:
            yield f"postgresql://searcher:{ESCAPED_PASSWORD}@127.0.0.1:{port}"
        finally:
            run("pg_ctl", "-D", data, "-m", "immediate", "stop")


@contextmanager
def grpc_server(storage: BaseStorage) -> Iterator[str]:
    """The URL of a proxy before a storage, on this machine."""
    pytest.importorskip("grpc")
    from optuna.storages._grpc.server import make_server

    port = free_port()
    with ThreadPoolExecutor(max_workers=4) as pool:
        server = make_server(storage, "127.0.0.1", port, pool)
        server.start()
        try:
            yield f"grpc://127.0.0.1:{port}"
        finally:
            server.stop(None).wait()
