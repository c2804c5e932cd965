"""Spectrum: the weight matrices with the most signal for their noise."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from ..blocks import Partition
from .chosen_parameters import ChosenParameters, parameters_outside_of_head
from .method import RATES
from .problem import Problem

SHARES = (0.25, 0.5)
# Between the quartiles of a normal distribution, in standard deviations.
NORMAL_IQR = 1.349


class Spectrum(ChosenParameters):
    """Trains the matrices whose singular values stand out most from noise, and the head.

    Of matrices of one kind (those whose names differ in numbers only), a quarter or half with the
    highest signal-to-noise ratio is chosen; the better share by validation is taken.
    """

    name = "spectrum"
    title = "Spectrum"
    source = "Hartford et al., Spectrum: Targeted Training on Signal to Noise Ratio "
    source += "(arXiv 2406.06623)"
    chosen = "matrices"
    rates = RATES

    def options(self, problem: Problem) -> Sequence[Mapping[str, Any]]:
        """The shares."""
        return [{"share": share} for share in SHARES]

    @property
    def smallest_options(self) -> Mapping[str, Any]:
        """A quarter."""
        return {"share": SHARES[0]}

    def why_not(self, model: nn.Module, partition: Partition) -> str | None:
        """There is no matrix."""
        # Without values on the meta device.
        if not _kinds(model, partition):
            return f"the model has no {self.chosen} beside its head"
        return None

    def chosen_of(self, problem: Problem, options: Mapping[str, Any]) -> Sequence[str]:
        """By the pre-trained weights, not by those of whatever was trained last."""
        model = problem.pool.restore(problem.tuning_seed)
        return self.parameters(model, problem.partition, options)

    def parameters(
        self, model: nn.Module, partition: Partition, options: Mapping[str, Any]
    ) -> Sequence[str]:
        """The top share of each kind, at least one matrix."""
        weights = dict(model.named_parameters())
        chosen: set[str] = set()
        for names in _kinds(model, partition).values():
            ratios = {name: signal_to_noise(weights[name]) for name in names}
            best = sorted(names, key=lambda name: ratios[name], reverse=True)
            chosen.update(best[: max(1, round(options["share"] * len(names)))])
        return [name for name in weights if name in chosen]


def _kinds(model: nn.Module, partition: Partition) -> dict[str, list[str]]:
    """The weights of linear layers and convolutions outside of the head, by kind."""
    kinds = defaultdict(list)
    outside = set(parameters_outside_of_head(model, partition))
    for module_name, module in model.named_modules():
        name = f"{module_name}.weight"
        weight = getattr(module, "weight", None)
        is_matrix = isinstance(weight, nn.Parameter) and weight.ndim > 1
        if is_matrix and name in outside and not isinstance(module, nn.Embedding):
            kinds[re.sub(r"\d+", "#", name)].append(name)
    return kinds


@torch.no_grad()
def signal_to_noise(weight: torch.Tensor) -> float:
    """The sum of the singular values that noise can't explain, divided by that of the others.

    Noise with a standard deviation that the interquartile range tells has no singular value beyond
    the threshold of Marchenko and Pastur. The ratio is divided by the largest singular value, as
    in the source, to compare matrices of different scale.

    Args:
        weight: of a linear layer or convolution; further dimensions belong to the second.

    Returns:
        Infinite if there is no noise at all, 0 for a matrix of zeros.
    """
    values = torch.linalg.svdvals(weight.flatten(1).double()).cpu().numpy()
    if not values[0]:
        return 0.0
    limit = noise_limit(values, weight.flatten(1).shape)
    signal, noise = float(values[values > limit].sum()), float(values[values <= limit].sum())
    return signal / noise / float(values[0]) if noise else math.inf


def noise_limit(values: np.ndarray, shape: Sequence[int]) -> float:
    """The largest singular value that noise explains: `sigma (1 + sqrt(n / m))` for n <= m."""
    upper, lower = np.quantile(values, [0.75, 0.25])
    sigma = float(upper - lower) / NORMAL_IQR
    return sigma * (1.0 + math.sqrt(min(shape) / max(shape)))
