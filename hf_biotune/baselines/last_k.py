"""The last k blocks at one rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from ..blocks import Partition
from .method import BlockMethod
from .problem import Problem


class LastK(BlockMethod):
    """Trains the last k blocks; of 2, 3 and half of them, the best k by validation is taken.

    One is the linear probe, and all of them are full fine-tuning.
    """

    name = "last-k"
    title = "last k blocks"
    source = "Yosinski et al., How transferable are features? (arXiv 1411.1792)"

    def why_not(self, model: nn.Module, partition: Partition) -> str | None:
        """There is no number between one and all."""
        if len(partition) < 3:
            return f"between one and all of {len(partition)} blocks there is no number"
        return None

    def options(self, problem: Problem) -> Sequence[Mapping[str, Any]]:
        """The numbers of blocks."""
        n_blocks = len(problem.partition)
        numbers = {2, 3, -(-n_blocks // 2)}
        return [{"k": k} for k in sorted(numbers) if 1 < k < n_blocks]

    def multipliers(self, problem: Problem, options: Mapping[str, Any]) -> dict[str, float]:
        """The last ones."""
        return dict.fromkeys(problem.partition.names[-options["k"] :], 1.0)
