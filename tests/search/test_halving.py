from __future__ import annotations

import pytest

from hf_biotune.search.halving import is_kept, rung_epoch
from hf_biotune.search.metrics import METRICS

ACCURACY, LOSS = METRICS["accuracy"], METRICS["loss"]


@pytest.mark.parametrize(("epochs", "rung"), [(15, 5), (10, 4), (6, 2), (1, 1)])
def test_the_rung_is_at_a_third_of_the_epochs_or_later(epochs, rung):
    assert rung_epoch(epochs) == rung


def test_with_fewer_than_three_peers_everybody_goes_on():
    assert is_kept(0.0, [0.9, 0.9], ACCURACY)


def test_the_best_third_goes_on():
    peers = [0.9, 0.8, 0.7, 0.6, 0.5]  # with the newcomer 6, so 2 are kept
    assert is_kept(0.85, peers, ACCURACY)
    assert not is_kept(0.75, peers, ACCURACY)


def test_losses_are_better_when_smaller():
    assert is_kept(0.1, [0.2, 0.3, 0.4], LOSS)
    assert not is_kept(0.5, [0.2, 0.3, 0.4], LOSS)


def test_a_tie_with_the_last_kept_goes_on():
    assert is_kept(0.9, [0.9, 0.5, 0.4], ACCURACY)
