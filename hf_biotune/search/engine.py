"""The engine of a search: asks for genotypes, trains them, keeps the results, chooses the winner.

All state lives in the Optuna storage; this object can be thrown away at any moment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import optuna
from optuna.storages import BaseStorage
from optuna.trial import TrialState
from torch import nn
from transformers import TrainingArguments

from ..blocks import BlockSpec, partition
from ..evolution import Scheme
from ..exceptions import BioTuneError, ConfigError, StorageError, TrainingError
from ..genotype import Genotype
from .adapter_store import AdapterStore, adapter_store
from .budget_plan import BudgetPlan, n_finalists_of, plan_budget, population_of, report_of
from .calibration import choose_execution
from .data import EncodedSplit
from .execution import candidates_of
from .failures import Failures
from .finalists import best_of, confirmations, finalists_of, missing_confirmations
from .fitness import FitnessEvaluator
from .folds import Split, folds
from .gradients import relative_gradient_norms
from .history import FAILURE_KEY, finished_trials, history_of, was_trained
from .identity import claim, identity_of
from .kept import KeptAdapters
from .leadership import LeadingEvaluator, check_same_everywhere, follow
from .listener import SearchListener
from .loop import TrialLoop
from .metrics import resolve_metric
from .objectives import Objectives
from .orphans import PROCESS_KEY, fail
from .out_of_memory import is_out_of_memory
from .phenotypes import Phenotypes, fitted_to, neutral_genes
from .prefix_cache import PrefixCache
from .processes import Processes
from .result import SearchResult
from .samplers import sampler_of
from .scoring import Scorer
from .search_config import SearchConfig
from .spending import Spending
from .starts import full_fine_tuning, starts_of
from .stopping import StoppingRule
from .storages import server_errors, storage_errors
from .team import ALONE, Team
from .weights import BaseModelPool

SIZES_KEY = "population_size, n_elites, seconds_per_fine_tuning"


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
        team: Team = ALONE,
    ) -> None:
        self._model_init = model_init
        self._candidates = candidates_of(
            args, search.memory_layout, search.precision, search.fused_optimizer
        )
        self._listener = listener
        self._metric = resolve_metric(search.metric, search.greater_is_better)
        pool = BaseModelPool(model_init, args.device)
        self._partition = partition(pool.model, blocks)
        self._search = search = fitted_to(pool.model, search)
        unsaved = pool.seeded_blocks(self._partition, search.seeds)
        self._phenotypes = Phenotypes(self._partition, search, unsaved, args.learning_rate)
        self._objectives = Objectives.of(
            self._metric,
            search.objectives[1:],
            pool.model,
            self._partition,
            search.always_train,
            unsaved,
        )
        self._identity = identity_of(
            pool.restore(0), self._partition, train, validation, args, search, team.size
        )
        check_same_everywhere(team, self._identity)
        self._cache = prefix_cache(pool, search, args)
        evaluator = LeadingEvaluator if team.is_leader else FitnessEvaluator
        self._evaluator = evaluator(
            pool,
            train,
            validation,
            args,
            self._metric,
            StoppingRule(search.patience, search.patience_from),
            cache=self._cache,
            team=team,
        )
        self._folds: list[Split] = folds(
            train.labels.numpy(),
            validation.labels.numpy(),
            fraction=search.fold_fraction,
            seed=search.seed,
            label_names=train.label_names,
        )

    def follow(self) -> SearchResult:
        """Train with the team what its leader wants trained, until the search is over.

        Returns:
            What the leader has.
        """
        try:
            return follow(self._evaluator, self._model_init)
        finally:
            self._close_cache()

    def _close_cache(self) -> None:
        if self._cache is not None:
            self._cache.close()

    # -- the study ------------------------------------------------------------------------------

    @contextmanager
    def open(self, storage: BaseStorage, study_name: str) -> Iterator[None]:
        """Create the study, or go on with the one that is there; alone or beside others.

        What is decided once, such as how trainings are computed, is decided by whoever comes first.
        """
        try:
            # Whatever goes wrong, all of it is tried: the last one first.
            with ExitStack() as stack:
                stack.callback(self._close_cache)
                self._study = optuna.create_study(
                    storage=storage,
                    study_name=study_name,
                    directions=self._objectives.directions,
                    load_if_exists=True,
                )
                self._processes = Processes(self._study)
                stack.callback(self._processes.close)
                stack.callback(self._give_up_what_is_left)
                with self._processes.turn("opening"):
                    claim(self._study, self._identity)
                    self._choose_execution()
                    self._fit_to_budget()
                self._kept = self._keep_in(
                    adapter_store(storage, self._evaluator.args.output_dir, study_name)
                )
                self._failures = Failures(self._study, self._metric, self._search.max_failed_share)
                yield
        except server_errors() as error:
            raise StorageError(
                f"the storage of the study can't be written to or read: {error}. Every finished "
                f"individual is in it; go on with the same command when it works again"
            ) from error

    def _give_up_what_is_left(self) -> None:
        """A trial that was interrupted while it was planned is not known to be over."""
        with suppress(*storage_errors()):  # then others will see
            for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                if trial.user_attrs.get(PROCESS_KEY) == self._processes.number:
                    fail(self._study, trial._trial_id, "interrupted")

    def _keep_in(self, store: AdapterStore) -> KeptAdapters:
        return KeptAdapters(
            self._study, self._identity, store, self._search, self._metric, len(self._starts)
        )

    def _choose_execution(self) -> None:
        evaluator = self._evaluator
        choice = choose_execution(
            self._study,
            self._candidates,
            evaluator.pool,
            evaluator.train,
            evaluator.validation,
            evaluator.args,
        )
        evaluator.execution = choice.execution
        choice.execution.lay_out(evaluator.pool.model)
        self._listener.on_execution(choice.execution, choice.timings)

    def _fit_to_budget(self) -> None:
        """Give the population the size that it has in the study, or that fits the budget."""
        budget = self._search.parsed_budget
        if SIZES_KEY not in self._study.user_attrs:
            seconds = self._seconds_per_fine_tuning()
            sizes = population_of(budget.in_trainings(seconds), self._search)
            self._study.set_user_attr(SIZES_KEY, [*sizes, seconds])
        size, n_elites, seconds = self._study.user_attrs[SIZES_KEY]
        self._search = replace(
            self._search,
            population_size=size,
            n_elites=n_elites,
            n_finalists=n_finalists_of(budget.in_trainings(seconds), self._search),
        )
        self._starts = dict(list(self._seeded_individuals().items())[:size])
        scheme = Scheme(size, n_elites, len(self._folds))
        self._study.sampler = sampler_of(
            self._search,
            scheme,
            self._partition.names,
            list(self._starts.values()),
            self._objectives.of_blocks,
        )
        self._spending = Spending(
            self._search,
            scheme,
            len(self._partition),
            self._evaluator.epochs,
            lambda: confirmations(self._study),
            lambda: missing_confirmations(
                self._study, self._metric, self._search, len(self._starts)
            ),
        )

    def _seconds_per_fine_tuning(self) -> float | None:
        """Of the first epoch, for a budget of minutes that the population shall fit."""
        if self._search.parsed_budget.minutes is None or self._search.population_size is not None:
            return None
        config = self._phenotypes.config_of(
            Genotype.from_multipliers(full_fine_tuning(self._partition), self._partition)
        )
        seed = self._search.seeds[0]
        try:
            measured = self._evaluator.evaluate(config, [seed], after_epoch=lambda *_: False)
        except Exception as error:
            # Individuals that train less may fit.
            if is_out_of_memory(error):
                return None
            raise
        seconds: float = measured.seconds / measured.epochs * self._evaluator.epochs
        return seconds

    def _plan(self) -> BudgetPlan:
        """What the budget is going to be spent on, as far as it is known how far it goes."""
        seconds = self._spending.seconds_per_fine_tuning(finished_trials(self._study))
        return plan_budget(self._search, self._evaluator.epochs, seconds)

    def _seeded_individuals(self) -> dict[str, Genotype]:
        """What people try by hand, by name."""
        if not self._search.seeded_start:
            return {}
        evaluator, search = self._evaluator, self._search

        def ratios() -> dict[str, float] | None:
            try:
                return relative_gradient_norms(
                    evaluator.pool,
                    self._partition,
                    evaluator.train.view(self._folds[0].train),
                    evaluator.args,
                    seed=search.seeds[0],
                    norm_statistics=search.norm_statistics,
                )
            except Exception as error:
                # Individuals that train less may fit.
                if is_out_of_memory(error):
                    return None
                raise

        extra = neutral_genes(search, evaluator.args)
        return starts_of(self._study, self._partition, ratios, extra)

    def work(self, check_workers: Callable[[], None] = lambda: None) -> None:
        """Spend what is left of the budget, beside others who may do the same.

        Args:
            check_workers: is called between trainings. Default: nothing.
        """
        self._begun(check_workers).run()

    def watch(self, others_work: Callable[[], bool]) -> None:
        """Let others spend what is left of the budget; the listener hears of it.

        Args:
            others_work: waits a moment; whether there is more to come.
        """
        self._begun(lambda: None).watch(others_work)

    def _begun(self, check_workers: Callable[[], None]) -> TrialLoop:
        self._listener.on_search_begin(
            self._partition, self._search.parsed_budget, len(finished_trials(self._study))
        )
        self._listener.on_plan(self._plan())
        scorer = Scorer(
            self._study,
            self._evaluator,
            self._folds,
            self._search,
            self._listener,
            self._kept,
            self._objectives,
            self._failures,
            lambda begun: (
                self._spending.share_spent(finished_trials(self._study), begun=begun) < 1.0
            ),
        )
        return TrialLoop(
            self._study,
            self._processes,
            self._partition,
            self._search,
            self._starts,
            self._phenotypes,
            scorer,
            self._spending,
            self._kept,
            self._failures,
            self._objectives,
            self._listener,
            check_workers,
            lambda: None if self._cache is None else self._cache.statistics.share,
        )

    # -- the winner -----------------------------------------------------------------------------

    def _has_left(self) -> bool:
        return self._spending.has_left(finished_trials(self._study), confirmations(self._study))

    def choose(self) -> SearchResult:
        """Choose the winner; call it when the budget is spent."""
        if not any(was_trained(trial) for trial in self._study.get_trials(deepcopy=False)):
            raise self._nothing_was_trained()
        # Whoever comes later finds every training of the finalists in the study.
        with self._processes.turn("finalists"):
            result = self._result()
            # A process that was killed may have left what is not wanted.
            self._kept.prune()
        self._listener.on_search_end()
        return result

    def _nothing_was_trained(self) -> BioTuneError:
        finished = finished_trials(self._study)
        if failed := [trial for trial in finished if FAILURE_KEY in trial.user_attrs]:
            return TrainingError(
                f"none of {len(finished)} individuals was trained to its end; the last one that "
                f"failed, individual {failed[-1].number}: {failed[-1].user_attrs[FAILURE_KEY]}. "
                f"Remove the cause, and search in another output directory"
            )
        return ConfigError(
            f"no individual was trained within the budget of {self._search.parsed_budget}; give a "
            f"larger one"
        )

    def _result(self) -> SearchResult:
        finalists = finalists_of(
            self._study,
            self._evaluator,
            self._phenotypes,
            self._search,
            self._listener,
            self._failures,
            len(self._starts),
            self._has_left,
            self._kept.keeper,
        )
        best = best_of(finalists, self._metric)
        trial = self._study.get_trials(deepcopy=False)[best.trial]
        genotype = self._phenotypes.genotype_of(trial)
        finished = finished_trials(self._study)
        report = report_of(
            self._plan(), finished, confirmations(self._study), self._search.seeds_per_individual
        )
        return SearchResult(
            best_config=self._phenotypes.config_of(genotype),
            best_genotype=genotype,
            best_score=best.fitness.score,
            best_trial=best.trial,
            finalists=tuple(finalists),
            study=self._study,
            history=history_of(self._study, self._partition),
            partition=self._partition,
            objectives=self._objectives,
            phenotypes=self._phenotypes,
            execution=self._evaluator.execution,
            model_init=self._model_init,
            kept=self._kept,
            n_folds=self._search.n_folds,
            trainings=report.trainings,
            seconds=report.seconds,
            budget_report=report,
            cache_statistics=self._cache.statistics if self._cache is not None else None,
        )


def prefix_cache(
    pool: BaseModelPool, search: SearchConfig, args: TrainingArguments
) -> PrefixCache | None:
    """The cache that a search asks for.

    Args:
        pool: the base model.
        search: whether there is one, and its memory.
        args: where a file goes for what does not fit.
    """
    if not search.prefix_cache:
        return None
    gibibytes = search.prefix_cache_memory
    memory = None if gibibytes is None else int(gibibytes * 2**30)
    directory = Path(args.output_dir) if args.output_dir else None
    return PrefixCache(pool, memory, directory)
