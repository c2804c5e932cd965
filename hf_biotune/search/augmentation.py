"""Random augmentation of whole batches of images, on any device, the same in every run.

What happens to a sample is a function of the training's seed, the epoch and the sample's place in
its data set, and of nothing else: not of the order of the samples, the size of a batch, the number
of data-loader workers, or what was drawn before. So the search loop and `Trainer` see the same
images, and a training that is repeated sees them again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..exceptions import DataError

# Of one sample: flip, two shifts, brightness, contrast, saturation.
_DRAWS = 6
# Keeps these numbers apart from those of the order of the samples, which (seed, epoch) give.
_STREAM = 1
# Of red, green and blue in what the eye takes for brightness (ITU-R BT.601, as torchvision).
_LUMA = (0.2989, 0.587, 0.114)


@dataclass(frozen=True)
class Augmentation:
    """What may happen to a training image; validation and test images stay as they are.

    Args:
        horizontal_flip: probability of a mirror image, in [0, 1]. 0 for digits and letters.
            Default: 0.5.
        shift: the image moves by up to this share of its edges, in [0, 1); what comes in repeats
            the border's pixels. Default: 0.125, 4 pixels of 32.
        color_jitter: brightness, contrast and saturation are each scaled by a factor from
            1 - `color_jitter` to 1 + `color_jitter`, in [0, 1]. Default: 0, colours stay.

    Raises:
        DataError: a value is out of its range; the message holds the value and the range.

    Example:
        >>> Augmentation(horizontal_flip=0, shift=0.1)
        Augmentation(horizontal_flip=0, shift=0.1, color_jitter=0.0)
    """

    horizontal_flip: float = 0.5
    shift: float = 0.125
    color_jitter: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.horizontal_flip <= 1:
            raise DataError(f"horizontal_flip must be in [0, 1], got {self.horizontal_flip}")
        if not 0 <= self.shift < 1:
            raise DataError(f"shift must be in [0, 1), got {self.shift}")
        if not 0 <= self.color_jitter <= 1:
            raise DataError(f"color_jitter must be in [0, 1], got {self.color_jitter}")

    @staticmethod
    def draw(n_samples: int, seed: int, epoch: int) -> torch.Tensor:
        """The random numbers of all samples in one epoch, uniform in [0, 1). Shape: (n, 6)."""
        generator = np.random.default_rng([seed, epoch, _STREAM])
        return torch.from_numpy(generator.random((n_samples, _DRAWS), dtype=np.float32))

    def apply(self, pixels: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
        """Augment a batch.

        Args:
            pixels: uint8, shape (b, 3, height, width), on any device.
            draws: of these samples; see [`~Augmentation.draw`]. Shape: (b, 6).

        Returns:
            Of the same shape, type and device.
        """
        draws = draws.to(pixels.device)
        if self.horizontal_flip or self.shift:
            pixels = self._moved(pixels, draws[:, 0], draws[:, 1], draws[:, 2])
        if self.color_jitter:
            pixels = self._recolored(pixels, 1 + self.color_jitter * (2 * draws[:, 3:] - 1))
        return pixels

    def _moved(
        self, pixels: torch.Tensor, flip: torch.Tensor, down: torch.Tensor, right: torch.Tensor
    ) -> torch.Tensor:
        height, width = pixels.shape[-2:]
        rows = self._places(height, down)
        columns = self._places(width, right)
        flipped = (flip < self.horizontal_flip).view(-1, 1)
        columns = torch.where(flipped, width - 1 - columns, columns)
        pixels = pixels.gather(2, rows.view(-1, 1, height, 1).expand(-1, 3, -1, width))
        return pixels.gather(3, columns.view(-1, 1, 1, width).expand(-1, 3, height, -1))

    def _places(self, edge: int, draws: torch.Tensor) -> torch.Tensor:
        """From where each row or column of an image comes. Shape: (b, edge)."""
        most = round(self.shift * edge)
        steps = (draws * (2 * most + 1)).long() - most
        return (torch.arange(edge, device=draws.device) - steps.view(-1, 1)).clamp_(0, edge - 1)

    @staticmethod
    def _recolored(pixels: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
        """Scale brightness, then contrast about the mean gray, then distance from gray."""
        brightness, contrast, saturation = factors.view(-1, 3, 1, 1, 1).unbind(1)
        luma = torch.tensor(_LUMA, device=pixels.device).view(1, 3, 1, 1)
        scaled = (pixels * brightness).clamp_(0, 255)
        mean = (scaled * luma).sum(1, keepdim=True).mean((2, 3), keepdim=True)
        scaled = torch.lerp(mean.expand_as(scaled), scaled, contrast).clamp_(0, 255)
        gray = (scaled * luma).sum(1, keepdim=True)
        scaled = torch.lerp(gray.expand_as(scaled), scaled, saturation)
        return scaled.round_().clamp_(0, 255).to(torch.uint8)
