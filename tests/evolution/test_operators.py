from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hf_biotune.evolution import operators
from hf_biotune.exceptions import GenotypeError

unit = st.floats(0.0, 1.0)
seeds = st.integers(0, 2**32)


def genes(n: int = 5) -> st.SearchStrategy[np.ndarray]:
    return arrays(float, n, elements=unit)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@given(n=st.integers(1, 60))
def test_selection_probabilities_are_linear_in_rank(n: int) -> None:
    probabilities = operators.selection_probabilities(n)
    assert probabilities.sum() == pytest.approx(1.0)
    assert probabilities[0] == pytest.approx(2 / (n + 1))
    np.testing.assert_allclose(-np.diff(probabilities), 2 / (n * (n + 1)))


def test_selection_probabilities_are_within_the_error_of_the_measured_ones() -> None:
    measured = {0: 0.186, 1: 0.152, 2: 0.139, 9: 0.016}
    probabilities = operators.selection_probabilities(10)
    for rank, frequency in measured.items():
        assert abs(probabilities[rank] - frequency) < 0.012


def test_selection_frequencies_are_the_probabilities() -> None:
    n_draws, n = 100_000, 10
    draws = operators.select(n, generator(), size=n_draws)[:, 0]
    expected = operators.selection_probabilities(n)
    frequencies = np.bincount(draws, minlength=n) / n_draws
    standard_errors = np.sqrt(expected * (1 - expected) / n_draws)
    assert (np.abs(frequencies - expected) < 3 * standard_errors).all()


def test_the_second_parent_is_drawn_by_rank_among_the_rest() -> None:
    n_draws, n = 100_000, 4
    pairs = operators.select(n, generator(1), n_selected=2, size=n_draws)
    p = operators.selection_probabilities(n)
    expected = np.outer(p, p) / (1 - p)[:, None]
    np.fill_diagonal(expected, 0.0)
    counts = np.zeros((n, n))
    np.add.at(counts, (pairs[:, 0], pairs[:, 1]), 1)
    standard_errors = np.sqrt(expected * (1 - expected) / n_draws)
    assert (np.abs(counts / n_draws - expected) <= 3 * standard_errors).all()


@given(n=st.integers(2, 20), seed=seeds)
def test_parents_of_one_child_differ(n: int, seed: int) -> None:
    pairs = operators.select(n, generator(seed), n_selected=2, size=50)
    assert pairs.shape == (50, 2)
    assert (pairs[:, 0] != pairs[:, 1]).all()
    assert ((pairs >= 0) & (pairs < n)).all()


@given(first=genes(), second=genes(), seed=seeds)
def test_crossover_stays_between_the_parents(
    first: np.ndarray, second: np.ndarray, seed: int
) -> None:
    child = operators.crossover(first, second, generator(seed))
    assert (child >= np.minimum(first, second)).all()
    assert (child <= np.maximum(first, second)).all()


@given(parent=genes(), seed=seeds)
def test_crossover_of_equal_parents_is_exact(parent: np.ndarray, seed: int) -> None:
    np.testing.assert_array_equal(operators.crossover(parent, parent, generator(seed)), parent)


def test_crossover_draws_one_uniform_ratio_for_each_gene() -> None:
    ratios = operators.crossover(np.ones((20_000, 2)), np.zeros((20_000, 2)), generator())
    np.testing.assert_allclose(ratios.mean(axis=0), 0.5, atol=3 * np.sqrt(1 / 12 / 20_000))
    np.testing.assert_allclose(ratios.var(axis=0), 1 / 12, rtol=0.05)
    assert abs(np.corrcoef(ratios.T)[0, 1]) < 0.03


@given(
    fitness=st.lists(st.floats(0.0, 1e6), min_size=2, max_size=30).map(sorted),
)
def test_extinction_rises_from_zero_to_one(fitness: list[float]) -> None:
    extinction = operators.extinction(fitness)
    assert extinction[0] == pytest.approx(0.0, abs=1e-12)
    assert extinction[-1] == pytest.approx(1.0)
    assert (np.diff(extinction) >= -1e-12).all()
    assert ((extinction >= 0) & (extinction <= 1)).all()


def test_extinction_follows_the_published_formula() -> None:
    fitness = np.array([0.2, 0.3, 0.5])
    expected = [(f + 0.2 * (i / 2 - 1)) / 0.5 for i, f in enumerate(fitness)]
    np.testing.assert_allclose(operators.extinction(fitness), expected)


@pytest.mark.parametrize("value", [0.0, 0.25, 1e-300, 7.0])
def test_extinction_of_tied_fitness_is_the_rank(value: float) -> None:
    np.testing.assert_allclose(operators.extinction([value] * 5), [0, 0.25, 0.5, 0.75, 1])


def test_extinction_of_a_single_individual_is_zero() -> None:
    assert operators.extinction([0.3]).tolist() == [0.0]


