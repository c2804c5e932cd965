from __future__ import annotations

import math

import evaluate
import pytest
import torch
from datasets import Features, Value

from hf_biotune.exceptions import ConfigError
from hf_biotune.search.fitness_result import FitnessResult, SeedRun
from hf_biotune.search.metrics import METRICS, Metric, resolve_metric

# Predictions 0, 0, 1, 1 for labels 0, 0, 0, 1: class 0 has recall 2/3, class 1 has 1.
LOGITS = torch.tensor([[2.0, 0, 0], [2, 0, 0], [0, 2, 0], [0, 2, 0]])
LABELS = torch.tensor([0, 0, 0, 1])


class Errors(evaluate.Metric):
    """A metric of the user's own, as `evaluate` defines them."""

    def _info(self):
        return evaluate.MetricInfo(
            description="share of wrong predictions",
            citation="",
            inputs_description="",
            features=Features({"predictions": Value("int32"), "references": Value("int32")}),
        )

    def _compute(self, predictions, references):
        wrong = [p != r for p, r in zip(predictions, references, strict=True)]
        return {"errors": sum(wrong) / len(wrong)}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("macro_accuracy", (2 / 3 + 1) / 2),
        ("accuracy", 3 / 4),
        ("f1", (2 * 1 * (2 / 3) / (1 + 2 / 3) + 2 * 0.5 * 1 / 1.5) / 2),
        ("loss", (3 * math.log(1 + 2 * math.exp(-2)) + math.log(2 + math.exp(2))) / 4),
    ],
)
def test_scores_equal_the_hand_computed_ones(name, value):
    assert METRICS[name].compute(LOGITS, LABELS) == pytest.approx(value)


def test_a_class_that_does_not_occur_is_left_out_of_the_mean():
    assert METRICS["macro_accuracy"].compute(LOGITS[:3], LABELS[:3]) == pytest.approx(2 / 3)


def test_an_evaluate_metric_object_is_a_metric():
    metric = resolve_metric(Errors(), greater_is_better=False)
    assert metric.compute(LOGITS, LABELS) == 0.25
    assert metric.is_better(0.1, 0.2)
    assert metric.worst == math.inf


def test_an_unknown_name_is_refused_with_the_list():
    with pytest.raises(ConfigError, match=r"macro_accuracy, accuracy, f1, loss or.*got 'auc'"):
        resolve_metric("auc")


def test_an_object_without_compute_is_refused():
    with pytest.raises(ConfigError, match=r"compute\(predictions=..., references=...\), got int"):
        resolve_metric(3)


def test_a_metric_that_returns_several_numbers_is_refused():
    class Two:
        def compute(self, predictions, references):
            return {"a": 1.0, "b": 2.0}

    with pytest.raises(ConfigError, match="a dict with one number"):
        resolve_metric(Two()).compute(LOGITS, LABELS)


def test_the_worst_score_is_below_every_score_that_a_metric_may_have():
    assert METRICS["accuracy"].worst == 0.0
    correlation = Metric("correlation", True, lambda logits, labels: -0.5)
    assert correlation.is_better(-0.5, correlation.worst)


def test_any_number_is_better_than_none():
    for metric in METRICS.values():
        assert metric.is_better(0.3, math.nan)
        assert not metric.is_better(math.nan, 0.3)
        assert not metric.is_better(math.nan, math.nan)


def test_scores_of_which_one_is_infinite_have_no_deviation():
    runs = tuple(SeedRun(seed, (), score, 1.0) for seed, score in enumerate((0.5, math.inf)))
    assert math.isnan(FitnessResult(runs, 1, 1.0).score_std)
