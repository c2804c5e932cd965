"""Trainings that do not fit into memory."""

from __future__ import annotations

from functools import partial

import optuna
import pytest
import torch
from small import small_resnet
from torch import nn

from hf_biotune import BioTuneConfig, SearchConfig, biotune_search
from hf_biotune.search import (
    DataSplits,
    FineTuner,
    FitnessEvaluator,
    StoppingRule,
    default_training_arguments,
)
from hf_biotune.search.metrics import METRICS
from hf_biotune.search.out_of_memory import is_out_of_memory, with_smaller_batches
from hf_biotune.search.weights import BaseModelPool

MESSAGE = "CUDA out of memory. Tried to allocate 2.00 GiB."
CONFIG = BioTuneConfig(lr_multipliers={"layer3": 2.0, "head": 5.0}, saved_blocks=[])
ACCURACY = METRICS["accuracy"]


def hungry(room: list[int]) -> nn.Module:
    """A network that has room for so many samples at once."""

    def refuse(module, args, kwargs):
        if len(kwargs["pixel_values"]) > room[0]:
            raise torch.OutOfMemoryError(MESSAGE)

    model = small_resnet()
    model.register_forward_pre_hook(refuse, with_kwargs=True)
    return model


def arguments(**overrides):
    settings = {
        "num_train_epochs": 2,
        "per_device_train_batch_size": 20,
        "per_device_eval_batch_size": 20,
        "use_cpu": True,
    }
    return default_training_arguments(**{**settings, **overrides})


@pytest.fixture
def evaluate(digits_train, digits_validation):
    def run(model_init=small_resnet, **overrides):
        evaluator = FitnessEvaluator(
            BaseModelPool(model_init),
            digits_train,
            digits_validation,
            arguments(**overrides),
            ACCURACY,
            StoppingRule(None),
        )
        return evaluator.evaluate(CONFIG, [1])

    return run


def test_half_a_batch_twice_is_what_a_user_would_have_asked_for(evaluate, caplog):
    found = evaluate(partial(hungry, [10])).runs[0]
    asked = evaluate(
        per_device_train_batch_size=10, gradient_accumulation_steps=2, per_device_eval_batch_size=10
    ).runs[0]
    assert found.curve == asked.curve
    assert (found.batch_parts, asked.batch_parts) == (2, 1)
    assert "batches of 20 samples do not fit into memory (CUDA out of memory" in caplog.text


def test_what_does_not_fit_in_halves_either_fails(evaluate):
    with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
        evaluate(partial(hungry, [9]))


def test_the_next_training_tries_whole_batches_again(digits_train, digits_validation):
    room = [10]
    evaluator = FitnessEvaluator(
        BaseModelPool(partial(hungry, room)),
        digits_train,
        digits_validation,
        arguments(),
        ACCURACY,
        StoppingRule(None),
    )
    assert evaluator.evaluate(CONFIG, [1]).runs[0].batch_parts == 2
    room[0] = 20
    assert evaluator.evaluate(CONFIG, [1]).runs[0].batch_parts == 1


@pytest.mark.parametrize(("batch_size", "parts"), [(32, 2), (15, 3), (7, 7)])
def test_parts_are_of_equal_size(batch_size, parts):
    tried = []

    def attempt(n: int) -> int:
        tried.append(n)
        if n == 1:
            raise torch.OutOfMemoryError(MESSAGE)
        return n

    assert with_smaller_batches(attempt, batch_size) == parts
    assert tried == [1, parts]


def test_a_single_sample_can_not_be_divided():
    tried = []

    def attempt(n: int) -> None:
        tried.append(n)
        raise torch.OutOfMemoryError(MESSAGE)

    with pytest.raises(torch.OutOfMemoryError):
        with_smaller_batches(attempt, 1)
    assert tried == [1]


def test_other_errors_are_not_tried_again():
    tried = []

    def attempt(n: int) -> None:
        tried.append(n)
        raise RuntimeError("expected scalar type Float but found Half")

    with pytest.raises(RuntimeError, match="scalar type"):
        with_smaller_batches(attempt, 32)
    assert tried == [1]


def test_want_of_memory_is_known_by_type_or_words():
    assert is_out_of_memory(torch.OutOfMemoryError("any words"))
    assert is_out_of_memory(
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
    )
    assert not is_out_of_memory(ValueError(MESSAGE))


def test_the_final_training_divides_its_batches_too(digits_train, digits_validation, tmp_path):
    def fit(model_init, **overrides):
        tuner = FineTuner(
            model_init,
            DataSplits(digits_train, digits_validation, None, "digits"),
            arguments(output_dir=str(tmp_path), **overrides),
            ACCURACY,
            StoppingRule(None),
        )
        return tuner.fit(CONFIG, 1).model.get_base_model().state_dict()

    found = fit(partial(hungry, [10]))
    asked = fit(
        small_resnet,
        per_device_train_batch_size=10,
        gradient_accumulation_steps=2,
        per_device_eval_batch_size=10,
    )
    for name, tensor in asked.items():
        assert torch.equal(tensor, found[name]), name


def test_a_search_goes_on_in_parts(digits_train, digits_validation):
    result = biotune_search(
        partial(hungry, [10]),
        digits_train,
        digits_validation,
        arguments(num_train_epochs=1),
        SearchConfig(
            budget=None, generations=0, population_size=4, n_elites=1, seeds=(1,), n_finalists=0
        ),
        storage=optuna.storages.InMemoryStorage(),
    )
    assert all(run.batch_parts == 2 for run in result.finalists[0].fitness.runs)
    assert result.execution.training_precision == "fp32"
