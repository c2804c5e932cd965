"""One generation in the making: who its elites are, who may breed, who survives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .plan import Plan
from .population import (
    Individual,
    exploited,
    mating_pool,
    next_population,
    on_former_fold,
    rank,
)
from .scheme import Role, Scheme


@dataclass(frozen=True)
class Generation:
    """A generation, as far as its trials have finished.

    Args:
        index: from 0.
        scheme: what its slots are for.
        parents: the population that it descends from, best first; empty for generation 0.
        members: its finished individuals.
        plans: of all trials, by number.

    Source: arXiv 2508.15367, section 3 (evolutionary search).
    """

    index: int
    scheme: Scheme
    parents: Sequence[Individual]
    members: Sequence[Individual]
    plans: Mapping[int, Plan]

    @property
    def elites(self) -> Sequence[Individual]:
        """The best of the parents, which are exploited and survive."""
        return self.parents[: self.scheme.n_elites]

    def children(self) -> list[Individual]:
        """The members that are new: neither elites nor their neighbours."""
        return [member for member in self.members if self._role(member) in _NEW]

    def survivors(self) -> list[Individual]:
        """The population that the next generation descends from, best first.

        All of them have been scored on the fold of this generation. An elite that couldn't be
        scored on it, nor any neighbour, is lost.
        """
        elites = [self._exploited(index) for index in range(len(self.elites))]
        kept = [elite for elite in elites if elite is not None]
        return next_population(kept, self.children(), self.scheme.population_size)

    def pool(self) -> list[Individual]:
        """Who may have offspring, best first."""
        elites = []
        for index, former in enumerate(self.elites):
            scored = self._exploited(index)
            if self.scheme.n_folds == 1:
                elites.append((scored or former, scored or former))
            else:
                ranked = on_former_fold(former, self._rescored(index), scored)
                elites.append((scored or former, ranked))
        return mating_pool(elites, self.parents[self.scheme.n_elites :], self.children())

    def _rescored(self, elite: int) -> Individual | None:
        """An elite as scored on the fold of this generation."""
        if self.scheme.n_folds == 1:
            return self.elites[elite]
        return next(iter(rank(self._of_elite("rescore", elite))), None)

    def _exploited(self, elite: int) -> Individual | None:
        return exploited(self._rescored(elite), self._of_elite("exploit", elite))

    def _of_elite(self, role: Role, elite: int) -> list[Individual]:
        return [
            member
            for member in self.members
            if self._role(member) == role
            and self.scheme.duty(self.index, self.plans[member.number].slot).elite == elite
        ]

    def _role(self, member: Individual) -> Role:
        return self.plans[member.number].role


_NEW: tuple[Role, ...] = ("initial", "offspring", "random")
