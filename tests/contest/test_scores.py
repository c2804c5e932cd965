import pytest
import torch

from hf_biotune.contest.scores import scores_of


def test_scores_of_eight_samples_are_those_worked_out_by_hand():
    # Truth 0 0 0 0 0 0 1 1, predicted 0 0 0 0 0 1 1 0.
    labels = torch.tensor([0, 0, 0, 0, 0, 0, 1, 1])
    margin = torch.tensor([3.0, 2.5, 2.0, 1.5, 1.0, -1.0, -2.0, 0.5])
    scores = scores_of(torch.stack([margin, torch.zeros(8)], 1), labels)
    assert scores.accuracy == pytest.approx(6 / 8)
    assert scores.macro_accuracy == pytest.approx((5 / 6 + 1 / 2) / 2)
    # F1: class 0: 2 * 5 / (6 + 6); class 1: 2 * 1 / (2 + 2).
    assert scores.f1 == pytest.approx((10 / 12 + 2 / 4) / 2)
    # Chance: (6/8)^2 + (2/8)^2 = .625; kappa = (.75 - .625) / .375.
    assert scores.kappa == pytest.approx(1 / 3)
    # Class 1 by -margin: hits at ranks 1 and 3: (1 + 2/3) / 2; class 0: misses at ranks 6 and 8.
    of_zero = (1 + 1 + 1 + 1 + 1 + 6 / 7) / 6
    assert scores.average_precision == pytest.approx(((1 + 2 / 3) / 2 + of_zero) / 2)


def test_a_class_without_samples_does_not_count():
    logits = torch.tensor([[5.0, 0.0, 0.0], [0.0, 5.0, 0.0]])
    scores = scores_of(logits, torch.tensor([0, 1]))
    assert scores.macro_accuracy == scores.f1 == scores.average_precision == 1.0


def test_what_diverged_has_the_worst_scores():
    logits = torch.tensor([[float("nan"), 0.0], [0.0, 1.0]])
    scores = scores_of(logits, torch.tensor([0, 1]))
    assert (scores.macro_accuracy, scores.kappa) == (0.0, 0.0)
