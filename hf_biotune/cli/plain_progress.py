"""Progress as lines: of individuals in logs and notebooks, of generations in CI."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from hf_biotune.blocks import Partition
from hf_biotune.search import Budget, BudgetPlan, SearchListener, TrialReport
from hf_biotune.search.execution import Execution
from hf_biotune.search.fitness_result import EpochRecord
from hf_biotune.search.race import TRAINING_STEP, Timing

from .strip import LEGEND, strip_of
from .tally import Tally, time_left


class PlainProgress(SearchListener):
    """One line per individual, for logs.

    Args:
        write: takes a line.
        epochs: whether every epoch has a line, too. Default: `False`.
    """

    def __init__(self, write: Callable[[str], None], *, epochs: bool = False) -> None:
        self._write = write
        self._epochs = epochs
        self._names: Sequence[str] = ()
        self._tally = Tally()
        self._started = time.monotonic()

    def on_execution(self, execution: Execution, timings: Sequence[Timing]) -> None:
        """Tell it, with what it gains."""
        self._line(f"computed with {execution}{gain(execution, timings)}")

    def on_search_begin(self, partition: Partition, budget: Budget, finished_trials: int) -> None:
        """Tell blocks and budget."""
        self._names = partition.names
        self._line(f"{len(partition)} blocks: {', '.join(partition.names)}")
        going_on = f", going on after {finished_trials} individuals" if finished_trials else ""
        self._line(f"budget: {budget}{going_on}")

    def on_plan(self, plan: BudgetPlan) -> None:
        """Tell it, and how to read what follows."""
        self._line(f"plan: {plan}")
        self._line(f"strips: {LEGEND}")

    def on_epoch_end(self, seed: int, curve: Sequence[EpochRecord], epochs: int) -> None:
        """Tell it, if asked for."""
        if self._epochs:
            newest = curve[-1]
            self._line(
                f"  seed {seed} epoch {len(curve)}/{epochs}: training loss "
                f"{newest.train_loss:.4f}, validation loss {newest.validation_loss:.4f}, score "
                f"{newest.score:.4f}"
            )

    def on_trial_end(self, report: TrialReport) -> None:
        """Tell it, beside the best so far."""
        self._tally.add(report)
        self._line(
            f"[{report.share_spent:4.0%}] generation {report.generation} individual "
            f"{report.number:3d} {strip_of(report.multipliers, self._names)} "
            f"{report.score:.4f} {report.state:8s} best {report.best_score:.4f} "
            f"{strip_of(report.best_multipliers, self._names)} {time_left(report)}"
        )
        self._tell_failure(report)

    def _tell_failure(self, report: TrialReport) -> None:
        if report.reason:
            self._line(f"individual {report.number}: {report.reason}")

    def on_finalist(self, number: int, seed: int, score: float) -> None:
        """Tell it."""
        self._line(f"finalist {number}, seed {seed}: {score:.4f}")

    def on_stage(self, name: str) -> None:
        """Tell it."""
        self._line(name)

    def on_search_end(self) -> None:
        """Sum up."""
        if self._tally.states:
            self._line(str(self._tally))

    def _line(self, text: str) -> None:
        self._write(f"{time.monotonic() - self._started:6.0f} s  {text}".rstrip())


class GenerationProgress(PlainProgress):
    """One line per generation, for CI, whose logs nobody watches."""

    def on_trial_end(self, report: TrialReport) -> None:
        """Tell the generation that it ends, if it does."""
        self._tell_failure(report)
        self._tell(self._tally.add(report))

    def on_finalist(self, number: int, seed: int, score: float) -> None:
        """The last generation is over."""
        self._tell(self._tally.end_generation())

    def on_search_end(self) -> None:
        """Sum up."""
        self._tell(self._tally.end_generation())
        super().on_search_end()

    def _tell(self, generation: str) -> None:
        if generation and self._tally.newest:
            best = strip_of(self._tally.newest.best_multipliers, self._names)
            self._line(f"{generation}, {best}")


def gain(execution: Execution, timings: Sequence[Timing]) -> str:
    """What a training step takes, and what the plainest way took; `""` if it was not measured."""
    steps = {t.way: t.seconds for t in timings if t.part == TRAINING_STEP and t.seconds}
    chosen = steps.get(execution.training_way)
    if not chosen:
        return ""
    return f": {chosen:.4f} s a step, {next(iter(steps.values())):.4f} s the plain way"
