"""`BioTuneConfig`: which blocks of a model are trained, and how fast each.

This is the artefact that people keep and share: what a search finds, what `get_biotune_model`
takes, and what lies beside the weights of an adapter checkpoint.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from peft import PeftConfig

from .blocks import Partition
from .exceptions import ConfigError
from .extra_genes import rate_factor, settings_of
from .genotype import Genotype
from .hub import locate
from .patterns import named_patterns
from .penalties import L2SP
from .untrusted import MAX_NAME_LENGTH, as_float, read_json, shown

CONFIG_NAME = "adapter_config.json"
NORM_STATISTICS = ("epoch", "train", "frozen")
# More blocks than any model has, fewer than what slows a check down.
MAX_BLOCKS = 1_000
MAX_PATTERNS = 10_000


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
        base_learning_rate: that a search found the multipliers with, finite and greater than 0. It
            sets nothing: the rate is that of the training arguments, and one that differs is warned
            about. Default `None`: any will do.
        norm_statistics: what the running statistics of BatchNorm in *trained* blocks do.
            `"epoch"` (default): each epoch, up to its evaluation, averages its own batches by
            their numbers of samples, as far as that moves faster than PyTorch's. `"train"`: they
            move as PyTorch has it, by a tenth at each step. `"frozen"`: they stay as pre-trained.
            In frozen blocks they never move.
        weight_decay: of the trained weights, finite and at least 0. Default `None`: that of the
            training arguments.
        l2sp: pull of the trained weights towards those that they started from, as
            [`L2SP.to_dict`] gives it. Default `None`: none.
        saved_blocks: frozen blocks that a checkpoint holds all the same, because the base model's
            own checkpoint doesn't: a freshly initialised head. Default `None`: the last block, if
            it is frozen and its classifier is as libraries initialise it.
        genotype: the genes that this configuration was decoded from, as
            [`Genotype.to_dict`] gives them; `None` for one that was written by hand.
        partition: the blocks as they were found, `{block name: [names]}`. Filled in by
            [`get_biotune_model`], so that a checkpoint does not depend on how blocks are found.
            Names of modules and parameters only: what a file holds is never taken for a regular
            expression, for a stranger could write one that takes years to match.

    Raises:
        ConfigError: a multiplier is not a finite number greater than 0, or another value is not
            one of those above.

    Example:
        >>> config = BioTuneConfig(lr_multipliers={"layer4": 0.4, "head": 1.0})
        >>> config.norm_statistics
        'epoch'
    """

    blocks: Any = field(
        default="auto",
        metadata={"help": "'auto', 'paper', 'layers', or a list or dict of patterns."},
    )
    lr_multipliers: dict[str, float] = field(
        default_factory=dict,
        metadata={"help": "Block name -> learning-rate multiplier; missing blocks are frozen."},
    )
    base_learning_rate: float | None = field(
        default=None,
        metadata={"help": "Learning rate that the multipliers were found with; None: unknown."},
    )
    norm_statistics: str = field(
        default="epoch",
        metadata={"help": "BatchNorm statistics of trained blocks: 'epoch', 'train', 'frozen'."},
    )
    weight_decay: float | None = field(
        default=None,
        metadata={"help": "Of trained weights; None: that of the training arguments."},
    )
    l2sp: dict[str, Any] | None = field(
        default=None,
        metadata={"help": "Pull towards the pre-trained weights: strength, new blocks."},
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
        try:
            super().__post_init__()
        except (TypeError, ValueError) as error:
            raise ConfigError(str(error)[:500]) from error
        self.peft_type = BIOTUNE
        _check_inherited(self)
        self.lr_multipliers = _checked_multipliers(self.lr_multipliers)
        if self.base_learning_rate is not None:
            self.base_learning_rate = _checked_rate(self.base_learning_rate)
        if self.norm_statistics not in NORM_STATISTICS:
            raise ConfigError(
                f"norm_statistics must be one of {', '.join(map(repr, NORM_STATISTICS))}, got "
                f"{shown(self.norm_statistics)}"
            )
        if self.weight_decay is not None:
            self.weight_decay = _checked_decay(self.weight_decay)
        if self.l2sp is not None:
            self.l2sp = L2SP.from_dict(self.l2sp).to_dict()
        _check_blocks(self.blocks)
        if self.saved_blocks is not None:
            self.saved_blocks = _checked_names(self.saved_blocks)
        if self.genotype is not None:
            self.genotype = Genotype.from_dict(self.genotype).to_dict()
        if self.partition is not None:
            _check_partition(self.partition)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        subfolder: str | None = None,
        **kwargs: Any,
    ) -> BioTuneConfig:
        """The configuration of a checkpoint.

        Args:
            pretrained_model_name_or_path: a local directory, or a repository on the Hub.
            subfolder: where in it.
            kwargs: `revision`, `token`, `cache_dir`, ... of `hf_hub_download`.

        Raises:
            CheckpointError: there is no such checkpoint.
            ConfigError: its configuration is of another method, or not valid.
        """
        hub_kwargs, class_kwargs, _ = cls._split_kwargs(kwargs)
        hub_kwargs.pop("subfolder", None)
        path = locate(pretrained_model_name_or_path, CONFIG_NAME, subfolder=subfolder, **hub_kwargs)
        return cls.from_peft_type(**{**class_kwargs, **cls.from_json_file(path)})

    @classmethod
    def from_json_file(
        cls, path_json_file: str | os.PathLike[str], **kwargs: Any
    ) -> dict[str, Any]:
        """The fields in a configuration's file, which may be a stranger's.

        Fields of later versions are left out, with a warning. Blocks that are given as patterns
        become a `partition`, so that they are taken for plain names.

        Raises:
            ConfigError: the file can't be read, is not valid JSON, or is of another method.
            PartitionError: its blocks are no patterns.
        """
        values = read_json(path_json_file)
        _check_peft_type(values.get("peft_type"), str(path_json_file))
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - known):
            warnings.warn(
                f"{path_json_file} holds fields that this version does not know and ignores: "
                f"{shown(unknown)}; a later version of hf_biotune may have written it",
                stacklevel=2,
            )
        values = {name: value for name, value in values.items() if name in known}
        blocks = values.get("blocks", "auto")
        if not isinstance(blocks, str) and not values.get("partition"):
            _check_blocks(blocks)
            values["partition"] = named_patterns(blocks)
        return values

    @classmethod
    def from_peft_type(cls, **kwargs: Any) -> BioTuneConfig:
        """A configuration from its fields, as [`~BioTuneConfig.from_json_file`] gives them.

        Raises:
            ConfigError: they are of another method, or not valid.
        """
        _check_peft_type(kwargs.get("peft_type", BIOTUNE), "the configuration")
        return cls(**kwargs)

    @classmethod
    def from_genotype(
        cls,
        genotype: Genotype,
        partition: Partition,
        *,
        new_blocks: Sequence[str] = (),
        **kwargs: Any,
    ) -> BioTuneConfig:
        """The configuration that a genotype decodes to; the only way from one to the other.

        Extra genes take the place of what the arguments say. Every multiplier is scaled by what
        they make of learning rates; see [`rate_factor`].

        Args:
            genotype: one gene per block of `partition`; it must select at least one.
            partition: the blocks that the genes belong to.
            new_blocks: without pre-trained weights; an `l2sp` gene pulls them towards 0.
            kwargs: further arguments of [`BioTuneConfig`], such as `norm_statistics`.

        Raises:
            GenotypeError: no block is selected, or the numbers of genes and blocks differ.
        """
        settings = settings_of(genotype.extra_genes)
        factor = rate_factor(genotype.extra_genes)
        settings.pop("base_lr", None)
        if strength := settings.pop("l2sp", 0.0):
            kwargs["l2sp"] = L2SP(strength, new_blocks=tuple(new_blocks)).to_dict()
        return cls(
            lr_multipliers={
                name: factor * multiplier for name, multiplier in genotype.decode(partition).items()
            },
            genotype=genotype.to_dict(),
            partition=partition.to_patterns(),
            **{**kwargs, **settings},
        )


