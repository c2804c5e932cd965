"""Gradual unfreezing: one block after the other joins in, each for an even share of the epochs."""

from __future__ import annotations

from abc import abstractmethod

from ..model import BioTuneModel
from ..search.training import BlockTraining, Live
from .method import TrainedMethod
from .problem import Problem
from .setting import Setting


class PhasedTraining(BlockTraining):
    """Trains blocks, some of them from a later epoch on; until then they are frozen.

    Args:
        problem: the blocks.
        setting: rate and statistics.
        begins: the epoch, from 0, with which each block begins to be trained.
    """

    freezes_whole_blocks = False

    def __init__(self, problem: Problem, setting: Setting, begins: dict[str, int]) -> None:
        multipliers = dict.fromkeys(begins, setting.rate)
        super().__init__(problem.config(multipliers, norm_statistics=setting.norm_statistics))
        self.begins = begins

    def on_epoch_begin(self, live: Live) -> None:
        """Freeze the blocks whose time has not come."""
        assert isinstance(live.model, BioTuneModel)
        live.model.base_model.hold(
            [name for name, epoch in self.begins.items() if epoch > live.epoch]
        )

    def settled_after(self, epochs: int) -> int:
        """With the last block that joins in."""
        return min(epochs, max(self.begins.values()))


def beginnings(names: list[str], epochs: int) -> dict[str, int]:
    """The epoch with which each block begins, an even share of the epochs after the one before.

    Args:
        names: of the blocks, in the order in which they join in.
        epochs: of the training.

    Example:
        >>> beginnings(["head", "top", "stem"], 6)
        {'head': 0, 'top': 2, 'stem': 4}
    """
    return {name: position * epochs // len(names) for position, name in enumerate(names)}


class _Gradual(TrainedMethod):
    source = "Howard and Ruder, Universal Language Model Fine-tuning (arXiv 1801.06146)"

    @abstractmethod
    def in_order(self, problem: Problem) -> list[str]:
        """The blocks in the order in which they join in."""

    def training(self, problem: Problem, setting: Setting) -> PhasedTraining:
        """Each block joins in after an even share of the epochs."""
        begins = beginnings(self.in_order(problem), problem.evaluator.epochs)
        # A new block holds nothing that waiting could protect.
        begins.update(dict.fromkeys(problem.new_blocks, 0))
        return PhasedTraining(problem, setting, begins)


class GradualLastFirst(_Gradual):
    """Begins with the last block and ends with the first."""

    name = "gradual-last-first"
    title = "gradual unfreezing, last to first"

    def in_order(self, problem: Problem) -> list[str]:
        """From the last to the first."""
        return list(reversed(problem.partition.names))


class GradualFirstLast(_Gradual):
    """Begins with the first block and ends with the last; a new head is trained from the start."""

    name = "gradual-first-last"
    title = "gradual unfreezing, first to last"

    def in_order(self, problem: Problem) -> list[str]:
        """From the first to the last."""
        return list(problem.partition.names)
