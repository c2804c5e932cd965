from __future__ import annotations

import math

import pytest
import torch
from small import small_resnet
from transformers import (
    Trainer,
    ViTConfig,
    ViTForImageClassification,
    default_data_collator,
    set_seed,
)
from wrapped import CHECKPOINTING

from hf_biotune import BioTuneConfig, biotune_trainer_kwargs, get_biotune_model
from hf_biotune.exceptions import ConfigError
from hf_biotune.search import FitnessEvaluator, FitnessResult, StoppingRule, fitness
from hf_biotune.search.execution import Execution
from hf_biotune.search.metrics import METRICS
from hf_biotune.search.prefix_cache import PrefixCache
from hf_biotune.search.study import default_training_arguments
from hf_biotune.search.weights import BaseModelPool

CONFIG = {"layer3": 2.0, "head": 5.0}


def arguments(tmp_path=None, **overrides):
    settings = {"num_train_epochs": 3, "per_device_train_batch_size": 16, "use_cpu": True}
    return default_training_arguments(
        None if tmp_path is None else str(tmp_path), **{**settings, **overrides}
    )


@pytest.fixture
def evaluator(digits_train, digits_validation):
    def make(metric="accuracy", patience=None, execution=None, **overrides):
        return FitnessEvaluator(
            BaseModelPool(small_resnet),
            digits_train,
            digits_validation,
            arguments(**overrides),
            METRICS[metric],
            StoppingRule(patience),
            execution,
        )

    return make


def test_the_same_seed_gives_the_same_curve_bit_for_bit(evaluator):
    trainer = evaluator()
    first = trainer.evaluate(BioTuneConfig(lr_multipliers=CONFIG), [3])
    trainer.evaluate(
        BioTuneConfig(lr_multipliers={"stem": 10.0}, saved_blocks=[]), [4]
    )  # leaves no trace
    again = trainer.evaluate(BioTuneConfig(lr_multipliers=CONFIG), [3])
    assert first.runs[0].curve == again.runs[0].curve
    assert (
        first.runs[0].curve
        == evaluator().evaluate(BioTuneConfig(lr_multipliers=CONFIG), [3]).runs[0].curve
    )


def test_the_score_is_the_mean_over_seeds_of_the_best_epoch(evaluator):
    result = evaluator().evaluate(BioTuneConfig(lr_multipliers=CONFIG), [1, 2])
    best = [max(epoch.score for epoch in run.curve) for run in result.runs]
    assert result.score == pytest.approx(sum(best) / 2)
    assert result.score_std == pytest.approx(abs(best[0] - best[1]) / math.sqrt(2))
    assert [run.seed for run in result.runs] == [1, 2]


def test_training_learns_the_digits(evaluator):
    everything = dict.fromkeys(["stem", "layer1", "layer2", "layer3", "layer4", "head"], 5.0)
    result = evaluator(num_train_epochs=8).evaluate(BioTuneConfig(lr_multipliers=everything), [0])
    curve = result.runs[0].curve
    assert curve[-1].train_loss < curve[0].train_loss / 2
    assert result.score > 0.5  # chance: 0.1


def test_cost_counts_epochs_samples_and_parameters(evaluator):
    trainer = evaluator()
    result = trainer.evaluate(BioTuneConfig(lr_multipliers={"head": 1.0}), [1, 2], range(30))
    assert result.epochs == 6
    assert result.trainings == pytest.approx(2 * 0.5)  # half of the 60 samples, twice
    assert result.trained_parameters == 33 * 10


def test_a_run_that_diverges_is_a_result_with_the_worst_score(evaluator):
    explosive = BioTuneConfig(lr_multipliers={"stem": 1e38, "layer2": 1e38, "head": 1e38})
    result = evaluator().evaluate(explosive, [0])
    assert result.runs[0].stopped == "diverged"
    assert result.score == 0.0
    assert evaluator(metric="loss").evaluate(explosive, [0]).score == math.inf


def test_patience_stops_a_training_that_no_longer_improves(evaluator):
    frozen = BioTuneConfig(lr_multipliers={"head": 1e-9})
    result = evaluator(patience=2, num_train_epochs=9).evaluate(frozen, [0])
    assert result.runs[0].stopped == "patience"
    assert result.epochs == 3  # the first, and two that did not improve


def test_patience_does_not_count_in_the_first_third():
    rule, accuracy = StoppingRule(patience=1, patience_from=1 / 3), METRICS["accuracy"]
    assert not rule.is_over([0.5, 0.4], 9, accuracy)
    assert rule.is_over([0.5, 0.4, 0.4], 9, accuracy)
    assert not rule.is_over([0.5, 0.4, 0.6], 9, accuracy)


def test_a_hook_that_says_no_stops_the_training_and_the_seeds_after_it(evaluator):
    result = evaluator().evaluate(
        BioTuneConfig(lr_multipliers=CONFIG), [1, 2], after_epoch=lambda seed, curve: False
    )
    assert len(result.runs) == 1
    assert result.runs[0].epochs == 1
    assert result.was_halved


