"""Several processes of one machine on one search: one a GPU, or the CPU's threads shared out.

The process that starts the others works too, and alone chooses the winner at the end. Each of the
others does what the same command does on another terminal, so nothing is lost if one of them dies.
"""

from __future__ import annotations

import _thread
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import ForkingPickler
from types import TracebackType
from typing import Any

import optuna
import psutil
import torch
from optuna.storages import BaseStorage, InMemoryStorage
from torch import nn
from transformers import TrainingArguments
from transformers.utils import logging as transformers_logging

from ..blocks import BlockSpec
from ..exceptions import BioTuneError, ConfigError
from .data import EncodedSplit
from .engine import SearchEngine
from .listener import SearchListener
from .mapped import is_mapped
from .prefix_store import SHARE_OF_MEMORY
from .search_config import SearchConfig
from .team import ALONE, Team

logger = logging.getLogger(__name__)

# What a worker may take to give up what it is training.
STOP_SECONDS = 20.0
# A process that begins anew: one that is forked can't use a GPU.
CONTEXT = multiprocessing.get_context("spawn")
_INTERRUPTED = 130


@dataclass(frozen=True)
class Work:
    """What a worker needs to take part in a search; it is sent to another process.

    Args:
        model_init: of the search, as the following.
        train: of the search.
        validation: of the search.
        args: of each training.
        search: its settings.
        blocks: how the model is divided.
        storage: that holds the study.
        study_name: in that storage.
    """

    model_init: Callable[[], nn.Module]
    train: EncodedSplit
    validation: EncodedSplit
    args: TrainingArguments
    search: SearchConfig
    blocks: BlockSpec
    storage: BaseStorage
    study_name: str

    def engine(self, listener: SearchListener, team: Team = ALONE) -> SearchEngine:
        """One process's part of the search."""
        return SearchEngine(
            self.model_init,
            self.train,
            self.validation,
            self.args,
            self.search,
            self.blocks,
            listener,
            team,
        )

    def check_is_shared(self, workers: int) -> None:
        """Check that other processes can have their part of it.

        Raises:
            ConfigError: the storage is in memory, or something can't be sent to other processes.
        """
        if isinstance(self.storage, InMemoryStorage):
            raise ConfigError(
                f"workers={workers} need a storage that several processes can open, but this one "
                f"is in memory; give output_dir, for a journal file in it, or the URL of a database"
            )
        for name in ("model_init", "args", "search", "storage"):
            try:
                ForkingPickler.dumps(getattr(self, name))
            except Exception as error:  # whatever the object's own methods raise
                raise ConfigError(
                    f"{name} can't be sent to the other {workers - 1} worker(s): {error}. "
                    f"Define it at the top level of a module, not in a function, in a class or as "
                    f"a lambda; or leave workers out and start the same program several times"
                ) from error

    def check_is_in_memory(self, workers: int) -> None:
        """Check that processes of this machine can be sent the samples.

        Raises:
            ConfigError: they are in a file.
        """
        for split in (self.train, self.validation):
            if any(is_mapped(values) for values in split.inputs.values()):
                raise ConfigError(
                    f"workers={workers} can't share images that take more than half of the free "
                    f"memory, and so are in a temporary file; use one worker, or fewer or smaller "
                    f"images"
                )


def with_shared_memory(search: SearchConfig, workers: int) -> SearchConfig:
    """A search whose workers together keep as many activations in memory as one would."""
    if workers == 1 or not search.prefix_cache or search.prefix_cache_memory is not None:
        return search
    memory = psutil.virtual_memory().available * SHARE_OF_MEMORY / workers
    return replace(search, prefix_cache_memory=memory / 2**30)


def check_workers(workers: Any) -> None:
    """Check a number of workers.

    Raises:
        ConfigError: it is no integer of at least 1.
    """
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
        raise ConfigError(f"workers must be an integer of at least 1, got {workers!r}")


@dataclass
class _Worker:
    """A process, the line to it, and the last that it said."""

    process: BaseProcess
    line: Connection
    said: tuple[str, str] = field(default=("", ""))

    def listen(self) -> None:
        """Hear what it has said."""
        try:
            while self.line.poll():
                self.said = self.line.recv()
        except (EOFError, OSError):
            pass


