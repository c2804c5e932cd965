"""`BioTuneConfig`: which blocks of a model are trained, and how fast each.

This is the artefact that people keep and share: what a search finds, what `get_biotune_model`
takes, and what lies beside the weights of an adapter checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from peft import PeftConfig

from .blocks import Partition
from .exceptions import ConfigError
from .genotype import Genotype

NORM_STATISTICS = ("train", "frozen")


class _PeftType(str):
    """Looks like a member of `peft.PeftType`, which PEFT asks only for its text and `.value`."""

    __slots__ = ()

    @property
    def value(self) -> str:
        """The text, as of an enum member."""
        return str.__str__(self)

    @property
    def name(self) -> str:
        """The text, as of an enum member."""
        return str.__str__(self)

    def __str__(self) -> str:
        # PEFT's status calls cut off what stands before the dot.
        return f"PeftType.{self.value}"

    def __deepcopy__(self, memo: dict[int, Any]) -> _PeftType:
        return self

    def __reduce__(self) -> tuple[type[_PeftType], tuple[str]]:
        return _PeftType, (self.value,)


BIOTUNE = _PeftType("BIOTUNE")


@dataclass
class BioTuneConfig(PeftConfig):  # type: ignore[misc]
    """Which blocks are trained, and the learning-rate multiplier of each.

    Args:
        blocks: how the model is divided: `"auto"` (default), `"paper"`, `"layers"`, or a list or
            dict of patterns; see [`partition`].
        lr_multipliers: `{block name: factor on the base learning rate}`, each finite and greater
            than 0. Blocks that are missing are frozen.
        norm_statistics: whether BatchNorm in *trained* blocks updates its running statistics
            (`"train"`, the default) or keeps them (`"frozen"`). In frozen blocks it never moves.
        saved_blocks: frozen blocks that a checkpoint holds all the same, because the base model's
            own checkpoint doesn't: a freshly initialised head. Default `None`: the last block, if
            it is frozen and its biases are all zero.
        genotype: the genes that this configuration was decoded from, as
            [`Genotype.to_dict`] gives them; `None` for one that was written by hand.
        partition: the blocks as they were found, `{block name: [patterns]}`. Filled in by
            [`get_biotune_model`], so that a checkpoint does not depend on how blocks are found.

    Raises:
        ConfigError: a multiplier is not a finite number greater than 0, or another value is not
            one of those above.

    Example:
        >>> config = BioTuneConfig(lr_multipliers={"layer4": 0.4, "head": 1.0})
        >>> config.norm_statistics
        'train'
    """

    blocks: Any = field(
        default="auto",
        metadata={"help": "'auto', 'paper', 'layers', or a list or dict of patterns."},
    )
    lr_multipliers: dict[str, float] = field(
        default_factory=dict,
        metadata={"help": "Block name -> learning-rate multiplier; missing blocks are frozen."},
    )
    norm_statistics: str = field(
        default="train",
        metadata={"help": "BatchNorm statistics of trained blocks: 'train' or 'frozen'."},
    )
    saved_blocks: list[str] | None = field(
        default=None,
        metadata={"help": "Frozen blocks to save all the same: a freshly initialised head."},
    )
    genotype: dict[str, Any] | None = field(
        default=None, metadata={"help": "The genes that this configuration was decoded from."}
    )
    partition: dict[str, list[str]] | None = field(
        default=None, metadata={"help": "The blocks as found; filled in by get_biotune_model."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = BIOTUNE
        self.lr_multipliers = _checked_multipliers(self.lr_multipliers)
        if self.norm_statistics not in NORM_STATISTICS:
            raise ConfigError(
                f"norm_statistics must be one of {', '.join(map(repr, NORM_STATISTICS))}, got "
                f"{self.norm_statistics!r}"
            )
        _check_blocks(self.blocks)
        if self.saved_blocks is not None:
            self.saved_blocks = _checked_names(self.saved_blocks)
        if self.genotype is not None:
            self.genotype = Genotype.from_dict(self.genotype).to_dict()
        if self.partition is not None:
            _check_partition(self.partition)

    @classmethod
    def from_genotype(
        cls, genotype: Genotype, partition: Partition, **kwargs: Any
    ) -> BioTuneConfig:
        """The configuration that a genotype decodes to; the only way from one to the other.

        Args:
            genotype: one gene per block of `partition`; it must select at least one.
            partition: the blocks that the genes belong to.
            kwargs: further arguments of [`BioTuneConfig`], such as `norm_statistics`.

        Raises:
            GenotypeError: no block is selected, or the numbers of genes and blocks differ.
        """
        return cls(
            lr_multipliers=genotype.decode(partition),
            genotype=genotype.to_dict(),
            partition=partition.to_patterns(),
            **kwargs,
        )


def _checked_multipliers(multipliers: Any) -> dict[str, float]:
    if not isinstance(multipliers, Mapping):
        raise ConfigError(
            f"lr_multipliers must be a dict of block name to number, got {multipliers!r}"[:300]
        )
    checked = {}
    for block, multiplier in multipliers.items():
        if not isinstance(block, str):
            raise ConfigError(f"lr_multipliers: block names must be text, got {block!r}"[:300])
        if isinstance(multiplier, bool) or not isinstance(multiplier, (int, float)):
            raise ConfigError(
                f"lr_multipliers[{block!r}] must be a number, got {multiplier!r}"[:300]
            )
        if not (math.isfinite(multiplier) and multiplier > 0):
            raise ConfigError(
                f"lr_multipliers[{block!r}] must be finite and greater than 0, got {multiplier}; "
                f"leave a block out to freeze it"
            )
        checked[block] = float(multiplier)
    return checked


def _checked_names(names: Any) -> list[str]:
    if isinstance(names, str) or not isinstance(names, (list, tuple)):
        raise ConfigError(f"saved_blocks must be a list of block names, got {names!r}"[:300])
    if not all(isinstance(name, str) for name in names):
        raise ConfigError(f"saved_blocks must be a list of block names, got {names!r}"[:300])
    return list(names)


def _check_blocks(blocks: Any) -> None:
    """Only the type: whether patterns match is for `partition`, which has the model."""
    patterns = blocks.values() if isinstance(blocks, Mapping) else blocks
    if isinstance(blocks, str):
        return
    if not isinstance(patterns, Sequence) and not isinstance(blocks, Mapping):
        raise ConfigError(
            f"blocks must be 'auto', 'paper', 'layers', or a list or dict of patterns, got "
            f"{blocks!r}"[:300]
        )
    for pattern in patterns:
        several = [pattern] if isinstance(pattern, str) else pattern
        if not isinstance(several, Sequence) or not all(isinstance(one, str) for one in several):
            raise ConfigError(f"blocks: a pattern must be text, got {pattern!r}"[:300])


def _check_partition(partition: Any) -> None:
    if not isinstance(partition, Mapping) or not all(
        isinstance(name, str)
        and isinstance(patterns, Sequence)
        and not isinstance(patterns, str)
        and all(isinstance(pattern, str) for pattern in patterns)
        for name, patterns in partition.items()
    ):
        raise ConfigError(
            f"partition must be a dict of block name to list of patterns, got {partition!r}"[:300]
        )
