"""The workers of a search as tasks of Ray: on this machine, or on a cluster.

Each task runs one worker of the same study, over the storage that all share, as
[`Workers`] do on one machine. Ray Tune's `OptunaSearch` takes our sampler as well, but was not
chosen: it plans in one process and tells the study final scores only, so that halving, further
seeds for leaders and reused phenotypes would need a second engine; what it stops keeps running in
the study; and its own state is a pickle beside the study, which two can disagree. Here Ray does
what it is good at, finding a place with a free device for each worker, and all state stays in the
study: a search that was begun with Ray goes on without it, and the other way round.

This process plans and trains nothing while the tasks run, since Ray would give its GPU to one of
them; it watches, and chooses the winner at the end.
"""

from __future__ import annotations

import importlib.util
import logging
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch

from ..exceptions import ConfigError
from .listener import SearchListener
from .workers import STOP_SECONDS, Work, set_verbosity, verbosity_here

logger = logging.getLogger(__name__)

# Between two looks at what the tasks do.
_PAUSE_SECONDS = 0.2


PROCESSES, RAY = "processes", "ray"
BACKENDS = (PROCESSES, RAY)


def check_backend(backend: str) -> None:
    """Check who shall run the workers.

    Raises:
        ConfigError: an unknown name, or Ray is not installed.
    """
    if backend not in BACKENDS:
        raise ConfigError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    if backend == RAY and importlib.util.find_spec("ray") is None:
        raise ConfigError(
            "backend='ray' needs the package 'ray', which is not installed; "
            "pip install 'hf-biotune[ray]'"
        )


class RayWorkers:
    """All workers of a search, as tasks of Ray, for as long as the context lasts.

    A cluster that this program is connected to is used (`ray.init`, or the environment variable
    `RAY_ADDRESS`); otherwise Ray is started on this machine, and stopped at the end. A task gets a
    GPU if `args.device` is one, else its share of this process's threads as CPUs.

    Args:
        work: what each of them does.
        number: of workers, at least 1.

    Raises:
        ConfigError: the storage is in memory, or the cluster has less than the workers need.
    """

    def __init__(self, work: Work, number: int) -> None:
        work.check_is_shared(number)
        self._work = work
        self._number = number
        self._tasks: list[Any] = []
        self._errors: list[str] = []
        self._is_ours = False

    def __enter__(self) -> RayWorkers:
        import ray

        if not ray.is_initialized():
            self._is_ours = True
            ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        try:
            resources = self._resources()
            has: dict[str, float] = ray.cluster_resources()
            _check_room(resources, self._number, has)
            options: dict[str, Any] = {"num_cpus": resources.cpus, "num_gpus": resources.gpus}
            task = ray.remote(max_retries=0, **options)(_take_part)
            work = ray.put(self._work)
            verbosity = verbosity_here()
            self._tasks = [
                task.remote(work, resources.cpus, verbosity) for _ in range(self._number)
            ]
        except BaseException:
            self._stop_ours()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        import ray

        for task in self._tasks:
            ray.cancel(task, force=False)  # a KeyboardInterrupt there: the trial is given up
        if self._tasks:
            _, left = ray.wait(self._tasks, num_returns=len(self._tasks), timeout=STOP_SECONDS)
            for task in left:
                ray.cancel(task, force=True)
        self._stop_ours()

    def are_working(self) -> bool:
        """Wait a moment; whether any task still runs.

        Raises:
            ConfigError: every task has failed; the message has the reason of the first.
        """
        import ray

        ended, self._tasks = ray.wait(
            self._tasks, num_returns=len(self._tasks), timeout=_PAUSE_SECONDS
        )
        failed = []
        for task in ended:
            try:
                ray.get(task)
            except ray.exceptions.RayError as error:
                cause = getattr(error, "cause", None) or error
                failed.append(f"{type(cause).__name__}: {cause}")
        self._errors += failed
        if len(self._errors) == self._number:
            raise ConfigError(
                f"all {self._number} Ray worker(s) failed; the first one: {self._errors[0]}"
            )
        for reason in failed:
            logger.warning("a Ray worker failed: %s; the search goes on without it", reason)
        return bool(self._tasks)

    def _resources(self) -> _Resources:
        on_gpu = self._work.args.device.type == "cuda"
        return _Resources(max(1, torch.get_num_threads() // self._number), int(on_gpu))

    def _stop_ours(self) -> None:
        import ray

        if self._is_ours:
            ray.shutdown()


@dataclass(frozen=True)
class _Resources:
    """What one task takes."""

    cpus: int
    gpus: int


def _check_room(resources: _Resources, number: int, cluster: dict[str, float]) -> None:
    """Tasks that find no place would wait, and the search would never end."""
    for name, each in (("CPU", resources.cpus), ("GPU", resources.gpus)):
        if number * each > cluster.get(name, 0):
            raise ConfigError(
                f"workers={number} need {number * each} {name}(s) of the Ray cluster, which has "
                f"{cluster.get(name, 0):g}; give fewer workers"
            )


def _take_part(work: Work, threads: int, verbosity: tuple[int, int]) -> None:
    """What a task runs."""
    torch.set_num_threads(threads)
    set_verbosity(verbosity)
    engine = work.engine(SearchListener())
    with engine.open(work.storage, work.study_name):
        engine.work()
