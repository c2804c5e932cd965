"""Predictions of a model on a whole split."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from .data import SplitView
from .forward import Forward


@torch.no_grad()
def predict(forward: Forward, samples: SplitView, batch_size: int) -> torch.Tensor:
    """The model's logits for every sample, in eval mode; the mode is restored.

    Args:
        forward: of the model.
        samples: what to predict.
        batch_size: samples at a time.

    Returns:
        On the CPU, single precision. Shape: (samples, classes).
    """
    with evaluating(forward.model):
        logits = [
            forward(samples, positions).float().cpu()
            for positions in batches_in_order(len(samples), batch_size)
        ]
    return torch.cat(logits)


def batches_in_order(n_samples: int, batch_size: int) -> tuple[torch.Tensor, ...]:
    """The positions of all samples in their order, `batch_size` at a time."""
    return torch.split(torch.arange(n_samples), batch_size)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode inside; then every module is in the mode that it was in.

    `model.eval()` and `model.train()` visit each module several times, and the wrapper then looks
    up each one's block: half of what is left of a training whose prefix is cached.
    """
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True
