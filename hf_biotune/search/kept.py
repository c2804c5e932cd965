"""Which individuals' weights a search keeps: nothing good is trained twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
import torch
from optuna.trial import FrozenTrial, TrialState
from torch import nn

from ..exceptions import CheckpointError, ConfigError
from ..model import BioTuneModel
from .adapter_store import AdapterStore, TrainedRun
from .contenders import contenders, distinct_best, finalist_trials, trained_by_fold
from .finalists import Finalist, best_of
from .fitness import RunKeeper
from .fitness_result import DIVERGED, SeedRun
from .history import MULTIPLIERS_KEY, fitness_of, phenotype_of
from .metrics import Metric
from .search_config import SearchConfig


class KeptAdapters:
    """The weights of a search's best individuals, as adapters.

    Kept are all trainings of the best individuals of each fold that were trained to their end;
    when a better one comes, the worst of them goes. Which these are is read from the study. In a
    search for several objectives those on the front are kept as well, and those that come onto it
    if finalists turn out to be worse.

    Args:
        study: what was trained.
        identity: what the study is about, so that another study's adapters are not taken for ours.
        store: where the weights are.
        search: how many individuals are kept.
        metric: the score.
        n_starts: how many of the first individuals are what people do by hand; the best of them
            is a finalist, and kept.
    """

    def __init__(
        self,
        study: optuna.Study,
        identity: Mapping[str, Any],
        store: AdapterStore,
        search: SearchConfig,
        metric: Metric,
        n_starts: int = 0,
    ) -> None:
        self._n_starts = n_starts
        self._study = study
        self._digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        self._store = store
        self._search = search
        self._metric = metric

    @property
    def _number(self) -> int:
        """Individuals per fold."""
        return max(self._search.keep_best, self._search.n_finalists)

    def keeper(self, trial: int, fold: int | None = None) -> RunKeeper:
        """What keeps the weights of an individual while it is trained.

        Args:
            trial: its number.
            fold: that it is trained on. Default `None`: a finalist, whose weights are kept however
                this training ends.
        """
        if not self._search.keep_best:
            return RunKeeper()
        least = None
        # The mean over several seeds can be good though that of one is not, and what is cheap may
        # be on the front.
        ranked_by_score = self._search.seeds_per_individual == 1 and not self._search.objectives
        if fold is not None and ranked_by_score:
            trained = trained_by_fold(self._study).get(fold, [])
            ranked = distinct_best(trained, self._metric)
            if len(ranked) >= self._number:
                least = fitness_of(ranked[self._number - 1]).score
        return _Keeper(self, trial, least)

    def _is_wanted(self, score: float, least: float | None) -> bool:
        return least is None or not self._metric.is_better(least, score)

    def _save(
        self,
        trial: int,
        model: BioTuneModel,
        run: SeedRun,
        tensors: Mapping[str, torch.Tensor],
    ) -> None:
        self._store.save(self._trained(trial, run), model, tensors)

    def _trained(self, trial: int, run: SeedRun) -> TrainedRun:
        return TrainedRun(self._digest, trial, run.seed, run.score)

    def prune(self) -> None:
        """Remove the weights of individuals that are no longer among the best."""
        if not self._search.keep_best:
            return
        # In this order: what another process finishes meanwhile must not seem to be neither in
        # training nor among the best.
        stored = self._store.trials()
        trials = self._study.get_trials(deepcopy=False)
        in_training = {t.number for t in trials if t.state == TrialState.RUNNING}
        best = {
            trial.number
            for trained in trained_by_fold(self._study).values()
            for trial in distinct_best(trained, self._metric)[: self._number]
        }
        # Finalists differ from each other, so they need not be the very best.
        n_finalists = max(1, self._search.n_finalists)
        best |= {
            trial.number
            for trial in finalist_trials(self._study, self._metric, n_finalists, self._n_starts)
        }
        for trained in trained_by_fold(self._study).values():
            best |= self._on_front(trained)
        for trial in stored - best - in_training:
            self._store.remove(trial)

    def _on_front(self, trained: Sequence[FrozenTrial]) -> set[int]:
        """The numbers of those on the front, or that may be; nobody's if the score alone counts.

        Further seeds may cost every finalist its place. Whom nobody but finalists dominates is on
        the front then.
        """
        if not self._search.objectives:
            return set()
        losses = np.array([trial.values for trial in trained])
        if self._metric.greater_is_better:
            losses[:, 0] *= -1.0
        no_worse = (losses[:, None] <= losses[None, :]).all(-1)
        dominated_by = no_worse & (losses[:, None] < losses[None, :]).any(-1)
        is_kept = dominated_by.sum(0) <= self._search.n_finalists
        return {trial.number for trial, kept in zip(trained, is_kept, strict=True) if kept}

    def best(self, n: int, finalists: Sequence[Finalist]) -> list[FrozenTrial]:
        """The best individuals, with distinct blocks and rates.

        Finalists that may be the best come first, then others, all by what is known of each: the
        mean over its seeds. A finalist that is not kept for its score in the search, such as the
        best of the seeded start, counts only if it is the winner.

        Args:
            n: how many.
            finalists: of the search.

        Raises:
            ConfigError: fewer were trained to their end, or are kept.
        """
        trials = self._study.get_trials(deepcopy=False)
        winner = trials[best_of(finalists, self._metric).trial]
        others = contenders(self._study, self._metric, self._number)
        candidates = [winner, *(t for t in others if phenotype_of(t) != phenotype_of(winner))]
        if n > min(len(candidates), self._number):
            raise ConfigError(
                f"{n} individuals are asked for, but {len(candidates)} with distinct blocks and "
                f"rates were trained to their end, and the search keeps the best {self._number} "
                f"(keep_best); ask for fewer, or search with larger budget and keep_best"
            )
        sign = -1 if self._metric.greater_is_better else 1
        confirmed = {finalist.trial: finalist.fitness.score for finalist in finalists}
        leading = {finalist.trial for finalist in finalists if finalist.in_contention}

        def rank(trial: FrozenTrial) -> tuple[bool, float]:
            score = confirmed.get(trial.number, fitness_of(trial).score)
            return trial.number not in leading, sign * score

        return sorted(candidates, key=rank)[:n]

    def holds(self, trial: FrozenTrial, run: SeedRun) -> bool:
        """Whether the weights of an individual's training are there."""
        return self._store.holds(
            self._trained(trial.number, run), trial.user_attrs[MULTIPLIERS_KEY]
        )

    def load(self, trial: FrozenTrial, run: SeedRun, base: nn.Module) -> BioTuneModel:
        """The model of an individual's training, as it was after its best epoch.

        Args:
            trial: the individual.
            run: the training.
            base: the base model under that seed; changed in place.

        Raises:
            ConfigError: the search keeps no weights.
            CheckpointError: it did not keep these.
        """
        if not self._search.keep_best:
            raise ConfigError(
                "keep_best is 0, so the search kept no weights; search with keep_best=1 or more, "
                "or fine-tune best_config with FineTuner"
            )
        if not self.holds(trial, run):
            raise CheckpointError(
                f"the weights of individual {trial.number} with seed {run.seed} are not in "
                f"{self._store}: they were deleted, or were trained on another machine, or with a "
                f"smaller keep_best; fine-tune its blocks and rates again with FineTuner"
            )
        return self._store.load(self._trained(trial.number, run), base)


class _Keeper(RunKeeper):
    """Copies the trained blocks at each best epoch, and hands them over at the end."""

    def __init__(self, kept: KeptAdapters, trial: int, least: float | None) -> None:
        self._kept = kept
        self._trial = trial
        self._least = least
        self._tensors: dict[str, torch.Tensor] = {}

    def on_best_epoch(self, model: BioTuneModel, score: float) -> None:
        if not self._kept._is_wanted(score, self._least):
            # What is there is of an attempt for which memory did not suffice.
            self._tensors = {}
            return
        for name, tensor in model.biotune_state_dict().items():
            if name in self._tensors:
                self._tensors[name].copy_(tensor)
            else:
                self._tensors[name] = tensor.detach().to("cpu", copy=True)

    def on_run_end(self, model: BioTuneModel, run: SeedRun) -> None:
        tensors, self._tensors = self._tensors, {}
        if tensors and run.stopped not in ("halving", DIVERGED):
            self._kept._save(self._trial, model, run, tensors)
