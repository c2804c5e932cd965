"""The choice among finalists by their scores."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_biotune.search.finalists import Finalist, best_of
from hf_biotune.search.fitness_result import FitnessResult, SeedRun
from hf_biotune.search.metrics import METRICS

ACCURACY = METRICS["accuracy"]


def finalist(trial, scores, parameters=100, in_contention=True):
    runs = tuple(SeedRun(seed, (), score, 1.0) for seed, score in scores.items())
    return Finalist(trial, FitnessResult(runs, parameters, 1.0), in_contention)


def test_the_best_mean_wins():
    finalists = [finalist(0, {1: 0.9, 2: 0.7}), finalist(1, {1: 0.8, 2: 0.9})]
    assert best_of(finalists, ACCURACY).trial == 1
    assert best_of(finalists, METRICS["loss"]).trial == 0


def test_of_equals_the_smaller_wins_and_then_the_earlier():
    equal = [finalist(0, {1: 0.9}), finalist(1, {1: 0.9}, 50), finalist(2, {1: 0.9}, 50)]
    assert best_of(equal, ACCURACY).trial == 1


def test_who_fell_behind_does_not_win():
    finalists = [finalist(0, {1: 0.9}, in_contention=False), finalist(1, {1: 0.8})]
    assert best_of(finalists, ACCURACY).trial == 1


@pytest.mark.parametrize("hard", [0.0, 0.1, 0.5])
def test_a_hard_seed_does_not_count_against_the_only_one_who_has_had_it(hard):
    # The budget ended after the leader's third seed.
    leader = finalist(0, {1: 0.92, 2: 0.91, 3: 0.9 - hard})
    assert best_of([leader, finalist(1, {1: 0.91, 2: 0.9})], ACCURACY).trial == 0


def test_seeds_of_who_fell_behind_do_not_matter():
    finalists = [
        finalist(0, {1: 0.8, 2: 0.9}),
        finalist(1, {1: 0.9, 2: 0.7}),
        finalist(2, {1: 0.5}, in_contention=False),
    ]
    assert best_of(finalists, ACCURACY).trial == 0


scores_of_two_seeds = st.lists(st.tuples(*[st.integers(0, 20)] * 2), min_size=1, max_size=5)


@given(scores_of_two_seeds, st.integers(0, 4), st.integers(-20, 20))
def test_one_seed_more_for_one_of_them_never_changes_the_choice(scores, who, third):
    finalists = [finalist(trial, {1: a, 2: b}) for trial, (a, b) in enumerate(scores)]
    place = who % len(scores)
    more = [*finalists]
    more[place] = finalist(place, {**finalists[place].scores, 3: third})
    if len(scores) > 1:
        assert best_of(more, ACCURACY).trial == best_of(finalists, ACCURACY).trial
