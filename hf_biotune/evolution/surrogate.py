"""A Gaussian process that predicts the fitness of genotypes that haven't been trained.

A training costs minutes and a prediction microseconds. So the operators make many candidates, and
the one with the largest expected improvement is trained. The model also tells luck from quality:
its mean at the trained genotypes is a denoised fitness.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import cho_solve, cholesky, solve_triangular

from ..extra_genes import NONE_UP_TO
from .hypervolume import expected_gap
from .operators import FloatArray

# Below this, a likelihood can't tell one kernel from another, nor the kernel a good genotype.
MINIMUM_OBSERVATIONS = 5

# A training that diverged can have a loss of thousands, which would be all that the model explains.
# A fitness counts as at most so many times as far from the best as the median is.
OUTLIER_RATIO = 10.0

_JITTER = 1e-6


class Kernel(NamedTuple):
    """The covariance of two observations, in units of the variance of the fitness.

    `matern * Matern_3/2(|x - x'| / length_scale) + linear * x.x' / n + pairs * (z.z' / n)^2
    + fold * [same fold] + fidelity * ([same lower fidelity] + [same observation of lower fidelity])
    + noise * [same observation]`, where z is x with -1 for a frozen block, so that genotypes agree
    about a block as much by freezing it as by training it.

    Args:
        length_scale: how far apart, in features, genotypes inform about each other.
        matern: variance of the smooth, interacting part.
        linear: variance of the part in which each block adds its own.
        pairs: variance of the part in which each pair of blocks adds its own. Measured: with it a
            search needs a quarter fewer trainings where blocks gain only together.
        fold: variance of the difficulty of a fold.
        noise: variance of the difference between two trainings of one genotype.
        fidelity: variance of what all trainings that were stopped after the same number of epochs
            share beyond what is expected of them, and of what each would still have become.
    """

    length_scale: float
    matern: float
    linear: float
    pairs: float
    fold: float
    noise: float
    fidelity: float = 0.0


KERNELS = tuple(
    itertools.starmap(
        Kernel,
        itertools.product(
            (1.0, 2.0, 4.0),
            (0.3, 1.0),
            (0.0, 2.0),
            (0.0, 2.0),
            (0.0, 0.3),
            (1e-3, 0.05, 0.4),
            (0.0, 0.2),
        ),
    )
)


def trained_mask(genes: FloatArray, n_extra: int = 0) -> NDArray[np.bool_]:
    """Which blocks genotypes train.

    Args:
        genes: in [0, 1], in the order of [`Genotype.to_array`], shape (..., number of genes).
        n_extra: number of extra genes, which are the last ones.

    Returns:
        Shape (..., number of blocks).
    """
    n_blocks = genes.shape[-1] - 1 - n_extra
    return np.asarray(genes[..., :n_blocks] > genes[..., n_blocks, None])


def features(genes: ArrayLike, extra_genes: Sequence[str] = ()) -> FloatArray:
    """What a genotype means for the training: which blocks are trained, and how fast.

    Args:
        genes: in [0, 1], in the order of [`Genotype.to_array`], shape (..., number of genes).
        extra_genes: names of the last ones.

    Returns:
        The mask in {0, 1}, then the mask times log10 of the multiplier in [-1, 1]; shape
        (..., 2 * number of blocks). The gene of a frozen block has no influence. `base_lr` shifts
        the logarithms; each other extra gene is like one block more, which is on or off and, if it
        has a strength, has it in [0, 1].

    Example:
        >>> features([0.2, 0.75, 0.5])
        array([0. , 1. , 0. , 0.5])
    """
    genes = np.asarray(genes, dtype=float)
    mask = trained_mask(genes, len(extra_genes))
    n_blocks = mask.shape[-1]
    on = [mask.astype(float)]
    log_multiplier = 2.0 * (genes[..., :n_blocks] - 0.5)
    strengths = []
    for name, gene in zip(extra_genes, np.moveaxis(genes[..., n_blocks + 1 :], -1, 0), strict=True):
        if name == "base_lr":
            log_multiplier = log_multiplier + (gene[..., None] - 0.5)
        else:
            is_on, strength = _SWITCHES[name](gene)
            on.append(is_on[..., None])
            strengths.append(strength[..., None])
    log_multiplier = np.where(mask, log_multiplier, 0.0)
    joined: FloatArray = np.concatenate([*on, log_multiplier, *strengths], axis=-1)
    return joined


def _switch(gene: FloatArray) -> tuple[FloatArray, FloatArray]:
    is_on = (gene > 0.5).astype(float)
    return is_on, np.zeros_like(gene)


def _strength(gene: FloatArray) -> tuple[FloatArray, FloatArray]:
    is_on = (gene > NONE_UP_TO).astype(float)
    return is_on, is_on * (gene - NONE_UP_TO) / (1.0 - NONE_UP_TO)


_SWITCHES = {"norm_statistics": _switch, "weight_decay": _strength, "l2sp": _strength}


@dataclass(frozen=True)
class Observations:
    """What a surrogate learns from.

    Args:
        features: shape (N, F).
        fitness: minimised, shape (N,).
        folds: which fold each was scored on, shape (N,).
        fidelities: the number of epochs after which each was stopped, infinite for those that were
            trained to their end, shape (N,). Default: all of them were.
    """

    features: FloatArray
    fitness: FloatArray
    folds: FloatArray
    fidelities: FloatArray | None = None

    def standardised(self) -> tuple[FloatArray, float, float]:
        """The fitness with mean 0 and deviation 1, outliers drawn in; its mean and deviation."""
        best, median = self.fitness.min(), np.median(self.fitness)
        limit = best + OUTLIER_RATIO * (median - best) if median > best else np.inf
        fitness = np.minimum(self.fitness, limit)
        mean, deviation = float(fitness.mean()), float(fitness.std())
        if deviation < 1e-12 * max(1.0, abs(mean)):  # all the same, but for rounding
            deviation = 1.0
        return (fitness - mean) / deviation, mean, deviation

    def same_fold(self) -> FloatArray:
        """1 where two observations share their fold, else 0. Shape (N, N)."""
        return np.equal.outer(self.folds, self.folds).astype(np.float64)

    def lower_fidelity(self) -> FloatArray:
        """1 where two observations share a lower fidelity, 2 where they are one. Shape (N, N)."""
        if self.fidelities is None:
            return np.zeros((len(self.fitness),) * 2)
        is_lower = np.isfinite(self.fidelities)
        shared = np.equal.outer(self.fidelities, self.fidelities) & is_lower
        return shared.astype(np.float64) + np.diag(is_lower.astype(np.float64))

    def effects(self, kernel: Kernel) -> FloatArray:
        """The covariance of the effects of folds and fidelities. Shape (N, N)."""
        return kernel.fold * self.same_fold() + kernel.fidelity * self.lower_fidelity()


def choose_kernel(observations: Observations) -> Kernel:
    """The kernel of a fixed grid under which the observations are most likely.

    A grid rather than a gradient, because it has no start, no tolerance and no local optimum: the
    same observations give the same kernel on every machine, which a resumed search depends on.

    Args:
        observations: at least one.
    """
    target, _, _ = observations.standardised()
    geometry = _geometry(observations.features, observations.features)
    one_fold = bool(observations.same_fold().all())
    all_full = not observations.lower_fidelity().any()
    best, best_likelihood = KERNELS[0], -np.inf
    for kernel in KERNELS:
        if (one_fold and kernel.fold > 0.0) or (all_full and kernel.fidelity > 0.0):
            continue  # no more than a constant, or nothing at all
        covariance = _covariance(kernel, geometry) + observations.effects(kernel)
        factor = _factor(covariance, kernel.noise)
        white = solve_triangular(factor, target, lower=True, check_finite=False)
        likelihood = float(-0.5 * white @ white - np.log(np.diag(factor)).sum())
        if likelihood > best_likelihood:
            best, best_likelihood = kernel, likelihood
    return best


class Surrogate:
    """The posterior of the fitness, given what has been trained.

    Args:
        observations: finished trainings.
        kernel: as of [`choose_kernel`].
        pending: features of genotypes in training, shape (M, F): they say nothing about the fitness
            yet, but leave less to be learned around them, so that other workers look elsewhere.

    Source: Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), algorithm 2.1.
    """

    def __init__(
        self, observations: Observations, kernel: Kernel, pending: FloatArray | None = None
    ) -> None:
        self.kernel = kernel
        self._features = observations.features
        target, self._mean, self._deviation = observations.standardised()
        covariance = _covariance(kernel, _geometry(self._features, self._features))
        factor = _factor(covariance + observations.effects(kernel), kernel.noise)
        self._weights = cho_solve((factor, True), target, check_finite=False)
        self._known, self._factor = self._features, factor
        if pending is not None and len(pending):
            self._condition_on(observations, pending)
        self.denoised_fitness = self.predict(self._features)[0]

    def _condition_on(self, observations: Observations, pending: FloatArray) -> None:
        self._known = np.concatenate([self._features, pending])
        covariance = _covariance(self.kernel, _geometry(self._known, self._known))
        n_observed = len(self._features)
        covariance[:n_observed, :n_observed] += observations.effects(self.kernel)
        self._factor = _factor(covariance, self.kernel.noise)

    def predict(self, candidates: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The mean and the standard deviation of the fitness at full fidelity, without noise.

        What belongs to a fold is taken out too.

        Args:
            candidates: features, shape (N, F).

        Returns:
            Two arrays of shape (N,).
        """
        known = _covariance(self.kernel, _geometry(candidates, self._known))
        mean = known[:, : len(self._features)] @ self._weights
        explained = solve_triangular(self._factor, known.T, lower=True, check_finite=False)
        prior = _prior_variance(self.kernel, candidates)
        variance = np.maximum(prior - (explained**2).sum(axis=0), 1e-12)
        return mean * self._deviation + self._mean, np.sqrt(variance) * self._deviation

    def expected_improvement(self, candidates: FloatArray) -> FloatArray:
        """By how much a candidate is expected to be better than the best denoised fitness so far.

        Args:
            candidates: features, shape (N, F).

        Returns:
            Not negative, shape (N,); see [`expected_gap`].
        """
        mean, deviation = self.predict(candidates)
        return expected_gap(mean, deviation, self.denoised_fitness.min())


