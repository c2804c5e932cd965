from __future__ import annotations

import math

import numpy as np
import pytest

from hf_biotune.search.metrics import METRICS
from hf_biotune.search.racing import SeedNoise, is_in_contention, seed_noise

ACCURACY, LOSS = METRICS["accuracy"], METRICS["loss"]
KNOWN = SeedNoise(deviation=0.01, degrees=8)


def test_the_noise_of_seeds_is_what_individual_and_seed_do_not_explain():
    generator = np.random.default_rng(0)
    worth, seed_effect = generator.normal(0.8, 0.1, 60), (0.0, 0.05, -0.03)
    individuals = [
        {s: w + seed_effect[s] + generator.normal(0, 0.02) for s in range(3)} for w in worth
    ]
    noise = seed_noise(individuals)
    assert noise.degrees == 60 * 3 - (60 + 3 - 1)
    assert noise.deviation == pytest.approx(0.02, rel=0.2)


def test_individuals_with_one_seed_and_diverged_trainings_say_nothing_about_noise():
    two = [{1: 0.5, 2: 0.6}, {1: 0.7, 2: 0.9}]
    more = [*two, {1: 0.1}, {1: math.inf, 2: 0.3}]
    assert seed_noise(more) == seed_noise(two)
    assert seed_noise([{1: 0.5}]).degrees == 0


def test_individuals_that_share_no_seed_leave_no_degree_of_freedom():
    assert seed_noise([{1: 0.5, 2: 0.6}]).degrees == 0


def test_a_candidate_is_dropped_when_it_is_significantly_worse():
    leader = {1: 0.90, 2: 0.92}
    # One-sided t of 8 degrees at 5 %: 1.86 times the error sqrt(2 / m) x 0.01.
    assert is_in_contention({1: 0.90 - 0.026}, leader, KNOWN, ACCURACY)
    assert not is_in_contention({1: 0.90 - 0.027}, leader, KNOWN, ACCURACY)
    assert is_in_contention({1: 0.90 - 0.018, 2: 0.92 - 0.018}, leader, KNOWN, ACCURACY)
    assert not is_in_contention({1: 0.90 - 0.019, 2: 0.92 - 0.019}, leader, KNOWN, ACCURACY)


def test_only_common_seeds_are_compared():
    lucky_leader = {1: 0.90, 2: 0.99}
    assert is_in_contention({1: 0.90}, lucky_leader, KNOWN, ACCURACY)
    assert is_in_contention({3: 0.10}, lucky_leader, KNOWN, ACCURACY)


def test_losses_are_better_when_smaller():
    assert is_in_contention({1: 0.2}, {1: 0.3}, KNOWN, LOSS)
    assert not is_in_contention({1: 0.4}, {1: 0.3}, KNOWN, LOSS)


def test_nobody_is_dropped_while_the_noise_is_unknown():
    assert is_in_contention({1: 0.1}, {1: 0.9}, SeedNoise(0.01, 2), ACCURACY)
    assert is_in_contention({1: 0.1}, {1: 0.9}, seed_noise([]), ACCURACY)


def test_a_diverged_candidate_is_dropped():
    assert not is_in_contention({1: math.inf}, {1: 0.3}, KNOWN, LOSS)
