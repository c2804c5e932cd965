"""Who does what in a generation: the slots that its trials fill, one after another.

Source: BioTune, arXiv 2508.15367, section 3 (evolutionary search); rescoring elites is ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Role = Literal["initial", "rescore", "exploit", "offspring", "random", "sampled"]
ROLES: tuple[Role, ...] = get_args(Role)


@dataclass(frozen=True)
class Duty:
    """What the trial in a slot is for.

    Args:
        role: `"initial"`, `"rescore"`, `"exploit"` or `"offspring"`.
        elite: which elite is scored again or exploited, 0 being the best.
        sign: +1 or -1, the side on which it is exploited.
    """

    role: Role
    elite: int = 0
    sign: int = 0


@dataclass(frozen=True)
class Scheme:
    """The slots of each generation.

    Generation 0 has one slot per individual. A later one scores its elites again if there are
    several folds, then tries two neighbours of each elite, then fills the rest with offspring:
    10 + 10 x (2 x 3 + 7) = 140 trials for the paper's population of 10, 3 elites, 10 generations
    and elites that keep their score.

    Args:
        population_size: individuals in a population.
        n_elites: how many of them are exploited and survive, at most `population_size`.
        n_folds: generation g is scored on fold g mod n_folds.

    Source: arXiv 2508.15367, search budget.
    """

    population_size: int
    n_elites: int
    n_folds: int = 1

    @property
    def n_rescores(self) -> int:
        """How many slots score an elite again on the new fold, in generations after the first."""
        return self.n_elites if self.n_folds > 1 else 0

    @property
    def first_offspring(self) -> int:
        """The first slot that is for offspring, in generations after the first."""
        return self.n_rescores + 2 * self.n_elites

    def n_slots(self, generation: int) -> int:
        """How many trials complete a generation."""
        if generation == 0:
            return self.population_size
        return self.first_offspring + self.population_size - self.n_elites

    def fold(self, generation: int) -> int:
        """The fold that a generation is scored on."""
        return generation % self.n_folds

    def duty(self, generation: int, slot: int) -> Duty:
        """What the trial in a slot is for. Slots past the last hold additional individuals."""
        if generation == 0:
            return Duty("initial")
        if slot < self.n_rescores:
            return Duty("rescore", elite=slot)
        if slot < self.first_offspring:
            elite, side = divmod(slot - self.n_rescores, 2)
            return Duty("exploit", elite=elite, sign=-1 if side else 1)
        return Duty("offspring")
