"""Top-Tuning: frozen features and a fast kernel classifier on top, no gradient anywhere.

Source: Alfano, Pastore, Rosasco and Odone, Top-Tuning: a study on transfer learning for an
efficient alternative to fine tuning for image classification with fast kernel methods (arXiv
2209.07932). There the Gaussian kernel ridge classifier is Falkon; here it is scikit-learn's
Nystroem approximation with ridge regression, which solves the same problem.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import Ridge
from sklearn.metrics import pairwise_distances
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

# The kernel's width, in units of the median distance of two samples.
WIDTHS = (0.5, 1.0, 2.0)
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
MAXIMUM_CENTRES = 1000

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class KernelClassifier:
    """A fitted classifier of features.

    Args:
        width: of the Gaussian kernel, in units of the median distance.
        penalty: of the ridge regression.
        score: on the validation samples.
        trainings: how many settings were tried.
        n_parameters: centres and coefficients that it keeps.
        pipeline: scikit-learn's.
    """

    width: float
    penalty: float
    score: float
    trainings: int
    n_parameters: int
    pipeline: Pipeline = field(repr=False)

    def decision(self, features: ArrayLike) -> FloatArray:
        """A score of each class, the largest is the prediction. Shape: (n, classes)."""
        return np.asarray(self.pipeline.predict(np.asarray(features, dtype=float)))


def top_tune(
    features: ArrayLike,
    labels: ArrayLike,
    validation_features: ArrayLike,
    n_classes: int,
    score: Callable[[FloatArray], float],
    seed: int = 0,
) -> KernelClassifier:
    """Fit a kernel classifier; width and penalty are the best of a grid on validation samples.

    Args:
        features: of the training samples, shape (n, d).
        labels: class numbers, shape (n,).
        validation_features: shape (m, d).
        n_classes: how many there are; one column of the decision each.
        score: of the decision on the validation samples; greater is better.
        seed: of the centres, if there are more than `MAXIMUM_CENTRES` training samples.
    """
    train, validation = np.asarray(features, float), np.asarray(validation_features, float)
    targets = one_hot(labels, n_classes)
    n_centres = min(MAXIMUM_CENTRES, len(train))
    scaled = StandardScaler().fit_transform(train)
    unit = _median_distance(scaled[np.random.default_rng(seed).permutation(len(train))[:500]])
    best: KernelClassifier | None = None
    for width in WIDTHS:
        gamma = 1 / (2 * (width * unit) ** 2)
        for penalty in PENALTIES:
            pipeline = make_pipeline(
                StandardScaler(),
                Nystroem(gamma=gamma, n_components=n_centres, random_state=seed),
                Ridge(alpha=penalty),
            ).fit(train, targets)
            found = score(np.asarray(pipeline.predict(validation)))
            if best is None or found > best.score:
                size = n_centres * (train.shape[1] + n_classes) + n_classes
                n_tried = len(WIDTHS) * len(PENALTIES)
                best = KernelClassifier(width, penalty, found, n_tried, size, pipeline)
    assert best is not None
    return best


def one_hot(labels: ArrayLike, n_classes: int) -> FloatArray:
    """1 for the class of a sample and -1 for the others. Shape: (n, classes)."""
    numbers = np.asarray(labels)
    targets = np.full((len(numbers), n_classes), -1.0)
    targets[np.arange(len(numbers)), numbers] = 1.0
    return targets


def _median_distance(features: FloatArray) -> float:
    distances = pairwise_distances(features)
    between = distances[np.triu_indices(len(features), 1)]
    return float(np.median(between)) or 1.0
