"""Where a forward pass can be cut: which modules a frozen prefix is made of, and what is needed.

Nothing is traced symbolically. A forward pass of a few samples runs as it always does, and is
watched: everything that ends before the first trained block begins can be left out when its results
are known. Of these results the logits depend on few, those on the boundary; only these are kept.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

# The same that transformers registers its outputs with; there is no public one.
from torch.utils import _pytree as pytree

from ..blocks import Partition
from ..exceptions import BioTuneError
from ..norm_statistics import restart_averages
from .prefix_stubs import Calls, StubbedCalls

# Two numbers of samples tell which dimension of a tensor grows with them.
FEW_SAMPLES = (2, 3)

Inputs = dict[str, torch.Tensor]
Call = Callable[[Inputs], torch.Tensor]


class NoPrefixError(BioTuneError):
    """A prefix can't be left out; the message says why."""


@dataclass(frozen=True)
class TensorSpec:
    """A tensor that a module of the prefix puts out.

    Args:
        shape: without the samples' dimension if there is one.
        rows: how many entries of the first dimension belong to one sample; 0 if the tensor does not
            depend on the samples.
        dtype: of the tensor.
        is_needed: whether the logits depend on it other than through a later module of the prefix.
        requires_grad: as it is in a training, for checkpointing that asks for it.
    """

    shape: tuple[int, ...]
    rows: int
    dtype: torch.dtype
    is_needed: bool
    requires_grad: bool

    def unused(self, n_samples: int, device: torch.device) -> torch.Tensor:
        """A tensor of the right shape that takes no memory: nothing depends on its values."""
        zero = torch.zeros((), dtype=self.dtype, device=device)
        shape = (n_samples * self.rows, *self.shape) if self.rows else self.shape
        return zero.expand(shape)


@dataclass(frozen=True)
class StubOutput:
    """What one call of a module of the prefix returns.

    Args:
        leaves: a [`TensorSpec`] for each tensor, other values as they are.
        structure: that the leaves belong into.
    """

    leaves: tuple[Any, ...]
    structure: pytree.TreeSpec = field(repr=False)

    @property
    def needed(self) -> tuple[TensorSpec, ...]:
        """Those of its tensors that must be kept."""
        return tuple(
            leaf for leaf in self.leaves if isinstance(leaf, TensorSpec) and leaf.is_needed
        )


@dataclass(frozen=True)
class PrefixPlan:
    """How to leave out the first blocks of one model.

    Args:
        calls: which calls of which modules are left out.
        outputs: of each of these, in the order of the calls.
        unused_inputs: of the model, which nothing but the prefix looks at.
    """

    calls: Calls
    outputs: tuple[StubOutput, ...]
    unused_inputs: dict[str, TensorSpec]

    @property
    def needed(self) -> tuple[TensorSpec, ...]:
        """Everything that must be kept, in the order of the calls."""
        return tuple(spec for output in self.outputs for spec in output.needed)

    @property
    def bytes_per_sample(self) -> int:
        """How much memory a sample takes."""
        return sum(spec.rows * _numel(spec.shape) * spec.dtype.itemsize for spec in self.needed)


