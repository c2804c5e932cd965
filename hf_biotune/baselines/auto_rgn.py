"""AutoRGN: each tensor learns as fast as its gradient is large for its size."""

from __future__ import annotations

import math
from typing import Any

import torch
from peft import PeftModel
from torch.optim import Optimizer
from transformers import TrainingArguments

from ..classification import loss_of
from ..search.gradients import first_batches
from ..search.training import BlockTraining, Live, block_optimizer
from .method import TrainedMethod
from .problem import Problem
from .setting import Setting


class AutoRgnTraining(BlockTraining):
    """Trains everything; the rate of each tensor is scaled anew at the beginning of each epoch.

    The scale is the relative gradient norm, the mean over five batches, divided by the largest. It
    holds for the steps of the epoch on top of the schedule's rate.

    Args:
        problem: the blocks.
        setting: rate and statistics.
    """

    def __init__(self, problem: Problem, setting: Setting) -> None:
        multipliers = dict.fromkeys(problem.partition.names, setting.rate)
        super().__init__(problem.config(multipliers, norm_statistics=setting.norm_statistics))

    def optimizer(self, model: PeftModel, args: TrainingArguments) -> Optimizer:
        """With a group for each tensor, whose rate is scaled for the time of a step."""
        optimizer = block_optimizer(model, args)
        optimizer.param_groups[:] = [
            {**group, "params": [parameter], "scale": 1.0}
            for group in optimizer.param_groups
            for parameter in group["params"]
        ]
        optimizer.register_step_pre_hook(_scale)
        optimizer.register_step_post_hook(_scale_back)
        return optimizer

    def on_epoch_begin(self, live: Live) -> None:
        """Measure, and set the scales."""
        ratios = relative_gradient_norms(live)
        for group, scale in zip(live.optimizer.param_groups, scales_of(ratios), strict=True):
            group["scale"] = scale


def _scale(optimizer: Optimizer, *_: Any) -> None:
    for group in optimizer.param_groups:
        group["of_schedule"] = group["lr"]
        group["lr"] = group["lr"] * group["scale"]


def _scale_back(optimizer: Optimizer, *_: Any) -> None:
    for group in optimizer.param_groups:
        group["lr"] = group.pop("of_schedule")


def relative_gradient_norms(live: Live) -> list[float]:
    """The norm of each tensor's gradient divided by that of the tensor, the mean over batches.

    Of the first five whole batches of the epoch, in train mode, without a step: weights and
    statistics are as before.

    Returns:
        In the order of the optimizer's groups; infinite for a tensor of zeros.
    """
    tensors = [group["params"][0] for group in live.optimizer.param_groups]
    sizes = [float(tensor.detach().norm()) for tensor in tensors]
    buffers = {name: buffer.clone() for name, buffer in live.model.named_buffers()}
    totals = [0.0] * len(tensors)
    batches = first_batches(len(live.samples), live.seed, live.epoch, live.batch_size)
    for positions in batches:
        live.optimizer.zero_grad()
        with live.execution.training_context(live.args.device):
            logits = live.forward(live.samples, positions)
        labels = live.samples.labels[positions].to(logits.device)
        loss = loss_of(logits, labels, live.args.label_smoothing_factor)
        loss.backward()  # type: ignore[no-untyped-call]
        for number, (tensor, size) in enumerate(zip(tensors, sizes, strict=True)):
            norm = 0.0 if tensor.grad is None else float(tensor.grad.norm())
            totals[number] += norm / size if size else math.inf if norm else 0.0
    live.optimizer.zero_grad()
    with torch.no_grad():
        for name, buffer in live.model.named_buffers():
            buffer.copy_(buffers[name])
    return [total / len(batches) for total in totals]


def scales_of(ratios: list[float]) -> list[float]:
    """Ratios divided by the largest; tensors of zeros, whose ratio is infinite, get 1.

    Example:
        >>> scales_of([0.1, 0.4, math.inf, 0.0])
        [0.25, 1.0, 1.0, 0.0]
    """
    largest = max((ratio for ratio in ratios if math.isfinite(ratio)), default=0.0)
    if not largest:
        return [1.0] * len(ratios)
    return [min(1.0, ratio / largest) for ratio in ratios]


class AutoRgn(TrainedMethod):
    """Trains everything, each tensor at its own rate."""

    name = "auto-rgn"
    title = "AutoRGN"
    source = "Lee et al., Surgical Fine-Tuning (arXiv 2210.11466)"

    def training(self, problem: Problem, setting: Setting) -> AutoRgnTraining:
        """Everything at the setting's rate, scaled."""
        return AutoRgnTraining(problem, setting)
