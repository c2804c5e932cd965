"""Full fine-tuning: every block at one rate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .method import BlockMethod
from .problem import Problem


class FullFineTuning(BlockMethod):
    """Trains everything at one learning rate."""

    name = "full"
    title = "full fine-tuning"
    source = "Yosinski et al., How transferable are features? (arXiv 1411.1792)"

    def multipliers(self, problem: Problem, options: Mapping[str, Any]) -> dict[str, float]:
        """Every block."""
        return dict.fromkeys(problem.partition.names, 1.0)
