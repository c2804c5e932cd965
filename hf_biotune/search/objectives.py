"""What a search is for: a score, and what it may cost."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from ..blocks import Partition
from ..exceptions import ConfigError
from .fitness_result import FitnessResult
from .metrics import METRICS, Metric

PARAMETERS, SECONDS, CHECKPOINT = "trainable_parameters", "seconds", "checkpoint_size"
COSTS = (PARAMETERS, SECONDS, CHECKPOINT)


def checked_objectives(objectives: Sequence[str], metric: Any, default: Any) -> tuple[Any, ...]:
    """Check what a user gave as objectives.

    Args:
        objectives: empty, or a metric and at least one cost.
        metric: what the user gave beside them.
        default: what `metric` is if they gave nothing.

    Returns:
        The objectives, and the metric that the first of them is.

    Raises:
        ConfigError: an unknown objective, one twice, too few, or another metric beside them.
    """
    if isinstance(objectives, str):
        raise ConfigError(f"objectives must be a list of names, got the string {objectives!r}")
    names = tuple(objectives)
    if not names:
        return names, metric
    known = METRICS.keys() if isinstance(metric, str) else {_name_of(metric)}
    if names[0] not in known:
        raise ConfigError(
            f"the first of objectives must be the metric, one of {', '.join(known)}, got "
            f"{names[0]!r}"
        )
    for name in names[1:]:
        if name not in COSTS:
            raise ConfigError(
                f"objectives after the metric must be among {', '.join(COSTS)}, got {name!r}"
            )
        if names.count(name) > 1:
            raise ConfigError(f"objectives must differ from each other, got {name!r} twice")
    if len(names) == 1:
        raise ConfigError(
            f"objectives must hold a metric and at least one of {', '.join(COSTS)}, got "
            f"{names[0]!r} alone; for one objective give metric={names[0]!r}"
        )
    if not isinstance(metric, str):
        return names, metric
    if metric not in (default, names[0]):
        raise ConfigError(
            f"objectives begins with {names[0]!r}, but metric is {metric!r}; give one of the two"
        )
    return names, names[0]


def _name_of(metric: Any) -> str:
    return str(getattr(metric, "name", None) or type(metric).__name__)


@dataclass(frozen=True)
class Objectives:
    """The objectives of one search.

    Args:
        metric: the score.
        costs: names of what is minimised besides, among `COSTS`; none in a search for a score.
        parameters: of each block.
        saved_bytes: of each block's tensors in an adapter's file. A block that is new in the model
            is always saved, trained or not.
        always_trained: blocks that no individual may freeze.
        always_saved: blocks that are saved even if they are frozen.
    """

    metric: Metric
    costs: tuple[str, ...]
    parameters: Mapping[str, int]
    saved_bytes: Mapping[str, int]
    always_trained: tuple[str, ...] = ()
    always_saved: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        metric: Metric,
        costs: Sequence[str],
        model: nn.Module,
        partition: Partition,
        always_trained: Sequence[str],
        always_saved: Sequence[str],
    ) -> Objectives:
        """Measure the blocks of a model.

        Args:
            metric: the score.
            costs: what is minimised besides.
            model: whose tensors are counted.
            partition: its blocks.
            always_trained: blocks that no individual may freeze.
            always_saved: blocks that no checkpoint of the base model holds.
        """
        return cls(
            metric=metric,
            costs=tuple(costs),
            parameters={block.name: block.n_parameters for block in partition},
            saved_bytes=_bytes_by_block(model, partition),
            always_trained=tuple(always_trained),
            always_saved=tuple(always_saved),
        )

    @property
    def directions(self) -> list[str]:
        """Of the study."""
        first = "maximize" if self.metric.greater_is_better else "minimize"
        return [first, *("minimize" for _ in self.costs)]

    @property
    def of_blocks(self) -> list[dict[str, float] | None]:
        """What each trained block adds to each cost; `None` for one that is measured."""
        settled = {
            PARAMETERS: (self.parameters, self.always_trained),
            CHECKPOINT: (self.saved_bytes, (*self.always_trained, *self.always_saved)),
        }
        costs: list[dict[str, float] | None] = []
        for name in self.costs:
            if name not in settled:
                costs.append(None)
                continue
            sizes, paid = settled[name]
            costs.append({b: 0.0 if b in paid else float(n) for b, n in sizes.items()})
        return costs

    def values_of(
        self, fitness: FitnessResult, trained: Sequence[str], slowest: float = 0.0
    ) -> list[float]:
        """The score of an individual, and what it costs, as the study keeps them.

        Args:
            fitness: of its trainings.
            trained: the names of its blocks.
            slowest: the seconds of the slowest training so far. One that diverged or failed would
                be the cheapest of all, for which no other could dominate it; it costs as much.
        """
        costs = self.costs_of(fitness, trained)
        if fitness.has_failed:
            costs[SECONDS] = max(costs[SECONDS], slowest)
        return [fitness.score, *(costs[name] for name in self.costs)]

    def costs_of(self, fitness: FitnessResult, trained: Sequence[str]) -> dict[str, float]:
        """All that can be a cost, whether or not the search minimises it.

        Args:
            fitness: of an individual's trainings.
            trained: the names of its blocks.
        """
        return {
            PARAMETERS: float(sum(self.parameters[name] for name in trained)),
            SECONDS: statistics.fmean(run.seconds for run in fitness.runs),
            CHECKPOINT: float(
                sum(self.saved_bytes[name] for name in {*trained, *self.always_saved})
            ),
        }


def _bytes_by_block(model: nn.Module, partition: Partition) -> dict[str, int]:
    """Of the parameters and the persistent buffers of each block."""
    sizes = dict.fromkeys(partition.names, 0)
    for name, parameter in model.named_parameters():
        sizes[partition.block_of_parameter(name)] += parameter.nbytes
    persistent = model.state_dict(keep_vars=True)
    for name, buffer in model.named_buffers():
        block = partition.block_of_module(name.rpartition(".")[0])
        if block is not None and name in persistent:
            sizes[block] += buffer.nbytes
    return sizes
