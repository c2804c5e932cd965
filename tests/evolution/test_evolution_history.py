"""What the surrogate learns from when there are thousands of trials."""

from __future__ import annotations

import numpy as np
import optuna
import pytest
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from searches import BLOCKS, course, journal, new_study, run

from hf_biotune.evolution import Plan, on_front, plan_of, screening, suggest_genotype
from hf_biotune.evolution.costs import Costs
from hf_biotune.evolution.history import History, expected_scores, read
from hf_biotune.evolution.plan import PLAN_KEY, parameter_names, search_space

MAXIMIZE = StudyDirection.MAXIMIZE


def finished_trial(number: int, score: float, *, fold: int = 0, **arguments: object) -> FrozenTrial:
    genes = tuple(np.random.default_rng(number).random(len(BLOCKS) + 1).tolist())
    plan = Plan(number // 10, fold, "initial", (), number % 10, genes)
    trial = optuna.create_trial(
        params=dict(zip(parameter_names(BLOCKS), genes, strict=True)),
        distributions=search_space(BLOCKS),
        system_attrs={PLAN_KEY: plan.to_dict()},
        **{"value": score, **arguments},
    )
    trial.number = number
    return trial


def history(scores: list[float], folds: list[int] | None = None) -> History:
    folds = folds or [0] * len(scores)
    pairs = zip(scores, folds, strict=True)
    trials = [finished_trial(n, score, fold=fold) for n, (score, fold) in enumerate(pairs)]
    plans = {trial.number: Plan.from_dict(trial.system_attrs[PLAN_KEY]) for trial in trials}
    return read(trials, plans, BLOCKS, directions=[MAXIMIZE])


def numbers(part: History) -> list[int]:
    return [trial.number for trial in part.trials]


def test_a_short_history_is_kept_whole() -> None:
    whole = history([0.5] * 40)
    assert whole.thinned(40) is whole


def test_a_long_history_keeps_the_newest_the_best_and_some_of_every_rank() -> None:
    scores = np.random.default_rng(0).permutation(200) / 200
    kept = numbers(history(scores.tolist()).thinned(40))
    assert kept == sorted(set(kept))
    assert len(kept) == 40
    assert kept[20:] == list(range(180, 200))
    rank = np.argsort(np.argsort(-scores[:180]))[kept[:20]]
    assert sorted(rank)[:10] == list(range(10))
    others = sorted(rank)[10:]
    assert others[-1] == 179  # the worst of all
    assert max(np.diff(others)) <= 20  # no gap: 170 ranks are shared by 10


def test_the_best_of_a_hard_fold_count_as_much_as_those_of_an_easy_one() -> None:
    quality = np.random.default_rng(0).permutation(100) / 200
    folds = [0, 1] * 50
    scores = quality + 0.4 * np.array(folds)
    kept = history(scores.tolist(), folds).thinned(40)
    alone = history(quality.tolist(), folds).thinned(40)
    best = {number for number in numbers(alone) if number < 80}
    assert len(best & set(numbers(kept))) >= 17  # means of folds differ a little by chance


def test_the_parts_before_and_since_a_generation_are_the_whole() -> None:
    whole = history(np.linspace(0.1, 0.9, 35).tolist())
    joined = whole.before(2).followed_by(whole.since(2))
    assert numbers(joined) == numbers(whole)
    np.testing.assert_array_equal(joined.fitness, whole.fitness)
    assert numbers(whole.of(2, {3, 33})) == [3, *range(20, 30), 33]


def test_a_pruned_trial_is_expected_to_gain_what_those_that_finished_gained() -> None:
    curves = [{1: 0.5, 3: 0.7}, {1: 0.4, 3: 0.8}, {1: 0.3}]
    trials = [
        finished_trial(0, 0.7, intermediate_values=curves[0]),
        finished_trial(1, 0.8, intermediate_values=curves[1]),
        finished_trial(2, 0.0, value=None, state=TrialState.PRUNED, intermediate_values=curves[2]),
    ]
    expected = expected_scores(trials, np.array([0.7, 0.8, 0.3]))
    assert expected == pytest.approx([0.7, 0.8, 0.3 + (0.2 + 0.4) / 2])


@pytest.fixture
def few_observations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screening, "MAXIMUM_OBSERVATIONS", 12)


