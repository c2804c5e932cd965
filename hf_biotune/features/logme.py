"""LogME: how well features explain labels, told without training anything.

Source: You, Liu, Wang and Long, LogME: Practical Assessment of Pre-trained Models for Transfer
Learning (arXiv 2102.11005).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..exceptions import DataError

_ITERATIONS = 100
_TOLERANCE = 1e-6
# Keeps a perfect fit, whose evidence is infinite, and features of 0 a number.
_FLOOR = 1e-10


@dataclass(frozen=True)
class Evidence:
    """The maximum of the marginal likelihood of one linear model.

    Args:
        log_evidence: of one sample, natural logarithm.
        alpha: precision of the prior of the weights.
        beta: precision of the noise.
    """

    log_evidence: float
    alpha: float
    beta: float


def logme(features: ArrayLike, labels: ArrayLike) -> float:
    """The logarithm of the maximum evidence of a sample's label, mean over classes.

    The greater, the better a linear head on these features is expected to do. Compare the same
    labels only.

    Args:
        features: shape (n, d).
        labels: class numbers, at least two different ones, shape (n,).

    Raises:
        DataError: there is one class only, lengths differ, or a feature is not a finite number.
    """
    values, classes = np.asarray(features, dtype=float), np.asarray(labels)
    if values.ndim != 2 or len(values) != len(classes):
        raise DataError(
            f"features must have shape (n, d) with one label each, got {values.shape} and "
            f"{len(classes)} labels"
        )
    occurring = np.unique(classes)
    if len(occurring) < 2:
        raise DataError(f"LogME needs at least two classes, got the labels {occurring.tolist()}")
    if not np.isfinite(values).all():
        raise DataError("LogME needs finite features, got some that are not; check the model")
    left, singular, _ = np.linalg.svd(values, full_matrices=False)
    targets = [(classes == label).astype(float) for label in occurring]
    of_classes = [maximum_evidence(left, singular, target, values.shape[1]) for target in targets]
    return float(np.mean([evidence.log_evidence for evidence in of_classes]))


def maximum_evidence(
    left: NDArray[np.float64],
    singular: NDArray[np.float64],
    target: NDArray[np.float64],
    n_features: int,
) -> Evidence:
    """MacKay's fixed point of the evidence of `target ~ N(F w, 1 / beta)`, `w ~ N(0, 1 / alpha)`.

    Args:
        left: the left singular vectors of F, shape (n, r).
        singular: its singular values, shape (r,).
        target: shape (n,).
        n_features: columns of F.

    Source: arXiv 2102.11005, algorithm 1 and equation 2.
    """
    n = len(target)
    spectrum = singular**2
    projected = left.T @ target
    outside = max(float(target @ target - projected @ projected), 0.0)
    alpha = beta = 1.0
    for _ in range(_ITERATIONS):
        shrink = beta * spectrum / (alpha + beta * spectrum)
        gamma = float(shrink.sum())
        weights = float(((beta * singular * projected / (alpha + beta * spectrum)) ** 2).sum())
        residual = outside + float((((1 - shrink) * projected) ** 2).sum())
        before = alpha / beta
        alpha = max(gamma, _FLOOR) / max(weights, _FLOOR)
        beta = max(n - gamma, _FLOOR) / max(residual, _FLOOR)
        if abs(alpha / beta - before) <= _TOLERANCE * before:
            break
    return Evidence(
        _log_evidence(spectrum, projected, outside, n, n_features, alpha, beta) / n, alpha, beta
    )


def _log_evidence(
    spectrum: NDArray[np.float64],
    projected: NDArray[np.float64],
    outside: float,
    n: int,
    n_features: int,
    alpha: float,
    beta: float,
) -> float:
    precision = alpha + beta * spectrum
    weights = float((beta**2 * spectrum * projected**2 / precision**2).sum())
    residual = outside + float(((alpha / precision * projected) ** 2).sum())
    log_determinant = float(np.log(precision).sum())
    log_determinant += (n_features - len(spectrum)) * math.log(alpha)
    return 0.5 * (
        n * math.log(beta)
        + n_features * math.log(alpha)
        - n * math.log(2 * math.pi)
        - beta * residual
        - alpha * weights
        - log_determinant
    )
