"""What a search has spent of its budget, and whether it goes on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import datetime

from optuna.trial import FrozenTrial

from ..evolution import Scheme
from .budget_plan import cost_of_individual, reserved_trainings, without_reserve
from .fitness_result import FitnessResult
from .history import (
    MULTIPLIERS_KEY,
    REUSED_KEY,
    fitness_of,
    has_own_training,
    own_seconds,
    spent_trainings,
)
from .search_config import SearchConfig

# Such individuals cost nothing: a search whose individuals were all scored before, or all fail, has
# nothing left to find, and would never spend its budget.
MAXIMUM_FREE_IN_A_ROW = 50


class Spending:
    """Keeps the account of one search; all amounts are read from its finished trials.

    Args:
        search: the budget, and how many finalists it must confirm.
        scheme: the sizes of the generations.
        n_blocks: of the model; an individual that trains all of them at the base rate is a full
            fine-tuning, and the yardstick of a budget that is a multiple of one.
        epochs: of a whole training.
        confirmed: gives the trainings of finalists so far: a search that is prolonged has paid for
            those of before. Default: there are none.
        missing: says, if there are some, how many more the present finalists would need.
    """

    def __init__(
        self,
        search: SearchConfig,
        scheme: Scheme,
        n_blocks: int,
        epochs: int,
        confirmed: Callable[[], Sequence[FitnessResult]] = lambda: (),
        missing: Callable[[], float] = lambda: math.inf,
    ) -> None:
        self._search = search
        self._scheme = scheme
        self._n_blocks = n_blocks
        self._epochs = epochs
        self._confirmed = confirmed
        self._missing = missing

    def is_over(self, trials: Sequence[FrozenTrial], running: Sequence[FrozenTrial] = ()) -> bool:
        """Whether no further individual should be trained.

        Args:
            trials: all finished ones, oldest first.
            running: what other processes are training, and will have spent.
        """
        if self._search.generations is not None:
            last = self._search.generations
            if len(trials) + len(running) >= sum(self._scheme.n_slots(g) for g in range(last + 1)):
                return True
        newest = trials[-MAXIMUM_FREE_IN_A_ROW:]
        if len(newest) == MAXIMUM_FREE_IN_A_ROW and not any(map(has_own_training, newest)):
            return True
        return self.share_spent(trials, running) >= 1.0

    def share_spent(
        self,
        trials: Sequence[FrozenTrial],
        running: Sequence[FrozenTrial] = (),
        begun: FitnessResult | None = None,
    ) -> float:
        """How much of the budget the trials cost, confirmation of finalists reserved; 1 is all.

        Args:
            trials: all finished ones, oldest first.
            running: those that are being trained count as much as an average one.
            begun: what an individual that is being trained has spent already.
        """
        spent = spent_trainings(trials)
        budget, confirmed = self._search.parsed_budget, self._confirmed()
        if budget.trainings is not None:
            each = spent / _n_trained(trials) if spent else cost_of_individual(self._search)
            paid = spent + sum(fitness.trainings for fitness in confirmed)
            paid += begun.trainings if begun is not None else 0.0
            reserved = self._reserved(budget.trainings, confirmed)
            return (paid + each * len(running)) / without_reserve(budget.trainings, reserved)
        limit = self._seconds(trials)
        if limit is None:
            return 0.0
        seconds = self._seconds_of(trials, running) + sum(f.seconds for f in confirmed)
        seconds += begun.seconds if begun is not None else 0.0
        # One process confirms, however many have searched.
        own = sum(own_seconds(trial) for trial in trials)
        per_training = own / spent if spent else 0.0
        reserved = self._reserved(None, confirmed) * per_training
        return seconds / without_reserve(limit, reserved)

    def _reserved(self, trainings: float | None, confirmed: Sequence[FitnessResult]) -> float:
        """For the confirmation of finalists; of a search that is prolonged, what is missing."""
        reserved = reserved_trainings(trainings, self._search)
        return min(reserved, self._missing()) if confirmed else reserved

    def has_left(
        self, trials: Sequence[FrozenTrial], confirmations: Sequence[FitnessResult]
    ) -> bool:
        """Whether finalists may get more than the seeds that were reserved for them.

        Args:
            trials: all finished ones, oldest first.
            confirmations: the trainings of finalists so far.
        """
        budget = self._search.parsed_budget
        if budget.trainings is not None:
            confirmed = sum(fitness.trainings for fitness in confirmations)
            return spent_trainings(trials) + confirmed < budget.trainings
        limit = self._seconds(trials)
        confirmed = sum(fitness.seconds for fitness in confirmations)
        return limit is None or self._seconds_of(trials) + confirmed < limit

    def seconds_per_fine_tuning(self, trials: Sequence[FrozenTrial]) -> float | None:
        """What a full fine-tuning takes, all epochs; `None` as long as it isn't known.

        It is that of the first individual that is one. If the first generation had none that could
        be trained, the slowest epoch of any individual stands for it.

        Args:
            trials: all finished ones, oldest first.
        """
        slowest = 0.0
        for trial in trials:
            rates = trial.user_attrs[MULTIPLIERS_KEY].values()
            run = fitness_of(trial).runs[0]
            if not run.epochs:
                continue
            # An individual sees one fold, a fine-tuning all data.
            seconds = run.seconds / run.epochs * self._epochs * self._search.n_folds
            if len(rates) == self._n_blocks and set(rates) == {1.0}:
                return seconds
            slowest = max(slowest, seconds)
        return slowest if slowest and len(trials) >= self._scheme.n_slots(0) else None

    def _seconds(self, trials: Sequence[FrozenTrial]) -> float | None:
        """The budget, if it is one of time."""
        budget = self._search.parsed_budget
        if budget.minutes is not None:
            return budget.minutes * 60
        if budget.fine_tunings is not None:
            measured = self.seconds_per_fine_tuning(trials)
            return None if measured is None else budget.fine_tunings * measured
        return None

    def _seconds_of(
        self, trials: Sequence[FrozenTrial], running: Sequence[FrozenTrial] = ()
    ) -> float:
        """Of wall time for a budget of minutes, otherwise of trainings."""
        if self._search.parsed_budget.minutes is not None:
            return wall_seconds([*trials, *running])
        seconds = sum(own_seconds(trial) for trial in trials)
        return seconds * (1 + len(running) / max(1, _n_trained(trials)))


def _n_trained(trials: Sequence[FrozenTrial]) -> int:
    return sum(REUSED_KEY not in trial.user_attrs for trial in trials)


def wall_seconds(trials: Sequence[FrozenTrial]) -> float:
    """For how long at least one of the trials was running: pauses don't count, workers count once.

    Args:
        trials: finished ones, or still running now.
    """
    now = datetime.now()
    spans = sorted(
        (trial.datetime_start, trial.datetime_complete or now)
        for trial in trials
        if trial.datetime_start is not None
    )
    total, until = 0.0, datetime.min
    for start, end in spans:
        if end > until:
            total += (end - max(start, until)).total_seconds()
            until = end
    return total
