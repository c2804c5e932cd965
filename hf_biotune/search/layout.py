"""The memory layout in which a training step is fastest, by measurement and not by belief."""

from __future__ import annotations

import time

import torch
from torch import nn

from ..classification import logits_of, loss_of
from .data import EncodedSplit

LAYOUTS = {
    "contiguous": torch.contiguous_format,
    "channels_last": torch.channels_last,
}
_WARM_UP, _MEASURED = 2, 3


def has_convolutions(model: nn.Module) -> bool:
    """Whether the layout of 4-dimensional weights can matter at all."""
    return any(isinstance(module, nn.Conv2d) for module in model.modules())


def fastest_layout(
    model: nn.Module, train: EncodedSplit, batch_size: int, device: torch.device
) -> str:
    """Time some training steps in each layout; the model's weights and statistics stay as they are.

    Args:
        model: on `device`; left in the layout that it has.
        train: samples to take a batch from.
        batch_size: of a training step.
        device: where to measure.

    Returns:
        `"contiguous"` or `"channels_last"`.
    """
    if not has_convolutions(model):
        return "contiguous"
    indices = torch.arange(min(batch_size, len(train)))
    batch = train.batch(indices, device=device)
    labels = batch.pop("labels")
    was_training = model.training
    # In eval mode no running statistics move and no random numbers are drawn.
    model.eval()
    seconds = {}
    for name, layout in LAYOUTS.items():
        model.to(memory_format=layout)
        seconds[name] = _seconds_per_step(model, batch, labels, device)
    model.to(memory_format=torch.contiguous_format)
    model.zero_grad(set_to_none=True)
    model.train(was_training)
    return min(seconds, key=lambda name: seconds[name])


def _seconds_per_step(
    model: nn.Module, batch: dict[str, torch.Tensor], labels: torch.Tensor, device: torch.device
) -> float:
    """The quickest of some steps: other processes can only make a step slower."""
    best = float("inf")
    for step in range(_WARM_UP + _MEASURED):
        started = time.perf_counter()
        loss_of(logits_of(model, batch), labels).backward()  # type: ignore[no-untyped-call]
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if step >= _WARM_UP:
            best = min(best, time.perf_counter() - started)
    return best
