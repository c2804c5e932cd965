from __future__ import annotations

import optuna
import pytest
from small import small_resnet
from torch import nn

from hf_biotune import partition
from hf_biotune.extra_genes import STATISTICS_GENE, genes_of
from hf_biotune.search.starts import gradient_informed, starting_points, starts_of


def test_the_first_generation_holds_what_people_try_by_hand():
    blocks = partition(small_resnet())
    found = {name: g.decode(blocks) for name, g in starting_points(blocks).items()}
    assert found["linear probe"] == {"head": 1.0}
    assert found["full fine-tuning"] == dict.fromkeys(blocks.names, 1.0)
    assert found["last half"] == dict.fromkeys(["layer3", "layer4", "head"], 1.0)


def test_methods_that_are_the_same_for_a_model_of_one_block_come_once():
    assert list(starting_points(partition(nn.Linear(3, 2)))) == ["linear probe"]


@pytest.mark.parametrize("n_layers", [2, 3, 7])
def test_every_start_is_a_valid_genotype(n_layers):
    model = nn.Sequential(*(nn.Linear(3, 3) for _ in range(n_layers)))
    assert all(genotype.is_valid for genotype in starting_points(partition(model)).values())


def test_rates_go_with_the_square_root_of_the_relative_gradient():
    blocks = partition(small_resnet())
    ratios = {"stem": 1.6, "layer1": 0.1, "layer2": 0.1, "layer3": 0.025, "layer4": 0.0009}
    found = gradient_informed({**ratios, "head": 400.0})
    assert found == pytest.approx(
        {"stem": 4.0, "layer1": 1.0, "layer2": 1.0, "layer3": 0.5, "head": 10.0}
    )
    start = starting_points(blocks, {**ratios, "head": 400.0})["gradient-informed"]
    assert start.decode(blocks) == pytest.approx(found)


@pytest.mark.parametrize("ratios", [{"a": 0.0, "b": 0.0, "c": 1.0}, {"a": float("nan"), "b": 1.0}])
def test_gradients_that_say_nothing_make_no_individual(ratios):
    assert gradient_informed(ratios) == {}


def test_starts_are_measured_once_and_kept_in_the_study():
    blocks, study = partition(small_resnet()), optuna.create_study()
    ratios = dict.fromkeys(blocks.names, 1.0) | {"stem": 1 / 7}
    first = starts_of(study, blocks, lambda: ratios)
    assert list(first) == ["linear probe", "full fine-tuning", "last half", "gradient-informed"]

    def measured_again():
        raise AssertionError

    assert starts_of(study, blocks, measured_again) == first


def test_gradients_alike_everywhere_are_full_fine_tuning():
    blocks = partition(small_resnet())
    assert "gradient-informed" not in starting_points(blocks, dict.fromkeys(blocks.names, 0.3))


def test_a_single_block_is_also_started_with_frozen_statistics():
    study = optuna.create_study()
    one = partition(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), {"all": ["0", "1"]})
    extra = genes_of({STATISTICS_GENE: "epoch"})
    found = starts_of(study, one, lambda: None, extra)
    assert list(found) == ["linear probe", "full fine-tuning, frozen statistics"]
    assert found["linear probe"].extra != found["full fine-tuning, frozen statistics"].extra
