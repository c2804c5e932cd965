"""Methods that train no network: a classifier on the features before the head.

Their setting is chosen and their classifier fitted in one go, in seconds; no seed makes a
difference, so that there is one final model.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from ..features import FeatureSelection, KernelClassifier, head_inputs, select_features, top_tune
from ..search.data import EncodedSplit
from .final_run import checkpoint_size, score_of
from .method import Method
from .peak_memory import PeakMemory
from .problem import Problem
from .setting import Cost, FinalRun, Setting, Tuned

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Features:
    """What the head would see of training and validation samples.

    Args:
        train: shape (n, d).
        labels: shape (n,).
        validation: shape (m, d).
    """

    train: FloatArray
    labels: NDArray[np.int64]
    validation: FloatArray


class FeatureMethod(Method):
    """A classifier on the features of the frozen network, chosen by validation samples.

    Class attribute `options`: what of the fitted classifier a table shows.
    """

    options: ClassVar[tuple[str, ...]]

    @abstractmethod
    def fit(self, problem: Problem, features: Features) -> KernelClassifier | FeatureSelection:
        """Choose and fit the classifier."""

    def tune(self, problem: Problem) -> Tuned:
        """Choose the classifier. What it costs are forward passes, and no training of a network."""
        started = time.perf_counter()
        fitted = self.fit(problem, _features(problem))
        seconds = time.perf_counter() - started
        return Tuned(self._setting(fitted), fitted.score, Cost(0.0, 0, seconds))

    def final_seeds(self, seeds: Sequence[int]) -> Sequence[int]:
        """One: no seed makes a difference."""
        return seeds[:1]

    def final_run(self, problem: Problem, setting: Setting, seed: int) -> FinalRun:
        """Fit the chosen classifier again, and test it."""
        problem.listener.on_stage(f"{self.title}: final model")
        started, test = time.perf_counter(), problem.data.test
        with PeakMemory(problem.args.device) as peak:
            fitted = self.fit(problem, _features(problem))
            seconds = time.perf_counter() - started
            logits = None
            if test is not None:
                logits = torch.from_numpy(fitted.decision(_of(problem, test))).float()
        return FinalRun(
            seed=None,
            validation_score=fitted.score,
            test_score=None if logits is None else score_of(problem, logits),
            cost=Cost(0.0, 0, seconds),
            trained_parameters=fitted.n_parameters,
            checkpoint_bytes=checkpoint_size({"classifier": torch.zeros(fitted.n_parameters)}),
            peak_bytes=peak.bytes,
            test_logits=logits,
        )

    def _setting(self, fitted: KernelClassifier | FeatureSelection) -> Setting:
        shown: Mapping[str, Any] = {name: getattr(fitted, name) for name in self.options}
        return Setting(options=shown)


class TopTuning(FeatureMethod):
    """Kernel ridge classification of frozen features."""

    name = "top-tuning"
    title = "Top-Tuning"
    source = "Alfano et al., Top-Tuning (arXiv 2209.07932)"
    options = ("width", "penalty")

    def fit(self, problem: Problem, features: Features) -> KernelClassifier:
        """The best width of the kernel and penalty by validation."""
        return top_tune(
            features.train,
            features.labels,
            features.validation,
            problem.data.train.n_classes,
            lambda decision: _score(problem, decision),
            problem.tuning_seed,
        )


class EvolvedFeatures(FeatureMethod):
    """A linear head on features that evolution has selected."""

    name = "evolved-features"
    title = "evolved features"
    source = "Poyatos et al., EvoPruneDeepTL (arXiv 2202.03844), with a ridge head"
    options = ("n_features",)

    def fit(self, problem: Problem, features: Features) -> FeatureSelection:
        """The best mask by validation."""
        return select_features(
            features.train,
            features.labels,
            features.validation,
            problem.data.train.n_classes,
            lambda decision: _score(problem, decision),
            problem.tuning_seed,
        )


def _features(problem: Problem) -> Features:
    data = problem.data
    return Features(
        _of(problem, data.train), data.train.labels.numpy(), _of(problem, data.validation)
    )


def _of(problem: Problem, split: EncodedSplit) -> FloatArray:
    model = problem.pool.restore(problem.tuning_seed)
    size = problem.args.per_device_eval_batch_size
    return head_inputs(model, split, problem.partition, batch_size=size)


def _score(problem: Problem, decision: FloatArray) -> float:
    """By the problem's metric; of one where less is better, the negative."""
    metric = problem.metric
    logits = torch.from_numpy(decision).float()
    found = metric.compute(logits, problem.data.validation.labels)
    return found if metric.greater_is_better else -found
