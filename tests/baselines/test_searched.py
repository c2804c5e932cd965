"""Methods that search: their cost counts, and they share one search."""

from __future__ import annotations

import pytest
import torch
from problems import small_problem
from transformers.training_args import OptimizerNames

from hf_biotune.baselines import Cost, get_method, run_method
from hf_biotune.baselines.setting import Setting
from hf_biotune.search import SearchConfig
from hf_biotune.search.execution import candidates_of

SEARCH = SearchConfig(
    budget=3,
    population_size=4,
    seeds=(5,),
    n_finalists=0,
    metric="accuracy",
    memory_layout="contiguous",
    precision="fp32",
    fused_optimizer=False,
)


@pytest.fixture(scope="module")
def problem():
    return small_problem(search=SEARCH)


def test_biotune_trains_the_winner_of_its_search(problem):
    result = run_method(get_method("biotune"), problem, [1])
    search = problem.searches["biotune"]
    tuned = result.tuned
    assert tuned.score == search.best_score
    assert tuned.cost == Cost(search.trainings, round(2 * search.trainings), search.seconds)
    assert tuned.setting.options["config"]["lr_multipliers"] == search.best_config.lr_multipliers
    trained = sum(problem.partition[b].n_parameters for b in search.best_config.lr_multipliers)
    assert result.runs[0].trained_parameters == trained
    assert "config" not in str(tuned.setting)
    assert Setting.from_dict(tuned.setting.to_dict()) == tuned.setting


@pytest.mark.parametrize("sampler", ["biotune", "random"])
def test_the_ensemble_is_of_the_same_search_and_costs_no_training(problem, sampler):
    result = run_method(get_method(f"{sampler}-ensemble"), problem, [1, 2])
    search = problem.searches[sampler]
    (run,) = result.runs
    assert run.seed is None
    assert run.cost == Cost()
    k = result.tuned.setting.options["k"]
    logits = search.ensemble(k, every_seed=True).predict(problem.data.test)
    torch.testing.assert_close(run.test_logits, logits)
    assert run.validation_score == result.tuned.score


@pytest.mark.parametrize("optim", ["adamw_torch_fused", "adamw_torch", "sgd"])
def test_a_search_computes_its_steps_as_all_methods_do(optim):
    problem = small_problem()
    problem.args.optim = OptimizerNames(optim)
    assert problem.execution.fused_optimizer is None
    is_fused = problem._search_config("biotune").fused_optimizer
    assert is_fused == (optim == "adamw_torch_fused")
    candidates_of(problem.args, "contiguous", "fp32", is_fused)  # raises if it can't be


def test_random_search_is_another_search_at_the_same_budget(problem):
    tuned = get_method("random-search").tune(problem)
    assert problem.searches["random"].study is not problem.searches["biotune"].study
    assert tuned.cost.trainings >= 3


def test_a_search_in_a_directory_is_not_run_twice(tmp_path):
    first = small_problem(search=SEARCH, directory=tmp_path).search_result("random")
    again = small_problem(search=SEARCH, directory=tmp_path).search_result("random")
    assert (tmp_path / "search-random" / "study.journal").is_file()
    assert again.trainings == first.trainings
    assert again.best_config.lr_multipliers == first.best_config.lr_multipliers
