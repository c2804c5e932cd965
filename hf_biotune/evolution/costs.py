"""Objectives beside the score: what a genotype costs, known beforehand or learned."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from ..exceptions import ConfigError
from .operators import FloatArray

# What each trained block adds to a cost, by name; `None` if only a training tells.
Cost = Mapping[str, float] | None


@dataclass(frozen=True)
class Costs:
    """The objectives after the first, all minimised.

    How many parameters are trained, or how large a checkpoint is, follows from the blocks that are
    trained: no training and no model is needed to know it of a candidate.

    Args:
        per_block: for each of these objectives what each block adds to it, in the order of the
            blocks; `None` for one that only a training tells.
    """

    per_block: tuple[tuple[float, ...] | None, ...] = ()

    @classmethod
    def of(cls, costs: Sequence[Cost], block_names: Sequence[str]) -> Costs:
        """Check what a user gave.

        Raises:
            ConfigError: a cost isn't given for just these blocks, or is negative or infinite.
        """
        per_block: list[tuple[float, ...] | None] = []
        for cost in costs:
            if cost is None:
                per_block.append(None)
                continue
            if set(cost) != set(block_names):
                wrong = sorted(set(cost) ^ set(block_names))[0]
                raise ConfigError(
                    f"costs must hold a number for each block and nothing else: {wrong!r} is in "
                    f"one of both only"
                )
            for name, value in cost.items():
                if not (math.isfinite(value) and value >= 0):
                    raise ConfigError(
                        f"costs must be finite and not negative, got {value} for block {name!r}"
                    )
            per_block.append(tuple(float(cost[name]) for name in block_names))
        return cls(tuple(per_block))

    def fitted_to(self, directions: Sequence[StudyDirection]) -> Costs:
        """These costs for a study; of a study that they say nothing about, all are unknown.

        Raises:
            ConfigError: their number isn't that of the study's objectives but one, or the study
                maximises one that is known.
        """
        n_others = len(directions) - 1
        if not self.per_block:
            return Costs((None,) * n_others)
        if len(self.per_block) != n_others:
            raise ConfigError(
                f"costs must be given for each objective after the first, {n_others} in this "
                f"study, got {len(self.per_block)}; give none to have all of them learned"
            )
        for index, (cost, direction) in enumerate(zip(self.per_block, directions[1:], strict=True)):
            if cost is not None and direction == StudyDirection.MAXIMIZE:
                raise ConfigError(
                    f"costs are minimised, but the study maximises objective {index + 1}; give "
                    f"None for it to have it learned, or create the study with 'minimize' there"
                )
        return self

    def __len__(self) -> int:
        return len(self.per_block)

    def known(self, genes: FloatArray) -> FloatArray:
        """The costs of genotypes as far as they follow from the blocks that are trained.

        Args:
            genes: in the order of [`Genotype.to_array`], shape (N, number of genes).

        Returns:
            Shape (N, len(self)); NaN where only a training tells.
        """
        found = np.full((len(genes), len(self)), np.nan)
        for index, cost in enumerate(self.per_block):
            if cost is not None:
                n_blocks = len(cost)
                trained = genes[:, :n_blocks] > genes[:, n_blocks, None]
                found[:, index] = trained @ np.array(cost)
        return found

    def observed(
        self,
        trials: Sequence[FrozenTrial],
        genes: FloatArray,
        directions: Sequence[StudyDirection],
    ) -> FloatArray:
        """The costs of finished trials; those that only a training tells are NaN if it was pruned.

        Args:
            trials: finished ones.
            genes: of each, shape (N, number of genes).
            directions: of the study; what is maximised gets a minus.
        """
        found = self.known(genes)
        for index, cost in enumerate(self.per_block):
            if cost is None:
                sign = -1.0 if directions[index + 1] == StudyDirection.MAXIMIZE else 1.0
                found[:, index] = [
                    sign * trial.values[index + 1] if trial.state == TrialState.COMPLETE else np.nan
                    for trial in trials
                ]
        return found


NO_COSTS = Costs()
