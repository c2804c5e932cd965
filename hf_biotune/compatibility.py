"""Whether a configuration fits a model, with errors that name what does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from .blocks import Partition
from .config import BioTuneConfig
from .exceptions import ConfigError
from .markers import MARKERS
from .patterns import Names
from .untrusted import shown


def check_base_model(model: nn.Module) -> None:
    """Whether blocks of the model can be trained in place.

    Raises:
        ConfigError: it is quantised, or has an adapter already.
    """
    if MARKERS in dict(model.named_children()):
        raise ConfigError(
            "transformers has loaded a BioTune adapter into this model already, and tuned blocks "
            "can't be stacked; load the base model anew and use BioTuneModel.from_pretrained(base, "
            "...) and load_adapter(..., adapter_name=...), which swap between several"
        )
    if "peft_config" in model.__dict__:
        raise ConfigError(
            "the model's blocks are tuned already, and a second adapter would take these for the "
            "base model's; use load_adapter or add_adapter of the model that there is, or take the "
            "base model back with unload() or merge_and_unload()"
        )
    if getattr(model, "is_quantized", False) or not all(
        parameter.is_floating_point() or parameter.is_complex() for parameter in model.parameters()
    ):
        raise ConfigError(
            "a quantised base model can't be trained in place; load it without quantisation, or "
            "use LoRA"
        )


def check_stored_names(model: nn.Module, stored: Mapping[str, Sequence[str]]) -> None:
    """A stored partition holds names, and never a regular expression that a stranger wrote.

    Raises:
        ConfigError: the model has no module or parameter of a name.
    """
    names = Names(model)
    for block, parts in stored.items():
        for part in parts:
            if part not in names.parameters_below and part not in names.owner:
                raise ConfigError(
                    f"the stored partition puts {shown(part)} into block {shown(block)}, but the "
                    f"model has no module or parameter of that name; give it the base model that "
                    f"it was made for, or drop `partition` to find the blocks again"
                )


def check_block_names(config: BioTuneConfig, found: Partition) -> None:
    """Whether the model has the blocks that a configuration names.

    Raises:
        ConfigError: it doesn't, or no block is named.
    """
    names = ", ".join(found.names)
    if not config.lr_multipliers:
        raise ConfigError(
            f"lr_multipliers is empty, so nothing would be trained; name at least one of this "
            f"model's blocks: {names}"
        )
    for field_name in ("lr_multipliers", "saved_blocks"):
        for block in getattr(config, field_name) or ():
            if block not in found.names:
                raise ConfigError(
                    f"{field_name}: no block is named {shown(block)}; this model's blocks are: "
                    f"{names}"
                )


def fresh_head(model: nn.Module, config: BioTuneConfig, found: Partition) -> list[str]:
    """The last block, if it is frozen although its classifier looks freshly initialised."""
    head = found[-1]
    if head.name in config.lr_multipliers:
        return []
    matrices = [n for n in head.parameters if model.get_parameter(n).ndim > 1]
    if not matrices:
        return []
    # What comes before it in the block, a pooler or convolution, is the base model's own.
    classifier = model.get_submodule(matrices[-1].rpartition(".")[0])
    return [head.name] if _looks_fresh(classifier) else []


def _looks_fresh(layer: nn.Module) -> bool:
    """Whether a linear layer or convolution is as libraries initialise it.

    Most set its biases to zero, which training changes. The others (torchvision, ResNets of
    transformers) leave torch's default, which draws weights and biases evenly from [-b, b] with
    b = 1 / sqrt(inputs); training spreads them beyond. One that was hardly trained is taken for
    fresh, which costs a warning and some bytes; the reverse would lose weights.
    """
    weight, bias = getattr(layer, "weight", None), getattr(layer, "bias", None)
    if not isinstance(weight, torch.Tensor) or weight.ndim < 2 or weight.is_meta:
        return False
    # Without a bias nothing tells.
    if not isinstance(bias, torch.Tensor) or not bool(bias.any()):
        return True
    bound = weight[0].numel() ** -0.5
    # Half precision rounds some up; an even spread has a deviation of b / sqrt(3).
    largest = max(weight.abs().max().item(), bias.abs().max().item())
    spread = weight.float().std().item()
    return bool(largest <= 1.01 * bound and spread > 0.8 * bound / 3**0.5)
