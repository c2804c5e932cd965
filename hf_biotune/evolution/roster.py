"""Which slots of which generation are taken: read from the trials of a study, and only from there.

A trial that failed leaves its slot, and its plan, to the next one: whoever continues a search that
was killed trains what the dead process was training. A slot whose trials keep failing is given up.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from optuna.trial import FrozenTrial, TrialState

from .plan import Plan, stored_plan
from .scheme import Scheme

# Planning takes a fraction of a second. A trial that has had no plan for so long is dead.
PLANNING_TIME_LIMIT = timedelta(minutes=1)


class Roster:
    """The slots of a study.

    Args:
        trials: all of the study, in the order of their numbers.
        scheme: how many slots a generation has.
        max_attempts: how many trials may fail in a slot before it is given up, at least 1.
        known: plans that have been read before, by trial number; a plan never changes.
    """

    def __init__(
        self,
        trials: Sequence[FrozenTrial],
        scheme: Scheme,
        max_attempts: int,
        known: Mapping[int, Plan] | None = None,
    ) -> None:
        self.scheme = scheme
        self.max_attempts = max_attempts
        self.plans: dict[int, Plan] = {}
        self._running = [t for t in trials if t.state == TrialState.RUNNING]
        self._finished: Counter[int] = Counter()
        self._taken: set[tuple[int, int]] = set()
        self._failed: dict[tuple[int, int], list[FrozenTrial]] = {}
        known = known or {}
        for trial in trials:
            plan = known.get(trial.number) or stored_plan(trial)
            if plan is not None:
                self._enter(trial, plan)

    def _enter(self, trial: FrozenTrial, plan: Plan) -> None:
        self.plans[trial.number] = plan
        if trial.state == TrialState.FAIL:
            self._failed.setdefault((plan.generation, plan.slot), []).append(trial)
            return
        self._taken.add((plan.generation, plan.slot))
        # Pruned trials count: a generation of which many are pruned must end like any other.
        if trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
            self._finished[plan.generation] += 1

    def generation(self) -> int:
        """The first generation that isn't complete.

        Complete is a matter of numbers, as for Optuna's own genetic algorithms: when as many trials
        have finished (or been given up) as there are slots. Trials that are still running, or that
        died without telling, hold nobody up. Those that failed are repeated, even if others have
        filled the generation meanwhile.
        """
        abandoned = {
            generation
            for generation, slot in self._failed
            if not self._is_given_up(generation, slot) and (generation, slot) not in self._taken
        }
        given_up = Counter(
            generation
            for generation, slot in self._failed
            if self._is_given_up(generation, slot) and (generation, slot) not in self._taken
        )
        return next(
            generation
            for generation in itertools.count()
            if generation in abandoned
            or self._finished[generation] + given_up[generation] < self.scheme.n_slots(generation)
        )

    def claim(self, generation: int, number: int, *, enqueued: bool = False, first: int = 0) -> int:
        """The slot of a new trial: the first free one, past the last if all are taken.

        No storage of Optuna can claim atomically. Within a generation, no two running trials get
        the same slot. At its end they may, if both are planned within the same few milliseconds
        and a third one still believes that the generation isn't complete: then a training is done
        twice, and nothing worse.

        Args:
            generation: which the trial belongs to.
            number: of the trial. Trials that were made before it and are being planned right now
                have the first choice, so that workers that start at once get different slots.
            enqueued: whether the user gave the genes; such a trial takes no slot whose trial
                failed and is to be repeated.
            first: the first slot that it may take; those before are meant for others.
        """
        rivals = sum(
            trial.number < number and trial.number not in self.plans and _is_young(trial)
            for trial in self._running
        )
        free = (
            slot
            for slot in itertools.count(first)
            if (generation, slot) not in self._taken
            and len(self.failed(generation, slot)) < (1 if enqueued else self.max_attempts)
        )
        return next(itertools.islice(free, rivals, None))

    def failed(self, generation: int, slot: int) -> list[FrozenTrial]:
        """The trials that failed in a slot, oldest first."""
        return self._failed.get((generation, slot), [])

    def _is_given_up(self, generation: int, slot: int) -> bool:
        return len(self.failed(generation, slot)) >= self.max_attempts


def _is_young(trial: FrozenTrial) -> bool:
    started = trial.datetime_start
    return started is None or datetime.now() - started < PLANNING_TIME_LIMIT
