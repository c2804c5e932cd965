"""LoRA: targets and numbers of parameters by hand."""

from __future__ import annotations

import timm
import torch
from problems import small_vit
from torch import nn

from hf_biotune import partition
from hf_biotune.baselines import Setting, get_method
from hf_biotune.baselines.lora import lora_targets
from hf_biotune.baselines.peft_training import head_modules

RANK = {"rank": 2, "alpha": 4}


def wrapped(problem, rate=1.0):
    training = get_method("lora").training(problem, Setting(rate, options=RANK))
    return training, training.wrap(problem.pool.restore(0))


def numbers(model, part):
    return sum(p.numel() for n, p in model.named_parameters() if p.requires_grad and part in n)


def test_trained_parameters_of_a_transformer(vit_problem):
    _, model = wrapped(vit_problem)
    layer = 4 * 2 * (16 + 16) + 2 * 2 * (16 + 32)  # attention; feed-forward
    patches = 2 * (3 * 8 * 8) + 16 * 2  # a convolution: down, and up by 1 x 1
    assert numbers(model, "lora_") == 2 * layer + patches
    assert numbers(model, "modules_to_save") == vit_problem.partition["head"].n_parameters
    assert model.get_nb_trainable_parameters()[0] == numbers(model, "")


def test_trained_parameters_of_a_convolutional_model(resnet_problem):
    _, model = wrapped(resnet_problem)
    convolutions = [m for _, m in resnet_problem.model.named_modules() if isinstance(m, nn.Conv2d)]
    by_hand = sum(
        2 * c.in_channels * c.kernel_size[0] * c.kernel_size[1] + 2 * c.out_channels
        for c in convolutions
    )
    assert {c.kernel_size for c in convolutions} == {(7, 7), (3, 3), (1, 1)}
    assert numbers(model, "lora_") == by_hand
    assert numbers(model, "modules_to_save") == 330


def test_frozen_batch_norm_does_not_move_and_the_base_model_is_untouched(resnet_problem):
    before = {n: t.clone() for n, t in resnet_problem.pool.restore(0).state_dict().items()}
    training, model = wrapped(resnet_problem)
    training.set_train_mode(model)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    assert not any(m.training for m in norms)
    training.unwrap(model)
    run = get_method("lora").final_run(resnet_problem, Setting(3.0, options=RANK), 0)
    after = resnet_problem.pool.restore(0).state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert run.trained_parameters * 4 < run.checkpoint_bytes < run.trained_parameters * 4 + 8000


def test_the_best_epoch_is_tested(vit_problem):
    run = get_method("lora").final_run(vit_problem, Setting(10.0, options=RANK), 1)
    again = get_method("lora").final_run(vit_problem, Setting(10.0, options=RANK), 1)
    assert torch.equal(run.test_logits, again.test_logits)
    assert run.test_logits.shape == (30, 10)


def test_rates_are_those_of_the_setting(vit_problem):
    training, model = wrapped(vit_problem, rate=3.0)
    groups = training.optimizer(model, vit_problem.args).param_groups
    assert {group["lr"] for group in groups} == {3e-3}
    assert sum(p.numel() for g in groups for p in g["params"]) == numbers(model, "")


def test_two_ranks_are_tried_at_three_rates(resnet_problem):
    method = get_method("lora")
    assert method.options(resnet_problem) == [
        {"rank": 8, "alpha": 16},
        {"rank": 32, "alpha": 64},
    ]
    assert method.norm_modes(resnet_problem, RANK) == ("train",)
    settings = [str(each.setting) for each in method.tune(resnet_problem).tried]
    assert len(settings) == 2 + 2
    assert len({setting.replace("epoch", "train") for setting in settings}) == 4


def test_grouped_convolutions_and_the_head_are_no_targets():
    with torch.device("meta"):
        model = timm.create_model("tf_efficientnet_lite0")
    targets = lora_targets(model, partition(model))
    assert "blocks.0.0.conv_pw" in targets
    assert "blocks.0.0.conv_dw" not in targets
    assert "classifier" not in targets


def test_a_head_whose_name_others_end_with_does_not_fit():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.body_fc = nn.Linear(2, 2)
            self.fc = nn.Linear(2, 2)

    model = Model()
    blocks = partition(model, {"body": "body_fc", "head": "fc"})
    assert head_modules(model, blocks) == []
    reason = get_method("lora").why_not(model, blocks)
    assert reason == "PEFT's modules_to_save can't name the head alone"


def test_names_of_the_head_may_end_alike():
    model = nn.Sequential()
    model.add_module("body", nn.Linear(2, 2))
    model.add_module("pre_classifier", nn.Linear(2, 2))  # as in DistilBERT
    model.add_module("classifier", nn.Linear(2, 2))
    blocks = partition(model, {"body": "body", "head": ["pre_classifier", "classifier"]})
    assert head_modules(model, blocks) == ["pre_classifier", "classifier"]


def test_a_model_that_is_a_head_alone_does_not_fit():
    model = nn.Sequential(nn.Linear(2, 2))
    reason = get_method("lora").why_not(model, partition(model))
    assert reason == "there is no linear layer or ungrouped convolution beside the head"


def test_every_layer_of_the_small_transformer_but_the_head_is_a_target():
    model = small_vit()
    layers = [n for n, m in model.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    assert lora_targets(model, partition(model)) == [n for n in layers if n != "classifier"]
