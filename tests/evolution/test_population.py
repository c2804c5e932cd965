from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_biotune.evolution import Individual, minimised_fitness
from hf_biotune.evolution.population import (
    exploited,
    mating_pool,
    next_population,
    on_former_fold,
    rank,
    surpassed,
)
from hf_biotune.genotype import Genotype

GENOTYPE = Genotype((0.2, 0.8), 0.5)


def individual(fitness: float, number: int = 0, **arguments: object) -> Individual:
    return Individual(GENOTYPE, fitness, number, **arguments)  # type: ignore[arg-type]


def numbers(individuals: list[Individual]) -> list[int]:
    return [individual.number for individual in individuals]


@pytest.mark.parametrize(
    ("scores", "maximize", "fitness"),
    [
        ([0.75, 0.5], True, [0.25, 0.5]),
        ([3.0, 1.0], True, [0.0, 2.0]),
        ([-1.0, -4.0], True, [0.0, 3.0]),
        ([0.7, 2.3], False, [0.7, 2.3]),
        ([-1.0, 2.0], False, [0.0, 3.0]),
        ([0.5, math.nan, -math.inf], True, [0.5, 0.5, 0.5]),
        ([1.0, 3.0, math.inf, math.nan], False, [1.0, 3.0, 3.0, 3.0]),
        ([math.nan, math.inf], False, [1.0, 1.0]),
        ([], True, []),
    ],
)
def test_scores_become_minimised_fitness(
    scores: list[float], maximize: bool, fitness: list[float]
) -> None:
    np.testing.assert_allclose(minimised_fitness(scores, maximize=maximize), fitness)


@given(scores=st.lists(st.floats(-1e6, 1e6), min_size=1), maximize=st.booleans())
def test_fitness_is_finite_not_negative_and_keeps_the_order(
    scores: list[float], maximize: bool
) -> None:
    fitness = minimised_fitness(scores, maximize=maximize)
    assert np.isfinite(fitness).all()
    assert (fitness >= 0).all()
    best = int(np.argmax(scores) if maximize else np.argmin(scores))
    assert fitness[best] == fitness.min()


def test_individuals_rank_by_fitness_and_equals_keep_their_order() -> None:
    assert numbers(rank([individual(0.3, 0), individual(0.1, 1), individual(0.3, 2)])) == [1, 0, 2]


def test_a_pruned_individual_ranks_below_every_finished_one() -> None:
    pruned = individual(0.01, 0, fidelity=5.0)
    earlier = individual(0.0, 1, fidelity=2.0)
    assert numbers(rank([earlier, pruned, individual(0.9, 2)])) == [2, 0, 1]
    assert not pruned.beats(individual(0.9))
    assert individual(0.9).beats(pruned)


def test_individuals_of_different_folds_never_beat_each_other() -> None:
    assert not individual(0.1, fold=0).beats(individual(0.9, fold=1))
    assert individual(0.1, fold=1).beats(individual(0.9, fold=1))


def test_an_elite_is_replaced_only_by_a_better_neighbour() -> None:
    elite = individual(0.3, 0)
    assert exploited(elite, [individual(0.4, 1), individual(0.2, 2)]).number == 2
    assert exploited(elite, [individual(0.3, 1), individual(0.5, 2)]) is elite
    assert exploited(elite, []) is elite
    assert exploited(None, [individual(0.5, 2), individual(0.4, 1)]).number == 1
    assert exploited(None, []) is None


def test_the_next_population_holds_the_best_and_no_more() -> None:
    population = next_population(
        [individual(0.5, 0)], [individual(0.1 * n, n) for n in range(9, 0, -1)], 4
    )
    assert numbers(population) == [1, 2, 3, 4]


def test_a_parent_that_is_worse_than_its_child_leaves_the_pool() -> None:
    parents = [individual(0.1, 0), individual(0.5, 1), individual(0.6, 2)]
    child = individual(0.3, 3, parents=(0, 1))
    assert surpassed(parents, [child]) == {1}
    pool = mating_pool([(parents[0], parents[0])], parents[1:], [child])
    assert numbers(pool) == [0, 2]


def test_a_pruned_child_surpasses_no_finished_parent() -> None:
    child = individual(0.0, 3, parents=(0, 1), fidelity=3.0)
    assert surpassed([individual(0.9, 0), individual(0.9, 1)], [child]) == set()


def test_a_child_on_a_new_fold_surpasses_no_parent_scored_on_the_old_one() -> None:
    child = individual(0.1, 3, fold=1, parents=(0, 1))
    rescored = individual(0.5, 7, fold=1)
    assert surpassed([individual(0.9, 0, fold=0)], [child]) == set()
    assert surpassed([rescored], [individual(0.1, 8, fold=1, parents=(7, 1))]) == {7}


def test_an_elite_is_ranked_on_the_former_fold_by_what_exploitation_gained() -> None:
    former = individual(0.2, 0, fold=0)
    rescored = individual(0.6, 1, fold=1)  # a harder fold
    better = individual(0.5, 2, fold=1)
    ranked = on_former_fold(former, rescored, better)
    assert (ranked.number, ranked.fold) == (2, 0)
    assert ranked.fitness == pytest.approx(0.1)
    assert on_former_fold(former, rescored, rescored).fitness == pytest.approx(0.2)
    assert on_former_fold(former, None, None) is former


def test_gains_between_different_fidelities_do_not_count() -> None:
    former, rescored = individual(0.2), individual(0.6, fold=1, fidelity=3.0)
    assert on_former_fold(former, rescored, individual(0.1, fold=1)).fitness == 0.2