def _check_peft_type(peft_type: Any, source: str) -> None:
    if peft_type == BIOTUNE:
        return
    if peft_type is None:
        raise ConfigError(f"{source}: peft_type must be 'BIOTUNE', but it is missing")
    raise ConfigError(
        f"{source}: peft_type must be 'BIOTUNE', got {shown(peft_type)}; load adapters of other "
        f"methods with peft.PeftModel.from_pretrained"
    )


def _check_inherited(config: BioTuneConfig) -> None:
    """The fields of every PEFT configuration, which PEFT itself takes as they come."""
    for name in ("base_model_name_or_path", "revision", "peft_version", "task_type"):
        value = getattr(config, name)
        if value is not None and not isinstance(value, str):
            raise ConfigError(f"{name} must be text or null, got {shown(value)}")
    if not isinstance(config.inference_mode, bool):
        raise ConfigError(
            f"inference_mode must be true or false, got {shown(config.inference_mode)}"
        )
    # PEFT's auto classes import the module that stands here, and call the class.
    mapping = config.auto_mapping
    if mapping is not None and not (
        isinstance(mapping, Mapping)
        and re.fullmatch(r"transformers(\.\w+)*", str(mapping.get("parent_library")))
        and re.fullmatch(r"\w+", str(mapping.get("base_model_class")))
    ):
        raise ConfigError(
            f"auto_mapping must name a module of transformers as its parent_library, and a class "
            f"in it, got {shown(mapping)}; set it to null and load the base model yourself"
        )


