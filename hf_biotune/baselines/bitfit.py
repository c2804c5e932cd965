"""BitFit: the biases and the head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from ..blocks import Partition
from .chosen_parameters import ChosenParameters, parameters_outside_of_head


class BitFit(ChosenParameters):
    """Trains every bias, those of norm layers included, and the head."""

    name = "bitfit"
    title = "BitFit"
    source = "Ben Zaken et al., BitFit (arXiv 2106.10199)"
    chosen = "biases"

    def parameters(
        self, model: nn.Module, partition: Partition, options: Mapping[str, Any]
    ) -> Sequence[str]:
        """All that are called `bias`, or end so as `in_proj_bias` does."""
        return [
            name for name in parameters_outside_of_head(model, partition) if name.endswith("bias")
        ]
