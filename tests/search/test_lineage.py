from __future__ import annotations

import optuna
import pytest

from hf_biotune.evolution.plan import PLAN_KEY, Plan
from hf_biotune.exceptions import ConfigError
from hf_biotune.search.fitness_result import FitnessResult, SeedRun
from hf_biotune.search.history import FITNESS_KEY, START_KEY
from hf_biotune.search.lineage import lineage_of


@pytest.fixture
def study():
    """0 linear probe, 1, 2 stranger; 3 child of 0 and 1; 4 neighbour of 3; 5 failed."""
    study = optuna.create_study(direction="maximize")
    plans = [
        (0, "initial", (), "linear probe"),
        (0, "initial", (), ""),
        (0, "initial", (), ""),
        (1, "offspring", (0, 1), ""),
        (2, "exploit", (3,), ""),
    ]
    for number, (generation, role, parents, start) in enumerate(plans):
        fitness = FitnessResult((SeedRun(684, (), number / 10, 1.0),), 10, 1.0)
        plan = Plan(generation, generation % 2, role, parents, number, (0.5, 0.5))
        study.add_trial(
            optuna.create_trial(
                value=fitness.score,
                user_attrs={FITNESS_KEY: fitness.to_dict(), START_KEY: start},
                system_attrs={PLAN_KEY: plan.to_dict()},
            )
        )
    study.add_trial(optuna.create_trial(state=optuna.trial.TrialState.FAIL))
    return study


def test_the_lineage_goes_back_to_the_first_generation_and_holds_ancestors_only(study):
    frame = lineage_of(study, 4, {})
    assert frame.trial.tolist() == [4, 3, 1, 0]
    assert frame.generation.tolist() == [2, 1, 0, 0]
    assert frame.role.tolist() == ["exploit", "offspring", "initial", "initial"]
    assert frame.parents.tolist() == [[3], [0, 1], [], []]
    assert frame.fold.tolist() == [0, 1, 0, 0]
    assert frame.start.tolist() == ["", "", "", "linear probe"]
    assert frame.score.tolist() == [0.4, 0.3, 0.1, 0.0]
    assert frame.state.tolist() == ["complete"] * 4


def test_a_finalist_has_the_seeds_and_the_mean_of_its_confirmation(study):
    runs = (SeedRun(684, (), 0.4, 1.0), SeedRun(559, (), 0.6, 1.0))
    winner = lineage_of(study, 4, {4: runs}).iloc[0]
    assert winner.seeds == [684, 559]
    assert winner.score == 0.5


@pytest.mark.parametrize("number", [-1, 5, 6])
def test_what_has_not_finished_has_no_lineage(study, number):
    with pytest.raises(ConfigError, match=f"number of a finished individual, got {number}"):
        lineage_of(study, number, {})
