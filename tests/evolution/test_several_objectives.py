"""Searches for a score and what it costs."""

from __future__ import annotations

import numpy as np
import optuna
import pytest
from optuna.trial import Trial, TrialState
from scipy.stats import norm
from searches import BLOCKS, finished, journal, plans, score_of

from hf_biotune.evolution import BioTuneSampler, curve_of, on_front, plan_of, report_score
from hf_biotune.evolution.dominance import crowded_order
from hf_biotune.evolution.hypervolume import Stairs
from hf_biotune.exceptions import ConfigError

SIZES = dict(zip(BLOCKS, (1.0, 2.0, 4.0, 0.5), strict=True))
BOTH = pytest.mark.parametrize("surrogate", [False, True], ids=["paper", "default"])


def new_study(storage=None, directions=("maximize", "minimize"), **arguments):
    defaults = {"population_size": 6, "n_elites": 2, "n_candidates": 20, "costs": [SIZES]}
    return optuna.create_study(
        storage=storage,
        study_name="search",
        directions=list(directions),
        sampler=BioTuneSampler(BLOCKS, **{**defaults, **arguments}),
        load_if_exists=True,
    )


def size_of(trial: Trial) -> float:
    genes = plan_of(trial).genes
    return sum(s for gene, s in zip(genes, SIZES.values(), strict=False) if gene > genes[-1])


def both(trial: Trial) -> tuple[float, float]:
    return score_of(trial), size_of(trial)


def genes(study):
    return [plan.genes for plan in plans(study)]


def test_lonely_points_of_the_front_come_first_and_then_those_that_are_dominated():
    losses = np.array([[2.0, 4.0], [0.0, 4.0], [1.0, 2.0], [1.5, 1.9], [4.0, 0.0]])
    assert crowded_order(losses).tolist() == [1, 4, 3, 2, 0]
    assert on_front(losses).tolist() == [False, True, True, True, True]


def counted(stairs, mean, deviation, cost):
    """The mean growth of the volume over many scores, by counting on a grid of costs."""
    n_costs = len(stairs.cost_limits)
    scores = mean + deviation * norm.ppf((np.arange(100_000) + 0.5) / 100_000)
    steps = {1: 2_000, 2: 700}[n_costs]
    axes = [(np.arange(steps) + 0.5) / steps * limit for limit in stairs.cost_limits]
    cells = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, n_costs)
    reached = (stairs.costs[None] <= cells[:, None]).all(-1)
    level = np.where(reached, stairs.fitness, stairs.fitness_limit).min(-1)
    levels, stair = np.unique(level, return_inverse=True)
    gains = np.array([np.maximum(one - scores, 0).mean() for one in levels])
    gain = gains[stair] * (cells >= cost).all(1)
    return gain.mean() * np.prod(stairs.cost_limits)


@pytest.mark.parametrize("n_costs", [1, 2])
def test_the_expected_growth_of_the_volume_is_what_counting_gives(n_costs):
    generator = np.random.default_rng(n_costs)
    fitness, costs = generator.random(12), generator.random((12, n_costs))
    mean, deviation = np.array([0.3, 0.05, 0.6]), np.array([0.1, 0.05, 0.3])
    candidates = generator.random((3, n_costs)) * 0.7
    stairs = Stairs.of(fitness, costs, candidates)
    found = stairs.expected_improvement(mean, deviation, candidates)
    for index, expected in enumerate(found):
        truth = counted(stairs, mean[index], deviation[index], candidates[index])
        assert expected == pytest.approx(truth, rel=0.02, abs=2e-5)


def test_of_two_candidates_with_the_same_score_the_cheaper_one_promises_more():
    stairs = Stairs.of(np.array([0.5, 0.2]), np.array([[1.0], [3.0]]), np.array([[2.0], [2.5]]))
    cheap, dear = stairs.expected_improvement(
        np.array([0.3, 0.3]), np.array([0.05, 0.05]), np.array([[2.0], [2.5]])
    )
    assert cheap > dear > 0


@BOTH
def test_a_search_for_two_objectives_extends_the_front(surrogate):
    study = new_study(surrogate=surrogate)
    study.optimize(both, n_trials=60)

    def volume(trials):
        points = np.array([[1 - t.values[0], t.values[1] / 7.5] for t in trials])
        return optuna._hypervolume.compute_hypervolume(points, np.array([1.0, 1.01]))

    assert volume(study.trials) > volume(study.trials[:6]) * 1.03
    assert len(study.best_trials) >= 2