def _checked_multipliers(multipliers: Any) -> dict[str, float]:
    if not isinstance(multipliers, Mapping):
        raise ConfigError(
            f"lr_multipliers must be a dict of block name to number, got {shown(multipliers)}"
        )
    _check_number(multipliers, "lr_multipliers", MAX_BLOCKS)
    return {
        _checked_name(block, "lr_multipliers"): _checked_multiplier(block, multiplier)
        for block, multiplier in multipliers.items()
    }


def _checked_multiplier(block: str, multiplier: Any) -> float:
    where = f"lr_multipliers[{shown(block)}]"
    if not _is_number(multiplier):
        raise ConfigError(f"{where} must be a number, got {shown(multiplier)}")
    number = as_float(multiplier)
    if not (math.isfinite(number) and number > 0):
        raise ConfigError(
            f"{where} must be finite and greater than 0, got {shown(multiplier)}; leave a block "
            f"out to freeze it"
        )
    return number


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _checked_rate(value: Any) -> float:
    if not (_is_number(value) and 0 < as_float(value) < math.inf):
        raise ConfigError(
            f"base_learning_rate must be finite and greater than 0, got {shown(value)}; leave it "
            f"out if it is not known"
        )
    return float(value)


def _checked_decay(value: Any) -> float:
    if not (_is_number(value) and 0 <= as_float(value) < math.inf):
        raise ConfigError(
            f"weight_decay must be a finite number of at least 0, got {shown(value)}; leave it out "
            f"for that of the training arguments"
        )
    return float(value)


def _checked_name(name: Any, where: str) -> str:
    if not isinstance(name, str) or len(name) > MAX_NAME_LENGTH:
        raise ConfigError(
            f"{where}: a name must be text of at most {MAX_NAME_LENGTH} characters, got "
            f"{shown(name)}"
        )
    return name


def _check_number(values: Any, where: str, most: int) -> None:
    if len(values) > most:
        raise ConfigError(f"{where} may have at most {most:,} entries, got {len(values):,}")


def _checked_names(names: Any, where: str = "saved_blocks", most: int = MAX_BLOCKS) -> list[str]:
    if isinstance(names, str) or not isinstance(names, (list, tuple)):
        raise ConfigError(f"{where} must be a list of names, got {shown(names)}")
    _check_number(names, where, most)
    return [_checked_name(name, where) for name in names]


def _check_blocks(blocks: Any) -> None:
    """Only the type: whether patterns match is for `partition`, which has the model."""
    if isinstance(blocks, str):
        return
    if not isinstance(blocks, (Mapping, list, tuple)):
        raise ConfigError(
            f"blocks must be 'auto', 'paper', 'layers', or a list or dict of patterns, got "
            f"{shown(blocks)}"
        )
    _check_number(blocks, "blocks", MAX_BLOCKS)
    for pattern in blocks.values() if isinstance(blocks, Mapping) else blocks:
        several = [pattern] if isinstance(pattern, str) else pattern
        _checked_names(several, "blocks", MAX_PATTERNS)


def _check_partition(partition: Any) -> None:
    if not isinstance(partition, Mapping):
        raise ConfigError(
            f"partition must be a dict of block name to list of names, got {shown(partition)}"
        )
    _check_number(partition, "partition", MAX_BLOCKS)
    for block, names in partition.items():
        _checked_name(block, "partition")
        _checked_names(names, f"partition[{shown(block)}]", MAX_PATTERNS)
