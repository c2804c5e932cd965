"""Layer-wise learning-rate decay: the further from the output, the slower."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .method import BlockMethod
from .problem import Problem

DECAYS = (0.65, 0.75, 0.9)


class LayerDecay(BlockMethod):
    """Trains everything; each block's rate is that of the next one times the decay.

    As in timm (`param_groups_layer_decay`), with blocks for layers: the head has the full rate. Of
    65, 75 and 90 % the best by validation is taken.
    """

    name = "layer-decay"
    title = "layer-wise rate decay"
    source = "Bao et al., BEiT (arXiv 2106.08254); timm"

    def options(self, problem: Problem) -> Sequence[Mapping[str, Any]]:
        """The decays."""
        return [{"decay": decay} for decay in DECAYS]

    def multipliers(self, problem: Problem, options: Mapping[str, Any]) -> dict[str, float]:
        """`decay ** (blocks after it)`."""
        names = problem.partition.names
        decay: float = options["decay"]
        return {name: decay ** (len(names) - 1 - i) for i, name in enumerate(names)}
