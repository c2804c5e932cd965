"""`partition` on small models: patterns, errors, and models of unusual structure."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from hf_biotune.blocks import Block, Partition, partition
from hf_biotune.exceptions import PartitionError


class Residual(nn.Module):
    """A unit of two layers."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.first = nn.Linear(width, width)
        self.drop = nn.Dropout(0.1)
        self.second = nn.Linear(width, width)


class Network(nn.Module):
    """Token, embedding, `depth` units in a ModuleList, norm, dropout, classifier."""

    def __init__(self, depth: int = 4) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(4))
        self.embed = nn.Embedding(10, 4)
        self.layers = nn.ModuleList(Residual() for _ in range(depth))
        self.norm = nn.LayerNorm(4)
        self.drop = nn.Dropout(0.1)
        self.classifier = nn.Linear(4, 2)


def convolutions(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))


def contents(model: nn.Module, blocks: object = "auto") -> dict[str, list[str]]:
    return partition(model, blocks).to_patterns()  # type: ignore[arg-type]


# The partition itself


def test_importing_blocks_does_not_import_torch() -> None:
    code = "import sys, hf_biotune.blocks; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_block_is_found_by_name_and_by_position() -> None:
    blocks = partition(Network())
    assert blocks["head"] is blocks[-1]
    assert len(blocks) == len(list(blocks)) == 6


def test_unknown_block_is_an_error_that_lists_the_blocks() -> None:
    blocks = partition(Network(3))
    with pytest.raises(
        PartitionError,
        match="no block is named 'layer9'; this model's blocks are: "
        "stem, layer0, layer1, layer2, head",
    ):
        blocks["layer9"]


def test_block_of_parameter() -> None:
    blocks = partition(Network())
    assert blocks.block_of_parameter("layers.2.first.weight") == "layer2"
    with pytest.raises(PartitionError, match=r"has no parameter 'fc\.weight'"):
        blocks.block_of_parameter("fc.weight")


def test_block_of_module_is_none_for_a_container_of_several_blocks() -> None:
    blocks = partition(Network())
    assert blocks.block_of_module("layers") is None
    assert blocks.block_of_module("layers.2.drop") == "layer2"


def test_module_without_parameters_lies_in_the_block_of_the_one_before() -> None:
    assert partition(Network(4)).block_of_module("drop") == "layer3"


