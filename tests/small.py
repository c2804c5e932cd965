"""A small real network and a small real data set, for tests of every room."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from transformers import ResNetConfig, ResNetForImageClassification

from hf_biotune.search import EncodedSplit


def small_resnet() -> nn.Module:
    """A ResNet of 4 stages and 27 thousand parameters; blocks: stem, layer1..4, head."""
    config = ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 16, 16, 32],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        num_labels=10,
    )
    return ResNetForImageClassification(config)


def digits_split(per_class: int, first: int) -> EncodedSplit:
    """Handwritten digits at 16 x 16 pixels: `per_class` of each, from the `first` one on."""
    digits = load_digits()
    rows = np.concatenate(
        [np.flatnonzero(digits.target == c)[first : first + per_class] for c in range(10)]
    )
    small = torch.from_numpy(digits.images[rows] * (255 / 16)).to(torch.uint8)
    pixels = small.repeat_interleave(2, 1).repeat_interleave(2, 2).unsqueeze(1)
    return EncodedSplit(
        {"pixel_values": pixels.expand(-1, 3, -1, -1).contiguous()},
        torch.from_numpy(digits.target[rows]).long(),
        tuple(map(str, range(10))),
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    )
