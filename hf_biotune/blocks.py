"""Blocks: the ordered parts of a model that are trained or frozen as a whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, overload

from .exceptions import PartitionError

if TYPE_CHECKING:
    from torch import nn

BlockSpec = str | Sequence[str] | Mapping[str, str | Sequence[str]]


@dataclass(frozen=True)
class Block:
    """A part of a model that is trained or frozen as a whole.

    Args:
        name: short and stable, unique in its partition, such as `stem`, `layer3`, `head`.
        modules: names (as in `model.named_modules()`) of the outermost modules that belong to the
            block with everything inside them, parameterless ones (dropout, drop-path) included.
        parameters: names (as in `model.named_parameters()`) of its parameters, in model order.
        n_parameters: how many numbers these hold.
    """

    name: str
    modules: tuple[str, ...]
    parameters: tuple[str, ...] = field(repr=False)
    n_parameters: int


@dataclass(frozen=True)
class Partition:
    """The ordered blocks of a model; every parameter belongs to exactly one.

    Iterates over [`Block`]s in execution order; `partition["layer3"]` and `partition[0]` both work.

    Args:
        blocks: in execution order.
        source: which rule found them: `"patterns"`, `"paper"` or `"structure"`.
    """

    blocks: tuple[Block, ...]
    source: str

    def __len__(self) -> int:
        return len(self.blocks)

    def __iter__(self) -> Iterator[Block]:
        return iter(self.blocks)

    @overload
    def __getitem__(self, block: str) -> Block: ...
    @overload
    def __getitem__(self, block: int) -> Block: ...
    def __getitem__(self, block: str | int) -> Block:
        if isinstance(block, int):
            return self.blocks[block]
        if block not in self.names:
            raise PartitionError(
                f"no block is named {block!r}; this model's blocks are: {', '.join(self.names)}"
            )
        return self.blocks[self.names.index(block)]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of the blocks, in execution order."""
        return tuple(block.name for block in self.blocks)

    @property
    def n_parameters(self) -> int:
        """How many numbers all blocks hold together."""
        return sum(block.n_parameters for block in self.blocks)

    @cached_property
    def _parameter_blocks(self) -> dict[str, str]:
        return {name: block.name for block in self.blocks for name in block.parameters}

    @cached_property
    def _module_blocks(self) -> dict[str, str]:
        return {name: block.name for block in self.blocks for name in block.modules}

    def block_of_parameter(self, name: str) -> str:
        """The block that owns a parameter.

        Raises:
            PartitionError: the model has no parameter of that name.
        """
        try:
            return self._parameter_blocks[name]
        except KeyError:
            raise PartitionError(f"the partition has no parameter {name!r}") from None

    def block_of_module(self, name: str) -> str | None:
        """The block that a module lies in, or `None` for a container of several blocks."""
        while name:
            if name in self._module_blocks:
                return self._module_blocks[name]
            name = name.rpartition(".")[0]
        return None

    def to_patterns(self) -> dict[str, list[str]]:
        """The partition as the dict of patterns that `partition(model, blocks=...)` takes back."""
        return {
            block.name: [
                *block.modules,
                *(name for name in block.parameters if self.block_of_module(name) is None),
            ]
            for block in self.blocks
        }

    @property
    def key(self) -> str:
        """16 hexadecimal digits that name this partition, the same in every process and version."""
        content = [[block.name, list(block.parameters)] for block in self.blocks]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def partition(model: nn.Module, blocks: BlockSpec = "auto") -> Partition:
    raise PartitionError("under construction")
