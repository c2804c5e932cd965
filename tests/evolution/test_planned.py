"""Other samplers on the same space, by the same plans."""

from __future__ import annotations

import optuna
import pytest
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.trial import TrialState
from searches import BLOCKS, course, plans, run, score_of

from hf_biotune.evolution import PlannedSampler, Scheme, genotype_of, suggest_genotype
from hf_biotune.genotype import Genotype

SCHEME = Scheme(6, 2, 2)
MAKE = {
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
    "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed, n_startup_trials=6),
    "cmaes": lambda seed: optuna.samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False),
    "gp": lambda seed: optuna.samplers.GPSampler(
        seed=seed, n_startup_trials=6, warn_independent_sampling=False
    ),
    "nsgaii": lambda seed: optuna.samplers.NSGAIISampler(population_size=6, seed=seed),
}
EACH = pytest.mark.parametrize("name", MAKE)


def planned_study(
    name: str,
    storage: BaseStorage | None = None,
    *,
    seed: int = 0,
    first: tuple[Genotype, ...] = (),
) -> optuna.Study:
    return optuna.create_study(
        storage=storage,
        study_name="search",
        direction="maximize",
        sampler=PlannedSampler(BLOCKS, MAKE[name], scheme=SCHEME, seed=seed, first=first),
        load_if_exists=True,
    )


@pytest.mark.parametrize("name", [name for name in MAKE if name != "gp"])
def test_generations_and_folds_are_those_of_evolution(name: str) -> None:
    study = planned_study(name)
    run(study, 18)
    expected = [(g, slot) for g in range(3) for slot in range(SCHEME.n_slots(g))][:18]
    assert [(plan.generation, plan.slot) for plan in plans(study)] == expected
    assert [plan.fold for plan in plans(study)] == [0] * 6 + [1] * 10 + [0] * 2
    assert {plan.role for plan in plans(study)} == {"sampled"}
    for trial, plan in zip(study.trials, plans(study), strict=True):
        assert plan.genes == tuple(genotype_of(trial, BLOCKS).to_array())


@EACH
def test_a_killed_search_continues_as_if_nothing_had_happened(name: str) -> None:
    n_trials, stop = (9, 7) if name == "gp" else (24, 14)  # a Gaussian process takes a second
    undisturbed = planned_study(name)
    run(undisturbed, n_trials)
    storage = optuna.storages.InMemoryStorage()
    killed = planned_study(name, storage)
    run(killed, stop)
    orphan = killed.ask()
    suggest_genotype(orphan, BLOCKS)
    resumed = planned_study(name, storage)
    resumed.tell(orphan.number, state=TrialState.FAIL)
    run(resumed, n_trials - stop)
    assert course(resumed) == course(undisturbed)


@EACH
def test_another_seed_gives_another_search(name: str) -> None:
    first, second = planned_study(name, seed=1), planned_study(name, seed=2)
    for study in (first, second):
        run(study, 3)
    assert not {plan.genes for plan in plans(first)} & {plan.genes for plan in plans(second)}


@EACH
def test_given_genotypes_come_first(name: str) -> None:
    first = (Genotype((0.1, 0.1, 0.1, 0.5), 0.2), Genotype((0.5,) * 4, 0.0))
    study = planned_study(name, first=first)
    run(study, 8)
    assert tuple(genotype_of(trial, BLOCKS) for trial in study.trials[:2]) == first
    assert [plan.role for plan in plans(study)] == ["initial"] * 2 + ["sampled"] * 6


def test_given_genotypes_belong_to_the_first_population_of_nsga_ii() -> None:
    study = planned_study("nsgaii", first=(Genotype((0.5,) * 4, 0.0),))
    run(study, 7)
    keys = [trial.system_attrs["NSGAIISampler:generation"] for trial in study.trials]
    assert keys == [0] * 6 + [1]


def test_an_enqueued_trial_keeps_its_genes() -> None:
    study = planned_study("tpe")
    study.enqueue_trial({"importance:head": 0.75})
    run(study, 1)
    assert study.trials[0].params["importance:head"] == 0.75
    assert plans(study)[0].genes[3] == 0.75


def test_cmaes_takes_all_trials_for_its_own_and_learns_from_them() -> None:
    study, random = planned_study("cmaes"), planned_study("random")
    for each in (study, random):
        each.optimize(score_of, n_trials=60)
    late = sum(trial.value for trial in study.trials[-20:]) / 20
    assert late > sum(trial.value for trial in random.trials) / 60 + 0.05


def test_a_sampler_that_was_built_already_is_used_as_it_is() -> None:
    built = optuna.samplers.RandomSampler(seed=3)
    study = optuna.create_study(sampler=PlannedSampler(BLOCKS, built, scheme=SCHEME))
    run(study, 4)
    twin = optuna.samplers.RandomSampler(seed=3)
    space = study.sampler.infer_relative_search_space(study, study.trials[0])
    for plan in plans(study):
        drawn = tuple(
            twin.sample_independent(study, study.trials[0], name, distribution)
            for name, distribution in space.items()
        )
        assert plan.genes == drawn


def test_parameters_that_are_no_genes_differ_from_each_other() -> None:
    study = planned_study("random")

    def objective(trial: optuna.Trial) -> float:
        return trial.suggest_float("momentum", 0, 1) - trial.suggest_float("dropout", 0, 1)

    study.optimize(objective, n_trials=5)
    assert len({value for trial in study.trials for value in trial.params.values()}) == 10


def test_the_end_of_a_trial_is_passed_on() -> None:
    seen: list[tuple[TrialState, object]] = []

    class Watching(optuna.samplers.RandomSampler):
        def after_trial(
            self,
            study: optuna.Study,
            trial: optuna.trial.FrozenTrial,
            state: TrialState,
            values: object,
        ) -> None:
            seen.append((state, values))

    sampler: BaseSampler = PlannedSampler(BLOCKS, Watching(), scheme=SCHEME)
    study = optuna.create_study(sampler=sampler)
    study.optimize(lambda trial: 0.5, n_trials=1)
    assert seen == [(TrialState.COMPLETE, [0.5])]
