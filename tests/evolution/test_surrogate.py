from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm

from hf_biotune.evolution import breeding, surrogate
from hf_biotune.evolution.surrogate import KERNELS, Kernel, Observations, Surrogate, choose_kernel

KERNEL = Kernel(length_scale=2.0, matern=1.0, linear=2.0, pairs=1.5, fold=0.3, noise=0.05)


def genes(n: int, seed: int = 0, n_genes: int = 7) -> np.ndarray:
    return breeding.random_individuals(n_genes, np.random.default_rng(seed), n)


def quality(genes: np.ndarray) -> np.ndarray:
    x = surrogate.features(genes)
    return 0.5 + x[:, :3].sum(axis=1) * 0.1 - x[:, 3:6].sum(axis=1) * 0.05 + x[:, 6] ** 2 * 0.1


def observations(n: int = 40, *, noise: float = 0.0, n_folds: int = 1) -> Observations:
    drawn = genes(n)
    generator = np.random.default_rng(1)
    folds = np.arange(n) % n_folds
    fitness = quality(drawn) + noise * generator.normal(size=n) + 0.2 * folds
    return Observations(surrogate.features(drawn), fitness, folds.astype(float))


def dense_covariance(
    kernel: Kernel, x: np.ndarray, folds: np.ndarray, fidelities: np.ndarray | None = None
) -> np.ndarray:
    """The formula of `Kernel`, element by element."""
    covariance = np.empty((len(x), len(x)))
    fidelities = np.full(len(x), np.inf) if fidelities is None else fidelities
    n_blocks = x.shape[1] // 2
    z = x.copy()
    z[:, :n_blocks] = np.where(x[:, :n_blocks] == 1.0, 1.0, -1.0)
    for i, j in np.ndindex(covariance.shape):
        r = np.sqrt(3) * np.linalg.norm(x[i] - x[j]) / kernel.length_scale
        covariance[i, j] = (
            kernel.matern * (1 + r) * np.exp(-r)
            + kernel.linear * x[i] @ x[j] / x.shape[1]
            + kernel.pairs * (z[i] @ z[j] / x.shape[1]) ** 2
            + kernel.fold * (folds[i] == folds[j])
            + kernel.fidelity * (np.isfinite(fidelities[i]) and fidelities[i] == fidelities[j])
            + kernel.fidelity * (np.isfinite(fidelities[i]) and i == j)
            + (kernel.noise + 1e-6) * (i == j)
        )
    return covariance


def test_genes_of_frozen_blocks_have_no_influence() -> None:
    np.testing.assert_array_equal(
        surrogate.features([0.1, 0.8, 0.5]), surrogate.features([0.4, 0.8, 0.45])
    )


def test_the_prediction_is_the_posterior_of_the_stated_kernel() -> None:
    data = observations(12, n_folds=3)
    x_new = surrogate.features(genes(1, seed=9))
    model = Surrogate(data, KERNEL)
    x = np.concatenate([data.features, x_new])
    folds = np.append(data.folds, -1.0)  # a fold that has never been seen
    covariance = dense_covariance(KERNEL, x, folds)
    target, mean, deviation = data.standardised()
    known = covariance[:-1, :-1]
    cross = covariance[-1, :-1]
    prior = covariance[-1, -1] - KERNEL.fold - KERNEL.noise - 1e-6
    expected_mean = cross @ np.linalg.solve(known, target) * deviation + mean
    expected_variance = prior - cross @ np.linalg.solve(known, cross)
    predicted_mean, predicted_deviation = model.predict(x_new)
    np.testing.assert_allclose(predicted_mean, expected_mean)
    np.testing.assert_allclose(predicted_deviation, np.sqrt(expected_variance) * deviation)


def test_the_kernel_is_the_most_likely_of_the_grid() -> None:
    data = observations(25, noise=0.05, n_folds=2)
    target, _, _ = data.standardised()
    likelihoods = [
        multivariate_normal(
            cov=dense_covariance(kernel, data.features, data.folds), allow_singular=True
        ).logpdf(target)
        for kernel in KERNELS
    ]
    assert choose_kernel(data) == KERNELS[int(np.argmax(likelihoods))]


def test_blocks_that_gain_only_together_are_found_out() -> None:
    drawn = genes(150, n_genes=9)
    x = surrogate.features(drawn)
    fitness = 1.0 - 0.3 * (x[:, 0] == x[:, 5]) - 0.3 * (x[:, 2] == x[:, 7])
    data = Observations(x[:100], fitness[:100], np.zeros(100))
    kernel = choose_kernel(data)
    assert kernel.pairs > 0.0
    error = [
        np.abs(Surrogate(data, k).predict(x[100:])[0] - fitness[100:]).mean()
        for k in (kernel, kernel._replace(pairs=0.0))
    ]
    assert error[0] < 0.7 * error[1]


def test_a_single_fold_needs_no_fold_effect() -> None:
    assert choose_kernel(observations(20)).fold == 0.0


def test_the_difficulty_of_a_fold_is_not_taken_for_quality() -> None:
    data = observations(60, n_folds=2)
    model = Surrogate(data, choose_kernel(data))
    truth = quality(genes(60))
    error = model.denoised_fitness - truth
    assert abs(error[data.folds == 0].mean() - error[data.folds == 1].mean()) < 0.05


