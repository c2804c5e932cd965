"""L1-SP and L2-SP: one value of each penalty by hand."""

from __future__ import annotations

import pytest
import torch

from hf_biotune.baselines import Setting, get_method


def gradients_of_penalty(problem, name, strength):
    """What the penalty adds where the loss has no gradient, 0.5 away from the start.

    Returns:
        Of a pre-trained weight, of the weights of the head, and these themselves.
    """
    training = get_method(name).training(problem, Setting(options={"strength": strength}))
    model = training.wrap(problem.pool.restore(0))
    optimizer = training.optimizer(model, problem.args)
    parameters = dict(model.get_base_model().named_parameters())
    first, head = next(iter(parameters.values())), parameters["classifier.1.weight"]
    with torch.no_grad():
        first += 0.5
    for parameter in parameters.values():
        parameter.grad = torch.zeros_like(parameter)
    before = head.detach().clone()
    seen = {}

    def remember(*_):
        seen.update(first=first.grad.clone(), head=head.grad.clone())

    optimizer.register_step_pre_hook(remember)
    optimizer.step()
    training.unwrap(model)
    return seen["first"], seen["head"], before


@pytest.mark.parametrize(("name", "pull"), [("l1-sp", 0.1), ("l2-sp", 0.1 * 0.5)])
def test_the_pull_half_a_unit_from_the_start(resnet_problem, name, pull):
    first, head, weights = gradients_of_penalty(resnet_problem, name, 0.1)
    torch.testing.assert_close(first, torch.full_like(first, pull))
    torch.testing.assert_close(head, 0.01 * weights)  # a new head is pulled to 0


def test_three_strengths_are_tried(resnet_problem):
    for name, strengths in {"l1-sp": [1e-4, 1e-3, 1e-2], "l2-sp": [1e-3, 1e-2, 1e-1]}.items():
        options = get_method(name).options(resnet_problem)
        assert [o["strength"] for o in options] == strengths
