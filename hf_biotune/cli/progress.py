"""What a search shows while it runs: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from hf_biotune.blocks import Partition
from hf_biotune.search import Budget, BudgetPlan, SearchListener, TrialReport
from hf_biotune.search.execution import Execution
from hf_biotune.search.fitness import EpochRecord
from hf_biotune.search.race import TRAINING_STEP, Timing

from .output import Output


@contextmanager
def progress_of(output: Output) -> Iterator[SearchListener]:
    """The listener that suits the output, shown for as long as the context lasts."""
    console = output.console
    if output.quiet:
        yield SearchListener()
        return
    if not console.is_terminal:
        yield PlainProgress(console)
        return
    live = LiveProgress()
    with Live(live, console=console, refresh_per_second=4):
        yield live


def strip_of(multipliers: dict[str, float], names: Sequence[str]) -> str:
    """One character a block: `.` frozen, `-` below a third, `=` about 1, `#` above three times."""
    return "".join(_cell(multipliers.get(name)) for name in names)


def _cell(multiplier: float | None) -> str:
    if multiplier is None:
        return "."
    return "-" if multiplier < 1 / 3 else "#" if multiplier > 3 else "="


class PlainProgress(SearchListener):
    """One line per individual, for logs."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._names: Sequence[str] = ()
        self._started = time.monotonic()

    def on_execution(self, execution: Execution, timings: Sequence[Timing]) -> None:
        self._line(f"computed with {execution}{_gain(execution, timings)}")

    def on_search_begin(self, partition: Partition, budget: Budget, finished_trials: int) -> None:
        self._names = partition.names
        self._line(f"{len(partition)} blocks: {', '.join(partition.names)}")
        going_on = f", going on after {finished_trials} individuals" if finished_trials else ""
        self._line(f"budget: {budget}{going_on}")

    def on_plan(self, plan: BudgetPlan) -> None:
        self._line(f"plan: {plan}")
        self._line("strips: . frozen, - slow, = about the base rate, # fast")

    def on_trial_end(self, report: TrialReport) -> None:
        left = _time_left(report)
        self._line(
            f"[{report.share_spent:4.0%}] generation {report.generation} individual "
            f"{report.number:3d} {strip_of(report.multipliers, self._names)} "
            f"{report.score:.4f} {report.state:8s} best {report.best_score:.4f} "
            f"{strip_of(report.best_multipliers, self._names)} {left}"
        )

    def on_finalist(self, number: int, seed: int, score: float) -> None:
        self._line(f"finalist {number}, seed {seed}: {score:.4f}")

    def on_stage(self, name: str) -> None:
        self._line(name)

    def _line(self, text: str) -> None:
        elapsed = time.monotonic() - self._started
        self._console.print(
            f"{elapsed:6.0f} s  {text}", soft_wrap=True, highlight=False, markup=False
        )


class LiveProgress(SearchListener):
    """A live display: budget, generation, individual, epoch, best so far, time left."""

    def __init__(self) -> None:
        self._names: Sequence[str] = ()
        columns = (
            TextColumn("{task.description:12s}"),
            BarColumn(),
            TextColumn("{task.percentage:3.0f}%"),
            TextColumn("{task.fields[note]}"),
        )
        self._progress = Progress(*columns, TimeElapsedColumn())
        self._budget = self._progress.add_task("budget", total=1.0, note="")
        self._epoch = self._progress.add_task("training", total=1, note="")
        self._best = Text("best so far: none yet")
        self._computed = Text("")

    def __rich__(self) -> Group:
        return Group(self._computed, self._progress, self._best)

    def on_execution(self, execution: Execution, timings: Sequence[Timing]) -> None:
        self._computed = Text(f"computed with {execution}{_gain(execution, timings)}")

    def on_search_begin(self, partition: Partition, budget: Budget, finished_trials: int) -> None:
        self._names = partition.names
        self._progress.update(self._budget, note=f"of {budget}")

    def on_trial_begin(self, number: int, generation: int, role: str) -> None:
        self._progress.reset(
            self._epoch, note=f"generation {generation}, individual {number} ({role})"
        )

    def on_epoch_end(self, seed: int, curve: Sequence[EpochRecord], epochs: int) -> None:
        self._progress.update(self._epoch, total=epochs, completed=len(curve))

    def on_trial_end(self, report: TrialReport) -> None:
        self._progress.update(self._budget, completed=report.share_spent, note=_time_left(report))
        self._best = Text("best so far: ")
        self._best.append(f"{report.best_score:.4f}  ", style="bold")
        for name in self._names:
            multiplier = report.best_multipliers.get(name)
            style = "dim" if multiplier is None else "green" if multiplier <= 3 else "yellow"
            rate = "frozen" if multiplier is None else f"x{multiplier:.2g}"
            self._best.append(f"{name} {rate}  ", style=style)

    def on_finalist(self, number: int, seed: int, score: float) -> None:
        self._progress.update(self._epoch, note=f"finalist {number}, seed {seed}: {score:.4f}")

    def on_stage(self, name: str) -> None:
        self._progress.update(self._epoch, note=name)


def _gain(execution: Execution, timings: Sequence[Timing]) -> str:
    """What a training step takes, and what the plainest way took; `""` if it was not measured."""
    steps = {t.way: t.seconds for t in timings if t.part == TRAINING_STEP and t.seconds}
    chosen = steps.get(execution.training_way)
    if not chosen:
        return ""
    return f": {chosen:.4f} s a step, {next(iter(steps.values())):.4f} s the plain way"


def _time_left(report: TrialReport) -> str:
    """Of the search, at the pace so far; finalists and final trainings come after it."""
    if not report.share_spent or not report.seconds:
        return ""
    seconds = report.seconds * (1 / report.share_spent - 1)
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes}:{seconds:02d} left"
