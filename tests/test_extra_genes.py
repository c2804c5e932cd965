from __future__ import annotations

import numpy as np
import pytest
from small import small_resnet

from hf_biotune import BioTuneConfig, Genotype, partition
from hf_biotune.exceptions import ConfigError, GenotypeError
from hf_biotune.extra_genes import EXTRA_GENES, checked_extra_genes, genes_of, settings_of


@pytest.mark.parametrize(
    ("name", "gene", "setting"),
    [
        ("base_lr", 0.0, 10**-0.5),
        ("base_lr", 0.5, 1.0),
        ("base_lr", 1.0, 10**0.5),
        ("l2sp", 0.0, 0.0),
        ("l2sp", 0.1, 0.0),
        ("l2sp", 0.1 + 1e-12, 1e-4),
        ("l2sp", 0.55, 10**-2.5),
        ("l2sp", 1.0, 0.1),
        ("norm_statistics", 0.5, "epoch"),
        ("norm_statistics", 0.51, "frozen"),
        ("weight_decay", 0.05, 0.0),
        ("weight_decay", 0.55, 0.01),
        ("weight_decay", 1.0, 1.0),
    ],
)
def test_a_gene_decodes_to_its_setting(name, gene, setting):
    decoded = settings_of({name: gene})[name]
    assert decoded == setting if isinstance(setting, str) else decoded == pytest.approx(setting)


@pytest.mark.parametrize(
    "settings",
    [
        {"base_lr": 1.0, "l2sp": 0.0, "norm_statistics": "epoch", "weight_decay": 0.0},
        {"base_lr": 2.0, "l2sp": 0.01, "norm_statistics": "frozen", "weight_decay": 0.3},
    ],
)
def test_a_setting_has_a_gene_that_decodes_to_it(settings):
    decoded = settings_of(genes_of(settings))
    assert decoded.pop("norm_statistics") == settings.pop("norm_statistics")
    assert decoded == pytest.approx(settings)


@pytest.mark.parametrize(
    ("settings", "nearest"),
    [
        ({"base_lr": 100.0}, 10**0.5),
        ({"weight_decay": 7.0}, 1.0),
        ({"weight_decay": 1e-9}, 1e-4),
        ({"l2sp": 5.0}, 0.1),
    ],
)
def test_a_setting_out_of_reach_becomes_the_nearest(settings, nearest):
    assert list(settings_of(genes_of(settings)).values()) == [pytest.approx(nearest)]


def test_names_come_in_one_order_and_errors_list_them():
    assert checked_extra_genes(["weight_decay", "base_lr"]) == ("base_lr", "weight_decay")
    assert list(EXTRA_GENES) == sorted(EXTRA_GENES)
    with pytest.raises(
        ConfigError, match="among base_lr, l2sp, norm_statistics, weight_decay, got 'momentum'"
    ):
        checked_extra_genes(["momentum"])
    with pytest.raises(ConfigError, match="differ from each other, got 'l2sp' twice"):
        checked_extra_genes(["l2sp", "l2sp"])
    with pytest.raises(ConfigError, match="a list of names, got the string 'l2sp'"):
        checked_extra_genes("l2sp")


def test_a_genotype_keeps_its_extra_genes_through_arrays_and_json():
    genotype = Genotype((0.2, 0.7), 0.5, {"weight_decay": 0.3, "base_lr": 0.9})
    assert genotype.to_array().tolist() == [0.2, 0.7, 0.5, 0.9, 0.3]
    assert Genotype.from_array(genotype.to_array(), ("base_lr", "weight_decay")) == genotype
    assert Genotype.from_json(genotype.to_json()) == genotype
    assert repr(genotype) == (
        "Genotype(importances=(0.2, 0.7), freezing_threshold=0.5, "
        "extra={'base_lr': 0.9, 'weight_decay': 0.3})"
    )
    assert len({genotype, genotype.repaired(), Genotype((0.2, 0.7), 0.5)}) == 2
    assert genotype.key != Genotype((0.2, 0.7), 0.5).key
    assert len(genotype) == 2


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"base_lr": 1.5}, r"extra\['base_lr'\] must be in \[0, 1\], got 1.5"),
        ({"base_lr": "high"}, r"extra\['base_lr'\] must be a number"),
        ([1, 2], "extra must be a dict of name to number"),
        ({"x" * 501: 0.5}, "extra must be a dict of name to number"),
    ],
)
def test_extra_genes_that_a_stranger_wrote_are_checked(extra, message):
    data = {"importances": [0.5], "freezing_threshold": 0.1, "extra": extra}
    with pytest.raises(GenotypeError, match=message):
        Genotype.from_dict(data)


def test_a_repaired_genotype_keeps_its_extra_genes():
    assert Genotype((0.2,), 0.5, {"base_lr": 0.9}).repaired().extra_genes == {"base_lr": 0.9}


def test_extra_genes_are_in_the_configuration_that_a_genotype_decodes_to():
    blocks = partition(small_resnet())
    extra = {"base_lr": 0.8, "l2sp": 0.55, "norm_statistics": 0.9, "weight_decay": 0.55}
    genotype = Genotype((0.1,) * 5 + (0.75,), 0.5, extra)
    config = BioTuneConfig.from_genotype(
        genotype, blocks, new_blocks=["head"], norm_statistics="train"
    )
    assert config.lr_multipliers == pytest.approx({"head": 0.1 * 10**0.5 * 10**0.3})
    assert config.norm_statistics == "frozen"
    assert config.weight_decay == pytest.approx(0.01)
    assert config.l2sp["strength"] == pytest.approx(10**-2.5)
    assert config.l2sp["new_blocks"] == ["head"]
    again = BioTuneConfig.from_peft_type(**config.to_dict())
    assert again.to_dict() == config.to_dict()
    assert Genotype.from_dict(again.genotype) == genotype


def test_genes_at_0_switch_decay_and_pull_off():
    blocks = partition(small_resnet())
    genotype = Genotype((0.5,) * 6, 0.1, {"l2sp": 0.0, "weight_decay": 0.0})
    config = BioTuneConfig.from_genotype(genotype, blocks)
    assert config.l2sp is None
    assert config.weight_decay == 0.0


def test_without_extra_genes_a_configuration_leaves_the_arguments_alone():
    config = BioTuneConfig.from_genotype(Genotype((0.5,) * 6, 0.1), partition(small_resnet()))
    assert config.weight_decay is None
    assert config.l2sp is None
    assert "extra" not in config.genotype
    assert np.array_equal(list(config.lr_multipliers.values()), np.ones(6))
