"""What a search tells while it runs: a base class of hooks that do nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..blocks import Partition
    from .budget import Budget
    from .budget_plan import BudgetPlan
    from .execution import Execution
    from .fitness_result import EpochRecord
    from .race import Timing


@dataclass(frozen=True)
class TrialReport:
    """One finished individual, as told to a [`SearchListener`].

    Args:
        number: of the trial in its study.
        generation: from 0.
        role: how it came about, such as `"initial"`, `"exploit"`, `"offspring"`.
        state: `"complete"`, `"pruned"` (stopped by halving), `"reused"` (scored before) or
            `"failed"` (with the worst score).
        score: of the trial.
        multipliers: its blocks and rates.
        best_score: of the search so far.
        best_multipliers: blocks and rates of the best so far.
        trainings: spent so far, in units of a full training.
        seconds: spent so far.
        share_spent: of the budget, in [0, 1].
        cached_share: of the samples of this process so far, those whose frozen prefix came from the
            prefix cache, in [0, 1]; `None` if there is no cache.
        reason: why it failed or diverged; else `""`.
    """

    number: int
    generation: int
    role: str
    state: str
    score: float
    multipliers: dict[str, float]
    best_score: float
    best_multipliers: dict[str, float]
    trainings: float
    seconds: float
    share_spent: float
    cached_share: float | None = None
    reason: str = ""


class SearchListener:
    """Override what you want to see; every method does nothing here."""

    def on_execution(self, execution: Execution, timings: Sequence[Timing]) -> None:
        """How trainings are computed, and what that was chosen from; empty if it was not."""

    def on_search_begin(self, partition: Partition, budget: Budget, finished_trials: int) -> None:
        """The study is open; `finished_trials` is greater than 0 if it is resumed."""

    def on_plan(self, plan: BudgetPlan) -> None:
        """What the budget is going to be spent on."""

    def on_trial_begin(self, number: int, generation: int, role: str) -> None:
        """An individual is about to be trained."""

    def on_epoch_end(self, seed: int, curve: Sequence[EpochRecord], epochs: int) -> None:
        """One more epoch of the present training is done, of at most `epochs`."""

    def on_trial_end(self, report: TrialReport) -> None:
        """An individual has its score, in this process or in another that works on the study."""

    def on_finalist(self, number: int, seed: int, score: float) -> None:
        """One of the best individuals was trained with a further seed."""

    def on_stage(self, name: str) -> None:
        """A further stage begins, such as the final training of one method."""

    def on_search_end(self) -> None:
        """The budget is spent."""
