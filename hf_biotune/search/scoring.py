"""Scoring one individual of a search: reuse, train with halving, or stop."""

from __future__ import annotations

from collections.abc import Sequence

import optuna
from optuna.trial import FrozenTrial, Trial

from ..config import BioTuneConfig
from ..evolution import Plan, plan_of
from .fitness import EpochRecord, FitnessEvaluator, FitnessResult
from .folds import Split
from .halving import is_kept, rung_epoch
from .history import MULTIPLIERS_KEY, finished_trials, was_trained
from .kept import KeptAdapters
from .listener import SearchListener
from .phenotypes import phenotype_key
from .search_config import SearchConfig


class Scorer:
    """Scores the individuals of one study.

    Args:
        study: what was trained before.
        evaluator: trains on all data or on a fold.
        folds: of the data.
        search: seeds, halving, reuse.
        listener: is told of every epoch.
        kept: keeps the weights of the best.
    """

    def __init__(
        self,
        study: optuna.Study,
        evaluator: FitnessEvaluator,
        folds: Sequence[Split],
        search: SearchConfig,
        listener: SearchListener,
        kept: KeptAdapters,
    ) -> None:
        self._study = study
        self._evaluator = evaluator
        self._folds = folds
        self._search = search
        self._listener = listener
        self._kept = kept

    def scored_before(self, plan: Plan, config: BioTuneConfig) -> FrozenTrial | None:
        """A finished trial of the same blocks and rates, to a quarter of a decade, and fold."""
        if not self._search.memoise:
            return None
        key = phenotype_key(config.lr_multipliers)
        for trial in finished_trials(self._study):
            if (
                was_trained(trial)
                and plan_of(trial).fold == plan.fold
                and phenotype_key(trial.user_attrs[MULTIPLIERS_KEY]) == key
            ):
                return trial
        return None

    def train(self, trial: Trial, plan: Plan, config: BioTuneConfig) -> FitnessResult:
        """Train an individual on its fold, unless it is halved, and report its curve."""
        split = self._folds[plan.fold]
        rung = rung_epoch(self._evaluator.epochs)
        seeds = self._search.seeds[: self._search.seeds_per_individual]

        def after_epoch(seed: int, curve: Sequence[EpochRecord]) -> bool:
            self._listener.on_epoch_end(seed, curve, self._evaluator.epochs)
            if seed == seeds[0]:
                trial.report(curve[-1].score, step=len(curve))
            if not self._search.halving or seed != seeds[0] or len(curve) != rung:
                return True
            peers = self._scores_at(rung, plan.fold, but=trial.number)
            return is_kept(curve[-1].score, peers, self._evaluator.metric)

        keeper = self._kept.keeper(trial.number, plan.fold)
        return self._evaluator.evaluate(
            config, seeds, split.train, split.validation, after_epoch, keeper
        )

    def _scores_at(self, epoch: int, fold: int, but: int) -> list[float]:
        """What finished trials of a fold had scored after so many epochs."""
        return [
            trial.intermediate_values[epoch]
            for trial in finished_trials(self._study)
            if trial.number != but
            and epoch in trial.intermediate_values
            and plan_of(trial).fold == fold
        ]
