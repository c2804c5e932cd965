"""Norm-only: the scales and shifts of norm layers, and the head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from peft import LNTuningConfig
from torch import nn

from ..blocks import Partition
from ..optim import is_norm
from ..search.training import Training
from .chosen_parameters import ChosenParameters, parameters_outside_of_head
from .peft_training import PeftTraining, exactly, head_modules
from .problem import Problem
from .setting import Setting


class NormOnly(ChosenParameters):
    """Trains the norm layers and the head.

    With PEFT's `LNTuningConfig`, but where there is BatchNorm, whose statistics PEFT's adapter does
    not hold, or where PEFT can't name the head: there they are a block of ours.
    """

    name = "norm-only"
    title = "norm layers only"
    source = "Zhao et al., Tuning LayerNorm in Attention (arXiv 2312.11420), peft; "
    source += "Frankle et al., Training BatchNorm and Only BatchNorm (arXiv 2003.00152)"
    chosen = "norms"

    def parameters(
        self, model: nn.Module, partition: Partition, options: Mapping[str, Any]
    ) -> Sequence[str]:
        """Those of the norm layers."""
        norms = {name for name, module in model.named_modules() if is_norm(module)}
        return [
            name
            for name in parameters_outside_of_head(model, partition)
            if name.rpartition(".")[0] in norms
        ]

    def training(self, problem: Problem, setting: Setting) -> Training:
        """PEFT's adapter where it fits, else our block."""
        head = head_modules(problem.model, problem.partition)
        if problem.batch_norm_blocks or not head:
            return super().training(problem, setting)
        names = self.parameters(problem.model, problem.partition, setting.options)
        layers = sorted({name.rpartition(".")[0] for name in names})
        config = LNTuningConfig(target_modules=exactly(layers), modules_to_save=head)
        return PeftTraining(config, setting.rate)
