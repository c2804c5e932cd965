"""The engine of a search: asks for genotypes, trains them, keeps the results, chooses the winner.

All state lives in the Optuna storage; this object can be thrown away at any moment.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import optuna
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.trial import TrialState
from sqlalchemy.exc import SQLAlchemyError
from torch import nn
from transformers import TrainingArguments

from ..blocks import BlockSpec, partition
from ..evolution import plan_of, suggest_genotype
from ..exceptions import ConfigError
from ..genotype import Genotype
from .adapter_store import AdapterDirectory, AdapterMemory, AdapterStore
from .data import EncodedSplit
from .finalists import best_of, confirmations, contenders, finalists_of
from .fitness import FitnessEvaluator, StoppingRule
from .folds import Split, folds
from .history import (
    FITNESS_KEY,
    MULTIPLIERS_KEY,
    REUSED_KEY,
    finished_trials,
    fitness_of,
    history_of,
    own_seconds,
    spent_trainings,
    was_trained,
)
from .identity import claim, identity_of
from .kept import KeptAdapters
from .layout import LAYOUTS, fastest_layout
from .listener import SearchListener, TrialReport
from .metrics import resolve_metric
from .phenotypes import Phenotypes
from .result import SearchResult
from .samplers import sampler_of
from .scoring import Scorer
from .search_config import SearchConfig
from .spending import Spending
from .starts import starting_points
from .weights import BaseModelPool

LAYOUT_KEY = "memory_layout"
ADAPTERS_NAME = "adapters"


class SearchEngine:
    """One process's part of a search; the study is in the storage."""

    def __init__(
        self,
        model_init: Callable[[], nn.Module],
        train: EncodedSplit,
        validation: EncodedSplit,
        args: TrainingArguments,
        search: SearchConfig,
        blocks: BlockSpec,
        listener: SearchListener,
    ) -> None:
        self._search = search
        self._model_init = model_init
        self._listener = listener
        self._metric = resolve_metric(search.metric, search.greater_is_better)
        pool = BaseModelPool(model_init, args.device)
        self._partition = partition(pool.model, blocks)
        self._phenotypes = Phenotypes(
            self._partition, search, pool.seeded_blocks(self._partition, search.seeds)
        )
        self._identity = identity_of(
            pool.restore(0), self._partition, train, validation, args, search
        )
        self._evaluator = FitnessEvaluator(
            pool,
            train,
            validation,
            args,
            self._metric,
            StoppingRule(search.patience, search.patience_from),
        )
        self._folds: list[Split] = folds(
            train.labels.numpy(),
            validation.labels.numpy(),
            fraction=search.fold_fraction,
            seed=search.seed,
            label_names=train.label_names,
        )
        self._sampler = sampler_of(search, self._partition.names, self._first())
        self._spending = Spending(search, self._sampler.scheme)

    def _first(self) -> list[Genotype]:
        """The seeded individuals; as many as the population holds."""
        if not self._search.seeded_start:
            return []
        points = list(starting_points(self._partition).values())
        return points[: self._search.population_size]

    # -- the study ------------------------------------------------------------------------------

    def open(self, storage: str | BaseStorage, study_name: str) -> None:
        """Create the study, or go on with the one that is there."""
        try:
            self._study = optuna.create_study(
                storage=storage,
                sampler=self._sampler,
                study_name=study_name,
                direction="maximize" if self._metric.greater_is_better else "minimize",
                load_if_exists=True,
            )
        except (ValueError, ImportError, OSError, SQLAlchemyError) as error:
            raise ConfigError(f"storage {storage!r} can't be opened: {error}") from error
        claim(self._study, self._identity)
        self._choose_layout()
        self._fail_orphans()
        self._kept = self._keep_in(_adapter_store(storage, self._evaluator.args))
        self._scorer = Scorer(
            self._study, self._evaluator, self._folds, self._search, self._listener, self._kept
        )

    def _keep_in(self, store: AdapterStore) -> KeptAdapters:
        return KeptAdapters(self._study, self._identity, store, self._search, self._metric)

    def _choose_layout(self) -> None:
        layout = self._search.memory_layout
        if layout == "auto":
            # Measured once per study: another choice after a restart would change last bits.
            if LAYOUT_KEY not in self._study.user_attrs:
                evaluator = self._evaluator
                self._study.set_user_attr(
                    LAYOUT_KEY,
                    fastest_layout(
                        evaluator.pool.restore(0),
                        evaluator.train,
                        evaluator.args.per_device_train_batch_size,
                        evaluator.args.device,
                    ),
                )
            layout = self._study.user_attrs[LAYOUT_KEY]
        self._evaluator.pool.model.to(memory_format=LAYOUTS[layout])
        self._layout = layout

    def _fail_orphans(self) -> None:
        """What a killed process was training is trained again, with the same genes."""
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            self._study.tell(trial.number, state=TrialState.FAIL)

    def run(self) -> SearchResult:
        """Spend what is left of the budget, then choose the winner."""
        self._listener.on_search_begin(
            self._partition, self._search.parsed_budget, len(finished_trials(self._study))
        )
        while not self._spending.is_over(finished_trials(self._study)):
            self._run_trial()
        if not any(was_trained(trial) for trial in self._study.get_trials(deepcopy=False)):
            raise ConfigError(
                f"no individual was trained within the budget of {self._search.parsed_budget}; "
                f"give a larger one"
            )
        result = self._choose()
        self._listener.on_search_end()
        return result

    # -- one individual -------------------------------------------------------------------------

    def _run_trial(self) -> None:
        trial = self._study.ask()
        try:
            suggest_genotype(trial, self._partition.names)
            genotype = self._phenotypes.genotype_of(trial)
            plan = plan_of(trial)
            self._listener.on_trial_begin(trial.number, plan.generation, plan.role)
            config = self._phenotypes.config_of(genotype)
            trial.set_user_attr(MULTIPLIERS_KEY, config.lr_multipliers)
            earlier = self._scorer.scored_before(plan, config)
            if earlier is not None:
                trial.set_user_attr(REUSED_KEY, earlier.number)
                fitness = fitness_of(earlier)
            else:
                fitness = self._scorer.train(trial, plan, config)
            trial.set_user_attr(FITNESS_KEY, fitness.to_dict())
        except BaseException:
            # A KeyboardInterrupt too: the genes will be tried again when the search goes on.
            self._study.tell(trial, state=TrialState.FAIL)
            raise
        if fitness.was_halved:
            self._study.tell(trial, state=TrialState.PRUNED)
        else:
            self._study.tell(trial, fitness.score)
            self._kept.prune()
        self._report(trial.number)

    def _report(self, number: int) -> None:
        trials = finished_trials(self._study)
        trial = next(t for t in trials if t.number == number)
        best = contenders(self._study, self._metric, 1)
        plan = plan_of(trial)
        reused = REUSED_KEY in trial.user_attrs
        self._listener.on_trial_end(
            TrialReport(
                number=number,
                generation=plan.generation,
                role=plan.role,
                state="reused" if reused else trial.state.name.lower(),
                score=fitness_of(trial).score,
                multipliers=trial.user_attrs[MULTIPLIERS_KEY],
                best_score=fitness_of(best[0]).score if best else math.nan,
                best_multipliers=best[0].user_attrs[MULTIPLIERS_KEY] if best else {},
                trainings=spent_trainings(trials),
                seconds=sum(own_seconds(t) for t in trials),
                share_spent=min(1.0, self._spending.share_spent(trials)),
            )
        )

    # -- the winner -----------------------------------------------------------------------------

    def _choose(self) -> SearchResult:
        finalists = finalists_of(
            self._study,
            self._evaluator,
            self._phenotypes,
            self._search,
            self._listener,
            self._kept.keeper,
        )
        best = best_of(finalists, self._metric)
        trial = self._study.get_trials(deepcopy=False)[best.trial]
        genotype = self._phenotypes.genotype_of(trial)
        finished = finished_trials(self._study)
        confirmed = confirmations(self._study)
        return SearchResult(
            best_config=self._phenotypes.config_of(genotype),
            best_genotype=genotype,
            best_score=best.fitness.score,
            best_trial=best.trial,
            finalists=tuple(finalists),
            study=self._study,
            history=history_of(self._study, self._partition),
            partition=self._partition,
            memory_layout=self._layout,
            model_init=self._model_init,
            kept=self._kept,
            trainings=spent_trainings(finished) + sum(fitness.trainings for fitness in confirmed),
            seconds=sum(own_seconds(t) for t in finished)
            + sum(fitness.seconds for fitness in confirmed),
        )


def _adapter_store(storage: str | BaseStorage, args: TrainingArguments) -> AdapterStore:
    """Weights last as long as the study that they belong to."""
    if isinstance(storage, InMemoryStorage):
        return AdapterMemory()
    return AdapterDirectory(Path(args.output_dir) / ADAPTERS_NAME)