def stopped_early(n: int = 90) -> Observations:
    """Two thirds were stopped after five epochs, at a fitness that misses by .2 on average."""
    full = observations(n)
    stopped = np.arange(n) % 3 > 0
    miss = 0.2 + 0.1 * np.random.default_rng(2).normal(size=n)
    fitness = full.fitness + np.where(stopped, miss, 0.0)
    return Observations(full.features, fitness, full.folds, np.where(stopped, 5.0, np.inf))


def test_trainings_that_were_stopped_early_count_for_less() -> None:
    data = stopped_early()
    kernel = choose_kernel(data)
    assert kernel.fidelity > 0.0
    truth = quality(genes(90))
    blind = Observations(data.features, data.fitness, data.folds)
    error = np.abs(Surrogate(data, kernel).denoised_fitness - truth)
    error_of_the_blind = np.abs(Surrogate(blind, choose_kernel(blind)).denoised_fitness - truth)
    assert error.mean() < 0.6 * error_of_the_blind.mean()


def test_a_search_without_halving_needs_no_fidelity_effect() -> None:
    data = observations(30)
    full = Observations(data.features, data.fitness, data.folds, np.full(30, np.inf))
    assert choose_kernel(full) == choose_kernel(data)
    assert choose_kernel(full).fidelity == 0.0


def test_the_posterior_with_fidelities_is_that_of_the_stated_kernel() -> None:
    data, kernel = stopped_early(20), KERNEL._replace(fidelity=0.2)
    covariance = dense_covariance(kernel, data.features, data.folds, data.fidelities)
    target, mean, deviation = data.standardised()
    alike = dense_covariance(
        kernel._replace(fold=0, fidelity=0, noise=-1e-6), data.features, data.folds
    )
    expected = alike @ np.linalg.solve(covariance, target) * deviation + mean
    np.testing.assert_allclose(Surrogate(data, kernel).denoised_fitness, expected)


def test_denoised_fitness_is_closer_to_the_truth_than_the_scores() -> None:
    data = observations(80, noise=0.1)
    model = Surrogate(data, choose_kernel(data))
    truth = quality(genes(80))
    denoised = np.abs(model.denoised_fitness - truth).mean()
    assert denoised < 0.7 * np.abs(data.fitness - truth).mean()


def test_expected_improvement_is_that_of_the_normal_distribution() -> None:
    data = observations(20)
    model = Surrogate(data, KERNEL)
    x = surrogate.features(genes(5, seed=4))
    mean, deviation = model.predict(x)
    samples = norm.rvs(mean, deviation, size=(200_000, 5), random_state=0)
    expected = np.maximum(model.denoised_fitness.min() - samples, 0.0).mean(axis=0)
    np.testing.assert_allclose(model.expected_improvement(x), expected, rtol=0.05, atol=1e-4)


def test_expected_improvement_is_small_where_everything_is_known() -> None:
    data = observations(40)
    model = Surrogate(data, KERNEL._replace(noise=1e-3))
    known = model.expected_improvement(data.features)
    unknown = model.expected_improvement(surrogate.features(genes(500, seed=2)))
    assert known.max() < unknown.max()


def test_genotypes_in_training_make_their_neighbourhood_less_attractive() -> None:
    data, candidates = observations(20), surrogate.features(genes(30, seed=5))
    alone = Surrogate(data, KERNEL).predict(candidates)
    busy = Surrogate(data, KERNEL, pending=candidates[:1]).predict(candidates)
    np.testing.assert_allclose(busy[0], alone[0])
    assert busy[1][0] < 0.6 * alone[1][0]
    assert (busy[1] <= alone[1] + 1e-12).all()


def test_a_training_that_diverged_does_not_drown_the_others() -> None:
    data = observations(40)
    fitness = data.fitness.copy()
    fitness[3] = 1e6
    model = Surrogate(Observations(data.features, fitness, data.folds), KERNEL)
    others = np.arange(40) != 3
    correlation = np.corrcoef(model.denoised_fitness[others], data.fitness[others])[0, 1]
    assert correlation > 0.9


@pytest.mark.parametrize("value", [0.0, 0.3, 1e9])
def test_equal_fitness_everywhere_is_no_problem(value: float) -> None:
    data = observations(10)
    data = Observations(data.features, np.full(10, value), data.folds)
    model = Surrogate(data, choose_kernel(data))
    np.testing.assert_allclose(model.denoised_fitness, value, atol=1e-6 * max(1, value))
    assert np.isfinite(model.expected_improvement(surrogate.features(genes(5)))).all()


def test_the_fit_does_not_depend_on_the_number_of_threads() -> None:
    from threadpoolctl import threadpool_limits

    from hf_biotune.evolution.blas import one_blas_thread

    data, results = observations(150, noise=0.02), []
    for limit in (1, 2):
        with threadpool_limits(limit), one_blas_thread():
            results.append(Surrogate(data, choose_kernel(data)).denoised_fitness)
    np.testing.assert_array_equal(*results)
