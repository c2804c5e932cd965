"""Which candidate is trained, and what it costs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import Trial
from searches import BLOCKS, new_study, run

from hf_biotune.evolution import breeding, genotype_of, suggest_genotype
from hf_biotune.evolution.screening import Screening, effort
from hf_biotune.evolution.surrogate import KERNELS, Observations, Surrogate, features


def model() -> Surrogate:
    """Of a score to which each block adds as much, so that training all is best."""
    drawn = breeding.random_individuals(5, np.random.default_rng(0), 30)
    fitness = 1.0 - (drawn[:, :4] > drawn[:, 4:]).mean(axis=1)
    return Surrogate(Observations(features(drawn), fitness, np.zeros(30)), KERNELS[0])


@pytest.mark.parametrize(
    ("genes", "expected"),
    [
        ([0.9, 0.1, 0.1, 0.1, 0.5], 1.0),
        ([0.1, 0.9, 0.1, 0.9, 0.5], 0.8),
        ([0.1, 0.1, 0.1, 0.9, 0.5], 0.4),
        ([0.1, 0.1, 0.1, 0.1, 0.5], 0.2),
        # A gene that only equals the threshold does not train its block.
        ([0.5, 0.6, 0.1, 0.1, 0.5], 0.8),
    ],
)
def test_what_is_frozen_before_the_first_trained_block_costs_nothing(
    genes: list[float], expected: float
) -> None:
    assert effort(np.array([genes]))[0] == pytest.approx(expected)
    assert effort(np.array([[*genes, 0.99]]), n_extra=1)[0] == pytest.approx(expected)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=9))
def test_to_train_one_block_more_is_never_cheaper(genes: list[float]) -> None:
    before = effort(np.array([genes]))[0]
    assert 0 < before <= 1
    for block in range(len(genes) - 1):
        more = [1.0 if number == block else gene for number, gene in enumerate(genes[:-1])]
        assert effort(np.array([[*more, min(genes[-1], 0.99)]]))[0] >= before


def test_the_cheaper_of_two_that_promise_nearly_as_much_is_trained() -> None:
    surrogate = model()
    everything = [0.9, 0.9, 0.9, 0.9, 0.5]
    all_but_the_first = [0.1, 0.9, 0.9, 0.9, 0.5]
    head = [0.1, 0.1, 0.1, 0.9, 0.5]
    candidates = np.array([everything, all_but_the_first, head])
    promises = surrogate.expected_improvement(features(candidates))
    assert promises[0] > promises[1] > promises[2]
    assert Screening(3).most_promising(candidates, surrogate) == 0
    per_effort = promises / [1.0, 0.8, 0.4]
    expected = int(np.argmax(per_effort))
    assert Screening(3, prefer_cheap=True).most_promising(candidates, surrogate) == expected
    # As good as each other, but for what they cost.
    twins = np.array([[0.9, 0.1, 0.1, 0.1, 0.5], [0.1, 0.1, 0.1, 0.9, 0.5]])
    alike = Surrogate(
        Observations(features(candidates), np.array([0.5, 0.5, 0.5]), np.zeros(3)),
        KERNELS[0]._replace(matern=0.0, linear=2.0, pairs=0.0),
    )
    assert Screening(2).most_promising(twins, alike) == 0
    assert Screening(2, prefer_cheap=True).most_promising(twins, alike) == 1


def test_where_blocks_do_not_matter_a_search_freezes_the_first_ones() -> None:
    def score(trial: Trial) -> float:
        suggest_genotype(trial, BLOCKS)
        return float(np.random.default_rng(trial.number).normal())

    efforts = {}
    for prefer_cheap in (False, True):
        found = []
        for seed in range(3):
            study = new_study(prefer_cheap=prefer_cheap, seed=seed, n_candidates=200)
            run(study, 30, score)
            genes = [genotype_of(trial, BLOCKS).to_array() for trial in study.trials]
            # The first six are the same in both.
            found.append(effort(np.array(genes[6:])).mean())
        efforts[prefer_cheap] = np.mean(found)
    assert efforts[True] < efforts[False] - 0.02, efforts


def test_the_published_algorithm_has_nothing_to_weigh() -> None:
    studies = [new_study(surrogate=False, prefer_cheap=prefer) for prefer in (False, True)]
    for study in studies:
        run(study, 20)
    first, second = ([trial.params for trial in study.trials] for study in studies)
    assert first == second
