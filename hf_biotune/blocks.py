"""Blocks: the ordered parts of a model that are trained or frozen as a whole."""

from __future__ import annotations

import hashlib
import html
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, overload

from .exceptions import PartitionError
from .patterns import Names, execution_order, named_patterns, parameters_of_blocks

if TYPE_CHECKING:
    from torch import nn

GRANULARITIES = ("auto", "paper", "layers")
"""The words that `partition(model, blocks=...)` knows; anything else is a list or dict."""

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

    def __str__(self) -> str:
        rows = self._table()
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        return "\n".join(
            f"{name:<{widths[0]}}  {size:>{widths[1]}}  {share:>{widths[2]}}  {modules}".rstrip()
            for name, size, share, modules in rows
        )

    def _repr_html_(self) -> str:
        """The same table for notebooks."""
        head, *body = (
            "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row)
            for tag, row in zip(["th"] + ["td"] * (len(self) + 1), self._table(), strict=True)
        )
        rows = "".join(f"<tr>{row}</tr>" for row in body)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"

    def _table(self) -> list[tuple[str, str, str, str]]:
        """Block, parameters, share and modules, with a first row of titles and a last of sums."""
        rows = [("block", "parameters", "share", "modules")]
        for block in self.blocks:
            share = f"{block.n_parameters / max(1, self.n_parameters):.1%}"
            contents = ", ".join(self.to_patterns()[block.name])
            rows.append((block.name, f"{block.n_parameters:,}", share, _shortened(contents)))
        return [*rows, ("total", f"{self.n_parameters:,}", "100.0%", f"{len(self)} blocks")]

    @property
    def key(self) -> str:
        """16 hexadecimal digits that name this partition, the same in every process and version."""
        content = [[block.name, list(block.parameters)] for block in self.blocks]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def partition(model: nn.Module, blocks: BlockSpec = "auto") -> Partition:
    """Divide a model into the blocks that are trained or frozen as a whole.

    Every parameter belongs to exactly one block, also in `partition(...).to_patterns()`, which
    gives the same partition back.

    Args:
        model: any torch model: transformers, timm, torchvision or your own.
        blocks: how to divide it:

            - `"auto"`: the paper's partition if it has one for this model, else stem, the stages
              or layers of the model, and head, found from its structure.
            - `"paper"`: the published partitions of ResNet-50 (6 blocks), DenseNet-121 (9), VGG-19
              (6), Inception-v3 (14) and their relatives.
            - `"layers"`: finer; each transformer layer and each residual unit is a block.
            - a list of patterns, each a block, or a dict of block names to patterns. A pattern is
              the name of a module (with everything below it) or parameter, or a regular expression
              that fully matches such names. What matches no pattern forms the block `rest`.

    Returns:
        The blocks in execution order: that of their first parameter in
        `model.named_parameters()`, but a classifier that a model registers first comes last.

    Raises:
        PartitionError: the model has no parameters, or holds PEFT adapters, or can't be divided as
            asked.

    Example:
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> partition(model).names
        ('layer0', 'head')
        >>> partition(model, {"first": "0", "last": ["2"]}).to_patterns()
        {'first': ['0', '1'], 'last': ['2']}
    """
    _check_model(model)
    names = Names(model)
    if not isinstance(blocks, str):
        return _build(names, named_patterns(blocks), "patterns")
    groups, source = _groups_by_rule(model, blocks)
    untied = {
        block: [part for target in targets for part in names.untied(target)]
        for block, targets in groups.items()
    }
    return _build(names, {block: parts for block, parts in untied.items() if parts}, source)


def _shortened(text: str, width: int = 72) -> str:
    return text if len(text) <= width else f"{text[: width - 3]}..."


def _check_model(model: nn.Module) -> None:
    if not hasattr(model, "named_parameters"):
        raise PartitionError(f"partition needs a torch.nn.Module, got {type(model).__name__}")
    for module in model.modules():
        if any(base.__module__.split(".")[0] == "peft" for base in type(module).__mro__):
            raise PartitionError(
                f"the model holds PEFT adapters already ({type(module).__name__}); partition the "
                f"plain model: take it back with `unload()` or `merge_and_unload()` first"
            )
    if not any(True for _ in model.parameters()):
        raise PartitionError(
            f"{type(model).__name__} has no parameters, so there are no blocks to train"
        )


def _groups_by_rule(model: nn.Module, rule: str) -> tuple[dict[str, list[str]], str]:
    """The groups that `"auto"`, `"paper"` or `"layers"` find, and the source to record."""
    if rule not in GRANULARITIES:
        words = ", ".join(map(repr, GRANULARITIES))
        raise PartitionError(
            f"blocks must be one of {words}, a list or a dict, got {rule!r}; to use it as a "
            f"pattern, pass the list [{rule!r}]"
        )
    # Here and not above: these import torch, and importing the package must not.
    from .paper_partitions import FAMILIES, paper_groups
    from .structure import structural_groups, unit_groups

    groups = paper_groups(model)
    if rule == "paper" and groups is None:
        raise PartitionError(
            f"the paper has no partition for {type(model).__name__}, only for "
            f"{', '.join(FAMILIES)} (torchvision, timm or transformers form); use blocks='auto'"
        )
    if rule == "layers":
        return unit_groups(model, groups or structural_groups(model)), "structure"
    return (groups, "paper") if groups is not None else (structural_groups(model), "structure")


def _build(names: Names, groups: Mapping[str, Sequence[str]], source: str) -> Partition:
    """The partition whose blocks are given as patterns or plain names."""
    matches = {
        block: {pattern: names.match(pattern) for pattern in patterns}
        for block, patterns in groups.items()
    }
    block_of = parameters_of_blocks(names, matches)
    asked = {
        name: block
        for block, patterns in reversed(matches.items())
        for matched in patterns.values()
        for name in matched
    }
    order = dict.fromkeys(block_of[name] for name in execution_order(names.model))
    modules = _modules_of_blocks(names, block_of, asked, next(iter(order)))
    sizes = {name: parameter.numel() for name, parameter in names.model.named_parameters()}
    parameters: dict[str, list[str]] = {block: [] for block in order}
    for name in sizes:
        parameters[block_of[name]].append(name)
    return Partition(
        tuple(
            Block(
                name=block,
                modules=tuple(modules.get(block, ())),
                parameters=tuple(parameters[block]),
                n_parameters=sum(sizes[name] for name in parameters[block]),
            )
            for block in order
        ),
        source,
    )


def _modules_of_blocks(
    names: Names, block_of: Mapping[str, str], asked: Mapping[str, str], first: str
) -> dict[str, list[str]]:
    """The outermost modules that lie in one block.

    Args:
        names: the model's names.
        block_of: the block of each parameter.
        asked: the block of each module that a pattern matches; decides for modules without
            parameters. Others go with the module with parameters before them.
        first: the block of modules before the first parameter.

    Returns:
        Block name -> modules in definition order. Containers of several blocks are in none.
    """
    found: dict[str, list[str]] = {}
    current, inside = first, ""
    own = {name.rpartition(".")[0]: block_of[owner] for name, owner in names.owner.items()}
    for name in names.modules:
        if inside and name.startswith(inside):
            continue
        owners = {block_of[parameter] for parameter in names.parameters_below[name]}
        if len(owners) > 1:
            current = own.get(name, current)
            continue
        if owners:
            (current,) = owners
        found.setdefault(current if owners else asked.get(name, current), []).append(name)
        inside = f"{name}."
    return found