def test_elites_are_of_the_front_and_not_only_the_best_scores():
    study = new_study(surrogate=False)
    study.optimize(both, n_trials=7)
    first = study.trials[:6]
    front = on_front(np.array([[-t.values[0], t.values[1]] for t in first]))
    parents = study.sampler.get_parent_population(study, 1)
    assert [front[trial.number] for trial in parents[: front.sum()]] == [True] * front.sum()


def test_known_costs_are_taken_from_the_blocks_and_learned_ones_from_the_trials():
    known, learned = new_study(), new_study(costs=[None])
    for study in (known, learned):
        study.optimize(both, n_trials=30)
        assert len(study.best_trials) >= 2
    assert genes(known)[:6] == genes(learned)[:6]


def test_a_study_of_several_objectives_and_one_worker_goes_on_as_if_never_stopped(tmp_path):
    whole, stopped = new_study(), new_study(journal(tmp_path / "study"))
    whole.optimize(both, n_trials=30)
    for n_trials in (11, 19):
        stopped = new_study(journal(tmp_path / "study"))
        stopped.optimize(both, n_trials=n_trials)
    assert genes(stopped) == genes(whole)


@BOTH
@pytest.mark.parametrize("costs", [[SIZES], [None]], ids=["known", "learned"])
def test_pruned_trials_with_a_curve_hold_up_nothing_and_rank_last(surrogate, costs):
    study = new_study(surrogate=surrogate, n_folds=2, costs=costs)

    def pruned_often(trial: Trial) -> tuple[float, float]:
        score, size = both(trial)
        report_score(trial, score - 0.1, 1)
        if trial.number % 3 == 1:
            raise optuna.TrialPruned
        return score, size

    study.optimize(pruned_often, n_trials=40)
    assert len(finished(study)) == 40
    assert max(plan.generation for plan in plans(study)) >= 3
    pruned = [t for t in study.trials if t.state == TrialState.PRUNED]
    assert all(list(curve_of(trial)) == [1] for trial in pruned)
    parents = study.sampler.get_parent_population(study, 2)
    states = [trial.state for trial in parents]
    assert states == sorted(states, key=lambda state: state == TrialState.PRUNED)


def test_a_curve_is_optunas_own_where_there_is_one_objective():
    study = optuna.create_study(direction="maximize", sampler=BioTuneSampler(BLOCKS))
    trial = study.ask()
    report_score(trial, 0.5, 1)
    report_score(trial, 0.75, 2)
    assert study.trials[0].intermediate_values == curve_of(study.trials[0]) == {1: 0.5, 2: 0.75}
    assert not study.trials[0].user_attrs


def test_a_curve_may_hold_scores_that_are_no_numbers():
    study = new_study()
    trial = study.ask()
    report_score(trial, float("inf"), 1)
    report_score(trial, 0.1 + 0.2, 2)
    assert curve_of(study.trials[0]) == {1: float("inf"), 2: 0.1 + 0.2}


@pytest.mark.parametrize(
    ("costs", "message"),
    [
        ([{"stem": 1.0}], "a number for each block and nothing else: 'head' is in one"),
        ([{**SIZES, "tail": 1.0}], "'tail' is in one of both only"),
        ([{**SIZES, "head": -1.0}], "finite and not negative, got -1.0 for block 'head'"),
        ([{**SIZES, "head": float("nan")}], "got nan for block 'head'"),
    ],
)
def test_costs_that_do_not_fit_the_blocks_are_refused(costs, message):
    with pytest.raises(ConfigError, match=message):
        BioTuneSampler(BLOCKS, costs=costs)


@pytest.mark.parametrize("directions", [["maximize"], ["maximize", "minimize", "minimize"]])
def test_costs_for_another_number_of_objectives_are_refused(directions):
    study = optuna.create_study(
        directions=directions, sampler=BioTuneSampler(BLOCKS, costs=[SIZES])
    )
    with pytest.raises(ConfigError, match=r"for each objective after the first, .* got 1"):
        study.ask()


def test_known_costs_are_not_maximised():
    study = optuna.create_study(
        directions=["maximize", "maximize"], sampler=BioTuneSampler(BLOCKS, costs=[SIZES])
    )
    with pytest.raises(ConfigError, match="costs are minimised, but the study maximises objective"):
        study.ask()


def test_the_grid_of_a_large_front_by_many_costs_stays_small():
    generator = np.random.default_rng(0)
    costs = generator.random((400, 3))
    # All on the front: what is dearer is better.
    stairs = Stairs.of(3.0 - costs.sum(axis=1), costs, costs[:5])
    assert len(stairs.fitness) ** 3 <= 200_000
    assert stairs.fitness.min() == (3.0 - costs.sum(axis=1)).min()
    found = stairs.expected_improvement(np.full(5, 0.5), np.full(5, 0.1), costs[:5])
    assert (found > 0).all()
