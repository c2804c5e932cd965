"""Choosing, among many candidates, the one to train."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace

import numpy as np

from .history import History
from .operators import FloatArray
from .surrogate import (
    MINIMUM_OBSERVATIONS,
    Kernel,
    Observations,
    Surrogate,
    choose_kernel,
    features,
)

# The time of a fit grows with the cube of their number: without a limit, planning one trial after
# 1,000 others took more than a second.
MAXIMUM_OBSERVATIONS = 300


class Screening:
    """Fits the surrogate to the history of a search.

    Args:
        n_candidates: made by the operators for each training.
    """

    def __init__(self, n_candidates: int) -> None:
        self.n_candidates = n_candidates
        # Not state: what is chosen for the same observations is the same, only sooner.
        self._last_choice: tuple[bytes, Kernel] | None = None

    def model(
        self, history: History, generation: int, running: Sequence[Sequence[float]] = ()
    ) -> Surrogate | None:
        """The surrogate for planning a trial; `None` as long as there is too little to learn from.

        Args:
            history: all that has been trained.
            generation: the one that is being planned. The kernel is chosen once per generation,
                from the earlier ones; its posterior uses everything. Of a history of more than
                `MAXIMUM_OBSERVATIONS`, a part stands for the whole: see [`History.thinned`].
            running: genes that are in training at the moment.
        """
        # The same throughout a generation, and so is the kernel.
        earlier = history.before(generation).thinned(MAXIMUM_OBSERVATIONS)
        if len(earlier.trials) < MINIMUM_OBSERVATIONS:
            return None
        pending = features(np.array(running), history.extra_genes) if running else None
        learned = _observations(earlier.followed_by(history.since(generation)))
        return Surrogate(learned, self._kernel(_observations(earlier)), pending)

    def _kernel(self, observations: Observations) -> Kernel:
        arrays = (getattr(observations, field.name) for field in fields(observations))
        content = b"".join(array.tobytes() for array in arrays)
        last = self._last_choice  # one read: another thread may replace it
        if last is not None and last[0] == content:
            return last[1]
        kernel = choose_kernel(observations)
        self._last_choice = (content, kernel)
        return kernel


def denoised(history: History, model: Surrogate) -> History:
    """The history with each fitness replaced by what the model believes it to be without noise."""
    if not history.trials:
        return history
    fitness, _ = model.predict(features(history.genes, history.extra_genes))
    return replace(history, fitness=np.maximum(fitness, 0.0))


def most_promising(
    candidates: FloatArray, model: Surrogate | None, extra_genes: Sequence[str] = ()
) -> int:
    """The index of the candidate with the largest expected improvement; 0 without a model.

    Args:
        candidates: genes, shape (N, number of genes).
        model: fitted to what has been trained.
        extra_genes: names of the last genes.
    """
    if model is None or len(candidates) == 1:
        return 0
    return int(np.argmax(model.expected_improvement(features(candidates, extra_genes))))


def _observations(history: History) -> Observations:
    return Observations(
        features(history.genes, history.extra_genes),
        history.expected_fitness,
        history.folds,
        history.fidelities,
    )