def plan_prefix(
    model: nn.Module, partition: Partition, n_blocks: int, call: Call, few: Callable[[int], Inputs]
) -> PrefixPlan:
    """Find out how to leave out the first blocks.

    The model is watched in the mode that it is in; call this within [`untouched`].

    Args:
        model: the base model.
        partition: its blocks.
        n_blocks: how many of them are frozen, at least 1.
        call: takes inputs through the model, and returns logits.
        few: so many samples' inputs, from 1 to 3.

    Raises:
        NoPrefixError: the blocks don't run one after the other, or what they put out is not made of
            samples.
    """
    calls = _prefix_calls(model, partition, n_blocks, call, few(FEW_SAMPLES[0]))
    outputs = [_outputs_of(model, calls, call, few(n_samples)) for n_samples in FEW_SAMPLES]
    needed, unused_inputs = _dependencies(model, calls, call, few(FEW_SAMPLES[0]))
    flags = iter(needed)
    specs = tuple(
        StubOutput(_leaf_specs(less[0], more[0], flags), less[1])
        for less, more in zip(*outputs, strict=True)
    )
    plan = PrefixPlan(calls, specs, unused_inputs)
    if not plan.needed:
        raise NoPrefixError("the logits do not depend on it")
    return plan


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Inside, forward passes leave no trace: statistics and random numbers are put back."""
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    devices = {p.device for p in model.parameters() if p.device.type == "cuda"}
    trained = [(p, p.requires_grad) for p in model.parameters()]
    # Layers are left out at random by the generators of Python and NumPy too.
    of_python, of_numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(list(devices)):
            yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)
        for buffer, before in buffers:
            buffer.copy_(before)
        restart_averages(model)
        for parameter, requires_grad in trained:
            parameter.requires_grad_(requires_grad)


def suffix_parameters(model: nn.Module, partition: Partition, n_blocks: int) -> list[nn.Parameter]:
    """The parameters that do not belong to the first blocks."""
    names = {name for block in partition.blocks[n_blocks:] for name in block.parameters}
    return [parameter for name, parameter in model.named_parameters() if name in names]


@dataclass
class _ModuleCall:
    name: str
    start: int
    end: int = -1


def _prefix_calls(
    model: nn.Module, partition: Partition, n_blocks: int, call: Call, inputs: Inputs
) -> Calls:
    """The outermost modules that end before the first one of another block begins."""
    calls = _watched_calls(model, call, inputs)
    outside = _outside_modules(model, partition, n_blocks, {c.name for c in calls})
    cut = min((c.start for c in calls if c.name in outside), default=0)
    ended = [c for c in calls if c.end < cut]
    left_out: list[_ModuleCall] = []
    for module_call in ended:
        if not left_out or module_call.start > left_out[-1].end:
            left_out.append(module_call)
    if not left_out:
        raise NoPrefixError("nothing of it ends before a later block begins")
    starts = {c.start for c in left_out}
    names = {c.name for c in left_out}
    # Calls inside of what is left out do not happen, so they don't count.
    happening = [
        c
        for c in calls
        if c.name in names and not any(o.start < c.start and c.end < o.end for o in left_out)
    ]
    return {
        name: tuple(c.start in starts for c in happening if c.name == name)
        for name in dict.fromkeys(c.name for c in left_out)
    }


def _watched_calls(model: nn.Module, call: Call, inputs: Inputs) -> list[_ModuleCall]:
    """All calls of modules in a forward pass, in the order in which they begin."""
    calls: list[_ModuleCall] = []
    running: list[_ModuleCall] = []
    ticks = iter(range(1 << 60))

    def begin(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any) -> None:
            running.append(_ModuleCall(name, next(ticks)))
            calls.append(running[-1])

        return hook

    def end(module: nn.Module, args: Any, output: Any) -> None:
        running.pop().end = next(ticks)

    handles = []
    for name, module in model.named_modules():
        if name:
            handles.append(module.register_forward_pre_hook(begin(name)))
            handles.append(module.register_forward_hook(end))
    try:
        with torch.no_grad():
            call(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _outside_modules(
    model: nn.Module, partition: Partition, n_blocks: int, called: set[str]
) -> set[str]:
    """Called modules that lie in later blocks, or hold a parameter of one, tied ones included.

    Of those that are not called themselves, because their owner uses their weights, the owner
    counts; but not the model as a whole.
    """
    later = set(partition.names[n_blocks:])
    weights = {id(p) for p in suffix_parameters(model, partition, n_blocks)}
    found = set()
    for name, module in model.named_modules():
        holds = any(id(p) in weights for p in module.parameters(recurse=False))
        if not holds and partition.block_of_module(name) not in later:
            continue
        while name and name not in called:
            name = name.rpartition(".")[0]
        found.add(name)
    return found - {""}


def _dependencies(
    model: nn.Module, calls: Calls, call: Call, inputs: Inputs
) -> tuple[list[bool], dict[str, TensorSpec]]:
    """Which tensors of the prefix the logits depend on directly, and which inputs they don't.

    Every tensor that a module of the prefix puts out begins a graph of its own; a gradient of the
    logits reaches those that are needed.
    """
    begun: list[torch.Tensor] = []

    def cut(_: int, output: Any) -> Any:
        leaves, structure = pytree.tree_flatten(output)
        for number, leaf in enumerate(leaves):
            if isinstance(leaf, torch.Tensor):
                begun.append(leaf.detach())
                if leaf.is_floating_point():
                    # A copy of the beginning may be changed in place.
                    leaves[number] = begun[-1].requires_grad_().clone()
        return pytree.tree_unflatten(leaves, structure)

    for parameter in model.parameters():
        parameter.requires_grad_(False)
    floating = {n: t.clone().requires_grad_() for n, t in inputs.items() if t.is_floating_point()}
    with torch.enable_grad(), StubbedCalls(model, calls, after=cut):
        logits = call({**inputs, **floating})
        cuts = [tensor for tensor in begun if tensor.is_floating_point()]
        if not logits.requires_grad:
            raise NoPrefixError("no gradient reaches it")
        gradients = torch.autograd.grad(
            logits.float().sum(), [*cuts, *floating.values()], allow_unused=True
        )
    reached = iter([gradient is not None for gradient in gradients])
    needed = [next(reached) if tensor.is_floating_point() else True for tensor in begun]
    unused = {
        name: TensorSpec(tuple(tensor.shape[1:]), 1, tensor.dtype, False, False)
        for name, tensor in floating.items()
        if not next(reached)
    }
    return needed, unused


def _outputs_of(
    model: nn.Module, calls: Calls, call: Call, inputs: Inputs
) -> list[tuple[list[Any], pytree.TreeSpec]]:
    """What the calls of the prefix put out; tensors as meta tensors."""
    outputs: list[tuple[list[Any], pytree.TreeSpec]] = []

    def note(_: int, output: Any) -> Any:
        leaves, structure = pytree.tree_flatten(output)
        outputs.append(([_meta(leaf) for leaf in leaves], structure))
        return output

    with StubbedCalls(model, calls, after=note):
        call(inputs)
    return outputs


def _meta(leaf: Any) -> Any:
    if not isinstance(leaf, torch.Tensor):
        return leaf
    return torch.empty_like(leaf, device="meta").requires_grad_(leaf.requires_grad)


def _leaf_specs(less: list[Any], more: list[Any], needed: Iterator[bool]) -> tuple[Any, ...]:
    return tuple(
        _spec(one, other, next(needed)) if isinstance(one, torch.Tensor) else one
        for one, other in zip(less, more, strict=True)
    )


def _spec(less: torch.Tensor, more: torch.Tensor, is_needed: bool) -> TensorSpec:
    """What two tensors of different numbers of samples have in common."""
    common = less.dtype, is_needed, less.requires_grad
    if less.shape == more.shape:
        return TensorSpec(tuple(less.shape), 0, *common)
    rows, remainder = divmod(less.shape[0], FEW_SAMPLES[0])
    if remainder or more.shape != (rows * FEW_SAMPLES[1], *less.shape[1:]):
        raise NoPrefixError(
            f"a tensor of shape {tuple(less.shape)} for {FEW_SAMPLES[0]} samples has shape "
            f"{tuple(more.shape)} for {FEW_SAMPLES[1]}"
        )
    return TensorSpec(tuple(less.shape[1:]), rows, *common)


def _numel(shape: tuple[int, ...]) -> int:
    return torch.Size(shape).numel()