@given(extinction=unit, n=st.integers(1, 50))
def test_mutation_rate_lies_between_one_gene_and_all(extinction: float, n: int) -> None:
    rate = float(operators.mutation_rate(extinction, n))
    assert 1 / n - 1e-12 <= rate <= 1 + 1e-12
    assert float(operators.mutation_rate(0.0, n)) == pytest.approx(1 / n)
    assert float(operators.mutation_rate(1.0, n)) == pytest.approx(1.0)


@given(individual=genes(), extinction=unit, seed=seeds)
def test_mutation_moves_a_gene_by_at_most_the_extinction(
    individual: np.ndarray, extinction: float, seed: int
) -> None:
    mutant = operators.mutate(individual, extinction, generator(seed))
    assert ((mutant >= 0) & (mutant <= 1)).all()
    assert (np.abs(mutant - individual) <= extinction + 1e-12).all()


@pytest.mark.parametrize("extinction", [0.1, 0.5, 1.0])
def test_genes_mutate_at_the_mutation_rate(extinction: float) -> None:
    n_draws, n = 20_000, 5
    individual = np.full((n_draws, n), 0.5)
    mutants = operators.mutate(individual, np.full(n_draws, extinction), generator())
    expected = float(operators.mutation_rate(extinction, n))
    error = 3 * np.sqrt(max(expected * (1 - expected), 1e-9) / (n_draws * n))
    assert abs((mutants != 0.5).mean() - expected) <= error


@given(individual=genes(), mean=genes(), prototype=genes(), seed=seeds)
def test_adoption_stays_between_child_parents_and_prototype(
    individual: np.ndarray, mean: np.ndarray, prototype: np.ndarray, seed: int
) -> None:
    adopted = operators.adopt(individual, mean, prototype, generator(seed))
    corners = np.stack([individual, mean, prototype])
    assert (adopted >= corners.min(axis=0) - 1e-12).all()
    assert (adopted <= corners.max(axis=0) + 1e-12).all()
    assert ((adopted >= 0) & (adopted <= 1)).all()


def test_adoption_goes_a_quarter_of_the_way_to_each_on_average() -> None:
    n = 40_000
    child = np.zeros((n, 2))
    adopted = operators.adopt(
        child, np.tile([1.0, 0.0], (n, 1)), np.tile([0.0, 1.0], (n, 1)), generator()
    )
    np.testing.assert_allclose(adopted.mean(axis=0), 0.25, atol=0.005)


@given(individual=genes(), seed=seeds)
def test_exploitation_moves_one_trained_gene_to_both_sides(
    individual: np.ndarray, seed: int
) -> None:
    individual[-1] = min(individual[-1], 0.9)
    individual[0] = 1.0
    plus, minus = operators.exploit(individual, generator(seed), size=20)
    for neighbours in (plus, minus):
        assert ((neighbours >= 0) & (neighbours <= 1)).all()
        changed = neighbours != individual
        assert (changed.sum(axis=1) <= 1).all()
        assert not changed[:, :-1][:, individual[:-1] <= individual[-1]].any()
        assert not changed[:, -1].any()
        assert (np.abs(neighbours - individual) <= 0.25 + 1e-12).all()


def test_the_two_sides_of_an_exploitation_mirror_each_other() -> None:
    individual = np.array([0.5, 0.6, 0.1, 0.3])
    plus, minus = operators.exploit(individual, generator(), size=1000)
    np.testing.assert_allclose((plus + minus) / 2, np.tile(individual, (1000, 1)))
    steps = (plus - individual)[:, :2].sum(axis=1)
    assert -0.25 <= steps.min() < -0.24 < 0.24 < steps.max() <= 0.25


def test_only_an_individual_that_trains_a_block_is_exploited() -> None:
    with pytest.raises(GenotypeError, match=r"freezing_threshold 0\.5"):
        operators.exploit([0.2, 0.5, 0.5], generator())


@given(values=arrays(float, 6, elements=st.floats(-1e9, 1e9)))
def test_clipping_moves_genes_to_the_nearest_allowed_value(values: np.ndarray) -> None:
    clipped = operators.clip(values)
    assert ((clipped >= 0) & (clipped <= 1)).all()
    inside = (values >= 0) & (values <= 1)
    np.testing.assert_array_equal(clipped[inside], values[inside])


@settings(max_examples=30)
@given(first=genes(), second=genes(), seed=seeds)
def test_operators_leave_their_arguments_alone(
    first: np.ndarray, second: np.ndarray, seed: int
) -> None:
    first[0], first[-1] = 1.0, 0.5
    kept = first.copy(), second.copy()
    operators.crossover(first, second, generator(seed))
    operators.mutate(first, 0.5, generator(seed))
    operators.adopt(first, second, second, generator(seed))
    operators.exploit(first, generator(seed), size=3)
    np.testing.assert_array_equal(first, kept[0])
    np.testing.assert_array_equal(second, kept[1])
