"""The most memory that something needed at once."""

from __future__ import annotations

import ctypes
import gc
import re
from pathlib import Path
from types import TracebackType

import torch

_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
# Of `/proc/self/clear_refs`: start the high-water mark of resident memory anew.
_RESET_PEAK = "5"


class PeakMemory:
    """Measures the code inside of a `with`.

    `bytes` is then the most that was allocated on a CUDA device, or, of a process on a Linux CPU,
    the most that was resident, libraries and data included. `None` where neither can be measured.

    Args:
        device: where the trainings are.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.bytes: int | None = None

    def __enter__(self) -> PeakMemory:
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            self._is_reset = True
        else:
            self._is_reset = _reset()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self._is_reset:
            return
        if self._device.type == "cuda":
            self.bytes = torch.cuda.max_memory_allocated(self._device)
        else:
            self.bytes = _peak()


def _reset() -> bool:
    if not _CLEAR.exists():
        return False
    _give_back_what_is_free()
    try:
        _CLEAR.write_text(_RESET_PEAK)
    except OSError:  # a sandbox that forbids it
        return False
    return _peak() is not None


def _give_back_what_is_free() -> None:
    """So that what an earlier training needed does not count for this one."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:  # the C library of GNU
        trim(0)


def _peak() -> int | None:
    match = re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text())
    return None if match is None else int(match[1]) * 1024
