"""What an unmodified `transformers.Trainer` needs to train a `BioTuneModel`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from transformers import (
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_utils import IntervalStrategy, has_length

from .exceptions import ConfigError
from .optim import ArgumentsHolder, BioTuneOptimizerFactory, find_biotune_model


class BioTuneCallback(TrainerCallback):  # type: ignore[misc]
    """Logs each block's learning rate as `lr/<block>` and refuses to resume with other rates.

    Made by [`biotune_trainer_kwargs`].
    """

    def __init__(self, arguments: ArgumentsHolder) -> None:
        self._arguments = arguments
        self._optimizer: torch.optim.Optimizer | None = None
        self._rates: dict[str, float] = {}
        self._is_resumed = False
        self._began_at = 0

    def on_init_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Hand the arguments to the optimizer factory."""
        self._arguments.args = args

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Check that a resumed optimizer has the rates that the model asks for.

        Raises:
            ConfigError: they differ: `Trainer` would silently go on with the checkpoint's.
        """
        self._optimizer = kwargs.get("optimizer")
        self._is_resumed = state.global_step > 0
        self._began_at = state.global_step
        model = kwargs.get("model")
        if self._optimizer is None or model is None:
            return
        wanted = find_biotune_model(model).active_peft_config.lr_multipliers
        for group in self._optimizer.param_groups:
            block, multiplier = group.get("block"), group.get("lr_multiplier")
            if block is not None and wanted.get(block) != multiplier:
                raise ConfigError(
                    f"the checkpoint was trained with lr_multipliers[{block!r}]={multiplier}, the "
                    f"model now has {wanted.get(block)}; resume with the checkpoint's multipliers, "
                    f"or start anew"
                )

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin the averages of BatchNorm statistics, unless the training ends in this epoch.

        With evaluations by steps they begin once.
        """
        model = kwargs.get("model")
        if model is None:
            return
        statistics = find_biotune_model(model).base_model.statistics
        # Only a training that is resumed begins with a later step than the first.
        is_resumed, self._is_resumed = self._is_resumed, False
        batch = int(args.train_batch_size)
        statistics.is_told = True
        if args.eval_strategy == IntervalStrategy.STEPS:
            # An evaluation early in an epoch would find statistics of a few batches. So the
            # averages go on, and forget as PyTorch's do.
            if is_resumed:
                statistics.resume(_samples_until(state.global_step, args, kwargs), batch)
            elif not state.global_step:
                statistics.restart()
            return
        # Of data without a length, the epoch before tells how long this one will be.
        steps = _steps(args, kwargs) or state.global_step - self._began_at
        in_epoch = is_resumed and steps and not args.ignore_data_skip
        done = state.global_step % steps if in_epoch else 0
        self._began_at = state.global_step - done
        begins = state.max_steps - self._began_at >= steps
        if begins:
            statistics.restart()
        if is_resumed and (done or not begins):
            since = done if begins else done + steps
            statistics.resume(_samples_until(since, args, kwargs), batch)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """From now on an evaluation ends an epoch."""
        model = kwargs.get("model")
        if model is not None:
            find_biotune_model(model).base_model.statistics.is_told = False

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take the rates of this step down; the scheduler has moved on when they are logged."""
        if self._optimizer is not None:
            self._rates = _rates(self._optimizer)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Add each block's current rate beside Trainer's own `learning_rate` (group 0 only)."""
        if logs is None or "learning_rate" not in logs or self._optimizer is None:
            return
        rates = self._rates or _rates(self._optimizer)
        logs.update(rates)
        # Trainer has copied `logs` into its history by now.
        if state.log_history and "learning_rate" in state.log_history[-1]:
            state.log_history[-1].update(rates)


def _steps(args: TrainingArguments, kwargs: Mapping[str, Any]) -> int:
    """Optimizer steps of an epoch; 0 if the data has no length."""
    loader: Any = kwargs.get("train_dataloader")
    batches = len(loader) if has_length(loader) else 0
    return math.ceil(batches / int(args.gradient_accumulation_steps))


def _samples(kwargs: Mapping[str, Any], batch: int) -> int:
    """Samples of an epoch in this process."""
    loader: Any = kwargs.get("train_dataloader")
    full = len(loader) * batch
    data: Any = getattr(loader, "dataset", None)
    # Several processes get batches of one size, whatever is left in the end.
    alone = getattr(loader, "total_batch_size", batch) == batch
    return min(len(data), full) if alone and has_length(data) else full


def _samples_until(step: int, args: TrainingArguments, kwargs: Mapping[str, Any]) -> int:
    """Samples that this process sees in so many steps from the beginning of an epoch."""
    batch = int(args.train_batch_size)
    steps = _steps(args, kwargs)
    epochs, rest = divmod(step, steps) if steps else (0, step)
    whole = epochs * _samples(kwargs, batch) if epochs else 0
    return whole + rest * int(args.gradient_accumulation_steps) * batch


def _rates(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    return {
        f"lr/{group['block']}": float(group["lr"])
        for group in optimizer.param_groups
        if "block" in group
    }


class _FirstInFront(list[TrainerCallback]):
    """Callbacks of which the first comes before Trainer's own, which it puts in front otherwise.

    The reporting ones (TensorBoard, Weights & Biases) are among these, and see only what is in the
    logs when their turn comes.
    """

    def __radd__(self, own: list[TrainerCallback]) -> list[TrainerCallback]:
        return [*self[:1], *own, *self[1:]]


def biotune_trainer_kwargs(
    model: nn.Module, callbacks: Sequence[TrainerCallback] = ()
) -> dict[str, Any]:
    """Keyword arguments that make `Trainer` use a learning rate per block.

    Args:
        model: a [`BioTuneModel`].
        callbacks: your own callbacks; `Trainer` takes one `callbacks` argument only.

    Returns:
        `optimizer_cls_and_kwargs` and `callbacks` for [`~transformers.Trainer`]. The optimizer
        honours `args.optim`, `args.learning_rate` and `args.weight_decay`, the multipliers hold
        under any scheduler.

    Raises:
        ConfigError: `model` is no `BioTuneModel`.

    Example:
        ```python
        trainer = Trainer(model, args, train_dataset=train, **biotune_trainer_kwargs(model))
        ```
    """
    find_biotune_model(model)
    arguments = ArgumentsHolder()
    return {
        "optimizer_cls_and_kwargs": (BioTuneOptimizerFactory, {"arguments": arguments}),
        "callbacks": _FirstInFront([BioTuneCallback(arguments), *callbacks]),
    }
