"""The ensemble of the best individuals of one search: of evolution, or of chance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from ..exceptions import ConfigError
from ..search import BioTuneEnsemble, SearchResult
from .final_run import checkpoint_size, score_of
from .method import Method
from .peak_memory import PeakMemory
from .problem import Problem
from .searched import BioTune, RandomSearch, SearchedMethod, search_cost
from .setting import Cost, FinalRun, Setting, Tuned

# The published measurements are of 3 and 5; smaller ones are for searches that kept fewer.
SIZES = (5, 3)
SMALLER = (2, 1)


class SearchEnsemble(Method):
    """The mean of the probabilities of the best individuals, as the search trained them.

    It needs no training beyond the search, and there is one of it, whatever the number of seeds. Of
    the best 3 and 5 the better number by validation is taken.

    Class attribute `searcher`: the method whose search it is of.
    """

    searcher: ClassVar[type[SearchedMethod]]

    def tune(self, problem: Problem) -> Tuned:
        """Search, unless that was done before, and choose the number of members."""
        result = problem.search_result(self.searcher.sampler)
        scores = {}
        for size in _possible_sizes(result):
            ensemble = _ensemble(problem, result, size)
            logits = ensemble.predict(
                problem.data.validation, problem.args.per_device_eval_batch_size
            )
            scores[size] = problem.metric.compute(logits, problem.data.validation.labels)
        best = next(iter(scores))
        for size, score in scores.items():
            if problem.metric.is_better(score, scores[best]):
                best = size
        setting = Setting(options={"k": best})
        return Tuned(setting, scores[best], search_cost(problem, self.searcher.sampler))

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


def _ensemble(problem: Problem, result: SearchResult, size: int) -> BioTuneEnsemble:
    ensemble = result.ensemble(size)
    ensemble.to(problem.args.device)
    return ensemble


def _possible_sizes(result: SearchResult) -> list[int]:
    """The usual sizes that the search kept enough for; else the largest that it did."""
    usual = [size for size in SIZES if _is_possible(result, size)]
    return usual or [next(size for size in SMALLER if _is_possible(result, size))]


def _is_possible(result: SearchResult, size: int) -> bool:
    try:
        result.kept.best(size, result.finalists)
    except ConfigError:  # says that fewer are kept
        return False
    return True