@pytest.mark.usefixtures("few_observations")
@pytest.mark.parametrize("n_folds", [1, 2])
def test_a_search_past_the_limit_that_is_killed_continues_as_the_undisturbed_one(
    n_folds: int, tmp_path: object
) -> None:
    undisturbed = new_study(n_folds=n_folds)
    run(undisturbed, 40)
    for _ in range(4):
        run(new_study(journal(tmp_path / "search.log"), n_folds=n_folds), 10)  # type: ignore[operator]
    continued = new_study(journal(tmp_path / "search.log"), n_folds=n_folds)  # type: ignore[operator]
    assert course(continued) == course(undisturbed)


def test_the_limit_bounds_the_surrogate_and_is_no_part_of_a_short_search(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes: list[int] = []

    class Counting(screening.Surrogate):
        def __init__(self, observations: screening.Observations, *others: object) -> None:
            sizes.append(len(observations.fitness))
            super().__init__(observations, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(screening, "Surrogate", Counting)
    limited, unlimited = new_study(), new_study()
    monkeypatch.setattr(screening, "MAXIMUM_OBSERVATIONS", 20)
    run(limited, 70)
    # Those of the present generation, at most 8 here, come on top.
    assert 20 < max(sizes) <= 28
    monkeypatch.setattr(screening, "MAXIMUM_OBSERVATIONS", 10_000)
    run(unlimited, 70)
    assert max(sizes) >= 60
    assert course(limited)[:20] == course(unlimited)[:20]


def test_what_a_pruned_trial_promises_shifts_nothing_and_is_no_better_than_can_be() -> None:
    study = new_study(surrogate=False)

    def objective(trial: optuna.Trial) -> float:
        suggest_genotype(trial, BLOCKS)
        trial.report(0.3 if trial.number else 0.9, step=1)
        if not trial.number:
            raise optuna.TrialPruned
        return 0.6 + 0.01 * trial.number

    run(study, 4, objective)
    plans = {trial.number: plan_of(trial) for trial in study.trials}
    told = read(study.trials, plans, BLOCKS, directions=study.directions)
    assert told.fitness == pytest.approx([0.1, 0.39, 0.38, 0.37])
    # 0.9 and the 0.32 that the others gained.
    assert told.expected_fitness == pytest.approx([0.0, 0.39, 0.38, 0.37])


def test_a_long_history_of_several_objectives_keeps_its_front() -> None:
    sizes = dict(zip(BLOCKS, (8.0, 4.0, 2.0, 1.0), strict=True))
    generator = np.random.default_rng(0)
    trials = [finished_trial(number, 0.0) for number in range(200)]
    plans = {trial.number: Plan.from_dict(trial.system_attrs[PLAN_KEY]) for trial in trials}
    costs = Costs.of([sizes], BLOCKS)
    for trial in trials:
        # The more is trained, the better: good and dear ones would crowd out all cheap ones.
        cost = costs.known(np.array([plans[trial.number].genes]))[0, 0]
        trial.values = [cost / 16 + 0.01 * generator.random(), cost]
    both = [MAXIMIZE, StudyDirection.MINIMIZE]
    whole = read(trials, plans, BLOCKS, directions=both, costs=costs)
    front = on_front(np.column_stack([whole.fitness, whole.costs]))
    assert 8 <= front.sum() <= 16
    kept = set(numbers(whole.thinned(64)))
    assert {n for n, is_best in zip(numbers(whole), front, strict=True) if is_best} <= kept
