"""Expected hypervolume improvement where only the score is uncertain.

What a candidate costs is known. So a set of points is a staircase: how good a score can be had for
how much. A candidate of cost c lowers the stairs to the right of c by as much as its score is below
each of them, and the expectation of that has a closed form: the width of each stair times the
expected improvement on it. There are no weights between the objectives to be chosen, and none to be
drawn, as there would be for a random scalarisation; and the integral is exact.

Source: Emmerich, Deutz and Klinkenberg (2011) for the criterion; one uncertain objective is the
case in which it reduces to sums of the expected improvement of Jones, Schonlau and Welch (1998).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from .dominance import crowded_order, on_front
from .operators import FloatArray

# How far beyond the worst of the front the reference point lies, in units of the front's range.
REFERENCE_SHARE = 0.1
# Cells of the grid that points span: so many are gone through for each candidate.
LARGEST_GRID = 200_000


@dataclass(frozen=True)
class Stairs:
    """How good a fitness can be had for how much.

    Args:
        fitness: of the points on the front, minimised, shape (M,).
        costs: of these points, shape (M, K).
        fitness_limit: of the reference point: what is worse counts for nothing.
        cost_limits: of the reference point, shape (K,).
    """

    fitness: FloatArray
    costs: FloatArray
    fitness_limit: float
    cost_limits: FloatArray

    @classmethod
    def of(cls, fitness: FloatArray, costs: FloatArray, candidate_costs: FloatArray) -> Stairs:
        """The front of what was trained.

        The reference point lies a tenth beyond the worst fitness of the front, and a tenth beyond
        the largest cost of all, so that the dearest candidate may still count. The steps are those
        in every cost, so that of a large front by many costs only the loneliest points count.

        Args:
            fitness: of all points, minimised, shape (M,).
            costs: of all points, shape (M, K).
            candidate_costs: shape (N, K).
        """
        losses = np.column_stack([fitness, costs])
        front = np.flatnonzero(on_front(losses))
        most = int(LARGEST_GRID ** (1 / costs.shape[1]))
        if len(front) > most:
            front = front[np.sort(crowded_order(losses[front])[:most])]
        worst, best = fitness[front].max(), fitness[front].min()
        spread = worst - best if worst > best else max(float(np.ptp(fitness)), 1e-12)
        every = np.concatenate([costs, candidate_costs])
        return cls(
            fitness[front],
            costs[front],
            float(worst + REFERENCE_SHARE * spread),
            every.max(axis=0) + REFERENCE_SHARE * np.maximum(np.ptp(every, axis=0), 1e-12),
        )

    def expected_improvement(
        self, mean: FloatArray, deviation: FloatArray, costs: FloatArray
    ) -> FloatArray:
        """By how much the volume that the stairs dominate is expected to grow.

        Args:
            mean: of the fitness of candidates, shape (N,).
            deviation: of it, shape (N,).
            costs: of the candidates, shape (N, K).

        Returns:
            Not negative, shape (N,).
        """
        edges = [np.unique(column) for column in self.costs.T]
        # Before the first edge nothing is to be had.
        level = np.full([len(edge) + 1 for edge in edges], self.fitness_limit)
        for fitness, cost in zip(self.fitness, self.costs, strict=True):
            affordable = tuple(
                slice(int(np.searchsorted(edge, value)) + 1, None)
                for edge, value in zip(edges, cost, strict=True)
            )
            level[affordable] = np.minimum(level[affordable], fitness)
        levels, stair = np.unique(level.ravel(), return_inverse=True)
        widths = np.array([self._widths(cost, edges, stair, len(levels)) for cost in costs])
        gain = expected_gap(mean[:, None], deviation[:, None], levels[None, :])
        return np.asarray((gain * widths).sum(axis=1))

    def _widths(
        self, cost: FloatArray, edges: list[FloatArray], stair: np.ndarray, n_levels: int
    ) -> FloatArray:
        """The volume, in the space of costs, that a candidate reaches on each level. (n_levels,)"""
        volume = np.ones(1)
        for value, edge, limit in zip(cost, edges, self.cost_limits, strict=True):
            lower, upper = np.append(-np.inf, edge), np.append(edge, limit)
            overlap = np.maximum(upper - np.maximum(lower, value), 0.0)
            volume = np.multiply.outer(volume, overlap).ravel()
        volumes = np.bincount(stair.ravel(), weights=volume, minlength=n_levels)
        return np.asarray(volumes, dtype=float)


def expected_gap(mean: FloatArray, deviation: FloatArray, level: FloatArray) -> FloatArray:
    """How far below a level a normal variable is expected to be, 0 if above: `E[max(l - y, 0)]`.

    `s (u Phi(u) + phi(u))` with `u = (level - mean) / s`; arguments are broadcast.

    Example:
        >>> expected_gap(np.zeros(1), np.ones(1), np.zeros(1)).round(4)
        array([0.3989])

    Source: Jones, Schonlau and Welch, Journal of Global Optimization 13 (1998), equation 15.
    """
    gap = (level - mean) / deviation
    density = np.exp(-0.5 * gap**2) / np.sqrt(2.0 * np.pi)
    return np.asarray(np.maximum(deviation * (gap * ndtr(gap) + density), 0.0))
