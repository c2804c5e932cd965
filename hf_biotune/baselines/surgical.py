"""Surgical fine-tuning: the one block whose training helps most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from ..blocks import Partition
from .method import BlockMethod
from .problem import Problem


class Surgical(BlockMethod):
    """Trains one block and the head; the best block by validation is taken.

    The source has no new head to train, since its labels stay as they are.
    """

    name = "surgical"
    title = "surgical fine-tuning"
    source = "Lee et al., Surgical Fine-Tuning (arXiv 2210.11466)"

    def why_not(self, model: nn.Module, partition: Partition) -> str | None:
        """There is nothing but a head."""
        return "there is no block beside the head" if len(partition) < 2 else None

    def options(self, problem: Problem) -> Sequence[Mapping[str, Any]]:
        """Each block but the head."""
        return [{"block": name} for name in problem.partition.names[:-1]]

    def multipliers(self, problem: Problem, options: Mapping[str, Any]) -> dict[str, float]:
        """The block and the head."""
        return {options["block"]: 1.0, problem.head: 1.0}
