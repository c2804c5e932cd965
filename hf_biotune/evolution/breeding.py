"""New individuals, made from the operators, each of which trains at least one block.

Everything here returns several candidates at once: the published algorithm takes the first, the
surrogate the most promising one.

Source: BioTune, arXiv 2508.15367, section 3 (evolutionary search).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import qmc

from . import operators
from .operators import FloatArray, IntArray

# A population whose children all select no block is possible, if barely: all its thresholds are
# near 1. After so many draws a random individual takes the place.
MAXIMUM_REDRAWS = 100


def random_individuals(
    n_genes: int, generator: np.random.Generator, size: int = 1, n_extra: int = 0
) -> FloatArray:
    """Genes drawn from U[0, 1]; draws that train no block are drawn again.

    Args:
        n_genes: number of blocks + 1 + n_extra, at least 2.
        generator: the source of randomness.
        size: how many.
        n_extra: number of extra genes.

    Returns:
        Shape (size, n_genes), every row valid.

    Example:
        >>> random_individuals(3, np.random.default_rng(0), size=2).shape
        (2, 3)

    Source: arXiv 2508.15367, initial population.
    """
    genes = generator.random((size, n_genes))
    while not (valid := operators.is_valid(genes, n_extra)).all():
        genes[~valid] = generator.random((int((~valid).sum()), n_genes))
    return genes


def spread_individual(n_genes: int, seed: int, index: int, n_extra: int = 0) -> FloatArray:
    """One of a sequence that fills [0, 1]^n evenly; points that train no block are left out.

    Args:
        n_genes: n, number of blocks + 1 + n_extra, at least 2.
        seed: not negative; names the sequence.
        index: which one of it, from 0.
        n_extra: number of extra genes.

    Returns:
        Shape (n_genes,), valid.

    Example:
        >>> spread_individual(3, seed=0, index=5).shape
        (3,)

    Source: scrambled Sobol sequence (Owen, 1998), as in `scipy.stats.qmc`. BioTune draws U[0, 1].
    """
    exponent = int(index + 1).bit_length()
    while True:
        # The sequence is extensible: a longer one begins with the shorter one.
        engine = qmc.Sobol(n_genes, scramble=True, rng=np.random.default_rng(seed))
        points = engine.random_base2(exponent)
        valid = points[operators.is_valid(points, n_extra)]
        if len(valid) > index:
            return np.asarray(valid[index], dtype=float)
        exponent += 1


def exploits(
    elite: ArrayLike, sign: int, generator: np.random.Generator, size: int = 1, n_extra: int = 0
) -> FloatArray:
    """Neighbours of an elite on one side; those that train no block or change nothing are redrawn.

    Generators in the same state give the two sides of the same pairs.

    Args:
        elite: genes, shape (n,), valid.
        sign: +1 or -1, which side.
        generator: the source of randomness.
        size: how many.
        n_extra: number of extra genes.

    Returns:
        Shape (size, n), every row valid.

    Example:
        >>> exploits([0.1, 0.8, 0.5], +1, np.random.default_rng(0)).shape
        (1, 3)

    Source: arXiv 2508.15367, exploitation of elites.
    """
    elite = np.asarray(elite, dtype=float)

    def draw(n: int) -> tuple[FloatArray, IntArray]:
        plus, minus = operators.exploit(elite, generator, size=n, n_extra=n_extra)
        genes = plus if sign > 0 else minus
        # A gene at 0 or 1 can't move outwards; training the elite once more would be a waste.
        genes[(genes == elite).all(axis=-1)] = np.nan
        return genes, np.zeros((n, 0), dtype=np.int64)

    return _valid_draws(draw, len(elite), generator, size, n_extra)[0]


def offspring(
    pool: ArrayLike,
    fitness: ArrayLike,
    generator: np.random.Generator,
    size: int = 1,
    n_extra: int = 0,
) -> tuple[FloatArray, IntArray]:
    """Children of a mating pool: selection, crossover, mutation, adoption, in this order.

    A child that trains no block is bred again from newly selected parents.

    Args:
        pool: genes, best first, shape (N, n), N at least 2.
        fitness: minimised, not negative, rising, shape (N,).
        generator: the source of randomness.
        size: how many.
        n_extra: number of extra genes.

    Returns:
        The children, shape (size, n), every row valid, and the ranks of their two parents,
        shape (size, 2); -1 for a child that had to be drawn at random.

    Example:
        >>> pool = random_individuals(4, np.random.default_rng(0), size=5)
        >>> children, parents = offspring(pool, [0.1, 0.2, 0.2, 0.3, 0.5], np.random.default_rng(1))
        >>> children.shape, parents.shape
        ((1, 4), (1, 2))

    Source: arXiv 2508.15367, crossover, mutation and adoption.
    """
    pool = np.asarray(pool, dtype=float)
    extinction = operators.extinction(fitness)

    def draw(n: int) -> tuple[FloatArray, IntArray]:
        parents = operators.select(len(pool), generator, n_selected=2, size=n)
        prototypes = operators.select(len(pool), generator, size=n)[:, 0]
        first, second = pool[parents[:, 0]], pool[parents[:, 1]]
        children = operators.crossover(first, second, generator)
        children = operators.mutate(children, extinction[parents].mean(axis=-1), generator)
        children = operators.adopt(children, (first + second) / 2, pool[prototypes], generator)
        return children, parents

    return _valid_draws(draw, pool.shape[-1], generator, size, n_extra)


def _valid_draws(
    draw: Callable[[int], tuple[FloatArray, IntArray]],
    n_genes: int,
    generator: np.random.Generator,
    size: int,
    n_extra: int,
) -> tuple[FloatArray, IntArray]:
    """Draw until every row is valid, a bounded number of times, then fill up at random."""
    genes, origins = draw(size)
    for _ in range(MAXIMUM_REDRAWS):
        invalid = np.flatnonzero(~operators.is_valid(genes, n_extra))  # NaN is never valid
        if len(invalid) == 0:
            return genes, origins
        genes[invalid], origins[invalid] = draw(len(invalid))
    invalid = np.flatnonzero(~operators.is_valid(genes, n_extra))
    genes[invalid] = random_individuals(n_genes, generator, len(invalid), n_extra)
    origins[invalid] = -1
    return genes, origins
