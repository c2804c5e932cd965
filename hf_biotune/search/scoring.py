"""Scoring one individual of a search: reuse, train with halving and racing, or stop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

import optuna
from optuna.trial import FrozenTrial, Trial

from ..config import BioTuneConfig
from ..evolution import Plan, curve_of, plan_of, report_score
from .failures import Failures, not_of_the_training
from .fitness import FitnessEvaluator
from .fitness_result import FAILED, EpochRecord, FitnessResult
from .folds import Split
from .halving import MINIMUM_PEERS, is_kept, rung_epoch
from .history import (
    MULTIPLIERS_KEY,
    REUSED_KEY,
    finished_trials,
    fitness_of,
    has_own_training,
    phenotype_of,
    was_trained,
)
from .kept import KeptAdapters
from .listener import SearchListener
from .objectives import Objectives
from .phenotypes import other_settings, phenotype_key
from .search_config import SearchConfig


class Scorer:
    """Scores the individuals of one study.

    Args:
        study: what was trained before.
        evaluator: trains on all data or on a fold.
        folds: of the data.
        search: seeds, halving, racing, reuse.
        listener: is told of every epoch.
        kept: keeps the weights of the best.
        objectives: of the search.
        failures: deals with what goes wrong.
        has_room: whether the budget lasts for a further seed of an individual, after what that has
            spent. Default: always.
    """

    def __init__(
        self,
        study: optuna.Study,
        evaluator: FitnessEvaluator,
        folds: Sequence[Split],
        search: SearchConfig,
        listener: SearchListener,
        kept: KeptAdapters,
        objectives: Objectives,
        failures: Failures,
        has_room: Callable[[FitnessResult], bool] = lambda fitness: True,
    ) -> None:
        self._study = study
        self._evaluator = evaluator
        self._folds = folds
        self._search = search
        self._listener = listener
        self._kept = kept
        self._objectives = objectives
        self._failures = failures
        self._has_room = has_room

    def scored_before(self, plan: Plan, config: BioTuneConfig) -> FrozenTrial | None:
        """A finished trial of the same blocks and rates, to a quarter of a decade, and fold.

        The first seed of all is the same. One that was halved counts too: it was behind its peers,
        which have only become better since.
        """
        if not self._search.memoise:
            return None
        key = phenotype_key({**config.lr_multipliers, **other_settings(config)})
        for trial in finished_trials(self._study):
            if (
                has_own_training(trial)
                and plan_of(trial).fold == plan.fold
                and phenotype_key(phenotype_of(trial)) == key
            ):
                return trial
        return None

    def reuse(self, trial: Trial, earlier: FrozenTrial) -> FitnessResult:
        """The result of an earlier trial, given to one that trains the same."""
        trial.set_user_attr(REUSED_KEY, earlier.number)
        fitness = fitness_of(earlier)
        if fitness.was_halved:
            # So that the evolution knows after which epoch it was stopped.
            for epoch, record in enumerate(fitness.runs[0].curve, start=1):
                report_score(trial, record.score, epoch)
        return fitness

    def train(self, trial: Trial, plan: Plan, config: BioTuneConfig) -> FitnessResult:
        """Train an individual on its fold, unless it is halved, and report its curve.

        If it takes the lead, it is trained with a further seed, and so on as long as it leads and
        the budget lasts.
        """
        seeds = self._search.seeds
        fitness = self._evaluate(trial, plan, config, seeds[0])
        for number, seed in enumerate(seeds[1:], start=1):
            is_for_all = number < self._search.seeds_per_individual
            if fitness.was_halved or fitness.runs[0].stopped == FAILED:
                break
            if not is_for_all and not (self._has_room(fitness) and self._leads(fitness, plan.fold)):
                break
            further = self._evaluate(trial, plan, config, seed, is_leader=not is_for_all)
            if further.runs[0].stopped == FAILED:
                break  # what is known of it is still true
            fitness = fitness.joined(further)
        return fitness

    def _evaluate(
        self,
        trial: Trial,
        plan: Plan,
        config: BioTuneConfig,
        seed: int,
        is_leader: bool = False,
    ) -> FitnessResult:
        split = self._folds[plan.fold]
        rung = rung_epoch(self._evaluator.epochs)
        first = self._search.seeds[0]
        started = time.perf_counter()

        def after_epoch(seed: int, curve: Sequence[EpochRecord]) -> bool:
            with not_of_the_training():
                self._listener.on_epoch_end(seed, curve, self._evaluator.epochs)
            if seed == first:
                report_score(trial, curve[-1].score, len(curve))
            is_last = rung >= self._evaluator.epochs  # there is nothing left to save
            if not self._search.halving or seed != first or len(curve) != rung or is_last:
                return True
            seconds = (time.perf_counter() - started) / len(curve)
            own = self._costs(config.lr_multipliers, seconds)
            peers = self._scores_at(rung, plan.fold, but=trial.number, at_most=own)
            return is_kept(curve[-1].score, peers, self._evaluator.metric)

        # Of a leader, a training that went worse than others' is kept too.
        keeper = self._kept.keeper(trial.number, None if is_leader else plan.fold)
        return self._failures.recorded(
            lambda: self._evaluator.evaluate(
                config, [seed], split.train, split.validation, after_epoch, keeper
            ),
            seed,
        )

    def _leads(self, fitness: FitnessResult, fold: int) -> bool:
        """Whether an individual is better than all that were trained on the fold before it."""
        if not self._search.racing:
            return False
        others = [
            fitness_of(trial).score
            for trial in finished_trials(self._study)
            if was_trained(trial) and plan_of(trial).fold == fold
        ]
        metric = self._evaluator.metric
        return len(others) >= MINIMUM_PEERS and all(
            metric.is_better(fitness.score, other) for other in others
        )

    def _scores_at(self, epoch: int, fold: int, but: int, at_most: Sequence[float]) -> list[float]:
        """What finished trials of a fold had scored after so many epochs, each training once.

        Of a search for several objectives, those that cost no more: a cheap individual need not
        score as well as a dear one.
        """
        return [
            curve[epoch]
            for trial in finished_trials(self._study)
            if trial.number != but
            and has_own_training(trial)
            and epoch in (curve := curve_of(trial))
            and plan_of(trial).fold == fold
            and self._costs_no_more(trial, at_most)
        ]

    def _costs_no_more(self, trial: FrozenTrial, at_most: Sequence[float]) -> bool:
        if not at_most:
            return True
        run = fitness_of(trial).runs[0]
        costs = self._costs(trial.user_attrs[MULTIPLIERS_KEY], run.seconds / max(1, run.epochs))
        return all(cost <= most for cost, most in zip(costs, at_most, strict=True))

    def _costs(self, trained: Iterable[str], seconds_per_epoch: float) -> list[float]:
        """What can be said of each cost at a rung; in place of seconds, those of an epoch."""
        return [
            seconds_per_epoch if cost is None else sum(cost[name] for name in trained)
            for cost in self._objectives.of_blocks
        ]
