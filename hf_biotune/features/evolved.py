"""Evolutionary selection of the features that a head sees, with BioTune's own operators.

Source: Poyatos, Molina, Martinez, Del Ser and Herrera, EvoPruneDeepTL: An evolutionary pruning
model for transfer learning based deep neural networks (arXiv 2202.03844). There a genetic algorithm
prunes the neurons before the last layer, which is trained by gradient descent for each fitness;
here the last layer is a ridge classifier, which is solved exactly and in milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from ..evolution.operators import adopt, crossover, extinction, is_valid, mutate, select
from .kernel import FloatArray, one_hot

POPULATION = 20
GENERATIONS = 25
ELITES = 4
PENALTIES = (1.0, 10.0, 100.0, 1000.0)

Mask = NDArray[np.bool_]
Score = Callable[[FloatArray], float]


@dataclass(frozen=True)
class FeatureSelection:
    """The best mask that was found, and the head on it.

    Args:
        mask: which features the head sees, shape (d,).
        score: on the validation samples.
        trainings: how many heads were fitted.
        n_parameters: of the head.
        scaler: of the features.
        head: scikit-learn's ridge regression on the features of the mask.
    """

    mask: Mask
    score: float
    trainings: int
    n_parameters: int
    scaler: StandardScaler = field(repr=False)
    head: Ridge = field(repr=False)

    @property
    def n_features(self) -> int:
        """How many features the head sees."""
        return int(self.mask.sum())

    def decision(self, features: ArrayLike) -> FloatArray:
        """A score of each class, the largest is the prediction. Shape: (n, classes)."""
        scaled = self.scaler.transform(np.asarray(features, dtype=float))
        return np.asarray(self.head.predict(scaled[:, self.mask]))


class _Heads:
    """Fits heads on masks, the same mask once."""

    def __init__(
        self, train: FloatArray, targets: FloatArray, validation: FloatArray, score: Score
    ) -> None:
        self._train, self._targets = train, targets
        self._validation, self._score = validation, score
        self._seen: dict[bytes, float] = {}
        everything = np.ones(train.shape[1], dtype=bool)
        self.trainings = 0
        self.penalty = max(PENALTIES, key=lambda penalty: self._fit(everything, penalty)[0])

    def score_of(self, mask: Mask) -> float:
        key = mask.tobytes()
        if key not in self._seen:
            self._seen[key] = self._fit(mask, self.penalty)[0]
        return self._seen[key]

    def head_of(self, mask: Mask) -> Ridge:
        return self._fit(mask, self.penalty)[1]

    def _fit(self, mask: Mask, penalty: float) -> tuple[float, Ridge]:
        self.trainings += 1
        head = Ridge(alpha=penalty).fit(self._train[:, mask], self._targets)
        return self._score(np.asarray(head.predict(self._validation[:, mask]))), head


def select_features(
    features: ArrayLike,
    labels: ArrayLike,
    validation_features: ArrayLike,
    n_classes: int,
    score: Score,
    seed: int = 0,
    *,
    population: int = POPULATION,
    generations: int = GENERATIONS,
) -> FeatureSelection:
    """Evolve which features the head sees, by its score on validation samples.

    Genes are an importance per feature and a threshold, as of blocks: a feature is seen if its
    importance exceeds the threshold. The first individual sees all features, so that the result is
    never worse, on validation, than a head without selection.

    Args:
        features: of the training samples, shape (n, d).
        labels: class numbers, shape (n,).
        validation_features: shape (m, d).
        n_classes: how many there are.
        score: of a decision on the validation samples; greater is better.
        seed: of the evolution.
        population: individuals of a generation, at least 5. Default: 20.
        generations: after the first. Default: 25.
    """
    scaler = StandardScaler().fit(np.asarray(features, float))
    heads = _Heads(
        scaler.transform(np.asarray(features, float)),
        one_hot(labels, n_classes),
        scaler.transform(np.asarray(validation_features, float)),
        score,
    )
    generator = np.random.default_rng(seed)
    genes = generator.random((population, scaler.n_features_in_ + 1))
    genes[0, :-1], genes[0, -1] = 1.0, 0.0
    scores = _scores(heads, genes)
    for _ in range(generations):
        order = np.argsort(-scores, kind="stable")
        genes, scores = genes[order], scores[order]
        children = _offspring(genes, scores, population - ELITES, generator)
        genes = np.concatenate([genes[:ELITES], children])
        scores = np.concatenate([scores[:ELITES], _scores(heads, children)])
    best = int(np.argmax(scores))
    mask = _mask(genes[best])
    size = (int(mask.sum()) + 1) * n_classes
    return FeatureSelection(
        mask, float(scores[best]), heads.trainings, size, scaler, heads.head_of(mask)
    )


def _scores(heads: _Heads, genes: FloatArray) -> FloatArray:
    return np.array([heads.score_of(_mask(g)) if is_valid(g) else -np.inf for g in genes])


def _mask(genes: FloatArray) -> Mask:
    return np.asarray(genes[:-1] > genes[-1])


def _offspring(
    genes: FloatArray, scores: FloatArray, n_children: int, generator: np.random.Generator
) -> FloatArray:
    """Children of a sorted population: selection, crossover, mutation and adoption of BioTune."""
    finite = np.isfinite(scores)
    genes, fitness = genes[finite], 1.0 - scores[finite]
    dying = extinction(np.maximum(fitness, 0.0))
    n_selected = min(3, len(genes))
    rows = select(len(genes), generator, n_selected=n_selected, size=n_children)
    first, second, third = (genes[rows[:, min(i, n_selected - 1)]] for i in range(3))
    stress = dying[rows[:, :2]].mean(axis=1)
    children = mutate(crossover(first, second, generator), stress, generator)
    return adopt(children, (first + second) / 2, third, generator)
