"""A forward pass that records what a frozen prefix puts out, and one that takes it from there."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from .prefix_plan import Call, Inputs, PrefixPlan, StubOutput, TensorSpec
from .prefix_stubs import StubbedCalls


class _AllRecorded(Exception):  # noqa: N818 - not an error
    """Everything that is needed is there; the rest of the model need not run."""


def replaying(
    model: nn.Module, plan: PrefixPlan, kept: Sequence[torch.Tensor], inputs: Inputs
) -> StubbedCalls:
    """While it lasts, one forward pass with these inputs leaves out the prefix.

    Args:
        model: the base model.
        plan: of the prefix.
        kept: what was recorded of the samples; it may be changed in place.
        inputs: of the forward pass.
    """
    some_input = next(iter(inputs.values()))
    n_samples, device = len(some_input), some_input.device
    tensors = iter(kept)

    def answer(number: int) -> Any:
        return _answer(plan.outputs[number], tensors, n_samples, device)

    return StubbedCalls(model, plan.calls, instead=answer)


@torch.no_grad()
def record(
    model: nn.Module,
    plan: PrefixPlan,
    call: Call,
    inputs: Inputs,
    shorter: StubbedCalls | None = None,
) -> list[torch.Tensor]:
    """What must be kept of a batch, in the order of `plan.needed`.

    Args:
        model: the base model, in the mode and under the autocast of what will use it.
        plan: of the prefix.
        call: takes inputs through the model; it is interrupted where the prefix ends.
        inputs: of the batch.
        shorter: [`replaying`] of a shorter prefix that need not be computed. Default: none.
    """
    kept: list[torch.Tensor] = []

    def keep(number: int, output: Any) -> Any:
        leaves = pytree.tree_leaves(output)
        for leaf, spec in zip(leaves, plan.outputs[number].leaves, strict=True):
            if isinstance(spec, TensorSpec) and spec.is_needed:
                # A copy: what comes next may change it in place.
                kept.append(leaf.detach().clone())
        if number + 1 == len(plan.outputs):
            raise _AllRecorded
        return output

    try:
        # In this order: what the shorter prefix answers is recorded.
        with shorter or nullcontext(), StubbedCalls(model, plan.calls, after=keep):
            call(inputs)
    except _AllRecorded:
        return kept
    raise RuntimeError("the forward pass took another way than it did before")


def _answer(output: StubOutput, tensors: Any, n_samples: int, device: torch.device) -> Any:
    leaves = [
        leaf
        if not isinstance(leaf, TensorSpec)
        else _as_trained(next(tensors), leaf)
        if leaf.is_needed
        else leaf.unused(n_samples, device)
        for leaf in output.leaves
    ]
    return pytree.tree_unflatten(leaves, output.structure)


def _as_trained(tensor: torch.Tensor, spec: TensorSpec) -> torch.Tensor:
    """Requiring a gradient if it does so in a training: checkpointing may insist on that."""
    if not (spec.requires_grad and torch.is_grad_enabled()):
        return tensor
    return tensor.requires_grad_().clone()
