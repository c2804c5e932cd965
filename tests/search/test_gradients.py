"""Relative gradient norms, by which one individual of the first generation is made."""

from __future__ import annotations

import copy

import pytest
import torch
from small import small_resnet
from torch import nn

from hf_biotune import partition
from hf_biotune.search import default_training_arguments
from hf_biotune.search.data import EncodedSplit
from hf_biotune.search.gradients import relative_gradient_norms
from hf_biotune.search.weights import BaseModelPool


def arguments(batch_size=20):
    return default_training_arguments(per_device_train_batch_size=batch_size, use_cpu=True)


def two_layers() -> nn.Module:
    """Blocks "0" and "1", without a nonlinearity: gradients that can be worked out by hand."""
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(2))
        model[1].weight.zero_()
    return model


def test_the_ratio_is_the_norm_of_the_gradient_over_that_of_the_weights():
    inputs = torch.tensor([[[[3.0]], [[0.0]]]])
    model = nn.Sequential(nn.Flatten(), two_layers())
    model[1][1].weight.data.copy_(torch.tensor([[2.0, 0.0], [0.0, 0.0]]))
    blocks = partition(model, {"first": "1.0", "second": "1.1"})
    data = EncodedSplit({"x": inputs}, torch.tensor([1]), ("a", "b"))
    ratios = relative_gradient_norms(
        BaseModelPool(lambda: copy.deepcopy(model)), blocks, data.view(), arguments(), seed=0
    )
    # Logits (6, 0), label 1: d loss / d logits = (p, -p); hidden (3, 0).
    p = 1 / (1 + torch.tensor(-6.0).exp().item())
    assert ratios["second"] == pytest.approx(p * 3 * 2**0.5 / 2)
    assert ratios["first"] == pytest.approx(p * 2 * 3 / 2**0.5)


def test_a_block_without_gradient_has_0_and_one_without_weights_infinity():
    model = nn.Sequential(nn.Flatten(), two_layers())
    blocks = partition(model, {"first": "1.0", "second": "1.1"})
    data = EncodedSplit({"x": torch.ones(4, 2, 1, 1)}, torch.tensor([0, 1, 1, 1]), ("a", "b"))
    ratios = relative_gradient_norms(
        BaseModelPool(lambda: copy.deepcopy(model)), blocks, data.view(), arguments(), seed=0
    )
    assert ratios == {"first": 0.0, "second": float("inf")}


@pytest.mark.parametrize("norm_statistics", ["epoch", "train", "frozen"])
def test_the_same_seed_gives_the_same_ratios_and_leaves_the_model_as_it_was(
    digits_train, norm_statistics
):
    pool = BaseModelPool(small_resnet)
    before = copy.deepcopy(pool.restore(3).state_dict())
    blocks = partition(pool.model)

    def measure(seed=3):
        return relative_gradient_norms(
            pool,
            blocks,
            digits_train.view(),
            arguments(),
            seed=seed,
            norm_statistics=norm_statistics,
        )

    first, second = measure(), measure()
    assert first == second != measure(seed=4)
    assert list(first) == list(blocks.names)
    assert all(0 < ratio < float("inf") for ratio in first.values())
    pool.restore(3)
    for name, tensor in pool.model.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)
    assert all(p.grad is None and p.requires_grad for p in pool.model.parameters())


def test_a_smaller_last_batch_does_not_count(digits_train):
    pool = BaseModelPool(small_resnet)
    blocks = partition(pool.model)
    even, uneven = (
        relative_gradient_norms(
            pool, blocks, digits_train.view(), arguments(batch_size=size), seed=0
        )
        for size in (59, 60)
    )
    assert even != uneven
    one_batch = digits_train.view()
    assert relative_gradient_norms(
        pool, blocks, one_batch, arguments(batch_size=100), seed=0
    ) == pytest.approx(uneven)
