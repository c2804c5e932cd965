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


def has_statistics(module: nn.Module) -> bool:
    """Whether a module is a BatchNorm with running statistics."""
    return isinstance(module, BATCH_NORM) and bool(module.track_running_stats)


class EpochStatistics:
    """The BatchNorm modules of a model whose statistics are averages of the current epoch.

    An evaluation ends an epoch, unless somebody tells where epochs begin.

    Attributes:
        is_suspended: whether forward passes are none of the training, and don't count.
        is_told: whether somebody calls [`~EpochStatistics.restart`] where epochs begin.
    """

    def __init__(self) -> None:
        self._averages: list[_EpochAverage] = []
        self.is_suspended = False
        self.is_told = False

    def follow(self, modules: Iterable[nn.Module]) -> None:
        """Follow these modules, and no others any more.

        Args:
            modules: those without running statistics stay as they are.
        """
        self.leave()
        self._averages = [
            _EpochAverage(module, self) for module in modules if has_statistics(module)
        ]

    def is_about_others(self, model: nn.Module) -> bool:
        """Whether a followed module is no longer in a model, as after a conversion to SyncBN."""
        followed = {id(average.module) for average in self._averages}
        return bool(followed) and not followed <= {id(module) for module in model.modules()}

    def leave(self) -> None:
        """Leave all modules as they were."""
        for average in self._averages:
            average.remove()
        self._averages = []

    def restart(self) -> None:
        """Let the next batch take the place of the statistics."""
        for average in self._averages:
            average.seen = 0

    def resume(self, seen: int, largest: int) -> None:
        """Go on in the middle of an epoch, whose first batches another process has seen.

        Args:
            seen: samples since the averages began.
            largest: samples of a full batch.
        """
        for average in self._averages:
            average.seen, average.largest = seen, largest

    def on_evaluation(self) -> None:
        """The model is put into eval mode."""
        if not self.is_told:
            self.restart()


class _EpochAverage:
    """Gives one BatchNorm another momentum for the time of each training step.

    The first batch of an epoch takes the place of the running statistics, the next ones join by
    their numbers of samples. When that is less than the module's own momentum (of a full batch; for
    a smaller one, its share of that), it is as PyTorch has it.

    Args:
        module: which one.
        owner: knows whether an evaluation ends an epoch.
    """

    def __init__(self, module: nn.Module, owner: EpochStatistics) -> None:
        self.seen = 0
        self.module = module
        self._owner = owner
        self.largest = 1
        self._own: float | None = None
        self._handles = (
            module.register_forward_pre_hook(self.before),
            module.register_forward_hook(self.after, always_call=True),
        )

    def before(self, module: Any, inputs: tuple[Any, ...]) -> None:
        """Set the momentum."""
        # A compiled graph would be compiled anew for each value; replicas of DataParallel are gone
        # after the step. Both keep the module's own momentum. Without one (`None`) the statistics
        # are averages over everything.
        if (
            torch.compiler.is_compiling()
            # Asked of the module, an attribute that is not there costs as much as a small layer.
            or "_is_replica" in module.__dict__
            or self._owner.is_suspended
            or module.momentum is None
            or not inputs
        ):
            return
        if not module.training:
            if not self._owner.is_told:
                self.seen = 0
            return
        size = len(inputs[0])
        self.seen += size
        self.largest = max(self.largest, size)
        self._own = module.momentum
        module.momentum = max(self._own * size / self.largest, size / max(1, self.seen))

    def after(self, module: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Set it back: whoever looks at it, copies it or changes it finds the module's own."""
        if self._own is not None:
            module.momentum, self._own = self._own, None

    def remove(self) -> None:
        """Leave the module as it was."""
        for handle in self._handles:
            handle.remove()


def averages_of(model: nn.Module) -> list[_EpochAverage]:
    """Those that follow modules of a model, with or without a tuner around it."""
    owners = (
        getattr(hook, "__self__", None)
        for module in model.modules()
        for hook in module._forward_pre_hooks.values()
    )
    return [owner for owner in owners if isinstance(owner, _EpochAverage)]


def restart_averages(model: nn.Module) -> None:
    """Let the next batch take the place of the statistics, in whatever model they are."""
    for average in averages_of(model):
        average.seen = 0


def remove_averages(model: nn.Module) -> None:
    """Leave all modules of a model as they were."""
    for average in averages_of(model):
        average.remove()
