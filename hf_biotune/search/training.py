"""`Training`: what makes one way of fine-tuning another, as hooks of the training loop.

The loop itself (data, order, schedule, precision, scoring, patience) is the same for all of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from peft import PeftModel
from torch import nn
from torch.optim import Optimizer
from transformers import TrainingArguments

from ..config import BioTuneConfig
from ..model import BioTuneModel, get_biotune_model
from ..optim import ArgumentsHolder, BioTuneOptimizerFactory

if TYPE_CHECKING:
    from .data import SplitView
    from .execution import Execution
    from .forward import Forward


@dataclass(frozen=True)
class Live:
    """A training while it runs, at the beginning of an epoch.

    Args:
        model: as [`~Training.wrap`] made it.
        optimizer: as [`~Training.optimizer`] made it.
        forward: takes batches through the model.
        samples: to train on, as this epoch sees them.
        args: of the training.
        execution: how it is computed.
        batch_size: as many samples go through the model at a time.
        seed: of the training.
        epoch: from 0.
        epochs: how many there are.
    """

    model: PeftModel
    optimizer: Optimizer
    forward: Forward
    samples: SplitView
    args: TrainingArguments
    execution: Execution
    batch_size: int
    seed: int
    epoch: int
    epochs: int


class Training(ABC):
    """What to train, at which rate, with which penalty, and what changes over the epochs."""

    # Whether what is frozen are whole blocks, from the first step to the last, so that what comes
    # out of them is a constant of the data.
    freezes_whole_blocks: bool = False

    @abstractmethod
    def wrap(self, base: nn.Module) -> PeftModel:
        """Make a base model trainable. It may be used in place if `unwrap` gives it back."""

    @abstractmethod
    def optimizer(self, model: PeftModel, args: TrainingArguments) -> Optimizer:
        """The optimizer of a wrapped model. Each group holds `lr_multiplier`."""

    @abstractmethod
    def unwrap(self, model: PeftModel) -> None:
        """Leave no wrapper around the base model."""

    def set_train_mode(self, model: nn.Module) -> None:
        """Put what is trained into train mode, and what is frozen into eval mode."""
        model.train()

    def on_epoch_begin(self, live: Live) -> None:  # noqa: B027 - few have anything to do
        """Called before the first step of each epoch."""

    def settled_after(self, epochs: int) -> int:
        """The number of epochs after which nothing changes any more; patience counts from there.

        Args:
            epochs: of the whole training.
        """
        return 0


class BlockTraining(Training):
    """Trains blocks, each at its own rate.

    Args:
        config: which blocks, at which rates.
    """

    freezes_whole_blocks = True

    def __init__(self, config: BioTuneConfig) -> None:
        self.config = config

    def wrap(self, base: nn.Module) -> BioTuneModel:
        """The base model itself, its other blocks frozen."""
        return get_biotune_model(base, self.config, keep_base_weights=False)

    def optimizer(self, model: PeftModel, args: TrainingArguments) -> Optimizer:
        """That of `Trainer`, with a group for each block."""
        return block_optimizer(model, args)

    def unwrap(self, model: PeftModel) -> None:
        """Its blocks stay as they are."""
        model.merge_and_unload()


def block_optimizer(model: nn.Module, args: TrainingArguments) -> Optimizer:
    """The optimizer of a [`BioTuneModel`] that `Trainer` would have."""
    holder = ArgumentsHolder()
    holder.args = args
    return BioTuneOptimizerFactory()(model, holder)


def training_of(what: BioTuneConfig | Training) -> Training:
    """A configuration stands for the training of its blocks."""
    return what if isinstance(what, Training) else BlockTraining(what)
