"""Classification: how inputs go through any model, and what the loss is.

One place for what `Trainer`, the search loop, the final evaluation and ensembles must agree on.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from .exceptions import ConfigError


def takes_names(model: nn.Module) -> bool:
    """Whether a model takes its inputs and labels by name, as transformers models do.

    timm and torchvision models take one positional tensor and know no labels.
    """
    parameters = inspect.signature(model.forward).parameters
    return "labels" in parameters or "pixel_values" in parameters or "input_ids" in parameters


def takes_keywords(model: nn.Module, names: Iterable[str]) -> bool:
    """Whether a model's `forward` knows all of these keyword arguments."""
    parameters = inspect.signature(model.forward).parameters
    return set(names) <= set(parameters)


def logits_of(model: nn.Module, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """The model's logits for a batch of inputs.

    Args:
        model: a base model, or a `BioTuneModel` (also inside of DDP).
        inputs: by name, without labels. A model that takes no names gets the values in order.

    Returns:
        Shape: (batch, classes).
    """
    inner: Any = getattr(model, "module", model)
    base = inner.get_base_model() if hasattr(inner, "get_base_model") else inner
    output: Any = model(**inputs) if takes_names(base) else model(*inputs.values())
    return _logits(output)


def labelled_output(
    model: nn.Module,
    args: Sequence[torch.Tensor],
    inputs: Mapping[str, torch.Tensor],
    labels: torch.Tensor,
    label_smoothing: float = 0.0,
) -> dict[str, torch.Tensor]:
    """What `Trainer` wants of a model that takes neither names nor labels.

    Args:
        model: gives logits.
        args: its inputs, as far as they are given without a name.
        inputs: the others.
        labels: numbers of classes, shape (batch,), or their probabilities, shape (batch, classes).
        label_smoothing: in [0, 1).

    Returns:
        `{"loss": scalar, "logits": (batch, classes)}`.

    Raises:
        ConfigError: the labels are neither, or the model gives no logits.
    """
    logits = _logits(model(*args, *inputs.values()))
    _check_classes(model, logits, labels)
    return {"loss": loss_of(logits, labels, label_smoothing), "logits": logits}


def _check_classes(model: nn.Module, logits: Any, labels: torch.Tensor) -> None:
    """Cross-entropy of anything but classes would be a number that means nothing."""
    name = type(model).__name__
    remedy = (
        "give Trainer a compute_loss_func, or leave the labels out and compute the loss yourself"
    )
    if not torch.is_tensor(logits):
        raise ConfigError(f"{name} gives {type(logits).__name__} and no logits; {remedy}")
    if not labels.is_floating_point():
        return
    if labels.shape != logits.shape or logits.shape[-1] < 2:
        raise ConfigError(
            f"labels of {name} must be numbers of classes, or probabilities of them, got "
            f"{labels.dtype} of shape {tuple(labels.shape)}; {remedy}"
        )
    if not torch.allclose(labels.sum(-1), torch.ones_like(labels.sum(-1)), atol=1e-3):
        raise ConfigError(
            f"probabilities of classes must add up to 1, but labels of {name} do not (are these "
            f"several classes a sample?); {remedy}"
        )


def loss_of(
    logits: torch.Tensor, labels: torch.Tensor, label_smoothing: float = 0.0
) -> torch.Tensor:
    """Mean cross-entropy, in single precision whatever the model computes in."""
    return cross_entropy(logits.float(), labels, label_smoothing=label_smoothing)


def mean_log_probabilities(logits: torch.Tensor) -> torch.Tensor:
    """The logarithm of the mean probabilities of several classifiers, in single precision.

    Args:
        logits: of each; shape: (classifiers, batch, classes).

    Returns:
        Shape: (batch, classes).

    Example:
        >>> one, other = torch.tensor([[0.9, 0.1]]).log(), torch.tensor([[0.5, 0.5]]).log()
        >>> mean_log_probabilities(torch.stack([one, other])).exp()
        tensor([[0.7000, 0.3000]])
    """
    return logits.float().log_softmax(-1).logsumexp(0) - math.log(len(logits))


def _logits(output: Any) -> torch.Tensor:
    """Transformers outputs and torchvision's Inception name their logits; others are logits."""
    logits: torch.Tensor = getattr(output, "logits", output)
    return logits
