"""What a trial could train: candidates for one slot of a generation.

Source: BioTune, arXiv 2508.15367, section 3 (evolutionary search).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..genotype import Genotype
from . import breeding
from .generation import Generation
from .operators import FloatArray
from .scheme import Role

# A mating pool of so few breeds no more; random individuals take the place of its offspring.
EXHAUSTED_POOL = 2

# Each purpose has its own stream of random numbers, named by the first number of its seed.
_SLOT_STREAM, _PAIR_STREAM, _OPEN_STREAM = 1, 2, 4
# Drawn for the genes that a user left open, until the genotype trains a block.
N_STRANGERS = 100


class Candidate(NamedTuple):
    """Genes that a trial could train.

    Args:
        role: see [`~plan.Plan`].
        genes: in the order of [`Genotype.to_array`].
        parents: numbers of the trials that it descends from.
    """

    role: Role
    genes: FloatArray
    parents: tuple[int, ...] = ()


@dataclass(frozen=True)
class Nursery:
    """Makes the candidates. They depend on the seed and the generation, not on earlier calls.

    Args:
        n_genes: number of blocks + 1 + number of extra genes.
        seed: not negative.
        spread: whether generation 0 fills the space evenly, instead of being drawn from U[0, 1].
        first: the individuals of generation 0's first slots.
        n_extra: number of extra genes.
    """

    n_genes: int
    seed: int
    spread: bool
    first: tuple[Genotype, ...] = ()
    n_extra: int = 0

    def candidates(self, generation: Generation, slot: int, size: int) -> list[Candidate]:
        """Candidates for a slot.

        Args:
            generation: as far as it has got.
            slot: from 0; past the last one there are more of the kind of the last.
            size: how many; an initial individual and an elite that is scored again are just one.
                With more than one, as many offspring compete with an elite's neighbours.

        Returns:
            At least one; each trains at least one block, except copies of a parent that doesn't.
        """
        duty = generation.scheme.duty(generation.index, slot)
        if duty.role == "initial":
            return [Candidate("initial", self.initial(slot))]
        if duty.role != "offspring" and duty.elite < len(generation.elites):
            elite = generation.elites[duty.elite]
            genes, parents = elite.genotype.to_array(), (elite.number,)
            if duty.role == "rescore":
                return [Candidate("rescore", genes, parents)]
            if elite.genotype.is_valid:
                # Both neighbours of an elite draw from one stream: they are +d and -d of one step.
                pairs = self._generator(_PAIR_STREAM, generation.index, duty.elite)
                neighbours = [
                    Candidate("exploit", neighbour, parents)
                    for neighbour in breeding.exploits(genes, duty.sign, pairs, size, self.n_extra)
                ]
                # Measured: one gene of an elite moved is often less promising than an offspring.
                rivals = self._offspring(generation, slot, size) if size > 1 else []
                return neighbours + rivals
        return self._offspring(generation, slot, size)

    def initial(self, slot: int) -> FloatArray:
        """An individual of generation 0. Shape (n_genes,)."""
        if slot < len(self.first):
            return np.asarray(self.first[slot].to_array())
        if self.spread:
            return breeding.spread_individual(self.n_genes, self.seed, slot, self.n_extra)
        generator = self._generator(_SLOT_STREAM, 0, slot)
        return np.asarray(self._strangers(generator, 1)[0])

    def strangers(self, slot: int) -> Iterator[FloatArray]:
        """Random individuals for a slot of generation 0, so many that one should be found fit."""
        generator = self._generator(_OPEN_STREAM, 0, slot)
        if self.spread:
            yield breeding.spread_individual(self.n_genes, self.seed, slot, self.n_extra)
        yield from self._strangers(generator, N_STRANGERS)

    def _offspring(self, generation: Generation, slot: int, size: int) -> list[Candidate]:
        generator = self._generator(_SLOT_STREAM, generation.index, slot)
        pool = generation.pool()
        if len(pool) <= EXHAUSTED_POOL:
            return [Candidate("random", genes) for genes in self._strangers(generator, size)]
        pool_genes = np.array([individual.genotype.to_array() for individual in pool])
        # A pruned individual is no better than the last one that finished: fitness rises with rank.
        fitness = np.maximum.accumulate([individual.fitness for individual in pool])
        children, ranks = breeding.offspring(pool_genes, fitness, generator, size, self.n_extra)
        return [
            Candidate("random", genes)
            if parents[0] < 0
            else Candidate("offspring", genes, tuple(pool[parent].number for parent in parents))
            for genes, parents in zip(children, ranks.tolist(), strict=True)
        ]

    def _strangers(self, generator: np.random.Generator, size: int) -> FloatArray:
        return breeding.random_individuals(self.n_genes, generator, size, self.n_extra)

    def _generator(self, stream: int, generation: int, place: int) -> np.random.Generator:
        return np.random.default_rng([stream, self.seed, generation, place])
