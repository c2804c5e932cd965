"""The first generation's seeded individuals: what people would try by hand.

With them the result can't be worse, by validation score, than the habits it replaces.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import optuna

from ..blocks import Partition
from ..extra_genes import STATISTICS_GENE, genes_of, rate_factor
from ..genotype import MAXIMUM_MULTIPLIER, MINIMUM_MULTIPLIER, Genotype

STARTS_KEY = "starts"
FULL = "full fine-tuning"
# Of the base rate: full fine-tuning with frozen BatchNorm statistics is stable there.
FROZEN_STATISTICS_RATE = 10.0**-0.5


def linear_probe(partition: Partition) -> dict[str, float]:
    """The last block alone, at the base learning rate."""
    return {partition.names[-1]: 1.0}


def full_fine_tuning(partition: Partition) -> dict[str, float]:
    """Every block at the base learning rate."""
    return dict.fromkeys(partition.names, 1.0)


def last_half(partition: Partition) -> dict[str, float]:
    """The second half of the blocks, the middle one included, at the base learning rate."""
    return dict.fromkeys(partition.names[len(partition) // 2 :], 1.0)


def gradient_informed(ratios: Mapping[str, float]) -> dict[str, float]:
    """Blocks whose gradients are large for their weights learn fast, the weakest are frozen.

    A block's multiplier is the square root of its ratio relative to the median block's, at most 10;
    a block for which it is 0.1 or less is frozen. AutoRGN divides by the maximum and takes no root:
    a new head, whose ratio is often a hundred times the median, would leave every other block
    without a rate.

    Args:
        ratios: of the norms of gradient and weights, by block; see [`relative_gradient_norms`].

    Returns:
        Nothing if a ratio is not a number, or if most are 0.

    Example:
        >>> gradient_informed({"stem": 0.0, "body": 0.1, "top": 0.1, "head": 40.0, "tail": 0.001})
        {'body': 1.0, 'top': 1.0, 'head': 10.0}

    Source: Lee et al., arXiv 2210.11466 (AutoRGN), with the changes above.
    """
    values = np.array(list(ratios.values()))
    reference = float(np.median(values))
    if np.isnan(values).any() or not 0.0 < reference < math.inf:
        return {}
    multipliers = {name: math.sqrt(ratio / reference) for name, ratio in ratios.items()}
    return {
        name: min(multiplier, MAXIMUM_MULTIPLIER)
        for name, multiplier in multipliers.items()
        if multiplier > MINIMUM_MULTIPLIER
    }


def starting_points(
    partition: Partition, ratios: Mapping[str, float] | None = None
) -> dict[str, Genotype]:
    """The seeded individuals by name, without duplicates.

    Args:
        partition: the model's blocks.
        ratios: for [`gradient_informed`]. Default: without this individual.

    Returns:
        `{"linear probe": ..., "full fine-tuning": ..., "last half": ..., "gradient-informed":
        ...}`; of methods that are the same, the first.
    """
    methods = {
        "linear probe": linear_probe(partition),
        FULL: full_fine_tuning(partition),
        "last half": last_half(partition),
        "gradient-informed": gradient_informed(ratios or dict.fromkeys(partition.names, 0.0)),
    }
    found: dict[str, Genotype] = {}
    for name, multipliers in methods.items():
        if not multipliers:
            continue
        genotype = Genotype.from_multipliers(multipliers, partition)
        if genotype not in found.values():
            found[name] = genotype
    return found


def starts_of(
    study: optuna.Study,
    partition: Partition,
    ratios: Callable[[], Mapping[str, float] | None],
    extra: Mapping[str, float] | None = None,
) -> dict[str, Genotype]:
    """The starting points of a study, found once and kept in it.

    Another machine, or another number of threads, may give gradients other last bits; a resumed
    search must begin with the same genes.

    Args:
        study: of a search.
        partition: the model's blocks.
        ratios: measures what [`gradient_informed`] takes, `None` if that is not possible; called if
            the study has no starts yet.
        extra: the extra genes of all of them. Default: none.
    """
    if STARTS_KEY not in study.user_attrs:
        extra = extra or {}
        found = {
            name: _with_extra_genes(genotype, partition, extra)
            for name, genotype in starting_points(partition, ratios()).items()
        }
        if STATISTICS_GENE in extra:
            found = _with_frozen_statistics(found, partition, extra)
        study.set_user_attr(STARTS_KEY, {n: genotype.to_dict() for n, genotype in found.items()})
    stored = study.user_attrs[STARTS_KEY]
    return {name: Genotype.from_dict(genotype) for name, genotype in stored.items()}


def _with_extra_genes(
    genotype: Genotype, partition: Partition, extra: Mapping[str, float]
) -> Genotype:
    """A start at its own rates, whatever extra genes make of these, as far as genes reach."""
    factor = rate_factor(extra)
    if factor != 1.0:
        multipliers = {
            name: min(multiplier / factor, MAXIMUM_MULTIPLIER)
            for name, multiplier in genotype.decode(partition).items()
        }
        genotype = Genotype.from_multipliers(multipliers, partition)
    return replace(genotype, extra=extra)


def _with_frozen_statistics(
    starts: Mapping[str, Genotype], partition: Partition, extra: Mapping[str, float]
) -> dict[str, Genotype]:
    """The same, and full fine-tuning with frozen BatchNorm statistics right behind it."""
    extra = {**extra, **genes_of({STATISTICS_GENE: "frozen"})}
    multiplier = FROZEN_STATISTICS_RATE / rate_factor(extra)
    multipliers = dict.fromkeys(partition.names, min(multiplier, MAXIMUM_MULTIPLIER))
    frozen = replace(Genotype.from_multipliers(multipliers, partition), extra=extra)
    found: dict[str, Genotype] = {}
    for name, genotype in starts.items():
        found[name] = genotype
        # With one block, full fine-tuning goes by the name of the linear probe.
        if name == FULL or len(partition) == 1:
            found.setdefault(f"{FULL}, frozen statistics", frozen)
    return found
