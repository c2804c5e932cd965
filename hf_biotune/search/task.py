"""Predictions of a model on a whole split."""

from __future__ import annotations

import torch
from torch import nn

from ..classification import logits_of
from .data import EncodedSplit


@torch.no_grad()
def predict(
    model: nn.Module, data: EncodedSplit, batch_size: int, device: torch.device | str
) -> torch.Tensor:
    """The model's logits for every sample, in eval mode; the mode is restored.

    Args:
        model: see [`logits_of`].
        data: the samples.
        batch_size: samples at a time.
        device: where the model is.

    Returns:
        On the CPU, single precision. Shape: (samples, classes).
    """
    was_training = model.training
    model.eval()
    logits = []
    for indices in torch.split(torch.arange(len(data)), batch_size):
        batch = data.batch(indices, device=device)
        del batch["labels"]
        logits.append(logits_of(model, batch).float().cpu())
    model.train(was_training)
    return torch.cat(logits)
