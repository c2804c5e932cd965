from __future__ import annotations

import inspect
import itertools
import math
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.trial import Trial, TrialState
from searches import (
    BLOCKS,
    course,
    experimental,
    finished,
    journal,
    new_study,
    plans,
    run,
    score_of,
)

from hf_biotune.evolution import (
    BioTuneSampler,
    genotype_of,
    parameters_of,
    plan_of,
    suggest_genotype,
)
from hf_biotune.exceptions import ConfigError, GenotypeError
from hf_biotune.genotype import Genotype

BOTH = pytest.mark.parametrize("surrogate", [False, True], ids=["paper", "default"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"block_names": []}, "block_names must hold at least one name, got none"),
        ({"block_names": "head"}, "must be a list of names, got the string 'head'"),
        ({"block_names": ["a", "b", "a"]}, "must differ from each other, got 'a' twice"),
        ({"block_names": [1, 2]}, "must be names, got 1; use partition.names"),
        ({"population_size": 4}, r"population_size must be at least n_elites \+ 2 = 5, got 4"),
        ({"population_size": 9.5}, "population_size must be an integer, got 9.5"),
        ({"n_elites": 0}, "n_elites must be at least 1, got 0"),
        ({"n_folds": 0}, "n_folds must be at least 1, got 0"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"seed": None}, "seed must be an integer, got None"),
        ({"seed": True}, "seed must be an integer, got True"),
        ({"n_candidates": 0}, "n_candidates must be at least 1, got 0"),
        ({"max_attempts": 0}, "max_attempts must be at least 1, got 0"),
        ({"surrogate": "yes"}, "surrogate must be True or False, got 'yes'"),
    ],
)
def test_an_argument_out_of_range_is_named_with_its_value_and_rule(
    arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        BioTuneSampler(**{"block_names": BLOCKS, **arguments})  # type: ignore[arg-type]


@BOTH
@pytest.mark.parametrize("n_folds", [1, 3])
def test_generations_follow_the_scheme(surrogate: bool, n_folds: int) -> None:
    study = new_study(surrogate=surrogate, n_folds=n_folds)
    scheme = study.sampler.scheme
    run(study, sum(scheme.n_slots(generation) for generation in range(4)))
    expected = [(g, slot) for g in range(4) for slot in range(scheme.n_slots(g))]
    assert [(plan.generation, plan.slot) for plan in plans(study)] == expected
    for plan in plans(study):
        duty = scheme.duty(plan.generation, plan.slot)
        assert plan.fold == plan.generation % n_folds
        instead = {"offspring": {"random"}, "exploit": {"offspring", "random"} if surrogate else {}}
        assert plan.role == duty.role or plan.role in instead.get(duty.role, {})


@BOTH
def test_every_trial_trains_a_block_and_every_gene_is_in_range(surrogate: bool) -> None:
    study = new_study(surrogate=surrogate, seed=5, n_folds=2)
    run(study, 60)
    for trial in study.trials:
        genotype = genotype_of(trial, BLOCKS)  # raises if a gene is out of range
        assert genotype.is_valid


def test_an_exploited_elite_is_one_of_the_best_and_changes_in_one_gene() -> None:
    study = new_study(surrogate=False)
    run(study, 16)
    initial = sorted(study.trials[:6], key=lambda trial: -trial.value)
    for trial, elite in zip(study.trials[6:10], [0, 0, 1, 1], strict=True):
        assert plan_of(trial).parents == (initial[elite].number,)
        genes, before = np.array(plan_of(trial).genes), np.array(plan_of(initial[elite]).genes)
        assert (genes != before).sum() == 1
    plus, minus = (np.array(plan_of(trial).genes) for trial in study.trials[6:8])
    elite_genes = np.array(plan_of(initial[0]).genes)
    changed = plus != elite_genes
    if 0 < plus[changed] < 1 and 0 < minus[changed] < 1:
        np.testing.assert_allclose((plus + minus) / 2, elite_genes)


@BOTH
@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_the_search_is_better_than_random_in_both_directions(
    surrogate: bool, direction: str
) -> None:
    sign = 1.0 if direction == "maximize" else -1.0
    study = new_study(direction=direction, surrogate=surrogate)
    run(study, 60, lambda trial: sign * score_of(trial))
    scores = [sign * trial.value for trial in study.trials]
    assert np.mean(scores[-10:]) > np.mean(scores[:6]) + 0.03


@BOTH
def test_minimising_the_loss_is_maximising_the_score(surrogate: bool) -> None:
    up, down = new_study(surrogate=surrogate), new_study(surrogate=surrogate, direction="minimize")
    run(up, 40)
    run(down, 40, lambda trial: 1.0 - score_of(trial))
    assert [plan.genes for plan in plans(up)] == [plan.genes for plan in plans(down)]


def test_enqueued_genotypes_come_first_and_the_rest_of_generation_0_is_filled() -> None:
    study = new_study()
    probe = Genotype((0.1, 0.1, 0.1, 0.5), 0.2)
    full = Genotype((0.5, 0.5, 0.5, 0.5), 0.0)
    for genotype in (probe, full):
        study.enqueue_trial(parameters_of(genotype, BLOCKS))
    run(study, 10)
    assert [genotype_of(trial, BLOCKS) for trial in study.trials[:2]] == [probe, full]
    assert plan_of(study.trials[0]).genes == (0.1, 0.1, 0.1, 0.5, 0.2)
    assert [(plan.generation, plan.slot, plan.role) for plan in plans(study)[:6]] == [
        (0, slot, "initial") for slot in range(6)
    ]
    assert plans(study)[6].generation == 1


def test_first_genotypes_take_the_first_slots_of_generation_0() -> None:
    first = (Genotype((0.1, 0.1, 0.1, 0.5), 0.2), Genotype((0.5,) * 4, 0.0))
    study, plain = new_study(first=first), new_study()
    for each in (study, plain):
        run(each, 7)
    assert tuple(genotype_of(trial, BLOCKS) for trial in study.trials[:2]) == first
    assert [(plan.slot, plan.role) for plan in plans(study)[:6]] == [
        (slot, "initial") for slot in range(6)
    ]
    assert [plan.genes for plan in plans(study)[2:6]] == [plan.genes for plan in plans(plain)[2:6]]


def test_more_first_genotypes_than_a_population_holds_are_an_error() -> None:
    first = [Genotype((0.5,) * 4, 0.0)] * 7
    with pytest.raises(ConfigError, match="at most population_size = 6 genotypes, got 7"):
        new_study(first=first)


def test_first_genotypes_of_another_model_are_an_error() -> None:
    with pytest.raises(GenotypeError, match="2 importance genes but there are 4 blocks"):
        new_study(first=[Genotype((0.5, 0.5), 0.0)])


def test_with_a_surrogate_offspring_compete_for_the_slots_of_an_elites_neighbours() -> None:
    study = new_study()
    run(study, 60)
    scheme = study.sampler.scheme
    roles = Counter(
        plan.role
        for plan in plans(study)
        if scheme.duty(plan.generation, plan.slot).role == "exploit"
    )
    assert roles["exploit"] > 0
    assert roles["offspring"] > 0


def test_genotypes_enqueued_later_take_no_elites_slot() -> None:
    study = new_study(surrogate=False)
    run(study, 6)
    study.enqueue_trial(parameters_of(Genotype((0.5, 0.5, 0.5, 0.5), 0.0), BLOCKS))
    run(study, 5)
    assert [(plan.slot, plan.role) for plan in plans(study)[6:]] == [
        (4, "initial"),
        *((slot, "exploit") for slot in range(4)),
    ]


def test_genes_that_an_enqueued_trial_leaves_open_are_filled() -> None:
    study = new_study()
    study.enqueue_trial({"importance:head": 0.75})
    run(study, 1)
    assert study.trials[0].params["importance:head"] == 0.75
    assert plan_of(study.trials[0]).genes == tuple(study.trials[0].params.values())


def test_an_enqueued_gene_out_of_range_is_an_error() -> None:
    study = new_study()
    study.enqueue_trial({"importance:head": 1.5})
    with pytest.raises(GenotypeError, match=r"importances\[3\] must be in \[0, 1\], got 1.5"):
        study.ask()


@BOTH
def test_pruned_trials_do_not_hold_up_a_generation(surrogate: bool) -> None:
    study = new_study(surrogate=surrogate)

    def mostly_pruned(trial: Trial) -> float:
        score = score_of(trial)
        trial.report(score - 0.1, step=1)
        if trial.number % 3:
            raise optuna.TrialPruned
        return score

    run(study, 36, mostly_pruned)
    assert Counter(plan.generation for plan in plans(study)) == {0: 6, 1: 8, 2: 8, 3: 8, 4: 6}


def test_a_pruned_trial_is_no_elite_while_there_are_finished_ones() -> None:
    study = new_study(surrogate=False)

    def best_are_pruned(trial: Trial) -> float:
        score = score_of(trial)
        trial.report(score + 10, step=1)
        if trial.number % 2:
            raise optuna.TrialPruned
        return score

    run(study, 7, best_are_pruned)
    parents = study.sampler.get_parent_population(study, 1)
    states = [trial.state for trial in parents]
    assert states == [TrialState.COMPLETE] * 3 + [TrialState.PRUNED] * 3
    scores = [trial.value for trial in parents]
    assert scores[:3] == sorted(scores[:3], reverse=True)
    assert scores[3:] == sorted(scores[3:], reverse=True)


@BOTH
def test_a_search_of_which_all_is_pruned_goes_on(surrogate: bool) -> None:
    study = new_study(surrogate=surrogate)

    def pruned(trial: Trial) -> float:
        suggest_genotype(trial, BLOCKS)
        raise optuna.TrialPruned

    run(study, 30, pruned)
    assert plan_of(study.trials[-1]).generation == 3


def test_a_failed_trial_is_repeated_with_the_same_genes() -> None:
    study = new_study()
    undisturbed = new_study()
    run(undisturbed, 20)

    def fails_once(trial: Trial) -> float:
        score = score_of(trial)
        if trial.number in (3, 11, 17):
            raise RuntimeError
        return score

    study.optimize(fails_once, n_trials=23, catch=RuntimeError)
    assert course(study) == course(undisturbed)


@BOTH
def test_a_genotype_that_always_fails_is_given_up(surrogate: bool) -> None:
    study = new_study(surrogate=surrogate, max_attempts=2)

    def fails_in_slot_3(trial: Trial) -> float:
        if plan_of(trial).slot == 3:
            suggest_genotype(trial, BLOCKS)
            raise RuntimeError
        return score_of(trial)

    study.optimize(fails_in_slot_3, n_trials=36, catch=RuntimeError)
    failures = Counter(
        plan_of(trial).generation for trial in study.trials if trial.state == TrialState.FAIL
    )
    assert failures == {0: 2, 1: 2, 2: 2, 3: 2}
    assert Counter(plan_of(trial).generation for trial in finished(study)) == {
        0: 5,
        1: 7,
        2: 7,
        3: 7,
        4: 2,
    }


@BOTH
def test_a_search_of_which_all_fails_goes_on(surrogate: bool) -> None:
    study = new_study(surrogate=surrogate, max_attempts=1)

    def fails(trial: Trial) -> float:
        suggest_genotype(trial, BLOCKS)
        return math.nan

    run(study, 20, fails)
    assert [trial.state for trial in study.trials] == [TrialState.FAIL] * 20
    assert plan_of(study.trials[-1]).generation == 2
    assert plan_of(study.trials[-1]).role == "random"


@BOTH
def test_infinite_scores_are_the_worst(surrogate: bool) -> None:
    study = new_study(surrogate=surrogate, direction="minimize")
    run(study, 40, lambda trial: math.inf if trial.number % 4 == 0 else 1 - score_of(trial))
    parents = study.sampler.get_parent_population(study, 2)
    assert math.isfinite(parents[0].value)
    assert all(trial.state == TrialState.COMPLETE for trial in study.trials)


def test_the_parent_population_is_kept_in_its_order() -> None:
    study = new_study(surrogate=False)
    run(study, 20)
    parents = study.sampler.get_parent_population(study, 2)
    scores = [trial.value for trial in parents]
    assert scores == sorted(scores, reverse=True)
    assert len(parents) == 6
    assert study.sampler.get_parent_population(study, 0) == []
    assert [trial.number for trial in study.sampler.get_population(study, 1)] == list(range(6, 14))
    assert study.sampler.get_trial_generation(study, study.trials[7]) == 1


def test_a_late_trial_does_not_change_who_is_exploited() -> None:
    study = new_study(surrogate=False)
    late = study.ask()
    genotype = suggest_genotype(late, BLOCKS)
    run(study, 7)  # five slots of generation 0, one more because `late` is running, one of the next
    before = [trial.number for trial in study.sampler.get_parent_population(study, 1)]
    study.tell(late, 100.0)
    assert [t.number for t in study.sampler.get_parent_population(study, 1)] == before
    run(study, 1)
    assert plans(study)[8].parents == plans(study)[7].parents
    assert genotype.is_valid
    assert [(plan.generation, plan.slot) for plan in plans(study)[:9]] == [
        *((0, slot) for slot in range(7)),
        (1, 0),
        (1, 1),
    ]


def test_other_parameters_are_reproducible_and_differ_between_trials() -> None:
    def with_momentum(trial: Trial) -> float:
        trial.suggest_float("momentum", 0.0, 1.0)
        trial.suggest_categorical("statistics", ["train", "frozen"])
        return score_of(trial)

    first, second = new_study(), new_study()
    for study in (first, second):
        run(study, 12, with_momentum)
    assert [trial.params for trial in first.trials] == [trial.params for trial in second.trials]
    assert len({trial.params["momentum"] for trial in first.trials[:6]}) == 6


def test_a_rescored_or_exploited_elite_keeps_its_other_parameters() -> None:
    def with_momentum(trial: Trial) -> float:
        trial.suggest_float("momentum", 0.0, 1.0)
        return score_of(trial)

    study = new_study(n_folds=2)
    run(study, 40, with_momentum)
    copies = [trial for trial in study.trials if plan_of(trial).role in ("rescore", "exploit")]
    assert len(copies) > 10
    for trial in copies:
        (elite,) = plan_of(trial).parents
        assert trial.params["momentum"] == study.trials[elite].params["momentum"]


def test_a_repeated_trial_keeps_its_enqueued_other_parameters() -> None:
    study = new_study()
    study.enqueue_trial({**parameters_of(Genotype((0.9,) * 4, 0.5), BLOCKS), "momentum": 0.125})
    trial = study.ask()
    study.tell(trial, state=TrialState.FAIL)
    again = study.ask()
    assert again.suggest_float("momentum", 0.0, 1.0) == 0.125
    assert suggest_genotype(again, BLOCKS) == Genotype((0.9,) * 4, 0.5)


def test_other_parameters_whose_range_has_changed_are_drawn_anew() -> None:
    study = new_study()
    run(study, 6, lambda trial: score_of(trial) + 0 * trial.suggest_float("momentum", 0.0, 1.0))
    trial = study.ask()
    assert plan_of(trial).role == "exploit"
    assert 2.0 <= trial.suggest_float("momentum", 2.0, 3.0) <= 3.0


def test_an_enqueued_value_that_is_no_choice_is_not_inherited() -> None:
    study = new_study()
    study.enqueue_trial({"importance:head": 0.5, "statistics": "nonsense"})
    trial = study.ask()
    with pytest.raises(ValueError, match="nonsense"):
        trial.suggest_categorical("statistics", ["train", "frozen"])
    study.tell(trial, state=TrialState.FAIL)
    again = study.ask()
    assert plan_of(again).genes == plan_of(trial).genes
    assert again.suggest_categorical("statistics", ["train", "frozen"]) in ("train", "frozen")


def test_an_elite_that_trains_nothing_is_replaced_by_offspring() -> None:
    study = new_study(surrogate=False)
    nothing = Genotype((0.1,) * 4, 0.9)
    study.enqueue_trial(parameters_of(nothing, BLOCKS))  # a user may ask for the impossible
    run(study, 8, lambda trial: score_of(trial) + 9 * (trial.number == 0))
    assert [plan.role for plan in plans(study)[6:]] == ["offspring"] * 2
    assert all(genotype_of(trial, BLOCKS).is_valid for trial in study.trials[1:])


def test_sampling_can_be_wrapped_to_fix_a_gene() -> None:
    with experimental():
        sampler = optuna.samplers.PartialFixedSampler(
            {"importance:head": 1.0}, BioTuneSampler(BLOCKS, population_size=6, n_elites=2)
        )
    study = optuna.create_study(sampler=sampler)
    run(study, 20)
    assert {trial.params["importance:head"] for trial in study.trials} == {1.0}


def test_hyperband_brackets_share_one_search() -> None:
    pruner = optuna.pruners.HyperbandPruner(min_resource=1, max_resource=9, reduction_factor=3)
    study = optuna.create_study(
        study_name="search",
        sampler=BioTuneSampler(BLOCKS, population_size=6, n_elites=2, n_candidates=20),
        pruner=pruner,
        direction="maximize",
    )

    def with_epochs(trial: Trial) -> float:
        score = score_of(trial)
        for epoch in range(9):
            trial.report(score, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
        return score

    run(study, 25, with_epochs)
    genes = [plan.genes for plan in plans(study)]
    assert len(set(genes)) == 25
    places = [(plan.generation, plan.slot) for plan in plans(study)]
    assert places == [
        *itertools.islice(((g, s) for g in range(4) for s in range(8 if g else 6)), 25)
    ]


def test_importances_and_contours_of_optuna_understand_the_study() -> None:
    study = new_study()
    run(study, 30)
    importances = optuna.importance.get_param_importances(study)
    assert set(importances) == set(study.trials[0].params)


@pytest.mark.parametrize("surrogate", [False, True])
def test_a_copied_study_goes_on_as_the_original(surrogate: bool, tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'studies.db'}"
    # So that trials have other identifiers in the copy.
    optuna.create_study(storage=storage, study_name="other").add_trial(
        optuna.create_trial(value=0.0)
    )
    study = new_study(optuna.storages.RDBStorage(storage), surrogate=surrogate)
    run(study, 14)
    target = journal(tmp_path / "copy.log")
    optuna.copy_study(
        from_study_name="search", from_storage=storage, to_storage=target, to_study_name="search"
    )
    copy = new_study(target, surrogate=surrogate)
    parents = [study.sampler.get_parent_population(study, g) for g in (1, 2)]
    copied = [copy.sampler.get_parent_population(copy, g) for g in (1, 2)]
    assert [[t.number for t in p] for p in copied] == [[t.number for t in p] for p in parents]
    run(study, 6)
    run(copy, 6)
    assert course(copy) == course(study)


def test_a_study_put_together_from_many_generations_goes_on() -> None:
    study = new_study(population_size=4, n_elites=1, surrogate=False)
    run(study, 400)
    other = new_study(population_size=4, n_elites=1, surrogate=False)
    other.add_trials(study.trials)
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 150)
    try:
        plan = plan_of(other.ask())
    finally:
        sys.setrecursionlimit(limit)
    assert plan.generation == plan_of(study.ask()).generation > 60


def test_enqueued_genotypes_come_behind_the_first_ones() -> None:
    first = [Genotype((0.9, 0.1, 0.2, 0.3), 0.5), Genotype((0.1, 0.9, 0.2, 0.3), 0.5)]
    study = new_study(first=first)
    mine = Genotype((0.1, 0.2, 0.9, 0.3), 0.5)
    study.enqueue_trial(parameters_of(mine, BLOCKS))
    run(study, 6)
    trained = [genotype_of(trial, BLOCKS) for trial in study.trials]
    assert trained[:3] == [mine, *first]
    assert [plan.slot for plan in plans(study)][:3] == [2, 0, 1]


@pytest.mark.parametrize("threshold", [0.9, 0.99])
def test_open_genes_are_drawn_until_a_block_is_trained(threshold: float) -> None:
    study = new_study()
    for _ in range(6):
        study.enqueue_trial({"freezing_threshold": threshold})
    run(study, 6)
    for trial in study.trials:
        genotype = genotype_of(trial, BLOCKS)
        assert genotype.freezing_threshold == threshold
        assert genotype.is_valid
