"""What each process of a search does: ask for an individual, train it, tell, until the budget ends.

Nobody waits for anybody, but at the end, where what others are training may be the rest of the
budget, or not quite.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, Trial, TrialState

from ..blocks import Partition
from ..evolution import plan_of, suggest_genotype
from ..genotype import Genotype
from .contenders import contenders
from .failures import Failures, failure_of
from .fitness_result import FitnessResult
from .history import (
    FAILURE_KEY,
    FITNESS_KEY,
    MULTIPLIERS_KEY,
    SETTINGS_KEY,
    START_KEY,
    finished_trials,
    fitness_of,
    own_seconds,
    spent_trainings,
    state_of,
)
from .kept import KeptAdapters
from .listener import SearchListener, TrialReport
from .objectives import Objectives
from .orphans import ask, fail, running_elsewhere
from .phenotypes import Phenotypes, other_settings
from .processes import PAUSE_SECONDS, Processes
from .scoring import Scorer
from .search_config import SearchConfig
from .spending import Spending

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrialLoop:
    """Trains individuals of one study, in one process.

    Args:
        study: whose sampler plans them.
        processes: that work on it.
        partition: the blocks of the model.
        search: its settings.
        starts: the seeded individuals by name.
        phenotypes: decodes genotypes.
        scorer: trains and scores.
        spending: says when the budget is over.
        kept: keeps weights.
        failures: stops a search in which too much fails.
        objectives: the score, and what it may cost.
        listener: is told of every individual, whoever trained it.
        check_workers: is called between trainings.
        cached_share: see [`TrialReport`].
    """

    study: optuna.Study
    processes: Processes
    partition: Partition
    search: SearchConfig
    starts: dict[str, Genotype]
    phenotypes: Phenotypes
    scorer: Scorer
    spending: Spending
    kept: KeptAdapters
    failures: Failures
    objectives: Objectives
    listener: SearchListener
    check_workers: Callable[[], None]
    cached_share: Callable[[], float | None]

    def run(self) -> None:
        """Train until the budget is spent, by whomever, and everything is finished."""
        told = {trial.number for trial in finished_trials(self.study)}
        while self._goes_on(told):
            self._run_trial()
            self._tell_listener(told)
        self._tell_listener(told)

    def watch(self, others_work: Callable[[], bool]) -> None:
        """Tell the listener of what others train, and train nothing.

        Args:
            others_work: waits a moment; whether there is more to come.
        """
        told = {trial.number for trial in finished_trials(self.study)}
        while others_work():
            self._tell_listener(told)
        self._tell_listener(told)

    def _goes_on(self, told: set[int]) -> bool:
        """Whether there is something left for another individual."""
        awaited: set[int] | None = None
        while True:
            self.check_workers()
            running = running_elsewhere(self.study, self.processes)
            finished = finished_trials(self.study)
            if not self.spending.is_over(finished, running):
                return True
            numbers = {trial.number for trial in running}
            if not self.spending.is_over(finished):
                awaited = None
            elif awaited is None:
                # What a process with a larger budget begins later is no concern of ours.
                awaited = numbers
            if awaited is not None and not awaited & numbers:
                return False
            self._tell_listener(told)
            time.sleep(PAUSE_SECONDS)

    # -- one individual -------------------------------------------------------------------------

    def _run_trial(self) -> None:
        trial = ask(self.study, self.processes.number)
        try:
            fitness, values = self._scored(trial)
            if fitness.was_halved:
                self.study.tell(trial, state=TrialState.PRUNED, skip_if_finished=True)
            else:
                self.study.tell(trial, values, skip_if_finished=True)
        except UpdateFinishedTrialError:
            logger.warning(
                "individual %d was given up by another process, which had not heard from this one "
                "for long; its result is dropped",
                trial.number,
            )
            return
        except BaseException as error:
            # A KeyboardInterrupt too: the genes will be tried again when the search goes on.
            fail(self.study, trial._trial_id, f"interrupted by {type(error).__name__}")
            raise
        if not fitness.was_halved:
            self.kept.prune()
        if failure_of(fitness):
            self.failures.check()

    def _scored(self, trial: Trial) -> tuple[FitnessResult, list[float]]:
        """What the trainings of a trial gave, and what it is worth by each objective."""
        suggest_genotype(trial, self.partition.names, self.search.extra_genes)
        genotype = self.phenotypes.genotype_of(trial)
        plan = plan_of(trial)
        self.listener.on_trial_begin(trial.number, plan.generation, plan.role)
        config = self.phenotypes.config_of(genotype)
        trial.set_user_attr(MULTIPLIERS_KEY, config.lr_multipliers)
        if settings := other_settings(config):
            trial.set_user_attr(SETTINGS_KEY, settings)
        if plan.role == "initial" and plan.slot < len(self.starts):
            trial.set_user_attr(START_KEY, list(self.starts)[plan.slot])
        earlier = self.scorer.scored_before(plan, config)
        if earlier is not None:
            fitness = self.scorer.reuse(trial, earlier)
        else:
            fitness = self.scorer.train(trial, plan, config)
        trial.set_user_attr(FITNESS_KEY, fitness.to_dict())
        if reason := failure_of(fitness):
            trial.set_user_attr(FAILURE_KEY, reason)
        others = [] if not reason else map(fitness_of, finished_trials(self.study))
        slowest = max((run.seconds for other in others for run in other.runs), default=0.0)
        return fitness, self.objectives.values_of(fitness, list(config.lr_multipliers), slowest)

    # -- what the listener hears ----------------------------------------------------------------

    def _tell_listener(self, told: set[int]) -> None:
        """Tell of what has finished, here and elsewhere, since the last time."""
        trials = finished_trials(self.study)
        for trial in trials:
            if trial.number not in told:
                told.add(trial.number)
                self.listener.on_trial_end(self._report(trial, trials))

    def _report(self, trial: FrozenTrial, trials: Sequence[FrozenTrial]) -> TrialReport:
        best = contenders(self.study, self.objectives.metric, 1)
        plan = plan_of(trial)
        return TrialReport(
            number=trial.number,
            generation=plan.generation,
            role=plan.role,
            state=state_of(trial),
            score=fitness_of(trial).score,
            multipliers=trial.user_attrs[MULTIPLIERS_KEY],
            best_score=fitness_of(best[0]).score if best else math.nan,
            best_multipliers=best[0].user_attrs[MULTIPLIERS_KEY] if best else {},
            trainings=spent_trainings(trials),
            seconds=sum(own_seconds(t) for t in trials),
            share_spent=min(1.0, self.spending.share_spent(trials)),
            cached_share=self.cached_share(),
            reason=trial.user_attrs.get(FAILURE_KEY, ""),
        )
