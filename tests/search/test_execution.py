"""How a training is computed, and what may be chosen."""

from __future__ import annotations

import pytest
import torch

from hf_biotune.exceptions import ConfigError
from hf_biotune.search import default_training_arguments
from hf_biotune.search.execution import Candidates, Execution, candidates_of

CPU = torch.device("cpu")


def arguments(**overrides):
    return default_training_arguments(use_cpu=True, **overrides)


def test_by_default_everything_is_open_but_the_kernel_that_is_asked_for():
    assert candidates_of(arguments(optim="adamw_torch"), "auto", "auto", "auto") == Candidates(
        ("contiguous", "channels_last"), ("fp32", "bf16"), ("fp32", "bf16"), (False, True)
    )
    fused = candidates_of(arguments(optim="adamw_torch_fused"), "auto", "auto", "auto")
    assert fused.fused == (None,)


def test_switches_close_what_they_name():
    settled = candidates_of(arguments(), "channels_last", "bf16", False)
    assert settled.is_settled
    assert settled.plainest == Execution("channels_last", "bf16", "bf16", False)
    assert not candidates_of(arguments(), "channels_last", "auto", False).is_settled


def test_the_precision_of_the_training_arguments_is_respected():
    open_ = candidates_of(arguments(bf16=True), "auto", "auto", "auto")
    assert open_.training_precisions == open_.validation_precisions == ("bf16",)
    assert Execution.of(arguments(bf16=True)) == Execution("contiguous", "bf16", "bf16")
    assert Execution.of(arguments()) == Execution()


def test_contradicting_precisions_are_named():
    with pytest.raises(ConfigError, match=r"precision='fp32', but TrainingArguments have bf16"):
        candidates_of(arguments(bf16=True), "auto", "fp32", "auto")


def test_a_fused_optimizer_is_for_adamw():
    for nothing in ("auto", False):
        assert candidates_of(arguments(optim="sgd"), "auto", "auto", nothing).fused == (None,)
    with pytest.raises(ConfigError, match=r"fused_optimizer=True is for .* optim='sgd'"):
        candidates_of(arguments(optim="sgd"), "auto", "auto", True)


def test_the_kernel_goes_into_a_copy_of_the_arguments():
    args = arguments(optim="adamw_torch_fused")
    assert Execution(fused_optimizer=False).arguments(args).optim == "adamw_torch"
    assert args.optim == "adamw_torch_fused"
    assert Execution().arguments(args) is args


def test_training_and_validation_have_their_own_precision():
    execution = Execution(training_precision="fp32", validation_precision="bf16")
    weight = torch.ones(2, 2)
    with execution.training_context(CPU):
        assert (weight @ weight).dtype == torch.float32
    with execution.validation_context(CPU):
        assert (weight @ weight).dtype == torch.bfloat16


def test_an_execution_is_said_in_a_line():
    execution = Execution("channels_last", "fp32", "bf16", True)
    assert str(execution) == (
        "channels_last convolutions, fp32 training, bf16 validation, fused optimizer"
    )
    assert Execution.from_dict(execution.to_dict()) == execution
