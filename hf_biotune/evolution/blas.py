"""Linear algebra that gives the same bits whatever the number of threads."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

# The number of threads belongs to the process: two threads that change and restore it at the same
# time would leave it changed.
_LOCK = threading.RLock()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Run NumPy's and SciPy's linear algebra on one thread while the block lasts.

    Threads share a sum in an order that depends on their number, and the last bit of a likelihood
    can decide which genotype is trained next: a search continued with another number of threads
    would differ. Also, matrices of a few hundred rows are no work for several threads: measured on
    two busy cores, planning took 20 times as long with two threads as with one.
    """
    with _LOCK, _controller().limit(limits=1, user_api="blas"):
        yield


@functools.cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()
