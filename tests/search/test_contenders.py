from __future__ import annotations

import optuna
import pytest

from hf_biotune.evolution.plan import PLAN_KEY, Plan
from hf_biotune.search.contenders import differ, family_of, finalist_trials
from hf_biotune.search.fitness_result import EpochRecord, FitnessResult, SeedRun
from hf_biotune.search.history import FITNESS_KEY, MULTIPLIERS_KEY
from hf_biotune.search.metrics import METRICS

ACCURACY = METRICS["accuracy"]
CURVE = (EpochRecord(0.5, 0.5, 0.5, 1e-3),)


@pytest.fixture
def study():
    return optuna.create_study(direction="maximize")


def add(study, score, multipliers, role="offspring", parents=(), generation=1, fold=0):
    slot = len(study.trials)
    plan = Plan(generation, fold, role, parents, slot, (0.5, 0.5))
    fitness = FitnessResult((SeedRun(1, CURVE, score, 1.0),), 10, 1.0)
    study.add_trial(
        optuna.create_trial(
            value=score,
            user_attrs={FITNESS_KEY: fitness.to_dict(), MULTIPLIERS_KEY: multipliers},
            system_attrs={PLAN_KEY: plan.to_dict()},
        )
    )


def numbers(trials):
    return [trial.number for trial in trials]


def test_finalists_differ_in_their_blocks_or_by_a_quarter_of_a_decade(study):
    add(study, 0.9, {"a": 1.0, "b": 1.0})
    add(study, 0.8, {"a": 1.1, "b": 0.9})
    add(study, 0.7, {"a": 1.0, "b": 1.8})
    add(study, 0.6, {"a": 1.0})
    assert numbers(finalist_trials(study, ACCURACY, 3)) == [0, 2, 3]


def test_a_neighbour_of_a_finalist_comes_after_other_families(study):
    add(study, 0.8, {"a": 1.0})
    add(study, 0.9, {"a": 2.0}, "exploit", (0,))
    add(study, 0.85, {"a": 4.0}, "exploit", (1,))
    add(study, 0.6, {"b": 1.0})
    assert numbers(finalist_trials(study, ACCURACY, 2)) == [1, 3]
    # Two families only: then their next best.
    assert numbers(finalist_trials(study, ACCURACY, 3)) == [1, 3, 2]
    assert family_of(study.trials[2], study.trials) == 0


def test_the_best_of_the_seeded_start_is_a_finalist(study):
    add(study, 0.3, {"head": 1.0}, "initial", generation=0)
    add(study, 0.4, {"body": 1.0}, "initial", generation=0)
    for score, rate in ((0.9, 1.0), (0.8, 2.0), (0.7, 4.0)):
        add(study, score, {"stem": rate})
    assert numbers(finalist_trials(study, ACCURACY, 3, n_starts=2)) == [2, 3, 1]
    assert numbers(finalist_trials(study, ACCURACY, 1, n_starts=2)) == [2]
    assert numbers(finalist_trials(study, ACCURACY, 3, n_starts=0)) == [2, 3, 4]


def test_a_seeded_start_that_is_among_the_best_takes_no_further_place(study):
    add(study, 0.85, {"head": 1.0}, "initial", generation=0)
    for score, rate in ((0.9, 1.0), (0.8, 2.0), (0.7, 4.0)):
        add(study, score, {"stem": rate})
    assert numbers(finalist_trials(study, ACCURACY, 3, n_starts=1)) == [1, 0, 2]


def test_a_start_that_was_scored_again_on_another_fold_is_no_finalist_twice(study):
    add(study, 0.8, {"head": 1.0}, "initial", generation=0)
    add(study, 0.9, {"head": 1.0}, "rescore", (0,), fold=1)
    add(study, 0.8, {"stem": 1.0}, fold=1)
    add(study, 0.7, {"body": 1.0}, fold=1)
    assert numbers(finalist_trials(study, ACCURACY, 3, n_starts=1)) == [1, 2, 3]


def test_rates_are_compared_as_ratios(study):
    add(study, 0.9, {"a": 0.1})
    add(study, 0.8, {"a": 0.17})
    add(study, 0.7, {"a": 0.18})
    assert not differ(study.trials[0], study.trials[1])
    assert differ(study.trials[0], study.trials[2])
