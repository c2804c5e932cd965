"""The engine of a search: asks for genotypes, trains them, keeps the results, chooses the winner.

All state lives in the Optuna storage; this object can be thrown away at any moment.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError
from torch import nn
from transformers import TrainingArguments

from ..blocks import BlockSpec, partition
from ..config import BioTuneConfig
from ..evolution import (
    BioTuneSampler,
    Plan,
    genotype_of,
    plan_of,
    suggest_genotype,
)
from ..exceptions import ConfigError
from ..genotype import Genotype, lr_multiplier
from .data import EncodedSplit
from .finalists import Finalist, best_of, confirm, confirmations, contenders
from .fitness import (
    EpochRecord,
    FitnessEvaluator,
    FitnessResult,
    SeedRun,
    StoppingRule,
)
from .folds import Split, folds
from .halving import is_kept, rung_epoch
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
from .layout import LAYOUTS, fastest_layout
from .listener import SearchListener, TrialReport
from .metrics import resolve_metric
from .result import SearchResult
from .search_config import SearchConfig
from .starts import starting_points
from .weights import BaseModelPool

# A search whose individuals were all scored before has nothing left to find.
MAXIMUM_REUSED_IN_A_ROW = 50
LAYOUT_KEY = "memory_layout"


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
        self._listener = listener
        self._metric = resolve_metric(search.metric, search.greater_is_better)
        pool = BaseModelPool(model_init, args.device)
        self._partition = partition(pool.model, blocks)
        for name in search.always_train:
            self._partition[name]  # raises for an unknown block
        self._unsaved = pool.seeded_blocks(self._partition, search.seeds)
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
        self._sampler = BioTuneSampler(
            self._partition.names,
            population_size=search.population_size,
            n_elites=search.n_elites,
            n_folds=len(self._folds),
            seed=search.seed,
            surrogate=search.surrogate,
            first=self._first(),
        )

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
        while not self._is_over():
            self._run_trial()
        if not any(was_trained(trial) for trial in self._study.get_trials(deepcopy=False)):
            raise ConfigError(
                f"no individual was trained within the budget of {self._search.parsed_budget}; "
                f"give a larger one"
            )
        result = self._choose()
        self._listener.on_search_end()
        return result

    def _is_over(self) -> bool:
        trials = finished_trials(self._study)
        if self._search.generations is not None:
            scheme, last = self._sampler.scheme, self._search.generations
            if len(trials) >= sum(scheme.n_slots(g) for g in range(last + 1)):
                return True
        newest = trials[-MAXIMUM_REUSED_IN_A_ROW:]
        if len(newest) == MAXIMUM_REUSED_IN_A_ROW and all(
            REUSED_KEY in trial.user_attrs for trial in newest
        ):
            return True
        return self._share_spent(trials) >= 1.0

    def _reserved(self) -> float:
        """Trainings that the confirmation of the finalists will need."""
        known = self._search.seeds_per_individual if len(self._folds) == 1 else 0
        return self._search.n_finalists * (len(self._search.seeds) - known)

    def _share_spent(self, trials: Sequence[FrozenTrial]) -> float:
        """How much of the budget the trials cost, confirmation of finalists reserved."""
        budget = self._search.parsed_budget
        spent = spent_trainings(trials)
        if budget.trainings is not None:
            # However small the budget, half of it is for trying.
            return spent / max(budget.trainings - self._reserved(), budget.trainings / 2)
        if budget.minutes is not None:
            seconds = sum(own_seconds(trial) for trial in trials)
            per_training = seconds / spent if spent else 0.0
            left = budget.minutes * 60 - self._reserved() * per_training
            return seconds / max(left, budget.minutes * 30)
        return 0.0

    # -- one individual -------------------------------------------------------------------------

    def _run_trial(self) -> None:
        trial = self._study.ask()
        try:
            genotype = suggest_genotype(trial, self._partition.names)
            plan = plan_of(trial)
            self._listener.on_trial_begin(trial.number, plan.generation, plan.role)
            config = self._config_of(genotype)
            trial.set_user_attr(MULTIPLIERS_KEY, config.lr_multipliers)
            earlier = self._scored_before(plan, config) if self._search.memoise else None
            if earlier is not None:
                trial.set_user_attr(REUSED_KEY, earlier.number)
                fitness = fitness_of(earlier)
            else:
                fitness = self._train(trial, plan, config)
            trial.set_user_attr(FITNESS_KEY, fitness.to_dict())
        except BaseException:
            # A KeyboardInterrupt too: the genes will be tried again when the search goes on.
            self._study.tell(trial, state=TrialState.FAIL)
            raise
        if fitness.was_halved:
            self._study.tell(trial, state=TrialState.PRUNED)
        else:
            self._study.tell(trial, fitness.score)
        self._report(trial.number)

    def _config_of(self, genotype: Genotype) -> BioTuneConfig:
        config = BioTuneConfig.from_genotype(
            genotype, self._partition, norm_statistics=self._search.norm_statistics
        )
        genes = dict(zip(self._partition.names, genotype.importances, strict=True))
        multipliers = config.lr_multipliers
        for name in self._search.always_train:
            multipliers.setdefault(name, lr_multiplier(genes[name]))
        config.lr_multipliers = {
            name: multipliers[name] for name in self._partition.names if name in multipliers
        }
        config.saved_blocks = [name for name in self._unsaved if name not in multipliers]
        return config

    def _scored_before(self, plan: Plan, config: BioTuneConfig) -> FrozenTrial | None:
        """A finished trial of the same blocks and rates, to a quarter of a decade, and fold."""
        key = _phenotype_key(config.lr_multipliers)
        for trial in finished_trials(self._study):
            if (
                was_trained(trial)
                and plan_of(trial).fold == plan.fold
                and _phenotype_key(trial.user_attrs[MULTIPLIERS_KEY]) == key
            ):
                return trial
        return None

    def _train(self, trial: Trial, plan: Plan, config: BioTuneConfig) -> FitnessResult:
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
            return is_kept(curve[-1].score, peers, self._metric)

        return self._evaluator.evaluate(config, seeds, split.train, split.validation, after_epoch)

    def _scores_at(self, epoch: int, fold: int, but: int) -> list[float]:
        """What finished trials of a fold had scored after so many epochs."""
        return [
            trial.intermediate_values[epoch]
            for trial in finished_trials(self._study)
            if trial.number != but
            and epoch in trial.intermediate_values
            and plan_of(trial).fold == fold
        ]

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
                share_spent=min(1.0, self._share_spent(trials)),
            )
        )

    # -- the winner -----------------------------------------------------------------------------

    def _choose(self) -> SearchResult:
        n = max(1, self._search.n_finalists)
        trials = contenders(self._study, self._metric, n)
        if self._search.n_finalists:
            finalists = [self._confirm(trial) for trial in trials]
        else:
            finalists = [Finalist(trial.number, fitness_of(trial)) for trial in trials]
        best = best_of(finalists, self._metric)
        trial = next(t for t in trials if t.number == best.trial)
        finished = finished_trials(self._study)
        confirmed = confirmations(self._study)
        return SearchResult(
            best_config=self._config_of(genotype_of(trial, self._partition.names)),
            best_genotype=genotype_of(trial, self._partition.names),
            best_score=best.fitness.score,
            best_trial=best.trial,
            finalists=tuple(finalists),
            study=self._study,
            history=history_of(self._study, self._partition),
            partition=self._partition,
            memory_layout=self._layout,
            trainings=spent_trainings(finished) + sum(fitness.trainings for fitness in confirmed),
            seconds=sum(own_seconds(t) for t in finished)
            + sum(fitness.seconds for fitness in confirmed),
        )

    def _confirm(self, trial: FrozenTrial) -> Finalist:
        config = self._config_of(genotype_of(trial, self._partition.names))
        known: Sequence[SeedRun] = fitness_of(trial).runs if len(self._folds) == 1 else ()
        return confirm(
            self._study,
            trial,
            config,
            self._evaluator,
            self._search.seeds,
            known,
            lambda run: self._listener.on_finalist(trial.number, run.seed, run.score),
        )


def _phenotype_key(multipliers: dict[str, float]) -> tuple[tuple[str, int], ...]:
    """Blocks and rates to a quarter of a decade: finer differences are below the noise of seeds."""
    return tuple(
        (name, round(4 * float(np.log10(multiplier)))) for name, multiplier in multipliers.items()
    )
