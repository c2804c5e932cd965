"""Linear probe: the head alone."""

from __future__ import annotations

from collections.abc import Collection

from ..blocks import Partition
from ..search.training import BlockTraining
from .method import HIGH_RATES, TrainedMethod
from .problem import Problem
from .setting import Setting


class LinearProbe(TrainedMethod):
    """Trains the last block; features are those of the pre-trained model."""

    name = "linear-probe"
    title = "linear probe"
    source = "Kornblith et al., Do Better ImageNet Models Transfer Better? (arXiv 1805.08974)"
    rates = HIGH_RATES

    def trained_blocks(self, partition: Partition) -> Collection[str]:
        """The last."""
        return partition.names[-1:]

    def training(self, problem: Problem, setting: Setting) -> BlockTraining:
        """The head at the setting's rate."""
        config = problem.config(
            {problem.head: setting.rate}, norm_statistics=setting.norm_statistics
        )
        return BlockTraining(config)
