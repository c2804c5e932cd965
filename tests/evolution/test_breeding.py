from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from hf_biotune.evolution import breeding, operators

seeds = st.integers(0, 2**32)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@given(n_genes=st.integers(2, 20), seed=seeds, size=st.integers(1, 40))
def test_random_individuals_train_a_block(n_genes: int, seed: int, size: int) -> None:
    genes = breeding.random_individuals(n_genes, generator(seed), size)
    assert genes.shape == (size, n_genes)
    assert operators.is_valid(genes).all()
    assert ((genes >= 0) & (genes <= 1)).all()


@settings(max_examples=25)
@given(n_genes=st.integers(2, 15), seed=seeds, index=st.integers(0, 40))
def test_spread_individuals_train_a_block(n_genes: int, seed: int, index: int) -> None:
    genes = breeding.spread_individual(n_genes, seed, index)
    assert genes.shape == (n_genes,)
    assert operators.is_valid(genes)
    assert ((genes >= 0) & (genes <= 1)).all()


def test_spread_individuals_fill_the_space_more_evenly_than_random_ones() -> None:
    def roughness(genes: np.ndarray) -> float:
        return float(np.mean([kstest(column, "uniform").statistic for column in genes[:, :-1].T]))

    spread, random = [], []
    for seed in range(20):
        points = [breeding.spread_individual(13, seed, index) for index in range(10)]
        spread.append(roughness(np.array(points)))
        random.append(roughness(breeding.random_individuals(13, generator(seed), 10)))
    assert np.mean(spread) < 0.75 * np.mean(random)


def test_spread_individuals_all_differ() -> None:
    genes = {tuple(breeding.spread_individual(2, 7, index)) for index in range(64)}
    assert len(genes) == 64


@given(seed=seeds, sign=st.sampled_from([1, -1]), data=st.data())
def test_exploits_train_a_block_and_change_one_gene(
    seed: int, sign: int, data: st.DataObject
) -> None:
    n_blocks = data.draw(st.integers(1, 6))
    elite = np.array(
        data.draw(st.lists(st.floats(0, 1), min_size=n_blocks + 1, max_size=n_blocks + 1))
    )
    elite[0] = max(elite[0], elite[-1] + 1e-3)
    elite = np.clip(elite, 0, 1)
    elite[-1] = min(elite[-1], elite[0] - 1e-6)
    if elite[-1] < 0:
        return
    neighbours = breeding.exploits(elite, sign, generator(seed), 10)
    assert operators.is_valid(neighbours).all()
    assert ((neighbours >= 0) & (neighbours <= 1)).all()
    assert (neighbours != elite).any(axis=1).all()


def test_an_elite_at_the_border_is_still_moved() -> None:
    elite = np.array([1.0, 0.2, 0.5])
    for sign in (1, -1):
        neighbours = breeding.exploits(elite, sign, generator(3), 200)
        assert (neighbours[:, 0] < 1.0).all()
        assert (neighbours[:, 1:] == elite[1:]).all()


@given(seed=seeds, n=st.integers(2, 12), size=st.integers(1, 30))
def test_offspring_train_a_block_and_know_their_parents(seed: int, n: int, size: int) -> None:
    pool = breeding.random_individuals(6, generator(seed), n)
    fitness = np.sort(generator(seed).random(n))
    children, parents = breeding.offspring(pool, fitness, generator(seed + 1), size)
    assert children.shape == (size, 6)
    assert operators.is_valid(children).all()
    assert ((children >= 0) & (children <= 1)).all()
    assert ((parents >= 0) & (parents < n)).all()
    assert (parents[:, 0] != parents[:, 1]).all()


def test_children_that_select_no_block_are_bred_again() -> None:
    # Half of the first draws of this pool select nothing: thresholds high, genes low.
    pool = np.array([[0.95, 0.1, 0.9], [0.1, 0.95, 0.9], [0.92, 0.1, 0.9]])
    first, second = pool[[0, 1]]
    middle = operators.crossover(np.tile(first, (1000, 1)), np.tile(second, (1000, 1)), generator())
    assert operators.is_valid(middle).mean() < 0.5
    children, parents = breeding.offspring(pool, [0.1, 0.2, 0.3], generator(), 1000)
    assert operators.is_valid(children).all()
    assert (parents >= 0).mean() > 0.99


def test_a_pool_whose_children_never_select_a_block_gives_random_individuals() -> None:
    pool = np.array([[0.0, 0.0, 1.0]] * 3)  # ties at threshold 1 with zero extinction
    children, parents = breeding.offspring(pool, [0.0, 0.0, 0.0], generator(1), 50)
    assert operators.is_valid(children).all()
    assert children.shape == (50, 3)
    assert parents.shape == (50, 2)


@pytest.mark.parametrize("size", [1, 8])
def test_breeding_is_a_function_of_its_arguments(size: int) -> None:
    pool = breeding.random_individuals(5, generator(), 4)
    for _ in range(2):
        results = [
            breeding.offspring(pool, [0.1, 0.2, 0.3, 0.4], generator(5), size)[0] for _ in range(2)
        ]
        np.testing.assert_array_equal(*results)
