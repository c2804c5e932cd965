"""When a training ends before its last epoch, and which of its epochs is the best."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .metrics import Metric


@dataclass(frozen=True)
class StoppingRule:
    """When a training ends before its last epoch.

    Args:
        patience: epochs without a better score; `None`: never.
        patience_from: share of the epochs before which patience doesn't stop.
    """

    patience: int | None = 3
    patience_from: float = 1 / 3

    def is_over(
        self, scores: Sequence[float], epochs: int, metric: Metric, settled_after: int = 0
    ) -> bool:
        """Whether the training should end after the epochs that have these scores.

        Args:
            scores: one per finished epoch.
            epochs: of the whole training.
            metric: of the scores.
            settled_after: so many epochs change what is trained; patience counts from there.
        """
        if self.patience is None or len(scores) < math.ceil(self.patience_from * epochs):
            return False
        last_news = max(best_index(scores, metric), settled_after - 1)
        return len(scores) - 1 - last_news >= self.patience


def best_index(scores: Sequence[float], metric: Metric) -> int:
    """The first of the best scores."""
    best = 0
    for index, score in enumerate(scores):
        if metric.is_better(score, scores[best]):
            best = index
    return best
