"""L2-SP: by hand, with any optimizer, under Trainer, and after a resume."""

from __future__ import annotations

import pytest
import torch
from small import digits_split, small_resnet
from torch import nn
from transformers import Trainer, TrainingArguments, default_data_collator, set_seed

from hf_biotune import (
    BioTuneConfig,
    BioTuneModel,
    biotune_trainer_kwargs,
    get_biotune_model,
    parameter_groups,
)
from hf_biotune.exceptions import ConfigError
from hf_biotune.optim import add_penalty
from hf_biotune.penalties import L2SP


def two_layers(l2sp=None, multipliers=None, **kwargs):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    config = BioTuneConfig(
        blocks={"body": "0", "head": "1"},
        lr_multipliers=multipliers or {"body": 1.0, "head": 1.0},
        l2sp=l2sp,
    )
    return get_biotune_model(model, config, **kwargs)


def train(model, optimizer, penalty=None, steps=3):
    inputs = torch.arange(12.0).reshape(4, 3) / 10
    for _ in range(steps):
        loss = model(inputs).square().mean()
        if penalty is not None:
            loss = loss + penalty()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return [p.detach().clone() for p in model.parameters()]


@pytest.mark.parametrize("optimizer_cls", [torch.optim.SGD, torch.optim.AdamW])
def test_it_is_the_gradient_of_a_loss_with_the_penalty_in_it(optimizer_cls):
    pulled = two_layers({"strength": 0.3, "new_strength": 0.7, "new_blocks": ["head"]})
    optimizer = optimizer_cls(parameter_groups(pulled, lr=0.1))
    add_penalty(optimizer, pulled)

    plain = two_layers()
    layers = plain.get_base_model()
    start = [p.detach().clone() for p in layers[0].parameters()]

    def penalty():
        body = sum(
            (p - s).square().sum() for p, s in zip(layers[0].parameters(), start, strict=True)
        )
        return 0.3 / 2 * body + 0.7 / 2 * sum(p.square().sum() for p in layers[1].parameters())

    expected = train(plain, optimizer_cls(parameter_groups(plain, lr=0.1)), penalty)
    for found, wanted in zip(train(pulled, optimizer), expected, strict=True):
        torch.testing.assert_close(found, wanted)


def test_a_strong_pull_keeps_weights_near_their_start_and_new_ones_near_0():
    model = two_layers({"strength": 1e3, "new_blocks": ["head"]}, keep_base_weights=False)
    start = [p.detach().clone() for p in model.parameters()]
    optimizer = torch.optim.SGD(parameter_groups(model, lr=1e-3))
    add_penalty(optimizer, model)
    after = train(model, optimizer, steps=40)
    for found, wanted in zip(after[:2], start[:2], strict=True):
        torch.testing.assert_close(found, wanted, atol=0.01, rtol=0)
    assert all(tensor.abs().max() < 0.01 for tensor in after[2:])


def test_frozen_blocks_are_not_pulled():
    model = two_layers({"strength": 0.5}, {"head": 1.0})
    start = [p.detach().clone() for p in model.parameters()]
    optimizer = torch.optim.SGD(parameter_groups(model, lr=0.1))
    add_penalty(optimizer, model)
    after = train(model, optimizer)
    assert torch.equal(after[0], start[0])
    assert torch.equal(after[1], start[1])
    assert not torch.equal(after[2], start[2])


def test_nothing_is_added_without_a_penalty():
    model = two_layers()
    optimizer = torch.optim.SGD(parameter_groups(model, lr=0.1))
    add_penalty(optimizer, model)
    assert not optimizer._optimizer_step_pre_hooks


def trainer_of(directory, config, epochs, model=None):
    set_seed(0)
    model = model or get_biotune_model(small_resnet(), config, keep_base_weights=False)
    args = TrainingArguments(
        str(directory),
        num_train_epochs=4,
        max_steps=epochs * 3,
        lr_scheduler_type="constant",
        per_device_train_batch_size=10,
        learning_rate=0.01,
        save_strategy="epoch",
        report_to="none",
        use_cpu=True,
        dataloader_pin_memory=False,
        disable_tqdm=True,
    )
    return Trainer(
        model,
        args,
        train_dataset=digits_split(3, 0),
        data_collator=default_data_collator,
        **biotune_trainer_kwargs(model),
    )


