"""Blocks that are held back for a while, and blocks that divide a layer between them."""

from __future__ import annotations

import pytest
import torch
from wrapped import resnet, train

from hf_biotune import BioTuneConfig, get_biotune_model
from hf_biotune.exceptions import ConfigError


def wrapped():
    config = BioTuneConfig(lr_multipliers={"stage0": 1.0, "stage1": 1.0, "head": 1.0})
    return get_biotune_model(resnet().train(), config)


def test_a_held_block_has_no_gradient_and_is_in_eval_mode_until_it_is_let_go():
    model = wrapped()
    tuner = model.base_model
    tuner.hold(["stage0"])
    held, other = tuner.block_parameters("stage0"), tuner.block_parameters("stage1")
    assert not any(p.requires_grad for p in held)
    assert all(p.requires_grad for p in other)
    modes = {name: m.training for name, m in tuner.model.named_modules()}
    assert not modes["resnet.encoder.stages.0"]
    assert modes["resnet.encoder.stages.1"]
    tuner.hold([])
    assert all(p.requires_grad for p in held)
    assert tuner.model.resnet.encoder.stages[0].training


@pytest.mark.parametrize("call", ["set_adapter", "set_requires_grad"])
def test_a_held_block_is_let_go_when_the_adapter_is_set(call):
    model = wrapped()
    tuner = model.base_model
    tuner.hold(["stage0"])
    getattr(tuner, call)("default")
    model.train()
    assert all(p.requires_grad for p in tuner.block_parameters("stage0"))
    assert tuner.model.resnet.encoder.stages[0].training


def test_a_held_block_is_saved_as_before():
    model = wrapped()
    before = set(model.biotune_state_dict())
    model.base_model.hold(["stage0"])
    assert set(model.biotune_state_dict()) == before


def test_a_block_that_is_frozen_anyway_can_not_be_held():
    message = "only trained blocks can be held, which are stage0, stage1, head, got stem"
    with pytest.raises(ConfigError, match=message):
        wrapped().base_model.hold(["head", "stem"])


@pytest.mark.parametrize(
    ("block", "mode", "moves"),
    [("biases", "train", True), ("biases", "frozen", False), ("head", "train", False)],
)
def test_statistics_of_a_norm_whose_bias_alone_is_trained(block, mode, moves):
    base = resnet()
    biases = [name for name, _ in base.named_parameters() if name.endswith("bias")]
    head = [name for name, _ in base.named_parameters() if "classifier" in name]
    others = [n for n, _ in base.named_parameters() if n not in {*biases, *head}]
    blocks = {"biases": [n for n in biases if n not in head], "head": head, "others": others}
    model = get_biotune_model(
        base,
        BioTuneConfig(
            blocks=blocks, lr_multipliers={block: 1.0}, norm_statistics=mode, saved_blocks=[]
        ),
    )
    name = "resnet.embedder.embedder.normalization.running_mean"
    before = base.get_buffer(name).clone()
    train(model, steps=1)
    assert torch.equal(base.get_buffer(name), before) != moves
    assert (name in model.biotune_state_dict()) == (block == "biases")
