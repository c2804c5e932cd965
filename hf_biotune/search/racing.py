"""Seed racing: further seeds only for those that may still be the best.

One training's score is its genotype's worth plus luck. The best of many such scores is mostly luck,
and evolution would breed from it. So an individual that takes the lead is trained with a further
seed at once, and loses the lead if its mean falls behind; at the end, finalists get further seeds
as long as a test can't tell them from the leader.

The test is paired: only scores of the same seeds are compared, so that what a seed does to all of
them (its initial head, its order of samples) cancels out. Two or three seeds alone would tell
nothing: with two degrees of freedom, a difference must be 2.9 times its error. So the deviation is
pooled over all individuals that were trained with several seeds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from .metrics import Metric

# A finalist is dropped if being so far behind by chance were less likely than this.
LEVEL = 0.05
# With less to estimate it from, a deviation can be near 0 by chance.
MINIMUM_DEGREES = 3

# The scores of one individual by seed.
SeedScores = Mapping[int, float]


@dataclass(frozen=True)
class SeedNoise:
    """By how much two trainings of one individual differ.

    Args:
        deviation: standard deviation of a score around individual + seed.
        degrees: of freedom that it was estimated with.
    """

    deviation: float
    degrees: int


def seed_noise(individuals: Sequence[SeedScores]) -> SeedNoise:
    """The residual deviation of `score = individual + seed + noise`, by least squares.

    Args:
        individuals: those with one seed say nothing and are left out, as are scores of trainings
            that diverged.

    Returns:
        With 0 degrees of freedom if there is too little to say anything.

    Example:
        >>> seed_noise([{1: 0.5, 2: 0.6}, {1: 0.7, 2: 0.8}]).degrees
        1
    """
    finite = [
        {seed: score for seed, score in scores.items() if math.isfinite(score)}
        for scores in individuals
    ]
    known = [scores for scores in finite if len(scores) > 1]
    seeds = sorted({seed for scores in known for seed in scores})
    rows, values = [], []
    for index, scores in enumerate(known):
        for seed, score in scores.items():
            row = np.zeros(len(known) + len(seeds))
            row[index] = row[len(known) + seeds.index(seed)] = 1.0
            rows.append(row)
            values.append(score)
    if not rows:
        return SeedNoise(math.nan, 0)
    design, target = np.array(rows), np.array(values)
    solution, _, rank, _ = np.linalg.lstsq(design, target)
    degrees = len(target) - int(rank)
    if degrees < 1:
        return SeedNoise(math.nan, 0)
    residual = target - design @ solution
    return SeedNoise(float(np.sqrt(residual @ residual / degrees)), degrees)


def is_in_contention(
    candidate: SeedScores,
    leader: SeedScores,
    noise: SeedNoise,
    metric: Metric,
    level: float = LEVEL,
) -> bool:
    """Whether a candidate may be as good as the leader.

    Args:
        candidate: its scores.
        leader: the scores of the best one.
        noise: of [`seed_noise`].
        metric: the score.
        level: of the one-sided paired test, in (0, 0.5].

    Returns:
        `False` if it is significantly worse on the seeds that both were trained with; always `True`
        without a common seed, or if the noise is hardly known.

    Example:
        >>> from hf_biotune.search.metrics import METRICS
        >>> noise = SeedNoise(deviation=0.01, degrees=8)
        >>> is_in_contention({1: 0.88}, {1: 0.90, 2: 0.92}, noise, METRICS["accuracy"])
        True
        >>> is_in_contention({1: 0.85}, {1: 0.90, 2: 0.92}, noise, METRICS["accuracy"])
        False
    """
    common = [seed for seed in candidate if seed in leader]
    if not common or noise.degrees < MINIMUM_DEGREES:
        return True
    sign = 1.0 if metric.greater_is_better else -1.0
    behind = sign * float(np.mean([leader[seed] - candidate[seed] for seed in common]))
    if not math.isfinite(behind):
        return math.isfinite(sum(candidate.values()))
    error = noise.deviation * math.sqrt(2.0 / len(common))
    return behind <= error * float(stats.t.isf(level, noise.degrees))
