"""One flag swaps the sampler of a search."""

from __future__ import annotations

import importlib.util

import optuna
import pytest
from small import small_resnet

from hf_biotune import SearchConfig, biotune_search
from hf_biotune.exceptions import ConfigError
from hf_biotune.search import default_training_arguments
from hf_biotune.search.samplers import SAMPLERS


def search(train, validation, **changes):
    settings = {
        "budget": None,
        "generations": 0,
        "population_size": 6,
        "n_elites": 1,
        "seeds": (1,),
        "n_finalists": 0,
        "memory_layout": "contiguous",
        "precision": "fp32",
    }
    return biotune_search(
        small_resnet,
        train,
        validation,
        default_training_arguments(
            num_train_epochs=1, per_device_train_batch_size=20, use_cpu=True
        ),
        SearchConfig(**{**settings, **changes}),
        storage=optuna.storages.InMemoryStorage(),
    )


@pytest.fixture(scope="module")
def evolved(digits_train, digits_validation):
    return search(digits_train, digits_validation).history


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name != "biotune"])
def test_every_sampler_searches_the_same_space_with_the_same_number_of_trainings(
    sampler, evolved, digits_train, digits_validation
):
    theirs = search(digits_train, digits_validation, sampler=sampler).history
    assert len(theirs) == len(evolved)
    assert theirs.fold.tolist() == evolved.fold.tolist()
    assert theirs.role.tolist() == ["initial"] * 4 + ["sampled"] * 2
    genes = [name for name in evolved if name.startswith(("importance:", "freezing_threshold"))]
    assert (theirs[genes].iloc[:4] == evolved[genes].iloc[:4]).all().all()
    assert (theirs[genes].iloc[4:] != evolved[genes].iloc[4:]).all().all()
    assert ((theirs[genes] >= 0) & (theirs[genes] <= 1)).all().all()


class SelectsNothing(optuna.samplers.RandomSampler):
    """Every threshold above every importance."""

    def sample_independent(self, study, trial, param_name, param_distribution):
        drawn = super().sample_independent(study, trial, param_name, param_distribution)
        return 1.0 if param_name == "freezing_threshold" else drawn


def test_genes_that_select_no_block_train_the_most_important_one(digits_train, digits_validation):
    result = search(
        digits_train,
        digits_validation,
        sampler=SelectsNothing(seed=0),
        seeded_start=False,
    )
    blocks = result.partition.names
    for _, row in result.history.iterrows():
        best = max(blocks, key=lambda name: row[f"importance:{name}"])
        trained = [name for name in blocks if row[f"multiplier:{name}"] > 0]
        assert trained == [best]
    assert result.best_genotype.decode(blocks) == result.best_config.lr_multipliers


@pytest.mark.parametrize("sampler", ["annealing", None, ["tpe"], optuna.samplers.TPESampler])
def test_an_unknown_sampler_is_refused_with_the_list(sampler):
    with pytest.raises(
        ConfigError, match="one of biotune, random, tpe, cmaes, gp, nsgaii, or a sampler of Optuna"
    ):
        SearchConfig(sampler=sampler)


def test_a_sampler_without_its_package_names_the_extra(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "cmaes" else find(name)
    )
    with pytest.raises(ConfigError, match=r"needs the package 'cmaes'.*hf-biotune\[cmaes\]"):
        SearchConfig(sampler="cmaes")
    SearchConfig(sampler="tpe")


def test_a_sampler_object_is_written_as_its_name():
    config = SearchConfig(sampler=optuna.samplers.TPESampler(seed=0))
    assert config.to_dict()["sampler"] == "TPESampler"
