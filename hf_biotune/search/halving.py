"""Successive halving on the learning curve of the same schedule.

Measured on small data: after a third of the epochs the rank correlation with the final score is .7,
earlier it is near 0, and shortcuts on data or resolution mislead. So there is one rung, at a third.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from .metrics import Metric

RUNG_SHARE = 1 / 3
KEPT_SHARE = 1 / 3
# With fewer peers a rank says nothing.
MINIMUM_PEERS = 3


def rung_epoch(epochs: int) -> int:
    """After how many epochs a training is compared with its peers."""
    return math.ceil(epochs * RUNG_SHARE)


def is_kept(score: float, peers: Sequence[float], metric: Metric) -> bool:
    """Whether a training goes on after the rung.

    Args:
        score: its score at the rung.
        peers: scores at the rung of trainings before it, of the same fold and schedule.
        metric: the score.

    Returns:
        Whether it is among the best third of all that reached the rung, itself included; always
        with fewer than three peers.

    Example:
        >>> from hf_biotune.search.metrics import METRICS
        >>> is_kept(0.8, [0.7, 0.9, 0.5, 0.4, 0.6], METRICS["accuracy"])
        True
    """
    if len(peers) < MINIMUM_PEERS:
        return True
    better = sum(metric.is_better(peer, score) for peer in peers)
    return better < math.ceil((len(peers) + 1) * KEPT_SHARE)
