from __future__ import annotations

import itertools
import math

import pytest
import torch
from small import small_resnet
from torch import nn
from transformers import Trainer

from hf_biotune import BioTuneConfig
from hf_biotune.search import (
    DataSplits,
    FineTuner,
    FitnessEvaluator,
    StoppingRule,
    default_training_arguments,
    final,
    fitness,
)
from hf_biotune.search.metrics import METRICS, Metric
from hf_biotune.search.weights import BaseModelPool

CONFIG = {"layer3": 2.0, "layer4": 2.0, "head": 5.0}


def tuner(train, validation, test, metric=METRICS["macro_accuracy"]):
    args = default_training_arguments(
        None, num_train_epochs=3, per_device_train_batch_size=20, use_cpu=True
    )
    splits = DataSplits(train, validation, test, "digits")
    return FineTuner(small_resnet, splits, args, metric, StoppingRule(None))


@pytest.mark.slow
def test_training_on_all_samples_is_training_on_both_splits_as_one(digits_train, digits_test):
    even, odd = (digits_train.subset(range(first, 60, 2)) for first in (0, 1))
    both = tuner(even, odd, digits_test).fit_on_all(BioTuneConfig(lr_multipliers=CONFIG), 3, 3)
    counter = itertools.count()  # so that the last epoch is the best
    rising = Metric("rising", True, lambda logits, labels: float(next(counter)))
    one = tuner(even.joined(odd), odd, digits_test, rising)
    alone = one.fit(BioTuneConfig(lr_multipliers=CONFIG), 3)
    assert alone.best_epoch == 3
    assert torch.equal(both.test_logits, alone.test_logits)
    assert math.isnan(both.validation_score)


@pytest.mark.slow
def test_training_on_all_samples_ends_after_the_given_epochs(
    digits_train, digits_validation, digits_test
):
    epochs = []
    result = tuner(digits_train, digits_validation, digits_test).fit_on_all(
        BioTuneConfig(lr_multipliers=CONFIG), 3, 2, lambda done, of: epochs.append((done, of))
    )
    assert epochs == [(1, 2), (2, 2)]
    assert (result.epochs, result.best_epoch) == (2, 2)


def test_a_final_training_has_the_batches_of_the_search_on_several_gpus(
    digits_train, digits_validation, monkeypatch
):
    made = []

    class Recorded(Trainer):
        def __init__(self, model, args, **kwargs):
            made.append(args.train_batch_size)
            args._n_gpu = 0  # there is none to train on
            super().__init__(model, args, **kwargs)

    monkeypatch.setattr(final, "Trainer", Recorded)
    one = tuner(digits_train, digits_validation, None)
    one._args._n_gpu = 4
    assert one._args.train_batch_size == 80
    one.fit(BioTuneConfig(lr_multipliers={"head": 1.0}), 3)
    assert made == [20]


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_a_model_without_a_configuration_is_trained_as_in_the_search(
    digits_train, digits_validation, smoothing, monkeypatch
):
    monkeypatch.setattr(fitness, "epoch_order", lambda n, seed, epoch: torch.arange(n))

    def plain():
        return nn.Sequential(nn.Flatten(), nn.Linear(768, 16), nn.ReLU(), nn.Linear(16, 10))

    args = default_training_arguments(
        None,
        num_train_epochs=1.5,
        per_device_train_batch_size=16,
        use_cpu=True,
        label_smoothing_factor=smoothing,
        train_sampling_strategy="sequential",
        dataloader_drop_last=True,
        eval_on_start=True,
    )
    splits = DataSplits(digits_train, digits_validation, None, "digits")
    config = BioTuneConfig(blocks={"body": "1", "head": "3"}, lr_multipliers={"head": 9.0})
    evaluator = FitnessEvaluator(
        *(BaseModelPool(plain), digits_train, digits_validation, args),
        *(METRICS["accuracy"], StoppingRule(None)),
    )
    searched = evaluator.evaluate(config, [3]).runs[0]
    tuned = FineTuner(plain, splits, args, METRICS["accuracy"], StoppingRule(None)).fit(config, 3)
    assert tuned.epochs == searched.epochs == 2
    assert tuned.validation_score == searched.score
    scores = [epoch.score for epoch in searched.curve]
    assert tuned.best_epoch == 1 + scores.index(max(scores))


@pytest.mark.parametrize("problem", ["multi_label_classification", "regression"])
def test_a_base_model_of_another_problem_is_trained_to_classify(
    digits_train, digits_validation, problem
):
    def other():
        model = small_resnet()
        model.config.problem_type = problem
        return model

    args = default_training_arguments(
        None, num_train_epochs=1, per_device_train_batch_size=20, use_cpu=True
    )
    splits = DataSplits(digits_train, digits_validation, None, "digits")
    one = FineTuner(other, splits, args, METRICS["accuracy"], StoppingRule(None))
    assert one.fit(BioTuneConfig(lr_multipliers={"head": 1.0}), 3).epochs == 1


def test_tensorboard_keeps_what_trainer_logs_of_each_final_training(
    digits_train, digits_validation, tmp_path
):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    args = default_training_arguments(
        str(tmp_path),
        num_train_epochs=1,
        per_device_train_batch_size=30,
        use_cpu=True,
        report_to="tensorboard",
    )
    splits = DataSplits(digits_train, digits_validation, None, "digits")
    one = FineTuner(small_resnet, splits, args, METRICS["accuracy"], StoppingRule(None))
    for seed in (3, 4):
        one.fit(BioTuneConfig(lr_multipliers={"head": 1.0}), seed)
    names = sorted(path.name for path in (tmp_path / "runs").iterdir())
    assert names == ["final-1-seed-3", "final-2-seed-4"]
    assert all(list((tmp_path / "runs" / name).glob("events.*")) for name in names)
