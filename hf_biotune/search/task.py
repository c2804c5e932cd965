"""Predictions of a model on a whole split."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from .data import SplitView
from .forward import Forward


@torch.no_grad()
def predict(
    forward: Forward, samples: SplitView, batch_size: int, positions: torch.Tensor | None = None
) -> torch.Tensor:
    """The model's logits for samples, in eval mode; the mode is restored.

    Args:
        forward: of the model.
        samples: what to predict.
        batch_size: samples at a time.
        positions: which samples, shape (samples,). Default: all.

    Returns:
        On the CPU, single precision. Shape: (samples, classes).
    """
    if positions is None:
        positions = torch.arange(len(samples))
    with evaluating(forward.model):
        logits = [
            forward(samples, batch).float().cpu() for batch in torch.split(positions, batch_size)
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