def test_the_result_survives_json(evaluator):
    result = evaluator().evaluate(BioTuneConfig(lr_multipliers=CONFIG), [1])
    assert FitnessResult.from_dict(result.to_dict()) == result


def test_gradient_accumulation_gives_the_weights_of_the_large_batch(evaluator):
    def losses(**overrides):
        config = BioTuneConfig(lr_multipliers={"head": 1.0})  # no BatchNorm sees the batches
        return [e.train_loss for e in evaluator(**overrides).evaluate(config, [0]).runs[0].curve]

    small = losses(per_device_train_batch_size=5, gradient_accumulation_steps=4)
    assert small == pytest.approx(losses(per_device_train_batch_size=20), rel=1e-4)


def test_scoring_has_a_precision_of_its_own(evaluator):
    config = BioTuneConfig(lr_multipliers=CONFIG)
    single, mixed = (
        evaluator(execution=Execution(validation_precision=precision)).evaluate(config, [3])
        for precision in ("fp32", "bf16")
    )
    for one, other in zip(single.runs[0].curve, mixed.runs[0].curve, strict=True):
        assert one.train_loss == other.train_loss
        assert one.validation_loss != other.validation_loss
        assert one.validation_loss == pytest.approx(other.validation_loss, rel=0.02)


SMALL_VIT = ViTConfig(
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=64,
    image_size=16,
    patch_size=4,
    num_labels=10,
)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_gradient_checkpointing_holds_in_a_search_and_changes_no_number(
    digits_train, digits_validation, cached, reentrant
):
    curves, calls = [], []
    for settings in (
        {},
        {CHECKPOINTING: True, f"{CHECKPOINTING}_kwargs": {"use_reentrant": reentrant}},
    ):
        pool = BaseModelPool(lambda: ViTForImageClassification(SMALL_VIT))
        trainer = FitnessEvaluator(
            pool,
            digits_train,
            digits_validation,
            arguments(num_train_epochs=2, **settings),
            METRICS["accuracy"],
            StoppingRule(None),
            cache=PrefixCache(pool) if cached else None,
        )
        trained = []
        pool.model.vit.layers[1].mlp.register_forward_pre_hook(
            lambda module, inputs, trained=trained: trained.append(module.training)
        )
        # One behind a frozen prefix, then one without: nothing may stay of the former.
        for first in ({}, {"stem": 1.0, "layer0": 1.0}):
            config = BioTuneConfig(lr_multipliers={**first, "layer1": 2.0, "head": 5.0})
            curves.append(trainer.evaluate(config, [1]).runs[0].curve)
        calls.append(sum(trained))
    assert curves[0] == curves[2]
    assert curves[1] == curves[3]
    assert curves[0] != curves[1]
    assert calls[1] > 1.5 * calls[0] > 0


def test_a_model_without_gradient_checkpointing_is_refused(evaluator):
    with pytest.raises(ConfigError, match=f"{CHECKPOINTING}: ResNet"):
        evaluator(**{CHECKPOINTING: True}).evaluate(BioTuneConfig(lr_multipliers=CONFIG), [0])


@pytest.mark.parametrize(
    ("make", "config", "settings"),
    [
        (small_resnet, {"lr_multipliers": CONFIG, "norm_statistics": "epoch"}, {}),
        (small_resnet, {"lr_multipliers": CONFIG, "norm_statistics": "train"}, {}),
        (small_resnet, {"lr_multipliers": CONFIG, "norm_statistics": "frozen"}, {}),
        (
            small_resnet,
            {
                "lr_multipliers": CONFIG,
                "weight_decay": 0.5,
                "l2sp": {"strength": 0.05, "new_blocks": ["head"]},
            },
            {},
        ),
        (
            lambda: ViTForImageClassification(SMALL_VIT),
            {"lr_multipliers": {"layer1": 2.0, "head": 5.0}},
            {"bf16": True},
        ),
    ],
)
def test_the_search_loop_and_trainer_give_the_same_weights(
    tmp_path, monkeypatch, digits_train, digits_validation, make, config, settings
):
    monkeypatch.setattr(fitness, "epoch_order", lambda n, seed, epoch: torch.arange(n))
    args = arguments(
        tmp_path, train_sampling_strategy="sequential", weight_decay=0.1, seed=5, **settings
    )
    config = BioTuneConfig(**config)

    pool = BaseModelPool(make)
    wrapped_weights = {}
    evaluator = FitnessEvaluator(
        pool, digits_train, digits_validation, args, METRICS["accuracy"], StoppingRule(None)
    )

    def remember(seed, curve):
        wrapped_weights.update({n: t.clone() for n, t in pool.model.state_dict().items()})
        return True

    evaluator.evaluate(config, [5], after_epoch=remember)

    set_seed(5)
    model = get_biotune_model(make(), config)
    Trainer(
        model,
        args,
        train_dataset=digits_train,
        data_collator=default_data_collator,
        **biotune_trainer_kwargs(model),
    ).train()
    for name, tensor in model.get_base_model().state_dict().items():
        assert torch.equal(tensor, wrapped_weights[name]), name