class _Geometry(NamedTuple):
    """How two sets of N and M genotypes lie to each other; each of shape (N, M)."""

    distance: FloatArray
    product: FloatArray
    agreement: FloatArray


def _geometry(first: FloatArray, second: FloatArray) -> _Geometry:
    """Euclidean distances, and inner products of x and of z divided by the number of features."""
    n_features = first.shape[-1]
    product = first @ second.T
    squares = (first**2).sum(axis=-1)[:, None] + (second**2).sum(axis=-1)[None, :]
    distance = np.sqrt(np.maximum(squares - 2.0 * product, 0.0))
    agreement = _signed(first) @ _signed(second).T
    return _Geometry(distance, product / n_features, agreement / n_features)


def _signed(features: FloatArray) -> FloatArray:
    """Features with -1 for each block that is frozen. Shape (N, F)."""
    mask, log_multiplier = np.split(features, 2, axis=-1)
    return np.concatenate([2.0 * mask - 1.0, log_multiplier], axis=-1)


def _covariance(kernel: Kernel, geometry: _Geometry) -> FloatArray:
    scaled = np.sqrt(3.0) / kernel.length_scale * geometry.distance
    smooth = kernel.matern * (1.0 + scaled) * np.exp(-scaled)
    return np.asarray(
        smooth + kernel.linear * geometry.product + kernel.pairs * geometry.agreement**2
    )


def _prior_variance(kernel: Kernel, features: FloatArray) -> FloatArray:
    """The covariance of each genotype with itself, noise and folds taken out. Shape (N,)."""
    product = (features**2).mean(axis=-1)
    agreement = (_signed(features) ** 2).mean(axis=-1)
    return np.asarray(kernel.matern + kernel.linear * product + kernel.pairs * agreement**2)


def _factor(covariance: FloatArray, noise: float) -> FloatArray:
    covariance = covariance + (noise + _JITTER) * np.eye(len(covariance))
    return np.asarray(cholesky(covariance, lower=True, check_finite=False))
