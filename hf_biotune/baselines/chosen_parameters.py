"""Methods that train chosen parameters wherever they are, and the head."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import nn

from ..blocks import Partition
from ..config import BioTuneConfig
from ..norm_statistics import BATCH_NORM
from ..search.training import BlockTraining, Training
from .method import HIGH_RATES, TrainedMethod
from .problem import Problem
from .setting import Setting


class ScatteredTraining(BlockTraining):
    """Trains parameters that frozen ones lie between."""

    freezes_whole_blocks = False


class ChosenParameters(TrainedMethod):
    """Trains chosen parameters, and the head.

    They are a block of the wrapped model as any other, so that its checkpoint holds them alone.
    Class attribute `chosen`: what the block is called.
    """

    chosen: ClassVar[str]
    rates = HIGH_RATES

    @abstractmethod
    def parameters(
        self, model: nn.Module, partition: Partition, options: Mapping[str, Any]
    ) -> Sequence[str]:
        """The names of the chosen parameters; none of them is of the head.

        Args:
            model: which one.
            partition: its blocks.
            options: of the method.
        """

    def chosen_of(self, problem: Problem, options: Mapping[str, Any]) -> Sequence[str]:
        """The names of the chosen parameters of a problem's model.

        Args:
            problem: its model holds the weights of whatever was trained last.
            options: of the method.
        """
        return self.parameters(problem.model, problem.partition, options)

    def why_not(self, model: nn.Module, partition: Partition) -> str | None:
        """There is nothing to choose."""
        options = self.smallest_options
        if not self.parameters(model, partition, options):
            return f"the model has no {self.chosen} beside its head"
        return None

    @property
    def smallest_options(self) -> Mapping[str, Any]:
        """Those of the candidates that choose the least. Default: no options."""
        return {}

    def norm_modes(self, problem: Problem, options: Mapping[str, Any]) -> tuple[str, ...]:
        """Both, where a chosen parameter belongs to a BatchNorm."""
        chosen = self.chosen_of(problem, options)
        owners = {name.rpartition(".")[0] for name in chosen}
        has_any = problem.head in problem.batch_norm_blocks or any(
            isinstance(problem.model.get_submodule(owner), BATCH_NORM) for owner in owners
        )
        return ("epoch", "frozen") if has_any else ("epoch",)

    def training(self, problem: Problem, setting: Setting) -> Training:
        """The chosen parameters and the head at the setting's rate."""
        names = self.chosen_of(problem, setting.options)
        head = problem.partition.to_patterns()[problem.head]
        config = BioTuneConfig(
            partition={self.chosen: list(names), problem.head: head},
            lr_multipliers={self.chosen: setting.rate, problem.head: setting.rate},
            norm_statistics=setting.norm_statistics,
            saved_blocks=[],
        )
        return ScatteredTraining(config)


def parameters_outside_of_head(model: nn.Module, partition: Partition) -> Sequence[str]:
    """The names of all parameters but those of the last block."""
    head = set(partition[-1].parameters)
    return [name for name, _ in model.named_parameters() if name not in head]
