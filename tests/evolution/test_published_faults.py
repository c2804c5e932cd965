"""Faults of the published program that concern evolution, and that ours doesn't have."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from optuna.trial import Trial
from searches import BLOCKS, new_study, plans, run, score_of

from hf_biotune.evolution import breeding, genotype_of, parameters_of, plan_of, suggest_genotype
from hf_biotune.genotype import Genotype

BOTH = pytest.mark.parametrize("surrogate", [False, True], ids=["paper", "default"])


def on_ever_easier_folds(trial: Trial) -> float:
    """Every generation scores .2 more than the one before, whatever the genes."""
    return score_of(trial) + 0.25 * plan_of(trial).fold


@pytest.mark.parametrize("n_folds", [2, 4])
def test_fitness_on_a_new_fold_is_never_compared_with_that_on_the_old_one(n_folds: int) -> None:
    study = new_study(surrogate=False, n_folds=n_folds)
    run(study, 50, on_ever_easier_folds)
    for generation in range(1, 4):
        members = [t for t in study.trials if plan_of(t).generation == generation]
        elites = study.sampler.get_parent_population(study, generation)[:2]
        next_parents = study.sampler.get_parent_population(study, generation + 1)
        # The elites are scored again, with the same genes ...
        rescored = [t for t in members if plan_of(t).role == "rescore"]
        assert [t.params for t in rescored] == [t.params for t in elites]
        # ... only then exploited, and a neighbour wins only against the score on the same fold.
        for elite, again in zip(elites, rescored, strict=True):
            neighbours = [
                t
                for t in members
                if t.number > again.number and plan_of(t).parents == (elite.number,)
            ]
            assert {plan_of(t).role for t in neighbours} == {"exploit"}
            best = max([again, *neighbours], key=lambda t: t.value)
            losers = {t.number for t in [again, *neighbours]} - {best.number}
            assert not losers & {t.number for t in next_parents}
        # Nobody in the next population was scored on another fold.
        assert {plan_of(t).fold for t in next_parents} == {generation % n_folds}


def test_an_easier_fold_lets_no_child_drive_its_parents_out_of_the_pool() -> None:
    study = new_study(surrogate=False, n_folds=2)
    run(study, 16, lambda trial: score_of(trial) * 1e-3 + 0.5 * plan_of(trial).fold)
    # Every child of generation 1 scores far more than the parents did on the old fold. Were that
    # compared, four children would leave too few parents, and random individuals would follow.
    assert [plan.role for plan in plans(study)[12:16]] == ["offspring"] * 4


@BOTH
def test_genes_of_accepted_elites_are_stored_clipped(surrogate: bool) -> None:
    study = new_study(surrogate=surrogate)

    def the_more_the_better(trial: Trial) -> float:  # drives every gene over the border
        return sum(suggest_genotype(trial, BLOCKS).importances) / 4

    run(study, 80, the_more_the_better)
    border = [trial for trial in study.trials if 1.0 in plan_of(trial).genes[:-1]]
    assert border
    for trial in study.trials:
        genes = np.array(plan_of(trial).genes)
        assert ((genes >= 0) & (genes <= 1)).all()
        assert tuple(trial.params.values()) == plan_of(trial).genes


def test_the_children_of_generation_0_do_mutate() -> None:
    study = new_study(surrogate=False)
    same = Genotype((0.5, 0.5, 0.5, 0.5), 0.2)
    for _ in range(6):
        study.enqueue_trial(parameters_of(same, BLOCKS))
    run(study, 14, lambda trial: suggest_genotype(trial, BLOCKS).is_valid * 0.9 - trial.number / 50)
    children = [plan for plan in plans(study) if plan.role == "offspring"]
    # Crossover and adoption of equal individuals change nothing: what differs has mutated.
    assert len(children) == 4
    assert sum(plan.genes != (0.5, 0.5, 0.5, 0.5, 0.2) for plan in children) >= 3


def test_mutation_goes_on_when_every_fitness_ties() -> None:
    pool = np.full((5, 4), 0.5)
    pool[:, -1] = 0.2
    children, _ = breeding.offspring(pool, [0.3] * 5, np.random.default_rng(0), 200)
    assert (children != pool[0]).any(axis=1).mean() > 0.5


@BOTH
def test_the_extinction_of_a_generation_is_its_own(surrogate: bool) -> None:
    """Ties in one generation leave nothing stale: the search goes on as long as it is asked to."""
    study = new_study(surrogate=surrogate)
    run(study, 60, lambda trial: float(suggest_genotype(trial, BLOCKS).is_valid))
    genes = [plan.genes for plan in plans(study)]
    assert len(set(genes)) > 50  # a few neighbours of elites meet at the border of [0, 1]
    assert len(set(genes[-20:]) - set(genes[:-20])) > 15


@BOTH
def test_children_that_select_no_block_waste_no_training(surrogate: bool) -> None:
    study = new_study(surrogate=surrogate)

    def the_fewer_the_better(trial: Trial) -> float:  # drives the population to the empty selection
        genotype = suggest_genotype(trial, BLOCKS)
        return 1.0 - sum(genotype.selected) / 4 + 0.1 * genotype.freezing_threshold

    run(study, 80, the_fewer_the_better)
    assert all(genotype_of(trial, BLOCKS).is_valid for trial in study.trials)
    places = [(plan.generation, plan.slot) for plan in plans(study)]
    scheme = study.sampler.scheme
    expected = ((g, slot) for g in itertools.count() for slot in range(scheme.n_slots(g)))
    assert places == list(itertools.islice(expected, 80))
