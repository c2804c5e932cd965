"""The operators of BioTune's evolution, each a pure function of arrays and a random generator.

A vector of genes holds one importance per block, the freezing threshold, and extra genes, if there
are any, all in [0, 1]; every operator works on the last axis and accepts any number of leading
axes. Fitness is minimised.

Source: BioTune, arXiv 2508.15367, section 3 (evolutionary search).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..exceptions import GenotypeError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

EXPLOITATION_STEP = 0.25


def is_valid(genes: ArrayLike, n_extra: int = 0) -> NDArray[np.bool_]:
    """Whether a vector of genes trains at least one block: `max(importances) > threshold`.

    Args:
        genes: in [0, 1], shape (..., number of blocks + 1 + n_extra).
        n_extra: number of extra genes.

    Returns:
        Shape (...).

    Example:
        >>> is_valid([[0.2, 0.6, 0.5], [0.2, 0.4, 0.5]])
        array([ True, False])

    Source: arXiv 2508.15367, individual encoding.
    """
    importances, threshold = _of_blocks(np.asarray(genes, dtype=float), n_extra)
    return np.asarray(importances.max(axis=-1) > threshold)


def clip(genes: ArrayLike) -> FloatArray:
    """Genes moved to the nearest point of [0, 1], where they are defined.

    Args:
        genes: any real numbers, any shape.

    Returns:
        The same shape, in [0, 1].

    Example:
        >>> clip([-0.2, 0.5, 1.3])
        array([0. , 0.5, 1. ])

    Source: arXiv 2508.15367, bounds of the encoding.
    """
    return np.asarray(np.clip(np.asarray(genes, dtype=float), 0.0, 1.0))


def selection_probabilities(n_individuals: int) -> FloatArray:
    """Linear-rank selection: `p_i = (N - i) / (1 + 2 + ... + N)` for rank `i`, 0 being the best.

    The authors' program, measured for N = 10, draws with .186 .152 .139 ... .016. These are
    frequencies and not constants: they differ from .182 .164 .145 ... .018 by at most .012, which
    is about one standard error of a thousand draws, and a fitted selection pressure comes no
    closer. So the plain linear rank is used.

    Args:
        n_individuals: N, at least 1.

    Returns:
        Shape (N,), falling, with sum 1.

    Example:
        >>> selection_probabilities(3).round(3)
        array([0.5  , 0.333, 0.167])

    Source: arXiv 2508.15367, parent selection.
    """
    weights = np.arange(n_individuals, 0, -1, dtype=float)
    return np.asarray(weights / weights.sum())


def select(
    n_individuals: int, generator: np.random.Generator, *, n_selected: int = 1, size: int = 1
) -> IntArray:
    """Ranks drawn by [`selection_probabilities`], those of one row without replacement.

    Args:
        n_individuals: how many there are to choose from.
        generator: the source of randomness.
        n_selected: how many different ones a row holds, at most `n_individuals`.
        size: number of rows.

    Returns:
        Ranks in [0, n_individuals), shape (size, n_selected).

    Example:
        >>> select(10, np.random.default_rng(0), n_selected=2, size=3).shape
        (3, 2)

    Source: arXiv 2508.15367, parent selection.
    """
    # The largest keys of log p + Gumbel noise are a draw without replacement (Gumbel top-k trick).
    keys = np.log(selection_probabilities(n_individuals)) + generator.gumbel(
        size=(size, n_individuals)
    )
    return np.argsort(-keys, axis=-1)[:, :n_selected]


def crossover(first: ArrayLike, second: ArrayLike, generator: np.random.Generator) -> FloatArray:
    """A child between its parents: `r * first + (1 - r) * second`, `r ~ U[0, 1]` for each gene.

    Args:
        first: genes of a parent, shape (..., n).
        second: genes of the other parent, shape (..., n).
        generator: the source of randomness.

    Returns:
        Shape (..., n); each gene lies between those of the parents.

    Example:
        >>> crossover([0.2, 0.5], [0.4, 0.5], np.random.default_rng(0)).round(3)
        array([0.273, 0.5  ])

    Source: arXiv 2508.15367, crossover.
    """
    first, second = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    ratio = generator.random(first.shape)
    child = ratio * first + (1.0 - ratio) * second
    # Rounding may leave the interval by one unit in the last place.
    return np.asarray(np.clip(child, np.minimum(first, second), np.maximum(first, second)))


def extinction(fitness: ArrayLike) -> FloatArray:
    """How close each individual is to dying out: `e_i = (f_i + f_min (i / (N - 1) - 1)) / f_max`.

    The best has 0 and the worst 1. When every fitness ties, what is left is the rank, i / (N - 1),
    so that mutation doesn't stop; the same is used when every fitness is 0, where the formula has
    no value.

    Args:
        fitness: minimised and not negative, best first, shape (N,).

    Returns:
        Shape (N,), in [0, 1], rising.

    Example:
        >>> extinction([0.1, 0.2, 0.4])
        array([0.   , 0.375, 1.   ])
        >>> extinction([0.3, 0.3, 0.3])
        array([0. , 0.5, 1. ])

    Source: arXiv 2508.15367, extinction.
    """
    fitness = np.asarray(fitness, dtype=float)
    n_individuals = len(fitness)
    if n_individuals == 1:
        return np.zeros(1)
    rank = np.arange(n_individuals) / (n_individuals - 1)
    worst = fitness.max()
    if worst <= 0.0:
        return rank
    return clip((fitness + fitness.min() * (rank - 1.0)) / worst)


def mutation_rate(extinction: ArrayLike, n_genes: int) -> FloatArray:
    """The probability that a gene mutates: `(m (n - 1) + 1) / n`, from 1 / n to 1.

    Args:
        extinction: m, the mean extinction of the parents, in [0, 1], any shape.
        n_genes: n, at least 1.

    Returns:
        The shape of `extinction`, in [1 / n, 1].

    Example:
        >>> mutation_rate([0.0, 0.5, 1.0], 4)
        array([0.25 , 0.625, 1.   ])

    Source: arXiv 2508.15367, mutation.
    """
    return (np.asarray(extinction, dtype=float) * (n_genes - 1) + 1.0) / n_genes


def mutate(genes: ArrayLike, extinction: ArrayLike, generator: np.random.Generator) -> FloatArray:
    """Each gene moves by `m U(-1, 1)` with probability [`mutation_rate`]; the result is clipped.

    Args:
        genes: in [0, 1], shape (..., n).
        extinction: m, the mean extinction of the parents, in [0, 1], shape (...).
        generator: the source of randomness.

    Returns:
        Shape (..., n), in [0, 1].

    Example:
        >>> mutate([0.5, 0.5], 0.0, np.random.default_rng(0))
        array([0.5, 0.5])

    Source: arXiv 2508.15367, mutation.
    """
    genes = np.asarray(genes, dtype=float)
    reach = np.asarray(extinction, dtype=float)[..., None]
    mutates = generator.random(genes.shape) < mutation_rate(reach, genes.shape[-1])
    return clip(genes + mutates * reach * generator.uniform(-1.0, 1.0, genes.shape))


def adopt(
    genes: ArrayLike, parents_mean: ArrayLike, prototype: ArrayLike, generator: np.random.Generator
) -> FloatArray:
    """A child learns from its parents and from a prototype; the result is clipped.

    `g + u r1 (parents_mean - g) + (1 - u) r2 (prototype - g)`, with `u, r1, r2 ~ U[0, 1]` for each
    gene.

    Args:
        genes: of the child, in [0, 1], shape (..., n).
        parents_mean: the mean of the parents' genes, in [0, 1], shape (..., n).
        prototype: the genes of a third individual, in [0, 1], shape (..., n).
        generator: the source of randomness.

    Returns:
        Shape (..., n), in [0, 1].

    Example:
        >>> adopt([0.5, 0.5], [0.5, 0.5], [0.5, 0.5], np.random.default_rng(0))
        array([0.5, 0.5])

    Source: arXiv 2508.15367, adoption.
    """
    genes = np.asarray(genes, dtype=float)
    share, towards_parents, towards_prototype = generator.random((3, *genes.shape))
    step = share * towards_parents * (np.asarray(parents_mean) - genes)
    step += (1.0 - share) * towards_prototype * (np.asarray(prototype) - genes)
    return clip(genes + step)


def exploit(
    genes: ArrayLike, generator: np.random.Generator, *, size: int = 1, n_extra: int = 0
) -> tuple[FloatArray, FloatArray]:
    """Neighbours of an elite: one random trained block's gene plus and minus `d = 0.25 U(-1, 1)`.

    An extra gene may be chosen like that of a trained block.

    Args:
        genes: of the elite, in [0, 1], shape (n,); at least one block is trained.
        generator: the source of randomness.
        size: number of pairs, each with a gene and a step of its own.
        n_extra: number of extra genes.

    Returns:
        The neighbours at +d and those at -d, clipped to [0, 1], each of shape (size, n). A step may
        freeze the only trained block: check [`is_valid`].

    Raises:
        GenotypeError: no block is trained.

    Example:
        >>> plus, minus = exploit([0.1, 0.8, 0.5], np.random.default_rng(0))
        >>> (plus + minus).round(12) / 2
        array([[0.1, 0.8, 0.5]])

    Source: arXiv 2508.15367, exploitation of elites.
    """
    genes = np.asarray(genes, dtype=float)
    importances, threshold = _of_blocks(genes, n_extra)
    trained = np.flatnonzero(importances > threshold)
    if len(trained) == 0:
        raise GenotypeError(
            f"only the gene of a trained block is exploited, but every importance is <= "
            f"freezing_threshold {threshold}"
        )
    step = np.zeros((size, len(genes)))
    extra = np.arange(len(genes) - n_extra, len(genes))
    chosen = generator.choice(np.concatenate([trained, extra]), size=size)
    step[np.arange(size), chosen] = EXPLOITATION_STEP * generator.uniform(-1.0, 1.0, size)
    return clip(genes + step), clip(genes - step)


def _of_blocks(genes: FloatArray, n_extra: int) -> tuple[FloatArray, FloatArray]:
    """Importances and threshold: views of shape (..., number of blocks) and (...)."""
    n_blocks = genes.shape[-1] - 1 - n_extra
    return genes[..., :n_blocks], genes[..., n_blocks]
