"""A deep ensemble: full fine-tuning with several seeds, as one model."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..classification import mean_log_probabilities
from .final_run import score_of, test_model
from .full_fine_tuning import FullFineTuning
from .problem import Problem
from .setting import Cost, FinalRun, Setting, Tuned

# As in the paper; more members are worth little more.
N_MEMBERS = 5


class DeepEnsemble(FullFineTuning):
    """The mean of the probabilities of five full fine-tunings that differ in their seed.

    Its setting is that of full fine-tuning. It is what an ensemble of a search has to be compared
    with: that one has several members as well, but needs no training for them.
    """

    name = "full-ensemble"
    title = "full fine-tuning ensemble"
    source = "Lakshminarayanan et al., Deep Ensembles (arXiv 1612.01474)"

    def tune(self, problem: Problem) -> Tuned:
        """As full fine-tuning, whose trainings are not repeated if they are known."""
        return FullFineTuning().tune(problem)

    def final_seeds(self, seeds: Sequence[int]) -> Sequence[int]:
        """One: its members have seeds of their own."""
        return seeds[:1]

    def final_run(self, problem: Problem, setting: Setting, seed: int) -> FinalRun:
        """Train the members with this seed and those after it. Sizes are of all together."""
        runs = []
        for member_seed in range(seed, seed + N_MEMBERS):
            problem.listener.on_stage(f"{self.title}: final training with seed {member_seed}")
            runs.append(test_model(problem, self.training(problem, setting), member_seed))
        logits = _mean_logits(runs)
        peaks = [run.peak_bytes for run in runs if run.peak_bytes is not None]
        return FinalRun(
            seed=None,
            # Of the members: their predictions for the validation samples are not kept.
            validation_score=sum(run.validation_score for run in runs) / N_MEMBERS,
            test_score=None if logits is None else score_of(problem, logits),
            cost=sum((run.cost for run in runs), Cost()),
            trained_parameters=sum(run.trained_parameters for run in runs),
            checkpoint_bytes=sum(run.checkpoint_bytes for run in runs),
            peak_bytes=max(peaks, default=None),
            test_logits=logits,
        )


def _mean_logits(runs: Sequence[FinalRun]) -> torch.Tensor | None:
    logits = [run.test_logits for run in runs if run.test_logits is not None]
    # A member that diverged says nothing.
    finite = [each for each in logits if bool(torch.isfinite(each).all())]
    return mean_log_probabilities(torch.stack(finite or logits)) if logits else None
