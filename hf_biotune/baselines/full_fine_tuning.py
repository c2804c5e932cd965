"""Full fine-tuning: every block at one rate."""

from __future__ import annotations

from ..search.training import BlockTraining
from .method import TrainedMethod
from .problem import Problem
from .setting import Setting


class FullFineTuning(TrainedMethod):
    """Trains everything at one learning rate."""

    name = "full"
    title = "full fine-tuning"
    source = "Yosinski et al., How transferable are features? (arXiv 1411.1792)"

    def training(self, problem: Problem, setting: Setting) -> BlockTraining:
        """Every block at the setting's rate."""
        multipliers = dict.fromkeys(problem.partition.names, setting.rate)
        return BlockTraining(problem.config(multipliers, norm_statistics=setting.norm_statistics))
