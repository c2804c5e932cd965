"""The journal file of a study, made to survive kills and full disks.

The format is that of Optuna's own journal, which reads it. Two things differ in how it is written:

- Optuna takes a lock whose holder was killed for one that is in use, for half a minute. This lock
  names its holder, so that others on the same machine know at once that it is dead.
- A write that was cut short, by a full disk or by a kill, leaves half a line. Optuna appends to it,
  and can't read the file any more. Here half a line is removed before anything is appended.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import RawIOBase
from typing import Any

from optuna.storages.journal import JournalFileBackend

from ..exceptions import StorageError
from .process_identity import ProcessIdentity

# What Optuna takes as well. Longer than a machine elsewhere needs to write some lines.
GRACE_SECONDS = 30.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.05
_BLOCK = 1 << 16


class HolderLock:
    """A lock between processes that work on one file: a symbolic link that names its holder.

    Making a symbolic link is atomic on network file systems too.

    Args:
        path: of the file.
        grace_seconds: after so long a lock of another machine is taken to be a dead process's.
    """

    def __init__(self, path: str, grace_seconds: float = GRACE_SECONDS) -> None:
        self._file = path
        self._link = path + ".lock"
        self._grace_seconds = grace_seconds
        self._mine = ""

    def acquire(self) -> None:
        """Wait until the lock is free, and take it; one thread at a time."""
        if self._mine and self._holder() == self._mine:
            # An interrupt came when it was just taken, or about to be given back.
            return
        # Different each time: one process may take the lock many times while another waits.
        self._mine = json.dumps([ProcessIdentity.of_this_process().to_dict(), uuid.uuid4().hex])
        pause, seen, since = _FIRST_PAUSE, "", time.monotonic()
        while True:
            try:
                os.symlink(self._mine, self._link)
                return
            except FileExistsError:
                holder = self._holder()
            if holder != seen:
                seen, since = holder, time.monotonic()
            if holder and (_is_dead(holder) or time.monotonic() - since > self._grace_seconds):
                self._break(holder)
            else:
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)

    def release(self) -> None:
        """Give the lock back, unless another machine has taken it from us meanwhile."""
        if self._holder() == self._mine:
            os.unlink(self._link)

    def _holder(self) -> str:
        try:
            return os.readlink(self._link)
        except OSError:
            return ""

    def _break(self, holder: str) -> None:
        with open(self._file, "ab") as file:
            # One at a time, on this machine. Where there is no such thing, two that break the lock
            # at once may break each other's.
            with suppress(ImportError, OSError):
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX)
            if self._holder() == holder:
                os.unlink(self._link)


def _is_dead(holder: str) -> bool:
    try:
        identity, _ = json.loads(holder)
        return ProcessIdentity(**identity).lives() is False
    except (ValueError, TypeError):  # a lock of Optuna's own
        return False


class JournalFile(JournalFileBackend):  # type: ignore[misc]  # optuna is not followed by mypy
    """A journal that holds whole lines at every moment at which somebody may append to it.

    Args:
        path: of the file; made if it does not exist.

    Raises:
        StorageError: it can't be read or written, now or later.
    """

    def __init__(self, path: str) -> None:
        with self._explained(path):
            super().__init__(path, HolderLock(path))

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """What was written after some number of lines; see Optuna."""
        with self._explained(self._file_path):
            yield from super().read_logs(log_number_from)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write lines, all of them or none; see Optuna."""
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        with self._explained(self._file_path):
            self._lock.acquire()
            try:
                self._append(lines.encode())
            finally:
                self._lock.release()

    def _append(self, data: bytes) -> None:
        # Unbuffered, so that nothing is written after the file has been cut. Unlike Optuna's, it
        # is not made anew if somebody has deleted it: the rest of the study would be missing.
        with open(self._file_path, "r+b", buffering=0) as file:
            end = _end_of_last_line(file)
            file.truncate(end)
            file.seek(end)
            try:
                written = 0
                while written < len(data):
                    written += file.write(data[written:])
                os.fsync(file.fileno())
            except BaseException:
                # Not what is whole: others may have read it.
                with suppress(OSError):
                    file.truncate(_end_of_last_line(file))
                raise

    @contextmanager
    def _explained(self, path: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StorageError(
                f"the journal {path!r} can't be written to or read: {error.strerror or error}. "
                f"Every finished individual is in it; make room or give back access, and go on "
                f"with the same command"
            ) from error


def _end_of_last_line(file: RawIOBase) -> int:
    """How many bytes of a file are whole lines."""
    position = file.seek(0, os.SEEK_END)
    while position:
        start = max(0, position - _BLOCK)
        file.seek(start)
        found = (file.read(position - start) or b"").rfind(b"\n")
        if found >= 0:
            return start + found + 1
        position = start
    return 0
