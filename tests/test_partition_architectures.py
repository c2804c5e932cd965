"""The blocks of well-known architectures, by name, and what holds for all of them.

Models are built on the meta device: their structure is real, their weights take no memory.
"""

from __future__ import annotations

import re
from functools import cache

import pytest
import torch
from architectures import ARCHITECTURES, MIXED_5_6, MIXED_7, create, expand
from torch import nn

from hf_biotune.blocks import Partition, partition
from hf_biotune.exceptions import PartitionError
from hf_biotune.patterns import Names

LAYERS = {
    "timm/resnet50": "stem layer1_0..2 layer2_0..3 layer3_0..5 layer4_0..2 head",
    "timm/regnety_002": "stem s1_1 s2_1 s3_1..4 s4_1..7 head",
    "timm/tf_efficientnet_lite0": "stem stage0_0 stage1_0..1 stage2_0..1 stage3_0..2 stage4_0..2 "
    "stage5_0..3 stage6_0 head",
    "timm/densenet121": "stem denseblock1_1..6 transition1 denseblock2_1..12 transition2 "
    "denseblock3_1..24 transition3 denseblock4_1..16 head",
    "timm/vgg19": "stage1_0..1 stage2_0..1 stage3_0..3 stage4_0..3 stage5_0..3 head",
    "timm/convnext_atto": "stem stage0_0..1 stage1_0..1 stage2_0..5 stage3_0..1 head",
    "timm/swin_tiny_patch4_window7_224": "stem stage0_0..1 stage1_0..1 stage2_0..5 stage3_0..1 "
    "head",
    "timm/vit_tiny_patch16_224": "stem layer0..11 head",
    "torchvision/convnext_tiny": "stem stage1_0..2 stage3_0..2 stage5_0..8 stage7_0..2 head",
    "torchvision/inception_v3": f"stem {MIXED_5_6} AuxLogits {MIXED_7} head",
    "transformers/Swin": "stem stage0_0..1 stage1_0..1 stage2_0..5 stage3_0..1 head",
    "transformers/ResNet": "stem layer1_0 layer2_0 layer3_0..1 layer4_0 head",
    "transformers/Segformer": "stage0_0..1 stage1_0..1 stage2_0..1 stage3_0..1 head",
    "transformers/Bert": "stem layer0..3 head",
    "transformers/T5": "stem encoder_layer0..2 decoder_layer0..2 head",
}


every_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES)


@cache
def build(architecture: str) -> nn.Module:
    with torch.device("meta"):
        return create(architecture, **ARCHITECTURES[architecture][0])


@every_architecture
def test_auto_blocks_are_named_as_in_the_table(architecture: str) -> None:
    blocks = partition(build(architecture))
    assert list(blocks.names) == expand(ARCHITECTURES[architecture][1])


@pytest.mark.parametrize("architecture", LAYERS)
def test_layers_are_named_as_in_the_table(architecture: str) -> None:
    blocks = partition(build(architecture), "layers")
    assert list(blocks.names) == expand(LAYERS[architecture])


@every_architecture
@pytest.mark.parametrize("granularity", ["auto", "layers"])
def test_what_every_partition_promises(architecture: str, granularity: str) -> None:
    model = build(architecture)
    blocks = partition(model, granularity)
    _each_parameter_is_in_one_block(model, blocks)
    _blocks_come_in_execution_order(model, blocks)
    _modules_lie_in_the_block_of_their_parameters(model, blocks)
    _names_can_be_used_anywhere(blocks)
    again = partition(model, blocks.to_patterns())
    assert again.blocks == blocks.blocks
    assert again.key == blocks.key


def _each_parameter_is_in_one_block(model: nn.Module, blocks: Partition) -> None:
    held = [name for block in blocks for name in block.parameters]
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    assert sorted(held) == sorted(sizes)
    for block in blocks:
        assert block.parameters
        assert block.n_parameters == sum(sizes[name] for name in block.parameters)


def _blocks_come_in_execution_order(model: nn.Module, blocks: Partition) -> None:
    position = {name: index for index, (name, _) in enumerate(model.named_parameters())}
    first = [min(position[name] for name in block.parameters) for block in blocks]
    # A head that is registered before the body is the one exception.
    body = first[:-1] if blocks.names[-1] == "head" else first
    assert body == sorted(body)
    assert "stem" not in blocks.names[1:]
    assert "head" not in blocks.names[:-1]


