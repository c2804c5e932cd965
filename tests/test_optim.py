"""Parameter groups: one decaying and one not decaying per trained block, at the block's rate."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn
from transformers import TrainingArguments
from wrapped import bert, quiet_wrap, resnet, sequential, timm_resnet, train, vit

from hf_biotune import BioTuneConfig, get_biotune_model, parameter_groups, partition
from hf_biotune.exceptions import ConfigError
from hf_biotune.optim import (
    ArgumentsHolder,
    BioTuneOptimizerFactory,
    find_biotune_model,
    no_decay_names,
)


def groups_of(make, multipliers, **kwargs):
    model = quiet_wrap(make(), BioTuneConfig(lr_multipliers=multipliers))
    return model, parameter_groups(model, **{"lr": 1e-3, "weight_decay": 0.05, **kwargs})


def test_each_trained_block_has_a_decaying_and_a_not_decaying_group_at_its_rate():
    _, groups = groups_of(resnet, {"head": 2.0, "stage1": 0.5})

    assert [(g["block"], g["lr"], g["weight_decay"]) for g in groups] == [
        ("stage1", 0.5e-3, 0.05),
        ("stage1", 0.5e-3, 0.0),
        ("head", 2e-3, 0.05),
        ("head", 2e-3, 0.0),
    ]
    assert [g["lr_multiplier"] for g in groups] == [0.5, 0.5, 2.0, 2.0]


@pytest.mark.parametrize("make", [resnet, vit, bert, timm_resnet, sequential])
def test_every_trained_parameter_is_in_one_group_and_no_frozen_one_is(make):
    model, groups = groups_of(make, {"head": 1.0})

    grouped = [id(p) for group in groups for p in group["params"]]

    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {id(p) for p in model.parameters() if p.requires_grad}


def test_norms_biases_positions_and_tokens_do_not_decay():
    assert {n for n in dict(vit().named_parameters()) if n not in no_decay_names(vit())} == {
        name
        for name, parameter in vit().named_parameters()
        if name.endswith("weight") and parameter.ndim > 1
    }
    assert {"vit.embeddings.cls_token", "vit.embeddings.position_embeddings"} <= no_decay_names(
        vit()
    )


@pytest.mark.parametrize(
    ("name", "exempt"),
    [
        ("convnext_atto", {"stages.0.blocks.0.gamma", "stem.1.weight", "head.norm.weight"}),
        ("vit_tiny_patch16_224", {"cls_token", "pos_embed", "blocks.0.norm1.weight"}),
        ("swin_tiny_patch4_window7_224", {"layers.0.blocks.0.attn.relative_position_bias_table"}),
        ("resnet18", {"bn1.weight", "layer1.0.bn1.bias", "fc.bias"}),
    ],
)
def test_what_transformers_own_rule_would_decay_is_exempt(name, exempt):
    with torch.device("meta"):
        model = timm.create_model(name)

    found = no_decay_names(model)

    assert exempt <= found
    assert not {n for n, p in model.named_parameters() if n.endswith(("conv1.weight", "qkv.weight"))
                } & found  # fmt: skip


def test_norm_classes_of_other_libraries_are_known_by_their_name():
    class MyRMSNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(2, 2))

    assert no_decay_names(nn.Sequential(MyRMSNorm())) == {"0.scale"}


def test_frozen_parameters_do_not_decay_since_they_are_in_no_group():
    model, groups = groups_of(resnet, {"head": 1.0}, weight_decay=10.0)
    before = [p.clone() for p in model.parameters() if not p.requires_grad]
    optimizer = torch.optim.AdamW(groups)

    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    optimizer.step()

    after = [p for p in model.parameters() if not p.requires_grad]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_optimizer_state_exists_for_trained_parameters_only():
    model, groups = groups_of(resnet, {"head": 1.0})
    optimizer = torch.optim.Adam(groups)
    train(model)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter) if parameter.requires_grad else None

    optimizer.step()

    assert set(map(id, optimizer.state)) == {id(p) for p in model.parameters() if p.requires_grad}


def test_groups_are_those_of_the_active_adapter():
    model = quiet_wrap(resnet(), BioTuneConfig(lr_multipliers={"head": 1.0}))
    model.add_adapter("b", BioTuneConfig(lr_multipliers={"stem": 3.0}))

    model.set_adapter("b")

    assert {(g["block"], g["lr"]) for g in parameter_groups(model, lr=1.0)} == {("stem", 3.0)}


class _Wrapper(nn.Module):
    """As DDP wraps a model."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


@pytest.mark.parametrize("wrap", [_Wrapper, lambda model: torch.compile(model, backend="eager")])
def test_a_model_that_something_wraps_is_found(wrap):
    model, groups = groups_of(bert, {"layer0": 1.0, "head": 1.0})

    inside = parameter_groups(wrap(model), lr=1e-3, weight_decay=0.05)

    assert find_biotune_model(wrap(model)) is model
    assert [[id(p) for p in g["params"]] for g in inside] == [
        [id(p) for p in g["params"]] for g in groups
    ]


def test_a_model_that_is_not_wrapped_is_refused():
    with pytest.raises(ConfigError, match=r"holds no BioTuneModel, got .*; wrap it with"):
        parameter_groups(resnet(), lr=1.0)


def test_the_factory_without_its_callback_says_what_is_missing():
    with pytest.raises(ConfigError, match="its callbacks included"):
        ArgumentsHolder().get()


@pytest.mark.parametrize("name", ["legacy_seresnet18", "efficientvit_b0"])
def test_modules_that_are_called_module_keep_their_names(name):
    model = timm.create_model(name, num_classes=3)
    blocks = partition(model).names
    multipliers = dict.fromkeys(blocks, 1.0) | {blocks[0]: 0.1}
    wrapped = get_biotune_model(model, BioTuneConfig(lr_multipliers=multipliers))
    groups = parameter_groups(wrapped, lr=1.0)
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    assert {group["lr"] for group in groups if group["block"] == blocks[0]} == {0.1}


def test_what_is_flat_because_it_is_sharded_decays_as_its_whole_would():
    model = quiet_wrap(resnet(), BioTuneConfig(lr_multipliers={"head": 1.0, "stage1": 1.0}))
    whole = {
        (group["block"], group["weight_decay"]): len(group["params"])
        for group in parameter_groups(model, lr=1e-3, weight_decay=0.1)
    }
    # As FSDP1 leaves the parameters that another process holds a part of.
    for module in model.get_base_model().modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            flat = nn.Parameter(parameter.detach().flatten(), parameter.requires_grad)
            setattr(module, name, flat)
    sharded = {
        (group["block"], group["weight_decay"]): len(group["params"])
        for group in parameter_groups(model, lr=1e-3, weight_decay=0.1)
    }
    assert sharded == whole


def test_another_base_rate_than_the_multipliers_were_found_with_is_told():
    config = BioTuneConfig(lr_multipliers={"head": 2.0}, base_learning_rate=3e-4)
    model = quiet_wrap(resnet(), config)
    holder = ArgumentsHolder()

    holder.args = TrainingArguments(learning_rate=1e-3, use_cpu=True)
    with pytest.warns(UserWarning, match="is 0.001, but the multipliers were found with 0.0003"):
        groups = BioTuneOptimizerFactory()(model, holder).param_groups
    assert {group["lr"] for group in groups} == {2e-3}

    # A warning would be an error here.
    holder.args = TrainingArguments(learning_rate=3e-4, use_cpu=True)
    BioTuneOptimizerFactory()(model, holder)
