"""`SearchResult`: what a search found, and everything that it tried."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import optuna
import pandas as pd
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from torch import nn
from transformers import set_seed

from ..blocks import Partition
from ..config import BioTuneConfig
from ..exceptions import ConfigError
from ..genotype import Genotype
from ..model import BioTuneModel
from .budget_plan import BudgetReport
from .cache_statistics import CacheStatistics
from .ensemble import BioTuneEnsemble, EnsembleMember
from .execution import Execution
from .finalists import Finalist
from .fitness_result import SeedRun
from .front import Compromise, best_under, individuals_of, pareto_front
from .history import fitness_of, was_trained
from .importances import block_importances
from .kept import KeptAdapters
from .lineage import lineage_of
from .objectives import PARAMETERS, Objectives
from .phenotypes import Phenotypes


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Args:
        best_config: blocks and rates of the winner, for [`get_biotune_model`].
        best_genotype: the genes of the winner.
        best_score: its mean validation score over the seeds that it was trained with.
        best_trial: its number in the study.
        finalists: the individuals that the winner was chosen from.
        study: the Optuna study, for its own plots and dashboard.
        history: one row per individual; see [`history_of`].
        partition: the blocks of the model.
        objectives: the metric, and what was minimised besides.
        phenotypes: decodes genotypes as the search did.
        execution: how every training was computed: memory layout, precision, optimizer kernel.
        model_init: made the base model of every training.
        kept: the weights of the best individuals.
        n_folds: of the data; with several, an individual was scored on one of them, and finalists
            on all data.
        trainings: spent, in units of one full training.
        seconds: spent in trainings.
        budget_report: what the search intended to do with its budget, and what it did.
        cache_statistics: how much of the work the prefix cache did, in this process; `None` if the
            search had none.
    """

    best_config: BioTuneConfig
    best_genotype: Genotype
    best_score: float
    best_trial: int
    finalists: tuple[Finalist, ...]
    study: optuna.Study = field(repr=False)
    history: pd.DataFrame = field(repr=False)
    partition: Partition = field(repr=False)
    objectives: Objectives = field(repr=False)
    phenotypes: Phenotypes = field(repr=False)
    execution: Execution
    model_init: Callable[[], nn.Module] = field(repr=False)
    kept: KeptAdapters = field(repr=False)
    n_folds: int
    trainings: float
    seconds: float
    budget_report: BudgetReport
    cache_statistics: CacheStatistics | None = None

    @cached_property
    def best_model(self) -> BioTuneModel:
        """The winner as it was trained in the search, after its best epoch: see `kept_model`."""
        return self.kept_model()

    def kept_model(self, trial: int | None = None, seed: int | None = None) -> BioTuneModel:
        """A model that the search trained and kept, with the weights of its best epoch.

        Args:
            trial: the number of the individual. Default: the winner.
            seed: of its training. Default: that with the best validation score of those kept.

        Raises:
            ConfigError: the search kept no weights, or has no such training.
            CheckpointError: the weights are not there.
        """
        individual = self._trained_trial(self.best_trial if trial is None else trial)
        run = self._run(individual, seed)
        return self.kept.load(individual, run, self._base(run.seed))

    @property
    def best_seeds(self) -> tuple[int, ...]:
        """The seeds that the winner was trained with."""
        (winner,) = (f for f in self.finalists if f.trial == self.best_trial)
        return tuple(run.seed for run in winner.fitness.runs)

    @property
    def kept_seeds(self) -> tuple[int, ...]:
        """Those of [`best_seeds`] whose weights were kept; all of them, if none was."""
        runs = self._kept_runs(self._trained_trial(self.best_trial))
        return tuple(run.seed for run in runs)

    def best_run(self, seed: int | None = None) -> SeedRun:
        """A training of the winner.

        Args:
            seed: of the training. Default: that with the best validation score.

        Raises:
            ConfigError: the winner was not trained with this seed.
        """
        return self._run(self._trained_trial(self.best_trial), seed)

    def ensemble(self, k: int = 5, *, every_seed: bool = False) -> BioTuneEnsemble:
        """The best individuals as one model, at no further training.

        Of individuals with the same blocks and rates only the best counts. The members share the
        base model's memory.

        Args:
            k: how many, at least 1 and at most as many as were kept.
            every_seed: whether all kept trainings of each are members: better, and slower. Default:
                the one with the best validation score.

        Raises:
            ConfigError: the search kept no weights, or trained fewer individuals to their end.
            CheckpointError: a member's weights are not there.
        """
        if isinstance(k, bool) or not isinstance(k, int) or k < 1:
            raise ConfigError(f"k must be an integer of at least 1, got {k!r}")
        chosen = [
            (individual, run)
            for individual in self.kept.best(k, self.finalists)
            for run in (
                self._kept_runs(individual) if every_seed else [self._run(individual, None)]
            )
        ]
        base = self._base(chosen[0][1].seed)
        return BioTuneEnsemble(
            base,
            [
                EnsembleMember.take_from(
                    self.kept.load(individual, run, base),
                    f"trial-{individual.number}-seed-{run.seed}",
                    run.score,
                )
                for individual, run in chosen
            ],
        )

    @cached_property
    def pareto_front(self) -> pd.DataFrame:
        """The individuals than which no other has a better score and costs no more.

        One row an individual, the cheapest first. Columns: `trial`, `score`, `seeds` (how many the
        score is the mean of), `trainable_parameters`, `trained_share`, `seconds` (of one training),
        `checkpoint_size`, `blocks`, and `knee`, true for one of them. A search for a score alone
        has a front too, of score and trained parameters; it was just not looked for.

        Most scores are of one seed, and the best of many is lucky: those of the finalists, which
        have more, are the ones to trust.
        """
        costs = self.objectives.costs or (PARAMETERS,)
        return pareto_front(
            self.individuals, costs, greater_is_better=self.objectives.metric.greater_is_better
        )

    @property
    def knee(self) -> Compromise:
        """The individual of the front that is farthest from the chord between its ends."""
        return self._compromise(self.pareto_front[self.pareto_front["knee"]].iloc[0])

    def best_under(self, **limits: float) -> Compromise:
        """The best score within limits of what it costs.

        Args:
            limits: `trainable_parameters`, `seconds` (of one training) or `checkpoint_size`
                (bytes): a share below 1 of what training every block costs, or a number.

        Raises:
            ConfigError: an unknown limit, or nobody is within them.

        Example:
            ```python
            result.best_under(trainable_parameters=0.10).config
            ```
        """
        individuals = self.individuals
        every = individuals["blocks"].map(len) == len(self.partition)
        row = best_under(
            individuals,
            limits,
            self.objectives,
            seconds_of_all=float(individuals["seconds"][every].mean()),
        )
        return self._compromise(individuals.iloc[row])

    @cached_property
    def individuals(self) -> pd.DataFrame:
        """Who was trained to the end, with scores and costs; see [`individuals_of`]."""
        # Scores on all data can't be compared with those on a fold.
        confirmed = {f.trial: f.fitness for f in self.finalists} if self.n_folds == 1 else {}
        return individuals_of(self.study, self.objectives, confirmed)

    def _compromise(self, row: pd.Series[Any]) -> Compromise:
        trial = self.study.get_trials(deepcopy=False)[int(row["trial"])]
        genotype = self.phenotypes.genotype_of(trial)
        return Compromise(
            trial=trial.number,
            config=self.phenotypes.config_of(genotype),
            genotype=genotype,
            score=float(row["score"]),
            trainable_parameters=int(row["trainable_parameters"]),
            seconds=float(row["seconds"]),
            checkpoint_size=int(row["checkpoint_size"]),
        )

    def block_importances(self, evaluator: str = "fanova") -> pd.Series[float]:
        """Which blocks matter for this task: the share of each in what scores depend on.

        Args:
            evaluator: `"fanova"` or `"ped-anova"`, both Optuna's.

        Returns:
            By block, the largest first, with sum 1.

        Raises:
            ConfigError: an unknown evaluator, or too few individuals were trained to their end.
        """
        return block_importances(
            self.history,
            self.partition.names,
            greater_is_better=self.greater_is_better,
            evaluator=evaluator,
        )

    def lineage(self, trial: int | None = None) -> pd.DataFrame:
        """An individual and its ancestors back to the first generation, the newest first.

        Args:
            trial: the number of the individual. Default: the winner.

        Returns:
            One row an individual: `trial`, `generation`, `role`, `start`, `parents`, `fold`,
            `state`, `seeds` and `score`, the mean over these seeds. Seeds and score of finalists
            are those on all data.

        Raises:
            ConfigError: there is no such finished individual.
        """
        confirmed = {finalist.trial: finalist.fitness.runs for finalist in self.finalists}
        return lineage_of(self.study, self.best_trial if trial is None else trial, confirmed)

    @property
    def finalists_frame(self) -> pd.DataFrame:
        """One row per finalist; see [`ReportData`] for its columns."""
        return pd.DataFrame(
            [
                {
                    "trial": finalist.trial,
                    "scores": list(finalist.scores.values()),
                    "trained_parameters": finalist.fitness.trained_parameters,
                    "in_contention": finalist.in_contention,
                    "winner": finalist.trial == self.best_trial,
                }
                for finalist in self.finalists
            ]
        )

    @property
    def greater_is_better(self) -> bool:
        """Whether a greater score is a better one."""
        return bool(self.study.directions[0] == StudyDirection.MAXIMIZE)

    def _base(self, seed: int) -> nn.Module:
        set_seed(seed)
        base = self.model_init()
        self.execution.lay_out(base)
        return base

    def _trained_trial(self, number: int) -> FrozenTrial:
        trials = self.study.get_trials(deepcopy=False)
        if not 0 <= number < len(trials) or not was_trained(trials[number]):
            raise ConfigError(
                f"trial must be the number of an individual that was trained to its end, got "
                f"{number}; history lists them as 'complete'"
            )
        return trials[number]

    def _runs(self, trial: FrozenTrial) -> tuple[SeedRun, ...]:
        confirmed = {finalist.trial: finalist.fitness.runs for finalist in self.finalists}
        return confirmed.get(trial.number) or fitness_of(trial).runs

    def _kept_runs(self, trial: FrozenTrial) -> Sequence[SeedRun]:
        """Those whose weights are there; all, for an error that says so, if none is."""
        runs = self._runs(trial)
        # A finalist that was no good at first was kept from its second training on.
        return [run for run in runs if self.kept.holds(trial, run)] or runs

    def _run(self, trial: FrozenTrial, seed: int | None) -> SeedRun:
        runs = self._runs(trial)
        if seed is None:
            sign = 1 if self.greater_is_better else -1
            return max(self._kept_runs(trial), key=lambda run: sign * run.score)
        for run in runs:
            if run.seed == seed:
                return run
        raise ConfigError(
            f"seed must be one that individual {trial.number} was trained with, "
            f"{', '.join(str(run.seed) for run in runs)}, got {seed}"
        )
