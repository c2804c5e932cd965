"""The partitions of the BioTune paper: ResNet-50, DenseNet-121, VGG-19 and Inception-v3.

Source: BioTune, arXiv 2508.15367, experimental setup. The paper divides ResNet-50 into 6 blocks,
DenseNet-121 into 9, VGG-19 into 6 and Inception-v3 into 14. Their smaller and larger relatives
(ResNet-18, ResNeXt, DenseNet-169, VGG-11 with batch norm, ...) have the same structure and are
divided alike. The names are those of the paper's networks in torchvision form, whichever library
a model comes from, so that a configuration made for one form reads the same for the other.
"""

from __future__ import annotations

from torch import nn

from .module_tree import pooling_stages
from .structure import HEAD, STEM, Groups

FAMILIES = ("ResNet", "DenseNet", "VGG", "Inception-v3")

_LAYERS = ("layer1", "layer2", "layer3", "layer4")
_MIXED = ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c")

# torchvision and timm.
_RESNET: Groups = {STEM: ["conv1", "bn1"], **{name: [name] for name in _LAYERS}, HEAD: ["fc"]}
# transformers: the bare model, and the one with a classifier.
_RESNET_HF: Groups = {
    STEM: ["embedder"],
    **{name: [f"encoder.stages.{index}"] for index, name in enumerate(_LAYERS)},
}
_RESNET_HF_CLASSIFIER: Groups = {
    **{name: [f"resnet.{target}" for target in targets] for name, targets in _RESNET_HF.items()},
    HEAD: ["classifier"],
}
_DENSENET: Groups = {
    STEM: ["features.conv0", "features.norm0"],
    "denseblock1": ["features.denseblock1"],
    "transition1": ["features.transition1"],
    "denseblock2": ["features.denseblock2"],
    "transition2": ["features.transition2"],
    "denseblock3": ["features.denseblock3"],
    "transition3": ["features.transition3"],
    "denseblock4": ["features.denseblock4", "features.norm5"],
    HEAD: ["classifier"],
}
_INCEPTION: Groups = {
    STEM: [f"Conv2d_{name}" for name in ("1a_3x3", "2a_3x3", "2b_3x3", "3b_1x1", "4a_3x3")],
    **{f"Mixed_{name}": [f"Mixed_{name}"] for name in _MIXED},
    "AuxLogits": ["AuxLogits"],
    HEAD: ["fc"],
}
_TABLES = (_RESNET, _RESNET_HF, _RESNET_HF_CLASSIFIER, _DENSENET, _INCEPTION)
# A model can be built without its classifier, or without its auxiliary one.
_OPTIONAL = (HEAD, "AuxLogits")
_VGG_STAGES = 5


def paper_groups(model: nn.Module) -> Groups | None:
    """The paper's partition of a model.

    Args:
        model: any model; a wrapper with one child, such as transformers' around a timm model, is
            looked through.

    Returns:
        The names of the modules of each block, or `None` if the model is none of the families.

    Example:
        >>> import torch, torchvision
        >>> with torch.device("meta"):
        ...     model = torchvision.models.resnet18(weights=None)
        >>> list(paper_groups(model))
        ['stem', 'layer1', 'layer2', 'layer3', 'layer4', 'head']
    """
    prefix, network = "", model
    while True:
        for table in (*_TABLES, _vgg_table(network)):
            groups = _apply(table, network)
            if groups is not None:
                return {name: [prefix + target for target in groups[name]] for name in groups}
        children = [
            (name, child)
            for name, child in network.named_children()
            if any(True for _ in child.parameters())
        ]
        if len(children) != 1 or any(True for _ in network.parameters(recurse=False)):
            return None
        prefix, network = f"{prefix}{children[0][0]}.", children[0][1]


def _apply(table: Groups, network: nn.Module) -> Groups | None:
    """The blocks of a table, if its modules exist and hold every parameter of the network."""
    starts = {f"{target}.": (name, target) for name, targets in table.items() for target in targets}
    found: set[tuple[str, str]] = set()
    for parameter, _ in network.named_parameters():
        owner = next((starts[start] for start in starts if parameter.startswith(start)), None)
        if owner is None:
            return None
        found.add(owner)
    missing = {name for name, _ in set(starts.values()) - found}
    if not table or missing - set(_OPTIONAL):
        return None
    return {name: targets for name, targets in table.items() if name not in missing}


def _vgg_table(network: nn.Module) -> Groups:
    """The table of a VGG, whose stages end at the pooling layers; empty for other networks."""
    features = getattr(network, "features", None)
    stages = pooling_stages(features) if isinstance(features, nn.Module) else None
    if stages is None or len(stages) != _VGG_STAGES:
        return {}
    body = {
        f"stage{number}": [f"features.{layer}" for layer in stage]
        for number, stage in enumerate(stages, start=1)
    }
    # torchvision holds all linear layers in `classifier`, timm in `pre_logits` and `head`.
    head = [name for name in ("classifier", "pre_logits", "head") if hasattr(network, name)]
    return {**body, HEAD: head}
