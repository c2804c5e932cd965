"""BatchNorm statistics that keep up with a short training: the averages of the current epoch.

PyTorch's running statistics forget a tenth at each step. After the 32 steps of 8 epochs over 100
images they still hold something of the pre-trained ones and of weights of epochs ago, and a last
batch of 4 images has counted as much as one of 32. A network is then scored, and chosen, by
statistics that are not its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

BATCH_NORM = nn.modules.batchnorm._NormBase


class _EpochAverage:
    """Sets the momentum of one BatchNorm before each of its steps.

    The first batch after an evaluation takes the place of the running statistics, the next ones
    join by their numbers of samples. When that is less than the module's own momentum (of a full
    batch; for a smaller one, its share of that), it is as PyTorch has it.

    Args:
        module: whose momentum is set, from now on.
    """

    def __init__(self, module: Any) -> None:
        self._own: float = module.momentum
        self._seen = 0
        self._largest = 1
        self._handle = module.register_forward_pre_hook(self)

    def __call__(self, module: Any, inputs: tuple[Any, ...]) -> None:
        # A compiled graph would be compiled anew for each value; replicas of DataParallel are gone
        # after the step. Both keep the module's own momentum.
        if torch.compiler.is_compiling() or getattr(module, "_is_replica", False) or not inputs:
            return
        if not module.training:
            self.restart(module)
            return
        size = len(inputs[0])
        self._seen += size
        self._largest = max(self._largest, size)
        module.momentum = max(self._own * size / self._largest, size / max(1, self._seen))

    def restart(self, module: Any) -> None:
        """Let the next batch take the place of the statistics."""
        self._seen = 0
        module.momentum = self._own

    def remove(self, module: Any) -> None:
        """Leave the module as it was."""
        self._handle.remove()
        module.momentum = self._own


class EpochStatistics:
    """The BatchNorm modules of a model whose statistics are averages since the last evaluation."""

    def __init__(self) -> None:
        self._averages: list[tuple[nn.Module, _EpochAverage]] = []

    def follow(self, modules: Iterable[nn.Module]) -> None:
        """Follow these modules, and no others any more.

        Args:
            modules: those without running statistics, or whose statistics are averages over the
                whole training (`momentum=None`), stay as they are.
        """
        self.leave()
        self._averages = [
            (module, _EpochAverage(module))
            for module in modules
            if isinstance(module, BATCH_NORM)
            and module.track_running_stats
            and module.momentum is not None
        ]

    def leave(self) -> None:
        """Leave all modules as they were."""
        for module, average in self._averages:
            average.remove(module)
        self._averages = []

    def restart(self) -> None:
        """Begin an epoch: the next batch takes the place of the statistics."""
        for module, average in self._averages:
            average.restart(module)


def restart_averages(model: nn.Module) -> None:
    """Begin an epoch, in whatever model such modules are.

    Args:
        model: with or without a tuner around it.
    """
    for module in model.modules():
        for hook in module._forward_pre_hooks.values():
            if isinstance(hook, _EpochAverage):
                hook.restart(module)
