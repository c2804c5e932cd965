"""A member of an ensemble: what one fine-tuning changed of the base model."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from ...blocks import Partition, partition
from ...config import BioTuneConfig
from ...model import BioTuneModel


@dataclass(frozen=True, eq=False)
class EnsembleMember:
    """What one fine-tuning changed of the base model.

    Args:
        name: unique in its ensemble, such as `"trial-17-seed-684"`; also of its directory.
        config: which blocks it holds.
        tensors: parameters and buffers of these, by their names in the base model.
        validation_score: of the search, if known.
    """

    name: str
    config: BioTuneConfig
    tensors: Mapping[str, torch.Tensor] = field(repr=False)
    validation_score: float | None = None

    @classmethod
    def take_from(
        cls, model: BioTuneModel, name: str, validation_score: float | None = None
    ) -> EnsembleMember:
        """Take an adapter out of its base model, which is then as it was before.

        Args:
            model: with one adapter, and the base model's own weights kept.
            name: of the member.
            validation_score: of the search, if known.
        """
        config = copy.deepcopy(model.active_peft_config)
        config.inference_mode = True
        tensors = {name: t.clone() for name, t in model.biotune_state_dict().items()}
        model.unload()
        return cls(name, config, tensors, validation_score)

    def partition_of(self, base: nn.Module) -> Partition:
        """The blocks of the base model, as this member was trained with them."""
        return partition(base, self.config.partition or self.config.blocks)

    @property
    def n_numbers(self) -> int:
        """How many numbers it holds."""
        return sum(tensor.numel() for tensor in self.tensors.values())


class MemberWeights(nn.Module):
    """The tensors of a member, as buffers, so that they go where the ensemble goes.

    Args:
        base: the base model; each tensor gets the memory layout, dtype and device of its own.
        tensors: by name in the base model.
    """

    def __init__(self, base: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        own = dict(base.named_parameters()) | dict(base.named_buffers())
        self._names = tuple(tensors)
        for number, (name, tensor) in enumerate(tensors.items()):
            # A name with dots can't be a buffer's.
            self.register_buffer(f"tensor{number}", torch.empty_like(own[name]).copy_(tensor))

    def by_name(self) -> dict[str, torch.Tensor]:
        """The tensors, by name in the base model."""
        return {name: getattr(self, f"tensor{i}") for i, name in enumerate(self._names)}
