import numpy as np
import pytest
from scipy.stats import multivariate_normal

from hf_biotune.exceptions import DataError
from hf_biotune.features import logme
from hf_biotune.features.logme import maximum_evidence


def evidence_of(features, target):
    left, singular, _ = np.linalg.svd(features, full_matrices=False)
    return maximum_evidence(left, singular, target, features.shape[1])


def direct(features, target, alpha, beta):
    """The same evidence without any trick: y is normal with covariance I / beta + F F' / alpha."""
    covariance = np.eye(len(target)) / beta + features @ features.T / alpha
    return multivariate_normal(np.zeros(len(target)), covariance).logpdf(target) / len(target)


def two_classes(separation, n=60, d=5, seed=0):
    generator = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    features = generator.normal(size=(n, d))
    features[:, 0] += separation * labels
    return features, labels


@pytest.mark.parametrize("d", [3, 40])
def test_the_evidence_is_that_of_the_normal_distribution(d):
    features, labels = two_classes(1.0, n=20, d=d)
    found = evidence_of(features, labels.astype(float))
    expected = direct(features, labels.astype(float), found.alpha, found.beta)
    assert found.log_evidence == pytest.approx(expected, rel=1e-6)


def test_no_other_precisions_have_a_greater_evidence():
    features, labels = two_classes(1.0)
    target = labels.astype(float)
    found = evidence_of(features, target)
    for factor in (0.5, 0.9, 1.1, 2.0):
        assert direct(features, target, found.alpha * factor, found.beta) < found.log_evidence
        assert direct(features, target, found.alpha, found.beta * factor) < found.log_evidence


def test_one_feature_worked_out_by_hand():
    # F = (1, 2, 3, 4), y = (0, 0, 1, 1): F'F = 30, F'y = 7, y'y = 2.
    found = evidence_of(np.array([[1.0], [2.0], [3.0], [4.0]]), np.array([0.0, 0.0, 1.0, 1.0]))
    weight = 7 * found.beta / (found.alpha + 30 * found.beta)
    gamma = 30 * found.beta / (found.alpha + 30 * found.beta)
    residual = 2 - 2 * 7 * weight + 30 * weight**2
    # At the fixed point gamma = alpha weight^2 and 4 - gamma = beta residual.
    assert found.alpha * weight**2 == pytest.approx(gamma, rel=1e-4)
    assert found.beta * residual == pytest.approx(4 - gamma, rel=1e-4)
    # Least squares is 7 / 30; the prior pulls it towards 0.
    assert 0.2 < weight < 7 / 30


def test_the_better_classes_are_separated_the_greater_it_is():
    scores = [logme(*two_classes(separation)) for separation in (0.0, 1.0, 3.0, 9.0)]
    assert scores == sorted(scores)


def test_it_does_not_depend_on_the_scale_or_rotation_of_features():
    features, labels = two_classes(2.0)
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(5, 5)))[0]
    assert logme(7.0 * features @ rotation, labels) == pytest.approx(
        logme(features, labels), rel=1e-4
    )


def test_bad_input_is_named():
    features, labels = two_classes(1.0)
    with pytest.raises(DataError, match=r"at least two classes, got the labels \[0\]"):
        logme(features, np.zeros(60, int))
    with pytest.raises(DataError, match=r"got \(60, 5\) and 59 labels"):
        logme(features, labels[1:])
    with pytest.raises(DataError, match="finite features"):
        logme(np.where(features > 2, np.nan, features), labels)


def test_features_that_are_all_zero_are_worse_than_any():
    features, labels = two_classes(1.0)
    nothing = logme(np.zeros_like(features), labels)
    assert np.isfinite(nothing)
    assert nothing < logme(features, labels)
