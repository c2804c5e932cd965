"""The first generation's seeded individuals: what people would try by hand.

With them the result can't be worse, by validation score, than the habits it replaces.
"""

from __future__ import annotations

from ..blocks import Partition
from ..genotype import Genotype


def linear_probe(partition: Partition) -> dict[str, float]:
    """The last block alone, at the base learning rate."""
    return {partition.names[-1]: 1.0}


def full_fine_tuning(partition: Partition) -> dict[str, float]:
    """Every block at the base learning rate."""
    return dict.fromkeys(partition.names, 1.0)


def last_half(partition: Partition) -> dict[str, float]:
    """The second half of the blocks, the middle one included, at the base learning rate."""
    return dict.fromkeys(partition.names[len(partition) // 2 :], 1.0)


def starting_points(partition: Partition) -> dict[str, Genotype]:
    """The seeded individuals by name, without duplicates.

    Args:
        partition: the model's blocks.

    Returns:
        `{"linear probe": ..., "full fine-tuning": ..., "last half": ...}`; of methods that are the
        same for a model of few blocks, the first.
    """
    methods = {
        "linear probe": linear_probe,
        "full fine-tuning": full_fine_tuning,
        "last half": last_half,
    }
    found: dict[str, Genotype] = {}
    for name, method in methods.items():
        genotype = Genotype.from_multipliers(method(partition), partition)
        if genotype not in found.values():
            found[name] = genotype
    return found
