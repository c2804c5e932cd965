"""`BioTuneConfig`: what it takes, what it refuses and how it is written."""

from __future__ import annotations

import copy
import json
import pickle
import re

import pytest
from peft import PeftConfig, PeftType
from wrapped import resnet

from hf_biotune import BioTuneConfig, Genotype, partition
from hf_biotune.exceptions import BioTuneError, ConfigError, GenotypeError


@pytest.mark.parametrize(
    ("multiplier", "message"),
    [
        (0, "lr_multipliers['a'] must be finite and greater than 0, got 0"),
        (-1.5, "lr_multipliers['a'] must be finite and greater than 0, got -1.5"),
        (float("nan"), "lr_multipliers['a'] must be finite and greater than 0, got nan"),
        (float("inf"), "lr_multipliers['a'] must be finite and greater than 0, got inf"),
        (True, "lr_multipliers['a'] must be a number, got True"),
        ("2", "lr_multipliers['a'] must be a number, got '2'"),
        (None, "lr_multipliers['a'] must be a number, got None"),
    ],
)
def test_a_multiplier_that_is_no_positive_number_is_refused(multiplier, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        BioTuneConfig(lr_multipliers={"a": multiplier})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lr_multipliers": ["a"]}, "lr_multipliers must be a dict of block name to number"),
        (
            {"lr_multipliers": {1: 1.0}},
            "lr_multipliers: a name must be text of at most 500 characters, got 1",
        ),
        (
            {"norm_statistics": "eval"},
            "norm_statistics must be one of 'epoch', 'train', 'frozen', got 'eval'",
        ),
        ({"base_learning_rate": 0}, "base_learning_rate must be finite and greater than 0, got 0"),
        ({"base_learning_rate": "1"}, "base_learning_rate must be finite and greater than 0"),
        ({"base_learning_rate": float("nan")}, "greater than 0, got nan; leave it out"),
        ({"blocks": 3}, "blocks must be 'auto', 'paper', 'layers', or a list or dict of patterns"),
        ({"blocks": {"a": 3}}, "3"),
        ({"saved_blocks": "head"}, "saved_blocks must be a list of names, got 'head'"),
        (
            {"saved_blocks": [1]},
            "saved_blocks: a name must be text of at most 500 characters, got 1",
        ),
        ({"partition": {"a": "x"}}, "partition['a'] must be a list of names, got 'x'"),
        ({"task_type": "NOT_A_TASK"}, "Invalid task type: 'NOT_A_TASK'"),
    ],
)
def test_other_bad_values_are_refused_with_the_rule(arguments, message):
    with pytest.raises(BioTuneError, match=re.escape(message)):
        BioTuneConfig(**arguments)


def test_every_error_is_a_value_error():
    with pytest.raises(ValueError, match="leave a block out to freeze it"):
        BioTuneConfig(lr_multipliers={"a": 0})


def test_multipliers_become_floats():
    assert BioTuneConfig(lr_multipliers={"a": 2}).lr_multipliers == {"a": 2.0}


def test_the_peft_type_is_text_and_looks_like_a_member_of_the_enum():
    peft_type = BioTuneConfig().peft_type

    assert peft_type == "BIOTUNE"
    assert (peft_type.value, peft_type.name) == ("BIOTUNE", "BIOTUNE")
    assert str(peft_type) == "PeftType.BIOTUNE"
    assert peft_type != PeftType.LORA
    assert pickle.loads(pickle.dumps(peft_type)) == copy.deepcopy(peft_type) == "BIOTUNE"


def test_from_genotype_keeps_genes_and_partition():
    blocks = partition(resnet())
    genotype = Genotype((0.1, 0.5, 0.75, 1.0), freezing_threshold=0.3)

    config = BioTuneConfig.from_genotype(genotype, blocks, norm_statistics="frozen")

    assert config.lr_multipliers == pytest.approx({"stage0": 1.0, "stage1": 10**0.5, "head": 10.0})
    assert Genotype.from_dict(config.genotype) == genotype
    assert config.partition == blocks.to_patterns()
    assert config.norm_statistics == "frozen"


def test_from_genotype_refuses_a_genotype_that_selects_nothing():
    with pytest.raises(GenotypeError):
        BioTuneConfig.from_genotype(
            Genotype((0.1,) * 4, freezing_threshold=0.9), partition(resnet())
        )


def test_a_configuration_survives_json(tmp_path):
    config = BioTuneConfig.from_genotype(
        Genotype((0.1, 0.5, 0.75, 1.0), freezing_threshold=0.3),
        partition(resnet()),
        saved_blocks=["stem"],
        task_type="FEATURE_EXTRACTION",
        base_model_name_or_path="someone/model",
    )

    config.save_pretrained(tmp_path)

    assert BioTuneConfig.from_pretrained(tmp_path) == config
    assert PeftConfig.from_pretrained(tmp_path) == config


def test_fields_of_a_later_version_are_ignored_with_a_warning(tmp_path):
    BioTuneConfig(lr_multipliers={"head": 1.0}).save_pretrained(tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "momentum_genes": [1]}))

    with pytest.warns(UserWarning, match="momentum_genes"):
        config = BioTuneConfig.from_pretrained(tmp_path)

    assert config.lr_multipliers == {"head": 1.0}
    assert not hasattr(config, "momentum_genes")


def test_peft_itself_ignores_fields_of_a_later_version_too(tmp_path):
    BioTuneConfig(lr_multipliers={"head": 1.0}).save_pretrained(tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "momentum_genes": [1]}))

    with pytest.warns(UserWarning, match="momentum_genes"):
        assert PeftConfig.from_pretrained(tmp_path).lr_multipliers == {"head": 1.0}
