"""Which process of which machine, and whether it still lives."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import psutil

# The time at which a process started is computed from the clock, which may be set meanwhile.
_CLOCK_TOLERANCE = 2.0


@dataclass(frozen=True)
class ProcessIdentity:
    """One process among all that there are: process ids are used again.

    Args:
        place: where process ids mean the same: a machine since it was started, and within it a
            container.
        pid: the process id.
        started: when, in seconds since 1970.
    """

    place: str
    pid: int
    started: float

    @classmethod
    def of_this_process(cls) -> ProcessIdentity:
        """Of the process that calls it."""
        return cls(_place(), os.getpid(), round(psutil.Process().create_time(), 2))

    @property
    def host(self) -> str:
        """The name of the machine."""
        return self.place.split()[0]

    def lives(self) -> bool | None:
        """Whether the process exists; `None` if that can't be told from here."""
        if self.place != _place():
            return None
        try:
            process = psutil.Process(self.pid)
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
            return bool(abs(process.create_time() - self.started) < _CLOCK_TOLERANCE)
        except psutil.NoSuchProcess:
            return False

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


@cache
def _place() -> str:
    parts = [socket.gethostname()]
    with suppress(OSError):  # where there is no such thing, a name must do
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)
