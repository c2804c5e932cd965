"""One process's part of a comparison: claims units, works them off, keeps their results."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from ..baselines import Problem, Tuned
from ..exceptions import StudyMismatchError
from ..search.execution import Execution
from ..search.identity import fingerprint_of_model
from ..search.listener import SearchListener
from ..search.models import IMAGE_TASK
from ..search.output_directory import UNITS_NAME
from ..search.search_config import SearchConfig
from .arena import LoadedArena
from .clock import Clock, KeptAttempts
from .plan import SHARED_TUNING, Plan
from .scores import scores_of
from .units import Ledger, Unit, write_whole

# Between looks at what other processes have finished.
_PAUSE = 0.5


class ContestListener(SearchListener):
    """Override what you want to see of a comparison; every method does nothing here."""

    def on_unit_begin(self, unit: Unit, n_done: int, n_units: int) -> None:
        """A unit was claimed by this process."""

    def on_unit_end(self, unit: Unit, n_done: int, n_units: int) -> None:
        """A unit is kept."""

    def on_misfit(self, unit: Unit, reason: str) -> None:
        """A method does not fit the model, and is left out."""

    def on_wait(self) -> None:
        """What is left is being done by other processes."""


class Worker:
    """Works off the units of a plan, beside any number of others with the same directory.

    Args:
        plan: what is compared.
        directory: of the comparison.
        listener: is told what happens in this process.
    """

    def __init__(self, plan: Plan, directory: Path, listener: ContestListener) -> None:
        self._plan = plan
        self._ledger = Ledger(directory)
        self._listener = listener
        self._arena: LoadedArena | None = None
        self._split: int | None = None
        self._problem: Problem | None = None

    def run(self) -> None:
        """Work until every unit of the plan is finished, by whomever.

        Raises:
            StudyMismatchError: the directory holds a comparison of something else.
        """
        self._ledger.claim_identity(self._plan.identity)
        has_waited = False
        while units := self._open_units():
            if any(self._work_on(unit) for unit in self._with_present_split_first(units)):
                has_waited = False
                continue
            if not has_waited:
                self._listener.on_wait()
            has_waited = True
            time.sleep(_PAUSE)

    def _open_units(self) -> list[Unit]:
        """What is not finished and can be begun or is being done."""
        done = {unit: self._ledger.is_done(unit) for unit in self._plan.all_units()}
        return [
            unit
            for unit, is_done in done.items()
            if not is_done and not (unit.seed is not None and self._is_misfit(unit, done))
        ]

    def _is_misfit(self, unit: Unit, done: dict[Unit, bool]) -> bool:
        tuning = Unit(unit.split, unit.method)
        return done[tuning] and "why_not" in self._ledger.read(tuning)

    def _with_present_split_first(self, units: list[Unit]) -> list[Unit]:
        """Its data is in memory."""
        return sorted(units, key=lambda unit: unit.split != self._split)

    def _work_on(self, unit: Unit) -> bool:
        """Do a unit, unless another process has it, or has to finish what it needs."""
        needs = self._needs(unit)
        if not all(map(self._ledger.is_done, needs)):
            return False
        # Another process may have found out since the list of units was made.
        if unit.seed is not None and "why_not" in self._ledger.read(needs[0]):
            return False
        with self._ledger.claimed(self._claim_of(unit)) as is_mine:
            # It may have been finished between the look and the claim.
            if not is_mine or self._ledger.is_done(unit):
                return False
            self._listener.on_unit_begin(unit, *self._progress())
            result = self._tuning(unit) if unit.seed is None else self._final(unit)
            self._ledger.write(unit, result)
            self._listener.on_unit_end(unit, *self._progress())
        return True

    def _needs(self, unit: Unit) -> list[Unit]:
        """What must be finished before a unit can begin."""
        if unit.seed is not None:
            return [Unit(unit.split, unit.method)]
        owner = SHARED_TUNING.get(unit.method)
        return [Unit(unit.split, owner)] if owner in self._plan.methods else []

    def _claim_of(self, unit: Unit) -> Unit:
        """What a process must hold to work on a unit: a tuning is one for all that use it."""
        owner = SHARED_TUNING.get(unit.method)
        return unit if owner is None else Unit(unit.split, owner)

    def _progress(self) -> tuple[int, int]:
        units = self._plan.all_units()
        return sum(map(self._ledger.is_done, units)), len(units)

    def _tuning(self, unit: Unit) -> dict[str, Any]:
        problem, method = self._problem_of(unit.split), self._plan.method(unit.method)
        reason = method.why_not(problem.model, problem.partition)
        if reason is not None:
            self._listener.on_misfit(unit, reason)
            return {"why_not": reason}
        # Whoever shares the tuning shares what was tried, and pays for all of it.
        with self._clocked(problem, self._claim_of(unit)) as clock:
            tuned = method.tune(problem)
        return {
            **tuned.to_dict(),
            "compute_seconds": clock.seconds,
            "device": problem.args.device.type,
            "parameters": problem.partition.n_parameters,
        }

    def _final(self, unit: Unit) -> dict[str, Any]:
        assert unit.seed is not None
        problem, method = self._problem_of(unit.split), self._plan.method(unit.method)
        tuned = Tuned.from_dict(self._ledger.read(Unit(unit.split, unit.method)))
        self._ledger.path(unit, ".clock").unlink(missing_ok=True)
        with self._clocked(problem, unit) as clock:
            run = method.final_run(problem, tuned.setting, unit.seed)
        assert run.test_logits is not None
        assert problem.data.test is not None
        return {
            **run.to_dict(),
            "seed": unit.seed,
            "is_seedless": run.seed is None,
            "scores": asdict(scores_of(run.test_logits, problem.data.test.labels)),
            "compute_seconds": clock.seconds,
            "device": problem.args.device.type,
        }

    @contextmanager
    def _clocked(self, problem: Problem, unit: Unit) -> Iterator[Clock]:
        clock = Clock(self._ledger.path(unit, ".clock"), problem.args.device, self._listener)
        problem.listener = clock
        problem.attempts = KeptAttempts(self._ledger.path(unit, ".attempts"), clock)
        yield clock
        clock.mark()

    def _problem_of(self, split: int) -> Problem:
        """The data and the model of a split; those of one split are in memory at a time."""
        if self._problem is None or self._split != split:
            self._problem, self._split = None, split
            gc.collect()
            self._problem = self._new_problem(split)
        return self._problem

    def _new_problem(self, split: int) -> Problem:
        arena = self._plan.arena
        if self._arena is None:
            self._arena = LoadedArena(arena)
        searches = self._ledger.directory / "searches" / f"split-{split}"
        searches.mkdir(parents=True, exist_ok=True)
        data = self._arena.split(split)
        self._check_same(split, "data", "data set", data.fingerprint)
        model_init = self._arena.model_init(data)
        args = arena.arguments(searches)
        # The fastest on any device; the same for all methods, so that none has an advantage.
        layout = "channels_last" if self._arena.task == IMAGE_TASK else "contiguous"
        problem = Problem(
            model_init,
            data,
            args,
            SearchConfig(
                budget=self._plan.budget,
                metric=self._plan.metric,
                patience=arena.patience,
                # With one for all, a lucky draw would be lucky on every split and data set.
                seed=int(sha256(data.fingerprint.encode()).hexdigest()[:8], 16),
            ),
            blocks=arena.blocks,
            execution=replace(Execution.of(args), memory_layout=layout),
            directory=searches,
        )
        self._check_same(split, "model", "model", fingerprint_of_model(problem.pool.restore(0)))
        return problem

    def _check_same(self, split: int, name: str, what: str, fingerprint: str) -> None:
        """Raise unless all units of a split are of what the file of that name says."""
        path = self._ledger.directory / UNITS_NAME / f"split-{split}" / name
        if not path.exists():
            write_whole(path, fingerprint)
        if (stored := path.read_text(encoding="utf-8").strip()) != fingerprint:
            raise StudyMismatchError(
                f"split {split} in {str(self._ledger.directory)!r} is of another {what} (there "
                f"{stored}, here {fingerprint}), though its name is the same; give another output "
                f"directory"
            )


@contextmanager
def shared_threads(n_workers: int) -> Iterator[None]:
    """While it lasts, the processor is shared among the workers of this machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, before // n_workers))
    try:
        yield
    finally:
        torch.set_num_threads(before)
