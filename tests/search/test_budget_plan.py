from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import optuna
import pytest

from hf_biotune import SearchConfig
from hf_biotune.evolution import Scheme
from hf_biotune.exceptions import ConfigError
from hf_biotune.search import Budget
from hf_biotune.search.budget_plan import plan_budget, population_of, reserved_trainings
from hf_biotune.search.fitness_result import EpochRecord, FitnessResult, SeedRun
from hf_biotune.search.history import FITNESS_KEY, MULTIPLIERS_KEY
from hf_biotune.search.spending import Spending, wall_seconds


def test_a_large_budget_gets_the_published_population():
    assert population_of(100, SearchConfig()) == (10, 3)


def test_a_small_budget_gets_a_small_population_that_still_breeds():
    assert population_of(6, SearchConfig()) == (4, 1)
    plan = plan_budget(SearchConfig(budget=6), epochs=15)
    assert plan.individuals > plan.population_size
    assert plan.generations == 1


def test_sizes_that_the_user_set_are_left_alone():
    assert population_of(6, SearchConfig(population_size=20, n_elites=7)) == (20, 7)
    assert population_of(6, SearchConfig(n_elites=6)) == (8, 6)
    assert population_of(100, SearchConfig(population_size=3)) == (3, 1)


def test_the_papers_plan_is_the_published_one():
    plan = plan_budget(SearchConfig.paper(), epochs=30)
    assert (plan.population_size, plan.n_elites, plan.generations) == (10, 3, 10)
    assert plan.individuals == 10 + 10 * (3 + 6 + 7)  # elites are scored again on the new fold
    assert (plan.rung, plan.n_finalists, plan.trainings) == (0, 0, None)


def test_a_budget_of_time_is_planned_when_a_fine_tuning_has_been_measured():
    search = SearchConfig(budget="30m")
    assert plan_budget(search, epochs=15).individuals is None
    measured = plan_budget(search, epochs=15, seconds_per_fine_tuning=120.0)
    assert measured.trainings == pytest.approx(30 * 60 / (120 * 0.7))
    assert measured.individuals > 0


def test_a_multiple_of_one_fine_tuning_is_planned_before_it_is_measured():
    trainings = Budget.parse("3x").in_trainings()
    assert trainings == pytest.approx(3 / 0.7)  # most individuals cost less than full fine-tuning
    assert plan_budget(SearchConfig(budget="3x"), epochs=15).trainings == trainings


def test_the_confirmation_of_finalists_is_reserved():
    few = plan_budget(SearchConfig(budget=25, n_finalists=1), epochs=15)
    many = plan_budget(SearchConfig(budget=25, n_finalists=5), epochs=15)
    assert (few.reserved, many.reserved) == (1.0, 5.0)
    assert few.individuals > many.individuals


@pytest.mark.parametrize(
    ("changes", "each"),
    [
        ({}, 1),
        ({"seeds_per_individual": 2}, 0),
        # Individuals were scored on a fold, so that nothing is known of them on all data.
        ({"fold_fraction": 0.5}, 2),
        ({"racing": False}, 2),
        ({"racing": False, "fold_fraction": 0.5}, 3),
        ({"seeds": (1,), "fold_fraction": 0.5}, 1),
    ],
)
def test_what_is_reserved_is_what_confirmation_spends_whatever_is_left(changes, each):
    assert reserved_trainings(25, SearchConfig(budget=25, n_finalists=3, **changes)) == 3 * each


def individual(number, multipliers, seconds, epochs=10, trainings=1.0):
    """One that was trained for ten seconds an epoch of a fold."""
    curve = tuple(EpochRecord(0.5, 0.5, 0.5, 1e-3) for _ in range(epochs))
    fitness = FitnessResult((SeedRun(1, curve, 0.5, seconds),), 10, trainings)
    trial = optuna.create_trial(
        value=0.5, user_attrs={FITNESS_KEY: fitness.to_dict(), MULTIPLIERS_KEY: multipliers}
    )
    trial.number = number
    trial.datetime_start = datetime(2026, 1, 1)
    trial.datetime_complete = trial.datetime_start + timedelta(seconds=seconds)
    return trial


@pytest.mark.parametrize(("fold_fraction", "n_folds"), [(1.0, 1), (0.5, 2)])
def test_a_full_fine_tuning_is_one_on_all_data(fold_fraction, n_folds):
    search = SearchConfig(budget="3x", fold_fraction=fold_fraction, n_finalists=0)
    spending = Spending(search, Scheme(5, 1, n_folds), n_blocks=2, epochs=15)
    trained = [individual(0, {"a": 1.0, "b": 1.0}, 10.0, trainings=10 / 15 / n_folds)]
    assert spending.seconds_per_fine_tuning(trained) == pytest.approx(15.0 * n_folds)
    assert spending.share_spent(trained) == pytest.approx(10 / (45 * n_folds))


def test_workers_share_the_search_but_not_the_confirmation():
    search = SearchConfig(budget="1m", n_finalists=3)
    spending = Spending(search, Scheme(5, 1, 1), n_blocks=2, epochs=15)
    # Four at once, each of five seconds: the finalists' second seeds will take 15.
    trained = [individual(number, {"a": 1.0}, 5.0) for number in range(4)]
    assert spending.share_spent(trained) == pytest.approx(5 / (60 - 15))


def test_a_small_budget_confirms_two_finalists_and_never_more_than_were_asked_for():
    assert plan_budget(SearchConfig(budget=6), epochs=15).n_finalists == 2
    assert plan_budget(SearchConfig(budget=6, n_finalists=1), epochs=15).n_finalists == 1
    assert plan_budget(SearchConfig(budget=6, n_finalists=0), epochs=15).n_finalists == 0
    assert plan_budget(SearchConfig(budget=20), epochs=15).n_finalists == 3


def test_a_plan_says_in_words_what_it_is():
    text = str(plan_budget(replace(SearchConfig(), budget=Budget(trainings=40)), epochs=15))
    assert "population 10 with 3 elites; halving after epoch 5; 3 finalists" in text


def test_wall_time_counts_workers_once_and_pauses_not_at_all():
    start = datetime(2026, 1, 1)

    def trial(begin: float, end: float) -> optuna.trial.FrozenTrial:
        created = optuna.create_trial(value=0.0)
        created.datetime_start = start + timedelta(seconds=begin)
        created.datetime_complete = start + timedelta(seconds=end)
        return created

    assert wall_seconds([trial(0, 10), trial(5, 12), trial(100, 103), trial(1, 2)]) == 15.0
    assert wall_seconds([]) == 0.0


@pytest.mark.parametrize(
    "limits", [{"trainings": -3.0}, {"minutes": 0.0}, {"trainings": 3.0, "minutes": 2.0}]
)
def test_a_budget_is_one_limit_greater_than_nothing(limits):
    with pytest.raises(ConfigError, match="a budget is one number of trainings, minutes or"):
        Budget(**limits)


def test_a_search_without_an_end_is_refused():
    with pytest.raises(ConfigError, match="a search needs an end"):
        SearchConfig(budget=Budget())
    for wrong, message in (
        ({"seeds": 42}, "seeds must be integers such as"),
        ({"seeds": (-1,)}, "each of seeds must be an integer of at least 0, got -1"),
        ({"population_size": "5"}, "population_size must be an integer of at least 1, got '5'"),
    ):
        with pytest.raises(ConfigError, match=message):
            SearchConfig(**wrong)
    assert SearchConfig(always_train="head").always_train == ("head",)
