"""LoRA: low-rank updates of linear layers and convolutions, and a new head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from peft import LoraConfig
from torch import nn
from transformers.pytorch_utils import Conv1D

from ..blocks import Partition
from .method import HIGH_RATES, TrainedMethod
from .peft_training import NO_HEAD, PeftTraining, exactly, head_modules, outside_of_head
from .problem import Problem
from .setting import Setting

# Rank and alpha: alpha is twice the rank, so that the rate means the same for both.
RANKS = (8, 32)


class Lora(TrainedMethod):
    """Trains low-rank updates with PEFT's `LoraConfig`, and the head by `modules_to_save`.

    Of a transformer these are all linear layers of attention and feed-forward parts, of a
    convolutional model all convolutions but grouped ones (1 x 1 and larger), which are weight
    matrices as well. Of ranks 8 and 32, with alpha twice as large, the best by validation is taken.
    """

    name = "lora"
    title = "LoRA"
    source = "Hu et al., LoRA (arXiv 2106.09685); peft"
    rates = HIGH_RATES

    def why_not(self, model: nn.Module, partition: Partition) -> str | None:
        """There is no layer to update, or the head has no name of its own."""
        if not lora_targets(model, partition):
            return "there is no linear layer or ungrouped convolution beside the head"
        return None if head_modules(model, partition) else NO_HEAD

    def options(self, problem: Problem) -> Sequence[Mapping[str, Any]]:
        """The ranks."""
        return [{"rank": rank, "alpha": 2 * rank} for rank in RANKS]

    def trained_blocks(self, problem: Problem, options: Mapping[str, Any]) -> Sequence[str]:
        """The head; others are frozen beneath their updates."""
        return [problem.head]

    def norm_modes(self, problem: Problem, options: Mapping[str, Any]) -> tuple[str, ...]:
        """PyTorch's, should the head have statistics: PEFT knows no other."""
        return ("train",)

    def training(self, problem: Problem, setting: Setting) -> PeftTraining:
        """The adapter at the setting's rate."""
        targets = lora_targets(problem.model, problem.partition)
        config = LoraConfig(
            r=setting.options["rank"],
            lora_alpha=setting.options["alpha"],
            target_modules=exactly(targets),
            modules_to_save=head_modules(problem.model, problem.partition),
            # Conv1D, of GPT-2, holds its weight transposed.
            fan_in_fan_out=any(
                isinstance(problem.model.get_submodule(name), Conv1D) for name in targets
            ),
        )
        return PeftTraining(config, setting.rate)


def lora_targets(model: nn.Module, partition: Partition) -> list[str]:
    """The layers outside of the head that get an update, by name."""
    targets: list[str] = []
    for name, module in outside_of_head(model, partition):
        if isinstance(module, nn.MultiheadAttention):
            # PEFT updates its projections together; torch never calls its layers.
            targets.append(name)
        elif isinstance(module, (nn.Linear, Conv1D)) or (
            isinstance(module, nn.Conv2d) and module.groups == 1
        ):
            parent = model.get_submodule(name.rpartition(".")[0])
            if not isinstance(parent, nn.MultiheadAttention):
                targets.append(name)
    return targets
