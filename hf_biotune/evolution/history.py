"""The finished trials of a study as individuals."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from .costs import NO_COSTS, Costs
from .curve import curve_of, last_step_of
from .dominance import crowded_order
from .operators import FloatArray, IntArray
from .plan import Plan, genotype_of, parameter_names
from .population import FULL_FIDELITY, Individual, minimised_fitness, shift_of


@dataclass(frozen=True)
class History:
    """Everything that has been trained, and what is expected of the trials that were pruned.

    Args:
        trials: the finished ones, in the order of their generations and slots, which, unlike that
            of their numbers, isn't changed by trials that fail and are repeated.
        fitness: of the score that each of them reached, shape (len(trials),).
        expected_fitness: at full fidelity, shape (len(trials),); see [`expected_scores`].
        plans: of all trials, by number.
        block_names: of the partition, in order.
        extra_genes: names of further genes, in order.
        costs: the objectives beside the score, minimised, shape (len(trials), number of them); NaN
            where a trial that was pruned didn't tell. Default: none.
    """

    trials: tuple[FrozenTrial, ...]
    fitness: FloatArray
    expected_fitness: FloatArray
    plans: Mapping[int, Plan]
    block_names: Sequence[str]
    extra_genes: Sequence[str] = ()
    costs: FloatArray | None = None

    @cached_property
    def individuals(self) -> tuple[Individual, ...]:
        """The trials as individuals, with the fitness that they reached."""
        return tuple(
            Individual(
                genotype=genotype_of(trial, self.block_names),
                fitness=float(fitness),
                number=trial.number,
                fold=self.plans[trial.number].fold,
                fidelity=_fidelity(trial),
                parents=self.plans[trial.number].parents,
            )
            for trial, fitness in zip(self.trials, self.fitness, strict=True)
        )

    @property
    def genes(self) -> FloatArray:
        """Of each trial, in the order of [`Genotype.to_array`]; shape (len(trials), genes)."""
        names = parameter_names(self.block_names, self.extra_genes)
        genes = [[trial.params[name] for name in names] for trial in self.trials]
        return np.array(genes, dtype=float).reshape(len(genes), len(names))

    @property
    def folds(self) -> FloatArray:
        """Which fold each was scored on, shape (len(trials),)."""
        return np.array([self.plans[trial.number].fold for trial in self.trials], dtype=float)

    @property
    def fidelities(self) -> FloatArray:
        """How far each was trained, shape (len(trials),); see [`Individual`]."""
        return np.array([_fidelity(trial) for trial in self.trials])

    @cached_property
    def _generations(self) -> IntArray:
        generations = [self.plans[trial.number].generation for trial in self.trials]
        return np.array(generations, dtype=np.int64)

    def before(self, generation: int) -> History:
        """The part that belongs to earlier generations."""
        return self._part(np.flatnonzero(self._generations < generation))

    def since(self, generation: int) -> History:
        """The part that belongs to a generation and to later ones."""
        return self._part(np.flatnonzero(self._generations >= generation))

    def of(self, generation: int, numbers: Collection[int] = ()) -> History:
        """The part that belongs to one generation, and trials of certain numbers besides."""
        named = np.array([trial.number in numbers for trial in self.trials], dtype=bool)
        return self._part(np.flatnonzero(named | (self._generations == generation)))

    def thinned(self, limit: int) -> History:
        """At most `limit` trials that tell most of what all of them tell.

        Half of them are the newest, which tell about where the search is now. A quarter are the
        best of the others; with several objectives, those on the front. The last quarter is spread
        evenly over the ranks of what is left: without bad genotypes a model takes their regions for
        unknown ones, and goes there again. Fitness is compared within folds.

        Args:
            limit: at least 1.
        """
        if len(self.trials) <= limit:
            return self
        n_older = len(self.trials) - limit // 2
        standing = _centred(self.expected_fitness, self.folds)[:n_older]
        if self.costs is None:
            older = np.argsort(standing, kind="stable")
        else:
            older = crowded_order(np.column_stack([standing, _told(self.costs[:n_older])]))
        n_best = limit // 4
        spread = np.linspace(n_best, n_older - 1, limit - limit // 2 - n_best).round()
        kept = [
            older[:n_best],
            older[spread.astype(np.int64)],
            np.arange(n_older, len(self.trials)),
        ]
        return self._part(np.sort(np.concatenate(kept)))

    def followed_by(self, later: History) -> History:
        """This part and another one of the same history, which comes after it."""
        return replace(
            self,
            trials=(*self.trials, *later.trials),
            fitness=np.concatenate([self.fitness, later.fitness]),
            expected_fitness=np.concatenate([self.expected_fitness, later.expected_fitness]),
            costs=None
            if self.costs is None or later.costs is None
            else np.concatenate([self.costs, later.costs]),
        )

    def _part(self, indices: IntArray) -> History:
        return replace(
            self,
            trials=tuple(self.trials[index] for index in indices),
            fitness=self.fitness[indices],
            expected_fitness=self.expected_fitness[indices],
            costs=None if self.costs is None else self.costs[indices],
        )

    def with_cost_as_fitness(self, index: int) -> History:
        """The part that told a cost, which takes the place of fitness."""
        if self.costs is None:
            return self
        told = self._part(np.flatnonzero(~np.isnan(self.costs[:, index])))
        cost = self.costs[~np.isnan(self.costs[:, index]), index]
        return replace(told, fitness=cost, expected_fitness=cost)

    def ranked_by_dominance(self) -> History:
        """With several objectives, the place of each trial among its peers takes that of fitness.

        Peers are the trials of one fold that were trained equally far; places are in [0, 1), by
        front and then by how lonely a trial is on it. So the operators, which know one fitness,
        select, replace and mutate by all objectives.
        """
        if self.costs is None or not self.trials:
            return self
        places = np.empty(len(self.trials))
        costs = _told(self.costs)
        _, peers = np.unique(
            np.column_stack([self.folds, self.fidelities]), axis=0, return_inverse=True
        )
        for group in range(peers.max() + 1):
            members = np.flatnonzero(peers.ravel() == group)
            order = crowded_order(np.column_stack([self.fitness[members], costs[members]]))
            places[members[order]] = np.arange(len(members)) / len(members)
        return replace(self, fitness=places)


def read(
    trials: Sequence[FrozenTrial],
    plans: Mapping[int, Plan],
    block_names: Sequence[str],
    extra_genes: Sequence[str] = (),
    *,
    directions: Sequence[StudyDirection],
    costs: Costs = NO_COSTS,
) -> History:
    """Read the finished trials of a study.

    Args:
        trials: in the order of their numbers; those without a plan or without genes are left out.
        plans: by trial number.
        block_names: of the partition, in order.
        extra_genes: names of further genes, in order.
        directions: of the study; the first objective is the score.
        costs: the other objectives, as far as they are known.
    """
    maximize = directions[0] == StudyDirection.MAXIMIZE
    genes = frozenset(parameter_names(block_names, extra_genes))
    finished = sorted(
        (
            trial
            for trial in trials
            if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
            and trial.number in plans
            and genes <= trial.params.keys()
        ),
        key=lambda trial: (plans[trial.number].generation, plans[trial.number].slot),
    )
    scores = np.array([_last_score(trial) for trial in finished])
    expected = expected_scores(finished, scores)
    fitness = minimised_fitness(scores, maximize=maximize)
    # What is only expected neither shifts what was measured nor is better than any score can be.
    promised = minimised_fitness(expected, maximize=maximize, shift=shift_of(scores, maximize))
    history = History(
        tuple(finished), fitness, np.maximum(promised, 0.0), plans, block_names, extra_genes
    )
    if len(directions) == 1:
        return history
    return replace(history, costs=costs.observed(finished, history.genes, directions))


def expected_scores(trials: Sequence[FrozenTrial], scores: FloatArray) -> FloatArray:
    """The scores that pruned trials would have had, had they been trained to the end.

    The last score plus what the trials that finished gained, on average, from the same step on.
    Only the surrogate uses this: without the pruned trials it would know nothing of bad regions,
    and with their scores as they are it would take a short training for a bad genotype.

    Args:
        trials: finished ones.
        scores: the last score of each, shape (len(trials),).

    Returns:
        Shape (len(trials),), equal to `scores` for trials that aren't pruned.
    """
    last_steps = {
        index: step
        for index, trial in enumerate(trials)
        if trial.state == TrialState.PRUNED and (step := last_step_of(trial)) is not None
    }
    gains = {step: _mean_gain(trials, scores, step) for step in set(last_steps.values())}
    expected = scores.copy()
    for index, step in last_steps.items():
        expected[index] += gains[step]
    return expected


def _mean_gain(trials: Sequence[FrozenTrial], scores: FloatArray, step: int) -> float:
    """What trials that finished gained from a step to their end; 0 if there are none."""
    gains = [
        score - curve[step]
        for trial, score in zip(trials, scores, strict=True)
        if trial.state == TrialState.COMPLETE and step in (curve := curve_of(trial))
    ]
    finite = [gain for gain in gains if np.isfinite(gain)]
    return float(np.mean(finite)) if finite else 0.0


def _centred(fitness: FloatArray, folds: FloatArray) -> FloatArray:
    """Fitness minus the mean of its fold: the scores of an easy fold are no better."""
    _, fold = np.unique(folds, return_inverse=True)
    return fitness - (np.bincount(fold, weights=fitness) / np.bincount(fold))[fold]


def _told(costs: FloatArray) -> FloatArray:
    """What a pruned trial didn't tell is no worse than what others did."""
    return np.where(np.isnan(costs), 0.0, costs)


def _last_score(trial: FrozenTrial) -> float:
    if trial.state == TrialState.COMPLETE:
        return float(trial.values[0])
    curve = curve_of(trial)
    return float(curve[max(curve)]) if curve else float("nan")


def _fidelity(trial: FrozenTrial) -> float:
    if trial.state == TrialState.COMPLETE:
        return FULL_FIDELITY
    step = last_step_of(trial)
    return -1.0 if step is None else float(step)