def pulled_config():
    multipliers = {"layer4": 1.0, "head": 1.0}
    return BioTuneConfig(lr_multipliers=multipliers, l2sp={"strength": 1.0}, weight_decay=0.1)


def test_a_resumed_training_is_pulled_to_the_start_and_not_to_its_checkpoint(tmp_path):
    whole = trainer_of(tmp_path / "whole", pulled_config(), epochs=4)
    whole.train()
    trainer_of(tmp_path / "part", pulled_config(), epochs=2).train()
    resumed = trainer_of(tmp_path / "part", pulled_config(), epochs=4)
    resumed.train(resume_from_checkpoint=True)
    for name, tensor in whole.model.state_dict().items():
        torch.testing.assert_close(resumed.model.state_dict()[name], tensor, rtol=0, atol=0)


def test_a_checkpoint_keeps_what_it_was_trained_with(tmp_path):
    model = get_biotune_model(small_resnet(), pulled_config())
    model.save_pretrained(tmp_path)
    config = BioTuneModel.from_pretrained(small_resnet(), tmp_path).active_peft_config
    assert config.l2sp == {"strength": 1.0, "new_strength": None, "new_blocks": []}
    assert config.weight_decay == 0.1


def test_the_configuration_decides_on_weight_decay():
    model = get_biotune_model(small_resnet(), pulled_config())
    assert {g["weight_decay"] for g in parameter_groups(model, lr=1, weight_decay=9)} == {0.1, 0.0}
    plain = get_biotune_model(small_resnet(), BioTuneConfig(lr_multipliers={"head": 1.0}))
    assert {g["weight_decay"] for g in parameter_groups(plain, lr=1, weight_decay=9)} == {9, 0.0}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"l2sp": {"strength": -1}}, "strength must be a finite number of at least 0, got -1"),
        ({"l2sp": {"strength": float("nan")}}, "strength must be a finite number"),
        ({"l2sp": {"strength": 10**400}}, "strength must be a finite number"),
        ({"l2sp": {"strength": 1, "new_strength": "x"}}, "new_strength must be a finite number"),
        ({"l2sp": {}}, "l2sp must be a dict with strength"),
        ({"l2sp": 0.1}, "l2sp must be a dict with strength"),
        ({"l2sp": {"strength": 1, "power": 3}}, "l2sp must be a dict with strength"),
        ({"l2sp": {"strength": 1, "new_blocks": "head"}}, "new_blocks must be a list of names"),
        ({"l2sp": {"strength": 1, "new_blocks": 5}}, "new_blocks must be a list of names"),
        ({"weight_decay": -0.1}, "weight_decay must be a finite number of at least 0, got -0.1"),
        ({"weight_decay": float("inf")}, "weight_decay must be a finite number"),
        ({"weight_decay": True}, "weight_decay must be a finite number"),
        ({"weight_decay": 10**400}, "weight_decay must be a finite number"),
    ],
)
def test_a_configuration_that_a_stranger_wrote_is_checked(fields, message):
    with pytest.raises(ConfigError, match=message):
        BioTuneConfig(lr_multipliers={"head": 1.0}, **fields)


def test_a_penalty_survives_json():
    penalty = L2SP(0.1, 0.01, ("head",))
    assert L2SP.from_dict(penalty.to_dict()) == penalty
    assert penalty.strength_of("head") == 0.01
    assert penalty.strength_of("stem") == 0.1


def test_a_fused_optimizer_that_unscales_by_itself_is_pulled_as_much():
    """As a GradScaler leaves gradients scaled for it, and tells it by how much."""
    moved = []
    for scale in (None, 1024.0):
        model = two_layers({"strength": 0.5})
        parameters = list(model.parameters())
        optimizer = torch.optim.SGD(parameter_groups(model, lr=0.1), fused=True)
        add_penalty(optimizer, model)
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)
            parameter.data += 1.0
        if scale is not None:
            optimizer.grad_scale, optimizer.found_inf = torch.tensor(scale), torch.tensor(0.0)
        before = parameters[0].detach().clone()
        optimizer.step()
        moved.append(parameters[0].detach() - before)
    torch.testing.assert_close(moved[0], moved[1])
    assert bool(moved[0].abs().min() > 0)
