from __future__ import annotations

import json
import subprocess
import sys

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from searches import BLOCKS, new_study

from hf_biotune.evolution import (
    Plan,
    genotype_of,
    parameter_names,
    parameters_of,
    plan_of,
    suggest_genotype,
)
from hf_biotune.exceptions import ConfigError, GenotypeError
from hf_biotune.genotype import Genotype

unit = st.floats(0.0, 1.0)


@given(genes=st.lists(unit, min_size=4, max_size=4), threshold=unit)
def test_a_genotype_survives_the_way_through_parameters(
    genes: list[float], threshold: float
) -> None:
    genotype = Genotype(tuple(genes), threshold)
    parameters = parameters_of(genotype, BLOCKS)
    assert list(parameters) == parameter_names(BLOCKS)
    assert genotype_of({**parameters, "momentum": 0.9}, BLOCKS) == genotype


def test_parameters_are_named_after_the_blocks() -> None:
    names = ["importance:stem", "importance:layer1", "importance:layer2", "importance:head"]
    assert parameter_names(BLOCKS) == [*names, "freezing_threshold"]


def test_a_genotype_of_another_model_is_refused() -> None:
    with pytest.raises(GenotypeError, match="2 importance genes but there are 4 blocks: stem"):
        parameters_of(Genotype((0.1, 0.9), 0.5), BLOCKS)


def test_a_missing_gene_is_named() -> None:
    with pytest.raises(GenotypeError, match=r"no parameter 'importance:stem'.*suggest_genotype"):
        genotype_of({"freezing_threshold": 0.5}, BLOCKS)


def test_a_plan_survives_json() -> None:
    plan = Plan(3, 1, "offspring", (4, 17), 12, (0.1, 0.7, 1 / 3))
    assert Plan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan


def test_a_live_trial_knows_its_plan_before_it_is_asked_for_genes() -> None:
    study = new_study(n_folds=2)
    trial = study.ask()
    plan = plan_of(trial)
    assert (plan.generation, plan.fold, plan.role, plan.parents) == (0, 0, "initial", ())
    genotype = suggest_genotype(trial, BLOCKS)
    assert (*genotype.importances, genotype.freezing_threshold) == plan.genes
    study.tell(trial, 0.5)
    assert plan_of(study.trials[0]) == plan
    assert genotype_of(study.trials[0], BLOCKS) == genotype


def test_a_trial_of_another_sampler_has_no_plan() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(0))
    with pytest.raises(ConfigError, match=r"trial 0 has no plan.*BioTuneSampler"):
        plan_of(study.ask())


def test_importing_evolution_imports_no_torch() -> None:
    code = "import sys, hf_biotune.evolution; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
