"""A search with extra genes: decoded, trained, reused, shown, and kept in the configuration."""

from __future__ import annotations

import numpy as np
import optuna
import pytest
from small import small_resnet
from torch import nn

from hf_biotune import SearchConfig, biotune_search
from hf_biotune.exceptions import ConfigError
from hf_biotune.extra_genes import settings_of
from hf_biotune.search import default_training_arguments
from hf_biotune.search.history import phenotype_of
from hf_biotune.search.phenotypes import fitted_to, phenotype_key

ALL = ("norm_statistics", "base_lr", "weight_decay", "l2sp")


def arguments(**overrides):
    return default_training_arguments(
        **{"num_train_epochs": 1, "per_device_train_batch_size": 30, "use_cpu": True, **overrides}
    )


def search(train, validation, model_init=small_resnet, args=None, **changes):
    settings = {
        "budget": None,
        "generations": 1,
        "population_size": 7,
        "n_elites": 1,
        "seeds": (1,),
        "n_finalists": 0,
        "memory_layout": "contiguous",
        "extra_genes": ALL,
    }
    return biotune_search(
        model_init,
        train,
        validation,
        args or arguments(),
        SearchConfig(**{**settings, **changes}),
        storage=optuna.storages.InMemoryStorage(),
    )


@pytest.fixture(scope="module")
def result(digits_train, digits_validation):
    return search(digits_train, digits_validation)


def test_the_history_shows_each_gene_and_what_it_stands_for(result):
    history = result.history
    assert set(history.norm_statistics) == {"epoch", "frozen"}
    assert history.base_lr.between(10**-0.5, 10**0.5).all()
    for name in ALL:
        decoded = [settings_of({name: gene})[name] for gene in history[f"gene:{name}"]]
        assert history[name].tolist() == decoded
    for block in result.partition.names:
        factor = history.base_lr * history.norm_statistics.map({"epoch": 1.0, "frozen": 0.1})
        expected = factor * 100 ** (history[f"importance:{block}"] - 0.5)
        trained = history[f"multiplier:{block}"].notna()
        assert history[f"multiplier:{block}"][trained].tolist() == pytest.approx(
            expected[trained].tolist()
        )


def test_seeded_individuals_have_the_settings_that_hold_without_extra_genes(result):
    starts = result.history[result.history.start != ""]
    assert starts.start.tolist() == [
        "linear probe",
        "full fine-tuning",
        "full fine-tuning, frozen statistics",
        "last half",
        "gradient-informed",
    ]
    assert starts.norm_statistics.tolist() == ["epoch", "epoch", "frozen", "epoch", "epoch"]
    frozen = starts.iloc[2][[f"multiplier:{name}" for name in result.partition.names]]
    assert frozen.tolist() == pytest.approx([10**-0.5] * len(frozen))
    assert (starts.base_lr == 1.0).all()
    assert (starts[["weight_decay", "l2sp"]] == 0.0).all().all()


def test_they_start_from_the_settings_of_the_search(digits_train, digits_validation):
    found = search(
        digits_train,
        digits_validation,
        args=arguments(weight_decay=0.05),
        norm_statistics="frozen",
        generations=0,
        population_size=3,
    )
    assert (found.history.norm_statistics == "frozen").all()
    # At the rates that people try by hand, though frozen statistics evolve at a tenth.
    full = found.history[found.history.start == "full fine-tuning"].filter(like="multiplier:")
    assert full.to_numpy() == pytest.approx(np.ones_like(full))
    assert found.history.weight_decay.tolist() == pytest.approx([0.05] * 3)


def test_a_gene_for_what_is_settled_is_refused():
    with pytest.raises(ConfigError, match="chooses between 'epoch' and 'frozen', but norm_stat"):
        SearchConfig.paper(extra_genes=("norm_statistics",))


def test_norm_statistics_evolve_where_there_are_any_if_that_is_left_open():
    left_open = SearchConfig(norm_statistics="auto", extra_genes=("l2sp",))
    settled = fitted_to(small_resnet(), left_open)
    assert settled.extra_genes == ("l2sp", "norm_statistics")
    assert settled.norm_statistics == "epoch"
    assert fitted_to(nn.Linear(2, 2), left_open).extra_genes == ("l2sp",)
    closed = SearchConfig(norm_statistics="frozen")
    assert fitted_to(small_resnet(), closed) is closed


def test_the_winner_s_configuration_holds_all_that_a_training_needs(result):
    row = result.history.set_index("trial").loc[result.best_trial]
    config = result.best_config
    assert config.norm_statistics == row.norm_statistics
    assert config.weight_decay == row.weight_decay
    assert (config.l2sp["strength"] if config.l2sp else 0.0) == row.l2sp
    assert result.best_genotype.extra_genes == {name: row[f"gene:{name}"] for name in sorted(ALL)}
    model = result.best_model
    assert model.active_peft_config.weight_decay == config.weight_decay


def test_individuals_of_other_settings_are_not_the_same(result):
    trials = result.study.trials
    keys = {phenotype_key(phenotype_of(trial)) for trial in trials}
    without = {phenotype_key(trial.user_attrs["lr_multipliers"]) for trial in trials}
    assert len(keys) >= len(without)
    on = next(t for t in trials if result.history.norm_statistics[t.number] == "frozen")
    assert "setting:frozen norm statistics" in phenotype_of(on)


def test_a_gene_for_statistics_that_the_model_does_not_have_is_refused(
    digits_train, digits_validation
):
    def without_norms():
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 10))

    with pytest.raises(ConfigError, match="Sequential has no BatchNorm with statistics to freeze"):
        search(digits_train, digits_validation, without_norms)


def test_an_unknown_extra_gene_is_refused_with_the_list():
    with pytest.raises(ConfigError, match="among base_lr, l2sp, norm_statistics, weight_decay"):
        SearchConfig(extra_genes=("momentum",))


def test_another_set_of_genes_is_another_search():
    first = SearchConfig(extra_genes=("l2sp", "base_lr"))
    assert first == SearchConfig(extra_genes=["base_lr", "l2sp"])
    assert first.to_dict()["extra_genes"] == ("base_lr", "l2sp")
