"""Synthetic block-selection landscapes: what a search method can be measured on in seconds.

A landscape maps genes (12 importances and the freezing threshold, all in [0, 1]) to a score, larger
being better. All three look at the phenotype only: which blocks are trained, and at which
multiplier. Each repetition is another landscape of the same kind, drawn from its number.

| kind | what makes it hard |
|---|---|
| `separable` | nothing but its size: each block has its own gain, perhaps negative, and best rate |
| `deceptive` | blocks come in threes that gain only together; training one alone is a step down |
| `noisy` | fine-tuning-like: adaptation against forgetting, saturating, with noise and folds |
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

N_BLOCKS = 12
N_GENES = N_BLOCKS + 1
BLOCK_NAMES = tuple(f"block{index}" for index in range(N_BLOCKS))
N_FOLDS = 5
KINDS = ("separable", "deceptive", "noisy")

# Scores of random genotypes: the 2 % quantile is what a genotype that trains nothing gets, and the
# median is the regret of 100 %.
_N_REFERENCES = 20_000


class Phenotype(NamedTuple):
    """What genes mean: arrays of shape (N, N_BLOCKS)."""

    trained: NDArray[np.bool_]
    log_multiplier: FloatArray


class Landscape(ABC):
    """One repetition of a kind of landscape.

    Args:
        repetition: which one; the same number gives the same landscape.
    """

    kind: str
    block_names = BLOCK_NAMES

    def __init__(self, repetition: int) -> None:
        self.repetition = repetition
        self._draw(np.random.default_rng([KINDS.index(self.kind), repetition]))

    @abstractmethod
    def _draw(self, generator: np.random.Generator) -> None:
        """Draw the constants of this repetition."""

    @abstractmethod
    def _score(self, phenotype: Phenotype) -> FloatArray:
        """Scores of genotypes that train at least one block. Shape (N,)."""

    def true(self, genes: FloatArray) -> FloatArray:
        """Scores without noise. Shape of `genes`: (N, N_GENES)."""
        genes = np.atleast_2d(genes)
        phenotype = decode(genes)
        return np.where(phenotype.trained.any(axis=1), self._score(phenotype), self._floor)

    def observe(self, genes: FloatArray, fold: int, generator: np.random.Generator) -> float:
        """The score that a training would report."""
        return float(self.true(genes)[0])

    @cached_property
    def optimum(self) -> float:
        """The largest score: coordinate ascent over one, two and three blocks, many starts."""
        return max(self._ascend(np.random.default_rng([self.repetition, s])) for s in range(12))

    @cached_property
    def median(self) -> float:
        """The median score of random genotypes that train a block."""
        return float(np.median(self._references))

    def regret(self, genes: FloatArray) -> float:
        """How far below the optimum, in per cent: 100 for the median random genotype."""
        score = float(self.true(genes)[0])
        return 100.0 * (self.optimum - score) / (self.optimum - self.median)

    @cached_property
    def _references(self) -> FloatArray:
        genes = np.random.default_rng(0).random((_N_REFERENCES, N_GENES))
        phenotype = decode(genes)
        valid = phenotype.trained.any(axis=1)
        return self._score(Phenotype(*(part[valid] for part in phenotype)))

    @cached_property
    def _floor(self) -> float:
        return float(np.quantile(self._references, 0.02))

    def _ascend(self, generator: np.random.Generator) -> float:
        """The local optimum, up to a grid of rates, that a random start climbs to.

        With all freezing thresholds at 0, a frozen block has gene 0, and any choice of trained
        blocks and rates can be written down.
        """
        levels = np.concatenate([[0.0], np.linspace(1e-9, 1.0, 101)])
        genes = np.append(generator.choice(levels, N_BLOCKS), 0.0)
        genes[generator.integers(N_BLOCKS)] = 0.5
        best = float(self.true(genes)[0])
        while True:
            before = best
            for moved in _single_moves(levels), _pair_moves(levels[::20], generator):
                for blocks, values in moved:
                    trials = np.tile(genes, (len(values), 1))
                    trials[:, blocks] = values
                    scores = self.true(trials)
                    if scores.max() > best:
                        best, genes = float(scores.max()), trials[int(scores.argmax())]
            if best <= before + 1e-9:
                return best


class Separable(Landscape):
    """`sum over trained blocks of gain - curvature (log multiplier - best rate)^2`."""

    kind = "separable"

    def _draw(self, generator: np.random.Generator) -> None:
        self.best_rate = generator.uniform(-0.8, 0.8, N_BLOCKS)
        self.gain = generator.permutation(np.linspace(-0.6, 1.0, N_BLOCKS))
        self.curvature = generator.uniform(0.5, 2.0, N_BLOCKS)

    def _score(self, phenotype: Phenotype) -> FloatArray:
        mismatch = self.curvature * (phenotype.log_multiplier - self.best_rate) ** 2
        return np.where(phenotype.trained, self.gain - mismatch, 0.0).sum(axis=1)


class Deceptive(Landscape):
    """Groups of three blocks whose gain depends on how many of them are trained: a trap function.

    With 0, 1, 2, 3 of the group trained it gains .7 .45 .25 1 times its weight or, flipped,
    1 .25 .45 .7 times its weight.
    """

    kind = "deceptive"
    gains = np.array([[0.7, 0.45, 0.25, 1.0], [1.0, 0.25, 0.45, 0.7]])

    def _draw(self, generator: np.random.Generator) -> None:
        self.best_rate = generator.uniform(-0.8, 0.8, N_BLOCKS)
        self.curvature = generator.uniform(0.5, 2.0, N_BLOCKS)
        self.flipped = (generator.random(4) < 0.5).astype(int)
        self.weight = generator.uniform(0.5, 1.5, 4)
        scattered = self.repetition % 2  # blocks of a group are neighbours in every other one
        order = generator.permutation(N_BLOCKS) if scattered else np.arange(N_BLOCKS)
        self.groups = order.reshape(4, 3)

    def _score(self, phenotype: Phenotype) -> FloatArray:
        mismatch = 0.15 * self.curvature * (phenotype.log_multiplier - self.best_rate) ** 2
        score = -np.where(phenotype.trained, mismatch, 0.0).sum(axis=1)
        for group, flipped, weight in zip(self.groups, self.flipped, self.weight, strict=True):
            score += weight * self.gains[flipped, phenotype.trained[:, group].sum(axis=1)]
        return score


class Noisy(Landscape):
    """Late blocks adapt, early ones forget, borders between trained and frozen blocks cost.

    Observed with noise of .015, and with a difficulty of the fold of about .02.
    """

    kind = "noisy"
    noise = 0.015

    def _draw(self, generator: np.random.Generator) -> None:
        ramp = np.linspace(0.4, 1.6, N_BLOCKS)
        adaptation = generator.gamma(2.0, 0.5, N_BLOCKS) * ramp
        forgetting = generator.gamma(2.0, 0.5, N_BLOCKS) * ramp[::-1]
        self.adaptation = adaptation / adaptation.sum()
        self.forgetting = forgetting / forgetting.sum()
        self.border = generator.uniform(0.0, 0.03, N_BLOCKS - 1)
        self.fold_effect = generator.normal(0.0, 0.02, N_FOLDS)

    def _score(self, phenotype: Phenotype) -> FloatArray:
        trained = phenotype.trained
        rate = np.where(trained, 10.0**phenotype.log_multiplier, 0.0)
        adapted = 1.0 - np.exp(-1.2 * rate @ self.adaptation)
        forgotten = 1.0 - np.exp(-0.25 * rate**1.5 @ self.forgetting)
        borders = (trained[:, 1:] != trained[:, :-1]) @ self.border
        return np.asarray(0.60 + 0.35 * adapted - 0.30 * forgotten - borders)

    def observe(self, genes: FloatArray, fold: int, generator: np.random.Generator) -> float:
        noise = self.noise * generator.normal()
        return float(self.true(genes)[0] + self.fold_effect[fold % N_FOLDS] + noise)


def landscape(kind: str, repetition: int) -> Landscape:
    """The landscape of a kind, one of `KINDS`, and a number."""
    return {cls.kind: cls for cls in (Separable, Deceptive, Noisy)}[kind](repetition)


def decode(genes: FloatArray) -> Phenotype:
    """Which blocks are trained, and log10 of the multipliers."""
    return Phenotype(genes[:, :-1] > genes[:, -1:], 2.0 * (genes[:, :-1] - 0.5))


def _single_moves(levels: FloatArray) -> list[tuple[list[int], FloatArray]]:
    return [([block], levels[:, None]) for block in range(N_BLOCKS)]


def _pair_moves(
    levels: FloatArray, generator: np.random.Generator
) -> list[tuple[list[int], FloatArray]]:
    """Two (and, for groups of three, three) blocks at once, on a coarse grid."""
    pairs = np.stack(np.meshgrid(levels, levels), axis=-1).reshape(-1, 2)
    switches = np.stack(np.meshgrid(*[[0.0, 0.5]] * 3), axis=-1).reshape(-1, 3)
    moves: list[tuple[list[int], FloatArray]] = []
    for first in range(N_BLOCKS):
        for second in range(first):
            moves.append(([first, second], pairs))
            moves.extend(([first, second, third], switches) for third in range(second))
    return [moves[index] for index in generator.permutation(len(moves))]
