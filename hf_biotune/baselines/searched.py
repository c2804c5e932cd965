"""Methods that search over genotypes: BioTune's evolution, and chance at the same budget."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar

from ..config import BioTuneConfig
from ..search.training import BlockTraining
from .final_run import test_model
from .method import Method
from .problem import Problem
from .setting import Cost, FinalRun, Setting, Tuned


class SearchedMethod(Method):
    """Trains the winner of a search, whose cost is the cost of tuning.

    Class attribute `sampler`: who chooses the genotypes; see [`SearchConfig`].
    """

    sampler: ClassVar[str]

    def tune(self, problem: Problem) -> Tuned:
        """Search."""
        result = problem.search_result(self.sampler)
        config: Mapping[str, Any] = json.loads(json.dumps(result.best_config.to_dict()))
        options = {"individual": result.best_trial, "config": config}
        setting = Setting(1.0, result.best_config.norm_statistics, options)
        return Tuned(setting, result.best_score, search_cost(problem, self.sampler))

    def final_run(self, problem: Problem, setting: Setting, seed: int) -> FinalRun:
        """Train the winner once more, as every other method is."""
        problem.listener.on_stage(f"{self.title}: final training with seed {seed}")
        config = BioTuneConfig.from_peft_type(**setting.options["config"])
        return test_model(problem, BlockTraining(config), seed)


class BioTune(SearchedMethod):
    """Evolution of blocks and rates."""

    name = "biotune"
    title = "BioTune"
    source = "arXiv 2508.15367"
    sampler = "biotune"


class RandomSearch(SearchedMethod):
    """Genotypes at random, with the same seeded start, finalists and budget."""

    name = "random-search"
    title = "random search"
    source = "Bergstra and Bengio, Random Search for Hyper-Parameter Optimization (JMLR 2012)"
    sampler = "random"


def search_cost(problem: Problem, sampler: str) -> Cost:
    """What a search spent, finalists included."""
    result = problem.search_result(sampler)
    epochs = round(result.trainings * problem.evaluator.epochs)
    return Cost(result.trainings, epochs, result.seconds)
