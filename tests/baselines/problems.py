"""A small problem that every method is tried on."""

from __future__ import annotations

import torch
from small import digits_split, small_resnet
from transformers import ViTConfig, ViTForImageClassification

from hf_biotune import partition
from hf_biotune.baselines import Problem
from hf_biotune.search import DataSplits, SearchConfig, default_training_arguments

RESNET_BLOCKS = ["stem", "layer1", "layer2", "layer3", "layer4", "head"]
SMALL_VIT = ViTConfig(
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=32,
    image_size=16,
    patch_size=8,
    num_labels=10,
)


def small_vit():
    """Blocks: stem, layer0, layer1, head; no BatchNorm."""
    return ViTForImageClassification(SMALL_VIT)


def with_new_head(make):
    """A `model_init` whose models have the same weights but for the last block."""
    torch.manual_seed(0)
    pretrained = make()
    head = partition(pretrained)[-1].parameters
    kept = {name: t for name, t in pretrained.state_dict().items() if name not in head}

    def model_init():
        model = make()
        model.load_state_dict(kept, strict=False)
        return model

    return model_init


def digits() -> DataSplits:
    return DataSplits(digits_split(2, 0), digits_split(2, 20), digits_split(3, 40), "digits")


def small_problem(make=small_resnet, epochs=2, patience=None, **overrides) -> Problem:
    """20 training, 20 validation and 30 test images of digits, in two batches."""
    args = default_training_arguments(
        num_train_epochs=epochs, per_device_train_batch_size=10, use_cpu=True
    )
    search = overrides.pop("search", None) or SearchConfig(
        budget=2, patience=patience, n_finalists=0, metric="accuracy"
    )
    return Problem(with_new_head(make), digits(), args, search, **overrides)
