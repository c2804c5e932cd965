"""What the trainings of one individual gave: learning curves, scores, cost."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

# Why a training ended with the metric's worst score.
DIVERGED, FAILED = "diverged", "failed"
# Whose score is the worst there is, and says nothing.
NO_SCORE = (DIVERGED, FAILED)


@dataclass(frozen=True)
class EpochRecord:
    """One epoch of a learning curve.

    Args:
        train_loss: mean over the epoch's steps.
        validation_loss: mean cross-entropy on the validation samples.
        score: the metric on the validation samples.
        learning_rate: the base rate at the end of the epoch, before any multiplier.
    """

    train_loss: float
    validation_loss: float
    score: float
    learning_rate: float


@dataclass(frozen=True)
class SeedRun:
    """One training: one phenotype, one seed, one fold.

    Args:
        seed: of initialisation, data order and dropout.
        curve: one record per epoch that was trained.
        score: the best epoch's score, the metric's worst one if the run diverged.
        seconds: wall time, evaluation included.
        stopped: why it ended early: `""`, `"patience"`, `"halving"`, `"diverged"` or `"failed"`,
            in which case nothing is known of its curve.
        batch_parts: into so many parts batches were divided, because memory did not suffice for
            them; see [`with_smaller_batches`].
        reason: why it diverged or failed.
    """

    seed: int
    curve: tuple[EpochRecord, ...]
    score: float
    seconds: float
    stopped: str = ""
    batch_parts: int = 1
    reason: str = ""

    @property
    def epochs(self) -> int:
        """How many epochs were trained."""
        return len(self.curve)


@dataclass(frozen=True)
class FitnessResult:
    """What the trainings of one phenotype gave.

    Args:
        runs: one per seed that was trained.
        trained_parameters: numbers in trained blocks.
        trainings: cost in units of one full training: all samples, all epochs.
    """

    runs: tuple[SeedRun, ...]
    trained_parameters: int
    trainings: float

    @property
    def score(self) -> float:
        """Mean of the runs' scores."""
        return statistics.fmean(run.score for run in self.runs)

    @property
    def score_std(self) -> float:
        """Sample standard deviation over seeds; NaN for a single one, or if a score is infinite."""
        scores = [run.score for run in self.runs]
        if len(scores) < 2 or not all(map(math.isfinite, scores)):
            return math.nan
        return statistics.stdev(scores)

    @property
    def seconds(self) -> float:
        """Wall time of all runs."""
        return sum(run.seconds for run in self.runs)

    @property
    def epochs(self) -> int:
        """Epochs of all runs."""
        return sum(run.epochs for run in self.runs)

    @property
    def has_failed(self) -> bool:
        """Whether every run failed or diverged."""
        return all(run.stopped in NO_SCORE for run in self.runs)

    @property
    def was_halved(self) -> bool:
        """Whether a run was stopped for being worse than its peers at the rung."""
        return any(run.stopped == "halving" for run in self.runs)

    def joined(self, further: FitnessResult) -> FitnessResult:
        """This and further trainings of the same phenotype, with other seeds."""
        return replace(
            self, runs=self.runs + further.runs, trainings=self.trainings + further.trainings
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> FitnessResult:
        """The inverse of [`~FitnessResult.to_dict`]."""
        runs = tuple(
            SeedRun(**{**run, "curve": tuple(EpochRecord(**epoch) for epoch in run["curve"])})
            for run in data["runs"]
        )
        return cls(runs, data["trained_parameters"], data["trainings"])