def test_module_before_all_parameters_lies_in_the_first_block() -> None:
    model = nn.Sequential(nn.Dropout(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    assert partition(model).block_of_module("0") == "layer1"


def test_number_of_parameters() -> None:
    model = Network()
    blocks = partition(model)
    assert blocks["head"].n_parameters == 10
    assert blocks.n_parameters == sum(parameter.numel() for parameter in model.parameters())


def test_key_is_the_same_for_the_same_blocks_and_another_for_others() -> None:
    model = Network()
    assert partition(model).key == partition(Network()).key
    assert partition(model).key != partition(model, ["layers", "classifier"]).key


def test_key_does_not_change_between_versions() -> None:
    blocks = Partition((Block("head", ("fc",), ("fc.weight", "fc.bias"), 10),), "patterns")
    assert blocks.key == "eea01b231e3631f2"


def test_str_is_a_table() -> None:
    model = nn.Sequential(nn.Linear(4, 99), nn.ReLU(), nn.Linear(99, 2))
    assert str(partition(model)).splitlines() == [
        "block   parameters   share  modules",
        "layer0         495   71.2%  0, 1",
        "head           200   28.8%  2",
        "total          695  100.0%  2 blocks",
    ]


def test_html_table_escapes_names() -> None:
    html = partition(nn.Linear(2, 2), {"<b>": ".*"})._repr_html_()
    assert "<td>&lt;b&gt;</td><td>6</td><td>100.0%</td><td>weight, bias</td>" in html


# Patterns


def test_exact_module_name_takes_all_below_it() -> None:
    blocks = partition(Network(), ["layers.1", "classifier"])
    assert blocks["layers1"].modules == ("layers.1",)
    assert len(blocks["layers1"].parameters) == 4


def test_exact_name_is_not_read_as_a_regular_expression() -> None:
    model = nn.ModuleDict({"block1": nn.Linear(2, 2), "block11": nn.Linear(2, 2)})
    model["block11"].extra = nn.Linear(2, 2)
    assert partition(model, ["block1"]).block_of_parameter("block11.weight") == "rest"


def test_exact_parameter_name() -> None:
    assert partition(Network(), {"token": "token"})["token"].parameters == ("token",)


def test_regular_expression_must_match_a_whole_name() -> None:
    blocks = partition(Network(), {"early": r"layers\.[01]", "late": r"layers\.[23]"})
    assert blocks["early"].modules == ("layers.0", "layers.1")
    assert blocks.names == ("rest", "early", "late")


def test_block_of_several_patterns() -> None:
    assert contents(Network(), {"ends": ["embed", "token", "classifier"], "body": "layers"}) == {
        "ends": ["embed", "classifier", "token"],
        "body": ["layers"],
        "rest": ["norm", "drop"],
    }


def test_blocks_come_in_execution_order_and_not_as_given() -> None:
    blocks = partition(Network(), ["classifier", "norm", "layers", "embed", "token"])
    assert blocks.names == ("token", "embed", "layers", "norm", "classifier")


def test_classifier_that_is_registered_first_comes_last() -> None:
    model = nn.ModuleDict({"classifier": nn.Linear(4, 2), "body": nn.Linear(4, 4)})
    assert partition(model, ["classifier", "body"]).names == ("body", "classifier")


def test_names_of_a_list_of_patterns() -> None:
    model = nn.ModuleDict({"encoder": Network(2), "decoder": Network(2)})
    patterns = ["encoder.layers.0", "decoder.layers.0", "encoder.norm", r"decoder\..*norm"]
    assert partition(model, patterns).names == (
        "rest",
        "encoder_layers_0",
        "norm",
        "decoder_layers_0",
        "decoder_norm",
    )


def test_pattern_may_place_a_module_without_parameters() -> None:
    blocks = partition(Network(), {"body": "layers", "head": ["drop", "classifier"]})
    assert blocks.block_of_module("drop") == "head"
    assert partition(Network(), blocks.to_patterns()).blocks == blocks.blocks


def test_source_says_which_rule_found_the_blocks() -> None:
    assert partition(Network()).source == "structure"
    assert partition(Network(), ["layers"]).source == "patterns"


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        (
            "layer9",
            "blocks must be one of 'auto', 'paper', 'layers', a list or a dict, got 'layer9'; to "
            r"use it as a pattern, pass the list \['layer9'\]",
        ),
        (
            ["layer9"],
            "no module or parameter matches 'layer9'; did you mean 'layers'.* a pattern must be a "
            "whole name or a regular expression that matches one; the model's top level is: "
            "embed, layers, norm, drop, classifier, token",
        ),
        (
            ["layers["],
            r"'layers\[' is neither the name of a module or parameter nor a valid regular "
            r"expression \(unterminated character set at position 6\); escape special characters",
        ),
        (
            {"body": "layers", "late": r"layers\.3"},
            "parameter 'layers.3.first.weight' is matched by two blocks, 'body' "
            r"\('layers'\) and 'late' .*make the patterns narrower",
        ),
        ([], "blocks must name at least one block, got none"),
        ({}, "blocks must name at least one block, got none"),
        ({"body": []}, "block 'body' must have at least one pattern, got none"),
        (["layers", "layers"], "the pattern 'layers' is given twice; each is a block: drop one"),
        (
            [r"layers\.[01]", r"layers\.0|1"],
            "would both name their block 'layers_01'|'layers_0_1'",
        ),
        (3, "blocks must be a list of patterns or a dict of block names to patterns, got 3"),
        ({"body": 3}, "the patterns of 'body' must be a string or a list of strings.* got 3"),
        (["layers", 3], r"the patterns of 'blocks' must be .* got \['layers', 3\]"),
        ({"body": [""]}, "none of them empty"),
        ({"a.b": "layers"}, "a block's name must be a string without '.', ':' and '/', got 'a.b'"),
        ({1: "layers"}, "a block's name must be a string .* got 1"),
        ({"body": "layers", "off": "drop"}, "block 'off' has no parameters: 'drop' names only"),
        (
            {"rest": "layers"},
            "the name 'rest' is kept for parameters that no pattern matches, such as 'token'",
        ),
    ],
)
def test_wrong_blocks_are_errors_with_value_rule_and_remedy(blocks: object, message: str) -> None:
    with pytest.raises(PartitionError, match=message):
        partition(Network(), blocks)  # type: ignore[arg-type]


# Models


def test_parameters_of_the_model_and_embeddings_form_the_stem() -> None:
    assert contents(Network(3)) == {
        "stem": ["embed", "token"],
        "layer0": ["layers.0"],
        "layer1": ["layers.1"],
        "layer2": ["layers.2", "norm", "drop"],
        "head": ["classifier"],
    }


@pytest.mark.parametrize("depth", [1, 2])
def test_body_of_one_or_two_layers_is_found_too(depth: int) -> None:
    layers = [f"layer{index}" for index in range(depth)]
    assert list(partition(Network(depth)).names) == ["stem", *layers, "head"]


