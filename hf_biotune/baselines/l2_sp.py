"""L2-SP: full fine-tuning with a quadratic pull towards the pre-trained weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..penalties import L2SP
from ..search.training import BlockTraining
from .method import TrainedMethod
from .problem import Problem
from .setting import Setting

STRENGTHS = (0.001, 0.01, 0.1)
# The source's beta, for weights that are new.
NEW_STRENGTH = 0.01


class L2Sp(TrainedMethod):
    """Trains everything with [`L2SP`]; the best strength by validation is taken."""

    name = "l2-sp"
    title = "L2-SP"
    source = "Li et al., Explicit Inductive Bias for Transfer Learning (arXiv 1802.01483)"

    def options(self, problem: Problem) -> Sequence[Mapping[str, Any]]:
        """The strengths."""
        return [{"strength": strength} for strength in STRENGTHS]

    def training(self, problem: Problem, setting: Setting) -> BlockTraining:
        """Every block, held back."""
        penalty = L2SP(setting.options["strength"], NEW_STRENGTH, problem.new_blocks)
        return BlockTraining(
            problem.config(
                dict.fromkeys(problem.partition.names, setting.rate),
                norm_statistics=setting.norm_statistics,
                l2sp=penalty.to_dict(),
            )
        )