def _modules_lie_in_the_block_of_their_parameters(model: nn.Module, blocks: Partition) -> None:
    names = Names(model)
    assert len(set(names.modules)) == len(names.modules)
    for module in names.modules:
        owners = {blocks.block_of_parameter(name) for name in names.parameters_below[module]}
        block = blocks.block_of_module(module)
        if len(owners) > 1:
            assert block is None, f"{module} spans {owners}"
        else:
            assert block in (owners or blocks.names), f"{module} lies in {block}"
    listed = [module for block in blocks for module in block.modules]
    assert len(listed) == len(set(listed))


def _names_can_be_used_anywhere(blocks: Partition) -> None:
    assert len(set(blocks.names)) == len(blocks)
    for name in blocks.names:
        assert re.fullmatch(r"\w+", name)


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        ("timm/resnet50", 6),
        ("torchvision/resnet50", 6),
        ("transformers/ResNet", 6),
        ("wrapped/resnet50", 6),
        ("timm/densenet121", 9),
        ("torchvision/densenet121", 9),
        ("timm/vgg19", 6),
        ("torchvision/vgg19", 6),
        ("wrapped/vgg19", 6),
        ("torchvision/inception_v3", 14),
        # timm builds it without the auxiliary classifier.
        ("timm/inception_v3", 13),
    ],
)
def test_paper_partition_has_the_published_number_of_blocks(
    architecture: str, expected: int
) -> None:
    blocks = partition(build(architecture), "paper")
    assert len(blocks) == expected
    assert blocks.source == "paper"
    assert partition(build(architecture)) == blocks


@pytest.mark.parametrize(
    ("architecture", "block", "modules"),
    [
        ("torchvision/resnet50", "stem", ["conv1", "bn1", "relu", "maxpool"]),
        ("torchvision/resnet50", "head", ["fc"]),
        ("torchvision/densenet121", "denseblock4", ["features.denseblock4", "features.norm5"]),
        ("torchvision/vgg19", "stage2", [f"features.{layer}" for layer in range(5, 10)]),
        (
            "torchvision/inception_v3",
            "stem",
            [
                *("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "maxpool1"),
                *("Conv2d_3b_1x1", "Conv2d_4a_3x3", "maxpool2"),
            ],
        ),
        ("timm/vgg19", "head", ["pre_logits", "head"]),
        # The last convolution and its norm are pre-trained features, not head.
        (
            "wrapped/tf_efficientnet_lite0",
            "stage6",
            [f"timm_model.{name}" for name in ("blocks.6", "conv_head", "bn2", "global_pool")],
        ),
        ("wrapped/tf_efficientnet_lite0", "head", ["timm_model.classifier"]),
        ("timm/vit_tiny_patch16_224", "layer11", ["blocks.11", "norm", "fc_norm", "head_drop"]),
        # A downsampling layer opens the stage that it leads to.
        ("torchvision/convnext_tiny", "stage3", ["features.2", "features.3"]),
        ("torchvision/swin_t", "stage5", ["features.4", "features.5"]),
        ("transformers/Bert", "head", ["bert.pooler", "dropout", "classifier"]),
        ("transformers/GPT2", "layer3", ["transformer.h.3", "transformer.ln_f"]),
        ("transformers/XLMRoberta", "head", ["classifier"]),
        # Executed before the layers, although it is defined after them.
        (
            "transformers/DebertaV2",
            "stem",
            ["deberta.embeddings", "deberta.encoder.rel_embeddings", "deberta.encoder.LayerNorm"],
        ),
    ],
)
def test_modules_of_a_block(architecture: str, block: str, modules: list[str]) -> None:
    assert list(partition(build(architecture))[block].modules) == modules


def test_tokens_and_positions_of_the_model_itself_go_to_the_stem() -> None:
    stem = partition(build("timm/vit_tiny_patch16_224"))["stem"]
    assert stem.parameters[:2] == ("cls_token", "pos_embed")
    assert partition(build("torchvision/vit_b_16")).block_of_parameter("encoder.pos_embedding") == (
        "stem"
    )


def test_tied_output_layer_lies_in_the_block_of_the_embedding() -> None:
    blocks = partition(build("transformers/GPT2LMHeadModel"))
    assert blocks.block_of_module("lm_head") == "stem"
    assert "head" not in blocks.names


def test_half_tied_head_keeps_its_own_parameters_only() -> None:
    head = partition(build("transformers/BertForMaskedLM"))["head"]
    assert all("predictions" in name for name in head.parameters)
    assert "cls.predictions.decoder.weight" not in head.parameters


def test_paper_partition_of_another_network_is_an_error_that_lists_the_networks() -> None:
    with pytest.raises(
        PartitionError,
        match=r"no partition for VisionTransformer, only for ResNet, DenseNet, VGG, Inception-v3 "
        r".*use blocks='auto'",
    ):
        partition(build("timm/vit_tiny_patch16_224"), "paper")
