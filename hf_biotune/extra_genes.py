"""Genes beside those of the blocks: settings of the training that evolve along with them.

Each is one more number in [0, 1], which the same operators cross and mutate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .exceptions import ConfigError

# Genes up to here stand for "none": on a logarithmic scale there is no 0.
NONE_UP_TO = 0.1
# Trained blocks whose BatchNorm statistics don't move diverge at rates that others learn best with.
# With a tenth, what is trained by random genes learns at about a third of the base rate.
FROZEN_STATISTICS_FACTOR = 0.1
STATISTICS_GENE = "norm_statistics"


@dataclass(frozen=True)
class ExtraGene:
    """One setting of the training.

    Args:
        name: of the gene and of the setting.
        decode: from the gene to the setting.
        encode: from a setting to a gene that decodes to it, or to the nearest there is.
    """

    name: str
    decode: Callable[[float], Any]
    encode: Callable[[Any], float]


def _logarithmic(name: str, lowest: float, highest: float) -> ExtraGene:
    """0 for genes up to `NONE_UP_TO`, from there on logarithmic from `lowest` to `highest`."""
    decades = math.log10(highest / lowest)

    def decode(gene: float) -> float:
        if gene <= NONE_UP_TO:
            return 0.0
        share = (gene - NONE_UP_TO) / (1.0 - NONE_UP_TO)
        return float(lowest * 10.0 ** (decades * share))

    def encode(value: float) -> float:
        if value <= 0.0:
            return 0.0
        share = math.log10(value / lowest) / decades
        # A value below the lowest is nearer to it than to none.
        share = min(1.0, max(math.ulp(1.0), share))
        return NONE_UP_TO + (1.0 - NONE_UP_TO) * share

    return ExtraGene(name, decode, encode)


EXTRA_GENES: Mapping[str, ExtraGene] = {
    gene.name: gene
    for gene in (
        # Half a decade either way; the multipliers of the blocks reach a whole one.
        ExtraGene(
            "base_lr",
            decode=lambda gene: float(10.0 ** (gene - 0.5)),
            encode=lambda factor: min(1.0, max(0.0, 0.5 + math.log10(factor))),
        ),
        _logarithmic("l2sp", 1e-4, 1e-1),
        ExtraGene(
            STATISTICS_GENE,
            decode=lambda gene: "frozen" if gene > 0.5 else "epoch",
            encode=lambda mode: 0.75 if mode == "frozen" else 0.25,
        ),
        _logarithmic("weight_decay", 1e-4, 1.0),
    )
}


def checked_extra_genes(names: Iterable[str]) -> tuple[str, ...]:
    """Names of extra genes, in the order in which they stand in a genotype.

    Raises:
        ConfigError: an unknown one, or one twice.

    Example:
        >>> checked_extra_genes(["norm_statistics", "base_lr"])
        ('base_lr', 'norm_statistics')
    """
    if isinstance(names, str):
        raise ConfigError(f"extra_genes must be a list of names, got the string {names!r}")
    names = tuple(names)
    for name in names:
        if name not in EXTRA_GENES:
            raise ConfigError(f"extra_genes must be among {', '.join(EXTRA_GENES)}, got {name!r}")
        if names.count(name) > 1:
            raise ConfigError(f"extra_genes must differ from each other, got {name!r} twice")
    return tuple(sorted(names))


def settings_of(genes: Mapping[str, float]) -> dict[str, Any]:
    """What extra genes stand for.

    Args:
        genes: in [0, 1], by name.

    Returns:
        `base_lr`, the factor on the base learning rate in [0.316, 3.16]; `norm_statistics`, see
        [`BioTuneConfig`]; `weight_decay`, 0 or in [1e-4, 1]; `l2sp`, the strength of the pull
        towards the pre-trained weights, 0 or in [1e-4, 0.1]; as far as there is a gene.

    Example:
        >>> settings_of({"norm_statistics": 0.7, "l2sp": 0.05})
        {'norm_statistics': 'frozen', 'l2sp': 0.0}
    """
    return {name: EXTRA_GENES[name].decode(gene) for name, gene in genes.items()}


def rate_factor(genes: Mapping[str, float]) -> float:
    """What extra genes make of every learning rate: `base_lr`, and a tenth with frozen statistics.

    Args:
        genes: in [0, 1], by name.

    Example:
        >>> round(rate_factor({"norm_statistics": 0.7, "base_lr": 0.5}), 3)
        0.1
    """
    settings = settings_of(genes)
    frozen = settings.get(STATISTICS_GENE) == "frozen"
    return float(settings.get("base_lr", 1.0)) * (FROZEN_STATISTICS_FACTOR if frozen else 1.0)


def genes_of(settings: Mapping[str, Any]) -> dict[str, float]:
    """Genes that decode to settings, or to the nearest there are; see [`settings_of`]."""
    return {name: EXTRA_GENES[name].encode(value) for name, value in settings.items()}
