"""What a search intends to do with its budget, and what it did.

A small budget needs a small population: with ten individuals in the first generation, a budget of
twelve would end before anything has been bred.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from optuna.trial import FrozenTrial

from ..evolution import Scheme, plan_of
from .fitness_result import FitnessResult
from .halving import rung_epoch
from .history import REUSED_KEY, fitness_of, spent_trainings

if TYPE_CHECKING:
    from .search_config import SearchConfig

# Units of one full training that an individual costs on average, measured on searches of 20 to 40
# trainings on a table of real ones. Patience ends some early, halving many; leaders cost more.
COST_OF_INDIVIDUAL = 0.95
COST_OF_HALVED_INDIVIDUAL = 0.6
COST_OF_RACING = 0.15
LARGEST_POPULATION, SMALLEST_POPULATION = 10, 4
ELITE_SHARE = 0.3
# Of all individuals, so that a small budget still breeds. With half as many, searches of 8 to 16
# trainings were worse on the same table: .839 instead of .858, and .869 instead of .876.
FIRST_GENERATION_SHARE = 0.65
# Two, so that the best of what people do by hand is among them.
TRAININGS_PER_FINALIST, FEWEST_FINALISTS = 5.0, 2
# With how many seeds every finalist is trained, however little of the budget is left.
SURE_SEEDS = 2


@dataclass(frozen=True)
class BudgetPlan:
    """What a search intends to do with its budget; estimates, since trainings end early.

    Args:
        population_size: individuals in the first generation.
        n_elites: how many of the best are refined and kept.
        rung: the epoch after which halving stops most trainings; 0 if it doesn't.
        n_finalists: that the winner is chosen from.
        n_seeds: that a finalist may be trained with.
        trainings: that the budget pays for; `None`: no limit, or time that isn't measured yet.
        reserved: of these, for further seeds of the finalists.
        individuals: that will be tried; `None` like `trainings`.
        generations: after the first, the last one perhaps incomplete; `None` like `trainings`.
    """

    population_size: int
    n_elites: int
    rung: int
    n_finalists: int
    n_seeds: int
    trainings: float | None
    reserved: float
    individuals: int | None
    generations: int | None

    def __str__(self) -> str:
        sizes = f"population {self.population_size} with {self.n_elites} elites"
        finals = f"{self.n_finalists} finalists with up to {self.n_seeds} seeds each"
        halving = f"halving after epoch {self.rung}" if self.rung else "no halving"
        if self.individuals is None:
            return f"{sizes}; {halving}; {finals}"
        tried = f"about {self.individuals} individuals in {self.generations} generations"
        return f"{tried} after the first; {sizes}; {halving}; {finals}"


def population_of(budget_trainings: float | None, search: SearchConfig) -> tuple[int, int]:
    """The sizes of population and elite: those that the user set, and what fits the budget.

    Args:
        budget_trainings: that the budget pays for; `None` if that is unlimited or unknown.
        search: what the user set.

    Returns:
        Individuals of a generation, and how many of them are elites.
    """
    size, n_elites = search.population_size, search.n_elites
    if size is None:
        size = LARGEST_POPULATION
        if budget_trainings is not None:
            affordable = search_share(budget_trainings, search) / cost_of_individual(search)
            size = min(size, max(SMALLEST_POPULATION, int(affordable * FIRST_GENERATION_SHARE)))
        if n_elites is not None:
            size = max(size, n_elites + 2)
    if n_elites is None:
        n_elites = max(1, min(round(ELITE_SHARE * size), size - 2))
    return size, n_elites


def cost_of_individual(search: SearchConfig) -> float:
    """In units of one full training, on average."""
    cost = COST_OF_HALVED_INDIVIDUAL if search.halving else COST_OF_INDIVIDUAL
    if search.racing:
        cost += COST_OF_RACING
    return cost * search.seeds_per_individual / search.n_folds


def n_finalists_of(budget_trainings: float | None, search: SearchConfig) -> int:
    """How many finalists a budget pays for: of what the user set, one for each five trainings.

    Args:
        budget_trainings: that the budget pays for; `None` if that is unlimited or unknown.
        search: what the user set.
    """
    if budget_trainings is None:
        return search.n_finalists
    affordable = int(budget_trainings / TRAININGS_PER_FINALIST)
    return min(search.n_finalists, max(FEWEST_FINALISTS, affordable))


def reserved_trainings(budget_trainings: float | None, search: SearchConfig) -> float:
    """What the confirmation of the finalists will need, in units of one full training.

    With racing, what makes [`SURE_SEEDS`] of each, and more only if there is something left;
    without, all seeds.

    Args:
        budget_trainings: that the budget pays for; `None` if that is unlimited or unknown.
        search: the finalists, and the seeds that they have seen before.
    """
    n_finalists = n_finalists_of(budget_trainings, search)
    known = search.seeds_per_individual if search.n_folds == 1 else 0
    return float(n_finalists * max(0, n_sure_seeds(search) - known))


def n_sure_seeds(search: SearchConfig) -> int:
    """With how many seeds every finalist is trained, however little of the budget is left."""
    return min(SURE_SEEDS, len(search.seeds)) if search.racing else len(search.seeds)


def search_share(trainings: float, search: SearchConfig) -> float:
    """The part of a budget of trainings that individuals may spend."""
    return without_reserve(trainings, reserved_trainings(trainings, search))


def without_reserve(budget: float, reserved: float) -> float:
    """What individuals may spend: however small the budget, half of it is for trying.

    Args:
        budget: in any unit.
        reserved: of it, for the confirmation of finalists, in the same unit.
    """
    return max(budget - reserved, budget / 2)


def plan_budget(
    search: SearchConfig, epochs: int, seconds_per_fine_tuning: float | None = None
) -> BudgetPlan:
    """What a budget will be spent on.

    Args:
        search: with the sizes of its population.
        epochs: of a whole training.
        seconds_per_fine_tuning: as measured. Default: not measured yet.
    """
    trainings = search.parsed_budget.in_trainings(seconds_per_fine_tuning)
    size, n_elites = population_of(trainings, search)
    scheme = Scheme(size, n_elites, search.n_folds)
    individuals = None
    if trainings is not None:
        individuals = max(1, int(search_share(trainings, search) / cost_of_individual(search)))
    if search.generations is not None:
        last = sum(scheme.n_slots(g) for g in range(search.generations + 1))
        individuals = last if individuals is None else min(individuals, last)
    return BudgetPlan(
        population_size=size,
        n_elites=n_elites,
        rung=rung_epoch(epochs) if search.halving else 0,
        n_finalists=n_finalists_of(trainings, search),
        n_seeds=len(search.seeds),
        trainings=trainings,
        reserved=reserved_trainings(trainings, search),
        individuals=individuals,
        generations=None if individuals is None else _generations(scheme, individuals),
    )


def _generations(scheme: Scheme, individuals: int) -> int:
    """After the first, the last one perhaps incomplete."""
    later = max(0, individuals - scheme.n_slots(0))
    return math.ceil(later / scheme.n_slots(1))


@dataclass(frozen=True)
class BudgetReport:
    """What a search intended to do with its budget, and what it did.

    Args:
        plan: as it was at the end, with everything measured.
        individuals: that were tried, reused ones included.
        halved: of these, stopped at the rung.
        reused: of these, scored before.
        generations: after the first that were begun.
        raced: individuals that were trained with further seeds, as they took the lead.
        confirmed: further trainings of the finalists.
        trainings: that were spent, in units of a full training.
        seconds: that the trainings took.
    """

    plan: BudgetPlan
    individuals: int
    halved: int
    reused: int
    generations: int
    raced: int
    confirmed: int
    trainings: float
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.individuals} individuals in {self.generations} generations after the first "
            f"({self.halved} halved, {self.reused} reused, {self.raced} took the lead and got "
            f"further seeds); {self.confirmed} further trainings of finalists; "
            f"{self.trainings:.1f} full trainings, {self.seconds:.0f} s"
        )


def report_of(
    plan: BudgetPlan,
    trials: Sequence[FrozenTrial],
    confirmations: Sequence[FitnessResult],
    seeds_per_individual: int = 1,
) -> BudgetReport:
    """What a search did with its budget.

    Args:
        plan: of the budget.
        trials: all finished ones.
        confirmations: the trainings of its finalists.
        seeds_per_individual: that each had without taking the lead.
    """
    results = [fitness_of(trial) for trial in trials if REUSED_KEY not in trial.user_attrs]
    return BudgetReport(
        plan=plan,
        individuals=len(trials),
        halved=sum(fitness.was_halved for fitness in results),
        reused=len(trials) - len(results),
        generations=max((plan_of(trial).generation for trial in trials), default=0),
        raced=sum(len(fitness.runs) > seeds_per_individual for fitness in results),
        confirmed=len(confirmations),
        trainings=spent_trainings(trials) + sum(fitness.trainings for fitness in confirmations),
        seconds=sum(fitness.seconds for fitness in [*results, *confirmations]),
    )
