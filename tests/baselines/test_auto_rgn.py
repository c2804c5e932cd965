"""AutoRGN: rates by hand."""

from __future__ import annotations

import math

import pytest
import torch
from problems import digits
from torch import nn

from hf_biotune.baselines import Problem, Setting, get_method
from hf_biotune.baselines.auto_rgn import relative_gradient_norms, scales_of
from hf_biotune.classification import loss_of
from hf_biotune.search import SearchConfig, default_training_arguments
from hf_biotune.search.forward import Forward
from hf_biotune.search.training import Live


class Small(nn.Module):
    """Pooled pixels, BatchNorm and a linear classifier."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(12)
        self.head = nn.Linear(12, 10)

    def forward(self, pixel_values):
        pooled = nn.functional.adaptive_avg_pool2d(pixel_values, 2).flatten(1)
        return self.head(self.norm(pooled))


@pytest.fixture
def live():
    args = default_training_arguments(per_device_train_batch_size=20, use_cpu=True)
    search = SearchConfig(metric="accuracy")
    problem = Problem(Small, digits(), args, search, blocks={"norm": "norm", "head": "head"})
    training = get_method("auto-rgn").training(problem, Setting(2.0))
    model = training.wrap(problem.pool.restore(0))
    optimizer = training.optimizer(model, args)
    model.train()
    forward = Forward(model, "cpu")
    samples = problem.data.train.view()
    yield training, Live(model, optimizer, forward, samples, args, problem.execution, 20, 0, 0, 3)
    training.unwrap(model)


def test_scales_are_ratios_divided_by_the_largest():
    assert scales_of([0.1, 0.4, 0.0]) == [0.25, 1.0, 0.0]
    assert scales_of([0.1, math.inf, 0.2]) == [0.5, 1.0, 1.0]
    assert scales_of([0.0, math.inf]) == [1.0, 1.0]


def test_a_ratio_is_the_norm_of_the_gradient_divided_by_that_of_the_tensor(live):
    _, state = live
    names = [name for name, _ in state.model.get_base_model().named_parameters()]
    before = {n: b.clone() for n, b in state.model.named_buffers()}
    found = dict(zip(names, relative_gradient_norms(state), strict=True))
    assert all(torch.equal(b, before[n]) for n, b in state.model.named_buffers())
    # All 20 samples are one batch, so their order does not matter.
    head = state.model.get_base_model().head
    logits = state.forward(state.samples, torch.arange(20))
    loss_of(logits, state.samples.labels).backward()
    by_hand = float(head.weight.grad.norm() / head.weight.detach().norm())
    assert found["head.weight"] == pytest.approx(by_hand, rel=1e-4)
    assert found["norm.bias"] == math.inf  # zeros


def test_the_rate_of_a_tensor_is_scaled_for_the_time_of_a_step(live):
    training, state = live
    training.on_epoch_begin(state)
    optimizer = state.optimizer
    scales = [group["scale"] for group in optimizer.param_groups]
    assert max(scales) == 1.0
    assert min(scales) < 1.0
    rates = []
    # After ours: what the optimizer sees.
    optimizer.register_step_pre_hook(
        lambda o, *_: rates.extend(group["lr"] for group in o.param_groups)
    )
    optimizer.step()
    assert rates == pytest.approx([2e-3 * scale for scale in scales])
    assert {group["lr"] for group in optimizer.param_groups} == {2e-3}


def test_it_trains(resnet_problem):
    run = get_method("auto-rgn").final_run(resnet_problem, Setting(3.0), 0)
    again = get_method("auto-rgn").final_run(resnet_problem, Setting(3.0), 0)
    assert torch.equal(run.test_logits, again.test_logits)
