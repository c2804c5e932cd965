"""What is in place and what lies aside."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hf_biotune.adapter_weights import AdapterWeights
from hf_biotune.exceptions import ConfigError


@pytest.fixture
def layer():
    module = nn.BatchNorm1d(2)
    nn.init.constant_(module.weight, 1.0)
    return module


def own(layer):
    """The tensors of the adapter: a weight and a buffer."""
    return [("weight", layer.weight), ("running_mean", layer.running_mean)]


def filled(layer, value):
    with torch.no_grad():
        layer.weight.fill_(value)
        layer.running_mean.fill_(value)


def test_taken_out_the_base_is_in_place_and_put_in_the_adapter_again(layer):
    weights = AdapterWeights(layer, keeps_base=True)
    weights.keep_base(own(layer))
    filled(layer, 7.0)

    weights.take_out("a", own(layer))
    assert layer.weight.tolist() == [1.0, 1.0]
    assert layer.running_mean.tolist() == [0.0, 0.0]
    assert weights.aside["a"]["running_mean"].tolist() == [7.0, 7.0]

    weights.put_in("a")
    assert layer.weight.tolist() == layer.running_mean.tolist() == [7.0, 7.0]
    assert weights.aside == {}


def test_the_base_is_copied_once_however_many_adapters_there_are(layer):
    weights = AdapterWeights(layer, keeps_base=True)
    weights.keep_base(own(layer))
    filled(layer, 7.0)
    weights.keep_base(own(layer))
    assert weights.base["weight"].tolist() == [1.0, 1.0]


def test_an_adapter_that_was_never_trained_puts_in_nothing(layer):
    weights = AdapterWeights(layer, keeps_base=True)
    weights.put_in("new")
    assert layer.weight.tolist() == [1.0, 1.0]


def test_what_only_a_forgotten_adapter_trained_is_dropped(layer):
    weights = AdapterWeights(layer, keeps_base=True)
    weights.keep_base(own(layer))
    weights.take_out("a", own(layer))
    weights.forget("a", needed={"weight"})
    assert weights.aside == {}
    assert set(weights.base) == {"weight"}


def test_without_the_base_whoever_needs_it_is_told_how_to_keep_it(layer):
    weights = AdapterWeights(layer, keeps_base=False)
    with pytest.raises(ConfigError, match=r"unload needs the base model's weights.*keep_base_wei"):
        weights.require_base("unload")
