"""Searches on recorded trainings: the real table as a landscape, in microseconds a training.

    python benchmarks/replay.py        # how far the answers can be trusted

A genotype is answered by the recorded one that is nearest to it in what it means for the training:
its distance is the root of the sum, over blocks, of 1 if one of the two trains the block and the
other freezes it, and of the squared difference of log10 of the multipliers if both train it. So a
block that is switched counts as much as a rate that is off by a factor of ten.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
from landscapes import Phenotype, decode
from numpy.typing import ArrayLike
from scipy.stats import spearmanr
from table import ALL_DATA, FloatArray, Table

TABLE = Path(__file__).parent / "data" / "efficientnet_lite0_digits.npz"
KIND = "digits"


def distances(some: Phenotype, others: Phenotype) -> FloatArray:
    """How differently genotypes train a model.

    Args:
        some: what N genotypes mean.
        others: what M genotypes mean.

    Returns:
        Shape (N, M); 0 for genotypes that train the same blocks at the same rates.
    """
    switched = some.trained[:, None] != others.trained[None]
    both = some.trained[:, None] & others.trained[None]
    rates = some.log_multiplier[:, None] - others.log_multiplier[None]
    return np.asarray(np.sqrt((switched + both * rates**2).sum(axis=-1)))


class RealTable:
    """The table as a landscape; see `landscapes.Landscape`.

    An observation is the best validation score of one training on all data, whose seed is drawn
    from the recorded ones. What a genotype is worth is the mean test score of all seeds, so luck
    with a seed, and with the validation samples, are errors of the search.

    Args:
        repetition: for the search's seed; the landscape is always the same.
        table: default: the one in `benchmarks/data`.
    """

    kind = KIND

    def __init__(self, repetition: int, table: Table | None = None) -> None:
        self.repetition = repetition
        self.table = Table.load(TABLE) if table is None else table

    @property
    def block_names(self) -> tuple[str, ...]:
        """Of the partition, in order."""
        return self.table.block_names

    def nearest(self, genes: ArrayLike) -> int:
        """The row of the table that answers for a genotype."""
        return self.nearest_to(decode(np.atleast_2d(genes)))

    def nearest_to(self, phenotype: Phenotype) -> int:
        """The row of the table that answers for what a genotype means, given as one row."""
        return int(distances(phenotype, decode(self.table.genes)).argmin())

    def true(self, genes: FloatArray) -> float:
        """The mean test score of the seeds."""
        if not _trains(genes):
            return self._guessing
        return float(self.table.true_score[self.nearest(genes)])

    def observe(self, genes: FloatArray, fold: int, generator: np.random.Generator) -> float:
        """The validation score that a training would report."""
        # Drawn in any case: what a seed does must not depend on what was searched before.
        seed = int(generator.integers(len(self.table.seeds)))
        if not _trains(genes):
            return self._guessing
        part = self.table.part(ALL_DATA)
        return float(self.table.best_validation[self.nearest(genes), seed, part])

    @cached_property
    def optimum(self) -> float:
        """The best score in the table."""
        return float(self.table.true_score.max())

    @cached_property
    def median(self) -> float:
        """The median score of the random genotypes."""
        return float(np.median(self.table.true_score[self.table.sources == "random"]))

    def regret(self, genes: FloatArray) -> float:
        """How far below the best in the table, in per cent: 100 for the median random genotype."""
        return 100.0 * (self.optimum - self.true(genes)) / (self.optimum - self.median)

    @property
    def _guessing(self) -> float:
        """What a model scores of which nothing is trained."""
        return 1.0 / float(self.table.about["n_classes"])


def _trains(genes: FloatArray) -> bool:
    return bool(genes[:-1].max() > genes[-1])


def trust(table: Table) -> Mapping[str, float]:
    """How well the nearest recorded genotype predicts: each from the others, left out one by one.

    Returns:
        Of the true scores: their standard deviation, that of one seed around the mean of a
        genotype, the mean and median absolute error of the prediction, its rank correlation with
        the truth, and the median distance to the nearest.
    """
    phenotypes = decode(table.genes)
    apart = distances(phenotypes, phenotypes)
    np.fill_diagonal(apart, np.inf)
    nearest = apart.argmin(axis=1)
    truth, predicted = table.true_score, table.true_score[nearest]
    error = np.abs(predicted - truth)
    scores = table.test_score[:, :, table.part(ALL_DATA)]
    return {
        "genotypes": len(table),
        "standard deviation of genotypes": float(truth.std()),
        "standard deviation of seeds": float(np.sqrt(scores.var(axis=1, ddof=1).mean())),
        "mean absolute error": float(error.mean()),
        "median absolute error": float(np.median(error)),
        "rank correlation": float(spearmanr(predicted, truth).statistic),
        "median distance": float(np.median(apart.min(axis=1))),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--table", type=Path, default=TABLE)
    table = Table.load(parser.parse_args().table)
    for name, value in trust(table).items():
        print(f"{name:<32} {value:.4g}")
    validation = table.best_validation[:, :, table.part(ALL_DATA)]
    terrain = RealTable(0, table)
    ranks = spearmanr(validation.mean(axis=1), table.true_score).statistic
    print(f"{'validation and test, rank corr.':<32} {ranks:.4g}")
    print(f"{'best, median random':<32} {terrain.optimum:.4f} {terrain.median:.4f}")
    chosen = int(validation.mean(axis=1).argmax())
    print(f"{'regret of the best validation':<32} {terrain.regret(table.genes[chosen]):.1f}")


if __name__ == "__main__":
    main()
