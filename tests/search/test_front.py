from __future__ import annotations

import math
from dataclasses import replace

import optuna
import pandas as pd
import pytest

from hf_biotune.evolution.plan import PLAN_KEY, Plan
from hf_biotune.exceptions import ConfigError
from hf_biotune.search.fitness_result import EpochRecord, FitnessResult, SeedRun
from hf_biotune.search.front import best_under, individuals_of, pareto_front
from hf_biotune.search.history import FITNESS_KEY, MULTIPLIERS_KEY
from hf_biotune.search.metrics import METRICS
from hf_biotune.search.objectives import Objectives

#                      on the front                  dominated
CURVE = (EpochRecord(0.5, 0.5, 0.5, 1e-3),)
SCORES = [0.50, 0.80, 0.90, 0.92, 0.70, 0.80]
PARAMETERS = [10, 20, 60, 100, 40, 25]


def frame(scores=SCORES, parameters=PARAMETERS):
    return pd.DataFrame(
        {
            "trial": range(len(scores)),
            "score": scores,
            "trainable_parameters": parameters,
            "seconds": [p / 10 for p in parameters],
            "checkpoint_size": [4 * p for p in parameters],
        }
    )


def objectives(metric="accuracy"):
    return Objectives(METRICS[metric], (), {"a": 40, "b": 60}, {"a": 160, "b": 240})


def under(limits, individuals=None, seconds=10.0):
    individuals = frame() if individuals is None else individuals
    return best_under(individuals, limits, objectives(), seconds_of_all=seconds)


def test_the_front_holds_whom_nobody_dominates_the_cheapest_first():
    front = pareto_front(frame(), ["trainable_parameters"], greater_is_better=True)
    assert front.trial.tolist() == [0, 1, 2, 3]
    assert front.index.tolist() == [0, 1, 2, 3]


def test_the_knee_is_farthest_from_the_chord():
    front = pareto_front(frame(), ["trainable_parameters"], greater_is_better=True)
    # From (10, .50) to (100, .92): at 20 the score is .26 of the range above the line.
    assert front.trial[front.knee].tolist() == [1]


@pytest.mark.parametrize(
    ("scores", "parameters", "knee"),
    [([0.7], [10], 0), ([0.5, 0.9], [10, 20], 1), ([0.9, 0.9], [20, 10], 1)],
)
def test_a_front_of_one_or_two_has_a_knee_too(scores, parameters, knee):
    individuals = frame(scores, parameters)
    front = pareto_front(individuals, ["trainable_parameters"], greater_is_better=True)
    assert front.trial[front.knee].tolist() == [knee]


def test_a_loss_is_better_when_smaller_and_a_training_that_diverged_is_the_worst():
    individuals = frame([0.9, 0.5, math.inf], [10, 20, 5])
    front = pareto_front(individuals, ["trainable_parameters"], greater_is_better=False)
    assert front.trial.tolist() == [2, 0, 1]


def test_with_three_objectives_the_cheapest_and_the_quickest_are_on_the_front():
    individuals = frame()
    individuals["seconds"] = [9.0, 8.0, 7.0, 6.0, 1.0, 8.5]
    front = pareto_front(individuals, ["trainable_parameters", "seconds"], greater_is_better=True)
    assert front.trial.tolist() == [0, 1, 4, 2, 3]
    assert front.knee.sum() == 1


@pytest.mark.parametrize(
    ("limits", "trial"),
    [
        ({"trainable_parameters": 0.10}, 0),
        ({"trainable_parameters": 0.25}, 1),
        ({"trainable_parameters": 60}, 2),
        ({"trainable_parameters": 60.0}, 2),
        ({"seconds": 0.5}, 1),
        ({"seconds": 6}, 2),
        ({"checkpoint_size": 0.6}, 2),
        ({"checkpoint_size": 240, "seconds": 2}, 1),
        ({"checkpoint_size": 10_000}, 3),
    ],
)
def test_the_best_under_a_limit_is_the_best_score_within_it(limits, trial):
    assert under(limits) == trial


