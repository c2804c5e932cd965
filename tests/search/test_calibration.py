"""The choice of the fastest execution whose results agree."""

from __future__ import annotations

from dataclasses import replace

import optuna
import pytest
import torch
from small import small_resnet
from torch import nn

from hf_biotune.search import (
    SearchConfig,
    SearchListener,
    biotune_search,
    calibration,
    default_training_arguments,
    race,
)
from hf_biotune.search.calibration import Calibration, Choice, choose_execution
from hf_biotune.search.execution import Candidates, Execution, candidates_of
from hf_biotune.search.weights import BaseModelPool

EVERYTHING = Candidates(
    ("contiguous", "channels_last"), ("fp32", "bf16"), ("fp32", "bf16"), (False, True)
)


def arguments(**overrides):
    settings = {"per_device_train_batch_size": 20, "use_cpu": True, "optim": "adamw_torch"}
    return default_training_arguments(**{**settings, **overrides})


def vision_transformer() -> nn.Module:
    """Its gradients in bf16 differ by half a per cent."""
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=16,
        patch_size=4,
        num_labels=10,
    )
    return ViTForImageClassification(config)


@pytest.fixture
def calibrate(digits_train, digits_validation):
    def make(model_init=small_resnet, **overrides):
        pool = BaseModelPool(model_init)
        return Calibration(pool, digits_train, digits_validation, arguments(**overrides)), pool

    return make


@pytest.fixture
def clock(monkeypatch):
    """The duration of each part by memory layout and precision, instead of the real one."""

    def set_durations(durations: dict[str, float]) -> None:
        time, current = [0.0], [""]

        def now() -> float:
            time[0] += durations.get(current[0], 1.0) / 2
            return time[0]

        real = calibration.autocast

        def autocast(precision, device):
            current[0] = precision
            return real(precision, device)

        monkeypatch.setattr(calibration.time, "perf_counter", now)
        monkeypatch.setattr(calibration, "autocast", autocast)

    return set_durations


def test_weights_statistics_mode_and_random_numbers_are_as_before(calibrate):
    calibration, pool = calibrate()
    before = {name: tensor.clone() for name, tensor in pool.restore(0).state_dict().items()}
    state = torch.get_rng_state()
    calibration.fastest(EVERYTHING)
    for name, tensor in pool.model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert torch.equal(torch.get_rng_state(), state)
    assert pool.model.training
    assert all(p.grad is None for p in pool.model.parameters())
    convolution = next(m for m in pool.model.modules() if isinstance(m, nn.Conv2d))
    assert convolution.weight.is_contiguous()


def test_layouts_and_kernels_agree_in_single_precision(calibrate):
    choice = calibrate()[0].fastest(replace(EVERYTHING, training_precisions=("fp32",)))
    steps = [t for t in choice.timings if t.part == race.TRAINING_STEP]
    kernels = [t for t in choice.timings if t.part == race.OPTIMIZER_STEP]
    assert [t.way for t in steps] == ["contiguous fp32", "channels_last fp32"]
    assert steps[1].difference < 1e-4
    assert [t.way for t in kernels] == ["plain", "fused"]
    assert kernels[1].difference < 1e-5


def convolutional(n_strided: int) -> nn.Module:
    """Halves its 16 pixels so many times."""
    layers: list[nn.Module] = []
    for number in range(n_strided):
        layers += [nn.Conv2d(8 if number else 3, 8, 3, stride=2, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))


@pytest.mark.parametrize(("n_strided", "is_tried"), [(2, True), (3, False)])
def test_bf16_is_not_tried_on_a_cpu_where_its_gradients_are_arbitrary(
    calibrate, n_strided, is_tried
):
    choice = calibrate(lambda: convolutional(n_strided))[0].fastest(EVERYTHING)
    ways = [t.way for t in choice.timings if t.part == race.TRAINING_STEP]
    assert ("contiguous bf16" in ways) == is_tried
    assert "channels_last fp32" in ways


def test_bf16_is_refused_where_its_gradient_differs(calibrate, clock, monkeypatch):
    clock({"bf16": 0.5})
    monkeypatch.setattr(calibration, "GRADIENT_TOLERANCE", 0.002)
    choice = calibrate(vision_transformer)[0].fastest(EVERYTHING)
    bf16 = next(t for t in choice.timings if t.way == "contiguous bf16")
    assert 0.002 < bf16.difference < 0.02
    assert bf16.seconds is None
    assert choice.execution.training_precision == "fp32"


def test_bf16_is_chosen_where_it_agrees_and_is_faster(calibrate, clock):
    clock({"bf16": 0.5})
    choice = calibrate(vision_transformer)[0].fastest(EVERYTHING)
    assert choice.execution.training_precision == "bf16"
    assert choice.execution.validation_precision == "bf16"
    clock({"bf16": 1.5})
    assert calibrate(vision_transformer)[0].fastest(EVERYTHING).execution == Execution(
        fused_optimizer=False
    )


def test_a_model_without_convolutions_has_one_layout(calibrate):
    def perceptron() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 10))

    choice = calibrate(perceptron)[0].fastest(replace(EVERYTHING, training_precisions=("fp32",)))
    assert not [t for t in choice.timings if t.part == race.TRAINING_STEP]
    assert choice.execution.memory_layout == "contiguous"


def test_a_study_keeps_its_choice(calibrate, digits_train, digits_validation, monkeypatch):
    study = optuna.create_study()
    args = arguments()
    pool = BaseModelPool(small_resnet)
    rest = (pool, digits_train, digits_validation, args)
    first = choose_execution(study, EVERYTHING, *rest)
    assert first.timings

    def measured_again(*_):
        raise AssertionError("measured again")

    monkeypatch.setattr(Calibration, "fastest", measured_again)
    assert choose_execution(study, EVERYTHING, *rest) == first
    settled = candidates_of(args, "channels_last", "fp32", True)
    assert choose_execution(optuna.create_study(), settled, *rest) == Choice(settled.plainest)


def test_a_search_tells_its_execution_and_trains_by_it(digits_train, digits_validation):
    told = []

    class Listener(SearchListener):
        def on_execution(self, execution, timings):
            told.append(execution)

    result = biotune_search(
        small_resnet,
        digits_train,
        digits_validation,
        arguments(num_train_epochs=1),
        SearchConfig(
            budget=None,
            generations=0,
            population_size=3,
            n_elites=1,
            seeds=(1,),
            n_finalists=0,
            memory_layout="channels_last",
            precision="bf16",
            fused_optimizer=True,
        ),
        storage=optuna.storages.InMemoryStorage(),
        listener=Listener(),
    )
    assert result.execution == Execution("channels_last", "bf16", "bf16", True)
    assert told == [result.execution]
    layouts = {
        module.weight.is_contiguous(memory_format=torch.channels_last)
        for module in result.best_model.modules()
        if isinstance(module, nn.Conv2d)
    }
    assert layouts == {True}
