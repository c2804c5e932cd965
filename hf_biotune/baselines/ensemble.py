"""The ensemble of the best individuals of one search: of evolution, or of chance."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import ClassVar

from ..exceptions import CheckpointError, ConfigError
from ..search import BioTuneEnsemble, SearchResult
from .final_run import checkpoint_size, score_of
from .method import Method
from .peak_memory import PeakMemory
from .problem import Problem
from .searched import BioTune, RandomSearch, SearchedMethod, search_cost
from .setting import Cost, FinalRun, Setting, Tuned

# Of individuals; fewer where the search kept fewer.
N_INDIVIDUALS = 3


class SearchEnsemble(Method):
    """The mean of the probabilities of the best individuals, as the search trained them.

    It needs no training beyond the search, and there is one of it, whatever the number of seeds.
    The members are all trainings of the best three individuals that the search kept.

    Class attribute `searcher`: the method whose search it is of.
    """

    searcher: ClassVar[type[SearchedMethod]]

    def tune(self, problem: Problem) -> Tuned:
        """Search, unless that was done before."""
        result = problem.search_result(self.searcher.sampler)
        k, ensemble = _largest_ensemble(problem, result)
        validation = problem.data.validation
        logits = ensemble.predict(validation, problem.args.per_device_eval_batch_size)
        score = problem.metric.compute(logits, validation.labels)
        return Tuned(Setting(options={"k": k}), score, search_cost(problem, self.searcher.sampler))

    def final_seeds(self, seeds: Sequence[int]) -> Sequence[int]:
        """One: no seed makes a difference."""
        return seeds[:1]

    def final_run(self, problem: Problem, setting: Setting, seed: int) -> FinalRun:
        """Test the ensemble. Its sizes are those of all members together."""
        result = problem.search_result(self.searcher.sampler)
        ensemble = _ensemble(problem, result, setting.options["k"])
        size = problem.args.per_device_eval_batch_size
        validation, test = problem.data.validation, problem.data.test
        with PeakMemory(problem.args.device) as peak:
            score = problem.metric.compute(ensemble.predict(validation, size), validation.labels)
            logits = None if test is None else ensemble.predict(test, size)
        trained = sum(
            problem.partition[block].n_parameters
            for member in ensemble.members
            for block in member.config.lr_multipliers
        )
        return FinalRun(
            seed=None,
            validation_score=score,
            test_score=None if logits is None else score_of(problem, logits),
            cost=Cost(),
            trained_parameters=trained,
            checkpoint_bytes=sum(checkpoint_size(m.tensors) for m in ensemble.members),
            peak_bytes=peak.bytes,
            test_logits=logits,
        )


class EnsembleOfBest(SearchEnsemble):
    """Of the best that evolution found."""

    name = "biotune-ensemble"
    title = "BioTune ensemble"
    source = "this project: docs/results.md"
    searcher = BioTune


class EnsembleOfRandom(SearchEnsemble):
    """Of the best that chance found: does an ensemble need evolution?"""

    name = "random-ensemble"
    title = "random search ensemble"
    source = "this project: docs/results.md"
    searcher = RandomSearch


def _ensemble(problem: Problem, result: SearchResult, k: int) -> BioTuneEnsemble:
    ensemble = result.ensemble(k, every_seed=True)
    ensemble.to(problem.args.device)
    return ensemble


def _largest_ensemble(problem: Problem, result: SearchResult) -> tuple[int, BioTuneEnsemble]:
    """Of the usual number of individuals, or of as many as the search kept enough for."""
    for k in range(N_INDIVIDUALS, 1, -1):
        # Fewer are kept, or one of them diverged.
        with suppress(ConfigError, CheckpointError):
            return k, _ensemble(problem, result, k)
    return 1, _ensemble(problem, result, 1)
