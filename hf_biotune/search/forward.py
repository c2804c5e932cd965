"""How samples go through a model: the one call that training and scoring share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ..classification import logits_of
from .data import SplitView


class Forward:
    """Takes every batch through the whole model.

    [`CachedForward`] leaves out the frozen first blocks, whose outputs are constants of the data.

    Args:
        model: see [`logits_of`].
        device: where the model is.
    """

    def __init__(self, model: nn.Module, device: torch.device | str) -> None:
        self.model = model
        self.device = device

    def prepare(self, samples: SplitView, batches: Sequence[torch.Tensor]) -> None:
        """Called once before samples are used, with the batches that they will come in."""

    def __call__(self, samples: SplitView, positions: torch.Tensor) -> torch.Tensor:
        """The logits of a batch, in whatever mode the model is.

        Args:
            samples: of one split.
            positions: which of them, shape (b,).

        Returns:
            On the model's device. Shape: (b, classes).
        """
        inputs = samples.batch(positions, self.device)
        del inputs["labels"]
        return logits_of(self.model, inputs)
