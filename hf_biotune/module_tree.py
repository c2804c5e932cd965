"""The tree of a model's modules that hold parameters, and what can be read off it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import nn

CONVOLUTION = nn.modules.conv._ConvNd

_NORMALISATION = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
# What runs side by side is no sequence of units (Inception).
_PARALLEL_NAME = re.compile(r"branch|path|expert")


@dataclass(frozen=True, eq=False)
class Node:
    """A module that holds parameters, with its children that do.

    Tied parameters are listed once, where `model.named_parameters()` lists them. A layer whose
    parameters are listed elsewhere is still a layer: the structure does not depend on tying.

    Args:
        path: the module's name in the model; empty for the model itself.
        module: the module.
        own: names of the parameters that the module holds directly and that are listed here.
        children: in definition order.
    """

    path: str
    module: nn.Module
    own: tuple[str, ...]
    children: tuple[Node, ...]

    @property
    def name(self) -> str:
        """The last component of the path."""
        return self.path.rpartition(".")[2]

    @property
    def is_container(self) -> bool:
        """Whether the module is a mere list, so that its class says nothing."""
        return isinstance(self.module, (nn.Sequential, nn.ModuleList))

    @cached_property
    def layers(self) -> tuple[Node, ...]:
        """The modules, from here down, that hold weights directly; normalisation is left out."""
        holds = any(True for _ in self.module.parameters(recurse=False))
        here = (self,) if holds and not _is_normalisation(self) else ()
        return (*here, *(layer for child in self.children for layer in child.layers))

    @property
    def is_parallel(self) -> bool:
        """Whether it runs beside its siblings and not after them, as far as its name tells."""
        return _PARALLEL_NAME.search(self.name) is not None

    @property
    def is_norm(self) -> bool:
        """Whether there is nothing but normalisation in it."""
        return not self.layers

    @property
    def is_single(self) -> bool:
        """Whether it holds just one weight layer: a convolution with its norm, a downsampling."""
        return len(self.layers) == 1

    @property
    def is_multiple(self) -> bool:
        """Whether it holds two or more weight layers, as a residual unit or a stage does."""
        return len(self.layers) > 1

    @cached_property
    def has_convolution(self) -> bool:
        """Whether a convolution is in it."""
        return any(isinstance(layer.module, CONVOLUTION) for layer in self.layers)


def module_tree(model: nn.Module) -> Node:
    """The tree of the modules of `model` that hold parameters."""
    listed = {name for name, _ in model.named_parameters()}

    def grow(module: nn.Module, path: str) -> Node | None:
        start = f"{path}." if path else ""
        held = [start + name for name, _ in module.named_parameters(recurse=False)]
        own = tuple(name for name in held if name in listed)
        grown = (grow(child, start + name) for name, child in module.named_children())
        children = tuple(child for child in grown if child is not None)
        return Node(path, module, own, children) if held or children or not path else None

    root = grow(model, "")
    assert root is not None
    return root


def pooling_stages(stack: nn.Module) -> list[list[str]] | None:
    """Divide a flat stack of convolutions at its pooling layers.

    Args:
        stack: an `nn.Sequential` of convolutions, norms, activations and pooling layers, as the
            features of a VGG. It may go on with other layers, such as linear ones.

    Returns:
        For each stage the names of its layers with parameters, up to the first other layer; `None`
        if `stack` is no such stack, or no pooling layer stands between its convolutions.
    """
    if not isinstance(stack, nn.Sequential):
        return None
    stages: list[list[str]] = [[]]
    for name, layer in stack.named_children():
        if "pool" in type(layer).__name__.lower():
            stages.append([])
        elif any(True for _ in layer.parameters()):
            if not isinstance(layer, (*_NORMALISATION, CONVOLUTION)):
                break
            stages[-1].append(name)
    stages = [stage for stage in stages if stage]
    return stages if len(stages) > 1 else None


def units_of(node: Node) -> tuple[Node, ...]:
    """The residual units that a stage is made of; none if the module is no stage.

    They are the children themselves (`layer1.0`), or one list below (`stages.0.blocks.1`). Within
    a class of its own, only a uniform list counts: attention and feed-forward part of a T5 layer
    stand in a list too.
    """
    numbered = [child for child in node.children if child.is_multiple and _is_numbered(child)]
    own = [child for child in numbered if not child.is_parallel]
    if node.is_container or _are_alike(own):
        return tuple(own)
    for child in node.children:
        units = [unit for unit in child.children if unit.is_multiple]
        if child.is_container and _are_alike(units) and len(units) == len(child.children):
            return tuple(units)
    return ()


def _are_alike(nodes: Sequence[Node]) -> bool:
    return len({(type(node.module), re.sub(r"\d+", "#", node.name)) for node in nodes}) == 1


def _is_numbered(node: Node) -> bool:
    return node.name[-1:].isdigit()


def walk(node: Node) -> Iterator[Node]:
    """The node and all below it, in definition order."""
    yield node
    for child in node.children:
        yield from walk(child)


def _is_normalisation(node: Node) -> bool:
    if isinstance(node.module, _NORMALISATION):
        return True
    # Norms of other libraries: named so, and holding vectors only.
    called = f"{type(node.module).__name__} {node.name}".lower()
    vectors = all(parameter.ndim <= 1 for parameter in node.module.parameters(recurse=False))
    return "norm" in called and vectors
