"""L1-SP: full fine-tuning with a pull that keeps most weights exactly where they were."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from peft import PeftModel
from torch.optim import Optimizer
from transformers import TrainingArguments

from ..penalties import Pull, step_hook
from ..search.training import BlockTraining, block_optimizer
from .l2_sp import NEW_STRENGTH
from .method import TrainedMethod
from .problem import Problem
from .setting import Setting

STRENGTHS = (0.0001, 0.001, 0.01)


class L1SpTraining(BlockTraining):
    """`strength ||w - w0||_1` of pre-trained weights, `0.005 ||w||^2` of new ones.

    Args:
        problem: the blocks.
        setting: rate, statistics and `strength`.
    """

    def __init__(self, problem: Problem, setting: Setting) -> None:
        multipliers = dict.fromkeys(problem.partition.names, setting.rate)
        super().__init__(problem.config(multipliers, norm_statistics=setting.norm_statistics))
        self._strength: float = setting.options["strength"]
        self._new = {name for b in problem.new_blocks for name in problem.partition[b].parameters}

    def optimizer(self, model: PeftModel, args: TrainingArguments) -> Optimizer:
        """With the gradient of the penalty added before each step."""
        optimizer = block_optimizer(model, args)
        pulls = [
            Pull(parameter, None, NEW_STRENGTH)
            if name in self._new
            else Pull(parameter, parameter.detach().clone(), self._strength, norm=1)
            for name, parameter in model.get_base_model().named_parameters()
        ]
        optimizer.register_step_pre_hook(step_hook(pulls))
        return optimizer


class L1Sp(TrainedMethod):
    """Trains everything with an L1 penalty; the best strength by validation is taken."""

    name = "l1-sp"
    title = "L1-SP"
    source = "Li et al., Explicit Inductive Bias for Transfer Learning (arXiv 1802.01483)"

    def options(self, problem: Problem) -> Sequence[Mapping[str, Any]]:
        """The strengths."""
        return [{"strength": strength} for strength in STRENGTHS]

    def training(self, problem: Problem, setting: Setting) -> L1SpTraining:
        """Every block, held back."""
        return L1SpTraining(problem, setting)
