from __future__ import annotations

import itertools
import math

import pytest
import torch
from small import small_resnet
from transformers import Trainer

from hf_biotune import BioTuneConfig
from hf_biotune.search import (
    DataSplits,
    FineTuner,
    StoppingRule,
    default_training_arguments,
    final,
)
from hf_biotune.search.metrics import METRICS, Metric

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
