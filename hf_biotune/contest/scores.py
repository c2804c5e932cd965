"""The five scores of a final model, all by scikit-learn."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
import torch
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    cohen_kappa_score,
    f1_score,
    recall_score,
)


@dataclass(frozen=True)
class Scores:
    """How well predictions fit labels; means over classes are over those that occur.

    Args:
        macro_accuracy: mean recall of the classes.
        accuracy: share of samples that are right.
        f1: mean F1 of the classes.
        kappa: Cohen's kappa, agreement beyond chance; at most 1.
        average_precision: mean over classes of the area under one class's precision-recall curve
            against the rest.
    """

    macro_accuracy: float
    accuracy: float
    f1: float
    kappa: float
    average_precision: float


SCORE_NAMES = tuple(field.name for field in fields(Scores))


def scores_of(logits: torch.Tensor, labels: torch.Tensor) -> Scores:
    """The scores of a model's predictions.

    Args:
        logits: any scores whose largest is the prediction, shape (n, classes). If one is not a
            number, as after a training that diverged, every score is its worst.
        labels: shape (n,).

    Example:
        >>> logits = torch.tensor([[2.0, 1.0], [0.0, 1.0], [3.0, 0.0], [0.0, 2.0]])
        >>> scores_of(logits, torch.tensor([0, 0, 0, 1])).accuracy
        0.75
    """
    truth = labels.numpy()
    if not bool(torch.isfinite(logits).all()):
        return Scores(0.0, 0.0, 0.0, 0.0, 0.0)
    predicted = logits.argmax(-1).numpy()
    occurring = np.unique(truth)
    probabilities = torch.softmax(logits.double(), -1).numpy()
    kappa = float(cohen_kappa_score(truth, predicted)) if len(occurring) > 1 else math.nan
    return Scores(
        macro_accuracy=float(
            recall_score(truth, predicted, labels=occurring, average="macro", zero_division=0.0)
        ),
        accuracy=float(accuracy_score(truth, predicted)),
        f1=float(f1_score(truth, predicted, labels=occurring, average="macro", zero_division=0.0)),
        kappa=kappa,
        average_precision=float(
            np.mean(
                [
                    average_precision_score(truth == label, probabilities[:, label])
                    for label in occurring
                ]
            )
        ),
    )
