"""Small real models and batches for the tests of the wrapper, and what they are asked for."""

from __future__ import annotations

import warnings

import timm
import torch
import torchvision
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PreTrainedModel,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)

LABELS = 3
# Renamed between transformers 5.20 and 5.23.
CHECKPOINTING = (
    "activation_checkpointing"
    if hasattr(PreTrainedModel, "activation_checkpointing_enable")
    else "gradient_checkpointing"
)


def resnet() -> nn.Module:
    """Blocks: stem, stage0, stage1, head; BatchNorm."""
    torch.manual_seed(0)
    config = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=LABELS
    )
    return ResNetForImageClassification(config)


def vit() -> nn.Module:
    """Blocks: stem (patches, cls_token, positions), layer0, layer1, layer2, head; dropout."""
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=32,
        patch_size=16,
        hidden_dropout_prob=0.5,
        num_labels=LABELS,
    )
    return ViTForImageClassification(config)


def bert() -> nn.Module:
    """Blocks: stem, layer0, layer1, head; dropout."""
    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        vocab_size=50,
        max_position_embeddings=32,
        num_labels=LABELS,
    )
    return BertForSequenceClassification(config)


def timm_resnet() -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model(
        "resnet10t", num_classes=LABELS, drop_path_rate=0.5, channels=(8, 8, 16, 16)
    )


def torchvision_resnet() -> nn.Module:
    torch.manual_seed(0)
    return torchvision.models.ResNet(
        torchvision.models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=LABELS
    )


def sequential() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3),
        nn.BatchNorm2d(8),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, LABELS),
    )


def images(n: int = 4, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def batch(model: nn.Module, n: int = 4, seed: int = 0) -> dict[str, torch.Tensor]:
    """Inputs and labels, by the names that the model takes."""
    labels = torch.arange(n) % LABELS
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    if isinstance(base, BertForSequenceClassification):
        generator = torch.Generator().manual_seed(seed)
        return {
            "input_ids": torch.randint(1, 50, (n, 8), generator=generator),
            "labels": labels,
        }
    return {"pixel_values": images(n, seed), "labels": labels}


def logits(model: nn.Module, seed: int = 5) -> torch.Tensor:
    """The model's logits in eval mode; its mode is as before afterwards."""
    was_training = model.training
    model.eval()
    inputs = {name: value for name, value in batch(model, seed=seed).items() if name != "labels"}
    with torch.no_grad():
        try:
            output = model(**inputs)
        except TypeError:
            output = model(*inputs.values())
    model.train(was_training)
    if isinstance(output, dict) and "logits" in output:
        return output["logits"]
    return getattr(output, "logits", output)


def train(model: nn.Module, steps: int = 3, lr: float = 0.1, **optimizer_kwargs: float) -> None:
    """Some steps of SGD on random batches, with the loss of `BioTuneModel.forward`."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=lr, **optimizer_kwargs)
    model.train()
    for step in range(steps):
        output = model(**batch(model, 8, seed=step))
        loss = output["loss"] if isinstance(output, dict) else output.loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()


def snapshot(model: nn.Module) -> dict[str, torch.Tensor]:
    """A copy of all weights and buffers."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Whether two snapshots are equal, bit for bit."""
    return set(a) == set(b) and all(torch.equal(a[name], b[name]) for name in a)


def quiet_wrap(model: nn.Module, config):
    """`get_biotune_model` where a fresh head is frozen on purpose."""
    from hf_biotune import get_biotune_model

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*looks freshly initialised")
        return get_biotune_model(model, config)


LAST_TWO = {
    resnet: ("stage1", "head"),
    vit: ("layer2", "head"),
    bert: ("layer1", "head"),
    timm_resnet: ("layer4", "head"),
    torchvision_resnet: ("layer4", "head"),
    sequential: ("layer3", "head"),
}
"""The last two blocks of each model."""


def tuned(make=resnet, *blocks: str, rate: float = 1.0, **config):
    """A wrapped model after three training steps; trains its last two blocks by default."""
    from hf_biotune import BioTuneConfig

    multipliers = dict.fromkeys(blocks or LAST_TWO[make], rate)
    model = quiet_wrap(make(), BioTuneConfig(lr_multipliers=multipliers, **config))
    train(model)
    return model
