from __future__ import annotations

import pytest
import torch
from torch import nn

from hf_biotune import partition
from hf_biotune.exceptions import ConfigError
from hf_biotune.search.weights import BaseModelPool


class Pretrained(nn.Module):
    """A body that is the same at every call and a head that is not, as `from_pretrained` makes."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(3, 3)
        nn.init.eye_(self.body.weight)
        nn.init.zeros_(self.body.bias)
        self.head = nn.Linear(3, 2)


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def test_restoring_a_seed_gives_what_model_init_gives_under_it():
    pool = BaseModelPool(Pretrained)
    first = weights(pool.restore(7))
    with torch.no_grad():
        for tensor in pool.model.parameters():
            tensor.add_(1)
    assert equal(weights(pool.restore(7)), first)
    torch.manual_seed(7)
    assert equal(weights(Pretrained()), first)


def test_seeds_differ_in_the_head_only():
    pool = BaseModelPool(Pretrained)
    first, second = weights(pool.restore(1)), weights(pool.restore(2))
    assert torch.equal(first["body.weight"], second["body.weight"])
    assert not torch.equal(first["head.weight"], second["head.weight"])
    assert pool.seeded_blocks(partition(pool.model), [1, 2]) == ["head"]
    # The live model was made under seed 0, so that nothing differs from it.
    assert pool.seeded_blocks(partition(pool.model), [0]) == ["head"]


def test_model_init_is_called_once_per_seed():
    calls = []

    def model_init() -> nn.Module:
        calls.append(1)
        return Pretrained()

    pool = BaseModelPool(model_init)
    for seed in (1, 2, 1, 2, 1):
        pool.restore(seed)
    assert len(calls) == 3  # one for the live model


def test_a_model_init_that_returns_no_model_is_refused():
    with pytest.raises(ConfigError, match=r"model_init must return a torch.nn.Module, got str"):
        BaseModelPool(lambda: "model")


def test_a_model_init_that_changes_its_architecture_is_refused():
    sizes = iter([nn.Linear(2, 2), nn.Linear(2, 2, bias=False)])
    pool = BaseModelPool(lambda: next(sizes))
    with pytest.raises(ConfigError, match="the same architecture"):
        pool.restore(1)
