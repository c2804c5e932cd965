"""Whether a configuration fits a model, with errors that name what does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
        ConfigError: it is quantised, or transformers loaded a BioTune adapter into it.
    """
    if MARKERS in dict(model.named_children()):
        raise ConfigError(
            "transformers has loaded a BioTune adapter into this model already, and tuned blocks "
            "can't be stacked; load the base model anew and use BioTuneModel.from_pretrained(base, "
            "...) and load_adapter(..., adapter_name=...), which swap between several"
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
    """The last block, if it is frozen although it looks freshly initialised.

    All libraries initialise the biases of a new classifier with zeros, and training moves them.
    """
    head = found[-1]
    if head.name in config.lr_multipliers:
        return []
    parameters = dict(model.named_parameters())
    biases = [parameters[name] for name in head.parameters if name.endswith("bias")]
    fresh = bool(biases) and not any(bias.count_nonzero() for bias in biases)
    return [head.name] if fresh else []
