from __future__ import annotations

import pytest
from small import small_resnet
from torch import nn

from hf_biotune import partition
from hf_biotune.search.starts import starting_points


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
