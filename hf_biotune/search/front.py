"""The Pareto front of what a search tried, and ways to choose from it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
import pandas as pd
from optuna.trial import FrozenTrial

from ..config import BioTuneConfig
from ..evolution import on_front
from ..exceptions import ConfigError
from ..genotype import Genotype
from .contenders import contenders
from .fitness_result import FitnessResult
from .history import MULTIPLIERS_KEY, fitness_of
from .objectives import CHECKPOINT, COSTS, PARAMETERS, SECONDS, Objectives


@dataclass(frozen=True)
class Compromise:
    """An individual that was chosen for its score and for what it costs.

    Args:
        trial: its number in the study.
        config: its blocks and rates.
        genotype: its genes.
        score: mean validation score over the seeds that it was trained with.
        trainable_parameters: numbers in its trained blocks.
        seconds: of one training.
        checkpoint_size: bytes of the tensors in its adapter's file.
    """

    trial: int
    config: BioTuneConfig
    genotype: Genotype
    score: float
    trainable_parameters: int
    seconds: float
    checkpoint_size: int


def individuals_of(
    study: optuna.Study, objectives: Objectives, confirmed: Mapping[int, FitnessResult]
) -> pd.DataFrame:
    """The individuals that were trained to their end and have a score, with it and their costs.

    Of those with the same blocks and rates only the best; with folds, those of one fold.

    Args:
        study: of a search.
        objectives: what it is for.
        confirmed: the results of finalists, where they can be compared with those of others.

    Returns:
        Columns: `trial`, `score`, `seeds` (how many it is the mean of), the costs (see `COSTS`),
        `trained_share` (of all parameters), `blocks` (names of those that are trained).
    """
    trials = contenders(study, objectives.metric, len(study.get_trials(deepcopy=False)))
    scored = [trial for trial in trials if not fitness_of(trial).has_failed]
    total = sum(objectives.parameters.values())
    # If all have failed, that is what there is to see.
    trials = scored or trials
    return pd.DataFrame([_row(trial, objectives, confirmed, total) for trial in trials])


def _row(
    trial: FrozenTrial,
    objectives: Objectives,
    confirmed: Mapping[int, FitnessResult],
    total: int,
) -> dict[str, Any]:
    fitness = confirmed.get(trial.number) or fitness_of(trial)
    blocks = list(trial.user_attrs[MULTIPLIERS_KEY])
    costs = objectives.costs_of(fitness, blocks)
    return {
        "trial": trial.number,
        "score": fitness.score,
        "seeds": len(fitness.runs),
        PARAMETERS: int(costs[PARAMETERS]),
        "trained_share": costs[PARAMETERS] / total,
        SECONDS: costs[SECONDS],
        CHECKPOINT: int(costs[CHECKPOINT]),
        "blocks": blocks,
    }


def pareto_front(
    individuals: pd.DataFrame, costs: Sequence[str], *, greater_is_better: bool
) -> pd.DataFrame:
    """The individuals than which no other has a better score and costs no more.

    Args:
        individuals: see [`individuals_of`].
        costs: that count; at least one.
        greater_is_better: whether a greater score is a better one.

    Returns:
        Their rows, the cheapest first, with a column `knee` that is true for one of them: of the
        front with each objective scaled to [0, 1], the one that lies farthest from the chord (the
        plane, with more objectives) through its ends, on the better side.
    """
    losses = _losses(individuals, costs, greater_is_better)
    front = individuals[on_front(losses)].sort_values([*costs, "trial"], ignore_index=True)
    front["knee"] = False
    front.loc[_knee(_losses(front, costs, greater_is_better)), "knee"] = True
    return front


def _losses(individuals: pd.DataFrame, costs: Sequence[str], greater: bool) -> np.ndarray:
    """Shape (individuals, 1 + costs); a training that diverged is worse than all others."""
    scores = individuals["score"].to_numpy(dtype=float) * (-1.0 if greater else 1.0)
    finite = scores[np.isfinite(scores)]
    scores = np.where(np.isfinite(scores), scores, (finite.max() if len(finite) else 0.0) + 1.0)
    return np.column_stack([scores, *(individuals[name].to_numpy(dtype=float) for name in costs)])


def _knee(losses: np.ndarray) -> int:
    """The index of the point farthest from the plane through 1 on every axis."""
    spread = np.ptp(losses, axis=0)
    scaled = (losses - losses.min(axis=0)) / np.where(spread > 0, spread, 1.0)
    # Of equals, the better score.
    return int(np.lexsort((scaled[:, 0], scaled.sum(axis=1).round(12)))[0])


def best_under(
    individuals: pd.DataFrame,
    limits: Mapping[str, float],
    objectives: Objectives,
    *,
    seconds_of_all: float,
) -> int:
    """The row of the best score within limits; of equals, fewer trained parameters.

    Args:
        individuals: see [`individuals_of`].
        limits: of costs, by name; a `float` below 1 is a share of what training every block costs.
        objectives: of the search.
        seconds_of_all: of a training of every block; NaN if there was none.

    Raises:
        ConfigError: an unknown cost, a limit that is none, or nobody is within the limits.
    """
    if not limits:
        raise ConfigError(f"give a limit for at least one of {', '.join(COSTS)}")
    of_all = {
        PARAMETERS: float(sum(objectives.parameters.values())),
        SECONDS: seconds_of_all,
        CHECKPOINT: float(sum(objectives.saved_bytes.values())),
    }
    most = {name: _absolute(name, limit, of_all) for name, limit in limits.items()}
    within = np.ones(len(individuals), dtype=bool)
    for name, limit in most.items():
        within &= individuals[name].to_numpy() <= limit * (1 + 1e-9)
    if not within.any():
        wanted = ", ".join(f"{name}={limit}" for name, limit in limits.items())
        least = ", ".join(f"{name} {individuals[name].min():g}" for name in limits)
        raise ConfigError(
            f"no individual that was trained to its end is under {wanted}; the least there is: "
            f"{least}. Give a higher limit, or search with it among the objectives"
        )
    losses = _losses(individuals, [PARAMETERS], objectives.metric.greater_is_better)
    order = np.lexsort((losses[:, 1], losses[:, 0], ~within))
    return int(order[0])


def _absolute(name: str, limit: float, of_all: Mapping[str, float]) -> float:
    if name not in COSTS:
        raise ConfigError(f"a limit must be for one of {', '.join(COSTS)}, got {name!r}")
    if isinstance(limit, bool) or not isinstance(limit, (int, float)) or not limit > 0:
        raise ConfigError(
            f"{name} must be a number greater than 0, or a share below 1 of what training every "
            f"block costs, got {limit!r}"
        )
    if isinstance(limit, int) or limit >= 1:
        return float(limit)
    if math.isnan(of_all[name]):
        raise ConfigError(
            f"{name}={limit} is a share of what training every block takes, but no individual "
            f"trained every block; give a number of at least 1"
        )
    return limit * of_all[name]
