"""What a search has spent of its budget, and whether it goes on."""

from __future__ import annotations

from collections.abc import Sequence

from optuna.trial import FrozenTrial

from ..evolution import Scheme
from .history import REUSED_KEY, own_seconds, spent_trainings
from .search_config import SearchConfig

# A search whose individuals were all scored before has nothing left to find.
MAXIMUM_REUSED_IN_A_ROW = 50


class Spending:
    """Keeps the account of one search; all amounts are read from its finished trials.

    Args:
        search: the budget, and how many finalists it must confirm.
        scheme: the sizes of the generations.
    """

    def __init__(self, search: SearchConfig, scheme: Scheme) -> None:
        self._search = search
        self._scheme = scheme

    def is_over(self, trials: Sequence[FrozenTrial]) -> bool:
        """Whether no further individual should be trained.

        Args:
            trials: all finished ones, oldest first.
        """
        if self._search.generations is not None:
            last = self._search.generations
            if len(trials) >= sum(self._scheme.n_slots(g) for g in range(last + 1)):
                return True
        newest = trials[-MAXIMUM_REUSED_IN_A_ROW:]
        if len(newest) == MAXIMUM_REUSED_IN_A_ROW and all(
            REUSED_KEY in trial.user_attrs for trial in newest
        ):
            return True
        return self.share_spent(trials) >= 1.0

    def share_spent(self, trials: Sequence[FrozenTrial]) -> float:
        """How much of the budget the trials cost, confirmation of finalists reserved; 1 is all."""
        budget = self._search.parsed_budget
        spent = spent_trainings(trials)
        if budget.trainings is not None:
            # However small the budget, half of it is for trying.
            return spent / max(budget.trainings - self._reserved, budget.trainings / 2)
        if budget.minutes is not None:
            seconds = sum(own_seconds(trial) for trial in trials)
            per_training = seconds / spent if spent else 0.0
            left = budget.minutes * 60 - self._reserved * per_training
            return seconds / max(left, budget.minutes * 30)
        return 0.0

    @property
    def _reserved(self) -> float:
        """Trainings that the confirmation of the finalists will need."""
        known = self._search.seeds_per_individual if self._search.n_folds == 1 else 0
        return self._search.n_finalists * (len(self._search.seeds) - known)
