"""Ranking by several objectives: non-dominated sorting, then crowding distance, by Optuna's parts.

Source: Deb et al., IEEE Transactions on Evolutionary Computation 6 (2002), NSGA-II.
"""

from __future__ import annotations

import numpy as np
import optuna
from optuna.samplers.nsgaii._elite_population_selection_strategy import _calc_crowding_distance
from optuna.study._multi_objective import _fast_non_domination_rank, _is_pareto_front

from .operators import FloatArray, IntArray


def on_front(losses: FloatArray) -> np.ndarray:
    """Which points no other one dominates; of equal points all or none.

    Args:
        losses: minimised, shape (N, number of objectives).

    Returns:
        Booleans of shape (N,).

    Example:
        >>> on_front(np.array([[1.0, 3.0], [2.0, 2.0], [2.0, 4.0]])).tolist()
        [True, True, False]
    """
    if len(losses) == 0:
        return np.zeros(0, dtype=bool)
    return np.asarray(_is_pareto_front(losses, assume_unique_lexsorted=False))


def crowded_order(losses: FloatArray) -> IntArray:
    """The indices of points, best first: by front, and within a front the loneliest first.

    Args:
        losses: minimised, finite, shape (N, number of objectives).

    Returns:
        Shape (N,); equals stay in their order.

    Example:
        >>> crowded_order(np.array([[2.0, 4.0], [0.0, 4.0], [1.0, 2.0], [1.5, 1.9], [4.0, 0.0]]))
        array([1, 4, 3, 2, 0])
    """
    ranks = _fast_non_domination_rank(losses)
    loneliness = np.zeros(len(losses))
    for rank in np.unique(ranks):
        members = np.flatnonzero(ranks == rank)
        loneliness[members] = _crowding_distances(losses[members])
    return np.lexsort((-loneliness, ranks)).astype(np.int64)


def _crowding_distances(losses: FloatArray) -> FloatArray:
    # Optuna computes them of trials, which it tells apart by their numbers.
    trials = [optuna.trial.create_trial(values=row) for row in losses.tolist()]
    for number, trial in enumerate(trials):
        trial.number = number
    distances = _calc_crowding_distance(list(trials))
    return np.array([distances[number] for number in range(len(trials))])
