"""The genotype: one importance gene per block and one freezing threshold, all in [0, 1].

Source: BioTune, arXiv 2508.15367, section 3 (individual encoding and learning-rate mapping).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .exceptions import ConfigError, GenotypeError
from .untrusted import MAX_NAME_LENGTH, parse_json, shown

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from .blocks import Partition

MINIMUM_MULTIPLIER = 0.1
MAXIMUM_MULTIPLIER = 10.0


def lr_multiplier(importance: float) -> float:
    """The learning-rate multiplier of a block that is trained: `10 ** (2 * (importance - 0.5))`.

    Args:
        importance: the block's gene, in [0, 1].

    Returns:
        The factor on the base learning rate, from 0.1 (gene 0) through 1 (gene 0.5) to 10 (gene 1).

    Example:
        >>> lr_multiplier(0.5)
        1.0

    Source: arXiv 2508.15367, learning-rate mapping.
    """
    return float(10.0 ** (2.0 * (importance - 0.5)))


def importance_of(multiplier: float) -> float:
    """The gene that decodes to `multiplier`; the inverse of [`lr_multiplier`].

    Args:
        multiplier: the factor on the base learning rate, in [0.1, 10].

    Returns:
        The gene, in [0, 1].

    Raises:
        GenotypeError: `multiplier` is outside of [0.1, 10], which no gene reaches.

    Example:
        >>> importance_of(10.0)
        1.0
    """
    if not MINIMUM_MULTIPLIER <= multiplier <= MAXIMUM_MULTIPLIER:
        raise GenotypeError(
            f"a gene reaches multipliers in [{MINIMUM_MULTIPLIER}, {MAXIMUM_MULTIPLIER}], got "
            f"{multiplier}; change the base learning rate instead"
        )
    return min(1.0, max(0.0, 0.5 + math.log10(multiplier) / 2.0))


@dataclass(frozen=True)
class Genotype:
    """How important each block is, and above which importance a block is trained.

    Immutable and hashable. Two genotypes are equal if every gene is the same number, bit for bit.

    Args:
        importances: one gene per block, in the order of the [`Partition`], each in [0, 1].
        freezing_threshold: in [0, 1]; a block is trained if its gene is greater.
        extra: genes beside those of the blocks, by name; see [`settings_of`]. Default: none. They
            are kept as pairs, in the order of their names.

    Raises:
        GenotypeError: a gene or the threshold is outside of [0, 1], or there is no gene.

    Example:
        >>> genotype = Genotype(importances=(0.1, 0.5, 1.0), freezing_threshold=0.3)
        >>> genotype.decode(["stem", "layer1", "head"])
        {'layer1': 1.0, 'head': 10.0}
        >>> Genotype.from_json(genotype.to_json()) == genotype
        True

    Source: arXiv 2508.15367, individual encoding.
    """

    importances: tuple[float, ...]
    freezing_threshold: float
    extra: Mapping[str, float] | Iterable[tuple[str, float]] = ()

    def __post_init__(self) -> None:
        importances = tuple(
            _gene(value, f"importances[{index}]") for index, value in enumerate(self.importances)
        )
        if not importances:
            raise GenotypeError("a genotype needs at least one importance gene, got none")
        object.__setattr__(self, "importances", importances)
        object.__setattr__(
            self, "freezing_threshold", _gene(self.freezing_threshold, "freezing_threshold")
        )
        extra = sorted(dict(self.extra).items())
        pairs = tuple((name, _gene(gene, f"extra[{shown(name)}]")) for name, gene in extra)
        object.__setattr__(self, "extra", pairs)

    def __repr__(self) -> str:
        extra = f", extra={self.extra_genes}" if self.extra else ""
        return (
            f"Genotype(importances={self.importances}, "
            f"freezing_threshold={self.freezing_threshold}{extra})"
        )

    def __len__(self) -> int:
        return len(self.importances)

    @property
    def selected(self) -> tuple[bool, ...]:
        """For each block, whether it is trained. Length: number of blocks."""
        return tuple(gene > self.freezing_threshold for gene in self.importances)

    @property
    def is_valid(self) -> bool:
        """Whether at least one block is trained."""
        return any(self.selected)

    @property
    def extra_genes(self) -> dict[str, float]:
        """The genes beside those of the blocks, by name."""
        return dict(self.extra)

    def repaired(self) -> Genotype:
        """This genotype, or, if it trains no block, one that trains its most important one.

        Evolution draws such genotypes again; other samplers can't.

        Example:
            >>> Genotype((0.2, 0.4), 0.9).repaired().selected
            (False, True)
        """
        if self.is_valid:
            return self
        # The smallest number above 0 lets a threshold of 0 be exceeded.
        highest = max(math.ulp(0.0), *self.importances)
        best = max(range(len(self)), key=lambda index: self.importances[index])
        importances = [*self.importances[:best], highest, *self.importances[best + 1 :]]
        return Genotype(tuple(importances), math.nextafter(highest, 0.0), self.extra)

    @property
    def key(self) -> str:
        """16 hexadecimal digits that name this genotype, the same in every process and version."""
        genes = [gene.hex() for gene in (*self.importances, self.freezing_threshold)]
        genes += [f"{name}={gene.hex()}" for name, gene in self.extra_genes.items()]
        return hashlib.sha256(",".join(genes).encode()).hexdigest()[:16]

    def decode(self, blocks: Partition | Sequence[str]) -> dict[str, float]:
        """The phenotype: the learning-rate multiplier of each trained block.

        Args:
            blocks: the partition that the genes belong to, or its block names in order.

        Returns:
            `{block name: multiplier in (0.1, 10]}`, in the order of the blocks. Blocks that are
            missing are frozen.

        Raises:
            GenotypeError: the number of blocks differs from the number of genes, or no gene exceeds
                the freezing threshold.
        """
        names = _block_names(blocks)
        if len(names) != len(self.importances):
            raise GenotypeError(
                f"the genotype has {len(self.importances)} importance genes but the partition has "
                f"{len(names)} blocks: {', '.join(names)}"
            )
        if not self.is_valid:
            raise GenotypeError(
                f"no block is trained: every importance is <= freezing_threshold "
                f"{self.freezing_threshold}; lower the threshold or raise a gene"
            )
        return {
            name: lr_multiplier(gene)
            for name, gene, selected in zip(names, self.importances, self.selected, strict=True)
            if selected
        }

    @classmethod
    def from_multipliers(
        cls, multipliers: Mapping[str, float], blocks: Partition | Sequence[str]
    ) -> Genotype:
        """A genotype that decodes to `multipliers`.

        Args:
            multipliers: `{block name: multiplier}`, each in (0.1, 10]; other blocks are frozen.
            blocks: the partition, or its block names in order.

        Returns:
            The genotype whose threshold is half of the smallest selected gene, and whose frozen
            genes are a quarter of it: near enough to the threshold for evolution to reconsider.

        Raises:
            GenotypeError: an unknown block, a multiplier out of range, or no block at all.

        Example:
            >>> Genotype.from_multipliers({"head": 1.0}, ["stem", "head"])
            Genotype(importances=(0.125, 0.5), freezing_threshold=0.25)
        """
        names = _block_names(blocks)
        unknown = [name for name in multipliers if name not in names]
        if unknown:
            raise GenotypeError(
                f"no block is named {unknown[0]!r}; this model's blocks are: {', '.join(names)}"
            )
        if not multipliers:
            raise GenotypeError("multipliers must name at least one block, got none")
        genes = {name: importance_of(multiplier) for name, multiplier in multipliers.items()}
        smallest = min(genes.values())
        if smallest <= 0.0:
            raise GenotypeError(
                f"a multiplier must be greater than {MINIMUM_MULTIPLIER} to exceed the freezing "
                f"threshold, got {min(multipliers.values())}"
            )
        importances = tuple(genes.get(name, smallest / 4) for name in names)
        return cls(importances, smallest / 2)

    @classmethod
    def random(cls, n_blocks: int, generator: np.random.Generator) -> Genotype:
        """A valid genotype with every gene drawn from U[0, 1]; invalid draws are drawn again.

        Args:
            n_blocks: number of importance genes, at least 1.
            generator: the source of randomness; the same state gives the same genotype.

        Raises:
            GenotypeError: `n_blocks` is less than 1.
        """
        if n_blocks < 1:
            raise GenotypeError(f"n_blocks must be at least 1, got {n_blocks}")
        while True:
            genotype = cls.from_array(generator.random(n_blocks + 1))
            if genotype.is_valid:
                return genotype

    def to_array(self) -> NDArray[np.float64]:
        """The genes as one vector: importances, threshold, extra genes in the order of their names.

        Shape: (number of blocks + 1 + number of extra genes,).
        """
        return np.array([*self.importances, self.freezing_threshold, *self.extra_genes.values()])

    @classmethod
    def from_array(cls, genes: ArrayLike, extra_genes: Sequence[str] = ()) -> Genotype:
        """The inverse of [`~Genotype.to_array`].

        Args:
            genes: shape (number of blocks + 1 + number of extra genes,).
            extra_genes: names of the last ones, in their order.
        """
        values = np.asarray(genes, dtype=float).tolist()
        n_blocks = len(values) - 1 - len(extra_genes)
        extra = dict(zip(extra_genes, values[n_blocks + 1 :], strict=True))
        return cls(tuple(values[:n_blocks]), values[n_blocks], extra)

    def to_dict(self) -> dict[str, Any]:
        """`{"importances": [...], "freezing_threshold": ...}`, plain numbers for JSON.

        With extra genes, `"extra"` holds them by name.
        """
        values: dict[str, Any] = {
            "importances": list(self.importances),
            "freezing_threshold": self.freezing_threshold,
        }
        return {**values, "extra": self.extra_genes} if self.extra else values

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Genotype:
        """The inverse of [`~Genotype.to_dict`].

        Raises:
            GenotypeError: an entry is missing or is not what `to_dict` writes.
        """
        if not isinstance(data, Mapping) or not {"importances", "freezing_threshold"} <= set(data):
            raise GenotypeError(
                f"a genotype needs 'importances' and 'freezing_threshold', got {shown(data)}"
            )
        importances = data["importances"]
        if isinstance(importances, str) or not isinstance(importances, Iterable):
            raise GenotypeError(f"importances must be a list of numbers, got {shown(importances)}")
        extra = data.get("extra", {})
        if not isinstance(extra, Mapping) or not all(
            isinstance(name, str) and len(name) <= MAX_NAME_LENGTH for name in extra
        ):
            raise GenotypeError(f"extra must be a dict of name to number, got {shown(extra)}")
        return cls(tuple(importances), data["freezing_threshold"], extra)

    def to_json(self) -> str:
        """One line of JSON that [`~Genotype.from_json`] reads back to an equal genotype."""
        return json.dumps(self.to_dict())

    @classmethod
    def from_json(cls, text: str) -> Genotype:
        """The inverse of [`~Genotype.to_json`].

        Raises:
            GenotypeError: `text` is not JSON, or holds no genotype.
        """
        try:
            return cls.from_dict(parse_json(text, "the genotype"))
        except ConfigError as error:
            raise GenotypeError(str(error)) from error


def _gene(value: Any, name: str) -> float:
    """Check one gene; `+ 0.0` turns -0.0 into 0.0, so that equal genes have equal keys."""
    if isinstance(value, (str, bool)) or not isinstance(value, (int, float, np.number)):
        raise GenotypeError(f"{name} must be a number in [0, 1], got {shown(value)}")
    if not 0.0 <= value <= 1.0:
        raise GenotypeError(f"{name} must be in [0, 1], got {shown(value)}")
    return float(value) + 0.0


def _block_names(blocks: Partition | Sequence[str]) -> tuple[str, ...]:
    return tuple(block if isinstance(block, str) else block.name for block in blocks)
