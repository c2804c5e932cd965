"""From a genotype to what is trained: the configuration of an individual of a search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from optuna.trial import FrozenTrial, Trial

from ..blocks import Partition
from ..config import BioTuneConfig
from ..evolution import genotype_of
from ..genotype import Genotype, lr_multiplier
from .search_config import SearchConfig


class Phenotypes:
    """Decodes the genotypes of one search.

    Args:
        partition: the model's blocks.
        search: which blocks are always trained, and what their statistics do.
        unsaved: blocks that no checkpoint of the base model holds, such as a new head.
    """

    def __init__(self, partition: Partition, search: SearchConfig, unsaved: Sequence[str]) -> None:
        for name in search.always_train:
            partition[name]  # raises for an unknown block
        self._partition = partition
        self._search = search
        self._unsaved = tuple(unsaved)

    @property
    def block_names(self) -> tuple[str, ...]:
        """Of the partition, in order."""
        return self._partition.names

    def genotype_of(self, trial: Trial | FrozenTrial) -> Genotype:
        """What a trial trains: its genes; repaired if they select no block."""
        return genotype_of(trial, self.block_names).repaired()

    def config_of(self, genotype: Genotype) -> BioTuneConfig:
        """What a genotype stands for, `always_train` included."""
        names = self._partition.names
        config = BioTuneConfig.from_genotype(
            genotype, self._partition, norm_statistics=self._search.norm_statistics
        )
        genes = dict(zip(names, genotype.importances, strict=True))
        multipliers = config.lr_multipliers
        for name in self._search.always_train:
            multipliers.setdefault(name, lr_multiplier(genes[name]))
        config.lr_multipliers = {name: multipliers[name] for name in names if name in multipliers}
        config.saved_blocks = [name for name in self._unsaved if name not in multipliers]
        return config


def phenotype_key(multipliers: Mapping[str, float]) -> tuple[tuple[str, int], ...]:
    """Blocks and rates to a quarter of a decade: finer differences are below the noise of seeds.

    Example:
        >>> phenotype_key({"head": 1.1}) == phenotype_key({"head": 1.0})
        True
    """
    return tuple(
        (name, round(4 * float(np.log10(multiplier)))) for name, multiplier in multipliers.items()
    )
