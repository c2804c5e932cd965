"""Choosing, among many candidates, the one to train."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace

import numpy as np

from .costs import Costs
from .history import History
from .hypervolume import Stairs
from .operators import FloatArray
from .surrogate import (
    MINIMUM_OBSERVATIONS,
    Kernel,
    Observations,
    Surrogate,
    choose_kernel,
    features,
    trained_mask,
)

# The time of a fit grows with the cube of their number: without a limit, planning one trial after
# 1,000 others took more than a second.
MAXIMUM_OBSERVATIONS = 300


class Screening:
    """Fits the surrogate to the history of a search, and chooses by what it says.

    Args:
        n_candidates: made by the operators for each training.
        prefer_cheap: whether a candidate's expected improvement counts per [`effort`].
    """

    def __init__(self, n_candidates: int, prefer_cheap: bool = False) -> None:
        self.n_candidates = n_candidates
        self.prefer_cheap = prefer_cheap
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
        earlier, learned = _learned_from(history, generation)
        if len(earlier.trials) < MINIMUM_OBSERVATIONS:
            return None
        pending = features(np.array(running), history.extra_genes) if running else None
        return Surrogate(_observations(learned), self._kernel(_observations(earlier)), pending)

    def tradeoff(
        self, history: History, generation: int, costs: Costs, model: Surrogate
    ) -> Tradeoff:
        """How score and costs go together, for planning a trial of a search for several objectives.

        Args:
            history: all that has been trained.
            generation: the one that is being planned.
            costs: which of them are known beforehand.
            model: of the score.
        """
        earlier, learned = _learned_from(history, generation)
        models = [
            _cost_model(earlier, learned, index) if cost is None else None
            for index, cost in enumerate(costs.per_block)
        ]
        return Tradeoff(model, costs, models, learned)

    def most_promising(
        self,
        candidates: FloatArray,
        model: Surrogate,
        extra_genes: Sequence[str] = (),
        tradeoff: Tradeoff | None = None,
    ) -> int:
        """The index of the candidate with the largest expected improvement.

        Args:
            candidates: genes, shape (N, number of genes).
            model: fitted to what has been trained.
            extra_genes: names of the last genes.
            tradeoff: of several objectives, whose front a candidate is to extend. Then efforts do
                not count: costs have objectives of their own.

        Source: expected improvement per second is from Snoek, Larochelle and Adams, Practical
        Bayesian Optimization of Machine Learning Algorithms (arXiv 1206.2944), section 3.2.
        """
        if tradeoff is not None:
            return int(np.argmax(tradeoff.improvement(candidates)))
        improvement = model.expected_improvement(features(candidates, extra_genes))
        if self.prefer_cheap:
            improvement = improvement / effort(candidates, len(extra_genes))
        return int(np.argmax(improvement))

    def _kernel(self, observations: Observations) -> Kernel:
        arrays = (getattr(observations, field.name) for field in fields(observations))
        content = b"".join(array.tobytes() for array in arrays)
        last = self._last_choice  # one read: another thread may replace it
        if last is not None and last[0] == content:
            return last[1]
        kernel = choose_kernel(observations)
        self._last_choice = (content, kernel)
        return kernel


class Tradeoff:
    """What candidates promise if several objectives count.

    Args:
        model: of the score.
        costs: which are known beforehand.
        models: of each of the others; `None` for those that are known, or as long as no trial told.
        learned: what was trained.
    """

    def __init__(
        self,
        model: Surrogate,
        costs: Costs,
        models: Sequence[Surrogate | None],
        learned: History,
    ) -> None:
        self._model = model
        self._costs = costs
        self._models = models
        self._extra_genes = learned.extra_genes
        self._fitness, _ = model.predict(features(learned.genes, learned.extra_genes))
        self._known_costs = self._costs_of(learned.genes)

    def improvement(self, genes: FloatArray) -> FloatArray:
        """By how much candidates are expected to extend the front; see [`Stairs`]. Shape (N,)."""
        costs = self._costs_of(genes)
        mean, deviation = self._model.predict(features(genes, self._extra_genes))
        stairs = Stairs.of(self._fitness, self._known_costs, costs)
        return stairs.expected_improvement(mean, deviation, costs)

    def _costs_of(self, genes: FloatArray) -> FloatArray:
        """Known costs, and of the others what their models believe. Shape (N, len(costs))."""
        found = self._costs.known(genes)
        for index, model in enumerate(self._models):
            if model is not None:
                found[:, index], _ = model.predict(features(genes, self._extra_genes))
        # Of a cost that no trial has told yet all candidates have the same.
        return np.where(np.isnan(found), 0.0, found)


def _cost_model(earlier: History, learned: History, index: int) -> Surrogate | None:
    """A model of a cost that only a training tells, of those that were trained to their end."""
    told = [part.with_cost_as_fitness(index) for part in (earlier, learned)]
    if len(told[0].trials) < MINIMUM_OBSERVATIONS:
        return None
    return Surrogate(_observations(told[1]), choose_kernel(_observations(told[0])))


def _learned_from(history: History, generation: int) -> tuple[History, History]:
    """What a kernel is chosen by, the same throughout a generation, and what a posterior uses."""
    earlier = history.before(generation).thinned(MAXIMUM_OBSERVATIONS)
    return earlier, earlier.followed_by(history.since(generation))


def denoised(history: History, model: Surrogate) -> History:
    """The history with each fitness replaced by what the model believes it to be without noise."""
    if not history.trials:
        return history
    fitness, _ = model.predict(features(history.genes, history.extra_genes))
    return replace(history, fitness=np.maximum(fitness, 0.0))


def effort(genes: FloatArray, n_extra: int = 0) -> FloatArray:
    """What trainings cost, as far as their genotypes tell: 1 for those that train the first block.

    Frozen blocks before the first trained one need no gradient, and no pass either where their
    activations are cached. Blocks count alike, and one share more is for what every training does.
    Seconds would say more, and the same search would no longer choose the same genotypes twice.

    Args:
        genes: shape (N, number of genes).
        n_extra: number of extra genes, which are the last ones.

    Returns:
        Shape (N,), in (0, 1].
    """
    trained = trained_mask(genes, n_extra)
    n_blocks = trained.shape[1]
    n_frozen = np.where(trained.any(axis=1), trained.argmax(axis=1), n_blocks)
    return np.asarray((1 + n_blocks - n_frozen) / (1 + n_blocks))


def _observations(history: History) -> Observations:
    return Observations(
        features(history.genes, history.extra_genes),
        history.expected_fitness,
        history.folds,
        history.fidelities,
    )
