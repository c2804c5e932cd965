"""Individuals and what happens to a population of them, as pure functions.

Fitness is compared within one fold and one fidelity only. The published program compares an elite's
fitness on the new fold with its fitness on the old one, where an easier fold passes for progress.

Source: BioTune, arXiv 2508.15367, section 3 (evolutionary search).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from ..genotype import Genotype
from .operators import FloatArray

FULL_FIDELITY = math.inf


@dataclass(frozen=True)
class Individual:
    """A genotype that was trained, and how well it did.

    Args:
        genotype: its genes.
        fitness: minimised, not negative; see [`minimised_fitness`].
        number: of the trial that trained it.
        fold: the fold that it was scored on.
        fidelity: `FULL_FIDELITY`, or the step after which its training was stopped (pruned).
        parents: the numbers of the trials that it descends from, two for offspring.
    """

    genotype: Genotype
    fitness: float
    number: int
    fold: int = 0
    fidelity: float = FULL_FIDELITY
    parents: tuple[int, ...] = ()

    @property
    def standing(self) -> tuple[float, float]:
        """What individuals are ranked by: longer training first, then fitness.

        A pruned individual was stopped because it was behind, and its score at that time isn't one
        of a finished training; so it ranks below all that finished, whatever the numbers say.
        """
        return (-self.fidelity, self.fitness)

    def beats(self, other: Individual) -> bool:
        """Whether this one is strictly better; never across folds, and a tie is no win."""
        return self.fold == other.fold and self.standing < other.standing


def minimised_fitness(
    scores: ArrayLike, *, maximize: bool, shift: float | None = None
) -> FloatArray:
    """The scores of a study as fitness: minimised and not negative.

    | the study | fitness |
    |---|---|
    | maximises scores in [0, 1], such as an accuracy | `1 - score` (the paper's) |
    | maximises other scores | `max(scores) - score` |
    | minimises a loss that is never negative | `loss` |
    | minimises other losses | `loss - min(losses)` |

    Args:
        scores: of all individuals, shape (N,); infinite or NaN for a training that diverged.
        maximize: whether greater scores are better.
        shift: added to what is minimised. Default: that of these scores, see [`shift_of`].

    Returns:
        Shape (N,), finite; not negative with the default shift. Scores that aren't finite get the
        worst fitness of those that are.

    Example:
        >>> minimised_fitness([0.75, 0.5, float("nan")], maximize=True)
        array([0.25, 0.5 , 0.5 ])
        >>> minimised_fitness([-1.0, 2.0], maximize=False)
        array([0., 3.])

    Source: arXiv 2508.15367, fitness (1 - accuracy, or the loss); the other rows keep extinction,
    a ratio of fitnesses, in [0, 1].
    """
    losses = np.asarray(scores, dtype=float) * (-1.0 if maximize else 1.0)
    finite = np.isfinite(losses)
    if not finite.any():
        return np.ones(len(losses))
    offset = shift_of(scores, maximize) if shift is None else shift
    return np.where(finite, losses, losses[finite].max()) + offset


def shift_of(scores: ArrayLike, maximize: bool) -> float:
    """What [`minimised_fitness`] adds to scores (or to minus the scores) so that none is negative.

    Args:
        scores: shape (N,).
        maximize: whether greater scores are better.
    """
    losses = np.asarray(scores, dtype=float) * (-1.0 if maximize else 1.0)
    losses = losses[np.isfinite(losses)]
    if not len(losses):
        return 0.0
    best, worst = float(losses.min()), float(losses.max())
    if maximize:
        return 1.0 if best >= -1.0 and worst <= 0.0 else -best
    return max(0.0, -best)


def rank(individuals: Iterable[Individual]) -> list[Individual]:
    """Individuals, best first: those that finished before pruned ones, then by fitness.

    Args:
        individuals: scored on one fold.

    Returns:
        A new list; equals stay in their order.
    """
    return sorted(individuals, key=lambda individual: individual.standing)


def exploited(elite: Individual | None, neighbours: Iterable[Individual]) -> Individual | None:
    """The elite, or the neighbour that replaces it because it is better on the same fold.

    Args:
        elite: as scored on the fold of the neighbours; `None` if that scoring failed.
        neighbours: the individuals made by exploiting the elite.

    Returns:
        The best of them; of equals the elite; `None` if there is none.

    Source: arXiv 2508.15367, exploitation of elites.
    """
    best = elite
    for neighbour in rank(neighbours):
        if best is None or neighbour.beats(best):
            best = neighbour
    return best


def next_population(
    elites: Iterable[Individual], offspring: Iterable[Individual], size: int
) -> list[Individual]:
    """The exploited elites and the offspring of a generation, best first, at most `size`.

    Args:
        elites: as left by [`exploited`].
        offspring: of the same generation, scored on the same fold; more than fit in if several
            workers have overfilled the generation.
        size: of a population.

    Source: arXiv 2508.15367, next generation.
    """
    return rank([*elites, *offspring])[:size]


def surpassed(parents: Iterable[Individual], children: Sequence[Individual]) -> set[int]:
    """The numbers of the parents that are worse than a child of theirs, scored on the same fold.

    Args:
        parents: members of the mating pool.
        children: those of the present generation that have been trained.

    Source: arXiv 2508.15367, mating pool.
    """
    return {
        parent.number
        for parent in parents
        for child in children
        if parent.number in child.parents[:2] and child.beats(parent)
    }


def on_former_fold(
    former: Individual, rescored: Individual | None, current: Individual | None
) -> Individual:
    """What an exploited elite would have scored on the fold of its former generation.

    Its former fitness, plus the difference that exploitation made on the new fold. So an elite can
    be ranked among those that were scored on the former fold only.

    Args:
        former: the elite as the former generation left it.
        rescored: the same genes, scored on the new fold; the same as `former` if there is one fold.
        current: the elite as exploitation left it, scored on the new fold.

    Returns:
        `current` with its fitness and fold moved to those of `former`; `former` if nothing is known
        about the new fold.
    """
    if current is None:
        return former
    known = rescored is not None and rescored.fidelity == current.fidelity
    gain = current.fitness - rescored.fitness if rescored is not None and known else 0.0
    return replace(current, fitness=max(0.0, former.fitness + gain), fold=former.fold)


def mating_pool(
    elites: Sequence[tuple[Individual, Individual]],
    others: Sequence[Individual],
    children: Sequence[Individual],
) -> list[Individual]:
    """Who may still have offspring in this generation, best first.

    Args:
        elites: each as scored on the present fold, and as ranked among the others (see
            [`on_former_fold`]); the same individual twice if there is one fold.
        others: the rest of the population.
        children: those of this generation that have been trained.

    Returns:
        Elites and others, without those that a child has surpassed. With two or fewer left, random
        individuals take the place of offspring.

    Source: arXiv 2508.15367, mating pool.
    """
    gone = surpassed([*(scored for scored, _ in elites), *others], children)
    members = [*(ranked for _, ranked in elites), *others]
    return [individual for individual in rank(members) if individual.number not in gone]
