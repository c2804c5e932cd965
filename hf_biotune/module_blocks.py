"""Which blocks the modules of a model belong to, and which parameters are not theirs to train."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from .blocks import Partition
from .norm_statistics import BATCH_NORM


def blocks_of_module(found: Partition, name: str, module: nn.Module) -> set[str]:
    """The block that a module lies in; those of its parameters if it is divided between several.

    Args:
        found: the partition.
        name: of the module.
        module: itself; a container of several blocks lies in none, unless it is a layer of its own:
            a BatchNorm whose bias is trained and whose weight is frozen.
    """
    block = found.block_of_module(name)
    if block is not None:
        return {block}
    if not isinstance(module, BATCH_NORM):
        return set()
    return {found.block_of_parameter(f"{name}.{own}") for own, _ in module.named_parameters()}


def blocks_below(model: nn.Module, found: Partition) -> dict[str, set[str]]:
    """By name of a module, the blocks of all parameters in it.

    Args:
        model: which one.
        found: its partition.
    """
    below: dict[str, set[str]] = {}
    for name, _ in model.named_parameters():
        block, owner = found.block_of_parameter(name), name
        while owner:
            owner = owner.rpartition(".")[0]
            below.setdefault(owner, set()).add(block)
    return below


def fixed_parameters(found: Partition, learnable: Mapping[str, bool]) -> set[str]:
    """What the architecture, or whoever froze a part of a block, means to stay.

    Sinusoids are often parameters. A block that is frozen as a whole was rather frozen by a habit.

    Args:
        found: the partition.
        learnable: whether each parameter of the model wants gradients, by its name.
    """
    return {
        name
        for block in found
        if any(learnable[name] for name in block.parameters)
        for name in block.parameters
        if not learnable[name]
    }
