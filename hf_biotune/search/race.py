"""A race between ways to compute the same thing: of those that agree the quickest wins."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import torch

# The parts of a training.
TRAINING_STEP = "training step"
OPTIMIZER_STEP = "optimizer step"
VALIDATION_BATCH = "validation batch"
# Of losses, relative.
LOSS_TOLERANCE = 0.01
# Share of samples whose predicted class must be the same.
SAME_PREDICTIONS = 0.95
# A way that takes a larger share of the plainest one's time is not worth it, and could be chance.
WORTH_IT = 0.9
# After the first time, which warms up.
TURNS = 3
# What took so much longer than the quickest is not timed again: once, or, since another process may
# have slowed that one time down, each of two times.
HOPELESS_ONCE, HOPELESS = 3.0, 1.5

Key = TypeVar("Key")


@dataclass(frozen=True)
class Outcome:
    """What one run of one way gave.

    Args:
        seconds: it took.
        vector: what ways must agree in, by direction and length: a gradient, an update, logits.
        loss: what they must also agree in, if there is one.
        predictions: of classes, most of which must be the same, if there are any.
    """

    seconds: float
    vector: torch.Tensor = field(repr=False)
    loss: float | None = None
    predictions: torch.Tensor | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Way(Generic[Key]):
    """One way to compute something.

    Args:
        key: what it is chosen by.
        name: what it is called.
        run: computes it.
        tolerance: of the vector's difference from that of the plainest way, relative to the
            latter's length.
    """

    key: Key
    name: str
    run: Callable[[], Outcome]
    tolerance: float


@dataclass(frozen=True)
class Timing:
    """One way, measured.

    Args:
        part: of a training: `TRAINING_STEP` (forward and backward), `OPTIMIZER_STEP` or
            `VALIDATION_BATCH`.
        way: how it was computed.
        difference: relative, the largest, of the gradient, the update or the logits from those of
            the plainest way; `None` if it isn't finite, or the device can't compute it so.
        seconds: the quickest of some; `None` if it was not timed because it does not agree.
    """

    part: str
    way: str
    difference: float | None
    seconds: float | None

    def __str__(self) -> str:
        if self.seconds is None:
            differs = "fails" if self.difference is None else f"differs by {self.difference:.1%}"
            return f"{self.part}, {self.way}: {differs}"
        return f"{self.part}, {self.way}: {self.seconds:.4f} s"


@dataclass(frozen=True)
class Race(Generic[Key]):
    """The end of a race.

    Args:
        winner: its key.
        seconds: of the winner; 0 if it was alone and not timed.
        timings: of all, the plainest first.
    """

    winner: Key
    seconds: float
    timings: tuple[Timing, ...]


def race(part: str, ways: Sequence[Way[Key]], beside: float = 0.0) -> Race[Key]:
    """Run each way by turns; other processes can only make a run slower, so the quickest counts.

    Args:
        part: see [`Timing`].
        ways: the first is the plainest, which each run of the others must agree with.
        beside: seconds that are needed beside it, whichever wins.
    """
    if len(ways) == 1:
        return Race(ways[0].key, 0.0, ())
    reference = ways[0].run()
    runners = [_Runner(way, reference) for way in ways]
    for runner in runners[1:]:
        runner.warm_up()
    for _ in range(TURNS):
        for runner in runners:
            if runner.has_hope(runners):
                runner.run()
    winner = runners[0]
    for runner in runners[1:]:
        if runner.seconds + beside < WORTH_IT * (winner.seconds + beside):
            winner = runner
    return Race(winner.way.key, winner.seconds, tuple(r.timing(part) for r in runners))


class _Runner(Generic[Key]):
    """One way in a race: out of it once it fails or disagrees."""

    def __init__(self, way: Way[Key], reference: Outcome) -> None:
        self.way = way
        self.seconds = math.inf
        self._reference = reference
        self._difference: float | None = 0.0
        self._is_out = False
        self._n_timed = 0

    def warm_up(self) -> None:
        """Run once without counting the time."""
        self.run()
        self.seconds, self._n_timed = math.inf, 0

    def run(self) -> None:
        """Run, unless it is out of the race."""
        if self._is_out:
            return
        try:
            outcome = self.way.run()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:
            # The device can't compute it this way.
            self._leave(None)
            return
        difference = relative_difference(outcome, self._reference)
        if _agrees(outcome, self._reference, difference, self.way.tolerance):
            self._difference = max(self._difference or 0.0, difference or 0.0)
            self.seconds = min(self.seconds, outcome.seconds)
            self._n_timed += 1
        else:
            self._leave(difference)

    def _leave(self, difference: float | None) -> None:
        self._is_out, self._difference, self.seconds = True, difference, math.inf

    def has_hope(self, runners: Sequence[_Runner[Key]]) -> bool:
        """Whether it is worth another run."""
        # The plainest way is what all others must beat.
        if self is runners[0] or self._n_timed == 0:
            return True
        limit = HOPELESS_ONCE if self._n_timed == 1 else HOPELESS
        return self.seconds <= limit * min(runner.seconds for runner in runners)

    def timing(self, part: str) -> Timing:
        """What the race showed."""
        seconds = None if self._is_out else self.seconds
        return Timing(part, self.way.name, self._difference, seconds)


def relative_difference(outcome: Outcome, reference: Outcome) -> float | None:
    """The distance of two vectors in units of the second's length; `None` if it isn't finite."""
    distance = torch.linalg.vector_norm(outcome.vector - reference.vector)
    difference = float(distance / torch.linalg.vector_norm(reference.vector))
    return difference if math.isfinite(difference) else None


def _agrees(
    outcome: Outcome, reference: Outcome, difference: float | None, tolerance: float
) -> bool:
    """Whether the vector is nearly the same, the loss too, and most predictions are."""
    if difference is None or difference > tolerance:
        return False
    losses = outcome.loss or 0.0, reference.loss or 0.0
    if not math.isclose(*losses, rel_tol=LOSS_TOLERANCE, abs_tol=1e-3):
        return False
    if outcome.predictions is None or reference.predictions is None:
        return True
    same = (outcome.predictions == reference.predictions).double().mean()
    return float(same) >= SAME_PREDICTIONS
