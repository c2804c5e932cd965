"""Extra genes go through the same operators, the surrogate and the storage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.trial import Trial, TrialState
from searches import BLOCKS, journal, new_study, plans, run

from hf_biotune.evolution import (
    BioTuneSampler,
    PlannedSampler,
    Scheme,
    breeding,
    genotype_of,
    operators,
    parameters_of,
    suggest_genotype,
    surrogate,
)
from hf_biotune.exceptions import ConfigError
from hf_biotune.genotype import Genotype

EXTRA = ("base_lr", "norm_statistics")


def score(trial: Trial) -> float:
    """Best with frozen statistics and at a low rate, whatever is trained."""
    genotype = suggest_genotype(trial, BLOCKS, EXTRA)
    genes = genotype.extra_genes
    frozen = genes["norm_statistics"] > 0.5
    return 0.5 + 0.2 * frozen - 0.3 * abs(genes["base_lr"] - 0.2) - 0.02 * sum(genotype.selected)


def extra_study(
    storage: optuna.storages.BaseStorage | None = None, **kwargs: object
) -> optuna.Study:
    return new_study(storage, extra_genes=EXTRA, **kwargs)


def test_validity_is_a_matter_of_blocks_alone() -> None:
    genes = np.array([[0.2, 0.4, 0.5, 0.9, 0.9], [0.2, 0.6, 0.5, 0.0, 0.0]])
    assert operators.is_valid(genes, n_extra=2).tolist() == [False, True]


def test_an_elite_is_exploited_in_a_trained_block_or_an_extra_gene() -> None:
    elite = np.array([0.1, 0.7, 0.5, 0.4, 0.6])
    plus, minus = operators.exploit(elite, np.random.default_rng(0), size=200, n_extra=2)
    changed = (plus != elite).sum(axis=0)
    assert changed[[0, 2]].tolist() == [0, 0]
    assert (changed[[1, 3, 4]] > 40).all()
    np.testing.assert_allclose((plus + minus) / 2, np.tile(elite, (200, 1)))


def test_everything_that_is_bred_trains_a_block() -> None:
    generator = np.random.default_rng(0)
    pool = breeding.random_individuals(6, generator, 5, n_extra=2)
    children, _ = breeding.offspring(pool, np.linspace(0.1, 0.5, 5), generator, 300, n_extra=2)
    strangers = [breeding.spread_individual(6, 0, index, n_extra=2) for index in range(50)]
    for genes in (pool, children, np.array(strangers)):
        assert operators.is_valid(genes, n_extra=2).all()
        assert ((genes >= 0) & (genes <= 1)).all()


def test_extra_genes_are_features() -> None:
    names = ("base_lr", "l2sp", "norm_statistics", "weight_decay")
    features = surrogate.features([0.2, 0.75, 0.5, 0.7, 0.55, 0.9, 0.05], names)
    # What is on: blocks, L2-SP, statistics, decay; then rates (with the base rate), strengths.
    np.testing.assert_allclose(features, [0, 1, 1, 1, 0, 0, 0.7, 0.5, 0, 0])
    assert surrogate.features(np.full((5, 7), 0.4), names).shape == (5, 10)


@pytest.mark.parametrize("with_surrogate", [False, True], ids=["paper", "default"])
def test_evolution_finds_the_extra_genes_that_pay(with_surrogate: bool) -> None:
    study = extra_study(surrogate=with_surrogate)
    run(study, 60, score)
    late = [genotype_of(trial, BLOCKS).extra_genes for trial in study.trials[-20:]]
    assert np.mean([genes["norm_statistics"] > 0.5 for genes in late]) > 0.8
    assert abs(np.mean([genes["base_lr"] for genes in late]) - 0.2) < 0.15
    assert {len(plan.genes) for plan in plans(study)} == {7}


def test_a_killed_search_continues_as_if_nothing_had_happened(tmp_path: Path) -> None:
    undisturbed = extra_study()
    run(undisturbed, 20, score)
    killed = extra_study(journal(tmp_path / "search.log"))
    run(killed, 12, score)
    orphan = killed.ask()
    suggest_genotype(orphan, BLOCKS, EXTRA)
    resumed = extra_study(journal(tmp_path / "search.log"))
    resumed.tell(orphan.number, state=TrialState.FAIL)
    run(resumed, 8, score)
    assert [plan.genes for plan in plans(resumed) if plan.genes] == [
        *[plan.genes for plan in plans(undisturbed)[:12]],
        plans(undisturbed)[12].genes,
        *[plan.genes for plan in plans(undisturbed)[12:]],
    ]


def test_other_samplers_search_them_too() -> None:
    sampler = PlannedSampler(
        BLOCKS,
        lambda seed: optuna.samplers.TPESampler(seed=seed),
        scheme=Scheme(6, 2),
        extra_genes=EXTRA,
    )
    study = optuna.create_study(sampler=sampler)
    run(study, 4, score)
    assert list(study.trials[3].params)[-2:] == ["gene:base_lr", "gene:norm_statistics"]


def test_first_genotypes_must_have_the_same_extra_genes() -> None:
    genotype = Genotype((0.5,) * 4, 0.0, {"base_lr": 0.5})
    assert BioTuneSampler(BLOCKS, extra_genes=["base_lr"], first=[genotype])
    with pytest.raises(ConfigError, match="extra genes base_lr, the sampler base_lr, norm"):
        BioTuneSampler(BLOCKS, extra_genes=EXTRA, first=[genotype])


def test_parameters_hold_extra_genes_by_name() -> None:
    genotype = Genotype((0.2, 0.7), 0.5, {"l2sp": 0.3})
    parameters = parameters_of(genotype, ["stem", "head"])
    assert parameters["gene:l2sp"] == 0.3
    assert genotype_of(parameters, ["stem", "head"]) == genotype
