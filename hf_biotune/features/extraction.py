"""Features: what reaches a model's head, for every sample, whatever the architecture."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..blocks import Partition, partition
from ..exceptions import PartitionError
from ..search.data import EncodedSplit
from ..search.forward import Forward
from ..search.task import batches_in_order, evaluating

# In the layout of transformers, tokens that only fill up a text are marked here.
_MASK = "attention_mask"


@torch.no_grad()
def head_inputs(
    model: nn.Module,
    split: EncodedSplit,
    blocks: Partition | None = None,
    *,
    batch_size: int = 128,
) -> NDArray[np.float64]:
    """The input of the head block for every sample, in eval mode.

    It is the input of the first module of that block that runs. Maps are averaged over their
    pixels, and sequences over their tokens without the padding.

    Args:
        model: on the device to compute on.
        split: the samples.
        blocks: of the model; its last block is the head. Default: [`partition`] finds them.
        batch_size: samples at a time.

    Returns:
        Shape: (samples, features).

    Raises:
        PartitionError: no module of the last block runs when the model classifies.
    """
    blocks = partition(model) if blocks is None else blocks
    head = blocks[len(blocks) - 1]
    modules = dict(model.named_modules())
    caught: list[torch.Tensor] = []

    def catch(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not caught:
            caught.append(_pooled(module, next(iter((*args, *kwargs.values()))), mask))

    hooks = [
        modules[name].register_forward_pre_hook(catch, with_kwargs=True) for name in head.modules
    ]
    device = next(model.parameters()).device
    forward, samples = Forward(model, device), split.view()
    features = []
    try:
        with evaluating(model):
            for positions in batches_in_order(len(samples), batch_size):
                mask = split.inputs[_MASK][positions] if _MASK in split.inputs else None
                forward(samples, positions)
                if not caught:
                    raise PartitionError(
                        f"no module of the block {head.name!r} runs when the model classifies, so "
                        f"it has no input; give blocks whose last one does"
                    )
                features.append(caught.pop().double().cpu().numpy())
    finally:
        for hook in hooks:
            hook.remove()
    return np.concatenate(features)


def _pooled(module: nn.Module, value: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """One vector a sample."""
    if value.ndim == 3:
        if mask is None or mask.shape[1] != value.shape[1]:
            return value.mean(1)
        weights = mask.to(value)[:, :, None]
        # A text without tokens has no mean.
        return (value * weights).sum(1) / weights.sum(1).clamp_min(1)
    if value.ndim == 4:
        return value.mean((1, 2) if _has_channels_last(module, value) else (2, 3))
    return value.reshape(len(value), -1)


def _has_channels_last(module: nn.Module, value: torch.Tensor) -> bool:
    """Whether a module takes maps with channels last, as Swin has them; most have them second."""
    # timm's heads say it; a norm of layers knows nothing else.
    if isinstance(module, nn.LayerNorm) or getattr(module, "input_fmt", "") == "NHWC":
        return True
    widths = [layer.in_features for layer in module.modules() if isinstance(layer, nn.Linear)]
    return bool(widths) and value.shape[1] != widths[0] == value.shape[-1]
