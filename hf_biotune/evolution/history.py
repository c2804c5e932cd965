"""The finished trials of a study as individuals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from .operators import FloatArray
from .plan import Plan, genotype_of, parameter_names
from .population import FULL_FIDELITY, Individual, minimised_fitness


@dataclass(frozen=True)
class History:
    """Every individual that has been trained, and what is expected of those that were pruned.

    Args:
        individuals: in the order of their generations and slots, which, unlike that of their
            numbers, isn't changed by trials that fail and are repeated.
        expected_fitness: at full fidelity, shape (len(individuals),); see [`expected_scores`].
        plans: of all trials, by number.
    """

    individuals: tuple[Individual, ...]
    expected_fitness: FloatArray
    plans: Mapping[int, Plan]

    def before(self, generation: int) -> History:
        """The part that belongs to earlier generations."""
        keep = [
            self.plans[individual.number].generation < generation for individual in self.individuals
        ]
        individuals = tuple(i for i, kept in zip(self.individuals, keep, strict=True) if kept)
        return History(individuals, self.expected_fitness[np.array(keep, dtype=bool)], self.plans)


def read(
    trials: Sequence[FrozenTrial],
    plans: Mapping[int, Plan],
    block_names: Sequence[str],
    *,
    maximize: bool,
) -> History:
    """Read the finished trials of a study.

    Args:
        trials: in the order of their numbers; those without a plan or without genes are left out.
        plans: by trial number.
        block_names: of the partition, in order.
        maximize: whether the study maximises.
    """
    genes = parameter_names(block_names)
    finished = sorted(
        (
            trial
            for trial in trials
            if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
            and trial.number in plans
            and all(name in trial.params for name in genes)
        ),
        key=lambda trial: (plans[trial.number].generation, plans[trial.number].slot),
    )
    scores = np.array([_last_score(trial) for trial in finished])
    expected = expected_scores(finished, scores)
    # Both at once, so that a shift of the scores is the same for both.
    fitness = minimised_fitness(np.concatenate([scores, expected]), maximize=maximize)
    individuals = tuple(
        Individual(
            genotype=genotype_of(trial, block_names),
            fitness=float(value),
            number=trial.number,
            fold=plans[trial.number].fold,
            fidelity=_fidelity(trial),
            parents=plans[trial.number].parents,
        )
        for trial, value in zip(finished, fitness[: len(finished)], strict=True)
    )
    return History(individuals, fitness[len(finished) :], plans)


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
    expected = scores.copy()
    complete = [i for i, trial in enumerate(trials) if trial.state == TrialState.COMPLETE]
    for index, trial in enumerate(trials):
        if trial.state == TrialState.PRUNED and (step := trial.last_step) is not None:
            gains = [
                scores[i] - trials[i].intermediate_values[step]
                for i in complete
                if step in trials[i].intermediate_values
            ]
            gains = [gain for gain in gains if np.isfinite(gain)]
            expected[index] += np.mean(gains) if gains else 0.0
    return expected


def _last_score(trial: FrozenTrial) -> float:
    if trial.state == TrialState.COMPLETE:
        return float(trial.values[0])
    step = trial.last_step
    return float("nan") if step is None else float(trial.intermediate_values[step])


def _fidelity(trial: FrozenTrial) -> float:
    if trial.state == TrialState.COMPLETE:
        return FULL_FIDELITY
    return -1.0 if trial.last_step is None else float(trial.last_step)
