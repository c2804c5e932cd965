"""`Method`: one way of fine-tuning, and how its setting is chosen.

A method is what to train, at which rate, with which penalty, changing how over the epochs. The
model, the data, the loop, the stopping and the accounting are those of the [`Problem`].
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar

from torch import nn

from ..blocks import Partition
from ..search.training import BlockTraining, Training
from .final_run import test_model
from .problem import Problem
from .setting import Cost, FinalRun, MethodResult, Setting, Tried, Tuned

# A decade around the base rate, in half decades.
RATES = (0.3, 1.0, 3.0)
# For methods that train few or new numbers, whose best rates are higher.
HIGH_RATES = (1.0, 3.0, 10.0)


class Method(ABC):
    """One way of fine-tuning.

    Class attributes: `name` (its key), `title` (for tables), `source` (where it comes from).
    """

    name: ClassVar[str]
    title: ClassVar[str]
    source: ClassVar[str]

    def why_not(self, model: nn.Module, partition: Partition) -> str | None:
        """The reason for which the method does not fit a model; `None` if it does.

        Args:
            model: only its structure counts; it may be on the meta device.
            partition: its blocks.
        """
        return None

    @abstractmethod
    def tune(self, problem: Problem) -> Tuned:
        """Choose the setting, by validation samples only."""

    @abstractmethod
    def final_run(self, problem: Problem, setting: Setting, seed: int) -> FinalRun:
        """Train once with the chosen setting, and test once.

        Args:
            problem: the same as for `tune`.
            setting: that `tune` chose.
            seed: of initialisation and data order.
        """

    def final_seeds(self, seeds: Sequence[int]) -> Sequence[int]:
        """Of the seeds that final models are wanted for, those that make a difference."""
        return seeds


class TrainedMethod(Method):
    """A method that is one training, of any setting out of a few.

    First every candidate of the method's own options is trained, at the middle rate. Then the best
    of them is trained at the other rates, with BatchNorm statistics of trained blocks that are
    averages of the epoch and frozen, where there are any. The best of all on the validation samples
    is taken.
    """

    rates: ClassVar[tuple[float, float, float]] = RATES

    def options(self, problem: Problem) -> Sequence[Mapping[str, Any]]:
        """The candidates for the method's own options. Default: it has none."""
        return [{}]

    def trained_blocks(self, problem: Problem, options: Mapping[str, Any]) -> Collection[str]:
        """The blocks that are trained. Default: all."""
        return problem.partition.names

    @abstractmethod
    def training(self, problem: Problem, setting: Setting) -> Training:
        """What the loop trains."""

    def norm_modes(self, problem: Problem, options: Mapping[str, Any]) -> tuple[str, ...]:
        """What the statistics of BatchNorm may do: both, where a trained block has any."""
        trained = self.trained_blocks(problem, options)
        return ("epoch", "frozen") if problem.batch_norm_blocks & set(trained) else ("epoch",)

    def tune(self, problem: Problem) -> Tuned:
        """Choose options, then rate and mode; see the class."""
        tried = self.tune_options(problem)
        options = best_of(tried, problem).setting.options
        for mode in self.norm_modes(problem, options):
            for rate in self.rates:
                setting = Setting(rate, mode, options)
                if setting not in [each.setting for each in tried]:
                    tried.append(self.attempt(problem, setting))
        best = best_of(tried, problem)
        cost = sum((each.cost for each in tried), Cost())
        return Tuned(best.setting, best.score, cost, tuple(tried))

    def tune_options(self, problem: Problem) -> list[Tried]:
        """Train each candidate of the options at the middle rate, in the first BatchNorm mode."""
        return [
            self.attempt(
                problem, Setting(self.rates[1], self.norm_modes(problem, options)[0], options)
            )
            for options in self.options(problem)
        ]

    def attempt(self, problem: Problem, setting: Setting) -> Tried:
        """Train one setting with the seed of tuning, unless that was done before."""
        key = f"{self.name}: {setting}"
        if key not in problem.attempts:
            problem.listener.on_stage(f"{self.title}: {setting}")
            training = self.training(problem, setting)
            fitness = problem.evaluator.evaluate(training, [problem.tuning_seed])
            cost = Cost(fitness.trainings, fitness.epochs, fitness.seconds)
            problem.attempts[key] = Tried(setting, fitness.score, cost)
        return problem.attempts[key]

    def final_run(self, problem: Problem, setting: Setting, seed: int) -> FinalRun:
        """Train once; the weights of the best epoch by validation are tested."""
        problem.listener.on_stage(f"{self.title}: final training with seed {seed}")
        return test_model(problem, self.training(problem, setting), seed)


class BlockMethod(TrainedMethod):
    """A method that is a choice of blocks, each with a rate."""

    @abstractmethod
    def multipliers(self, problem: Problem, options: Mapping[str, Any]) -> dict[str, float]:
        """The blocks that are trained, and the rate of each relative to that of the setting."""

    def trained_blocks(self, problem: Problem, options: Mapping[str, Any]) -> Collection[str]:
        """Those that have a rate."""
        return self.multipliers(problem, options).keys()

    def training(self, problem: Problem, setting: Setting) -> BlockTraining:
        """Each block at its own share of the setting's rate."""
        shares = self.multipliers(problem, setting.options)
        multipliers = {name: setting.rate * share for name, share in shares.items()}
        return BlockTraining(problem.config(multipliers, norm_statistics=setting.norm_statistics))


def best_of(tried: Sequence[Tried], problem: Problem) -> Tried:
    """The first of the best by validation score."""
    best = tried[0]
    for each in tried[1:]:
        if problem.metric.is_better(each.score, best.score):
            best = each
    return best


def run_method(method: Method, problem: Problem, seeds: Sequence[int]) -> MethodResult:
    """Choose a method's setting, train final models and test each of them once.

    Args:
        method: see [`get_method`].
        problem: what it is tried on.
        seeds: one final model each.
    """
    reason = method.why_not(problem.model, problem.partition)
    if reason is not None:
        return MethodResult(method.name, why_not=reason)
    tuned = method.tune(problem)
    runs = [method.final_run(problem, tuned.setting, seed) for seed in method.final_seeds(seeds)]
    return MethodResult(method.name, tuned, tuple(runs))
