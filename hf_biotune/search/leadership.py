"""The search of a team: one process plans, trains, keeps and tells; the others train with it.

The leader says what is to be trained next; each of the others trains the same at the same time and
forgets the result. At the end, or when the search fails, all of them hear it.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from ..config import BioTuneConfig
from ..exceptions import ConfigError, TrainingError
from .execution import Execution
from .fitness import EpochHook, FitnessEvaluator, RunKeeper
from .fitness_result import FitnessResult
from .identity import differences_of
from .metrics import Metric
from .team import Team
from .training import Training

if TYPE_CHECKING:
    from .result import SearchResult


@dataclass(frozen=True)
class _Order:
    """What all processes are to train next; see [`FitnessEvaluator.evaluate`]."""

    config: BioTuneConfig | Training
    seeds: Sequence[int]
    train_indices: np.ndarray | None
    validation_indices: np.ndarray | None
    execution: Execution


@dataclass(frozen=True)
class _Failure:
    """Why the search is over without a result."""

    reason: str


class LeadingEvaluator(FitnessEvaluator):
    """Has what it evaluates evaluated by its whole team; only the leader calls it."""

    def evaluate(
        self,
        config: BioTuneConfig | Training,
        seeds: Sequence[int],
        train_indices: np.ndarray | None = None,
        validation_indices: np.ndarray | None = None,
        after_epoch: EpochHook | None = None,
        keeper: RunKeeper | None = None,
    ) -> FitnessResult:
        """Train and score one phenotype; see [`FitnessEvaluator.evaluate`]."""
        data = train_indices, validation_indices
        self.team.hear(_Order(config, seeds, *data, self.execution))
        return super().evaluate(config, seeds, *data, after_epoch, keeper)


@contextmanager
def leading(team: Team) -> Iterator[None]:
    """Around what the leader does: if it fails, the others hear of it."""
    try:
        yield
    except Exception as error:
        team.hear(_Failure(f"{type(error).__name__}: {error}"))
        raise


def told_to(team: Team, result: SearchResult) -> SearchResult:
    """The result of a search, which the others of the team are waiting for."""
    if team.size > 1:
        # Every process has a function of its own, which need not be one that can be sent.
        team.hear(replace(result, model_init=_nobody))
    return result


def follow(evaluator: FitnessEvaluator, model_init: Callable[[], nn.Module]) -> SearchResult:
    """Train what the leader wants trained, until it tells the result.

    Args:
        evaluator: of this process, the leader's own at heart.
        model_init: of this process.

    Raises:
        TrainingError: the search failed.
    """
    while True:
        said: Any = evaluator.team.hear()
        if isinstance(said, _Failure):
            raise TrainingError(
                f"the search failed in the process that leads this one: {said.reason}"
            )
        if not isinstance(said, _Order):
            result: SearchResult = replace(said, model_init=model_init)
            return result
        evaluator.execution = said.execution
        said.execution.lay_out(evaluator.pool.model)
        # What fails in one process fails in all, and the leader decides what becomes of it.
        with suppress(Exception):
            evaluator.evaluate(said.config, said.seeds, said.train_indices, said.validation_indices)


def check_same_everywhere(team: Team, identity: Mapping[str, Any]) -> None:
    """Check that the processes of a team are about to do the same.

    Raises:
        ConfigError: model, data or settings differ; the message names each difference.
    """
    for number, other in enumerate(team.all_of(dict(identity))):
        if differences := differences_of(other, identity):
            raise ConfigError(
                f"the processes of one training must be given the same, but process {number} "
                f"differs from process {team.number} in {'; '.join(differences)}"
            )


def check_can_be_sent(team: Team, metric: Metric) -> None:
    """Check, before anything is trained, that the result can be told to the others of a team.

    Raises:
        ConfigError: the metric is an object that can't be pickled.
    """
    if team.size == 1:
        return
    try:
        pickle.dumps(metric)
    except Exception as error:
        raise ConfigError(
            f"metric {metric.name!r} can't be sent to the other processes of this training "
            f"({type(error).__name__}: {error}); make it an object of a class that stands in a "
            f"module, and holds no function of its own"
        ) from error


def _nobody() -> nn.Module:
    raise ConfigError("model_init of this result belongs to another process")
