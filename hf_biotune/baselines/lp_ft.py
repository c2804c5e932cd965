"""LP-FT: a linear probe first, then full fine-tuning."""

from __future__ import annotations

from .gradual import PhasedTraining
from .method import TrainedMethod
from .problem import Problem
from .setting import Setting


class LpFt(TrainedMethod):
    """Trains the head for the first half of the epochs, and everything from there on.

    A head that fits keeps the first steps from distorting the features. Both halves are parts of
    one schedule, so that it costs what other methods cost.
    """

    name = "lp-ft"
    title = "LP-FT"
    source = "Kumar et al., Fine-Tuning can Distort Pretrained Features (arXiv 2202.10054)"

    def training(self, problem: Problem, setting: Setting) -> PhasedTraining:
        """All blocks but the head begin with the second half."""
        half = problem.evaluator.epochs // 2
        begins = {**dict.fromkeys(problem.partition.names, half), problem.head: 0}
        return PhasedTraining(problem, setting, begins)
