"""Progress as one live display: generation, individual, epoch, the best so far, what is spent."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from hf_biotune.blocks import Partition
from hf_biotune.search import Budget, BudgetPlan, SearchListener, TrialReport
from hf_biotune.search.execution import Execution
from hf_biotune.search.fitness_result import EpochRecord
from hf_biotune.search.race import Timing

from .plain_progress import gain
from .strip import cells_of, legend
from .tally import Tally, time_left


class LiveProgress(SearchListener):
    """Three bars (budget, generation, training), and the best individual as a strip of cells."""

    def __init__(self) -> None:
        self._names: Sequence[str] = ()
        self._tally = Tally()
        self._generation: int | None = None
        columns = (
            TextColumn("{task.description:10s}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:3.0f}%"),
            TextColumn("{task.fields[note]}"),
        )
        self._bars = Progress(*columns, TimeElapsedColumn())
        self._budget = self._bars.add_task("budget", total=1.0, note="")
        self._individuals = self._bars.add_task("generation", total=None, note="")
        self._epochs = self._bars.add_task("training", total=None, note="")
        self._best = Text("best so far: none yet")
        self._counts = Text("")
        self._computed = Text("")

    def __rich__(self) -> Group:
        return Group(self._computed, self._bars, self._best, legend(), self._counts)

    def on_execution(self, execution: Execution, timings: Sequence[Timing]) -> None:
        """Show it in the first line."""
        self._computed = Text(f"computed with {execution}{gain(execution, timings)}", "dim")

    def on_search_begin(self, partition: Partition, budget: Budget, finished_trials: int) -> None:
        """Show the budget."""
        self._names = partition.names
        going_on = f", going on after {finished_trials} individuals" if finished_trials else ""
        self._bars.update(self._budget, note=f"of {budget}{going_on}")

    def on_plan(self, plan: BudgetPlan) -> None:
        """Know how many individuals make a generation."""
        self._bars.update(self._individuals, total=plan.population_size)

    def on_trial_begin(self, number: int, generation: int, role: str) -> None:
        """Show who is trained, with a new bar for its epochs."""
        if generation != self._generation:
            self._generation = generation
            self._bars.update(self._individuals, completed=0)
        self._bars.update(self._individuals, note=f"{generation}")
        self._bars.reset(self._epochs, note=f"individual {number} ({role})")

    def on_epoch_end(self, seed: int, curve: Sequence[EpochRecord], epochs: int) -> None:
        """One step on."""
        self._bars.update(self._epochs, total=epochs, completed=len(curve))

    def on_trial_end(self, report: TrialReport) -> None:
        """Show the best so far, what is spent, and how long it takes."""
        self._tally.add(report)
        self._bars.advance(self._individuals)
        spent = f"{report.trainings:.1f} trainings spent, {time_left(report)}".rstrip(", ")
        self._bars.update(self._budget, completed=report.share_spent, note=spent)
        self._counts = Text(str(self._tally), "dim")
        self._best = Text("best so far: ")
        self._best.append(f"{report.best_score:.4f}  ", style="bold")
        self._best.append_text(cells_of(report.best_multipliers, self._names))

    def on_finalist(self, number: int, seed: int, score: float) -> None:
        """Show it where trainings are shown."""
        self._bars.update(self._epochs, note=f"finalist {number}, seed {seed}: {score:.4f}")

    def on_stage(self, name: str) -> None:
        """Show it where trainings are shown."""
        self._bars.update(self._epochs, note=name)
