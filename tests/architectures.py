"""Well-known architectures by name: how they are built, and the blocks that they have.

A name is a library and a model in it: `timm/resnet50`, `torchvision/vit_b_16`, `transformers/Bert`
(the classifier of that family) or `transformers/GPT2LMHeadModel` (the class itself), `wrapped/...`
(timm inside of transformers). `layer0..3` in a table stands for `layer0 layer1 layer2 layer3`.
"""

from __future__ import annotations

import re
from typing import Any

import timm
import torchvision
import transformers
from torch import nn

DENSENET = (
    "stem denseblock1 transition1 denseblock2 transition2 denseblock3 transition3 denseblock4 head"
)
MIXED_5_6 = "Mixed_5b Mixed_5c Mixed_5d Mixed_6a Mixed_6b Mixed_6c Mixed_6d Mixed_6e"
MIXED_7 = "Mixed_7a Mixed_7b Mixed_7c"
MLP = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2}
ENCODER = {**MLP, "intermediate_size": 64}
VISION = {**ENCODER, "image_size": 32, "patch_size": 8}
TEXT = {**ENCODER, "vocab_size": 100}
PYRAMID = {"embed_dim": 16, "num_heads": [1, 2, 2, 2], "depths": [2, 2, 6, 2]}
T5 = {"vocab_size": 100, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_heads": 2}
BART = {
    "vocab_size": 100,
    "d_model": 32,
    **{f"{part}_layers": 3 for part in ("encoder", "decoder")},
    **{f"{part}_attention_heads": 2 for part in ("encoder", "decoder")},
    **{f"{part}_ffn_dim": 64 for part in ("encoder", "decoder")},
}
GPT = {
    "vocab_size": 100,
    "n_embd": 32,
    "n_layer": 4,
    "n_head": 2,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
DEBERTA_V3 = {
    **TEXT,
    "relative_attention": True,
    "norm_rel_ebd": "layer_norm",
    "position_biased_input": False,
    "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_buckets": 8,
}

TIMM = {
    "resnet18": "stem layer1..4 head",
    "resnet50": "stem layer1..4 head",
    "resnext50_32x4d": "stem layer1..4 head",
    "resnetv2_50": "stem stage0..3 head",
    "regnety_002": "stem s1..4 head",
    "efficientnet_lite0": "stem stage0..6 head",
    "tf_efficientnet_lite0": "stem stage0..6 head",
    "mobilenetv2_100": "stem stage0..6 head",
    "mobilenetv3_small_100": "stem stage0..5 head",
    "mobilenetv4_conv_small": "stem stage0..4 head",
    "densenet121": DENSENET,
    "vgg19": "stage1..5 head",
    "vgg11_bn": "stage1..5 head",
    "inception_v3": f"stem {MIXED_5_6} {MIXED_7} head",
    "inception_v4": "stem layer4 layer6..21 head",
    "convnext_atto": "stem stage0..3 head",
    "convnextv2_atto": "stem stage0..3 head",
    "vit_tiny_patch16_224": "stem layer0..11 head",
    "vit_base_patch16_siglip_224": "stem layer0..11 head",
    "deit_tiny_distilled_patch16_224": "stem layer0..11 head",
    "swin_tiny_patch4_window7_224": "stem stage0..3 head",
    "swinv2_tiny_window8_256": "stem stage0..3 head",
    "beit_base_patch16_224": "stem layer0..11 head",
    "maxvit_rmlp_pico_rw_256": "stem stage0..3 head",
    "mixer_s32_224": "stem layer0..7 head",
    "hiera_tiny_224": "stem layer0..11 head",
    "eva02_tiny_patch14_224": "stem layer0..11 head",
    "vit_small_patch14_dinov2": "stem layer0..11 head",
    "dm_nfnet_f0": "stem stage0..3 head",
    "fastvit_t8": "stem stage0..3 final_conv head",
    "cait_xxs24_224": "stem blocks_layer0..23 blocks_token_only_layer0..1 head",
}

TORCHVISION = {
    "resnet50": "stem layer1..4 head",
    "densenet121": DENSENET,
    "vgg19": "stage1..5 head",
    "vgg19_bn": "stage1..5 head",
    "inception_v3": f"stem {MIXED_5_6} AuxLogits {MIXED_7} head",
    "efficientnet_b0": "stem stage1..7 head",
    "mobilenet_v2": "stem layer1..17 head",
    "convnext_tiny": "stem stage1 stage3 stage5 stage7 head",
    "vit_b_16": "stem layer0..11 head",
    "swin_t": "stem stage1 stage3 stage5 stage7 head",
    "alexnet": "stage1..3 head",
    "googlenet": "stem inception3a inception3b inception4a inception4b inception4c inception4d "
    "inception4e inception5a inception5b aux1..2 head",
}

# Class without its task, arguments of its configuration, blocks.
IMAGE = {
    "ViT": (VISION, "stem layer0..3 head"),
    "DeiT": (VISION, "stem layer0..3 head"),
    "Beit": (VISION, "stem layer0..3 head"),
    "Swin": (PYRAMID, "stem stage0..3 head"),
    "ConvNext": ({"depths": [1, 1, 2, 1]}, "stem stage0..3 head"),
    "ResNet": ({"depths": [1, 1, 2, 1]}, "stem layer1..4 head"),
    "RegNet": ({"depths": [1, 1, 2, 1]}, "stem stage0..3 head"),
    "MobileNetV1": ({}, "stem layer0..25 head"),
    "MobileNetV2": ({}, "stem layer0..15 head"),
    "MobileViT": ({}, "stem stage0..4 head"),
    "Segformer": ({}, "stage0..3 head"),
    "Dinov2": ({**MLP, "image_size": 32, "patch_size": 8}, "stem layer0..3 head"),
    "CLIP": ({"vision_config": VISION}, "stem layer0..3 head"),
}
SEQUENCE = {
    "Bert": (TEXT, "stem layer0..3 head"),
    "Roberta": (TEXT, "stem layer0..3 head"),
    "XLMRoberta": (TEXT, "stem layer0..3 head"),
    "DebertaV2": (DEBERTA_V3, "stem layer0..3 head"),
    "MPNet": (TEXT, "stem layer0..3 head"),
    "Albert": (TEXT, "stem stage0 head"),
    "DistilBert": (
        {"vocab_size": 100, "dim": 32, "n_layers": 4, "n_heads": 2, "hidden_dim": 64},
        "stem layer0..3 head",
    ),
    "GPT2": (GPT, "stem layer0..3 head"),
    "Llama": (TEXT, "stem layer0..3 head"),
    "Qwen2": (TEXT, "stem layer0..3 head"),
    "T5": ({**T5, "num_layers": 3}, "stem encoder_layer0..2 decoder_layer0..2 head"),
    "Bart": (BART, "stem encoder_layer0..2 decoder_layer0..2 head"),
}
# The whole class, arguments of its configuration, blocks.
OTHER = {
    "BertModel": (TEXT, "stem layer0..3 head"),
    "BertForMaskedLM": (TEXT, "stem layer0..3 head"),
    "GPT2LMHeadModel": (GPT, "stem layer0..3"),
    "LlamaForCausalLM": (TEXT, "stem layer0..3 head"),
    "T5ForConditionalGeneration": (
        {**T5, "num_layers": 3, "num_decoder_layers": 2},
        "stem encoder_layer0..2 decoder_layer0..1",
    ),
    "ResNetModel": ({"depths": [1, 1, 2, 1]}, "stem layer1..4"),
    "Wav2Vec2ForSequenceClassification": (ENCODER, "stem layer0..3 head"),
}
WRAPPED = {
    "tf_efficientnet_lite0": "stem stage0..6 head",
    "resnet50": "stem layer1..4 head",
    "vgg19": "stage1..5 head",
    "vit_tiny_patch16_224": "stem layer0..11 head",
}


def _named_blocks() -> dict[str, tuple[dict[str, Any], str]]:
    table: dict[str, tuple[dict[str, Any], str]] = {}
    for library, models in (("timm", TIMM), ("torchvision", TORCHVISION), ("wrapped", WRAPPED)):
        table |= {f"{library}/{name}": ({}, blocks) for name, blocks in models.items()}
    for models in (IMAGE, SEQUENCE, OTHER):
        table |= {f"transformers/{name}": row for name, row in models.items()}
    return table


ARCHITECTURES = _named_blocks()
"""Name -> arguments that make it small, and the names of its blocks then."""


def create(architecture: str, **arguments: Any) -> nn.Module:
    """A randomly initialised model with 5 classes.

    Args:
        architecture: a name as in the tables.
        arguments: of the model, or of its configuration in transformers.
    """
    library, name = architecture.split("/")
    if library == "timm":
        return timm.create_model(name, **{"num_classes": 5, **arguments})
    if library == "torchvision":
        # Left out, these two warn that their slow initialisation will go.
        extra = {"init_weights": False} if name in ("inception_v3", "googlenet") else {}
        return getattr(torchvision.models, name)(weights=None, num_classes=5, **extra, **arguments)
    if library == "wrapped":
        config = transformers.TimmWrapperConfig(architecture=name, num_labels=5, **arguments)
        return transformers.TimmWrapperForImageClassification(config)
    return _transformers(name, {"num_labels": 5, **arguments})


def _transformers(name: str, arguments: dict[str, Any]) -> nn.Module:
    tasks = ("", "ForImageClassification", "ForSequenceClassification")
    model_class = next(name + task for task in tasks if hasattr(transformers, name + task))
    config_class = re.sub(r"(For[A-Z]\w+|LMHeadModel|Model)$", "Config", model_class)
    config = getattr(transformers, config_class)(**arguments)
    return getattr(transformers, model_class)(config)


def expand(names: str) -> list[str]:
    """`"stem layer0..2"` -> `["stem", "layer0", "layer1", "layer2"]`."""
    expanded = []
    for name in names.split():
        match = re.fullmatch(r"(.*?)(\d+)\.\.(\d+)", name)
        if match:
            first, last = int(match.group(2)), int(match.group(3))
            expanded += [f"{match.group(1)}{number}" for number in range(first, last + 1)]
        else:
            expanded.append(name)
    return expanded
