"""Trainings that fail: what is recorded, what is raised, and when a search gives up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import optuna
import torch
from optuna.trial import FrozenTrial

from ..exceptions import TrainingError
from .fitness_result import FAILED, FitnessResult, SeedRun
from .history import FAILURE_KEY, REUSED_KEY, finished_trials, fitness_of, has_own_training
from .metrics import Metric
from .out_of_memory import is_out_of_memory
from .storages import storage_errors

# The share of failures is not judged before so many individuals were trained.
FEWEST_TRIALS = 10


class _Elsewhere(Exception):  # noqa: N818 - never leaves this file
    """Carries an error out of a training that has nothing to do with it."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


@contextmanager
def not_of_the_training() -> Iterator[None]:
    """Around what is called from within a training but is no part of it, such as a listener."""
    try:
        yield
    except Exception as error:
        raise _Elsewhere(error) from error


class Failures:
    """Deals with what goes wrong in the trainings of one study.

    Args:
        study: of a search.
        metric: the score; a training that fails gets its worst one.
        largest_share: of individuals that may fail, in [0, 1].
    """

    def __init__(self, study: optuna.Study, metric: Metric, largest_share: float) -> None:
        self._study = study
        self._metric = metric
        self._largest_share = largest_share

    def recorded(self, train: Callable[[], FitnessResult], seed: int) -> FitnessResult:
        """What a training gave: the worst score, if it failed for a reason of its own.

        Args:
            train: trains an individual.
            seed: that it begins with.

        Raises:
            Exception: the reason lies elsewhere: the storage, a mistake in the settings, a device
                that has to be reset. Or nothing was ever trained in this study, so that the same
                will happen to each individual; want of memory will not.
        """
        started = time.perf_counter()
        try:
            return train()
        except _Elsewhere as carrier:
            raise carrier.error from None
        except Exception as error:
            is_ours = not isinstance(error, (*storage_errors(), torch.AcceleratorError))
            if not is_out_of_memory(error) and not (is_ours and self._has_trained()):
                raise
            reason = _told(error)
        seconds = time.perf_counter() - started
        run = SeedRun(seed, (), self._metric.worst, seconds, FAILED, reason=reason)
        return FitnessResult((run,), trained_parameters=0, trainings=0.0)

    def check(self) -> None:
        """Stop a search in which too much fails.

        Raises:
            TrainingError: more than the largest share of individuals failed.
        """
        trained = [t for t in finished_trials(self._study) if REUSED_KEY not in t.user_attrs]
        failed = [trial for trial in trained if has_failed(trial)]
        if len(trained) < FEWEST_TRIALS or len(failed) <= self._largest_share * len(trained):
            return
        raise TrainingError(
            f"{len(failed)} of {len(trained)} individuals failed, more than max_failed_share="
            f"{self._largest_share:g} allows; the last one, individual {failed[-1].number}: "
            f"{failed[-1].user_attrs[FAILURE_KEY]}. Remove the cause (a smaller learning rate or "
            f"batch often does), or allow more with max_failed_share, and go on with the same "
            f"command"
        )

    def _has_trained(self) -> bool:
        return any(has_own_training(trial) for trial in finished_trials(self._study))


def has_failed(trial: FrozenTrial) -> bool:
    """Whether every training of a finished trial failed or diverged."""
    return fitness_of(trial).has_failed


def failure_of(fitness: FitnessResult) -> str:
    """Why trainings failed or diverged, the first of them; `""` if none did."""
    reasons: Sequence[str] = [run.reason for run in fitness.runs if run.reason]
    return next(iter(reasons), "")


def _told(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