def test_lists_with_equal_names_are_told_apart_by_where_they_are() -> None:
    def layers() -> nn.ModuleList:
        return nn.ModuleList(Residual() for _ in range(3))

    two = nn.ModuleDict({"encoder": layers(), "decoder": layers()})
    assert partition(two).names[::3] == ("encoder_layer0", "decoder_layer0")
    left = nn.ModuleDict({"x": layers(), "y": layers()})
    three = nn.ModuleDict({"left": left, "right": layers()})
    assert partition(three).names[::3] == ("left_x_layer0", "left_y_layer0", "right_layer0")


def test_backbone_and_head_in_a_sequential() -> None:
    blocks = partition(nn.Sequential(Network(3), nn.Linear(2, 2)))
    assert blocks.names == ("stem", "layer0", "layer1", "layer2", "head")
    assert blocks["head"].modules == ("0.classifier", "1")


def test_flat_convolutions_are_divided_at_their_pools() -> None:
    model = convolutions(
        *(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU()),
    )
    assert contents(model) == {
        "stage1": ["0", "1", "2", "3"],
        "stage2": ["4", "5", "6", "7", "8", "9"],
        "head": ["10"],
    }
    assert partition(model, "layers").names == ("stage1", "stage2_0", "stage2_1", "head")


def test_flat_convolutions_without_pools_are_a_block_each() -> None:
    model = convolutions(
        *(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()),
        *(nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3)),
    )
    assert contents(model) == {
        "layer0": ["0", "1", "2"],
        "layer3": ["3", "4"],
        "layer5": ["5", "6", "7"],
        "head": ["8"],
    }


def test_single_convolution_after_the_body_belongs_to_the_last_block() -> None:
    model = nn.ModuleDict(
        {
            "layers": nn.ModuleList(Residual() for _ in range(3)),
            "conv_head": nn.Conv2d(4, 4, 1),
            "bn2": nn.BatchNorm2d(4),
            "fc": nn.Linear(4, 2),
        }
    )
    assert contents(model)["layer2"] == ["layers.2", "conv_head", "bn2"]
    assert contents(model)["head"] == ["fc"]


def test_no_list_at_all_makes_each_child_a_block() -> None:
    model = nn.ModuleDict(
        {
            "conv1": nn.Conv2d(3, 4, 3),
            "bn1": nn.BatchNorm2d(4),
            "conv2": nn.Conv2d(4, 4, 3),
            "fc1": nn.Linear(4, 4),
            "fc2": nn.Linear(4, 2),
        }
    )
    assert contents(model) == {
        "conv1": ["conv1", "bn1"],
        "conv2": ["conv2"],
        "fc1": ["fc1"],
        "head": ["fc2"],
    }


def test_wrapper_with_one_child_is_looked_through() -> None:
    mlp = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    assert contents(nn.ModuleDict({"net": mlp})) == {
        "layer0": ["net.0", "net.1"],
        "head": ["net.2"],
    }


def test_lone_layer_is_a_head() -> None:
    assert contents(nn.Linear(4, 2)) == {"head": ["weight", "bias"]}
    assert contents(nn.Sequential(nn.Linear(4, 2))) == {"head": ["0"]}


def test_shared_module_belongs_to_its_first_place() -> None:
    model = Network(4)
    model.layers[2].second = model.layers[0].second
    blocks = partition(model)
    assert blocks.block_of_module("layers.2") is None
    assert blocks.block_of_module("layers.2.second") == "layer0"
    assert blocks.block_of_module("layers.2.drop") == "layer2"
    assert blocks["layer2"].parameters == ("layers.2.first.weight", "layers.2.first.bias")
    assert partition(model, blocks.to_patterns()).blocks == blocks.blocks


def test_tied_parameter_belongs_to_its_first_place() -> None:
    model = Network(3)
    model.classifier = nn.Linear(4, 10, bias=False)
    model.classifier.weight = model.embed.weight
    blocks = partition(model)
    assert blocks.names == ("stem", "layer0", "layer1", "layer2")
    assert blocks.block_of_module("classifier") == "stem"
    with pytest.raises(PartitionError, match=r"'embed.weight' is matched by two blocks.*tied"):
        partition(model, {"stem": "embed", "head": "classifier"})


def test_module_without_parameters_only_is_an_error() -> None:
    with pytest.raises(PartitionError, match="ReLU has no parameters, so there are no blocks"):
        partition(nn.ReLU())


def test_what_is_no_module_is_an_error() -> None:
    with pytest.raises(PartitionError, match=r"partition needs a torch.nn.Module, got str"):
        partition("resnet50")  # type: ignore[arg-type]


def test_model_with_adapters_is_an_error_with_the_remedy() -> None:
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(Network(), peft.LoraConfig(target_modules=["classifier"]))
    with pytest.raises(
        PartitionError, match=r"holds PEFT adapters already \(PeftModel\).*`unload\(\)`"
    ):
        partition(model)
    with pytest.raises(PartitionError, match="holds PEFT adapters already"):
        partition(model.base_model.model)