def test_of_equal_scores_within_a_limit_the_smaller_one_is_chosen():
    assert under({"trainable_parameters": 50}, frame([0.8, 0.8], [30, 20])) == 1


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({}, "a limit for at least one of trainable_parameters, seconds, checkpoint_size"),
        ({"memory": 3}, "one of trainable_parameters, seconds, checkpoint_size, got 'memory'"),
        ({"seconds": 0}, "seconds must be a number greater than 0, or a share below 1 .* got 0"),
        ({"seconds": -0.5}, "greater than 0, .* got -0.5"),
        ({"seconds": True}, "greater than 0, .* got True"),
        ({"seconds": math.nan}, "greater than 0, .* got nan"),
        (
            {"trainable_parameters": 0.05},
            "no individual .* is under trainable_parameters=0.05; the least there is: "
            "trainable_parameters 10. Give a higher limit",
        ),
    ],
)
def test_a_limit_that_is_none_or_too_low_is_an_error(limits, message):
    with pytest.raises(ConfigError, match=message):
        under(limits)


def test_a_share_of_seconds_needs_an_individual_that_trained_every_block():
    with pytest.raises(ConfigError, match=r"seconds=0.5 is a share .* no individual trained every"):
        under({"seconds": 0.5}, seconds=math.nan)
    assert under({"seconds": 6}, seconds=math.nan) == 2


def add(study, score, blocks, fold, stopped=""):
    number = len(study.trials)
    plan = Plan(fold, fold, "offspring", (), number, (0.5, 0.5))
    fitness = FitnessResult((SeedRun(1, CURVE, score, 2.0, stopped),), 40, 1.0)
    study.add_trial(
        optuna.create_trial(
            values=[score, 40.0],
            user_attrs={
                FITNESS_KEY: fitness.to_dict(),
                MULTIPLIERS_KEY: dict.fromkeys(blocks, number + 1.0),
            },
            system_attrs={PLAN_KEY: plan.to_dict()},
        )
    )


def test_individuals_are_those_of_one_fold_and_finalists_have_their_confirmed_score():
    study = optuna.create_study(directions=["maximize", "minimize"])
    for score, blocks, fold in (
        (0.9, "a", 0),
        (0.95, "b", 0),
        (0.5, "a", 1),
        (0.6, "ab", 1),
        (0.4, "b", 1),
    ):
        add(study, score, blocks, fold)
    confirmed = FitnessResult((SeedRun(1, CURVE, 0.5, 2.0), SeedRun(2, CURVE, 0.9, 4.0)), 40, 1.0)
    found = individuals_of(study, objectives(), {2: confirmed}).sort_values("trial")
    assert found.trial.tolist() == [2, 3, 4]
    assert found.score.tolist() == [0.7, 0.6, 0.4]
    assert found.seeds.tolist() == [2, 1, 1]
    assert found.seconds.tolist() == [3.0, 2.0, 2.0]
    assert found.trainable_parameters.tolist() == [40, 100, 60]
    assert found.checkpoint_size.tolist() == [160, 400, 240]
    assert found.blocks.tolist() == [["a"], ["a", "b"], ["b"]]


def test_a_training_that_diverged_is_not_among_them_however_cheap():
    study = optuna.create_study(directions=["maximize", "minimize"])
    add(study, 0.9, "ab", 0)
    add(study, 0.0, "a", 0, stopped="diverged")
    assert individuals_of(study, objectives(), {}).trial.tolist() == [0]


def test_a_training_that_diverged_costs_as_many_seconds_as_the_slowest():
    aims = replace(objectives(), costs=("seconds",))
    failed = FitnessResult((SeedRun(1, CURVE, 0.0, 2.0, "diverged"),), 40, 1.0)
    assert aims.values_of(failed, ["a"], slowest=30.0) == [0.0, 30.0]
    scored = FitnessResult((SeedRun(1, CURVE, 0.5, 2.0),), 40, 1.0)
    assert aims.values_of(scored, ["a"], slowest=30.0) == [0.5, 2.0]