class Workers:
    """The other processes of a search, for as long as the context lasts.

    Args:
        work: what each of them does.
        number: of all workers, with this process; at least 1.

    Raises:
        ConfigError: see [`~Work.check_is_shared`].
    """

    def __init__(self, work: Work, number: int) -> None:
        self._work = work
        self._number = number
        self._workers: list[_Worker] = []
        self._threads = torch.get_num_threads()
        if number > 1:
            work.check_is_shared(number)
            work.check_is_in_memory(number)

    def __enter__(self) -> Workers:
        if self._number > 1:
            share = max(1, self._threads // self._number)
            torch.set_num_threads(share)
            try:
                for index in range(1, self._number):
                    self._workers.append(self._start(index, share))
            except BaseException:
                self._stop()
                raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        torch.set_num_threads(self._threads)
        for worker in self._workers:
            # Whoever has finished has gone; the others hear that the line is dead, and stop.
            worker.line.close()
        for worker in self._workers:
            worker.process.join(STOP_SECONDS)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()

    def check(self) -> None:
        """See whether all workers are well; one that dies is missed, but the search goes on.

        Raises:
            ConfigError: one could not even begin.
        """
        for worker in self._workers:
            worker.listen()
            code = worker.process.exitcode
            if not code or worker.said[0] == "told":
                continue
            state, reason = worker.said
            if not state:
                raise ConfigError(
                    f"{worker.process.name} ended before it had begun, with exit status {code}; "
                    f"what it printed tells why. A program that searches with several workers must "
                    f"do so under `if __name__ == '__main__':`, and define model_init in a file"
                )
            logger.warning(
                "%s ended with exit status %d%s; the search goes on without it",
                worker.process.name,
                code,
                f": {reason}" if reason else "",
            )
            worker.said = ("told", reason)

    def _start(self, index: int, threads: int) -> _Worker:
        ours, theirs = multiprocessing.Pipe()
        process = CONTEXT.Process(
            target=_take_part,
            args=(self._work, theirs, threads, verbosity_here()),
            name=f"worker {index}",
            daemon=True,
        )
        with ExitStack() as stack:
            stack.enter_context(_environment(_device(self._work.args, index), threads))
            stack.enter_context(interrupts_ignored())
            process.start()
        theirs.close()
        return _Worker(process, ours)


def _take_part(work: Work, line: Connection, threads: int, verbosity: tuple[int, int]) -> None:
    """What a worker's process runs."""
    try:
        # Interrupts of the terminal are for the first process, whose end ends all.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        threading.Thread(target=_stop_with, args=(line,), daemon=True).start()
        torch.set_num_threads(threads)
        set_verbosity(verbosity)
        engine = work.engine(SearchListener())
        with engine.open(work.storage, work.study_name):
            line.send(("begun", ""))
            engine.work()
    except KeyboardInterrupt:
        raise SystemExit(_INTERRUPTED) from None
    except BioTuneError as error:
        line.send(("failed", str(error)))
        raise SystemExit(1) from None


def _stop_with(line: Connection) -> None:
    """Interrupt this process when the first one has closed its end of the line, or is dead."""
    try:
        line.poll(None)
    except OSError:  # this process is ending itself
        return
    _thread.interrupt_main(signal.SIGTERM)


def verbosity_here() -> tuple[int, int]:
    """How much libraries say in this process, for [`set_verbosity`] in another."""
    return transformers_logging.get_verbosity(), optuna.logging.get_verbosity()


def set_verbosity(verbosity: tuple[int, int]) -> None:
    """Have libraries say as much as in the process that [`verbosity_here`] was called in."""
    transformers_logging.set_verbosity(verbosity[0])
    optuna.logging.set_verbosity(verbosity[1])


def _device(args: TrainingArguments, index: int) -> str | None:
    """The GPU of a worker, as `CUDA_VISIBLE_DEVICES` has it; `None` without GPUs."""
    if args.device.type != "cuda":
        return None
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names: Sequence[str] = (
        visible.split(",") if visible else [str(n) for n in range(torch.cuda.device_count())]
    )
    return names[index % len(names)].strip()


@contextmanager
def _environment(device: str | None, threads: int) -> Iterator[None]:
    """What a process has to find when it starts: libraries look at it before we can speak."""
    wanted = {"OMP_NUM_THREADS": str(threads)}
    if device is not None:
        wanted["CUDA_VISIBLE_DEVICES"] = device
    before: Mapping[str, str | None] = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def interrupts_ignored() -> Iterator[None]:
    """A process that is started here does not hear Ctrl-C, not even while it imports torch."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
