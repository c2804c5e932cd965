"""SubTuning: the blocks whose training helps, found one after the other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .method import BlockMethod, best_of
from .problem import Problem
from .setting import Setting, Tried

# Each further one costs a training of every block that is left.
MOST = 3


class SubTuning(BlockMethod):
    """Trains the head and a few blocks, chosen greedily by validation.

    To the head comes the block that helps most, then another, until none helps or there are three.
    """

    name = "subtuning"
    title = "SubTuning"
    source = "Kaplun et al., Less is More: Selective Layer Finetuning with SubTuning "
    source += "(arXiv 2302.06354)"

    def tune_options(self, problem: Problem) -> list[Tried]:
        """Grow the set of blocks as long as a further one helps."""
        tried = [self._attempt(problem, [])]
        best = tried[0]
        for _ in range(MOST):
            chosen = list(best.setting.options["blocks"])
            left = [name for name in problem.partition.names[:-1] if name not in chosen]
            if not left:
                break
            grown = [self._attempt(problem, [*chosen, name]) for name in left]
            tried += grown
            winner = best_of(grown, problem)
            if not problem.metric.is_better(winner.score, best.score):
                break
            best = winner
        return tried

    def _attempt(self, problem: Problem, blocks: list[str]) -> Tried:
        return self.attempt(problem, Setting(self.rates[1], options={"blocks": blocks}))

    def multipliers(self, problem: Problem, options: Mapping[str, Any]) -> dict[str, float]:
        """The chosen blocks and the head."""
        return dict.fromkeys([*options["blocks"], problem.head], 1.0)
