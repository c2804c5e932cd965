"""Scores: one number from predictions, by name or by any `evaluate.Metric` object."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.metrics import accuracy_score, f1_score, recall_score
from torch.nn.functional import cross_entropy

from ..exceptions import ConfigError


@dataclass(frozen=True)
class Metric:
    """A named score of logits against labels.

    Args:
        name: such as `macro_accuracy`.
        greater_is_better: whether the score is maximised.
        compute: `(logits (n, classes), labels (n,)) -> score`.
        lowest: the lowest score there is, if it is maximised. Default: minus infinity.
    """

    name: str
    greater_is_better: bool
    compute: Callable[[torch.Tensor, torch.Tensor], float]
    lowest: float = -math.inf

    def is_better(self, score: float, other: float) -> bool:
        """Whether `score` beats `other`; a tie does not, and any number beats NaN."""
        if math.isnan(other):
            return not math.isnan(score)
        return score > other if self.greater_is_better else score < other

    @property
    def worst(self) -> float:
        """What a run that diverged gets: the lowest score, or infinity for losses."""
        return self.lowest if self.greater_is_better else math.inf


def _predicted(logits: torch.Tensor, labels: torch.Tensor) -> tuple[Any, Any]:
    return labels.numpy(), logits.argmax(-1).numpy()


def _macro_accuracy(logits: torch.Tensor, labels: torch.Tensor) -> float:
    # Over the classes that occur: a class without a sample has no accuracy.
    truth, predicted = _predicted(logits, labels)
    return float(recall_score(truth, predicted, labels=np.unique(truth), average="macro"))


def _accuracy(logits: torch.Tensor, labels: torch.Tensor) -> float:
    return float(accuracy_score(*_predicted(logits, labels)))


def _f1(logits: torch.Tensor, labels: torch.Tensor) -> float:
    truth, predicted = _predicted(logits, labels)
    return float(
        f1_score(truth, predicted, labels=np.unique(truth), average="macro", zero_division=0.0)
    )


def _loss(logits: torch.Tensor, labels: torch.Tensor) -> float:
    return float(cross_entropy(logits.float(), labels))


METRICS = {
    metric.name: metric
    for metric in (
        Metric("macro_accuracy", True, _macro_accuracy, lowest=0.0),
        Metric("accuracy", True, _accuracy, lowest=0.0),
        Metric("f1", True, _f1, lowest=0.0),
        Metric("loss", False, _loss),
    )
}


def resolve_metric(metric: Any, greater_is_better: bool | None = None) -> Metric:
    """The [`Metric`] that a user means.

    Args:
        metric: `"macro_accuracy"` (mean recall of the classes that occur), `"accuracy"`, `"f1"`
            (macro), `"loss"` (cross-entropy), or an object with `compute(predictions=...,
            references=...)` that returns a dict with one number, such as an `evaluate.Metric`.
        greater_is_better: for such an object; default `True`.

    Raises:
        ConfigError: an unknown name, or an object without `compute`.
    """
    if isinstance(metric, Metric):
        return metric
    if isinstance(metric, str):
        if metric not in METRICS:
            raise ConfigError(
                f"metric must be one of {', '.join(METRICS)} or an evaluate.Metric, got {metric!r}"
            )
        return METRICS[metric]
    if not callable(getattr(metric, "compute", None)):
        raise ConfigError(
            f"metric must be one of {', '.join(METRICS)} or an object with "
            f"compute(predictions=..., references=...), got {type(metric).__name__}"
        )
    name = getattr(metric, "name", None) or type(metric).__name__
    is_greater = True if greater_is_better is None else greater_is_better
    return Metric(name, is_greater, _Computed(name, metric))


@dataclass(frozen=True)
class _Computed:
    """The number that an object with `compute` gives; unlike a closure, processes can send it."""

    name: str
    metric: Any

    def __call__(self, logits: torch.Tensor, labels: torch.Tensor) -> float:
        truth, predicted = _predicted(logits, labels)
        values = self.metric.compute(predictions=predicted, references=truth)
        if not isinstance(values, dict) or len(values) != 1:
            raise ConfigError(
                f"metric {self.name!r} must return a dict with one number, got {values!r}"
            )
        return float(next(iter(values.values())))
