"""BitFit, norm-only and Spectrum: which parameters, and one signal-to-noise ratio by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from hf_biotune import partition
from hf_biotune.baselines import Setting, get_method
from hf_biotune.baselines.peft_training import PeftTraining
from hf_biotune.baselines.spectrum import noise_limit, signal_to_noise


def trained(problem, name, **options):
    """The names of the parameters that are trained, in the base model."""
    training = get_method(name).training(problem, Setting(3.0, options=options))
    model = training.wrap(problem.pool.restore(0))
    names = {n for n, p in model.named_parameters() if p.requires_grad}
    training.unwrap(model)
    return names


def outside_of_head(problem):
    return [n for n, _ in problem.model.named_parameters() if not n.startswith("classifier")]


@pytest.mark.parametrize("problem", ["resnet_problem", "vit_problem"])
def test_bitfit_trains_biases_and_the_head(problem, request):
    problem = request.getfixturevalue(problem)
    found = {n.removeprefix("base_model.model.") for n in trained(problem, "bitfit")}
    biases = {n for n in outside_of_head(problem) if n.endswith("bias")}
    assert found == biases | set(problem.partition["head"].parameters)


def test_bitfit_holds_nothing_else_in_its_checkpoint(vit_problem):
    run = get_method("bitfit").final_run(vit_problem, Setting(), 0)
    head = set(vit_problem.partition["head"].parameters)
    numbers = sum(
        p.numel()
        for n, p in vit_problem.model.named_parameters()
        if n in head or n.endswith("bias")
    )
    assert run.trained_parameters == numbers
    assert numbers * 4 < run.checkpoint_bytes < numbers * 4 + 4000


def test_norm_only_trains_batch_norms_and_the_head_as_a_block_of_ours(resnet_problem):
    found = {n.removeprefix("base_model.model.") for n in trained(resnet_problem, "norm-only")}
    norms = {n for n in outside_of_head(resnet_problem) if "normalization" in n}
    assert found == norms | {"classifier.1.weight", "classifier.1.bias"}
    assert get_method("norm-only").norm_modes(resnet_problem, {}) == ("epoch", "frozen")


def test_norm_only_trains_layer_norms_with_peft(vit_problem):
    method = get_method("norm-only")
    assert isinstance(method.training(vit_problem, Setting()), PeftTraining)
    head = vit_problem.partition["head"].n_parameters
    norms = sum(
        p.numel()
        for n, p in vit_problem.model.named_parameters()
        if "norm" in n and n not in vit_problem.partition["head"].parameters
    )
    assert method.final_run(vit_problem, Setting(), 0).trained_parameters == norms + head


def test_what_is_not_there_can_not_be_trained():
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2))
    blocks = partition(model)
    reasons = {name: get_method(name).why_not(model, blocks) for name in ("bitfit", "norm-only")}
    assert reasons == {
        "bitfit": "the model has no biases beside its head",
        "norm-only": "the model has no norms beside its head",
    }
    assert get_method("spectrum").why_not(model, blocks) is None


def test_one_signal_to_noise_ratio_by_hand():
    values = np.array([10.0, 2.0, 1.6, 1.2, 0.8])
    # Quartiles 1.2 and 2: sigma 0.8 / 1.349; a square matrix doubles it.
    limit = 2 * 0.8 / 1.349
    assert noise_limit(values, (5, 5)) == pytest.approx(limit)
    ratio = (10 + 2 + 1.6 + 1.2) / 0.8 / 10
    assert signal_to_noise(torch.diag(torch.tensor(values))) == pytest.approx(ratio)


def test_a_matrix_of_zeros_holds_no_signal_and_one_of_equal_values_no_noise():
    assert signal_to_noise(torch.zeros(3, 4)) == 0.0
    assert signal_to_noise(torch.eye(3)) == math.inf


def test_spectrum_trains_the_share_of_each_kind_with_the_best_ratios(vit_problem):
    weights = dict(vit_problem.model.named_parameters())
    queries = [n for n in weights if n.endswith("weight") and ".q" in n]
    assert len(queries) == 2  # one a layer
    best = max(queries, key=lambda name: signal_to_noise(weights[name]))
    found = {
        n.removeprefix("base_model.model.") for n in trained(vit_problem, "spectrum", share=0.5)
    }
    assert found & set(queries) == {best}
    assert {"classifier.weight", "classifier.bias"} <= found
    assert not any("norm" in n for n in found - set(vit_problem.partition["head"].parameters))


def test_spectrum_chooses_by_pre_trained_weights_whatever_was_trained_before(vit_problem):
    method, options = get_method("spectrum"), {"share": 0.5}
    before = method.chosen_of(vit_problem, options)
    with torch.no_grad():
        for parameter in vit_problem.model.parameters():
            parameter.fill_(math.nan)  # as a training that diverged leaves them
    assert method.chosen_of(vit_problem, options) == before
    assert method.norm_modes(vit_problem, options) == ("epoch",)
