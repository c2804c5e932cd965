"""The first blocks, which no member of an ensemble changed, are computed once for all members."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ...blocks import Partition
from ...classification import logits_of
from ..out_of_memory import is_out_of_memory
from ..prefix_plan import Inputs, PrefixPlan, plan_prefix, untouched
from ..prefix_replay import record, replaying
from .members import EnsembleMember

logger = logging.getLogger(__name__)

# To make one takes as long as some batches: with ever new sizes of inputs it would never pay.
MOST_PLANS = 16


class SharedTrunk:
    """What all members of an ensemble have in common at the beginning.

    At the first batch of each size of images, or length of texts, all members' logits are computed
    both ways; if they differ in a bit, each member computes everything, and that is logged.

    Args:
        base: the base model, in eval mode.
        members: of the ensemble.
    """

    def __init__(self, base: nn.Module, members: Sequence[EnsembleMember]) -> None:
        self._base = base
        self._n_members = len(members)
        self._partition = members[0].partition_of(base)
        self.n_blocks = _first_changed(self._partition, base, members)
        self._plans: dict[Hashable, PrefixPlan | None] = {}

    def logits(
        self, of_member: Callable[[int], torch.Tensor], inputs: Mapping[str, Any]
    ) -> list[torch.Tensor]:
        """The logits of every member.

        Args:
            of_member: computes those of one, from the inputs on.
            inputs: by name.
        """
        plan = self._plan(of_member, inputs)
        if plan is None:
            return [of_member(number) for number in range(self._n_members)]
        return self._behind(plan, of_member, dict(inputs))

    def _behind(
        self,
        plan: PrefixPlan,
        of_member: Callable[[int], torch.Tensor],
        inputs: Inputs,
    ) -> list[torch.Tensor]:
        kept = record(self._base, plan, self._through, inputs)
        logits = []
        for number in range(self._n_members):
            # A member may change what it is given in place.
            with replaying(self._base, plan, [tensor.clone() for tensor in kept], inputs):
                logits.append(of_member(number))
        return logits

    def _plan(
        self, of_member: Callable[[int], torch.Tensor], inputs: Mapping[str, Any]
    ) -> PrefixPlan | None:
        if self.n_blocks == 0 or self._n_members == 1 or not _are_plain(inputs):
            return None
        key = _mode_of(inputs)
        if key not in self._plans:
            if len(self._plans) >= MOST_PLANS:
                return None
            try:
                self._plans[key] = self._checked_plan(of_member, dict(inputs))
            except Exception as error:
                # Other people's models may do anything with what stubs return.
                if is_out_of_memory(error):
                    raise
                self._leave_out(key, f"{type(error).__name__}: {error}")
        return self._plans[key]

    def _checked_plan(
        self, of_member: Callable[[int], torch.Tensor], inputs: Inputs
    ) -> PrefixPlan | None:
        def few(n_samples: int) -> Inputs:
            return {n: t[torch.arange(n_samples) % len(t)] for n, t in inputs.items()}

        with untouched(self._base):
            plan = plan_prefix(self._base, self._partition, self.n_blocks, self._through, few)
        whole = [of_member(number) for number in range(self._n_members)]
        shared = self._behind(plan, of_member, inputs)
        # Each of them: one may have changed what the blocks of another depend on.
        if not all(map(torch.equal, whole, shared)):
            self._leave_out(_mode_of(inputs), "it gives other logits")
            return None
        return plan

    def _leave_out(self, key: Hashable, reason: str) -> None:
        self._plans[key] = None
        logger.warning("each member of the ensemble computes the shared blocks itself: %s", reason)

    def _through(self, inputs: Inputs) -> torch.Tensor:
        return logits_of(self._base, inputs)


def _first_changed(partition: Partition, base: nn.Module, members: Sequence[EnsembleMember]) -> int:
    """The number of blocks before the first that a member holds a tensor of."""
    parameters = dict(base.named_parameters())
    first = len(partition) - 1
    for name in {name for member in members for name in member.tensors}:
        if name in parameters:
            block: str | None = partition.block_of_parameter(name)
        else:
            block = partition.block_of_module(name.rpartition(".")[0])
        first = min(first, 0 if block is None else partition.names.index(block))
    return first


def _are_plain(inputs: Mapping[str, Any]) -> bool:
    """Whether there are tensors of samples only, and nobody asks for their gradients."""
    return all(
        isinstance(value, torch.Tensor)
        and value.ndim > 0
        and not (value.requires_grad and torch.is_grad_enabled())
        for value in inputs.values()
    )


def _mode_of(inputs: Mapping[str, torch.Tensor]) -> Hashable:
    """What a plan depends on beside weights: not on the inputs' values and number of samples."""
    kinds = {value.device.type for value in inputs.values()}
    return tuple(
        (kind, torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None)
        for kind in sorted(kinds)
    ), tuple((name, value.dtype, value.shape[1:]) for name, value in sorted(inputs.items()))
